//! Signing keys: the [`Signer`] trait and its back-ends, one file each.
//!
//! A signer signs bytes and names its algorithm and public key; it knows nothing of certificates or logs.

use std::fmt::Debug;

use futures_util::future::BoxFuture;

#[cfg(test)]
pub(crate) mod deterministic;
pub mod file;
pub mod memory;
pub mod metered;

pub use memory::InMemoryKey;

/// A signature algorithm with its hash, as the X.509 world names it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SignatureAlgorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 5758, section 3.2).
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384 (RFC 5758, section 3.2).
    EcdsaP384Sha384,
    /// ECDSA on P-521 with SHA-512 (RFC 5758, section 3.2).
    EcdsaP521Sha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, section 8.2).
    RsaPkcs1Sha256,
    /// Pure Ed25519 (RFC 8032).
    Ed25519,
}

impl SignatureAlgorithm {
    /// The DER `AlgorithmIdentifier`, as it stands in certificates (RFC 5758, RFC 4055, RFC 8410).
    #[must_use]
    pub const fn identifier_der(self) -> &'static [u8] {
        match self {
            Self::EcdsaP256Sha256 => &[
                0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
            ],
            Self::EcdsaP384Sha384 => &[
                0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03,
            ],
            Self::EcdsaP521Sha512 => &[
                0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04,
            ],
            Self::RsaPkcs1Sha256 => &[
                0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05,
                0x00,
            ],
            Self::Ed25519 => &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70],
        }
    }
}

/// A key did not sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The back-end did not answer, or answered with an error; trying again may help.
    #[error("the signing key's back-end failed: {0}")]
    Backend(String),
    /// The back-end answered with a signature that its own public key does not verify.
    #[error("the signing key's back-end gave a signature that does not verify")]
    BadSignature,
}

/// A private key somewhere: in memory, in an HSM, behind an API.
pub trait Signer: Debug + Send + Sync {
    /// What `sign` produces.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// The public key, a DER `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
    fn public_key_der(&self) -> &[u8];

    /// How many signatures it makes at the same time. `None`: as many as are asked of it, as a key in memory does.
    fn at_once(&self) -> Option<usize> {
        None
    }

    /// Signs `message` (the message itself, not its hash). ECDSA signatures are DER `ECDSA-Sig-Value`.
    ///
    /// A key in memory answers at the first poll.
    ///
    /// # Errors
    /// When the back-end fails.
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignError>>;
}
