//! What a log's entries say: of a certificate transparency log, certificates and their chains.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::extensions;
use crate::ca::precertificate::POISON_OID;
use crate::ca::tbs::{tbs_of, without_extension};
use crate::ctlog::leaf::{Content, TileLeaf};
use crate::ctlog::sct;
pub use crate::ctlog::sct::time_text;
use crate::hex::hex;
use crate::tlog::tree::{Hash, leaf_hash};

/// What is known of the entries of a kind of log. None of it is believed before the tree says so.
pub trait EntryKind: Debug + Send + Sync {
    /// Cuts the first entry off the content of a data tile; nothing when there is no whole one.
    fn split_first<'a>(&self, tile: &'a [u8]) -> Option<(&'a [u8], &'a [u8])>;

    /// The hash of the leaf of an entry that was cut off.
    fn leaf_hash(&self, entry: &[u8]) -> Hash;

    /// Looks at everything else that an entry at this index has to be.
    fn inspect(&self, index: u64, entry: &[u8]) -> Inspected;
}

/// What came of looking at an entry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Inspected {
    /// What does not hold.
    pub problem: Option<String>,
    /// When it was logged, milliseconds since 1970.
    pub timestamp: u64,
    /// Whether its timestamp says where it is. All of a log's do, or none.
    pub has_index: bool,
    /// The fingerprints of its chain.
    pub chain: Vec<Hash>,
    /// What it says is the hash of the public key of the first certificate of its chain.
    pub issuer_key_hash: Option<Hash>,
}

/// The entries of a static-ct-api log.
#[derive(Clone, Copy, Debug)]
pub struct CtEntries;

impl EntryKind for CtEntries {
    fn split_first<'a>(&self, tile: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (_, rest) = TileLeaf::read(tile)?;
        tile.split_at_checked(tile.len() - rest.len())
    }

    fn leaf_hash(&self, entry: &[u8]) -> Hash {
        let leaf = TileLeaf::read(entry);
        leaf.map_or_else(|| leaf_hash(entry), |(leaf, _)| leaf.hash())
    }

    fn inspect(&self, index: u64, entry: &[u8]) -> Inspected {
        let Some((leaf, [])) = TileLeaf::read(entry) else {
            return Inspected {
                problem: Some("it is malformed".to_owned()),
                ..Inspected::default()
            };
        };
        Inspected {
            problem: problem_of(index, &leaf),
            timestamp: leaf.timestamp,
            has_index: !leaf.extensions.is_empty(),
            chain: leaf.chain().copied().collect(),
            issuer_key_hash: match leaf.content {
                Content::Certificate(_) => None,
                Content::Precertificate {
                    issuer_key_hash, ..
                } => Some(*issuer_key_hash),
            },
        }
    }
}

fn problem_of(index: u64, leaf: &TileLeaf<'_>) -> Option<String> {
    if !leaf.extensions.is_empty() {
        match sct::leaf_index(leaf.extensions) {
            None => return Some("the extensions of its timestamp hold no leaf index".to_owned()),
            Some(said) if said != index => {
                return Some(format!("its timestamp says that it is entry {said}"));
            }
            Some(_) => {}
        }
    }
    if leaf.fingerprints.is_empty() || !leaf.fingerprints.len().is_multiple_of(32) {
        return Some("it names no whole certificates of a chain".to_owned());
    }
    let Content::Precertificate { tbs, submitted, .. } = leaf.content else {
        return None;
    };
    let logged = tbs_of(submitted).and_then(|tbs| without_extension(tbs, POISON_OID).ok());
    match logged {
        None => Some("its precertificate has no poison, or cannot be taken apart".to_owned()),
        Some(logged) if logged != tbs => Some(
            "its precertificate without the poison is not the TBSCertificate that was logged"
                .to_owned(),
        ),
        Some(_) => None,
    }
}

/// An entry as a monitor wants to see it.
#[derive(Clone, Debug, Serialize)]
pub struct EntryDetails {
    /// Its index.
    pub index: u64,
    /// When it was logged, milliseconds since 1970.
    pub timestamp: u64,
    /// The same, for people.
    pub time: String,
    /// The hash of its leaf, hexadecimal.
    pub leaf_hash: String,
    /// `precertificate` or `certificate`.
    pub kind: &'static str,
    /// The names in the certificate; each with its kind where that is not plain.
    pub san: Vec<String>,
    /// Who vouched for the name: the issuer of the token, from Sigstore's extensions.
    pub issuer: Option<String>,
    /// Sigstore's extensions: OID → value.
    pub extensions: BTreeMap<String, String>,
    /// The certificate's serial number, hexadecimal.
    pub serial: Option<String>,
    /// From when the certificate is valid.
    pub not_before: Option<String>,
    /// Until when.
    pub not_after: Option<String>,
    /// Who signed the certificate.
    pub authority: Option<String>,
}

impl EntryDetails {
    /// Takes an entry apart whose leaf has this hash. What cannot be read of its certificate is left empty.
    #[must_use]
    pub fn of(index: u64, entry: &[u8], leaf: &Hash) -> Self {
        let mut details = Self {
            index,
            timestamp: 0,
            time: String::new(),
            leaf_hash: hex(leaf),
            kind: "unknown",
            san: Vec::new(),
            issuer: None,
            extensions: BTreeMap::new(),
            serial: None,
            not_before: None,
            not_after: None,
            authority: None,
        };
        let Some((leaf, _)) = TileLeaf::read(entry) else {
            return details;
        };
        details.timestamp = leaf.timestamp;
        details.time = time_text(leaf.timestamp);
        details.kind = match leaf.content {
            Content::Certificate(_) => "certificate",
            Content::Precertificate { .. } => "precertificate",
        };
        if let Ok((_, certificate)) = X509Certificate::from_der(leaf.submitted()) {
            details.read(&certificate);
        }
        details
    }

    fn read(&mut self, certificate: &X509Certificate<'_>) {
        self.serial = Some(hex(&certificate.serial.to_bytes_be()));
        self.authority = Some(certificate.issuer().to_string());
        let time = |time: OffsetDateTime| time.format(&Rfc3339).ok();
        self.not_before = time(certificate.validity().not_before.to_datetime());
        self.not_after = time(certificate.validity().not_after.to_datetime());
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            let names = names.value.general_names.iter();
            self.san = names.map(|name| extensions::name_of(name).1).collect();
        }
        for extension in certificate.extensions() {
            let oid = extension.oid.to_id_string();
            let Some(number) = extensions::number_of(&oid) else {
                continue;
            };
            let text = extensions::text_of(number, extension.value);
            let value = text.map_or_else(|| hex(extension.value), str::to_owned);
            self.extensions.insert(oid, value);
        }
        // The newer form of the extension is the better one.
        let issuer = [8, 1].map(|number| format!("{}.{number}", extensions::ARC));
        self.issuer = issuer
            .iter()
            .find_map(|oid| self.extensions.get(oid).cloned());
    }
}
