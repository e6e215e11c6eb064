//! Whether certificates can be issued now: checks that run in the background, never in a request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::ca::CertificateAuthority;
use crate::ctlog::CtLog;
use crate::ctlog::embedded::EmbeddedLog;
use crate::ctlog::remote::RemoteLog;
use crate::identity::{Issuer, Issuers};
use crate::metrics::{IssuerKeys, Metrics};

/// The time between two rounds of checks.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// When a report is too old to be believed: the checks take seconds, unless one of them hangs.
const MAX_AGE: Duration = Duration::from_secs(30);

/// What the names of the issuers' checks begin with.
const ISSUER: &str = "issuer:";
/// After so many rounds, keys that are missing are fetched again.
const ROUNDS_BETWEEN_FETCHES: u32 = 30;

/// What the checks came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Certificates can be issued.
    Ready,
    /// Certificates can be issued, but not all that should be possible is.
    Degraded,
    /// No certificate can be issued.
    NotReady,
}

/// How a failed check weighs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Weight {
    /// Nothing can be issued.
    Required,
    /// Something is missing.
    Informational,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Which: one of a closed set, or `ct:` or `issuer:` with a configured name.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// How long it took.
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    pub took: Duration,
    /// What is wrong, and what to do; or what was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip)]
    weight: Weight,
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What a round of checks came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// All together.
    pub status: Status,
    /// One by one.
    pub checks: Vec<Check>,
    /// When the round ended.
    at: Instant,
}

impl Report {
    /// The report itself; when it is too old at `now`, one that says so and nothing else.
    fn unless_outdated(self: Arc<Self>, now: Instant) -> Arc<Self> {
        let age = now.saturating_duration_since(self.at);
        if age <= MAX_AGE {
            return self;
        }
        let seconds = age.as_secs();
        let detail = format!("no round of checks has ended for {seconds} s: one of them hangs");
        Arc::new(Self {
            status: Status::NotReady,
            checks: vec![required("checks", now, Err(detail))],
            at: self.at,
        })
    }
}

/// What is looked at.
#[derive(Debug)]
pub struct Watched {
    /// Who issues.
    pub ca: Arc<CertificateAuthority>,
    /// Our own log.
    pub log: Option<Arc<EmbeddedLog>>,
    /// Those of others.
    pub remote_logs: Vec<RemoteLog>,
}

/// The identity configuration that counts now.
#[derive(Clone, Debug)]
pub struct PolicyInForce {
    /// Its entries.
    pub issuers: Vec<Arc<Issuer>>,
    /// The start of the SHA-256 of its files, hex.
    pub digest: String,
    /// When it was put in force.
    pub since: OffsetDateTime,
    /// Why another version on the disk does not count, if there is one.
    pub refused: Option<String>,
}

impl PolicyInForce {
    /// A version that is as it is on the disk.
    #[must_use]
    pub fn new(issuers: &Issuers, digest: String, since: OffsetDateTime) -> Self {
        Self {
            issuers: issuers.all().into_iter().map(Arc::clone).collect(),
            digest,
            since,
            refused: None,
        }
    }
}

/// The checks, and what they last came to.
#[derive(Debug)]
pub struct Readiness {
    watched: Watched,
    policy: ArcSwap<PolicyInForce>,
    metrics: Arc<Metrics>,
    latest: ArcSwap<Report>,
}

impl Readiness {
    /// Nothing is known before the first [`Self::check`].
    #[must_use]
    pub fn new(watched: Watched, policy: PolicyInForce, metrics: Arc<Metrics>) -> Self {
        let latest = ArcSwap::from_pointee(Report {
            status: Status::NotReady,
            checks: Vec::new(),
            at: Instant::now(),
        });
        Self {
            watched,
            policy: ArcSwap::from_pointee(policy),
            metrics,
            latest,
        }
    }

