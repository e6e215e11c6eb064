//! Whether a certificate counts: its chain, its time, the log's timestamp in it, and whom it names.
//!
//! Every check that can be made is made, so that whoever asks learns everything that is wrong at once.

use std::fmt;

use regex::Regex;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::details::{POISON, SCT_LIST, instant, names};
use super::trusted_root::{TrustedAuthority, TrustedCtLog, TrustedRoot};
use crate::ca::extensions;
use crate::ca::precertificate::SCT_LIST_OID;
use crate::ca::tbs::{tbs_of, without_extension};
use crate::ctlog::sct::{SignedCertificateTimestamp, time_text};
use crate::hex::hex;
use crate::tlog::tree::sha256;
use crate::x509::name::name_text;

/// The critical extensions that are understood here: key usage, extended key usage, basic constraints, names.
const UNDERSTOOD: [&str; 4] = ["2.5.29.15", "2.5.29.37", "2.5.29.19", "2.5.29.17"];

/// When a certificate must be valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// At this time.
    At(OffsetDateTime),
    /// At the time in its timestamp, which the log vouches for: whether it was good when it was made.
    Logged,
}

/// What a text in a certificate must be.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// This, octet for octet.
    Exactly(String),
    /// All of it matches.
    Matching(Regex),
}

impl Wanted {
    /// What matches a pattern as a whole, whether that says `^…$` or not: a part of a name is not the name.
    ///
    /// # Errors
    /// When it is no pattern.
    pub fn matching(pattern: &str) -> Result<Self, regex::Error> {
        Regex::new(&format!("^(?:{pattern})$")).map(Self::Matching)
    }

    fn is_met_by(&self, text: &str) -> bool {
        match self {
            Self::Exactly(expected) => expected == text,
            Self::Matching(pattern) => pattern.is_match(text),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(text) => write!(f, "{text:?}"),
            Self::Matching(pattern) => write!(f, "what matches {}", pattern.as_str()),
        }
    }
}

/// What is asked of a certificate.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Whom to believe.
    pub trusted_root: &'a TrustedRoot,
    /// When it must be valid.
    pub when: When,
    /// The name that it must have.
    pub identity: Option<Wanted>,
    /// Who must have vouched for the name.
    pub issuer: Option<Wanted>,
    /// The key that it must be for, a DER SubjectPublicKeyInfo.
    pub public_key_der: Option<&'a [u8]>,
}

/// One check, and what came of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// Which.
    pub name: &'static str,
    /// What came of it.
    pub result: CheckResult,
    /// What was found.
    pub detail: String,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It was not made.
    Skip,
}

impl Check {
    /// A check that holds, or does not.
    #[must_use]
    pub fn of(name: &'static str, outcome: Result<String, String>) -> Self {
        let (result, detail) = match outcome {
            Ok(detail) => (CheckResult::Pass, detail),
            Err(detail) => (CheckResult::Fail, detail),
        };
        Self {
            name,
            result,
            detail,
        }
    }

    /// A check that was not made, and why.
    #[must_use]
    pub fn skipped(name: &'static str, why: &str) -> Self {
        Self {
            name,
            result: CheckResult::Skip,
            detail: why.to_owned(),
        }
    }
}

/// What came of a verification.
#[derive(Clone, Debug)]
pub struct Verification<'a> {
    /// Every check, in the order in which they were made.
    pub checks: Vec<Check>,
    /// The trusted CA that signed it.
    pub authority: Option<&'a TrustedAuthority>,
    /// The trusted log whose timestamp is in it and verifies.
    pub log: Option<&'a TrustedCtLog>,
}

impl Verification<'_> {
    /// The first check that does not hold.
    #[must_use]
    pub fn failure(&self) -> Option<&Check> {
        let mut checks = self.checks.iter();
        checks.find(|check| check.result == CheckResult::Fail)
    }
}

