//! A log of others, over HTTP: RFC 6962 or static-ct-api, which take submissions in the same way.
//!
//! Nothing that such a log says is believed: a timestamp leaves here only when it is that log's own, for this very
//! precertificate, of this moment.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{BoxFuture, FutureExt};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use url::Url;

use super::breaker::{Breaker, Change};
use super::promises::{AuditError, Promises};
use super::sct::{SctError, SignedCertificateTimestamp};
use super::{CtLog, Submission, SubmitError};
use crate::clock::Clock;
use crate::fetch::peer::{Peer, PeerAnswer, PeerError};
use crate::fetch::{FetchError, Resolver, TlsRoots};
use crate::metrics::{CtLogMetrics, SubmissionResult};
use crate::x509::algorithm::KeyKind;
use crate::x509::chain::CertificateChain;
use crate::x509::spki::SubjectPublicKey;

const ADD_PRE_CHAIN: &str = "/ct/v1/add-pre-chain";
const GET_ROOTS: &str = "/ct/v1/get-roots";
/// The longest answer with a timestamp, which has a few hundred octets.
const MAX_TIMESTAMP_OCTETS: usize = 64 << 10;
/// The longest list of roots: those of the web are a megabyte.
const MAX_ROOTS_OCTETS: usize = 8 << 20;
/// The largest file with a key or with certificates.
const MAX_FILE_OCTETS: u64 = 1 << 20;
/// Submissions to one log that wait for its answer; further ones are turned away.
const MAX_WAITING: usize = 1024;
/// The time before a submission is tried again, unless the log says one; it doubles with every try.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// How long is listened for an answer that nobody waits for any more, only to know of it.
const LATE: Duration = Duration::from_secs(10);
/// A log that gave a timestamp, or its roots, within this time is not asked how it is.
const QUIET: Duration = Duration::from_secs(10);
/// A log that gave neither within this time is down.
const STALE: Duration = Duration::from_secs(30);
/// How often is looked whether a log must be asked how it is.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How many looks go by until it is asked whether it keeps its promises.
const LOOKS_BETWEEN_AUDITS: u32 = 12;
/// The longest excerpt of a log's complaint in a message.
const MAX_COMPLAINT: usize = 200;

/// The configuration of a log of others.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RemoteLogConfig {
    /// What `/ct/v1/add-pre-chain` stands behind.
    pub url: String,
    /// Its public key, a PEM file: ECDSA P-256, or RSA of 2048, 3072 or 4096 bits.
    pub public_key_file: PathBuf,
    /// Its name in metrics and log lines: lower-case letters, digits, `-` and `.`, at most 63. Default: the host of `url`.
    pub name: Option<String>,
    /// The certificates that its TLS certificate must come from, a PEM file. Default: those of the system.
    pub tls_ca_file: Option<PathBuf>,
    /// The host that it knows itself by. Default: that of `url`.
    pub host: Option<String>,
}

/// The checked configuration of a log of others; its files are not read yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteLogSettings {
    name: String,
    url: Url,
    public_key_file: PathBuf,
    tls_ca_file: Option<PathBuf>,
    host: Option<String>,
}

/// What is wrong with the configuration of a log of others. Each begins with the setting.
#[derive(Debug, thiserror::Error)]
pub enum RemoteLogError {
    /// The URL is not one below which a log can be.
    #[error(
        "url: {0:?}; give http(s)://HOST[:PORT][/PATH] without user, query and fragment, and without /ct/v1 behind it"
    )]
    Url(String),
    /// The name does not fit into metrics and messages.
    #[error("name: {0:?}; give lower-case letters, digits, `-` and `.`, at most 63")]
    Name(String),
    /// A file cannot be used.
    #[error("{setting}: {}: {why}", path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// There can be no client for it.
    #[error("url: {0}")]
    Peer(#[from] PeerError),
}

