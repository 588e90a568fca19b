//! What crosses the wire, as pure rules over one message: the target, the host,
//! headers, cookies, the client's address, the CSRF proof. Knows neither users,
//! tokens nor routes; nothing here keeps anything from one request to the next.

pub mod client;
pub mod cookie;
pub mod cors;
pub mod csrf;
pub mod headers;
pub mod host;
pub mod proxy_protocol;
pub mod return_path;
pub mod strictness;
pub mod target;
