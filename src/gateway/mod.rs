//! Where HTTP meets the domain.

pub mod page;
