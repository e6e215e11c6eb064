//! Documents from other servers, fetched within fixed limits: time, size, redirects, addresses.
//!
//! The URL of a fetch can depend on what a stranger sent, so every hop is checked before a socket is opened: the scheme,
//! an address written as such, and each address that the host's name resolves to.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt::{self, Debug};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use url::{Host, Origin, Url};

pub mod peer;
mod roots;

pub use roots::{InvalidRoots, TlsRoots};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;
/// The longest URL that is asked, in octets.
const MAX_URL_OCTETS: usize = 8 * 1024;
/// How many fetches run at once; more wait within their own time limit.
const MAX_IN_FLIGHT: usize = 64;
/// How many of them ask one host, so that a host that hangs keeps no other waiting. Not fewer, as a host can have
/// hundreds of issuers, and all of them are fetched at the start.
const MAX_PER_HOST: usize = 8;

/// Which addresses a fetch may connect to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AddressPolicy {
    /// Any but unspecified, broadcast, multicast, link-local and cloud metadata addresses: for URLs that the operator wrote.
    Exact,
    /// Globally reachable unicast addresses only: for URLs that a token had a part in.
    Public,
}

impl AddressPolicy {
    /// Whether a connection to `address` is permitted. IPv4 addresses inside IPv6 count as what they are.
    #[must_use]
    pub fn permits(self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                !is_never_v4(address) && (self == Self::Exact || is_public_v4(address))
            }
            IpAddr::V6(address) => {
                !is_never_v6(address) && (self == Self::Exact || is_public_v6(address))
            }
        }
    }
}

/// Addresses that no document is fetched from: 0.0.0.0/8, multicast, broadcast, link-local, and the metadata services
/// that clouds keep outside the link-local range.
fn is_never_v4(address: Ipv4Addr) -> bool {
    const METADATA: [Ipv4Addr; 2] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    let [first, ..] = address.octets();
    first == 0
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA.contains(&address)
}

/// As [`is_never_v4`], with fe80::/10 and the IPv6 address of a metadata service; and IPv4 addresses in their
/// deprecated or translated IPv6 forms (::/96, 64:ff9b::/96, 2002::/16) when the address inside is one of those.
fn is_never_v6(address: Ipv6Addr) -> bool {
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address == METADATA
        || (address != Ipv6Addr::LOCALHOST && embedded_v4(address).is_some_and(is_never_v4))
}

/// The IPv4 address that an IPv6 address stands for, in the forms that [`IpAddr::to_canonical`] leaves alone.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let joined = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(joined(high, low))
        }
        [0x2002, high, low, ..] => Some(joined(high, low)),
        _ => None,
    }
}

/// Whether an IPv4 address is globally reachable (IANA special-purpose address registry, RFC 6890).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && second & 0b1100_0000 == 64;
    let is_protocol_assignment = (first, second, third) == (192, 0, 0);
    let is_relay_anycast = (first, second, third) == (192, 88, 99);
    let is_benchmarking = first == 198 && second & 0b1111_1110 == 18;
    let is_reserved = first >= 240;
    !(address.is_private()
        || address.is_loopback()
        || address.is_documentation()
        || is_shared
        || is_protocol_assignment
        || is_relay_anycast
        || is_benchmarking
        || is_reserved)
}

/// Whether an IPv6 address is globally reachable: 2000::/3 without protocol assignments, documentation and 6to4.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_global_unicast = first & 0xe000 == 0x2000;
    let is_protocol_assignment = first == 0x2001 && second < 0x200;
    let is_documentation =
        (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    let is_6to4 = first == 0x2002;
    is_global_unicast && !is_protocol_assignment && !is_documentation && !is_6to4
}

/// The files by which the API server of a Kubernetes cluster is reached. They are read for every fetch, because the cluster
/// replaces them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterFiles {
    /// The certificates of the cluster's CA, in PEM, if they are in a file. It must be there.
    pub ca: Option<PathBuf>,
    /// The token of the service account that we run as. Without this file no token is sent.
    pub token: PathBuf,
}

impl Default for ClusterFiles {
    /// Where Fulcio's deployment mounts the one and every cluster the other.
    fn default() -> Self {
        Self {
            ca: Some(PathBuf::from("/var/run/fulcio/ca.crt")),
            token: PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        }
    }
}

/// What a server is asked with, and which server alone.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Scheme, host and port of the only server that sees the token.
    pub origin: Origin,
    /// Where token and roots are, if not where the fetcher knows them to be.
    pub files: Option<Arc<ClusterFiles>>,
}

/// What to fetch, and under which rules.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The document's URL.
    pub url: Url,
    /// Which addresses may be asked.
    pub addresses: AddressPolicy,
    /// Whether `http` will do. Otherwise only `https` is asked.
    pub allow_http: bool,
    /// Roots that are trusted for this fetch, beside the system's. Those of a credential stand in their place.
    pub extra_roots: Option<Arc<TlsRoots>>,
    /// The server's credential. With one, no other server is asked.
    pub credential: Option<Credential>,
}

