//! X.509 in and out: keys, certificate requests, chains, and the DER below them.

pub mod algorithm;
pub mod chain;
pub mod csr;
pub mod der;
pub mod ed25519_point;
pub mod name;
pub mod pem;
pub mod spki;
#[cfg(test)]
pub(crate) mod test_key;
mod weak_rsa;
#[cfg(test)]
mod wycheproof;
