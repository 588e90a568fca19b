//! Who may ask for what: the route table, and the gateway's own endpoints in it.
//! Judges a host, a method and a parsed target; knows no request, no session and
//! no upstream.

mod explain;
mod fold;
mod method;
mod own;
mod pattern;
mod route;
mod table;
mod tree;

pub use explain::{Explanation, explain};
pub use own::{OwnEndpoint, password_paths};
pub use route::Route;
pub use table::{Found, RouteTable};

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) use crate::config::sample;
