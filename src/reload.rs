//! Another version of the identity configuration takes the place of the one in force, without a request noticing.
//!
//! Asked for by a hangup signal, by the admin socket, or by the files themselves: they are looked at twice a second, which
//! sees every way of changing them (in place, by renaming, by the swapped link of a Kubernetes volume, on a network file
//! system) alike. What is read is checked as at the start, and then put in force at once; what does not hold up is told, and
//! changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::api::Api;
use crate::hex::hex;
use crate::identity::config::{Severity, named_files, source};
use crate::identity::{Finding, Issuers, Source};
use crate::metrics::{Metrics, Reloadable};
use crate::readiness::PolicyInForce;
use crate::systemd::Supervisor;
use crate::tlog::tree::sha256;

pub(crate) mod tls;

/// The time between two looks at the files. A change counts once two looks in a row find the same.
const LOOK: Duration = Duration::from_millis(500);
/// A version that drops most issuers must be found again after this time: files that are written in place can be seen cut
/// short.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// The configuration as it was read: what is in force, or what is to be.
#[derive(Debug)]
pub struct LoadedPolicy {
    /// Who may ask.
    pub issuers: Issuers,
    /// What its authors should know.
    pub warnings: Vec<Finding>,
    /// The start of the SHA-256 of all files, hex.
    pub digest: String,
}

/// Why a configuration is not put in force.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] source::SourceError),
    /// It does not hold up; every finding.
    #[error("{}", first_of(findings))]
    Refused {
        /// What was found.
        findings: Vec<Finding>,
    },
    /// It has less than half as many entries as what is in force, and was not found twice.
    #[error(
        "it has {new} entries where {old} are in force; if that is meant, leave the files as they are, or force the reload"
    )]
    Shrinks {
        /// Entries in force.
        old: usize,
        /// Entries read.
        new: usize,
    },
    /// The server is not there any more.
    #[error("the server is stopping")]
    Stopping,
}

impl PolicyError {
    /// What is wrong, one line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Refused { findings } => decisive(findings).map(ToString::to_string).collect(),
            Self::Unreadable(_) | Self::Shrinks { .. } | Self::Stopping => vec![self.to_string()],
        }
    }

    /// Every finding, if it was one that refused the files.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Refused { findings } => findings,
            Self::Unreadable(_) | Self::Shrinks { .. } | Self::Stopping => &[],
        }
    }
}

/// The findings for which a configuration is refused: its errors; or all, where warnings count as errors.
fn decisive(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    let is_error = |finding: &&Finding| finding.severity == Severity::Error;
    let has_errors = findings.iter().any(|finding| is_error(&finding));
    let decisive = findings.iter();
    decisive.filter(move |finding| !has_errors || is_error(finding))
}

/// The first finding for which a configuration is refused, and how many there are besides.
fn first_of(findings: &[Finding]) -> String {
    let mut findings = decisive(findings);
    let first = findings.next().map(ToString::to_string);
    match (first, findings.count()) {
        (None, _) => String::new(),
        (Some(first), 0) => first,
        (Some(first), others) => format!("{first}; and {others} more"),
    }
}

/// Where the configuration is, and how strictly it is read.
#[derive(Clone, Debug)]
pub struct PolicyFiles {
    /// A file, or a folder of files.
    pub path: PathBuf,
    /// Whether warnings count as errors.
    pub is_strict: bool,
}

impl PolicyFiles {
    /// Reads and checks them. `now`: what ends soon is warned of.
    ///
    /// # Errors
    /// When a file cannot be read, or one finding is an error.
    pub fn load(&self, now: time::OffsetDateTime) -> Result<LoadedPolicy, PolicyError> {
        let sources = source::read(&self.path)?;
        let refused = |findings| PolicyError::Refused { findings };
        let (issuers, warnings) = Issuers::load(&sources, Some(now)).map_err(refused)?;
        if self.is_strict && !warnings.is_empty() {
            return Err(refused(warnings));
        }
        let digest = digest(&sources, &issuers);
        Ok(LoadedPolicy {
            issuers,
            warnings,
            digest,
        })
    }

    /// What can be seen of them, and of the files that they name. What changes after this and before they are read counts as
    /// a change once more.
    pub(crate) fn look(&self) -> Fingerprint {
        // What cannot be read names nothing; the reload tells of it.
        let sources = source::read(&self.path).unwrap_or_default();
        Fingerprint::of(&self.path, named_files(&sources))
    }
}

