//! One server that the operator named: documents from it, and JSON to it.
//!
//! As for every fetch, addresses are checked, and nothing is decompressed; no redirect is followed at all, because whoever
//! may redirect us is not the server that was named.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, InvalidHeaderValue, RETRY_AFTER,
};
use reqwest::{Client, RequestBuilder, Response};
use url::Url;

use super::{
    AddressPolicy, FetchError, GuardedResolver, Resolver, TlsRoots, classify, guarded_client,
};

/// For one connection with its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How much is read of an answer that is not 200: enough for a sentence that says why.
const MAX_COMPLAINT_OCTETS: usize = 1024;

/// A server that the operator named, with what lies below one of its URLs.
///
/// The caller limits the time, and decides on which runtime the connections live.
#[derive(Clone, Debug)]
pub struct Peer {
    client: Client,
    /// Without a slash at the end.
    base: String,
    /// The host that the server knows itself by, where that is not the one in the URL.
    host: Option<HeaderValue>,
}

/// What a peer answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerAnswer {
    /// The HTTP status.
    pub status: u16,
    /// When to come back, as the header `Retry-After` says it.
    pub retry_after: Option<String>,
    /// The body; of an answer that is not 200 only its beginning.
    pub body: Vec<u8>,
}

/// Why there can be no client for a peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The host cannot stand in a header.
    #[error("the host is not one that a request can name")]
    Host(#[from] InvalidHeaderValue),
    /// The library made no client.
    #[error("no TLS client can be made; are the system's root certificates installed?")]
    Client(#[source] reqwest::Error),
}

impl Peer {
    /// A client for what lies below `base`. A rustls provider must be installed in the process.
    ///
    /// `host` is sent as `Host` in place of the one in the URL. With `roots`, the server's certificate must come from them,
    /// and the system's do not count.
    ///
    /// # Errors
    /// When the host is no host, or the system has no root certificates.
    pub fn new(
        base: &Url,
        host: Option<&str>,
        roots: Option<&TlsRoots>,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, PeerError> {
        let resolver = GuardedResolver {
            policy: AddressPolicy::Exact,
            resolver,
        };
        let builder = guarded_client(resolver, CONNECT_TIMEOUT);
        let builder = match roots {
            Some(roots) => builder.tls_certs_only(roots.certificates().map_err(PeerError::Client)?),
            // Without TLS there is no need of the system's roots, which a small container does not have.
            None if base.scheme() == "http" => builder.tls_certs_only([]),
            None => builder,
        };
        Ok(Self {
            client: builder.build().map_err(PeerError::Client)?,
            base: base.as_str().trim_end_matches('/').to_owned(),
            host: host.map(HeaderValue::from_str).transpose()?,
        })
    }

    /// Asks for the document at `path`, which begins with a slash, of at most `limit` octets.
    ///
    /// # Errors
    /// When there is no complete answer; an answer of any status is one.
    pub async fn get(&self, path: &str, limit: usize) -> Result<PeerAnswer, FetchError> {
        let request = self.client.get(self.url(path));
        self.ask(request, limit).await
    }

    /// Posts JSON to `path`, which begins with a slash. The answer has at most `limit` octets.
    ///
    /// # Errors
    /// When there is no complete answer; an answer of any status is one.
    pub async fn post_json(
        &self,
        path: &str,
        json: Vec<u8>,
        limit: usize,
    ) -> Result<PeerAnswer, FetchError> {
        let request = self.client.post(self.url(path));
        let request = request.header(CONTENT_TYPE, "application/json").body(json);
        self.ask(request, limit).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn ask(
        &self,
        mut request: RequestBuilder,
        limit: usize,
    ) -> Result<PeerAnswer, FetchError> {
        if let Some(host) = &self.host {
            request = request.header(HOST, host.clone());
        }
        let response = request.send().await.map_err(|error| classify(&error))?;
        let headers = response.headers();
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let (status, retry_after) = (response.status().as_u16(), retry_after.map(str::to_owned));
        let body = if status == 200 {
            document(response, limit).await?
        } else {
            complaint(response).await
        };
        Ok(PeerAnswer {
            status,
            retry_after,
            body,
        })
    }
}

/// The whole body.
async fn document(mut response: Response, limit: usize) -> Result<Vec<u8>, FetchError> {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    let mut codings = response.headers().get_all(CONTENT_ENCODING).iter();
    if !codings.all(is_plain) {
        return Err(FetchError::Compressed);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
        if body.len() + chunk.len() > limit {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The beginning of a body that says why there is no document. It changes nothing when it breaks off.
async fn complaint(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < MAX_COMPLAINT_OCTETS
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(MAX_COMPLAINT_OCTETS);
    body
}
