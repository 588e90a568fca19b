//! The listener and the upstream pool over loopback sockets, without the gateway
//! between them: a small service stands in for it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod deadlines;
mod drain;
mod http;
mod proxy_protocol;
mod smuggling;
mod support;
mod tls;
mod upstream;
