//! (skeleton)

pub mod request;
