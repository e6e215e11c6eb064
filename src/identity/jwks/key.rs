//! One public key of an issuer (RFC 7517), parsed once and then only used.

use std::fmt;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde_json::Value;

use crate::identity::jws::Algorithm;

/// The algorithms of an RSA key.
const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
];

/// A key that may verify tokens.
pub(super) struct VerificationKey {
    /// The JWK's `kid`.
    pub(super) id: Option<String>,
    /// The only algorithm that the key is for, if the JWK says so.
    pub(super) algorithm: Option<Algorithm>,
    /// The key, ready for each algorithm that its type allows.
    parsed: Vec<(Algorithm, ParsedPublicKey)>,
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Whether a JWK tells more than a public key (RFC 7518, sections 6.2.2 and 6.3.2).
pub(super) fn has_private_part(jwk: &Value) -> bool {
    ["d", "p", "q", "dp", "dq", "qi", "oth"]
        .into_iter()
        .any(|member| jwk.get(member).is_some())
}

impl VerificationKey {
    /// Reads a JWK.
    ///
    /// # Errors
    /// Why the key is not used: not meant for signatures, of an unknown kind, malformed, or weak.
    pub(super) fn parse(jwk: &Value) -> Result<Self, &'static str> {
        let algorithm = match jwk.get("alg") {
            None | Some(Value::Null) => None,
            Some(name) => {
                let known = name.as_str().and_then(Algorithm::named);
                Some(known.ok_or("its `alg` is not a signature algorithm that is accepted")?)
            }
        };
        let key: Jwk =
            serde_json::from_value(jwk.clone()).map_err(|_| "it is not a well-formed JWK")?;
        if key
            .common
            .public_key_use
            .is_some_and(|usage| usage != PublicKeyUse::Signature)
        {
            return Err("its `use` is not `sig`");
        }
        if key
            .common
            .key_operations
            .is_some_and(|operations| !operations.contains(&KeyOperations::Verify))
        {
            return Err("its `key_ops` do not have `verify`");
        }
        let parsed = parse_parameters(&key.algorithm)?;
        Ok(Self {
            id: key.common.key_id,
            algorithm,
            parsed,
        })
    }

    /// The key for one algorithm, unless its type does not allow that.
    pub(super) fn for_algorithm(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.parsed
            .iter()
            .find(|(allowed, _)| *allowed == algorithm)
            .map(|(_, key)| key)
    }
}

fn parse_parameters(
    parameters: &AlgorithmParameters,
) -> Result<Vec<(Algorithm, ParsedPublicKey)>, &'static str> {
    match parameters {
        AlgorithmParameters::RSA(rsa) => parse_rsa(&decode(&rsa.n)?, &decode(&rsa.e)?),
        AlgorithmParameters::EllipticCurve(point) => {
            let (algorithm, verification, width): (_, &'static dyn VerificationAlgorithm, _) =
                match point.curve {
                    EllipticCurve::P256 => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED, 32),
                    EllipticCurve::P384 => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED, 48),
                    EllipticCurve::P521 => (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED, 66),
                    _ => return Err("its curve is not P-256, P-384 or P-521"),
                };
            let (x, y) = (coordinate(&point.x, width)?, coordinate(&point.y, width)?);
            // SEC 1, section 2.3.3: an uncompressed point. The library checks that it is on the curve.
            let octets = [&[4], &x[..], &y[..]].concat();
            let key = ParsedPublicKey::new(verification, octets)
                .map_err(|_| "it is not a point on its curve")?;
            Ok(vec![(algorithm, key)])
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            let octets = decode(&pair.x)?;
            if is_low_order(&octets) {
                return Err("it is a point of low order");
            }
            let key = ParsedPublicKey::new(&ED25519, octets)
                .map_err(|_| "it is not an Ed25519 key of 32 octets")?;
            Ok(vec![(Algorithm::EdDsa, key)])
        }
        AlgorithmParameters::OctetKey(_) => {
            Err("it is a symmetric key, which has no place in a public key set")
        }
        _ => Err("its type is not RSA, EC or Ed25519"),
    }
}

/// Checks an RSA key before the arithmetic library sees it (RFC 8017, section 3.1; RFC 7518, section 3.3).
fn parse_rsa(
    modulus: &[u8],
    exponent: &[u8],
) -> Result<Vec<(Algorithm, ParsedPublicKey)>, &'static str> {
    let (modulus, exponent) = (
        without_leading_zeros(modulus),
        without_leading_zeros(exponent),
    );
    let is_odd = |number: &[u8]| number.last().is_some_and(|octet| octet & 1 == 1);
    if !(2048..=8192).contains(&bits(modulus)) || !is_odd(modulus) {
        return Err("its RSA modulus is not an odd number of 2048 to 8192 bits");
    }
    if !(2..=32).contains(&bits(exponent)) || !is_odd(exponent) {
        return Err("its RSA exponent is not an odd number from 3 to 2^32");
    }
    let key = PublicKeyComponents {
        n: modulus,
        e: exponent,
    };
    let parse = |(algorithm, parameters)| {
        let key = key
            .to_parsed_public_key(parameters)
            .map_err(|_| "it is not an RSA key")?;
        Ok((algorithm, key))
    };
    RSA.into_iter().map(parse).collect()
}

fn without_leading_zeros(octets: &[u8]) -> &[u8] {
    let start = octets
        .iter()
        .position(|octet| *octet != 0)
        .unwrap_or(octets.len());
    octets.get(start..).unwrap_or_default()
}

/// The length in bits of a number without leading zero octets.
fn bits(octets: &[u8]) -> usize {
    octets
        .first()
        .map_or(0, |first| octets.len() * 8 - first.leading_zeros() as usize)
}

/// A coordinate at the width of its field. Some issuers leave out leading zeros.
fn coordinate(text: &str, width: usize) -> Result<Vec<u8>, &'static str> {
    let octets = decode(text)?;
    let padding = width
        .checked_sub(octets.len())
        .ok_or("a coordinate is longer than its field")?;
    Ok([&vec![0; padding][..], &octets[..]].concat())
}

/// Some issuers pad their base64url.
fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|_| "a number of it is not base64url")
}

/// Whether an Ed25519 key is one of the points whose signatures anyone can make, in any spelling.
///
/// The seven encodings with a clear sign bit: 0, 1, two points of order 8, p - 1, p and p + 1, little endian.
fn is_low_order(octets: &[u8]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let Ok(mut point) = <[u8; 32]>::try_from(octets) else {
        return false;
    };
    let [first, middle @ .., last] = &mut point;
    *last &= 0x7f;
    let is_tiny = matches!(first, 0 | 1) && *last == 0 && middle.iter().all(|octet| *octet == 0);
    let is_huge = *first >= 0xec && *last == 0x7f && middle.iter().all(|octet| *octet == 0xff);
    is_tiny || is_huge || ORDER_8.contains(&point)
}
