//! REST v1, deprecated and still used: signing certificate and root certificate, as PEM.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::api::fulcio::issue_over_http;
use crate::api::{Api, request, respond};
use crate::x509::chain::certificate_pem;

/// `POST`: a certificate for a token and a proven key.
pub const SIGNING_CERT: &str = "/api/v1/signingCert";
/// `GET`: the chain that verifiers should trust.
pub const ROOT_CERT: &str = "/api/v1/rootCert";

const PEM_CHAIN: &str = "application/pem-certificate-chain";

/// `POST /api/v1/signingCert`: 201 with leaf and chain as PEM, one line end between the blocks and none at the end.
pub(super) async fn signing_cert(
    api: web::Data<Api>,
    head: HttpRequest,
    body: web::Payload,
) -> HttpResponse {
    let result = issue_over_http(
        &api,
        &head,
        body,
        |body, tokens| request::decode_v1(body, tokens),
        "v1",
    )
    .await
    .map(|issued| {
        let mut text = certificate_pem(&issued.certificate);
        for certificate in &api.documents.chain {
            text.push('\n');
            text.push_str(certificate);
        }
        HttpResponse::Created().content_type(PEM_CHAIN).body(text)
    });
    respond(&api, result)
}

/// `GET /api/v1/rootCert`.
pub(super) async fn root_cert(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(PEM_CHAIN)
        .body(api.documents.root_cert.clone())
}
