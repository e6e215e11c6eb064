//! Every way in which a request for a certificate is refused: what the client reads, and that nothing happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::Signer as _;
use futures_util::FutureExt as _;
use mayfly::api::ErrorDetail;
use mayfly::clock::Clock;
use mayfly::config::{ErrorDetailName, Settings};
use mayfly::ctlog::SubmitError;
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer};
use serde_json::{Value, json};

use crate::support::http::{Answer, Connection, Request};
use crate::support::key::{self, TestKey};
use crate::support::server::{EMAIL, TestServer, Traces, V1, V2, test_keys};
use crate::support::wait_for;

const TOKEN: &str = "There was an error processing the identity token";
const PUBLIC_KEY: &str = "The public key supplied in the request could not be parsed";
const CSR: &str = "The certificate signing request could not be parsed";
const INSECURE: &str = "The public key supplied in the request is insecure";
const SIGNATURE: &str = "The signature supplied in the request could not be verified";
const LOG: &str = "Error entering certificate in CTL";
const CA: &str = "error communicating with CA backend";

/// A request, and what it is answered with.
struct Case {
    request: Request,
    status: u16,
    code: u8,
    reason: &'static str,
    /// The text of the stage, to the letter.
    fixed: &'static str,
    /// What follows it; `{base}` stands for the server's URL.
    detail: &'static str,
}

impl Case {
    /// A fault of the client.
    fn refused(
        request: Request,
        reason: &'static str,
        fixed: &'static str,
        detail: &'static str,
    ) -> Self {
        Self {
            request,
            status: 400,
            code: 3,
            reason,
            fixed,
            detail,
        }
    }

    fn with_status(self, status: u16, code: u8) -> Self {
        Self {
            status,
            code,
            ..self
        }
    }

    /// The exact body.
    fn body(&self, server: &TestServer, detail: ErrorDetail) -> String {
        let message = match (detail, self.detail) {
            (ErrorDetail::Compatible, _) | (_, "") => self.fixed.to_owned(),
            (ErrorDetail::Reason, detail) => {
                format!("{}: {}", self.fixed, detail.replace("{base}", &server.url))
            }
        };
        json!({ "code": self.code, "message": message, "details": [] }).to_string()
    }
}

/// Sends a case and checks the whole answer, the metrics, and that it left no other trace.
fn check(server: &TestServer, case: &Case, detail: ErrorDetail) {
    let before = server.traces();
    let answer = server.send(&case.request);
    check_answer(server, case, detail, &answer);
    assert_eq!(server.traces(), before, "what {:?} did", answer.text());
}

