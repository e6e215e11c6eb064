//! Identities that are the subject itself: a URI, a user name, a SPIFFE ID, a service account, a path below the issuer.

use ::url::{Host, Url};
use serde_json::Value;

use super::super::error::TokenError;
use super::super::json::Object;
use super::email::{check_address, is_verified};
use super::url::{clean, escape_path, is_dot_segment, is_uri_text};
use super::{invalid, optional_text, required_text};
use crate::excerpt::Excerpt;

/// Where the subjects of a `uri` issuer lie: every subject is `scheme://authority` and a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UriRule {
    /// `http` or `https`, as the issuer's URL.
    scheme: String,
    /// Host, and port where one is written.
    authority: String,
}

/// The domain that the users of a `username` issuer belong to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UsernameRule {
    domain: String,
}

/// The trust domain that the subjects of a `spiffe` issuer lie in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpiffeRule {
    trust_domain: String,
}

/// Why a `subject-domain` cannot be used with an issuer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidDomain {
    /// A `uri` issuer's has no scheme.
    #[error("it has no scheme; expected scheme and host, such as https://example.com")]
    NoScheme,
    /// A `username` issuer's has a scheme.
    #[error("it has a scheme; expected a host alone, such as example.com")]
    Scheme,
    /// More than a host, or less.
    #[error("expected a host, and nothing after it")]
    Form,
    /// Another scheme than the issuer's.
    #[error("its scheme is {found}, that of the issuer is {expected}")]
    OtherScheme {
        /// The domain's.
        found: String,
        /// The issuer's.
        expected: String,
    },
    /// The issuer's URL has no host.
    #[error("the issuer's URL has no host to compare it with")]
    Issuer,
    /// A host of another domain than the issuer's.
    #[error("its host {host} is neither that of the issuer, {issuer_host}, nor in the same domain")]
    Unrelated {
        /// The domain's.
        host: String,
        /// The issuer's.
        issuer_host: String,
    },
    /// The hosts share only a suffix under which anyone can have a domain.
    #[error(
        "its host {host} shares only the public suffix {suffix} with that of the issuer, {issuer_host}: the two can \
         belong to different people"
    )]
    PublicSuffix {
        /// The domain's.
        host: String,
        /// The issuer's.
        issuer_host: String,
        /// What they share.
        suffix: String,
    },
}

/// A text is not the name of a SPIFFE trust domain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected the name of a trust domain: 1 to 255 of a-z, 0-9, . - _")]
pub struct InvalidTrustDomain;

impl UriRule {
    /// Subjects on `domain`, a scheme and a host, with or without a port. It must have the scheme of the issuer's URL, and
    /// be on its host or in its domain.
    ///
    /// # Errors
    /// When it is not.
    pub fn new(domain: &str, issuer: &str) -> Result<Self, InvalidDomain> {
        let (scheme, authority) = domain.split_once("://").ok_or(InvalidDomain::NoScheme)?;
        let (issuer_scheme, _) = issuer.split_once("://").ok_or(InvalidDomain::Issuer)?;
        if scheme != issuer_scheme {
            return Err(InvalidDomain::OtherScheme {
                found: scheme.to_owned(),
                expected: issuer_scheme.to_owned(),
            });
        }
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        check_relation(authority, issuer)?;
        Ok(Self {
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
        })
    }

