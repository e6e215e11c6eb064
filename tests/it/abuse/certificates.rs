//! Certificates: that each is what it should be, and that none leaves when something is wrong inside.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mayfly::clock::{Clock, FixedClock};
use mayfly::config::{ServerConfig, Settings};
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer};
use mayfly::fetch::{ClusterFiles, SystemResolver};
use mayfly::random::Random;
use mayfly::server::{Environment, Parts, StartError};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::support::faults::{BreakableRandomness, RandomFault};
use crate::support::http::{self, Answer, Request};
use crate::support::key::TestKey;
use crate::support::refusal::Expected;
use crate::support::server::{EMAIL, NOW, TestServer, Traces, V2, make_instance, test_keys};
use crate::support::wait_for;

/// What is answered when the CA cannot sign: our fault, to be tried again.
const CA_UNAVAILABLE: Expected<'_> = Expected {
    status: 503,
    code: 14,
    reasons: &["ca_unavailable"],
};
/// What is answered when something inside is broken.
const CA_ERROR: Expected<'_> = Expected {
    status: 500,
    code: 13,
    reasons: &["ca_error"],
};
/// The leaf of an answer of version 2, DER.
fn leaf_of(answer: &Answer) -> Vec<u8> {
    let chain = mayfly::client::certificates_of_answer(&answer.body).unwrap();
    chain.into_iter().next().unwrap()
}

fn serial_of(answer: &Answer) -> Vec<u8> {
    let leaf = leaf_of(answer);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    leaf.raw_serial().to_vec()
}

/// A request for a URI or a workflow, with a proof over the token's subject.
fn request_of(server: &TestServer, path: &str, claims: &TestClaims, subject: &str) -> Request {
    let clock = Arc::clone(&server.clock) as Arc<dyn Clock>;
    let url = format!("{}{path}", server.url);
    let issuer = TestIssuer::new(url, Arc::clone(test_keys()), clock);
    let token = issuer.token(claims, TestAlgorithm::Es256).unwrap();
    Request::post(V2, TestKey::generate().v2(subject).to_string()).bearer(&token)
}

/// X01, X18
#[test]
fn no_two_certificates_have_one_serial_number() {
    let servers = [TestServer::start(), TestServer::start()];
    let mut serials = BTreeSet::new();
    for server in &servers {
        // One request, sent again and again while the clock stands.
        let request = server.good_request();
        let before = server.traces();
        for count in 1..=20 {
            let serial = serial_of(&server.issues("the same again", &request));
            assert!(serial.len() == 20 && serial[0] < 0x80, "{serial:02x?}");
            assert!(serials.insert(serial), "twice");
            assert_eq!(server.traces().entries, before.entries + count);
        }
    }
}

/// X02
#[test]
fn without_randomness_nothing_is_issued() {
    let server = TestServer::start();
    server.random.set(Some(RandomFault::Fails));
    let request = server.good_request();
    server.answers_with("no randomness", &request, CA_ERROR);

    // The first of equal serial numbers is as good as any.
    server.random.set(Some(RandomFault::Constant));
    server.issues("the first", &request);
    for _ in 0..3 {
        server.answers_with("the same randomness", &request, CA_ERROR);
    }
    server.random.set(None);
    server.issues("randomness is back", &request);
}

/// Loads an instance in this environment, made in the other one.
fn load(made_in: &Environment, loaded_in: &Environment) -> Result<(), StartError> {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    make_instance(&data_dir, "http://ca.example.com", made_in);
    let identity_config = folder.path().join("identity.yaml");
    let url = "https://accounts.example.com";
    let issuer = format!(
        "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"
    );
    std::fs::write(&identity_config, issuer).unwrap();
    let settings = Settings {
        data_dir: Some(data_dir),
        identity_config: Some(identity_config),
        ..Settings::default()
    };
    let config = ServerConfig::new(settings).unwrap();
    Parts::load(&config, loaded_in, true).map(drop)
}

fn environment(now: &str, random: Arc<dyn Random>) -> Environment {
    Environment {
        clock: Arc::new(FixedClock::at(now)),
        random,
        resolver: Arc::new(SystemResolver),
        cluster_files: ClusterFiles::default(),
    }
}

/// X02, X14
#[test]
fn a_server_starts_only_with_randomness_and_a_ca_that_is_valid() {
    let sound = environment(NOW, Arc::new(BreakableRandomness::default()));
    load(&sound, &sound).unwrap();
    for fault in [RandomFault::Fails, RandomFault::Constant] {
        let random = BreakableRandomness::default();
        random.set(Some(fault));
        let broken = environment(NOW, Arc::new(random));
        let refused = load(&sound, &broken).unwrap_err();
        let words = "the system's source of randomness failed";
        assert_eq!(refused.to_string(), words, "{fault:?}");
    }
    for (now, words) in [
        // Validity begins five minutes before the instance is made.
        ("2026-01-02T02:59:04Z", "and the time is 2026-01-02 2:59:04"),
        ("2029-01-02T02:50:00Z", "rotate the CA"),
        ("2029-01-02T02:59:06Z", "and the time is 2029-01-02 2:59:06"),
        ("2040-01-01T00:00:00Z", "and the time is 2040-01-01"),
    ] {
        let later = environment(now, Arc::new(BreakableRandomness::default()));
        let refused = load(&sound, &later).unwrap_err().to_string();
        assert!(refused.contains(words), "{now}: {refused}");
    }
}

