//! The load: requests that were made before, sent over a number of connections, each waiting for its answer.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::http;
use super::issuer::BenchIssuer;
use crate::client::{self, Expected};
use crate::clock::Clock;
use crate::proto::fulcio::ca_client::CaClient;
use crate::proto::fulcio::create_signing_certificate_request::Key;
use crate::proto::fulcio::signing_certificate::Certificate;
use crate::proto::fulcio::{
    CreateSigningCertificateRequest, Credentials, PublicKey, PublicKeyAlgorithm, PublicKeyRequest,
    SigningCertificate, credentials,
};

/// Where certificates are asked for.
const SIGNING_CERT: &str = "/api/v2/signingCert";
/// One answer in so many is checked.
const CHECK_ONE_IN: usize = 100;

/// Why a load cannot be made or driven.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Cryptography,
    /// The server does not answer as a Mayfly does.
    #[error("{url}: {what}")]
    Server {
        /// What was asked.
        url: String,
        /// What came of it.
        what: String,
    },
}

/// A server, as its clients know it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The `Host` of every request.
    pub host: String,
}

impl Target {
    /// Fetches a page.
    ///
    /// # Errors
    /// When nobody listens, or the answer is not 200.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        let failed = |what: String| LoadError::Server {
            url: format!("http://{}{path}", self.host),
            what,
        };
        let mut connection = http::Connection::open(self.address)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let request = http::get(&self.host, path);
        let answer = connection
            .ask(&request)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if answer.status != 200 {
            return Err(failed(format!("status {}", answer.status)));
        }
        Ok(answer.body.to_vec())
    }

    /// What the server's own pages say that clients must trust: whose signatures the checks expect.
    ///
    /// # Errors
    /// When a page is missing or has another form.
    pub async fn trust(&self, log_path: &str) -> Result<Trust, LoadError> {
        let malformed = |path: &str| LoadError::Server {
            url: format!("http://{}{path}", self.host),
            what: "the answer has another form than expected".to_owned(),
        };
        let bundle_path = "/api/v2/trustBundle";
        let bundle: serde_json::Value = serde_json::from_slice(&self.get(bundle_path).await?)
            .map_err(|_| malformed(bundle_path))?;
        let authority = bundle
            .pointer("/chains/0/certificates/0")
            .and_then(serde_json::Value::as_str)
            .and_then(|text| pem::parse(text).ok())
            .ok_or_else(|| malformed(bundle_path))?;
        let log_page = format!("{}/log.v3.json", log_path.trim_end_matches('/'));
        let log: serde_json::Value = serde_json::from_slice(&self.get(&log_page).await?)
            .map_err(|_| malformed(&log_page))?;
        let log_key_der = log
            .get("key")
            .and_then(serde_json::Value::as_str)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or_else(|| malformed(&log_page))?;
        Ok(Trust {
            authority_der: authority.into_contents(),
            log_key_der,
        })
    }
}

/// Whose signatures are expected.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The issuing CA's certificate, DER.
    pub authority_der: Vec<u8>,
    /// The log's key, a DER SubjectPublicKeyInfo.
    pub log_key_der: Vec<u8>,
}

/// What certificates are asked for over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Interface {
    /// REST v2, over HTTP/1.1.
    #[default]
    Http,
    /// gRPC, in the clear.
    Grpc,
}

/// A request, ready to be sent.
struct Request {
    content: Content,
    /// What its answer is checked against; for one in a hundred.
    asked: Option<Asked>,
}

enum Content {
    Http(Vec<u8>),
    Grpc(Box<CreateSigningCertificateRequest>),
}

#[derive(Clone, Debug)]
pub(super) struct Asked {
    email: String,
    public_key_der: Vec<u8>,
}

/// Requests, each with a token, an identity and a key of its own.
pub struct Load {
    requests: Vec<Request>,
    interface: Interface,
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("interface", &self.interface)
            .field("requests", &self.requests.len())
            .finish()
    }
}

