//! Tokens that lie about their signature, their form, their issuer, their time or their bearer.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use mayfly::clock::Clock;
use mayfly::dev::oidc::TestKeys;
use p384::ecdsa::signature::Signer as _;
use serde_json::{Value, json};

use crate::support::http::{Answer, Request};
use crate::support::issuer::{HostileIssuer, claims_from, signed_by, with_token};
use crate::support::key::TestKey;
use crate::support::server::{EMAIL, TestServer, V2, test_keys};

const EVE: &str = "eve@example.com";
const MALFORMED: &[&str] = &["malformed_token"];
const BAD_SIGNATURE: &[&str] = &["bad_token_signature"];

/// The header of a good token.
fn header() -> Value {
    json!({ "alg": "ES256", "kid": "test-ec" })
}

/// The claims of a good token.
fn claims(server: &TestServer) -> Value {
    claims_from(server.issuers.email().unwrap().url())
}

fn with(object: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut object = object.clone();
    object[name] = value.into();
    object
}

fn without(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().shift_remove(name);
    object
}

/// A request whose token has these claims, well signed.
fn claiming(claims: &Value) -> Request {
    with_token(&signed_by(test_keys(), &header(), claims))
}

/// A request whose token has this payload, well signed.
fn paying_in(payload: impl AsRef<[u8]>) -> Request {
    let token = test_keys().sign(
        header().to_string().as_bytes(),
        payload.as_ref(),
        mayfly::dev::oidc::TestAlgorithm::Es256,
    );
    with_token(&token.unwrap())
}

fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// The three parts of a good token.
fn parts(server: &TestServer) -> [String; 3] {
    let token = signed_by(test_keys(), &header(), &claims(server));
    let parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

/// The leaf certificate of an answer, DER.
fn leaf(answer: &Answer) -> Vec<u8> {
    let json = answer.json();
    let leaf = &json["signedCertificateEmbeddedSct"]["chain"]["certificates"][0];
    pem::parse(leaf.as_str().unwrap()).unwrap().into_contents()
}

fn contains(octets: &[u8], text: &str) -> bool {
    octets
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn tokens_that_nobody_signed_are_refused() {
    let server = TestServer::start();
    let claims = claims(&server).to_string();
    let [_, _, signature] = parts(&server);
    for alg in ["none", "None", "NONE", "nOnE"] {
        let head = encode(json!({ "alg": alg }).to_string());
        for signature in ["", &signature] {
            let token = format!("{head}.{}.{signature}", encode(&claims));
            server.refuses(alg, &with_token(&token), &["unsupported_alg"]);
        }
    }
}

/// A DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &length[..], content].concat()
}

#[test]
fn public_keys_are_no_secrets() {
    let issuer = HostileIssuer::start();
    let rsa = test_keys().jwks()["keys"][0].clone();
    let secret = json!({ "kty": "oct", "kid": "secret", "k": encode([7; 32]) });
    issuer.serve_keys(
        "mixed",
        &json!({ "keys": [secret, rsa, test_keys().jwks()["keys"][1]] }),
    );
    let server = TestServer::start_with(|_| {}, &issuer.entries(["mixed"]));

    let number = |name: &str| URL_SAFE_NO_PAD.decode(rsa[name].as_str().unwrap()).unwrap();
    let positive = |octets: Vec<u8>| der(2, &[&[0], &octets[..]].concat());
    let pkcs1 = der(
        0x30,
        &[positive(number("n")), positive(number("e"))].concat(),
    );
    // rsaEncryption with NULL (RFC 3279, section 2.3.1).
    let algorithm = [
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let bits = der(3, &[&[0], &pkcs1[..]].concat());
    let spki = der(0x30, &[&algorithm[..], &bits].concat());
    let pem = |label: &str, octets: &[u8]| pem::encode(&pem::Pem::new(label, octets)).into_bytes();
    let secrets = [
        ("SPKI PEM", pem("PUBLIC KEY", &spki)),
        ("SPKI DER", spki),
        ("PKCS #1 PEM", pem("RSA PUBLIC KEY", &pkcs1)),
        ("modulus", number("n")),
        ("nothing", Vec::new()),
        ("the set's own secret", vec![7; 32]),
    ];
    for (name, algorithm) in [
        ("HS256", hmac::HMAC_SHA256),
        ("HS384", hmac::HMAC_SHA384),
        ("HS512", hmac::HMAC_SHA512),
    ] {
        for (what, secret) in &secrets {
            for key_id in ["test-rsa", "secret"] {
                let head = encode(json!({ "alg": name, "kid": key_id }).to_string());
                let input = format!("{head}.{}", encode(issuer.claims("mixed").to_string()));
                let tag = hmac::sign(&hmac::Key::new(algorithm, secret), input.as_bytes());
                let token = format!("{input}.{}", encode(tag));
                server.refuses(what, &with_token(&token), &["unsupported_alg"]);
            }
        }
    }
    server.issues("a real signature", &issuer.good_request("mixed"));
}

#[test]
fn the_header_alone_chooses_neither_algorithm_nor_key() {
    let issuer = HostileIssuer::start();
    let unbound = |index: usize| without(&test_keys().jwks()["keys"][index], "alg");
    let p384 = p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap();
    let point = p384.verifying_key().to_sec1_point(false);
    let p384_jwk = json!({
        "kty": "EC", "crv": "P-384", "kid": "p384",
        "x": encode(&point.as_bytes()[1..49]), "y": encode(&point.as_bytes()[49..]),
    });
    let ed448 = json!({ "kty": "OKP", "crv": "Ed448", "kid": "ed448", "x": encode([5; 57]) });
    issuer.serve_keys(
        "all",
        &json!({ "keys": [unbound(0), unbound(1), p384_jwk, ed448] }),
    );
    let strangers = TestKeys::generate().unwrap();
    issuer.serve_keys("strangers", &strangers.jwks());
    let server = TestServer::start_with(|_| {}, &issuer.entries(["all", "strangers"]));

    for (alg, key_id) in [
        ("ES256", "test-rsa"),
        ("EdDSA", "test-rsa"),
        ("PS256", "test-rsa"),
        ("RS512", "test-rsa"),
        ("RS256", "test-ec"),
        ("ES384", "test-ec"),
        ("ES512", "test-ec"),
        ("EdDSA", "test-ec"),
        ("ES256", "p384"),
    ] {
        // With the signature that the key in question does give, and with that of the other key.
        for real in ["RS256", "ES256"] {
            let signed = signed_by(test_keys(), &json!({ "alg": real }), &issuer.claims("all"));
            let signature = signed.rsplit_once('.').unwrap().1;
            let head = encode(json!({ "alg": alg, "kid": key_id }).to_string());
            let token = format!(
                "{head}.{}.{signature}",
                encode(issuer.claims("all").to_string())
            );
            let what = format!("{alg} with {key_id}, signed with {real}");
            server.refuses(&what, &with_token(&token), BAD_SIGNATURE);
        }
        let own = json!({ "alg": alg, "kid": key_id });
        let request = issuer.request_with("all", &own, test_keys());
        server.refuses(&format!("{alg} with {key_id}"), &request, BAD_SIGNATURE);
    }
    let signed_with_p384 = |alg: &str| {
        let head = encode(json!({ "alg": alg, "kid": "p384" }).to_string());
        let input = format!("{head}.{}", encode(issuer.claims("all").to_string()));
        let signature: p384::ecdsa::Signature = p384.sign(input.as_bytes());
        with_token(&format!("{input}.{}", encode(signature.to_bytes())))
    };
    server.issues("ES384 with P-384", &signed_with_p384("ES384"));
    server.refuses(
        "ES256 with P-384",
        &signed_with_p384("ES256"),
        BAD_SIGNATURE,
    );
    let by = |name: &str, header: Value, keys: &TestKeys| issuer.request_with(name, &header, keys);
    let es256k = by(
        "all",
        json!({ "alg": "ES256K", "kid": "test-ec" }),
        test_keys(),
    );
    server.refuses("ES256K", &es256k, &["unsupported_alg"]);
    let ed448 = by(
        "all",
        json!({ "alg": "EdDSA", "kid": "ed448" }),
        test_keys(),
    );
    server.refuses("EdDSA with Ed448", &ed448, &["unknown_key"]);

    let right = || json!({ "alg": "ES256", "kid": "test-ec" });
    let unnamed = || json!({ "alg": "ES256" });
    server.issues("the right key", &by("all", right(), test_keys()));
    server.issues("the right key, unnamed", &by("all", unnamed(), test_keys()));
    server.refuses(
        "a stranger's key",
        &by("all", right(), &strangers),
        BAD_SIGNATURE,
    );
    server.refuses(
        "a stranger's key, unnamed",
        &by("all", unnamed(), &strangers),
        BAD_SIGNATURE,
    );
    server.refuses(
        "another issuer's key",
        &by("strangers", right(), test_keys()),
        BAD_SIGNATURE,
    );
    let their_name = json!({ "alg": "ES256", "kid": "p384" });
    let request = by("strangers", their_name, test_keys());
    server.refuses("another issuer's name of a key", &request, &["unknown_key"]);
}

#[test]
fn only_the_algorithms_that_the_issuer_lists_are_taken() {
    let issuer = HostileIssuer::start();
    let cases = [
        ("absent", Value::Null),
        ("empty", json!([])),
        ("unusable", json!(["none", "HS256", "XS256"])),
        ("not-a-list", json!("ES256")),
        ("rsa", json!(["RS256", "none"])),
    ];
    for (name, listed) in &cases {
        issuer.serve(name);
        let changes = json!({ "id_token_signing_alg_values_supported": listed });
        issuer.set(name, "discovery", issuer.discovery(name, changes));
    }
    let server = TestServer::start_with(|_| {}, &issuer.entries(cases.iter().map(|case| case.0)));
    for (name, _) in &cases {
        let rs256 = json!({ "alg": "RS256", "kid": "test-rsa" });
        server.issues(name, &issuer.request_with(name, &rs256, test_keys()));
        server.refuses(name, &issuer.good_request(name), &["unsupported_alg"]);
    }
}

#[test]
fn keys_and_addresses_in_the_header_are_never_used() {
    let server = TestServer::start();
    let canary = HostileIssuer::start();
    let strangers = TestKeys::generate().unwrap();
    canary.serve_keys("canary", &strangers.jwks());
    let jwk = with(&strangers.jwks()["keys"][1], "kid", "test-ec");
    let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let certificate = base64::engine::general_purpose::STANDARD.encode(certificate.cert.der());
    for (member, value) in [
        ("jwk", jwk),
        ("jku", json!(canary.url("canary/jwks"))),
        ("x5u", json!(canary.url("canary/jwks"))),
        ("x5c", json!([certificate])),
        ("x5t", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        (
            "x5t#S256",
            json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ),
    ] {
        let header = with(&header(), member, value);
        let token = signed_by(&strangers, &header, &claims(&server));
        server.refuses(member, &with_token(&token), BAD_SIGNATURE);
        let token = signed_by(test_keys(), &header, &claims(&server));
        server.issues(member, &with_token(&token));
    }
    assert_eq!(canary.connections(), 0);
}

#[test]
fn headers_that_are_not_plain_are_refused() {
    let server = TestServer::start();
    let set = |name: &str, value: Value| with(&header(), name, value);
    let unsupported: &[&str] = &["unsupported_alg"];
    let unknown: &[&str] = &["unknown_key"];
    for (header, reasons) in [
        (without(&header(), "alg"), MALFORMED),
        (set("alg", json!(256)), MALFORMED),
        (set("alg", json!(["ES256"])), MALFORMED),
        (set("alg", json!("es256")), unsupported),
        (set("alg", json!("rs256")), unsupported),
        (set("alg", json!("RS1")), unsupported),
        (set("alg", json!("")), unsupported),
        (set("kid", json!("../../../../dev/null")), unknown),
        (set("kid", json!("' OR 1=1 --")), unknown),
        (set("kid", json!("test-ec\0")), unknown),
        (set("kid", json!("test-ec\r\nX: y")), unknown),
        (set("kid", json!("https://evil.example/key")), unknown),
        (set("kid", json!("TEST-EC")), unknown),
        (set("kid", json!("k".repeat(256))), unknown),
        (set("kid", json!("k".repeat(257))), MALFORMED),
        (set("kid", json!(7)), MALFORMED),
        (set("kid", json!(["test-ec"])), MALFORMED),
        (set("kid", json!({ "kid": "test-ec" })), MALFORMED),
        (set("kid", json!(true)), MALFORMED),
        (set("kid", Value::Null), MALFORMED),
        (set("crit", json!(["unheard-of"])), MALFORMED),
        (with(&set("crit", json!(["b64"])), "b64", false), MALFORMED),
        (set("crit", json!("alg")), MALFORMED),
        (set("crit", json!([])), MALFORMED),
        (set("crit", json!(["alg"])), MALFORMED),
        (set("cty", json!("JWT")), MALFORMED),
        (set("zip", json!("DEF")), MALFORMED),
        (set("enc", json!("A256GCM")), MALFORMED),
    ] {
        let what = header.to_string();
        let token = signed_by(test_keys(), &header, &claims(&server));
        let answer = server.refuses(&what, &with_token(&token), reasons);
        assert!(!answer.text().contains("k".repeat(257).as_str()));
    }
    for header in [
        r#"{"alg":"none","alg":"ES256","kid":"test-ec"}"#,
        r#"{"alg":"ES256","kid":"x","kid":"test-ec"}"#,
        "null",
        "[]",
        "",
    ] {
        let payload = claims(&server).to_string();
        let algorithm = mayfly::dev::oidc::TestAlgorithm::Es256;
        let token = test_keys().sign(header.as_bytes(), payload.as_bytes(), algorithm);
        server.refuses(header, &with_token(&token.unwrap()), MALFORMED);
    }
    for typ in ["JWT", "jwt", "at+jwt", "logout+jwt", "secevent+jwt"] {
        let token = signed_by(test_keys(), &set("typ", json!(typ)), &claims(&server));
        server.issues(typ, &with_token(&token));
    }
    // No label, however many names were tried.
    let metrics = server.metrics();
    for word in ["test-ec", "evil", "OR 1=1", "dev/null"] {
        assert!(!metrics.contains(word), "{word}");
    }
}

#[test]
fn texts_that_are_not_three_strict_parts_are_refused() {
    let server = TestServer::start();
    let [head, payload, signature] = parts(&server);
    let token = format!("{head}.{payload}.{signature}");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    // 64 octets end in a character of which four bits mean nothing.
    let last = signature.chars().next_back().unwrap();
    let stray = char::from_u32(u32::from(last) + 1).unwrap();
    let stray = format!("{}{stray}", &signature[..signature.len() - 1]);
    let flattened =
        json!({ "protected": head, "payload": payload, "signature": signature }).to_string();
    let general = json!({
        "payload": payload, "signatures": [{ "protected": head, "signature": signature }],
    });
    let encrypted = encode(r#"{"alg":"PBES2-HS512+A256KW","enc":"A256GCM","p2c":2147483647}"#);
    // In the body, which also carries what no header line can.
    let in_body = |token: &str| {
        let body = with(
            &TestKey::generate().v2(EMAIL),
            "credentials",
            json!({ "oidcIdentityToken": token }),
        );
        Request::post(V2, body.to_string())
    };
    for (what, text) in [
        ("a dot", ".".to_owned()),
        ("two dots", "..".to_owned()),
        ("one part", head.clone()),
        ("two parts", format!("{head}.{payload}")),
        ("four parts", format!("{token}.")),
        ("five parts", format!("{encrypted}.a.b.c.d")),
        ("flattened JSON", flattened),
        ("general JSON", general.to_string()),
        ("a scheme", format!("Bearer {token}")),
        (
            "padding",
            format!(
                "{head}.{}.{signature}",
                URL_SAFE.encode(decode(&payload)) + "="
            ),
        ),
        (
            "the other alphabet",
            format!(
                "{head}.{payload}.{}+/",
                STANDARD_NO_PAD.encode(&decode(&signature)[2..])
            ),
        ),
        ("a space inside", format!("{head} .{payload}.{signature}")),
        (
            "a line end inside",
            format!("{head}.{payload}\n.{signature}"),
        ),
        ("stray bits", format!("{head}.{payload}.{stray}")),
    ] {
        server.refuses(what, &in_body(&text), MALFORMED);
    }
    server.refuses("nothing", &in_body(""), &["missing_token"]);
    server.issues("the token itself", &in_body(&token));
}

#[test]
fn long_tokens_are_refused_by_their_length_alone() {
    let server = TestServer::start();
    let in_body = |token: &str| {
        let body = with(
            &TestKey::generate().v2(EMAIL),
            "credentials",
            json!({ "oidcIdentityToken": token }),
        );
        Request::post(V2, body.to_string())
    };
    let padded = |octets: usize| with(&claims(&server), "x", "x".repeat(octets));
    let signed = |octets: usize| signed_by(test_keys(), &header(), &padded(octets));
    for (what, token) in [
        ("dots", ".".repeat(40_000)),
        ("one part", "a".repeat(100_000)),
        (
            "a deep payload",
            format!(
                "{}.{}.",
                encode(header().to_string()),
                encode("[".repeat(60_000))
            ),
        ),
        ("one octet too many", "a".repeat(32_769)),
        ("well signed", signed(32_000)),
    ] {
        server.refuses(what, &in_body(&token), &["token_too_large"]);
    }
    let large = signed(23_000);
    assert!((30_000..=32_768).contains(&large.len()), "{}", large.len());
    server.issues("nearly as long as may be", &in_body(&large));
}

#[test]
fn signatures_that_were_tampered_with_are_refused() {
    let server = TestServer::start();
    let [head, payload, signature] = parts(&server);
    let good = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    let (r, s) = good.split_at(32);
    // The order of P-256 (SEC 2, section 2.4.2).
    let order: &[u8] = b"\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
        \xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
    let zero: &[u8] = &[0; 32];
    let mut flipped = good.clone();
    flipped[10] ^= 1;
    let der = p256::ecdsa::Signature::from_slice(&good).unwrap().to_der();
    for (what, signature) in [
        ("empty", Vec::new()),
        ("one octet short", good[1..].to_vec()),
        ("one octet long", [&[0], &good[..]].concat()),
        ("one bit flipped", flipped),
        ("r = s = 0", [zero, zero].concat()),
        ("r = 0", [zero, s].concat()),
        ("s = 0", [r, zero].concat()),
        ("r = s = n", [order, order].concat()),
        ("r = n", [order, s].concat()),
        ("s = n", [r, order].concat()),
        ("r, s > n", vec![0xff; 64]),
        ("DER", der.as_bytes().to_vec()),
    ] {
        let token = format!("{head}.{payload}.{}", encode(signature));
        server.refuses(what, &with_token(&token), BAD_SIGNATURE);
    }
    let other = encode(with(&claims(&server), "email", EVE).to_string());
    let token = format!("{head}.{other}.{signature}");
    server.refuses("another payload", &with_token(&token), BAD_SIGNATURE);
    let other = encode(with(&header(), "typ", "JWT").to_string());
    let token = format!("{other}.{payload}.{signature}");
    server.refuses("another header", &with_token(&token), BAD_SIGNATURE);
    let rsa = signed_by(
        test_keys(),
        &json!({ "alg": "RS256", "kid": "test-rsa" }),
        &claims(&server),
    );
    let (rsa_input, rsa_signature) = rsa.rsplit_once('.').unwrap();
    let mut flipped = URL_SAFE_NO_PAD.decode(rsa_signature).unwrap();
    flipped[100] ^= 1;
    for signature in [vec![], vec![0; 256], flipped] {
        let token = format!("{rsa_input}.{}", encode(signature));
        server.refuses("RSA", &with_token(&token), BAD_SIGNATURE);
    }
}

#[test]
fn payloads_that_are_not_one_strict_object_are_refused() {
    let server = TestServer::start();
    let good = claims(&server).to_string();
    let first = |member: &str| good.replacen('{', &format!("{{{member},"), 1);
    let last = |member: &str| format!("{},{member}}}", good.trim_end_matches('}'));
    let nested = |depth: usize| {
        first(&format!(
            r#""x":{}{}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        ))
    };
    for (what, payload) in [
        ("null", "null".to_owned()),
        ("a list", "[]".to_owned()),
        ("a text", r#""text""#.to_owned()),
        ("nothing", String::new()),
        ("a mark before", format!("\u{feff}{good}")),
        ("octets after", format!("{good} x")),
        ("two objects", format!("{good}{good}")),
        ("a comment", first("/* */\"x\":1")),
        ("no number", first(r#""x":NaN"#)),
        ("half a pair", first(r#""x":"\ud800""#)),
        ("65 levels", nested(64)),
        ("10 000 levels", nested(10_000)),
        ("the victim first", first(&format!(r#""email":"{EVE}""#))),
        ("the victim last", last(&format!(r#""email":"{EVE}""#))),
        (
            "the victim in escapes",
            last(r#""e\u006dail":"eve@example.com""#),
        ),
        ("two issuers", last(r#""iss":"https://evil.example""#)),
        ("two ends", last(r#""exp":99999999999"#)),
        (
            "twice inside",
            first(r#""federated_claims":{"connector_id":"a","connector_id":"b"}"#),
        ),
        (
            "twice inside another",
            first(r#""kubernetes.io":{"namespace":"a","namespace":"b"}"#),
        ),
    ] {
        server.refuses(what, &paying_in(payload), MALFORMED);
    }
    let broken = [good.as_bytes(), b"\xff"].concat();
    server.refuses("no UTF-8 behind", &paying_in(broken), MALFORMED);
    let broken = first(r#""x":"?""#).into_bytes();
    let broken: Vec<u8> = broken
        .into_iter()
        .map(|octet| if octet == b'?' { 0xff } else { octet })
        .collect();
    server.refuses("no UTF-8 inside", &paying_in(broken), MALFORMED);
    server.issues("64 levels", &paying_in(nested(63)));
}

#[test]
fn names_of_claims_are_compared_octet_by_octet() {
    let server = TestServer::start();
    let mut hostile = claims(&server);
    for name in [
        "EMAIL",
        "Email",
        "SUB",
        "\u{17f}ub",
        "ISS",
        "i\u{17f}\u{17f}",
        "Aud",
        "EXP",
        "email_verified\u{212a}",
        "EMAIL_VERIFIED",
    ] {
        hostile[name] = json!(EVE);
    }
    let certificate = leaf(&server.issues("look-alikes", &claiming(&hostile)));
    assert!(contains(&certificate, EMAIL) && !contains(&certificate, EVE));
    for (name, reason) in [
        ("iss", "malformed_token"),
        ("aud", "malformed_token"),
        ("exp", "malformed_token"),
        ("sub", "missing_claim"),
        ("email", "invalid_email"),
        ("email_verified", "email_not_verified"),
    ] {
        let value = claims(&server)[name].clone();
        let claims = with(
            &without(&claims(&server), name),
            &name.to_uppercase(),
            value,
        );
        server.refuses(name, &claiming(&claims), &[reason]);
    }
}

#[test]
fn a_token_is_read_from_one_place() {
    let server = TestServer::start();
    let token_of = |address: &str| {
        let claims = with(&with(&claims(&server), "email", address), "sub", address);
        signed_by(test_keys(), &header(), &claims)
    };
    let (token, other) = (token_of(EMAIL), token_of(EVE));
    let body = || TestKey::generate().v2(EMAIL);
    let plain = || Request::post(V2, body().to_string());
    for (what, request) in [
        ("two headers", plain().bearer(&token).bearer(&token)),
        (
            "two different headers",
            plain().bearer(&token).bearer(&other),
        ),
        (
            "another scheme",
            plain().header("Authorization", format!("Basic {token}")),
        ),
        (
            "no scheme that is known",
            plain().header("Authorization", format!("DPoP {token}")),
        ),
        (
            "a cookie",
            plain().header("Cookie", format!("token={token}")),
        ),
        (
            "the query",
            Request::post(format!("{V2}?access_token={token}"), body().to_string()),
        ),
        ("no place", plain()),
    ] {
        server.refuses(what, &request, &["missing_token"]);
    }
    let in_body = |in_body: &str, in_header: &str| {
        let body = with(
            &body(),
            "credentials",
            json!({ "oidcIdentityToken": in_body }),
        );
        Request::post(V2, body.to_string()).bearer(in_header)
    };
    let certificate = leaf(&server.issues("the body's", &in_body(&token, &other)));
    assert!(contains(&certificate, EMAIL) && !contains(&certificate, EVE));
    server.refuses(
        "the body's, of another",
        &in_body(&other, &token),
        &["bad_proof"],
    );
    server.refuses("the body's, broken", &in_body("a.b.c", &token), MALFORMED);
    for _ in 0..30 {
        // Clients try again.
        server.issues("the same token again", &plain().bearer(&token));
    }
}

#[test]
fn an_issuer_is_known_by_its_very_octets() {
    let canary = HostileIssuer::start();
    canary.serve("canary");
    let server = TestServer::start();
    let good = server.issuers.email().unwrap().url().to_owned();
    let rest = good.strip_prefix("http://127.0.0.1:").unwrap();
    let unknown: &[&str] = &["issuer_unknown"];
    for iss in [
        json!(""),
        json!("x".repeat(3_000)),
        json!(format!("{good}/")),
        json!(good.to_uppercase()),
        json!(format!("HTTP{}", &good[4..])),
        json!(good.replace("/dev/", "/DEV/")),
        json!(good.replace("/dev/", "/x/../dev/")),
        json!(good.replace("/dev/", "/./dev/")),
        json!(good.replace("/dev/", "//dev/")),
        json!(good.replace("/dev/", "/d%65v/")),
        json!(format!("http://u@127.0.0.1:{rest}")),
        json!(format!("{good}#x")),
        json!(format!("{good}?x")),
        json!(format!("{good} ")),
        json!(format!(" {good}")),
        json!(format!("{good}\0")),
        json!(format!("{good}\n")),
        json!(good.replace("/dev/", "/d\u{435}v/")),
        json!(good.replace("/dev/", "/de\u{301}v/")),
        json!(format!("https://127.0.0.1:{rest}")),
        json!(format!("http://localhost:{rest}")),
        json!(format!("http://127.1:{rest}")),
        json!(format!("http://[::ffff:127.0.0.1]:{rest}")),
        json!(format!("http://127.0.0.1:0{rest}")),
        json!(canary.url("canary")),
        json!("file:///etc/passwd"),
    ] {
        let what = format!("{iss:.100}");
        let answer = server.refuses(
            &what,
            &claiming(&with(&claims(&server), "iss", iss)),
            unknown,
        );
        assert!(answer.text().len() < 600, "{what}: {}", answer.text());
    }
    for iss in [
        json!([good]),
        json!(7),
        Value::Null,
        json!({ "iss": good }),
        json!(true),
    ] {
        let what = iss.to_string();
        server.refuses(
            &what,
            &claiming(&with(&claims(&server), "iss", iss)),
            MALFORMED,
        );
    }
    let without_iss = without(&claims(&server), "iss");
    server.refuses("no issuer", &claiming(&without_iss), MALFORMED);
    assert_eq!(canary.connections(), 0);
}

#[test]
fn a_token_is_for_us_or_refused() {
    let server = TestServer::start();
    let claims = claims(&server);
    for aud in [
        json!(""),
        json!([]),
        json!("elsewhere"),
        json!("SIGSTORE"),
        json!("sigstore "),
        json!("a,sigstore"),
        json!("sigstore.evil.example"),
        json!(["elsewhere", "sigstor"]),
    ] {
        let what = aud.to_string();
        server.refuses(
            &what,
            &claiming(&with(&claims, "aud", aud)),
            &["audience_mismatch"],
        );
    }
    for aud in [
        Value::Null,
        json!(7),
        json!({ "sigstore": 1 }),
        json!([["sigstore"]]),
        json!(["sigstore", 5]),
    ] {
        let what = aud.to_string();
        server.refuses(&what, &claiming(&with(&claims, "aud", aud)), MALFORMED);
    }
    server.refuses(
        "no audience",
        &claiming(&without(&claims, "aud")),
        MALFORMED,
    );
    let among_others = with(
        &with(&claims, "aud", json!(["elsewhere", "sigstore"])),
        "azp",
        "elsewhere",
    );
    server.issues("among others", &claiming(&among_others));
}

#[test]
fn a_token_has_its_time() {
    let server = TestServer::start();
    let claims = claims(&server);
    let now = server.clock.now().unix_timestamp();
    let check = |name: &str, value: Value, reason: Option<&str>| {
        let what = format!("{name}: {value}");
        let request = claiming(&with(&claims, name, value));
        match reason {
            Some(reason) => drop(server.refuses(&what, &request, &[reason])),
            None => drop(server.issues(&what, &request)),
        }
    };
    let (malformed, expired) = (Some("malformed_token"), Some("token_expired"));
    let half = now as f64 + 0.5;
    for value in [
        json!(0),
        json!(-1),
        json!(now - 3_600),
        json!(now - 90),
        json!(now - 1),
        json!(half - 1.0),
    ] {
        check("exp", value, expired);
    }
    for value in [
        json!(now),
        json!(now + 1),
        json!(half),
        json!(now + 100 * 365 * 86_400),
    ] {
        check("exp", value, None);
    }
    for value in [
        Value::Null,
        json!(true),
        json!({}),
        json!([now + 60]),
        json!("2030-01-01T00:00:00Z"),
        json!((now + 60).to_string()),
        json!(1_u64 << 63),
        json!(u64::MAX),
        json!(1e300),
        json!(-1e300),
    ] {
        check("exp", value, malformed);
    }
    server.refuses("no end", &claiming(&without(&claims, "exp")), MALFORMED);
    let endless = with(&claims, "exp", 4_242_424_242_i64)
        .to_string()
        .replace("4242424242", "1e400");
    server.refuses("exp: 1e400", &paying_in(endless), MALFORMED);

    check("nbf", json!(now + 3_600), Some("token_not_yet_valid"));
    check("nbf", json!(now + 301), Some("token_not_yet_valid"));
    check("nbf", json!(now + 300), None);
    check("nbf", json!(now + 240), None);
    check("nbf", json!(half + 240.0), None);
    for value in [
        json!((now - 60).to_string()),
        Value::Null,
        json!(1e300),
        json!([]),
    ] {
        check("nbf", value, malformed);
    }
    for value in [json!(now + 3_600), json!(now - 365 * 86_400), json!(half)] {
        check("iat", value, None);
    }
    check("iat", json!(now.to_string()), malformed);
    let reversed = with(&with(&claims, "nbf", now + 200), "exp", now + 100);
    server.issues("an end before the beginning", &claiming(&reversed));
    server.issues("no time of issue", &claiming(&claims));
}

#[test]
fn subjects_are_plain_texts() {
    let server = TestServer::start();
    let claims = claims(&server);
    for sub in [json!(""), Value::Null] {
        let what = sub.to_string();
        server.refuses(
            &what,
            &claiming(&with(&claims, "sub", sub)),
            &["missing_claim"],
        );
    }
    server.refuses(
        "no subject",
        &claiming(&without(&claims, "sub")),
        &["missing_claim"],
    );
    for sub in [
        json!(7),
        json!([EMAIL]),
        json!({}),
        json!("x".repeat(2_049)),
        json!("x".repeat(10_240)),
        json!("a\r\nb"),
        json!("a\0"),
        json!("\u{1b}[31mred"),
        json!("a\u{85}b"),
        json!("a\u{202e}b"),
        json!("a\u{2066}b"),
        json!(" \t"),
        json!(" a"),
        json!("a "),
    ] {
        let what = format!("{sub:.60}");
        server.refuses(&what, &claiming(&with(&claims, "sub", sub)), MALFORMED);
    }
    server.issues(
        "2048 octets",
        &claiming(&with(&claims, "sub", "x".repeat(2_048))),
    );
}

#[test]
fn subjects_of_a_uri_issuer_lie_on_its_host() {
    let server = TestServer::start();
    let url = format!("{}/dev/oidc/uri", server.url);
    let port = server.address.port();
    let request = |sub: &str| {
        let token = signed_by(
            test_keys(),
            &header(),
            &with(&claims_from(&url), "sub", sub),
        );
        Request::post(V2, TestKey::generate().v2(sub).to_string()).bearer(&token)
    };
    let base = &server.url;
    let elsewhere: &[&str] = &["subject_domain_mismatch"];
    for sub in [
        "http://evil.example/ada".to_owned(),
        format!("http://127.0.0.1.evil:{port}/ada"),
        format!("http://127.0.0.1:{port}.evil/ada"),
        format!("{base}0/ada"),
        format!("http://127.0.0.1:{port}@evil.example/ada"),
        format!("http://evil.example\\@127.0.0.1:{port}/ada"),
        format!("{base}\\@evil.example/ada"),
        format!("http://u:p@127.0.0.1:{port}/ada"),
        format!("http://@127.0.0.1:{port}/ada"),
        "http://127.0.0.1/ada".to_owned(),
        "http://127.0.0.1:9/ada".to_owned(),
        format!("https://127.0.0.1:{port}/ada"),
        format!("HTTP://127.0.0.1:{port}/ada"),
        "javascript:alert(1)".to_owned(),
        format!("//127.0.0.1:{port}/ada"),
        "/ada".to_owned(),
        format!("{base}#ada"),
    ] {
        server.refuses(&sub, &request(&sub), elsewhere);
    }
    for path in [
        "/ada#x".to_owned(),
        "/./ada".to_owned(),
        "/x/../ada".to_owned(),
        "/x/%2e%2E/ada".to_owned(),
        "/a b".to_owned(),
        "/\u{e9}".to_owned(),
        "/a\nb".to_owned(),
        "/a\\b".to_owned(),
        "/%zz".to_owned(),
        format!("/{}", "x".repeat(10_240)),
    ] {
        let sub = format!("{base}{path}");
        server.refuses(&format!("{path:.40}"), &request(&sub), MALFORMED);
    }
    server.refuses("an address", &request(EMAIL), &["ambiguous_identity"]);
    let good = format!("{base}/ada%20l?x=y");
    let certificate = leaf(&server.issues("a good one", &request(&good)));
    assert!(contains(&certificate, &good));
}

/// A request whose token, of one of the development server's issuers, has this subject and these claims.
fn of_subject(server: &TestServer, issuer: &str, sub: &Value, more: &[(&str, Value)]) -> Request {
    let mut claims = claims_from(&format!("{}/dev/oidc/{issuer}", server.url));
    claims = without(&without(&claims, "email"), "email_verified");
    claims = with(&claims, "sub", sub.clone());
    for (name, value) in more {
        claims = with(&claims, name, value.clone());
    }
    let token = signed_by(test_keys(), &header(), &claims);
    let proof = TestKey::generate().v2(sub.as_str().unwrap_or_default());
    Request::post(V2, proof.to_string()).bearer(&token)
}

/// T55, T56
#[test]
fn subjects_of_a_username_issuer_are_names_in_one_domain() {
    let server = TestServer::start();
    let request = |sub: Value| of_subject(&server, "username", &sub, &[]);
    for nobody in [json!(""), Value::Null] {
        server.refuses("nobody", &request(nobody), &["missing_claim"]);
    }
    for sub in [
        "ada!evil.example",
        "!",
        "ada@example.com",
        "a..b@example.com",
    ] {
        server.refuses(sub, &request(json!(sub)), &["ambiguous_identity"]);
    }
    let certificate = leaf(&server.issues("a good one", &request(json!("ada"))));
    assert!(contains(&certificate, "ada!127.0.0.1"));
}

/// T59
#[test]
fn subjects_of_a_spiffe_issuer_lie_in_its_trust_domain() {
    let server = TestServer::start();
    let request = |sub: &str| of_subject(&server, "spiffe", &json!(sub), &[]);
    for sub in [
        "spiffe://evil.example/ada",
        "spiffe://dev.example.evil/ada",
        "spiffe://x.dev.example/ada",
    ] {
        server.refuses(sub, &request(sub), &["spiffe_domain_mismatch"]);
    }
    for sub in [
        "SPIFFE://dev.example/ada",
        "spiffe://DEV.example/ada",
        "spiffe://dev.example:80/ada",
        "spiffe://ada@dev.example/ada",
        "spiffe://dev.example/ada?x",
        "spiffe://dev.example/ada#x",
        "spiffe://dev.example/x/../ada",
        "spiffe://dev.example//ada",
        "spiffe://dev.example/ada/",
        "spiffe://dev.example/%61da",
        "spiffe://dev.example/\u{e4}da",
        "https://dev.example/ada",
        &format!("spiffe://dev.example/{}", "x".repeat(2_048)),
    ] {
        server.refuses(&format!("{sub:.60}"), &request(sub), MALFORMED);
    }
    let good = "spiffe://dev.example/ada";
    let certificate = leaf(&server.issues("a good one", &request(good)));
    assert!(contains(&certificate, good));
}

#[test]
fn a_service_account_is_what_subject_and_claims_agree_on() {
    let server = TestServer::start();
    let request = |sub: &str, namespace: Value, name: Value| {
        let details = json!({ "namespace": namespace, "serviceaccount": { "name": name } });
        of_subject(
            &server,
            "kubernetes",
            &json!(sub),
            &[("kubernetes.io", details)],
        )
    };
    let sub = "system:serviceaccount:prod:ada";
    let without_details = of_subject(&server, "kubernetes", &json!(sub), &[]);
    server.refuses("no details", &without_details, &["missing_claim"]);
    for (namespace, name) in [(json!(""), json!("ada")), (json!("prod"), Value::Null)] {
        server.refuses(
            "not all",
            &request(sub, namespace, name),
            &["missing_claim"],
        );
    }
    for (sub, namespace, name) in [
        (sub, "prod", "eve"),
        (sub, "dev", "ada"),
        ("ada", "prod", "ada"),
        ("system:serviceaccount:a b/../c:ada", "a b/../c", "ada"),
        ("system:serviceaccount:prod:x?y#z", "prod", "x?y#z"),
        ("system:serviceaccount:a:b:c", "a:b", "c"),
    ] {
        let request = request(sub, json!(namespace), json!(name));
        server.refuses(&format!("{sub} {namespace} {name}"), &request, MALFORMED);
    }
    let good = request(sub, json!("prod"), json!("ada"));
    let certificate = leaf(&server.issues("a good one", &good));
    let name = "https://kubernetes.io/namespaces/prod/serviceaccounts/ada";
    assert!(contains(&certificate, name));
}

#[test]
fn an_address_counts_when_its_issuer_vouches_for_it() {
    let issuer = HostileIssuer::start();
    issuer.serve("lenient");
    let server = TestServer::start_with(
        |_| {},
        &issuer.entry("lenient", "skip-email-verification: true"),
    );
    let claims = claims(&server);
    let (not_verified, malformed) = ("email_not_verified", "malformed_token");
    for (value, reason) in [
        (json!(false), not_verified),
        (json!("false"), not_verified),
        (Value::Null, malformed),
        (json!(1), malformed),
        (json!(0), malformed),
        (json!("yes"), malformed),
        (json!("1"), malformed),
        (json!(""), malformed),
        (json!(" true"), malformed),
        (json!([true]), malformed),
        (json!({}), malformed),
    ] {
        let what = value.to_string();
        server.refuses(
            &what,
            &claiming(&with(&claims, "email_verified", value)),
            &[reason],
        );
    }
    server.refuses(
        "nothing said",
        &claiming(&without(&claims, "email_verified")),
        &[not_verified],
    );
    for value in [json!(true), json!("true"), json!("True")] {
        let what = value.to_string();
        server.issues(&what, &claiming(&with(&claims, "email_verified", value)));
    }
    let unverified = with(&issuer.claims("lenient"), "email_verified", false);
    server.issues("an issuer that need not", &claiming(&unverified));
    let configuration = server.get("/api/v2/configuration").json();
    let entries = configuration["issuers"].as_array().unwrap();
    let skipping = entries
        .iter()
        .filter(|entry| entry["skipEmailVerification"] == true);
    let urls: Vec<_> = skipping
        .map(|entry| entry["issuerUrl"].as_str().unwrap())
        .collect();
    assert_eq!(urls, [issuer.url("lenient")]);
}

#[test]
fn only_plain_addresses_get_into_a_certificate() {
    let server = TestServer::start();
    let claims = claims(&server);
    let label = "x".repeat(63);
    let refuse = |email: Value| {
        let what = format!("{email:.80}");
        let request = claiming(&with(&claims, "email", email));
        server.refuses(&what, &request, &["invalid_email"]);
    };
    for email in [Value::Null, json!([EMAIL]), json!({ "a": EMAIL }), json!(7)] {
        refuse(email);
    }
    for email in [
        "",
        "victim",
        "v@x@example.com",
        "v@example.com,w@example.com",
        "V <v@example.com>",
        "v v@example.com",
        "v\t@example.com",
        "v@example.com\r\nBcc: w@example.com",
        "v@example.com\0.evil.example",
        "v@example.com\n",
        " v@example.com",
        ".@example.com",
        "v..v@example.com",
        ".v@example.com",
        "v@example..com",
        "v@",
        "@example.com",
        "\u{1b}[31mv@example.com",
        "\u{202e}v@example.com",
        "b\u{fc}cher@example.com",
        "v@b\u{fc}cher.example",
        "v@example.com.",
        "v@exa_mple.com",
        "v@127.0.0.1",
        "v@[127.0.0.1]",
        "v@[IPv6:::1]",
        "\"v v\"@example.com",
        "v(comment)@example.com",
        "v@localhost",
        &format!("{}@example.com", "x".repeat(65)),
        &format!("v@{label}x.com"),
        &format!("v@{label}.{label}.{label}.{label}.com"),
        &format!("{}@{label}.{label}.{label}.com", "x".repeat(64)),
    ] {
        refuse(json!(email));
    }
    server.refuses(
        "none",
        &claiming(&without(&claims, "email")),
        &["invalid_email"],
    );
    let mixed = "Signer@Example.COM";
    let token = signed_by(test_keys(), &header(), &with(&claims, "email", mixed));
    let request = Request::post(V2, TestKey::generate().v2(mixed).to_string()).bearer(&token);
    let certificate = leaf(&server.issues(mixed, &request));
    assert!(contains(&certificate, mixed));
}

#[test]
fn a_claim_that_names_the_issuer_is_a_plain_text() {
    let issuer = HostileIssuer::start();
    issuer.serve("dex");
    let settings = "issuer-claim: $.federated_claims.connector_id";
    let server = TestServer::start_with(|_| {}, &issuer.entry("dex", settings));
    let request = |value: Value| claiming(&with(&issuer.claims("dex"), "federated_claims", value));
    let (missing, malformed) = ("missing_claim", "malformed_token");
    for (value, reason) in [
        (Value::Null, missing),
        (json!({}), missing),
        (json!("text"), missing),
        (json!({ "connector_id": null }), missing),
        (json!({ "connector_id": "" }), missing),
        (
            json!({ "Connector_ID": "https://accounts.example" }),
            missing,
        ),
        (json!({ "connector_id": 5 }), malformed),
        (json!({ "connector_id": true }), malformed),
        (json!({ "connector_id": { "a": 1 } }), malformed),
        (
            json!({ "connector_id": ["https://accounts.example"] }),
            malformed,
        ),
        (json!({ "connector_id": "x".repeat(10_240) }), malformed),
        (json!({ "connector_id": "a\nb" }), malformed),
        (json!({ "connector_id": "a\u{202e}b" }), malformed),
    ] {
        let what = format!("{value:.60}");
        server.refuses(&what, &request(value), &[reason]);
    }
    let connector = "https://accounts.example";
    let certificate =
        leaf(&server.issues(connector, &request(json!({ "connector_id": connector }))));
    assert!(contains(&certificate, connector) && !contains(&certificate, &issuer.url("dex")));
}

#[test]
fn claims_that_nothing_names_go_nowhere() {
    let server = TestServer::start();
    let canary = "canary-of-an-unnamed-claim";
    let mut crowded = claims(&server);
    for index in 0..2_000 {
        crowded[format!("c{index}")] = json!(0);
    }
    crowded["address"] = json!({ "street": canary });
    let mut long = claims(&server);
    long["groups"] = json!(vec![canary; 700]);
    for (what, claims) in [("2000 members", crowded), ("a claim of 20 KiB", long)] {
        let answer = server.issues(what, &claiming(&claims));
        assert!(!contains(&leaf(&answer), canary), "{what}");
        assert!(!answer.text().contains(canary), "{what}");
    }
    assert!(!server.metrics().contains(canary));
}
