//! Logs of others, which answer as they are told: honestly, with lies, late, or not at all.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly::ca::precertificate::POISON_OID;
use mayfly::ca::tbs::without_extension;
use mayfly::clock::{Clock, FixedClock};
use mayfly::ctlog::remote::RemoteLogConfig;
use mayfly::tlog::checkpoint::TreeHead;
use mayfly::tlog::tree::{Hash, empty_root, leaf_hash, node_hash};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::issuer::Reply;
use super::server::NOW;

/// A log's key.
enum LogKey {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl LogKey {
    fn ecdsa() -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn public_key_der(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Rsa(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    /// A `digitally-signed` struct.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let (algorithm, signature) = match self {
            Self::Ecdsa(key) => (3, key.sign(&random, message).unwrap().as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                (1, signature)
            }
        };
        let length = u16::try_from(signature.len()).unwrap().to_be_bytes();
        [&[4, algorithm], &length[..], &signature].concat()
    }
}

/// What a log is asked to promise, and what it would say if it were honest.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    pub(crate) version: u64,
    pub(crate) log_id: Vec<u8>,
    /// Milliseconds since 1970.
    pub(crate) time: u64,
    pub(crate) issuer_key_hash: Vec<u8>,
    pub(crate) tbs: Vec<u8>,
    pub(crate) extensions: Vec<u8>,
    /// What stands behind the signature.
    pub(crate) tail: Vec<u8>,
    log: Arc<Shared>,
}

impl Promise {
    fn new(chain: &[Vec<u8>], log: &Arc<Shared>) -> Self {
        let (_, precertificate) = X509Certificate::from_der(&chain[0]).unwrap();
        let (_, authority) = X509Certificate::from_der(&chain[1]).unwrap();
        let tbs = precertificate.tbs_certificate.as_ref();
        Self {
            version: 0,
            log_id: sha256(&log.key.public_key_der()),
            time: FixedClock::at(NOW).now_millis(),
            issuer_key_hash: sha256(authority.public_key().raw),
            tbs: without_extension(tbs, POISON_OID).unwrap(),
            extensions: Vec::new(),
            tail: Vec::new(),
            log: Arc::clone(log),
        }
    }

    /// The answer to `add-pre-chain`.
    pub(crate) fn json(&self) -> Value {
        self.json_by(&self.log.key)
    }

    /// The same, signed by somebody else.
    pub(crate) fn forged(&self) -> Value {
        self.json_by(&LogKey::ecdsa())
    }

    fn json_by(&self, key: &LogKey) -> Value {
        let tbs_length = u32::try_from(self.tbs.len()).unwrap().to_be_bytes();
        // One that is too long for its length is a lie that is cut short.
        let extensions = u16::try_from(self.extensions.len()).unwrap_or(u16::MAX);
        let entry = [
            &[0, 0],
            &self.time.to_be_bytes()[..],
            &[0, 1],
            &self.issuer_key_hash,
            &tbs_length[1..],
            &self.tbs,
            &extensions.to_be_bytes(),
            &self.extensions,
        ];
        if self.log.is_merging.load(Ordering::SeqCst) {
            let leaf = leaf_hash(&entry.concat());
            self.log.leaves.lock().unwrap().push(leaf);
        }
        let signature = [key.sign(&entry.concat()), self.tail.clone()].concat();
        json!({
            "sct_version": self.version,
            "id": STANDARD.encode(&self.log_id),
            "timestamp": self.time,
            "extensions": STANDARD.encode(&self.extensions),
            "signature": STANDARD.encode(signature),
        })
    }
}

type Says = Arc<dyn Fn(Promise) -> Reply + Send + Sync>;

/// A log of others on a socket. It stops when this is dropped.
pub(crate) struct OtherLog {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
    has_tls: bool,
}

struct Shared {
    key: LogKey,
    tls: Option<Arc<rustls::ServerConfig>>,
    says: Mutex<Says>,
    roots: Mutex<Reply>,
    /// The precertificates that were submitted.
    submitted: Mutex<Vec<Vec<u8>>>,
    /// The hashes of the leaves of its tree.
    leaves: Mutex<Vec<Hash>>,
    is_merging: AtomicBool,
    /// What stands in for answers about its tree.
    tree_replies: Mutex<HashMap<&'static str, Reply>>,
    /// The heads of all requests.
    requests: Mutex<Vec<String>>,
    is_stopping: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtherLog").finish_non_exhaustive()
    }
}

