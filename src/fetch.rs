//! Documents from other servers, fetched within fixed limits: time, size, redirects, addresses.
//!
//! The URL of a fetch can depend on what a stranger sent, so every hop is checked before a socket is opened: the scheme,
//! an address written as such, and each address that the host's name resolves to.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt::{self, Debug};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_ENCODING, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use url::{Host, Url};
use x509_parser::parse_x509_certificate;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;
/// The longest URL that is asked, in octets.
const MAX_URL_OCTETS: usize = 8 * 1024;
/// How many fetches run at once; more wait within their own time limit.
const MAX_IN_FLIGHT: usize = 64;

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

/// Certificates that are trusted for one fetch beside the system's roots.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct ExtraRoots(Vec<Vec<u8>>);

impl ExtraRoots {
    /// Reads one or more certificates in PEM.
    ///
    /// # Errors
    /// When the text is not PEM, holds anything but certificates, or none.
    pub fn parse(pem_text: &str) -> Result<Self, InvalidRoots> {
        let blocks = pem::parse_many(pem_text).map_err(|_| InvalidRoots)?;
        let is_certificate = |block: &pem::Pem| {
            block.tag() == "CERTIFICATE"
                && parse_x509_certificate(block.contents()).is_ok_and(|(rest, _)| rest.is_empty())
        };
        if blocks.is_empty() || !blocks.iter().all(is_certificate) {
            return Err(InvalidRoots);
        }
        Ok(Self(
            blocks.into_iter().map(pem::Pem::into_contents).collect(),
        ))
    }
}

impl Debug for ExtraRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtraRoots({} certificates)", self.0.len())
    }
}

/// A text is not a list of certificates in PEM.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not one or more PEM blocks of type CERTIFICATE")]
pub struct InvalidRoots;

/// What to fetch, and under which rules.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The document's URL.
    pub url: Url,
    /// Which addresses may be asked.
    pub addresses: AddressPolicy,
    /// Whether `http` will do. Otherwise only `https` is asked.
    pub allow_http: bool,
    /// Roots that are trusted for this fetch, beside the system's.
    pub extra_roots: Option<Arc<ExtraRoots>>,
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
            Self::ForbiddenAddress | Self::TooLarge | Self::Compressed | Self::ForbiddenUrl => {
                "invalid"
            }
        }
    }

    /// Whether the other side is merely not there, so that trying again may help; otherwise it answers wrongly.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Timeout | Self::Dns | Self::Connect | Self::Status(429 | 500..) => true,
            Self::Tls
            | Self::ForbiddenAddress
            | Self::Status(_)
            | Self::Redirect
            | Self::TooLarge
            | Self::Compressed
            | Self::ForbiddenUrl => false,
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
    in_flight: Semaphore,
    /// A client for each set of rules, because a client's resolver and roots are fixed when it is built.
    clients: Mutex<HashMap<ClientRules, Client>>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct ClientRules {
    addresses: AddressPolicy,
    extra_roots: Option<Arc<ExtraRoots>>,
    /// Without TLS there is no need of the system's roots, which a small container does not have.
    has_tls: bool,
}

impl HttpFetcher {
    /// Returns a fetcher that works on `runtime`. A rustls provider must be installed in the process.
    #[must_use]
    pub fn new(runtime: Handle, limits: FetchLimits) -> Self {
        Self {
            runtime,
            shared: Arc::new(Shared {
                limits,
                in_flight: Semaphore::new(MAX_IN_FLIGHT),
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
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        let _permit = self
            .in_flight
            .acquire()
            .await
            .map_err(|_| FetchError::Connect)?;
        let client = self.client(&request)?;
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            check_url(&url, &request)?;
            let response = client
                .get(url.clone())
                .send()
                .await
                .map_err(|error| classify(&error))?;
            match response.status().as_u16() {
                200 => return self.body(response).await,
                301 | 302 | 303 | 307 | 308 => url = redirect_target(&url, &response)?,
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Redirect)
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, FetchError> {
        let is_plain = |coding: &reqwest::header::HeaderValue| {
            coding.as_bytes().eq_ignore_ascii_case(b"identity")
        };
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
            tracing::error!(%error, "no TLS client can be made; are the system's root certificates installed?");
            FetchError::Tls
        })?;
        clients.insert(rules, client.clone());
        Ok(client)
    }

    fn build_client(&self, rules: &ClientRules) -> reqwest::Result<Client> {
        let builder = Client::builder()
            .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(self.limits.connect)
            .dns_resolver(GuardedResolver(rules.addresses));
        if !rules.has_tls {
            return builder.tls_certs_only([]).build();
        }
        let roots = rules.extra_roots.iter().flat_map(|roots| &roots.0);
        let roots = roots
            .map(|der| Certificate::from_der(der))
            .collect::<Result<Vec<_>, _>>()?;
        builder.tls_certs_merge(roots).build()
    }
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

/// Resolves names as the system does and keeps only the addresses that the policy permits.
///
/// The connection goes to the very addresses that were checked, so a name cannot change its mind in between.
#[derive(Clone, Copy, Debug)]
struct GuardedResolver(AddressPolicy);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found
                .filter(|address| policy.permits(address.ip()))
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
        // The TLS layer's error travels inside an I/O error, which is not its `source`.
        let inner = this
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if this.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return FetchError::Tls;
        }
        cause = this.source();
    }
    if error.is_dns() {
        FetchError::Dns
    } else {
        FetchError::Connect
    }
}
