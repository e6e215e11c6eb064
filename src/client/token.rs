//! Where a client has its ID token from: the environment, or the endpoint of the build service that it runs in.
//!
//! The shapes of the endpoints are those of the services' own documentation; what is read is the token and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

/// The variable in which tools hand a token over.
pub const VARIABLE: &str = "SIGSTORE_ID_TOKEN";
/// Where a projected service account token is mounted for signing clients.
const KUBERNETES_FILE: &str = "var/run/sigstore/cosign/oidc-token";
/// What says that this is a machine of Google's.
const PRODUCT_FILE: &str = "sys/class/dmi/id/product_name";
/// The metadata server of Google's machines.
const GOOGLE_HOST: &str = "metadata.google.internal";
/// The API of Buildkite's agents.
const BUILDKITE: &str = "https://agent.buildkite.com/v3";
/// The longest answer of an endpoint that is read, in octets.
const MAX_ANSWER_OCTETS: usize = 256 * 1024;

/// Where a token comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum TokenSource {
    /// The variable `SIGSTORE_ID_TOKEN`.
    Environment,
    /// GitHub Actions and what works like it: a URL and a secret in the environment of a job with `id-token: write`.
    Github,
    /// GitLab CI: `id_tokens` of a job, in the variable `SIGSTORE_ID_TOKEN`.
    Gitlab,
    /// Buildkite: the API of the agent.
    Buildkite,
    /// CircleCI: the command `circleci`.
    Circleci,
    /// Kubernetes: a projected service account token in a file.
    Kubernetes,
    /// Google Cloud: the metadata server.
    Google,
}

impl TokenSource {
    /// In the order in which they are looked for.
    const ALL: [Self; 7] = [
        Self::Environment,
        Self::Github,
        Self::Gitlab,
        Self::Buildkite,
        Self::Circleci,
        Self::Kubernetes,
        Self::Google,
    ];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Environment => "the environment",
            Self::Github => "GitHub Actions",
            Self::Gitlab => "GitLab CI",
            Self::Buildkite => "Buildkite",
            Self::Circleci => "CircleCI",
            Self::Kubernetes => "Kubernetes",
            Self::Google => "Google Cloud",
        }
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nothing around us gives one.
    #[error(
        "no ID token: give --token-file, set {VARIABLE}, or run in a build service that has them (GitHub Actions, GitLab, Buildkite, CircleCI, Kubernetes, Google Cloud)"
    )]
    Nowhere,
    /// The source was found, and lacks something that its user must set.
    #[error("{}: {what}", from.name())]
    NotSetUp {
        /// Which.
        from: TokenSource,
        /// What to do.
        what: String,
    },
    /// The source could not be asked, or gave none.
    #[error("{}: no ID token: {what}", from.name())]
    Failed {
        /// Which.
        from: TokenSource,
        /// What came of it.
        what: String,
    },
}

/// What a process sees around itself.
pub struct Surroundings<'a> {
    /// Its environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The root of its file system.
    pub root: PathBuf,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

