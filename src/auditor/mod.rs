//! Auditing a log: what its files say, believed only as far as the log's public key signs it.
//!
//! Everything is read file by file from a [`Source`], a folder or a URL, and checked up to the root of a
//! signed checkpoint before it counts. Nothing here knows the running log: of `tlog` only the arithmetic of trees and tiles
//! and the form of segments are shared.

use crate::hex::hex;
use crate::tlog::checkpoint::{CheckpointError, LogIdentity, SignedTreeHead};
use crate::tlog::tile::TilePath;
use crate::tlog::tree::Hash;

pub mod certificate;
pub mod entries;
pub mod export;
pub mod follow;
pub mod fsck;
pub mod source;
pub mod tree;

use source::{Source, SourceError};

/// The name of the published checkpoint.
pub const CHECKPOINT: &str = "checkpoint";

/// Why an audit came to no good end. The texts are for whoever audits.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be read: nothing is said about it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file is not there that the checkpoint promises.
    #[error("{0} is missing, and the log's checkpoint covers it")]
    Missing(String),
    /// The checkpoint is not one of this log.
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    /// Something that the log says does not hold.
    #[error("{place}: {what}")]
    Wrong {
        /// Which file, entry or document.
        place: String,
        /// What does not hold.
        what: String,
    },
}

impl AuditError {
    fn wrong(place: impl ToString, what: impl Into<String>) -> Self {
        Self::Wrong {
            place: place.to_string(),
            what: what.into(),
        }
    }

    fn missing(path: TilePath) -> Self {
        Self::Missing(path.to_string())
    }
}

/// A checkpoint of a log whose key is trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// The note, as it was read.
    pub note: String,
    /// Who signed it.
    pub identity: LogIdentity,
    /// What it says.
    pub signed: SignedTreeHead,
}

impl Checkpoint {
    /// Verifies a note of the log with this public key, a DER `SubjectPublicKeyInfo`. Without an `origin`, the name in the
    /// note is taken: the key is what is trusted.
    ///
    /// # Errors
    /// When it is not a checkpoint of that log.
    pub fn verify(
        note: &[u8],
        public_key_der: &[u8],
        origin: Option<&str>,
    ) -> Result<Self, CheckpointError> {
        let text = String::from_utf8_lossy(note);
        let named = text.split('\n').next().unwrap_or_default();
        let identity = LogIdentity::new(origin.unwrap_or(named), public_key_der);
        let signed = identity.open(note)?;
        Ok(Self {
            note: text.into_owned(),
            identity,
            signed,
        })
    }

    /// Reads the published checkpoint of a log; see [`Self::verify`].
    ///
    /// # Errors
    /// When it cannot be read, or is not one of that log.
    pub fn read(
        source: &dyn Source,
        public_key_der: &[u8],
        origin: Option<&str>,
    ) -> Result<Self, AuditError> {
        let note = source
            .read(CHECKPOINT)?
            .ok_or_else(|| AuditError::Missing(CHECKPOINT.to_owned()))?;
        Ok(Self::verify(&note, public_key_der, origin)?)
    }
}

/// The name of the file of a certificate of a chain.
fn issuer_name(fingerprint: &Hash) -> String {
    format!("issuer/{}", hex(fingerprint))
}

#[cfg(test)]
mod tests;
