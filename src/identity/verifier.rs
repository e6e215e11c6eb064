//! Checks ID tokens: form, issuer, signature, times, audience, rules, claims, in that order, the cheap before the costly.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::error::{RefusedToken, TokenError};
use super::issuers::MatchedIssuer;
use super::json::Object;
use super::jwks::{KeySource, KeyStatus};
use super::jws::{Algorithm, UnverifiedToken, names};
use super::{Identity, Issuer, Issuers, TokenLimits, claims};
use crate::clock::rfc3339;
use crate::excerpt::Excerpt;

/// How far the issuer's clock may be ahead of ours, for `nbf`, unless the entry says how far. For `exp` there is no leeway.
const NOT_BEFORE_LEEWAY: Duration = Duration::minutes(5);

/// How far ahead `iat` may be where tokens may only be so old, unless the entry says how far.
const ISSUED_AHEAD_LEEWAY: Duration = Duration::minutes(1);

/// Checks ID tokens against the configured issuers.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    issuers: Arc<ArcSwap<Issuers>>,
    keys: Arc<KeySource>,
}

impl TokenVerifier {
    /// Returns a verifier that always uses the newest version of `issuers`.
    #[must_use]
    pub const fn new(issuers: Arc<ArcSwap<Issuers>>, keys: Arc<KeySource>) -> Self {
        Self { issuers, keys }
    }

    /// Verifies a token at the time `now` and returns what it proves.
    ///
    /// # Errors
    /// The first check that fails. Nothing is fetched before the issuer is found in the configuration, and no claim but
    /// `iss` is looked at before the signature holds, except that `aud` chooses among several entries for one issuer.
    pub async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Identity, RefusedToken> {
        let unreadable = |error| RefusedToken {
            issuer_id: None,
            iss_claim: None,
            error,
        };
        let token = UnverifiedToken::parse(token).map_err(unreadable)?;
        let iss = token.issuer().map_err(unreadable)?;
        let refused = |issuer_id, error| RefusedToken {
            issuer_id,
            iss_claim: Some(Excerpt::new(iss)),
            error,
        };
        let matched = find_issuer(&self.issuers.load(), iss, &token.claims)
            .map_err(|error| refused(None, error))?;
        let identity = self.verify_for(&matched, &token, now).await;
        identity.map_err(|error| refused(Some(Arc::clone(&matched.issuer.id)), error))
    }

    async fn verify_for(
        &self,
        matched: &MatchedIssuer,
        token: &UnverifiedToken<'_>,
        now: OffsetDateTime,
    ) -> Result<Identity, TokenError> {
        check_before_signature(matched, Some(token.algorithm), now, &mut Unwatched)?;
        self.keys.verify(&matched.endpoint, token, now).await?;
        identify(matched, &token.claims, now, &mut Unwatched)
    }

    /// Puts another version of the configuration in force. Requests that have begun end with the one they began with; the
    /// keys of issuers that have not changed stay, and those of new ones are fetched ahead.
    pub fn replace(&self, issuers: Arc<Issuers>, now: OffsetDateTime) {
        self.issuers.store(Arc::clone(&issuers));
        self.keys.retain(&issuers);
        self.prefetch(now);
    }

    /// The version of the configuration that is in force.
    #[must_use]
    pub fn issuers(&self) -> Arc<Issuers> {
        self.issuers.load_full()
    }

    /// Where keys come from.
    #[must_use]
    pub fn keys(&self) -> &KeySource {
        &self.keys
    }

    /// How the keys of every issuer stand that was asked for.
    #[must_use]
    pub fn key_status(&self) -> Vec<KeyStatus> {
        self.keys.status()
    }

    /// How the keys of an issuer stand, if they were asked for.
    #[must_use]
    pub fn key_status_of(&self, issuer: &Issuer) -> Option<KeyStatus> {
        self.keys.status_of(&issuer.endpoint)
    }

    /// Begins to fetch the keys of every issuer that is not a pattern, so that the first tokens need not wait.
    pub fn prefetch(&self, now: OffsetDateTime) {
        let issuers = self.issuers.load();
        let all = issuers.all().into_iter();
        for issuer in all.filter(|issuer| issuer.is_in_use(now)) {
            self.keys.prefetch(&issuer.endpoint, now);
        }
    }
}

/// A step of the verification of a token. They are taken in this order, and the first that fails ends it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Step {
    /// The token is a JWS in compact form, and its claims are an object.
    Form,
    /// There is an entry for the issuer that it names.
    Issuer,
    /// The entry is in force.
    Entry,
    /// The entry accepts the algorithm of the signature.
    Algorithm,
    /// The signature verifies with a key of the issuer.
    Signature,
    /// The token is valid at this time, and not too old.
    Times,
    /// The token is for an audience of the entry.
    Audience,
    /// The rules of the entry let it have a certificate.
    Rules,
    /// The claims are an identity of the issuer's type.
    Identity,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 9] = [
        Self::Form,
        Self::Issuer,
        Self::Entry,
        Self::Algorithm,
        Self::Signature,
        Self::Times,
        Self::Audience,
        Self::Rules,
        Self::Identity,
    ];

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Issuer => "issuer",
            Self::Entry => "entry",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Times => "times",
            Self::Audience => "audience",
            Self::Rules => "rules",
            Self::Identity => "identity",
        }
    }
}

