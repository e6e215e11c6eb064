//! What the claims of a verified token prove, by the configured type of its issuer.
//!
//! Types that only copy claims are rows of a table in `build`; the others have rules of their own.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::ci_provider::CiProvider;
use super::error::TokenError;
use super::json::Object;
use super::origin::{Origin, Origins};
use super::{BuildFacts, Identity, Issuer, San};
use crate::excerpt::is_invisible;

mod build;
mod email;
mod subject;
mod url;

pub use build::BuildType;
pub use email::EmailRule;
pub use subject::{InvalidDomain, InvalidTrustDomain, SpiffeRule, UriRule, UsernameRule};
use subject::{below, chainguard_challenge, service_account};

/// The longest value of a claim that goes into a certificate, in octets.
const MAX_VALUE_OCTETS: usize = 2048;

/// The types that an issuer may have.
pub const SUPPORTED_TYPES: [&str; 11] = [
    "buildkite-job",
    "chainguard-identity",
    "ci-provider",
    "codefresh-workflow",
    "email",
    "github-workflow",
    "gitlab-pipeline",
    "kubernetes",
    "spiffe",
    "uri",
    "username",
];

/// How the claims of an issuer's tokens become an identity: the issuer's type with what it needs to know.
#[derive(Clone, Debug)]
pub enum IdentityRule {
    /// An e-mail address that the issuer has verified.
    Email(EmailRule),
    /// A subject that is a URI on one host.
    Uri(UriRule),
    /// A subject that is the name of a user in one domain.
    Username(UsernameRule),
    /// A subject that is a SPIFFE ID in one trust domain.
    Spiffe(SpiffeRule),
    /// A service account of a Kubernetes cluster.
    Kubernetes,
    /// A subject as Chainguard names people and services: a path below the issuer.
    Chainguard,
    /// A build, described by claims that are copied.
    Build(&'static BuildType),
    /// A build, described by templates of the identity file.
    CiProvider(Arc<CiProvider>),
}

impl IdentityRule {
    /// The rule of a type that needs no settings, by its configured name.
    #[must_use]
    pub fn plain(name: &str) -> Option<Self> {
        match name {
            "kubernetes" => Some(Self::Kubernetes),
            "chainguard-identity" => Some(Self::Chainguard),
            _ => build::BUILD_TYPES
                .iter()
                .find(|build| build.name == name)
                .map(Self::Build),
        }
    }

    /// The configured type.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Uri(_) => "uri",
            Self::Username(_) => "username",
            Self::Spiffe(_) => "spiffe",
            Self::Kubernetes => "kubernetes",
            Self::Chainguard => "chainguard-identity",
            Self::Build(build) => build.name,
            Self::CiProvider(_) => "ci-provider",
        }
    }

    /// The claim whose value a proof of possession signs, as clients are told. For `chainguard-identity` it is `email`
    /// when the token has one.
    #[must_use]
    pub const fn challenge_claim(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Uri(_)
            | Self::Username(_)
            | Self::Spiffe(_)
            | Self::Kubernetes
            | Self::Chainguard
            | Self::Build(_)
            | Self::CiProvider(_) => "sub",
        }
    }

    /// The `subject-domain` of a `uri` or `username` issuer; otherwise empty.
    #[must_use]
    pub fn subject_domain(&self) -> String {
        match self {
            Self::Uri(rule) => rule.domain(),
            Self::Username(rule) => rule.domain().to_owned(),
            Self::Email(_)
            | Self::Spiffe(_)
            | Self::Kubernetes
            | Self::Chainguard
            | Self::Build(_)
            | Self::CiProvider(_) => String::new(),
        }
    }

    /// The trust domain of a `spiffe` issuer; otherwise empty.
    #[must_use]
    pub fn spiffe_trust_domain(&self) -> &str {
        match self {
            Self::Spiffe(rule) => rule.trust_domain(),
            Self::Email(_)
            | Self::Uri(_)
            | Self::Username(_)
            | Self::Kubernetes
            | Self::Chainguard
            | Self::Build(_)
            | Self::CiProvider(_) => "",
        }
    }

    /// What a certificate for these claims is made of, apart from `sub`, which every one carries.
    #[must_use]
    pub fn origins(&self, claims: &Object) -> Origins {
        let made_of = |san| Origins {
            san,
            issuer: Origin::claim("iss"),
            facts: Vec::new(),
        };
        match self {
            Self::Email(rule) => Origins {
                issuer: match &rule.issuer_claim {
                    Some(path) => Origin::claim(path.to_string()),
                    None => Origin::claim("iss"),
                },
                ..made_of(Origin::claim("email"))
            },
            Self::Uri(_) | Self::Spiffe(_) => made_of(Origin::claim("sub")),
            Self::Username(rule) => made_of(Origin::template(format!(
                "{{{{ .sub }}}}!{}",
                rule.domain()
            ))),
            Self::Kubernetes => made_of(Origin::template(
                "https://kubernetes.io/namespaces/NAMESPACE/serviceaccounts/NAME, of the claim kubernetes.io",
            )),
            Self::Chainguard => made_of(Origin::template("{{ .iss }}/{{ .sub }}")),
            Self::Build(build) => build.origins(),
            Self::CiProvider(provider) => Origins::of_provider(provider, claims),
        }
    }

    /// Whether addresses count as verified without the issuer saying so.
    #[must_use]
    pub const fn skips_email_verification(&self) -> bool {
        matches!(self, Self::Email(rule) if rule.skip_verification)
    }
}

