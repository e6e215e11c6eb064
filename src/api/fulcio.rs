//! REST v2: signing certificate, trust bundle, configuration.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::header::{AUTHORIZATION, CONTENT_LENGTH, ContentType, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;

use crate::api::outcome::{ForLog, Refusal};
use crate::api::request::{self, RequestError};
use crate::api::{Api, Deadline, grpc, respond, survive};
use crate::ca::request::SigningRequest;
use crate::ca::{FailedIssuance, IssuedCertificate};
use crate::identity::IssuerConfiguration;
use crate::metrics::{Issued, Stage};
use crate::x509::chain::{CertificateChain, put_certificate_pem};

/// `POST`: a certificate for a token and a proven key.
pub const SIGNING_CERT: &str = "/api/v2/signingCert";
/// `GET`: the chains that verifiers should trust.
pub const TRUST_BUNDLE: &str = "/api/v2/trustBundle";
/// `GET`: the configured issuers.
pub const CONFIGURATION: &str = "/api/v2/configuration";

/// Octets of a body that every connection may have in memory. What clients send is shorter.
const USUAL_BODY: usize = 8 << 10;

/// Answers that are the same for the life of the process, made once.
#[derive(Debug)]
pub struct Documents {
    /// The chain's PEM blocks, issuing CA first, without line ends after them.
    pub(super) chain: Vec<String>,
    /// The answers to a signing request, for a certificate with and without a timestamp inside.
    embedded: SigningAnswer,
    detached: SigningAnswer,
    trust_bundle: String,
    /// Follows the identity configuration.
    configuration: ArcSwap<String>,
    pub(super) root_cert: String,
    /// The same over gRPC.
    pub(super) messages: grpc::Documents,
}

impl Documents {
    /// Other issuers are configured from now on.
    pub fn set_issuers(&self, issuers: &[IssuerConfiguration]) {
        self.configuration
            .store(Arc::new(configuration_json(issuers)));
        self.messages.set_issuers(issuers);
    }