fn check_answer(server: &TestServer, case: &Case, detail: ErrorDetail, answer: &Answer) {
    assert_eq!(answer.text(), case.body(server, detail));
    assert_eq!(answer.status, case.status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let reason = (detail == ErrorDetail::Reason).then_some(case.reason);
    assert_eq!(answer.header("mayfly-reason"), reason, "{}", answer.text());
    let retry_after = answer.header("retry-after");
    let is_right = match case.status {
        503 => matches!(retry_after, Some("1" | "2" | "3")),
        _ => retry_after.is_none(),
    };
    assert!(is_right, "{retry_after:?}: {}", answer.text());
}

/// A request with a good token of these claims, and a good proof.
fn with_claims(server: &TestServer, claims: &TestClaims) -> Request {
    with_token(&server.token(claims))
}

fn with_token(token: &str) -> Request {
    Request::post(V2, TestKey::generate().v2(EMAIL).to_string()).bearer(token)
}

/// A request with a good token and this body.
fn with_body(server: &TestServer, body: &Value) -> Request {
    Request::post(V2, body.to_string()).bearer(&server.token(&TestClaims::email(EMAIL)))
}

/// A token whose header and payload are these, signed with the issuer's key.
fn signed(header: &Value, payload: &Value) -> String {
    let (header, payload) = (header.to_string(), payload.to_string());
    test_keys()
        .sign(header.as_bytes(), payload.as_bytes(), TestAlgorithm::Es256)
        .unwrap()
}

/// Issuers that the server cannot get keys from.
const MORE_ISSUERS: &str = "
  http://127.0.0.1:1:
    issuer-url: http://127.0.0.1:1
    client-id: sigstore
    type: email
  {base}/dev/nothing:
    issuer-url: {base}/dev/nothing
    client-id: sigstore
    type: email
";

/// Faults of the token: class A of the contract.
fn token_cases(server: &TestServer) -> Vec<Case> {
    let good = TestKey::generate().v2(EMAIL).to_string();
    let good_v1 = TestKey::generate().v1(EMAIL).to_string();
    let email = || TestClaims::email(EMAIL);
    let token = server.token(&email());
    let (head_and_payload, _) = token.rsplit_once('.').unwrap();
    let now = server.clock.now().unix_timestamp();
    let es256 = |kid: &str| json!({ "alg": "ES256", "kid": kid });
    let payload = json!({ "iss": server.issuers.email().unwrap().url(), "aud": "sigstore", "exp": now + 300, "sub": EMAIL });
    let elsewhere = |url: String, claims: &TestClaims| {
        let clock = Arc::clone(&server.clock) as Arc<dyn Clock>;
        TestIssuer::new(url, Arc::clone(test_keys()), clock)
            .token(claims, TestAlgorithm::Es256)
            .unwrap()
    };
    let uri = |subject: &str| {
        let token = elsewhere(
            format!("{}/dev/oidc/uri", server.url),
            &TestClaims::subject(subject),
        );
        Request::post(V2, TestKey::generate().v2(subject).to_string()).bearer(&token)
    };
    let refused = |request, reason, detail| Case::refused(request, reason, TOKEN, detail);
    vec![
        refused(Request::post(V2, good.clone()), "missing_token", "the request has no ID token; send `credentials.oidcIdentityToken` or `Authorization: Bearer <token>`"),
        refused(Request::post(V2, ""), "missing_token", "the request has no ID token; send `credentials.oidcIdentityToken` or `Authorization: Bearer <token>`"),
        refused(Request::post(V2, "{}"), "missing_token", "the request has no ID token; send `credentials.oidcIdentityToken` or `Authorization: Bearer <token>`"),
        refused(Request::post(V1, good_v1.clone()), "missing_token", "the request has no ID token; send `Authorization: Bearer <token>`"),
        refused(Request::post(V2, good.clone()).bearer(&token).bearer(&token), "missing_token", "the request has more than one Authorization header"),
        refused(with_token("one.two"), "malformed_token", "the ID token is malformed: expected three parts with a dot between them (JWS compact serialization)"),
        refused(with_token(&format!("{head_and_payload}.!")), "malformed_token", "the ID token is malformed: its signature is not base64url without padding"),
        refused(with_token(&signed(&es256("test-ec"), &json!([]))), "malformed_token", "the ID token is malformed: its claims set is not a JSON object: expected an object"),
        refused(with_token(&"a".repeat(32_769)), "token_too_large", "the ID token has 32769 octets, expected at most 32768"),
        refused(
            with_token(&format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(payload.to_string()))),
            "unsupported_alg",
            r#"the ID token is signed with "none", expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"#,
        ),
        refused(with_token(&signed(&json!({ "alg": "HS256" }), &payload)), "unsupported_alg", r#"the ID token is signed with "HS256", expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"#),
        refused(with_token(&elsewhere("https://elsewhere.example".to_owned(), &email())), "issuer_unknown", r#"the issuer "https://elsewhere.example" is not configured; the claim `iss` must equal a configured issuer octet for octet"#),
        refused(with_token(&elsewhere("http://127.0.0.1:1".to_owned(), &email())), "issuer_unavailable", r#"the keys of issuer "http://127.0.0.1:1" cannot be fetched: discovery document: the connection failed; try again later"#)
            .with_status(503, 14),
        refused(with_token(&elsewhere(format!("{}/dev/nothing", server.url), &email())), "issuer_unavailable", r#"the keys of issuer "{base}/dev/nothing" cannot be used: discovery document: the server answered with status 404, expected 200"#),
        refused(with_token(&signed(&es256("other"), &payload)), "unknown_key", r#"the issuer "{base}/dev/oidc" publishes no usable key for the ID token (`kid` "other", ES256)"#),
        refused(with_token(&format!("{head_and_payload}.{}", "A".repeat(86))), "bad_token_signature", r#"the signature of the ID token does not verify with the keys of issuer "{base}/dev/oidc""#),
        refused(with_claims(server, &email().with("exp", now - 1)), "token_expired", "the ID token expired at 2026-01-02T03:04:04Z, 1 s before the server's time; fetch a fresh one"),
        refused(with_claims(server, &email().with("nbf", now + 301)), "token_not_yet_valid", "the ID token is not valid before 2026-01-02T03:09:06Z, 301 s after the server's time; compare the clocks"),
        refused(with_claims(server, &email().with("aud", "elsewhere")), "audience_mismatch", r#"the ID token is for audience "elsewhere", expected "sigstore""#),
        refused(with_claims(server, &email().with("email_verified", false)), "email_not_verified", "the issuer does not confirm the e-mail address; expected the claim `email_verified` to be true"),
        refused(with_claims(server, &email().without("email")), "invalid_email", "the e-mail address cannot be used: the claim `email` is missing or not a string"),
        refused(with_claims(server, &email().with("email", "ada")), "invalid_email", "the e-mail address cannot be used: the claim `email` has no @"),
        // Fulcio finds this one later, as class H: a name that no certificate can carry.
        refused(
            with_claims(server, &TestClaims::email("ädä@example.com")),
            "invalid_email",
            "the e-mail address cannot be used: the claim `email` is not ASCII, which the certificate's rfc822Name must be",
        ),
        refused(uri("https://elsewhere.example/ada"), "subject_domain_mismatch", r#"the claim `sub` is "https://elsewhere.example/ada", expected a URI at {base}"#),
        refused(uri(EMAIL), "ambiguous_identity", "the claim `sub` is an e-mail address, expected a URI"),
        refused(
            with_token(&elsewhere(format!("{}/dev/oidc/github", server.url), &TestClaims::github("acme/app").without("sha"))),
            "missing_claim",
            "the ID token has no claim `sha`, which the issuer's type needs",
        ),
    ]
}

/// Faults of key and proof: classes B to G.
fn key_cases(server: &TestServer) -> Vec<Case> {
    let key = TestKey::generate();
    let proof = key.proof(EMAIL);
    let v2 = |public_key: &str, proof: &str| with_body(server, &key::v2(public_key, proof));
    let csr = |pem: &str| with_body(server, &key::csr(pem));
    let token = server.token(&TestClaims::email(EMAIL));
    let v1_without_key = json!({ "signedEmailAddress": proof }).to_string();
    let private_key = "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n";
    let own = server.key.unwatched();
    let own_pem = pem::encode(&pem::Pem::new("PUBLIC KEY", own.public_key_der()));
    let own_proof = own.sign(EMAIL.as_bytes()).now_or_never().unwrap().unwrap();
    let good_csr = key::new_csr();
    let mut changed = pem::parse(&good_csr).unwrap().into_contents();
    *changed.last_mut().unwrap() ^= 1;
    let changed_csr = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", changed));
    let der_csr = json!({ "certificateSigningRequest": STANDARD.encode(pem::parse(&good_csr).unwrap().contents()) });
    vec![
        // B
        Case::refused(
            with_body(server, &json!({})),
            "malformed_public_key",
            PUBLIC_KEY,
            "the request holds neither a public key nor a certificate signing request; send the PEM text of a public key",
        ),
        Case::refused(
            v2("not PEM", &proof),
            "malformed_public_key",
            PUBLIC_KEY,
            "there is no PEM block (a line `-----BEGIN …-----`); expected a PEM block labelled PUBLIC KEY",
        ),
        Case::refused(
            v2(&STANDARD.encode(key.der()), &proof),
            "malformed_public_key",
            PUBLIC_KEY,
            "there is no PEM block (a line `-----BEGIN …-----`); expected a PEM block labelled PUBLIC KEY",
        ),
        Case::refused(
            v2(private_key, &proof),
            "malformed_public_key",
            PUBLIC_KEY,
            "the public key field holds a private key; stop using that key, and send only the public key",
        ),
        Case::refused(
            v2(&good_csr, &proof),
            "malformed_public_key",
            PUBLIC_KEY,
            "the PEM block is not labelled PUBLIC KEY or RSA PUBLIC KEY",
        ),
        Case::refused(
            Request::post(V1, v1_without_key).bearer(&token),
            "malformed_public_key",
            PUBLIC_KEY,
            "the request has neither `publicKey` nor `certificateSigningRequest`",
        ),
        // C
        Case::refused(
            csr("not PEM"),
            "malformed_csr",
            CSR,
            "there is no PEM block (a line `-----BEGIN …-----`); expected a PEM block labelled CERTIFICATE REQUEST",
        ),
        Case::refused(
            csr(&key.pem()),
            "malformed_csr",
            CSR,
            "the PEM block is not labelled CERTIFICATE REQUEST or NEW CERTIFICATE REQUEST",
        ),
        Case::refused(
            with_body(server, &der_csr),
            "malformed_csr",
            CSR,
            "the certificate signing request is DER; send its PEM text, base64-encoded once more",
        ),
        // D
        Case::refused(
            v2(include_str!("fixtures/rsa-1024.pub.pem"), &proof),
            "weak_key",
            INSECURE,
            "the RSA key has 1024 bits; use one of exactly 2048, 3072 or 4096 bits",
        ),
        Case::refused(
            v2(include_str!("fixtures/p-224.pub.pem"), &proof),
            "algorithm_not_permitted",
            INSECURE,
            "public keys of ECDSA P-224 are not accepted; use ECDSA P-256, P-384 or P-521, RSA of 2048, 3072 or 4096 bits, or Ed25519",
        ),
        Case::refused(
            csr(include_str!("fixtures/rsa-1024.csr.pem")),
            "weak_key",
            INSECURE,
            "in the certificate signing request: the RSA key has 1024 bits; use one of exactly 2048, 3072 or 4096 bits",
        ),
        Case::refused(
            v2(&own_pem, &STANDARD.encode(own_proof)),
            "weak_key",
            INSECURE,
            "the key belongs to this server itself",
        ),
        // E
        Case::refused(
            v2(&key.pem(), &key.proof("eve@example.com")),
            "bad_proof",
            SIGNATURE,
            r#"the proof of possession does not verify; the signature must be over the token's `email` claim ("ada@example.com") with ECDSA P-256 and SHA-256"#,
        ),
        Case::refused(
            v2(&key.pem(), ""),
            "bad_proof",
            SIGNATURE,
            r#"no proof of possession was sent; the signature must be over the token's `email` claim ("ada@example.com") with ECDSA P-256 and SHA-256"#,
        ),
        Case::refused(
            csr(&changed_csr),
            "bad_proof",
            SIGNATURE,
            "the certificate signing request is not signed with its own key, or was changed since",
        ),
        // F
        Case::refused(
            csr(include_str!("fixtures/rsa-pss.csr.pem")),
            "algorithm_not_permitted",
            "unrecognized signature algorithm: SHA256-RSAPSS",
            "the certificate signing request is signed with SHA256-RSAPSS; use RSA PKCS#1 v1.5 with SHA-256",
        ),
    ]
}

/// Bodies that are not the JSON of the endpoint. Fulcio's own texts for them are those of its JSON library; only status
/// and code matter to clients.
fn body_cases(server: &TestServer) -> Vec<Case> {
    let token = server.token(&TestClaims::email(EMAIL));
    let bodies: &[(&str, &'static str)] = &[
        (
            "hello",
            "the request body is not valid: expected value at line 1 column 1",
        ),
        (
            "[]",
            "the request body is not valid: invalid type: sequence, expected the request body to be an object at line 1 column 2",
        ),
        (
            "null",
            "the request body is not valid: the request body must be an object, not null",
        ),
        (
            "{",
            "the request body is not valid: EOF while parsing an object at line 1 column 1",
        ),
        (
            "{} {}",
            "the request body is not valid: trailing characters at line 1 column 4",
        ),
        (
            r#"{"credentials":{},"credentials":{}}"#,
            "the request body is not valid: `credentials` is given twice at line 1 column 31",
        ),
        (
            r#"{"publicKeyRequest":{"proofOfPossession":"!!!"}}"#,
            "the request body is not valid: `proofOfPossession` is not base64 at line 1 column 46",
        ),
        (
            r#"{"publicKeyRequest":{},"certificateSigningRequest":"AA=="}"#,
            "the request body is not valid: `publicKeyRequest` and `certificateSigningRequest` exclude each other at line 1 \
             column 58",
        ),
        (
            r#"{"publicKeyRequest":{"publicKey":{"content":7}}}"#,
            "the request body is not valid: invalid type: integer `7`, expected `content` to be a string at line 1 column 45",
        ),
        (
            r#"{"credentials":"secret"}"#,
            "the request body is not valid: `credentials` must be an object, not a string at line 1 column 23",
        ),
    ];
    let case = |(body, fixed): &(&str, &'static str)| {
        let request = Request::post(V2, *body).bearer(&token);
        Case::refused(request, "malformed_request", fixed, "")
    };
    bodies.iter().map(case).collect()
}

fn all_cases(server: &TestServer) -> Vec<Case> {
    let mut cases = token_cases(server);
    cases.extend(key_cases(server));
    cases.extend(body_cases(server));
    cases
}

#[test]
fn requests_are_refused_in_fulcios_words_and_with_a_reason() {
    let server = TestServer::start_with(|_| {}, MORE_ISSUERS);
    let mut expected = BTreeMap::new();
    for case in all_cases(&server) {
        check(&server, &case, ErrorDetail::Reason);
        *expected.entry(case.reason).or_insert(0) += 1;
    }
    for (reason, count) in expected {
        assert_eq!(server.refusals(reason), count, "{reason}");
    }
    assert_eq!(
        server.send(&server.good_request()).status,
        200,
        "a good request after all of them"
    );
}

#[test]
fn compatible_refusals_say_what_fulcio_says_and_no_more() {
    let compatible = |settings: &mut Settings| {
        settings.error_detail = Some(ErrorDetailName(ErrorDetail::Compatible))
    };
    let server = TestServer::start_with(compatible, MORE_ISSUERS);
    for case in all_cases(&server) {
        check(&server, &case, ErrorDetail::Compatible);
    }
}

#[test]
fn algorithms_that_are_not_on_the_list_are_refused_after_the_proof() {
    let only_p256 = |settings: &mut Settings| {
        settings.client_signing_algorithms = Some("ecdsa-sha2-256-nistp256".to_owned())
    };
    let server = TestServer::start_with(only_p256, "");
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    // The DER of an Ed25519 key is this and the point (RFC 8410, section 4).
    let prefix = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    let der = [&prefix[..], key.verifying_key().as_bytes()].concat();
    let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", der));
    let proof = |challenge: &str| STANDARD.encode(key.sign(challenge.as_bytes()).to_bytes());
    check(
        &server,
        &Case::refused(
            with_body(&server, &key::v2(&pem, &proof(EMAIL))),
            "algorithm_not_permitted",
            "signing algorithm not permitted: ed25519.PublicKey, unknown hash value 0",
            "this server is not configured to accept Ed25519 keys",
        ),
        ErrorDetail::Reason,
    );
    let other = server.send(&with_body(
        &server,
        &key::v2(&pem, &proof("eve@example.com")),
    ));
    assert_eq!(
        other.header("mayfly-reason"),
        Some("bad_proof"),
        "the proof is looked at first"
    );
}

#[test]
fn failures_of_the_log_hand_out_nothing_and_tell_nothing_of_it() {
    let unavailable = || SubmitError::Unavailable("its clock says 1970".to_owned());
    let store = || SubmitError::Store("/srv/log: no space left".to_owned());
    let rejected = || SubmitError::Rejected("status 403 from 10.9.8.7".to_owned());
    let bad_sct = || SubmitError::BadSct("log id 00ff".to_owned());
    type Fault = (fn() -> SubmitError, u16, &'static str, &'static str);
    let faults: [Fault; 6] = [
        (
            || SubmitError::Overloaded,
            503,
            "overloaded",
            "the log's queue is full",
        ),
        (
            || SubmitError::Timeout,
            503,
            "overloaded",
            "the log did not answer in time",
        ),
        (
            unavailable,
            503,
            "ct_unavailable",
            "the log cannot take entries now",
        ),
        (
            store,
            503,
            "store_unavailable",
            "the log's store cannot be written",
        ),
        (
            rejected,
            503,
            "ct_rejected",
            "the log refused the precertificate",
        ),
        (
            bad_sct,
            503,
            "ct_bad_sct",
            "the log's timestamp does not verify",
        ),
    ];
    let server = TestServer::start();
    let log = server.log.as_ref().unwrap();
    for (fault, status, reason, detail) in faults {
        log.fail_with(fault);
        for request in [server.good_request(), server.good_request_v1()] {
            let case = Case {
                request,
                status,
                code: 14,
                reason,
                fixed: LOG,
                detail,
            };
            let before = server.traces();
            let answer = server.send(&case.request);
            check_answer(&server, &case, ErrorDetail::Reason, &answer);
            // The precertificate was signed and submitted; no certificate was signed.
            let expected = Traces {
                submissions: before.submissions + 1,
                signatures: before.signatures + 1,
                ..before
            };
            assert_eq!(server.traces(), expected);
        }
    }
    assert_eq!(
        server.metric(r#"mayfly_issuance_duration_seconds_count{result="error"}"#),
        12
    );
}

#[test]
fn failures_of_the_ca_key_are_ours_and_tell_nothing_of_it() {
    let server = TestServer::start();
    let failed = || Case {
        request: server.good_request(),
        status: 500,
        code: 13,
        reason: "ca_error",
        fixed: CA,
        detail: "",
    };

    // At the precertificate: nothing is logged.
    server.key.fail_after(0);
    let before = server.traces();
    let case = failed();
    check_answer(
        &server,
        &case,
        ErrorDetail::Reason,
        &server.send(&case.request),
    );
    assert_eq!(
        server.traces(),
        Traces {
            signatures: before.signatures + 1,
            ..before
        }
    );

    // At the certificate: the log holds its precertificate, and nobody has a certificate.
    server.key.fail_after(1);
    let Traces {
        entries,
        submissions,
        signatures,
        certificates,
    } = server.traces();
    let case = failed();
    check_answer(
        &server,
        &case,
        ErrorDetail::Reason,
        &server.send(&case.request),
    );
    let expected = Traces {
        entries: entries + 1,
        submissions: submissions + 1,
        signatures: signatures + 2,
        certificates,
    };
    assert_eq!(server.traces(), expected);

    server.key.fail_after(u64::MAX);
    assert_eq!(
        server.send(&server.good_request()).status,
        200,
        "it goes on as soon as the key does"
    );
}

#[test]
fn a_ca_that_ends_within_ten_minutes_issues_nothing() {
    let server = TestServer::start();
    let end = server.trust.chain.not_after();

    server.clock.move_to(end - Duration::from_secs(600));
    assert_eq!(
        server.send(&server.good_request()).status,
        200,
        "exactly as long as the CA"
    );

    server.clock.move_to(end - Duration::from_secs(599));
    let case = Case {
        request: server.good_request(),
        status: 503,
        code: 14,
        reason: "ca_unavailable",
        fixed: CA,
        detail: "the CA certificate ends too soon to issue; the operator must rotate it",
    };
    check(&server, &case, ErrorDetail::Reason);
}

#[test]
fn a_log_that_never_answers_is_a_503_within_the_deadline() {
    let server = TestServer::start();
    server.log.as_ref().unwrap().hold();
    let case = Case {
        request: server.good_request(),
        status: 503,
        code: 14,
        reason: "overloaded",
        fixed: "the server could not answer in time; try again",
        detail: "",
    };
    check_answer(
        &server,
        &case,
        ErrorDetail::Reason,
        &server.send(&case.request),
    );
    assert_eq!(server.traces().certificates, 0);
}

#[test]
fn bodies_over_the_limit_are_refused_unread() {
    let server = TestServer::start();
    let token = server.token(&TestClaims::email(EMAIL));
    let too_large = |request| {
        Case::refused(
            request,
            "body_too_large",
            "http: request body too large",
            "the limit is 131072 octets",
        )
        .with_status(413, 3)
    };
    for target in [V1, V2] {
        let request = Request::post(target, vec![b' '; 131_073]).bearer(&token);
        check(&server, &too_large(request), ErrorDetail::Reason);
    }

    // Announced, and never sent: the answer does not wait for it.
    let mut announced = Connection::open(server.address);
    announced
        .write(
            b"POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\nContent-Length: 10737418240\r\n\r\n",
        )
        .unwrap();
    let answer = announced.answer_to("POST").unwrap();
    check_answer(
        &server,
        &too_large(Request::post(V2, "")),
        ErrorDetail::Reason,
        &answer,
    );

    // In chunks, without an end.
    let mut chunked = Connection::open(server.address);
    chunked
        .write(
            b"POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .unwrap();
    let chunk = [b"8000\r\n".as_slice(), &[b' '; 0x8000], b"\r\n"].concat();
    for _ in 0..5 {
        chunked.write(&chunk).unwrap();
    }
    let answer = chunked.answer_to("POST").unwrap();
    check_answer(
        &server,
        &too_large(Request::post(V2, "")),
        ErrorDetail::Reason,
        &answer,
    );

    let body = format!("{{{}}}", " ".repeat(131_070));
    let answer = server.send(&Request::post(V2, body).bearer(&token));
    assert_eq!(
        answer.header("mayfly-reason"),
        Some("malformed_public_key"),
        "exactly the limit is read"
    );
}

#[test]
fn bodies_that_do_not_end_in_time_are_a_408() {
    let server = TestServer::start();
    let before = server.traces();
    let mut connection = Connection::open(server.address);
    connection
        .write(b"POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        .unwrap();
    let answer = connection.answer_to("POST").unwrap();
    let case = Case {
        request: Request::post(V2, ""),
        status: 408,
        code: 4,
        reason: "malformed_request",
        fixed: "the request's body did not arrive in time",
        detail: "",
    };
    check_answer(&server, &case, ErrorDetail::Reason, &answer);
    assert_eq!(server.traces(), before);
}

#[test]
fn bodies_that_are_cut_off_are_refused() {
    let server = TestServer::start();
    let before = server.traces();
    let mut connection = Connection::open(server.address);
    connection
        .write(b"POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        .unwrap();
    connection.finish_sending();
    let _ = connection.rest();
    wait_for("the refusal", || {
        (server.refusals("malformed_request") == 1).then_some(())
    });
    assert_eq!(server.traces(), before);
}

#[test]
fn unknown_paths_and_methods_are_refused_as_json() {
    let server = TestServer::start();
    let before = server.traces();
    let not_found = r#"{"code":5,"message":"Not Found","details":[]}"#;
    for target in [
        "/",
        "/api/v3/signingCert",
        "/api/v2/signingCert/",
        "/api//v2/signingCert",
        "/metrics",
        "/debug/pprof/",
        "/api/v2/../v2/signingCert",
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (404, not_found), "{target}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{target}"
        );
        assert_eq!(answer.header("mayfly-reason"), None, "{target}");
    }

    let not_allowed = r#"{"code":12,"message":"Method Not Allowed","details":[]}"#;
    for (target, allowed) in [
        (V2, "POST"),
        (V1, "POST"),
        ("/api/v2/trustBundle", "GET"),
        ("/api/v2/configuration", "GET"),
        ("/api/v1/rootCert", "GET"),
        ("/healthz", "GET"),
    ] {
        let methods = [
            "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO",
        ];
        for method in methods.into_iter().filter(|method| *method != allowed) {
            let answer = server.send(&Request::new(method, target));
            assert_eq!(
                (answer.status, answer.text()),
                (405, not_allowed),
                "{method} {target}"
            );
            assert_eq!(answer.header("allow"), Some(allowed), "{method} {target}");
        }
        let answer = server.send(&Request::new("HEAD", target));
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some(allowed)),
            "HEAD {target}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "HEAD {target}"
        );
    }
    assert_eq!(server.traces(), before);
}
