//! What is answered when all is well: bodies to the octet, and the headers around them.

use mayfly::client::{self, Expected};
use mayfly::clock::Clock;
use mayfly::config::Settings;
use mayfly::dev::oidc::TestClaims;
use mayfly::x509::chain::Certificate;
use serde_json::{Value, json};

use crate::support::http::{Answer, Connection, Request};
use crate::support::key::{self, TestKey};
use crate::support::server::{EMAIL, TestServer, Traces, V1, V2};

/// The PEM blocks of the server's chain, each without an end of line.
pub(crate) fn chain(server: &TestServer) -> Vec<String> {
    let certificates = server.trust.chain.certificates();
    certificates.iter().map(Certificate::pem).collect()
}

/// Checks that a block is a certificate for this key and [`EMAIL`], by this server's CA and in its log.
pub(crate) fn check_leaf(server: &TestServer, leaf: &str, key: &TestKey) {
    assert!(
        leaf.starts_with("-----BEGIN CERTIFICATE-----\n")
            && leaf.ends_with("\n-----END CERTIFICATE-----"),
        "{leaf}"
    );
    let public_key_der = key.der();
    let expected = Expected {
        public_key_der: &public_key_der,
        name: EMAIL,
        issuer: server.issuers.email().unwrap().url(),
        authority_der: server.trust.chain.issuing().der(),
        log_key_der: &server.trust.ct_logs[0].public_key_der,
        now: server.clock.now(),
    };
    let der = pem::parse(leaf).unwrap().into_contents();
    client::check_certificate(&der, &expected).unwrap();
}

/// One certificate was signed twice, logged once, and counted.
pub(crate) fn one_more(before: &Traces) -> Traces {
    Traces {
        entries: before.entries + 1,
        submissions: before.submissions + 1,
        signatures: before.signatures + 2,
        certificates: before.certificates + 1,
    }
}

fn v2_request(server: &TestServer, key: &TestKey) -> Request {
    let token = server.token(&TestClaims::email(EMAIL));
    Request::post(V2, key.v2(EMAIL).to_string()).bearer(&token)
}

#[test]
fn version_2_answers_a_list_of_pem_blocks_without_line_ends_around_them() {
    let server = TestServer::start();
    let key = TestKey::generate();
    let before = server.traces();

    let answer = server.send(&v2_request(&server, &key));

    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    let answered = answer.json();
    let certificates = answered["signedCertificateEmbeddedSct"]["chain"]["certificates"].clone();
    let shape =
        json!({ "signedCertificateEmbeddedSct": { "chain": { "certificates": certificates } } });
    assert_eq!(answered, shape, "no other member");
    let certificates: Vec<String> = serde_json::from_value(certificates).unwrap();
    check_leaf(&server, &certificates[0], &key);
    assert_eq!(certificates[1..], chain(&server));
    assert_eq!(server.traces(), one_more(&before));
}

#[test]
fn version_1_answers_201_and_pem_with_one_line_end_between_blocks() {
    let server = TestServer::start();
    let key = TestKey::generate();
    let token = server.token(&TestClaims::email(EMAIL));
    let before = server.traces();

    let answer = server.send(&Request::post(V1, key.v1(EMAIL).to_string()).bearer(&token));

    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.header("content-type"),
        Some("application/pem-certificate-chain")
    );
    assert_eq!(answer.header("sct"), None, "it is in the certificate");
    let (leaf, rest) = answer
        .text()
        .split_once("-----END CERTIFICATE-----\n")
        .unwrap();
    check_leaf(&server, &format!("{leaf}-----END CERTIFICATE-----"), &key);
    assert_eq!(rest, chain(&server).join("\n"));
    assert_eq!(server.traces(), one_more(&before));
}