/// X04
#[test]
fn a_certificate_is_of_the_moment_at_which_its_request_came() {
    let server = TestServer::start();
    let log = server.log.as_ref().unwrap();
    log.hold();
    let request = server.good_request();
    let address = server.address;
    let waiting = std::thread::spawn(move || http::send(address, &request));
    wait_for("the submission", || (log.submissions() == 1).then_some(()));
    // Between precertificate and certificate.
    server.clock.advance(Duration::from_secs(3));
    log.let_go();
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let leaf = leaf_of(&answer);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let came = FixedClock::at(NOW).now().unix_timestamp();
    assert_eq!(leaf.validity().not_before.timestamp(), came);
    assert_eq!(leaf.validity().not_after.timestamp(), came + 600);
}

/// X06, X12, X19
#[test]
fn a_certificate_has_exactly_the_extensions_of_its_profile() {
    let server = TestServer::start();
    let claims = TestClaims::github("acme/app");
    let subject = "repo:acme/app:ref:refs/heads/main";
    let claims = claims.with("sub", subject);
    let workflow = request_of(&server, "/dev/oidc/github", &claims, subject);
    for (request, is_person) in [(server.good_request(), true), (workflow, false)] {
        let leaf = leaf_of(&server.issues("a good request", &request));
        let (rest, leaf) = X509Certificate::from_der(&leaf).unwrap();
        assert!(rest.is_empty());
        assert_eq!(leaf.version().0, 2);
        assert!(leaf.subject().iter().next().is_none(), "an empty subject");

        let extensions: Vec<(String, bool)> = leaf
            .extensions()
            .iter()
            .map(|one| (one.oid.to_id_string(), one.critical))
            .collect();
        let standard = [
            "2.5.29.15",
            "2.5.29.37",
            "2.5.29.14",
            "2.5.29.35",
            "2.5.29.17",
        ];
        for (position, (oid, is_critical)) in extensions.iter().enumerate() {
            let expected = ["2.5.29.15", "2.5.29.17"].contains(&oid.as_str());
            assert_eq!(*is_critical, expected, "{oid}");
            let is_last = position + 1 == extensions.len();
            match standard.get(position) {
                Some(standard) => assert_eq!(oid, standard),
                None if is_last => assert_eq!(oid, "1.3.6.1.4.1.11129.2.4.2"),
                None => assert!(oid.starts_with("1.3.6.1.4.1.57264.1."), "{oid}"),
            }
        }
        let distinct: BTreeSet<&String> = extensions.iter().map(|(oid, _)| oid).collect();
        assert_eq!(distinct.len(), extensions.len(), "no extension twice");

        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert_eq!(usage.flags, 1, "digitalSignature alone");
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.code_signing && extended.other.is_empty());
        assert!(!extended.any && !extended.server_auth && !extended.client_auth);
        assert!(leaf.basic_constraints().unwrap().is_none(), "no CA");
        let names = leaf.subject_alternative_name().unwrap().unwrap().value;
        match names.general_names.as_slice() {
            [GeneralName::RFC822Name(name)] => assert!(is_person && *name == EMAIL),
            [GeneralName::URI(name)] => assert!(!is_person && name.contains("acme/app")),
            other => panic!("{other:?}"),
        }
        let validity = leaf.validity();
        let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(seconds, 600);
    }
}

/// X07, X08
#[test]
fn names_that_a_certificate_cannot_carry_are_refused_with_the_claims() {
    let server = TestServer::start();
    for address in [
        "ada\0@example.com",
        "ada@example.com\0.evil.example",
        "ada\n@example.com",
        "ädä@example.com",
        "ada@exämple.com",
        "ada@example\u{202e}.com",
    ] {
        let token = server.token(&TestClaims::email(address).with("sub", "4711"));
        let body = TestKey::generate().v2(address).to_string();
        let request = Request::post(V2, body).bearer(&token);
        server.refuses(address, &request, &["invalid_email"]);
    }
    let base = &server.url;
    for subject in [
        format!("{base}/a\0b"),
        format!("{base}/a\nb"),
        format!("{base}/ä"),
        base.replace("127.0.0.1", "ex\u{e4}mple.com"),
        base.replace("127.0.0.1", "127.0.0.1\u{2024}"),
    ] {
        let claims = TestClaims::subject(&subject);
        let request = request_of(&server, "/dev/oidc/uri", &claims, &subject);
        let reasons = [
            "subject_domain_mismatch",
            "malformed_token",
            "missing_claim",
        ];
        server.refuses(&subject, &request, &reasons);
    }
}

