//! Listening sockets: one queue a worker, shared out by the kernel. Knows
//! nothing of TLS or HTTP.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted, as far as `net.core.somaxconn` allows.
const BACKLOG: i32 = 4096;

/// After this silence the kernel asks whether the peer still exists.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// Listening sockets for all workers.
#[derive(Debug)]
pub struct Bound {
    /// The addresses as bound, in the order asked for: port 0 became a real one.
    pub addresses: Vec<SocketAddr>,
    /// For each worker one listener an address.
    pub workers: Vec<Vec<TcpListener>>,
}

/// Binds every address once a worker, with `SO_REUSEPORT`.
///
/// # Errors
/// When an address cannot be bound; nothing stays bound then.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> io::Result<Bound> {
    let mut bound = Bound {
        addresses: Vec::with_capacity(addresses.len()),
        workers: (0..workers.max(1)).map(|_| Vec::with_capacity(addresses.len())).collect(),
    };
    for address in addresses {
        let beside_ipv4 = addresses.iter().any(|a| a.is_ipv4() && a.port() == address.port());
        let mut actual = *address;
        for listeners in &mut bound.workers {
            let listener = listen(actual, beside_ipv4).map_err(|error| named(&error, actual))?;
            actual = listener.local_addr()?;
            listeners.push(listener);
        }
        bound.addresses.push(actual);
    }
    Ok(bound)
}

/// Says which address it was.
fn named(error: &io::Error, address: SocketAddr) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

/// `beside_ipv4`: the same port is bound for IPv4 too, so an IPv6 wildcard must not take it.
fn listen(address: SocketAddr, beside_ipv4: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && beside_ipv4 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted connections inherit it: a peer that vanished holds its slot for minutes, not forever.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::bind;

    #[test]
    fn port_0_becomes_one_real_port_for_all_workers() {
        let bound = bind(&["127.0.0.1:0".parse().unwrap()], 3).unwrap();
        assert_ne!(bound.addresses[0].port(), 0);
        assert_eq!(bound.workers.len(), 3);
        for listeners in &bound.workers {
            assert_eq!(listeners[0].local_addr().unwrap(), bound.addresses[0]);
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_an_error() {
        assert!(bind(&["192.0.2.1:0".parse().unwrap()], 1).is_err());
    }
}
