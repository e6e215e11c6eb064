//! Checks ID tokens: form, issuer, signature, times, audience, claims, in that order, the cheap before the costly.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::excerpt::Excerpt;
use super::issuers::MatchedIssuer;
use super::json::Object;
use super::jwks::KeySource;
use super::jws::UnverifiedToken;
use super::{Identity, Issuers, claims};
use crate::reason::Reason;

/// How far the issuer's clock may be ahead of ours, for `nbf`. For `exp` there is no leeway.
const NOT_BEFORE_LEEWAY: Duration = Duration::minutes(5);

/// Why an ID token was not accepted. The texts are fit for the client that sent it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// More octets than the limit.
    #[error("the ID token has {octets} octets, expected at most 32768")]
    TooLarge {
        /// How many there are.
        octets: usize,
    },
    /// Not a JWS in compact form over a JSON object, or a claim of the wrong type.
    #[error("the ID token is malformed: {0}")]
    Malformed(String),
    /// An algorithm that is not accepted: at all, or from this issuer.
    #[error("the ID token is signed with {found}, expected one of {expected}")]
    UnsupportedAlgorithm {
        /// The header's `alg`.
        found: Excerpt,
        /// The accepted ones.
        expected: String,
    },
    /// No entry of the identity file for the token's `iss`.
    #[error(
        "the issuer {0} is not configured; the claim `iss` must equal a configured issuer octet for octet"
    )]
    UnknownIssuer(Excerpt),
    /// The issuer's keys cannot be had at the moment: network, time-out, server error. Trying again may help.
    #[error("the keys of issuer {issuer} cannot be fetched: {why}; try again later")]
    KeysUnavailable {
        /// The issuer's URL.
        issuer: Excerpt,
        /// What went wrong.
        why: String,
    },
    /// The issuer's discovery document or key set is wrong. Its operator has to act.
    #[error("the keys of issuer {issuer} cannot be used: {why}")]
    KeysWrong {
        /// The issuer's URL.
        issuer: Excerpt,
        /// What is wrong.
        why: String,
    },
    /// Too many issuers of one pattern were seen for the first time.
    #[error("too many new issuers like {0} at once; try again in a minute")]
    TooManyIssuers(Excerpt),
    /// The issuer publishes no key that the token could be signed with.
    #[error("the issuer {issuer} publishes no usable key for the ID token ({key})")]
    UnknownKey {
        /// The issuer's URL.
        issuer: Excerpt,
        /// How the token names its key.
        key: String,
    },
    /// The signature does not verify.
    #[error("the signature of the ID token does not verify with the keys of issuer {0}")]
    BadSignature(Excerpt),
    /// `exp` has passed.
    #[error(
        "the ID token expired at {expiry}, {seconds} s before the server's time; fetch a fresh one"
    )]
    Expired {
        /// The claim, RFC 3339.
        expiry: String,
        /// How long ago, in whole seconds.
        seconds: i64,
    },
    /// `nbf` is more than five minutes ahead.
    #[error(
        "the ID token is not valid before {start}, {seconds} s after the server's time; compare the clocks"
    )]
    NotYetValid {
        /// The claim, RFC 3339.
        start: String,
        /// How far ahead, in whole seconds.
        seconds: i64,
    },
    /// `aud` does not hold the configured audience.
    #[error("the ID token is for audience {found}, expected \"{expected}\"")]
    AudienceMismatch {
        /// The claim.
        found: Excerpt,
        /// The configured one.
        expected: String,
    },
    /// A claim that the issuer's type needs is not there, or empty.
    #[error("the ID token has no claim `{claim}`, which the issuer's type needs")]
    MissingClaim {
        /// Its name.
        claim: String,
    },
    /// A claim has the wrong type or cannot stand in a certificate.
    #[error("the claim `{claim}` of the ID token cannot be used: {why}")]
    InvalidClaim {
        /// Its name.
        claim: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The issuer does not say that the address is verified.
    #[error(
        "the issuer does not confirm the e-mail address; expected the claim `email_verified` to be true"
    )]
    EmailNotVerified,
    /// The address is not one that a certificate can carry.
    #[error("the e-mail address cannot be used: {why}")]
    InvalidEmail {
        /// What is wrong.
        why: &'static str,
    },
    /// The subject of a `uri` issuer is an e-mail address.
    #[error("the claim `sub` is an e-mail address, expected a URI")]
    AmbiguousIdentity,
    /// The subject of a `uri` issuer lies elsewhere.
    #[error("the claim `sub` is {subject}, expected a URI at {expected}")]
    SubjectDomainMismatch {
        /// The claim.
        subject: Excerpt,
        /// What it has to begin with.
        expected: String,
    },
}

