//! Tokens, and the documents that say how they are verified.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use mayfly::ca::extensions;
use mayfly::clock::{Clock, FixedClock};
use mayfly::dev::oidc::{TestAlgorithm, TestKeys};
use mayfly::fetch::{AddressPolicy, FetchError, FetchRequest, Fetcher};
use mayfly::identity::error::TokenError;
use mayfly::identity::issuers::Pattern;
use mayfly::identity::jwks::KeySourceLimits;
use mayfly::identity::jws::{Algorithm, UnverifiedToken};
use mayfly::identity::{Identity, Issuers, KeySource, San, TokenVerifier};
use mayfly::metrics::Metrics;
use num_bigint::BigUint;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use url::Url;

use super::check_message;

/// A token in compact form: what is accepted has one spelling, and says the same to a second parser.
pub fn jws_parse(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else {
        return false;
    };
    let token = match UnverifiedToken::parse(text) {
        Ok(token) => token,
        Err(error) => {
            check_message(&error);
            return false;
        }
    };
    let parts: Vec<&str> = text.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("{} parts", parts.len());
    };
    assert_eq!(signature, URL_SAFE_NO_PAD.encode(&token.signature));
    assert_eq!(token.signing_input, format!("{header}.{claims}").as_bytes());
    let json = |part: &str| {
        let octets = URL_SAFE_NO_PAD.decode(part).unwrap();
        assert_eq!(part, URL_SAFE_NO_PAD.encode(&octets));
        check_names(&octets);
        serde_json::from_slice::<Value>(&octets).unwrap()
    };
    let header = json(header);
    assert_eq!(header["alg"], token.algorithm.name());
    let key_id = header["kid"].as_str().filter(|key_id| !key_id.is_empty());
    assert_eq!(key_id, token.key_id.as_deref());
    let claims = json(claims);
    assert_eq!(claims, Value::Object(token.claims.clone()));
    match token.issuer() {
        Ok(issuer) => assert_eq!(claims["iss"], issuer),
        Err(error) => check_message(&error),
    }
    true
}

/// The claims of a token with a good signature: the identity they prove is fit for a certificate, and is what a second
/// parser reads in them.
pub fn jwt_claims(input: &[u8]) -> bool {
    let token = WORLD.sign(input);
    let identity = match WORLD.verify(&WORLD.key_source(Network::honest()), &token) {
        Ok(identity) => identity,
        Err(error) => {
            check_message(&error);
            return false;
        }
    };
    check_names(input);
    let claims: Value = serde_json::from_slice(input).unwrap();
    let now = WORLD.clock.now().unix_timestamp() as f64;
    assert!(claims["exp"].as_f64().unwrap() >= now);
    let nbf = claims.get("nbf").map(|nbf| nbf.as_f64().unwrap());
    assert!(nbf.is_none_or(|nbf| nbf <= now + 301.0));
    let audience = &claims["aud"];
    let audiences = audience.as_array().map_or_else(
        || vec![audience],
        |list| {
            assert!(list.iter().all(Value::is_string));
            list.iter().collect()
        },
    );
    assert!(audiences.contains(&&json!("sigstore")));
    assert_eq!(claims["sub"], identity.subject);
    assert_eq!(claims[identity.challenge_claim], identity.challenge);
    if identity.issuer_type == "email" {
        assert_eq!(
            identity.san,
            San::Email(claims["email"].as_str().unwrap().to_owned())
        );
    }
    check_identity(&identity);
    true
}

