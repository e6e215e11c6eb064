//! What the claims of a verified token prove, by the configured type of its issuer.
//!
//! Types that only copy claims are rows of a table; `email` and `uri` have rules of their own.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::ci_provider::CiProvider;
use super::error::TokenError;
use super::excerpt::{Excerpt, is_invisible};
use super::json::Object;
use super::{BuildFact, BuildFacts, Identity, Issuer, San};

/// The longest value of a claim that goes into a certificate, in octets.
const MAX_VALUE_OCTETS: usize = 2048;

/// The types that an issuer may have.
pub const SUPPORTED_TYPES: [&str; 4] = ["ci-provider", "email", "github-workflow", "uri"];

/// How the claims of an issuer's tokens become an identity: the issuer's type with what it needs to know.
#[derive(Clone, Debug)]
pub enum IdentityRule {
    /// An e-mail address that the issuer has verified.
    Email(EmailRule),
    /// A subject that is a URI on one host.
    Uri(UriRule),
    /// A build, described by claims that are copied.
    Build(&'static BuildType),
    /// A build, described by templates of the identity file.
    CiProvider(Arc<CiProvider>),
}

/// What to make of the tokens of an e-mail issuer.
#[derive(Clone, Debug, Default)]
pub struct EmailRule {
    /// The claim that names the issuer in the certificate, in place of `iss`.
    pub issuer_claim: Option<ClaimPath>,
    /// Whether addresses are taken without the issuer saying that it has verified them.
    pub skip_verification: bool,
}

/// Where the subjects of a `uri` issuer lie: every subject is `scheme://authority` and a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UriRule {
    /// `http` or `https`, as the issuer's URL.
    pub scheme: String,
    /// Host, and port where one is written.
    pub authority: String,
}

/// A kind of build service, as a row of a table.
#[derive(Debug)]
pub struct BuildType {
    /// The configured type.
    name: &'static str,
    /// What the URLs in its certificates begin with.
    base_url: &'static str,
    /// The URL that is the certificate's name, as a path of claims below `base_url`.
    san: &'static [Piece],
    /// The facts of the certificate, and what each is made of. Every claim that is named must be there.
    facts: &'static [(BuildFact, Source)],
}

