//! Real servers for the tests, started on free loopback ports and ended with the test.

pub(crate) mod slapd;