/// Verifies a certificate, DER.
#[must_use]
pub fn verify<'a>(der: &[u8], question: &Question<'a>) -> Verification<'a> {
    let mut verification = Verification {
        checks: Vec::new(),
        authority: None,
        log: None,
    };
    let Ok(([], certificate)) = X509Certificate::from_der(der) else {
        let malformed = Err("it is not an X.509 certificate".to_owned());
        verification.checks.push(Check::of("form", malformed));
        return verification;
    };
    let root = question.trusted_root;
    let authority = authority_of(der, &certificate, root);
    verification.authority = authority.as_ref().ok().copied();
    let stamped = verification
        .authority
        .ok_or_else(|| "not looked at: without the CA's key it cannot be verified".to_owned())
        .and_then(|authority| stamped(der, &certificate, authority, root));
    verification.log = stamped.as_ref().ok().map(|stamped| stamped.log);
    let time = match (question.when, &stamped) {
        (When::At(time), _) => Ok(time),
        (When::Logged, Ok(stamped)) => Ok(stamped.time),
        (When::Logged, Err(_)) => {
            Err("no timestamp verifies that says when it was logged".to_owned())
        }
    };
    let time = time.and_then(|time| valid_at(&certificate, verification.authority, time));
    verification.checks = vec![
        Check::of("chain", authority.map(chain_text)),
        Check::of("usage", usage(&certificate)),
        match verification.authority {
            Some(_) => Check::of("timestamp", stamped.map(|stamped| stamped.text)),
            None => Check::skipped(
                "timestamp",
                "not looked at: the CA is not known whose key it is over",
            ),
        },
        Check::of("time", time),
        match question.public_key_der {
            Some(key) => Check::of("key", is_for_key(&certificate, key)),
            None => Check::skipped("key", "not asked for"),
        },
        match &question.identity {
            Some(expected) => Check::of("identity", has_name(&certificate, expected)),
            None => Check::skipped(
                "identity",
                "not asked for; anybody's certificate would pass",
            ),
        },
        match &question.issuer {
            Some(expected) => Check::of("issuer", has_issuer(&certificate, expected)),
            None => Check::skipped("issuer", "not asked for"),
        },
    ];
    verification
}

fn authority_of<'a>(
    der: &[u8],
    certificate: &X509Certificate<'_>,
    root: &'a TrustedRoot,
) -> Result<&'a TrustedAuthority, String> {
    let mut authorities = root.authorities.iter();
    let signer = authorities.find(|authority| authority.chain.issuing().has_signed(der));
    signer.ok_or_else(|| {
        let named = certificate.issuer().as_raw();
        let mut authorities = root.authorities.iter();
        let is_named =
            authorities.any(|authority| authority.chain.issuing().subject_der() == named);
        let issuer = name_text(certificate.issuer());
        if is_named {
            format!("it names the CA {issuer}, and is not signed by the trusted CA of that name")
        } else {
            format!("it is signed by {issuer}, which is no CA of the trusted root")
        }
    })
}

fn chain_text(authority: &TrustedAuthority) -> String {
    let chain = &authority.chain;
    format!(
        "signed by {}, which ends in the trusted {}",
        chain.issuing().subject(),
        chain.root().subject()
    )
}

fn usage(certificate: &X509Certificate<'_>) -> Result<String, String> {
    let constraints = certificate.basic_constraints();
    let constraints = constraints.map_err(|_| "its basic constraints are malformed".to_owned())?;
    if constraints.is_some_and(|extension| extension.value.ca) {
        return Err("it is a CA's certificate, not a signer's".to_owned());
    }
    let extended = certificate.extended_key_usage().ok().flatten();
    if !extended.is_some_and(|extension| extension.value.code_signing) {
        return Err("it is not for code signing".to_owned());
    }
    let usage = certificate.key_usage().ok().flatten();
    if !usage.is_some_and(|extension| extension.value.digital_signature()) {
        return Err("its key is not for signatures".to_owned());
    }
    for extension in certificate.extensions() {
        let oid = extension.oid.to_id_string();
        if oid == POISON {
            return Err("it is a precertificate, which nobody may accept".to_owned());
        }
        if extension.critical && !UNDERSTOOD.contains(&oid.as_str()) {
            return Err(format!("its critical extension {oid} is not known"));
        }
    }
    Ok("code signing".to_owned())
}

/// A timestamp that verifies.
struct Stamped<'a> {
    log: &'a TrustedCtLog,
    time: OffsetDateTime,
    text: String,
}