impl TokenError {
    /// The code of this refusal.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::TokenTooLarge,
            Self::Malformed(_) | Self::InvalidClaim { .. } => Reason::MalformedToken,
            Self::UnsupportedAlgorithm { .. } => Reason::UnsupportedAlg,
            Self::UnknownIssuer(_) => Reason::IssuerUnknown,
            Self::KeysUnavailable { .. } | Self::KeysWrong { .. } => Reason::IssuerUnavailable,
            Self::TooManyIssuers(_) => Reason::RateLimited,
            Self::UnknownKey { .. } => Reason::UnknownKey,
            Self::BadSignature(_) => Reason::BadTokenSignature,
            Self::Expired { .. } => Reason::TokenExpired,
            Self::NotYetValid { .. } => Reason::TokenNotYetValid,
            Self::AudienceMismatch { .. } => Reason::AudienceMismatch,
            Self::MissingClaim { .. } => Reason::MissingClaim,
            Self::EmailNotVerified => Reason::EmailNotVerified,
            Self::InvalidEmail { .. } => Reason::InvalidEmail,
            Self::AmbiguousIdentity => Reason::AmbiguousIdentity,
            Self::SubjectDomainMismatch { .. } => Reason::SubjectDomainMismatch,
        }
    }

    /// Whether the token may be good and trying again may help: the issuer's keys cannot be had.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::KeysUnavailable { .. })
    }
}

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
    /// `iss` is looked at before the signature holds.
    pub async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Identity, TokenError> {
        let token = UnverifiedToken::parse(token)?;
        let MatchedIssuer { issuer, endpoint } = self.find_issuer(token.issuer()?)?;
        self.keys.verify(&endpoint, &token, now).await?;
        check_times(&token.claims, now)?;
        check_audience(&token.claims, &issuer.audience)?;
        claims::identify(&issuer, &endpoint.issuer, &token.claims)
    }

    fn find_issuer(&self, iss: &str) -> Result<MatchedIssuer, TokenError> {
        let found = self.issuers.load().lookup(iss);
        found.ok_or_else(|| TokenError::UnknownIssuer(Excerpt::new(iss)))
    }

    /// Begins to fetch the keys of every issuer that is not a pattern, so that the first tokens need not wait.
    pub fn prefetch(&self, now: OffsetDateTime) {
        for issuer in self.issuers.load().all() {
            self.keys.prefetch(&issuer.endpoint, now);
        }
    }
}

/// Checks `exp`, which must be there, and `nbf` and `iat`, which need not (RFC 7519, section 4.1).
///
/// Typed here rather than by a library's defaults: a time of the wrong type is refused, never skipped.
fn check_times(claims: &Object, now: OffsetDateTime) -> Result<(), TokenError> {
    let expiry = date("exp", claims)?.ok_or_else(|| invalid("exp", "it is missing"))?;
    let start = date("nbf", claims)?;
    date("iat", claims)?;
    if expiry < now {
        return Err(TokenError::Expired {
            expiry: rfc3339(expiry),
            seconds: (now - expiry).whole_seconds(),
        });
    }
    match start.filter(|start| *start > now + NOT_BEFORE_LEEWAY) {
        Some(start) => Err(TokenError::NotYetValid {
            start: rfc3339(start),
            seconds: (start - now).whole_seconds(),
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

fn rfc3339(instant: OffsetDateTime) -> String {
    instant
        .format(&Rfc3339)
        .unwrap_or_else(|_| format!("second {}", instant.unix_timestamp()))
}

/// Checks that `aud`, a string or a list of strings, holds the configured audience (RFC 7519, section 4.1.3).
fn check_audience(claims: &Object, expected: &str) -> Result<(), TokenError> {
    let mismatch = |found: &str| TokenError::AudienceMismatch {
        found: Excerpt::new(found),
        expected: expected.to_owned(),
    };
    let wrong_type = || invalid("aud", "it is neither a string nor a list of strings");
    match claims.get("aud") {
        Some(Value::String(audience)) if audience == expected => Ok(()),
        Some(Value::String(audience)) => Err(mismatch(audience)),
        Some(Value::Array(audiences)) => {
            let audiences: Option<Vec<&str>> = audiences.iter().map(Value::as_str).collect();
            let audiences = audiences.ok_or_else(wrong_type)?;
            if audiences.contains(&expected) {
                Ok(())
            } else {
                Err(mismatch(&audiences.join(", ")))
            }
        }
        Some(_) => Err(wrong_type()),
        None => Err(invalid("aud", "it is missing")),
    }
}