/// What a build fact is made of.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// A claim, as it is.
    Claim(&'static str),
    /// A URL below the type's base URL.
    Url(&'static [Piece]),
}

/// One element of a URL's path.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// A claim's value.
    Claim(&'static str),
    /// This text.
    Text(&'static str),
}

/// The build services whose mapping is fixed.
static BUILD_TYPES: [BuildType; 1] = [GITHUB_WORKFLOW];

const GITHUB_WORKFLOW: BuildType = {
    use BuildFact as Fact;
    use Source::{Claim, Url};
    BuildType {
        name: "github-workflow",
        base_url: "https://github.com/",
        san: &[Piece::Claim("job_workflow_ref")],
        facts: &[
            (Fact::GithubWorkflowTrigger, Claim("event_name")),
            (Fact::GithubWorkflowSha, Claim("sha")),
            (Fact::GithubWorkflowName, Claim("workflow")),
            (Fact::GithubWorkflowRepository, Claim("repository")),
            (Fact::GithubWorkflowRef, Claim("ref")),
            (
                Fact::BuildSignerUri,
                Url(&[Piece::Claim("job_workflow_ref")]),
            ),
            (Fact::BuildSignerDigest, Claim("job_workflow_sha")),
            (Fact::RunnerEnvironment, Claim("runner_environment")),
            (
                Fact::SourceRepositoryUri,
                Url(&[Piece::Claim("repository")]),
            ),
            (Fact::SourceRepositoryDigest, Claim("sha")),
            (Fact::SourceRepositoryRef, Claim("ref")),
            (Fact::SourceRepositoryIdentifier, Claim("repository_id")),
            (
                Fact::SourceRepositoryOwnerUri,
                Url(&[Piece::Claim("repository_owner")]),
            ),
            (
                Fact::SourceRepositoryOwnerIdentifier,
                Claim("repository_owner_id"),
            ),
            (Fact::BuildConfigUri, Url(&[Piece::Claim("workflow_ref")])),
            (Fact::BuildConfigDigest, Claim("workflow_sha")),
            (Fact::BuildTrigger, Claim("event_name")),
            (
                Fact::RunInvocationUri,
                Url(&[
                    Piece::Claim("repository"),
                    Piece::Text("actions/runs"),
                    Piece::Claim("run_id"),
                    Piece::Text("attempts"),
                    Piece::Claim("run_attempt"),
                ]),
            ),
            (
                Fact::SourceRepositoryVisibilityAtSigning,
                Claim("repository_visibility"),
            ),
        ],
    }
};

impl Piece {
    /// The claim's name, or the text.
    const fn name(self) -> &'static str {
        match self {
            Self::Claim(name) | Self::Text(name) => name,
        }
    }
}

impl IdentityRule {
    /// The rule of a build type, by its configured name.
    #[must_use]
    pub fn build(name: &str) -> Option<Self> {
        BUILD_TYPES
            .iter()
            .find(|build| build.name == name)
            .map(Self::Build)
    }

    /// The configured type.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Uri(_) => "uri",
            Self::Build(build) => build.name,
            Self::CiProvider(_) => "ci-provider",
        }
    }

    /// The claim whose value a proof of possession signs.
    #[must_use]
    pub const fn challenge_claim(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Uri(_) | Self::Build(_) | Self::CiProvider(_) => "sub",
        }
    }

    /// The `subject-domain` of a `uri` issuer; otherwise empty.
    #[must_use]
    pub fn subject_domain(&self) -> String {
        match self {
            Self::Uri(rule) => format!("{}://{}", rule.scheme, rule.authority),
            Self::Email(_) | Self::Build(_) | Self::CiProvider(_) => String::new(),
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
    let (issuer_name, challenge, san, build) = match &issuer.rule {
        IdentityRule::Email(rule) => {
            let email = email(rule, claims)?;
            let name = match &rule.issuer_claim {
                Some(path) => path.select(claims)?,
                None => iss,
            };
            (
                name,
                email,
                San::Email(email.to_owned()),
                BuildFacts::default(),
            )
        }
        IdentityRule::Uri(rule) => {
            rule.check(subject)?;
            (
                iss,
                subject,
                San::Uri(subject.to_owned()),
                BuildFacts::default(),
            )
        }
        IdentityRule::Build(build) => {
            let san = San::Uri(build.url(build.san, claims)?);
            (iss, subject, san, build.facts(claims)?)
        }
        IdentityRule::CiProvider(provider) => {
            let (san, build) = provider.describe(claims)?;
            (iss, subject, san, build)
        }
    };
    Ok(Identity {
        issuer_id: issuer.id.clone(),
        issuer_type: issuer.rule.type_name(),
        issuer: issuer_name.to_owned(),
        subject: subject.to_owned(),
        challenge_claim: issuer.rule.challenge_claim(),
        challenge: challenge.to_owned(),
        san,
        build,
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

/// The address of a token, when the issuer vouches for it.
fn email<'a>(rule: &EmailRule, claims: &'a Object) -> Result<&'a str, TokenError> {
    let is_verified = match claims.get("email_verified") {
        None => false,
        Some(Value::Bool(is_verified)) => *is_verified,
        Some(Value::String(text)) if matches!(text.as_str(), "true" | "True") => true,
        Some(Value::String(text)) if matches!(text.as_str(), "false" | "False") => false,
        Some(_) => return Err(invalid("email_verified", "it is neither true nor false")),
    };
    let Some(Value::String(address)) = claims.get("email") else {
        return Err(TokenError::InvalidEmail {
            why: "the claim `email` is missing or not a string",
        });
    };
    check_address(address).map_err(|why| TokenError::InvalidEmail { why })?;
    if is_verified || rule.skip_verification {
        Ok(address)
    } else {
        Err(TokenError::EmailNotVerified)
    }
}

/// Checks that an address is a dot-atom at a domain name, in ASCII (RFC 5321, sections 4.1.2 and 4.5.3.1).
///
/// Quoted local parts, comments, address literals and one-label domains are refused: verifiers compare addresses as text.
fn check_address(address: &str) -> Result<(), &'static str> {
    const MAX_ADDRESS: usize = 254;
    const MAX_LOCAL: usize = 64;
    if !address.is_ascii() {
        return Err("the claim `email` is not ASCII, which the certificate's rfc822Name must be");
    }
    if address.len() > MAX_ADDRESS {
        return Err("the claim `email` is longer than 254 octets");
    }
    let Some((local, domain)) = address.split_once('@') else {
        return Err("the claim `email` has no @");
    };
    let is_atom_octet =
        |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet);
    let is_atom = |atom: &str| !atom.is_empty() && atom.bytes().all(is_atom_octet);
    if local.len() > MAX_LOCAL || !local.split('.').all(is_atom) {
        return Err(
            "the part of the claim `email` before the @ is not a plain name of at most 64 octets",
        );
    }
    if !is_domain(domain) {
        return Err(
            "the part of the claim `email` after the @ is not a domain name of two labels or more",
        );
    }
    Ok(())
}