impl RemoteLogConfig {
    /// Checks the configuration as far as it goes without its files.
    ///
    /// # Errors
    /// See [`RemoteLogError`].
    pub fn check(self) -> Result<RemoteLogSettings, RemoteLogError> {
        let url = Url::parse(&self.url).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
                && !url.path().trim_end_matches('/').ends_with("/ct/v1")
        });
        let Some(url) = url else {
            return Err(RemoteLogError::Url(self.url));
        };
        let name = self.name.unwrap_or_else(|| {
            let host = url.host_str().unwrap_or_default();
            host.trim_matches(['[', ']']).replace(':', "-")
        });
        let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        if name.is_empty() || name.len() > 63 || !name.bytes().all(is_plain) {
            return Err(RemoteLogError::Name(name));
        }
        Ok(RemoteLogSettings {
            name,
            url,
            public_key_file: self.public_key_file,
            tls_ca_file: self.tls_ca_file,
            host: self.host,
        })
    }
}

impl RemoteLogSettings {
    /// Its name in metrics and log lines.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Reads its public key.
    ///
    /// # Errors
    /// When the file holds no key that a log of RFC 6962 can have.
    pub fn public_key(&self) -> Result<SubjectPublicKey, RemoteLogError> {
        let path = &self.public_key_file;
        let unusable = |why: String| RemoteLogError::File {
            setting: "public-key-file",
            path: path.clone(),
            why,
        };
        let pem = read(path).map_err(|error| unusable(error.to_string()))?;
        let key = SubjectPublicKey::from_pem(pem.as_bytes());
        let key = key.map_err(|error| unusable(error.to_string()))?;
        match key.kind() {
            KeyKind::EcdsaP256 | KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Ok(key),
            kind @ (KeyKind::EcdsaP384 | KeyKind::EcdsaP521 | KeyKind::Ed25519) => {
                Err(unusable(format!(
                    "a key of the kind {} signs no timestamps (RFC 6962, section 2.1.4); give the log's ECDSA P-256 or RSA key",
                    kind.label()
                )))
            }
        }
    }

    /// What is wrong with the files that it names.
    #[must_use]
    pub fn check_files(&self) -> Vec<RemoteLogError> {
        let (key, tls_ca) = (self.public_key().err(), self.tls_ca().err());
        key.into_iter().chain(tls_ca).collect()
    }

    fn tls_ca(&self) -> Result<Option<TlsRoots>, RemoteLogError> {
        let Some(path) = &self.tls_ca_file else {
            return Ok(None);
        };
        let roots = read(path).map_err(|error| error.to_string());
        let roots = roots.and_then(|pem| TlsRoots::parse(&pem).map_err(|error| error.to_string()));
        roots.map(Some).map_err(|why| RemoteLogError::File {
            setting: "tls-ca-file",
            path: path.clone(),
            why,
        })
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE_OCTETS).read_to_string(&mut text)?;
    Ok(text)
}

/// What a log of others is given.
#[derive(Clone, Debug)]
pub struct RemoteLogParts {
    /// Where connections live, and what was submitted is waited for.
    pub runtime: Handle,
    /// The addresses of its host.
    pub resolver: Arc<dyn Resolver>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What happens is counted here.
    pub metrics: CtLogMetrics,
    /// Within this time it has to answer.
    pub answer_within: Duration,
}

/// A log of others.
#[derive(Clone, Debug)]
pub struct RemoteLog {
    runtime: Handle,
    turns: Arc<Semaphore>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    url: String,
    peer: Peer,
    public_key: SubjectPublicKey,
    clock: Arc<dyn Clock>,
    metrics: CtLogMetrics,
    answer_within: Duration,
    breaker: Breaker,
    promises: Promises,
    seen: Mutex<Seen>,
}

/// What was last seen of a log.
#[derive(Debug, Default)]
struct Seen {
    /// When it last gave a timestamp, or roots with ours among them.
    well_at: Option<Instant>,
    /// What has been wrong since.
    problem: Option<String>,
    /// Why it must never be used again.
    fork: Option<String>,
}