    /// What the last round came to. Certificates cannot be counted on when that is long ago.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        self.latest.load_full().unless_outdated(Instant::now())
    }

    /// The identity configuration that counts now.
    #[must_use]
    pub fn policy(&self) -> Arc<PolicyInForce> {
        self.policy.load_full()
    }

    /// Another version of the configuration counts from now on.
    pub fn policy_loaded(&self, policy: PolicyInForce) {
        self.policy.store(Arc::new(policy));
    }

    /// The version on the disk does not count, and why; the one in force stays.
    pub fn policy_refused(&self, why: String) {
        self.policy.rcu(|policy| PolicyInForce {
            refused: Some(why.clone()),
            ..PolicyInForce::clone(policy)
        });
    }

    /// Runs the checks for ever, one round every [`INTERVAL`]. Keys that could not be fetched are asked for again now and
    /// then, so that an issuer that was away at the start is there before its users are.
    pub async fn watch(&self) {
        let ca = &self.watched.ca;
        for round in 1_u32.. {
            self.check().await;
            if round % ROUNDS_BETWEEN_FETCHES == 0 {
                ca.tokens.prefetch(ca.clock.now());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Runs one round of checks.
    pub async fn check(&self) {
        let start = Instant::now();
        let mut checks = vec![
            self.ca_key().await,
            self.ca_certificate(),
            self.clock(),
            self.config(),
        ];
        if let Some(log) = &self.watched.log {
            checks.extend(log_checks(log));
        }
        checks.extend(remote_log_checks(&self.watched.remote_logs));
        checks.extend(self.issuers());

        let failed = |weight| {
            checks
                .iter()
                .any(|check| !check.ok && check.weight == weight)
        };
        let status = if failed(Weight::Required) {
            Status::NotReady
        } else if failed(Weight::Informational) {
            Status::Degraded
        } else {
            Status::Ready
        };
        for check in &checks {
            self.metrics.ready_check(&check.name, check.ok);
        }
        self.metrics
            .ready(status != Status::NotReady, start.elapsed());
        let report = Report {
            status,
            checks,
            at: Instant::now(),
        };
        let previous = self.latest.swap(Arc::new(report));
        self.tell(&previous);
    }

    /// One line for every check that changed. Of the issuers those tell who fetch their keys.
    fn tell(&self, previous: &Report) {
        let before: HashMap<&str, bool> = previous
            .checks
            .iter()
            .map(|check| (check.name.as_str(), check.ok))
            .collect();
        let latest = self.latest.load();
        let checks = latest.checks.iter();
        for check in checks.filter(|check| !check.name.starts_with(ISSUER)) {
            let was_ok = before.get(check.name.as_str()).copied().unwrap_or(true);
            let (name, detail) = (check.name.as_str(), check.detail.as_deref());
            match (was_ok, check.ok, check.weight) {
                (true, false, Weight::Required) => tracing::error!(
                    event = "check_failed",
                    check = name,
                    detail,
                    "not ready: no certificate is issued until this is mended"
                ),
                (true, false, Weight::Informational) => tracing::warn!(
                    event = "check_failed",
                    check = name,
                    detail,
                    "a check of readiness fails"
                ),
                (false, true, _) => tracing::info!(
                    event = "check_recovered",
                    check = name,
                    "a check of readiness holds again"
                ),
                (true, true, _) | (false, false, _) => {}
            }
        }
    }

    /// Whether the CA's key signs.
    async fn ca_key(&self) -> Check {
        let start = Instant::now();
        let signed = self.watched.ca.authority.check_key().await;
        required("ca_key", start, signed.map_err(|error| error.to_string()))
    }

    /// Whether the CA's certificates are valid, for longer than a new certificate will be.
    fn ca_certificate(&self) -> Check {
        let start = Instant::now();
        let ca = &self.watched.ca;
        let now = ca.clock.now();
        let valid = ca.authority.check_validity(now);
        required(
            "ca_certificate",
            start,
            valid.map_err(|error| error.to_string()),
        )
    }

    /// Whether the clock was set since the start.
    fn clock(&self) -> Check {
        let start = Instant::now();
        let read = self.watched.ca.clock_guard.now();
        required(
            "clock",
            start,
            read.map(drop).map_err(|error| error.to_string()),
        )
    }

    /// Whether the configuration in force is the one on the disk.
    fn config(&self) -> Check {
        let policy = self.policy();
        let found = match &policy.refused {
            None => Ok(()),
            Some(why) => Err(format!(
                "identity file {} stays in force, the one on the disk is refused: {why}",
                policy.digest
            )),
        };
        let check = informational("config".to_owned(), Instant::now(), found);
        Check {
            detail: check
                .detail
                .or_else(|| Some(format!("identity file {}", policy.digest))),
            ..check
        }
    }

    /// Whether the keys of each issuer are there whose tokens are accepted. Only when none has any can nothing be issued.
    fn issuers(&self) -> Vec<Check> {
        let start = Instant::now();
        let ca = &self.watched.ca;
        let tenants = ca.tokens.key_status().into_iter();
        self.metrics
            .oidc_tenants(tenants.filter(|status| status.is_tenant).count());
        let now = ca.clock.now();
        let policy = self.policy();
        let in_use: Vec<_> = policy
            .issuers
            .iter()
            .filter(|issuer| issuer.is_in_use(now))
            .collect();
        let exact = in_use.iter().filter(|issuer| !issuer.is_wildcard());
        let mut checks: Vec<Check> = exact
            .map(|issuer| {
                let status = ca.tokens.key_status_of(issuer);
                let status = status.as_ref();
                let has_keys = status.is_some_and(|status| status.keys > 0);
                self.metrics.issuer_keys(&IssuerKeys {
                    issuer: &issuer.id,
                    is_up: status.is_some_and(|status| status.is_up),
                    keys: status.map_or(0, |status| status.keys),
                    last_success: status
                        .and_then(|status| status.last_success)
                        .map_or(0, |at| at.unix_timestamp()),
                });
                let found = if has_keys {
                    Ok(())
                } else {
                    Err("its keys could not be fetched yet; see the log".to_owned())
                };
                informational(format!("{ISSUER}{}", issuer.id), start, found)
            })
            .collect();
        let has_wildcard = checks.len() < in_use.len();
        if !has_wildcard && checks.iter().all(|check| !check.ok) {
            for check in &mut checks {
                check.weight = Weight::Required;
            }
        }
        checks
    }
}

/// Whether the log takes entries, and whether its store takes what is written.
fn log_checks(log: &EmbeddedLog) -> [Check; 2] {
    let start = Instant::now();
    let health = log.health();
    let writable = health.writable.map_err(|error| error.to_string());
    let stored = health.last_write_failed.map_or(Ok(()), Err);
    [
        required(&format!("ct:{}", log.name()), start, writable),
        required("store", start, stored),
    ]
}

/// Whether each log of others is well. As long as one is, certificates can be issued.
fn remote_log_checks(logs: &[RemoteLog]) -> Vec<Check> {
    let start = Instant::now();
    let check = |log: &RemoteLog| informational(format!("ct:{}", log.name()), start, log.health());
    let mut checks: Vec<Check> = logs.iter().map(check).collect();
    if checks.iter().all(|check| !check.ok) {
        for check in &mut checks {
            check.weight = Weight::Required;
        }
    }
    checks
}

fn required(name: &str, start: Instant, found: Result<(), String>) -> Check {
    Check {
        weight: Weight::Required,
        ..informational(name.to_owned(), start, found)
    }
}

fn informational(name: String, start: Instant, found: Result<(), String>) -> Check {
    Check {
        name,
        ok: found.is_ok(),
        took: start.elapsed(),
        detail: found.err(),
        weight: Weight::Informational,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_no_other_follows_is_not_believed_for_ever() {
        let at = Instant::now();
        let report = Arc::new(Report {
            status: Status::Ready,
            checks: vec![required("ca_key", at, Ok(()))],
            at,
        });
        let recent = Arc::clone(&report).unless_outdated(at + MAX_AGE);
        assert_eq!(recent.status, Status::Ready);
        let outdated = report.unless_outdated(at + MAX_AGE + Duration::from_secs(1));
        assert_eq!(outdated.status, Status::NotReady);
        let [check] = &outdated.checks[..] else {
            panic!("{outdated:?}")
        };
        assert_eq!((check.name.as_str(), check.ok), ("checks", false));
        let detail = check.detail.as_deref().unwrap();
        assert!(detail.contains("for 31 s"), "{detail}");
    }
}
