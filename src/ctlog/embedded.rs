//! Our own log: a static-ct-api log inside the process.
//!
//! A submission is an entry of the [`tlog`](crate::tlog) below; when that says where the entry is, durably, the timestamp
//! is signed by whoever submitted it, so that the log's one writer never waits for a signature.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{BoxFuture, FutureExt};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use url::Url;

use super::leaf::StaticCtFormat;
use super::sct::{self, SctExtensions, SignedCertificateTimestamp, TimestampedEntry};
use super::{CtLog, Submission, SubmitError};
use crate::clock::Clock;
use crate::hex::hex;
use crate::keys::{SignError, Signer};
use crate::metrics::LogMetrics;
use crate::random::Random;
use crate::reason::Reason;
use crate::store::folder::write_durably;
use crate::store::object::{BucketUrl, NotABucketUrl, Provider};
use crate::store::{Store, StoreError};
use crate::tlog::checkpoint::{LogKey, SignedTreeHead, TreeHead};
use crate::tlog::leaf_index::LeafIndex;
use crate::tlog::tile::TilePath;
use crate::tlog::tree::sha256;
use crate::tlog::{AppendError, Entry, Log, LogError, LogHealth, LogParts, Position, Timing};
use crate::x509::chain::CertificateChain;

/// The name of the blob that says which log a store holds.
const LOG_JSON: &str = "log.json";
/// The format of a log that this version writes.
const FORMAT: u32 = 1;
/// The maximum merge delay that the log promises, in seconds: how late an entry may appear in a checkpoint. It appears within
/// a second; the rest is for outages.
pub const MMD_SECONDS: u64 = 86_400;
/// The most octets of precertificate and TBSCertificate together; ours have less than 10 KiB.
const MAX_SUBMISSION_BYTES: usize = 512 << 10;

/// The configuration of the embedded log.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EmbeddedLogConfig {
    /// Its name in URLs and metrics: lower-case letters, digits and `-`, at most 63. Default: `main`.
    pub name: Option<String>,
    /// The first line of its checkpoints. Default: its URL without scheme and last slash. Fixed when it is created.
    pub origin: Option<String>,
    /// `leaf_index` (default) or `none`, for clients before sigstore-python 4.2. Fixed when it is created.
    pub sct_extensions: SctExtensions,
    /// A file that keeps the last published checkpoint; put it on another volume than the log, and in no backup. Default:
    /// none.
    pub high_water: Option<PathBuf>,
    /// Where it lives, if not in the data folder: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`. Any
    /// number of servers may share it. Default: the data folder.
    pub store: Option<String>,
    /// How often a second this server may write to the bucket, tiles not counted; fewer writes cost less and take longer.
    /// Default: no limit.
    pub max_puts_per_second: Option<u32>,
    /// Whether leaves can be found by their hashes (`get-proof-by-hash` of RFC 6962), which takes 16 octets of memory an
    /// entry, for moments up to 32. Default: `true`.
    pub proof_by_hash: Option<bool>,
}

/// The checked configuration of the embedded log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EmbeddedLogSettings {
    name: String,
    origin: String,
    url: String,
    sct_extensions: SctExtensions,
    high_water: Option<PathBuf>,
    bucket: Option<BucketUrl>,
    max_puts_per_second: Option<u32>,
    proof_by_hash: bool,
}

/// What is wrong with the configuration of the embedded log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EmbeddedLogConfigError {
    /// The name does not fit into a URL as it is.
    #[error("name: {0:?}; give lower-case letters, digits and `-`, at most 63")]
    Name(String),
    /// The origin would break the checkpoint's first line, or verifiers' key names.
    #[error(
        "origin: {0:?}; give a name without scheme, spaces and `+`, such as ca.example.com/ct/main"
    )]
    Origin(String),
    /// The store is no place in a bucket.
    #[error("store: {0}")]
    Store(#[from] NotABucketUrl),
    /// The limit of writes leaves none.
    #[error("max-puts-per-second: 0 writes make no log; give 1 or more")]
    NoPuts,
    /// The limit of writes is for buckets.
    #[error(
        "max-puts-per-second: only a log in a bucket has it; give `store` too, or leave it out"
    )]
    PutsWithoutBucket,
    /// The public URL has no host, or is not a plain base URL.
    #[error(
        "public URL: {0:?}; give http(s)://HOST[:PORT][/PATH] without user, query and fragment"
    )]
    PublicUrl(String),
}

