//! What goes into certificates and comes back from logs: never bytes that another parser reads otherwise.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::FutureExt as _;
use mayfly::ca::authority::Authority;
use mayfly::ca::extensions;
use mayfly::ca::hierarchy::{Hierarchy, Names};
use mayfly::ca::precertificate::SCT_LIST_OID;
use mayfly::ca::profile::CertificateProfile;
use mayfly::ca::request::{PermittedAlgorithms, ProofOfPossession, ProvenKey};
use mayfly::ca::tbs::without_extension;
use mayfly::client::{Expected, check_certificate};
use mayfly::clock::{Clock as _, FixedClock};
use mayfly::ctlog::sct::{TimestampedEntry, leaf_index, leaf_index_extensions};
use mayfly::ctlog::{SignedCertificateTimestamp, Submission};
use mayfly::identity::{BuildFact, BuildFacts, Identity, San};
use mayfly::keys::{InMemoryKey, Signer as _};
use mayfly::random::{SeededRandom, SystemRandomness};
use mayfly::x509::der;
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_parser::extensions::{GeneralName, parse_ct_signed_certificate_timestamp_list};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::{check_message, golden_key};

/// The poison of a precertificate, `1.3.6.1.4.1.11129.2.4.3`, DER.
const POISON_OID: &[u8] = &[
    0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x03,
];

/// An identity: its precertificate and certificate say it, and nothing else, to three parsers.
///
/// A line each: the second of issuance, the issuer, the subject, the name in the certificate (`email:`, `uri:` or `other:` and
/// the name), and the values of build facts in the order of [`FACTS`].
pub fn certificate(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else {
        return false;
    };
    let Some((now, identity)) = read_identity(text) else {
        return false;
    };
    let world = &*WORLD;
    let random = SeededRandom::new(7);
    let profile = match CertificateProfile::new(&identity, world.client.clone(), now, &random) {
        Ok(profile) => profile,
        Err(error) => {
            check_message(&error);
            let is_fit = match &identity.san {
                San::Email(name) | San::Uri(name) => name.is_ascii(),
                San::OtherName(_) => true,
            };
            let is_printable = is_fit && !text.contains(|one| one != '\n' && char::is_control(one));
            assert!(
                identity.issuer.is_empty() || !is_printable || text.len() > 6 << 10,
                "{error}"
            );
            return false;
        }
    };
    let precertificate = world.authority.precertify(&profile).now_or_never();
    let precertificate = precertificate.unwrap().unwrap();
    let submission = precertificate.submission();
    let sct = world.timestamp(&submission, now);
    sct.verify(&submission, world.log.public_key_der()).unwrap();
    let certificate = world
        .authority
        .certify(&precertificate, &sct)
        .now_or_never();
    let certificate = certificate.unwrap().unwrap();

    let logged = |der: &[u8], oid| without_extension(&tbs_of(der), oid).unwrap();
    assert_eq!(
        logged(&submission.precertificate, POISON_OID),
        submission.tbs
    );
    assert_eq!(logged(&certificate, SCT_LIST_OID), submission.tbs);
    let (San::Email(name) | San::Uri(name) | San::OtherName(name)) = &identity.san;
    let expected = Expected {
        public_key_der: world.client.public_key().spki_der(),
        name,
        issuer: &identity.issuer,
        authority_der: world.authority.chain().issuing().der(),
        log_key_der: world.log.public_key_der(),
        now,
    };
    check_certificate(&certificate, &expected).unwrap();

    let (rest, parsed) = X509Certificate::from_der(&certificate).unwrap();
    assert!(rest.is_empty());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    match (&identity.san, &names.value.general_names[..]) {
        (San::Email(name), [GeneralName::RFC822Name(found)])
        | (San::Uri(name), [GeneralName::URI(found)]) => assert_eq!(name, found),
        (San::OtherName(name), [GeneralName::OtherName(kind, value)]) => {
            assert_eq!(kind.to_id_string(), "1.3.6.1.4.1.57264.1.7");
            assert!(value.ends_with(name.as_bytes()));
        }
        (san, found) => panic!("{san:?}, and {found:?}"),
    }
    let elsewhere = Certificate::from_der(&certificate).unwrap();
    assert_eq!(elsewhere.to_der().unwrap(), certificate);
    let found = elsewhere.tbs_certificate().extensions().unwrap();
    // Key usages, both key identifiers and the name come before the facts of the identity, the timestamp behind them.
    let facts = &found[5..found.len() - 1];
    let wanted = extensions::encode(&identity).unwrap();
    assert_eq!(facts.len(), wanted.len());
    for (found, wanted) in facts.iter().zip(&wanted) {
        assert_eq!(found.extn_id.to_der().unwrap(), wanted.oid_der());
        assert_eq!(found.extn_value.as_bytes(), wanted.value);
        assert!(!found.critical);
    }
    true
}

