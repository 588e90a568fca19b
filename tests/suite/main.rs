//! Promises kept end to end, against real servers on loopback: one module a promise.

#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on panics; the in-tests allowance misses helper functions"
)]

mod answers;
mod csrf;
mod directory;
mod directory_failure;
mod endpoints;
mod headers;
mod login;
mod paths;
mod refusal;
mod streaming;
mod support;
