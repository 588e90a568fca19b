//! Promises kept end to end, against real servers on loopback: one module a promise.

#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on panics; the in-tests allowance misses helper functions"
)]

mod access_codes;
mod answers;
mod assertion;
mod at_once;
mod backends;
mod break_glass;
mod browser;
mod clock_offset;
mod control;
mod cors;
mod crash;
mod csrf;
mod demo;
mod deploy;
mod directory;
mod directory_failure;
mod directory_kinds;
mod directory_servers;
mod directory_steps;
mod doctor;
mod endpoints;
mod even;
mod failover;
mod guess_guard;
mod headers;
mod keys;
mod layers;
mod limits;
mod load;
mod lockout;
mod login;
mod login_contract;
mod observability;
mod oddities;
mod password;
mod paths;
mod plain_http;
mod recheck;
mod recorded;
mod refusal;
mod reload;
mod renewal;
mod response_headers;
mod restored;
mod rules;
mod safeplaces;
mod scaling;
mod server;
mod several_gateways;
mod shaping;
mod shared_codes;
mod smuggling;
mod starts;
mod streaming;
mod support;
mod throttle;
mod users;
