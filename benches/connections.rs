//! What a connection costs before its first request, what TLS adds to each request of one that is kept, and what a thousand
//! idle ones hold: `cargo bench --bench connections`.
//!
//! Servers are processes of their own, so that only their CPU is counted: this program again, with actix alone or with the
//! listener in front of it; and for the memory `mayfly serve`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot run should stop"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use mayfly::bench::process::Process;
use mayfly::limits::{ConnectionLimit, Networks};
use mayfly::listener::{self, ListenerConfig, Protocols, TlsCertificate, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// Says to a copy of this program what it is to serve, and where the certificate is.
const ROLE: &str = "CONNECTIONS_BENCH_SERVER";
const PORT: &str = "CONNECTIONS_BENCH_PORT";
const FOLDER: &str = "CONNECTIONS_BENCH_FOLDER";
/// Connections with one request each.
const NEW: usize = 5_000;
/// Requests on one connection.
const KEPT: usize = 50_000;
/// Looks at the first octet of a TLS connection.
const LOOKS: usize = 50_000;
/// Connections that are idle after one request.
const IDLE: usize = 1_000;
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn main() {
    // Nothing else in this process installs one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let Ok(role) = std::env::var(ROLE) {
        let port = std::env::var(PORT).expect("a port");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().expect("a port")));
        let folder = PathBuf::from(std::env::var(FOLDER).expect("a folder"));
        actix_web::rt::System::new().block_on(serve(&role, address, &folder));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure());
}

/// Serves one answer, by actix alone or behind our listener.
async fn serve(role: &str, address: SocketAddr, folder: &Path) {
    let application = || App::new().default_service(web::to(HttpResponse::Ok));
    if role == "actix" {
        let server = HttpServer::new(application).workers(1).bind(address);
        server.expect("a server").run().await.expect("served");
        return;
    }
    let tls = (role == "tls").then(|| {
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let certificate = TlsCertificate::load(&TlsFiles {
            certificate,
            key,
            client_ca: None,
        })
        .expect("a certificate");
        let config = Arc::new(certificate).server_config(Protocols::Both);
        config.expect("TLS")
    });
    let config = ListenerConfig {
        tls,
        http2: None,
        workers: 1,
        max_connections: 10_000,
        by_address: ConnectionLimit::new(0, Networks::default(), || {}),
        metrics: None,
        idle_timeout: Duration::from_secs(60),
        shutdown_grace: Duration::ZERO,
    };
    let socket = listener::bind(address).expect("a socket");
    let listener = listener::serve("bench", socket, &config, application).expect("a listener");
    listener.server.await.expect("served");
}

async fn measure() {
    raise_descriptor_limit();
    let folder = tempfile::tempdir().expect("a folder");
    let tls = Tls::new(folder.path());
    let microseconds = |time: Duration, count: usize| {
        time.as_secs_f64() * 1e6 / f64::from(u32::try_from(count).expect("few"))
    };
    let mut new = Vec::new();
    let mut kept = Vec::new();
    for role in ["actix", "clear", "tls"] {
        let server = Server::again(role, folder.path());
        let tls = (role == "tls").then_some(&tls);
        server.wait(tls).await;
        let before = server.cpu();
        for _ in 0..NEW {
            ask(&mut *server.connect(tls).await).await;
        }
        new.push(microseconds(server.cpu() - before, NEW));
        let mut connection = server.connect(tls).await;
        let before = server.cpu();
        for _ in 0..KEPT {
            ask(&mut *connection).await;
        }
        kept.push(microseconds(server.cpu() - before, KEPT));
        println!(
            "{role:6} {:7.1} µs CPU a connection with one request, {:5.2} µs a request on a kept one",
            new.last().expect("one"),
            kept.last().expect("one")
        );
    }
    let ([actix, clear, _], [_, plain, under_tls]) = (
        <[f64; 3]>::try_from(new).expect("three"),
        <[f64; 3]>::try_from(kept).expect("three"),
    );
    println!(
        "a look at the first octets   {:5.1} µs (goal: 5)",
        clear - actix
    );
    println!(
        "a look before a TLS handshake {:4.1} µs (goal: 30)",
        microseconds(peeks().await, LOOKS)
    );
    println!(
        "a request under TLS          {:5.2} × (goal: 1.10)",
        under_tls / plain
    );

    let server = Server::mayfly(folder.path());
    server.wait(Some(&tls)).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut connection = server.connect(Some(&tls)).await;
        ask(&mut *connection).await;
        idle.push(connection);
    }
    let memory = server.process.peak_memory().expect("the process");
    println!(
        "{IDLE} idle TLS connections   {} MiB in all (goal: 64)",
        memory >> 20
    );
}

