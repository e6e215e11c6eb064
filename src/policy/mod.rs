//! The policy admin's questions about an identity configuration, answered by the functions that serve requests.

pub mod claims;
pub mod diff;
pub mod explain;
pub mod golden;
mod text;
