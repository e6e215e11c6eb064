//! Entries as data tiles hold them: `TileLeaf` (C2SP static-ct-api, "Log Entries").
//!
//! ```text
//! timestamp u64 ‖ type u16 ‖ [issuer key hash[32]] ‖ length u24 ‖ certificate or TBS ‖ length u16 ‖ extensions
//! ‖ [length u24 ‖ precertificate] ‖ length u16 ‖ fingerprints of the chain
//! ```
//!
//! What stands in brackets, precertificates alone have. The first line is the `TimestampedEntry` that the tree holds.

use super::sct::{self, SctExtensions};
use crate::tlog::tree::{Hash, leaf_hash_of_parts};
use crate::tlog::{EntryFormat, Position};

/// Version and type with which a `MerkleTreeLeaf` begins (RFC 6962, section 3.4).
const LEAF_START: [u8; 2] = [0, 0];

/// An entry, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct TileLeaf<'a> {
    /// When the log took it, milliseconds since 1970.
    pub timestamp: u64,
    /// What was logged.
    pub content: Content<'a>,
    /// The timestamp's extensions.
    pub extensions: &'a [u8],
    /// SHA-256 of the chain's certificates, one after the other, the root last.
    pub fingerprints: &'a [u8],
    /// The `TimestampedEntry`.
    entry: &'a [u8],
}

/// What was logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content<'a> {
    /// A certificate, DER.
    Certificate(&'a [u8]),
    /// A precertificate.
    Precertificate {
        /// SHA-256 of the SubjectPublicKeyInfo of the key that signs the final certificate.
        issuer_key_hash: &'a [u8; 32],
        /// The TBSCertificate that both have without poison and timestamps, DER.
        tbs: &'a [u8],
        /// What was submitted, with poison and signature, DER.
        submitted: &'a [u8],
    },
}

impl<'a> TileLeaf<'a> {
    /// Reads the first entry of `bytes` and returns what follows it; nothing when there is no whole one.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (timestamp, rest) = bytes.split_first_chunk::<8>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (issuer_key_hash, rest) = match kind {
            [0, 0] => (None, rest),
            [0, 1] => rest
                .split_first_chunk::<32>()
                .map(|(hash, rest)| (Some(hash), rest))?,
            _ => return None,
        };
        let (logged, rest) = sct::split_u24(rest)?;
        let (extensions, behind) = sct::split_u16(rest)?;
        let entry = bytes.get(..bytes.len() - behind.len())?;
        let (content, rest) = match issuer_key_hash {
            None => (Content::Certificate(logged), behind),
            Some(issuer_key_hash) => {
                let (submitted, rest) = sct::split_u24(behind)?;
                let content = Content::Precertificate {
                    issuer_key_hash,
                    tbs: logged,
                    submitted,
                };
                (content, rest)
            }
        };
        let (fingerprints, rest) = sct::split_u16(rest)?;
        let leaf = Self {
            timestamp: u64::from_be_bytes(*timestamp),
            content,
            extensions,
            fingerprints,
            entry,
        };
        Some((leaf, rest))
    }

    /// The leaf, `MerkleTreeLeaf` (RFC 6962, section 3.4).
    #[must_use]
    pub fn merkle_tree_leaf(&self) -> Vec<u8> {
        [&LEAF_START, self.entry].concat()
    }

    /// The hash of the leaf.
    #[must_use]
    pub fn hash(&self) -> Hash {
        leaf_hash_of_parts(&LEAF_START, self.entry)
    }

    /// The certificate, or the precertificate as it was submitted, DER.
    #[must_use]
    pub const fn submitted(&self) -> &'a [u8] {
        match self.content {
            Content::Certificate(der) => der,
            Content::Precertificate { submitted, .. } => submitted,
        }
    }

    /// The fingerprints, one by one.
    pub fn chain(&self) -> impl Iterator<Item = &'a [u8; 32]> {
        self.fingerprints.as_chunks().0.iter()
    }

    /// `extra_data` of RFC 6962, section 4.6, for the certificates of the chain, DER.
    #[must_use]
    pub fn extra_data(&self, chain: &[impl AsRef<[u8]>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Content::Precertificate { submitted, .. } = self.content {
            sct::extend_u24(&mut bytes, submitted);
        }
        let mut list = Vec::new();
        for certificate in chain {
            sct::extend_u24(&mut list, certificate.as_ref());
        }
        sct::extend_u24(&mut bytes, &list);
        bytes
    }
}

