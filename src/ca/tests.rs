//! Whole certificates, for any identity, client's key and authority's key, as two other X.509 parsers read them.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::signature as lc;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use x509_cert::Certificate;
use x509_cert::der::asn1::Utf8StringRef;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::authority::Authority;
use super::hierarchy::{Hierarchy, Names};
use super::profile::CertificateProfile;
use super::request::{KeyEncoding, PermittedAlgorithms, ProofOfPossession};
use crate::clock::{Clock, FixedClock};
use crate::ctlog::SignedCertificateTimestamp;
use crate::identity::{BuildFact, BuildFacts, Identity, San};
use crate::keys::{InMemoryKey, SignatureAlgorithm};
use crate::random::SeededRandom;
use crate::x509::algorithm::KeyKind;
use crate::x509::chain::CertificateChain;
use crate::x509::test_key::TestKey;

const NOW: &str = "2027-01-02T03:04:05.678Z";

/// A build fact, the last arc of its extension, and whether that holds the bare text.
const FACTS: [(BuildFact, u8, bool); 20] = [
    (BuildFact::GithubWorkflowTrigger, 2, true),
    (BuildFact::GithubWorkflowSha, 3, true),
    (BuildFact::GithubWorkflowName, 4, true),
    (BuildFact::GithubWorkflowRepository, 5, true),
    (BuildFact::GithubWorkflowRef, 6, true),
    (BuildFact::BuildSignerUri, 9, false),
    (BuildFact::BuildSignerDigest, 10, false),
    (BuildFact::RunnerEnvironment, 11, false),
    (BuildFact::SourceRepositoryUri, 12, false),
    (BuildFact::SourceRepositoryDigest, 13, false),
    (BuildFact::SourceRepositoryRef, 14, false),
    (BuildFact::SourceRepositoryIdentifier, 15, false),
    (BuildFact::SourceRepositoryOwnerUri, 16, false),
    (BuildFact::SourceRepositoryOwnerIdentifier, 17, false),
    (BuildFact::BuildConfigUri, 18, false),
    (BuildFact::BuildConfigDigest, 19, false),
    (BuildFact::BuildTrigger, 20, false),
    (BuildFact::RunInvocationUri, 21, false),
    (BuildFact::SourceRepositoryVisibilityAtSigning, 22, false),
    (BuildFact::DeploymentEnvironment, 23, false),
];

/// Keys of every kind, of RSA the shortest alone, made once: they take a while.
fn client_keys() -> &'static [TestKey; 5] {
    static KEYS: OnceLock<[TestKey; 5]> = OnceLock::new();
    use KeyKind::{EcdsaP256, EcdsaP384, EcdsaP521, Ed25519, Rsa2048};
    KEYS.get_or_init(|| [EcdsaP256, EcdsaP384, EcdsaP521, Ed25519, Rsa2048].map(TestKey::new))
}

fn identity(san: San, subject: &str, facts: &[String]) -> Identity {
    let mut build = BuildFacts::default();
    for ((fact, ..), text) in FACTS.iter().zip(facts) {
        build.set(*fact, text.clone());
    }
    Identity {
        issuer_id: "test".into(),
        issuer_type: "uri",
        issuer: "https://issuer.test".to_owned(),
        subject: subject.to_owned(),
        challenge_claim: "sub",
        challenge: subject.to_owned(),
        san,
        build,
        rate: None,
    }
}

async fn authority() -> Authority {
    let names = Names {
        organization: "Test".to_owned(),
        common_name: "Test root".to_owned(),
    };
    let now = FixedClock::at(NOW).now();
    let hierarchy = Hierarchy::generate(&names, now, &SeededRandom::new(3)).unwrap();
    let (chain, key) = (Arc::new(hierarchy.chain), Arc::new(hierarchy.issuing_key));
    Authority::new(chain, key, true, now).await.unwrap()
}

/// The precertificate and the certificate for an identity and a key, DER.
async fn mint(
    authority: &Authority,
    identity: &Identity,
    key: &TestKey,
    sct_extensions: Vec<u8>,
) -> (Vec<u8>, Vec<u8>) {
    let proof = ProofOfPossession::Challenge {
        public_key: key.pem().into_bytes().into(),
        encoding: KeyEncoding::Pem,
        signature: key.prove(&identity.challenge),
    };
    let permitted = PermittedAlgorithms::default();
    let key = proof.check(identity, &permitted).unwrap();
    let now = FixedClock::at(NOW).now();
    let profile = CertificateProfile::new(identity, key, now, &SeededRandom::new(5)).unwrap();
    let precertificate = authority.precertify(&profile).await.unwrap();
    let sct = SignedCertificateTimestamp::by_ecdsa([7; 32], 1, sct_extensions, vec![0x30, 0]);
    let certificate = authority.certify(&precertificate, &sct).await.unwrap();
    (
        precertificate.submission().precertificate.clone(),
        certificate,
    )
}

