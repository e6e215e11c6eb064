//! TLS: which versions and protocols are spoken, certificates that change while the server runs, and clients that get it
//! wrong.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mayfly::config::Settings;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsConnector;

use crate::support::grpc::{RawAnswer, call, exchange, framed};
use crate::support::http::{Connection, Request};
use crate::support::server::TestServer;
use crate::support::tls::{TestTls, connect};
use crate::support::{HANG, wait_for};

const CREATE: &str = "/dev.sigstore.fulcio.v2.CA/CreateSigningCertificate";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A server with TLS at the API, and gRPC on a port of its own.
fn start(tls: &TestTls, change: impl FnOnce(&mut Settings)) -> TestServer {
    let with_tls = |settings: &mut Settings| {
        settings.tls_cert = Some(tls.file("tls.crt"));
        settings.tls_key = Some(tls.file("tls.key"));
        settings.grpc_listen = Some("127.0.0.1:0".parse().unwrap());
        change(settings);
    };
    TestServer::start_with(with_tls, "")
}

/// One call over gRPC and TLS.
fn call_over_tls(
    address: SocketAddr,
    config: ClientConfig,
    request: http::request::Builder,
    body: &[u8],
) -> RawAnswer {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let calling = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        exchange(stream, request, &[body], false).await.unwrap()
    };
    let limited = async { tokio::time::timeout(HANG, calling).await };
    runtime.block_on(limited).expect("an answer in time")
}

/// Whether a client that trusts this root is served.
fn is_served(tls: &TestTls, address: SocketAddr) -> bool {
    let mut client = tls.client(address, &[]);
    let request = Request::get("/healthz").octets();
    client.write_all(&request).is_ok() && client.read(&mut [0]).is_ok_and(|read| read == 1)
}

fn reloads(server: &TestServer, result: &str) -> u64 {
    server.metric(&format!(
        r#"mayfly_config_reloads_total{{kind="tls",result="{result}"}}"#
    ))
}

#[test]
fn grpc_under_tls_is_for_those_who_offer_nothing_else() {
    let tls = TestTls::new();
    let server = start(&tls, |_| {});
    let grpc_port = server.grpc_address.unwrap();
    for versions in [&[&TLS12], &[&TLS13]] {
        for (address, protocols) in [
            (server.address, &[&b"h2"[..]][..]),
            (grpc_port, &[b"h2"]),
            (grpc_port, &[b"h2", b"http/1.1"]),
        ] {
            let config = tls.client_config(protocols, versions);
            let answer = call_over_tls(address, config, call(CHECK, &[]), &[0; 5]);
            assert_eq!(answer.code(), "0", "{answer:?}");
        }
        // The token's issuer is this server, whose TLS nobody told it to trust: that far a call comes.
        let config = tls.client_config(&[b"h2"], versions);
        let message = framed(server.good_call().get_ref());
        let answer = call_over_tls(server.address, config, call(CREATE, &[]), &message);
        assert_eq!(
            answer.trailer("mayfly-reason"),
            Some("issuer_unavailable"),
            "{answer:?}"
        );
        let offers: [&[&[u8]]; 3] = [&[b"h2", b"http/1.1"], &[b"http/1.1"], &[]];
        for protocols in offers {
            let client = connect(server.address, tls.client_config(protocols, versions));
            let mut client = Connection::over(client);
            assert_eq!(
                client.send(&Request::get("/healthz")).status,
                200,
                "{protocols:?}"
            );
        }
    }
}

#[test]
fn grpc_can_have_a_certificate_of_its_own() {
    let (tls, of_grpc) = (TestTls::new(), TestTls::new());
    let server = start(&tls, |settings| {
        settings.grpc_tls_certificate = Some(of_grpc.file("tls.crt"));
        settings.grpc_tls_key = Some(of_grpc.file("tls.key"));
    });
    for (address, tls) in [
        (server.address, &tls),
        (server.grpc_address.unwrap(), &of_grpc),
    ] {
        let config = tls.client_config(&[b"h2"], rustls::ALL_VERSIONS);
        let answer = call_over_tls(address, config, call(CHECK, &[]), &[0; 5]);
        assert_eq!(answer.code(), "0", "{answer:?}");
    }
}