impl EmbeddedLogConfig {
    /// Checks the configuration of a log of the server at `public_url`.
    ///
    /// # Errors
    /// See [`EmbeddedLogConfigError`].
    pub fn check(self, public_url: &Url) -> Result<EmbeddedLogSettings, EmbeddedLogConfigError> {
        let name = self.name.unwrap_or_else(|| "main".to_owned());
        let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if name.is_empty() || name.len() > 63 || !name.bytes().all(is_plain) {
            return Err(EmbeddedLogConfigError::Name(name));
        }
        let is_base = matches!(public_url.scheme(), "http" | "https")
            && public_url.has_host()
            && public_url.username().is_empty()
            && public_url.password().is_none()
            && public_url.query().is_none()
            && public_url.fragment().is_none();
        let base = public_url.as_str().trim_end_matches('/');
        let Some((_, host_and_path)) = base.split_once("://").filter(|_| is_base) else {
            return Err(EmbeddedLogConfigError::PublicUrl(base.to_owned()));
        };
        let origin = self
            .origin
            .unwrap_or_else(|| format!("{host_and_path}/ct/{name}"));
        let is_good = !origin.is_empty()
            && origin.len() <= 255
            && !origin.ends_with('/')
            && !origin.contains("://")
            && origin
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'+');
        if !is_good {
            return Err(EmbeddedLogConfigError::Origin(origin));
        }
        let bucket = self.store.map(|url| url.parse()).transpose()?;
        match self.max_puts_per_second {
            Some(0) => return Err(EmbeddedLogConfigError::NoPuts),
            Some(_) if bucket.is_none() => return Err(EmbeddedLogConfigError::PutsWithoutBucket),
            Some(_) | None => {}
        }
        Ok(EmbeddedLogSettings {
            bucket,
            max_puts_per_second: self.max_puts_per_second,
            url: format!("{base}/ct/{name}/"),
            name,
            origin,
            sct_extensions: self.sct_extensions,
            high_water: self.high_water,
            proof_by_hash: self.proof_by_hash.unwrap_or(true),
        })
    }
}

impl EmbeddedLogSettings {
    /// Its name in URLs and metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first line of its checkpoints.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The URL under which the log is read, with a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The bucket in which it lives; nothing where it lives in the data folder.
    #[must_use]
    pub const fn bucket(&self) -> Option<&BucketUrl> {
        self.bucket.as_ref()
    }

    fn timing(&self) -> Timing {
        let Some(bucket) = &self.bucket else {
            return Timing::default();
        };
        let growth = Duration::from_secs(match bucket.provider() {
            Provider::S3 | Provider::Azure => 1,
            // It takes one write a second of one object, and no more.
            Provider::Gcs => 2,
        });
        Timing::in_object_store(growth, self.max_puts_per_second.map(f64::from))
    }
}

/// What an embedded log is given.
#[derive(Clone)]
pub struct EmbeddedLogParts {
    /// Where it lives.
    pub store: Arc<dyn Store>,
    /// Its key: ECDSA P-256.
    pub signer: Arc<dyn Signer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The source of nonces.
    pub random: Arc<dyn Random>,
    /// What happens is counted here.
    pub metrics: Option<LogMetrics>,
    /// Called once, with the reason, when the process has to end; see [`LogParts::on_fatal`].
    pub on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for EmbeddedLogParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLogParts")
            .field("store", &self.store)
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

/// Why the embedded log cannot be created or opened. The texts are for operators.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedLogError {
    /// The log below.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A log is to be opened where there is none.
    #[error(
        "there is no log.json: the store is empty, was copied in part, or its creation was interrupted; a key that signed one \
         log must never start another, so restore the right store or create a new log with a new key"
    )]
    NoLog,
    /// `log.json` cannot be read.
    #[error("log.json is malformed: {0}")]
    Malformed(String),
    /// `log.json` has another format number.
    #[error("log.json has format {0}; this version knows format {FORMAT}: run a newer one")]
    NewerVersion(u32),
    /// The store holds another log than the configured one.
    #[error(
        "log.json says {field} {stored:?}, the configuration {configured:?}; it is fixed when a log is created"
    )]
    Differs {
        /// What differs.
        field: &'static str,
        /// The store's value.
        stored: String,
        /// The configured value.
        configured: String,
    },
}

impl EmbeddedLogError {
    /// The code that clients and metrics see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Log(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Sign(_)
            | Self::NoLog
            | Self::Malformed(_)
            | Self::NewerVersion(_)
            | Self::Differs { .. } => Reason::CtUnavailable,
        }
    }
}

