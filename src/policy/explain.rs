//! What a token, or the claims of one, would get, and why.

use serde::Serialize;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::api::ErrorDetail;
use crate::api::outcome::Refusal;
use crate::ca::IssueError;
use crate::ca::extensions::{self, Content, EncodingError};
use crate::ca::profile::ProfileError;
use crate::ca::request::{PermittedAlgorithms, ProofError};
use crate::clock::rfc3339;
use crate::excerpt::Excerpt;
use crate::identity::issuers::MatchedIssuer;
use crate::identity::json::Object;
use crate::identity::origin::{Origin, Origins};
use crate::identity::trace::{Keys, Presented, StepResult, trace};
use crate::identity::verifier::Step;
use crate::identity::{Identity, Issuers, San};
use crate::x509::spki::SubjectPublicKey;

/// The name of the form that explanations have as JSON.
const SCHEMA: &str = "explain-v1";

/// How long claims that do not say how long they are valid are taken to be.
const ASSUMED_VALIDITY: Duration = Duration::minutes(5);

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// The token, or its claims.
    pub presented: Presented<'a>,
    /// With whose keys the signature is verified. For claims it does not matter.
    pub keys: Keys<'a>,
    /// The moment. Without it, a token is asked about now, and claims about a moment at which they are valid.
    pub at: Option<OffsetDateTime>,
    /// The key that a certificate is wanted for, PEM, if that is asked too.
    pub public_key: Option<&'a [u8]>,
    /// The keys that the server accepts.
    pub permitted: &'a PermittedAlgorithms,
}

/// The answer. As JSON it is what `mayfly explain --output json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    schema: &'static str,
    /// Whether there would be a certificate: `issued` or `refused`.
    pub result: &'static str,
    /// The code of the refusal.
    pub reason: Option<&'static str>,
    /// What the client is told of a refusal.
    pub client_visible: Option<ClientVisible>,
    /// The moment that was asked about, RFC 3339.
    pub at: String,
    /// The entry that counts.
    pub issuer: Option<ExplainedIssuer>,
    /// Every step, in order.
    pub steps: Vec<ExplainedStep>,
    /// Every rule of the entry, in the order in which they count.
    pub rules: Vec<ExplainedRule>,
    /// What a client signs to prove that it holds its key.
    pub challenge: Option<String>,
    /// The name in the certificate.
    pub san: Option<ExplainedName>,
    /// The Sigstore extensions of the certificate.
    pub extensions: Vec<ExplainedExtension>,
    /// What makes the answer less than certain.
    pub warnings: Vec<String>,
}

/// What a client is told of a refusal.
#[derive(Clone, Debug, Serialize)]
pub struct ClientVisible {
    /// The HTTP status.
    pub http_status: u16,
    /// The gRPC code.
    pub grpc_code: u8,
    /// The message.
    pub message: String,
}

/// An entry of the configuration.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedIssuer {
    /// Its id.
    pub id: String,
    /// The URL that the token carries.
    pub url: String,
    /// Its type.
    #[serde(rename = "type")]
    pub issuer_type: &'static str,
    /// `exact` or `wildcard`.
    pub matched_by: &'static str,
    /// The pattern, if it is one.
    pub pattern: Option<String>,
}

/// A step.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedStep {
    /// Which.
    pub name: &'static str,
    /// `pass`, `fail` or `skip`.
    pub result: &'static str,
    /// What was found.
    pub detail: String,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedRule {
    /// `allow` or `deny`.
    pub list: &'static str,
    /// Its number in the list, from 1.
    pub number: usize,
    /// Whether all of its conditions hold.
    pub applies: bool,
    /// Its conditions.
    pub conditions: Vec<ExplainedCondition>,
}

/// A condition of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedCondition {
    /// What it says.
    pub condition: String,
    /// Whether it holds.
    pub holds: bool,
    /// What the claim is, cut where it is long.
    pub found: String,
}

/// The name in a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedName {
    /// `email`, `uri` or `other_name`.
    #[serde(rename = "type")]
    pub name_type: &'static str,
    /// The name.
    pub value: String,
    /// `claim`, `default` or `template`.
    pub source: &'static str,
    /// Which claim, or the text of the template.
    pub from: String,
}