impl Load {
    /// Makes `count` requests; on every core, as an RSA signature takes longer than the certificate that it leads to.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn prepare(count: usize, issuer: &BenchIssuer, host: &str) -> Result<Self, LoadError> {
        Self::prepare_over(Interface::default(), count, issuer, host)
    }

    /// The same for an interface.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn prepare_over(
        interface: Interface,
        count: usize,
        issuer: &BenchIssuer,
        host: &str,
    ) -> Result<Self, LoadError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = count.div_ceil(threads);
        let prepared = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|worker| {
                    let numbers = worker * share..((worker + 1) * share).min(count);
                    scope.spawn(move || {
                        let requests =
                            numbers.map(|number| Request::prepare(interface, number, issuer, host));
                        requests.collect::<Option<Vec<_>>>()
                    })
                })
                .collect();
            let done = workers.into_iter().map(|worker| worker.join().ok()?);
            done.collect::<Option<Vec<_>>>()
        });
        let requests = prepared.ok_or(LoadError::Cryptography)?.into_iter();
        Ok(Self {
            requests: requests.flatten().collect(),
            interface,
        })
    }

    /// Sends every request over `connections` connections, each of which waits for an answer before it sends the next.
    pub async fn drive(self, target: &Target, connections: usize) -> Outcome {
        let load = Arc::new(self);
        let next = Arc::new(AtomicUsize::new(0));
        let mut drivers = JoinSet::new();
        let start = Instant::now();
        for _ in 0..connections {
            let address = target.address;
            let (load, next) = (Arc::clone(&load), Arc::clone(&next));
            drivers.spawn(async move { load.drive_one(address, &next).await });
        }
        let mut outcome = Outcome::default();
        while let Some(joined) = drivers.join_next().await {
            match joined {
                Ok(part) => outcome.add(part),
                Err(error) => outcome.fail(error.to_string()),
            }
        }
        outcome.elapsed = start.elapsed();
        outcome.latencies.sort_unstable();
        // Requests that no connection was left for.
        let unsent = load.requests.len() - outcome.latencies.len() - outcome.failed;
        outcome.failed += unsent;
        outcome
    }

    /// Sends so many requests a second, whether or not those before were answered, over so many connections. What waits for
    /// a connection to be free counts for its latency. The time of each is that since `start`.
    pub async fn drive_at_rate(
        self,
        target: &Target,
        connections: usize,
        per_second: u32,
        start: Instant,
    ) -> Paced {
        let load = Arc::new(self);
        let next = Arc::new(AtomicUsize::new(0));
        let mut drivers = JoinSet::new();
        for _ in 0..connections {
            let address = target.address;
            let (load, next) = (Arc::clone(&load), Arc::clone(&next));
            let pace = Duration::from_secs(1) / per_second;
            drivers.spawn(async move { load.drive_one_at(address, &next, start, pace).await });
        }
        let mut paced = Paced::default();
        while let Some(joined) = drivers.join_next().await {
            match joined {
                Ok(part) => {
                    paced.samples.extend(part.samples);
                    paced.refused.extend(part.refused);
                    paced.outcome.add(part.outcome);
                }
                Err(error) => paced.outcome.fail(error.to_string()),
            }
        }
        let unsent = load.requests.len() - paced.samples.len() - paced.outcome.failed;
        paced.outcome.failed += unsent;
        paced
    }

    async fn drive_one_at(
        &self,
        address: SocketAddr,
        next: &AtomicUsize,
        start: Instant,
        pace: Duration,
    ) -> Paced {
        let mut paced = Paced::default();
        let outcome = &mut paced.outcome;
        let mut connection = match Connection::open(address, self.interface).await {
            Ok(connection) => connection,
            Err(error) => {
                outcome.first_failure = Some(format!("cannot connect: {error}"));
                return paced;
            }
        };
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = self.requests.get(number) else {
                return paced;
            };
            let due = start + pace * u32::try_from(number).unwrap_or(u32::MAX);
            let mut sent = due;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                tokio::time::sleep(early).await;
                // A timer that rings late is not the server's fault.
                sent = Instant::now();
            }
            let Ok(has_certificate) = outcome.ask(&mut connection, request).await else {
                return paced;
            };
            let samples = match has_certificate {
                true => &mut paced.samples,
                false => &mut paced.refused,
            };
            samples.push(Sample {
                at: due.saturating_duration_since(start),
                latency: sent.elapsed(),
            });
        }
    }

    async fn drive_one(&self, address: SocketAddr, next: &AtomicUsize) -> Outcome {
        let mut outcome = Outcome::default();
        let mut connection = match Connection::open(address, self.interface).await {
            Ok(connection) => connection,
            Err(error) => {
                outcome.first_failure = Some(format!("cannot connect: {error}"));
                return outcome;
            }
        };
        while let Some(request) = self.requests.get(next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            match outcome.ask(&mut connection, request).await {
                Ok(true) => outcome.latencies.push(start.elapsed()),
                Ok(false) => {}
                Err(()) => return outcome,
            }
        }
        outcome
    }
}

