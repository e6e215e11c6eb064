//! A test OIDC issuer: keys, documents and tokens, for `mayfly dev`, the benchmarks and the tests.
//!
//! It signs whatever it is asked to, so it must never be trusted outside of those.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};
use url::form_urlencoded;

use crate::clock::Clock;

/// The audience of Sigstore's clients.
const DEFAULT_AUDIENCE: &str = "sigstore";
/// How long a token is valid unless said otherwise, in seconds.
const DEFAULT_TTL: i64 = 300;
/// The longest and, negative, the longest past validity that can be asked for, in seconds.
const MAX_TTL: i64 = 86_400;

/// How a test token is signed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TestAlgorithm {
    /// RSA of 2048 bits, PKCS #1 v1.5, SHA-256: what most issuers use.
    #[default]
    Rs256,
    /// ECDSA on P-256.
    Es256,
}

impl TestAlgorithm {
    /// The `alg` of header and key.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    /// The `kid` of header and key.
    #[must_use]
    pub const fn key_id(self) -> &'static str {
        match self {
            Self::Rs256 => "test-rsa",
            Self::Es256 => "test-ec",
        }
    }
}

/// Why there is no test token.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TestIssuerError {
    /// The cryptographic library failed.
    #[error("the test issuer's keys failed")]
    Cryptography,
    /// A parameter of the query is unknown or has a value that is not accepted.
    #[error(
        "the parameter `{0}` is not accepted; use email, sub, preset (github, gitlab, buildkite, codefresh, kubernetes or chainguard), claim.NAME, aud, ttl (seconds), alg (RS256 or ES256)"
    )]
    Parameter(String),
}

/// The keys that test issuers sign with.
#[derive(Debug)]
pub struct TestKeys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    random: SystemRandom,
}

