//! Identities that are e-mail addresses.

use serde_json::Value;

use super::super::error::TokenError;
use super::super::json::Object;
use super::{ClaimPath, invalid};

/// What to make of the tokens of an e-mail issuer.
#[derive(Clone, Debug, Default)]
pub struct EmailRule {
    /// The claim that names the issuer in the certificate, in place of `iss`.
    pub issuer_claim: Option<ClaimPath>,
    /// Whether addresses are taken without the issuer saying that it has verified them.
    pub skip_verification: bool,
}

impl EmailRule {
    /// The name of the issuer for the certificate of one of its tokens.
    pub(super) fn issuer_name<'a>(
        &self,
        iss: &'a str,
        claims: &'a Object,
    ) -> Result<&'a str, TokenError> {
        match &self.issuer_claim {
            Some(path) => path.select(claims),
            None => Ok(iss),
        }
    }

    /// The address of a token, when the issuer vouches for it.
    pub(super) fn address<'a>(&self, claims: &'a Object) -> Result<&'a str, TokenError> {
        let is_verified = is_verified(claims)?;
        let Some(Value::String(address)) = claims.get("email") else {
            return Err(TokenError::InvalidEmail {
                why: "the claim `email` is missing or not a string",
            });
        };
        check_address(address).map_err(|why| TokenError::InvalidEmail { why })?;
        if is_verified || self.skip_verification {
            Ok(address)
        } else {
            Err(TokenError::EmailNotVerified)
        }
    }
}

/// Whether the issuer says that it has verified the address.
pub(super) fn is_verified(claims: &Object) -> Result<bool, TokenError> {
    match claims.get("email_verified") {
        None => Ok(false),
        Some(Value::Bool(is_verified)) => Ok(*is_verified),
        Some(Value::String(text)) if matches!(text.as_str(), "true" | "True") => Ok(true),
        Some(Value::String(text)) if matches!(text.as_str(), "false" | "False") => Ok(false),
        Some(_) => Err(invalid("email_verified", "it is neither true nor false")),
    }
}

/// Checks that an address is a dot-atom at a domain name, in ASCII (RFC 5321, sections 4.1.2 and 4.5.3.1).
///
/// Quoted local parts, comments, address literals and one-label domains are refused: verifiers compare addresses as text.
pub(super) fn check_address(address: &str) -> Result<(), &'static str> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::{Bench, ISSUER, entry};
    use super::super::super::{BuildFacts, San};
    use super::super::tests::{ADA, reason};
    use super::*;
    use crate::dev::oidc::TestClaims;
    use crate::reason::Reason;

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
}
