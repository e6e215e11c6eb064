//! Certificate chains: the certificates of an authority, from the one that issues to the root.

use aws_lc_rs::digest::{SHA256, digest};

/// One certificate of a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    der: Vec<u8>,
    fingerprint: [u8; 32],
}

impl Certificate {
    /// Takes a certificate's DER as it is; [`CertificateChain`] checks it.
    #[must_use]
    pub fn from_der(der: Vec<u8>) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, &der).as_ref());
        Self { der, fingerprint }
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

/// The certificates of an authority: the issuing one first, the root last. Never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateChain(Vec<Certificate>);

impl CertificateChain {
    /// The certificates, issuing CA first.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.0
    }
}
