//! A CA asked over gRPC (`dev.sigstore.fulcio.v2.CA`), at the host and port of its URL, in the clear or over TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;

use super::certificates::certificates_in;
use super::request::{Ca, CertificateRequest, Proof, RequestError, pem_text};
use super::token::innermost;
use crate::fetch::TlsRoots;
use crate::proto::fulcio::ca_client::CaClient;
use crate::proto::fulcio::create_signing_certificate_request::Key;
use crate::proto::fulcio::credentials::Credentials as Token;
use crate::proto::fulcio::signing_certificate::Certificate;
use crate::proto::fulcio::{
    CreateSigningCertificateRequest, Credentials, PublicKey, PublicKeyRequest,
};

/// For a whole call; the CA answers within 4 s.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Asks once. Returns the certificates of the answer, DER.
pub(super) async fn send(
    request: &CertificateRequest<'_>,
    ca: &Ca<'_>,
) -> Result<Vec<Vec<u8>>, RequestError> {
    let mut client = CaClient::new(connect(ca).await?);
    let answer = client.create_signing_certificate(message(request)).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    let chain = match answer.certificate {
        Some(Certificate::SignedCertificateEmbeddedSct(embedded)) => embedded.chain,
        Some(Certificate::SignedCertificateDetachedSct(detached)) => detached.chain,
        None => None,
    };
    let pems = chain.unwrap_or_default().certificates.join("\n");
    certificates_in(pems.as_bytes())
        .map_err(|_| RequestError::Answer("it holds no certificate with a chain".to_owned()))
}

fn message(request: &CertificateRequest<'_>) -> CreateSigningCertificateRequest {
    let key = match request.proof {
        Proof::Challenge(signature) => Key::PublicKeyRequest(PublicKeyRequest {
            public_key: Some(PublicKey {
                content: pem_text("PUBLIC KEY", request.public_key_der),
                ..PublicKey::default()
            }),
            proof_of_possession: signature.clone(),
        }),
        Proof::Csr(pem) => Key::CertificateSigningRequest(pem.clone().into_bytes()),
    };
    CreateSigningCertificateRequest {
        credentials: Some(Credentials {
            credentials: Some(Token::OidcIdentityToken(request.token.to_owned())),
        }),
        key: Some(key),
    }
}

async fn connect(ca: &Ca<'_>) -> Result<Channel, RequestError> {
    let unreachable = |what: String| RequestError::Unreachable(what);
    let host = ca.url.host_str().unwrap_or_default().to_owned();
    let port = ca.url.port_or_known_default().unwrap_or_default();
    let is_tls = ca.url.scheme() == "https";
    let uri = |scheme: &str| -> Result<Uri, RequestError> {
        let uri = format!("{scheme}://{host}:{port}").parse();
        uri.map_err(|_| unreachable(format!("{host}:{port} is no address")))
    };
    let tls = is_tls.then(|| tls_config(ca.tls_roots)).transpose();
    let tls = tls.map_err(|error| unreachable(error.to_string()))?;
    // The library is given a stream that is TLS already, so for its part there is none; what is said to the server is true.
    let endpoint = Endpoint::from(uri("http")?)
        .origin(uri(ca.url.scheme())?)
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT);
    let connector = service_fn(move |_| {
        let (tls, host) = (tls.clone(), host.trim_matches(['[', ']']).to_owned());
        async move { open(&host, port, tls).await.map(TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map_err(|error| unreachable(innermost(&error)))
}

async fn open(
    host: &str,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((host, port)).await?;
    let Some(config) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Box::new(stream))
}

/// Trusts the system's roots, and these.
fn tls_config(roots: Option<&TlsRoots>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = roots.map_or(&[][..], TlsRoots::ders);
    let roots = roots.iter().map(|der| CertificateDer::from(der.clone()));
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn refused(status: &Status) -> RequestError {
    let reason = status.metadata().get("mayfly-reason");
    let reason = reason.and_then(|value| value.to_str().ok());
    RequestError::Refused {
        status: format!("gRPC {:?}", status.code()),
        reason: reason.map(str::to_owned),
        message: status.message().to_owned(),
        is_passing: matches!(status.code(), Code::Unavailable | Code::ResourceExhausted),
    }
}
