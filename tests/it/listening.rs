//! What happens on a connection before and around requests: slow, silent, encrypted and hostile ones.

use std::io::{Read, Write};

use mayfly::config::Settings;

use crate::support::http::{Connection, Request};
use crate::support::key::TestKey;
use crate::support::server::{EMAIL, TestServer, V2};
use crate::support::tls::TestTls;

/// The first octets of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[test]
fn a_request_that_comes_octet_by_octet_is_answered() {
    let server = TestServer::start();
    let mut connection = Connection::open(server.address);
    for octet in server.good_request().octets() {
        connection.write(&[octet]).unwrap();
    }
    assert_eq!(connection.answer_to("POST").unwrap().status, 200);
}

#[test]
fn connections_that_say_nothing_or_half_a_head_are_closed() {
    let soon = |settings: &mut Settings| settings.idle_timeout = Some("1s".parse().unwrap());
    let server = TestServer::start_with(soon, "");
    let mut silent = Connection::open(server.address);
    let mut half_a_preface = Connection::open(server.address);
    half_a_preface.write(&PREFACE[..10]).unwrap();
    let mut half_a_head = Connection::open(server.address);
    half_a_head
        .write(b"GET /healthz HTTP/1.1\r\nHost: a")
        .unwrap();
    let mut idle = Connection::open(server.address);
    assert_eq!(idle.send(&Request::get("/healthz")).status, 200);
    let mut half_a_second_head = Connection::open(server.address);
    assert_eq!(
        half_a_second_head.send(&Request::get("/healthz")).status,
        200
    );
    half_a_second_head
        .write(b"GET /healthz HTTP/1.1\r\nHost: a")
        .unwrap();

    assert_eq!(silent.rest(), b"");
    assert_eq!(half_a_preface.rest(), b"");
    assert_eq!(idle.rest(), b"");
    assert_eq!(half_a_second_head.rest(), b"");
    let answer = String::from_utf8(half_a_head.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn http_2_is_told_to_come_back_with_http_1_1_where_there_is_no_grpc() {
    let server = TestServer::start();
    // SETTINGS without settings, then GOAWAY with error 0xd (RFC 9113, sections 6.5 and 6.8).
    let expected = [
        &[0, 0, 0, 4, 0, 0, 0, 0, 0][..],
        &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13],
    ]
    .concat();
    let mut at_once = Connection::open(server.metrics_address);
    at_once.write(PREFACE).unwrap();
    assert_eq!(at_once.rest(), expected);
    let mut slowly = Connection::open(server.metrics_address);
    for octet in PREFACE {
        slowly.write(&[*octet]).unwrap();
    }
    assert_eq!(slowly.rest(), expected);
}

#[test]
fn a_good_request_does_not_wait_for_many_idle_connections() {
    let server = TestServer::start();
    let mut idle: Vec<_> = (0..300).map(|_| Connection::open(server.address)).collect();
    for connection in idle.iter_mut().step_by(2) {
        connection
            .write(b"POST /api/v2/signingCert HTTP/1.1\r\n")
            .unwrap();
    }
    assert_eq!(server.send(&server.good_request()).status, 200);
}

#[test]
fn ambiguous_framing_is_refused_and_nothing_behind_it_is_served() {
    let server = TestServer::start();
    let smuggled = "GET /api/v2/trustBundle HTTP/1.1\r\nHost: a\r\n\r\n";
    for (headers, body) in [
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        ("Content-Length: 4\r\nContent-Length: 5\r\n", "{}  "),
        ("Content-Length: +4\r\n", "{}  "),
        ("Content-Length: 4, 5\r\n", "{}  "),
        ("Content-Length: -1\r\n", ""),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"),
        ("Transfer-Encoding: chunked\r\n", "-1\r\n"),
        ("Content-Length : 4\r\n", "{}  "),
        ("X: a\0b\r\n", ""),
        ("X: a\r\n b\r\n", ""),
    ] {
        let mut connection = Connection::open(server.address);
        let octets = format!(
            "POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}{smuggled}"
        );
        connection.write(octets.as_bytes()).unwrap();
        connection.finish_sending();
        let answers = String::from_utf8(connection.rest()).unwrap();
        assert!(
            !answers.contains("HTTP/1.1 200"),
            "{headers:?} {body:?}: {answers}"
        );
        assert!(
            answers.is_empty() || answers.starts_with("HTTP/1.1 4"),
            "{headers:?} {body:?}: {answers}"
        );
    }
    let served = server.metric(
        r#"mayfly_http_requests_total{code="200",endpoint="v2_trust_bundle",method="get"}"#,
    );
    assert_eq!(served, 0);
}

#[test]
fn octets_that_are_no_http_are_not_answered_with_more_than_400() {
    let server = TestServer::start();
    for octets in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / FTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
        b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
    ] {
        let mut connection = Connection::open(server.address);
        connection.write(octets).unwrap();
        connection.finish_sending();
        let answer = String::from_utf8(connection.rest()).unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{octets:?}: {answer}"
        );
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn the_head_of_a_request_holds_the_longest_token_and_not_much_more() {
    let server = TestServer::start();
    let answer = server.send(&Request::post(V2, "{}").bearer(&"a".repeat(32 << 10)));
    assert_eq!(
        answer.header("mayfly-reason"),
        Some("malformed_token"),
        "it was read as a token"
    );
    let request = Request::post(V2, "{}").header("X", "a".repeat(50 << 10));
    let answer = server.send(&request);
    assert_eq!(answer.status, 431);
    assert_eq!(answer.header("mayfly-reason"), Some("malformed_request"));
    for request in [
        Request::get("/healthz").header("X", "a".repeat(256 << 10)),
        Request::get(format!("/{}", "a".repeat(256 << 10))),
    ] {
        let mut connection = Connection::open(server.address);
        // The server may close before all is written.
        let _ = connection.write(&request.octets());
        let answer = String::from_utf8(connection.rest()).unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
}

#[test]
fn https_serves_what_http_serves() {
    let issuer = TestServer::start();
    let issuer_url = issuer.issuers.email().unwrap().url().to_owned();
    let tls = TestTls::new();
    let with_tls = |settings: &mut Settings| {
        settings.tls_cert = Some(tls.file("tls.crt"));
        settings.tls_key = Some(tls.file("tls.key"));
    };
    let entry = format!(
        "  {issuer_url}:\n    issuer-url: {issuer_url}\n    client-id: sigstore\n    type: email\n"
    );
    let server = TestServer::start_with(with_tls, &entry);

    let offers: [&[&[u8]]; 3] = [&[], &[b"http/1.1"], &[b"h2", b"http/1.1"]];
    for protocols in offers {
        let mut connection = Connection::over(tls.client(server.address, protocols));
        let token = issuer.token(&mayfly::dev::oidc::TestClaims::email(EMAIL));
        let request = Request::post(V2, TestKey::generate().v2(EMAIL).to_string()).bearer(&token);
        assert_eq!(connection.send(&request).status, 200, "{protocols:?}");
        assert_eq!(
            connection.send(&Request::get("/healthz")).status,
            200,
            "the connection lives on"
        );
    }
    assert_eq!(server.traces().entries, 3);

    let mut other = tls.client(server.address, &[b"spdy/3"]);
    let error = other
        .write_all(b"GET")
        .and_then(|()| other.read_exact(&mut [0]))
        .unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );

    let mut clear = Connection::open(server.address);
    let answer = clear.send(&Request::get("/healthz"));
    assert_eq!(
        (answer.status, answer.text()),
        (400, "this port speaks TLS; use https\n")
    );
    let mut again = Connection::over(tls.client(server.address, &[]));
    assert_eq!(again.send(&Request::get("/healthz")).status, 200);
}