/// An extension of a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedExtension {
    /// Its object identifier.
    pub oid: String,
    /// Its name, as templates have it.
    pub name: String,
    /// Its text.
    pub value: String,
    /// `claim`, `default` or `template`.
    pub source: &'static str,
    /// Which claim, or the text of the template.
    pub from: String,
}

impl Explanation {
    /// Whether there would be a certificate.
    #[must_use]
    pub const fn is_issued(&self) -> bool {
        self.reason.is_none()
    }
}

/// Answers a question. `now` is the time; what is asked may be about another.
pub async fn explain(
    issuers: &Issuers,
    question: Question<'_>,
    now: OffsetDateTime,
) -> Explanation {
    let mut warnings = Vec::new();
    let mut at = question.at.unwrap_or(now);
    let completed;
    let presented = match question.presented {
        Presented::Claims(claims) => {
            let moment = Moment::of(claims, question.at, now);
            at = moment.at;
            warnings.extend(moment.warning);
            completed = moment.claims;
            Presented::Claims(&completed)
        }
        token @ Presented::Token(_) => token,
    };
    let trace = trace(issuers, question.keys, presented, at).await;
    let is_signed = matches!(presented, Presented::Token(_));
    let is_verified = trace
        .steps
        .iter()
        .any(|(step, result)| *step == Step::Signature && matches!(result, StepResult::Passed));
    if is_signed && trace.outcome.is_ok() && !is_verified {
        warnings
            .push("the signature was not verified: anybody could have made this token".to_owned());
    }
    let claims = trace.claims.unwrap_or_default();
    let details = Details {
        claims: &claims,
        matched: trace.matched.as_ref(),
        at,
    };
    let mut steps: Vec<ExplainedStep> = trace
        .steps
        .iter()
        .map(|(step, result)| details.step(*step, result))
        .collect();
    let identity = trace.outcome.as_ref().ok().map(|supposed| supposed.shown());
    let mut error = trace
        .outcome
        .as_ref()
        .err()
        .map(|error| IssueError::Token(error.clone()));
    let key = question
        .public_key
        .map(|pem| check_key(pem, question.permitted));
    let certificate = identity.map(check_certificate);
    for (name, result) in [
        ("key", key.map(|key| key.map_err(IssueError::Proof))),
        ("certificate", certificate),
    ] {
        let is_asked = name == "certificate" || question.public_key.is_some();
        match result {
            Some(result) if error.is_none() => {
                steps.push(judged(name, &result));
                error = result.err();
            }
            Some(_) | None if is_asked => steps.push(not_reached(name)),
            Some(_) | None => {}
        }
    }
    let refusal = error.map(Refusal::from);
    let matched = trace.matched.as_ref();
    let origins = matched.map(|matched| matched.issuer.rule.origins(&claims));
    let shown = identity.filter(|_| refusal.is_none()).zip(origins);
    if let Some(end) = matched.and_then(|matched| matched.issuer.expires) {
        warnings.push(format!("the entry ends at {}", rfc3339(end)));
    }
    Explanation {
        schema: SCHEMA,
        result: if refusal.is_none() {
            "issued"
        } else {
            "refused"
        },
        reason: refusal
            .as_ref()
            .and_then(Refusal::reason)
            .map(|reason| reason.as_str()),
        client_visible: refusal.map(|refusal| ClientVisible {
            http_status: refusal.code().http.as_u16(),
            grpc_code: refusal.code().grpc,
            message: refusal.message(ErrorDetail::Reason),
        }),
        at: rfc3339(at),
        issuer: matched.map(issuer),
        rules: matched.map_or_else(Vec::new, |matched| rules(matched, &claims)),
        steps,
        challenge: shown
            .as_ref()
            .map(|(identity, _)| identity.challenge.clone()),
        san: shown
            .as_ref()
            .map(|(identity, origins)| name(identity, origins)),
        extensions: shown.map_or_else(Vec::new, |(identity, origins)| named(identity, &origins)),
        warnings,
    }
}

