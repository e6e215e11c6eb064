//! (skeleton)

pub mod ct;
pub mod request;