/// Makes an identity of the claims of a token whose signature, times and audience hold.
///
/// # Errors
/// When a claim that the issuer's type needs is missing, or says what a certificate may not.
pub(super) fn identify(
    issuer: &Issuer,
    iss: &str,
    claims: &Object,
) -> Result<Identity, TokenError> {
    let subject = subject(claims)?;
    let mut issuer_name = iss;
    let mut challenge = ("sub", subject);
    let mut build = BuildFacts::default();
    let san = match &issuer.rule {
        IdentityRule::Email(rule) => {
            let email = rule.address(claims)?;
            issuer_name = rule.issuer_name(iss, claims)?;
            challenge = ("email", email);
            San::Email(email.to_owned())
        }
        IdentityRule::Uri(rule) => {
            rule.check(subject)?;
            San::Uri(subject.to_owned())
        }
        IdentityRule::Username(rule) => San::OtherName(rule.name(subject)?),
        IdentityRule::Spiffe(rule) => {
            rule.check(subject)?;
            San::Uri(subject.to_owned())
        }
        IdentityRule::Kubernetes => San::Uri(service_account(subject, claims)?),
        IdentityRule::Chainguard => {
            challenge = chainguard_challenge(subject, claims)?;
            San::Uri(below(iss, subject)?)
        }
        IdentityRule::Build(kind) => {
            let (url, facts) = kind.identify(claims)?;
            build = facts;
            San::Uri(url)
        }
        IdentityRule::CiProvider(provider) => {
            let (name, facts) = provider.describe(claims)?;
            build = facts;
            name
        }
    };
    let (challenge_claim, challenge) = challenge;
    Ok(Identity {
        issuer_id: issuer.id.clone(),
        issuer_type: issuer.rule.type_name(),
        issuer: issuer_name.to_owned(),
        subject: subject.to_owned(),
        challenge_claim,
        challenge: challenge.to_owned(),
        san,
        build,
        rate: issuer.rate,
    })
}

/// The `sub` claim. Every type needs one, because every certificate carries it.
fn subject(claims: &Object) -> Result<&str, TokenError> {
    let subject = required_text("sub", claims.get("sub"))?;
    if subject.trim() != subject {
        return Err(invalid("sub", "it begins or ends with white space"));
    }
    Ok(subject)
}

/// A claim that must be there: a string, not empty, fit for a certificate.
fn required_text<'a>(claim: &str, value: Option<&'a Value>) -> Result<&'a str, TokenError> {
    let text = match value {
        Some(Value::String(text)) => text,
        None | Some(Value::Null) => {
            return Err(TokenError::MissingClaim {
                claim: claim.to_owned(),
            });
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(invalid(claim, "it is not a string"));
        }
    };
    if text.is_empty() {
        Err(TokenError::MissingClaim {
            claim: claim.to_owned(),
        })
    } else if text.len() > MAX_VALUE_OCTETS {
        Err(invalid(claim, "it is longer than 2048 octets"))
    } else if text.chars().any(is_invisible) {
        Err(invalid(
            claim,
            "it has control characters or marks that change the direction of text",
        ))
    } else {
        Ok(text)
    }
}