#[test]
fn a_certificate_signing_request_is_taken_by_both_versions() {
    let server = TestServer::start();
    for (target, status) in [(V1, 201), (V2, 200)] {
        let token = server.token(&TestClaims::email(EMAIL));
        let body = key::csr(&key::new_csr()).to_string();
        let answer = server.send(&Request::post(target, body).bearer(&token));
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let csrs = |api: &str| {
        let issuer = format!("127.0.0.1-{}-dev-oidc", server.address.port());
        let labels = format!(
            r#"api="{api}",issuer="{issuer}",issuer_type="email",key="p256",proof="csr",sct="embedded""#
        );
        server.metric(&format!("mayfly_certificates_issued_total{{{labels}}}"))
    };
    assert_eq!((csrs("v1"), csrs("v2")), (1, 1));
}

#[test]
fn an_issuance_is_counted_under_the_names_that_dashboards_know() {
    let server = TestServer::start();
    assert_eq!(server.send(&server.good_request_v1()).status, 201);
    for series in [
        "fulcio_new_certs",
        r#"fulcio_api_latency_count{code="201",method="post"}"#,
        r#"http_requests_total{code="201",method="post"}"#,
        r#"mayfly_http_requests_total{code="201",endpoint="v1_signing_cert",method="post"}"#,
        r#"mayfly_issuance_duration_seconds_count{result="issued"}"#,
        r#"mayfly_log_tree_size{log="main"}"#,
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="CreateSigningCertificate",grpc_service="dev.sigstore.fulcio.v1beta.CA",grpc_type="unary"}"#,
    ] {
        assert_eq!(server.metric(series), 1, "{series}");
    }
}

#[test]
fn a_server_without_a_log_answers_in_the_detached_form() {
    let server = TestServer::start_with(|settings| settings.no_ct = Some(true), "");
    let answer = server.send(&server.good_request());
    let answered = answer.json();
    let certificates = answered["signedCertificateDetachedSct"]["chain"]["certificates"].clone();
    let shape = json!({ "signedCertificateDetachedSct": {
        "chain": { "certificates": certificates }, "signedCertificateTimestamp": "",
    } });
    assert_eq!((answer.status, &answered), (200, &shape));
    assert_eq!(certificates.as_array().unwrap().len(), 3);

    let answer = server.send(&server.good_request_v1());
    assert_eq!((answer.status, answer.header("sct")), (201, None));
    assert_eq!(server.get("/ct/main/checkpoint").status, 404);
    assert_eq!(server.traces().certificates, 2);
}

#[test]
fn the_trust_bundle_ends_each_block_with_a_line_end() {
    let server = TestServer::start();
    let lines: Vec<String> = chain(&server).into_iter().map(|pem| pem + "\n").collect();
    let answer = server.get("/api/v2/trustBundle");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    assert_eq!(
        answer.json(),
        json!({ "chains": [{ "certificates": lines }] })
    );
}

#[test]
fn the_root_certificate_answer_has_an_empty_line_between_blocks() {
    let server = TestServer::start();
    let answer = server.get("/api/v1/rootCert");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/pem-certificate-chain"))
    );
    assert_eq!(answer.text(), chain(&server).join("\n\n"));
}

#[test]
fn the_configuration_lists_the_issuers_in_order_with_every_member() {
    let wildcard = "
meta-issuers:
  https://*.example.com/tenant/*:
    client-id: other
    type: email
";
    let server = TestServer::start_with(|_| {}, wildcard);
    let issuer = |member: &str, url: String, audience: &str, kind: &str, subject_domain: &str| {
        json!({
            member: url, "audience": audience, "challengeClaim": if kind == "email" { "email" } else { "sub" },
            "spiffeTrustDomain": if kind == "spiffe" { "dev.example" } else { "" }, "issuerType": kind, "subjectDomain": subject_domain, "skipEmailVerification": false,
        })
    };
    let base = format!("{}/dev/oidc", server.url);
    let expected = json!({ "issuers": [
        issuer("issuerUrl", base.clone(), "sigstore", "email", ""),
        issuer("issuerUrl", format!("{base}/buildkite"), "sigstore", "buildkite-job", ""),
        issuer("issuerUrl", format!("{base}/chainguard"), "sigstore", "chainguard-identity", ""),
        issuer("issuerUrl", format!("{base}/codefresh"), "sigstore", "codefresh-workflow", ""),
        issuer("issuerUrl", format!("{base}/github"), "sigstore", "github-workflow", ""),
        issuer("issuerUrl", format!("{base}/gitlab"), "sigstore", "gitlab-pipeline", ""),
        issuer("issuerUrl", format!("{base}/kubernetes"), "sigstore", "kubernetes", ""),
        issuer("issuerUrl", format!("{base}/spiffe"), "sigstore", "spiffe", ""),
        issuer("issuerUrl", format!("{base}/uri"), "sigstore", "uri", &server.url),
        issuer("issuerUrl", format!("{base}/username"), "sigstore", "username", "127.0.0.1"),
        issuer("wildcardIssuerUrl", "https://*.example.com/tenant/*".to_owned(), "other", "email", ""),
    ] });
    let answer = server.get("/api/v2/configuration");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    assert_eq!(answer.json(), expected);
}