/// What every version's `log.json` has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Which log a store holds. Written once, last of all, when it is created.
#[derive(Debug, Deserialize, Serialize)]
struct LogJson {
    format: u32,
    origin: String,
    /// Hexadecimal.
    log_id: String,
    /// The public key, a DER `SubjectPublicKeyInfo` in base64.
    public_key: String,
    sct_extensions: SctExtensions,
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

/// What a log's folder tells of it without its key, and while another process has it open.
#[derive(Clone, Debug)]
pub struct LogDescription {
    /// The first line of its checkpoints.
    pub origin: String,
    /// The public key, a DER `SubjectPublicKeyInfo`.
    pub public_key_der: Vec<u8>,
    /// When it was created; no timestamp of it is older.
    pub created: OffsetDateTime,
}

impl LogDescription {
    /// Copies the description of a log that lives elsewhere into a folder, for whoever has no access to its store.
    ///
    /// # Errors
    /// When there is no log, or one of the two fails.
    pub fn copy(store: &dyn Store, folder: &Path) -> Result<(), EmbeddedLogError> {
        let json = store.get(LOG_JSON)?.ok_or(EmbeddedLogError::NoLog)?;
        Ok(write_durably(&folder.join(LOG_JSON), &json)?)
    }

    /// Reads the description of the log in a folder.
    ///
    /// # Errors
    /// When there is no log, or a newer version made it.
    pub fn read(folder: &Path) -> Result<Self, EmbeddedLogError> {
        let json = std::fs::read(folder.join(LOG_JSON)).map_err(|_| EmbeddedLogError::NoLog)?;
        let log_json = LogJson::parse(&json)?;
        let public_key_der = STANDARD
            .decode(&log_json.public_key)
            .map_err(|error| EmbeddedLogError::Malformed(error.to_string()))?;
        Ok(Self {
            origin: log_json.origin,
            public_key_der,
            created: log_json.created,
        })
    }
}

/// Our own log.
pub struct EmbeddedLog {
    settings: EmbeddedLogSettings,
    key: LogKey,
    created: OffsetDateTime,
    store: Arc<dyn Store>,
    log: Log,
    /// Fingerprints of the certificates that are durably in the store.
    stored_issuers: RwLock<HashSet<[u8; 32]>>,
    /// Where the leaves are, by their hashes, if anybody may ask for that.
    leaf_index: Option<LeafIndex>,
}

impl EmbeddedLog {
    /// Creates an empty log in an empty store.
    ///
    /// Key and store belong together for ever; make both at once, and both or neither.
    ///
    /// # Errors
    /// When the store or the high-water file holds a log already, or the store or the key fails.
    pub fn create(
        settings: &EmbeddedLogSettings,
        parts: &EmbeddedLogParts,
    ) -> Result<(), EmbeddedLogError> {
        let key = LogKey::new(&settings.origin, Arc::clone(&parts.signer))?;
        if parts.store.get(LOG_JSON)?.is_some() {
            return Err(LogError::Exists(LOG_JSON.to_owned()).into());
        }
        Log::create(&log_parts(settings, parts, key.clone()))?;
        let created = parts.clock.now();
        let log_json = LogJson {
            format: FORMAT,
            origin: settings.origin.clone(),
            log_id: hex(key.identity().log_id()),
            public_key: STANDARD.encode(key.identity().public_key_der()),
            sct_extensions: settings.sct_extensions,
            created: created.replace_nanosecond(0).unwrap_or(created),
        };
        let json = serde_json::to_vec_pretty(&log_json)
            .map_err(|error| EmbeddedLogError::Malformed(error.to_string()))?;
        parts.store.put_immutable(LOG_JSON, &json)?;
        Ok(())
    }

    /// Opens a log that was created, verifies it, publishes a checkpoint, and starts its threads.
    ///
    /// # Errors
    /// See [`EmbeddedLogError`]; a log that is not surely the right one is never continued.
    pub fn open(
        settings: EmbeddedLogSettings,
        parts: &EmbeddedLogParts,
    ) -> Result<Self, EmbeddedLogError> {
        let key = LogKey::new(&settings.origin, Arc::clone(&parts.signer))?;
        let json = parts.store.get(LOG_JSON)?.ok_or(EmbeddedLogError::NoLog)?;
        let log_json = LogJson::parse(&json)?;
        log_json.check(&settings, &key)?;
        let log = Log::open(log_parts(&settings, parts, key.clone()))?;
        let leaf_index = settings.proof_by_hash.then(LeafIndex::default);
        Ok(Self {
            settings,
            key,
            created: log_json.created,
            store: Arc::clone(&parts.store),
            log,
            stored_issuers: RwLock::default(),
            leaf_index,
        })
    }

