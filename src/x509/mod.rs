//! X.509 in and out: keys, certificate requests, chains, and the DER below them.

pub mod chain;
pub mod csr;
pub mod der;
pub mod pem;
pub mod spki;
mod weak_rsa;
