//! The service over gRPC: what is answered, where the token may be, what is refused, and health.

use mayfly::config::Settings;
use mayfly::dev::oidc::TestClaims;
use mayfly::proto::fulcio::create_signing_certificate_request::Key;
use mayfly::proto::fulcio::{
    CreateSigningCertificateRequest, GetConfigurationRequest, GetTrustBundleRequest, oidc_issuer,
};
use mayfly::proto::health::health_check_response::ServingStatus;
use mayfly::proto::health::{HealthCheckRequest, HealthListRequest};
use serde_json::json;
use tonic::{Code, Status};

use crate::answers::{chain, check_leaf, one_more};
use crate::support::grpc::{Caller, call, certificates, framed, request, send_raw, with_token};
use crate::support::http::{Connection, Request};
use crate::support::key::{TestKey, new_csr};
use crate::support::server::{EMAIL, TestServer, V2};
use crate::support::wait_for;

const CREATE: &str = "/dev.sigstore.fulcio.v2.CA/CreateSigningCertificate";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The value of a field in a status's metadata.
fn metadata<'a>(status: &'a Status, name: &str) -> Option<&'a str> {
    status
        .metadata()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

#[test]
fn a_call_comes_to_the_certificate_that_a_request_comes_to() {
    let server = TestServer::start();
    let caller = Caller::connect(server.address);
    let key = TestKey::generate();
    let before = server.traces();

    let token = server.token(&TestClaims::email(EMAIL));
    let mut asked = tonic::Request::new(with_token(key.message(EMAIL), &token));
    let id = "a-request-1".parse().unwrap();
    asked.metadata_mut().insert("x-request-id", id);
    let answer = caller.sign(asked).unwrap();

    let id = answer.metadata().get("x-request-id").unwrap();
    assert_eq!(id.to_str().unwrap(), "a-request-1");
    let certificates = certificates(answer.into_inner());
    check_leaf(&server, &certificates[0], &key);
    assert_eq!(certificates[1..], chain(&server));
    assert_eq!(server.traces(), one_more(&before));
    for series in [
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="CreateSigningCertificate",grpc_service="dev.sigstore.fulcio.v2.CA",grpc_type="unary"}"#,
        r#"grpc_server_msg_sent_total{grpc_method="CreateSigningCertificate",grpc_service="dev.sigstore.fulcio.v2.CA",grpc_type="unary"}"#,
    ] {
        assert_eq!(server.metric(series), 1, "{series}");
    }
    assert!(
        server
            .metrics()
            .contains(r#"mayfly_certificates_issued_total{api="grpc_v2","#)
    );

    let csr = CreateSigningCertificateRequest {
        credentials: None,
        key: Some(Key::CertificateSigningRequest(new_csr().into_bytes())),
    };
    caller.sign(with_token(csr, &token)).unwrap();
    assert_eq!(server.traces().entries, before.entries + 2);
}

#[test]
fn without_a_log_the_timestamp_is_neither_in_nor_beside_the_certificate() {
    let server = TestServer::start_with(|settings| settings.no_ct = Some(true), "");
    let answer = Caller::connect(server.address)
        .sign(server.good_call())
        .unwrap();
    use mayfly::proto::fulcio::signing_certificate::Certificate;
    let Some(Certificate::SignedCertificateDetachedSct(detached)) = answer.into_inner().certificate
    else {
        panic!("with a timestamp");
    };
    assert_eq!(detached.chain.unwrap().certificates.len(), 3);
    assert_eq!(detached.signed_certificate_timestamp, b"");
}

