//! Files over HTTP: how long they may be kept, their tags, and gzip for those who ask.

use std::io::Write as _;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::hex::hex;
use crate::tlog::tree::sha256;

/// A file that never changes.
pub(super) const IMMUTABLE: &str = "public, max-age=604800, immutable";
/// A document that changes with the configuration.
pub(super) const SHORT: &str = "public, max-age=60";
/// What the next moment may change.
pub(super) const NO_STORE: &str = "no-store";

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// What a path answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// The HTTP status.
    pub status: StatusCode,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The value of `Cache-Control`.
    pub cache_control: &'static str,
    /// Whether a client that can read gzip gets it.
    pub is_compressible: bool,
    /// The content.
    pub body: Vec<u8>,
}

impl Page {
    pub(super) const fn found(
        content_type: &'static str,
        cache_control: &'static str,
        body: Vec<u8>,
    ) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            cache_control,
            is_compressible: false,
            body,
        }
    }

    pub(super) fn error(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            cache_control: NO_STORE,
            is_compressible: false,
            body: format!("{text}\n").into_bytes(),
        }
    }

    /// The same, for clients that can read gzip in that form.
    pub(super) const fn compressible(mut self) -> Self {
        self.is_compressible = true;
        self
    }
}

/// What a client takes, and what it has.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted {
    gzip: bool,
    /// The values of `If-None-Match`, in one list.
    known: String,
}

impl Accepted {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let list = |name: HeaderName| {
            let values = headers
                .get_all(name)
                .filter_map(|value| value.to_str().ok());
            values.collect::<Vec<_>>().join(",")
        };
        Self {
            gzip: accepts_gzip(&list(header::ACCEPT_ENCODING)),
            known: list(header::IF_NONE_MATCH),
        }
    }

    /// Whether the client has what has this tag (RFC 9110, section 13.1.2).
    fn knows(&self, tag: &str) -> bool {
        let mut known = self.known.split(',').map(str::trim);
        known.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    }
}

/// Whether `Accept-Encoding` names gzip, and not with a weight of 0 (RFC 9110, section 12.5.3).
fn accepts_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=");
        let is_refused = weight.is_some_and(|weight| weight.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

/// A page in the form that one client gets.
pub(super) struct Answer {
    page: Page,
    is_gzip: bool,
    tag: Option<String>,
}

impl Answer {
    pub(super) fn new(mut page: Page, accepted: &Accepted) -> Self {
        let gzip = (page.is_compressible && accepted.gzip).then(|| gzip(&page.body));
        // Into memory: it does not fail.
        let gzip = gzip.and_then(Result::ok);
        let is_gzip = gzip.is_some();
        page.body = gzip.unwrap_or(page.body);
        let mut tag = None;
        if page.status == StatusCode::OK {
            let hash = hex(sha256(&[&page.body]).get(..16).unwrap_or_default());
            let hash = format!("\"{hash}\"");
            if accepted.knows(&hash) {
                page.status = StatusCode::NOT_MODIFIED;
                page.body.clear();
            }
            tag = Some(hash);
        }
        Self { page, is_gzip, tag }
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let Self { page, is_gzip, tag } = self;
        let mut response = HttpResponse::build(page.status);
        response
            .insert_header((header::CONTENT_TYPE, page.content_type))
            .insert_header((header::CACHE_CONTROL, page.cache_control));
        if page.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        if page.is_compressible {
            response.insert_header((header::VARY, "accept-encoding"));
        }
        if is_gzip {
            response.insert_header((header::CONTENT_ENCODING, "gzip"));
        }
        if let Some(tag) = tag {
            response.insert_header((header::ETAG, tag));
        }
        response.body(page.body)
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Lets pages of any origin read a response, and keeps browsers from guessing what it is.
pub(super) fn for_everybody(mut response: HttpResponse) -> HttpResponse {
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
