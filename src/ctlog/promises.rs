//! Whether a log of others keeps its promises: it only grows, and it holds what it gave timestamps for.
//!
//! Asked by the calls of RFC 6962, which a log with tiles alone does not answer. Samples and heads are kept in memory: whoever
//! wants to know more audits the log from outside.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::form_urlencoded;

use super::sct::is_signed;
use crate::fetch::peer::Peer;
use crate::tlog::checkpoint::{SignedTreeHead, TreeHead};
use crate::tlog::tree::{Hash, verify_consistency, verify_inclusion};

/// The longest answer: a proof in a tree of 2^64 leaves has 8 KiB.
const MAX_ANSWER_OCTETS: usize = 64 << 10;
/// How many timestamps are looked for in the log at the same time.
const MAX_SAMPLES: usize = 64;
/// The time between two timestamps that are looked for.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(60);
/// When an entry must be in the log, in milliseconds after its timestamp: the maximum merge delay of the logs there are.
const MERGE_DELAY_MILLIS: u64 = 24 * 3600 * 1000;

/// What a log promised, as far as it is looked after.
#[derive(Debug, Default)]
pub(super) struct Promises(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The largest tree that the log showed, signed.
    head: Option<SignedTreeHead>,
    /// Entries that the log has not been seen to hold yet.
    samples: VecDeque<Sample>,
    sampled_at: Option<Instant>,
}

/// An entry that the log promised to hold.
#[derive(Clone, Copy, Debug)]
struct Sample {
    leaf: Hash,
    /// Milliseconds since 1970.
    promised_at: u64,
}

/// Why nothing is known of a log's promises.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuditError {
    /// The log does not say, now or ever.
    #[error("{0}")]
    Unknown(String),
    /// It said something that does not hold, or that is not signed. Whoever stands between could have done that too.
    #[error("{0}")]
    Unproven(String),
    /// It signed two trees of one size. The text has all that proves it to anybody who knows its key.
    #[error("it signed two trees of {} entries: {} and {}", .0.head.size, shown(.0), shown(.1))]
    Forked(Box<SignedTreeHead>, Box<SignedTreeHead>),
}

impl Promises {
    /// Looks for the entry with this leaf from now on, unless enough are looked for.
    pub(super) fn sample(&self, leaf: impl FnOnce() -> Hash, promised_at: u64) {
        let mut state = self.state();
        let is_due = state
            .sampled_at
            .is_none_or(|at| at.elapsed() >= SAMPLE_INTERVAL);
        if is_due && state.samples.len() < MAX_SAMPLES {
            state.sampled_at = Some(Instant::now());
            let leaf = leaf();
            state.samples.push_back(Sample { leaf, promised_at });
        }
    }