    /// SHA-256 of the public key (RFC 6962, section 3.2).
    #[must_use]
    pub const fn log_id(&self) -> [u8; 32] {
        *self.key.identity().log_id()
    }

    /// The first line of its checkpoints.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.settings.origin
    }

    /// The URL under which it is read, with a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.settings.url
    }

    /// The public key, a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key_der(&self) -> &[u8] {
        self.key.identity().public_key_der()
    }

    /// When it was created; no timestamp of it is older.
    #[must_use]
    pub const fn created(&self) -> OffsetDateTime {
        self.created
    }

    /// The latest checkpoint; nothing while the clock is behind after a start.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Arc<str>> {
        self.log.checkpoint()
    }

    /// The head of the latest checkpoint.
    #[must_use]
    pub fn head(&self) -> Option<TreeHead> {
        self.log.head()
    }

    /// The head of the latest checkpoint with the signature in it.
    #[must_use]
    pub fn signed_head(&self) -> Option<SignedTreeHead> {
        let checkpoint = self.checkpoint()?;
        self.key.identity().open(checkpoint.as_bytes()).ok()
    }

    /// How many entries the latest checkpoint covers.
    #[must_use]
    pub fn published_size(&self) -> u64 {
        self.head().map_or(0, |head| head.size)
    }

    /// How many entries have an index.
    #[must_use]
    pub fn tip_size(&self) -> u64 {
        self.log.tip_size()
    }

    /// Whether it takes entries, and whether its store took the last ones.
    #[must_use]
    pub fn health(&self) -> LogHealth {
        self.log.health()
    }

    /// Whether it takes entries now.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.log.is_writable()
    }

    /// The log below, for proofs.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// Where leaves are, by their hashes; nothing when the log does not keep that.
    #[must_use]
    pub const fn leaf_index(&self) -> Option<&LeafIndex> {
        self.leaf_index.as_ref()
    }

    /// Fills the index of leaves on a thread of its own, which ends when all that is published is in it, or the log is gone.
    ///
    /// Nothing waits for it: who asks for a leaf that is not in the index yet is told to come again.
    pub fn fill_leaf_index(self: &Arc<Self>) {
        let log = Arc::downgrade(self);
        let fill = move || {
            while let Some(log) = log.upgrade()
                && let Some(index) = log.leaf_index()
            {
                match index.advance(log.log()) {
                    Ok(false) => {}
                    Ok(true) => return,
                    Err(error) => {
                        // The next request goes on from here, and tells its client.
                        tracing::error!(
                            event = "log_not_indexed",
                            error = error.to_string(),
                            "the leaves of the log cannot be indexed"
                        );
                        return;
                    }
                }
            }
        };
        if self.leaf_index.is_some() {
            let spawned = std::thread::Builder::new()
                .name("leaf-index".to_owned())
                .spawn(fill);
            if let Err(error) = spawned {
                tracing::warn!(
                    event = "log_not_indexed",
                    error = error.to_string(),
                    "no thread to index the leaves of the log; requests do it"
                );
            }
        }
    }

    /// Returns a tile; see [`Log::tile`].
    ///
    /// # Errors
    /// When the store fails.
    pub fn tile(&self, path: TilePath) -> Result<Option<Vec<u8>>, StoreError> {
        self.log.tile(path)
    }

    /// Returns a certificate of a logged chain by its fingerprint, DER.
    ///
    /// # Errors
    /// When the store fails.
    pub fn issuer(&self, fingerprint: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        let name = issuer_name(fingerprint);
        let der = self.store.get(&name)?;
        // Readers keep what they get for long, so a file that went bad must not reach them.
        if der
            .as_ref()
            .is_some_and(|der| sha256(&[der]) != *fingerprint)
        {
            return Err(StoreError::Damaged(format!(
                "{name} does not have the content that its name says"
            )));
        }
        Ok(der)
    }

    /// Stops: takes nothing more, answers what waits, publishes a last checkpoint. Blocks until then.
    pub fn shutdown(&self) {
        self.log.shutdown();
    }

    /// Stores the certificates of a chain, before an entry refers to them.
    ///
    /// An authority's chain is written at its first submission; call this at the start to keep that out of a request.
    ///
    /// # Errors
    /// When the store fails.
    pub fn store_issuers(&self, chain: &CertificateChain) -> Result<(), StoreError> {
        for certificate in chain.certificates() {
            let fingerprint = certificate.fingerprint();
            let is_stored = self
                .stored_issuers
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(fingerprint);
            if !is_stored {
                self.store
                    .put_immutable(&issuer_name(fingerprint), certificate.der())?;
                self.stored_issuers
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(*fingerprint);
            }
        }
        Ok(())
    }

    async fn enter(
        &self,
        submission: Arc<Submission>,
    ) -> Result<SignedCertificateTimestamp, SubmitError> {
        if submission.precertificate.len() + submission.tbs.len() > MAX_SUBMISSION_BYTES {
            return Err(SubmitError::Rejected(
                "it is larger than 512 KiB".to_owned(),
            ));
        }
        self.store_issuers(&submission.chain)
            .map_err(|error| SubmitError::Store(error.to_string()))?;
        let certificates = submission.chain.certificates();
        let entry = PrecertificateEntry {
            submission: Arc::clone(&submission),
            fingerprints: certificates
                .iter()
                .flat_map(|certificate| *certificate.fingerprint())
                .collect(),
            sct_extensions: self.settings.sct_extensions,
        };
        let position = self.log.append(Box::new(entry)).await?;
        let extensions = self.settings.sct_extensions.bytes(position.index);
        let message = TimestampedEntry {
            timestamp: position.timestamp,
            issuer_key_hash: &submission.issuer_key_hash,
            tbs: &submission.tbs,
            extensions: &extensions,
        }
        .merkle_tree_leaf();
        let signature = self.key.signer().sign(&message).await;
        Ok(SignedCertificateTimestamp::by_ecdsa(
            self.log_id(),
            position.timestamp,
            extensions,
            signature
                .map_err(|_| SubmitError::Unavailable("its key does not answer".to_owned()))?,
        ))
    }
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("settings", &self.settings)
            .field("tip_size", &self.tip_size())
            .finish_non_exhaustive()
    }
}

