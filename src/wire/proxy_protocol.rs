//! The PROXY header, versions 1 and 2, that a trusted proxy sends before TLS.
//! Reads exactly the header and not a byte more. Knows nobody to trust and no
//! timeout: both are the caller's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Both versions are longer than this, so that it can be read at once.
const SIGNATURE_BYTES: usize = 12;
/// How version 2 begins.
const SIGNATURE: &[u8; SIGNATURE_BYTES] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its line end.
const TEXT_BYTES_MAX: usize = 107;
/// The longest version 2 rest that is taken: addresses, and room for extensions.
const BINARY_BYTES_MAX: usize = 4096;

/// Why a connection does not begin with a PROXY header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProtocolError {
    /// The connection broke off within the header.
    #[error("the connection broke off within the PROXY header")]
    Io(#[from] io::Error),
    /// It begins with something else.
    #[error("the connection does not begin with a PROXY header")]
    Absent,
    /// The header is malformed or of an unknown kind.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// The header is longer than any proxy needs.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads the header and says whom the proxy speaks for; `None` when it speaks for
/// itself (`LOCAL`, `UNKNOWN`, or not an internet address).
///
/// # Errors
/// When there is no valid header; the connection is then useless.
pub async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let mut start = [0; SIGNATURE_BYTES];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        read_binary(stream).await
    } else if start.starts_with(b"PROXY ") {
        read_text(stream, start).await
    } else {
        Err(ProxyProtocolError::Absent)
    }
}

async fn read_binary<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let [command, family, length @ ..] = fixed;
    let length = usize::from(u16::from_be_bytes(length));
    if length > BINARY_BYTES_MAX {
        return Err(ProxyProtocolError::TooLong);
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (command, family) {
        // LOCAL; unspecified, or a Unix socket.
        (0x20, _) | (0x21, 0x00 | 0x31 | 0x32) => Ok(None),
        (0x21, 0x11) => v4_source(&rest).map(Some).ok_or(ProxyProtocolError::Malformed),
        (0x21, 0x21) => v6_source(&rest).map(Some).ok_or(ProxyProtocolError::Malformed),
        _ => Err(ProxyProtocolError::Malformed),
    }
}

fn v4_source(rest: &[u8]) -> Option<SocketAddr> {
    let addresses = rest.first_chunk::<12>()?;
    let address = Ipv4Addr::from(*addresses.first_chunk::<4>()?);
    Some(SocketAddr::new(address.into(), port(addresses.get(8..10)?)?))
}

fn v6_source(rest: &[u8]) -> Option<SocketAddr> {
    let addresses = rest.first_chunk::<36>()?;
    let address = Ipv6Addr::from(*addresses.first_chunk::<16>()?);
    Some(SocketAddr::new(address.into(), port(addresses.get(32..34)?)?))
}

fn port(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

async fn read_text<S: AsyncRead + Unpin>(
    stream: &mut S,
    start: [u8; SIGNATURE_BYTES],
) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        // At least a line end is missing, or its second half: never more is asked for.
        let missing = if line.ends_with(b"\r") { 1 } else { 2 };
        if line.len() + missing > TEXT_BYTES_MAX {
            return Err(ProxyProtocolError::TooLong);
        }
        let mut next = [0; 2];
        let next = next.get_mut(..missing).ok_or(ProxyProtocolError::Malformed)?;
        stream.read_exact(next).await?;
        let is_end = missing == 1 && *next == *b"\n" || *next == *b"\r\n";
        if (missing == 1 || next.contains(&b'\n')) && !is_end {
            return Err(ProxyProtocolError::Malformed);
        }
        line.extend_from_slice(next);
    }
    let line = line.strip_suffix(b"\r\n").unwrap_or(&line);
    let text = std::str::from_utf8(line).map_err(|_| ProxyProtocolError::Malformed)?;
    parse_text(text)
}

fn parse_text(line: &str) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family, source, destination, source_port, destination_port] => {
            let source = text_address(family, source, source_port);
            let destination = text_address(family, destination, destination_port);
            source.zip(destination).map(|(source, _)| Some(source))
        }
        .ok_or(ProxyProtocolError::Malformed),
        _ => Err(ProxyProtocolError::Malformed),
    }
}

