//! The bodies of the fuzz targets.
//!
//! Each takes any octets, asserts what must hold of them, and says whether they were accepted. libFuzzer calls them through
//! `fuzz_targets/`; the ordinary tests call them with every file of `corpus/`, so these files are built twice: here, with a
//! nightly compiler, and as a module of `tests/it`.

pub mod certificates;
pub mod configuration;
pub mod keys;
pub mod log;
pub mod requests;
pub mod templates;
pub mod tokens;
pub mod verification;

/// A target: asserts, and returns whether the input was accepted.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by the name that its corpus and its binary have.
pub const TARGETS: &[(&str, Target)] = &[
    ("certificate", certificates::certificate),
    ("certificate_file", verification::certificate_file),
    ("checkpoint_parse", log::checkpoint_parse),
    ("csr", keys::csr),
    ("data_tile", log::data_tile),
    ("discovery", tokens::discovery),
    ("http_raw", requests::http_raw),
    ("identity_yaml", configuration::identity_yaml),
    ("issuer_match", tokens::issuer_match),
    ("journal_frame", log::journal_frame),
    ("jwks", tokens::jwks),
    ("jws_parse", tokens::jws_parse),
    ("jwt_claims", tokens::jwt_claims),
    ("pem", keys::pem),
    ("precert_pair", certificates::precert_pair),
    ("proof", keys::proof),
    ("pubkey", keys::pubkey),
    ("request_grpc", requests::request_grpc),
    ("request_json", requests::request_json),
    ("rules", configuration::rules),
    ("sct_parse", certificates::sct_parse),
    ("server_yaml", configuration::server_yaml),
    ("template", templates::template),
    ("tile_path", log::tile_path),
    ("trusted_root", verification::trusted_root),
];

/// Asserts what is true of every message that a client may see: short, and in one line.
pub(crate) fn check_message(message: &impl ToString) {
    let message = message.to_string();
    assert!(message.len() <= 2048, "{} octets: {message}", message.len());
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

/// The key of the golden vectors, P-256: its scalar is `0x11` × 32.
pub(crate) fn golden_key() -> mayfly::keys::InMemoryKey {
    use p256::pkcs8::EncodePrivateKey as _;
    let key = p256::SecretKey::from_slice(&[0x11; 32]).unwrap();
    mayfly::keys::InMemoryKey::from_der(key.to_pkcs8_der().unwrap().as_bytes()).unwrap()
}
