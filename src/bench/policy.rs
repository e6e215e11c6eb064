//! What the identity configuration costs: to read it, and for every token that falls under it.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::floor::percentile;
use super::process::Process;
use super::report::microseconds;
use crate::ca::profile::CertificateProfile;
use crate::ca::request::{KeyEncoding, PermittedAlgorithms, ProofOfPossession, ProvenKey};
use crate::client::EphemeralKey;
use crate::identity::json::Object;
use crate::identity::{Identity, Issuers, Source, verifier};
use crate::random::Random;

/// How many tokens one round takes.
const TOKENS: usize = 500;
/// How many rounds there are; the median counts.
const ROUNDS: usize = 21;
/// The issuer of the tokens.
const ISSUER: &str = "https://token.actions.example.com";

/// From the signature's verification to the profile, at most.
const MAX_TOKEN: Duration = Duration::from_micros(20);
/// Reading and checking the configuration, at most.
const MAX_CHECK: Duration = Duration::from_secs(1);
/// The memory that it takes, at most.
const MAX_MEMORY_BYTES: u64 = 64 << 20;

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PolicyReport {
    /// Entries of the configuration.
    pub issuers: usize,
    /// Rules of the entry that the tokens fall under.
    pub rules: usize,
    /// The configuration's length, in octets.
    pub octets: usize,
    /// Reading and checking it.
    #[serde(rename = "check_us", serialize_with = "microseconds")]
    pub check: Duration,
    /// A token, from the verification of its signature to the certificate's profile.
    #[serde(rename = "token_us", serialize_with = "microseconds")]
    pub token: Duration,
    /// The most memory that the process held, in bytes.
    pub peak_memory_bytes: u64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[error("the benchmark's own configuration or token does not hold up: {0}")]
pub struct PolicyBenchError(String);

fn failed(error: impl fmt::Display) -> PolicyBenchError {
    PolicyBenchError(error.to_string())
}

impl PolicyReport {
    /// Measures a configuration of so many entries and rules.
    ///
    /// # Errors
    /// When the benchmark itself is wrong.
    pub fn measure(
        issuers: usize,
        rules: usize,
        now: OffsetDateTime,
        random: &dyn Random,
    ) -> Result<Self, PolicyBenchError> {
        let url = |number| {
            if number == issuers {
                ISSUER.to_owned()
            } else {
                format!("https://ci-{number}.example.com")
            }
        };
        let text = configuration(issuers, rules, url);
        let source = [Source::new("identity.yaml", text)];
        let octets = source.iter().map(|source| source.text.len()).sum();
        let mut checks = Vec::with_capacity(3);
        let mut read = None;
        for _ in 0..3 {
            let start = Instant::now();
            let (issuers, _) = Issuers::load(&source, Some(now)).map_err(|findings| {
                failed(
                    findings
                        .first()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                )
            })?;
            checks.push(start.elapsed());
            read = Some(issuers);
        }
        let issuers_read = read.ok_or_else(|| failed("nothing was read"))?;
        let Value::Object(claims) = claims(rules, now) else {
            return Err(failed("the claims are no object"));
        };
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            rounds.push(round(&issuers_read, &claims, now, random)?);
        }
        rounds.sort_unstable();
        checks.sort_unstable();
        Ok(Self {
            issuers,
            rules,
            octets,
            check: percentile(&checks, 500),
            token: percentile(&rounds, 500),
            peak_memory_bytes: Process::new(std::process::id())
                .peak_memory()
                .map_err(failed)?,
        })
    }
}

/// The mean time of a token.
fn round(
    issuers: &Issuers,
    claims: &Object,
    now: OffsetDateTime,
    random: &dyn Random,
) -> Result<Duration, PolicyBenchError> {
    let identify = || verifier::identity_of_verified(issuers, ISSUER, claims, now).map_err(failed);
    let keys = proven_keys(&identify()?, random)?;
    let count = u32::try_from(keys.len()).map_err(failed)?;
    let start = Instant::now();
    for key in keys {
        let identity = identify()?;
        let profile = CertificateProfile::new(&identity, key, now, random).map_err(failed)?;
        std::hint::black_box(profile);
    }
    Ok(start.elapsed() / count)
}