    /// Asks the log for its tree, and for what it should hold. Returns how many entries should be there and are not.
    pub(super) async fn audit(
        &self,
        peer: &Peer,
        public_key_der: &[u8],
        now_millis: u64,
    ) -> Result<usize, AuditError> {
        let head = tree_head(peer, public_key_der).await?;
        let before = self.state().head.clone();
        if let Some(before) = &before {
            compare(peer, before, &head).await?;
        }
        let is_larger = before.is_none_or(|before| before.head.size < head.head.size);
        if is_larger {
            self.state().head = Some(head.clone());
        }
        let samples: Vec<Sample> = self.state().samples.iter().copied().collect();
        for sample in samples {
            if is_included(peer, &sample.leaf, &head.head).await? {
                let mut state = self.state();
                state.samples.retain(|other| other.leaf != sample.leaf);
            }
        }
        let state = self.state();
        let is_overdue = |sample: &&Sample| sample.promised_at + MERGE_DELAY_MILLIS < now_millis;
        Ok(state.samples.iter().filter(is_overdue).count())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for a document. Nothing, if there is none.
async fn ask<T: DeserializeOwned>(peer: &Peer, path: &str) -> Result<Option<T>, AuditError> {
    let answer = peer.get(path, MAX_ANSWER_OCTETS).await;
    let answer = answer.map_err(|error| AuditError::Unknown(error.to_string()))?;
    let call = path.split('?').next().unwrap_or(path);
    match answer.status {
        200 => serde_json::from_slice(&answer.body)
            .map(Some)
            .map_err(|_| AuditError::Unproven(format!("{call}: the answer is malformed"))),
        404 => Ok(None),
        status => Err(AuditError::Unknown(format!("{call}: status {status}"))),
    }
}

/// The log's tree now (RFC 6962, section 4.3).
async fn tree_head(peer: &Peer, public_key_der: &[u8]) -> Result<SignedTreeHead, AuditError> {
    #[derive(Deserialize)]
    struct Answer {
        tree_size: u64,
        timestamp: u64,
        sha256_root_hash: String,
        tree_head_signature: String,
    }
    let none = || AuditError::Unknown("it has no calls of RFC 6962".to_owned());
    let answer: Answer = ask(peer, "/ct/v1/get-sth").await?.ok_or_else(none)?;
    let head = TreeHead {
        size: answer.tree_size,
        root: hash(&answer.sha256_root_hash)?,
        timestamp: answer.timestamp,
    };
    let signature = STANDARD.decode(answer.tree_head_signature);
    let signature = signature.unwrap_or_default();
    if is_signed(&head.signed_bytes(), &signature, public_key_der) {
        Ok(SignedTreeHead { head, signature })
    } else {
        let what = "its tree head is not signed by its key";
        Err(AuditError::Unproven(what.to_owned()))
    }
}

/// Whether of two trees the larger one extends the smaller one (RFC 6962, section 4.4). A log of several machines may show an
/// older one later.
async fn compare(
    peer: &Peer,
    one: &SignedTreeHead,
    other: &SignedTreeHead,
) -> Result<(), AuditError> {
    #[derive(Deserialize)]
    struct Answer {
        consistency: Vec<String>,
    }
    if one.head.size == other.head.size {
        let forked = || AuditError::Forked(one.clone().into(), other.clone().into());
        let is_one = one.head.root == other.head.root;
        return is_one.then_some(()).ok_or_else(forked);
    }
    let (first, second) = if one.head.size < other.head.size {
        (&one.head, &other.head)
    } else {
        (&other.head, &one.head)
    };
    let proof = if first.size == 0 {
        Vec::new()
    } else {
        let (first, second) = (first.size, second.size);
        let path = format!("/ct/v1/get-sth-consistency?first={first}&second={second}");
        let none = || AuditError::Unknown("it proves no consistency".to_owned());
        let answer: Answer = ask(peer, &path).await?.ok_or_else(none)?;
        hashes(&answer.consistency)?
    };
    if verify_consistency(first.size, &first.root, second.size, &second.root, &proof) {
        Ok(())
    } else {
        let (first, second) = (first.size, second.size);
        Err(AuditError::Unproven(format!(
            "its tree of {second} entries is not proved to extend that of {first}"
        )))
    }
}

/// Whether a tree holds a leaf (RFC 6962, section 4.5).
async fn is_included(peer: &Peer, leaf: &Hash, head: &TreeHead) -> Result<bool, AuditError> {
    #[derive(Deserialize)]
    struct Answer {
        leaf_index: u64,
        audit_path: Vec<String>,
    }
    if head.size == 0 {
        return Ok(false);
    }
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("hash", &STANDARD.encode(leaf))
        .append_pair("tree_size", &head.size.to_string())
        .finish();
    let path = format!("/ct/v1/get-proof-by-hash?{query}");
    let Some(Answer {
        leaf_index,
        audit_path,
    }) = ask(peer, &path).await?
    else {
        return Ok(false);
    };
    let proof = hashes(&audit_path)?;
    if verify_inclusion(leaf, leaf_index, head.size, &proof, &head.root) {
        Ok(true)
    } else {
        Err(AuditError::Unproven(
            "its proof that it holds an entry of ours does not hold".to_owned(),
        ))
    }
}

fn hash(text: &str) -> Result<Hash, AuditError> {
    let octets = STANDARD.decode(text).ok();
    let hash = octets.and_then(|octets| octets.try_into().ok());
    hash.ok_or_else(|| AuditError::Unproven("a hash of it is none".to_owned()))
}

fn hashes(texts: &[String]) -> Result<Vec<Hash>, AuditError> {
    texts.iter().map(|text| hash(text)).collect()
}

/// A tree head as `get-sth` has it.
fn shown(signed: &SignedTreeHead) -> String {
    let SignedTreeHead { head, signature } = signed;
    serde_json::json!({
        "tree_size": head.size,
        "timestamp": head.timestamp,
        "sha256_root_hash": STANDARD.encode(head.root),
        "tree_head_signature": STANDARD.encode(signature),
    })
    .to_string()
}