impl Surroundings<'_> {
    /// The first source that is there.
    ///
    /// # Errors
    /// [`TokenError::Nowhere`].
    pub fn detect(&self) -> Result<TokenSource, TokenError> {
        let mut sources = TokenSource::ALL.into_iter();
        sources
            .find(|source| self.has(*source))
            .ok_or(TokenError::Nowhere)
    }

    fn has(&self, source: TokenSource) -> bool {
        match source {
            TokenSource::Environment => self.set(VARIABLE).is_some(),
            TokenSource::Github => {
                self.set("ACTIONS_ID_TOKEN_REQUEST_URL").is_some()
                    || self.set("GITHUB_ACTIONS").is_some()
            }
            TokenSource::Gitlab => self.set("GITLAB_CI").is_some(),
            TokenSource::Buildkite => self.set("BUILDKITE").is_some(),
            TokenSource::Circleci => self.set("CIRCLECI").is_some(),
            TokenSource::Kubernetes => self.file(KUBERNETES_FILE).exists(),
            TokenSource::Google => {
                let product = std::fs::read_to_string(self.file(PRODUCT_FILE));
                self.set("GCE_METADATA_HOST").is_some()
                    || product.is_ok_and(|name| name.starts_with("Google"))
            }
        }
    }

    /// Gets a token for this audience.
    ///
    /// # Errors
    /// When the source has none, or is not set up for it.
    pub async fn token(
        &self,
        source: TokenSource,
        audience: &str,
        http: &Client,
    ) -> Result<Zeroizing<String>, TokenError> {
        let token = match source {
            TokenSource::Environment => self.needed(source, VARIABLE, "set it to a token"),
            TokenSource::Github => self.github(audience, http).await,
            TokenSource::Gitlab => {
                let remedy =
                    format!("give the job `id_tokens: {{ {VARIABLE}: {{ aud: {audience} }} }}`");
                self.needed(source, VARIABLE, &remedy)
            }
            TokenSource::Buildkite => self.buildkite(audience, http).await,
            TokenSource::Circleci => circleci(audience),
            TokenSource::Kubernetes => {
                let path = self.file(KUBERNETES_FILE);
                std::fs::read_to_string(&path)
                    .map_err(|error| failed(source, format!("{}: {error}", path.display())))
            }
            TokenSource::Google => self.google(audience, http).await,
        };
        let token = Zeroizing::new(token?);
        let token = Zeroizing::new(token.trim().to_owned());
        if token.is_empty() {
            return Err(failed(source, "it is empty"));
        }
        Ok(token)
    }

    async fn github(&self, audience: &str, http: &Client) -> Result<String, TokenError> {
        let source = TokenSource::Github;
        let remedy = "give the job `permissions: { id-token: write }`";
        let url = self.needed(source, "ACTIONS_ID_TOKEN_REQUEST_URL", remedy)?;
        let secret = self.needed(source, "ACTIONS_ID_TOKEN_REQUEST_TOKEN", remedy)?;
        let url = url_with(source, &url, &[("audience", audience)])?;
        let answer = ask(source, http.get(url).bearer_auth(secret)).await?;
        member(source, &answer, "value")
    }

    async fn buildkite(&self, audience: &str, http: &Client) -> Result<String, TokenError> {
        let source = TokenSource::Buildkite;
        let remedy = "run this inside the job, not in a container without the agent's variables";
        let secret = self.needed(source, "BUILDKITE_AGENT_ACCESS_TOKEN", remedy)?;
        let job = self.needed(source, "BUILDKITE_JOB_ID", remedy)?;
        let endpoint = self.set("BUILDKITE_AGENT_ENDPOINT");
        let endpoint = endpoint.unwrap_or_else(|| BUILDKITE.to_owned());
        let url = format!("{}/jobs/{job}/oidc/tokens", endpoint.trim_end_matches('/'));
        let request = http
            .post(url)
            .header("Authorization", format!("Token {secret}"))
            .header("Content-Type", "application/json")
            .body(json!({ "audience": audience }).to_string());
        let answer = ask(source, request).await?;
        member(source, &answer, "token")
    }

    async fn google(&self, audience: &str, http: &Client) -> Result<String, TokenError> {
        let host = self.set("GCE_METADATA_HOST");
        let host = host.unwrap_or_else(|| GOOGLE_HOST.to_owned());
        let url =
            format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/identity");
        let query = [("audience", audience), ("format", "full")];
        let url = url_with(TokenSource::Google, &url, &query)?;
        let request = http.get(url).header("Metadata-Flavor", "Google");
        ask(TokenSource::Google, request).await
    }

    fn set(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn needed(&self, source: TokenSource, name: &str, remedy: &str) -> Result<String, TokenError> {
        self.set(name).ok_or_else(|| TokenError::NotSetUp {
            from: source,
            what: format!("{name} is not set; {remedy}"),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.root).join(name)
    }
}

/// The command that is there in every job of CircleCI.
fn circleci(audience: &str) -> Result<String, TokenError> {
    let source = TokenSource::Circleci;
    let claims = json!({ "aud": audience }).to_string();
    let output = Command::new("circleci")
        .args(["run", "oidc", "get", "--claims", &claims])
        .output()
        .map_err(|error| failed(source, format!("the command `circleci`: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let what = format!("`circleci run oidc get` failed: {}", said.trim());
    Err(failed(source, what))
}

fn url_with(source: TokenSource, url: &str, query: &[(&str, &str)]) -> Result<Url, TokenError> {
    let url = Url::parse_with_params(url, query);
    url.map_err(|error| failed(source, format!("the URL of its endpoint: {error}")))
}

/// Asks an endpoint. Its complaint is shown, its answer never: that is a secret.
async fn ask(source: TokenSource, request: RequestBuilder) -> Result<String, TokenError> {
    let unreachable = |error: reqwest::Error| failed(source, innermost(&error.without_url()));
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_ANSWER_OCTETS {
            return Err(failed(source, "the answer is too long"));
        }
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    if !status.is_success() {
        let text: String = text.chars().take(200).collect();
        return Err(failed(source, format!("{status}: {}", text.trim())));
    }
    Ok(text)
}

fn member(source: TokenSource, answer: &str, name: &str) -> Result<String, TokenError> {
    let document: Option<Value> = serde_json::from_str(answer).ok();
    let member = document.as_ref().and_then(|answer| answer.get(name));
    let token = member.and_then(Value::as_str).map(str::to_owned);
    token.ok_or_else(|| failed(source, format!("the answer has no member {name:?}")))
}

fn failed(source: TokenSource, what: impl Into<String>) -> TokenError {
    let what = what.into();
    TokenError::Failed { from: source, what }
}

/// Where an error began: of all that its chain says, that is what helps.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn detected(variables: &[(&str, &str)], root: &Path) -> Option<TokenSource> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let surroundings = Surroundings {
            variable: &variable,
            root: root.to_owned(),
        };
        surroundings.detect().ok()
    }

    #[test]
    fn a_build_service_is_known_by_what_it_sets() {
        let root = tempfile::tempdir().unwrap();
        let of = |variables: &[(&str, &str)]| detected(variables, root.path());
        assert_eq!(of(&[]), None);
        // A variable that is set to nothing is none.
        assert_eq!(of(&[("SIGSTORE_ID_TOKEN", "")]), None);
        for (name, source) in [
            ("SIGSTORE_ID_TOKEN", TokenSource::Environment),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", TokenSource::Github),
            ("GITHUB_ACTIONS", TokenSource::Github),
            ("GITLAB_CI", TokenSource::Gitlab),
            ("BUILDKITE", TokenSource::Buildkite),
            ("CIRCLECI", TokenSource::Circleci),
            ("GCE_METADATA_HOST", TokenSource::Google),
        ] {
            assert_eq!(of(&[(name, "x")]), Some(source), "{name}");
        }
        // A token that was handed over is the one that is meant.
        let both = [("GITLAB_CI", "true"), ("SIGSTORE_ID_TOKEN", "x")];
        assert_eq!(of(&both), Some(TokenSource::Environment));
    }

    #[tokio::test]
    async fn files_tell_of_clusters_and_of_machines() {
        // Every client of the process uses the one provider; another test may have installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(PRODUCT_FILE, "Google Compute Engine\n");
        assert_eq!(detected(&[], root.path()), Some(TokenSource::Google));
        write(KUBERNETES_FILE, "a.b.c\n");
        assert_eq!(detected(&[], root.path()), Some(TokenSource::Kubernetes));
        let surroundings = Surroundings {
            variable: &|_| None,
            root: root.path().to_owned(),
        };
        let http = Client::new();
        let token = surroundings.token(TokenSource::Kubernetes, "sigstore", &http);
        assert_eq!(*token.await.unwrap(), "a.b.c");
    }

    #[tokio::test]
    async fn what_a_build_service_lacks_is_said_with_its_remedy() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let surroundings = Surroundings {
            variable: &|_| None,
            root: "/nowhere".into(),
        };
        let http = Client::new();
        for (source, remedy) in [
            (TokenSource::Github, "id-token: write"),
            (
                TokenSource::Gitlab,
                "id_tokens: { SIGSTORE_ID_TOKEN: { aud: sigstore } }",
            ),
            (
                TokenSource::Buildkite,
                "BUILDKITE_AGENT_ACCESS_TOKEN is not set",
            ),
            (
                TokenSource::Kubernetes,
                "/nowhere/var/run/sigstore/cosign/oidc-token",
            ),
        ] {
            let error = surroundings.token(source, "sigstore", &http).await;
            let error = error.unwrap_err().to_string();
            assert!(
                error.starts_with(source.name()) && error.contains(remedy),
                "{error}"
            );
        }
    }
}
