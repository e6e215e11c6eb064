//! What only `mayfly dev`, the benchmarks and the tests have: an OIDC issuer that gives a token to anyone who asks.
//!
//! `serve` cannot reach it: only the commands named here add its routes.

use std::sync::Arc;

use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::clock::Clock;

pub mod oidc;

use oidc::{TestIssuer, TestKeys};

/// The path of the first test issuer; the others lie below it.
pub const ISSUER_PATH: &str = "/dev/oidc";

/// One of the issuers of a development server.
#[derive(Clone, Copy, Debug)]
struct IssuerKind {
    /// What follows [`ISSUER_PATH`].
    suffix: &'static str,
    /// Its type in the identity file.
    type_name: &'static str,
    /// Further members of its entry, as YAML lines; `{base}` stands for the server's URL, `{host}` for
    /// its host.
    settings: &'static str,
}

/// One issuer for each type, so that every kind of certificate can be tried.
const ISSUERS: [IssuerKind; 10] = [
    IssuerKind::new("", "email", ""),
    IssuerKind::new("/uri", "uri", "    subject-domain: {base}\n"),
    IssuerKind::new("/username", "username", "    subject-domain: {host}\n"),
    IssuerKind::new(
        "/spiffe",
        "spiffe",
        "    spiffe-trust-domain: dev.example\n",
    ),
    IssuerKind::new("/kubernetes", "kubernetes", ""),
    IssuerKind::new("/chainguard", "chainguard-identity", ""),
    IssuerKind::new("/github", "github-workflow", ""),
    IssuerKind::new("/gitlab", "gitlab-pipeline", ""),
    IssuerKind::new("/buildkite", "buildkite-job", ""),
    IssuerKind::new("/codefresh", "codefresh-workflow", ""),
];

impl IssuerKind {
    const fn new(suffix: &'static str, type_name: &'static str, settings: &'static str) -> Self {
        Self {
            suffix,
            type_name,
            settings,
        }
    }
}

/// The issuers of a development server, at `{base}/dev/oidc…`.
#[derive(Debug)]
pub struct DevIssuers {
    base: String,
    issuers: Vec<(&'static str, Arc<TestIssuer>)>,
}

impl DevIssuers {
    /// Makes the issuers of the server at `base`, an URL without a slash at its end.
    #[must_use]
    pub fn new(base: &str, keys: &Arc<TestKeys>, clock: &Arc<dyn Clock>) -> Self {
        let issuers = ISSUERS.iter().map(|kind| {
            let url = format!("{base}{ISSUER_PATH}{}", kind.suffix);
            (
                kind.suffix,
                Arc::new(TestIssuer::new(url, Arc::clone(keys), Arc::clone(clock))),
            )
        });
        Self {
            base: base.to_owned(),
            issuers: issuers.collect(),
        }
    }

    /// The issuer for e-mail addresses.
    #[must_use]
    pub fn email(&self) -> Option<&Arc<TestIssuer>> {
        self.issuers.first().map(|(_, issuer)| issuer)
    }

    /// An identity file that trusts these issuers and no other.
    #[must_use]
    pub fn identity_file(&self) -> String {
        let authority = self.base.split_once("://").map_or("", |(_, rest)| rest);
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let entries = ISSUERS.iter().map(|kind| {
            let url = format!("{}{ISSUER_PATH}{}", self.base, kind.suffix);
            let settings = kind.settings.replace("{base}", &self.base);
            let settings = settings.replace("{host}", host);
            let type_name = kind.type_name;
            format!("  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: {type_name}\n{settings}")
        });
        format!(
            "# The test issuers of `mayfly dev`. They give a token to anyone: never trust them elsewhere.\noidc-issuers:\n{}",
            entries.collect::<String>()
        )
    }

    /// Adds the issuers' routes: discovery, keys, and `token`.
    pub fn configure(&self, routes: &mut web::ServiceConfig) {
        for (suffix, issuer) in &self.issuers {
            let path = |rest: &str| format!("{ISSUER_PATH}{suffix}{rest}");
            let json = |body: String| {
                web::get().to(move || {
                    let body = body.clone();
                    async move {
                        HttpResponse::Ok()
                            .content_type(ContentType::json())
                            .body(body)
                    }
                })
            };
            routes.route(
                &path("/.well-known/openid-configuration"),
                json(issuer.discovery_json()),
            );
            routes.route(&path("/jwks"), json(issuer.jwks_json()));
            let issuer = Arc::clone(issuer);
            routes.route(
                &path("/token"),
                web::get().to(move |request: HttpRequest| {
                    let issuer = Arc::clone(&issuer);
                    async move {
                        match issuer.token_for_query(request.query_string()) {
                            Ok(token) => HttpResponse::Ok()
                                .content_type(ContentType::plaintext())
                                .body(token),
                            Err(error) => HttpResponse::BadRequest().body(format!("{error}\n")),
                        }
                    }
                }),
            );
        }
    }
}
