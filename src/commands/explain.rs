//! `mayfly explain`: what a token would get, and why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::value::to_raw_value;
use time::OffsetDateTime;
use tokio::runtime::{self, Runtime};
use zeroize::Zeroizing;

use super::admin::{Place, RemoteServer, RunningServer};
use super::{ConfigPaths, Failure, moment, print, read};
use crate::admin::{self, ExplainRequest};
use crate::ca::request::PermittedAlgorithms;
use crate::fetch::{FetchLimits, HttpFetcher};
use crate::identity::KeySource;
use crate::identity::json::{Object, parse_object};
use crate::identity::jwks::{KeyLocation, KeySourceLimits};
use crate::identity::jws::MAX_DEPTH;
use crate::identity::trace::{Keys, Presented};
use crate::metrics::Metrics;
use crate::policy::explain::{Question, explain};
use crate::server::Environment;

/// The arguments of `mayfly explain`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code: 0 if a certificate would be issued, 1 if not, 3 if the configuration is wrong, 4 if a file cannot be read.

Examples:
  mayfly explain --identity-config identity.yaml --token-file token.jwt
  mayfly explain --identity-config identity.yaml --claims claims.json --output json
  gh-token | mayfly explain --identity-config identity.yaml --token-file - --offline
  mayfly explain --admin-socket /run/mayfly/admin.sock --claims claims.json")]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: ConfigPaths,
    #[command(flatten)]
    presented: PresentedFile,
    /// The moment that is asked about, such as 2026-01-02T03:04:05Z [default: now; for claims, when they are valid]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<OffsetDateTime>,
    /// Verify the token with the keys in this file, a JWK set, and not with those of its issuer
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Ask nobody for keys: the signature is verified only if the configuration, or --jwks, has them
    #[arg(long)]
    offline: bool,
    /// The public key that a certificate is wanted for, PEM
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Ask a running server at its --admin-socket: about the configuration that it has in force, with the keys that it has
    #[arg(long, value_name = "PATH", conflicts_with_all = ["jwks", "offline"])]
    admin_socket: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteServer,
    /// How the answer is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct PresentedFile {
    /// The token, in a file; - is the standard input. It is never taken from the command line, which others can see
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The claims of a token, as JSON, in a file; - is the standard input
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON document, explain-v1.
    Json,
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let presented = arguments.presented.read()?;
    let public_key = arguments.public_key.as_deref().map(read).transpose()?;
    let socket = arguments.admin_socket.clone().map(Place::Socket);
    if let Some(place) = arguments.remote.place()?.or(socket) {
        return ask(place, arguments, &presented, public_key.as_deref());
    }
    let now = environment.clock.now();
    let issuers = arguments.paths.issuers(now)?;
    let given = arguments.jwks.as_deref().map(given_keys).transpose()?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::defect)?;
    let source = key_source(&runtime, environment)?;
    let keys = match given {
        Some(location) => Keys::Given(&source, location),
        None if arguments.offline => Keys::AtHand(&source),
        None => Keys::Issuer(&source),
    };
    let question = Question {
        presented: match &presented {
            Read::Token(token) => Presented::Token(token),
            Read::Claims(claims) => Presented::Claims(claims),
        },
        keys,
        at: arguments.at,
        public_key: public_key.as_ref().map(|octets| octets.as_slice()),
        permitted: &PermittedAlgorithms::default(),
    };
    let explanation = runtime.block_on(explain(&issuers, question, now));
    print(&match arguments.output {
        Output::Text => explanation.to_string(),
        Output::Json => {
            let json = serde_json::to_string_pretty(&explanation).map_err(Failure::defect)?;
            json + "\n"
        }
    })?;
    match explanation.reason {
        None => Ok(()),
        Some(reason) => Err(Failure::operation(format!("refused: {reason}"))),
    }
}

/// Asks the server at a socket.
fn ask(
    place: Place,
    arguments: &Arguments,
    presented: &Read,
    public_key: Option<&Vec<u8>>,
) -> Result<(), Failure> {
    let mut request = ExplainRequest {
        at: arguments.at,
        public_key: public_key.map(|pem| String::from_utf8_lossy(pem).into_owned()),
        ..ExplainRequest::default()
    };
    match presented {
        Read::Token(token) => request.token = Some(token.to_string()),
        Read::Claims(claims) => {
            request.claims = Some(to_raw_value(claims).map_err(Failure::defect)?);
        }
    }
    let server = RunningServer {
        place,
        is_text: matches!(arguments.output, Output::Text),
    };
    server.ask(Method::POST, admin::EXPLAIN, &request)
}

/// A source of keys as the server has, which fetches nothing by itself.
fn key_source(runtime: &Runtime, environment: &Environment) -> Result<KeySource, Failure> {
    let fetcher = HttpFetcher::new(
        runtime.handle().clone(),
        FetchLimits::default(),
        Arc::clone(&environment.resolver),
        environment.cluster_files.clone(),
    );
    Ok(KeySource::new(
        Arc::new(fetcher),
        Arc::clone(&environment.clock),
        runtime.handle().clone(),
        KeySourceLimits::default(),
        Arc::new(Metrics::new().map_err(Failure::defect)?),
    ))
}

/// What was read.
enum Read {
    Token(Zeroizing<String>),
    Claims(Object),
}

impl PresentedFile {
    fn read(&self) -> Result<Read, Failure> {
        if let Some(path) = &self.token_file {
            let text = String::from_utf8_lossy(&read(path)?).trim().to_owned();
            return Ok(Read::Token(Zeroizing::new(text)));
        }
        // One of both is there, as the parser of arguments has made sure.
        let path = self.claims.as_deref().unwrap_or_else(|| Path::new("-"));
        let claims = parse_object(&read(path)?, MAX_DEPTH);
        let claims = claims.map_err(|error| {
            let name = path.display();
            Failure::dependency(format!("{name}: the claims are not a JSON object: {error}"))
        });
        claims.map(Read::Claims)
    }
}

fn given_keys(path: &Path) -> Result<KeyLocation, Failure> {
    let text = read(path)?;
    let location = KeyLocation::given(&String::from_utf8_lossy(&text));
    location.map_err(|error| Failure::dependency(format!("{}: {error}", path.display())))
}