/// A connection that is kept open.
enum Connection {
    Http(http::Connection),
    Grpc(CaClient<Channel>),
}

impl Connection {
    async fn open(address: SocketAddr, interface: Interface) -> io::Result<Self> {
        Ok(match interface {
            Interface::Http => Self::Http(http::Connection::open(address).await?),
            Interface::Grpc => {
                let endpoint = Endpoint::from_shared(format!("http://{address}"));
                let channel = endpoint.map_err(io::Error::other)?.connect().await;
                Self::Grpc(CaClient::new(channel.map_err(io::Error::other)?))
            }
        })
    }

    /// Asks for a certificate. The answer as JSON, if it is to be checked; or why there is none.
    async fn ask(&mut self, request: &Request) -> io::Result<Result<Option<Vec<u8>>, String>> {
        let is_kept = request.asked.is_some();
        match (self, &request.content) {
            (Self::Http(connection), Content::Http(bytes)) => {
                let answer = connection.ask(bytes).await?;
                Ok(if answer.status == 200 {
                    Ok(is_kept.then(|| answer.body.to_vec()))
                } else {
                    let body = String::from_utf8_lossy(answer.body);
                    Err(format!("status {}: {body}", answer.status))
                })
            }
            (Self::Grpc(client), Content::Grpc(message)) => {
                let message = CreateSigningCertificateRequest::clone(message);
                let answer = client.create_signing_certificate(message).await;
                let answer = answer.map(|answer| is_kept.then(|| json(answer.into_inner())));
                Ok(answer.map_err(|status| status.to_string()))
            }
            (Self::Http(_), Content::Grpc(_)) | (Self::Grpc(_), Content::Http(_)) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }
}

/// An answer of gRPC as that of HTTP.
fn json(answer: SigningCertificate) -> Vec<u8> {
    let chain = match answer.certificate {
        Some(Certificate::SignedCertificateEmbeddedSct(embedded)) => embedded.chain,
        Some(Certificate::SignedCertificateDetachedSct(_)) | None => None,
    };
    let certificates = chain.unwrap_or_default().certificates;
    let chain = serde_json::json!({ "certificates": certificates });
    serde_json::json!({ "signedCertificateEmbeddedSct": { "chain": chain } })
        .to_string()
        .into_bytes()
}

impl Request {
    fn prepare(
        interface: Interface,
        number: usize,
        issuer: &BenchIssuer,
        host: &str,
    ) -> Option<Self> {
        let email = format!("user-{number}@bench.example.com");
        let token = issuer.token(&email, &format!("bench-{number}")).ok()?;
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).ok()?;
        let public_key_der = key.public_key().as_der().ok()?.as_ref().to_vec();
        let proof = key.sign(&SystemRandom::new(), email.as_bytes()).ok()?;
        let public_key = pem::encode_config(
            &pem::Pem::new("PUBLIC KEY", public_key_der.as_slice()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        );
        let content = match interface {
            Interface::Http => {
                let body = serde_json::json!({
                    "credentials": { "oidcIdentityToken": token },
                    "publicKeyRequest": {
                        "publicKey": { "algorithm": "ECDSA", "content": public_key },
                        "proofOfPossession": STANDARD.encode(proof.as_ref()),
                    },
                });
                Content::Http(http::post_json(host, SIGNING_CERT, &body.to_string()))
            }
            Interface::Grpc => Content::Grpc(Box::new(CreateSigningCertificateRequest {
                credentials: Some(Credentials {
                    credentials: Some(credentials::Credentials::OidcIdentityToken(token)),
                }),
                key: Some(Key::PublicKeyRequest(PublicKeyRequest {
                    public_key: Some(PublicKey {
                        algorithm: PublicKeyAlgorithm::Ecdsa.into(),
                        content: public_key,
                    }),
                    proof_of_possession: proof.as_ref().to_vec(),
                })),
            })),
        };
        let is_checked = number.is_multiple_of(CHECK_ONE_IN);
        Some(Self {
            content,
            asked: is_checked.then_some(Asked {
                email,
                public_key_der,
            }),
        })
    }
}

/// When a request was due, and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the load's start.
    pub at: Duration,
    /// From then, or from when it was sent, to the last byte of the answer.
    pub latency: Duration,
}

