//! The administration over TLS: only those are served who show a certificate of the CA that is named for it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::json;

use crate::support::http::{Connection, Request};
use crate::support::process::{Instance, Outcome, Process, mayfly, run};
use crate::support::tls::{TestTls, connect};
use crate::support::wait_for;

const STATUS: &str = "/admin/v1/status";

/// A server that is administered over TLS, and two CAs: its own and that of its administrators.
struct Administered {
    _instance: Instance,
    tls: TestTls,
    administrators: TestTls,
    process: Process,
    address: SocketAddr,
}

impl Administered {
    fn start() -> Self {
        let (instance, tls, administrators) = (Instance::new(), TestTls::new(), TestTls::new());
        administrators.write("ca.pem", &administrators.root_pem());
        tls.write("ca.pem", &tls.root_pem());
        let mut command = instance.serve();
        command
            .args(["--admin-listen", "127.0.0.1:0"])
            .arg("--admin-client-ca")
            .arg(administrators.file("ca.pem"))
            .arg("--admin-tls-cert")
            .arg(tls.file("tls.crt"))
            .arg("--admin-tls-key")
            .arg(tls.file("tls.key"));
        let process = Process::start(&mut command);
        let started = &process.events("started", 1)[0];
        let address = started["admin_listen"].as_str().unwrap().parse().unwrap();
        Self {
            _instance: instance,
            tls,
            administrators,
            process,
            address,
        }
    }

    /// `mayfly admin` of somebody with a certificate of this CA.
    fn admin_as(&self, ca: &TestTls, change: impl FnOnce(&mut CertificateParams)) -> Outcome {
        let (certificate, key) = ca.certificate("ada", |params| {
            params.distinguished_name.push(DnType::CommonName, "ada");
            change(params);
        });
        ca.write("ada.crt", &certificate);
        ca.write("ada.key", &key);
        self.admin_with(ca, &["log-filter", "info"])
    }

    fn admin_with(&self, ca: &TestTls, arguments: &[&str]) -> Outcome {
        let url = format!("https://localhost:{}", self.address.port());
        run(mayfly(["admin", "--admin-url", &url])
            .arg("--admin-ca")
            .arg(self.tls.file("ca.pem"))
            .arg("--admin-cert")
            .arg(ca.file("ada.crt"))
            .arg("--admin-key")
            .arg(ca.file("ada.key"))
            .args(arguments))
    }

    fn calls(&self) -> usize {
        let lines = self.process.lines();
        lines
            .iter()
            .filter(|line| line.contains("admin.call"))
            .count()
    }
}

#[test]
fn an_administrator_with_a_certificate_is_served_and_named_in_the_log() {
    let server = Administered::start();
    let set = server.admin_as(&server.administrators, |_| {});
    assert_eq!((set.code, &*set.stdout), (0, "info\n"), "{set:?}");
    let call = &server.process.events("admin.call", 1)[0];
    assert_eq!(
        (&call["certificate"], &call["path"]),
        (&json!("CN=ada"), &json!("/admin/v1/log-filter"))
    );
    let status = server.admin_with(&server.administrators, &["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.stdout.contains("readiness"), "{status:?}");
    let reloaded = server.admin_with(&server.administrators, &["reload"]);
    assert_eq!(reloaded.code, 0, "{reloaded:?}");
    assert_eq!(server.calls(), 2, "those that change something");
}

#[test]
fn whoever_shows_no_certificate_or_another_ones_is_not_served() {
    let server = Administered::start();
    for versions in [
        &[&rustls::version::TLS12][..],
        &[&rustls::version::TLS13][..],
    ] {
        let mut nobody = connect(server.address, server.tls.client_config(&[], versions));
        // The server's refusal may come before the request is out.
        let _ = nobody.write_all(&Request::get(STATUS).octets());
        let refused = nobody.read(&mut [0]).unwrap_err().to_string();
        assert!(refused.contains("alert"), "{versions:?}: {refused}");
    }
    let strangers = [
        // That of the server itself, which is no administrator's.
        server.admin_as(&server.tls, |_| {}),
        server.admin_as(&TestTls::new(), |_| {}),
        server.admin_as(&server.administrators, |params| {
            params.not_after = rcgen::date_time_ymd(2025, 1, 1);
        }),
        server.admin_as(&server.administrators, |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        }),
    ];
    for refused in strangers {
        assert_eq!(refused.code, 4, "{refused:?}");
        let told = "and ours one of its --admin-client-ca?";
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    let mut clear = Connection::open(server.address);
    let answer = clear.send(&Request::get(STATUS));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("this port speaks TLS"));
    assert_eq!(server.calls(), 0);
}

#[test]
fn a_connection_is_for_one_request_and_a_certificate_without_a_subject_is_known_by_its_name() {
    let server = Administered::start();
    let (certificate, key) = server.administrators.certificate("ada.example", |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
    });
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = server.tls.client_config(&[], rustls::ALL_VERSIONS);
    let certified = CertifiedKey::from_der(chain, key, config.crypto_provider()).unwrap();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    let mut ada = Connection::over(connect(server.address, config));
    let body = json!({ "filter": "info" }).to_string();
    let set = Request {
        method: "PUT",
        ..Request::post("/admin/v1/log-filter", body)
    };
    let answer = ada.send(&set);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(ada.rest(), b"");
    let call = &server.process.events("admin.call", 1)[0];
    let name = call["certificate"].as_str().unwrap();
    assert!(name.contains("ada.example"), "{name}");
}

