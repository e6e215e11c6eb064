//! The one table from an error to what the client reads: HTTP status, gRPC code, message, `Mayfly-Reason`, `Retry-After`.
//!
//! Messages begin with the fixed text that Sigstore clients know for the stage, and go on, after `: `, with what was wrong.

use actix_web::HttpResponse;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::http::{ConnectionType, StatusCode};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::api::ErrorDetail;
use crate::api::request::RequestError;
use crate::ca::IssueError;
use crate::ca::authority::AuthorityError;
use crate::ca::extensions::EncodingError;
use crate::ca::profile::ProfileError;
use crate::ca::request::Stage;
use crate::ctlog::SubmitError;
use crate::excerpt::Excerpt;
use crate::identity::TokenError;
use crate::limits::{Limited, Scope};
use crate::reason::Reason;

/// The header that carries the reason code.
pub const REASON_HEADER: HeaderName = HeaderName::from_static(REASON_NAME);
const REASON_NAME: &str = "mayfly-reason";

/// A gRPC status code (`google.rpc.Code`) with the HTTP status that goes with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Code {
    /// The number in the body's `code`, and in gRPC.
    pub grpc: u8,
    /// The HTTP status.
    pub http: StatusCode,
}

impl Code {
    const fn new(grpc: u8, http: StatusCode) -> Self {
        Self { grpc, http }
    }

    /// The client has gone.
    pub const CANCELLED: Self = Self::new(1, StatusCode::BAD_REQUEST);
    /// The client's request is wrong.
    pub const INVALID_ARGUMENT: Self = Self::new(3, StatusCode::BAD_REQUEST);
    /// The client sent its request too slowly, or does not wait for the answer any longer.
    pub const DEADLINE_EXCEEDED: Self = Self::new(4, StatusCode::REQUEST_TIMEOUT);
    /// There is nothing at this path.
    pub const NOT_FOUND: Self = Self::new(5, StatusCode::NOT_FOUND);
    /// The request is larger than the limit.
    pub const TOO_LARGE: Self = Self::new(3, StatusCode::PAYLOAD_TOO_LARGE);
    /// The request's head is larger than the limit.
    pub const HEAD_TOO_LARGE: Self = Self::new(3, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    /// A message of gRPC is larger than the limit.
    pub const MESSAGE_TOO_LARGE: Self = Self::new(8, StatusCode::PAYLOAD_TOO_LARGE);
    /// Too many requests.
    pub const RESOURCE_EXHAUSTED: Self = Self::new(8, StatusCode::TOO_MANY_REQUESTS);
    /// This path takes other methods.
    pub const METHOD_NOT_ALLOWED: Self = Self::new(12, StatusCode::METHOD_NOT_ALLOWED);
    /// There is no such procedure, or it is asked for in a way that is not understood.
    pub const UNIMPLEMENTED: Self = Self::new(12, StatusCode::NOT_IMPLEMENTED);
    /// HTTP/2 carries gRPC, and nothing else.
    pub const VERSION_NOT_SUPPORTED: Self = Self::new(12, StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    /// We failed.
    pub const INTERNAL: Self = Self::new(13, StatusCode::INTERNAL_SERVER_ERROR);
    /// We, or what we depend on, cannot serve now.
    pub const UNAVAILABLE: Self = Self::new(14, StatusCode::SERVICE_UNAVAILABLE);
}

/// A request that was not served.
#[derive(Clone, Debug)]
pub struct Refusal {
    code: Code,
    reason: Option<Reason>,
    /// What clients have always been told at this stage; empty where that is `detail` alone.
    fixed: String,
    /// What was wrong with this request; safe to show.
    detail: Option<String>,
    allow: Option<&'static str>,
    /// When to come back.
    retry_after: Option<Duration>,
    /// The rate limit that was reached.
    scope: Option<Scope>,
    /// What the log says of it beyond that.
    for_log: Box<ForLog>,
}

/// What only operators read of a refusal.
#[derive(Clone, Debug, Default)]
pub struct ForLog {
    /// The configured id of the issuer, where the request came that far.
    pub issuer: Option<Arc<str>>,
    /// The token's `iss`, where the token was refused and has one.
    pub iss_claim: Option<Excerpt>,
    /// What failed on our side, with its causes.
    pub error: Option<String>,
}

/// What the access log and the metrics want to know of a refusal; travels with the response.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The gRPC code.
    pub grpc: u8,
    /// Whether the server or something behind it failed, and not the request.
    pub is_our_fault: bool,
    /// Why.
    pub reason: Option<Reason>,
    /// What was wrong, for the log.
    pub detail: Option<String>,
    /// What only operators read.
    pub for_log: Box<ForLog>,
}

impl Refusal {
    /// A refusal with a fixed text alone.
    #[must_use]
    pub fn new(code: Code, fixed: impl Into<String>) -> Self {
        Self {
            code,
            reason: None,
            fixed: fixed.into(),
            detail: None,
            allow: None,
            retry_after: None,
            scope: None,
            for_log: Box::default(),
        }
    }

