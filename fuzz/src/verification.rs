//! What a verifier is given: whom to trust, and certificates of anybody.

use std::sync::LazyLock;

use mayfly::client::certificates::certificates_in;
use mayfly::client::details::CertificateDetails;
use mayfly::client::trusted_root::TrustedRoot;
use mayfly::client::verify::{Question, When, verify};
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The trusted root of a test server, and the only certificate in the corpus that it issued for a workflow.
const ROOT: &[u8] = include_bytes!("../corpus/trusted_root/root");
const GOLDEN: &[u8] = include_bytes!("../corpus/certificate_file/der");

static TRUSTED: LazyLock<TrustedRoot> = LazyLock::new(|| TrustedRoot::parse(ROOT).unwrap());

/// A `trusted_root.json` or a `trust_config.json`: what is trusted are certificates that another library reads, and keys that
/// are found by their ids; nobody else's certificate passes.
pub fn trusted_root(input: &[u8]) -> bool {
    let root = match TrustedRoot::parse(input) {
        Ok(root) => root,
        Err(error) => {
            let message = error.to_string();
            assert!(!message.chars().any(char::is_control), "{message:?}");
            return false;
        }
    };
    for authority in &root.authorities {
        let certificates = authority.chain.certificates();
        assert!(!certificates.is_empty());
        for certificate in certificates {
            let (rest, _) = X509Certificate::from_der(certificate.der()).unwrap();
            assert!(rest.is_empty());
        }
        let _ = authority.valid_for.to_string();
    }
    for log in &root.ct_logs {
        assert_eq!(root.ct_log(&log.id).unwrap().id, log.id);
    }
    check_verdict(GOLDEN, &root);
    true
}

/// A file with certificates in any form that clients write: what passes against a fixed root is signed by its CA as another
/// library sees it, and says what was issued; what is told of a certificate can be written as JSON.
pub fn certificate_file(input: &[u8]) -> bool {
    let Ok(ders) = certificates_in(input) else {
        return false;
    };
    assert!(!ders.is_empty());
    let mut are_certificates = true;
    for der in &ders {
        let details = CertificateDetails::read(der);
        let is_certificate = matches!(X509Certificate::from_der(der), Ok(([], _)));
        assert_eq!(details.is_some(), is_certificate);
        are_certificates &= is_certificate;
        if let Some(details) = details {
            let _ = serde_json::to_string(&details).unwrap();
        }
        if check_verdict(der, &TRUSTED) {
            let issued = Certificate::from_der(der).unwrap();
            let golden = Certificate::from_der(GOLDEN).unwrap();
            assert_eq!(
                issued.tbs_certificate().to_der().unwrap(),
                golden.tbs_certificate().to_der().unwrap()
            );
        }
    }
    are_certificates
}

/// Verifies a certificate, and says whether it passed.
fn check_verdict(der: &[u8], root: &TrustedRoot) -> bool {
    let question = |when| Question {
        trusted_root: root,
        when,
        identity: None,
        issuer: None,
        public_key_der: None,
    };
    let logged = verify(der, &question(When::Logged));
    let never = verify(der, &question(When::At(OffsetDateTime::UNIX_EPOCH)));
    let has_passed = logged.failure().is_none();
    // Whatever counts has a CA and a log that are trusted, and what the time has no part in is the same at any time.
    assert_eq!(logged.authority.is_some(), never.authority.is_some());
    assert_eq!(logged.log.is_some(), never.log.is_some());
    assert!(!has_passed || logged.authority.is_some() && logged.log.is_some());
    has_passed
}
