//! Whether a certificate is in the log: from the timestamp in it to the root of a signed checkpoint.

use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::entries::{EntryDetails, EntryKind, time_text};
use super::source::Source;
use super::tree::CheckedTree;
use super::{AuditError, Checkpoint, issuer_name};
use crate::ca::precertificate::SCT_LIST_OID;
use crate::ca::tbs::{tbs_of, without_extension};
use crate::ctlog::leaf::{Content, TileLeaf};
use crate::ctlog::sct::{SignedCertificateTimestamp, TimestampedEntry};
use crate::hex::hex;
use crate::tlog::tile::TILE_WIDTH;
use crate::tlog::tree::{Hash, leaf_hash, sha256, verify_inclusion};
use crate::x509::name::name_text;

/// The extension with the timestamps.
const SCT_LIST: &str = "1.3.6.1.4.1.11129.2.4.2";

/// A certificate with the timestamp of one log in it.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// The log's timestamp.
    pub timestamp: SignedCertificateTimestamp,
    /// The TBSCertificate that was logged: without timestamps.
    tbs: Vec<u8>,
    issuer_name: Vec<u8>,
}

/// What was proved of a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Inclusion {
    /// Its index in the log.
    pub index: u64,
    /// When it was logged, milliseconds since 1970: what its timestamp says.
    pub timestamp: u64,
    /// The same, for people.
    pub time: String,
    /// The hash of its leaf, hexadecimal.
    pub leaf_hash: String,
    /// The subject of the certificate whose key signed it.
    pub authority: String,
    /// The names in the certificate, as the log has them.
    pub san: Vec<String>,
    /// How many entries the checkpoint covers.
    pub tree_size: u64,
    /// The root of the checkpoint, hexadecimal.
    pub root: String,
    /// The hashes of the proof, hexadecimal, lowest first.
    pub proof: Vec<String>,
}

