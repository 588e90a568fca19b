//! Stands between a directory server and the LDAP library: starts TLS when asked
//! to, and lets no message through that an honest server would not send. Knows no
//! users and no library.

use bytes::BytesMut;
use tokio::io::{self, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::directory::DirectoryError;
use crate::directory::ber::{self, Malformed};

/// Room made for each read, in bytes.
const READ_BYTES: usize = 8 * 1024;
/// Longest answer to StartTLS, in bytes; it comes before anybody is authenticated.
const START_TLS_ANSWER_BYTES_MAX: usize = 4 * 1024;
/// `ExtendedRequest` 1.3.6.1.4.1.1466.20037 with message id 1 (RFC 4511 section 4.14).
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const EXTENDED_RESPONSE: u8 = 0x78;
const ENUMERATED: u8 = 0x0a;

/// Why the guard ended a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the server sent {0}")]
    Malformed(#[from] Malformed),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Carries bytes between server and library until either ends; towards the
/// library only whole messages that were checked to their last element.
///
/// # Errors
/// When the server sends what no honest one does, or a socket fails.
pub(super) async fn relay<S>(server: S, library: UnixStream) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite,
{
    let (from_server, mut to_server) = io::split(server);
    let (mut from_library, to_library) = library.into_split();
    tokio::select! {
        ended = admit(from_server, to_library) => ended,
        ended = io::copy(&mut from_library, &mut to_server) => Ok(ended.map(drop)?),
    }
}

async fn admit(
    mut server: impl AsyncRead + Unpin,
    mut library: impl AsyncWrite + Unpin,
) -> Result<(), Ended> {
    let mut buffer = BytesMut::new();
    loop {
        let (whole, checked) = whole_messages(&buffer);
        library.write_all(&buffer.split_to(whole)).await?;
        checked?;
        buffer.reserve(READ_BYTES);
        if server.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// How long the messages are together that are there to their ends, up to one that is
/// malformed.
fn whole_messages(bytes: &[u8]) -> (usize, Result<(), Malformed>) {
    let mut whole = 0;
    loop {
        match ber::message(bytes.get(whole..).unwrap_or_default()) {
            Ok(Some(length)) => whole += length,
            Ok(None) => return (whole, Ok(())),
            Err(malformed) => return (whole, Err(malformed)),
        }
    }
}

/// Asks for TLS in the clear; on success the next byte from the server is TLS.
///
/// # Errors
/// When the server refuses, does not answer in the words of the protocol, or
/// something stands behind the answer that an attacker on the path may have put there.
pub(super) async fn start_tls<S>(server: &mut S) -> Result<(), DirectoryError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    server.write_all(START_TLS).await.map_err(DirectoryError::Connect)?;
    let mut buffer = BytesMut::with_capacity(START_TLS_ANSWER_BYTES_MAX);
    loop {
        let malformed = |_| DirectoryError::StartTls("the answer is malformed");
        if let Some(length) = ber::message(&buffer).map_err(malformed)? {
            if length != buffer.len() {
                return Err(DirectoryError::StartTls("there is more behind the answer"));
            }
            return match is_success(&buffer) {
                Some(true) => Ok(()),
                Some(false) => Err(DirectoryError::StartTls("the server refuses")),
                None => Err(DirectoryError::StartTls("the answer is to something else")),
            };
        }
        if buffer.len() >= START_TLS_ANSWER_BYTES_MAX {
            return Err(DirectoryError::StartTls("the answer is too long"));
        }
        let mut limited = (&mut *server)
            .take(u64::try_from(START_TLS_ANSWER_BYTES_MAX - buffer.len()).unwrap_or_default());
        if limited.read_buf(&mut buffer).await.map_err(DirectoryError::Connect)? == 0 {
            return Err(DirectoryError::StartTls("the server hung up"));
        }
    }
}

/// Whether an extended response to message 1 has result code 0; `None` when it is none.
fn is_success(message: &[u8]) -> Option<bool> {
    let (message, _) = ber::element(message)?;
    let [id, operation] = *ber::elements(message.content)?.as_slice() else { return None };
    if id.content != [1] || operation.tag != EXTENDED_RESPONSE {
        return None;
    }
    let (code, _) = ber::element(operation.content)?;
    (code.tag == ENUMERATED).then_some(code.content == [0])
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::net::UnixStream;

    use super::{Ended, START_TLS, relay, start_tls};
    use crate::directory::DirectoryError;

    const BIND_ANSWER: &[u8] = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";

    #[tokio::test]
    async fn only_whole_checked_messages_reach_the_library() {
        let (ours, mut server) = duplex(1 << 16);
        let (guard_end, mut library) = UnixStream::pair().unwrap();
        let relay = tokio::spawn(relay(ours, guard_end));

        library.write_all(b"request").await.unwrap();
        let mut request = [0; 7];
        server.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"request");

        let hostile = [BIND_ANSWER, BIND_ANSWER, &BIND_ANSWER[..7]].concat();
        server.write_all(&hostile).await.unwrap();
        drop(server);
        let mut received = Vec::new();
        library.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [BIND_ANSWER, BIND_ANSWER].concat());
        assert!(relay.await.unwrap().is_ok(), "cut off within a message, nothing malformed");
    }

    #[tokio::test]
    async fn a_hostile_message_ends_the_connection_without_reaching_the_library() {
        let (ours, mut server) = duplex(1 << 20);
        let (guard_end, mut library) = UnixStream::pair().unwrap();
        let relay = tokio::spawn(relay(ours, guard_end));
        let nested = (0..200).fold(Vec::new(), |inside: Vec<u8>, _| {
            let length = u32::try_from(inside.len()).unwrap().to_be_bytes();
            [&[0x30, 0x84], length.as_slice(), &inside].concat()
        });
        server.write_all(&nested).await.unwrap();
        let mut received = Vec::new();
        library.read_to_end(&mut received).await.unwrap();
        assert!(received.is_empty());
        assert!(matches!(relay.await.unwrap(), Err(Ended::Malformed(_))));
    }

    async fn asked(mut server: DuplexStream, answer: &[u8]) -> DuplexStream {
        let mut request = vec![0; START_TLS.len()];
        server.read_exact(&mut request).await.unwrap();
        assert_eq!(request, START_TLS);
        server.write_all(answer).await.unwrap();
        server
    }

    #[tokio::test]
    async fn only_a_plain_yes_starts_tls() {
        let yes = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00".as_slice();
        let behind = [yes, b"x"].concat();
        let long = [b"\x30\x82\x20\x00".as_slice(), &[0; 5000]].concat();
        for (answer, accepted) in [
            (yes, true),
            (b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00", false),
            (b"\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00", false),
            (BIND_ANSWER, false),
            (&behind, false),
            (&long, false),
            (b"\x30\x00", false),
            (b"", false),
        ] {
            let (mut ours, server) = duplex(1 << 16);
            let hang_up = async { drop(asked(server, answer).await) };
            let (result, ()) = tokio::join!(start_tls(&mut ours), hang_up);
            assert_eq!(result.is_ok(), accepted, "{answer:02x?}");
            assert!(result.is_ok() || matches!(result, Err(DirectoryError::StartTls(_))));
        }
    }
}
