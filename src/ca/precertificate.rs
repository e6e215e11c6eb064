//! Precertificate and certificate: one TBSCertificate, two signatures, and the proof that they agree (RFC 6962, 3.1).

use std::cell::RefCell;
use std::sync::Arc;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, Issuer, PublicKeyData, SerialNumber,
    SigningKey,
};

use crate::ca::authority::{Authority, AuthorityError};
use crate::ca::profile::CertificateProfile;
use crate::ctlog::{SignedCertificateTimestamp, Submission};
use crate::keys::SignatureAlgorithm;
use crate::x509::der::{self, DerError, tag};

/// `1.3.6.1.4.1.11129.2.4.3`: CT poison, DER.
const POISON_OID: &[u8] = &[
    0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x03,
];
/// `1.3.6.1.4.1.11129.2.4.2`: list of signed certificate timestamps, DER.
pub const SCT_LIST_OID: &[u8] = &[
    0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02,
];
/// The whole poison extension: critical, value NULL (RFC 6962, section 3.1).
const POISON: &[u8] = &[
    0x30, 0x13, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x03, 0x01, 0x01,
    0xff, 0x04, 0x02, 0x05, 0x00,
];
/// The `[3]` around the extensions of a TBSCertificate.
const EXTENSIONS_TAG: u8 = 0xa3;

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SUBJECT_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 14];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
/// digitalSignature alone.
const DIGITAL_SIGNATURE: &[u8] = &[0x03, 0x02, 0x07, 0x80];
/// codeSigning alone.
const CODE_SIGNING: &[u8] = &[
    0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03,
];

/// A TBSCertificate, open at its end for the one extension in which precertificate and certificate differ.
#[derive(Debug)]
struct Tbs {
    /// Version to SubjectPublicKeyInfo.
    head: Vec<u8>,
    /// The extensions that both share, one after the other.
    extensions: Vec<u8>,
}

impl Tbs {
    fn with_last_extension(&self, last: &[u8]) -> Vec<u8> {
        let extensions = der::encode(tag::SEQUENCE, &[&self.extensions, last]);
        der::encode(
            tag::SEQUENCE,
            &[&self.head, &der::encode(EXTENSIONS_TAG, &[&extensions])],
        )
    }
}

/// A signed precertificate: what a log takes, and what a certificate is made of.
#[derive(Debug)]
pub struct Precertificate {
    tbs: Tbs,
    submission: Submission,
}

impl Precertificate {
    /// What to submit to a log.
    #[must_use]
    pub fn submission(&self) -> Submission {
        self.submission.clone()
    }
}

impl Authority {
    /// Signs the precertificate of a profile.
    ///
    /// # Errors
    /// When the key does not sign.
    pub async fn precertify(
        &self,
        profile: &CertificateProfile,
    ) -> Result<Precertificate, AuthorityError> {
        let tbs = self.build(profile)?;
        let poisoned = tbs.with_last_extension(POISON);
        let logged_tbs = without_extension(&poisoned, POISON_OID).map_err(malformed)?;
        let submission = Submission {
            precertificate: self.sign(&poisoned).await?,
            tbs: logged_tbs,
            issuer_key_hash: self.issuer_key_hash,
            chain: Arc::clone(&self.chain),
        };
        Ok(Precertificate { tbs, submission })
    }

    /// Signs the certificate that belongs to a precertificate and the timestamp a log gave for it. DER.
    ///
    /// # Errors
    /// When the certificate would say anything else than what was logged, or the key does not sign.
    pub async fn certify(
        &self,
        precertificate: &Precertificate,
        sct: &SignedCertificateTimestamp,
    ) -> Result<Vec<u8>, AuthorityError> {
        let value = der::encode(tag::OCTET_STRING, &[&sct.list_extension_value()]);
        let extension = der::encode(tag::SEQUENCE, &[SCT_LIST_OID, &value]);
        let tbs = precertificate.tbs.with_last_extension(&extension);
        // The finished bytes are taken apart again: what the log holds must be what is signed now, whatever built it.
        let logged_tbs = &precertificate.submission.tbs;
        if without_extension(&tbs, SCT_LIST_OID).map_err(malformed)? != *logged_tbs {
            return Err(AuthorityError::Build(
                "the certificate differs from the logged precertificate".to_owned(),
            ));
        }
        self.sign(&tbs).await
    }

    /// Signs a certificate that is in no log; only for a server that was started with `--no-ct`. DER.
    ///
    /// # Errors
    /// When the key does not sign.
    pub async fn certify_unlogged(
        &self,
        profile: &CertificateProfile,
    ) -> Result<Vec<u8>, AuthorityError> {
        self.sign(&self.build(profile)?.with_last_extension(&[]))
            .await
    }

