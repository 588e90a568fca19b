//! One connection of the recording backend: HTTP/1.1 read and written by hand.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::raw::find;
use super::upstream::{Counted, Script, Seen, Shared, hex};

const KEPT_BODY_BYTES: usize = 64 * 1024;

/// One accepted connection.
pub(crate) struct Connection {
    stream: TcpStream,
    number: usize,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, number: usize, shared: Arc<Shared>) -> Self {
        Self { stream, number, shared, buffer: Vec::new() }
    }

    /// Request after request, until either side has had enough.
    pub(crate) async fn serve(mut self) {
        let shared = Arc::clone(&self.shared);
        let _open = Counted::new(&shared.open);
        let _ = self.stream.set_nodelay(true);
        while let Ok(Some(seen)) = self.head().await {
            if seen.header("upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket")) {
                self.shared.record(seen.clone());
                let _ = self.websocket(&seen).await;
                return;
            }
            if self.request(seen).await.is_err() {
                return;
            }
        }
    }

    /// The next head, `None` at a clean end.
    async fn head(&mut self) -> io::Result<Option<Seen>> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.split("\r\n");
        let mut request_line = lines.next().unwrap_or_default().splitn(3, ' ');
        let method = request_line.next().unwrap_or_default().to_owned();
        let target = request_line.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(field).collect();
        Ok(Some(Seen { head, method, target, headers, connection: self.number, ..Seen::default() }))
    }

    async fn request(&mut self, mut seen: Seen) -> io::Result<()> {
        let script = self.shared.script(seen.path());
        if let Some(Script::Reluctant(mut go)) = script {
            // Counted as seen before its body, so that a test can tell "not read" from "not sent".
            self.shared.record(seen.clone());
            let _ = go.wait_for(|go| *go).await;
            self.body(&mut seen).await?;
            return self.json(&seen).await;
        }
        let verb = seen.path().rsplit('/').next().unwrap_or_default().to_owned();
        if verb == "early" {
            self.shared.record(seen.clone());
            self.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await?;
            return self.body(&mut seen).await;
        }
        if self.body(&mut seen).await.is_err() {
            // A request that broke off is recorded too: it was seen.
            self.shared.record(seen);
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.shared.record(seen.clone());
        match script {
            Some(Script::Answer(bytes)) => {
                self.write(&bytes).await?;
                let closes = find(&bytes, b"Connection: close").is_some();
                if closes { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
            }
            Some(Script::Steps { content_type, chunks }) => self.steps(content_type, chunks).await,
            Some(Script::Reluctant(_)) | None => self.by_verb(&verb, &seen).await,
        }
    }

    async fn by_verb(&mut self, verb: &str, seen: &Seen) -> io::Result<()> {
        match verb {
            "chunked" => {
                self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                self.write(b"5\r\nfirst\r\n7\r\n second\r\n0\r\n\r\n").await
            }
            "trailers" => {
                let head =
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
                self.write(head.as_bytes()).await?;
                self.write(b"4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n").await
            }
            "hold" => {
                let mut release = self.shared.release.subscribe();
                let shared = Arc::clone(&self.shared);
                let held = Counted::new(&shared.held);
                let _ = release.wait_for(|go| *go).await;
                drop(held);
                self.json(seen).await
            }
            "slow" => self.slow().await,
            "big" => self.big(number(seen, "bytes")).await,
            "close" => Err(io::ErrorKind::ConnectionAborted.into()),
            "break" => {
                self.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this").await?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            "stall" => self.stall().await,
            _ => self.json(seen).await,
        }
    }

    /// What arrived, as JSON; no body to HEAD.
    async fn json(&mut self, seen: &Seen) -> io::Result<()> {
        let body = seen.to_json().to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.write(head.as_bytes()).await?;
        if seen.method == "HEAD" { Ok(()) } else { self.write(body.as_bytes()).await }
    }

    /// An answer in twenty pieces over half a second, its length known beforehand.
    async fn slow(&mut self) -> io::Result<()> {
        self.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n").await?;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            self.write(b"0123456789").await?;
        }
        Ok(())
    }

    async fn big(&mut self, bytes: u64) -> io::Result<()> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        self.write(head.as_bytes()).await?;
        let piece = vec![0x5a_u8; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            self.stream.write_all(&piece[..count]).await?;
            left -= count as u64;
        }
        Ok(())
    }

    /// Waits for the other side to leave.
    async fn stall(&mut self) -> io::Result<()> {
        while self.fill().await? > 0 {}
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    async fn steps(
        &mut self,
        content_type: &str,
        mut chunks: tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>,
    ) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        self.write(head.as_bytes()).await?;
        let mut one = [0_u8; 1];
        loop {
            tokio::select! {
                chunk = chunks.recv() => {
                    let Some(chunk) = chunk else { return self.write(b"0\r\n\r\n").await };
                    let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
                    framed.extend_from_slice(&chunk);
                    framed.extend_from_slice(b"\r\n");
                    self.write(&framed).await?;
                }
                // The gateway hangs up when the session or the client has gone.
                _ = self.stream.peek(&mut one) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }

    async fn websocket(mut self, seen: &Seen) -> io::Result<()> {
        let key = seen.header("sec-websocket-key").unwrap_or_default();
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        self.write(head.as_bytes()).await?;
        let shared = Arc::clone(&self.shared);
        let _open = Counted::new(&shared.websockets);
        let rest = std::mem::take(&mut self.buffer);
        let mut socket =
            WebSocketStream::from_partially_read(self.stream, rest, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let echoed = match message {
                Message::Text(_) | Message::Binary(_) => socket.send(message).await,
                Message::Close(_) => socket.flush().await,
                _ => Ok(()),
            };
            if echoed.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Reads the body as the head frames it.
    async fn body(&mut self, seen: &mut Seen) -> io::Result<()> {
        let mut hash = Sha256::new();
        let length = seen.header("content-length").and_then(|text| text.parse::<u64>().ok());
        if seen.header("transfer-encoding").is_some() {
            loop {
                let line = self.line().await?;
                let size = u64::from_str_radix(line.trim(), 16)
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                if size == 0 {
                    break;
                }
                self.take(size, seen, &mut hash).await?;
                self.line().await?;
            }
            loop {
                let line = self.line().await?;
                let Some(trailer) = field(&line) else { break };
                seen.trailers.push(trailer);
            }
        } else if let Some(length) = length {
            self.take(length, seen, &mut hash).await?;
        }
        seen.body_sha256 = hex(&hash.finalize());
        Ok(())
    }

    async fn take(&mut self, mut left: u64, seen: &mut Seen, hash: &mut Sha256) -> io::Result<()> {
        while left > 0 {
            if self.buffer.is_empty() && self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let piece = &self.buffer[..count];
            hash.update(piece);
            let room = KEPT_BODY_BYTES.saturating_sub(seen.body.len());
            seen.body.extend_from_slice(&piece[..room.min(count)]);
            seen.body_bytes += count as u64;
            left -= count as u64;
            self.buffer.drain(..count);
        }
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(256 * 1024);
        self.stream.read_buf(&mut self.buffer).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_owned(), value.trim().to_owned()))
}

fn number(seen: &Seen, name: &str) -> u64 {
    let query = seen.target.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok());
    found.unwrap_or(0)
}
