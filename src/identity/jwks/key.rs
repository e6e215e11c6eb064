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
use crate::x509::ed25519_point;

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
                    EllipticCurve::Ed25519 | _ => {
                        return Err("its curve is not P-256, P-384 or P-521");
                    }
                };
            let (x, y) = (coordinate(&point.x, width)?, coordinate(&point.y, width)?);
            // SEC 1, section 2.3.3: an uncompressed point. The library checks that it is on the curve.
            let octets = [&[4], &x[..], &y[..]].concat();
            let key = ParsedPublicKey::new(verification, octets)
                .map_err(|_| "it is not a point on its curve")?;
            Ok(vec![(algorithm, key)])
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            let point: [u8; 32] = decode(&pair.x)?
                .try_into()
                .map_err(|_| "it is not an Ed25519 key of 32 octets")?;
            if !ed25519_point::is_usable(&point) {
                return Err("it is not a point of full order in its canonical form");
            }
            let key =
                ParsedPublicKey::new(&ED25519, point).map_err(|_| "it is not an Ed25519 key")?;
            Ok(vec![(Algorithm::EdDsa, key)])
        }
        AlgorithmParameters::OctetKey(_) => {
            Err("it is a symmetric key, which has no place in a public key set")
        }
        AlgorithmParameters::OctetKeyPair(_) | AlgorithmParameters::Other(_) | _ => {
            Err("its type is not RSA, EC or Ed25519")
        }
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