impl TestKeys {
    /// Generates one key of each kind.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate() -> Result<Self, TestIssuerError> {
        let failed = |_| TestIssuerError::Cryptography;
        Ok(Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?,
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?,
            random: SystemRandom::new(),
        })
    }

    /// The public keys as a JWK set (RFC 7517, section 5).
    #[must_use]
    pub fn jwks(&self) -> Value {
        let rsa = self.rsa.public_key();
        let (modulus, exponent) = (rsa.modulus(), rsa.exponent());
        // SEC 1, section 2.3.3: 4, then both coordinates.
        let point = self.ec.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .unwrap_or_default()
            .split_at_checked(32)
            .unwrap_or_default();
        let [rs256, es256] = [TestAlgorithm::Rs256, TestAlgorithm::Es256];
        json!({ "keys": [
            {
                "kty": "RSA", "use": "sig", "alg": rs256.name(), "kid": rs256.key_id(),
                "n": encode(modulus.big_endian_without_leading_zero()),
                "e": encode(exponent.big_endian_without_leading_zero()),
            },
            {
                "kty": "EC", "crv": "P-256", "use": "sig", "alg": es256.name(), "kid": es256.key_id(),
                "x": encode(x), "y": encode(y),
            },
        ] })
    }

    /// Signs header and payload, whatever they are, and returns the token (RFC 7515, section 7.1).
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign(
        &self,
        header: &[u8],
        payload: &[u8],
        algorithm: TestAlgorithm,
    ) -> Result<String, TestIssuerError> {
        let mut token = format!("{}.{}", encode(header), encode(payload));
        let signature = match algorithm {
            TestAlgorithm::Rs256 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let signed = self.rsa.sign(
                    &RSA_PKCS1_SHA256,
                    &self.random,
                    token.as_bytes(),
                    &mut signature,
                );
                signed
                    .map(|()| signature)
                    .map_err(|_| TestIssuerError::Cryptography)?
            }
            TestAlgorithm::Es256 => {
                let signature = self.ec.sign(&self.random, token.as_bytes());
                signature
                    .map_err(|_| TestIssuerError::Cryptography)?
                    .as_ref()
                    .to_vec()
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// The claims of a test token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TestClaims(Map<String, Value>);

impl TestClaims {
    /// The claims of a person whose address is verified.
    #[must_use]
    pub fn email(address: &str) -> Self {
        Self(Map::new())
            .with("sub", address)
            .with("email", address)
            .with("email_verified", true)
    }

    /// The claims of something that has a subject and nothing else.
    #[must_use]
    pub fn subject(subject: &str) -> Self {
        Self(Map::new()).with("sub", subject)
    }

    /// The claims that GitHub Actions gives to a release workflow of `repository`, written `owner/name`.
    #[must_use]
    pub fn github(repository: &str) -> Self {
        let (owner, _) = repository.split_once('/').unwrap_or((repository, ""));
        let workflow = format!("{repository}/.github/workflows/release.yml@refs/heads/main");
        let commit = "5f2b0c0a4b1c5f3a9de1b52d8a8d4b0f6a1c3e7d";
        Self::subject(&format!("repo:{repository}:ref:refs/heads/main"))
            .with("job_workflow_ref", workflow.as_str())
            .with("job_workflow_sha", commit)
            .with("workflow_ref", workflow.as_str())
            .with("workflow_sha", commit)
            .with("workflow", "Release")
            .with("event_name", "push")
            .with("sha", commit)
            .with("ref", "refs/heads/main")
            .with("ref_type", "branch")
            .with("repository", repository)
            .with("repository_id", "74")
            .with("repository_owner", owner)
            .with("repository_owner_id", "7")
            .with("repository_visibility", "public")
            .with("runner_environment", "github-hosted")
            .with("run_id", "1658821493")
            .with("run_attempt", "1")
            .with("actor", "mona")
    }

    /// The claims that GitLab gives to a job on the main branch of `project`, written `group/name`.
    #[must_use]
    pub fn gitlab(project: &str) -> Self {
        let (group, _) = project.rsplit_once('/').unwrap_or((project, ""));
        let config = format!("gitlab.com/{project}//.gitlab-ci.yml@refs/heads/main");
        let commit = "714a629c0b401fdce83e847fc9589983fc6f46bc";
        Self::subject(&format!("project_path:{project}:ref_type:branch:ref:main"))
            .with("project_path", project)
            .with("project_id", "20")
            .with("project_visibility", "public")
            .with("namespace_path", group)
            .with("namespace_id", "72")
            .with("pipeline_id", "574")
            .with("pipeline_source", "push")
            .with("job_id", "302")
            .with("ref", "main")
            .with("ref_type", "branch")
            .with("sha", commit)
            .with("runner_id", 1)
            .with("runner_environment", "gitlab-hosted")
            .with("ci_config_ref_uri", config)
            .with("ci_config_sha", commit)
    }

    /// The claims that Buildkite gives to a job of `organization`'s pipeline.
    #[must_use]
    pub fn buildkite(organization: &str, pipeline: &str) -> Self {
        let subject =
            format!("organization:{organization}:pipeline:{pipeline}:ref:refs/heads/main");
        Self::subject(&subject)
            .with("organization_slug", organization)
            .with("pipeline_slug", pipeline)
            .with("build_number", 1)
            .with("build_commit", "9f3182061f1e2cca4702c368cbc039b7dc9d4485")
            .with("job_id", "0184990a-477b-4fa8-9968-496074483cee")
    }

    /// The claims that Codefresh gives to a workflow of `account`'s pipeline, written `project/name`.
    #[must_use]
    pub fn codefresh(account: &str, pipeline: &str) -> Self {
        Self::subject("account:628a80b693a15c0f9c13ab75:pipeline:65e5a53e52853dc51a5b0cc1")
            .with("account_id", "628a80b693a15c0f9c13ab75")
            .with("account_name", account)
            .with("pipeline_id", "65e5a53e52853dc51a5b0cc1")
            .with("pipeline_name", pipeline)
            .with("workflow_id", "65e5a53e52853dc51a5b0cc2")
            .with("scm_repo_url", "https://github.com/acme/app")
            .with("scm_ref", "main")
            .with("runner_environment", "hybrid")
    }

    /// The claims that a Kubernetes cluster gives to a pod that runs as a service account.
    #[must_use]
    pub fn kubernetes(namespace: &str, account: &str) -> Self {
        let details = json!({
            "namespace": namespace,
            "pod": { "name": "build-7", "uid": "49ad3572-b3dd-43a6-8d77-5858d3660275" },
            "serviceaccount": { "name": account, "uid": "f5720c1d-e152-4356-a897-11b07aff165d" },
        });
        Self::subject(&format!("system:serviceaccount:{namespace}:{account}"))
            .with("kubernetes.io", details)
    }

    /// The claims that Chainguard gives to a service.
    #[must_use]
    pub fn chainguard(identity: &str) -> Self {
        let actor = json!({ "iss": "https://issuer.example/", "sub": "catalog-syncer", "aud": "chainguard" });
        Self::subject(identity)
            .with("act", actor)
            .with("internal", json!({ "service-principal": "CATALOG_SYNCER" }))
    }

    /// The claims that a query names so.
    fn preset(name: &str, repository: &str) -> Option<Self> {
        Some(match name {
            "github" => Self::github(repository),
            "gitlab" => Self::gitlab(repository),
            "buildkite" => Self::buildkite("acme", "app"),
            "codefresh" => Self::codefresh("acme", "app/release"),
            "kubernetes" => Self::kubernetes("default", "builder"),
            "chainguard" => Self::chainguard("720909c9f5279097d847ad02120d2a2b/4c1b5f3a9de1b52d"),
            _ => return None,
        })
    }

    /// Sets a claim.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.shift_remove(name);
        self
    }
}

/// An issuer at one URL.
#[derive(Clone, Debug)]
pub struct TestIssuer {
    url: String,
    keys: Arc<TestKeys>,
    clock: Arc<dyn Clock>,
}

impl TestIssuer {
    /// Returns the issuer at `url`, without a slash at its end.
    #[must_use]
    pub const fn new(url: String, keys: Arc<TestKeys>, clock: Arc<dyn Clock>) -> Self {
        Self { url, keys, clock }
    }

    /// The issuer's URL, its tokens' `iss`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The keys, for tokens that no issuer would sign.
    #[must_use]
    pub fn keys(&self) -> &TestKeys {
        &self.keys
    }

    /// The document at `/.well-known/openid-configuration` below the URL (OpenID Connect Discovery 1.0, section 3).
    #[must_use]
    pub fn discovery_json(&self) -> String {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}/jwks", self.url),
            "id_token_signing_alg_values_supported": [TestAlgorithm::Rs256.name(), TestAlgorithm::Es256.name()],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
        })
        .to_string()
    }

    /// The document at `/jwks` below the URL.
    #[must_use]
    pub fn jwks_json(&self) -> String {
        self.keys.jwks().to_string()
    }

    /// Completes claims with issuer, audience `sigstore` and times, those that are not set, and signs them.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn token(
        &self,
        claims: &TestClaims,
        algorithm: TestAlgorithm,
    ) -> Result<String, TestIssuerError> {
        let payload =
            Value::Object(self.complete(claims, self.clock.now(), DEFAULT_TTL)).to_string();
        let header = json!({ "alg": algorithm.name(), "kid": algorithm.key_id(), "typ": "JWT" });
        self.keys
            .sign(header.to_string().as_bytes(), payload.as_bytes(), algorithm)
    }

    /// The token that a query asks for, such as `email=dev@example.com&ttl=300`.
    ///
    /// `email`, `sub` or `preset`, such as `github`, choose the claims; `claim.NAME` sets one, as text; `aud`, `ttl` (seconds, negative
    /// for a token that has expired) and `alg` have defaults.
    ///
    /// # Errors
    /// When a parameter is unknown or its value is not accepted.
    pub fn token_for_query(&self, query: &str) -> Result<String, TestIssuerError> {
        let mut email = None;
        let mut subject = None;
        let mut preset = None;
        let mut audience = DEFAULT_AUDIENCE.to_owned();
        let mut ttl = DEFAULT_TTL;
        let mut algorithm = TestAlgorithm::default();
        let mut overrides = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let refused = || TestIssuerError::Parameter(name.chars().take(64).collect());
            match (&*name, &*value) {
                ("email", address) => email = Some(address.to_owned()),
                ("sub", text) => subject = Some(text.to_owned()),
                ("preset", name) => preset = Some(name.to_owned()),
                ("aud", text) => audience = text.to_owned(),
                ("ttl", text) => {
                    let seconds = text
                        .parse()
                        .ok()
                        .filter(|ttl| (-MAX_TTL..=MAX_TTL).contains(ttl));
                    ttl = seconds.ok_or_else(refused)?;
                }
                ("alg", "RS256") => algorithm = TestAlgorithm::Rs256,
                ("alg", "ES256") => algorithm = TestAlgorithm::Es256,
                (name, text) => {
                    let claim = name
                        .strip_prefix("claim.")
                        .filter(|claim| !claim.is_empty());
                    overrides.push((claim.ok_or_else(refused)?.to_owned(), text.to_owned()));
                }
            }
        }
        let mut claims = match (&preset, &email, &subject) {
            (Some(name), ..) => {
                let repository = overrides.iter().find(|(claim, _)| claim == "repository");
                let repository = repository.map_or("acme/app", |(_, repository)| repository);
                let unknown = || TestIssuerError::Parameter("preset".to_owned());
                TestClaims::preset(name, repository).ok_or_else(unknown)?
            }
            (None, Some(address), _) => TestClaims::email(address),
            (None, None, Some(subject)) => TestClaims::subject(subject),
            (None, None, None) => TestClaims::email("dev@example.com"),
        };
        claims = claims.with("aud", audience);
        if let Some(subject) = subject {
            claims = claims.with("sub", subject);
        }
        for (claim, value) in overrides {
            claims = claims.with(&claim, value);
        }
        let claims = TestClaims(self.complete(&claims, self.clock.now(), ttl));
        self.token(&claims, algorithm)
    }

    fn complete(&self, claims: &TestClaims, now: OffsetDateTime, ttl: i64) -> Map<String, Value> {
        let now_seconds = now.unix_timestamp();
        let expiry = now.saturating_add(Duration::seconds(ttl)).unix_timestamp();
        let mut complete = claims.0.clone();
        for (name, value) in [
            ("iss", json!(self.url)),
            ("aud", json!(DEFAULT_AUDIENCE)),
            ("iat", json!(now_seconds)),
            ("exp", json!(expiry)),
        ] {
            complete.entry(name).or_insert(value);
        }
        complete
    }
}

