//! What the tests of this module and of the log's pages share.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use url::Url;

use super::embedded::{EmbeddedLog, EmbeddedLogConfig, EmbeddedLogParts};
use crate::clock::FixedClock;
use crate::keys::deterministic::DeterministicKey;
use crate::random::SeededRandom;
use crate::store::MemoryStore;
use crate::x509::chain::CertificateChain;

/// A chain of one self-signed certificate.
pub(crate) fn chain() -> CertificateChain {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    CertificateChain::from_ders(&[certificate.der().to_vec()]).unwrap()
}

/// What a log is given in tests: its key is the one of the golden vectors, and its clock stands at their time.
pub(crate) fn parts(store: &MemoryStore) -> EmbeddedLogParts {
    EmbeddedLogParts {
        store: Arc::new(store.clone()),
        signer: Arc::new(DeterministicKey::new(0x11)),
        clock: Arc::new(FixedClock::at("2026-01-01T00:00:00.123Z")),
        random: Arc::new(SeededRandom::new(1)),
        metrics: None,
        on_fatal: Arc::new(|why| panic!("{why}")),
    }
}

/// A log `main` at `https://ca.example`, created and opened in an empty store.
pub(crate) fn new_log(config: EmbeddedLogConfig) -> EmbeddedLog {
    let settings = config
        .check(&Url::parse("https://ca.example").unwrap())
        .unwrap();
    let parts = parts(&MemoryStore::default());
    EmbeddedLog::create(&settings, &parts).unwrap();
    EmbeddedLog::open(settings, &parts).unwrap()
}

/// The submission of the golden vectors, under another chain.
pub(crate) fn submission() -> super::Submission {
    super::sct::tests::submission()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let octet = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(octet).collect()
}
