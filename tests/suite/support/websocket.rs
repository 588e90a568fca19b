//! WebSockets through the gateway, as a browser or a program opens them.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::client::Client;

pub(crate) type WebSocket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens one with the jar's cookies and these headers; otherwise the status and the body.
pub(crate) async fn open(
    client: &Client,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocket, (u16, Vec<u8>)> {
    let url = format!("wss://{}{target}", client.host);
    let mut request = url.into_client_request().expect("a WebSocket request");
    if let Some(cookies) = client.jar.header() {
        request.headers_mut().insert("cookie", cookies.parse().expect("cookies"));
    }
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().expect("a header value"));
    }
    let stream = client.tls().await.expect("a TLS connection");
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let status = response.status().as_u16();
            Err((status, response.into_body().unwrap_or_default()))
        }
        Err(error) => panic!("no WebSocket and no answer: {error}"),
    }
}
