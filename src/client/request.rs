//! A certificate asked for: the proof that a key is ours, the request in the form of each API, and the answer.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::certificates::certificates_in;
use super::grpc;
use super::token::innermost;
use crate::fetch::TlsRoots;
use crate::keys::{InMemoryKey, SignError, Signer as _};
use crate::x509::der::{self, tag};

/// How often a request is made that fails in passing.
const ATTEMPTS: u32 = 3;
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in octets: far more than a chain has.
const MAX_ANSWER_OCTETS: usize = 256 * 1024;

/// The forms in which a CA is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Api {
    /// `POST /api/v1/signingCert`, which answers in PEM.
    V1,
    /// `POST /api/v2/signingCert`, which answers in JSON.
    V2,
    /// `dev.sigstore.fulcio.v2.CA` over gRPC.
    Grpc,
}

/// A CA, and how it is reached.
#[derive(Clone, Copy, Debug)]
pub struct Ca<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// What asks over HTTP.
    pub http: &'a Client,
    /// Roots of its TLS certificate beside those of the system; `http` has them already.
    pub tls_roots: Option<&'a TlsRoots>,
}

/// How a request shows that whoever makes it holds the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Proof {
    /// A signature over the challenge.
    Challenge(Vec<u8>),
    /// A certificate signing request, PEM.
    Csr(String),
}

/// What a token says of itself. Nothing of it is verified: that is the CA's part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenClaims {
    /// Whose it is.
    pub issuer: String,
    /// What a proof of possession is made over, as every client guesses it: the e-mail address if there is one, else the
    /// subject.
    pub challenge: String,
}

/// A text that is no ID token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAToken {
    /// It is something else.
    #[error("it is not an ID token: three parts with dots between them, the second one JSON")]
    Form,
    /// It is about nobody.
    #[error("the ID token has neither `email` nor `sub`")]
    Nobody,
    /// Its e-mail address counts for nothing.
    #[error("the issuer says of the e-mail address in the ID token that it is not verified")]
    Unverified,
}

impl TokenClaims {
    /// Reads a token.
    ///
    /// # Errors
    /// When it is none, or names nobody who could be certified.
    pub fn read(token: &str) -> Result<Self, NotAToken> {
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAToken::Form);
        };
        let claims = URL_SAFE_NO_PAD
            .decode(claims)
            .map_err(|_| NotAToken::Form)?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| NotAToken::Form)?;
        let text = |name: &str| {
            let value = claims.get(name).and_then(Value::as_str);
            value.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let is_verified = match claims.get("email_verified") {
            Some(Value::Bool(is_verified)) => *is_verified,
            Some(Value::String(text)) => text == "true",
            Some(_) => false,
            None => true,
        };
        let email = text("email");
        if email.is_some() && !is_verified {
            return Err(NotAToken::Unverified);
        }
        Ok(Self {
            issuer: text("iss").unwrap_or_default(),
            challenge: email.or_else(|| text("sub")).ok_or(NotAToken::Nobody)?,
        })
    }
}

impl Proof {
    /// Signs a challenge.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn over(challenge: &str, key: &InMemoryKey) -> Result<Self, SignError> {
        Ok(Self::Challenge(key.sign_now(challenge.as_bytes())?))
    }

    /// Makes a certificate signing request (RFC 2986) with an empty subject, as there is nothing to ask for but the key.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn csr(key: &InMemoryKey) -> Result<Self, SignError> {
        let info = der::encode(
            tag::SEQUENCE,
            &[
                &[tag::INTEGER, 1, 0],
                &der::encode(tag::SEQUENCE, &[]),
                key.public_key_der(),
                // No attributes: [0] IMPLICIT SET.
                &der::encode(0xa0, &[]),
            ],
        );
        let signature = der::encode(tag::BIT_STRING, &[&[0], &key.sign_now(&info)?]);
        let algorithm = key.algorithm().identifier_der();
        let request = der::encode(tag::SEQUENCE, &[&info, algorithm, &signature]);
        Ok(Self::Csr(pem_text("CERTIFICATE REQUEST", &request)))
    }
}

/// A request for a certificate.
#[derive(Clone, Debug)]
pub struct CertificateRequest<'a> {
    /// The key to be certified, a DER SubjectPublicKeyInfo.
    pub public_key_der: &'a [u8],
    /// That it is ours.
    pub proof: &'a Proof,
    /// Who we are.
    pub token: &'a str,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The CA does not answer.
    #[error("the CA cannot be reached: {0}")]
    Unreachable(String),
    /// The CA refuses.
    #[error("the CA refuses: {message} ({status}{})", reason.as_deref().map(|code| format!(", {code}")).unwrap_or_default())]
    Refused {
        /// The status.
        status: String,
        /// The code of the reason, where it names one.
        reason: Option<String>,
        /// What it says.
        message: String,
        /// Whether it may be otherwise soon.
        is_passing: bool,
    },
    /// The CA answers something else.
    #[error("the CA's answer is none: {0}")]
    Answer(String),
}