/// When claims are looked at.
struct Moment {
    at: OffsetDateTime,
    /// The claims, with their times if they have none.
    claims: Object,
    warning: Option<String>,
}

impl Moment {
    /// Claims are written down and asked about much later: now, if they are valid now, else when they were.
    fn of(claims: &Object, at: Option<OffsetDateTime>, now: OffsetDateTime) -> Self {
        let date = |name: &str| {
            let seconds = claims.get(name).and_then(Value::as_i64)?;
            OffsetDateTime::from_unix_timestamp(seconds).ok()
        };
        let start = date("iat").max(date("nbf"));
        let end = date("exp");
        let is_valid = start.is_none_or(|start| start <= now) && end.is_none_or(|end| end >= now);
        let valid = if is_valid { None } else { start.or(end) };
        let at = at.or(valid).unwrap_or(now);
        let mut claims = claims.clone();
        let mut warning = None;
        if !claims.contains_key("exp") {
            let end = at.saturating_add(ASSUMED_VALIDITY).unix_timestamp();
            claims.insert("exp".to_owned(), end.into());
            // Who writes no end leaves out the times altogether; an entry may ask for the beginning too.
            let has_iat = claims.contains_key("iat");
            claims
                .entry("iat")
                .or_insert_with(|| at.unix_timestamp().into());
            let assumed = if has_iat {
                "it was"
            } else {
                "it and `iat` were"
            };
            warning = Some(format!(
                "the claims have no `exp`, which every token must have; {assumed} assumed"
            ));
        }
        Self {
            at,
            claims,
            warning,
        }
    }
}

/// Checks a key as the server does, but for the proof that somebody holds it.
fn check_key(pem: &[u8], permitted: &PermittedAlgorithms) -> Result<String, ProofError> {
    let key = SubjectPublicKey::from_pem(pem)?;
    let (kind, scheme) = (key.kind(), key.kind().proof_scheme());
    if permitted.permits(kind, scheme) {
        Ok(format!("{kind}; the client must prove that it holds it"))
    } else {
        Err(ProofError::NotPermitted { kind, scheme })
    }
}

/// Encodes what a certificate would say of the identity.
fn check_certificate(identity: &Identity) -> Result<String, IssueError> {
    let encoded = || -> Result<usize, EncodingError> {
        let name = extensions::subject_alternative_name(&identity.san)?;
        let extensions = extensions::encode(identity)?;
        extensions::check_length(&name, &extensions)?;
        Ok(extensions.len())
    };
    match encoded() {
        Ok(count) => Ok(format!("a name and {count} Sigstore extensions")),
        Err(error) => Err(IssueError::Profile(ProfileError::Identity(error))),
    }
}

fn judged(name: &'static str, result: &Result<String, IssueError>) -> ExplainedStep {
    match result {
        Ok(detail) => ExplainedStep {
            name,
            result: "pass",
            detail: detail.clone(),
        },
        Err(error) => ExplainedStep {
            name,
            result: "fail",
            detail: error.to_string(),
        },
    }
}

fn not_reached(name: &'static str) -> ExplainedStep {
    ExplainedStep {
        name,
        result: "skip",
        detail: "not reached".to_owned(),
    }
}

/// What there is to say about the steps of a verification.
struct Details<'a> {
    claims: &'a Object,
    matched: Option<&'a MatchedIssuer>,
    at: OffsetDateTime,
}

