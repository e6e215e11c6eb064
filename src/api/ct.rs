//! Reading the embedded log over HTTP: checkpoint, tiles, issuers (C2SP static-ct-api), and what describes the log. The calls
//! of RFC 6962 are in `rfc6962.rs`.
//!
//! Every file has one URL, in its canonical form; everything else is 404. Only what never changes may be cached for long.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::page::{Accepted, Answer, IMMUTABLE, JSON, NO_STORE, Page, SHORT, TEXT, for_everybody};
use super::rfc6962;
use crate::api::guard;
use crate::ctlog::CtLog;
use crate::ctlog::embedded::{EmbeddedLog, MMD_SECONDS};
use crate::store::StoreError;
use crate::tlog::tile::{TileKind, TilePath};
use crate::x509::chain::CertificateChain;

/// The public files of one log.
#[derive(Clone, Debug)]
pub struct LogSite {
    log: Arc<EmbeddedLog>,
    description: Arc<str>,
    roots: Arc<str>,
}

impl Page {
    /// There is no checkpoint to answer by.
    pub(super) fn no_checkpoint() -> Self {
        Self::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "no checkpoint yet: the server's clock is behind the log's newest entry",
        )
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

    /// Answers for `path`, which is what follows `/ct/<name>/` in the URL, as it was sent, and for the query behind it. May
    /// read files.
    #[must_use]
    pub fn read(&self, path: &str, query: &str) -> Page {
        if let Some(page) = self.in_memory(path) {
            return page;
        }
        let page = match path.strip_prefix("ct/v1/") {
            Some(call) => rfc6962::answer(&self.log, call, query),
            None if path == "checkpoint" => Ok(Some(self.checkpoint())),
            None => self.file(path),
        };
        match page {
            Ok(Some(page)) => page,
            Ok(None) => Page::error(
                StatusCode::NOT_FOUND,
                "not found: the log has no such file, or not yet",
            ),
            Err(error) => {
                tracing::error!(
                    event = "log_not_read",
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

    /// What is the same for the life of the process.
    fn in_memory(&self, path: &str) -> Option<Page> {
        let json = |text: &str| Some(Page::found(JSON, SHORT, text.as_bytes().to_vec()));
        match path {
            "log.v3.json" => json(&self.description),
            "ct/v1/get-roots" => json(&self.roots),
            _ => None,
        }
    }

    /// The newest checkpoint, also where other processes write the log too.
    fn checkpoint(&self) -> Page {
        self.log.log().refresh();
        match self.log.checkpoint() {
            Some(checkpoint) => Page::found(TEXT, NO_STORE, checkpoint.as_bytes().to_vec()),
            None => Page::no_checkpoint(),
        }
    }

    /// A tile or an issuer.
    fn file(&self, path: &str) -> Result<Option<Page>, StoreError> {
        if let Some(fingerprint) = path.strip_prefix("issuer/").and_then(parse_fingerprint) {
            let der = self.log.issuer(&fingerprint)?;
            return Ok(der.map(|der| Page::found("application/pkix-cert", IMMUTABLE, der)));
        }
        let Ok(tile) = path.parse::<TilePath>() else {
            return Ok(None);
        };
        let Some(bytes) = self.log.tile(tile)? else {
            return Ok(None);
        };
        let page = Page::found("application/octet-stream", IMMUTABLE, bytes);
        // Hashes do not become shorter.
        Ok(Some(match tile.kind() {
            TileKind::Data => page.compressible(),
            TileKind::Hashes(_) => page,
        }))
    }
}

/// The name of a path below `/ct/` in metrics and logs.
#[must_use]
pub fn endpoint_name(path: &str) -> &'static str {
    let mut segments = path.split('/').skip(3);
    match segments.next() {
        Some("checkpoint") => "ct_checkpoint",
        Some("tile") => "ct_tile",
        Some("issuer") => "ct_issuer",
        Some("log.v3.json") => "ct_description",
        Some("ct") => rfc6962::endpoint_name(segments.nth(1).unwrap_or_default()),
        _ => "other",
    }
}

/// Serves the log under `/ct/<name>/`.
pub fn configure(config: &mut web::ServiceConfig, site: &LogSite) {
    let prefix = format!("/ct/{}/", site.log.name());
    let site = site.clone();
    let pattern = format!("{prefix}{{path:.*}}");
    let read = move |request: HttpRequest| answer(site.clone(), prefix.len(), request);
    config.service(web::resource(pattern).to(read).wrap(from_fn(guard)));
}

async fn answer(site: LogSite, prefix_length: usize, request: HttpRequest) -> HttpResponse {
    let response = if matches!(*request.method(), Method::GET | Method::HEAD) {
        // As it was sent: a percent-encoded slash is not a slash, and no second spelling of a URL is served.
        let path = request.uri().path().get(prefix_length..);
        let path = path.unwrap_or_default().to_owned();
        let query = request.query_string().to_owned();
        let accepted = Accepted::of(request.headers());
        match site.in_memory(&path) {
            Some(page) => Answer::new(page, &accepted),
            // A store may take its time, and this thread has other connections.
            None => {
                let read = move || Answer::new(site.read(&path, &query), &accepted);
                match tokio::task::spawn_blocking(read).await {
                    Ok(answer) => answer,
                    Err(error) => match error.try_into_panic() {
                        // The middleware counts it.
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return HttpResponse::ServiceUnavailable().finish(),
                    },
                }
            }
        }
        .into_response()
    } else {
        HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "GET, HEAD"))
            .insert_header((header::CONTENT_TYPE, TEXT))
            .insert_header((header::CACHE_CONTROL, NO_STORE))
            .body("the log is read with GET and HEAD\n")
    };
    for_everybody(response)
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
    use std::io::Read as _;

    use actix_web::http::header::{HeaderMap, HeaderName};
    use actix_web::{App, test};
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;
    use crate::clock::SystemClock;
    use crate::ctlog::Submission;
    use crate::ctlog::embedded::{EmbeddedLogConfig, EmbeddedLogParts};
    use crate::ctlog::testing::{chain, new_log, parts};
    use crate::hex::hex;
    use crate::store::MemoryStore;
    use crate::store::object::ObjectStorage;

    fn submission(number: u8, chain: &CertificateChain) -> Arc<Submission> {
        Arc::new(Submission {
            precertificate: vec![number],
            tbs: vec![number],
            issuer_key_hash: [0; 32],
            chain: Arc::new(chain.clone()),
        })
    }

    /// A log with two entries, and the chain that they name.
    async fn site() -> (LogSite, CertificateChain) {
        let log = new_log(EmbeddedLogConfig::default());
        let chain = chain();
        for number in 0..2 {
            log.submit(submission(number, &chain)).await.unwrap();
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
    async fn readers_see_what_another_process_published() {
        let storage = ObjectStorage::on(Arc::new(InMemory::new()));
        let parts = EmbeddedLogParts {
            store: Arc::new(storage),
            // The bucket's own clock is compared with it.
            clock: Arc::new(SystemClock),
            ..parts(&MemoryStore::default())
        };
        let url = Url::parse("https://ca.example").unwrap();
        let settings = EmbeddedLogConfig::default().check(&url).unwrap();
        EmbeddedLog::create(&settings, &parts).unwrap();
        let [ours, theirs] =
            [(), ()].map(|()| EmbeddedLog::open(settings.clone(), &parts).unwrap());
        let chain = chain();
        theirs.submit(submission(0, &chain)).await.unwrap();
        theirs.shutdown();

        let site = LogSite::new(Arc::new(ours), std::slice::from_ref(&chain));
        let published = theirs.checkpoint().unwrap();
        assert!(published.contains("\n1\n"), "{published}");
        assert_eq!(site.read("checkpoint", "").body, published.as_bytes());
    }

    #[actix_web::test]
    async fn files_hold_what_the_log_holds() {
        let (site, chain) = site().await;
        let read = |path: &str| site.read(path, "").body;
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
            "ct/v1/get-nothing",
            "ct/v1/",
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

    /// The answer to a GET with these headers, through the router: status, headers, body.
    async fn get(
        site: &LogSite,
        path: &str,
        sent: &[(HeaderName, &str)],
    ) -> (u16, HeaderMap, Vec<u8>) {
        let app = App::new().configure(|config| configure(config, site));
        let app = test::init_service(app).await;
        let mut request = test::TestRequest::with_uri(path);
        for (name, value) in sent {
            request = request.append_header((name.clone(), *value));
        }
        let response = test::call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, test::read_body(response).await.to_vec())
    }

    #[actix_web::test]
    async fn data_tiles_and_entries_are_compressed_for_who_asks() {
        let (site, _) = site().await;
        for path in [
            "/ct/main/tile/data/000.p/2",
            "/ct/main/ct/v1/get-entries?start=0&end=1",
        ] {
            let (_, headers, plain) = get(&site, path, &[]).await;
            assert!(headers.get(header::CONTENT_ENCODING).is_none(), "{path}");
            assert_eq!(headers.get(header::VARY).unwrap(), "accept-encoding");
            let plain_tag = headers.get(header::ETAG).unwrap().clone();
            for accepted in ["gzip", "br, GZIP;q=0.5", "identity;q=0.5, gzip; q=1.0"] {
                let sent = [(header::ACCEPT_ENCODING, accepted)];
                let (status, headers, body) = get(&site, path, &sent).await;
                assert_eq!(status, 200, "{path} {accepted}");
                assert_eq!(headers.get(header::CONTENT_ENCODING).unwrap(), "gzip");
                assert_eq!(headers.get(header::VARY).unwrap(), "accept-encoding");
                assert_ne!(headers.get(header::ETAG), Some(&plain_tag));
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(body.as_slice())
                    .read_to_end(&mut unpacked)
                    .unwrap();
                assert_eq!(unpacked, plain, "{path} {accepted}");
            }
            for refused in ["gzip;q=0", "br", "gzip;q=0.000", "xgzip", ""] {
                let sent = [(header::ACCEPT_ENCODING, refused)];
                let (_, _, body) = get(&site, path, &sent).await;
                assert_eq!(body, plain, "{path} {refused}");
            }
        }
        let sent = [(header::ACCEPT_ENCODING, "gzip")];
        for path in ["tile/0/000.p/2", "checkpoint"] {
            let (_, headers, _) = get(&site, &format!("/ct/main/{path}"), &sent).await;
            assert!(headers.get(header::CONTENT_ENCODING).is_none(), "{path}");
        }
    }

    #[actix_web::test]
    async fn what_a_client_has_is_not_sent_again() {
        let (site, chain) = site().await;
        let issuer = format!("issuer/{}", hex(chain.root().fingerprint()));
        for path in [
            "checkpoint",
            "tile/0/000.p/2",
            "tile/data/000.p/2",
            &issuer,
            "log.v3.json",
            "ct/v1/get-sth",
            "ct/v1/get-entries?start=0&end=0",
        ] {
            let path = format!("/ct/main/{path}");
            let (_, headers, body) = get(&site, &path, &[]).await;
            let tag = headers.get(header::ETAG).unwrap().to_str().unwrap();
            for known in [tag, &format!("\"x\", W/{tag}"), "*"] {
                let sent = [(header::IF_NONE_MATCH, known)];
                let (status, again, nothing) = get(&site, &path, &sent).await;
                assert_eq!((status, nothing.len()), (304, 0), "{path} {known}");
                assert_eq!(again.get(header::ETAG), headers.get(header::ETAG));
                let cache_control = again.get(header::CACHE_CONTROL);
                assert_eq!(cache_control, headers.get(header::CACHE_CONTROL));
            }
            let sent = [(header::IF_NONE_MATCH, "\"x\"")];
            assert_eq!(get(&site, &path, &sent).await.2, body, "{path}");
        }
        let sent = [(header::IF_NONE_MATCH, "*")];
        let (status, headers, _) = get(&site, "/ct/main/tile/0/001", &sent).await;
        assert_eq!(status, 404, "what is not there is not what a client has");
        assert!(headers.get(header::ETAG).is_none());
    }
}