impl CtLog for EmbeddedLog {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn submit(
        &self,
        submission: Arc<Submission>,
    ) -> BoxFuture<'_, Result<SignedCertificateTimestamp, SubmitError>> {
        self.enter(submission).boxed()
    }
}

impl From<AppendError> for SubmitError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::QueueFull => Self::Overloaded,
            AppendError::Timeout => Self::Timeout,
            AppendError::NotAnEntry => Self::Rejected(error.to_string()),
            AppendError::Unavailable(why) => Self::Unavailable(why.to_owned()),
            AppendError::Store(why) => Self::Store(why.to_owned()),
        }
    }
}

impl LogJson {
    fn parse(json: &[u8]) -> Result<Self, EmbeddedLogError> {
        let malformed = |error: serde_json::Error| EmbeddedLogError::Malformed(error.to_string());
        // The number comes first: what a newer version wrote may have another form.
        let Format { format } = serde_json::from_slice(json).map_err(malformed)?;
        if format != FORMAT {
            return Err(EmbeddedLogError::NewerVersion(format));
        }
        serde_json::from_slice(json).map_err(malformed)
    }

    fn check(&self, settings: &EmbeddedLogSettings, key: &LogKey) -> Result<(), EmbeddedLogError> {
        let log_id = hex(key.identity().log_id());
        let public_key = STANDARD.encode(key.identity().public_key_der());
        let extensions = |extensions: SctExtensions| extensions.name().to_owned();
        for (field, stored, configured) in [
            ("origin", self.origin.clone(), settings.origin.clone()),
            ("log_id", self.log_id.clone(), log_id),
            ("public_key", self.public_key.clone(), public_key),
            (
                "sct_extensions",
                extensions(self.sct_extensions),
                extensions(settings.sct_extensions),
            ),
        ] {
            if stored != configured {
                return Err(EmbeddedLogError::Differs {
                    field,
                    stored,
                    configured,
                });
            }
        }
        Ok(())
    }
}

fn log_parts(settings: &EmbeddedLogSettings, parts: &EmbeddedLogParts, key: LogKey) -> LogParts {
    LogParts {
        store: Arc::clone(&parts.store),
        key,
        format: Arc::new(StaticCtFormat {
            sct_extensions: settings.sct_extensions,
        }),
        clock: Arc::clone(&parts.clock),
        random: Arc::clone(&parts.random),
        high_water: settings.high_water.clone(),
        timing: settings.timing(),
        metrics: parts.metrics.clone(),
        on_fatal: Arc::clone(&parts.on_fatal),
    }
}

fn issuer_name(fingerprint: &[u8; 32]) -> String {
    format!("issuer/{}", hex(fingerprint))
}

