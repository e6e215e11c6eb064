//! (skeleton)
pub mod oidc;