/// The facts of an input, in their order.
const FACTS: [BuildFact; 20] = [
    BuildFact::GithubWorkflowTrigger,
    BuildFact::GithubWorkflowSha,
    BuildFact::GithubWorkflowName,
    BuildFact::GithubWorkflowRepository,
    BuildFact::GithubWorkflowRef,
    BuildFact::BuildSignerUri,
    BuildFact::BuildSignerDigest,
    BuildFact::RunnerEnvironment,
    BuildFact::SourceRepositoryUri,
    BuildFact::SourceRepositoryDigest,
    BuildFact::SourceRepositoryRef,
    BuildFact::SourceRepositoryIdentifier,
    BuildFact::SourceRepositoryOwnerUri,
    BuildFact::SourceRepositoryOwnerIdentifier,
    BuildFact::BuildConfigUri,
    BuildFact::BuildConfigDigest,
    BuildFact::BuildTrigger,
    BuildFact::RunInvocationUri,
    BuildFact::SourceRepositoryVisibilityAtSigning,
    BuildFact::DeploymentEnvironment,
];

fn read_identity(text: &str) -> Option<(OffsetDateTime, Identity)> {
    let mut lines = text.split('\n');
    let second = lines.next()?.parse().ok()?;
    let now = OffsetDateTime::from_unix_timestamp(second).ok()?;
    // No certificate is issued before the CA, and none after the last year that a certificate can name.
    if !(1970..=9998).contains(&now.year()) {
        return None;
    }
    let issuer = lines.next()?.to_owned();
    let subject = lines.next()?.to_owned();
    let (kind, name) = lines.next()?.split_once(':')?;
    let san = match kind {
        "email" => San::Email(name.to_owned()),
        "uri" => San::Uri(name.to_owned()),
        "other" => San::OtherName(name.to_owned()),
        _ => return None,
    };
    let mut build = BuildFacts::default();
    for (fact, value) in FACTS.into_iter().zip(lines) {
        build.set(fact, value.to_owned());
    }
    let identity = Identity {
        issuer_id: "fuzz".into(),
        issuer_type: "email",
        issuer,
        challenge: subject.clone(),
        subject,
        challenge_claim: "sub",
        san,
        build,
        rate: None,
    };
    Some((now, identity))
}

fn tbs_of(certificate: &[u8]) -> Vec<u8> {
    let (certificate, _) = der::expect(certificate, der::tag::SEQUENCE).unwrap();
    let (tbs, _) = der::expect(certificate.content, der::tag::SEQUENCE).unwrap();
    tbs.whole.to_vec()
}

/// A CA, a log and a client.
struct World {
    authority: Authority,
    log: InMemoryKey,
    client: ProvenKey,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let now = FixedClock::at("2026-01-02T03:04:05Z").now();
    let names = Names {
        organization: "Mayfly".to_owned(),
        common_name: "Mayfly root CA".to_owned(),
    };
    let hierarchy = Hierarchy::generate(&names, now, &SystemRandomness).unwrap();
    let chain = Arc::new(hierarchy.chain);
    let authority = Authority::new(chain, Arc::new(hierarchy.issuing_key), false, now);
    let nobody = Identity {
        issuer_id: "".into(),
        issuer_type: "email",
        issuer: String::new(),
        subject: String::new(),
        challenge_claim: "sub",
        challenge: "challenge".to_owned(),
        san: San::Email(String::new()),
        build: BuildFacts::default(),
        rate: None,
    };
    let key = golden_key();
    let proof = ProofOfPossession::Challenge {
        public_key: Zeroizing::new(key.public_key_der().to_vec()),
        encoding: mayfly::ca::request::KeyEncoding::PemOrDer,
        signature: key.sign_now(nobody.challenge.as_bytes()).unwrap(),
    };
    World {
        authority: authority.now_or_never().unwrap().unwrap(),
        client: proof
            .check(&nobody, &PermittedAlgorithms::default())
            .unwrap(),
        log: key,
    }
});

