//! What the administration tells: each a JSON document, and text for people.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::serde::rfc3339;
use time::{Duration, OffsetDateTime};

use crate::api::Api;
use crate::ctlog::CtLog;
use crate::ctlog::embedded::EmbeddedLog;
use crate::identity::{Finding, Issuer, KeyStatus};
use crate::logging;
use crate::readiness::{self, Status};
use crate::reload::PolicyError;
use crate::x509::chain::Certificate;

/// How a server is: `GET /admin/v1/status`.
#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    /// The version of the program that runs.
    pub version: String,
    /// Its commit.
    pub revision: String,
    /// When it started.
    #[serde(with = "rfc3339")]
    pub started: OffsetDateTime,
    /// How long ago that was, in whole seconds.
    pub uptime_seconds: u64,
    /// What it does: `ca`, and `ct` with a log of its own.
    pub roles: Vec<String>,
    /// Whether certificates can be issued.
    pub readiness: Readiness,
    /// The identity configuration in force.
    pub config: PolicySummary,
    /// The CA's certificates, the issuing one first.
    pub ca: Vec<CaCertificate>,
    /// The log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogStatus>,
    /// Which log lines are written.
    pub log_filter: String,
}

/// Whether certificates can be issued, as `/readyz` says.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// All together.
    pub status: Status,
    /// One by one.
    pub checks: Vec<Check>,
}

/// One check of readiness.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Which.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// What is wrong, or what was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Which identity configuration is in force.
#[derive(Clone, Debug, Serialize)]
pub struct PolicySummary {
    /// The start of the SHA-256 of its files, hex.
    pub digest: String,
    /// Since when.
    #[serde(with = "rfc3339")]
    pub loaded_at: OffsetDateTime,
    /// Its file, or the folder of its files.
    pub path: String,
    /// How many entries it has.
    pub issuers: usize,
    /// Why the version on the disk does not count, if that is another one.
    pub refused: Option<String>,
}

/// One certificate of the CA.
#[derive(Clone, Debug, Serialize)]
pub struct CaCertificate {
    /// Whose.
    pub subject: String,
    /// Its last moment.
    #[serde(with = "rfc3339")]
    pub not_after: OffsetDateTime,
    /// The whole days until then.
    pub days_left: i64,
}

/// The log.
#[derive(Clone, Debug, Serialize)]
pub struct LogStatus {
    /// Its name.
    pub name: String,
    /// The origin of its checkpoints.
    pub origin: String,
    /// Entries that have a place.
    pub entries: u64,
    /// Entries that the last checkpoint covers.
    pub tree_size: u64,
    /// Whether it takes entries.
    pub is_writable: bool,
}

/// Who may have a certificate: `GET /admin/v1/config`.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyReport {
    /// Which version.
    #[serde(flatten)]
    pub summary: PolicySummary,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// One entry of the identity configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its short name.
    pub id: String,
    /// The issuer's URL, or the pattern of issuers' URLs.
    pub url: String,
    /// What its tokens prove, such as `email`.
    #[serde(rename = "type")]
    pub issuer_type: String,
    /// The audiences of which a token must name one.
    pub audiences: Vec<String>,
    /// Whether its tokens are accepted: `in_use`, `disabled` or `expired`.
    pub state: EntryState,
    /// How its keys stand; absent for a pattern and where nobody has asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
}

/// Whether the tokens of an entry are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// They are.
    InUse,
    /// They are not: the configuration says so.
    Disabled,
    /// They are not any more.
    Expired,
}

/// How the keys of an issuer stand.
#[derive(Clone, Debug, Serialize)]
pub struct Keys {
    /// Whether the last fetch succeeded.
    pub is_up: bool,
    /// How many there are.
    pub count: usize,
    /// When they were last fetched.
    #[serde(with = "rfc3339::option")]
    pub last_success: Option<OffsetDateTime>,
}

/// Which log lines are written: `GET` and `PUT /admin/v1/log-filter`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogFilter {
    /// A level, or a list of `target=level`.
    pub filter: String,
}

/// Why something was not done.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// What is wrong.
    pub error: String,
    /// What was found in the configuration, if that is what is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl PolicySummary {
    pub(super) fn of(api: &Api, path: String) -> Self {
        let policy = api.readiness.policy();
        Self {
            digest: policy.digest.clone(),
            loaded_at: policy.since.truncate_to_second(),
            path,
            issuers: policy.issuers.len(),
            refused: policy.refused.clone(),
        }
    }
}