/// The entries of a static-ct-api log that holds precertificates alone.
#[derive(Clone, Copy, Debug)]
pub struct StaticCtFormat {
    /// What the log's timestamps carry: an entry must carry the same.
    pub sct_extensions: SctExtensions,
}

impl EntryFormat for StaticCtFormat {
    fn split_first<'a>(&self, tile: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (leaf, rest) = TileLeaf::read(tile)?;
        let is_ours = matches!(leaf.content, Content::Precertificate { .. });
        tile.split_at_checked(tile.len() - rest.len())
            .filter(|_| is_ours)
    }

    fn timestamp(&self, entry: &[u8]) -> Option<u64> {
        TileLeaf::read(entry).map(|(leaf, _)| leaf.timestamp)
    }

    fn leaf_hash(&self, entry: &[u8], position: Position) -> Option<Hash> {
        let (leaf, []) = TileLeaf::read(entry)? else {
            return None;
        };
        let is_good = matches!(leaf.content, Content::Precertificate { submitted, .. } if !submitted.is_empty())
            && leaf.timestamp == position.timestamp
            && leaf.extensions == self.sct_extensions.bytes(position.index)
            && leaf.fingerprints.len().is_multiple_of(32);
        is_good.then(|| leaf.hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An x509 entry: a certificate of two octets, no extensions, one fingerprint.
    fn certificate_entry() -> Vec<u8> {
        let start = [&5_u64.to_be_bytes()[..], &[0, 0], &[0, 0, 2, 7, 8], &[0, 0]].concat();
        [&start[..], &[0, 32], &[9; 32]].concat()
    }

    #[test]
    fn certificates_are_entries_too() {
        let bytes = [&certificate_entry()[..], &[1]].concat();
        let (leaf, rest) = TileLeaf::read(&bytes).unwrap();
        assert_eq!((leaf.timestamp, rest), (5, &[1][..]));
        assert_eq!(leaf.content, Content::Certificate(&[7, 8]));
        assert_eq!(leaf.chain().collect::<Vec<_>>(), [&[9; 32]]);
        assert_eq!(leaf.merkle_tree_leaf()[2..], certificate_entry()[..17]);
        // `certificate_chain` alone: nothing was submitted besides.
        assert_eq!(leaf.extra_data(&[[3, 4]]), [0, 0, 5, 0, 0, 2, 3, 4]);
    }

    #[test]
    fn our_own_log_holds_precertificates_alone() {
        let format = StaticCtFormat {
            sct_extensions: SctExtensions::None,
        };
        let position = Position {
            index: 0,
            timestamp: 5,
        };
        assert_eq!(format.leaf_hash(&certificate_entry(), position), None);
    }

    #[test]
    fn extra_data_of_a_precertificate_begins_with_it() {
        let mut bytes = [&[0; 8][..], &[0, 1], &[6; 32], &[0, 0, 1, 1], &[0, 0]].concat();
        bytes.extend([0, 0, 2, 7, 8, 0, 0]);
        let (leaf, []) = TileLeaf::read(&bytes).unwrap() else {
            panic!("octets behind the entry");
        };
        assert_eq!(leaf.submitted(), [7, 8]);
        let chain: [&[u8]; 2] = [&[1], &[2, 3]];
        assert_eq!(
            leaf.extra_data(&chain),
            [0, 0, 2, 7, 8, 0, 0, 9, 0, 0, 1, 1, 0, 0, 2, 2, 3]
        );
    }
}