/// A submission on its way to its index.
struct PrecertificateEntry {
    submission: Arc<Submission>,
    /// Of the chain's certificates, one after the other.
    fingerprints: Vec<u8>,
    sct_extensions: SctExtensions,
}

impl Entry for PrecertificateEntry {
    /// A `TileLeaf` (static-ct-api, "Log Entries"): the entry, the precertificate, the chain's fingerprints.
    fn encode(&self, position: Position) -> Vec<u8> {
        let submission = &self.submission;
        let octets = submission.tbs.len() + submission.precertificate.len();
        let mut bytes = Vec::with_capacity(octets + self.fingerprints.len() + 96);
        TimestampedEntry {
            timestamp: position.timestamp,
            issuer_key_hash: &submission.issuer_key_hash,
            tbs: &submission.tbs,
            extensions: &self.sct_extensions.bytes(position.index),
        }
        .write(&mut bytes);
        sct::extend_u24(&mut bytes, &submission.precertificate);
        sct::extend_u16(&mut bytes, &self.fingerprints);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::leaf::TileLeaf;
    use super::super::sct::tests::{SCT, submission as golden_submission};
    use super::super::testing::{new_log, parts, unhex};
    use super::*;
    use crate::keys::deterministic::DeterministicKey;
    use crate::store::MemoryStore;
    use crate::store::memory::Fault;
    use crate::tlog::EntryFormat;
    use crate::tlog::tile::TileKind;

    fn settings(config: EmbeddedLogConfig) -> EmbeddedLogSettings {
        config
            .check(&Url::parse("https://ca.example/").unwrap())
            .unwrap()
    }

    fn submit(
        log: &EmbeddedLog,
        submission: Submission,
    ) -> Result<SignedCertificateTimestamp, SubmitError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(log.submit(Arc::new(submission)))
    }

    #[test]
    fn the_golden_submission_gets_the_golden_timestamp() {
        let log = new_log(EmbeddedLogConfig::default());
        let sct = submit(&log, golden_submission()).unwrap();
        assert_eq!(sct.bytes(), unhex(SCT));
    }

    #[test]
    fn the_golden_entry_makes_the_golden_data_tile() {
        let fingerprint = "9c1eae7515b7f35dc6e2e8b4bd20aeb860eb4a6c9dbeabff598041e0ae0863a2";
        let entry = PrecertificateEntry {
            submission: Arc::new(golden_submission()),
            fingerprints: unhex(fingerprint),
            sct_extensions: SctExtensions::LeafIndex,
        };
        let position = Position {
            index: 0,
            timestamp: 1_767_225_600_123,
        };
        let tile = entry.encode(position);
        assert_eq!(
            hex(&sha256(&[&tile])),
            "67a6a10629864e7517a56c70a0f4dd177d47b5f2228237aaefd084977be42f8b"
        );
        let format = StaticCtFormat {
            sct_extensions: SctExtensions::LeafIndex,
        };
        let leaf = format.leaf_hash(&tile, position).unwrap();
        assert_eq!(
            hex(&leaf),
            "5ab115b3f02ae6aaf6ff94bb01ed67fe78931565f96d781e6dcf7d8ee301dfa5"
        );
    }

