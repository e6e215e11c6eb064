//! Claim rules: which of an issuer's tokens may have a certificate.

/// The `allow` and `deny` rules of one issuer. Without any, every token that verifies may have a certificate.
#[derive(Clone, Debug, Default)]
pub struct ClaimRules {}
