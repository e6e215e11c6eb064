//! The policy admin's questions about an identity configuration, answered by the functions that serve requests.

pub mod explain;
mod text;