/// Asserts what certificates need of an identity.
fn check_identity(identity: &Identity) {
    let texts = [&identity.issuer, &identity.subject, &identity.challenge];
    for text in texts {
        assert!(!text.is_empty() && text.len() <= 2048, "{identity:?}");
        assert!(!text.chars().any(char::is_control), "{identity:?}");
    }
    match &identity.san {
        San::Email(address) => {
            let (local, domain) = address.split_once('@').unwrap();
            assert!(!local.is_empty() && domain.contains('.') && !domain.contains('@'));
            assert!(address.bytes().all(|octet| octet.is_ascii_graphic()));
        }
        San::Uri(uri) => {
            let url = Url::parse(uri).unwrap();
            let expected = match identity.issuer_type {
                "uri" => ("https", Some("issuer.example")),
                "spiffe" => ("spiffe", Some("issuer.example")),
                "kubernetes" => ("https", Some("kubernetes.io")),
                "chainguard-identity" => ("https", Some("chainguard.example")),
                "buildkite-job" => ("https", Some("buildkite.com")),
                "github-workflow" => ("https", Some("github.com")),
                // Hosts that the token names: a GitLab, a Codefresh.
                _ => ("https", url.host_str().filter(|host| !host.is_empty())),
            };
            assert_eq!((url.scheme(), url.host_str()), expected);
            assert_eq!((url.username(), url.password()), ("", None));
            assert!(uri.bytes().all(|octet| octet.is_ascii_graphic()), "{uri}");
        }
        San::OtherName(name) => {
            let (user, domain) = name.split_once('!').unwrap();
            assert_eq!(
                (user, domain),
                (identity.subject.as_str(), "issuer.example")
            );
        }
    }
    extensions::encode(identity).unwrap();
    extensions::subject_alternative_name(&identity.san).unwrap();
}

/// A discovery document, after one octet that says which kind of issuer it is of: whatever it says, keys are fetched from
/// where such an issuer may have them.
pub fn discovery(input: &[u8]) -> bool {
    let Some((&kind, document)) = input.split_first() else {
        return false;
    };
    let issuer = ISSUERS[usize::from(kind) % ISSUERS.len()];
    let document = document.to_vec();
    let network = Network::new(move |url| {
        if is_discovery(url) {
            document.clone()
        } else {
            WORLD.keys.jwks().to_string().into_bytes()
        }
    });
    let keys = WORLD.key_source(Arc::clone(&network));
    let token = WORLD.sign(good_claims(issuer).to_string().as_bytes());
    let verified = WORLD.verify(&keys, &token);
    if let Err(error) = &verified {
        check_message(error);
    }

    let requests = network.requests();
    let is_exact = !issuer.contains("tenant");
    for request in &requests {
        assert_eq!(request.allow_http, issuer.starts_with("http://"));
        let is_for_exact = request.addresses == AddressPolicy::Exact;
        assert_eq!(is_for_exact, is_exact);
    }
    let [first, rest @ ..] = &requests[..] else {
        panic!("no discovery document was asked for");
    };
    assert_eq!(
        first.url.as_str(),
        format!("{issuer}/.well-known/openid-configuration")
    );
    let [keys_request] = rest else {
        assert!(rest.is_empty() && verified.is_err());
        return false;
    };
    check_names(&input[1..]);
    let document: Value = serde_json::from_slice(&input[1..]).unwrap();
    assert_eq!(document["issuer"], issuer);
    let location = &keys_request.url;
    assert!(location.scheme() == "https" || issuer.starts_with("http://"));
    assert!(is_exact || location.origin() == Url::parse(issuer).unwrap().origin());
    let is_signed_with = |name| {
        let listed = document["id_token_signing_alg_values_supported"].as_array();
        listed.is_some_and(|listed| listed.contains(&json!(name)))
    };
    assert_eq!(verified.is_ok(), is_signed_with("ES256"));
    true
}

/// A key set: the keys that are kept are those that a second judge finds good.
pub fn jwks(input: &[u8]) -> bool {
    let document = input.to_vec();
    let network = Network::new(move |url| {
        if is_discovery(url) {
            discovery_of(url)
        } else {
            document.clone()
        }
    });
    let keys = WORLD.key_source(network);
    let token = WORLD.sign(good_claims(ISSUERS[0]).to_string().as_bytes());
    let verified = WORLD.verify(&keys, &token);
    if let Err(error) = &verified {
        check_message(error);
    }
    let status = &keys.status()[0];
    let Some(listed) = usable_document(input) else {
        assert!(!status.is_up, "{status:?}");
        return false;
    };
    let good = listed.iter().filter(|jwk| is_good_key(jwk)).count();
    assert!(status.is_up, "{status:?}");
    assert_eq!(status.keys, good.min(100));
    good > 0
}