impl Stamped {
    /// Finds the timestamp of the log with this public key in a certificate, DER.
    ///
    /// # Errors
    /// When there is none, or the certificate is malformed.
    pub fn read(certificate: &[u8], log_public_key_der: &[u8]) -> Result<Self, AuditError> {
        let wrong = |what: &str| AuditError::wrong("the certificate", what);
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| wrong("it is malformed"))?;
        let list = parsed
            .extensions()
            .iter()
            .find(|extension| extension.oid.to_id_string() == SCT_LIST)
            .ok_or_else(|| wrong("it holds no timestamp of a log"))?;
        let list = SignedCertificateTimestamp::split_list(list.value);
        let list = list.map_err(|error| wrong(&format!("its list of timestamps: {error}")))?;
        let log_id = sha256(&[log_public_key_der]);
        let mut read = list
            .into_iter()
            .filter_map(|item| SignedCertificateTimestamp::from_bytes(item).ok());
        let timestamp = read
            .find(|timestamp| *timestamp.log_id() == log_id)
            .ok_or_else(|| wrong("it holds no timestamp of this log"))?;
        let tbs = tbs_of(certificate).and_then(|tbs| without_extension(tbs, SCT_LIST_OID).ok());
        Ok(Self {
            timestamp,
            tbs: tbs.ok_or_else(|| wrong("it cannot be taken apart"))?,
            issuer_name: parsed.issuer().as_raw().to_vec(),
        })
    }

    /// Proves that it is in the tree, where its timestamp says, or wherever its leaf is. `authority` is the certificate
    /// of who signed it, DER; without one, the log's is taken.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn prove(
        &self,
        source: &dyn Source,
        kind: &dyn EntryKind,
        checkpoint: &Checkpoint,
        authority: Option<&[u8]>,
    ) -> Result<Inclusion, AuditError> {
        let tree = CheckedTree::open(source, kind, checkpoint)?;
        let index = self.timestamp.leaf_index();
        let authority = match (authority, index) {
            (Some(authority), _) => authority.to_vec(),
            (None, Some(index)) => authority_of(source, &tree, index)?,
            (None, None) => {
                return Err(AuditError::wrong(
                    "the timestamp",
                    "it does not say where the entry is; give the certificate of the issuing CA too",
                ));
            }
        };
        let (_, authority) = X509Certificate::from_der(&authority)
            .map_err(|_| AuditError::wrong("the issuing CA's certificate", "it is malformed"))?;
        if authority.subject().as_raw() != self.issuer_name {
            let what = format!(
                "it is of {}, which is not who signed",
                name_text(authority.subject())
            );
            return Err(AuditError::wrong("the issuing CA's certificate", what));
        }
        let issuer_key_hash = sha256(&[authority.public_key().raw]);
        self.timestamp
            .verify_entry(
                &self.tbs,
                &issuer_key_hash,
                checkpoint.identity.public_key_der(),
            )
            .map_err(|error| AuditError::wrong("the timestamp", error.to_string()))?;
        let leaf = TimestampedEntry {
            timestamp: self.timestamp.timestamp(),
            issuer_key_hash: &issuer_key_hash,
            tbs: &self.tbs,
            extensions: self.timestamp.extensions(),
        };
        let leaf = leaf_hash(&leaf.merkle_tree_leaf());
        let index = match index {
            Some(index) => index,
            None => tree.find(&leaf)?.ok_or_else(|| {
                AuditError::wrong(
                    "the certificate",
                    "the log's timestamp is in it, and the log does not hold it",
                )
            })?,
        };
        let proof = tree.inclusion_proof(index)?;
        let head = tree.head();
        if !verify_inclusion(&leaf, index, head.size, &proof, &head.root) {
            let what = "the log promised to hold this certificate, and holds something else there";
            return Err(AuditError::wrong(format_args!("entry {index}"), what));
        }
        let entry = entry_at(&tree, index)?;
        Ok(Inclusion {
            index,
            timestamp: self.timestamp.timestamp(),
            time: time_text(self.timestamp.timestamp()),
            leaf_hash: hex(&leaf),
            authority: authority.subject().to_string(),
            san: EntryDetails::of(index, &entry, &leaf).san,
            tree_size: head.size,
            root: hex(&head.root),
            proof: proof.iter().map(|hash| hex(hash)).collect(),
        })
    }
}

/// An entry of the tree.
fn entry_at(tree: &CheckedTree<'_>, index: u64) -> Result<Vec<u8>, AuditError> {
    let mut entries = tree.entries(index / TILE_WIDTH)?;
    let place = usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX);
    if place < entries.len() {
        Ok(entries.swap_remove(place).0)
    } else {
        let what = format!("the checkpoint covers {} entries", tree.head().size);
        Err(AuditError::wrong(format_args!("entry {index}"), what))
    }
}

/// The first certificate of the chain of an entry, DER.
fn authority_of(
    source: &dyn Source,
    tree: &CheckedTree<'_>,
    index: u64,
) -> Result<Vec<u8>, AuditError> {
    if index >= tree.head().size {
        tree.inclusion_proof(index)?;
    }
    let entry = entry_at(tree, index)?;
    let fingerprint = TileLeaf::read(&entry)
        .filter(|(leaf, _)| matches!(leaf.content, Content::Precertificate { .. }))
        .and_then(|(leaf, _)| leaf.chain().next());
    let fingerprint: &Hash = fingerprint.ok_or_else(|| {
        let what = "it is not the precertificate that the timestamp promises";
        AuditError::wrong(format_args!("entry {index}"), what)
    })?;
    let name = issuer_name(fingerprint);
    let der = source
        .read(&name)?
        .ok_or_else(|| AuditError::Missing(name.clone()))?;
    if sha256(&[&der]) != *fingerprint {
        return Err(AuditError::wrong(
            name,
            "its content does not have the hash that its name says",
        ));
    }
    Ok(der)
}