impl World {
    fn timestamp(
        &self,
        submission: &Submission,
        now: OffsetDateTime,
    ) -> SignedCertificateTimestamp {
        let entry = TimestampedEntry {
            timestamp: u64::try_from(now.unix_timestamp()).unwrap() * 1000,
            issuer_key_hash: &submission.issuer_key_hash,
            tbs: &submission.tbs,
            extensions: &leaf_index_extensions(1),
        };
        let signature = self.log.sign_now(&entry.merkle_tree_leaf()).unwrap();
        let field = |content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&length, content].concat()
        };
        let sct = [
            &[0][..],
            digest(&SHA256, self.log.public_key_der()).as_ref(),
            &entry.timestamp.to_be_bytes(),
            &field(entry.extensions),
            &[4, 3],
            &field(&signature),
        ]
        .concat();
        SignedCertificateTimestamp::from_bytes(&sct).unwrap()
    }
}

/// A TBSCertificate: without its poison or timestamps it is what another library finds in it but for them.
pub fn precert_pair(input: &[u8]) -> bool {
    let removed = [POISON_OID, SCT_LIST_OID].map(|oid| {
        let without = without_extension(input, oid);
        check_removal(input, oid, without.as_deref().ok());
        without.is_ok()
    });
    removed.contains(&true)
}

fn check_removal(tbs: &[u8], oid: &[u8], without: Option<&[u8]>) {
    let parsed = TbsCertificate::from_der(tbs).ok();
    let is_canonical = |parsed: &TbsCertificate| parsed.to_der().unwrap() == tbs;
    let Some(parsed) = parsed.filter(is_canonical) else {
        if let Some(without) = without {
            assert!(without.len() < tbs.len());
            assert!(without_extension(without, oid).is_err());
        }
        return;
    };
    let extensions = parsed.extensions().map_or(&[][..], |list| list);
    let is_meant = |extension: &&x509_cert::ext::Extension| {
        extension.extn_id.to_der().is_ok_and(|found| found == oid)
    };
    let Some(without) = without else {
        assert_ne!(extensions.iter().filter(is_meant).count(), 1);
        return;
    };
    let after = TbsCertificate::from_der(without).unwrap();
    assert_eq!(after.to_der().unwrap(), without);
    let kept: Vec<_> = extensions.iter().filter(|one| !is_meant(one)).collect();
    assert_eq!(kept.len() + 1, extensions.len());
    let found: Vec<_> = after.extensions().into_iter().flatten().collect();
    assert_eq!(found, kept);
    assert_eq!(after.serial_number(), parsed.serial_number());
    assert_eq!(after.signature(), parsed.signature());
    assert_eq!(after.issuer(), parsed.issuer());
    assert_eq!(after.validity(), parsed.validity());
    assert_eq!(after.subject(), parsed.subject());
    assert_eq!(
        after.subject_public_key_info(),
        parsed.subject_public_key_info()
    );
}

/// A signed certificate timestamp, or a log's answer that holds one: it is read as another library reads it, and comes back
/// from being written.
pub fn sct_parse(input: &[u8]) -> bool {
    if let Ok(list) = SignedCertificateTimestamp::split_list(input) {
        let octets: usize = list.iter().map(|item| 2 + item.len()).sum();
        assert!(octets + 4 <= input.len());
    }
    if let Some(index) = leaf_index(input) {
        assert!(index < 1 << 40);
        assert_eq!(leaf_index(&leaf_index_extensions(index)), Some(index));
    }
    if let Ok(sct) = SignedCertificateTimestamp::from_add_chain_json(input) {
        let again =
            SignedCertificateTimestamp::from_add_chain_json(sct.add_chain_json().as_bytes());
        assert_eq!(again.as_ref(), Ok(&sct));
        assert_eq!(
            SignedCertificateTimestamp::from_bytes(&sct.bytes()),
            Ok(sct)
        );
        return true;
    }
    let sct = match SignedCertificateTimestamp::from_bytes(input) {
        Ok(sct) => sct,
        Err(error) => {
            check_message(&error);
            return false;
        }
    };
    assert_eq!(sct.bytes(), input);
    // A list has room for so many octets.
    if input.len() > usize::from(u16::MAX) - 2 {
        return true;
    }
    let value = sct.list_extension_value();
    assert_eq!(
        SignedCertificateTimestamp::split_list(&value),
        Ok(vec![input])
    );
    let (rest, list) = parse_ct_signed_certificate_timestamp_list(&value).unwrap();
    let [found] = &list[..] else {
        panic!("{list:?}");
    };
    assert!(rest.is_empty());
    assert_eq!(found.id.key_id, sct.log_id());
    assert_eq!(found.timestamp, sct.timestamp());
    assert_eq!(found.signature.data, sct.signature());
    assert_eq!(leaf_index(found.extensions.0), sct.leaf_index());
    true
}
