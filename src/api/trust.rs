//! What clients must trust, over HTTP: the files at `/.well-known/sigstore/`, and the TUF repository at `/tuf/`.
//!
//! The files by themselves prove nothing: who takes them trusts the connection. The repository is signed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, HttpResponse, web};
use arc_swap::ArcSwap;
use time::OffsetDateTime;

use super::page::{Accepted, Answer, IMMUTABLE, JSON, NO_STORE, Page, SHORT, TEXT, for_everybody};
use crate::api::guard;
use crate::clock::Clock;
use crate::identity::IssuerConfiguration;
use crate::keys::InMemoryKey;
use crate::metrics::Metrics;
use crate::trust::TrustMaterial;
use crate::trust::tuf::{Refreshed, Repository, Target, TufError};

/// `GET`: the files.
pub const WELL_KNOWN: &str = "/.well-known/sigstore/{file}";
/// `GET`: the TUF repository; the name may hold a slash.
pub const TUF: &str = "/tuf/{name}";
/// The time between two looks at the repository: whether it must be signed again, or somebody else has.
const LOOK: Duration = Duration::from_secs(60);

/// Reads the key that a repository's root names for all but roots, if it is on this machine.
pub type ReadKey = Box<dyn Fn(&Repository) -> Result<Option<InMemoryKey>, TufError> + Send + Sync>;

/// The repository, and the key that signs it. Without one it is served as it is, and somebody else signs.
pub struct SignedRepository {
    repository: Repository,
    key: Mutex<Option<InMemoryKey>>,
    read_key: ReadKey,
}

impl SignedRepository {
    /// A repository, whose key is read now, and again when a new root names another one.
    ///
    /// # Errors
    /// When there is a key that cannot be read or is not the root's.
    pub fn open(repository: Repository, read_key: ReadKey) -> Result<Self, TufError> {
        Ok(Self {
            key: Mutex::new(read_key(&repository)?),
            repository,
            read_key,
        })
    }

    /// Signs what has changed or runs out; nothing without a key.
    fn sign(&self, targets: &[Target], now: OffsetDateTime) -> Result<Signing, TufError> {
        // A panic leaves the key or its successor.
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = key.as_ref() else {
            return Ok(Signing::Elsewhere);
        };
        let mut refreshed = self.repository.refresh(targets, current, now);
        if let Err(TufError::OtherKey { .. }) = refreshed
            && let Some(next) = (self.read_key)(&self.repository)?
        {
            refreshed = self.repository.refresh(targets, &next, now);
            *key = Some(next);
            tracing::info!(
                event = "trust_key_changed",
                "the TUF repository's new key is in use"
            );
        }
        refreshed.map(Signing::Done)
    }
}

impl fmt::Debug for SignedRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRepository")
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

/// Who signs a repository.
enum Signing {
    /// This server, and what it came to.
    Done(Refreshed),
    /// Somebody who has the key.
    Elsewhere,
}

/// Every page of what clients must trust, true to the configuration in force.
#[derive(Debug)]
pub struct TrustSite {
    /// Held while pages are made.
    material: Mutex<TrustMaterial>,
    repository: Option<SignedRepository>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    pages: ArcSwap<BTreeMap<String, Page>>,
}

impl TrustSite {
    /// Serves what clients of this material must trust.
    ///
    /// # Errors
    /// When a file that the configuration names cannot be used.
    pub fn new(
        material: TrustMaterial,
        repository: Option<SignedRepository>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TufError> {
        let site = Self {
            pages: ArcSwap::from_pointee(files(&material)?),
            material: Mutex::new(material),
            repository,
            clock,
            metrics,
        };
        site.refresh();
        Ok(site)
    }

    /// Other issuers are configured from now on.
    pub fn set_issuers(&self, issuers: &[IssuerConfiguration]) {
        self.lock().oidc_urls = login_urls(issuers);
        self.refresh();
    }

    /// Makes the pages anew, and signs what has changed or runs out. What cannot be made is logged, and what was served stays:
    /// certificates are issued all the same.
    pub fn refresh(&self) {
        if let Err(error) = self.try_refresh() {
            tracing::error!(
                event = "trust_not_refreshed",
                error = error.to_string(),
                "the trust files that are served are those of before"
            );
        }
    }

    /// Looks at it for as long as the server runs.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.refresh();
        }
    }

    fn try_refresh(&self) -> Result<(), TufError> {
        let material = self.lock();
        let mut pages = files(&material)?;
        if let Some(signed) = &self.repository {
            let repository = &signed.repository;
            let (targets, now) = (material.targets()?, self.clock.now());
            match signed.sign(&targets, now) {
                // That a new instance has one is no news.
                Ok(Signing::Done(refreshed)) if refreshed.is_changed && !refreshed.is_first() => {
                    tracing::info!(
                        event = "trust_signed",
                        is_content_changed = refreshed.is_content_changed,
                        "the TUF repository is signed anew"
                    );
                }
                Ok(Signing::Done(_)) => {}
                Ok(Signing::Elsewhere) => {
                    if !repository.is_current(&targets, now)? {
                        tracing::warn!(
                            event = "trust_outdated",
                            "the TUF repository does not have the trust files of this configuration, or runs out; sign it with `mayfly trust refresh`"
                        );
                    }
                }
                // What is there is what clients need, until it runs out.
                Err(error) => tracing::error!(
                    event = "trust_not_signed",
                    error = error.to_string(),
                    "the TUF repository is served and not signed"
                ),
            }
            for state in repository.state()? {
                let end = state.expires.unix_timestamp();
                self.metrics.tuf_expires(state.role, end);
            }
            let files = repository.files()?.into_iter();
            pages
                .extend(files.map(|(name, content)| (below(TUF, &name), tuf_page(&name, content))));
        }
        self.pages.store(Arc::new(pages));
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TrustMaterial> {
        // What a panic left is a list of URLs, which is whole.
        self.material.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, path: &str) -> Page {
        let found = self.pages.load().get(path).cloned();
        // Clients ask for the next root until it is not there.
        found.unwrap_or_else(|| {
            Page::error(
                StatusCode::NOT_FOUND,
                "not found: there is no such trust file",
            )
        })
    }
}

