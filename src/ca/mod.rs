//! (skeleton)

pub mod extensions;
pub mod request;
