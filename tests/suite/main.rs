//! The integration tests: real sockets, real TLS, real clients.

mod server;