/// A certificate as the second parser reads it, which has to write it as it was.
fn read(der: &[u8]) -> Certificate {
    let certificate = Certificate::from_der(der).unwrap();
    assert_eq!(certificate.to_der().unwrap(), der);
    certificate
}

/// Checks that precertificate and certificate are equal but for their last extensions: poison and timestamps (RFC 6962,
/// section 3.1).
fn check_pair(precertificate: &[u8], certificate: &[u8]) {
    let (pre, fin) = (read(precertificate), read(certificate));
    let (pre, fin) = (pre.tbs_certificate(), fin.tbs_certificate());
    assert_eq!(pre.version(), fin.version());
    assert_eq!(pre.serial_number(), fin.serial_number());
    assert_eq!(pre.signature(), fin.signature());
    assert_eq!(pre.issuer(), fin.issuer());
    assert_eq!(pre.validity(), fin.validity());
    assert_eq!(pre.subject(), fin.subject());
    assert_eq!(pre.subject_public_key_info(), fin.subject_public_key_info());
    let extensions = [pre, fin].map(|tbs| tbs.extensions().unwrap().as_slice());
    let [(poison, before), (list, after)] = extensions.map(|all| all.split_last().unwrap());
    assert_eq!(before, after);
    let is_poison = |one: &Extension| {
        one.extn_id.to_string() == "1.3.6.1.4.1.11129.2.4.3"
            && one.critical
            && one.extn_value.as_bytes() == [5, 0]
    };
    assert!(is_poison(poison), "{poison:?}");
    assert_eq!(list.extn_id.to_string(), "1.3.6.1.4.1.11129.2.4.2");
    assert!(!list.critical);
    let mut seen: Vec<String> = after.iter().map(|one| one.extn_id.to_string()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), after.len(), "no extension twice: {seen:?}");
}