/// The keys of a set that is well-formed and public.
fn usable_document(input: &[u8]) -> Option<Vec<Value>> {
    let document: Map<String, Value> = serde_json::from_slice(input).ok()?;
    let (depth, is_unique) = shape(input)?;
    let listed = document.get("keys")?.as_array()?;
    let is_private = |jwk: &Value| {
        ["d", "p", "q", "dp", "dq", "qi", "oth"]
            .iter()
            .any(|member| jwk.get(member).is_some())
    };
    (depth <= 32 && is_unique && !listed.iter().any(is_private)).then(|| listed.clone())
}

/// Whether a key may verify tokens, by other libraries than the one that will.
fn is_good_key(jwk: &Value) -> bool {
    let is_absent_or = |member: &str, is_good: &dyn Fn(&Value) -> bool| {
        jwk.get(member)
            .is_none_or(|value| value.is_null() || is_good(value))
    };
    let is_known = |name: &Value| {
        name.as_str()
            .is_some_and(|name| Algorithm::named(name).is_some())
    };
    let number = |member: &str| {
        let text = jwk[member].as_str()?.trim_end_matches('=');
        URL_SAFE_NO_PAD.decode(text).ok()
    };
    let is_well_formed = serde_json::from_value::<jsonwebtoken::jwk::Jwk>(jwk.clone()).is_ok();
    if !is_well_formed
        || !is_absent_or("alg", &is_known)
        || !is_absent_or("use", &|usage| usage == "sig")
        || !is_absent_or("key_ops", &|operations| {
            operations
                .as_array()
                .is_some_and(|list| list.contains(&json!("verify")))
        })
    {
        return false;
    }
    let point = |width: usize| {
        let pad = |octets: Vec<u8>| {
            let missing = width.checked_sub(octets.len())?;
            Some([vec![0; missing], octets].concat())
        };
        let (x, y) = (pad(number("x")?)?, pad(number("y")?)?);
        Some([vec![4], x, y].concat())
    };
    let good = match (jwk["kty"].as_str(), jwk["crv"].as_str()) {
        (Some("RSA"), _) => number("n").zip(number("e")).map(|(modulus, exponent)| {
            let (modulus, exponent) = (
                BigUint::from_bytes_be(&modulus),
                BigUint::from_bytes_be(&exponent),
            );
            modulus.bit(0)
                && exponent.bit(0)
                && (2048..=8192).contains(&modulus.bits())
                && (2..=32).contains(&exponent.bits())
        }),
        (Some("EC"), Some("P-256")) => {
            point(32).map(|point| p256::PublicKey::from_sec1_bytes(&point).is_ok())
        }
        (Some("EC"), Some("P-384")) => {
            point(48).map(|point| p384::PublicKey::from_sec1_bytes(&point).is_ok())
        }
        (Some("EC"), Some("P-521")) => {
            point(66).map(|point| p521::PublicKey::from_sec1_bytes(&point).is_ok())
        }
        (Some("OKP"), Some("Ed25519")) => number("x").map(|point| is_good_ed25519(&point)),
        _ => None,
    };
    good.unwrap_or(false)
}

/// Whether the octets are a number below the prime of the field, and not a point of small order.
///
/// They need not be a point at all: with no such key a signature verifies, as the target `proof` asserts.
pub(crate) fn is_good_ed25519(point: &[u8]) -> bool {
    let Ok(point) = <[u8; 32]>::try_from(point) else {
        return false;
    };
    let mut y = point;
    y[31] &= 0x7f;
    let is_canonical = BigUint::from_bytes_le(&y) < (BigUint::from(1_u8) << 255) - 19_u8;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&point);
    is_canonical && !key.is_ok_and(|key| key.is_weak())
}