/// The start of the SHA-256 of all texts, and of the key sets that they name, hex.
fn digest(sources: &[Source], issuers: &Issuers) -> String {
    let texts = sources.iter().map(|source| source.text.as_str());
    let texts: Vec<&[u8]> = texts
        .chain(issuers.given_key_sets())
        .map(str::as_bytes)
        .collect();
    hex(sha256(&texts).get(..6).unwrap_or_default())
}

/// What a reload came to.
#[derive(Clone, Debug, Serialize)]
pub struct Reloaded {
    /// The start of the SHA-256 of what is in force now, hex.
    pub digest: String,
    /// Whether that is another version than before.
    pub is_changed: bool,
    /// How many entries it has.
    pub issuers: usize,
    /// What its authors should know.
    pub warnings: Vec<Finding>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            digest,
            is_changed,
            issuers,
            warnings,
        } = self;
        for finding in warnings {
            writeln!(f, "warning: {finding}")?;
        }
        let before = if *is_changed { "" } else { " as before" };
        writeln!(f, "{digest} is in force{before}: {issuers} entries")
    }
}

/// Somebody asks for a reload.
struct Request {
    is_forced: bool,
    answer: Option<oneshot::Sender<Result<Reloaded, PolicyError>>>,
}

/// Asks for reloads, from anywhere.
#[derive(Clone, Debug)]
pub struct ReloadHandle(Sender<Request>);

/// The other end of a [`ReloadHandle`], for the server.
pub struct ReloadRequests(Receiver<Request>);

impl fmt::Debug for ReloadRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadRequests")
    }
}

/// Makes both ends. What is asked before the server serves is not lost.
#[must_use]
pub fn channel() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel();
    (ReloadHandle(sender), ReloadRequests(receiver))
}

impl ReloadHandle {
    /// Asks for a reload, and does not wait for it.
    pub fn ask(&self) {
        // A server that is stopping reloads nothing.
        let _ = self.0.send(Request {
            is_forced: false,
            answer: None,
        });
    }

    /// Asks for a reload and waits for what comes of it. `is_forced`: also when most entries are gone.
    ///
    /// # Errors
    /// When what is read does not hold up.
    pub async fn reload(&self, is_forced: bool) -> Result<Reloaded, PolicyError> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            is_forced,
            answer: Some(answer),
        };
        self.0.send(request).map_err(|_| PolicyError::Stopping)?;
        answered.await.map_err(|_| PolicyError::Stopping)?
    }
}

/// Puts new versions in force; a thread of its own.
pub(crate) struct Reloader {
    pub(crate) api: Arc<Api>,
    pub(crate) files: PolicyFiles,
    pub(crate) supervisor: Option<Supervisor>,
    /// Whether the files are looked at unasked.
    pub(crate) is_watching: bool,
    /// How they looked before they were read at the start.
    pub(crate) seen: Fingerprint,
}

