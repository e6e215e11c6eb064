//! Reading the embedded log over HTTP: checkpoint, tiles, issuers (C2SP static-ct-api), and what describes the log.
//!
//! Every file has one URL, in its canonical form; everything else is 404. Only what never changes may be cached for long.

use std::sync::Arc;

use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::api::guard;
use crate::ctlog::CtLog;
use crate::ctlog::embedded::{EmbeddedLog, MMD_SECONDS};
use crate::store::StoreError;
use crate::x509::chain::CertificateChain;

/// A file that never changes.
const IMMUTABLE: &str = "public, max-age=604800, immutable";
/// A document that changes with the configuration.
const SHORT: &str = "public, max-age=60";
/// What the next moment may change.
const NO_STORE: &str = "no-store";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The public files of one log.
#[derive(Clone, Debug)]
pub struct LogSite {
    log: Arc<EmbeddedLog>,
    description: Arc<str>,
    roots: Arc<str>,
}

/// What a path of the log answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// The HTTP status.
    pub status: StatusCode,
    /// The value of `Content-Type`.
    pub content_type: &'static str,
    /// The value of `Cache-Control`.
    pub cache_control: &'static str,
    /// The content.
    pub body: Vec<u8>,
}

impl Page {
    fn found(content_type: &'static str, cache_control: &'static str, body: Vec<u8>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            cache_control,
            body,
        }
    }

    fn error(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            cache_control: NO_STORE,
            body: format!("{text}\n").into_bytes(),
        }
    }
}

impl LogSite {
    /// Serves `log`, which takes certificates of `authorities`.
    #[must_use]
    pub fn new(log: Arc<EmbeddedLog>, authorities: &[CertificateChain]) -> Self {
        let roots: Vec<_> = authorities
            .iter()
            .map(|chain| STANDARD.encode(chain.root().der()))
            .collect();
        Self {
            description: describe(&log).into(),
            roots: json!({ "certificates": roots }).to_string().into(),
            log,
        }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &EmbeddedLog {
        &self.log
    }

    /// Answers for `path`, which is what follows `/ct/<name>/` in the URL, as it was sent.
    #[must_use]
    pub fn read(&self, path: &str) -> Page {
        let json = |text: &str| Ok(Some(Page::found(JSON, SHORT, text.as_bytes().to_vec())));
        let page = match path {
            "checkpoint" => return self.checkpoint(),
            "log.v3.json" => json(&self.description),
            "ct/v1/get-roots" => json(&self.roots),
            _ => self.file(path),
        };
        match page {
            Ok(Some(page)) => page,
            Ok(None) => Page::error(
                StatusCode::NOT_FOUND,
                "not found: the log has no such file, or not yet",
            ),
            Err(error) => {
                tracing::error!(
                    error = error.to_string(),
                    path,
                    "a file of the log cannot be read"
                );
                Page::error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the log's store cannot be read",
                )
            }
        }
    }

    fn checkpoint(&self) -> Page {
        match self.log.checkpoint() {
            Some(checkpoint) => Page::found(TEXT, NO_STORE, checkpoint.as_bytes().to_vec()),
            None => Page::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "no checkpoint yet: the server's clock is behind the log's newest entry",
            ),
        }
    }

    /// A tile or an issuer.
    fn file(&self, path: &str) -> Result<Option<Page>, StoreError> {
        if let Some(fingerprint) = path.strip_prefix("issuer/").and_then(parse_fingerprint) {
            let der = self.log.issuer(&fingerprint)?;
            return Ok(der.map(|der| Page::found("application/pkix-cert", IMMUTABLE, der)));
        }
        let Ok(tile) = path.parse() else {
            return Ok(None);
        };
        let bytes = self.log.tile(tile)?;
        Ok(bytes.map(|bytes| Page::found("application/octet-stream", IMMUTABLE, bytes)))
    }
}

