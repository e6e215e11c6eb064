//! Why an ID token was not accepted.

use std::sync::Arc;

use super::ci_provider::ProviderError;
use crate::excerpt::Excerpt;
use crate::reason::Reason;

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
    /// The issuer's entry is switched off.
    #[error("tokens of the issuer {0} are refused at present")]
    IssuerDisabled(Excerpt),
    /// The issuer's entry has ended.
    #[error("tokens of the issuer {issuer} are refused since {end}")]
    IssuerExpired {
        /// The issuer's URL.
        issuer: Excerpt,
        /// When it ended, RFC 3339.
        end: String,
    },
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
    /// `nbf` is more than five minutes ahead, or than the issuer's entry allows.
    #[error(
        "the ID token is not valid before {start}, {seconds} s after the server's time; compare the clocks"
    )]
    NotYetValid {
        /// The claim, RFC 3339.
        start: String,
        /// How far ahead, in whole seconds.
        seconds: i64,
    },
    /// `iat` lies ahead, and the issuer's entry limits how far.
    #[error(
        "the ID token was issued at {issued}, {seconds} s after the server's time; compare the clocks"
    )]
    IssuedAhead {
        /// The claim, RFC 3339.
        issued: String,
        /// How far ahead, in whole seconds.
        seconds: i64,
    },
    /// `iat` lies longer ago than the issuer's entry allows.
    #[error(
        "the ID token was issued at {issued}, {seconds} s before the server's time, expected at most {limit} s; fetch a fresh one"
    )]
    TooOld {
        /// The claim, RFC 3339.
        issued: String,
        /// How long ago, in whole seconds.
        seconds: i64,
        /// The longest time, in whole seconds.
        limit: i64,
    },
    /// The issuer's entry limits the age of tokens, and this one does not tell it.
    #[error(
        "the ID token has no claim `iat`, and the server limits the age of this issuer's tokens"
    )]
    AgeUnknown,
    /// `aud` holds no configured audience.
    #[error("the ID token is for audience {found}, expected \"{expected}\"")]
    AudienceMismatch {
        /// The claim.
        found: Excerpt,
        /// The configured ones.
        expected: String,
    },
    /// `aud` holds audiences of several entries for the issuer.
    #[error("the ID token is for audience {0}, which several entries of its issuer are for")]
    AmbiguousAudience(Excerpt),
    /// A rule of the entry's `deny` applies.
    #[error("rule {rule} of `deny` refuses tokens for which {conditions}")]
    DeniedByRule {
        /// The number of the rule, from 1.
        rule: usize,
        /// What it says, without what the token says.
        conditions: String,
    },
    /// The entry has `allow`, and none of its rules applies.
    #[error(
        "no rule of `allow` applies; of {rules}, rule {closest} comes closest and expects that {expected}"
    )]
    NoAllowRuleMatched {
        /// How many rules there are.
        rules: usize,
        /// The number of the one that needs the least to apply, from 1.
        closest: usize,
        /// What of it does not hold, without what the token says.
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
    /// The subject could be taken for another identity than the issuer's type makes of it.
    #[error("the claim `sub` {why}")]
    AmbiguousSubject {
        /// What it is, and what was expected.
        why: &'static str,
    },
    /// The subject of a `uri` issuer lies elsewhere.
    #[error("the claim `sub` is {subject}, expected a URI at {expected}")]
    SubjectDomainMismatch {
        /// The claim.
        subject: Excerpt,
        /// What it has to begin with.
        expected: String,
    },
    /// The subject of a `spiffe` issuer lies in another trust domain.
    #[error("the claim `sub` is of the trust domain {found}, expected {expected}")]
    SpiffeDomainMismatch {
        /// That of the claim.
        found: Excerpt,
        /// The configured one.
        expected: String,
    },
    /// The templates of a `ci-provider` issuer make no certificate of the claims.
    #[error(transparent)]
    Provider(#[from] ProviderError),
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
            Self::IssuerDisabled(_) => Reason::IssuerDisabled,
            Self::IssuerExpired { .. } => Reason::IssuerExpired,
            Self::KeysUnavailable { .. } | Self::KeysWrong { .. } => Reason::IssuerUnavailable,
            Self::TooManyIssuers(_) => Reason::RateLimited,
            Self::UnknownKey { .. } => Reason::UnknownKey,
            Self::BadSignature(_) => Reason::BadTokenSignature,
            Self::Expired { .. } => Reason::TokenExpired,
            Self::NotYetValid { .. } | Self::IssuedAhead { .. } => Reason::TokenNotYetValid,
            Self::TooOld { .. } | Self::AgeUnknown => Reason::TokenTooOld,
            Self::AudienceMismatch { .. } => Reason::AudienceMismatch,
            Self::DeniedByRule { .. } => Reason::DeniedByRule,
            Self::NoAllowRuleMatched { .. } => Reason::NoAllowRuleMatched,
            Self::MissingClaim { .. } => Reason::MissingClaim,
            Self::EmailNotVerified => Reason::EmailNotVerified,
            Self::InvalidEmail { .. } => Reason::InvalidEmail,
            Self::AmbiguousSubject { .. } | Self::AmbiguousAudience(_) => Reason::AmbiguousIdentity,
            Self::SubjectDomainMismatch { .. } => Reason::SubjectDomainMismatch,
            Self::SpiffeDomainMismatch { .. } => Reason::SpiffeDomainMismatch,
            Self::Provider(_) => Reason::TemplateError,
        }
    }

    /// Whether the token may be good and trying again may help: the issuer's keys cannot be had.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::KeysUnavailable { .. })
    }
}

/// A token that was not accepted.
#[derive(Clone, Debug)]
pub struct RefusedToken {
    /// The configured id of the issuer that it says it is from, where there is one.
    pub issuer_id: Option<Arc<str>>,
    /// Its `iss`, where it has one.
    pub iss_claim: Option<Excerpt>,
    /// Why not.
    pub error: TokenError,
}