    /// A refusal of which clients have always been told `text`, and nothing before it.
    fn told_as_it_is(code: Code, reason: Reason, text: impl Into<String>) -> Self {
        Self::new(code, String::new()).with(reason, text.into())
    }

    fn with(mut self, reason: Reason, detail: impl Into<Option<String>>) -> Self {
        self.reason = Some(reason);
        self.detail = detail.into();
        self
    }

    /// Nothing is served at this path.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NOT_FOUND, "Not Found")
    }

    /// The path takes other methods, named in `allow`.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let refusal = Self::new(Code::METHOD_NOT_ALLOWED, "Method Not Allowed");
        Self {
            allow: Some(allow),
            ..refusal
        }
    }

    /// The body is longer than `limit` octets.
    #[must_use]
    pub fn body_too_large(limit: usize) -> Self {
        let detail = format!("the limit is {limit} octets");
        Self::new(Code::TOO_LARGE, "http: request body too large")
            .with(Reason::BodyTooLarge, detail)
    }

    /// The message of gRPC is longer than `limit` octets.
    #[must_use]
    pub fn message_too_large(limit: usize) -> Self {
        let detail = format!("the limit is {limit} octets");
        let fixed = "grpc: received message larger than max";
        Self::new(Code::MESSAGE_TOO_LARGE, fixed).with(Reason::BodyTooLarge, detail)
    }

    /// The client took its call back before it was read.
    #[must_use]
    pub fn taken_back() -> Self {
        Self::told_as_it_is(
            Code::CANCELLED,
            Reason::MalformedRequest,
            "context canceled",
        )
    }

    /// What came is not one message of gRPC.
    #[must_use]
    pub fn malformed_message(what: impl Into<String>) -> Self {
        let fixed = "grpc: error unmarshalling request";
        Self::new(Code::INVALID_ARGUMENT, fixed).with(Reason::MalformedRequest, what.into())
    }

    /// Nothing of what gRPC might offer has this name or form.
    #[must_use]
    pub fn unimplemented(what: &'static str) -> Self {
        Self::new(Code::UNIMPLEMENTED, what)
    }

    /// The client does not wait any longer, as it said.
    #[must_use]
    pub fn given_up() -> Self {
        Self::told_as_it_is(
            Code::DEADLINE_EXCEEDED,
            Reason::Overloaded,
            "context deadline exceeded",
        )
    }

    /// HTTP/2 carries gRPC, and this request is of something else.
    #[must_use]
    pub fn http_1_1_only() -> Self {
        let text = "HTTP/2 carries gRPC alone here; use HTTP/1.1 for this";
        Self::new(Code::VERSION_NOT_SUPPORTED, text)
    }

    /// HTTP/1.1 on the port of gRPC.
    #[must_use]
    pub fn grpc_only() -> Self {
        let text = "this port is for gRPC; the API is served on another one";
        Self::new(Code::VERSION_NOT_SUPPORTED, text)
    }

    /// Request line and header fields are longer than `limit` octets.
    #[must_use]
    pub fn head_too_large(limit: usize) -> Self {
        let detail = format!("the limit is {limit} octets");
        Self::new(
            Code::HEAD_TOO_LARGE,
            "http: request header fields too large",
        )
        .with(Reason::MalformedRequest, detail)
    }

    /// The body did not arrive within the request's deadline.
    #[must_use]
    pub fn body_too_slow() -> Self {
        Self::told_as_it_is(
            Code::DEADLINE_EXCEEDED,
            Reason::MalformedRequest,
            "the request's body did not arrive in time",
        )
    }

    /// The request was not served within its deadline.
    #[must_use]
    pub fn deadline() -> Self {
        Self::new(
            Code::UNAVAILABLE,
            "the server could not answer in time; try again",
        )
        .with(Reason::Overloaded, None)
    }

    /// There are as many requests inside as there may be.
    #[must_use]
    pub fn overloaded() -> Self {
        let fixed = "the server has more requests than it can take; try again";
        Self::new(Code::UNAVAILABLE, fixed).with(Reason::Overloaded, None)
    }

    /// The connection ended before the body did.
    #[must_use]
    pub fn body_incomplete() -> Self {
        Self::told_as_it_is(
            Code::INVALID_ARGUMENT,
            Reason::MalformedRequest,
            "the request's body is incomplete",
        )
    }

    /// There is no service of the name that a health check asks for.
    #[must_use]
    pub fn unknown_service() -> Self {
        Self::new(Code::NOT_FOUND, "unknown service")
    }

    /// The server is stopping.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self::new(Code::UNAVAILABLE, "the server is stopping").with(Reason::ShuttingDown, None)
    }

    /// The handling of the request ended in a panic: a defect of ours.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(Code::INTERNAL, "internal error").with(Reason::Internal, None)
    }

    /// Adds what only operators read.
    #[must_use]
    pub fn with_log(mut self, for_log: ForLog) -> Self {
        self.for_log = Box::new(for_log);
        self
    }

    /// The configured id of the issuer, or `unknown`: the label of the metrics.
    #[must_use]
    pub fn issuer_label(&self) -> &str {
        self.for_log.issuer.as_deref().unwrap_or("unknown")
    }

    /// The gRPC code with the HTTP status.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Whether the server or something behind it failed, and not the request.
    #[must_use]
    pub fn is_our_fault(&self) -> bool {
        self.code.http.is_server_error()
    }

    /// The rate limit that was reached, if it was that.
    #[must_use]
    pub const fn scope(&self) -> Option<Scope> {
        self.scope
    }

    /// Says when to come back, unless that is said already or coming back would not help.
    #[must_use]
    pub fn retry_after(mut self, time: impl FnOnce() -> Duration) -> Self {
        if self.code == Code::UNAVAILABLE || self.code == Code::RESOURCE_EXHAUSTED {
            self.retry_after = self.retry_after.or_else(|| Some(time()));
        }
        self
    }

    /// The message of the body.
    #[must_use]
    pub fn message(&self, detail: ErrorDetail) -> String {
        match (&self.detail, detail) {
            (Some(text), _) if self.fixed.is_empty() => text.clone(),
            (Some(text), ErrorDetail::Reason) => format!("{}: {text}", self.fixed),
            _ => self.fixed.clone(),
        }
    }

    /// The body of the response: Fulcio's error object.
    #[must_use]
    pub fn json(&self, detail: ErrorDetail) -> String {
        serde_json::json!({ "code": self.code.grpc, "message": self.message(detail), "details": [] })
            .to_string()
    }

    /// The seconds after which the client should come back, if it should.
    fn seconds_until_retry(&self) -> Option<u64> {
        let seconds = self.retry_after.map(|time| time.as_secs());
        // Nobody is told to come back without being told when.
        let is_passing = self.code.http == StatusCode::SERVICE_UNAVAILABLE;
        seconds.or_else(|| is_passing.then_some(1))
    }

    /// The answer over gRPC, and what there is to tell of it. Reason and time of return are metadata of the names that
    /// they have as headers; the time also under the name by which gRPC clients with a retry policy know it.
    #[must_use]
    pub fn into_status(self, detail: ErrorDetail) -> (Status, Refused) {
        let mut metadata = MetadataMap::new();
        if let (Some(reason), ErrorDetail::Reason) = (self.reason, detail) {
            let reason = MetadataValue::from_static(reason.as_str());
            metadata.insert(REASON_NAME, reason);
        }
        if let Some(seconds) = self.seconds_until_retry() {
            metadata.insert("retry-after", seconds.into());
            metadata.insert("grpc-retry-pushback-ms", (seconds * 1000).into());
        }
        let code = tonic::Code::from(i32::from(self.code.grpc));
        let status = Status::with_metadata(code, self.message(detail), metadata);
        (status, self.into_refused())
    }

    fn into_refused(self) -> Refused {
        Refused {
            grpc: self.code.grpc,
            is_our_fault: self.is_our_fault(),
            reason: self.reason,
            detail: self.detail,
            for_log: self.for_log,
        }
    }

    /// The response: Fulcio's error object as JSON, whatever the client accepts.
    #[must_use]
    pub fn into_response(self, detail: ErrorDetail) -> HttpResponse {
        let mut response =
            HttpResponse::with_body(self.code.http, self.json(detail)).map_into_boxed_body();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let (Some(reason), ErrorDetail::Reason) = (self.reason, detail) {
            headers.insert(REASON_HEADER, HeaderValue::from_static(reason.as_str()));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.seconds_until_retry() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.reason == Some(Reason::Internal) {
            // Whatever went wrong, it ends with this connection.
            response
                .head_mut()
                .set_connection_type(ConnectionType::Close);
        }
        response.extensions_mut().insert(self.into_refused());
        response
    }
}