/// A claim that may be missing, null or empty, and otherwise is as [`required_text`] wants it.
fn optional_text<'a>(claim: &str, value: Option<&'a Value>) -> Result<Option<&'a str>, TokenError> {
    match required_text(claim, value) {
        Ok(text) => Ok(Some(text)),
        Err(TokenError::MissingClaim { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn invalid(claim: &str, why: &'static str) -> TokenError {
    TokenError::InvalidClaim {
        claim: claim.to_owned(),
        why,
    }
}

/// The place of a claim inside others: the form `$.outer.inner` of JSONPath (RFC 9535, section 2.5.1), nothing else of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClaimPath(Vec<String>);

/// A text is not a path of the form `$.outer.inner`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected $ and one or more names, such as $.federated_claims.connector_id")]
pub struct InvalidPath;

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$.{}", self.0.join("."))
    }
}

impl ClaimPath {
    /// Reads a path.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        let names = text.strip_prefix("$.").ok_or(InvalidPath)?.split('.');
        let is_name = |name: &str| {
            let is_letter =
                |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_' || octet == b'-';
            !name.is_empty() && name.bytes().all(is_letter)
        };
        let names: Vec<String> = names.map(str::to_owned).collect();
        if names.iter().all(|name| is_name(name)) {
            Ok(Self(names))
        } else {
            Err(InvalidPath)
        }
    }

    /// The text at this place.
    fn select<'a>(&self, claims: &'a Object) -> Result<&'a str, TokenError> {
        let (outer, inner) = self
            .0
            .split_first()
            .map_or(("", &[][..]), |(outer, inner)| (outer, inner));
        let value = inner
            .iter()
            .fold(claims.get(outer), |value, name| value?.get(name));
        required_text(&self.0.join("."), value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Bench, ISSUER, entry};
    use super::*;
    use crate::dev::oidc::TestClaims;
    use crate::reason::Reason;

    pub(super) const ADA: &str = "ada@example.com";

    pub(super) async fn reason(bench: &Bench, claims: &TestClaims) -> Option<Reason> {
        bench
            .verify_claims(claims)
            .await
            .err()
            .map(|error| error.reason())
    }

    #[tokio::test]
    async fn a_subject_is_needed_and_must_be_plain() {
        let bench = Bench::new();
        let claims = |subject: Value| TestClaims::email(ADA).with("sub", subject);
        for subject in [json!(""), Value::Null] {
            assert_eq!(
                reason(&bench, &claims(subject)).await,
                Some(Reason::MissingClaim)
            );
        }
        assert_eq!(
            reason(&bench, &TestClaims::email(ADA).without("sub")).await,
            Some(Reason::MissingClaim)
        );
        for subject in [
            json!(5),
            json!([ADA]),
            json!({}),
            json!("x".repeat(2_049)),
            json!("a\r\nb"),
            json!("a\0"),
            json!("\u{1b}[31m"),
            json!("a\u{85}b"),
            json!("a\u{202e}b"),
            json!(" "),
            json!(" a"),
            json!("a "),
            json!("a\u{a0}"),
        ] {
            assert_eq!(
                reason(&bench, &claims(subject.clone())).await,
                Some(Reason::MalformedToken),
                "{subject}"
            );
        }
        for subject in [
            "x".repeat(2_048),
            "auth0|5f".to_owned(),
            "Ünï cödé".to_owned(),
        ] {
            let identity = bench.verify_claims(&claims(json!(subject))).await.unwrap();
            assert_eq!(identity.subject, subject);
        }
    }

    #[tokio::test]
    async fn an_issuer_claim_names_the_issuer_in_the_certificate() {
        let settings = "type: email\n    issuer-claim: $.federated_claims.connector_id";
        let bench = Bench::with_issuers(&entry(ISSUER, settings));
        let claims = |value: Value| TestClaims::email(ADA).with("federated_claims", value);
        let connector = "https://accounts.example";
        let identity = bench
            .verify_claims(&claims(json!({ "connector_id": connector })))
            .await
            .unwrap();
        assert_eq!(
            (identity.issuer.as_str(), &*identity.issuer_id),
            (connector, "issuer.example")
        );
        for (value, expected) in [
            (json!({}), Reason::MissingClaim),
            (json!("text"), Reason::MissingClaim),
            (json!({ "connector_id": "" }), Reason::MissingClaim),
            (json!({ "connector_id": null }), Reason::MissingClaim),
            (json!({ "connector_id": 5 }), Reason::MalformedToken),
            (
                json!({ "connector_id": { "a": "b" } }),
                Reason::MalformedToken,
            ),
            (
                json!({ "connector_id": "x".repeat(10_240) }),
                Reason::MalformedToken,
            ),
            (json!({ "connector_id": "a\nb" }), Reason::MalformedToken),
        ] {
            assert_eq!(
                reason(&bench, &claims(value.clone())).await,
                Some(expected),
                "{value:.60}"
            );
        }
        assert_eq!(
            reason(&bench, &TestClaims::email(ADA)).await,
            Some(Reason::MissingClaim)
        );
    }

    #[test]
    fn paths_to_claims_have_one_form() {
        assert_eq!(ClaimPath::parse("$.a.b-c_1").unwrap().0, ["a", "b-c_1"]);
        for text in [
            "", "$", "$.", "a", ".a", "$.a.", "$..a", "$.a[0]", "$['a']", "$.*", "$.a b",
        ] {
            assert_eq!(ClaimPath::parse(text), Err(InvalidPath), "{text}");
        }
    }
}
