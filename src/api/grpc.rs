//! The service over gRPC: the certificate authority, health checks, and reflection where it is switched on.
//!
//! A call is read to its end within the limits that hold over HTTP/1.1, and issued by the same function; then it is one
//! message in, one message out. tonic would read calls before we could look, so that only the streams of reflection are its.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method as HttpMethod, Request, Response, request};
use http_body_util::{BodyDataStream, BodyExt, Full};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;

use crate::api::fulcio::{self, BodyLimit, Caller};
use crate::api::observe::{self, IssuedLine, Line};
use crate::api::outcome::Refusal;
use crate::api::{Api, Deadline, Endpoint, ErrorDetail, request as decoding, survive};
use crate::ca::IssuedCertificate;
use crate::identity::IssuerConfiguration;
use crate::limits;
use crate::metrics::{HttpRequest, Procedure, Stage};
use crate::proto::fulcio as messages;
use crate::x509::chain::certificate_pem;

mod frame;
mod health;
mod reflection;

pub use reflection::Reflection;

/// The interface in the metrics of certificates.
const INTERFACE: &str = "grpc_v2";

/// What calls are answered with that is the same for many: messages with the octets before them.
#[derive(Debug)]
pub(super) struct Documents {
    /// The chain's PEM blocks, issuing CA first, without line ends after them.
    chain: Vec<String>,
    trust_bundle: Bytes,
    /// Follows the identity configuration.
    configuration: ArcSwap<Bytes>,
}

impl Documents {
    /// Makes the answers for a chain and the configured issuers.
    pub(super) fn new(chain: &[String], issuers: &[IssuerConfiguration]) -> Self {
        // As in the answer over HTTP, every PEM block ends with a line end here, and nowhere else.
        let certificates = chain.iter().map(|pem| format!("{pem}\n")).collect();
        let trust_bundle = messages::TrustBundle {
            chains: vec![messages::CertificateChain { certificates }],
        };
        Self {
            chain: chain.to_vec(),
            trust_bundle: frame::framed(&trust_bundle),
            configuration: ArcSwap::from_pointee(configuration(issuers)),
        }
    }

    /// Other issuers are configured from now on.
    pub(super) fn set_issuers(&self, issuers: &[IssuerConfiguration]) {
        self.configuration.store(Arc::new(configuration(issuers)));
    }

    /// The answer with a certificate.
    fn signing_certificate(&self, issued: &IssuedCertificate) -> Bytes {
        use messages::signing_certificate::Certificate;
        let leaf = std::iter::once(certificate_pem(&issued.certificate));
        let chain = Some(messages::CertificateChain {
            certificates: leaf.chain(self.chain.iter().cloned()).collect(),
        });
        let certificate = if issued.is_logged {
            Certificate::SignedCertificateEmbeddedSct(messages::SigningCertificateEmbeddedSct {
                chain,
            })
        } else {
            Certificate::SignedCertificateDetachedSct(messages::SigningCertificateDetachedSct {
                chain,
                signed_certificate_timestamp: Vec::new(),
            })
        };
        frame::framed(&messages::SigningCertificate {
            certificate: Some(certificate),
        })
    }
}

/// The answer to `GetConfiguration`.
fn configuration(issuers: &[IssuerConfiguration]) -> Bytes {
    use messages::oidc_issuer::Issuer;
    let issuers = issuers.iter().map(|issuer| messages::OidcIssuer {
        issuer: Some(if issuer.is_wildcard {
            Issuer::WildcardIssuerUrl(issuer.url.clone())
        } else {
            Issuer::IssuerUrl(issuer.url.clone())
        }),
        audience: issuer.audience.clone(),
        challenge_claim: issuer.challenge_claim.to_owned(),
        spiffe_trust_domain: issuer.spiffe_trust_domain.clone(),
        issuer_type: issuer.issuer_type.to_owned(),
        subject_domain: issuer.subject_domain.clone(),
        skip_email_verification: issuer.skip_email_verification,
    });
    frame::framed(&messages::Configuration {
        issuers: issuers.collect(),
    })
}