/// Two patterns and an issuer, a line each: a pattern matches what a naive matcher finds, and never another domain.
pub fn issuer_match(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else {
        return false;
    };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (first, second, issuer) = (line(), line(), line());
    if input.len() > 2048 {
        return false;
    }
    let Ok(pattern) = Pattern::parse(first) else {
        return false;
    };
    assert_eq!(pattern.to_string(), first);
    assert!(pattern.overlaps(&pattern));
    let matches = pattern.matches(issuer);
    assert_eq!(matches, naive_match(first.as_bytes(), issuer.as_bytes()));
    if let (true, Ok(url)) = (matches, Url::parse(issuer)) {
        assert_eq!(url.scheme(), "https");
        let host = first["https://".len()..].split(['/', ':']).next().unwrap();
        let domain: Vec<&str> = host.rsplitn(3, '.').take(2).collect();
        let domain = format!("{}.{}", domain[1], domain[0]).to_ascii_lowercase();
        let found = url.host_str().unwrap();
        // An address has other spellings; a name has one.
        if url.domain().is_some() && domain.is_ascii() && !domain.contains("xn--") {
            assert!(
                found == domain || found.ends_with(&format!(".{domain}")),
                "{first} matches {issuer} on {found}"
            );
        }
    }
    if let Ok(other) = Pattern::parse(second) {
        assert_eq!(pattern.overlaps(&other), other.overlaps(&pattern));
        if matches && other.matches(issuer) {
            assert!(pattern.overlaps(&other));
        }
    }
    matches
}

/// Tries every length for every star.
fn naive_match(pattern: &[u8], text: &[u8]) -> bool {
    // Which suffixes of `text` the rest of the pattern matches, from its end backwards.
    let mut matched = vec![false; text.len() + 1];
    matched[text.len()] = true;
    for &wanted in pattern.iter().rev() {
        let mut before = vec![false; text.len() + 1];
        for start in 0..text.len() {
            before[start] = if wanted == b'*' {
                let is_inside =
                    |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
                let reach = text[start..]
                    .iter()
                    .take(128)
                    .take_while(|octet| is_inside(octet))
                    .count();
                (1..=reach).any(|length| matched[start + length])
            } else {
                text[start] == wanted && matched[start + 1]
            };
        }
        matched = before;
    }
    matched[0]
}

/// The issuers of the tests: one that is written out, one on http, one that a pattern stands for.
const ISSUERS: [&str; 3] = [
    "https://issuer.example",
    "http://issuer.internal",
    "https://tenant.issuers.example/one",
];

const IDENTITY_FILE: &str = r#"
oidc-issuers:
  https://issuer.example: { issuer-url: https://issuer.example, client-id: sigstore, type: email }
  http://issuer.internal: { issuer-url: http://issuer.internal, client-id: sigstore, type: email, issuer-claim: $.federated_claims.connector_id, skip-email-verification: true }
  https://uri.issuer.example: { issuer-url: https://uri.issuer.example, client-id: sigstore, type: uri, subject-domain: https://issuer.example }
  https://build.example: { issuer-url: https://build.example, client-id: sigstore, type: github-workflow }
  https://user.issuer.example: { issuer-url: https://user.issuer.example, client-id: sigstore, type: username, subject-domain: issuer.example }
  https://spiffe.example: { issuer-url: https://spiffe.example, client-id: sigstore, type: spiffe, spiffe-trust-domain: issuer.example }
  https://cluster.example: { issuer-url: https://cluster.example, client-id: sigstore, type: kubernetes }
  https://chainguard.example: { issuer-url: https://chainguard.example, client-id: sigstore, type: chainguard-identity }
  https://gitlab.example: { issuer-url: https://gitlab.example, client-id: sigstore, type: gitlab-pipeline }
  https://buildkite.example: { issuer-url: https://buildkite.example, client-id: sigstore, type: buildkite-job }
  https://codefresh.example: { issuer-url: https://codefresh.example, client-id: sigstore, type: codefresh-workflow }
meta-issuers:
  https://*.issuers.example/*: { client-id: sigstore, type: email }
"#;

/// What verifies tokens, but for the documents of issuers.
struct World {
    runtime: tokio::runtime::Runtime,
    clock: Arc<FixedClock>,
    issuers: Arc<ArcSwap<Issuers>>,
    keys: TestKeys,
}

static WORLD: LazyLock<World> = LazyLock::new(|| World {
    runtime: tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap(),
    clock: Arc::new(FixedClock::at("2026-01-02T03:04:05Z")),
    issuers: {
        let (issuers, _) = Issuers::parse("identity.yaml", IDENTITY_FILE).unwrap();
        Arc::new(ArcSwap::from_pointee(issuers))
    },
    keys: TestKeys::generate().unwrap(),
});