impl OtherLog {
    /// A log that is honest until it is told otherwise.
    pub(crate) fn start(name: &str) -> Self {
        Self::listen(name, LogKey::ecdsa(), None)
    }

    pub(crate) fn start_rsa(name: &str) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self::listen(name, LogKey::Rsa(key), None)
    }

    /// Speaks TLS, with a certificate that `tls_ca_file` of its configuration is about.
    pub(crate) fn start_tls(name: &str) -> Self {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![own.cert.der().clone()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let log = Self::listen(name, LogKey::ecdsa(), Some(Arc::new(config)));
        std::fs::write(log.folder.path().join("ca.pem"), own.cert.pem()).unwrap();
        log
    }

    fn listen(name: &str, key: LogKey, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let block = pem::Pem::new("PUBLIC KEY", key.public_key_der());
        std::fs::write(folder.path().join("log.pub"), pem::encode(&block)).unwrap();
        let has_tls = tls.is_some();
        let shared = Arc::new(Shared {
            key,
            tls,
            says: Mutex::new(Arc::new(|promise| {
                Reply::document(promise.json().to_string())
            })),
            roots: Mutex::new(Reply::status("404 Not Found")),
            submitted: Mutex::default(),
            leaves: Mutex::default(),
            is_merging: AtomicBool::new(true),
            tree_replies: Mutex::default(),
            requests: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.accept(&listener))
        };
        Self {
            name: name.to_owned(),
            address,
            shared,
            thread: Some(thread),
            folder,
            has_tls,
        }
    }

    pub(crate) fn url(&self) -> String {
        let port = self.address.port();
        if self.has_tls {
            format!("https://localhost:{port}/log")
        } else {
            format!("http://127.0.0.1:{port}/log")
        }
    }

    /// The entry of `ct.logs`.
    pub(crate) fn config(&self) -> RemoteLogConfig {
        RemoteLogConfig {
            url: self.url(),
            public_key_file: self.public_key_file(),
            name: Some(self.name.clone()),
            tls_ca_file: self.has_tls.then(|| self.folder.path().join("ca.pem")),
            host: None,
        }
    }

    pub(crate) fn public_key_file(&self) -> PathBuf {
        self.folder.path().join("log.pub")
    }

    pub(crate) fn public_key_der(&self) -> Vec<u8> {
        self.shared.key.public_key_der()
    }

    /// Says this from now on when something is submitted.
    pub(crate) fn says(&self, says: impl Fn(Promise) -> Reply + Send + Sync + 'static) {
        *self.shared.says.lock().unwrap() = Arc::new(says);
    }

    /// Says what an honest log does not, in the form in which an honest log says it.
    pub(crate) fn lies(&self, lie: impl Fn(&mut Promise) + Send + Sync + 'static) {
        self.says(move |mut promise| {
            lie(&mut promise);
            Reply::document(promise.json().to_string())
        });
    }

    /// Gives this answer whatever is submitted.
    pub(crate) fn replies(&self, reply: Reply) {
        self.says(move |_| reply.clone());
    }

    /// Is honest from now on.
    pub(crate) fn is_honest(&self) {
        self.lies(|_| {});
    }

    /// Says this when it is asked for its roots.
    pub(crate) fn has_roots(&self, reply: Reply) {
        *self.shared.roots.lock().unwrap() = reply;
    }

    /// Promises, and merges nothing any more; or merges again.
    pub(crate) fn merges(&self, is_merging: bool) {
        self.shared.is_merging.store(is_merging, Ordering::SeqCst);
    }

    /// Has another tree from now on.
    pub(crate) fn has_leaves(&self, change: impl FnOnce(&mut Vec<Hash>)) {
        change(&mut self.shared.leaves.lock().unwrap());
    }

    /// Says this when it is asked for `get-sth`, `get-sth-consistency` or `get-proof-by-hash`; the truth with `None`.
    pub(crate) fn says_of_its_tree(&self, call: &'static str, reply: Option<Reply>) {
        let mut replies = self.shared.tree_replies.lock().unwrap();
        match reply {
            Some(reply) => replies.insert(call, reply),
            None => replies.remove(call),
        };
    }

    /// How often something was asked for.
    pub(crate) fn asked_for(&self, call: &str) -> usize {
        let path = format!("/log/ct/v1/{call}");
        let is_it = |head: &&String| head.split([' ', '?']).nth(1) == Some(&*path);
        self.requests().iter().filter(is_it).count()
    }

    /// The precertificates that were submitted.
    pub(crate) fn submitted(&self) -> Vec<Vec<u8>> {
        self.shared.submitted.lock().unwrap().clone()
    }

    /// The heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for OtherLog {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
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
            let clone = stream.try_clone().unwrap();
            self.streams.lock().unwrap().push(clone);
            let shared = Arc::clone(self);
            // Ends with its connection, however that ends.
            std::thread::spawn(move || match &shared.tls {
                None => shared.converse(stream),
                Some(config) => {
                    let tls = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                    shared.converse(rustls::StreamOwned::new(tls, stream))
                }
            });
        }
    }

    fn converse(self: &Arc<Self>, stream: impl Read + Write) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.split("\r\n").next());
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body)?;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            self.requests.lock().unwrap().push(head);
            let reply = match &*path {
                "/log/ct/v1/get-roots" => self.roots.lock().unwrap().clone(),
                "/log/ct/v1/add-pre-chain" => self.add_pre_chain(&body),
                _ => self.about_tree(&path),
            };
            reply.write_to(stream.get_mut(), |_| {})?;
        }
    }

    /// Answers the calls about the tree (RFC 6962, sections 4.3 to 4.5).
    fn about_tree(&self, path: &str) -> Reply {
        let (call, query) = path.split_once('?').unwrap_or((path, ""));
        let call = call.trim_start_matches("/log/ct/v1/");
        if let Some(reply) = self.tree_replies.lock().unwrap().get(call) {
            return reply.clone();
        }
        let query = url::form_urlencoded::parse(query.as_bytes());
        let query: HashMap<String, String> = query.into_owned().collect();
        let number = |name: &str| query[name].parse::<usize>().unwrap();
        let base64 = |hashes: Vec<Hash>| -> Vec<String> {
            hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
        };
        let leaves = self.leaves.lock().unwrap();
        let answer = match call {
            "get-sth" => {
                let head = TreeHead {
                    size: leaves.len() as u64,
                    root: root(&leaves),
                    timestamp: FixedClock::at(NOW).now_millis(),
                };
                json!({
                    "tree_size": head.size,
                    "timestamp": head.timestamp,
                    "sha256_root_hash": STANDARD.encode(head.root),
                    "tree_head_signature": STANDARD.encode(self.key.sign(&head.signed_bytes())),
                })
            }
            "get-sth-consistency" => {
                let leaves = &leaves[..number("second")];
                json!({ "consistency": base64(consistency(number("first"), leaves, true)) })
            }
            "get-proof-by-hash" => {
                let wanted = STANDARD.decode(&query["hash"]).unwrap();
                let leaves = &leaves[..number("tree_size")];
                let Some(index) = leaves.iter().position(|leaf| leaf[..] == wanted) else {
                    return Reply::status("404 Not Found");
                };
                json!({ "leaf_index": index, "audit_path": base64(inclusion(index, leaves)) })
            }
            _ => return Reply::status("404 Not Found"),
        };
        Reply::document(answer.to_string())
    }

    fn add_pre_chain(self: &Arc<Self>, body: &[u8]) -> Reply {
        let request: Value = serde_json::from_slice(body).unwrap();
        let chain = request["chain"].as_array().unwrap().iter();
        let chain: Vec<Vec<u8>> = chain
            .map(|der| STANDARD.decode(der.as_str().unwrap()).unwrap())
            .collect();
        self.submitted.lock().unwrap().push(chain[0].clone());
        let says = Arc::clone(&*self.says.lock().unwrap());
        says(Promise::new(&chain, self))
    }
}

/// Where a tree of so many leaves, two or more, is divided.
fn half(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

/// `MTH` of RFC 6962, section 2.1.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(half(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// `PATH` of section 2.1.1.
fn inclusion(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let half = half(leaves.len());
    let (left, right) = leaves.split_at(half);
    let (mut path, other) = if index < half {
        (inclusion(index, left), root(right))
    } else {
        (inclusion(index - half, right), root(left))
    };
    path.push(other);
    path
}

/// `SUBPROOF` of section 2.1.2.
fn consistency(first: usize, leaves: &[Hash], is_known: bool) -> Vec<Hash> {
    if first == leaves.len() {
        return if is_known {
            Vec::new()
        } else {
            vec![root(leaves)]
        };
    }
    let half = half(leaves.len());
    let (left, right) = leaves.split_at(half);
    let (mut proof, other) = if first <= half {
        (consistency(first, left, is_known), root(right))
    } else {
        (consistency(first - half, right, false), root(left))
    };
    proof.push(other);
    proof
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().to_vec()
}