#[test]
fn another_certificate_is_shown_when_the_files_change_and_open_connections_go_on() {
    let (first, second, third) = (TestTls::new(), TestTls::new(), TestTls::new());
    // As a volume of Kubernetes does it: a link in the path is swapped.
    let folder = tempfile::tempdir().unwrap();
    let current = folder.path().join("current");
    let point_to = |tls: &TestTls| {
        let next = folder.path().join("next");
        let target = tls.file("tls.crt").parent().unwrap().to_owned();
        std::os::unix::fs::symlink(target, &next).unwrap();
        std::fs::rename(next, &current).unwrap();
    };
    point_to(&first);
    let server = start(&first, |settings| {
        settings.tls_cert = Some(current.join("tls.crt"));
        settings.tls_key = Some(current.join("tls.key"));
    });
    let mut open = Connection::over(first.client(server.address, &[]));
    assert_eq!(open.send(&Request::get("/healthz")).status, 200);

    point_to(&second);
    wait_for("the second certificate", || {
        is_served(&second, server.address).then_some(())
    });
    assert!(!is_served(&first, server.address));
    assert_eq!(
        open.send(&Request::get("/healthz")).status,
        200,
        "it was open before"
    );

    // In place, one file after the other.
    let (certificate, key) = ["tls.crt", "tls.key"]
        .map(|name| std::fs::read_to_string(third.file(name)).unwrap())
        .into();
    second.write("tls.crt", &certificate);
    wait_for("the refusal", || {
        (reloads(&server, "refused") == 1).then_some(())
    });
    assert!(is_served(&second, server.address), "the pair does not fit");
    second.write("tls.key", &key);
    wait_for("the third certificate", || {
        is_served(&third, server.address).then_some(())
    });
    assert_eq!(reloads(&server, "ok"), 2);
    let grpc = third.client_config(&[b"h2"], rustls::ALL_VERSIONS);
    let answer = call_over_tls(
        server.grpc_address.unwrap(),
        grpc,
        call(CHECK, &[]),
        &[0; 5],
    );
    assert_eq!(
        answer.code(),
        "0",
        "the same certificate at the port of gRPC"
    );
}

#[test]
fn a_certificate_that_cannot_be_served_changes_nothing() {
    let tls = TestTls::new();
    let server = start(&tls, |_| {});
    let good = std::fs::read_to_string(tls.file("tls.crt")).unwrap();
    let (expired, expired_key) = tls.certificate("localhost", |params| {
        params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    });
    let (half, _) = good.split_at(good.len() / 2);
    let refusals = [
        ("half of it", half, None),
        ("an empty file", "", None),
        (
            "a certificate of another key",
            &*tls.certificate("localhost", |_| {}).0,
            None,
        ),
        ("one that has ended", &expired, Some(&expired_key)),
    ];
    for (count, (what, certificate, key)) in (1..).zip(refusals) {
        if let Some(key) = key {
            // At once, so that no pair comes between that does not fit.
            let (next, old) = (tls.file("next.key"), tls.file("tls.key"));
            std::fs::write(&next, key).unwrap();
            std::fs::rename(next, old).unwrap();
        }
        tls.write("tls.crt", certificate);
        wait_for(what, || {
            (reloads(&server, "refused") >= count).then_some(())
        });
        assert!(is_served(&tls, server.address), "{what}");
    }
    let successful = r#"mayfly_config_last_reload_successful{kind="tls"}"#;
    assert_eq!(server.metric(successful), 0);
    std::fs::remove_file(tls.file("tls.crt")).unwrap();
    wait_for("a missing file", || {
        (reloads(&server, "refused") >= 5).then_some(())
    });

    let (certificate, key) = tls.certificate("elsewhere.example", |_| {});
    tls.write("tls.key", &key);
    tls.write("tls.crt", &certificate);
    wait_for("one of another name", || {
        (reloads(&server, "ok") == 1).then_some(())
    });
    assert_eq!(server.metric(successful), 1);
}