/// The name of a path below `/ct/` in metrics and logs.
#[must_use]
pub fn endpoint_name(path: &str) -> &'static str {
    match path.split('/').nth(3) {
        Some("checkpoint") => "ct_checkpoint",
        Some("tile") => "ct_tile",
        Some("issuer") => "ct_issuer",
        Some("log.v3.json") => "ct_description",
        Some("ct") => "ct_get_roots",
        _ => "other",
    }
}

/// Serves the log under `/ct/<name>/`.
pub fn configure(config: &mut web::ServiceConfig, site: &LogSite) {
    let prefix = format!("/ct/{}/", site.log.name());
    let site = site.clone();
    let pattern = format!("{prefix}{{path:.*}}");
    let read = move |request: HttpRequest| {
        let answer = answer(&site, &prefix, &request);
        async { answer }
    };
    config.service(web::resource(pattern).to(read).wrap(from_fn(guard)));
}

fn answer(site: &LogSite, prefix: &str, request: &HttpRequest) -> HttpResponse {
    let mut response = if matches!(*request.method(), Method::GET | Method::HEAD) {
        // As it was sent: a percent-encoded slash is not a slash, and no second spelling of a URL is served.
        let path = request.uri().path().strip_prefix(prefix);
        let page = site.read(path.unwrap_or_default());
        let mut response = HttpResponse::build(page.status);
        if page.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        response
            .insert_header((header::CONTENT_TYPE, page.content_type))
            .insert_header((header::CACHE_CONTROL, page.cache_control))
            .body(page.body)
    } else {
        HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "GET, HEAD"))
            .insert_header((header::CONTENT_TYPE, TEXT))
            .insert_header((header::CACHE_CONTROL, NO_STORE))
            .body("the log is read with GET and HEAD\n")
    };
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::HeaderValue::from_static("*"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}

/// `log.v3.json`: what monitors and log lists want to know of the log.
fn describe(log: &EmbeddedLog) -> String {
    let url = log.url();
    json!({
        "description": log.origin(),
        "log_id": STANDARD.encode(log.log_id()),
        "key": STANDARD.encode(log.public_key_der()),
        "mmd": MMD_SECONDS,
        "submission_url": url,
        "monitoring_url": url,
        "log_spec": "static-ct-api",
        "tls_only": url.starts_with("https:"),
        "status": "active",
        "log_software": { "name": "mayfly", "version": env!("CARGO_PKG_VERSION") },
    })
    .to_string()
}

