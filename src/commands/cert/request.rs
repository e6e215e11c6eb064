//! `mayfly cert request`: a certificate for a new key, as a signing client gets it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::Client;
use reqwest::redirect::Policy;
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use url::Url;
use zeroize::Zeroizing;

use super::Failure;
use crate::client::details::CertificateDetails;
use crate::client::request::{Api, Ca, CertificateRequest, Proof, RequestError, TokenClaims};
use crate::client::token::{Surroundings, TokenSource};
use crate::client::trusted_root::TrustedRoot;
use crate::client::verify::{Check, CheckResult, Question, When, verify};
use crate::commands::log::{Output, print_json};
use crate::commands::say;
use crate::commands::{plain, print, read, tls_roots};
use crate::fetch::TlsRoots;
use crate::keys::memory::NewKey;
use crate::keys::{InMemoryKey, Signer as _, file};
use crate::server::Environment;
use crate::x509::chain::certificate_pem;

/// For one request; the CA answers within 4 s.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The arguments of `mayfly cert request`.
#[derive(Args, Debug)]
#[command(after_help = "\
The token is taken from --token-file, else from SIGSTORE_ID_TOKEN, else from the build service that this runs in. What comes
back is verified before it is written or printed. Progress goes to the standard error, certificates to the standard output.

Exit code: 0 if there is a certificate that verifies, 1 if not, 3 if the trusted root cannot be used, 4 if there is no token
or the CA cannot be reached.

Examples:
  mayfly cert request --url https://ca.example.com --token-file token > chain.pem
  mayfly cert request --url https://ca.example.com --trusted-root trusted_root.json --out-dir signer --key-type p384 --csr")]
pub(in crate::commands) struct Arguments {
    /// The CA
    #[arg(long, env = "MAYFLY_URL", value_name = "URL", hide_env_values = true)]
    url: Url,
    /// The ID token, in a file; - is the standard input. It is never taken from the command line, which others can see
    #[arg(long, visible_alias = "identity-token", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the token is from [default: the first of these that is there]
    #[arg(long, value_enum, value_name = "SOURCE", conflicts_with = "token_file")]
    token_source: Option<TokenSource>,
    /// Whom a token is asked for
    #[arg(long, value_name = "NAME", default_value = "sigstore")]
    audience: String,
    /// The kind of the new key
    #[arg(long, value_enum, default_value = "p256")]
    key_type: KeyType,
    /// The form in which the CA is asked
    #[arg(long, value_enum, default_value = "v2")]
    api: ApiVersion,
    /// Prove that the key is ours by a certificate signing request, not by a signature over the token's name
    #[arg(long)]
    csr: bool,
    /// Whom to believe: a trusted_root.json or a trust_config.json [default: the chain that the CA answers, unverified]
    #[arg(
        long,
        env = "MAYFLY_TRUSTED_ROOT",
        value_name = "FILE",
        hide_env_values = true
    )]
    trusted_root: Option<PathBuf>,
    /// The root of the CA's TLS certificate, where it is not one of the system's: a PEM file
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Write key.pem, cert.pem and chain.pem into this folder, none of which may be there [default: print the certificates,
    /// and forget the key]
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The kinds of key.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyType {
    #[value(alias = "ec-p256")]
    P256,
    #[value(alias = "ec-p384")]
    P384,
    #[value(alias = "ec-p521")]
    P521,
    Ed25519,
    #[value(name = "rsa-2048")]
    Rsa2048,
    #[value(name = "rsa-3072")]
    Rsa3072,
    #[value(name = "rsa-4096")]
    Rsa4096,
}

impl KeyType {
    const fn new_key(self) -> NewKey {
        match self {
            Self::P256 => NewKey::P256,
            Self::P384 => NewKey::P384,
            Self::P521 => NewKey::P521,
            Self::Ed25519 => NewKey::Ed25519,
            Self::Rsa2048 => NewKey::Rsa2048,
            Self::Rsa3072 => NewKey::Rsa3072,
            Self::Rsa4096 => NewKey::Rsa4096,
        }
    }
}

/// The forms in which a CA is asked.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ApiVersion {
    V1,
    V2,
    Grpc,
}

