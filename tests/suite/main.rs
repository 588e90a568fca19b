//! Promises kept end to end, against real servers on loopback: one module a promise.

#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on panics; the in-tests allowance misses helper functions"
)]

mod directory;
mod server;
mod support;