/// Whether a text is a host name of at least two labels, whose last is not a number (RFC 1123, section 2.1).
fn is_domain(domain: &str) -> bool {
    const MAX_LABEL: usize = 63;
    let is_label = |label: &str| {
        let is_inner = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_letter = |octet: Option<u8>| octet.is_some_and(|octet| octet.is_ascii_alphabetic());
    let last = domain.rsplit('.').next().unwrap_or_default();
    domain.contains('.')
        && domain.split('.').all(is_label)
        && is_letter(last.bytes().next())
        && is_letter(last.bytes().next_back())
}

impl UriRule {
    /// Checks that a subject is a URI of this scheme and authority, in its one spelling.
    ///
    /// Compared as text, because parsers of URLs differ in what they take for the host.
    fn check(&self, subject: &str) -> Result<(), TokenError> {
        if check_address(subject).is_ok() {
            return Err(TokenError::AmbiguousIdentity);
        }
        let rest = subject
            .strip_prefix(self.scheme.as_str())
            .and_then(|rest| rest.strip_prefix("://"));
        let rest = rest.and_then(|rest| rest.strip_prefix(self.authority.as_str()));
        let is_inside = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        let (Some(rest), true) = (rest, is_inside) else {
            return Err(TokenError::SubjectDomainMismatch {
                subject: Excerpt::new(subject),
                expected: format!("{}://{}", self.scheme, self.authority),
            });
        };
        let path = rest.split_once('?').map_or(rest, |(path, _)| path);
        if !is_uri_text(rest) {
            return Err(invalid(
                "sub",
                "it has characters that a URI may not have, or a fragment (RFC 3986, section 2)",
            ));
        }
        if path.split('/').any(is_dot_segment) {
            return Err(invalid("sub", "its path has . or .. segments"));
        }
        Ok(())
    }
}

/// Whether a text has only the characters of a URI's path and query, with complete percent-encodings (RFC 3986, section 3.3).
fn is_uri_text(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        let is_percent = octet == b'%' && begins_with_hex_pair(tail);
        if !(is_percent || octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&octet))
        {
            return false;
        }
        rest = tail;
    }
    true
}

/// Whether a segment is `.` or `..`, also when its dots are percent-encoded.
fn is_dot_segment(segment: &str) -> bool {
    segment.len() <= 6
        && matches!(
            segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
            "." | ".."
        )
}