/// Where things were written.
#[derive(Debug, Serialize)]
struct Files {
    key: PathBuf,
    certificate: PathBuf,
    chain: PathBuf,
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let trusted_root = arguments.trusted_root.as_deref().map(|path| {
        TrustedRoot::parse(&read(path)?)
            .map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))
    });
    let trusted_root = trusted_root.transpose()?;
    if let Some(folder) = &arguments.out_dir {
        // Before the certificate is in the log for good.
        Files::of(folder).check()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::defect)?;
    let tls_roots = arguments.tls_ca.as_deref().map(tls_roots).transpose()?;
    let http = Arguments::http(tls_roots.as_ref())?;
    let token = runtime.block_on(arguments.token(&http))?;
    let claims = TokenClaims::read(&token).map_err(Failure::operation)?;
    step(
        "token",
        &format!("of {}, for {}", claims.issuer, claims.challenge),
    );

    let (key, pkcs8) =
        InMemoryKey::generate(arguments.key_type.new_key()).map_err(Failure::defect)?;
    let proof = if arguments.csr {
        Proof::csr(&key)
    } else {
        Proof::over(&claims.challenge, &key)
    };
    let request = CertificateRequest {
        public_key_der: key.public_key_der(),
        proof: &proof.map_err(Failure::defect)?,
        token: &token,
    };
    let api = match arguments.api {
        ApiVersion::V1 => Api::V1,
        ApiVersion::V2 => Api::V2,
        ApiVersion::Grpc => Api::Grpc,
    };
    let ca = Ca {
        url: &arguments.url,
        http: &http,
        tls_roots: tls_roots.as_ref(),
    };
    let certificates = runtime.block_on(request.send(api, &ca));
    let certificates = certificates.map_err(|error| match &error {
        RequestError::Unreachable(_) => Failure::dependency(plain(&error.to_string())),
        RequestError::Refused { .. } | RequestError::Answer(_) => {
            Failure::operation(plain(&error.to_string()))
        }
    })?;
    let leaf = certificates.first().map(Vec::as_slice).unwrap_or_default();
    let details = CertificateDetails::read(leaf)
        .ok_or_else(|| Failure::operation("the CA's answer holds no X.509 certificate"))?;
    let names: Vec<&str> = details.san.iter().map(|name| name.value.as_str()).collect();
    step(
        "certificate",
        &format!("for {}, until {}", names.join(", "), details.not_after),
    );

    let now = environment.clock.now();
    let checks = match &trusted_root {
        Some(root) => checks_by(root, leaf, &key, now),
        None => checks_alone(&certificates, &key, now)?,
    };
    for check in &checks {
        let detail = match check.result {
            CheckResult::Pass | CheckResult::Fail => check.detail.clone(),
            CheckResult::Skip => format!("not verified; {}", check.detail),
        };
        step(check.name, &detail);
    }
    if let Some(Check { name, detail, .. }) = failure_of(&checks) {
        let message = format!("the CA's certificate does not verify: {name}: {detail}");
        return Err(Failure::operation(plain(&message)));
    }

    let pems: Vec<String> = certificates
        .iter()
        .map(|der| certificate_pem(der) + "\n")
        .collect();
    let files = arguments.out_dir.as_deref().map(|folder| {
        let files = Files::of(folder);
        files.write(folder, &pkcs8, &pems)?;
        Ok::<_, Failure>(files)
    });
    let files = files.transpose()?;
    match (arguments.output, &files) {
        (Output::Json, files) => print_json(&json!({
            "certificates": pems,
            "certificate": details,
            "checks": checks,
            "files": files,
        })),
        (Output::Text, None) => print(&pems.concat()),
        (Output::Text, Some(files)) => print(&files.text()),
    }
}

