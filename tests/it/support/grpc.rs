//! A client of gRPC, by another's hand: tonic's.

use std::future::Future;
use std::net::SocketAddr;

use mayfly::proto::fulcio::ca_client::CaClient;
use mayfly::proto::fulcio::credentials::Credentials as Token;
use mayfly::proto::fulcio::{
    CreateSigningCertificateRequest, Credentials, SigningCertificate, signing_certificate,
};
use mayfly::proto::health::health_client::HealthClient;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::HANG;
use super::key::TestKey;
use super::server::{EMAIL, TestServer};

/// A connection.
pub(crate) struct Caller {
    runtime: Runtime,
    channel: Channel,
}

impl Caller {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        // It answers pings while the test does something else.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self { runtime, channel }
    }

    pub(crate) fn ca(&self) -> CaClient<Channel> {
        CaClient::new(self.channel.clone())
    }

    pub(crate) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// What a call comes to.
    pub(crate) fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(HANG, call).await };
        self.runtime.block_on(limited).expect("an answer in time")
    }

    /// Asks for a certificate.
    pub(crate) fn sign(
        &self,
        request: impl tonic::IntoRequest<CreateSigningCertificateRequest>,
    ) -> Result<tonic::Response<SigningCertificate>, Status> {
        self.wait(self.ca().create_signing_certificate(request))
    }
}

/// Puts a token into a request.
pub(crate) fn with_token(
    mut request: CreateSigningCertificateRequest,
    token: &str,
) -> CreateSigningCertificateRequest {
    request.credentials = Some(Credentials {
        credentials: Some(Token::OidcIdentityToken(token.to_owned())),
    });
    request
}

/// The PEM blocks of an answer with a timestamp in the certificate.
pub(crate) fn certificates(answer: SigningCertificate) -> Vec<String> {
    match answer.certificate.unwrap() {
        signing_certificate::Certificate::SignedCertificateEmbeddedSct(embedded) => {
            embedded.chain.unwrap().certificates
        }
        other => panic!("{other:?}"),
    }
}

impl TestServer {
    /// A request over gRPC that is answered with a certificate.
    pub(crate) fn good_call(&self) -> Request<CreateSigningCertificateRequest> {
        let token = self.token(&mayfly::dev::oidc::TestClaims::email(EMAIL));
        Request::new(with_token(TestKey::generate().message(EMAIL), &token))
    }
}

/// What a request over HTTP/2 was answered with, to the last header field.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: http::HeaderMap,
}

impl RawAnswer {
    /// The value of a field of the trailers, or of the head of an answer that has none.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        let value = self.trailers.get(name).or_else(|| self.headers.get(name));
        value.map(|value| value.to_str().unwrap())
    }

    /// The number of the status.
    pub(crate) fn code(&self) -> &str {
        self.trailer("grpc-status").unwrap_or("none")
    }
}

/// A request over HTTP/2 that has the fields it is given, and no others.
pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> http::request::Builder {
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
}

/// A call of a method with these fields beside those that every call has.
pub(crate) fn call(path: &str, headers: &[(&str, &str)]) -> http::request::Builder {
    let usual = [("content-type", "application/grpc"), ("te", "trailers")];
    request("POST", path, &[&usual[..], headers].concat())
}

/// Sends a request over a connection of its own. `body` comes in these pieces; without an end if `is_open`.
pub(crate) fn send_raw(
    address: SocketAddr,
    request: http::request::Builder,
    body: &[&[u8]],
    is_open: bool,
) -> Result<RawAnswer, h2::Error> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        exchange(stream, request, body, is_open).await
    };
    let limited = async { tokio::time::timeout(HANG, exchange).await };
    runtime.block_on(limited).expect("an answer in time")
}

/// The same over any stream.
pub(crate) async fn exchange(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    request: http::request::Builder,
    body: &[&[u8]],
    is_open: bool,
) -> Result<RawAnswer, h2::Error> {
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut client = client.ready().await?;
    let ends = body.is_empty() && !is_open;
    let (response, mut stream) = client.send_request(request.body(()).unwrap(), ends)?;
    for (index, piece) in body.iter().enumerate() {
        let is_last = index + 1 == body.len() && !is_open;
        // A server that has answered may not want the rest.
        let _ = stream.send_data(bytes::Bytes::copy_from_slice(piece), is_last);
    }
    let (head, mut received) = response.await?.into_parts();
    let mut octets = Vec::new();
    while let Some(chunk) = received.data().await {
        let chunk = chunk?;
        received.flow_control().release_capacity(chunk.len())?;
        octets.extend_from_slice(&chunk);
    }
    let trailers = received.trailers().await?.unwrap_or_default();
    Ok(RawAnswer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: octets,
        trailers,
    })
}

/// A message with the octets before it.
pub(crate) fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat()
}
