//! Certificate transparency: a precertificate goes in, a signed certificate timestamp comes out (RFC 6962).
//!
//! [`CtLog`] is the seam behind which logs stand, our own ([`embedded`]) or those of
//! others ([`remote`], [`ordered`]); `ca` knows nothing else of them.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::x509::chain::CertificateChain;

mod breaker;
pub mod embedded;
pub mod leaf;
pub mod metered;
pub mod ordered;
pub mod promises;
pub mod remote;
pub mod sct;
#[cfg(test)]
pub(crate) mod testing;

pub use sct::SignedCertificateTimestamp;

/// A precertificate on its way into a log.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The precertificate, DER, with poison and signature.
    pub precertificate: Vec<u8>,
    /// Its TBSCertificate without the poison extension, DER (RFC 6962, section 3.2).
    pub tbs: Vec<u8>,
    /// SHA-256 of the SubjectPublicKeyInfo of the key that signs the final certificate.
    pub issuer_key_hash: [u8; 32],
    /// The chain above it: issuing CA first, root last.
    pub chain: Arc<CertificateChain>,
}

/// Why a log gave no timestamp. No certificate may then be issued.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The log takes no more for the moment: its queue is full.
    #[error("the log's queue is full")]
    Overloaded,
    /// The log did not answer in time. The entry may still appear in it, as a precertificate without certificate.
    #[error("the log did not answer in time")]
    Timeout,
    /// The log takes nothing now: its clock is behind, its key does not answer, or it is stopping.
    #[error("the log cannot take entries: {0}")]
    Unavailable(String),
    /// The log's store cannot be written.
    #[error("the log's store cannot be written: {0}")]
    Store(String),
    /// The log refused this submission.
    #[error("the log refused the precertificate: {0}")]
    Rejected(String),
    /// The log's answer is not a timestamp of that log for this precertificate.
    #[error("the log's timestamp does not verify: {0}")]
    BadSct(String),
}

/// A certificate transparency log that takes precertificates.
pub trait CtLog: Debug + Send + Sync {
    /// The log's configured name, also its label in metrics.
    fn name(&self) -> &str;

    /// Enters a precertificate. When this returns a timestamp, the entry is in the log for good (embedded log: durable on
    /// disk at a fixed index), and the timestamp verifies for `submission`.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing may be issued then.
    fn submit(
        &self,
        submission: Arc<Submission>,
    ) -> BoxFuture<'_, Result<SignedCertificateTimestamp, SubmitError>>;
}
