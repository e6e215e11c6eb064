//! What only the issuers themselves can tell: whether their keys can be had, asked for as the server asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use time::OffsetDateTime;

use super::finding::{Code, Finding, Severity};
use super::{Source, check, conclude};
use crate::excerpt::Excerpt;
use crate::fetch::Fetcher;
use crate::identity::issuers::{Issuer, Issuers};
use crate::identity::jwks::{KeysFailure, KeysFault, PublishedKeys, published_keys};
use crate::metrics::Metrics;

/// How many issuers are asked at the same time.
const AT_ONCE: usize = 16;
/// How long a token waits for the keys of its issuer.
const SLOW: Duration = Duration::from_secs(2);

/// Reads and checks sources as [`Issuers::load`] does, and then asks each issuer that is in use and no pattern for its keys.
///
/// Returns the issuers with the warnings.
///
/// # Errors
/// Every finding, when at least one of them is an error.
pub async fn load(
    sources: &[Source],
    now: OffsetDateTime,
    fetcher: &dyn Fetcher,
    metrics: &Metrics,
) -> Result<(Issuers, Vec<Finding>), Vec<Finding>> {
    let (issuers, mut report, places) = check(sources, Some(now));
    let asked: Vec<Arc<Issuer>> = issuers
        .iter()
        .flat_map(Issuers::all)
        .filter(|issuer| issuer.is_in_use(now) && !issuer.is_wildcard())
        .map(Arc::clone)
        .collect();
    let mut answers = stream::iter(asked)
        .map(|issuer| async move {
            let start = Instant::now();
            let answer = published_keys(fetcher, &issuer.endpoint, metrics).await;
            let mistakes = mistakes(&issuer, &answer, start.elapsed());
            (issuer, mistakes)
        })
        .buffer_unordered(AT_ONCE);
    while let Some((issuer, mistakes)) = answers.next().await {
        let Some((place, path)) = places.get(&issuer.id) else {
            continue;
        };
        for Mistake {
            code,
            severity,
            message,
            help,
        } in mistakes
        {
            let finding = report.add(code, *place, path, message);
            finding.severity(severity);
            if let Some(help) = help {
                finding.help(help);
            }
        }
    }
    drop(answers);
    conclude(issuers, report)
}

struct Mistake {
    code: Code,
    severity: Severity,
    message: String,
    help: Option<String>,
}

impl Mistake {
    fn new(code: Code, message: String, help: impl Into<Option<String>>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message,
            help: help.into(),
        }
    }
}

/// What is wrong with an issuer's answer.
fn mistakes(
    issuer: &Issuer,
    answer: &Result<PublishedKeys, KeysFailure>,
    took: Duration,
) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    match answer {
        Err(failure) => mistakes.push(failed(issuer, failure)),
        Ok(keys) => {
            if keys.usable == 0 {
                let message = "key set: it has no key that can be used";
                mistakes.push(Mistake::new(Code::KeySet, message.to_owned(), None));
            }
            mistakes.extend(elsewhere(issuer, keys));
        }
    }
    if took > SLOW && answer.is_ok() {
        let message = format!("the issuer took {} s to answer", took.as_secs());
        let help = "tokens wait two seconds for keys; until then clients are told to try again";
        mistakes.push(Mistake::new(Code::Slow, message, help.to_owned()));
    }
    mistakes
}

fn failed(issuer: &Issuer, failure: &KeysFailure) -> Mistake {
    let help = |text: &str| Some(text.to_owned());
    let (code, help) = match failure.fault {
        KeysFault::Discovery => (
            Code::Discovery,
            help("jwks-uri or jwks-file names the keys of an issuer that has no such document"),
        ),
        KeysFault::OtherIssuer => (
            Code::OtherIssuer,
            Some(format!(
                "the entry says {}; both must be the same, octet for octet",
                Excerpt::new(issuer.url())
            )),
        ),
        KeysFault::Location => (Code::KeyLocation, None),
        KeysFault::KeySet => (Code::KeySet, None),
        KeysFault::Redirect => (
            Code::Redirect,
            help("the server follows none to another scheme, host or port"),
        ),
        KeysFault::Tls => (Code::Tls, help("a CA of your own is named by ca-cert")),
    };
    Mistake::new(code, failure.why.clone(), help)
}

/// Keys at another owner's host are trusted as the issuer's own.
fn elsewhere(issuer: &Issuer, keys: &PublishedKeys) -> Option<Mistake> {
    let keys = keys.location.as_ref()?.host_str()?;
    let url = url::Url::parse(issuer.url()).ok()?;
    let own = url.host_str()?;
    let site = |host: &str| psl::domain_str(host).unwrap_or(host).to_owned();
    if site(own) == site(keys) {
        return None;
    }
    let message = format!("the issuer keeps its keys at another site, {keys}");
    let help = "whoever serves that site can sign for every one of its users";
    Some(Mistake {
        severity: Severity::Warning,
        ..Mistake::new(Code::KeyLocation, message, help.to_owned())
    })
}

#[cfg(test)]
mod tests;