#[test]
fn health_is_the_text_that_probes_look_for() {
    let server = TestServer::start();
    for target in [
        "/healthz",
        "/livez",
        "/healthz?service=",
        "/healthz?service=dev.sigstore.fulcio.v2.CA",
        "/healthz?verbose",
    ] {
        let answer = server.get(target);
        assert_eq!(
            (answer.status, answer.text()),
            (200, "{\"status\":\"SERVING\"}\n"),
            "{target}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{target}"
        );
    }
    let answer = server.get("/healthz?service=elsewhere");
    assert_eq!(
        (answer.status, answer.json()["code"].as_u64()),
        (404, Some(5))
    );

    let answer = crate::support::http::send(server.metrics_address, &Request::get("/healthz"));
    assert_eq!(
        (answer.status, answer.text()),
        (200, "{\"status\":\"SERVING\"}\n"),
        "on the metrics listener"
    );
}

#[test]
fn metrics_are_at_any_path_of_their_own_listener() {
    let server = TestServer::start();
    for request in [
        Request::get("/metrics"),
        Request::get("/"),
        Request::post("/any", ""),
    ] {
        let answer = crate::support::http::send(server.metrics_address, &request);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("text/plain; version=0.0.4")),
            "{request:?}"
        );
        assert!(
            answer.text().contains("\nfulcio_new_certs 0\n"),
            "{request:?}"
        );
    }
}