/// Somebody who watches the steps. Where nobody does, watching costs nothing.
pub(super) trait Watch {
    /// Is told how a step ended, and passes it on.
    fn saw<T>(&mut self, step: Step, result: Result<T, TokenError>) -> Result<T, TokenError>;
}

/// Nobody watches.
struct Unwatched;

impl Watch for Unwatched {
    fn saw<T>(&mut self, _: Step, result: Result<T, TokenError>) -> Result<T, TokenError> {
        result
    }
}

/// What claims prove that nobody has signed: what the steps behind the signature cost is measured with it, and nothing is
/// ever issued for it.
pub(crate) fn identity_of_verified(
    issuers: &Issuers,
    iss: &str,
    claims: &Object,
    now: OffsetDateTime,
) -> Result<Identity, TokenError> {
    let matched = find_issuer(issuers, iss, claims)?;
    identify(&matched, claims, now, &mut Unwatched)
}

/// Finds the entry by issuer and audience. Nothing is believed of the audience yet: it only says with whose keys the token
/// is to be verified.
pub(super) fn find_issuer(
    issuers: &Issuers,
    iss: &str,
    claims: &Object,
) -> Result<MatchedIssuer, TokenError> {
    let found = issuers.lookup(iss);
    let found = found.ok_or_else(|| TokenError::UnknownIssuer(Excerpt::new(iss)))?;
    Ok(found.for_audiences(&audiences(claims).unwrap_or_default()))
}

/// What is known before any key is looked for: whether the entry is in force, and the algorithm accepted. Claims alone have
/// no algorithm.
pub(super) fn check_before_signature(
    matched: &MatchedIssuer,
    algorithm: Option<Algorithm>,
    now: OffsetDateTime,
    watch: &mut impl Watch,
) -> Result<(), TokenError> {
    let MatchedIssuer {
        issuer, endpoint, ..
    } = matched;
    watch.saw(Step::Entry, check_entry(issuer, &endpoint.issuer, now))?;
    match algorithm {
        Some(algorithm) => watch.saw(Step::Algorithm, check_algorithm(&issuer.tokens, algorithm)),
        None => Ok(()),
    }
}

/// What claims prove whose signature holds. The rules of the entry come before the identity is made: what it takes to make
/// one is not spent on tokens that may have none.
pub(super) fn identify(
    matched: &MatchedIssuer,
    claims: &Object,
    now: OffsetDateTime,
    watch: &mut impl Watch,
) -> Result<Identity, TokenError> {
    let MatchedIssuer {
        issuer, endpoint, ..
    } = matched;
    watch.saw(Step::Times, check_times(claims, &issuer.tokens, now))?;
    watch.saw(Step::Audience, check_audience(claims, matched))?;
    watch.saw(Step::Rules, issuer.access.check(claims))?;
    watch.saw(
        Step::Identity,
        claims::identify(issuer, &endpoint.issuer, claims),
    )
}

/// Checks that tokens are accepted under this entry at all.
fn check_entry(issuer: &Issuer, iss: &str, now: OffsetDateTime) -> Result<(), TokenError> {
    if issuer.disabled {
        return Err(TokenError::IssuerDisabled(Excerpt::new(iss)));
    }
    match issuer.expires.filter(|_| issuer.has_expired(now)) {
        Some(end) => Err(TokenError::IssuerExpired {
            issuer: Excerpt::new(iss),
            end: rfc3339(end),
        }),
        None => Ok(()),
    }
}