/// Reads 64 lower-case hexadecimal digits.
fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut fingerprint = [0; 32];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != fingerprint.len() {
        return None;
    }
    for (octet, [high, low]) in fingerprint.iter_mut().zip(pairs) {
        *octet = digit(*high)? << 4 | digit(*low)?;
    }
    Some(fingerprint)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderMap;
    use actix_web::{App, test};

    use super::*;
    use crate::ctlog::Submission;
    use crate::ctlog::embedded::EmbeddedLogConfig;
    use crate::ctlog::testing::{chain, hex, new_log};

    /// A log with two entries, and the chain that they name.
    async fn site() -> (LogSite, CertificateChain) {
        let log = new_log(EmbeddedLogConfig::default());
        let chain = chain();
        for number in 0..2 {
            let submission = Submission {
                precertificate: vec![number],
                tbs: vec![number],
                issuer_key_hash: [0; 32],
                chain: Arc::new(chain.clone()),
            };
            log.submit(Arc::new(submission)).await.unwrap();
        }
        log.shutdown();
        let site = LogSite::new(Arc::new(log), std::slice::from_ref(&chain));
        (site, chain)
    }

    /// Sends a request through the router: status, headers, body.
    async fn request(site: &LogSite, method: Method, path: &str) -> (u16, HeaderMap, Vec<u8>) {
        let app = App::new().configure(|config| configure(config, site));
        let app = test::init_service(app).await;
        let request = test::TestRequest::with_uri(path).method(method);
        let response = test::call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, test::read_body(response).await.to_vec())
    }

    #[actix_web::test]
    async fn every_file_has_its_type_and_says_how_long_it_holds() {
        let (site, chain) = site().await;
        let issuer = format!("issuer/{}", hex(chain.root().fingerprint()));
        for (path, content_type, cache_control) in [
            ("checkpoint", TEXT, NO_STORE),
            ("tile/0/000.p/2", "application/octet-stream", IMMUTABLE),
            ("tile/0/000.p/1", "application/octet-stream", IMMUTABLE),
            ("tile/data/000.p/2", "application/octet-stream", IMMUTABLE),
            (&issuer, "application/pkix-cert", IMMUTABLE),
            ("log.v3.json", JSON, SHORT),
            ("ct/v1/get-roots", JSON, SHORT),
        ] {
            let path = format!("/ct/main/{path}");
            let (status, headers, body) = request(&site, Method::GET, &path).await;
            assert_eq!(status, 200, "{path}");
            assert_eq!(headers.get("content-type").unwrap(), content_type, "{path}");
            assert_eq!(
                headers.get("cache-control").unwrap(),
                cache_control,
                "{path}"
            );
            assert_eq!(headers.get("access-control-allow-origin").unwrap(), "*");
            assert!(!body.is_empty(), "{path}");
            assert_eq!(request(&site, Method::HEAD, &path).await.0, 200, "{path}");
        }
    }

    #[actix_web::test]
    async fn files_hold_what_the_log_holds() {
        let (site, chain) = site().await;
        let read = |path: &str| site.read(path).body;
        assert_eq!(
            read("checkpoint"),
            site.log.checkpoint().unwrap().as_bytes()
        );
        assert_eq!(read("tile/0/000.p/2").len(), 64);
        assert_eq!(read("tile/0/000.p/1"), read("tile/0/000.p/2")[..32]);
        let issuer = format!("issuer/{}", hex(chain.root().fingerprint()));
        assert_eq!(read(&issuer), chain.root().der());
        let roots = String::from_utf8(read("ct/v1/get-roots")).unwrap();
        assert_eq!(
            roots,
            format!(
                "{{\"certificates\":[\"{}\"]}}",
                STANDARD.encode(chain.root().der())
            )
        );
        let description: serde_json::Value = serde_json::from_slice(&read("log.v3.json")).unwrap();
        assert_eq!(description["monitoring_url"], "https://ca.example/ct/main/");
        assert_eq!(description["log_id"], STANDARD.encode(site.log.log_id()));
    }

    #[actix_web::test]
    async fn what_is_not_a_file_of_the_log_is_not_found_and_not_cached() {
        let (site, chain) = site().await;
        let upper = hex(chain.root().fingerprint()).to_uppercase();
        for path in [
            "",
            "tile/0/000",
            "tile/0/000.p/3",
            "tile/0/001",
            "tile/0/000.p/0",
            "tile/0/000.p/02",
            "tile/00/000.p/2",
            "tile/1/000",
            "tile/6/000",
            "tile/0/x999/999",
            "tile/0/../0/000.p/2",
            "tile%2f0/000.p/2",
            "tile/0/000%2ep/2",
            "tile/0/000.p/2/",
            "//checkpoint",
            "checkpoint/",
            "Checkpoint",
            "log.json",
            "state.json",
            "journal/0000000000000000.wal",
            "issuer/",
            "issuer/00",
            &format!("issuer/{upper}"),
            &format!("issuer/{}", "0".repeat(64)),
            "ct/v1/get-sth",
        ] {
            let path = format!("/ct/main/{path}");
            let (status, headers, _) = request(&site, Method::GET, &path).await;
            assert_eq!(status, 404, "{path}");
            assert_eq!(headers.get("cache-control").unwrap(), NO_STORE, "{path}");
        }
        let (status, ..) = request(&site, Method::GET, "/ct/other/checkpoint").await;
        assert_eq!(status, 404);
    }

    #[actix_web::test]
    async fn other_methods_are_refused_by_name() {
        let (site, _) = site().await;
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let (status, headers, _) = request(&site, method, "/ct/main/checkpoint").await;
            assert_eq!(status, 405);
            assert_eq!(headers.get("allow").unwrap(), "GET, HEAD");
        }
    }
}