    #[test]
    fn an_entry_is_one_for_its_place_alone() {
        let entry = PrecertificateEntry {
            submission: Arc::new(golden_submission()),
            fingerprints: vec![1; 64],
            sct_extensions: SctExtensions::LeafIndex,
        };
        let format = StaticCtFormat {
            sct_extensions: SctExtensions::LeafIndex,
        };
        let position = Position {
            index: 7,
            timestamp: 9,
        };
        let bytes = entry.encode(position);
        let twice = [&bytes[..], &bytes].concat();
        assert_eq!(format.split_first(&twice), Some((&bytes[..], &bytes[..])));
        assert!(format.leaf_hash(&bytes, position).is_some());

        let elsewhere = Position {
            index: 8,
            ..position
        };
        let at_another_time = Position {
            timestamp: 10,
            ..position
        };
        let without_index = StaticCtFormat {
            sct_extensions: SctExtensions::None,
        };
        let of_an_x509_entry = [&bytes[..9], &[0], &bytes[10..]].concat();
        assert_eq!(format.leaf_hash(&bytes, elsewhere), None);
        assert_eq!(format.leaf_hash(&bytes, at_another_time), None);
        assert_eq!(without_index.leaf_hash(&bytes, position), None);
        assert_eq!(format.leaf_hash(&of_an_x509_entry, position), None);
        assert_eq!(format.leaf_hash(&twice, position), None);
        for length in 0..bytes.len() {
            assert_eq!(format.split_first(&bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn timestamps_verify_and_say_where_their_entries_are() {
        let log = new_log(EmbeddedLogConfig::default());
        for index in 0..3 {
            let submission = golden_submission();
            let sct = submit(&log, submission.clone()).unwrap();
            assert_eq!(sct.leaf_index(), Some(index));
            sct.verify(&submission, log.public_key_der()).unwrap();
            assert_eq!(*sct.log_id(), log.log_id());
        }
        log.shutdown();
        assert_eq!((log.tip_size(), log.published_size()), (3, 3));
    }

    #[test]
    fn without_extensions_timestamps_carry_none_and_verify() {
        let log = new_log(EmbeddedLogConfig {
            sct_extensions: SctExtensions::None,
            ..EmbeddedLogConfig::default()
        });
        let sct = submit(&log, golden_submission()).unwrap();
        assert_eq!(sct.leaf_index(), None);
        sct.verify(&golden_submission(), log.public_key_der())
            .unwrap();
        log.shutdown();
        let tile = log
            .tile(TilePath::of_width(TileKind::Data, 0, 1))
            .unwrap()
            .unwrap();
        assert!(TileLeaf::read(&tile).unwrap().0.extensions.is_empty());
    }

    #[test]
    fn the_chain_is_stored_before_the_entry_that_names_it() {
        let store = MemoryStore::default();
        let settings = settings(EmbeddedLogConfig::default());
        EmbeddedLog::create(&settings, &parts(&store)).unwrap();
        let log = EmbeddedLog::open(settings, &parts(&store)).unwrap();
        store.fail_next("issuer/", Fault::Before);
        let submission = golden_submission();
        let refusal = submit(&log, submission.clone()).unwrap_err();
        assert!(matches!(refusal, SubmitError::Store(_)), "{refusal}");
        assert_eq!(log.tip_size(), 0, "nothing is logged");

        submit(&log, submission.clone()).unwrap();
        let certificate = &submission.chain.certificates()[0];
        let stored = log.issuer(certificate.fingerprint()).unwrap();
        assert_eq!(stored.as_deref(), Some(certificate.der()));

        // One that went bad on the disk is not given to readers, who would keep it.
        let name = issuer_name(certificate.fingerprint());
        let mut der = certificate.der().to_vec();
        der[20] ^= 1;
        store.put_mutable(&name, &der).unwrap();
        let refusal = log.issuer(certificate.fingerprint());
        assert!(matches!(refusal, Err(StoreError::Damaged(_))));
    }

    #[test]
    fn a_submission_that_is_too_large_is_rejected() {
        let log = new_log(EmbeddedLogConfig::default());
        let refusal = submit(
            &log,
            Submission {
                precertificate: vec![0; MAX_SUBMISSION_BYTES],
                ..golden_submission()
            },
        );
        assert!(matches!(refusal, Err(SubmitError::Rejected(_))));
        assert_eq!(log.tip_size(), 0);
    }

    #[test]
    fn a_log_tells_what_it_is() {
        let log = new_log(EmbeddedLogConfig::default());
        assert_eq!(
            hex(&log.log_id()),
            "76805a63a6980c18075424a13f32772d02d7c71b4965754c1ce84f5841220327"
        );
        assert_eq!(log.name(), "main");
        assert_eq!(log.origin(), "ca.example/ct/main");
        assert_eq!(log.url(), "https://ca.example/ct/main/");
        assert_eq!(log.created().unix_timestamp(), 1_767_225_600);
        assert!(log.is_writable());
        let checkpoint = log.checkpoint().unwrap();
        assert!(
            checkpoint.starts_with("ca.example/ct/main\n0\n"),
            "{checkpoint}"
        );
    }

    #[test]
    fn what_is_fixed_at_creation_cannot_change() {
        let store = MemoryStore::default();
        let created = settings(EmbeddedLogConfig::default());
        EmbeddedLog::create(&created, &parts(&store)).unwrap();
        for (field, config) in [
            (
                "origin",
                EmbeddedLogConfig {
                    origin: Some("ca.example/other".to_owned()),
                    ..EmbeddedLogConfig::default()
                },
            ),
            (
                "sct_extensions",
                EmbeddedLogConfig {
                    sct_extensions: SctExtensions::None,
                    ..EmbeddedLogConfig::default()
                },
            ),
        ] {
            let refusal = EmbeddedLog::open(settings(config), &parts(&store)).unwrap_err();
            assert!(
                matches!(&refusal, EmbeddedLogError::Differs { field: found, .. } if *found == field),
                "{refusal}"
            );
        }
        let other_key = EmbeddedLogParts {
            signer: Arc::new(DeterministicKey::new(0x22)),
            ..parts(&store)
        };
        let refusal = EmbeddedLog::open(created, &other_key).unwrap_err();
        assert!(
            matches!(
                refusal,
                EmbeddedLogError::Differs {
                    field: "log_id",
                    ..
                }
            ),
            "{refusal}"
        );
    }

    #[test]
    fn a_key_without_its_store_is_refused() {
        let refusal = EmbeddedLog::open(
            settings(EmbeddedLogConfig::default()),
            &parts(&MemoryStore::default()),
        );
        assert!(matches!(refusal, Err(EmbeddedLogError::NoLog)));
    }

    #[test]
    fn a_creation_that_was_interrupted_is_not_opened() {
        let store = MemoryStore::default();
        let settings = settings(EmbeddedLogConfig::default());
        store.fail_next(LOG_JSON, Fault::Before);
        assert!(EmbeddedLog::create(&settings, &parts(&store)).is_err());
        let refusal = EmbeddedLog::open(settings.clone(), &parts(&store));
        assert!(matches!(refusal, Err(EmbeddedLogError::NoLog)));
        assert!(
            EmbeddedLog::create(&settings, &parts(&store)).is_err(),
            "nor created again"
        );
    }

    #[test]
    fn a_log_of_a_newer_format_is_not_touched() {
        let store = MemoryStore::default();
        let settings = settings(EmbeddedLogConfig::default());
        EmbeddedLog::create(&settings, &parts(&store)).unwrap();
        let json = String::from_utf8(store.get(LOG_JSON).unwrap().unwrap()).unwrap();
        let newer = json.replacen("\"format\": 1", "\"format\": 2", 1);
        for newer in [newer.as_str(), r#"{"format": 2, "other": "members"}"#] {
            store.put_mutable(LOG_JSON, newer.as_bytes()).unwrap();
            let refusal = EmbeddedLog::open(settings.clone(), &parts(&store));
            assert!(matches!(refusal, Err(EmbeddedLogError::NewerVersion(2))));
        }
    }

    #[test]
    fn a_description_with_another_public_key_is_refused() {
        let store = MemoryStore::default();
        let settings = settings(EmbeddedLogConfig::default());
        EmbeddedLog::create(&settings, &parts(&store)).unwrap();
        let json = String::from_utf8(store.get(LOG_JSON).unwrap().unwrap()).unwrap();
        let [own, other] = [0x11, 0x22]
            .map(|octet| STANDARD.encode(DeterministicKey::new(octet).public_key_der()));
        let edited = json.replacen(&own, &other, 1);
        store.put_mutable(LOG_JSON, edited.as_bytes()).unwrap();
        let refusal = EmbeddedLog::open(settings, &parts(&store)).unwrap_err();
        assert!(refusal.to_string().contains("public_key"), "{refusal}");
    }

    #[test]
    fn configurations_that_would_break_names_are_refused() {
        let check = |name: Option<&str>, origin: Option<&str>, url: &str| {
            EmbeddedLogConfig {
                name: name.map(str::to_owned),
                origin: origin.map(str::to_owned),
                ..EmbeddedLogConfig::default()
            }
            .check(&Url::parse(url).unwrap())
        };
        let good = check(Some("log-2"), None, "http://ca.example:8080/base/").unwrap();
        assert_eq!(good.origin(), "ca.example:8080/base/ct/log-2");
        assert_eq!(good.url(), "http://ca.example:8080/base/ct/log-2/");

        let long = "x".repeat(64);
        for name in ["", "Main", "a/b", "a b", "..", &long] {
            let refusal = check(Some(name), None, "https://ca.example");
            assert!(
                matches!(refusal, Err(EmbeddedLogConfigError::Name(_))),
                "{name}"
            );
        }
        for origin in ["", "a b", "a+b", "https://a", "a/", "a\nb", "ä"] {
            let refusal = check(None, Some(origin), "https://ca.example");
            assert!(
                matches!(refusal, Err(EmbeddedLogConfigError::Origin(_))),
                "{origin:?}"
            );
        }
        for url in [
            "https://u@ca.example",
            "https://ca.example?q",
            "https://ca.example#f",
            "ftp://ca.example",
        ] {
            let refusal = check(None, None, url);
            assert!(
                matches!(refusal, Err(EmbeddedLogConfigError::PublicUrl(_))),
                "{url}"
            );
        }
    }
}