fn stamped<'a>(
    der: &[u8],
    certificate: &X509Certificate<'_>,
    authority: &TrustedAuthority,
    root: &'a TrustedRoot,
) -> Result<Stamped<'a>, String> {
    let list = certificate
        .extensions()
        .iter()
        .find(|extension| extension.oid.to_id_string() == SCT_LIST)
        .ok_or("it holds no timestamp of a certificate log")?;
    let items = SignedCertificateTimestamp::split_list(list.value)
        .map_err(|error| format!("its list of timestamps: {error}"))?;
    let tbs = tbs_of(der).and_then(|tbs| without_extension(tbs, SCT_LIST_OID).ok());
    let tbs = tbs.ok_or("it cannot be taken apart")?;
    let issuer_key_hash = sha256(&[authority.chain.issuing().public_key_der()]);
    let mut unknown = Vec::new();
    let mut good = None;
    for item in items {
        let timestamp = SignedCertificateTimestamp::from_bytes(item)
            .map_err(|error| format!("a timestamp in it: {error}"))?;
        let Some(log) = root.ct_log(timestamp.log_id()) else {
            unknown.push(hex(timestamp.log_id()));
            continue;
        };
        timestamp
            .verify_entry(&tbs, &issuer_key_hash, &log.public_key_der)
            .map_err(|error| format!("the timestamp of {}: {error}", log.url))?;
        let millis = timestamp.timestamp();
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
            .map_err(|_| format!("the timestamp of {}: its time is none", log.url))?;
        if !log.valid_for.contains(time) {
            return Err(format!(
                "the timestamp of {} is of {}, and the log is trusted {}",
                log.url,
                instant(time),
                log.valid_for
            ));
        }
        let place = timestamp.leaf_index();
        let place = place.map_or_else(String::new, |index| format!(", entry {index}"));
        let text = format!("{} by {}{place}", time_text(millis), log.url);
        good = good.or(Some(Stamped { log, time, text }));
    }
    good.ok_or_else(|| match unknown.as_slice() {
        [] => "it holds no timestamp of a certificate log".to_owned(),
        unknown => format!(
            "its timestamp is of no log of the trusted root (log id {})",
            unknown.join(", ")
        ),
    })
}

fn valid_at(
    certificate: &X509Certificate<'_>,
    authority: Option<&TrustedAuthority>,
    time: OffsetDateTime,
) -> Result<String, String> {
    let validity = certificate.validity();
    let (start, end) = (
        validity.not_before.to_datetime(),
        validity.not_after.to_datetime(),
    );
    let span = format!("valid {} to {}", instant(start), instant(end));
    // The last second counts as a whole.
    if time >= end + Duration::SECOND {
        return Err(format!(
            "{span}, expired at {}; give the time of the signature, or of its timestamp",
            seconds(time)
        ));
    }
    if time < start {
        return Err(format!("{span}, not yet valid at {}", seconds(time)));
    }
    if let Some(authority) = authority {
        authority
            .chain
            .check_validity(time)
            .map_err(|error| format!("the CA: {error}"))?;
        if !authority.valid_for.contains(time) {
            return Err(format!(
                "the CA is trusted {}, and the time is {}",
                authority.valid_for,
                seconds(time)
            ));
        }
    }
    Ok(format!("{span}, and so at {}", seconds(time)))
}

/// A time in whole seconds.
fn seconds(time: OffsetDateTime) -> String {
    instant(time.replace_nanosecond(0).unwrap_or(time))
}

fn is_for_key(certificate: &X509Certificate<'_>, key: &[u8]) -> Result<String, String> {
    if certificate.public_key().raw == key {
        Ok("it certifies that key".to_owned())
    } else {
        Err("it certifies another key".to_owned())
    }
}

fn has_name(certificate: &X509Certificate<'_>, expected: &Wanted) -> Result<String, String> {
    let names = names(certificate);
    if let Some(name) = names.iter().find(|name| expected.is_met_by(&name.value)) {
        return Ok(name.value.clone());
    }
    let found: Vec<String> = names
        .iter()
        .map(|name| format!("{:?}", name.value))
        .collect();
    Err(match found.as_slice() {
        [] => format!("it names nobody, expected {expected}"),
        found => format!("it is for {}, expected {expected}", found.join(", ")),
    })
}

fn has_issuer(certificate: &X509Certificate<'_>, expected: &Wanted) -> Result<String, String> {
    // The newer form counts where it is there.
    let found = [8, 1].into_iter().find_map(|number| {
        let oid = format!("{}.{number}", extensions::ARC);
        let mut extensions = certificate.extensions().iter();
        let found = extensions.find(|extension| extension.oid.to_id_string() == oid)?;
        extensions::text_of(number, found.value)
    });
    match found {
        Some(issuer) if expected.is_met_by(issuer) => Ok(issuer.to_owned()),
        Some(issuer) => Err(format!(
            "the token was from {issuer:?}, expected {expected}"
        )),
        None => Err(format!(
            "it does not say whose token it was, expected {expected}"
        )),
    }
}