    /// Makes the answers for a chain and the configured issuers.
    #[must_use]
    pub fn new(chain: &CertificateChain, issuers: &[IssuerConfiguration]) -> Self {
        let chain: Vec<String> = chain
            .certificates()
            .iter()
            .map(|certificate| certificate.pem())
            .collect();
        // In this answer, unlike in that to a signing request, every PEM block ends with a line end.
        let lines: Vec<String> = chain.iter().map(|pem| format!("{pem}\n")).collect();
        let trust_bundle = serde_json::json!({ "chains": [{ "certificates": lines }] }).to_string();
        // Blocks that end with a line end, joined by one: an empty line lies between them.
        let root_cert = lines.join("\n").trim_end().to_owned();
        Self {
            messages: grpc::Documents::new(&chain, issuers),
            embedded: SigningAnswer::new(&chain, |chain| {
                SigningCertificate::SignedCertificateEmbeddedSct { chain }
            }),
            detached: SigningAnswer::new(&chain, |chain| {
                SigningCertificate::SignedCertificateDetachedSct {
                    chain,
                    signed_certificate_timestamp: "",
                }
            }),
            chain,
            trust_bundle,
            configuration: ArcSwap::from_pointee(configuration_json(issuers)),
            root_cert,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum SigningCertificate<'a> {
    SignedCertificateEmbeddedSct {
        chain: Chain<'a>,
    },
    #[serde(rename_all = "camelCase")]
    SignedCertificateDetachedSct {
        chain: Chain<'a>,
        signed_certificate_timestamp: &'static str,
    },
}

#[derive(Serialize)]
struct Chain<'a> {
    certificates: Vec<&'a str>,
}

/// The JSON of an answer around the one certificate that differs. To escape all three anew was most of an answer's cost.
#[derive(Clone, Debug)]
struct SigningAnswer {
    before: String,
    after: String,
}

impl SigningAnswer {
    fn new<'a>(
        chain: &'a [String],
        answer: impl FnOnce(Chain<'a>) -> SigningCertificate<'a>,
    ) -> Self {
        /// Stands where the certificate will; in no PEM.
        const LEAF: &str = "{leaf}";
        let above = chain.iter().map(String::as_str);
        let certificates = std::iter::once(LEAF).chain(above).collect();
        // Text alone always has a JSON form.
        let json = serde_json::to_string(&answer(Chain { certificates })).unwrap_or_default();
        let (before, after) = json.split_once(LEAF).unwrap_or_default();
        Self {
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    fn with_leaf(&self, der: &[u8]) -> String {
        let mut json = String::with_capacity(self.before.len() + 2 * der.len() + self.after.len());
        json.push_str(&self.before);
        // Of what a PEM block is made of, JSON escapes line ends alone (RFC 8259, section 7).
        put_certificate_pem(&mut json, der, "\\n");
        json.push_str(&self.after);
        json
    }
}

/// `POST /api/v2/signingCert`: 200 with the chain as JSON.
pub(super) async fn signing_cert(
    api: web::Data<Api>,
    head: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let result = issue_over_http(
        &api,
        &head,
        body,
        |body, tokens| request::decode_v2(body, tokens),
        "v2",
    )
    .await
    .map(|issued| {
        let start = Instant::now();
        let answer = if issued.is_logged {
            &api.documents.embedded
        } else {
            &api.documents.detached
        };
        let answer = answer.with_leaf(&issued.certificate);
        api.metrics.stage(Stage::Encode, start.elapsed());
        HttpResponse::Ok()
            .content_type(ContentType::json())
            .body(answer)
    });
    respond(&api, result)
}

/// `GET /api/v2/trustBundle`.
pub(super) async fn trust_bundle(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body(api.documents.trust_bundle.clone())
}

/// `GET /api/v2/configuration`.
pub(super) async fn configuration(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body(String::clone(&api.documents.configuration.load()))
}

/// How one of the two interfaces reads a request: its body, and the values of its `Authorization` headers.
pub(super) type Decode = fn(&[u8], Vec<&[u8]>) -> Result<SigningRequest, RequestError>;

/// What both versions of the interface over HTTP/1.1 share.
pub(super) async fn issue_over_http(
    api: &Api,
    head: &HttpRequest,
    body: web::Payload,
    decode: Decode,
    version: &'static str,
) -> Result<IssuedCertificate, Refusal> {
    let caller = Caller {
        interface: version,
        address: api.client_address(head),
        deadline: Deadline::ours(tokio::time::Instant::now()),
    };
    let announced = head.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse().ok());
    let limit = BodyLimit {
        octets: api.max_body_bytes,
        too_large: Refusal::body_too_large,
        incomplete: Refusal::body_incomplete,
    };
    let body = pin!(read_body(api, announced, body, limit));
    let decode = |body: &[u8]| {
        let values = head.headers().get_all(AUTHORIZATION);
        let tokens = values.map(HeaderValue::as_bytes).collect();
        Ok(decode(body, tokens)?)
    };
    let result = issue(api, &caller, body, decode).await;
    if let Ok(issued) = &result {
        let line = super::observe::IssuedLine::new(issued, version);
        head.extensions_mut().insert(line);
    }
    result
}

/// Who asks for a certificate, and how.
pub(super) struct Caller {
    /// The interface, as metrics name it.
    pub(super) interface: &'static str,
    /// Whom requests are counted for; nobody whose connection is gone.
    pub(super) address: Option<IpAddr>,
    /// Until when there must be an answer.
    pub(super) deadline: Deadline,
}

/// Reads, decodes, issues and counts: what every interface shares.
pub(super) async fn issue(
    api: &Api,
    caller: &Caller,
    body: impl Future<Output = Result<Vec<u8>, Refusal>> + Unpin,
    decode: impl FnOnce(&[u8]) -> Result<SigningRequest, Refusal>,
) -> Result<IssuedCertificate, Refusal> {
    let start = Instant::now();
    let result = survive(api, pin!(serve(api, caller, body, decode))).await;
    let result = result.and_then(|served| served);
    match &result {
        Ok(issued) => {
            let counted = Issued {
                issuer: &issued.identity.issuer_id,
                issuer_type: issued.identity.issuer_type,
                key: issued.key_label,
                proof: issued.proof_label,
                sct: if issued.is_logged { "embedded" } else { "none" },
                api: caller.interface,
            };
            api.metrics.issued(&counted, start.elapsed());
        }
        Err(refusal) => {
            let reason = refusal.reason().unwrap_or(crate::reason::Reason::Internal);
            api.metrics.refused(
                refusal.issuer_label(),
                reason,
                refusal.is_our_fault(),
                start.elapsed(),
            );
            if let Some(scope) = refusal.scope() {
                api.metrics.rate_limited(scope.into());
            }
        }
    }
    result
}

/// Within the deadline: reads a body, decodes it, issues.
async fn serve(
    api: &Api,
    caller: &Caller,
    body: impl Future<Output = Result<Vec<u8>, Refusal>> + Unpin,
    decode: impl FnOnce(&[u8]) -> Result<SigningRequest, Refusal>,
) -> Result<IssuedCertificate, Refusal> {
    if let Some(client) = caller.address {
        api.rates.check_address(client, api.ca.clock.now())?;
    }
    let deadline = caller.deadline;
    let body = deadline.of(body, Refusal::body_too_slow).await??;
    // Whoever waits for the rest of a body takes no place: it costs an attacker nothing to send slowly.
    let _admitted = api.admission.enter().ok_or_else(Refusal::overloaded)?;
    let start = Instant::now();
    let request = decode(&body)?;
    drop(body);
    api.metrics.stage(Stage::Parse, start.elapsed());
    match deadline
        .of(pin!(api.ca.issue(request)), Refusal::deadline)
        .await?
    {
        Ok(issued) => Ok(issued),
        Err(FailedIssuance {
            issuer_id,
            iss_claim,
            error,
        }) => {
            let text = chain_of(&error);
            let refusal = Refusal::from(error);
            let for_log = ForLog {
                issuer: issuer_id,
                iss_claim,
                // What the client must not read stands in the log line, with its causes.
                error: refusal.is_our_fault().then_some(text),
            };
            Err(refusal.with_log(for_log))
        }
    }
}

/// The answer to `GET /api/v2/configuration`.
fn configuration_json(issuers: &[IssuerConfiguration]) -> String {
    let issuers: Vec<_> = issuers.iter().map(published).collect();
    serde_json::json!({ "issuers": issuers }).to_string()
}

/// An issuer as `GET /api/v2/configuration` shows it.
fn published(issuer: &IssuerConfiguration) -> serde_json::Value {
    let url_member = if issuer.is_wildcard {
        "wildcardIssuerUrl"
    } else {
        "issuerUrl"
    };
    serde_json::json!({
        url_member: issuer.url,
        "audience": issuer.audience,
        "challengeClaim": issuer.challenge_claim,
        "spiffeTrustDomain": issuer.spiffe_trust_domain,
        "issuerType": issuer.issuer_type,
        "subjectDomain": issuer.subject_domain,
        "skipEmailVerification": issuer.skip_email_verification,
    })
}

/// An error with everything that led to it.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// How long a body may be.
#[derive(Clone, Copy)]
pub(super) struct BodyLimit {
    /// In octets.
    pub(super) octets: usize,
    /// What is said to a longer one.
    pub(super) too_large: fn(usize) -> Refusal,
    /// What is said to one that breaks off.
    pub(super) incomplete: fn() -> Refusal,
}

/// Reads a body, never more of it than the limit. `announced` is the length that its head tells.
pub(super) async fn read_body<E>(
    api: &Api,
    announced: Option<u64>,
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    limit: BodyLimit,
) -> Result<Vec<u8>, Refusal> {
    let too_large = || (limit.too_large)(limit.octets);
    if announced.is_some_and(|length| length > limit.octets as u64) {
        return Err(too_large());
    }
    // What is only announced takes no memory.
    let announced = announced.and_then(|length| usize::try_from(length).ok());
    let mut bytes = Vec::with_capacity(announced.unwrap_or(2048).min(USUAL_BODY));
    let mut long_body = None;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| (limit.incomplete)())?;
        if bytes.len() + chunk.len() > limit.octets {
            return Err(too_large());
        }
        if long_body.is_none() && bytes.len() + chunk.len() > USUAL_BODY {
            long_body = Some(api.long_bodies.enter().ok_or_else(Refusal::overloaded)?);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::chain::certificate_pem;

    /// The size of the future that a handler returns.
    fn size_of_future<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_a_request_holds_while_it_waits_is_small() {
        // Each async function has room twice for a future that it is handed by value, so a few layers make it a hundred KiB:
        // copied for every request, and touched anew by every one of many connections.
        let size = size_of_future(signing_cert);
        assert!(size <= 8 << 10, "{size}");
    }

    #[test]
    fn an_answer_is_the_json_of_its_three_certificates() {
        let chain = ["issuing", "root"].map(|name| certificate_pem(name.repeat(40).as_bytes()));
        let answer = SigningAnswer::new(&chain, |chain| {
            SigningCertificate::SignedCertificateDetachedSct {
                chain,
                signed_certificate_timestamp: "",
            }
        });
        let leaf = [0xfb; 100];
        let [issuing, root] = &chain;
        let expected = serde_json::json!({ "signedCertificateDetachedSct": {
            "chain": { "certificates": [certificate_pem(&leaf), issuing, root] },
            "signedCertificateTimestamp": "",
        } });
        assert_eq!(answer.with_leaf(&leaf), expected.to_string());
    }
}