impl Readiness {
    pub(super) fn of(api: &Api) -> Self {
        let report = api.readiness.report();
        let status = if api.is_stopping() {
            Status::NotReady
        } else {
            report.status
        };
        let checks = report.checks.iter().map(Check::from).collect();
        Self { status, checks }
    }
}

impl From<&readiness::Check> for Check {
    fn from(check: &readiness::Check) -> Self {
        Self {
            name: check.name.clone(),
            ok: check.ok,
            detail: check.detail.clone(),
        }
    }
}

impl CaCertificate {
    pub(super) fn of(certificate: &Certificate, now: OffsetDateTime) -> Self {
        let not_after = certificate.not_after();
        Self {
            subject: certificate.subject().to_owned(),
            not_after,
            days_left: (not_after - now).whole_days(),
        }
    }
}

impl LogStatus {
    pub(super) fn of(log: &EmbeddedLog) -> Self {
        Self {
            name: log.name().to_owned(),
            origin: log.origin().to_owned(),
            entries: log.tip_size(),
            tree_size: log.published_size(),
            is_writable: log.is_writable(),
        }
    }
}

impl Entry {
    pub(super) fn of(issuer: &Issuer, keys: Option<KeyStatus>, now: OffsetDateTime) -> Self {
        let state = if issuer.disabled {
            EntryState::Disabled
        } else if issuer.has_expired(now) {
            EntryState::Expired
        } else {
            EntryState::InUse
        };
        Self {
            id: issuer.id.to_string(),
            url: issuer.url().to_owned(),
            issuer_type: issuer.rule.type_name().to_owned(),
            audiences: issuer.audiences.clone(),
            state,
            keys: keys.map(|keys| Keys {
                is_up: keys.is_up,
                count: keys.keys,
                last_success: keys.last_success.map(OffsetDateTime::truncate_to_second),
            }),
        }
    }
}

impl LogFilter {
    /// What is in force. Empty: nothing is written.
    pub(super) fn current() -> Self {
        Self {
            filter: logging::filter().unwrap_or_default(),
        }
    }
}

impl Refused {
    pub(super) fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            findings: Vec::new(),
        }
    }
}

impl From<&PolicyError> for Refused {
    fn from(error: &PolicyError) -> Self {
        Self {
            error: error.to_string(),
            findings: error.findings().to_vec(),
        }
    }
}

impl fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            revision,
            started,
            uptime_seconds,
            roles,
            readiness,
            config,
            ca,
            log,
            log_filter,
        } = self;
        let roles = roles.join(", ");
        writeln!(f, "Mayfly {version} ({revision}), {roles}")?;
        let (uptime, started) = (Uptime(*uptime_seconds), Moment(*started));
        writeln!(f, "up for     {uptime}, since {started}")?;
        write!(f, "{readiness}")?;
        write!(f, "{config}")?;
        for certificate in ca {
            writeln!(f, "CA         {certificate}")?;
        }
        if let Some(log) = log {
            writeln!(f, "log        {log}")?;
        }
        writeln!(f, "log lines  {log_filter}")
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Ready => "ready",
            Status::Degraded => "ready, but not for everybody or everything",
            Status::NotReady => "not ready: no certificate is issued",
        };
        writeln!(f, "readiness  {status}")?;
        for Check { name, ok, detail } in &self.checks {
            let mark = if *ok { '✓' } else { '✗' };
            write!(f, "  {mark} {name}")?;
            if let Some(detail) = detail {
                write!(f, ": {detail}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for PolicySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            digest,
            loaded_at,
            path,
            issuers,
            refused,
        } = self;
        writeln!(f, "identities {path}, {issuers} entries")?;
        writeln!(f, "           {digest}, since {}", Moment(*loaded_at))?;
        match refused {
            Some(why) => writeln!(f, "           the version on the disk is refused: {why}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            subject,
            not_after,
            days_left,
        } = self;
        write!(
            f,
            "{subject}: until {} ({days_left} days)",
            Moment(*not_after)
        )
    }
}

impl fmt::Display for LogStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            origin,
            entries,
            tree_size,
            is_writable,
        } = self;
        write!(
            f,
            "{name} ({origin}): {entries} entries, {tree_size} of them under the last checkpoint"
        )?;
        if *is_writable {
            Ok(())
        } else {
            f.write_str("; it takes no more")
        }
    }
}