    /// Builds the TBSCertificate (RFC 5280, section 4.1.2) up to and without poison or timestamp.
    fn build(&self, profile: &CertificateProfile) -> Result<Tbs, AuthorityError> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&profile.serial));
        params.not_before = profile.not_before;
        params.not_after = profile.not_after;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = self.extensions(profile);

        let capture = TbsCapture::new(self.signer.algorithm());
        let issuer = Issuer::from_params(&self.issuer_params, capture);
        params
            .signed_by(issuer.key(), &issuer)
            .map_err(|error| AuthorityError::Build(format!("rcgen: {error}")))?;
        let captured = issuer.key().message.take();
        self.splice(&captured, profile.public_key.spki_der())
            .map_err(malformed)
    }

    /// The extensions in the order in which Sigstore certificates carry them; all but poison and timestamp.
    fn extensions(&self, profile: &CertificateProfile) -> Vec<CustomExtension> {
        let extension = |oid: &[u64], critical: bool, value: Vec<u8>| {
            let mut extension = CustomExtension::from_oid_content(oid, value);
            extension.set_criticality(critical);
            extension
        };
        let key_identifier = profile.public_key.key_identifier();
        let mut extensions = Vec::with_capacity(6 + profile.sigstore_extensions.len());
        extensions.push(extension(KEY_USAGE, true, DIGITAL_SIGNATURE.to_vec()));
        extensions.push(extension(EXTENDED_KEY_USAGE, false, CODE_SIGNING.to_vec()));
        let key_identifier = der::encode(tag::OCTET_STRING, &[&key_identifier]);
        extensions.push(extension(SUBJECT_KEY_IDENTIFIER, false, key_identifier));
        if let Some(identifier) = &self.authority_key_identifier {
            // AuthorityKeyIdentifier ::= SEQUENCE { [0] IMPLICIT OCTET STRING, … }
            let value = der::encode(tag::SEQUENCE, &[&der::encode(0x80, &[identifier])]);
            extensions.push(extension(AUTHORITY_KEY_IDENTIFIER, false, value));
        }
        // Critical, as the subject is empty (RFC 5280, section 4.2.1.6).
        extensions.push(extension(
            SUBJECT_ALTERNATIVE_NAME,
            true,
            profile.subject_alternative_name.clone(),
        ));
        extensions.extend(
            profile
                .sigstore_extensions
                .iter()
                .map(|sigstore| extension(&sigstore.oid(), false, sigstore.value.clone())),
        );
        extensions
    }

    /// Takes rcgen's TBSCertificate apart, and puts in the two parts that must keep the bytes they came with: the issuer's
    /// name (rcgen holds names in a map and can lose attributes) and the client's key.
    fn splice(&self, tbs: &[u8], public_key_der: &[u8]) -> Result<Tbs, DerError> {
        let (tbs, _) = der::expect(tbs, tag::SEQUENCE)?;
        let (version, rest) = der::read(tbs.content)?;
        let (serial, rest) = der::expect(rest, tag::INTEGER)?;
        let (algorithm, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (_issuer, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (validity, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (subject, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (_public_key, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (wrapper, _) = der::expect(rest, EXTENSIONS_TAG)?;
        let (extensions, _) = der::expect(wrapper.content, tag::SEQUENCE)?;
        let head = [
            version.whole,
            serial.whole,
            algorithm.whole,
            self.chain.issuing().subject_der(),
            validity.whole,
            subject.whole,
            public_key_der,
        ]
        .concat();
        Ok(Tbs {
            head,
            extensions: extensions.content.to_vec(),
        })
    }
}

fn malformed(_: DerError) -> AuthorityError {
    AuthorityError::Build("the TBSCertificate does not parse".to_owned())
}

/// Returns a TBSCertificate without the one extension of the given OID, all else byte for byte (RFC 6962, section 3.2).
///
/// # Errors
/// When `tbs` is no TBSCertificate, or does not have that extension exactly once.
pub fn without_extension(tbs: &[u8], oid: &[u8]) -> Result<Vec<u8>, DerError> {
    let (sequence, []) = der::expect(tbs, tag::SEQUENCE)? else {
        return Err(DerError);
    };
    let mut rest = sequence.content;
    let mut kept = Vec::with_capacity(tbs.len());
    let mut removed = 0;
    while !rest.is_empty() {
        let (field, behind) = der::read(rest)?;
        rest = behind;
        if field.tag != EXTENSIONS_TAG {
            kept.extend_from_slice(field.whole);
            continue;
        }
        let (list, []) = der::expect(field.content, tag::SEQUENCE)? else {
            return Err(DerError);
        };
        let mut extensions = list.content;
        let mut kept_extensions = Vec::with_capacity(extensions.len());
        while !extensions.is_empty() {
            let (extension, behind) = der::expect(extensions, tag::SEQUENCE)?;
            extensions = behind;
            if extension.content.starts_with(oid) {
                removed += 1;
            } else {
                kept_extensions.extend_from_slice(extension.whole);
            }
        }
        if !kept_extensions.is_empty() {
            let list = der::encode(tag::SEQUENCE, &[&kept_extensions]);
            kept.extend_from_slice(&der::encode(EXTENSIONS_TAG, &[&list]));
        }
    }
    if removed == 1 {
        Ok(der::encode(tag::SEQUENCE, &[&kept]))
    } else {
        Err(DerError)
    }
}

/// Stands in for the authority's key while rcgen builds: it keeps what it is asked to sign, and signs nothing. So rcgen's
/// synchronous signing never waits for a key that is far away, and the TBSCertificate is built once for two signatures.
struct TbsCapture {
    algorithm: &'static rcgen::SignatureAlgorithm,
    message: RefCell<Vec<u8>>,
}

impl TbsCapture {
    const fn new(algorithm: SignatureAlgorithm) -> Self {
        let algorithm = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            SignatureAlgorithm::EcdsaP384Sha384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            SignatureAlgorithm::EcdsaP521Sha512 => &rcgen::PKCS_ECDSA_P521_SHA512,
            SignatureAlgorithm::RsaPkcs1Sha256 => &rcgen::PKCS_RSA_SHA256,
            SignatureAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
        };
        Self {
            algorithm,
            message: RefCell::new(Vec::new()),
        }
    }
}

impl PublicKeyData for TbsCapture {
    fn der_bytes(&self) -> &[u8] {
        &[]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for TbsCapture {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.message.replace(message.to_vec());
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::ca::extensions;
    use crate::ca::hierarchy::{Hierarchy, Names};
    use crate::ca::request::{KeyEncoding, PermittedAlgorithms, ProofOfPossession, ProvenKey};
    use crate::client::{EphemeralKey, Expected, check_certificate};
    use crate::clock::{Clock, FixedClock};
    use crate::ctlog::sct::TimestampedEntry;
    use crate::identity::{BuildFact, BuildFacts, Identity, San};
    use crate::keys::memory::NewKey;
    use crate::keys::{InMemoryKey, Signer};
    use crate::random::SeededRandom;
    use crate::tlog::tree::sha256;
    use crate::x509::chain::CertificateChain;

    const NOW: &str = "2027-01-02T03:04:05.678Z";

    fn identity(email: &str, facts: &[(BuildFact, &str)]) -> Identity {
        let mut build = BuildFacts::default();
        for (fact, value) in facts {
            build.set(*fact, (*value).to_owned());
        }
        Identity {
            issuer_id: "test".into(),
            issuer_type: "email",
            issuer: "https://issuer.test".to_owned(),
            subject: "sub".to_owned(),
            challenge_claim: "email",
            challenge: email.to_owned(),
            san: San::Email(email.to_owned()),
            build,
        }
    }

    fn proven(key: &EphemeralKey, identity: &Identity) -> ProvenKey {
        let block = pem::encode(&pem::Pem::new("PUBLIC KEY", key.public_key_der()));
        let proof = ProofOfPossession::Challenge {
            public_key: block.into_bytes().into(),
            encoding: KeyEncoding::Pem,
            signature: key.sign(identity.challenge.as_bytes()),
        };
        proof
            .check(identity, &PermittedAlgorithms::default())
            .unwrap()
    }

    async fn authority(chain: CertificateChain, key: InMemoryKey) -> Authority {
        let now = FixedClock::at(NOW).now();
        Authority::new(Arc::new(chain), Arc::new(key), true, now)
            .await
            .unwrap()
    }

    async fn new_authority() -> Authority {
        let names = Names {
            organization: "Test".to_owned(),
            common_name: "Test root".to_owned(),
        };
        let now = FixedClock::at(NOW).now();
        let hierarchy = Hierarchy::generate(&names, now, &SeededRandom::new(3)).unwrap();
        authority(hierarchy.chain, hierarchy.issuing_key).await
    }

    /// A timestamp as a log with `log_key` gives it.
    fn timestamp(
        log_key: &InMemoryKey,
        submission: &Submission,
        extensions: Vec<u8>,
    ) -> SignedCertificateTimestamp {
        let entry = TimestampedEntry {
            timestamp: 1_798_859_045_678,
            issuer_key_hash: &submission.issuer_key_hash,
            tbs: &submission.tbs,
            extensions: &extensions,
        };
        let signature = log_key.sign_now(&entry.merkle_tree_leaf()).unwrap();
        let log_id = sha256(&[log_key.public_key_der()]);
        SignedCertificateTimestamp::by_ecdsa(log_id, 1_798_859_045_678, extensions, signature)
    }

    /// Mints for `identity` and has another implementation check all of it; returns precertificate and certificate.
    async fn mint(
        authority: &Authority,
        identity: &Identity,
        sct_extensions: Vec<u8>,
    ) -> (Vec<u8>, Vec<u8>) {
        let random = SeededRandom::new(5);
        let key = EphemeralKey::generate(&random).unwrap();
        let now = FixedClock::at(NOW).now();
        let profile =
            CertificateProfile::new(identity, proven(&key, identity), now, &random).unwrap();
        let (log_key, _) = InMemoryKey::generate(NewKey::P256).unwrap();

        let precertificate = authority.precertify(&profile).await.unwrap();
        let submission = precertificate.submission();
        let sct = timestamp(&log_key, &submission, sct_extensions);
        let certificate = authority.certify(&precertificate, &sct).await.unwrap();

        let San::Email(name) = &identity.san else {
            panic!("these tests use addresses")
        };
        let expected = Expected {
            public_key_der: &key.public_key_der(),
            name,
            issuer: &identity.issuer,
            authority_der: authority.chain().issuing().der(),
            log_key_der: log_key.public_key_der(),
            now,
        };
        check_certificate(&certificate, &expected).unwrap();
        (submission.precertificate, certificate)
    }

    #[tokio::test]
    async fn precertificate_and_certificate_differ_in_their_last_extension_alone() {
        let authority = new_authority().await;
        let identity = identity("Signer@Example.COM", &[(BuildFact::BuildTrigger, "push")]);
        // With the leaf's index the list's DER length takes two octets, without it one.
        for extensions in [vec![0, 0, 5, 0, 0, 0, 0, 7], Vec::new()] {
            let (precertificate, certificate) = mint(&authority, &identity, extensions).await;

            let (_, pre) = X509Certificate::from_der(&precertificate).unwrap();
            let (_, fin) = X509Certificate::from_der(&certificate).unwrap();
            let oids = |certificate: &X509Certificate<'_>| -> Vec<String> {
                certificate
                    .extensions()
                    .iter()
                    .map(|one| one.oid.to_id_string())
                    .collect()
            };
            let (mut before, mut after) = (oids(&pre), oids(&fin));
            assert_eq!(before.pop().unwrap(), "1.3.6.1.4.1.11129.2.4.3");
            assert_eq!(after.pop().unwrap(), "1.3.6.1.4.1.11129.2.4.2");
            assert_eq!(before, after);
            assert_eq!(
                before[..5],
                [
                    "2.5.29.15",
                    "2.5.29.37",
                    "2.5.29.14",
                    "2.5.29.35",
                    "2.5.29.17"
                ]
            );
            let poison = pre.extensions().last().unwrap();
            assert!(poison.critical && poison.value == [0x05, 0x00]);
            assert_eq!(
                without_extension(pre.tbs_certificate.as_ref(), POISON_OID),
                without_extension(fin.tbs_certificate.as_ref(), SCT_LIST_OID)
            );
            assert_eq!(fin.validity().not_before.timestamp(), 1_798_859_045);
            assert_eq!(fin.validity().not_after.timestamp(), 1_798_859_645);
            assert!(fin.subject().iter().next().is_none());
        }
    }

    #[tokio::test]
    async fn an_authority_whose_name_repeats_attributes_keeps_its_name() {
        let chain = CertificateChain::from_pem(include_str!(
            "../../tests/vectors/repeated-attributes-ca.pem"
        ))
        .unwrap();
        let key = pem::parse(include_str!(
            "../../tests/vectors/repeated-attributes-ca.key.pem"
        ))
        .unwrap();
        let authority = authority(chain, InMemoryKey::from_der(key.contents()).unwrap()).await;

        let (_, certificate) = mint(&authority, &identity("a@example.com", &[]), Vec::new()).await;

        let (_, certificate) = X509Certificate::from_der(&certificate).unwrap();
        assert_eq!(
            certificate.issuer().as_raw(),
            authority.chain().issuing().subject_der()
        );
        assert_eq!(certificate.issuer().iter().count(), 5);
    }

    #[tokio::test]
    async fn a_key_of_another_certificate_is_refused_at_start() {
        let names = Names {
            organization: "Test".to_owned(),
            common_name: "Test root".to_owned(),
        };
        let now = FixedClock::at(NOW).now();
        let hierarchy = Hierarchy::generate(&names, now, &SeededRandom::new(3)).unwrap();
        let (stranger, _) = InMemoryKey::generate(NewKey::P256).unwrap();

        let refused =
            Authority::new(Arc::new(hierarchy.chain), Arc::new(stranger), false, now).await;

        assert!(
            matches!(refused, Err(AuthorityError::KeyMismatch { .. })),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn an_authority_that_ends_within_ten_minutes_issues_nothing() {
        let authority = new_authority().await;
        let end = authority.chain().not_after();
        authority
            .check_lifetime(end - time::Duration::seconds(600))
            .unwrap();
        let late = authority.check_lifetime(end - time::Duration::seconds(599));
        assert!(matches!(late, Err(AuthorityError::EndsTooSoon { .. })));
    }

    #[test]
    fn an_extension_is_removed_only_where_it_stands_exactly_once() {
        let extension = |oid: &[u8]| der::encode(tag::SEQUENCE, &[oid, &[0x04, 0x00]]);
        let tbs = |extensions: &[Vec<u8>]| {
            let list = der::encode(tag::SEQUENCE, &[&extensions.concat()]);
            der::encode(
                tag::SEQUENCE,
                &[&[0x02, 0x01, 0x07], &der::encode(EXTENSIONS_TAG, &[&list])],
            )
        };
        let (poison, other) = (extension(POISON_OID), extension(SCT_LIST_OID));

        assert_eq!(
            without_extension(&tbs(&[other.clone(), poison.clone()]), POISON_OID),
            Ok(tbs(std::slice::from_ref(&other)))
        );
        // RFC 5280, 4.1.2.9: no empty list of extensions.
        assert_eq!(
            without_extension(&tbs(std::slice::from_ref(&poison)), POISON_OID).unwrap(),
            [0x30, 3, 2, 1, 7]
        );
        for refused in [
            tbs(&[other]),
            tbs(&[poison.clone(), poison]),
            Vec::new(),
            vec![0x30, 0x05, 0x02],
        ] {
            assert_eq!(
                without_extension(&refused, POISON_OID),
                Err(DerError),
                "{refused:02x?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_a_certificate_says_is_what_the_identity_says(
            local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,64}",
            facts in proptest::collection::vec("\\PC{0,300}", 20),
        ) {
            const FACTS: [BuildFact; 20] = [
                BuildFact::GithubWorkflowTrigger, BuildFact::GithubWorkflowSha, BuildFact::GithubWorkflowName,
                BuildFact::GithubWorkflowRepository, BuildFact::GithubWorkflowRef, BuildFact::BuildSignerUri,
                BuildFact::BuildSignerDigest, BuildFact::RunnerEnvironment, BuildFact::SourceRepositoryUri,
                BuildFact::SourceRepositoryDigest, BuildFact::SourceRepositoryRef,
                BuildFact::SourceRepositoryIdentifier, BuildFact::SourceRepositoryOwnerUri,
                BuildFact::SourceRepositoryOwnerIdentifier, BuildFact::BuildConfigUri, BuildFact::BuildConfigDigest,
                BuildFact::BuildTrigger, BuildFact::RunInvocationUri,
                BuildFact::SourceRepositoryVisibilityAtSigning, BuildFact::DeploymentEnvironment,
            ];
            let facts: Vec<_> = FACTS.iter().copied().zip(facts.iter().map(String::as_str)).collect();
            let identity = identity(&format!("{local}@example.com"), &facts);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_, certificate) = runtime.block_on(async {
                mint(&new_authority().await, &identity, vec![0, 0, 5, 0, 0, 0, 0, 9]).await
            });

            let (_, certificate) = X509Certificate::from_der(&certificate).unwrap();
            let found: Vec<(String, &[u8])> = certificate
                .extensions()
                .iter()
                .map(|extension| (extension.oid.to_id_string(), extension.value))
                .collect();
            for expected in extensions::encode(&identity).unwrap() {
                let oid = format!("1.3.6.1.4.1.57264.1.{}", expected.number);
                let value = found.iter().find(|(name, _)| *name == oid).map(|(_, value)| *value);
                prop_assert_eq!(value, Some(expected.value.as_slice()));
            }
        }
    }
}
