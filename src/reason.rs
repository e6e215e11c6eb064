//! Why a request was not served: the closed set of codes that the `Mayfly-Reason` header, the metrics and the log share.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident => $label:literal,)+) => {
        /// One code per way a request can fail. Every code has a paragraph in `docs/refusal-reasons.md`.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Reason { $($(#[$doc])+ $variant,)+ }

        impl Reason {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as clients, operators and auditors read it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

reasons! {
    /// The request body is larger than the limit.
    BodyTooLarge => "body_too_large",
    /// The request is not the JSON that the endpoint takes.
    MalformedRequest => "malformed_request",
    /// Neither body nor `Authorization` header holds a token.
    MissingToken => "missing_token",
    /// The token is not a JWS in compact form with a JSON claims set, or a claim has the wrong type.
    MalformedToken => "malformed_token",
    /// The token is longer than the limit.
    TokenTooLarge => "token_too_large",
    /// The token's signature algorithm is not accepted from this issuer.
    UnsupportedAlg => "unsupported_alg",
    /// The token's `iss` is not configured.
    IssuerUnknown => "issuer_unknown",
    /// The issuer's entry is disabled.
    IssuerDisabled => "issuer_disabled",
    /// The issuer's entry has expired.
    IssuerExpired => "issuer_expired",
    /// The issuer's keys could not be obtained, or its documents are wrong.
    IssuerUnavailable => "issuer_unavailable",
    /// The token fits more than one identity.
    AmbiguousIdentity => "ambiguous_identity",
    /// The issuer publishes no key that fits the token.
    UnknownKey => "unknown_key",
    /// The token's signature does not verify.
    BadTokenSignature => "bad_token_signature",
    /// The token's `exp` has passed.
    TokenExpired => "token_expired",
    /// The token's `nbf` is still to come.
    TokenNotYetValid => "token_not_yet_valid",
    /// The token is older than the issuer's entry allows.
    TokenTooOld => "token_too_old",
    /// The token's `aud` does not hold the configured audience.
    AudienceMismatch => "audience_mismatch",
    /// A claim that the issuer type needs is missing.
    MissingClaim => "missing_claim",
    /// The token does not say that the e-mail address is verified.
    EmailNotVerified => "email_not_verified",
    /// The `email` claim is not an address that a certificate can carry.
    InvalidEmail => "invalid_email",
    /// The subject lies outside the issuer's `subject-domain`.
    SubjectDomainMismatch => "subject_domain_mismatch",
    /// The subject lies outside the issuer's SPIFFE trust domain.
    SpiffeDomainMismatch => "spiffe_domain_mismatch",
    /// A `deny` rule matched.
    DeniedByRule => "denied_by_rule",
    /// There are `allow` rules and none matched.
    NoAllowRuleMatched => "no_allow_rule_matched",
    /// A claim cannot be put into a certificate.
    TemplateError => "template_error",
    /// The certificate signing request cannot be parsed.
    MalformedCsr => "malformed_csr",
    /// The public key cannot be parsed.
    MalformedPublicKey => "malformed_public_key",
    /// The public key is not strong enough.
    WeakKey => "weak_key",
    /// The kind of key, or of signature, is not one that this server takes.
    AlgorithmNotPermitted => "algorithm_not_permitted",
    /// The proof of possession does not verify.
    BadProof => "bad_proof",
    /// Too many requests.
    RateLimited => "rate_limited",
    /// The server has more work than it can take.
    Overloaded => "overloaded",
    /// The CA cannot issue now: its key does not answer, or its certificate ends too soon.
    CaUnavailable => "ca_unavailable",
    /// The CA failed.
    CaError => "ca_error",
    /// The transparency log takes nothing now.
    CtUnavailable => "ct_unavailable",
    /// The transparency log refused the precertificate.
    CtRejected => "ct_rejected",
    /// The transparency log's answer does not verify.
    CtBadSct => "ct_bad_sct",
    /// The store cannot be written.
    StoreUnavailable => "store_unavailable",
    /// The audit trail cannot be written.
    AuditUnavailable => "audit_unavailable",
    /// The server is stopping.
    ShuttingDown => "shutting_down",
    /// A defect of the server.
    Internal => "internal",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