/// What the looks at as many connections cost that are to speak TLS: one octet each, which stays where it is.
async fn peeks() -> Duration {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a socket");
    let address = listener.local_addr().expect("its address");
    let mut client = TcpStream::connect(address).await.expect("a connection");
    client.write_all(&[22; 517]).await.expect("a hello");
    let (connection, _) = listener.accept().await.expect("a connection");
    connection.readable().await.expect("its first octets");
    let before = clock_gettime(ClockId::ThreadCPUTime);
    for _ in 0..LOOKS {
        assert_eq!(connection.peek(&mut [0]).await.expect("an octet"), 1);
    }
    let taken = clock_gettime(ClockId::ThreadCPUTime) - before;
    Duration::try_from(taken).expect("a time after the start")
}

/// A server in a process of its own, which ends with this.
struct Server {
    child: Child,
    process: Process,
    address: SocketAddr,
}

impl Server {
    fn spawn(command: &mut Command, port: u16) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        Self {
            process: Process::new(child.id()),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            child,
        }
    }

    /// This program in another role.
    fn again(role: &str, folder: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .env(ROLE, role)
            .env(PORT, port.to_string())
            .env(FOLDER, folder);
        Self::spawn(&mut command, port)
    }

    /// `mayfly serve` on a new instance.
    fn mayfly(folder: &Path) -> Self {
        let (port, program) = (free_port(), env!("CARGO_BIN_EXE_mayfly"));
        let data = folder.join("data");
        let made = Command::new(program)
            .args(["init", "--no-password", "--public-url"])
            .arg(format!("https://localhost:{port}"))
            .arg("--data-dir")
            .arg(&data)
            .output();
        assert!(made.expect("mayfly init").status.success(), "mayfly init");
        let issuer = "https://issuer.example";
        let identity = format!(
            "oidc-issuers:\n  {issuer}:\n    issuer-url: {issuer}\n    client-id: sigstore\n    type: email\n"
        );
        std::fs::write(data.join("identity.yaml"), identity).expect("a file");
        let mut command = Command::new(program);
        command
            .args([
                "serve",
                "--grpc-listen",
                "off",
                "--metrics-listen",
                "127.0.0.1:0",
            ])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--config")
            .arg(data.join("mayfly.yaml"))
            .arg("--tls-cert")
            .arg(folder.join("tls.crt"))
            .arg("--tls-key")
            .arg(folder.join("tls.key"));
        Self::spawn(&mut command, port)
    }

    fn cpu(&self) -> Duration {
        let time = self.process.cpu_time().expect("the process");
        time.user + time.system
    }

    async fn wait(&self, tls: Option<&Tls>) {
        for _ in 0..600 {
            if TcpStream::connect(self.address).await.is_ok() {
                ask(&mut *self.connect(tls).await).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not answer");
    }

    async fn connect(&self, tls: Option<&Tls>) -> Box<dyn Stream> {
        let stream = TcpStream::connect(self.address).await.expect("connected");
        stream.set_nodelay(true).expect("a socket");
        match tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let connector = TlsConnector::from(Arc::clone(&tls.client));
                Box::new(connector.connect(name, stream).await.expect("TLS"))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn ask(connection: &mut dyn Stream) {
    connection.write_all(REQUEST).await.expect("sent");
    let mut answer = [0; 1024];
    // So short an answer comes in one piece.
    let read = connection.read(&mut answer).await.expect("an answer");
    assert!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "{:?}",
        answer.get(..read)
    );
}

/// A certificate for `localhost`, in two files, and a client that trusts it and resumes nothing.
struct Tls {
    client: Arc<ClientConfig>,
}

impl Tls {
    fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().expect("a key");
        let root: CertificateDer<'static> =
            params.self_signed(&root_key).expect("a root").der().clone();
        let issuer = Issuer::new(params, root_key);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
        std::fs::write(folder.join("tls.crt"), leaf.pem()).expect("a file");
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).expect("a file");
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a root");
        let mut client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        Self {
            client: Arc::new(client),
        }
    }
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.local_addr().expect("an address").port()
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("descriptors");
}