impl Arguments {
    /// What asks the CA and the endpoints of build services.
    fn http(tls_roots: Option<&TlsRoots>) -> Result<Client, Failure> {
        let roots = tls_roots.map(TlsRoots::certificates);
        let roots = roots.transpose().map_err(Failure::defect)?;
        Client::builder()
            .user_agent(concat!("mayfly/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            // A token goes to whom it was meant for, and to nobody else.
            .redirect(Policy::none())
            .tls_certs_merge(roots.unwrap_or_default())
            .build()
            .map_err(Failure::defect)
    }

    /// The token: from a file, or from wherever one is.
    async fn token(&self, http: &Client) -> Result<Zeroizing<String>, Failure> {
        if let Some(path) = &self.token_file {
            let text = Zeroizing::new(String::from_utf8_lossy(&read(path)?).into_owned());
            return Ok(Zeroizing::new(text.trim().to_owned()));
        }
        let surroundings = Surroundings {
            variable: &|name| std::env::var(name).ok(),
            root: "/".into(),
        };
        let source = match self.token_source {
            Some(source) => source,
            None => surroundings.detect().map_err(Failure::dependency)?,
        };
        let token = surroundings.token(source, &self.audience, http).await;
        let token = token.map_err(|error| Failure::dependency(plain(&error.to_string())))?;
        step("asked", source.name());
        Ok(token)
    }
}

/// Verifies a certificate by a trusted root.
fn checks_by(
    root: &TrustedRoot,
    leaf: &[u8],
    key: &InMemoryKey,
    now: OffsetDateTime,
) -> Vec<Check> {
    let question = Question {
        trusted_root: root,
        when: When::At(now),
        identity: None,
        issuer: None,
        public_key_der: Some(key.public_key_der()),
    };
    let mut checks = verify(leaf, &question).checks;
    // Who it names is for the CA to say, which has verified the token.
    checks.retain(|check| !matches!(check.name, "identity" | "issuer"));
    checks
}

/// Checks what can be checked without knowing whom to trust.
fn checks_alone(
    certificates: &[Vec<u8>],
    key: &InMemoryKey,
    now: OffsetDateTime,
) -> Result<Vec<Check>, Failure> {
    const REMEDY: &str = "give --trusted-root";
    let (leaf, chain) = certificates.split_first().unwrap_or((&NOTHING, &[]));
    let root = TrustedRoot::of_chain(chain)
        .map_err(|error| Failure::operation(format!("the CA's chain: {error}")))?;
    let mut checks = checks_by(&root, leaf, key, now);
    for check in &mut checks {
        match (check.name, check.result) {
            ("chain", CheckResult::Pass) => {
                let unknown = format!("{}, which nobody vouches for; {REMEDY}", check.detail);
                check.detail = unknown.replace("the trusted ", "");
            }
            ("timestamp", _) => *check = Check::skipped("timestamp", REMEDY),
            _ => {}
        }
    }
    Ok(checks)
}

/// What stands for a certificate that is not there.
static NOTHING: Vec<u8> = Vec::new();

fn failure_of(checks: &[Check]) -> Option<&Check> {
    let mut checks = checks.iter();
    checks.find(|check| check.result == CheckResult::Fail)
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            key: folder.join("key.pem"),
            certificate: folder.join("cert.pem"),
            chain: folder.join("chain.pem"),
        }
    }

    /// Refuses what would be overwritten.
    fn check(&self) -> Result<(), Failure> {
        let mut files = [&self.key, &self.certificate, &self.chain].into_iter();
        files.find(|path| path.exists()).map_or(Ok(()), |path| {
            let path = path.display();
            Err(Failure::operation(format!(
                "{path}: is there already; nothing is overwritten"
            )))
        })
    }

    fn write(&self, folder: &Path, pkcs8: &[u8], pems: &[String]) -> Result<(), Failure> {
        let failed = |path: &Path, error: std::io::Error| {
            Failure::operation(format!("{}: {error}", path.display()))
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        file::create(&self.key, pkcs8, None).map_err(Failure::operation)?;
        let (leaf, chain) = pems
            .split_first()
            .map_or_else(Default::default, |(leaf, chain)| {
                (leaf.clone(), chain.concat())
            });
        for (path, text) in [(&self.certificate, leaf), (&self.chain, chain)] {
            let written =
                File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| failed(path, error))?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let paths = [&self.key, &self.certificate, &self.chain];
        paths.map(|path| format!("{}\n", path.display())).concat()
    }
}

/// One line of progress.
fn step(name: &str, what: &str) {
    say!("  {name:<12}{}", plain(what));
}