/// What can be called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Method {
    CreateSigningCertificate,
    GetTrustBundle,
    GetConfiguration,
    HealthCheck,
    HealthList,
    HealthWatch,
    Reflection,
}

impl Method {
    /// The method with this path, `/` service `/` name.
    fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/dev.sigstore.fulcio.v2.CA/CreateSigningCertificate" => Self::CreateSigningCertificate,
            "/dev.sigstore.fulcio.v2.CA/GetTrustBundle" => Self::GetTrustBundle,
            "/dev.sigstore.fulcio.v2.CA/GetConfiguration" => Self::GetConfiguration,
            "/grpc.health.v1.Health/Check" => Self::HealthCheck,
            "/grpc.health.v1.Health/List" => Self::HealthList,
            "/grpc.health.v1.Health/Watch" => Self::HealthWatch,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => Self::Reflection,
            _ => return None,
        })
    }

    /// How it is counted, and named in log lines.
    const fn endpoint(self) -> (Procedure, Endpoint) {
        let (procedure, name, is_quiet) = match self {
            Self::CreateSigningCertificate => {
                let procedure = Procedure::CREATE_SIGNING_CERTIFICATE;
                (procedure, "v2_signing_cert", false)
            }
            Self::GetTrustBundle => (Procedure::GET_TRUST_BUNDLE, "v2_trust_bundle", false),
            Self::GetConfiguration => (Procedure::GET_CONFIGURATION, "v2_configuration", false),
            Self::HealthCheck => (Procedure::HEALTH_CHECK, Endpoint::HEALTHZ, true),
            Self::HealthList => (Procedure::HEALTH_LIST, Endpoint::HEALTHZ, true),
            Self::HealthWatch => (Procedure::HEALTH_WATCH, Endpoint::HEALTHZ, true),
            Self::Reflection => (Procedure::REFLECTION, "reflection", true),
        };
        (procedure, Endpoint::new(name, Some(procedure), is_quiet))
    }
}

/// What a call came to.
enum Reply {
    Message(Bytes),
    Certificate(Bytes, IssuedLine),
    /// More than one message, in the course of time.
    Stream(Response<Body>),
}

/// Answers a request that came over HTTP/2 from `peer`. The extensions of the request are held for as long as the answer
/// goes on, so that who put something there finds out.
pub async fn answer<B>(api: &Arc<Api>, request: Request<B>, peer: Option<IpAddr>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError>>
        + Send
        + Unpin
        + 'static,
{
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let given_id = head.headers.get("x-request-id");
    let call = Call {
        api,
        request_id: observe::request_id(api.random.as_ref(), given_id.map(HeaderValue::as_bytes)),
        client: peer.map(|peer| api.address_behind(peer, |name| texts(&head.headers, name))),
        head,
        start,
    };
    if !call.is_grpc() {
        return call.refuse_other_http();
    }
    let method = Method::of_path(call.head.uri.path());
    let result = match method {
        Some(method) => survive(api, pin!(call.reply(method, body)))
            .await
            .and_then(|reply| reply),
        None => Err(Refusal::unimplemented("unknown method")),
    };
    call.finish(method, result)
}

/// A call, from its head to its answer.
struct Call<'a> {
    api: &'a Arc<Api>,
    head: request::Parts,
    request_id: String,
    client: Option<IpAddr>,
    start: Instant,
}