/// Why a log gave no timestamp.
#[derive(Clone, Debug)]
enum Failure {
    /// It did not answer in time.
    Timeout,
    /// It said that it takes nothing now, and when it will.
    Busy(u16, Option<Duration>),
    /// It cannot be reached, or failed.
    Unavailable(String),
    /// It refused this precertificate.
    Rejected(String),
    /// What it gave is no timestamp, or another one.
    BadSct(String),
}

impl From<Failure> for SubmitError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Timeout => Self::Unavailable("it did not answer in time".to_owned()),
            Failure::Busy(status, _) => {
                Self::Unavailable(format!("it takes nothing now (status {status})"))
            }
            Failure::Unavailable(why) => Self::Unavailable(why),
            Failure::Rejected(why) => Self::Rejected(why),
            Failure::BadSct(why) => Self::BadSct(why),
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Timeout => Self::Timeout,
            FetchError::TooLarge => Self::BadSct("its answer is too long".to_owned()),
            FetchError::Compressed => Self::BadSct("its answer is compressed".to_owned()),
            FetchError::Tls
            | FetchError::Dns
            | FetchError::ForbiddenAddress
            | FetchError::Connect
            | FetchError::Status(_)
            | FetchError::Redirect
            | FetchError::ForbiddenUrl
            | FetchError::ForeignHost
            | FetchError::ClusterFiles => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<SctError> for Failure {
    fn from(error: SctError) -> Self {
        Self::BadSct(error.to_string())
    }
}

impl RemoteLog {
    /// Reads the files of a log's configuration. A rustls provider must be installed in the process.
    ///
    /// # Errors
    /// When they are not what they should be. Whether the log is there does not matter.
    pub fn open(
        settings: &RemoteLogSettings,
        parts: RemoteLogParts,
    ) -> Result<Self, RemoteLogError> {
        let roots = settings.tls_ca()?;
        let host = settings.host.as_deref();
        let peer = Peer::new(&settings.url, host, roots.as_ref(), parts.resolver)?;
        Ok(Self {
            runtime: parts.runtime,
            turns: Arc::new(Semaphore::new(MAX_WAITING)),
            shared: Arc::new(Shared {
                name: settings.name.clone(),
                url: settings.url().to_owned(),
                peer,
                public_key: settings.public_key()?,
                clock: parts.clock,
                metrics: parts.metrics,
                answer_within: parts.answer_within,
                breaker: Breaker::new(),
                promises: Promises::default(),
                seen: Mutex::default(),
            }),
        })
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> &SubjectPublicKey {
        &self.shared.public_key
    }

    /// Whether it gave a timestamp, or its roots, in the last half minute.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn health(&self) -> Result<(), String> {
        let seen = self.shared.seen();
        if let Some(fork) = &seen.fork {
            return Err(fork.clone());
        }
        let is_well = seen.well_at.is_some_and(|at| at.elapsed() < STALE);
        if is_well {
            return Ok(());
        }
        let unknown = || "nothing has been heard of it yet".to_owned();
        Err(seen.problem.clone().unwrap_or_else(unknown))
    }