fn text_address(family: &str, address: &str, port: &str) -> Option<SocketAddr> {
    let address: IpAddr = address.parse().ok()?;
    let fits = match family {
        "TCP4" => address.is_ipv4(),
        "TCP6" => address.is_ipv6(),
        _ => false,
    };
    // `u16::from_str` would take a plus sign.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    (fits && is_number).then(|| port.parse().ok().map(|port| SocketAddr::new(address, port)))?
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};
    use tokio::io::AsyncReadExt;

    use super::{ProxyProtocolError, SIGNATURE, read_header};

    /// The outcome, and what is left to read.
    fn read(bytes: &[u8]) -> (Result<Option<SocketAddr>, ProxyProtocolError>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut stream = bytes;
            let outcome = read_header(&mut stream).await;
            let mut left = Vec::new();
            stream.read_to_end(&mut left).await.unwrap();
            (outcome, left)
        })
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn source(bytes: &[u8]) -> Option<SocketAddr> {
        let (outcome, left) = read(&[bytes, b"\x16\x03\x01hello"].concat());
        assert_eq!(left, b"\x16\x03\x01hello");
        outcome.unwrap()
    }

    #[test]
    fn version_1_names_the_client() {
        let named = |line: &str| source(line.as_bytes()).map(|address| address.to_string());
        assert_eq!(
            named("PROXY TCP4 1.2.3.4 10.0.0.1 5678 443\r\n").as_deref(),
            Some("1.2.3.4:5678")
        );
        assert_eq!(
            named("PROXY TCP4 1.2.3.4 10.0.0.1 567 443\r\n").as_deref(),
            Some("1.2.3.4:567")
        );
        assert_eq!(
            named("PROXY TCP6 2001:db8::1 ::1 5678 443\r\n").as_deref(),
            Some("[2001:db8::1]:5678")
        );
        assert_eq!(named("PROXY UNKNOWN\r\n"), None);
        assert_eq!(named("PROXY UNKNOWN ff::1 ff::2 1 2\r\n"), None);
    }

    #[test]
    fn version_2_names_the_client() {
        let v4 = [1, 2, 3, 4, 10, 0, 0, 1, 0x16, 0x2e, 1, 187];
        assert_eq!(source(&binary(0x21, 0x11, &v4)).unwrap().to_string(), "1.2.3.4:5678");
        let with_extension = [&v4[..], &[4, 0, 1, 0]].concat();
        assert_eq!(
            source(&binary(0x21, 0x11, &with_extension)).unwrap().to_string(),
            "1.2.3.4:5678"
        );
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 80;
        assert_eq!(source(&binary(0x21, 0x21, &v6)).unwrap().to_string(), "[::1]:80");
        assert_eq!(source(&binary(0x20, 0x00, &[])), None);
        assert_eq!(source(&binary(0x20, 0x11, &v4)), None);
        assert_eq!(source(&binary(0x21, 0x00, &[9; 40])), None);
    }

    #[test]
    fn what_is_no_valid_header_is_refused() {
        for bytes in [
            &b""[..],
            b"PROXY",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abc",
            b"PROXY TCP4 1.2.3.4 10.0.0.1 5678\r\n",
            b"PROXY TCP4 1.2.3.4 10.0.0.1 5678 +443\r\n",
            b"PROXY TCP4 1.2.3.4 10.0.0.1 99999 443\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 5678 443\r\n",
            b"PROXY TCP6 1.2.3.4 10.0.0.1 5678 443\r\n",
            b"PROXY UDP4 1.2.3.4 10.0.0.1 5678 443\r\n",
            b"PROXY TCP4 1.2.3.4  10.0.0.1 5678 443\r\n",
            b"PROXY TCP4 1.2.3.4 10.0.0.1 5678 443\n",
            b"PROXY UNKNOWN\rx\n",
            &[b"PROXY UNKNOWN "[..].to_vec(), vec![b'x'; 200], b"\r\n".to_vec()].concat(),
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x22, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 11]),
            &binary(0x21, 0x12, &[0; 12]),
            &binary(0x21, 0x41, &[0; 12]),
            &binary(0x20, 0x00, &[0; 5000]),
        ] {
            assert!(read(bytes).0.is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in vec(any::<u8>(), 0..200),
            head in any::<[u8; 4]>(),
            text in "PROXY (TCP4|TCP6|UNKNOWN) [0-9a-f:. ]{0,60}\r?\n?",
        ) {
            let _ = read(&bytes);
            let _ = read(&[&SIGNATURE[..], &head, &bytes].concat());
            let _ = read(text.as_bytes());
        }
    }
}