impl Reloader {
    /// Answers requests until every [`ReloadHandle`] is gone, or the server stops.
    pub(crate) fn run(&self, requests: &ReloadRequests) {
        let mut in_force = self.seen.clone();
        let mut last_seen = in_force.clone();
        while !self.is_stopping() {
            match requests.0.recv_timeout(LOOK) {
                Ok(request) => {
                    in_force = self.files.look();
                    self.answer(request, requests);
                }
                Err(RecvTimeoutError::Timeout) if self.is_watching => {
                    let seen = in_force.look_again();
                    if seen == last_seen && seen != in_force {
                        in_force = self.files.look();
                        // The outcome is in log, metrics and readiness.
                        let _ = self.reload(false);
                    }
                    last_seen = seen;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        (self.api.is_stopping).load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Reloads once for everybody who asks meanwhile.
    fn answer(&self, first: Request, requests: &ReloadRequests) {
        let mut waiting = vec![first];
        waiting.extend(requests.0.try_iter());
        let is_forced = waiting.iter().any(|request| request.is_forced);
        let outcome = self.reload(is_forced);
        for answer in waiting.into_iter().filter_map(|request| request.answer) {
            // Who left has no use for it, and the outcome is in log, metrics and readiness.
            let _ = answer.send(outcome.clone());
        }
    }

    /// Reads the files and puts them in force, and tells of it.
    fn reload(&self, is_forced: bool) -> Result<Reloaded, PolicyError> {
        if let Some(supervisor) = &self.supervisor {
            supervisor.reloading();
        }
        let outcome = self.try_reload(is_forced);
        let metrics = &self.api.metrics;
        match &outcome {
            Ok(reloaded) => {
                metrics.reloaded(
                    Reloadable::Identity,
                    self.api.ca.clock.now().unix_timestamp(),
                );
                log_warnings(&reloaded.warnings);
                tracing::info!(
                    event = "config.reloaded",
                    digest = reloaded.digest,
                    issuers = reloaded.issuers,
                    is_changed = reloaded.is_changed,
                    "the identity configuration is in force"
                );
            }
            Err(error) => {
                metrics.reload_refused(Reloadable::Identity);
                for line in error.lines() {
                    tracing::error!(
                        event = "config.rejected",
                        finding = line,
                        "the identity configuration on the disk is not used; what was in force stays"
                    );
                }
                self.api.readiness.policy_refused(error.to_string());
            }
        }
        if let Some(supervisor) = &self.supervisor {
            supervisor.ready();
        }
        outcome
    }

    fn try_reload(&self, is_forced: bool) -> Result<Reloaded, PolicyError> {
        let clock = &self.api.ca.clock;
        let mut policy = self.files.load(clock.now())?;
        let old = self.api.readiness.policy().issuers.len();
        let shrinks = |policy: &LoadedPolicy| policy.issuers.all().len() * 2 < old;
        if !is_forced && shrinks(&policy) {
            std::thread::sleep(SECOND_LOOK);
            let again = self.files.load(clock.now())?;
            if again.digest != policy.digest && shrinks(&again) {
                let new = again.issuers.all().len();
                return Err(PolicyError::Shrinks { old, new });
            }
            policy = again;
        }
        Ok(self.put_in_force(policy))
    }

    /// Every part that depends on the configuration takes the new one.
    fn put_in_force(&self, policy: LoadedPolicy) -> Reloaded {
        let LoadedPolicy {
            issuers,
            warnings,
            digest,
        } = policy;
        let Api {
            ca,
            readiness,
            documents,
            metrics,
            ..
        } = &*self.api;
        let before = readiness.policy();
        let after = PolicyInForce::new(&issuers, digest.clone(), ca.clock.now());
        let count = after.issuers.len();
        let published = issuers.configuration();
        documents.set_issuers(&published);
        self.api.trust.set_issuers(&published);
        ca.tokens.replace(Arc::new(issuers), ca.clock.now());
        announce(metrics, &after, Some(&before));
        readiness.policy_loaded(after);
        Reloaded {
            is_changed: digest != before.digest,
            digest,
            issuers: count,
            warnings,
        }
    }
}

/// Logs what the authors of a configuration should know.
pub(crate) fn log_warnings(warnings: &[Finding]) {
    for finding in warnings {
        debug_assert_eq!(finding.severity, Severity::Warning);
        tracing::warn!(event = "config_warning", code = %finding.code, "{finding}");
    }
}

/// Sets the metrics that tell of the configuration in force.
pub(crate) fn announce(metrics: &Metrics, policy: &PolicyInForce, before: Option<&PolicyInForce>) {
    let count = |holds: fn(&crate::identity::Issuer) -> bool| {
        let issuers = policy.issuers.iter();
        issuers.filter(|issuer| holds(issuer)).count()
    };
    let wildcard = count(crate::identity::Issuer::is_wildcard);
    metrics.configured_issuers(
        policy.issuers.len() - wildcard,
        wildcard,
        count(|issuer| issuer.disabled),
    );
    let insecure = count(|issuer| issuer.rule.skips_email_verification());
    metrics.insecure_settings("identity", insecure);
    if let Some(before) = before {
        let stay: HashSet<&str> = policy.issuers.iter().map(|issuer| &*issuer.id).collect();
        let ids = before.issuers.iter().map(|issuer| &*issuer.id);
        ids.filter(|id| !stay.contains(id))
            .for_each(|id| metrics.forget_issuer(id));
    }
    let before = before.map(|before| before.digest.as_str());
    metrics.configuration("identity", &policy.digest, before);
}

/// What can be seen of files without reading them; it differs after every change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fingerprint {
    /// The file or folder that is the configuration.
    path: PathBuf,
    /// Other files, which it names.
    named: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Option<Seen>>,
}

/// Device, inode, size, and the last change of content and of the entry, seconds and nanoseconds.
type Seen = (u64, u64, u64, (i64, i64), (i64, i64));

impl Fingerprint {
    fn of(path: &Path, named: Vec<PathBuf>) -> Self {
        let mut files = BTreeMap::new();
        let mut look = |path: PathBuf| {
            let seen = std::fs::metadata(&path).ok().map(|metadata| {
                (
                    metadata.dev(),
                    metadata.ino(),
                    metadata.len(),
                    (metadata.mtime(), metadata.mtime_nsec()),
                    (metadata.ctime(), metadata.ctime_nsec()),
                )
            });
            files.insert(path, seen);
        };
        look(path.to_owned());
        if let Ok(entries) = std::fs::read_dir(path) {
            for entry in entries.flatten() {
                look(entry.path());
            }
        }
        named.iter().cloned().for_each(&mut look);
        Self {
            path: path.to_owned(),
            named,
            files,
        }
    }

    /// What can be seen of the same files now.
    fn look_again(&self) -> Self {
        Self::of(&self.path, self.named.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.yaml");
        // Everybody's issuer without a rule is a warning, and stands first.
        let issuer = "https://token.actions.githubusercontent.com";
        let entry = format!(
            "oidc-issuers:\n  {issuer}:\n    issuer-url: {issuer}\n    client-id: sigstore\n    preset: github\n"
        );
        let load = |more: &str, is_strict| {
            std::fs::write(&path, format!("{entry}{more}")).unwrap();
            let path = path.clone();
            let files = PolicyFiles { path, is_strict };
            files.load(time::OffsetDateTime::UNIX_EPOCH)
        };
        assert_eq!(load("", false).unwrap().warnings.len(), 1);
        let error = load("    alow: []\n", false).unwrap_err();
        assert_eq!(error.lines().len(), 1);
        assert!(error.to_string().contains("[MF101]"), "{error}");
        let error = load("", true).unwrap_err();
        assert!(error.to_string().contains("[MF119]"), "{error}");
    }

    #[test]
    fn files_that_a_configuration_names_are_looked_at_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.yaml");
        let elsewhere = tempfile::tempdir().unwrap();
        let keys = elsewhere.path().join("keys.json");
        let entry = |keys: &str| {
            format!(
                "oidc-issuers: {{a: {{issuer-url: 'https://a.example', client-id: sigstore, type: email{keys}}}}}"
            )
        };
        std::fs::write(&path, entry("")).unwrap();
        let files = PolicyFiles {
            path: path.clone(),
            is_strict: false,
        };
        let without = files.look();
        std::fs::write(&path, entry(&format!(", jwks-file: {}", keys.display()))).unwrap();
        assert_ne!(without.look_again(), without);
        // One that is not there yet may come.
        let missing = files.look();
        assert_eq!(missing.look_again(), missing);
        std::fs::write(&keys, "{}").unwrap();
        assert_ne!(missing.look_again(), missing);
        let there = files.look();
        std::fs::write(&keys, "{\"keys\": []}").unwrap();
        assert_ne!(there.look_again(), there);
    }

    #[test]
    fn every_way_of_changing_files_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("..v1")).unwrap();
        std::fs::create_dir(path("..v2")).unwrap();
        for version in ["..v1", "..v2"] {
            std::fs::write(path(version).join("a.yaml"), "same").unwrap();
        }
        symlink("..v1", path("..data")).unwrap();
        symlink("..data/a.yaml", path("a.yaml")).unwrap();
        std::fs::write(path("b.yaml"), "one").unwrap();

        let changes: [(&str, &dyn Fn()); 5] = [
            ("in place", &|| {
                std::fs::write(path("b.yaml"), "two").unwrap();
            }),
            ("by renaming", &|| {
                std::fs::write(path("b.tmp"), "two").unwrap();
                std::fs::rename(path("b.tmp"), path("b.yaml")).unwrap();
            }),
            ("by another file", &|| {
                std::fs::write(path("c.yaml"), "").unwrap();
            }),
            ("by one less", &|| {
                std::fs::remove_file(path("c.yaml")).unwrap();
            }),
            ("by the link of a volume", &|| {
                symlink("..v2", path("..new")).unwrap();
                std::fs::rename(path("..new"), path("..data")).unwrap();
            }),
        ];
        for (how, change) in changes {
            let before = Fingerprint::of(folder.path(), Vec::new());
            assert_eq!(before.look_again(), before);
            change();
            assert_ne!(before.look_again(), before, "{how}");
        }
        let file = path("b.yaml");
        let before = Fingerprint::of(&file, Vec::new());
        std::fs::write(&file, "three").unwrap();
        assert_ne!(before.look_again(), before);
        std::fs::remove_file(&file).unwrap();
        assert_ne!(before.look_again(), before);
    }
}