impl BuildType {
    fn facts(&self, claims: &Object) -> Result<BuildFacts, TokenError> {
        let mut facts = BuildFacts::default();
        for (fact, source) in self.facts {
            let value = match source {
                Source::Claim(claim) => required_text(claim, claims.get(*claim))?.to_owned(),
                Source::Url(pieces) => self.url(pieces, claims)?,
            };
            facts.set(*fact, value);
        }
        Ok(facts)
    }

    /// Joins claims to a URL below the base URL: the path is cleaned of empty, `.` and `..` segments, and what a path may
    /// not have is percent-encoded. Verifiers compare the result, so the form is Fulcio's, octet for octet.
    fn url(&self, pieces: &[Piece], claims: &Object) -> Result<String, TokenError> {
        let mut path: Vec<&str> = Vec::new();
        for piece in pieces {
            let text = match piece {
                Piece::Claim(claim) => required_text(claim, claims.get(*claim))?,
                Piece::Text(text) => text,
            };
            let start = path.len();
            for segment in text.split('/') {
                match segment {
                    "" | "." => {}
                    ".." if path.len() > start => drop(path.pop()),
                    // At the root there is nothing above.
                    ".." if start == 0 => {}
                    ".." => {
                        return Err(invalid(
                            piece.name(),
                            "it leaves the path that it belongs to",
                        ));
                    }
                    segment => path.push(segment),
                }
            }
            if path.len() == start {
                return Err(invalid(piece.name(), "it is not a path"));
            }
        }
        Ok(format!("{}{}", self.base_url, escape_path(&path.join("/"))))
    }
}

/// Writes a path as Go's `net/url` does: unchanged when it is a valid path, and otherwise with everything encoded but
/// letters, digits and `-_.~$&+,/:;=@`. Percent-encodings that stand in it stay.
fn escape_path(path: &str) -> Cow<'_, str> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&octet);
    let mut is_valid = true;
    let mut escaped = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        if is_plain(octet) || (octet == b'%' && begins_with_hex_pair(tail)) {
            escaped.push(char::from(octet));
        } else {
            is_valid &= b"!'()*[]".contains(&octet);
            // Writing to a `String` does not fail.
            let _ = write!(escaped, "%{octet:02X}");
        }
    }
    if is_valid {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(escaped)
    }
}