#[test]
fn a_server_of_another_ca_and_one_without_tls_are_not_asked() {
    let server = Administered::start();
    assert_eq!(server.admin_as(&server.administrators, |_| {}).code, 0);
    let ask = |url: &str, root: &TestTls, pem: &str| {
        root.write("ca.pem", pem);
        run(mayfly(["admin", "--admin-url", url])
            .arg("--admin-ca")
            .arg(root.file("ca.pem"))
            .arg("--admin-cert")
            .arg(server.administrators.file("ada.crt"))
            .arg("--admin-key")
            .arg(server.administrators.file("ada.key"))
            .arg("status"))
    };
    let port = server.address.port();
    let (here, other) = (format!("https://localhost:{port}"), TestTls::new());
    let impostor = ask(&here, &other, &other.root_pem());
    assert_eq!(impostor.code, 4, "{impostor:?}");
    assert!(impostor.stderr.contains("certificate"), "{impostor:?}");
    let clear = ask(
        &format!("http://localhost:{port}"),
        &other,
        &other.root_pem(),
    );
    assert_eq!(clear.code, 3, "{clear:?}");
    assert!(clear.stderr.contains("https://HOST:PORT"), "{clear:?}");
    // Without a root nobody could be trusted: the file is wrong, and not the server.
    let rootless = ask(&here, &other, "");
    assert_eq!(rootless.code, 3, "{rootless:?}");
    let expected = "ca.pem: not one or more PEM blocks of type CERTIFICATE";
    assert!(rootless.stderr.contains(expected), "{rootless:?}");
}

#[test]
fn another_ca_of_administrators_takes_the_place_of_the_first() {
    let server = Administered::start();
    assert_eq!(server.admin_as(&server.administrators, |_| {}).code, 0);
    let next = TestTls::new();
    let (half, whole) = (&next.root_pem()[..60], next.root_pem());
    server.administrators.write("ca.pem", half);
    server.process.events("tls.rejected", 1);
    let first = server.admin_with(&server.administrators, &["status"]);
    assert_eq!(first.code, 0, "half a file changes nothing: {first:?}");

    server.administrators.write("ca.pem", &whole);
    server.process.events("tls.reloaded", 1);
    wait_for("the next administrator", || {
        (server.admin_as(&next, |_| {}).code == 0).then_some(())
    });
    let first = server.admin_with(&server.administrators, &["status"]);
    assert_eq!(first.code, 4, "{first:?}");
}

#[test]
fn a_port_of_the_administration_needs_all_that_keeps_others_out() {
    let instance = Instance::new();
    let tls = TestTls::new();
    let refused = |arguments: &[&str]| {
        let refused = run(instance.serve().args(arguments));
        assert_eq!(refused.code, 3, "{refused:?}");
        refused.stderr
    };
    let all = refused(&["--admin-listen", "127.0.0.1:0"]);
    assert!(all.contains("admin-client-ca: missing"), "{all}");
    assert!(all.contains("admin-tls-cert: missing"), "{all}");
    let path = tls.file("tls.crt").display().to_string();
    let alone = refused(&["--admin-client-ca", &path]);
    assert!(alone.contains("admin-listen: missing"), "{alone}");
    let half = refused(&["--admin-tls-cert", &path]);
    assert!(half.contains("admin-tls-key: missing"), "{half}");
    let pair = refused(&["--admin-tls-cert", &path, "--admin-tls-key", &path]);
    assert!(pair.contains("admin-listen: missing"), "{pair}");
}