#[cfg(test)]
mod wycheproof;

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
    };
    use num_bigint::BigUint;
    use serde_json::json;

    use super::*;

    const MESSAGE: &[u8] = b"header.claims";

    fn encode(octets: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(octets)
    }

    /// A JWK with its coordinates, and a signature by the key.
    fn ec_key(
        curve: &str,
        algorithm: &'static EcdsaSigningAlgorithm,
        width: usize,
    ) -> (Value, Vec<u8>) {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(width);
        let jwk = json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) });
        let signature = pair
            .sign(&aws_lc_rs::rand::SystemRandom::new(), MESSAGE)
            .unwrap();
        (jwk, signature.as_ref().to_vec())
    }

    fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Value {
        json!({ "kty": "RSA", "n": encode(modulus), "e": encode(exponent) })
    }

    /// An odd number of so many bits.
    fn odd(bits: usize) -> Vec<u8> {
        ((BigUint::from(1_u8) << (bits - 1)) | BigUint::from(1_u8)).to_bytes_be()
    }

    fn why(jwk: &Value) -> &'static str {
        VerificationKey::parse(jwk).unwrap_err()
    }

    #[test]
    fn each_curve_verifies_its_own_algorithm() {
        for (curve, signing, width, algorithm) in [
            (
                "P-384",
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                48,
                Algorithm::Es384,
            ),
            (
                "P-521",
                &ECDSA_P521_SHA512_FIXED_SIGNING,
                66,
                Algorithm::Es512,
            ),
        ] {
            let (jwk, signature) = ec_key(curve, signing, width);
            let key = VerificationKey::parse(&jwk).unwrap();
            key.for_algorithm(algorithm)
                .unwrap()
                .verify_sig(MESSAGE, &signature)
                .unwrap();
            let others = Algorithm::ALL
                .into_iter()
                .filter(|other| *other != algorithm);
            assert!(
                others
                    .into_iter()
                    .all(|other| key.for_algorithm(other).is_none()),
                "{curve}"
            );
        }
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) });
        let key = VerificationKey::parse(&jwk).unwrap();
        key.for_algorithm(Algorithm::EdDsa)
            .unwrap()
            .verify_sig(MESSAGE, pair.sign(MESSAGE).as_ref())
            .unwrap();
    }

    #[test]
    fn coordinates_without_their_leading_zeros_are_padded() {
        let (jwk, signature) = loop {
            let (jwk, signature) = ec_key("P-521", &ECDSA_P521_SHA512_FIXED_SIGNING, 66);
            // A coordinate of P-521 begins with a zero octet every other time.
            let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
            if x[0] == 0 {
                let mut jwk = jwk;
                jwk["x"] = json!(encode(&x[1..]));
                break (jwk, signature);
            }
        };
        let key = VerificationKey::parse(&jwk).unwrap();
        key.for_algorithm(Algorithm::Es512)
            .unwrap()
            .verify_sig(MESSAGE, &signature)
            .unwrap();
    }

    #[test]
    fn points_that_are_not_keys_are_refused() {
        let (good, _) = ec_key("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING, 48);
        let with = |name: &str, octets: &[u8]| {
            let mut key = good.clone();
            key[name] = json!(encode(octets));
            key
        };
        let x = URL_SAFE_NO_PAD.decode(good["x"].as_str().unwrap()).unwrap();
        for key in [
            with("y", &x),
            with("x", &[0; 48]),
            with("x", &[]),
            with("y", &[0xff; 48]),
        ] {
            assert_eq!(why(&key), "it is not a point on its curve");
        }
        assert_eq!(
            why(&with("x", &[1; 49])),
            "a coordinate is longer than its field"
        );
        for curve in ["secp256k1", "Ed448", "P-256K"] {
            let mut key = good.clone();
            key["crv"] = json!(curve);
            assert_eq!(why(&key), "its type is not RSA, EC or Ed25519", "{curve}");
        }
        let mut key = good.clone();
        key["crv"] = json!("P-256");
        assert_eq!(why(&key), "a coordinate is longer than its field");
    }

    #[test]
    fn ed25519_keys_of_low_order_are_refused() {
        let key = |octets: &[u8]| json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(octets) });
        let with_ends = |first: u8, middle: u8, last: u8| {
            let mut point = [middle; 32];
            point[0] = first;
            point[31] = last;
            point
        };
        for point in [
            with_ends(0, 0, 0),
            with_ends(1, 0, 0),
            with_ends(0, 0, 0x80),
            with_ends(1, 0, 0x80),
            with_ends(0xec, 0xff, 0x7f),
            with_ends(0xed, 0xff, 0x7f),
            with_ends(0xee, 0xff, 0xff),
        ] {
            assert_eq!(
                why(&key(&point)),
                "it is not a point of full order in its canonical form",
                "{point:02x?}"
            );
            // The premise: the curve's library of another author calls these weak as well.
            let point = ed25519_dalek::VerifyingKey::from_bytes(&point);
            assert!(point.is_err() || point.is_ok_and(|point| point.is_weak()));
        }
        for octets in [&[7; 31][..], &[7; 33], &[]] {
            assert_eq!(why(&key(octets)), "it is not an Ed25519 key of 32 octets");
        }
    }

    #[test]
    fn rsa_keys_that_are_weak_or_strange_are_refused() {
        let e = [1, 0, 1];
        let weak_modulus = "its RSA modulus is not an odd number of 2048 to 8192 bits";
        let weak_exponent = "its RSA exponent is not an odd number from 3 to 2^32";
        let mut even = odd(2048);
        *even.last_mut().unwrap() = 0;
        for (modulus, exponent, expected) in [
            (odd(1024), &e[..], weak_modulus),
            (odd(2047), &e, weak_modulus),
            (odd(8193), &e, weak_modulus),
            ([&[0; 128][..], &odd(1024)].concat(), &e, weak_modulus),
            (even, &e, weak_modulus),
            (odd(2048), &[1], weak_exponent),
            (odd(2048), &[2], weak_exponent),
            (odd(2048), &[], weak_exponent),
            (odd(2048), &[0], weak_exponent),
            (odd(2048), &[1, 0, 0, 0, 1], weak_exponent),
        ] {
            assert_eq!(why(&rsa_key(&modulus, exponent)), expected);
        }
        for (modulus, exponent) in [
            (odd(2048), &e[..]),
            (odd(8192), &e),
            ([&[0][..], &odd(2048)].concat(), &[0, 3]),
        ] {
            let key = VerificationKey::parse(&rsa_key(&modulus, exponent)).unwrap();
            assert!(
                key.for_algorithm(Algorithm::Ps512).is_some()
                    && key.for_algorithm(Algorithm::Es256).is_none()
            );
        }
    }

    #[test]
    fn numbers_may_be_padded() {
        let mut key = rsa_key(&odd(2048), &[1, 0, 1]);
        let padded = format!("{}==", key["n"].as_str().unwrap());
        key["n"] = json!(padded);
        assert!(VerificationKey::parse(&key).is_ok());
    }
}
