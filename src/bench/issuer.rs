//! The issuer of the benchmark's tokens, with a listener from which a server fetches its keys.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::clock::Clock;
use crate::dev::oidc::{TestAlgorithm, TestIssuer, TestIssuerError, TestKeys};
use crate::random::Random;

/// How long a token is valid: longer than any run.
const VALIDITY: Duration = Duration::hours(12);

/// An issuer of RS256 tokens, each for another person.
#[derive(Debug)]
pub struct BenchIssuer {
    issuer: TestIssuer,
    key_id: String,
    clock: Arc<dyn Clock>,
}

impl BenchIssuer {
    /// Makes keys for the issuer at `http://{address}`.
    ///
    /// The key's name is drawn, so that a server that knows the issuer from an earlier run fetches its keys again.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn new(
        address: SocketAddr,
        clock: &Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, TestIssuerError> {
        let keys = Arc::new(TestKeys::generate()?);
        let mut drawn = [0; 9];
        random
            .fill(&mut drawn)
            .map_err(|_| TestIssuerError::Cryptography)?;
        Ok(Self {
            issuer: TestIssuer::new(format!("http://{address}"), keys, Arc::clone(clock)),
            key_id: URL_SAFE_NO_PAD.encode(drawn),
            clock: Arc::clone(clock),
        })
    }

    /// The `iss` of its tokens.
    #[must_use]
    pub fn url(&self) -> &str {
        self.issuer.url()
    }

    /// An identity file that trusts this issuer and no other.
    #[must_use]
    pub fn identity_file(&self) -> String {
        let url = self.url();
        format!(
            "# The issuer of `mayfly bench load`. It gives a token to anyone: never trust it elsewhere.\noidc-issuers:\n  \
             {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"
        )
    }

    /// A token for `email`, unlike any other by its `jti`.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn token(&self, email: &str, id: &str) -> Result<String, TestIssuerError> {
        let now = self.clock.now();
        let header =
            json!({ "alg": TestAlgorithm::Rs256.name(), "kid": self.key_id, "typ": "JWT" });
        let claims = json!({
            "iss": self.url(),
            "sub": id,
            "aud": "sigstore",
            "iat": now.unix_timestamp(),
            "exp": now.saturating_add(VALIDITY).unix_timestamp(),
            "jti": id,
            "email": email,
            "email_verified": true,
        });
        self.issuer.keys().sign(
            header.to_string().as_bytes(),
            claims.to_string().as_bytes(),
            TestAlgorithm::Rs256,
        )
    }

    /// The discovery document of the issuer at a path below the URL, which has the same keys.
    fn discovery(&self, path: &str) -> String {
        let url = self.url();
        json!({ "issuer": format!("{url}{path}"), "jwks_uri": format!("{url}/jwks") }).to_string()
    }

    /// The key set, with the drawn name on the one key that signs.
    fn jwks(&self) -> Value {
        let mut jwks = self.issuer.keys().jwks();
        let keys = jwks.get_mut("keys").and_then(Value::as_array_mut);
        for key in keys.into_iter().flatten() {
            if key.get("alg").and_then(Value::as_str) == Some(TestAlgorithm::Rs256.name())
                && let Some(key) = key.as_object_mut()
            {
                key.insert("kid".to_owned(), self.key_id.clone().into());
            }
        }
        jwks
    }

    /// Answers on `listener` until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let issuer = Arc::clone(&self);
            tokio::spawn(async move {
                // A reader that went away gets no keys; it will say so.
                let _ = issuer.answer(stream).await;
            });
        }
    }

    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::with_capacity(1024);
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            if request.len() > 16 << 10 || stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let path = request
            .split(|&byte| byte == b' ')
            .nth(1)
            .unwrap_or_default();
        let path = std::str::from_utf8(path).unwrap_or_default();
        let (status, body) = match path.strip_suffix("/.well-known/openid-configuration") {
            Some(below) => ("200 OK", self.discovery(below)),
            None if path == "/jwks" => ("200 OK", self.jwks().to_string()),
            None => ("404 Not Found", String::new()),
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }
}