/// The name of a path in metrics and logs, if it is one of these.
#[must_use]
pub fn endpoint_name(path: &str) -> Option<&'static str> {
    let names = [(WELL_KNOWN, "trust"), (TUF, "tuf")];
    let mut names = names.into_iter();
    let found = names.find(|(pattern, _)| path.starts_with(&below(pattern, "")));
    found.map(|(_, name)| name)
}

/// The path of a file.
fn below(pattern: &str, name: &str) -> String {
    let prefix = pattern.split('{').next().unwrap_or_default();
    format!("{prefix}{name}")
}

/// Issuers where a person can get a token in a browser.
#[must_use]
pub fn login_urls(issuers: &[IssuerConfiguration]) -> Vec<String> {
    // Only people log in with a browser, and only they have an e-mail address.
    let people = issuers
        .iter()
        .filter(|issuer| !issuer.is_wildcard && issuer.issuer_type == "email");
    let mut urls: Vec<String> = people.map(|issuer| issuer.url.clone()).collect();
    // An issuer of several audiences is one issuer.
    urls.dedup();
    urls
}

/// The pages of the plain files.
fn files(material: &TrustMaterial) -> Result<BTreeMap<String, Page>, TufError> {
    let files = material.files()?.into_iter();
    let mut pages: BTreeMap<String, Page> = files
        .map(|(name, content)| {
            let kind = if name.ends_with(".json") { JSON } else { TEXT };
            let page = Page::found(kind, SHORT, content.into_bytes());
            (below(WELL_KNOWN, name), page)
        })
        .collect();
    // The name that says its version too.
    if let Some(page) = pages.get(&below(WELL_KNOWN, "signing_config.json")) {
        let page = page.clone();
        pages.insert(below(WELL_KNOWN, "signing_config.v0.2.json"), page);
    }
    Ok(pages)
}

fn tuf_page(name: &str, content: Vec<u8>) -> Page {
    let kind = if name.ends_with(".json") { JSON } else { TEXT };
    let kept = match name {
        "timestamp.json" => NO_STORE,
        "root.json" => SHORT,
        // Named by a version or a hash.
        _ => IMMUTABLE,
    };
    Page::found(kind, kept, content)
}

/// Adds the routes.
pub fn configure(routes: &mut web::ServiceConfig, site: &Arc<TrustSite>) {
    for pattern in [WELL_KNOWN, TUF] {
        let site = Arc::clone(site);
        let read = move |request: HttpRequest| {
            let site = Arc::clone(&site);
            async move { answer(&site, &request) }
        };
        let pattern = pattern.replace('}', ":.*}");
        routes.service(web::resource(pattern).to(read).wrap(from_fn(guard)));
    }
}

fn answer(site: &TrustSite, request: &HttpRequest) -> HttpResponse {
    for_everybody(if matches!(*request.method(), Method::GET | Method::HEAD) {
        // As it was sent: no second spelling of a URL is served.
        let page = site.page(request.uri().path());
        Answer::new(page, &Accepted::of(request.headers())).into_response()
    } else {
        HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "GET, HEAD"))
            .insert_header((header::CONTENT_TYPE, TEXT))
            .insert_header((header::CACHE_CONTROL, NO_STORE))
            .body("trust files are read with GET and HEAD\n")
    })
}