/// What came of a load at a steady rate.
#[derive(Debug, Default)]
pub struct Paced {
    /// The requests that were answered with 200, in no order.
    pub samples: Vec<Sample>,
    /// Those that were answered otherwise.
    pub refused: Vec<Sample>,
    /// Everything else; it has no latencies.
    pub outcome: Outcome,
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From the first byte sent to the last received, of each request that was answered with 200; shortest first.
    pub latencies: Vec<Duration>,
    /// How many requests were not.
    pub failed: usize,
    /// What happened to the first of them.
    pub first_failure: Option<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// One answer in a hundred, with what it is checked against.
    pub(super) kept: Vec<(Asked, Vec<u8>)>,
}

impl Outcome {
    fn add(&mut self, part: Self) {
        self.latencies.extend(part.latencies);
        self.failed += part.failed;
        self.first_failure = self.first_failure.take().or(part.first_failure);
        self.kept.extend(part.kept);
    }

    /// Sends a request, and keeps or counts what came of it. Says whether there was a certificate; fails when the connection
    /// is of no use any more.
    async fn ask(&mut self, connection: &mut Connection, request: &Request) -> Result<bool, ()> {
        match connection.ask(request).await {
            Ok(Ok(answer)) => {
                let asked = request.asked.clone();
                self.kept.extend(asked.zip(answer));
                Ok(true)
            }
            Ok(Err(refusal)) => {
                self.fail(refusal);
                Ok(false)
            }
            Err(error) => {
                self.fail(format!("the connection broke: {error}"));
                Err(())
            }
        }
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(what);
    }

    /// Checks the answers that were kept, all of what a client checks, with another implementation than the server's.
    /// Returns how many there were.
    ///
    /// # Errors
    /// With the first one that does not hold.
    pub fn check(
        &self,
        trust: &Trust,
        issuer: &BenchIssuer,
        clock: &dyn Clock,
    ) -> Result<usize, client::CheckError> {
        for (asked, body) in &self.kept {
            let certificates = client::certificates_of_answer(body)?;
            let leaf = certificates.first().map(Vec::as_slice).unwrap_or_default();
            let expected = Expected {
                public_key_der: &asked.public_key_der,
                name: &asked.email,
                issuer: issuer.url(),
                authority_der: &trust.authority_der,
                log_key_der: &trust.log_key_der,
                now: clock.now(),
            };
            client::check_certificate(leaf, &expected)?;
        }
        Ok(self.kept.len())
    }
}
