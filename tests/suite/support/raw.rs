//! Exactly these bytes over TLS, and what comes back: for what no well-behaved
//! client would send. Also the few HTTP/2 frames that attacks are made of.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::client::{BoxError, Client};

const DEADLINE: Duration = Duration::from_secs(30);

/// One TLS connection on which anything may be written.
pub(crate) struct Raw {
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

/// One HTTP/1 answer as bytes.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl RawAnswer {
    /// The value of this header, names compared as written.
    pub(crate) fn exact_header(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn code(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["error"].as_str().unwrap_or_default().to_owned()
    }
}

impl Raw {
    pub(crate) async fn connect(client: &Client) -> Self {
        let stream = timeout(DEADLINE, client.tls()).await.expect("a handshake in time");
        Self { stream: stream.expect("a TLS connection"), read: Vec::new() }
    }

    /// Writes, or says that the peer has closed.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), BoxError> {
        timeout(DEADLINE, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await??;
        Ok(())
    }

    /// One answer, framed as its head says; `None` when the peer closed first.
    pub(crate) async fn answer(&mut self) -> Option<RawAnswer> {
        let end = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end);
        let status = head.get(9..12).and_then(|text| text.parse().ok()).unwrap_or(0);
        let lower = head.to_ascii_lowercase();
        let length = header(&lower, "content-length").and_then(|text| text.parse::<usize>().ok());
        let body = if status < 200 || status == 204 || status == 304 {
            Vec::new()
        } else if let Some(length) = length {
            while self.read.len() < length && self.more().await {}
            let length = length.min(self.read.len());
            self.read.drain(..length).collect()
        } else if header(&lower, "transfer-encoding") == Some("chunked") {
            self.chunks().await
        } else {
            while self.more().await {}
            std::mem::take(&mut self.read)
        };
        Some(RawAnswer { status, head, body })
    }

    /// Everything until the peer closes; a deadline is a failure.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Whether the peer closes within this time without sending anything more.
    pub(crate) async fn closes_within(&mut self, limit: Duration) -> bool {
        let mut one = [0_u8; 1];
        match timeout(limit, self.stream.read(&mut one)).await {
            Ok(Ok(0) | Err(_)) => true,
            Ok(Ok(_)) | Err(_) => false,
        }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = find(&self.read, b"\r\n") {
                    break self.read.drain(..at + 2).collect::<Vec<u8>>();
                }
                if !self.more().await {
                    return body;
                }
            };
            let text = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(text.trim(), 16).expect("a chunk size");
            while self.read.len() < size + 2 && self.more().await {}
            if size == 0 {
                self.read.drain(..2.min(self.read.len()));
                return body;
            }
            let chunk: Vec<u8> = self.read.drain(..(size + 2).min(self.read.len())).collect();
            body.extend_from_slice(&chunk[..size.min(chunk.len())]);
        }
    }

    /// Reads more; false once the peer has closed.
    async fn more(&mut self) -> bool {
        let mut buffer = vec![0_u8; 16 * 1024];
        let read = timeout(DEADLINE, self.stream.read(&mut buffer)).await;
        match read.expect("bytes or an end in time") {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }
}

/// Sends these bytes on a connection of their own and reads one answer.
pub(crate) async fn exchange(client: &Client, bytes: &[u8]) -> Option<RawAnswer> {
    let mut raw = Raw::connect(client).await;
    raw.write(bytes).await.expect("the request is written");
    raw.answer().await
}

fn header<'h>(lower_head: &'h str, name: &str) -> Option<&'h str> {
    lower_head
        .split("\r\n")
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// HTTP/2 by hand (RFC 9113, RFC 7541 without Huffman or table).
pub(crate) mod frame {
    pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;

    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    pub(crate) fn settings() -> Vec<u8> {
        frame(4, 0, 0, &[])
    }

    pub(crate) fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
        frame(1, flags, stream, block)
    }

    pub(crate) fn continuation(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
        frame(9, flags, stream, block)
    }

    /// Cancels a stream, as in CVE-2023-44487.
    pub(crate) fn reset(stream: u32) -> Vec<u8> {
        frame(3, 0, stream, &8_u32.to_be_bytes())
    }

    /// Fields as literals without indexing.
    pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in fields {
            bytes.push(0);
            string(&mut bytes, name);
            string(&mut bytes, value);
        }
        bytes
    }

    fn string(bytes: &mut Vec<u8>, text: &str) {
        let mut length = text.len();
        if length < 127 {
            bytes.push(u8::try_from(length).expect("below 127"));
        } else {
            bytes.push(127);
            length -= 127;
            while length >= 128 {
                bytes.push(u8::try_from(length % 128).expect("below 128") | 128);
                length /= 128;
            }
            bytes.push(u8::try_from(length).expect("below 128"));
        }
        bytes.extend_from_slice(text.as_bytes());
    }

    /// The frames in these bytes, as (kind, flags, stream, payload).
    pub(crate) fn parse(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut frames = Vec::new();
        while bytes.len() >= 9 {
            let length =
                usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
            if bytes.len() < 9 + length {
                break;
            }
            let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
            frames.push((bytes[3], bytes[4], stream, bytes[9..9 + length].to_vec()));
            bytes = &bytes[9 + length..];
        }
        frames
    }
}