/// Why a document could not be fetched. The texts name neither URL nor address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FetchError {
    /// The time limit passed.
    #[error("no complete answer within the time limit")]
    Timeout,
    /// The TLS handshake failed, usually because the certificate is not trusted or not for this host.
    #[error(
        "the TLS handshake failed; the certificate may be expired, for another host, or from an unknown authority"
    )]
    Tls,
    /// The host's name does not resolve.
    #[error("the host name does not resolve")]
    Dns,
    /// The host is, or resolves to nothing but, addresses that the policy keeps out.
    #[error("the host has no address that may be connected to")]
    ForbiddenAddress,
    /// No connection, or it broke.
    #[error("the connection failed")]
    Connect,
    /// An answer that is neither 200 nor a redirect.
    #[error("the server answered with status {0}, expected 200")]
    Status(u16),
    /// A redirect to another scheme, host or port, to nowhere, or one too many.
    #[error("the server redirects to another scheme, host or port, or more than three times")]
    Redirect,
    /// The document is longer than the limit.
    #[error("the document is larger than 1 MiB")]
    TooLarge,
    /// The document came compressed, which was not asked for.
    #[error("the document is compressed, which is not accepted")]
    Compressed,
    /// The URL is not one that may be asked.
    #[error("the URL is not one that may be fetched: https, without user name, of at most 8 KiB")]
    ForbiddenUrl,
    /// The URL is on another server than the one that the credential is for.
    #[error("the URL is on another host than the issuer, which our credential is for alone")]
    ForeignHost,
    /// A file that the server must be asked with cannot be used.
    #[error("the CA certificate or the token of the cluster cannot be read")]
    ClusterFiles,
}

impl FetchError {
    /// The `result` label of the metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Status(500..) => "http_5xx",
            Self::Status(_) => "http_4xx",
            Self::Redirect => "redirect",
            Self::ForbiddenAddress
            | Self::TooLarge
            | Self::Compressed
            | Self::ForbiddenUrl
            | Self::ForeignHost
            | Self::ClusterFiles => "invalid",
        }
    }

    /// Whether the other side is merely not there, so that trying again may help; otherwise it answers wrongly.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Timeout
            | Self::Dns
            | Self::Connect
            | Self::ClusterFiles
            | Self::Status(429 | 500..) => true,
            Self::Tls
            | Self::ForbiddenAddress
            | Self::Status(_)
            | Self::Redirect
            | Self::TooLarge
            | Self::Compressed
            | Self::ForbiddenUrl
            | Self::ForeignHost => false,
        }
    }
}

/// Something that fetches documents.
pub trait Fetcher: Debug + Send + Sync {
    /// Fetches one document and returns its bytes.
    ///
    /// # Errors
    /// When no document came within the limits; see [`FetchError`].
    fn get(&self, request: FetchRequest) -> BoxFuture<'static, Result<Vec<u8>, FetchError>>;
}

/// Finds the addresses behind a host's name.
pub trait Resolver: Debug + Send + Sync {
    /// The addresses of `name`, in the order in which they are to be tried.
    ///
    /// # Errors
    /// When the name does not resolve.
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Resolves names as the system does.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The limits of one fetch.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// For everything: names, connections, redirects, the whole body. Default 5 s.
    pub total: Duration,
    /// For one connection with its TLS handshake. Default 2 s.
    pub connect: Duration,
    /// The longest body. Default 1 MiB.
    pub body_octets: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(5),
            connect: Duration::from_secs(2),
            body_octets: 1024 * 1024,
        }
    }
}

/// Fetches over HTTP/1.1, with TLS by rustls and the system's roots.
///
/// Uses neither proxies nor cookies, decodes no compression, and follows redirects on the same origin only. All I/O runs
/// on the runtime that was given, so that connections outlive the thread of the request that opened them.
#[derive(Clone, Debug)]
pub struct HttpFetcher {
    runtime: Handle,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: FetchLimits,
    resolver: Arc<dyn Resolver>,
    cluster_files: ClusterFiles,
    in_flight: Semaphore,
    /// The fetches that may still begin from each host that is being asked.
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
    /// A client for each set of rules, because a client's resolver and roots are fixed when it is built.
    clients: Mutex<HashMap<ClientRules, Client>>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct ClientRules {
    addresses: AddressPolicy,
    extra_roots: Option<Arc<TlsRoots>>,
    /// Without TLS there is no need of the system's roots, which a small container does not have.
    has_tls: bool,
}

impl HttpFetcher {
    /// Returns a fetcher that works on `runtime`. A rustls provider must be installed in the process.
    ///
    /// `cluster_files` are those of the cluster that we run in, if we do.
    #[must_use]
    pub fn new(
        runtime: Handle,
        limits: FetchLimits,
        resolver: Arc<dyn Resolver>,
        cluster_files: ClusterFiles,
    ) -> Self {
        Self {
            runtime,
            shared: Arc::new(Shared {
                limits,
                resolver,
                cluster_files,
                in_flight: Semaphore::new(MAX_IN_FLIGHT),
                hosts: Mutex::default(),
                clients: Mutex::default(),
            }),
        }
    }
}

impl Fetcher for HttpFetcher {
    fn get(&self, request: FetchRequest) -> BoxFuture<'static, Result<Vec<u8>, FetchError>> {
        let shared = Arc::clone(&self.shared);
        let task = self.runtime.spawn(async move {
            tokio::time::timeout(shared.limits.total, shared.fetch(request))
                .await
                .unwrap_or(Err(FetchError::Timeout))
        });
        // The task ends early only when the runtime stops.
        Box::pin(async move { task.await.unwrap_or(Err(FetchError::Connect)) })
    }
}

impl Shared {
    async fn fetch(&self, mut request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        check_url(&request.url, &request)?;
        let token = match request.credential.take() {
            Some(credential) => credential.apply_to(&mut request, &self.cluster_files)?,
            None => None,
        };
        // The host's turn first: whoever waits for a slow host takes no turn from the others.
        let host = self.host(request.url.authority());
        let _turns = (
            host.acquire().await.map_err(|_| FetchError::Connect)?,
            self.in_flight
                .acquire()
                .await
                .map_err(|_| FetchError::Connect)?,
        );
        let client = self.client(&request)?;
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            check_url(&url, &request)?;
            let mut asked = client.get(url.clone());
            if let Some(token) = &token {
                // Redirects lead to the same server only.
                asked = asked.header(AUTHORIZATION, token.clone());
            }
            let response = asked.send().await.map_err(|error| classify(&error))?;
            match response.status().as_u16() {
                200 => return self.body(response).await,
                301 | 302 | 303 | 307 | 308 => url = redirect_target(&url, &response)?,
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Redirect)
    }