/// Keys whose possession was proved, made beforehand: a profile takes one.
fn proven_keys(
    identity: &Identity,
    random: &dyn Random,
) -> Result<Vec<ProvenKey>, PolicyBenchError> {
    let key = EphemeralKey::generate(random).map_err(failed)?;
    let block = pem::encode(&pem::Pem::new("PUBLIC KEY", key.public_key_der()));
    let signature = key.sign(identity.challenge.as_bytes());
    (0..TOKENS)
        .map(|_| {
            let proof = ProofOfPossession::Challenge {
                public_key: block.clone().into_bytes().into(),
                encoding: KeyEncoding::Pem,
                signature: signature.clone(),
            };
            proof
                .check(identity, &PermittedAlgorithms::default())
                .map_err(failed)
        })
        .collect()
}

/// Entries of build services, numbered from 1, the last with rules of which the last lets the token through.
pub(super) fn configuration(issuers: usize, rules: usize, url: impl Fn(usize) -> String) -> String {
    let mut text = "oidc-issuers:\n".to_owned();
    let mut entry = |number, more: &str| {
        let url = url(number);
        text += &format!(
            "  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: ci-provider\n    \
             ci-provider: github-workflow\n{more}"
        );
    };
    for number in 1..issuers {
        entry(number, "");
    }
    let rules: String = (1..=rules)
        .map(|number| {
            format!(
                "      - {{ repository_owner: org-{number}, ref: {{ glob: 'refs/tags/v*' }}, \
                 job_workflow_ref: {{ regex: 'org-{number}/[^/]+/\\.github/workflows/release\\.yml@.*' }} }}\n"
            )
        })
        .collect();
    entry(
        issuers,
        &if rules.is_empty() {
            String::new()
        } else {
            format!("    allow:\n{rules}")
        },
    );
    let public = include_str!("../../config/identity.public.yaml");
    // The templates of the public instance's GitHub.
    let metadata = public.find("\nci-issuer-metadata:");
    text += metadata.and_then(|at| public.get(at..)).unwrap_or_default();
    text
}

/// The claims of a token of GitHub Actions.
fn claims(rules: usize, now: OffsetDateTime) -> Value {
    let owner = format!("org-{rules}");
    let workflow = format!("{owner}/tool/.github/workflows/release.yml@refs/tags/v1.2.3");
    json!({
        "iss": ISSUER, "aud": "sigstore", "sub": format!("repo:{owner}/tool:ref:refs/tags/v1.2.3"),
        "iat": now.unix_timestamp(), "nbf": now.unix_timestamp(), "exp": now.unix_timestamp() + 600,
        "jti": "0b2c4e3a-9f5d-4a1c-8a51-0d6f0a3c1b2e",
        "ref": "refs/tags/v1.2.3", "sha": "0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e",
        "repository": format!("{owner}/tool"), "repository_owner": owner,
        "repository_owner_id": "1234567", "run_id": "9876543210", "run_number": "42", "run_attempt": "1",
        "repository_visibility": "private", "repository_id": "987654", "actor_id": "5551234",
        "actor": "ada", "workflow": "Release", "head_ref": "", "base_ref": "", "event_name": "push",
        "ref_protected": "true", "ref_type": "tag", "workflow_ref": workflow,
        "workflow_sha": "0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e", "job_workflow_ref": workflow,
        "job_workflow_sha": "0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e", "runner_environment": "github-hosted",
        "environment": "production",
    })
}

impl fmt::Display for PolicyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            issuers,
            rules,
            octets,
            check,
            token,
            peak_memory_bytes,
        } = self;
        let mark = |holds| if holds { '✓' } else { '✗' };
        let kilobytes = octets / 1000;
        writeln!(f, "\n  {issuers} issuers, {rules} rules, {kilobytes} kB\n")?;
        writeln!(
            f,
            "  {} a token, from verified signature to profile, at most 20 µs   {:.1} µs",
            mark(*token <= MAX_TOKEN),
            token.as_secs_f64() * 1e6
        )?;
        writeln!(
            f,
            "  {} reading and checking the configuration in less than 1 s      {:.3} s",
            mark(*check < MAX_CHECK),
            check.as_secs_f64()
        )?;
        writeln!(
            f,
            "  {} peak memory of the process at most 64 MiB                    {} MiB",
            mark(*peak_memory_bytes <= MAX_MEMORY_BYTES),
            peak_memory_bytes.div_ceil(1 << 20)
        )
    }
}