fn text_of_fact(bytes: &[u8], is_bare: bool) -> String {
    if is_bare {
        return String::from_utf8(bytes.to_vec()).unwrap();
    }
    Utf8StringRef::from_der(bytes).unwrap().as_str().to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_certificate_says_what_was_proven_and_was_logged_as_it_is(
        is_email in any::<bool>(),
        name in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,64}",
        subject in "\\PC{1,100}",
        facts in proptest::collection::vec("\\PC{0,150}", FACTS.len()),
        key in 0..5_usize,
        has_index in any::<bool>(),
    ) {
        let san = if is_email {
            San::Email(format!("{name}@example.com"))
        } else {
            San::Uri(format!("https://example.com/{name}"))
        };
        let identity = identity(san, &subject, &facts);
        let key = &client_keys()[key];
        let sct_extensions = if has_index { vec![0, 0, 5, 0, 0, 0, 0, 9] } else { Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (precertificate, certificate) = runtime.block_on(async {
            mint(&authority().await, &identity, key, sct_extensions).await
        });

        check_pair(&precertificate, &certificate);
        let (rest, first) = X509Certificate::from_der(&certificate).unwrap();
        let second = read(&certificate);
        prop_assert!(rest.is_empty());
        prop_assert_eq!(first.public_key().raw, key.spki_der());
        let public_key = second.tbs_certificate().subject_public_key_info();
        prop_assert_eq!(public_key.to_der().unwrap(), key.spki_der());

        let names = first.subject_alternative_name().unwrap().unwrap();
        prop_assert!(names.critical && first.subject().iter().next().is_none());
        let name = match (&identity.san, names.value.general_names.as_slice()) {
            (San::Email(expected), [GeneralName::RFC822Name(name)])
            | (San::Uri(expected), [GeneralName::URI(name)]) => (expected.as_str(), *name),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(name.0, name.1);

        let second = second.tbs_certificate().extensions().unwrap();
        let value = |number: u8| {
            let oid = format!("1.3.6.1.4.1.57264.1.{number}");
            let one = first.extensions().iter().find(|one| one.oid.to_id_string() == oid);
            let other = second.iter().find(|one| one.extn_id.to_string() == oid);
            assert_eq!(one.map(|one| one.value), other.map(|one| one.extn_value.as_bytes()));
            assert!(one.is_none_or(|one| !one.critical));
            one.map(|one| one.value)
        };
        for ((_, number, is_bare), text) in FACTS.iter().zip(&facts) {
            let found = value(*number).map(|bytes| text_of_fact(bytes, *is_bare));
            let expected = Some(text.clone()).filter(|text| !text.is_empty());
            prop_assert_eq!(found, expected, "{}", number);
        }
        prop_assert_eq!(text_of_fact(value(1).unwrap(), true), identity.issuer.clone());
        prop_assert_eq!(text_of_fact(value(8).unwrap(), false), identity.issuer.clone());
        prop_assert_eq!(text_of_fact(value(24).unwrap(), false), subject);
    }
}

/// An authority whose one certificate is a root with a key that rcgen makes.
async fn authority_with(algorithm: &'static rcgen::SignatureAlgorithm) -> Authority {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key).unwrap();
    let chain = CertificateChain::from_ders(&[root.der().to_vec()]).unwrap();
    let key = InMemoryKey::from_der(key.serialized_der()).unwrap();
    let now = FixedClock::at(NOW).now();
    Authority::new(Arc::new(chain), Arc::new(key), true, now)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_authority_signs_with_the_hash_of_its_kind_of_key_and_says_so_twice() {
    let kinds: [(_, _, &'static dyn lc::VerificationAlgorithm, _); 5] = [
        (
            &rcgen::PKCS_ECDSA_P256_SHA256,
            SignatureAlgorithm::EcdsaP256Sha256,
            &lc::ECDSA_P256_SHA256_ASN1,
            "1.2.840.10045.4.3.2",
        ),
        (
            &rcgen::PKCS_ECDSA_P384_SHA384,
            SignatureAlgorithm::EcdsaP384Sha384,
            &lc::ECDSA_P384_SHA384_ASN1,
            "1.2.840.10045.4.3.3",
        ),
        (
            &rcgen::PKCS_ECDSA_P521_SHA512,
            SignatureAlgorithm::EcdsaP521Sha512,
            &lc::ECDSA_P521_SHA512_ASN1,
            "1.2.840.10045.4.3.4",
        ),
        (
            &rcgen::PKCS_RSA_SHA256,
            SignatureAlgorithm::RsaPkcs1Sha256,
            &lc::RSA_PKCS1_2048_8192_SHA256,
            "1.2.840.113549.1.1.11",
        ),
        (
            &rcgen::PKCS_ED25519,
            SignatureAlgorithm::Ed25519,
            &lc::ED25519,
            "1.3.101.112",
        ),
    ];
    for (kind, algorithm, verification, oid) in kinds {
        let authority = authority_with(kind).await;
        let identity = identity(San::Uri("https://example.com/a".to_owned()), "a", &[]);
        let (precertificate, certificate) =
            mint(&authority, &identity, &client_keys()[0], Vec::new()).await;

        check_pair(&precertificate, &certificate);
        for der in [&precertificate, &certificate] {
            let (_, parsed) = X509Certificate::from_der(der).unwrap();
            let (outside, inside) = (
                &parsed.signature_algorithm,
                &parsed.tbs_certificate.signature,
            );
            assert_eq!(outside, inside);
            assert_eq!(outside.algorithm.to_id_string(), oid);
            // NULL with RSA (RFC 4055, section 5), nothing with the others (RFC 5758, section 3.2; RFC 8410, section 3).
            let is_rsa = algorithm == SignatureAlgorithm::RsaPkcs1Sha256;
            assert_eq!(outside.parameters.is_some(), is_rsa, "{oid}");
            assert_eq!(
                read(der).signature_algorithm().to_der().unwrap(),
                algorithm.identifier_der()
            );
            let key = authority.chain().issuing().public_key_der();
            lc::UnparsedPublicKey::new(verification, key)
                .verify(
                    parsed.tbs_certificate.as_ref(),
                    &parsed.signature_value.data,
                )
                .unwrap();
        }
    }
}

#[test]
fn a_chain_ends_with_the_first_of_its_certificates_to_end() {
    let moment = |text| FixedClock::at(text).now();
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (root.not_before, root.not_after) = (
        moment("2027-01-01T00:00:00Z"),
        moment("2027-02-01T00:00:00Z"),
    );
    let mut issuing = CertificateParams::default();
    issuing.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    issuing.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
    (issuing.not_before, issuing.not_after) = (
        moment("2026-12-01T00:00:00Z"),
        moment("2028-01-01T00:00:00Z"),
    );
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuing = issuing
        .signed_by(&key, &rcgen::Issuer::new(root, root_key))
        .unwrap();
    let ders = [issuing.der().to_vec(), root_certificate.der().to_vec()];
    let chain = CertificateChain::from_ders(&ders).unwrap();
    assert_eq!(chain.not_before(), moment("2027-01-01T00:00:00Z"));
    assert_eq!(chain.not_after(), moment("2027-02-01T00:00:00Z"));
}