    fn host(&self, authority: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(authority).and_then(Weak::upgrade) {
            return host;
        }
        hosts.retain(|_, host| host.strong_count() > 0);
        let host = Arc::new(Semaphore::new(MAX_PER_HOST));
        hosts.insert(authority.to_owned(), Arc::downgrade(&host));
        host
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, FetchError> {
        let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
        if !response
            .headers()
            .get_all(CONTENT_ENCODING)
            .iter()
            .all(is_plain)
        {
            return Err(FetchError::Compressed);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if body.len() + chunk.len() > self.limits.body_octets {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn client(&self, request: &FetchRequest) -> Result<Client, FetchError> {
        let rules = ClientRules {
            addresses: request.addresses,
            extra_roots: request.extra_roots.clone(),
            has_tls: request.url.scheme() == "https",
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&rules) {
            return Ok(client.clone());
        }
        let client = self.build_client(&rules).map_err(|error| {
            tracing::error!(event = "tls_client_failed", %error, "no TLS client can be made; are the system's root certificates installed?");
            FetchError::Tls
        })?;
        clients.insert(rules, client.clone());
        Ok(client)
    }

    fn build_client(&self, rules: &ClientRules) -> reqwest::Result<Client> {
        let resolver = GuardedResolver {
            policy: rules.addresses,
            resolver: Arc::clone(&self.resolver),
        };
        let builder = guarded_client(resolver, self.limits.connect);
        if !rules.has_tls {
            return builder.tls_certs_only([]).build();
        }
        let roots = rules.extra_roots.as_deref().map(TlsRoots::certificates);
        let roots = roots.transpose()?.unwrap_or_default();
        builder.tls_certs_merge(roots).build()
    }
}

/// A client that goes where it is told and nowhere else.
fn guarded_client(resolver: GuardedResolver, connect: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))
        // What a server may send, and for how long, is bounded for this version alone.
        .http1_only()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(connect)
        .dns_resolver(resolver)
}

impl Credential {
    /// Puts the cluster's roots into a request, and returns the header with the token, if there is one.
    fn apply_to(
        &self,
        request: &mut FetchRequest,
        default_files: &ClusterFiles,
    ) -> Result<Option<HeaderValue>, FetchError> {
        let files = self.files.as_deref().unwrap_or(default_files);
        if request.url.origin() != self.origin {
            return Err(FetchError::ForeignHost);
        }
        if let Some(path) = &files.ca {
            let pem = read_small(path)?.ok_or_else(|| unreadable(path, "it is not there"))?;
            let roots = TlsRoots::parse(&pem).map_err(|error| unreadable(path, error))?;
            request.extra_roots = Some(Arc::new(roots));
        }
        let path = &files.token;
        // In the clear it would be anyone's.
        let token = Some(path).filter(|_| request.url.scheme() == "https");
        let Some(token) = token.map(|path| read_small(path)).transpose()?.flatten() else {
            return Ok(None);
        };
        let header = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut header = header.map_err(|error| unreadable(path, error))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// Reads a file of the cluster; nothing if it is not there.
fn read_small(path: &Path) -> Result<Option<String>, FetchError> {
    const MAX_OCTETS: u64 = 1 << 20;
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if !metadata.is_file() => return Err(unreadable(path, "it is not a file")),
        Ok(_) | Err(_) => {}
    }
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    let mut text = String::new();
    let read = file.take(MAX_OCTETS).read_to_string(&mut text);
    read.map_err(|error| unreadable(path, error))?;
    Ok(Some(text))
}

/// The path is for the operator's eyes: the error is told to clients.
fn unreadable(path: &Path, why: impl fmt::Display) -> FetchError {
    tracing::warn!(event = "cluster_file_unusable", path = %path.display(), %why, "a file that the cluster's API server is asked with cannot be used");
    FetchError::ClusterFiles
}

/// Checks a URL before it is asked: the first one and the target of every redirect.
fn check_url(url: &Url, request: &FetchRequest) -> Result<(), FetchError> {
    let is_scheme_allowed =
        url.scheme() == "https" || (url.scheme() == "http" && request.allow_http);
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !is_scheme_allowed || has_user || url.as_str().len() > MAX_URL_OCTETS {
        return Err(FetchError::ForbiddenUrl);
    }
    // The connector asks the resolver about names only, so an address written as such is checked here.
    let address = match url.host().ok_or(FetchError::ForbiddenUrl)? {
        Host::Domain(_) => return Ok(()),
        Host::Ipv4(address) => IpAddr::V4(address),
        Host::Ipv6(address) => IpAddr::V6(address),
    };
    if request.addresses.permits(address) {
        Ok(())
    } else {
        Err(FetchError::ForbiddenAddress)
    }
}

/// Where a redirect leads. Only the path and query may change.
fn redirect_target(from: &Url, response: &Response) -> Result<Url, FetchError> {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| from.join(location).ok());
    target
        .filter(|target| target.origin() == from.origin() && target.scheme() == from.scheme())
        .ok_or(FetchError::Redirect)
}

/// Keeps only those addresses of a name that the policy permits.
///
/// The connection goes to the very addresses that were checked, so a name cannot change its mind in between.
#[derive(Debug)]
struct GuardedResolver {
    policy: AddressPolicy,
    resolver: Arc<dyn Resolver>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy;
        let found = self.resolver.resolve(name.as_str());
        Box::pin(async move {
            let permitted: Vec<SocketAddr> = found
                .await?
                .into_iter()
                .filter(|address| policy.permits(*address))
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if permitted.is_empty() {
                return Err(NoPermittedAddress.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no permitted address")]
struct NoPermittedAddress;

/// Sorts a failure of the HTTP client by its causes.
fn classify(error: &reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Timeout;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(this) = cause {
        if this.is::<NoPermittedAddress>() {
            return FetchError::ForbiddenAddress;
        }
        if this.is::<rustls::Error>() {
            return FetchError::Tls;
        }
        // What an I/O error was made of is not its `source`.
        cause = match this
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => this.source(),
        };
    }
    if error.is_dns() {
        FetchError::Dns
    } else {
        FetchError::Connect
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    /// A server that answers each path with fixed bytes and then does what the answer says.
    struct Server {
        port: u16,
        requests: Arc<Mutex<Vec<String>>>,
    }

    #[derive(Clone)]
    enum Answer {
        /// The whole answer, head and body.
        Whole(Vec<u8>),
        /// The beginning of an answer; the connection stays open.
        Stalled(Vec<u8>),
        /// The beginning of an answer, and then this for ever.
        Endless(Vec<u8>, Vec<u8>),
        /// The whole answer, once there is a permit.
        Gated(Vec<u8>, Arc<Semaphore>),
    }

    fn ok(headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        Answer::Whole([head.as_bytes(), body].concat())
    }

    fn redirect(location: &str) -> Answer {
        Answer::Whole(
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
                .into_bytes(),
        )
    }

    impl Server {
        async fn start(answers: impl FnOnce(u16) -> HashMap<&'static str, Answer>) -> Self {
            Self::start_with("127.0.0.1:0", None, answers).await
        }

        async fn start_with(
            address: &str,
            tls: Option<TlsAcceptor>,
            answers: impl FnOnce(u16) -> HashMap<&'static str, Answer>,
        ) -> Self {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (answers, requests) = (answers(port), Arc::new(Mutex::new(Vec::new())));
            let server = Self {
                port,
                requests: Arc::clone(&requests),
            };
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (answers, requests, tls) =
                        (answers.clone(), Arc::clone(&requests), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => serve(stream, &answers, &requests).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(stream, &answers, &requests).await;
                                }
                            }
                        }
                    });
                }
            });
            server
        }

        fn url(&self, path: &str) -> Url {
            Url::parse(&format!("http://127.0.0.1:{}{path}", self.port)).unwrap()
        }

        fn paths(&self) -> Vec<String> {
            let requests = self.requests.lock().unwrap();
            requests
                .iter()
                .map(|request| request.split(' ').nth(1).unwrap().to_owned())
                .collect()
        }
    }

