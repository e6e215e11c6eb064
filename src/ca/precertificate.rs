//! Precertificate and certificate: one TBSCertificate, two signatures, and the proof that they agree (RFC 6962, 3.1).

use std::sync::Arc;

use crate::ca::authority::{Authority, AuthorityError};
use crate::ca::profile::CertificateProfile;
use crate::ca::tbs::{Tbs, without_extension};
use crate::ctlog::{SignedCertificateTimestamp, Submission};
use crate::x509::der::{self, DerError, tag};

/// `1.3.6.1.4.1.11129.2.4.3`: CT poison, DER.
pub const POISON_OID: &[u8] = &[
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
/// A signed precertificate: what a log takes, and what a certificate is made of.
#[derive(Debug)]
pub struct Precertificate {
    tbs: Tbs,
    submission: Arc<Submission>,
}

impl Precertificate {
    /// What to submit to a log.
    #[must_use]
    pub fn submission(&self) -> Arc<Submission> {
        Arc::clone(&self.submission)
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
        let tbs = self.template.fill(profile);
        let poisoned = tbs.with_last_extension(POISON);
        let logged_tbs = without_extension(&poisoned, POISON_OID).map_err(malformed)?;
        let submission = Submission {
            precertificate: self.sign_first(&poisoned).await?,
            tbs: logged_tbs,
            issuer_key_hash: self.issuer_key_hash,
            chain: Arc::clone(&self.chain),
        };
        Ok(Precertificate {
            tbs,
            submission: Arc::new(submission),
        })
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
        self.sign_again(&tbs).await
    }

    /// Signs a certificate that is in no log; only for a server that was started with `--no-ct`. DER.
    ///
    /// # Errors
    /// When the key does not sign.
    pub async fn certify_unlogged(
        &self,
        profile: &CertificateProfile,
    ) -> Result<Vec<u8>, AuthorityError> {
        self.sign_first(&self.template.fill(profile).with_last_extension(&[]))
            .await
    }
}

fn malformed(_: DerError) -> AuthorityError {
    AuthorityError::Build("the TBSCertificate does not parse".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::BoxFuture;
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
    use crate::keys::{InMemoryKey, SignError, SignatureAlgorithm, Signer};
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
            rate: None,
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
        (submission.precertificate.clone(), certificate)
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

    /// A key that counts its signatures.
    #[derive(Debug)]
    struct CountingKey(InMemoryKey, AtomicU64);

    impl Signer for CountingKey {
        fn algorithm(&self) -> SignatureAlgorithm {
            self.0.algorithm()
        }

        fn public_key_der(&self) -> &[u8] {
            self.0.public_key_der()
        }

        fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.sign(message)
        }
    }

    #[tokio::test]
    async fn what_differs_from_the_logged_precertificate_is_not_signed() {
        let names = Names {
            organization: "Test".to_owned(),
            common_name: "Test root".to_owned(),
        };
        let now = FixedClock::at(NOW).now();
        let hierarchy = Hierarchy::generate(&names, now, &SeededRandom::new(3)).unwrap();
        let signer = Arc::new(CountingKey(hierarchy.issuing_key, AtomicU64::new(0)));
        let chain = Arc::new(hierarchy.chain);
        let authority = Authority::new(chain, Arc::clone(&signer) as _, false, now).await;
        let authority = authority.unwrap();
        let random = SeededRandom::new(5);
        let identity = identity("a@example.com", &[]);
        let precertify = async |seconds: i64| {
            let key = EphemeralKey::generate(&random).unwrap();
            let at = now + time::Duration::seconds(seconds);
            let profile =
                CertificateProfile::new(&identity, proven(&key, &identity), at, &random).unwrap();
            authority.precertify(&profile).await.unwrap()
        };
        let (logged, other) = (precertify(0).await, precertify(1).await);
        let (log_key, _) = InMemoryKey::generate(NewKey::P256).unwrap();
        let sct = timestamp(&log_key, &logged.submission, Vec::new());
        let before = signer.1.load(Ordering::Relaxed);

        let crossed = Precertificate {
            tbs: other.tbs,
            submission: logged.submission.clone(),
        };
        let refused = authority.certify(&crossed, &sct).await;

        assert!(
            matches!(refused, Err(AuthorityError::Build(_))),
            "{refused:?}"
        );
        assert_eq!(signer.1.load(Ordering::Relaxed), before, "signatures");
        authority.certify(&logged, &sct).await.unwrap();
        assert_eq!(signer.1.load(Ordering::Relaxed), before + 1, "signatures");
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
    async fn an_authority_that_has_not_begun_issues_nothing() {
        let authority = new_authority().await;
        let start = authority.chain().not_before();
        authority.check_lifetime(start).unwrap();
        let early = authority.check_lifetime(start - time::Duration::seconds(1));
        assert!(matches!(early, Err(AuthorityError::NotYetValid { .. })));
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_a_certificate_says_is_what_the_identity_says(
            local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,64}",
            facts in proptest::collection::vec("\\PC{0,150}", 20),
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