/// A hello of a client that knows nothing newer than this version (RFC 5246, section 7.4.1.2).
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    // TLS_RSA_WITH_AES_128_CBC_SHA and TLS_RSA_WITH_3DES_EDE_CBC_SHA.
    let suites = [0, 4, 0x00, 0x2f, 0x00, 0x0a];
    let body = [&version[..], &[7; 32], &[0], &suites, &[1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let handshake = [&[1, 0, 0, length][..], &body].concat();
    [&[22, 3, 1, 0, length + 4][..], &handshake].concat()
}

#[test]
fn old_versions_and_weak_ciphers_are_refused() {
    let tls = TestTls::new();
    let server = start(&tls, |_| {});
    for version in [[3, 0], [3, 1], [3, 2], [3, 3]] {
        let mut client = Connection::open(server.address);
        client.write(&old_hello(version)).unwrap();
        let answer = client.rest();
        // An alert, and a fatal one (RFC 8446, section 6): protocol_version, or handshake_failure and its like.
        assert_eq!(
            (answer.first(), answer.get(5)),
            (Some(&21), Some(&2)),
            "{version:?}: {answer:?}"
        );
    }
    assert!(is_served(&tls, server.address));
}

#[test]
fn a_hello_in_pieces_is_read_and_one_that_does_not_end_is_not_waited_for() {
    let tls = TestTls::new();
    let server = start(&tls, |_| {});
    let mut config = tls.client_config(&[], rustls::ALL_VERSIONS);
    config.max_fragment_size = Some(32);
    let mut client = Connection::over(connect(server.address, config));
    assert_eq!(client.send(&Request::get("/healthz")).status, 200);

    let mut silent = Connection::open(server.address);
    let mut half = Connection::open(server.address);
    half.write(&old_hello([3, 3])[..20]).unwrap();
    let wave = || -> Vec<_> {
        let half = |_| {
            let mut half = Connection::open(server.address);
            half.write(&old_hello([3, 3])[..20]).unwrap();
            half
        };
        (0..100).map(half).collect()
    };
    // Ten thousand in all; those before the last have gone away by themselves.
    for _ in 1..100 {
        drop(wave());
    }
    let mut many = wave();
    let mut long = Connection::open(server.address);
    // A record of a handshake that says it is longer than any hello (RFC 8446, section 5.1).
    long.write(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff])
        .unwrap();
    let _ = long.write(&[0; 0x3ffc]);
    assert!(is_served(&tls, server.address), "beside them");
    long.rest();
    assert_eq!(silent.rest(), b"");
    assert_eq!(half.rest(), b"");
    for half in &mut many {
        assert_eq!(half.rest(), b"");
    }
    assert!(server.metric(r#"mayfly_tls_handshakes_total{result="timeout"}"#) >= 102);
}

#[test]
fn clear_text_where_tls_is_spoken_is_told_so() {
    let tls = TestTls::new();
    let server = start(&tls, |_| {});
    for octets in [
        &Request::get("/healthz").octets()[..],
        &Request::post("/api/v2/signingCert", vec![b'a'; 100_000]).octets(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut clear = Connection::open(server.address);
        clear.write(octets).unwrap();
        clear.finish_sending();
        let answer = String::from_utf8(clear.rest()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\nthis port speaks TLS; use https\n"),
            "{answer}"
        );
    }
    // The test issuer's keys are asked for in the clear, too. A connection is counted when it has ended.
    wait_for("three failed handshakes", || {
        let failed = server.metric(r#"mayfly_tls_handshakes_total{result="failed"}"#);
        (failed >= 3).then_some(())
    });
}