impl Call<'_> {
    /// Whether this is gRPC with messages in protobuf (gRPC over HTTP/2, "Requests").
    fn is_grpc(&self) -> bool {
        let content_type = self.head.headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.and_then(|value| value.split(';').next());
        let is_ours = matches!(
            content_type.map(str::trim_ascii),
            Some("application/grpc" | "application/grpc+proto")
        );
        is_ours && self.head.method == HttpMethod::POST
    }

    async fn reply<B>(&self, method: Method, body: B) -> Result<Reply, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError>>
            + Send
            + Unpin
            + 'static,
    {
        let api = self.api;
        let deadline = self.deadline()?;
        match method {
            Method::CreateSigningCertificate => {
                self.create_signing_certificate(body, deadline).await
            }
            Method::GetTrustBundle => {
                self.read(body, deadline).await?;
                Ok(Reply::Message(api.documents.messages.trust_bundle.clone()))
            }
            Method::GetConfiguration => {
                self.read(body, deadline).await?;
                let configuration = api.documents.messages.configuration.load();
                Ok(Reply::Message(Bytes::clone(&configuration)))
            }
            Method::HealthCheck => {
                let body = self.read(body, deadline).await?;
                health::check(api, &decode(&body)?).map(Reply::Message)
            }
            Method::HealthList => {
                self.read(body, deadline).await?;
                Ok(Reply::Message(health::list(api)))
            }
            Method::HealthWatch => {
                let open = self.open(Procedure::HEALTH_WATCH)?;
                let body = self.read(body, deadline).await?;
                let watch = health::watch(Arc::clone(api), decode(&body)?);
                Ok(Reply::Stream(frame::answer(open.around(watch))))
            }
            Method::Reflection => {
                let Some(reflection) = &api.reflection else {
                    return Err(Refusal::unimplemented("unknown method"));
                };
                let open = self.open(Procedure::REFLECTION)?;
                let mut request = Request::new(Body::new(body));
                *request.uri_mut() = self.head.uri.clone();
                *request.headers_mut() = self.head.headers.clone();
                let response = reflection.answer(request).await;
                Ok(Reply::Stream(response.map(|body| open.around(body))))
            }
        }
    }

    async fn create_signing_certificate<B>(
        &self,
        body: B,
        deadline: Deadline,
    ) -> Result<Reply, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let caller = Caller {
            interface: INTERFACE,
            address: self.client,
            deadline,
        };
        let values = |name| {
            self.head
                .headers
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
        };
        let decode = |body: &[u8]| {
            let (tokens, authorizations) =
                (values("oidcidentitytoken"), values(AUTHORIZATION.as_str()));
            let message = frame::message(body)?;
            Ok(decoding::decode_grpc(message, tokens, authorizations)?)
        };
        let issued = fulcio::issue(self.api, &caller, pin!(self.body(body)), decode).await?;
        let start = Instant::now();
        let message = self.api.documents.messages.signing_certificate(&issued);
        self.api.metrics.stage(Stage::Encode, start.elapsed());
        let line = IssuedLine::new(&issued, INTERFACE);
        Ok(Reply::Certificate(message, line))
    }

    /// All octets of a call.
    fn body<B>(&self, body: B) -> impl Future<Output = Result<Vec<u8>, Refusal>>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let limit = BodyLimit {
            octets: self.api.max_body_bytes + frame::PREFIX,
            too_large: Refusal::message_too_large,
            incomplete: Refusal::taken_back,
        };
        fulcio::read_body(self.api, None, BodyDataStream::new(body), limit)
    }

    /// The same by the deadline.
    async fn read<B>(&self, body: B, deadline: Deadline) -> Result<Vec<u8>, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        deadline
            .of(pin!(self.body(body)), Refusal::body_too_slow)
            .await?
    }

    /// When the answer is due: by the client's word, but never later than for others.
    fn deadline(&self) -> Result<Deadline, Refusal> {
        let start = tokio::time::Instant::from_std(self.start);
        let ours = Deadline::ours(start);
        let Some(timeout) = self.head.headers.get("grpc-timeout") else {
            return Ok(ours);
        };
        let timeout = parse_timeout(timeout.as_bytes()).ok_or_else(|| {
            Refusal::malformed_message("grpc-timeout is not a number with a unit")
        })?;
        Ok(match start.checked_add(timeout) {
            Some(at) if at < ours.at => Deadline {
                at,
                is_clients: true,
            },
            Some(_) | None => ours,
        })
    }

    /// A place among the calls whose answers go on.
    fn open(&self, procedure: Procedure) -> Result<Open, Refusal> {
        let admitted = Arc::clone(&self.api.streams).try_acquire_owned();
        Ok(Open {
            api: Arc::clone(self.api),
            procedure,
            start: self.start,
            _admitted: admitted.map_err(|_| Refusal::overloaded())?,
            _connection: self.head.extensions.clone(),
        })
    }

    /// Counts a call, writes its log line, and makes its response.
    fn finish(self, method: Option<Method>, result: Result<Reply, Refusal>) -> Response<Body> {
        let api = self.api;
        let detail = api.error_detail;
        let (mut response, issued, refused) = match result {
            Ok(Reply::Message(message)) => (frame::answer(frame::last(message)), None, None),
            Ok(Reply::Certificate(message, line)) => {
                (frame::answer(frame::last(message)), Some(line), None)
            }
            Ok(Reply::Stream(response)) => (response, None, None),
            Err(refusal) => {
                let refusal = refusal.retry_after(|| limits::retry_after(api.random.as_ref()));
                let (status, refused) = refusal.into_status(detail);
                (status.into_http(), None, Some(refused))
            }
        };
        let code = refused.as_ref().map_or(0, |refused| refused.grpc);
        let (procedure, endpoint) = match method.map(Method::endpoint) {
            Some((procedure, endpoint)) => (Some(procedure), endpoint),
            None => (None, Endpoint::OTHER),
        };
        let is_open = refused.is_none() && procedure.is_some_and(Procedure::is_stream);
        if let Some(procedure) = procedure.filter(|_| !is_open) {
            api.metrics.grpc_call(procedure, code, self.start.elapsed());
        }
        let line = Line {
            request_id: &self.request_id,
            endpoint: endpoint.name,
            method: "grpc",
            status: None,
            grpc_code: Some(crate::metrics::grpc_code_name(code)),
            duration: self.start.elapsed(),
            client: self.client,
            user_agent: user_agent(&self.head.headers),
            issued,
            is_quiet: endpoint.is_quiet && refused.is_none(),
            refused,
        };
        line.write(api);
        self.add_request_id(&mut response);
        response
    }

    /// Says that HTTP/2 carries nothing but gRPC.
    fn refuse_other_http(self) -> Response<Body> {
        let refusal = Refusal::http_1_1_only();
        let json = refusal.json(ErrorDetail::Compatible);
        let length = json.len();
        let status = refusal.code().http.as_u16();
        let mut response = Response::new(Body::new(Full::from(json)));
        *response.status_mut() = http::StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        let counted = HttpRequest {
            endpoint: Endpoint::OTHER.name,
            method: "other",
            status,
            duration: self.start.elapsed(),
            request_bytes: 0,
            response_bytes: length as u64,
            procedure: None,
        };
        self.api.metrics.http_request(&counted);
        let line = Line {
            request_id: &self.request_id,
            endpoint: counted.endpoint,
            method: counted.method,
            status: Some(status),
            grpc_code: None,
            duration: counted.duration,
            client: self.client,
            user_agent: user_agent(&self.head.headers),
            issued: None,
            refused: None,
            is_quiet: false,
        };
        line.write(self.api);
        self.add_request_id(&mut response);
        response
    }

    fn add_request_id(&self, response: &mut Response<Body>) {
        if let Ok(id) = HeaderValue::from_str(&self.request_id) {
            response.headers_mut().insert("x-request-id", id);
        }
    }
}

/// A call whose answer goes on: it has a place among those, and is counted when it ends.
struct Open {
    api: Arc<Api>,
    procedure: Procedure,
    start: Instant,
    _admitted: OwnedSemaphorePermit,
    _connection: http::Extensions,
}

impl Open {
    /// Stays as long as the body.
    fn around(self, body: Body) -> Body {
        Body::new(body.map_frame(move |frame| {
            let _ = &self;
            frame
        }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let duration = self.start.elapsed();
        self.api.metrics.grpc_call(self.procedure, 0, duration);
    }
}

/// The message in a body.
fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Refusal> {
    M::decode(frame::message(body)?).map_err(|error| Refusal::malformed_message(error.to_string()))
}

/// The values of all header fields of a name. What is not text is no address either, and must not vanish from between
/// those that are.
fn texts<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap_or_default())
        .collect()
}

fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
}

/// Reads a `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests").
fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}