    async fn serve(
        mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
        answers: &HashMap<&'static str, Answer>,
        requests: &Mutex<Vec<String>>,
    ) {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(octet) = stream.read_u8().await else {
                    return;
                };
                head.push(octet);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            requests.lock().unwrap().push(head);
            let answer = answers.get(path.as_str()).cloned();
            let answer = answer.unwrap_or_else(|| {
                Answer::Whole(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec())
            });
            match answer {
                Answer::Whole(octets) => stream.write_all(&octets).await.unwrap(),
                Answer::Stalled(octets) => {
                    stream.write_all(&octets).await.unwrap();
                    std::future::pending::<()>().await;
                }
                Answer::Endless(head, chunk) => {
                    stream.write_all(&head).await.unwrap();
                    while stream.write_all(&chunk).await.is_ok() {}
                    return;
                }
                Answer::Gated(octets, gate) => {
                    gate.acquire().await.unwrap().forget();
                    stream.write_all(&octets).await.unwrap();
                }
            }
        }
    }

    fn fetcher() -> HttpFetcher {
        fetcher_asking(Arc::new(SystemResolver))
    }

    /// No cluster: neither file is there.
    fn nowhere() -> ClusterFiles {
        ClusterFiles {
            ca: Some(PathBuf::from("/nowhere/ca.crt")),
            token: PathBuf::from("/nowhere/token"),
        }
    }

    fn fetcher_asking(resolver: Arc<dyn Resolver>) -> HttpFetcher {
        // Only the first test to come here installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let limits = FetchLimits {
            total: Duration::from_millis(500),
            ..FetchLimits::default()
        };
        HttpFetcher::new(Handle::current(), limits, resolver, nowhere())
    }

    /// Gives a name these addresses, one answer after another.
    #[derive(Debug)]
    struct Script(Mutex<VecDeque<Vec<IpAddr>>>);

    impl Script {
        fn new(answers: &[&[&str]]) -> Arc<Self> {
            let parse = |answer: &&[&str]| -> Vec<IpAddr> {
                answer.iter().map(|text| text.parse().unwrap()).collect()
            };
            let answers = answers.iter().map(parse);
            Arc::new(Self(Mutex::new(answers.collect())))
        }

        fn left(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    impl Resolver for Script {
        fn resolve(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let answer = self.0.lock().unwrap().pop_front();
            Box::pin(async move { answer.ok_or_else(|| io::ErrorKind::NotFound.into()) })
        }
    }

    fn request(url: Url) -> FetchRequest {
        FetchRequest {
            url,
            addresses: AddressPolicy::Exact,
            allow_http: true,
            extra_roots: None,
            credential: None,
        }
    }

    async fn get(url: Url) -> Result<Vec<u8>, FetchError> {
        fetcher().get(request(url)).await
    }

    #[tokio::test]
    async fn a_document_comes_as_it_is_and_nothing_is_said_about_us() {
        let server =
            Server::start(|_| HashMap::from([("/a?x=y", ok("Set-Cookie: a=b\r\n", b"{}"))])).await;
        assert_eq!(get(server.url("/a?x=y")).await.unwrap(), b"{}");
        let head = server.requests.lock().unwrap()[0].to_ascii_lowercase();
        for header in ["accept-encoding", "authorization", "cookie", "referer"] {
            assert!(!head.contains(header), "{head}");
        }
    }

    #[tokio::test]
    async fn redirects_are_followed_on_the_same_origin_three_times() {
        let server = Server::start(|port| {
            HashMap::from([
                ("/3", redirect("/2")),
                ("/2", redirect(&format!("http://127.0.0.1:{port}/1"))),
                ("/1", redirect("0")),
                ("/0", ok("", b"here")),
                ("/4", redirect("/3")),
                ("/loop", redirect("/loop")),
            ])
        })
        .await;
        assert_eq!(get(server.url("/3")).await.unwrap(), b"here");
        assert_eq!(server.paths(), ["/3", "/2", "/1", "/0"]);
        assert_eq!(get(server.url("/4")).await, Err(FetchError::Redirect));
        assert_eq!(get(server.url("/loop")).await, Err(FetchError::Redirect));
    }

    #[tokio::test]
    async fn redirects_to_another_origin_are_not_followed() {
        let elsewhere = Server::start(|_| HashMap::from([("/", ok("", b"secret"))])).await;
        let port = elsewhere.port;
        let server = Server::start(|own| {
            HashMap::from([
                ("/port", redirect(&format!("http://127.0.0.1:{port}/"))),
                ("/name", redirect(&format!("http://localhost:{own}/port"))),
                (
                    "/scheme",
                    redirect(&format!("https://127.0.0.1:{own}/port")),
                ),
                ("/file", redirect("file:///etc/passwd")),
                ("/gopher", redirect("gopher://127.0.0.1/")),
                ("/relative", redirect(&format!("//127.0.0.1:{port}/"))),
                (
                    "/none",
                    Answer::Whole(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_vec()),
                ),
            ])
        })
        .await;
        for path in [
            "/port",
            "/name",
            "/scheme",
            "/file",
            "/gopher",
            "/relative",
            "/none",
        ] {
            assert_eq!(
                get(server.url(path)).await,
                Err(FetchError::Redirect),
                "{path}"
            );
        }
        assert!(elsewhere.paths().is_empty());
        assert_eq!(server.paths().len(), 7);
    }

    #[tokio::test]
    async fn answers_that_are_not_a_plain_document_are_refused() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        let server = Server::start(|_| {
            let status = |line: &str| {
                Answer::Whole(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes())
            };
            HashMap::from([
                ("/gzip", ok("Content-Encoding: gzip\r\n", b"\x1f\x8b")),
                ("/identity", ok("Content-Encoding: identity\r\n", b"plain")),
                ("/limit", ok("", &vec![b'x'; 1024 * 1024])),
                ("/large", ok("", &vec![b'x'; 1024 * 1024 + 1])),
                (
                    "/endless",
                    Answer::Endless(chunked.into(), chunk.clone().into()),
                ),
                (
                    "/endless-head",
                    Answer::Endless(b"HTTP/1.1 200 OK\r\n".into(), b"A: b\r\n".repeat(999)),
                ),
                ("/204", status("204 No Content")),
                ("/304", status("304 Not Modified")),
                ("/500", status("500 Oops")),
                ("/401", status("401 Unauthorized")),
                ("/silent", Answer::Stalled(Vec::new())),
                (
                    "/slow",
                    Answer::Stalled(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx".to_vec()),
                ),
                ("/short", Answer::Whole(b"garbage\r\n\r\n".to_vec())),
            ])
        })
        .await;
        assert_eq!(get(server.url("/limit")).await.unwrap().len(), 1024 * 1024);
        assert_eq!(get(server.url("/identity")).await.unwrap(), b"plain");
        for (path, expected, label) in [
            ("/gzip", FetchError::Compressed, "invalid"),
            ("/large", FetchError::TooLarge, "invalid"),
            ("/endless", FetchError::TooLarge, "invalid"),
            ("/endless-head", FetchError::Connect, "connect"),
            ("/204", FetchError::Status(204), "http_4xx"),
            ("/304", FetchError::Status(304), "http_4xx"),
            ("/404", FetchError::Status(404), "http_4xx"),
            ("/401", FetchError::Status(401), "http_4xx"),
            ("/500", FetchError::Status(500), "http_5xx"),
            ("/silent", FetchError::Timeout, "timeout"),
            ("/slow", FetchError::Timeout, "timeout"),
            ("/short", FetchError::Connect, "connect"),
        ] {
            let error = get(server.url(path)).await.unwrap_err();
            assert_eq!((error.clone(), error.label()), (expected, label), "{path}");
        }
    }

    #[tokio::test]
    async fn hosts_that_are_not_there_are_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(
            get(url(&format!("http://{free}/"))).await,
            Err(FetchError::Connect)
        );
        assert_eq!(
            get(url("http://nowhere.invalid/")).await,
            Err(FetchError::Dns)
        );
    }

    #[tokio::test]
    async fn urls_that_may_not_be_asked_are_refused_before_any_connection() {
        let server = Server::start(|_| HashMap::new()).await;
        let port = server.port;
        let long = format!("http://127.0.0.1:{port}/{}", "x".repeat(MAX_URL_OCTETS));
        for (text, allow_http, addresses, expected) in [
            (
                format!("http://127.0.0.1:{port}/"),
                false,
                AddressPolicy::Exact,
                FetchError::ForbiddenUrl,
            ),
            (
                format!("http://u:p@127.0.0.1:{port}/"),
                true,
                AddressPolicy::Exact,
                FetchError::ForbiddenUrl,
            ),
            (
                "file:///etc/passwd".to_owned(),
                true,
                AddressPolicy::Exact,
                FetchError::ForbiddenUrl,
            ),
            (long, true, AddressPolicy::Exact, FetchError::ForbiddenUrl),
            (
                format!("http://127.0.0.1:{port}/"),
                true,
                AddressPolicy::Public,
                FetchError::ForbiddenAddress,
            ),
            (
                format!("http://0x7f.1:{port}/"),
                true,
                AddressPolicy::Public,
                FetchError::ForbiddenAddress,
            ),
            (
                format!("http://[::ffff:127.0.0.1]:{port}/"),
                true,
                AddressPolicy::Public,
                FetchError::ForbiddenAddress,
            ),
            // The name is resolved, and every address that it has is refused.
            (
                format!("http://localhost:{port}/"),
                true,
                AddressPolicy::Public,
                FetchError::ForbiddenAddress,
            ),
            (
                "http://169.254.169.254/latest/meta-data".to_owned(),
                true,
                AddressPolicy::Exact,
                FetchError::ForbiddenAddress,
            ),
        ] {
            let url = Url::parse(&text).unwrap();
            let request = FetchRequest {
                addresses,
                allow_http,
                ..request(url)
            };
            assert_eq!(fetcher().get(request).await, Err(expected), "{text:.60}");
        }
        assert!(server.paths().is_empty());
    }

    #[tokio::test]
    async fn the_connection_goes_to_the_address_that_was_checked() {
        let server = Server::start(|_| HashMap::from([("/", ok("", b"here"))])).await;
        let elsewhere = Server::start_with(&format!("127.0.0.2:{}", server.port), None, |_| {
            HashMap::from([("/", ok("", b"elsewhere"))])
        })
        .await;
        let names = Script::new(&[&["169.254.169.254", "127.0.0.1"], &["127.0.0.2"]]);
        let url = Url::parse(&format!("http://name.test:{}/", server.port)).unwrap();
        let fetched = fetcher_asking(names.clone()).get(request(url)).await;
        assert_eq!(fetched.unwrap(), b"here");
        assert_eq!(names.left(), 1);
        assert!(elsewhere.paths().is_empty());
    }

    #[tokio::test]
    async fn a_name_that_changes_its_address_is_checked_again_at_each_redirect() {
        let server = Server::start(|_| {
            let head = "HTTP/1.1 302 Found\r\nLocation: /2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            HashMap::from([("/1", Answer::Whole(head.into())), ("/2", ok("", b"secret"))])
        })
        .await;
        let names = Script::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
        let url = Url::parse(&format!("http://name.test:{}/1", server.port)).unwrap();
        let fetched = fetcher_asking(names.clone()).get(request(url)).await;
        assert_eq!(fetched, Err(FetchError::ForbiddenAddress));
        assert_eq!((names.left(), server.paths().len()), (0, 1));
    }

    #[tokio::test]
    async fn names_without_a_public_address_are_not_asked_when_one_is_needed() {
        let server = Server::start(|_| HashMap::from([("/", ok("", b"secret"))])).await;
        for addresses in [
            &["127.0.0.1"][..],
            &["::1"],
            &["::ffff:127.0.0.1"],
            &["0.0.0.0"],
            &["::"],
            &["10.0.0.1", "127.0.0.1", "::1"],
            &[],
        ] {
            let url = Url::parse(&format!("http://name.test:{}/", server.port)).unwrap();
            let request = FetchRequest {
                addresses: AddressPolicy::Public,
                ..request(url)
            };
            let fetched = fetcher_asking(Script::new(&[addresses])).get(request).await;
            assert_eq!(fetched, Err(FetchError::ForbiddenAddress), "{addresses:?}");
        }
        assert!(server.paths().is_empty());
    }

    #[tokio::test]
    async fn a_few_fetches_ask_one_host_at_once_and_others_do_not_wait_for_it() {
        let gate = Arc::new(Semaphore::new(0));
        let octets = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        let slow =
            Server::start(|_| HashMap::from([("/", Answer::Gated(octets, gate.clone()))])).await;
        let other = Server::start(|_| HashMap::from([("/", ok("", b"{}"))])).await;
        let limits = FetchLimits {
            total: Duration::from_secs(30),
            ..FetchLimits::default()
        };
        let resolver = Arc::new(SystemResolver);
        let fetcher = HttpFetcher::new(Handle::current(), limits, resolver, nowhere());
        let waiting: Vec<_> = (0..3 * MAX_IN_FLIGHT)
            .map(|_| fetcher.get(request(slow.url("/"))))
            .collect();
        while slow.paths().len() < MAX_PER_HOST {
            tokio::task::yield_now().await;
        }
        assert_eq!(fetcher.get(request(other.url("/"))).await.unwrap(), b"{}");
        assert_eq!(slow.paths().len(), MAX_PER_HOST);
        gate.add_permits(waiting.len());
        for fetch in futures_util::future::join_all(waiting).await {
            assert_eq!(fetch.unwrap(), b"");
        }
    }

    #[test]
    fn addresses_are_sorted_by_what_may_lie_behind_them() {
        // (address, whether an exact issuer may have it, whether an issuer of a pattern may)
        for (address, exact, public) in [
            ("8.8.8.8", true, true),
            ("10.0.0.1", true, false),
            ("172.16.0.1", true, false),
            ("172.32.0.1", true, true),
            ("192.168.1.1", true, false),
            ("100.64.0.1", true, false),
            ("100.128.0.1", true, true),
            ("127.0.0.1", true, false),
            ("192.0.0.1", true, false),
            ("192.0.2.1", true, false),
            ("192.88.99.1", true, false),
            ("198.18.0.1", true, false),
            ("198.51.100.1", true, false),
            ("203.0.113.1", true, false),
            ("240.0.0.1", true, false),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("169.254.169.254", false, false),
            ("100.100.100.200", false, false),
            ("192.0.0.192", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("2606:4700::1111", true, true),
            ("::1", true, false),
            ("fc00::1", true, false),
            ("fd12::1", true, false),
            ("2001:db8::1", true, false),
            ("2001::1", true, false),
            ("3fff::1", true, false),
            ("2002:808:808::", true, false),
            ("64:ff9b::808:808", true, false),
            ("::ffff:8.8.8.8", true, true),
            ("::ffff:10.0.0.1", true, false),
            ("::ffff:169.254.169.254", false, false),
            ("::169.254.169.254", false, false),
            ("64:ff9b::169.254.169.254", false, false),
            ("2002:a9fe:a9fe::", false, false),
            ("fd00:ec2::254", false, false),
            ("::", false, false),
            ("fe80::1", false, false),
            ("ff02::1", false, false),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            let found = (
                AddressPolicy::Exact.permits(parsed),
                AddressPolicy::Public.permits(parsed),
            );
            assert_eq!(found, (exact, public), "{address}");
        }
    }

    /// A certificate for a name with its key, self-signed unless there is an authority.
    fn certificate(
        name: &str,
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        (params.self_signed(&key).unwrap(), key)
    }

    async fn tls_server(
        chain: Vec<CertificateDer<'static>>,
        key: &rcgen::KeyPair,
        answers: impl FnOnce(u16) -> HashMap<&'static str, Answer>,
    ) -> Server {
        let private_key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = config
            .with_no_client_auth()
            .with_single_cert(chain, private_key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::start_with("127.0.0.1:0", Some(acceptor), answers).await
    }

    /// Fetches `/` from `https://localhost`, trusting these roots.
    async fn get_over_tls(port: u16, roots: &str) -> Result<Vec<u8>, FetchError> {
        let url = Url::parse(&format!("https://localhost:{port}/")).unwrap();
        let request = FetchRequest {
            extra_roots: Some(Arc::new(TlsRoots::parse(roots).unwrap())),
            ..request(url)
        };
        fetcher().get(request).await
    }

    #[tokio::test]
    async fn extra_roots_are_trusted_for_their_fetch_only() {
        let (certificate, key) = certificate("localhost", |_| {});
        let pem = certificate.pem();
        let server = tls_server(vec![certificate.der().clone()], &key, |_| {
            HashMap::from([("/", ok("", b"safe"))])
        })
        .await;
        let url = Url::parse(&format!("https://localhost:{}/", server.port)).unwrap();
        let wrong_name = Url::parse(&format!("https://127.0.0.1:{}/", server.port)).unwrap();
        let roots = Some(Arc::new(TlsRoots::parse(&pem).unwrap()));
        let fetcher = fetcher();
        let with_roots = |url: &Url| FetchRequest {
            extra_roots: roots.clone(),
            ..request(url.clone())
        };
        assert_eq!(fetcher.get(with_roots(&url)).await.unwrap(), b"safe");
        assert_eq!(
            fetcher.get(request(url.clone())).await,
            Err(FetchError::Tls)
        );
        assert_eq!(
            fetcher.get(with_roots(&wrong_name)).await,
            Err(FetchError::Tls)
        );
    }

    #[tokio::test]
    async fn certificates_that_do_not_hold_end_the_fetch() {
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        let (other, _) = certificate("localhost", |_| {});
        for (what, name, not_before, not_after, roots) in [
            ("expired", "localhost", 2000, 2001, None),
            ("not yet valid", "localhost", 4000, 4001, None),
            ("for another host", "elsewhere.example", 2000, 4000, None),
            (
                "unknown authority",
                "localhost",
                2000,
                4000,
                Some(other.pem()),
            ),
        ] {
            let (certificate, key) = certificate(name, |params| {
                params.not_before = year(not_before);
                params.not_after = year(not_after);
            });
            let server = tls_server(vec![certificate.der().clone()], &key, |_| {
                HashMap::from([("/", ok("", b"secret"))])
            })
            .await;
            let roots = roots.unwrap_or_else(|| certificate.pem());
            let fetched = get_over_tls(server.port, &roots).await;
            assert_eq!(fetched, Err(FetchError::Tls), "{what}");
            assert!(server.paths().is_empty(), "{what}");
        }
    }

    #[tokio::test]
    async fn versions_of_tls_before_1_2_are_not_spoken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).await.unwrap();
            let length = u16::from_be_bytes([hello[3], hello[4]]);
            stream
                .read_exact(&mut vec![0; length.into()])
                .await
                .unwrap();
            // RFC 4346, section 7.4.1.3: a ServerHello of version 3.2, with a cipher suite of that time.
            let random = [7; 32];
            let body = [&[3, 2], &random[..], &[0, 0xc0, 0x13, 0]].concat();
            let length = u8::try_from(body.len()).unwrap();
            let message = [&[22, 3, 2, 0, length + 4, 2, 0, 0, length], &body[..]].concat();
            stream.write_all(&message).await.unwrap();
            // The connection stays open: it is for the other side to leave.
            let _ = stream.read(&mut [0; 64]).await;
        });
        let (certificate, _) = certificate("localhost", |_| {});
        let fetched = get_over_tls(port, &certificate.pem()).await;
        assert_eq!(fetched, Err(FetchError::Tls));
    }

    /// A cluster: its API server, and the folder in which its files are.
    async fn cluster(
        answers: impl FnOnce(u16) -> HashMap<&'static str, Answer>,
    ) -> (Server, ClusterFiles, tempfile::TempDir) {
        let (certificate, key) = certificate("localhost", |_| {});
        let server = tls_server(vec![certificate.der().clone()], &key, answers).await;
        let folder = tempfile::tempdir().unwrap();
        let files = ClusterFiles {
            ca: Some(folder.path().join("ca.crt")),
            token: folder.path().join("token"),
        };
        std::fs::write(files.ca.as_ref().unwrap(), certificate.pem()).unwrap();
        std::fs::write(&files.token, "first\n").unwrap();
        (server, files, folder)
    }

    fn with_credential(url: &Url, files: &ClusterFiles) -> FetchRequest {
        let credential = Credential {
            origin: url.origin(),
            files: Some(Arc::new(files.clone())),
        };
        FetchRequest {
            credential: Some(credential),
            ..request(url.clone())
        }
    }

    fn bearers(server: &Server) -> Vec<Option<String>> {
        let heads = server.requests.lock().unwrap();
        let bearer = |head: &String| {
            let line = head
                .lines()
                .find_map(|line| line.strip_prefix("authorization: "));
            line.map(str::to_owned)
        };
        heads.iter().map(bearer).collect()
    }

    #[tokio::test]
    async fn a_cluster_is_asked_with_its_ca_and_the_token_of_the_moment() {
        let (server, files, _folder) =
            cluster(|_| HashMap::from([("/", ok("", b"{}")), ("/moved", redirect("/"))])).await;
        let url = Url::parse(&format!("https://localhost:{}/", server.port)).unwrap();
        let fetcher = fetcher();
        let get = || fetcher.get(with_credential(&url, &files));
        assert_eq!(get().await.unwrap(), b"{}");
        std::fs::write(&files.token, "second").unwrap();
        assert_eq!(get().await.unwrap(), b"{}");
        let moved = with_credential(&url.join("moved").unwrap(), &files);
        assert_eq!(fetcher.get(moved).await.unwrap(), b"{}");
        std::fs::remove_file(&files.token).unwrap();
        assert_eq!(get().await.unwrap(), b"{}");
        let bearer = |token: &str| Some(format!("Bearer {token}"));
        let second = bearer("second");
        assert_eq!(
            bearers(&server),
            [
                bearer("first"),
                second.clone(),
                second.clone(),
                second,
                None
            ]
        );
    }

    #[tokio::test]
    async fn the_token_of_a_cluster_is_for_its_api_server_alone() {
        let (server, files, _folder) = cluster(|port| {
            let away = redirect(&format!("https://127.0.0.1:{port}/"));
            HashMap::from([("/", ok("", b"{}")), ("/away", away)])
        })
        .await;
        let at = |host: &str, path: &str| {
            Url::parse(&format!("https://{host}:{}{path}", server.port)).unwrap()
        };
        let own = at("localhost", "/");
        for elsewhere in [
            at("127.0.0.1", "/"),
            Url::parse("https://localhost/").unwrap(),
            Url::parse(&format!("https://LOCALHOST.:{}/", server.port)).unwrap(),
        ] {
            let request = FetchRequest {
                url: elsewhere.clone(),
                ..with_credential(&own, &files)
            };
            let fetched = fetcher().get(request).await;
            assert_eq!(fetched, Err(FetchError::ForeignHost), "{elsewhere}");
        }
        let away = with_credential(&at("localhost", "/away"), &files);
        assert_eq!(fetcher().get(away).await, Err(FetchError::Redirect));
        assert_eq!(server.paths(), ["/away"]);

        // In the clear it is kept back.
        let plain = Server::start(|_| HashMap::from([("/", ok("", b"{}"))])).await;
        let request = with_credential(&plain.url("/"), &files);
        assert_eq!(fetcher().get(request).await.unwrap(), b"{}");
        assert_eq!(bearers(&plain), [None]);
    }

    #[tokio::test]
    async fn files_of_a_cluster_that_cannot_be_used_end_the_fetch() {
        let (server, files, folder) = cluster(|_| HashMap::from([("/", ok("", b"{}"))])).await;
        let url = Url::parse(&format!("https://localhost:{}/", server.port)).unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, "two\nlines").unwrap();
        let ca = files.ca.clone();
        let token = files.token.clone();
        for (ca, token) in [
            (Some(folder.path().join("missing")), token.clone()),
            (Some(folder.path().to_owned()), token.clone()),
            (Some(text.clone()), token),
            (ca.clone(), text),
            (ca, folder.path().to_owned()),
        ] {
            let request = with_credential(&url, &ClusterFiles { ca, token });
            let fetched = fetcher().get(request).await;
            assert_eq!(fetched, Err(FetchError::ClusterFiles));
        }
        assert!(server.paths().is_empty());
    }

    #[tokio::test]
    async fn redirects_do_not_leave_tls() {
        let (certificate, key) = certificate("localhost", |_| {});
        let server = tls_server(vec![certificate.der().clone()], &key, |port| {
            HashMap::from([("/", redirect(&format!("http://localhost:{port}/2")))])
        })
        .await;
        let fetched = get_over_tls(server.port, &certificate.pem()).await;
        assert_eq!(fetched, Err(FetchError::Redirect));
        assert_eq!(server.paths(), ["/"]);
    }
}