/// X09
#[test]
fn an_identity_that_would_make_a_huge_certificate_is_refused() {
    let server = TestServer::start();
    let workflow = |octets: usize| {
        let text = "x".repeat(octets);
        let repository = format!("acme/{text}");
        let subject = "repo:acme/app:ref:refs/heads/main";
        let claims = TestClaims::github(&repository)
            .with("sub", subject)
            .with("workflow", text.as_str())
            .with("ref", format!("refs/heads/{text}"));
        request_of(&server, "/dev/oidc/github", &claims, subject)
    };
    let answer = server.refuses("1,900 octets each", &workflow(1900), &["template_error"]);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("expected at most 14336") && message.len() < 200,
        "{message}"
    );
    let leaf = leaf_of(&server.issues("1,000 octets each", &workflow(1000)));
    assert!((8000..16_384).contains(&leaf.len()), "{}", leaf.len());
    server.issues("a good request afterwards", &server.good_request());
}

/// X13, X14, K03
#[test]
fn nothing_is_issued_outside_of_the_validity_of_the_ca() {
    let server = TestServer::start();
    let chain = server.trust.chain.clone();
    let second = Duration::from_secs(1);
    server.clock.move_to(chain.not_before() - second);
    let early = server.good_request();
    server.answers_with("before the CA begins", &early, CA_UNAVAILABLE);
    server
        .clock
        .move_to(chain.not_after() - Duration::from_secs(600));
    server.issues("as long as the CA", &server.good_request());
    for beyond in [1, 599, 600, 86_400] {
        let now = chain.not_after() - Duration::from_secs(600) + second * beyond;
        server.clock.move_to(now);
        let late = server.good_request();
        server.answers_with("longer than the CA", &late, CA_UNAVAILABLE);
    }
}

/// X15
#[test]
fn a_clock_that_is_set_stops_the_ca_until_it_is_right() {
    let server = TestServer::start();
    server.issues("at first", &server.good_request());
    let now = server.clock.now();
    for (seconds, what) in [
        (-6, "six seconds back"),
        (6, "six seconds ahead"),
        (-3600, "an hour back"),
        (3600, "an hour ahead"),
    ] {
        // A checkpoint of a wrong time ahead could not be taken back.
        server.wait_for_checkpoint();
        server.clock.set(now + time::Duration::seconds(seconds));
        server.answers_with(what, &server.good_request(), CA_UNAVAILABLE);
        server.clock.set(now);
        server.issues("right again", &server.good_request());
    }
    // Corrections are taken over, as far as the log's timestamps need not go back.
    server.clock.set(now - Duration::from_secs(4));
    server.issues("four seconds back", &server.good_request());
    server.clock.set(now - Duration::from_secs(8));
    let before = server.traces();
    let answer = server.send(&server.good_request());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("mayfly-reason"), Some("ct_unavailable"));
    // A precertificate was signed, which nobody has; the log holds nothing of it.
    let expected = Traces {
        submissions: before.submissions + 1,
        signatures: before.signatures + 1,
        ..before
    };
    assert_eq!(server.traces(), expected);
    server.clock.set(now - Duration::from_secs(4));
    server.issues("four seconds back again", &server.good_request());
}

/// X20
#[test]
fn a_signature_that_does_not_verify_never_leaves() {
    let server = TestServer::start();
    server.key.garble(true);
    let before = server.traces();
    for request in [server.good_request(), server.good_request_v1()] {
        let answer = server.send(&request);
        assert_eq!(answer.status, CA_ERROR.status, "{}", answer.text());
        assert_eq!(answer.header("mayfly-reason"), Some("ca_error"));
        assert!(!answer.text().contains("CERTIFICATE"), "{}", answer.text());
    }
    // It was noticed at the precertificate: the log was not asked.
    let expected = Traces {
        signatures: before.signatures + 2,
        ..before
    };
    assert_eq!(server.traces(), expected);
    server.key.garble(false);
    server.issues("sound again", &server.good_request());
}

/// X03, X20
#[test]
fn a_fault_between_precertificate_and_certificate_shows_nothing() {
    let server = TestServer::start();
    let log = server.log.as_ref().unwrap();
    log.hold();
    let before = server.traces();
    let request = server.good_request();
    let address = server.address;
    let waiting = std::thread::spawn(move || http::send(address, &request));
    wait_for("the submission", || (log.submissions() == 1).then_some(()));
    server.key.garble(true);
    log.let_go();
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status, CA_ERROR.status, "{}", answer.text());
    assert_eq!(answer.header("mayfly-reason"), Some("ca_error"));
    assert!(!answer.text().contains("CERTIFICATE"), "{}", answer.text());
    // The log holds a precertificate whose certificate does not exist.
    let expected = Traces {
        entries: before.entries + 1,
        submissions: before.submissions + 1,
        signatures: before.signatures + 2,
        certificates: before.certificates,
    };
    assert_eq!(server.traces(), expected);
}
