//! Issuers that answer as they are told: wrongly, slowly, endlessly, or not at all.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use mayfly::clock::{Clock, FixedClock};
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer, TestKeys};
use mayfly::fetch::Resolver;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::http::Request;
use super::key::TestKey;
use super::server::{EMAIL, NOW, V2, test_keys};

/// What is said on a connection when a path is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These octets.
    Octets(Vec<u8>),
    /// These octets, and then nothing more.
    Stalled(Vec<u8>),
    /// The first octets, and then the second ones for as long as the other side reads.
    Endless(Vec<u8>, Vec<u8>),
    /// These octets, one at a time with pauses.
    Dripping(Vec<u8>),
}

impl Reply {
    /// Status 200 with this document.
    pub(crate) fn document(body: impl AsRef<[u8]>) -> Self {
        Self::with_headers("", body)
    }

    /// Status 200 with this document, and with further header lines.
    pub(crate) fn with_headers(headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!(
            "HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        Self::Octets([head.as_bytes(), body].concat())
    }

    /// An answer without a body.
    pub(crate) fn status(line: &str) -> Self {
        Self::Octets(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into())
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Self::status(&format!("302 Found\r\nLocation: {location}"))
    }

    /// Says it on a connection. `count` is told of the octets of endless and dripping replies, as they are taken.
    ///
    /// # Errors
    /// When the other side left in the middle of it.
    pub(crate) fn write_to(
        &self,
        stream: &mut (impl Read + Write),
        count: impl Fn(usize),
    ) -> io::Result<()> {
        let write_counted = |stream: &mut dyn Write, octets: &[u8]| {
            stream.write_all(octets)?;
            stream.flush()?;
            count(octets.len());
            io::Result::Ok(())
        };
        match self {
            Self::Octets(octets) => stream.write_all(octets)?,
            Self::Stalled(octets) => {
                stream.write_all(octets)?;
                stream.flush()?;
                // Nothing more is expected of the other side but that it leaves.
                let _ = stream.read(&mut [0])?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Self::Endless(start, more) => {
                write_counted(stream, start)?;
                loop {
                    write_counted(stream, more)?;
                }
            }
            Self::Dripping(octets) => {
                for octet in octets.chunks(1) {
                    write_counted(stream, octet)?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        stream.flush()
    }
}

/// Any number of issuers on one socket, each below a path of its own. They stop when this is dropped.
pub(crate) struct HostileIssuer {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    tls: Option<Arc<rustls::ServerConfig>>,
    replies: Mutex<HashMap<String, Reply>>,
    /// The heads of all requests.
    requests: Mutex<Vec<String>>,
    connections: AtomicU64,
    /// Connections that the other side gave up.
    given_up: AtomicU64,
    sent: AtomicU64,
    is_stopping: AtomicBool,
    is_held: Mutex<bool>,
    let_go: Condvar,
    streams: Mutex<Vec<TcpStream>>,
}

impl HostileIssuer {
    pub(crate) fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        Self::listen(address, None)
    }

    /// Speaks TLS with a self-signed certificate, which is returned as PEM.
    pub(crate) fn start_tls(name: &str) -> (Self, String) {
        let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![own.cert.der().clone()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        (
            Self::listen(loopback, Some(Arc::new(config))),
            own.cert.pem(),
        )
    }

    fn listen(address: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            tls,
            ..Shared::default()
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.accept(&listener))
        };
        Self {
            address,
            scheme,
            shared,
            thread: Some(thread),
        }
    }

    /// The URL of one of the issuers.
    pub(crate) fn url(&self, name: &str) -> String {
        let host = if self.scheme == "https" {
            "localhost".to_owned()
        } else {
            self.address.ip().to_string()
        };
        format!("{}://{host}:{}/{name}", self.scheme, self.address.port())
    }

    /// Answers a path below an issuer: `discovery`, `jwks` or any other.
    pub(crate) fn set(&self, name: &str, what: &str, reply: Reply) {
        let what = if what == "discovery" {
            ".well-known/openid-configuration"
        } else {
            what
        };
        let path = format!("/{name}/{what}");
        self.shared.replies.lock().unwrap().insert(path, reply);
    }

    /// The documents of a good issuer.
    pub(crate) fn serve(&self, name: &str) {
        self.serve_keys(name, &test_keys().jwks());
    }

    /// The documents of an issuer with these keys and any of the algorithms.
    pub(crate) fn serve_keys(&self, name: &str, jwks: &Value) {
        self.set(name, "discovery", self.discovery(name, json!({})));
        self.set(name, "jwks", Reply::document(jwks.to_string()));
    }

    /// A good discovery document, but for some members.
    pub(crate) fn discovery(&self, name: &str, changes: Value) -> Reply {
        Reply::document(self.discovery_json(name, &changes))
    }

    /// The text of that document.
    pub(crate) fn discovery_json(&self, name: &str, changes: &Value) -> String {
        let mut document = json!({
            "issuer": self.url(name),
            "jwks_uri": format!("{}/jwks", self.url(name)),
            "id_token_signing_alg_values_supported":
                ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"],
        });
        for (member, value) in changes.as_object().unwrap() {
            document[member] = value.clone();
        }
        document.to_string()
    }

    /// The entry of an e-mail issuer in the identity file, with these further settings, one a line.
    pub(crate) fn entry(&self, name: &str, settings: &str) -> String {
        let url = self.url(name);
        let mut entry =
            format!("  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n");
        for line in settings.lines() {
            writeln!(entry, "    {line}").unwrap();
        }
        entry
    }

    /// Entries of e-mail issuers.
    pub(crate) fn entries<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> String {
        let names = names.into_iter();
        names.map(|name| self.entry(name, "")).collect()
    }

    /// A request for a certificate with a good token of an issuer, signed with its EC key.
    pub(crate) fn good_request(&self, name: &str) -> Request {
        request_from(&self.url(name))
    }

    /// A request with a token of these claims and this header, whatever they are.
    pub(crate) fn request_with(&self, name: &str, header: &Value, keys: &TestKeys) -> Request {
        with_token(&signed_by(keys, header, &self.claims(name)))
    }

    /// The claims of a good token.
    pub(crate) fn claims(&self, name: &str) -> Value {
        claims_from(&self.url(name))
    }

    /// The heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How often something below an issuer was asked for.
    pub(crate) fn requests_of(&self, name: &str) -> usize {
        let start = format!("GET /{name}/");
        let requests = self.requests();
        requests
            .iter()
            .filter(|head| head.starts_with(&start))
            .count()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections the other side ended before it had all that it was going to get.
    pub(crate) fn given_up(&self) -> u64 {
        self.shared.given_up.load(Ordering::SeqCst)
    }

    /// How many octets of endless and dripping replies were taken from us.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Answers nothing until it is let go.
    pub(crate) fn hold(&self) {
        *self.shared.is_held.lock().unwrap() = true;
    }

    /// Answers what waits.
    pub(crate) fn let_go(&self) {
        *self.shared.is_held.lock().unwrap() = false;
        self.shared.let_go.notify_all();
    }
}

impl Drop for HostileIssuer {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.let_go();
        // The thread that accepts looks at the flag after each connection.
        let _ = TcpStream::connect(self.address);
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.is_stopping.load(Ordering::SeqCst) {
                return;
            }
            let stream = stream.unwrap();
            self.connections.fetch_add(1, Ordering::SeqCst);
            let clone = stream.try_clone().unwrap();
            self.streams.lock().unwrap().push(clone);
            let shared = Arc::clone(self);
            // Ends with its connection.
            std::thread::spawn(move || {
                let outcome = match &shared.tls {
                    None => shared.converse(stream),
                    Some(config) => {
                        let tls = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                        shared.converse(rustls::StreamOwned::new(tls, stream))
                    }
                };
                if outcome.is_err() {
                    shared.given_up.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    }

    /// Answers requests until the other side is content.
    ///
    /// # Errors
    /// When it left in the middle of something.
    fn converse(&self, stream: impl Read + Write) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            self.requests.lock().unwrap().push(head);
            let is_held = self.is_held.lock().unwrap();
            drop(self.let_go.wait_while(is_held, |is_held| *is_held).unwrap());
            let reply = self.replies.lock().unwrap().get(&path).cloned();
            let reply = reply.unwrap_or_else(|| Reply::status("404 Not Found"));
            reply.write_to(stream.get_mut(), |octets| {
                let octets = u64::try_from(octets).unwrap();
                self.sent.fetch_add(octets, Ordering::SeqCst);
            })?;
        }
    }
}

/// A request for a certificate with this token, and a good proof of [`EMAIL`].
pub(crate) fn with_token(token: &str) -> Request {
    Request::post(V2, TestKey::generate().v2(EMAIL).to_string()).bearer(token)
}

/// A request with a good token of any issuer, signed with the EC key of all test issuers.
pub(crate) fn request_from(url: &str) -> Request {
    let clock = Arc::new(FixedClock::at(NOW)) as Arc<dyn Clock>;
    let issuer = TestIssuer::new(url.to_owned(), Arc::clone(test_keys()), clock);
    let claims = TestClaims::email(EMAIL).with("exp", far_expiry());
    with_token(&issuer.token(&claims, TestAlgorithm::Es256).unwrap())
}

/// The claims of a good token of any issuer.
pub(crate) fn claims_from(url: &str) -> Value {
    json!({
        "iss": url, "aud": "sigstore", "sub": EMAIL, "email": EMAIL, "email_verified": true,
        "exp": far_expiry(),
    })
}

/// Two days after [`NOW`], as tests that are about keys move the clock.
fn far_expiry() -> i64 {
    FixedClock::at(NOW).now().unix_timestamp() + 2 * 86_400
}

/// A token with this header and payload. The key is the RSA key if `alg` begins so that it could be.
pub(crate) fn signed_by(keys: &TestKeys, header: &Value, payload: &Value) -> String {
    let is_rsa = header["alg"]
        .as_str()
        .is_some_and(|alg| alg.starts_with(['R', 'P', 'H']));
    let algorithm = if is_rsa {
        TestAlgorithm::Rs256
    } else {
        TestAlgorithm::Es256
    };
    let (header, payload) = (header.to_string(), payload.to_string());
    keys.sign(header.as_bytes(), payload.as_bytes(), algorithm)
        .unwrap()
}

/// Gives every name the same addresses, and remembers the names.
#[derive(Debug)]
pub(crate) struct Addresses {
    addresses: Mutex<Vec<std::net::IpAddr>>,
    asked: Mutex<Vec<String>>,
}

impl Addresses {
    pub(crate) fn new(addresses: &[&str]) -> Arc<Self> {
        let resolver = Self {
            addresses: Mutex::default(),
            asked: Mutex::default(),
        };
        resolver.set(addresses);
        Arc::new(resolver)
    }

    pub(crate) fn set(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        *self.addresses.lock().unwrap() = addresses.collect();
    }

    /// The names that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Resolver for Addresses {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<std::net::IpAddr>>> {
        self.asked.lock().unwrap().push(name.to_owned());
        ready(Ok(self.addresses.lock().unwrap().clone())).boxed()
    }
}
