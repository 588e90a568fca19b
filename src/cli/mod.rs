//! One file a command.

pub mod audit;