/// Whether the octets begin with two hexadecimal digits, as they must after a `%`.
fn begins_with_hex_pair(octets: &[u8]) -> bool {
    matches!(octets, [first, second, ..] if first.is_ascii_hexdigit() && second.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Bench, ISSUER, entry};
    use super::*;
    use crate::dev::oidc::TestClaims;
    use crate::reason::Reason;

    const ADA: &str = "ada@example.com";

    async fn reason(bench: &Bench, claims: &TestClaims) -> Option<Reason> {
        bench
            .verify_claims(claims)
            .await
            .err()
            .map(|error| error.reason())
    }

    #[tokio::test]
    async fn an_address_is_kept_as_it_is() {
        let bench = Bench::new();
        for address in [
            "Signer@Example.COM",
            "a@b.co",
            "first.last+tag@sub.example.com",
            "!#$%&'*+-/=?^_`{|}~@example.com",
            &format!("{}@example.com", "x".repeat(64)),
            "a@xn--bcher-kva.example",
            "0@1.2.com",
        ] {
            let identity = bench
                .verify_claims(&TestClaims::email(address))
                .await
                .unwrap();
            assert_eq!(identity.san, San::Email(address.to_owned()));
            assert_eq!(identity.challenge, address);
            assert_eq!(identity.build, BuildFacts::default());
        }
    }

    #[tokio::test]
    async fn texts_that_are_no_address_are_refused() {
        let bench = Bench::new();
        let label = "x".repeat(63);
        for address in [
            "",
            "victim",
            "a@b@example.com",
            "a@example.com,b@example.com",
            "V <v@example.com>",
            "v v@example.com",
            "v\t@example.com",
            "v@example.com\r\nBcc: x@example.com",
            "v@example.com\0.evil.example",
            "v@example.com\n",
            " v@example.com",
            ".v@example.com",
            "v.@example.com",
            "v..v@example.com",
            "v@",
            "@example.com",
            ".@example.com",
            "v@example..com",
            "v@.example.com",
            "v@example.com.",
            "v@-example.com",
            "v@example-.com",
            "v@exa_mple.com",
            "v@localhost",
            "v@127.0.0.1",
            "v@[127.0.0.1]",
            "v@[IPv6:::1]",
            "v@example.c0",
            "\"v v\"@example.com",
            "v(comment)@example.com",
            "\u{1b}[31mv@example.com",
            "\u{202e}v@example.com",
            "bücher@example.com",
            "v@bücher.example",
            &format!("{}@example.com", "x".repeat(65)),
            &format!("v@{label}x.com"),
            &format!("v@{label}.{label}.{label}.{label}.com"),
        ] {
            let claims = TestClaims::email(ADA).with("email", address);
            assert_eq!(
                reason(&bench, &claims).await,
                Some(Reason::InvalidEmail),
                "{address:?}"
            );
        }
        for value in [Value::Null, json!([ADA]), json!({ "a": ADA }), json!(5)] {
            let claims = TestClaims::email(ADA).with("email", value);
            assert_eq!(reason(&bench, &claims).await, Some(Reason::InvalidEmail));
        }
        let claims = TestClaims::email(ADA).without("email");
        assert_eq!(reason(&bench, &claims).await, Some(Reason::InvalidEmail));
    }

    #[tokio::test]
    async fn the_issuer_must_vouch_for_the_address() {
        let strict = Bench::new();
        let lenient = Bench::with_issuers(&entry(
            ISSUER,
            "type: email\n    skip-email-verification: true",
        ));
        let outcomes = |value: Option<Value>| {
            let claims = match value {
                Some(value) => TestClaims::email(ADA).with("email_verified", value),
                None => TestClaims::email(ADA).without("email_verified"),
            };
            let (strict, lenient) = (&strict, &lenient);
            async move {
                (
                    reason(strict, &claims).await,
                    reason(lenient, &claims).await,
                )
            }
        };
        for value in [json!(true), json!("true"), json!("True")] {
            assert_eq!(outcomes(Some(value)).await, (None, None));
        }
        for value in [
            Some(json!(false)),
            Some(json!("false")),
            Some(json!("False")),
            None,
        ] {
            assert_eq!(
                outcomes(value).await,
                (Some(Reason::EmailNotVerified), None)
            );
        }
        for value in [
            Value::Null,
            json!(1),
            json!(0),
            json!("yes"),
            json!("1"),
            json!(""),
            json!(" true"),
            json!("TRUE"),
            json!([true]),
            json!({}),
        ] {
            let refused = Some(Reason::MalformedToken);
            assert_eq!(
                outcomes(Some(value.clone())).await,
                (refused, refused),
                "{value}"
            );
        }
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

    #[tokio::test]
    async fn a_uri_lies_on_the_configured_host() {
        let bench = Bench::with_issuers(&entry(
            ISSUER,
            "type: uri\n    subject-domain: https://id.issuer.example",
        ));
        for subject in [
            "https://id.issuer.example",
            "https://id.issuer.example/",
            "https://id.issuer.example/a/b.c/..d/%20?x=/../y",
            "https://id.issuer.example?x",
        ] {
            let identity = bench
                .verify_claims(&TestClaims::subject(subject))
                .await
                .unwrap();
            assert_eq!(identity.san, San::Uri(subject.to_owned()));
            assert_eq!(
                (identity.challenge_claim, identity.challenge.as_str()),
                ("sub", subject)
            );
        }
        for subject in [
            "https://evil.example/",
            "https://id.issuer.example.evil/",
            "https://id.issuer.example@evil/",
            "https://id.issuer.example\\@evil/",
            "https://u:p@id.issuer.example/",
            "https://@id.issuer.example/",
            "https://id.issuer.example:443/",
            "https://id.issuer.example:9/",
            "https://ID.issuer.example/",
            "https://issuer.example/",
            "https://x.id.issuer.example/",
            "http://id.issuer.example/",
            "HTTPS://id.issuer.example/",
            "javascript:alert(1)",
            "//id.issuer.example/",
            "/path",
            "id.issuer.example",
            "https:/id.issuer.example/",
            "https://id.issuer.example#x",
        ] {
            let claims = TestClaims::subject(subject);
            assert_eq!(
                reason(&bench, &claims).await,
                Some(Reason::SubjectDomainMismatch),
                "{subject}"
            );
        }
        for path in [
            "/#x",
            "/a b",
            "/é",
            "/a\nb",
            "/./x",
            "/a/..",
            "/%2e%2E/x",
            "/.%2e",
            "/%zz",
            "/%2",
            "/<x>",
            "/a\\b",
            "/\"",
            "?a#b",
        ] {
            let claims = TestClaims::subject(&format!("https://id.issuer.example{path}"));
            assert_eq!(
                reason(&bench, &claims).await,
                Some(Reason::MalformedToken),
                "{path}"
            );
        }
        assert_eq!(
            reason(&bench, &TestClaims::subject(ADA)).await,
            Some(Reason::AmbiguousIdentity)
        );
    }

    #[tokio::test]
    async fn a_uri_may_have_the_configured_port() {
        let bench = Bench::with_issuers(&entry(
            ISSUER,
            "type: uri\n    subject-domain: https://issuer.example:8443",
        ));
        assert_eq!(
            reason(
                &bench,
                &TestClaims::subject("https://issuer.example:8443/a")
            )
            .await,
            None
        );
        for subject in ["https://issuer.example/a", "https://issuer.example:84430/a"] {
            let refused = reason(&bench, &TestClaims::subject(subject)).await;
            assert_eq!(refused, Some(Reason::SubjectDomainMismatch));
        }
    }

    #[tokio::test]
    async fn github_claims_become_build_facts() {
        use BuildFact as Fact;
        let bench = Bench::with_issuers(&entry(ISSUER, "type: github-workflow"));
        let identity = bench
            .verify_claims(&TestClaims::github("acme/app"))
            .await
            .unwrap();
        let workflow = "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main";
        let commit = "5f2b0c0a4b1c5f3a9de1b52d8a8d4b0f6a1c3e7d";
        assert_eq!(identity.san, San::Uri(workflow.to_owned()));
        assert_eq!(identity.challenge, "repo:acme/app:ref:refs/heads/main");
        for (fact, value) in [
            (Fact::GithubWorkflowTrigger, "push"),
            (Fact::GithubWorkflowSha, commit),
            (Fact::GithubWorkflowName, "Release"),
            (Fact::GithubWorkflowRepository, "acme/app"),
            (Fact::GithubWorkflowRef, "refs/heads/main"),
            (Fact::BuildSignerUri, workflow),
            (Fact::BuildSignerDigest, commit),
            (Fact::RunnerEnvironment, "github-hosted"),
            (Fact::SourceRepositoryUri, "https://github.com/acme/app"),
            (Fact::SourceRepositoryDigest, commit),
            (Fact::SourceRepositoryRef, "refs/heads/main"),
            (Fact::SourceRepositoryIdentifier, "74"),
            (Fact::SourceRepositoryOwnerUri, "https://github.com/acme"),
            (Fact::SourceRepositoryOwnerIdentifier, "7"),
            (Fact::BuildConfigUri, workflow),
            (Fact::BuildConfigDigest, commit),
            (Fact::BuildTrigger, "push"),
            (
                Fact::RunInvocationUri,
                "https://github.com/acme/app/actions/runs/1658821493/attempts/1",
            ),
            (Fact::SourceRepositoryVisibilityAtSigning, "public"),
        ] {
            assert_eq!(identity.build.get(fact), Some(value), "{fact:?}");
        }
        assert_eq!(identity.build.get(Fact::DeploymentEnvironment), None);
    }

    #[tokio::test]
    async fn every_github_claim_is_needed_as_a_text() {
        let bench = Bench::with_issuers(&entry(ISSUER, "type: github-workflow"));
        let good = TestClaims::github("acme/app");
        for claim in [
            "job_workflow_ref",
            "sha",
            "event_name",
            "repository",
            "workflow",
            "ref",
            "job_workflow_sha",
            "runner_environment",
            "repository_id",
            "repository_owner",
            "repository_owner_id",
            "repository_visibility",
            "workflow_ref",
            "workflow_sha",
            "run_id",
            "run_attempt",
        ] {
            let outcome = reason(&bench, &good.clone().without(claim)).await;
            assert_eq!(outcome, Some(Reason::MissingClaim), "{claim}");
            let outcome = reason(&bench, &good.clone().with(claim, "")).await;
            assert_eq!(outcome, Some(Reason::MissingClaim), "{claim}");
            for value in [
                json!(74),
                json!("a\nb"),
                json!("a\u{2066}b"),
                json!("x".repeat(2_049)),
            ] {
                let outcome = reason(&bench, &good.clone().with(claim, value)).await;
                assert_eq!(outcome, Some(Reason::MalformedToken), "{claim}");
            }
        }
        let claims = good
            .with("environment", "production")
            .with("unknown", json!({ "a": [1] }));
        assert_eq!(reason(&bench, &claims).await, None);
    }

    #[tokio::test]
    async fn urls_of_builds_are_cleaned_and_escaped() {
        let bench = Bench::with_issuers(&entry(ISSUER, "type: github-workflow"));
        for (workflow, expected) in [
            ("acme/../evil/x", "evil/x"),
            ("../../x", "x"),
            ("acme//app/./a", "acme/app/a"),
            ("/acme/app", "acme/app"),
            ("a/b c#d?e", "a/b%20c%23d%3Fe"),
            ("a/ü.yml@refs/heads/ü", "a/%C3%BC.yml@refs/heads/%C3%BC"),
            ("a/b(1)!*'[x].yml", "a/b(1)!*'[x].yml"),
            ("a/b (1).yml", "a/b%20%281%29.yml"),
            ("a/%20b", "a/%20b"),
            ("a/100%", "a/100%25"),
            (
                "a/b@refs/heads/x&y+z=1,2:3;$",
                "a/b@refs/heads/x&y+z=1,2:3;$",
            ),
            ("a/{b}|\\^`\"<>", "a/%7Bb%7D%7C%5C%5E%60%22%3C%3E"),
        ] {
            let claims = TestClaims::github("acme/app").with("job_workflow_ref", workflow);
            let identity = bench.verify_claims(&claims).await.unwrap();
            assert_eq!(
                identity.san,
                San::Uri(format!("https://github.com/{expected}")),
                "{workflow}"
            );
        }
        for workflow in ["..", "/", ".", "a/.."] {
            let claims = TestClaims::github("acme/app").with("job_workflow_ref", workflow);
            assert_eq!(
                reason(&bench, &claims).await,
                Some(Reason::MalformedToken),
                "{workflow}"
            );
        }
        // A later part must not climb over an earlier one.
        for run in ["..", "../../../../evil/app/actions/runs/1", "/"] {
            let claims = TestClaims::github("acme/app").with("run_id", run);
            assert_eq!(
                reason(&bench, &claims).await,
                Some(Reason::MalformedToken),
                "{run}"
            );
        }
    }
}