impl World {
    fn sign(&self, payload: &[u8]) -> String {
        let header = json!({ "alg": "ES256", "kid": TestAlgorithm::Es256.key_id() });
        self.keys
            .sign(header.to_string().as_bytes(), payload, TestAlgorithm::Es256)
            .unwrap()
    }

    fn key_source(&self, network: Arc<Network>) -> Arc<KeySource> {
        Arc::new(KeySource::new(
            network,
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            self.runtime.handle().clone(),
            KeySourceLimits {
                wait: std::time::Duration::from_secs(30),
                fetch: std::time::Duration::from_secs(30),
                ..KeySourceLimits::default()
            },
            Arc::new(Metrics::new().unwrap()),
        ))
    }

    fn verify(&self, keys: &Arc<KeySource>, token: &str) -> Result<Identity, TokenError> {
        let verifier = TokenVerifier::new(Arc::clone(&self.issuers), Arc::clone(keys));
        self.runtime
            .block_on(verifier.verify(token, self.clock.now()))
            .map_err(|refused| refused.error)
    }
}

fn good_claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "aud": "sigstore", "sub": "ada", "exp": 1_767_323_345,
        "email": "ada@example.com", "email_verified": true,
        "federated_claims": { "connector_id": "https://accounts.example" },
    })
}

fn is_discovery(url: &Url) -> bool {
    url.path().ends_with("/.well-known/openid-configuration")
}

/// An honest discovery document for the issuer that is asked.
fn discovery_of(url: &Url) -> Vec<u8> {
    let issuer = url
        .as_str()
        .trim_end_matches("/.well-known/openid-configuration");
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "id_token_signing_alg_values_supported": ["ES256"],
    })
    .to_string()
    .into_bytes()
}

/// Answers every fetch at once, and remembers it.
struct Network {
    answer: Box<Answer>,
    requests: Mutex<Vec<FetchRequest>>,
}

type Answer = dyn Fn(&Url) -> Vec<u8> + Send + Sync;

impl Network {
    fn new(answer: impl Fn(&Url) -> Vec<u8> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
            requests: Mutex::default(),
        })
    }

    /// Every issuer has the keys of the tests.
    fn honest() -> Arc<Self> {
        Self::new(|url| {
            if is_discovery(url) {
                discovery_of(url)
            } else {
                WORLD.keys.jwks().to_string().into_bytes()
            }
        })
    }

    fn requests(&self) -> Vec<FetchRequest> {
        self.requests.lock().unwrap().clone()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Fetcher for Network {
    fn get(&self, request: FetchRequest) -> BoxFuture<'static, Result<Vec<u8>, FetchError>> {
        let answer = (self.answer)(&request.url);
        self.requests.lock().unwrap().push(request);
        ready(Ok(answer)).boxed()
    }
}

/// Asserts that an accepted object has no member twice, at any depth.
fn check_names(object: &[u8]) {
    assert_eq!(shape(object).map(|(_, is_unique)| is_unique), Some(true));
}

/// How deep a JSON text is nested, and whether the names in each of its objects are unique; nothing when it is not JSON.
fn shape(json: &[u8]) -> Option<(usize, bool)> {
    let raw: &RawValue = serde_json::from_slice(json).ok()?;
    Some(shape_of(raw))
}

fn shape_of(raw: &RawValue) -> (usize, bool) {
    let (values, is_unique): (Vec<Box<RawValue>>, bool) = match raw.get().as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(raw.get()).unwrap();
            let names: HashSet<&String> = members.iter().map(|(name, _)| name).collect();
            let is_unique = names.len() == members.len();
            let values = members.into_iter().map(|(_, value)| value).collect();
            (values, is_unique)
        }
        Some(b'[') => (serde_json::from_str(raw.get()).unwrap(), true),
        _ => return (0, true),
    };
    values
        .iter()
        .map(|value| shape_of(value))
        .fold((1, is_unique), |(depth, all), (below, unique)| {
            (depth.max(below + 1), all && unique)
        })
}

/// The members of an object, each as often as it is there.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}
