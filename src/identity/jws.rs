//! Tokens before anything about them is believed: JWS in compact form (RFC 7515, section 7.1), taken apart.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::error::TokenError;
use super::json::{Object, parse_object};
use crate::excerpt::Excerpt;

/// The longest token that is looked at, in octets.
pub const MAX_TOKEN_OCTETS: usize = 32 * 1024;
/// How deep the JSON of a token may be nested.
pub const MAX_DEPTH: usize = 64;
/// The longest key identifier, in octets.
const MAX_KEY_ID_OCTETS: usize = 256;

/// The algorithms that an ID token may be signed with (RFC 7518, section 3.1; RFC 8037, section 3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm that is accepted.
    pub const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// The name as the `alg` members of tokens, keys and discovery documents have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of that name, which is compared octet by octet.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }
}

/// A token of which only the form was checked.
///
/// Its issuer may be looked up and its signature verified; nothing else of it means anything yet.
#[derive(Debug)]
pub struct UnverifiedToken<'a> {
    /// What the header says the signature is.
    pub algorithm: Algorithm,
    /// Which of the issuer's keys the header names.
    pub key_id: Option<String>,
    /// The octets that are signed.
    pub signing_input: &'a [u8],
    /// The signature's octets.
    pub signature: Vec<u8>,
    /// The claims.
    pub claims: Object,
}

impl<'a> UnverifiedToken<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it is longer than the limit, not a JWS in compact form over a JSON object, or signed in a way that is never
    /// accepted. The sender's fault always.
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_OCTETS {
            return Err(TokenError::TooLarge {
                octets: token.len(),
            });
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or_else(not_three_parts)?;
        let (header, claims) = signing_input.split_once('.').ok_or_else(not_three_parts)?;
        if claims.contains('.') {
            return Err(not_three_parts());
        }
        let header = parse_object(&decode("header", header)?, MAX_DEPTH)
            .map_err(|error| malformed(format!("its header is not a JSON object: {error}")))?;
        let (algorithm, key_id) = read_header(&header)?;
        let claims = parse_object(&decode("claims set", claims)?, MAX_DEPTH)
            .map_err(|error| malformed(format!("its claims set is not a JSON object: {error}")))?;
        Ok(Self {
            algorithm,
            key_id,
            signing_input: signing_input.as_bytes(),
            signature: decode("signature", signature)?,
            claims,
        })
    }

    /// The `iss` claim: which issuer the token says it is from.
    ///
    /// # Errors
    /// When it is missing or not a string.
    pub fn issuer(&self) -> Result<&str, TokenError> {
        issuer(&self.claims)
    }
}

/// The `iss` of claims.
pub(super) fn issuer(claims: &Object) -> Result<&str, TokenError> {
    match claims.get("iss") {
        Some(Value::String(issuer)) => Ok(issuer),
        Some(_) => Err(malformed("the claim `iss` is not a string".to_owned())),
        None => Err(malformed(
            "it has no claim `iss`, the URL of its issuer".to_owned(),
        )),
    }
}

/// Reads the members of the header that decide how the token is verified.
///
/// Keys and addresses in the header (`jwk`, `jku`, `x5c`, `x5u`) are never used: the issuer alone says what its keys are.
fn read_header(header: &Object) -> Result<(Algorithm, Option<String>), TokenError> {
    if let Some(member) = ["crit", "zip", "enc"]
        .into_iter()
        .find(|name| header.contains_key(*name))
    {
        // RFC 7515, section 4.1.11: what `crit` names must be understood, and no extension is.
        return Err(malformed(format!(
            "its header has the member `{member}`, which is not accepted"
        )));
    }
    let is_nested = |content_type: &Value| {
        content_type
            .as_str()
            .is_none_or(|name| name.eq_ignore_ascii_case("JWT"))
    };
    if header.get("cty").is_some_and(is_nested) {
        return Err(malformed("it is a token inside a token".to_owned()));
    }
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) => name,
        Some(_) => {
            return Err(malformed(
                "the member `alg` of its header is not a string".to_owned(),
            ));
        }
        None => return Err(malformed("its header has no member `alg`".to_owned())),
    };
    let algorithm =
        Algorithm::named(algorithm).ok_or_else(|| TokenError::UnsupportedAlgorithm {
            found: Excerpt::new(algorithm),
            expected: names(&Algorithm::ALL),
        })?;
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(key_id)) if key_id.is_empty() => None,
        Some(Value::String(key_id)) if key_id.len() <= MAX_KEY_ID_OCTETS => Some(key_id.clone()),
        Some(Value::String(_)) => {
            let message =
                format!("the member `kid` of its header is longer than {MAX_KEY_ID_OCTETS} octets");
            return Err(malformed(message));
        }
        Some(_) => {
            return Err(malformed(
                "the member `kid` of its header is not a string".to_owned(),
            ));
        }
    };
    Ok((algorithm, key_id))
}

/// The names of algorithms, as an error message lists them.
pub fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<&str> = algorithms
        .iter()
        .map(|algorithm| algorithm.name())
        .collect();
    names.join(", ")
}

/// Decodes one part: base64url without padding, without stray bits, without white space (RFC 7515, section 2).
fn decode(part: &str, text: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| malformed(format!("its {part} is not base64url without padding")))
}

fn malformed(why: String) -> TokenError {
    TokenError::Malformed(why)
}

fn not_three_parts() -> TokenError {
    malformed("expected three parts with a dot between them (JWS compact serialization)".to_owned())
}