impl fmt::Display for PolicyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.summary)?;
        self.entries
            .iter()
            .try_for_each(|entry| write!(f, "{entry}"))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            url,
            issuer_type,
            audiences,
            state,
            keys,
        } = self;
        let audiences = audiences.join(", ");
        writeln!(f, "{id}\n  {url}, {issuer_type}, for {audiences}")?;
        match (state, keys) {
            (EntryState::Disabled, _) => writeln!(f, "  disabled"),
            (EntryState::Expired, _) => writeln!(f, "  expired"),
            (EntryState::InUse, None) => Ok(()),
            (EntryState::InUse, Some(keys)) => writeln!(f, "  {keys}"),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            is_up,
            count,
            last_success,
        } = self;
        write!(f, "{count} keys")?;
        if let Some(last_success) = last_success {
            write!(f, " of {}", Moment(*last_success))?;
        }
        if *is_up {
            Ok(())
        } else {
            f.write_str("; the last fetch failed")
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.filter)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings.is_empty() {
            return writeln!(f, "{}", self.error);
        }
        self.findings
            .iter()
            .try_for_each(|finding| writeln!(f, "{finding}"))
    }
}

/// RFC 3339.
struct Moment(OffsetDateTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

/// Seconds, in the two largest units that say something.
struct Uptime(u64);

impl fmt::Display for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uptime = Duration::seconds(i64::try_from(self.0).unwrap_or(i64::MAX));
        let (days, hours) = (uptime.whole_days(), uptime.whole_hours() % 24);
        let (minutes, seconds) = (uptime.whole_minutes() % 60, uptime.whole_seconds() % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {seconds} s"),
            (0, _, _) => write!(f, "{hours} h {minutes} min"),
            (_, _, _) => write!(f, "{days} d {hours} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uptime_is_told_in_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (61, "1 min 1 s"),
            (3_600, "1 h 0 min"),
            (90_000, "1 d 1 h"),
            (u64::MAX, "106751991167300 d 15 h"),
        ] {
            assert_eq!(Uptime(seconds).to_string(), text);
        }
    }

    #[test]
    fn the_text_of_a_status_leaves_nothing_out() {
        let moment = time::macros::datetime!(2026-01-02 03:04:05 UTC);
        let status = ServerStatus {
            version: "1.2.3".to_owned(),
            revision: "0a1b2c".to_owned(),
            started: moment,
            uptime_seconds: 7_200,
            roles: vec!["ca".to_owned(), "ct".to_owned()],
            readiness: Readiness {
                status: Status::Degraded,
                checks: vec![
                    Check {
                        name: "ca_key".to_owned(),
                        ok: true,
                        detail: None,
                    },
                    Check {
                        name: "config".to_owned(),
                        ok: false,
                        detail: Some("identity.yaml:1:1".to_owned()),
                    },
                ],
            },
            config: PolicySummary {
                digest: "00112233".to_owned(),
                loaded_at: moment,
                path: "/etc/identity.yaml".to_owned(),
                issuers: 7,
                refused: Some("no issuer".to_owned()),
            },
            ca: vec![CaCertificate {
                subject: "CN=ca".to_owned(),
                not_after: moment,
                days_left: 12,
            }],
            log: Some(LogStatus {
                name: "main".to_owned(),
                origin: "ca.example.com/ct/main".to_owned(),
                entries: 9,
                tree_size: 8,
                is_writable: false,
            }),
            log_filter: "info".to_owned(),
        };
        let expected = "\
Mayfly 1.2.3 (0a1b2c), ca, ct
up for     2 h 0 min, since 2026-01-02T03:04:05Z
readiness  ready, but not for everybody or everything
  ✓ ca_key
  ✗ config: identity.yaml:1:1
identities /etc/identity.yaml, 7 entries
           00112233, since 2026-01-02T03:04:05Z
           the version on the disk is refused: no issuer
CA         CN=ca: until 2026-01-02T03:04:05Z (12 days)
log        main (ca.example.com/ct/main): 9 entries, 8 of them under the last checkpoint; it takes no more
log lines  info
";
        assert_eq!(status.to_string(), expected);
    }
}
