//! The keys of internal assertions on a listener of their own: for upstreams, never
//! for the public, and not where metrics are read. Knows no key, only their text.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};

use crate::admin::plain::{self, Answer, Bounds, PlainListener};

/// The one path there is.
const PATH: &str = "/.well-known/jwks.json";

/// Some upstreams fetch the keys for every request, each over a connection of its own.
const BOUNDS: Bounds = Bounds { connections: 1024, header_timeout: Duration::from_secs(10) };

/// The bound listener.
pub struct JwksListener(PlainListener);

impl JwksListener {
    /// Binds the listener; port 0 takes any free port.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        PlainListener::bind(address).await.map(Self)
    }

    /// The address as bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Answers until dropped: this machine, and whom `admits` admits. `keys` gives
    /// the key set as JSON, from memory.
    pub async fn serve(
        self,
        admits: impl Fn(IpAddr) -> bool,
        keys: impl Fn() -> String + Send + Sync + 'static,
    ) {
        let admits = |peer: IpAddr| peer.is_loopback() || admits(peer);
        let page = move |method: &Method, path: &str| {
            plain::answer(method, (path == PATH).then_some(|| key_set(keys())))
        };
        self.0.serve(BOUNDS, admits, page).await;
    }
}

fn key_set(keys: String) -> Answer {
    let mut answer = plain::text(StatusCode::OK, keys.into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::JwksListener;

    #[tokio::test]
    async fn keys_are_told_at_one_path_to_get_and_head() {
        let listener = JwksListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address();
        let nobody = |_: IpAddr| false;
        tokio::spawn(listener.serve(nobody, || r#"{"keys":[]}"#.to_owned()));
        for (head, status, rest) in [
            ("GET /.well-known/jwks.json?x HTTP/1.1", "200", "\r\n\r\n{\"keys\":[]}"),
            ("HEAD /.well-known/jwks.json HTTP/1.1", "200", "\r\n\r\n"),
            ("POST /.well-known/jwks.json HTTP/1.1", "405", "only GET and HEAD\n"),
            ("GET /metrics HTTP/1.1", "404", "there is nothing here\n"),
            ("GET / HTTP/1.1", "404", "there is nothing here\n"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
            assert!(answer.ends_with(rest), "{head}: {answer}");
        }
    }
}