fn encode(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FixedClock;

    fn issuer() -> TestIssuer {
        let clock = Arc::new(FixedClock::at("2026-01-02T03:04:05Z"));
        TestIssuer::new(
            "http://issuer.example/dev".to_owned(),
            Arc::new(TestKeys::generate().unwrap()),
            clock,
        )
    }

    fn claims(token: &str) -> Value {
        let payload = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    #[test]
    fn a_query_chooses_the_claims() {
        let issuer = issuer();
        let now = 1_767_323_045;
        let token = issuer
            .token_for_query("email=ada%40example.com&ttl=60&claim.groups=a+b&alg=ES256")
            .unwrap();
        assert_eq!(
            claims(&token),
            json!({
                "sub": "ada@example.com", "email": "ada@example.com", "email_verified": true, "aud": "sigstore",
                "groups": "a b", "iss": "http://issuer.example/dev", "iat": now, "exp": now + 60,
            })
        );
        let token = issuer
            .token_for_query("preset=github&claim.repository=ada/engine&sub=x&aud=y")
            .unwrap();
        let found = claims(&token);
        assert_eq!(
            found["job_workflow_ref"],
            "ada/engine/.github/workflows/release.yml@refs/heads/main"
        );
        assert_eq!(
            (&found["repository_owner"], &found["sub"], &found["aud"]),
            (&json!("ada"), &json!("x"), &json!("y"))
        );
        assert_eq!(
            claims(&issuer.token_for_query("").unwrap())["email"],
            "dev@example.com"
        );
        assert_eq!(
            claims(&issuer.token_for_query("ttl=-1").unwrap())["exp"],
            now - 1
        );
    }

    #[test]
    fn parameters_that_mean_nothing_are_refused() {
        for query in [
            "mail=x",
            "preset=jenkins",
            "ttl=soon",
            "ttl=86401",
            "alg=none",
            "claim.=x",
            "claim=x",
        ] {
            let error = issuer().token_for_query(query).unwrap_err();
            let name = query.split('=').next().unwrap();
            assert_eq!(
                error,
                TestIssuerError::Parameter(name.to_owned()),
                "{query}"
            );
        }
    }
}
