//! What a reload costs those who ask meanwhile: requests come at a steady rate, and every few seconds the server is given
//! another version of an identity configuration of many entries.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, sleep_until};

use super::floor::percentile;
use super::issuer::BenchIssuer;
use super::load::{LoadError, Paced, Sample, Target};
use super::policy;
use super::report::microseconds;
use super::server::{OwnServer, ServerError};

/// Rules of one entry of the configuration.
const RULES: usize = 100;
/// Before each reload nothing happens for this long, which is the usual; and for as long from its beginning on, the
/// requests are those around it.
const WINDOW: Duration = Duration::from_secs(2);
/// From one reload to the next.
const PERIOD: Duration = Duration::from_secs(6);
/// How often the server is asked whether it has the new version.
const POLL: Duration = Duration::from_millis(10);
/// How long it may take to have it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The 99th percentile around a reload, at most so many times the usual.
const MAX_RATIO: f64 = 2.0;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum ReloadBenchError {
    /// The server is not as it should be.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// It does not answer as it should.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It did not fetch the keys of all issuers.
    #[error("the server did not fetch the keys of all issuers in {PATIENCE:?}")]
    NoKeys,
    /// It did not take the new version.
    #[error("the server did not put the new configuration in force in {PATIENCE:?}")]
    Ignored,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Entries of the configuration.
    pub issuers: usize,
    /// How many reloads there are.
    pub reloads: u32,
    /// Requests a second.
    pub per_second: u32,
}

impl Plan {
    /// How many requests all of it takes.
    #[must_use]
    pub fn requests(&self) -> usize {
        let seconds = PERIOD.as_secs() * u64::from(self.reloads);
        let requests = seconds * u64::from(self.per_second);
        usize::try_from(requests).unwrap_or(usize::MAX)
    }

    /// A version of the configuration: one that trusts `issuer` and, below its URL, others that have the same keys.
    #[must_use]
    pub fn configuration(&self, issuer: &BenchIssuer, version: u32) -> String {
        let url = issuer.url();
        let others = policy::configuration(self.issuers.saturating_sub(1), RULES, |number| {
            format!("{url}/ci-{number}")
        });
        let others = others.strip_prefix("oidc-issuers:\n").unwrap_or_default();
        let first = issuer.identity_file();
        format!("{first}    description: version {version}\n{others}")
    }

    /// Reloads while a load runs that began at `start`. Returns when each reload began and how long it took.
    ///
    /// # Errors
    /// When the server does not take one.
    pub async fn reload(
        &self,
        server: &OwnServer,
        issuer: &BenchIssuer,
        start: Instant,
    ) -> Result<Vec<Reload>, ReloadBenchError> {
        let mut reloads = Vec::new();
        for version in 1..=self.reloads {
            let configuration = self.configuration(issuer, version);
            let due = start + PERIOD * (version - 1) + WINDOW;
            sleep_until(due.into()).await;
            let before = readiness(&server.target).await?.config_digest;
            let began = Instant::now();
            server.reload(&configuration)?;
            while readiness(&server.target).await?.config_digest == before {
                if began.elapsed() > PATIENCE {
                    return Err(ReloadBenchError::Ignored);
                }
                sleep(POLL).await;
            }
            reloads.push(Reload {
                at: began.saturating_duration_since(start),
                took: began.elapsed(),
            });
        }
        Ok(reloads)
    }
}

/// What a server says of its readiness.
#[derive(Deserialize)]
struct Ready {
    status: String,
    config_digest: String,
}

async fn readiness(target: &Target) -> Result<Ready, LoadError> {
    let path = "/readyz?verbose=0";
    let body = target.get(path).await?;
    serde_json::from_slice(&body).map_err(|error| LoadError::Server {
        url: format!("http://{}{path}", target.host),
        what: error.to_string(),
    })
}