/// Checks that the entry accepts the algorithm; whether the issuer uses it, and the key allows it, is another question.
fn check_algorithm(limits: &TokenLimits, algorithm: Algorithm) -> Result<(), TokenError> {
    match &limits.algorithms {
        Some(accepted) if !accepted.contains(&algorithm) => Err(TokenError::UnsupportedAlgorithm {
            found: Excerpt::new(algorithm.name()),
            expected: names(accepted),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Checks `exp`, which must be there, `nbf`, which need not, and `iat` if the entry says anything about it (RFC 7519,
/// section 4.1).
///
/// Typed here rather than by a library's defaults: a time of the wrong type is refused, never skipped.
fn check_times(
    claims: &Object,
    limits: &TokenLimits,
    now: OffsetDateTime,
) -> Result<(), TokenError> {
    let expiry = date("exp", claims)?.ok_or_else(|| invalid("exp", "it is missing"))?;
    let start = date("nbf", claims)?;
    let issued = date("iat", claims)?;
    if expiry < now {
        return Err(TokenError::Expired {
            expiry: rfc3339(expiry),
            seconds: (now - expiry).whole_seconds(),
        });
    }
    let leeway = limits.clock_skew.unwrap_or(NOT_BEFORE_LEEWAY);
    if let Some(start) = start.filter(|start| *start > now + leeway) {
        return Err(TokenError::NotYetValid {
            start: rfc3339(start),
            seconds: (start - now).whole_seconds(),
        });
    }
    check_age(issued, limits, now)
}

/// Checks `iat`, if the entry says how old or how far ahead a token may be.
fn check_age(
    issued: Option<OffsetDateTime>,
    limits: &TokenLimits,
    now: OffsetDateTime,
) -> Result<(), TokenError> {
    let max_age = limits.max_age;
    let Some(issued) = issued else {
        return max_age.map_or(Ok(()), |_| Err(TokenError::AgeUnknown));
    };
    // Without a limit a token that is dated ahead would outlive every limit on its age.
    let max_ahead = limits
        .clock_skew
        .or_else(|| max_age.map(|_| ISSUED_AHEAD_LEEWAY));
    if max_ahead.is_some_and(|max_ahead| issued > now + max_ahead) {
        return Err(TokenError::IssuedAhead {
            issued: rfc3339(issued),
            seconds: (issued - now).whole_seconds(),
        });
    }
    match max_age.filter(|max_age| now - issued > *max_age) {
        Some(max_age) => Err(TokenError::TooOld {
            issued: rfc3339(issued),
            seconds: (now - issued).whole_seconds(),
            limit: max_age.whole_seconds(),
        }),
        None => Ok(()),
    }
}

/// Reads a NumericDate: seconds since 1970, fractions dropped (RFC 7519, section 2).
fn date(claim: &'static str, claims: &Object) -> Result<Option<OffsetDateTime>, TokenError> {
    let number = match claims.get(claim) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(invalid(claim, "it is not a number of seconds since 1970")),
    };
    let seconds = number.as_i64().or_else(|| {
        let seconds = number.as_f64()?.floor();
        // Far wider than any date, and every such number has an exact integer.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within the range of the line before"
        )]
        (seconds.abs() < 1e15).then_some(seconds as i64)
    });
    let instant = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    instant
        .map(Some)
        .ok_or_else(|| invalid(claim, "it is no date between the years -9999 and 9999"))
}

fn invalid(claim: &str, why: &'static str) -> TokenError {
    TokenError::InvalidClaim {
        claim: claim.to_owned(),
        why,
    }
}

/// Checks that `aud`, a string or a list of strings, holds an audience of one entry (RFC 7519, section 4.1.3).
fn check_audience(claims: &Object, matched: &MatchedIssuer) -> Result<(), TokenError> {
    let found = audiences(claims)?;
    let shown = || Excerpt::new(&found.join(", "));
    if !matched.issuer.accepts(&found) {
        let expected: Vec<&str> = matched.expected_audiences().collect();
        return Err(TokenError::AudienceMismatch {
            found: shown(),
            expected: expected.join("\" or \""),
        });
    }
    if matched.is_ambiguous(&found) {
        return Err(TokenError::AmbiguousAudience(shown()));
    }
    Ok(())
}

/// The audiences that a token names.
fn audiences(claims: &Object) -> Result<Vec<&str>, TokenError> {
    let wrong_type = || invalid("aud", "it is neither a string nor a list of strings");
    match claims.get("aud") {
        Some(Value::String(audience)) => Ok(vec![audience]),
        Some(Value::Array(audiences)) => {
            let audiences: Option<Vec<&str>> = audiences.iter().map(Value::as_str).collect();
            audiences.ok_or_else(wrong_type)
        }
        Some(_) => Err(wrong_type()),
        None => Err(invalid("aud", "it is missing")),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::super::jwks::{KeyEndpoint, KeyLocation};
    use super::super::testing::{
        Bench, ISSUER, entry, header, issuer_for, keys, payload, sign, stranger,
    };
    use super::*;
    use crate::dev::oidc::{TestAlgorithm, TestClaims};
    use crate::reason::Reason;

    const ADA: &str = "ada@example.com";

    fn reason(outcome: &Result<Identity, TokenError>) -> Option<Reason> {
        outcome.as_ref().err().map(TokenError::reason)
    }

    /// The parts of a token, to be put together otherwise.
    fn parts(token: &str) -> [String; 3] {
        let parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        parts.try_into().unwrap()
    }

    fn with_member(mut object: Value, name: &str, value: Value) -> Value {
        object[name] = value;
        object
    }

    #[tokio::test]
    async fn a_good_token_proves_its_identity() {
        let bench = Bench::new();
        for algorithm in [TestAlgorithm::Rs256, TestAlgorithm::Es256] {
            let token = bench
                .issuer
                .token(&TestClaims::email(ADA), algorithm)
                .unwrap();
            let identity = bench.verify(&token).await.unwrap();
            assert_eq!(identity.issuer, ISSUER);
            assert_eq!(&*identity.issuer_id, "issuer.example");
            assert_eq!(
                (identity.challenge_claim, identity.challenge.as_str()),
                ("email", ADA)
            );
        }
    }

    #[tokio::test]
    async fn a_token_may_be_used_again_and_fetches_nothing_then() {
        let bench = Bench::new();
        let token = bench
            .issuer
            .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
            .unwrap();
        for _ in 0..100 {
            bench.verify(&token).await.unwrap();
        }
        assert_eq!(bench.network.urls().len(), 2);
    }

    #[tokio::test]
    async fn headers_that_are_not_plain_are_refused() {
        let bench = Bench::new();
        let set = |name: &str, value: Value| with_member(header(), name, value);
        let mut without_alg = header();
        without_alg.as_object_mut().unwrap().remove("alg");
        for (header, expected) in [
            (set("alg", json!("none")), Reason::UnsupportedAlg),
            (set("alg", json!("None")), Reason::UnsupportedAlg),
            (set("alg", json!("nOnE")), Reason::UnsupportedAlg),
            (set("alg", json!("HS256")), Reason::UnsupportedAlg),
            (set("alg", json!("rs256")), Reason::UnsupportedAlg),
            (set("alg", json!("RS1")), Reason::UnsupportedAlg),
            (set("alg", json!("ES256K")), Reason::UnsupportedAlg),
            (set("alg", json!("")), Reason::UnsupportedAlg),
            (set("alg", json!(5)), Reason::MalformedToken),
            (without_alg, Reason::MalformedToken),
            (set("kid", json!(7)), Reason::MalformedToken),
            (set("kid", json!(["a"])), Reason::MalformedToken),
            (set("kid", json!({})), Reason::MalformedToken),
            (set("kid", json!(true)), Reason::MalformedToken),
            (set("kid", json!("k".repeat(257))), Reason::MalformedToken),
            (set("crit", json!(["exp"])), Reason::MalformedToken),
            (set("crit", json!(["b64"])), Reason::MalformedToken),
            (set("crit", json!("alg")), Reason::MalformedToken),
            (set("crit", json!([])), Reason::MalformedToken),
            (set("crit", json!(["alg"])), Reason::MalformedToken),
            (set("zip", json!("DEF")), Reason::MalformedToken),
            (set("enc", json!("A256GCM")), Reason::MalformedToken),
            (set("cty", json!("JWT")), Reason::MalformedToken),
            (set("cty", json!("jwt")), Reason::MalformedToken),
            (
                set("kid", json!("../../../../dev/null")),
                Reason::UnknownKey,
            ),
            (set("kid", json!("' OR 1=1 --\0\r\n")), Reason::UnknownKey),
        ] {
            let token = sign(&keys(), &header, payload().to_string().as_bytes());
            assert_eq!(
                reason(&bench.verify(&token).await),
                Some(expected),
                "{header}"
            );
        }
        let twice = br#"{"alg":"none","alg":"RS256","kid":"test-rsa"}"#;
        let token = keys()
            .sign(
                twice,
                payload().to_string().as_bytes(),
                TestAlgorithm::Rs256,
            )
            .unwrap();
        assert_eq!(
            reason(&bench.verify(&token).await),
            Some(Reason::MalformedToken)
        );
    }

    #[tokio::test]
    async fn types_of_token_are_not_looked_at() {
        let bench = Bench::new();
        for name in ["JWT", "at+jwt", "anything"] {
            let token = sign(
                &keys(),
                &with_member(header(), "typ", json!(name)),
                payload().to_string().as_bytes(),
            );
            bench.verify(&token).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_token_without_signature_is_not_a_token() {
        let bench = Bench::new();
        let [_, claims, signature] =
            parts(&sign(&keys(), &header(), payload().to_string().as_bytes()));
        for alg in ["none", "None", "NONE", "nOnE"] {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
            for signature in ["", signature.as_str()] {
                let outcome = bench
                    .verify(&format!("{header}.{claims}.{signature}"))
                    .await;
                assert_eq!(reason(&outcome), Some(Reason::UnsupportedAlg), "{alg}");
            }
        }
    }

    #[tokio::test]
    async fn public_keys_are_no_secrets_for_hmac() {
        use aws_lc_rs::hmac;
        let bench = Bench::new();
        let jwks = keys().jwks();
        let modulus = jwks["keys"][0]["n"].as_str().unwrap();
        let secrets = [
            URL_SAFE_NO_PAD.decode(modulus).unwrap(),
            modulus.as_bytes().to_vec(),
            Vec::new(),
        ];
        for (name, algorithm) in [
            ("HS256", hmac::HMAC_SHA256),
            ("HS384", hmac::HMAC_SHA384),
            ("HS512", hmac::HMAC_SHA512),
        ] {
            for secret in &secrets {
                let header = with_member(header(), "alg", json!(name)).to_string();
                let input = format!(
                    "{}.{}",
                    URL_SAFE_NO_PAD.encode(header),
                    URL_SAFE_NO_PAD.encode(payload().to_string())
                );
                let tag = hmac::sign(&hmac::Key::new(algorithm, secret), input.as_bytes());
                let outcome = bench
                    .verify(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag)))
                    .await;
                assert_eq!(reason(&outcome), Some(Reason::UnsupportedAlg), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn keys_in_the_header_are_never_used() {
        let bench = Bench::new();
        let theirs = stranger().jwks()["keys"][0].clone();
        for (name, value) in [
            ("jwk", theirs),
            ("jku", json!("https://evil.example/jwks")),
            ("x5u", json!("https://evil.example/cert")),
            ("x5c", json!(["MIIB"])),
        ] {
            let token = sign(
                &stranger(),
                &with_member(header(), name, value),
                payload().to_string().as_bytes(),
            );
            assert_eq!(
                reason(&bench.verify(&token).await),
                Some(Reason::BadTokenSignature),
                "{name}"
            );
        }
        assert!(
            bench
                .network
                .urls()
                .iter()
                .all(|url| url.starts_with(ISSUER))
        );
    }

    #[tokio::test]
    async fn texts_that_are_not_three_strict_parts_are_refused() {
        let bench = Bench::new();
        let token = sign(&keys(), &header(), payload().to_string().as_bytes());
        let [head, claims, signature] = parts(&token);
        let octets = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        // The last character of 256 octets carries four bits that must be zero.
        let stray = format!(
            "{}B",
            signature
                .strip_suffix(signature.chars().last().unwrap())
                .unwrap()
        );
        for text in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            format!("{head}.{claims}"),
            format!("{token}."),
            format!("{token}.x.y"),
            format!(
                "{head}.{}.{signature}",
                URL_SAFE.encode(octets(&claims)) + "="
            ),
            format!(
                "{head}.{claims}.{}",
                STANDARD_NO_PAD.encode(octets(&signature)) + "+/"
            ),
            format!("{head} .{claims}.{signature}"),
            format!("{head}.{claims}\n.{signature}"),
            format!(" {token}"),
            format!("{token}\n"),
            format!("{head}.{claims}.{stray}"),
            format!("Bearer {token}"),
            json!({ "protected": head, "payload": claims, "signature": signature }).to_string(),
        ] {
            assert_eq!(
                reason(&bench.verify(&text).await),
                Some(Reason::MalformedToken),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn the_length_decides_before_anything_else() {
        let bench = Bench::new();
        for token in [
            ".".repeat(1_000_000),
            "a".repeat(3 << 20),
            "a".repeat(32 * 1024 + 1),
        ] {
            assert_eq!(
                reason(&bench.verify(&token).await),
                Some(Reason::TokenTooLarge)
            );
        }
        let members: String = (0..2_000).map(|index| format!("\"c{index}\":0,")).collect();
        let payload = payload()
            .to_string()
            .replacen('{', &format!("{{{members}"), 1);
        bench.verify_payload(payload.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn signatures_that_were_tampered_with_do_not_verify() {
        let bench = Bench::new();
        for algorithm in [TestAlgorithm::Rs256, TestAlgorithm::Es256] {
            let token = bench
                .issuer
                .token(&TestClaims::email(ADA), algorithm)
                .unwrap();
            let other = bench
                .issuer
                .token(&TestClaims::email("eve@example.com"), algorithm)
                .unwrap();
            let [head, claims, signature] = parts(&token);
            let good = URL_SAFE_NO_PAD.decode(&signature).unwrap();
            let mut flipped = good.clone();
            flipped[10] ^= 1;
            for signature in [
                vec![],
                good[1..].to_vec(),
                flipped,
                vec![0; good.len()],
                [&good[..], &[0]].concat(),
            ] {
                let token = format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature));
                assert_eq!(
                    reason(&bench.verify(&token).await),
                    Some(Reason::BadTokenSignature)
                );
            }
            let [_, foreign, _] = parts(&other);
            let outcome = bench.verify(&format!("{head}.{foreign}.{signature}")).await;
            assert_eq!(reason(&outcome), Some(Reason::BadTokenSignature));
        }
    }

    #[tokio::test]
    async fn signatures_that_are_no_pair_of_numbers_below_the_order_do_not_verify() {
        let bench = Bench::new();
        let token = bench
            .issuer
            .token(&TestClaims::email(ADA), TestAlgorithm::Es256)
            .unwrap();
        let [head, claims, signature] = parts(&token);
        let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
        // The order of P-256 (SEC 2, section 2.4.2).
        let order = b"\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
            \xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
        let der = p256::ecdsa::Signature::from_slice(&good).unwrap().to_der();
        for signature in [
            [order.as_slice(), order.as_slice()].concat(),
            [&good[..32], order.as_slice()].concat(),
            [order.as_slice(), &good[32..]].concat(),
            [&good[..32], &[0; 32]].concat(),
            [&[0; 32], &good[32..]].concat(),
            [&[0], &good[..]].concat(),
            vec![0xff; 64],
            der.as_bytes().to_vec(),
        ] {
            let token = format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature));
            assert_eq!(
                reason(&bench.verify(&token).await),
                Some(Reason::BadTokenSignature)
            );
        }
    }

    #[tokio::test]
    async fn claims_sets_that_are_not_one_strict_object_are_refused() {
        let bench = Bench::new();
        let good = payload().to_string();
        let twice =
            |name: &str, value: &str| good.replacen('{', &format!("{{\"{name}\":{value},"), 1);
        let nested =
            |depth: usize| twice("x", &format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        for payload in [
            "null".to_owned(),
            "[]".to_owned(),
            "\"text\"".to_owned(),
            String::new(),
            format!("\u{feff}{good}"),
            format!("{good}{good}"),
            format!("{good} x"),
            twice("a", "NaN"),
            twice("a", "\"\\ud800\""),
            twice("email", "\"victim@example.com\""),
            format!(
                "{},\"email\":\"victim@example.com\"}}",
                good.trim_end_matches('}')
            ),
            twice(
                "federated_claims",
                "{\"connector_id\":1,\"connector_id\":2}",
            ),
            nested(64),
            nested(5_000),
        ] {
            let outcome = bench.verify_payload(payload.as_bytes()).await;
            assert_eq!(
                reason(&outcome),
                Some(Reason::MalformedToken),
                "{:.80}",
                payload
            );
        }
        bench.verify_payload(nested(63).as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn names_of_claims_are_compared_octet_by_octet() {
        let bench = Bench::new();
        let mut claims = TestClaims::email(ADA);
        for name in [
            "EMAIL",
            "Email",
            "\u{17f}ub",
            "SUB",
            "ISS",
            "EMAIL_VERIFIED",
        ] {
            claims = claims.with(name, "victim@example.com");
        }
        let identity = bench.verify_claims(&claims).await.unwrap();
        assert_eq!(
            (identity.challenge.as_str(), identity.subject.as_str()),
            (ADA, ADA)
        );
        for name in ["email", "sub"] {
            let claims = TestClaims::email(ADA)
                .without(name)
                .with(&name.to_uppercase(), ADA);
            assert!(bench.verify_claims(&claims).await.is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn issuers_are_compared_octet_by_octet_and_strangers_are_never_asked() {
        let bench = Bench::new();
        for iss in [
            "https://issuer.example/",
            "https://ISSUER.example",
            "https://issuer.example/x/../",
            "https://%69ssuer.example",
            "https://u@issuer.example",
            "https://issuer.example#x",
            "https://issuer.example?x",
            "https://issuer.example ",
            "https://issuer.example\0",
            "https://issuer.ex\u{430}mple",
            "http://issuer.example",
            "https://issuer.example:443",
            "https://evil.example",
            "",
        ] {
            let outcome = bench
                .verify_claims(&TestClaims::email(ADA).with("iss", iss))
                .await;
            assert_eq!(reason(&outcome), Some(Reason::IssuerUnknown), "{iss}");
        }
        for iss in [json!(["https://issuer.example"]), json!(5), Value::Null] {
            let outcome = bench
                .verify_claims(&TestClaims::email(ADA).with("iss", iss))
                .await;
            assert_eq!(reason(&outcome), Some(Reason::MalformedToken));
        }
        assert!(bench.network.urls().is_empty());
        let outcome = bench
            .verify_claims(&TestClaims::email(ADA).with("iss", "x".repeat(3_000)))
            .await;
        assert!(outcome.unwrap_err().to_string().len() < 512);
    }

    #[tokio::test]
    async fn the_audience_must_hold_the_configured_value() {
        let bench = Bench::new();
        let verify = |audience: Value| {
            let claims = TestClaims::email(ADA).with("aud", audience);
            let bench = &bench;
            async move { bench.verify_claims(&claims).await }
        };
        for audience in [json!("sigstore"), json!(["other", "sigstore"])] {
            verify(audience).await.unwrap();
        }
        for audience in [
            json!("other"),
            json!("SIGSTORE"),
            json!("sigstore "),
            json!("a,sigstore"),
            json!("sigstore.evil"),
            json!(""),
            json!([]),
            json!(["other"]),
        ] {
            assert_eq!(
                reason(&verify(audience.clone()).await),
                Some(Reason::AudienceMismatch),
                "{audience}"
            );
        }
        for audience in [
            Value::Null,
            json!(5),
            json!({}),
            json!([["sigstore"]]),
            json!(["sigstore", 5]),
        ] {
            assert_eq!(
                reason(&verify(audience.clone()).await),
                Some(Reason::MalformedToken),
                "{audience}"
            );
        }
        let message = verify(json!("npm")).await.unwrap_err().to_string();
        assert_eq!(
            message,
            r#"the ID token is for audience "npm", expected "sigstore""#
        );
        let mut payload = payload();
        payload.as_object_mut().unwrap().remove("aud");
        let outcome = bench.verify_payload(payload.to_string().as_bytes()).await;
        assert_eq!(reason(&outcome), Some(Reason::MalformedToken));
    }

    #[tokio::test]
    async fn a_token_ends_when_it_says() {
        let bench = Bench::new();
        let now = bench.now().unix_timestamp();
        let verify = |expiry: Value| {
            let claims = TestClaims::email(ADA).with("exp", expiry);
            let bench = &bench;
            async move { bench.verify_claims(&claims).await }
        };
        for expiry in [
            json!(now),
            json!(now + 1),
            json!(now as f64 + 0.5),
            json!(now + 100 * 365 * 86_400),
        ] {
            verify(expiry).await.unwrap();
        }
        for expiry in [
            json!(now - 1),
            json!(now as f64 - 0.5),
            json!(now - 90),
            json!(now - 3_600),
            json!(0),
            json!(-1),
        ] {
            assert_eq!(
                reason(&verify(expiry.clone()).await),
                Some(Reason::TokenExpired),
                "{expiry}"
            );
        }
        for expiry in [
            Value::Null,
            json!(true),
            json!({}),
            json!([now]),
            json!("2030-01-01"),
            json!((now + 60).to_string()),
            json!(u64::MAX),
            json!(1_u64 << 63),
            json!(1e300),
            json!(-1e300),
        ] {
            assert_eq!(
                reason(&verify(expiry.clone()).await),
                Some(Reason::MalformedToken),
                "{expiry}"
            );
        }
        let beyond = payload().to_string().replace("1767323345", "1e400");
        assert_eq!(
            reason(&bench.verify_payload(beyond.as_bytes()).await),
            Some(Reason::MalformedToken)
        );
        let mut without = payload();
        without.as_object_mut().unwrap().remove("exp");
        let outcome = bench.verify_payload(without.to_string().as_bytes()).await;
        assert_eq!(reason(&outcome), Some(Reason::MalformedToken));
        assert_eq!(
            verify(json!(now - 12)).await.unwrap_err().to_string(),
            "the ID token expired at 2026-01-02T03:03:53Z, 12 s before the server's time; fetch a fresh one"
        );
    }

    #[tokio::test]
    async fn a_token_begins_when_it_says_give_or_take_five_minutes() {
        let bench = Bench::new();
        let now = bench.now().unix_timestamp();
        for (name, value, expected) in [
            ("nbf", json!(now - 60), None),
            ("nbf", json!(now + 240), None),
            ("nbf", json!(now + 300), None),
            ("nbf", json!(now as f64 + 300.9), None),
            ("nbf", json!(now + 301), Some(Reason::TokenNotYetValid)),
            ("nbf", json!(now + 3_600), Some(Reason::TokenNotYetValid)),
            ("nbf", json!(now.to_string()), Some(Reason::MalformedToken)),
            ("nbf", json!(1e300), Some(Reason::MalformedToken)),
            ("iat", json!(now + 3_600), None),
            ("iat", json!(now - 365 * 86_400), None),
            ("iat", json!(now.to_string()), Some(Reason::MalformedToken)),
        ] {
            let outcome = bench
                .verify_claims(&TestClaims::email(ADA).with(name, value.clone()))
                .await;
            assert_eq!(reason(&outcome), expected, "{name}: {value}");
        }
    }

    #[tokio::test]
    async fn nothing_of_a_token_is_shown_unescaped() {
        let bench = Bench::with_issuers(&entry(
            ISSUER,
            "type: uri\n    subject-domain: https://issuer.example",
        ));
        let claims = TestClaims::subject("https://evil.example/\u{202e}x");
        let message = bench.verify_claims(&claims).await.unwrap_err().to_string();
        assert!(!message.contains('\u{202e}'), "{message}");
        let token = sign(
            &stranger(),
            &with_member(header(), "kid", json!("a\r\nb")),
            payload().to_string().as_bytes(),
        );
        let message = bench.verify(&token).await.unwrap_err().to_string();
        assert!(message.contains(r"a\u000d\u000ab"), "{message}");
    }

    #[tokio::test]
    async fn a_common_library_agrees_with_good_and_bad_signatures() {
        use jsonwebtoken::{DecodingKey, Validation, decode, jwk::JwkSet};
        let bench = Bench::new();
        let set: JwkSet = serde_json::from_value(keys().jwks()).unwrap();
        for (algorithm, theirs) in [
            (TestAlgorithm::Rs256, jsonwebtoken::Algorithm::RS256),
            (TestAlgorithm::Es256, jsonwebtoken::Algorithm::ES256),
        ] {
            let good = bench
                .issuer
                .token(&TestClaims::email(ADA), algorithm)
                .unwrap();
            let bad = format!("{}AAAA", &good[..good.len() - 4]);
            let mut rules = Validation::new(theirs);
            rules.set_audience(&["sigstore"]);
            rules.validate_exp = false;
            let key = DecodingKey::from_jwk(set.find(algorithm.key_id()).unwrap()).unwrap();
            for token in [good, bad] {
                let opinion = decode::<Value>(&token, &key, &rules).is_ok();
                assert_eq!(bench.verify(&token).await.is_ok(), opinion);
            }
        }
    }

    async fn refusal(bench: &Bench, claims: &TestClaims) -> Option<Reason> {
        let verified = bench.verify_claims(claims).await;
        verified.err().map(|error| error.reason())
    }

    #[tokio::test]
    async fn entries_for_one_issuer_are_told_apart_by_the_audience() {
        let bench = Bench::with_entries(["one", "two", "three"].map(issuer_for));
        let id = |audience: Value| {
            let claims = TestClaims::email("ada@example.com").with("aud", audience);
            let bench = &bench;
            async move {
                let verified = bench.verify_claims(&claims).await;
                verified.map(|identity| identity.issuer_id.to_string())
            }
        };
        for audience in ["one", "two", "three"] {
            assert_eq!(id(json!(audience)).await.unwrap(), audience);
            assert_eq!(id(json!(["x", audience])).await.unwrap(), audience);
        }
        for (audience, expected) in [
            (json!("four"), Reason::AudienceMismatch),
            (json!([]), Reason::AudienceMismatch),
            (json!(["one", "two"]), Reason::AmbiguousIdentity),
            (json!(["three", "x", "two"]), Reason::AmbiguousIdentity),
            (json!(["one", 5]), Reason::MalformedToken),
            (json!(5), Reason::MalformedToken),
        ] {
            let error = id(audience.clone()).await.unwrap_err();
            assert_eq!(error.reason(), expected, "{audience}");
        }
        let error = id(json!("four")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the ID token is for audience \"four\", expected \"one\" or \"two\" or \"three\""
        );
        // They share one set of keys, which is fetched once.
        assert_eq!(bench.network.urls().len(), 2);
        assert_eq!(bench.keys.status().len(), 1);
    }

    #[tokio::test]
    async fn an_entry_may_have_several_audiences() {
        let mut issuer = issuer_for("one");
        issuer.audiences.push("two".to_owned());
        let bench = Bench::with_entries([issuer]);
        for (audience, expected) in [
            (json!("one"), None),
            (json!("two"), None),
            (json!(["one", "two"]), None),
            (json!("three"), Some(Reason::AudienceMismatch)),
        ] {
            let claims = TestClaims::email("ada@example.com").with("aud", audience);
            assert_eq!(refusal(&bench, &claims).await, expected);
        }
    }

    #[tokio::test]
    async fn entries_that_are_switched_off_or_have_ended_refuse_before_anything_is_fetched() {
        let bench = Bench::new();
        let with = |change: fn(&mut Issuer, OffsetDateTime)| {
            let mut issuer = issuer_for("sigstore");
            change(&mut issuer, bench.now());
            Bench::with_entries([issuer])
        };
        let claims = TestClaims::email("ada@example.com");
        let disabled = with(|issuer, _| issuer.disabled = true);
        assert_eq!(
            refusal(&disabled, &claims).await,
            Some(Reason::IssuerDisabled)
        );
        let ended = with(|issuer, now| issuer.expires = Some(now));
        assert_eq!(refusal(&ended, &claims).await, Some(Reason::IssuerExpired));
        for bench in [&disabled, &ended] {
            bench.prefetch();
            assert!(bench.network.urls().is_empty());
        }
        let ends_soon = with(|issuer, now| issuer.expires = Some(now + Duration::seconds(1)));
        assert_eq!(refusal(&ends_soon, &claims).await, None);
    }

    #[tokio::test]
    async fn an_entry_may_accept_fewer_algorithms_than_the_issuer_uses() {
        let mut issuer = issuer_for("sigstore");
        issuer.tokens.algorithms = Some(vec![Algorithm::Es256, Algorithm::EdDsa]);
        let bench = Bench::with_entries([issuer]);
        let claims = TestClaims::email("ada@example.com");
        let token = |algorithm| bench.issuer.token(&claims, algorithm).unwrap();
        let error = bench
            .verify(&token(TestAlgorithm::Rs256))
            .await
            .unwrap_err();
        assert_eq!(error.reason(), Reason::UnsupportedAlg);
        assert_eq!(
            error.to_string(),
            "the ID token is signed with \"RS256\", expected one of ES256, EdDSA"
        );
        assert!(bench.network.urls().is_empty());
        assert!(bench.verify(&token(TestAlgorithm::Es256)).await.is_ok());
    }

    #[tokio::test]
    async fn an_entry_may_limit_age_and_skew_of_tokens() {
        let bench = |max_age: Option<i64>, clock_skew: Option<i64>| {
            let mut issuer = issuer_for("sigstore");
            issuer.tokens.max_age = max_age.map(Duration::seconds);
            issuer.tokens.clock_skew = clock_skew.map(Duration::seconds);
            Bench::with_entries([issuer])
        };
        let now = bench(None, None).now().unix_timestamp();
        let (early, old) = (Some(Reason::TokenNotYetValid), Some(Reason::TokenTooOld));
        for (max_age, clock_skew, claim, seconds, expected) in [
            (None, None, "iat", 1_000_000, None),
            (None, None, "iat", -1_000_000, None),
            (None, None, "nbf", 300, None),
            (None, None, "nbf", 301, early),
            (None, Some(10), "nbf", 10, None),
            (None, Some(10), "nbf", 11, early),
            (None, Some(10), "iat", 10, None),
            (None, Some(10), "iat", 11, early),
            (None, Some(10), "iat", -1_000_000, None),
            (None, Some(0), "iat", 1, early),
            (Some(120), None, "iat", -120, None),
            (Some(120), None, "iat", -121, old),
            (Some(120), None, "iat", 60, None),
            (Some(120), None, "iat", 61, early),
            (Some(120), None, "nbf", 300, None),
            (Some(120), Some(90), "iat", 90, None),
            (Some(120), Some(90), "iat", 91, early),
            (Some(120), Some(90), "iat", -121, old),
        ] {
            let bench = bench(max_age, clock_skew);
            let claims = TestClaims::email("ada@example.com").with(claim, now + seconds);
            let found = refusal(&bench, &claims).await;
            let case = (max_age, clock_skew, claim, seconds);
            assert_eq!(found, expected, "{case:?}");
        }
        let mut undated = payload();
        let bench = bench(Some(120), None);
        undated["exp"] = json!(now + 60);
        let found = bench.verify_payload(undated.to_string().as_bytes()).await;
        assert_eq!(found.unwrap_err().reason(), Reason::TokenTooOld);
    }

    #[tokio::test]
    async fn a_new_version_of_the_configuration_keeps_the_keys_of_what_has_not_changed() {
        let other = "https://other.example";
        let at_other = |audience: &str| {
            let mut issuer = issuer_for(audience);
            issuer.endpoint = Arc::new(KeyEndpoint::exact(
                Arc::clone(&issuer.id),
                other.to_owned(),
                None,
            ));
            issuer
        };
        let bench = Bench::with_entries([issuer_for("sigstore"), at_other("other")]);
        bench.network.serve(&bench.at(other));
        let claims = TestClaims::email("ada@example.com");
        assert_eq!(refusal(&bench, &claims).await, None);
        let theirs = claims.clone().with("aud", "other");
        let theirs = bench
            .at(other)
            .token(&theirs, TestAlgorithm::Rs256)
            .unwrap();
        assert!(bench.verify(&theirs).await.is_ok());
        assert_eq!(bench.network.urls().len(), 4);

        // Another id, another audience, one issuer less.
        let mut renamed = issuer_for("renamed");
        renamed.audiences.push("sigstore".to_owned());
        bench.replace([renamed]);
        let identity = bench.verify_claims(&claims).await.unwrap();
        assert_eq!(&*identity.issuer_id, "renamed");
        let error = bench.verify(&theirs).await.unwrap_err();
        assert_eq!(error.reason(), Reason::IssuerUnknown);
        assert_eq!(bench.network.urls().len(), 4);
        assert_eq!(bench.keys.status().len(), 1);

        // Keys that are found elsewhere are other keys.
        let mut moved = issuer_for("sigstore");
        let location = KeyLocation::url("https://issuer.example/keys", ISSUER).unwrap();
        moved.endpoint = Arc::new(KeyEndpoint::clone(&moved.endpoint).with_keys_at(location));
        bench
            .network
            .document("https://issuer.example/keys", bench.issuer.jwks_json());
        bench.replace([moved]);
        assert_eq!(refusal(&bench, &claims).await, None);
        assert_eq!(bench.network.urls().len(), 5);
        assert_eq!(bench.keys.status().len(), 1);
    }
}