    /// Asks the log for its roots, and looks for one of `chain` among them.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub async fn look(&self, chain: &CertificateChain) -> Result<(), String> {
        self.shared.look(chain).await
    }

    /// Asks the log whether it only grew, and whether it holds what it gave timestamps for. Returns how many entries it
    /// should hold by now and does not.
    ///
    /// # Errors
    /// When that is not known; or when it forked: then it is not used any more, as long as this process lives.
    pub async fn audit(&self) -> Result<usize, AuditError> {
        self.shared.audit().await
    }

    /// Keeps asking how the log is while nothing is submitted to it, and whether it keeps its promises, for ever. To be run
    /// where its connections live.
    pub async fn watch(&self, chain: &CertificateChain) {
        for look in 1_u32.. {
            if look % LOOKS_BETWEEN_AUDITS == 0 {
                // Whatever comes of it is told where it is found.
                let _ = self.audit().await;
            }
            let well_at = self.shared.seen().well_at;
            if well_at.is_none_or(|at| at.elapsed() >= QUIET) {
                // Whatever comes of it is seen in the health.
                let _ = self.look(chain).await;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

impl CtLog for RemoteLog {
    fn name(&self) -> &str {
        &self.shared.name
    }

    /// Submits on the runtime of the connections, and goes on there when nobody waits any more: whether the log is well, and
    /// whether it has an entry without a certificate, is of interest all the same.
    fn submit(
        &self,
        submission: Arc<Submission>,
    ) -> BoxFuture<'_, Result<SignedCertificateTimestamp, SubmitError>> {
        async move {
            if let Some(fork) = self.shared.seen().fork.clone() {
                return Err(SubmitError::Unavailable(fork));
            }
            let turn = Arc::clone(&self.turns).try_acquire_owned();
            let turn = turn.map_err(|_| SubmitError::Overloaded)?;
            let admitted = self.shared.breaker.admit(Instant::now());
            admitted.map_err(|pause| {
                let seconds = pause.as_secs() + 1;
                SubmitError::Unavailable(format!(
                    "it failed before, and is asked again within {seconds} s"
                ))
            })?;
            let (answer, answered) = oneshot::channel();
            let shared = Arc::clone(&self.shared);
            self.runtime.spawn(async move {
                shared.serve(&submission, answer).await;
                drop(turn);
            });
            let stopping = || {
                Err(SubmitError::Unavailable(
                    "the server is stopping".to_owned(),
                ))
            };
            answered.await.unwrap_or_else(|_| stopping())
        }
        .boxed()
    }
}

type Answer = oneshot::Sender<Result<SignedCertificateTimestamp, SubmitError>>;

impl Shared {
    async fn serve(&self, submission: &Submission, answer: Answer) {
        let start = Instant::now();
        let deadline = start + self.answer_within;
        let mut exchange = pin!(self.exchange(submission, deadline));
        let outcome = timeout_at(deadline, exchange.as_mut()).await;
        let outcome = outcome.unwrap_or(Err(Failure::Timeout));
        self.note(&outcome, start.elapsed());
        let is_timeout = matches!(outcome, Err(Failure::Timeout));
        let is_timestamp = outcome.is_ok();
        let is_unheard = answer.send(outcome.map_err(SubmitError::from)).is_err();
        let is_late = if is_timeout {
            matches!(timeout(LATE, exchange).await, Ok(Ok(_)))
        } else {
            is_timestamp && is_unheard
        };
        if is_late {
            self.metrics.late();
        }
    }

    /// Submits until the log says yes or no, as long as there is time.
    async fn exchange(
        &self,
        submission: &Submission,
        deadline: Instant,
    ) -> Result<SignedCertificateTimestamp, Failure> {
        let body = add_chain_body(submission);
        let mut pause = FIRST_RETRY;
        loop {
            let asked = self
                .peer
                .post_json(ADD_PRE_CHAIN, body.clone(), MAX_TIMESTAMP_OCTETS);
            let (failure, asked_for) = match asked.await {
                Ok(answer) => match answer.status {
                    200 => return self.timestamp(&answer.body, submission),
                    408 | 429 | 503 => {
                        let time = self.retry_after(&answer);
                        (Failure::Busy(answer.status, time), time)
                    }
                    400..=499 => return Err(Failure::Rejected(complaint(&answer))),
                    _ => return Err(Failure::Unavailable(complaint(&answer))),
                },
                // A log that closes a connection just as it is used, or restarts, is there a moment later.
                Err(error @ FetchError::Connect) => (error.into(), None),
                Err(error) => return Err(error.into()),
            };
            let time = asked_for.unwrap_or(pause);
            if Instant::now() + time >= deadline {
                return Err(failure);
            }
            sleep(time).await;
            pause *= 2;
        }
    }

    /// Reads and verifies what the log gave.
    fn timestamp(
        &self,
        json: &[u8],
        submission: &Submission,
    ) -> Result<SignedCertificateTimestamp, Failure> {
        let timestamp = SignedCertificateTimestamp::from_add_chain_json(json)?;
        timestamp.verify(submission, self.public_key.spki_der())?;
        timestamp.check_new(self.clock.now_millis())?;
        self.promises
            .sample(|| timestamp.leaf_hash(submission), timestamp.timestamp());
        Ok(timestamp)
    }

    /// When the log wants to be asked again: a number of seconds, or a date (RFC 9110, section 10.2.3).
    fn retry_after(&self, answer: &PeerAnswer) -> Option<Duration> {
        let text = answer.retry_after.as_deref()?;
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
        (date - self.clock.now()).try_into().ok()
    }

    /// Takes note of what came of a submission.
    fn note(&self, outcome: &Result<SignedCertificateTimestamp, Failure>, took: Duration) {
        let (result, sct_millis) = match outcome {
            Ok(timestamp) => (SubmissionResult::Ok, Some(timestamp.timestamp())),
            Err(Failure::Timeout) => (SubmissionResult::Timeout, None),
            Err(Failure::Rejected(_)) => (SubmissionResult::Rejected, None),
            Err(Failure::BadSct(_)) => (SubmissionResult::BadSct, None),
            Err(Failure::Busy(..) | Failure::Unavailable(_)) => {
                (SubmissionResult::Unavailable, None)
            }
        };
        self.metrics.submitted(result, sct_millis, took);
        let now = Instant::now();
        let change = match outcome {
            Ok(_) => self.breaker.succeeded(),
            Err(Failure::Busy(_, Some(pause))) => self.breaker.leave_alone(now, *pause),
            // A log that refuses does its work; and what it refuses may be in the hands of the client, who must not be able
            // to keep others from it.
            Err(Failure::Rejected(_)) => self.breaker.succeeded(),
            Err(
                Failure::Timeout
                | Failure::Busy(_, None)
                | Failure::Unavailable(_)
                | Failure::BadSct(_),
            ) => self.breaker.failed(now),
        };
        let problem = outcome.as_ref().err().cloned();
        let problem = problem.map(|failure| SubmitError::from(failure).to_string());
        let (log, error) = (&*self.name, problem.as_deref());
        match outcome {
            Err(Failure::BadSct(_)) => tracing::error!(
                event = "ct_bad_sct",
                log,
                error,
                "a log gave something else than its timestamp for our precertificate; it was not used"
            ),
            Err(Failure::Rejected(_)) => tracing::warn!(
                event = "ct_rejected",
                log,
                error,
                "a log refused a precertificate"
            ),
            Ok(_) | Err(Failure::Timeout | Failure::Busy(..) | Failure::Unavailable(_)) => {}
        }
        match change {
            Some(Change::Opened(pause)) => tracing::warn!(
                event = "ct_log_left_alone",
                log,
                error,
                seconds = pause.as_secs(),
                "a log fails, and is not asked for a while"
            ),
            Some(Change::Closed) => tracing::info!(
                event = "ct_log_back",
                log,
                "a log that failed is asked again"
            ),
            None => {}
        }
        self.saw(problem);
    }

    fn saw(&self, problem: Option<String>) {
        let mut seen = self.seen();
        if problem.is_none() {
            seen.well_at = Some(Instant::now());
        }
        seen.problem = problem;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn audit(&self) -> Result<usize, AuditError> {
        let key = self.public_key.spki_der();
        let audited = self
            .promises
            .audit(&self.peer, key, self.clock.now_millis());
        let audited = timeout(LATE, audited).await;
        let slow = |_| Err(AuditError::Unknown("it does not answer".to_owned()));
        let audited = audited.unwrap_or_else(slow);
        let log = &*self.name;
        match &audited {
            Ok(overdue) => {
                self.metrics.overdue(*overdue);
                if *overdue > 0 {
                    tracing::error!(
                        event = "ct_inclusion_overdue",
                        log,
                        overdue,
                        "a log does not hold what it promised a day ago"
                    );
                }
            }
            Err(AuditError::Unknown(_)) => {}
            Err(error @ AuditError::Unproven(_)) => tracing::error!(
                event = "ct_log_unproven",
                log,
                %error,
                "what a log says of its tree does not hold"
            ),
            Err(error @ AuditError::Forked(..)) => {
                tracing::error!(
                    event = "ct_log_forked",
                    log,
                    %error,
                    "a log lies, and is not used any more; keep this line"
                );
                self.metrics.looked(false);
                self.seen().fork = Some("it signed two trees of one size".to_owned());
            }
        }
        audited
    }

    async fn look(&self, chain: &CertificateChain) -> Result<(), String> {
        let asked = self.peer.get(GET_ROOTS, MAX_ROOTS_OCTETS);
        let found = match timeout(self.answer_within, asked).await {
            Err(_) | Ok(Err(FetchError::Timeout)) => Err("it does not answer".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(answer)) => match answer.status {
                200 => accepts(&answer.body, chain),
                // It is there, and does not tell.
                404 | 405 | 501 => Ok(()),
                _ => Err(complaint(&answer)),
            },
        };
        self.metrics.looked(found.is_ok());
        self.saw(found.clone().err());
        found
    }
}

/// Whether a certificate of `chain` is among the roots that a log accepts (RFC 6962, section 4.7).
fn accepts(json: &[u8], chain: &CertificateChain) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Roots {
        certificates: Vec<String>,
    }
    let roots = serde_json::from_slice::<Roots>(json);
    let roots = roots.map_err(|_| "its list of roots is malformed".to_owned())?;
    let ours: Vec<String> = chain
        .certificates()
        .iter()
        .map(|one| STANDARD.encode(one.der()))
        .collect();
    if roots.certificates.iter().any(|root| ours.contains(root)) {
        Ok(())
    } else {
        Err("it does not accept certificates of our CA; its operator must add our root".to_owned())
    }
}

/// The body of `add-pre-chain` (RFC 6962, section 4.2): the precertificate and all of its chain.
fn add_chain_body(submission: &Submission) -> Vec<u8> {
    let above = submission.chain.certificates().iter();
    let chain: Vec<String> = std::iter::once(&*submission.precertificate)
        .chain(above.map(|certificate| certificate.der()))
        .map(|der| STANDARD.encode(der))
        .collect();
    serde_json::json!({ "chain": chain })
        .to_string()
        .into_bytes()
}

/// The status, and the beginning of what a log says for itself, in characters that harm no terminal.
fn complaint(answer: &PeerAnswer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain = |character: char| {
        let is_plain = character.is_ascii_graphic() || character == ' ';
        if is_plain { character } else { '?' }
    };
    let text: String = words
        .join(" ")
        .chars()
        .take(MAX_COMPLAINT)
        .map(plain)
        .collect();
    match (answer.status, &*text) {
        (status @ 300..=399, _) => format!("status {status}: it redirects, which is not followed"),
        (status, "") => format!("status {status}"),
        (status, text) => format!("status {status}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FixedClock;
    use crate::ctlog::testing;
    use crate::fetch::SystemResolver;
    use crate::keys::memory::NewKey;
    use crate::keys::{InMemoryKey, Signer};
    use crate::metrics::Metrics;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn config(url: &str, public_key_file: &Path) -> RemoteLogConfig {
        RemoteLogConfig {
            url: url.to_owned(),
            public_key_file: public_key_file.to_owned(),
            name: None,
            tls_ca_file: None,
            host: None,
        }
    }

    /// A file with a public key.
    fn key_file(kind: NewKey) -> tempfile::NamedTempFile {
        let (key, _) = InMemoryKey::generate(kind).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", key.public_key_der()));
        std::fs::write(file.path(), pem).unwrap();
        file
    }

    /// A log that nobody listens for, to be asked on the runtime of the test.
    fn nobody() -> RemoteLog {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = key_file(NewKey::P256);
        let settings = config("http://127.0.0.1:1", key.path()).check().unwrap();
        let parts = RemoteLogParts {
            runtime: Handle::current(),
            resolver: Arc::new(SystemResolver),
            clock: Arc::new(FixedClock::at(NOW)),
            metrics: Metrics::new().unwrap().ct_log("nobody"),
            answer_within: Duration::from_secs(2),
        };
        RemoteLog::open(&settings, parts).unwrap()
    }

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> PeerAnswer {
        PeerAnswer {
            status,
            retry_after: retry_after.map(str::to_owned),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_log_has_a_key_that_signs_timestamps() {
        let (p256, p384) = (key_file(NewKey::P256), key_file(NewKey::P384));
        let settings = |file: &tempfile::NamedTempFile| {
            let config = config("https://log.example/2026/", file.path());
            config.check().unwrap()
        };
        assert_eq!(settings(&p256).url(), "https://log.example/2026");
        assert!(settings(&p256).check_files().is_empty());
        let [error] = &settings(&p384).check_files()[..] else {
            panic!("a P-384 key was taken")
        };
        let error = error.to_string();
        assert!(error.contains("kind p384"), "{error}");
    }

    #[tokio::test]
    async fn the_time_to_come_back_is_a_number_or_a_date() {
        let log = nobody();
        for (text, expected) in [
            (None, None),
            (Some("0"), Some(0)),
            (Some("120"), Some(120)),
            (Some("Fri, 02 Jan 2026 03:04:15 GMT"), Some(10)),
            (Some("Fri, 02 Jan 2026 03:04:00 GMT"), None),
            (Some("-1"), None),
            (Some("soon"), None),
            (Some("99999999999999999999999"), None),
        ] {
            let time = log.shared.retry_after(&answer(503, text, ""));
            assert_eq!(time, expected.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn what_a_log_says_for_itself_is_one_short_line_that_harms_no_terminal() {
        for (status, body, shown) in [
            (500, "", "status 500".to_owned()),
            (400, " no\r\n EKU\t", "status 400: no EKU".to_owned()),
            (
                400,
                "\u{1b}[31mred\u{202e}",
                "status 400: ?[31mred?".to_owned(),
            ),
            (
                400,
                &"é".repeat(300),
                format!("status 400: {}", "?".repeat(200)),
            ),
            (
                302,
                "<a>",
                "status 302: it redirects, which is not followed".to_owned(),
            ),
        ] {
            assert_eq!(complaint(&answer(status, None, body)), shown);
        }
    }

    #[test]
    fn a_log_accepts_us_when_any_certificate_of_our_chain_is_a_root_of_it() {
        let chain = testing::chain();
        let ours = STANDARD.encode(chain.root().der());
        for (json, is_accepted) in [
            (format!(r#"{{"certificates":["AAAA","{ours}"]}}"#), true),
            (r#"{"certificates":["AAAA"]}"#.to_owned(), false),
            (r#"{"certificates":[]}"#.to_owned(), false),
            (r#"{"certificates":null}"#.to_owned(), false),
            ("<html>".to_owned(), false),
        ] {
            let found = accepts(json.as_bytes(), &chain);
            assert_eq!(found.is_ok(), is_accepted, "{json}: {found:?}");
        }
    }

    #[test]
    fn the_whole_chain_is_submitted_in_its_order() {
        let submission = testing::submission();
        let body: serde_json::Value = serde_json::from_slice(&add_chain_body(&submission)).unwrap();
        let root = STANDARD.encode(submission.chain.root().der());
        let expected = [STANDARD.encode(&submission.precertificate), root];
        assert_eq!(body, serde_json::json!({ "chain": expected }));
    }

    #[tokio::test]
    async fn submissions_that_wait_have_a_bound() {
        let log = nobody();
        let _others = log.turns.try_acquire_many(MAX_WAITING.try_into().unwrap());
        let refused = log.submit(Arc::new(testing::submission())).await;
        assert!(
            matches!(refused, Err(SubmitError::Overloaded)),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_not_well() {
        let log = nobody();
        assert_eq!(
            log.health(),
            Err("nothing has been heard of it yet".to_owned())
        );
        assert!(log.look(&testing::chain()).await.is_err());
        assert_eq!(log.health(), Err("the connection failed".to_owned()));
    }
}