impl CertificateRequest<'_> {
    /// Asks a CA. Returns the certificates of its answer, DER, the new one first.
    ///
    /// What fails in passing is asked again, after the time that the CA says.
    ///
    /// # Errors
    /// When there is no certificate.
    pub async fn send(&self, api: Api, ca: &Ca<'_>) -> Result<Vec<Vec<u8>>, RequestError> {
        let mut attempt = 1;
        loop {
            let sent = match api {
                Api::V1 => self.post("api/v1/signingCert", &self.body_v1(), ca).await,
                Api::V2 => self.post("api/v2/signingCert", &self.body_v2(), ca).await,
                Api::Grpc => {
                    let sent = grpc::send(self, ca).await;
                    sent.map_err(|error| (error, None))
                }
            };
            let (error, wait) = match sent {
                Ok(certificates) => return Ok(certificates),
                Err(failed) => failed,
            };
            let is_passing = match &error {
                RequestError::Unreachable(_) => true,
                RequestError::Refused { is_passing, .. } => *is_passing,
                RequestError::Answer(_) => false,
            };
            if !is_passing || attempt == ATTEMPTS {
                return Err(error);
            }
            let pause = wait.unwrap_or_else(|| Duration::from_secs(1 << (attempt - 1)));
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn post(
        &self,
        path: &str,
        body: &Value,
        ca: &Ca<'_>,
    ) -> Result<Vec<Vec<u8>>, (RequestError, Option<Duration>)> {
        let url = format!("{}/{path}", ca.url.as_str().trim_end_matches('/'));
        let unreachable = |error: reqwest::Error| {
            let what = innermost(&error.without_url());
            (RequestError::Unreachable(what), None)
        };
        let request = ca
            .http
            .post(url)
            .bearer_auth(self.token)
            .header("Content-Type", "application/json")
            .body(body.to_string());
        let mut response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_ANSWER_OCTETS {
                return Err((RequestError::Answer("it is too long".to_owned()), None));
            }
        }
        if !status.is_success() {
            return Err((refused(status, &headers, &body), retry_after(&headers)));
        }
        certificates_in(&body).map_err(|_| {
            let what = "it holds no certificate with a chain".to_owned();
            (RequestError::Answer(what), None)
        })
    }

    fn body_v1(&self) -> Value {
        match self.proof {
            Proof::Challenge(signature) => json!({
                "publicKey": { "content": STANDARD.encode(self.public_key_der) },
                "signedEmailAddress": STANDARD.encode(signature),
            }),
            Proof::Csr(pem) => json!({ "certificateSigningRequest": STANDARD.encode(pem) }),
        }
    }

    fn body_v2(&self) -> Value {
        match self.proof {
            Proof::Challenge(signature) => json!({
                "publicKeyRequest": {
                    "publicKey": { "content": pem_text("PUBLIC KEY", self.public_key_der) },
                    "proofOfPossession": STANDARD.encode(signature),
                },
            }),
            Proof::Csr(pem) => json!({ "certificateSigningRequest": STANDARD.encode(pem) }),
        }
    }
}

fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> RequestError {
    let document: Option<Value> = serde_json::from_slice(body).ok();
    let message = document
        .as_ref()
        .and_then(|document| document.get("message")?.as_str());
    let message = message.map_or_else(
        || String::from_utf8_lossy(body).chars().take(200).collect(),
        str::to_owned,
    );
    let reason = headers.get("Mayfly-Reason");
    let reason = reason.and_then(|value| value.to_str().ok());
    RequestError::Refused {
        status: status.to_string(),
        reason: reason.map(str::to_owned),
        message,
        is_passing: status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// A PEM block with line feeds.
pub(super) fn pem_text(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::memory::NewKey;
    use crate::x509::csr::CertificateRequest as ParsedRequest;

    fn token(claims: &Value) -> String {
        format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn the_challenge_is_the_email_address_or_else_the_subject() {
        for (claims, challenge) in [
            (json!({ "sub": "4711" }), Ok("4711")),
            (
                json!({ "sub": "4711", "email": "a@b.example" }),
                Ok("a@b.example"),
            ),
            (
                json!({ "sub": "4711", "email": "a@b.example", "email_verified": "true" }),
                Ok("a@b.example"),
            ),
            (
                json!({ "sub": "4711", "email": "a@b.example", "email_verified": false }),
                Err(NotAToken::Unverified),
            ),
            (json!({ "sub": "4711", "email": "" }), Ok("4711")),
            (json!({ "iss": "x" }), Err(NotAToken::Nobody)),
        ] {
            let read = TokenClaims::read(&token(&claims)).map(|token| token.challenge);
            assert_eq!(read, challenge.map(str::to_owned), "{claims}");
        }
        for text in ["", "a.b", "a.b.c", "a.b.c.d", "e30.!.e30"] {
            assert_eq!(TokenClaims::read(text), Err(NotAToken::Form), "{text}");
        }
    }

    #[test]
    fn a_request_of_every_kind_of_key_verifies() {
        for kind in [
            NewKey::P256,
            NewKey::P384,
            NewKey::P521,
            NewKey::Ed25519,
            NewKey::Rsa2048,
        ] {
            let (key, _) = InMemoryKey::generate(kind).unwrap();
            let Proof::Csr(pem) = Proof::csr(&key).unwrap() else {
                panic!("{kind:?}");
            };
            let parsed = ParsedRequest::from_pem(pem.as_bytes()).unwrap();
            let (public_key, _) = parsed.verify().unwrap();
            assert_eq!(public_key.spki_der(), key.public_key_der(), "{kind:?}");
        }
    }
}