#[test]
fn paths_and_bodies_are_read_as_leniently_as_clients_need() {
    let server = TestServer::start();
    for target in [
        "//api/v2/trustBundle",
        "///api/v2/trustBundle?x=1",
        "/api/v2/trustBundle?a=b&c",
        "/api/v2/%74rustBundle",
    ] {
        assert_eq!(server.get(target).status, 200, "{target}");
    }
    let good = server.good_request();
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/xml",
    ] {
        let request = good
            .clone()
            .header("Content-Type", content_type)
            .header("Accept", "text/html");
        let answer = server.send(&request);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{content_type}"
        );
    }
    let request = Request {
        target: format!("/{V2}?unknown=1"),
        ..good.clone()
    };
    assert_eq!(server.send(&request).status, 200);

    let gzip = good.header("Content-Encoding", "gzip");
    let answer = server.send(&Request {
        body: vec![0x1f, 0x8b, 8, 0],
        ..gzip
    });
    assert_eq!(
        (answer.status, answer.header("mayfly-reason")),
        (400, Some("malformed_request")),
        "never unpacked"
    );
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    let server = TestServer::start();
    for body in [
        "[".repeat(100_000),
        r#"{"a":"#.repeat(20_000),
        format!(r#"{{"a":{}1{}}}"#, "[".repeat(32), "]".repeat(32)),
    ] {
        let answer = server.send(&Request::post(V2, body));
        assert_eq!(
            (answer.status, answer.header("mayfly-reason")),
            (400, Some("malformed_request")),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    let server = TestServer::start();
    let mut connection = Connection::open(server.address);
    let requests = [
        server.good_request(),
        Request::get("/nowhere"),
        Request::get("/healthz"),
        server.good_request_v1(),
    ];
    let octets: Vec<u8> = requests.iter().flat_map(Request::octets).collect();
    connection.write(&octets).unwrap();
    let statuses = requests
        .each_ref()
        .map(|request| connection.answer_to(request.method).unwrap().status);
    assert_eq!(statuses, [200, 404, 200, 201]);
}

#[test]
fn request_ids_are_taken_over_when_they_are_harmless() {
    let server = TestServer::start();
    let id_of = |request: &Request| {
        server
            .send(request)
            .header("x-request-id")
            .unwrap()
            .to_owned()
    };
    let longest = "a".repeat(128);
    for id in ["a", "client-1._Z", &longest] {
        for target in ["/healthz", "/nowhere", V2] {
            assert_eq!(
                id_of(&Request::get(target).header("X-Request-Id", id)),
                id,
                "{target}"
            );
        }
    }
    let too_long = "a".repeat(129);
    let mut drawn = std::collections::HashSet::new();
    for id in ["", "a b", "<script>", "a\u{e9}", "a;b", &too_long] {
        let new = id_of(&Request::get("/healthz").header("X-Request-Id", id));
        assert!(
            new.len() == 16 && new.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id:?} became {new:?}"
        );
        assert!(drawn.insert(new), "an id came twice");
    }
}

/// The headers of an answer that speak of other origins.
fn cors(answer: &Answer) -> Vec<(String, &str)> {
    let headers = answer.headers.iter();
    let about =
        headers.filter(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
    let mut about: Vec<_> = about
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    about.sort();
    about
}

#[test]
fn other_origins_may_read_every_answer_and_send_no_credentials() {
    let server = TestServer::start();
    let good = server.good_request();
    for request in [
        Request::get("/api/v2/trustBundle"),
        good,
        Request::post(V2, ""),
        Request::get("/nowhere"),
    ] {
        let answer = server.send(&request.clone().header("Origin", "https://app.example"));
        assert_eq!(
            cors(&answer),
            [("access-control-allow-origin".to_owned(), "*")],
            "{request:?}"
        );
        let answer = server.send(&request);
        assert_eq!(cors(&answer), [], "without an origin, {request:?}");
        assert_eq!(answer.values("vary"), ["Origin"], "{request:?}");
    }
}

#[test]
fn a_preflight_allows_what_version_2_needs_and_nothing_else() {
    let server = TestServer::start();
    let preflight = |method: &str, headers: Option<&str>| {
        let request = Request::new("OPTIONS", V2)
            .header("Origin", "https://app.example")
            .header("Access-Control-Request-Method", method);
        server.send(&match headers {
            Some(headers) => request.header("Access-Control-Request-Headers", headers),
            None => request,
        })
    };
    let allowed = |method, headers| {
        let mut allowed = vec![
            ("access-control-allow-methods".to_owned(), method),
            ("access-control-allow-origin".to_owned(), "*"),
        ];
        if let Some(headers) = headers {
            allowed.insert(0, ("access-control-allow-headers".to_owned(), headers));
        }
        allowed
    };
    for (method, headers) in [
        ("POST", Some("content-type")),
        ("POST", Some("Accept, Content-Type,x-requested-with")),
        ("GET", None),
        ("HEAD", None),
    ] {
        let answer = preflight(method, headers);
        assert_eq!(
            (answer.status, answer.body.len()),
            (204, 0),
            "{method} {headers:?}"
        );
        assert_eq!(
            cors(&answer),
            allowed(method, headers),
            "{method} {headers:?}"
        );
        let mut vary = answer
            .values("vary")
            .join(", ")
            .split(", ")
            .map(str::to_owned)
            .collect::<Vec<_>>();
        vary.sort();
        assert_eq!(
            vary,
            [
                "Access-Control-Request-Headers",
                "Access-Control-Request-Method",
                "Origin"
            ]
        );
    }
    // A token in a header, which version 1 wants, is not for browsers.
    for (method, headers) in [
        ("POST", Some("authorization")),
        ("POST", Some("content-type,Authorization")),
        ("DELETE", None),
    ] {
        let answer = preflight(method, headers);
        assert_eq!(answer.status, 204, "{method} {headers:?}");
        assert_eq!(cors(&answer), [], "{method} {headers:?}");
    }
    let plain = server.send(&Request::new("OPTIONS", V2));
    assert_eq!(plain.status, 405, "an OPTIONS that is no preflight");
}

#[test]
fn no_answer_can_be_taken_for_a_script() {
    let server = TestServer::start();
    for request in [
        server.good_request(),
        Request::get("/"),
        Request::get("/api/v1/rootCert"),
        Request::get("/ct/main/checkpoint"),
    ] {
        let answer = server.send(&request);
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{request:?}"
        );
    }
}

#[test]
fn settings_of_a_server_reach_its_answers() {
    let smaller = |settings: &mut Settings| settings.max_body_bytes = Some("1KiB".parse().unwrap());
    let server = TestServer::start_with(smaller, "");
    let answer = server.send(&Request::post(V2, " ".repeat(1025)));
    assert_eq!(answer.status, 413);
    let Value::String(message) = &answer.json()["message"] else {
        panic!("{answer:?}")
    };
    assert_eq!(
        message,
        "http: request body too large: the limit is 1024 octets"
    );
}