/// The fixed texts of the stages that `ca::request::Stage` does not name.
mod text {
    pub(super) const TOKEN: &str = "There was an error processing the identity token";
    pub(super) const LOG: &str = "Error entering certificate in CTL";
    pub(super) const CA: &str = "error communicating with CA backend";
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let fixed = match &error {
            RequestError::NoToken { .. } | RequestError::SeveralAuthorizations => {
                text::TOKEN.to_owned()
            }
            RequestError::NoKey => Stage::PublicKey.to_string(),
            RequestError::Json(_) => {
                let reason = error.reason();
                return Self::told_as_it_is(Code::INVALID_ARGUMENT, reason, error.to_string());
            }
            RequestError::Protobuf(error) => return Self::malformed_message(error.to_string()),
        };
        Self::new(Code::INVALID_ARGUMENT, fixed).with(error.reason(), error.to_string())
    }
}

impl From<Limited> for Refusal {
    fn from(limited: Limited) -> Self {
        let refusal = Self::new(Code::RESOURCE_EXHAUSTED, "too many requests");
        Self {
            retry_after: Some(limited.retry_after),
            scope: Some(limited.scope),
            ..refusal.with(Reason::RateLimited, limited.to_string())
        }
    }
}

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        match error {
            // Clients know the text of a template's error without one before it.
            IssueError::Token(error @ TokenError::Provider(_)) => {
                Self::told_as_it_is(Code::INVALID_ARGUMENT, error.reason(), error.to_string())
            }
            IssueError::Token(error) => {
                let code = if error.is_unavailable() {
                    Code::UNAVAILABLE
                } else if error.reason() == Reason::RateLimited {
                    Code::RESOURCE_EXHAUSTED
                } else {
                    Code::INVALID_ARGUMENT
                };
                let refusal = Self::new(code, text::TOKEN).with(error.reason(), error.to_string());
                if error.reason() == Reason::RateLimited {
                    // New issuers are counted by the minute.
                    refusal.retry_after(|| Duration::from_secs(60))
                } else {
                    refusal
                }
            }
            IssueError::Limited(limited) => limited.into(),
            IssueError::Proof(error) => {
                Self::new(Code::INVALID_ARGUMENT, error.stage().to_string())
                    .with(error.reason(), error.to_string())
            }
            // The log has no place for the name in it.
            IssueError::Profile(ProfileError::Identity(error @ EncodingError::NotAscii(_))) => {
                Self::new(Code::INVALID_ARGUMENT, error.to_string()).with(error.reason(), None)
            }
            IssueError::Profile(ProfileError::Identity(error)) => {
                Self::told_as_it_is(Code::INVALID_ARGUMENT, error.reason(), error.to_string())
            }
            IssueError::Profile(ProfileError::Random(_)) => {
                Self::new(Code::INTERNAL, text::CA).with(Reason::CaError, None)
            }
            IssueError::Authority(AuthorityError::NotYetValid { .. }) => {
                let detail =
                    "the CA certificate is not valid yet; the operator must check the clock"
                        .to_owned();
                Self::new(Code::UNAVAILABLE, text::CA).with(Reason::CaUnavailable, detail)
            }
            IssueError::Clock(_) => {
                Self::new(Code::UNAVAILABLE, text::CA).with(Reason::CaUnavailable, None)
            }
            IssueError::Authority(AuthorityError::EndsTooSoon { .. }) => {
                let detail =
                    "the CA certificate ends too soon to issue; the operator must rotate it"
                        .to_owned();
                Self::new(Code::UNAVAILABLE, text::CA).with(Reason::CaUnavailable, detail)
            }
            IssueError::Authority(AuthorityError::TooBusy(error)) => {
                Self::new(Code::UNAVAILABLE, text::CA).with(Reason::Overloaded, error.to_string())
            }
            IssueError::Authority(_) => {
                Self::new(Code::INTERNAL, text::CA).with(Reason::CaError, None)
            }
            IssueError::Log(error) => {
                let (code, reason, detail) = match error {
                    SubmitError::Overloaded => (
                        Code::UNAVAILABLE,
                        Reason::Overloaded,
                        "the log's queue is full",
                    ),
                    SubmitError::Timeout => (
                        Code::UNAVAILABLE,
                        Reason::Overloaded,
                        "the log did not answer in time",
                    ),
                    SubmitError::Unavailable(_) => (
                        Code::UNAVAILABLE,
                        Reason::CtUnavailable,
                        "the log cannot take entries now",
                    ),
                    SubmitError::Store(_) => (
                        Code::UNAVAILABLE,
                        Reason::StoreUnavailable,
                        "the log's store cannot be written",
                    ),
                    // Another log, or the same one once it was looked after, may take the next precertificate.
                    SubmitError::Rejected(_) => (
                        Code::UNAVAILABLE,
                        Reason::CtRejected,
                        "the log refused the precertificate",
                    ),
                    SubmitError::BadSct(_) => (
                        Code::UNAVAILABLE,
                        Reason::CtBadSct,
                        "the log's timestamp does not verify",
                    ),
                };
                Self::new(code, text::LOG).with(reason, detail.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ci_provider::ProviderError;

    #[test]
    fn a_text_that_clients_know_as_it_is_stands_in_the_log_too() {
        let claim = "ref".to_owned();
        let error = IssueError::Token(ProviderError::Pattern { claim }.into());
        let expected =
            "the claim `ref` does not match the pattern that the configuration has for it";
        let refusal = Refusal::from(error);
        for detail in [ErrorDetail::Compatible, ErrorDetail::Reason] {
            assert_eq!(refusal.message(detail), expected);
        }
        assert_eq!(refusal.into_refused().detail.as_deref(), Some(expected));
    }

    #[test]
    fn the_name_of_somebody_does_not_stand_in_the_log() {
        let error = EncodingError::NotAscii(Excerpt::new("jos\u{e9}@example.com"));
        let refusal = Refusal::from(IssueError::Profile(error.into()));
        assert!(refusal.message(ErrorDetail::Reason).contains("example.com"));
        assert_eq!(refusal.into_refused().detail, None);
    }
}