/// Waits until a server has the keys of all of its issuers, so that fetching them disturbs nothing.
///
/// # Errors
/// When it does not get them.
pub async fn wait_for_keys(target: &Target) -> Result<(), ReloadBenchError> {
    let start = Instant::now();
    // It is not ready as long as it has none at all, and degraded as long as some are missing.
    while !readiness(target)
        .await
        .is_ok_and(|ready| ready.status == "ready")
    {
        if start.elapsed() > PATIENCE {
            return Err(ReloadBenchError::NoKeys);
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// One reload.
#[derive(Clone, Copy, Debug)]
pub struct Reload {
    /// When the server was told, since the load's start.
    pub at: Duration,
    /// Until the new version was in force.
    pub took: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct ReloadReport {
    /// Entries of the configuration.
    pub issuers: usize,
    /// Its length, in octets.
    pub octets: usize,
    /// Requests a second.
    pub requests_per_second: u32,
    /// How many there were.
    pub requests: usize,
    /// How many came to no certificate.
    pub failed: usize,
    /// What happened to the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
    /// Certificates that a second implementation checked.
    pub checked: usize,
    /// Each reload, in order.
    pub reloads: Vec<Around>,
    /// The medians.
    pub median: Around,
    /// The 99th percentile around a reload over the usual, of the medians.
    pub ratio: f64,
}

/// A reload, and the requests beside it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Around {
    /// From telling the server to the new version being in force.
    #[serde(rename = "took_us", serialize_with = "microseconds")]
    pub took: Duration,
    /// The 99th percentile of the seconds before, in which nothing else happens.
    #[serde(rename = "usual_p99_us", serialize_with = "microseconds")]
    pub usual: Duration,
    /// That of the seconds from its beginning on.
    #[serde(rename = "around_p99_us", serialize_with = "microseconds")]
    pub around: Duration,
}

impl Around {
    fn new(reload: Reload, samples: &[Sample]) -> Self {
        let p99 = |from: Duration| {
            let within = samples
                .iter()
                .filter(|sample| (from..from + WINDOW).contains(&sample.at));
            let mut latencies: Vec<Duration> = within.map(|sample| sample.latency).collect();
            latencies.sort_unstable();
            percentile(&latencies, 990)
        };
        Self {
            took: reload.took,
            usual: p99(reload.at.saturating_sub(WINDOW)),
            around: p99(reload.at),
        }
    }

    fn median(all: &[Self]) -> Self {
        let median = |part: fn(&Self) -> Duration| {
            let mut parts: Vec<Duration> = all.iter().map(part).collect();
            parts.sort_unstable();
            percentile(&parts, 500)
        };
        Self {
            took: median(|one| one.took),
            usual: median(|one| one.usual),
            around: median(|one| one.around),
        }
    }
}

impl ReloadReport {
    /// Sums up what load and reloads came to.
    #[must_use]
    pub fn new(
        plan: &Plan,
        octets: usize,
        paced: Paced,
        reloads: &[Reload],
        checked: usize,
    ) -> Self {
        let Paced {
            samples, outcome, ..
        } = paced;
        let reloads: Vec<Around> = reloads
            .iter()
            .map(|reload| Around::new(*reload, &samples))
            .collect();
        let median = Around::median(&reloads);
        Self {
            issuers: plan.issuers,
            octets,
            requests_per_second: plan.per_second,
            requests: samples.len() + outcome.failed,
            failed: outcome.failed,
            first_failure: outcome.first_failure,
            checked,
            reloads,
            ratio: median.around.as_secs_f64() / median.usual.as_secs_f64().max(1e-9),
            median,
        }
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            issuers,
            octets,
            requests_per_second,
            requests,
            failed,
            first_failure,
            checked,
            reloads,
            median,
            ratio,
        } = self;
        let kilobytes = octets / 1000;
        writeln!(
            f,
            "\n  {issuers} issuers, {kilobytes} kB, {requests_per_second} requests/s\n"
        )?;
        writeln!(
            f,
            "  reload     in force after ms   usual p99 ms   p99 ms around it"
        )?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, around: &Around| {
            let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
            let Around {
                took,
                usual,
                around,
            } = *around;
            let (took, usual, around) = (
                milliseconds(took),
                milliseconds(usual),
                milliseconds(around),
            );
            writeln!(f, "  {name:<8} {took:>19.0} {usual:>14.2} {around:>18.2}")
        };
        for (number, around) in (1..).zip(reloads) {
            line(f, &number.to_string(), around)?;
        }
        line(f, "median", median)?;
        let mark = |holds| if holds { '✓' } else { '✗' };
        writeln!(
            f,
            "\n  {} no failed request                                {failed} of {requests}",
            mark(*failed == 0)
        )?;
        writeln!(
            f,
            "  {} p99 around a reload at most twice the usual      {ratio:.2} ×",
            mark(*ratio <= MAX_RATIO)
        )?;
        if let Some(failure) = first_failure {
            writeln!(f, "    the first failure: {failure}")?;
        }
        writeln!(
            f,
            "\n  {checked} certificates checked by a second implementation"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seconds_around_a_reload_are_held_against_those_before_it() {
        let at = Duration::from_millis;
        let sample = |milliseconds: u64| Sample {
            at: at(milliseconds),
            // Slow for a second after each reload.
            latency: at(
                if milliseconds % 6000 >= 2000 && milliseconds % 6000 < 3000 {
                    9
                } else {
                    3
                },
            ),
        };
        let paced = Paced {
            samples: (0..12_000).map(sample).collect(),
            ..Paced::default()
        };
        let plan = Plan {
            issuers: 10,
            reloads: 2,
            per_second: 1000,
        };
        let reloads = [2000, 8000].map(|begun| Reload {
            at: at(begun),
            took: at(50),
        });
        let report = ReloadReport::new(&plan, 1234, paced, &reloads, 1);
        assert_eq!(
            (
                report.median.usual,
                report.median.around,
                report.median.took
            ),
            (at(3), at(9), at(50))
        );
        assert_eq!(report.requests, 12_000);
        let text = report.to_string();
        assert!(
            text.contains("✗ p99 around a reload at most twice the usual      3.00 ×"),
            "{text}"
        );
        assert_eq!(plan.requests(), 12_000);
    }
}
