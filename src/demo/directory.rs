//! The demo directory: real LDAP over TLS on a loopback port, over the tree of
//! `people`. Read-only. Knows nothing of the gateway that asks it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ldap3_proto::proto::{LdapMsg, LdapOp};
use ldap3_proto::{DisconnectionNotice, LdapCodec, LdapResultCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::conversation::Conversation;
use super::service::Service;
use super::tree::Tree;

/// Largest message taken, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting taken.
const MESSAGE_DEPTH_MAX: usize = 32;
/// How long a client may take over its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the directory on a loopback port of the system's choice; it ends when
/// the returned value is dropped.
///
/// # Errors
/// When no port can be bound.
pub(super) async fn start(tree: Tree, tls: Arc<rustls::ServerConfig>) -> io::Result<Service> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (tree, acceptor) = (Arc::new(tree), TlsAcceptor::from(tls));
    Service::start(listener, move |socket: TcpStream, _peer: SocketAddr| {
        let (tree, acceptor) = (Arc::clone(&tree), acceptor.clone());
        async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket));
            if let Ok(Ok(stream)) = handshake.await {
                // A client that breaks off is no news.
                let _ = converse(stream, &tree).await;
            }
        }
    })
}

/// Answers one connection until it ends.
async fn converse<S>(mut stream: S, tree: &Tree) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut codec = LdapCodec::new(Some(MESSAGE_BYTES_MAX), Some(MESSAGE_DEPTH_MAX));
    let (mut incoming, mut outgoing) = (BytesMut::new(), BytesMut::new());
    let mut conversation = Conversation::new(tree);
    loop {
        let Ok(message) = codec.decode(&mut incoming) else {
            return disconnect(stream, &mut codec).await;
        };
        let Some(LdapMsg { msgid, op, ctrl }) = message else {
            if stream.read_buf(&mut incoming).await? == 0 {
                return Ok(());
            }
            continue;
        };
        if matches!(op, LdapOp::UnbindRequest) {
            return stream.shutdown().await;
        }
        let Some(answers) = conversation.answer(op, &ctrl) else {
            return disconnect(stream, &mut codec).await;
        };
        for op in answers {
            codec.encode(LdapMsg { msgid, op, ctrl: Vec::new() }, &mut outgoing)?;
        }
        stream.write_all_buf(&mut outgoing).await?;
        stream.flush().await?;
    }
}

/// RFC 4511 section 4.4.1: says why, then closes.
async fn disconnect<S>(mut stream: S, codec: &mut LdapCodec) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let mut outgoing = BytesMut::new();
    let reason = "the message is malformed, too large, or no request";
    let notice = DisconnectionNotice::gen_response(LdapResultCode::ProtocolError, reason);
    codec.encode(notice, &mut outgoing)?;
    stream.write_all_buf(&mut outgoing).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use ldap3_proto::LdapCodec;
    use ldap3_proto::proto::{LdapMsg, LdapOp, LdapResultCode};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::codec::{Decoder as _, Encoder as _};

    use super::converse;
    use crate::demo::people;
    use crate::secret::Secret;

    /// What the directory sends until it closes, after these bytes.
    async fn sent_after(bytes: &[u8]) -> Vec<LdapMsg> {
        let tree = people::tree(Secret::new("service".to_owned())).unwrap();
        let (mut client, server) = tokio::io::duplex(1024 * 1024);
        client.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let (ended, read) = tokio::join!(converse(server, &tree), async {
            client.shutdown().await.unwrap();
            client.read_to_end(&mut answer).await
        });
        ended.unwrap();
        read.unwrap();
        let (mut buffer, mut messages) = (BytesMut::from(answer.as_slice()), Vec::new());
        while let Some(message) = LdapCodec::default().decode(&mut buffer).unwrap() {
            messages.push(message);
        }
        messages
    }

    fn notice_code(messages: &[LdapMsg]) -> Option<LdapResultCode> {
        match messages {
            [LdapMsg { msgid: 0, op: LdapOp::ExtendedResponse(notice), .. }] => {
                Some(notice.res.code.clone())
            }
            _ => None,
        }
    }

    #[tokio::test]
    async fn garbage_is_answered_with_a_notice_and_the_end() {
        let too_large = vec![0x04; 200 * 1024];
        let too_deep = [0x30, 0x84, 0x00, 0x00, 0x10, 0x00].repeat(2_000);
        for bytes in [b"\x30\x00".as_slice(), &too_large, &too_deep] {
            let sent = sent_after(bytes).await;
            assert_eq!(notice_code(&sent), Some(LdapResultCode::ProtocolError), "{bytes:.20?}");
        }
    }

    #[tokio::test]
    async fn an_answer_sent_as_a_request_ends_the_connection() {
        let mut bytes = BytesMut::new();
        let result = crate::demo::conversation::result(LdapResultCode::Success, "");
        let op = LdapOp::SearchResultDone(result);
        LdapCodec::default().encode(LdapMsg { msgid: 1, op, ctrl: vec![] }, &mut bytes).unwrap();
        assert_eq!(notice_code(&sent_after(&bytes).await), Some(LdapResultCode::ProtocolError));
    }
}