    /// What subjects begin with.
    pub(super) fn domain(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// Checks that a subject is a URI of this scheme and authority, in its one spelling.
    ///
    /// Compared as text, because parsers of URLs differ in what they take for the host.
    pub(super) fn check(&self, subject: &str) -> Result<(), TokenError> {
        if check_address(subject).is_ok() {
            return Err(TokenError::AmbiguousSubject {
                why: "is an e-mail address, expected a URI",
            });
        }
        let rest = subject
            .strip_prefix(self.scheme.as_str())
            .and_then(|rest| rest.strip_prefix("://"));
        let rest = rest.and_then(|rest| rest.strip_prefix(self.authority.as_str()));
        let is_inside = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        let (Some(rest), true) = (rest, is_inside) else {
            return Err(TokenError::SubjectDomainMismatch {
                subject: Excerpt::new(subject),
                expected: self.domain(),
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

impl UsernameRule {
    /// Users of `domain`, a host without a scheme, which must be that of the issuer's URL or in its domain.
    ///
    /// # Errors
    /// When it is not.
    pub fn new(domain: &str, issuer: &str) -> Result<Self, InvalidDomain> {
        if domain.contains("://") {
            return Err(InvalidDomain::Scheme);
        }
        check_relation(domain, issuer)?;
        Ok(Self {
            domain: domain.to_owned(),
        })
    }

    /// What stands after the `!` of every name.
    pub(super) fn domain(&self) -> &str {
        &self.domain
    }

    /// The name of a user for the certificate: `user!domain`.
    pub(super) fn name(&self, subject: &str) -> Result<String, TokenError> {
        if subject.contains('!') {
            return Err(TokenError::AmbiguousSubject {
                why: "has a !, which separates user and domain in the certificate",
            });
        }
        if resembles_address(subject) {
            return Err(TokenError::AmbiguousSubject {
                why: "is an e-mail address, expected the name of a user",
            });
        }
        Ok(format!("{subject}!{}", self.domain))
    }
}

/// Whether a text could be taken for an e-mail address, by more lenient rules than [`check_address`].
fn resembles_address(text: &str) -> bool {
    let is_domain_character = |character: char| {
        character.is_ascii_alphanumeric() || !character.is_ascii() || "-_~.".contains(character)
    };
    text.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && domain.contains('.') && domain.chars().all(is_domain_character)
    })
}

impl SpiffeRule {
    /// Subjects of a trust domain, which is given by its name or as the ID of something in it.
    ///
    /// # Errors
    /// When the name is none (SPIFFE-ID, section 2.1).
    pub fn new(trust_domain: &str) -> Result<Self, InvalidTrustDomain> {
        let name = match trust_domain.strip_prefix("spiffe://") {
            Some(id) => id.split_once('/').map_or(id, |(name, _)| name),
            None => trust_domain,
        };
        if !is_trust_domain(name) {
            return Err(InvalidTrustDomain);
        }
        Ok(Self {
            trust_domain: name.to_owned(),
        })
    }

    /// The trust domain's name.
    pub(super) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Checks that a subject is an ID of this trust domain (SPIFFE-ID, sections 2.1 to 2.3).
    pub(super) fn check(&self, subject: &str) -> Result<(), TokenError> {
        let malformed = || invalid("sub", "it is not a SPIFFE ID (SPIFFE-ID, section 2)");
        let id = subject.strip_prefix("spiffe://").ok_or_else(malformed)?;
        let (name, path) = match id.split_once('/') {
            Some((name, path)) => (name, Some(path)),
            None => (id, None),
        };
        let is_path = |path: &str| path.split('/').all(is_spiffe_segment);
        if !is_trust_domain(name) || !path.is_none_or(is_path) {
            return Err(malformed());
        }
        if name != self.trust_domain {
            return Err(TokenError::SpiffeDomainMismatch {
                found: Excerpt::new(name),
                expected: self.trust_domain.clone(),
            });
        }
        Ok(())
    }
}

fn is_trust_domain(name: &str) -> bool {
    const MAX_OCTETS: usize = 255;
    let is_allowed =
        |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || b".-_".contains(&octet);
    (1..=MAX_OCTETS).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn is_spiffe_segment(segment: &str) -> bool {
    let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed)
}

/// The URL that names a service account of a Kubernetes cluster.
///
/// The claim that names it has to agree with the subject, so that neither says something else to whoever reads only one.
pub(super) fn service_account(subject: &str, claims: &Object) -> Result<String, TokenError> {
    const NAMESPACE: &str = "kubernetes.io.namespace";
    const NAME: &str = "kubernetes.io.serviceaccount.name";
    let details = match claims.get("kubernetes.io") {
        None | Some(Value::Null) => {
            return Err(TokenError::MissingClaim {
                claim: "kubernetes.io".to_owned(),
            });
        }
        Some(Value::Object(details)) => details,
        Some(_) => return Err(invalid("kubernetes.io", "it is not an object")),
    };
    let account = details.get("serviceaccount");
    let namespace = required_text(NAMESPACE, details.get("namespace"))?;
    let name = required_text(NAME, account.and_then(|account| account.get("name")))?;
    if !is_label(namespace) {
        let why = "it is not the name of a namespace (RFC 1123, section 2.1)";
        return Err(invalid(NAMESPACE, why));
    }
    if name.len() > 253 || !name.split('.').all(is_label) {
        let why = "it is not the name of a service account (RFC 1123, section 2.1)";
        return Err(invalid(NAME, why));
    }
    if subject != format!("system:serviceaccount:{namespace}:{name}") {
        let why = "it does not name the service account that the claim `kubernetes.io` names";
        return Err(invalid("sub", why));
    }
    Ok(format!(
        "https://kubernetes.io/namespaces/{namespace}/serviceaccounts/{name}"
    ))
}

/// Whether a text is a label of lower-case letters, digits and inner hyphens.
fn is_label(label: &str) -> bool {
    const MAX_OCTETS: usize = 63;
    let is_inner =
        |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    (1..=MAX_OCTETS).contains(&label.len())
        && label.bytes().all(is_inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The URL of a subject that is a path below its issuer.
pub(super) fn below(iss: &str, subject: &str) -> Result<String, TokenError> {
    let path = clean("sub", subject, false)?;
    let base = iss.trim_end_matches('/');
    Ok(format!("{base}/{}", escape_path(&path)))
}

/// The claim that Chainguard's clients sign, with its value: the address of people who have one, and otherwise `sub`.
pub(super) fn chainguard_challenge<'a>(
    subject: &'a str,
    claims: &'a Object,
) -> Result<(&'static str, &'a str), TokenError> {
    let is_text = |value: &Value| value.is_string();
    match claims.get("act") {
        None | Some(Value::Null) => {}
        Some(Value::Object(actor)) if actor.values().all(is_text) => {}
        Some(_) => return Err(invalid("act", "it is not an object of texts")),
    }
    match optional_text("email", claims.get("email"))? {
        None => Ok(("sub", subject)),
        Some(email) if is_verified(claims)? => Ok(("email", email)),
        Some(_) => Err(TokenError::EmailNotVerified),
    }
}

/// Checks that a domain is nothing but a host, perhaps with a port, and that whoever has the issuer's host has this one:
/// they are the same, or lie in one registrable domain.
fn check_relation(authority: &str, issuer: &str) -> Result<(), InvalidDomain> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._:[]".contains(&octet);
    if authority.is_empty() || !authority.bytes().all(is_plain) {
        return Err(InvalidDomain::Form);
    }
    let host = host_of(&format!("https://{authority}")).ok_or(InvalidDomain::Form)?;
    let issuer_host = host_of(issuer).ok_or(InvalidDomain::Issuer)?;
    if host == issuer_host {
        return Ok(());
    }
    let (host, issuer_host) = match (host, issuer_host) {
        (Host::Domain(host), Host::Domain(issuer_host)) => (host, issuer_host),
        (host, issuer_host) => {
            return Err(InvalidDomain::Unrelated {
                host: host.to_string(),
                issuer_host: issuer_host.to_string(),
            });
        }
    };
    let registrable = psl::domain_str(&host);
    if registrable.is_some() && registrable == psl::domain_str(&issuer_host) {
        return Ok(());
    }
    let suffix = psl::suffix_str(&host)
        .filter(|suffix| suffix.contains('.') && psl::suffix_str(&issuer_host) == Some(*suffix))
        .map(str::to_owned);
    Err(match suffix {
        Some(suffix) => InvalidDomain::PublicSuffix {
            host,
            issuer_host,
            suffix,
        },
        None => InvalidDomain::Unrelated { host, issuer_host },
    })
}

fn host_of(url: &str) -> Option<Host<String>> {
    Url::parse(url).ok()?.host().map(|host| host.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::San;
    use super::super::super::testing::{Bench, ISSUER, entry};
    use super::super::tests::{ADA, reason};
    use super::*;
    use crate::dev::oidc::TestClaims;
    use crate::reason::Reason;

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

    #[test]
    fn domains_of_subjects_belong_to_the_issuer() {
        let uri = |issuer: &str, domain: &str| UriRule::new(domain, issuer).map(drop);
        let username = |issuer: &str, domain: &str| UsernameRule::new(domain, issuer).map(drop);
        for domain in ["x.a.example", "a.example", "y.a.example", "a.example:8443"] {
            let issuer = "https://x.a.example/p";
            assert_eq!(uri(issuer, &format!("https://{domain}")), Ok(()));
            assert_eq!(username(issuer, domain), Ok(()));
        }
        assert_eq!(uri("https://a.example", "https://a.example/"), Ok(()));
        assert_eq!(uri("http://localhost:8080/dev", "http://localhost"), Ok(()));
        assert_eq!(uri("https://*.a.example/x", "https://a.example"), Ok(()));
        assert_eq!(username("http://127.0.0.1:80", "127.0.0.1"), Ok(()));
        assert_eq!(username("https://id.a.co.uk", "a.co.uk"), Ok(()));

        for (issuer, domain, why) in [
            ("https://a.example", "a.example", "it has no scheme"),
            (
                "https://a.example",
                "http://a.example",
                "its scheme is http",
            ),
            (
                "https://a.example",
                "https://b.example",
                "its host b.example is",
            ),
            (
                "https://a.example",
                "https://example",
                "its host example is",
            ),
            ("http://10.0.0.1", "http://10.1.0.1", "its host 10.1.0.1 is"),
            (
                "https://a.example",
                "https://a.example/x",
                "expected a host",
            ),
            (
                "https://a.example",
                "https://u@a.example",
                "expected a host",
            ),
            ("https://a.example", "https://", "expected a host"),
            (
                "https://a.co.uk",
                "https://b.co.uk",
                "its host b.co.uk shares only the public suffix co.uk",
            ),
            (
                "https://a.github.io",
                "https://github.io",
                "its host github.io shares only the public suffix github.io",
            ),
            (
                "https://*.github.io",
                "https://a.github.io",
                "its host a.github.io shares only the public suffix github.io",
            ),
        ] {
            let refused = uri(issuer, domain).unwrap_err().to_string();
            assert!(refused.starts_with(why), "{domain}: {refused}");
        }
        assert_eq!(
            username("https://a.example", "https://a.example"),
            Err(InvalidDomain::Scheme)
        );
        assert_eq!(username("https://a.example", ""), Err(InvalidDomain::Form));
    }

    #[tokio::test]
    async fn a_user_is_named_with_the_domain() {
        let bench = Bench::with_issuers(&entry(
            ISSUER,
            "type: username\n    subject-domain: issuer.example",
        ));
        for user in ["alice", "Alice Ä", "alice@work", "a/b@c", "@x.y", "alice@"] {
            let identity = bench
                .verify_claims(&TestClaims::subject(user))
                .await
                .unwrap();
            let name = format!("{user}!issuer.example");
            assert_eq!(identity.san, San::OtherName(name));
            assert_eq!(
                (identity.challenge_claim, identity.challenge.as_str()),
                ("sub", user)
            );
        }
        for user in [
            "a!b",
            "!",
            ADA,
            "a..b@example.com",
            "ä@example.com",
            "a@x..y",
            "a@b@example.com",
        ] {
            let refused = reason(&bench, &TestClaims::subject(user)).await;
            assert_eq!(refused, Some(Reason::AmbiguousIdentity), "{user}");
        }
        let nobody = reason(&bench, &TestClaims::subject("")).await;
        assert_eq!(nobody, Some(Reason::MissingClaim));
    }

    #[tokio::test]
    async fn a_spiffe_id_lies_in_the_trust_domain() {
        let bench = Bench::with_issuers(&entry(
            ISSUER,
            "type: spiffe\n    spiffe-trust-domain: prod.example_1",
        ));
        let long = format!("spiffe://prod.example_1/{}", "x".repeat(2_024));
        for id in [
            "spiffe://prod.example_1",
            "spiffe://prod.example_1/ns/a-b/sa/C.d_0/...",
            &long,
        ] {
            let identity = bench.verify_claims(&TestClaims::subject(id)).await.unwrap();
            assert_eq!(identity.san, San::Uri(id.to_owned()));
            assert_eq!(identity.challenge, id);
        }
        for id in [
            "spiffe://prod.example_1.evil/x",
            "spiffe://other/x",
            "spiffe://x.prod.example_1/x",
        ] {
            let refused = reason(&bench, &TestClaims::subject(id)).await;
            assert_eq!(refused, Some(Reason::SpiffeDomainMismatch), "{id}");
        }
        for id in [
            "SPIFFE://prod.example_1/x",
            "spiffe://PROD.example_1/x",
            "spiffe:///x",
            "spiffe://",
            "spiffe:/prod.example_1/x",
            "https://prod.example_1/x",
            "prod.example_1",
            "spiffe://prod.example_1:80/x",
            "spiffe://u@prod.example_1/x",
            "spiffe://prod.example_1/x?y",
            "spiffe://prod.example_1/x#y",
            "spiffe://prod.example_1?x",
            "spiffe://prod.example_1/",
            "spiffe://prod.example_1/x/",
            "spiffe://prod.example_1//x",
            "spiffe://prod.example_1/./x",
            "spiffe://prod.example_1/../x",
            "spiffe://prod.example_1/%41",
            "spiffe://prod.example_1/é",
            "spiffe://prod.exämple_1/x",
            &format!("{long}x"),
        ] {
            let refused = reason(&bench, &TestClaims::subject(id)).await;
            assert_eq!(refused, Some(Reason::MalformedToken), "{id}");
        }
    }

    #[test]
    fn a_trust_domain_is_a_name_or_an_id_in_it() {
        for (text, name) in [
            ("example.com", Some("example.com")),
            ("a_b-c.1", Some("a_b-c.1")),
            ("spiffe://example.com", Some("example.com")),
            ("spiffe://example.com/a/b", Some("example.com")),
            ("", None),
            ("Example.com", None),
            ("example.com/a", None),
            ("example.com:80", None),
            ("https://example.com", None),
            ("spiffe://", None),
            (&"x".repeat(256), None),
        ] {
            let rule = SpiffeRule::new(text);
            let found = rule.as_ref().map(SpiffeRule::trust_domain);
            assert_eq!(found.ok(), name, "{text}");
        }
    }

    fn pod(namespace: &str, name: &str) -> TestClaims {
        let account = json!({
            "namespace": namespace,
            "pod": { "name": "oidc-test", "uid": "49ad3572" },
            "serviceaccount": { "name": name, "uid": "f5720c1d" },
        });
        TestClaims::subject(&format!("system:serviceaccount:{namespace}:{name}"))
            .with("kubernetes.io", account)
    }

    #[tokio::test]
    async fn a_service_account_is_named_by_namespace_and_name() {
        let bench = Bench::with_issuers(&entry(ISSUER, "type: kubernetes"));
        for (namespace, name) in [("default", "default"), ("ns-1", "build.er-2"), ("0", "0")] {
            let identity = bench.verify_claims(&pod(namespace, name)).await.unwrap();
            let url =
                format!("https://kubernetes.io/namespaces/{namespace}/serviceaccounts/{name}");
            assert_eq!(identity.san, San::Uri(url));
            assert_eq!(
                identity.challenge,
                format!("system:serviceaccount:{namespace}:{name}")
            );
        }
        for (namespace, name) in [
            ("a b/../c", "x"),
            ("A", "x"),
            ("a.b", "x"),
            ("-a", "x"),
            ("a-", "x"),
            ("ä", "x"),
            (&"x".repeat(64), "x"),
            ("a", "x?y#z"),
            ("a", "x..y"),
            ("a", "X"),
            ("a", "x:y"),
            ("a", &"x.".repeat(127)),
        ] {
            let refused = reason(&bench, &pod(namespace, name)).await;
            assert_eq!(refused, Some(Reason::MalformedToken), "{namespace} {name}");
        }
        for (details, expected) in [
            (Value::Null, Reason::MissingClaim),
            (json!({}), Reason::MissingClaim),
            (json!({ "namespace": "a" }), Reason::MissingClaim),
            (
                json!({ "namespace": "", "serviceaccount": { "name": "b" } }),
                Reason::MissingClaim,
            ),
            (
                json!({ "namespace": "a", "serviceaccount": { "name": "" } }),
                Reason::MissingClaim,
            ),
            (
                json!({ "namespace": "a", "serviceaccount": "b" }),
                Reason::MissingClaim,
            ),
            (
                json!({ "namespace": 1, "serviceaccount": { "name": "b" } }),
                Reason::MalformedToken,
            ),
            (json!([]), Reason::MalformedToken),
            (
                json!({ "namespace": "a", "serviceaccount": { "name": "c" } }),
                Reason::MalformedToken,
            ),
            (
                json!({ "namespace": "b", "serviceaccount": { "name": "b" } }),
                Reason::MalformedToken,
            ),
        ] {
            let claims = pod("a", "b").with("kubernetes.io", details.clone());
            assert_eq!(reason(&bench, &claims).await, Some(expected), "{details}");
        }
    }

    #[tokio::test]
    async fn a_chainguard_subject_is_a_path_below_the_issuer() {
        let bench = Bench::with_issuers(&entry(ISSUER, "type: chainguard-identity"));
        for (subject, path) in [
            (
                "720909c9f5279097d847ad02120d2a2",
                "720909c9f5279097d847ad02120d2a2",
            ),
            ("group/identity", "group/identity"),
            ("auth0|12 3", "auth0%7C12%203"),
            ("a//./b/../c", "a/c"),
        ] {
            let identity = bench
                .verify_claims(
                    &TestClaims::subject(subject)
                        .with("act", json!({ "aud": "https://x.example", "sub": "y" }))
                        .with("internal", json!({ "service-principal": "COSIGNED" })),
                )
                .await
                .unwrap();
            assert_eq!(identity.san, San::Uri(format!("{ISSUER}/{path}")));
            assert_eq!(
                (identity.challenge_claim, identity.challenge.as_str()),
                ("sub", subject)
            );
        }
        let person = TestClaims::email(ADA).with("sub", "group/ada");
        let identity = bench.verify_claims(&person).await.unwrap();
        assert_eq!(identity.san, San::Uri(format!("{ISSUER}/group/ada")));
        assert_eq!(
            (identity.challenge_claim, identity.challenge.as_str()),
            ("email", ADA)
        );
        for (claims, expected) in [
            (
                person.clone().with("email_verified", false),
                Reason::EmailNotVerified,
            ),
            (
                person.clone().without("email_verified"),
                Reason::EmailNotVerified,
            ),
            (person.clone().with("email", 5), Reason::MalformedToken),
            (person.clone().with("act", "x"), Reason::MalformedToken),
            (
                person.clone().with("act", json!({ "a": {} })),
                Reason::MalformedToken,
            ),
            (TestClaims::subject("../x"), Reason::MalformedToken),
            (TestClaims::subject("/"), Reason::MalformedToken),
        ] {
            assert_eq!(reason(&bench, &claims).await, Some(expected), "{claims:?}");
        }
    }
}