#[test]
fn a_token_is_looked_for_in_the_message_and_then_in_the_metadata() {
    let server = TestServer::start();
    let caller = Caller::connect(server.address);
    let good = server.token(&TestClaims::email(EMAIL));
    let bearer = format!("bearer {good}");
    for (what, in_message, in_metadata, expected) in [
        ("the message", Some(&*good), &[][..], Ok(())),
        (
            "the message first",
            Some(&good),
            &[("authorization", "Bearer x")],
            Ok(()),
        ),
        (
            "an empty one is none",
            Some(" "),
            &[("oidcidentitytoken", &*good)],
            Ok(()),
        ),
        (
            "the metadata",
            None,
            &[("oidcidentitytoken", &*good)],
            Ok(()),
        ),
        (
            "authorization",
            None,
            &[("authorization", &*bearer)],
            Ok(()),
        ),
        (
            "authorization after the metadata",
            None,
            &[("authorization", &*bearer), ("oidcidentitytoken", "x")],
            Err("malformed_token"),
        ),
        (
            "two count as none",
            None,
            &[
                ("oidcidentitytoken", &*good),
                ("oidcidentitytoken", "x"),
                ("authorization", "x"),
            ],
            Err("malformed_token"),
        ),
        ("nowhere", None, &[], Err("missing_token")),
        (
            "two authorizations",
            None,
            &[("authorization", &*bearer), ("authorization", "x")],
            Err("missing_token"),
        ),
        (
            "a token that is none",
            Some("x"),
            &[("authorization", &*bearer)],
            Err("malformed_token"),
        ),
    ] {
        let mut message = TestKey::generate().message(EMAIL);
        if let Some(token) = in_message {
            message = with_token(message, token);
        }
        let mut request = tonic::Request::new(message);
        for (name, value) in in_metadata {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        match (caller.sign(request), expected) {
            (Ok(_), Ok(())) => {}
            (Err(status), Err(reason)) => {
                assert_eq!(
                    metadata(&status, "mayfly-reason"),
                    Some(reason),
                    "{what}: {status}"
                );
                assert_eq!(status.code(), Code::InvalidArgument, "{what}");
            }
            (answer, _) => panic!("{what}: {answer:?}"),
        }
    }
}

#[test]
fn what_is_refused_over_http_is_refused_in_the_same_words() {
    let server = TestServer::start();
    let caller = Caller::connect(server.address);
    let token = server.token(&TestClaims::email(EMAIL));
    let before = server.traces();
    for (token, challenge) in [("a.b.c", EMAIL), (&token, "bob@example.com"), ("", EMAIL)] {
        let key = TestKey::generate();
        let over_http = Request::post(V2, key.v2(challenge).to_string()).bearer(token);
        let over_http = server.send(&over_http);
        let reason = over_http.header("mayfly-reason").unwrap().to_owned();
        let counted = server.refusals(&reason);

        let mut message = tonic::Request::new(key.message(challenge));
        let bearer = format!("Bearer {token}").parse().unwrap();
        message.metadata_mut().insert("authorization", bearer);
        let status = caller.sign(message).unwrap_err();

        assert_eq!(
            metadata(&status, "mayfly-reason"),
            Some(&*reason),
            "{status}"
        );
        assert_eq!(i32::from(status.code()), over_http.json()["code"]);
        assert_eq!(server.refusals(&reason), counted + 1, "{reason}");
        // Where a token may be differs.
        if reason != "missing_token" {
            assert_eq!(over_http.json()["message"], status.message());
        }
        assert_eq!(metadata(&status, "retry-after"), None);
    }
    assert_eq!(server.traces(), before);
    let refused = r#"grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="CreateSigningCertificate",grpc_service="dev.sigstore.fulcio.v2.CA",grpc_type="unary"}"#;
    assert_eq!(server.metric(refused), 6);
}

#[test]
fn compatible_errors_have_neither_detail_nor_reason() {
    let compatible = |settings: &mut Settings| {
        settings.error_detail = Some("compatible".parse().unwrap());
    };
    let server = TestServer::start_with(compatible, "");
    let message = with_token(TestKey::generate().message(EMAIL), "a.b.c");
    let status = Caller::connect(server.address).sign(message).unwrap_err();
    assert_eq!(
        status.message(),
        "There was an error processing the identity token"
    );
    assert_eq!(metadata(&status, "mayfly-reason"), None);
}

#[test]
fn limits_hold_for_both_interfaces_together_and_say_when_to_come_back() {
    let limited = |settings: &mut Settings| {
        settings.rate_limit = Some("ip=1/h:2".parse().unwrap());
    };
    let server = TestServer::start_with(limited, "");
    let caller = Caller::connect(server.address);
    caller.sign(server.good_call()).unwrap();
    assert_eq!(server.send(&server.good_request()).status, 200);

    let status = caller.sign(server.good_call()).unwrap_err();

    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(metadata(&status, "mayfly-reason"), Some("rate_limited"));
    let seconds: u64 = metadata(&status, "retry-after").unwrap().parse().unwrap();
    let milliseconds = metadata(&status, "grpc-retry-pushback-ms").unwrap();
    assert!(seconds > 1000, "{seconds}");
    assert_eq!(milliseconds, (seconds * 1000).to_string());
    assert_eq!(server.metric(r#"mayfly_rate_limited_total{scope="ip"}"#), 1);
}

#[test]
fn bundle_and_configuration_are_those_of_http() {
    let server = TestServer::start();
    let caller = Caller::connect(server.address);
    let bundle = caller.wait(caller.ca().get_trust_bundle(GetTrustBundleRequest {}));
    let chains: Vec<_> = bundle.unwrap().into_inner().chains;
    let chains: Vec<_> = chains
        .iter()
        .map(|chain| json!({ "certificates": chain.certificates }))
        .collect();
    assert_eq!(
        server.get("/api/v2/trustBundle").json(),
        json!({ "chains": chains })
    );

    let configuration = caller.wait(caller.ca().get_configuration(GetConfigurationRequest {}));
    let issuers = configuration.unwrap().into_inner().issuers.into_iter();
    let issuers: Vec<_> = issuers
        .map(|issuer| {
            let (name, url) = match issuer.issuer.unwrap() {
                oidc_issuer::Issuer::IssuerUrl(url) => ("issuerUrl", url),
                oidc_issuer::Issuer::WildcardIssuerUrl(url) => ("wildcardIssuerUrl", url),
            };
            json!({
                name: url,
                "audience": issuer.audience,
                "challengeClaim": issuer.challenge_claim,
                "spiffeTrustDomain": issuer.spiffe_trust_domain,
                "issuerType": issuer.issuer_type,
                "subjectDomain": issuer.subject_domain,
                "skipEmailVerification": issuer.skip_email_verification,
            })
        })
        .collect();
    assert_eq!(
        server.get("/api/v2/configuration").json(),
        json!({ "issuers": issuers })
    );
}

#[test]
fn health_follows_readiness_by_service_and_as_it_changes() {
    let mut server = TestServer::start();
    let caller = Caller::connect(server.address);
    let check = |service: &str| {
        let asked = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = caller.wait(caller.health().check(asked));
        answer.map(|answer| answer.into_inner().status())
    };
    wait_for("readiness", || {
        (check("").unwrap() == ServingStatus::Serving).then_some(())
    });
    for service in ["dev.sigstore.fulcio.v2.CA", "dev.sigstore.fulcio.v1beta.CA"] {
        assert_eq!(check(service).unwrap(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(check("another").unwrap_err().code(), Code::NotFound);

    let list = caller.wait(caller.health().list(HealthListRequest {}));
    let list = list.unwrap().into_inner().statuses;
    assert_eq!(list.len(), 3);
    assert!(
        list.values()
            .all(|health| health.status() == ServingStatus::Serving),
        "{list:?}"
    );

    let watch = |service: &str| {
        let asked = HealthCheckRequest {
            service: service.to_owned(),
        };
        caller
            .wait(caller.health().watch(asked))
            .unwrap()
            .into_inner()
    };
    let mut unknown = watch("another");
    let first = caller.wait(unknown.message()).unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    let mut watched = watch("");
    let first = caller.wait(watched.message()).unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    server.begin_to_stop();
    let second = caller.wait(watched.message()).unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    let end = caller.wait(watched.message()).unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
}

#[test]
fn methods_that_are_not_there_are_unimplemented() {
    let server = TestServer::start();
    for path in [
        "/dev.sigstore.fulcio.v2.CA/Nothing",
        "/dev.sigstore.fulcio.v1beta.CA/CreateSigningCertificate",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/",
    ] {
        let answer = send_raw(server.address, call(path, &[]), &[&[0; 5]], false).unwrap();
        assert_eq!(
            (answer.status, answer.code()),
            (200, "12"),
            "{path}: {answer:?}"
        );
    }
}

#[test]
fn reflection_tells_of_every_service_where_it_is_switched_on() {
    let server = TestServer::start_with(|settings| settings.grpc_reflection = Some(true), "");
    // ServerReflectionRequest { list_services: "" }
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let answer = send_raw(
        server.address,
        call(path, &[]),
        &[b"\0\0\0\0\x02\x3a\0"],
        false,
    );
    let answer = answer.unwrap();
    assert_eq!(answer.code(), "0", "{answer:?}");
    let text = String::from_utf8_lossy(&answer.body);
    for service in ["dev.sigstore.fulcio.v2.CA", "grpc.health.v1.Health"] {
        assert!(text.contains(service), "{service} in {text}");
    }
    let counted = r#"grpc_server_started_total{grpc_method="ServerReflectionInfo",grpc_service="grpc.reflection.v1.ServerReflection",grpc_type="bidi_stream"}"#;
    wait_for("the call to end", || {
        (server.metric(counted) == 1).then_some(())
    });
}

#[test]
fn http_2_that_is_not_grpc_is_told_so() {
    let server = TestServer::start();
    let grpc_as_get = [("content-type", "application/grpc")];
    let web = [("content-type", "application/grpc-web")];
    let json = [("content-type", "application/json")];
    for (method, path, headers) in [
        ("GET", "/healthz", &[][..]),
        ("GET", CHECK, &grpc_as_get),
        ("POST", CREATE, &web),
        ("POST", V2, &json),
    ] {
        let request = request(method, path, headers);
        let answer = send_raw(server.address, request, &[], false).unwrap();
        assert_eq!(answer.status, 505, "{method} {path}");
        assert_eq!(answer.headers["content-type"], "application/json");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&body["code"], &body["details"]), (&json!(12), &json!([])));
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("HTTP/1.1"), "{message}");
    }
    let counted = r#"mayfly_http_requests_total{code="505",endpoint="other",method="other"}"#;
    assert_eq!(server.metric(counted), 4);
}

#[test]
fn the_port_of_grpc_serves_grpc_and_nothing_else() {
    let own_port = |settings: &mut Settings| {
        settings.grpc_listen = Some("127.0.0.1:0".parse().unwrap());
    };
    let server = TestServer::start_with(own_port, "");
    let address = server.grpc_address.unwrap();
    Caller::connect(address).sign(server.good_call()).unwrap();
    Caller::connect(server.address)
        .sign(server.good_call())
        .unwrap();
    let mut http = Connection::open(address);
    let answer = http.send(&Request::get("/api/v2/trustBundle"));
    assert_eq!(answer.status, 505);
    assert_eq!(answer.json()["code"], 12);
    assert_eq!(server.traces().entries, 2);
}

#[test]
fn a_client_that_gives_up_early_is_answered_so() {
    let server = TestServer::start();
    let message = framed(server.good_call().get_ref());
    for timeout in ["0S", "1n", "00000000m"] {
        let request = call(CREATE, &[("grpc-timeout", timeout)]);
        let answer = send_raw(server.address, request, &[&message], false).unwrap();
        assert_eq!(answer.code(), "4", "{timeout}: {answer:?}");
        assert_eq!(
            answer.trailer("grpc-message"),
            Some("context%20deadline%20exceeded")
        );
    }
    for timeout in ["99999999H", "59999999u", "4S"] {
        let message = framed(server.good_call().get_ref());
        let request = call(CREATE, &[("grpc-timeout", timeout)]);
        let answer = send_raw(server.address, request, &[&message], false).unwrap();
        assert_eq!(answer.code(), "0", "{timeout}: {answer:?}");
    }
    for timeout in ["", "S", "1", "-1S", "123456789S", "1s"] {
        let request = call(CREATE, &[("grpc-timeout", timeout)]);
        let answer = send_raw(server.address, request, &[&message], false).unwrap();
        assert_eq!(answer.code(), "3", "{timeout:?}: {answer:?}");
        assert_eq!(answer.trailer("mayfly-reason"), Some("malformed_request"));
    }
}

#[test]
fn calls_that_are_no_single_message_within_the_limit_come_to_nothing() {
    let server = TestServer::start();
    let before = server.traces();
    let good = framed(server.good_call().get_ref());
    let twice = [&good[..], &good].concat();
    let too_long = framed(&CreateSigningCertificateRequest {
        credentials: None,
        key: Some(Key::CertificateSigningRequest(vec![b'a'; 128 << 10])),
    });
    let compressed = [&[1], &good[1..]].concat();
    // Field 2 within field 2, and so on; no message of ours goes that deep.
    let deep = (0..10_000_u32).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut outer = vec![0x12];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    });
    let groups = vec![0x23; 10_000];
    let message = |octets: &[u8]| {
        let length = u32::try_from(octets.len()).unwrap().to_be_bytes();
        [&[0], &length[..], octets].concat()
    };
    for (what, body, code, reason) in [
        ("nothing", &[][..], "3", Some("malformed_request")),
        (
            "a message that breaks off",
            &good[..good.len() - 1],
            "3",
            Some("malformed_request"),
        ),
        ("two messages", &twice, "3", Some("malformed_request")),
        ("a longer message", &too_long, "8", Some("body_too_large")),
        ("a compressed message", &compressed, "12", None),
        ("a deep message", &message(&deep), "3", None),
        ("groups", &message(&groups), "3", Some("malformed_request")),
        (
            "octets",
            &message(b"\xff\xff\xff\xff"),
            "3",
            Some("malformed_request"),
        ),
        (
            "no text",
            &message(b"\x0a\x03\x0a\x01\xff"),
            "3",
            Some("malformed_request"),
        ),
    ] {
        let answer = send_raw(server.address, call(CREATE, &[]), &[body], false).unwrap();
        assert_eq!(
            (answer.status, answer.code()),
            (200, code),
            "{what}: {answer:?}"
        );
        if reason.is_some() {
            assert_eq!(answer.trailer("mayfly-reason"), reason, "{what}");
        }
    }
    assert_eq!(server.traces(), before);
    Caller::connect(server.address)
        .sign(server.good_call())
        .unwrap();
}

#[test]
fn a_message_that_comes_in_pieces_is_read_and_one_that_does_not_come_is_not_waited_for() {
    let server = TestServer::start();
    let good = framed(server.good_call().get_ref());
    let pieces: Vec<&[u8]> = good.chunks(7).collect();
    let answer = send_raw(server.address, call(CREATE, &[]), &pieces, false).unwrap();
    assert_eq!(answer.code(), "0", "{answer:?}");

    let answer = send_raw(server.address, call(CREATE, &[]), &pieces[..5], true).unwrap();
    assert_eq!(answer.code(), "4", "{answer:?}");
    assert_eq!(answer.trailer("mayfly-reason"), Some("malformed_request"));
}

#[test]
fn the_address_that_a_trusted_proxy_tells_is_the_one_that_counts() {
    let behind_a_proxy = |settings: &mut Settings| {
        settings.trusted_proxies = Some("127.0.0.0/8".parse().unwrap());
        settings.rate_limit = Some("ip=1/h:1".parse().unwrap());
    };
    let server = TestServer::start_with(behind_a_proxy, "");
    let code = |client: &str| {
        let message = framed(server.good_call().get_ref());
        let request = call(CREATE, &[("x-forwarded-for", client)]);
        let answer = send_raw(server.address, request, &[&message], false).unwrap();
        answer.code().to_owned()
    };
    assert_eq!(code("192.0.2.1"), "0");
    assert_eq!(code("192.0.2.2"), "0");
    assert_eq!(code("192.0.2.1"), "8");
}