impl Details<'_> {
    fn step(&self, step: Step, result: &StepResult) -> ExplainedStep {
        let (result, detail) = match result {
            StepResult::Passed => ("pass", self.passed(step)),
            StepResult::Failed(error) => ("fail", error.to_string()),
            StepResult::Skipped(why) => ("skip", (*why).to_owned()),
        };
        ExplainedStep {
            name: step.name(),
            result,
            detail,
        }
    }

    fn passed(&self, step: Step) -> String {
        let Some(MatchedIssuer {
            issuer, endpoint, ..
        }) = self.matched
        else {
            return "a token in compact form".to_owned();
        };
        match step {
            Step::Form => "a token in compact form".to_owned(),
            Step::Issuer if issuer.is_wildcard() => {
                format!("{} by the pattern {}", endpoint.issuer, issuer.url())
            }
            Step::Issuer => endpoint.issuer.clone(),
            Step::Entry => format!("{}, type {}", issuer.id, issuer.rule.type_name()),
            Step::Algorithm => match &issuer.tokens.algorithms {
                Some(_) => "one of those that the entry accepts".to_owned(),
                None => "the entry accepts what the issuer uses".to_owned(),
            },
            Step::Signature => "verifies with a key of the issuer".to_owned(),
            Step::Times => match self.claims.get("exp").and_then(Value::as_i64) {
                Some(expiry) => format!("{} s until the end", expiry - self.at.unix_timestamp()),
                None => "valid".to_owned(),
            },
            Step::Audience => format!("one of the entry's: {}", issuer.audiences.join(", ")),
            Step::Rules => self.rules(),
            Step::Identity => format!("an identity of type {}", issuer.rule.type_name()),
        }
    }

    /// Which rule let the token pass.
    fn rules(&self) -> String {
        let outcomes = self
            .matched
            .map(|matched| matched.issuer.access.outcomes(self.claims));
        let outcomes = outcomes.unwrap_or_default();
        let mut applying = outcomes.iter().filter(|outcome| outcome.applies());
        match applying.next() {
            Some(outcome) => format!(
                "rule {} of `{}` applies",
                outcome.number,
                outcome.list.name()
            ),
            None if outcomes.is_empty() => "the entry has no rules".to_owned(),
            None => "no rule of `deny` applies".to_owned(),
        }
    }
}

fn issuer(matched: &MatchedIssuer) -> ExplainedIssuer {
    let MatchedIssuer {
        issuer, endpoint, ..
    } = matched;
    ExplainedIssuer {
        id: issuer.id.to_string(),
        url: endpoint.issuer.clone(),
        issuer_type: issuer.rule.type_name(),
        matched_by: if issuer.is_wildcard() {
            "wildcard"
        } else {
            "exact"
        },
        pattern: issuer.is_wildcard().then(|| issuer.url().to_owned()),
    }
}

fn rules(matched: &MatchedIssuer, claims: &Object) -> Vec<ExplainedRule> {
    let outcomes = matched.issuer.access.outcomes(claims);
    let explained = outcomes.iter().map(|outcome| {
        let conditions = outcome
            .conditions
            .iter()
            .map(|(condition, holds)| ExplainedCondition {
                condition: condition.to_string(),
                holds: *holds,
                found: match condition.claim().find(claims) {
                    None => "nothing".to_owned(),
                    Some(Value::String(text)) => Excerpt::new(text).to_string(),
                    // Not as a text: its quotes are not those of a string.
                    Some(other) => Excerpt::new(&other.to_string()).unquoted().to_owned(),
                },
            });
        ExplainedRule {
            list: outcome.list.name(),
            number: outcome.number,
            applies: outcome.applies(),
            conditions: conditions.collect(),
        }
    });
    explained.collect()
}

fn name(identity: &Identity, origins: &Origins) -> ExplainedName {
    let (name_type, value) = match &identity.san {
        San::Email(address) => ("email", address),
        San::Uri(uri) => ("uri", uri),
        San::OtherName(name) => ("other_name", name),
    };
    ExplainedName {
        name_type,
        value: value.clone(),
        source: origins.san.kind(),
        from: origins.san.to_string(),
    }
}

fn named(identity: &Identity, origins: &Origins) -> Vec<ExplainedExtension> {
    let subject = Origin::Claim("sub".to_owned());
    let explained = extensions::named(identity).map(|extension| {
        let origin = match extension.content {
            Content::Issuer => Some(&origins.issuer),
            Content::Subject => Some(&subject),
            Content::Build(fact) => {
                let mut facts = origins.facts.iter();
                let found = facts.find(|(known, _)| *known == fact);
                found.map(|(_, origin)| origin)
            }
        };
        ExplainedExtension {
            oid: format!("{}.{}", extensions::ARC, extension.number),
            name: extension.content.name(),
            value: extension.value.to_owned(),
            source: origin.map_or("claim", Origin::kind),
            from: origin.map_or_else(String::new, ToString::to_string),
        }
    });
    explained.collect()
}
