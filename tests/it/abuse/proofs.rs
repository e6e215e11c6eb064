//! Clients' keys, and the proofs that they are theirs.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mayfly::dev::oidc::TestClaims;
use mayfly::x509::der::{self, tag};
use num_bigint::BigUint;
use p256::pkcs8::DecodePrivateKey as _;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509CertificationRequest};

use crate::support::client_key::{
    ClientKey, Csr, ECDSA_SHA1, ED25519, RSA_MD5, ed25519_spki, elliptic_spki, elliptic_spki_with,
    pem, rsa_spki, spki,
};
use crate::support::http::{Answer, Request};
use crate::support::key::{self, TestKey, v2};
use crate::support::refusal::Expected;
use crate::support::server::{EMAIL, TestServer, V1, V2};

const BAD_PROOF: &[&str] = &["bad_proof"];
const MALFORMED_KEY: &[&str] = &["malformed_public_key"];
const MALFORMED_CSR: &[&str] = &["malformed_csr"];
const MALFORMED_REQUEST: &[&str] = &["malformed_request"];
const WEAK_KEY: &[&str] = &["weak_key"];
const NOT_PERMITTED: &[&str] = &["algorithm_not_permitted"];

/// What is answered to a body over the limit.
const TOO_LARGE: Expected<'_> = Expected {
    status: 413,
    code: 3,
    reasons: &["body_too_large"],
};

/// The order of P-256 (FIPS 186-5).
const P256_ORDER: &[u8] = b"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
/// P-256's OID, content octets; and those of P-384.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// A request with a good token for [`EMAIL`] and this body.
fn request(server: &TestServer, body: &Value) -> Request {
    Request::post(V2, body.to_string()).bearer(&server.token(&TestClaims::email(EMAIL)))
}

/// A request with this PEM of a public key and this proof.
fn with_proof(server: &TestServer, public_key: &str, proof: &[u8]) -> Request {
    request(server, &v2(public_key, &STANDARD.encode(proof)))
}

/// A request with this SubjectPublicKeyInfo, and a proof by another key: it is not to be looked at.
fn with_key(server: &TestServer, spki_der: &[u8]) -> Request {
    let proof = ClientKey::p256(1).sign(EMAIL.as_bytes());
    with_proof(server, &pem("PUBLIC KEY", spki_der), &proof)
}

/// A request with this text in place of the public key's PEM, and a proof by the first P-256 key.
fn with_key_text(server: &TestServer, text: &str) -> Request {
    with_proof(server, text, &ClientKey::p256(1).sign(EMAIL.as_bytes()))
}

fn with_csr(server: &TestServer, der: &[u8]) -> Request {
    request(server, &key::csr(&pem("CERTIFICATE REQUEST", der)))
}

/// After all that, a good request is answered as ever.
fn still_issues(server: &TestServer) {
    server.issues("a good request afterwards", &server.good_request());
}

/// The leaf of an answer of version 2, DER.
fn leaf_of(answer: &Answer) -> Vec<u8> {
    let chain = mayfly::client::certificates_of_answer(&answer.body).unwrap();
    chain.into_iter().next().unwrap()
}

/// Cuts a DER ECDSA signature into r and s.
fn numbers(signature: &[u8]) -> [BigUint; 2] {
    let (sequence, _) = der::expect(signature, tag::SEQUENCE).unwrap();
    let (r, rest) = der::expect(sequence.content, tag::INTEGER).unwrap();
    let (s, _) = der::expect(rest, tag::INTEGER).unwrap();
    [r, s].map(|number| BigUint::from_bytes_be(number.content))
}

/// Content octets of a positive INTEGER.
fn integer(number: &BigUint) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    let sign: &[u8] = if bytes[0] & 0x80 == 0 { &[] } else { &[0] };
    [sign, &bytes].concat()
}

fn signature_der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let (r, s) = (
        der::encode(tag::INTEGER, &[r]),
        der::encode(tag::INTEGER, &[s]),
    );
    der::encode(tag::SEQUENCE, &[&r, &s])
}

/// r and s one after the other (IEEE P1363).
fn halves(signature: &[u8], coordinate_bytes: usize) -> Vec<u8> {
    let padded = numbers(signature).map(|number| {
        let bytes = number.to_bytes_be();
        [vec![0; coordinate_bytes - bytes.len()], bytes].concat()
    });
    padded.concat()
}

/// P01, P34
#[test]
fn a_proof_by_another_key_or_over_another_text_is_refused() {
    let server = TestServer::start();
    let key = ClientKey::p256(1);
    for text in [
        "eve@example.com",
        "ADA@EXAMPLE.COM",
        "ada@example.com\n",
        "\"ada@example.com\"",
        "4711",
        "",
    ] {
        let claims = TestClaims::email(EMAIL).with("sub", "4711");
        let body = v2(&key.pem(), &STANDARD.encode(key.sign(text.as_bytes())));
        let request = Request::post(V2, body.to_string()).bearer(&server.token(&claims));
        server.refuses(&format!("over {text:?}"), &request, BAD_PROOF);
    }
    let [_, others @ ..] = ClientKey::all();
    for other in [ClientKey::p256(2)].into_iter().chain(others) {
        let proof = other.sign(EMAIL.as_bytes());
        let request = with_proof(&server, &key.pem(), &proof);
        server.refuses("by another key", &request, BAD_PROOF);
    }

    // Somebody else's request, with one's own token in the place of theirs.
    let theirs = key.sign(b"eve@example.com");
    let request = with_proof(&server, &key.pem(), &theirs);
    server.refuses("the key and the proof of another", &request, BAD_PROOF);
    still_issues(&server);
}

/// P02
#[test]
fn a_proof_that_is_no_signature_is_refused() {
    let server = TestServer::start();
    let key = ClientKey::p256(1);
    let proof = key.sign(EMAIL.as_bytes());
    let body = |proof: Value| {
        let mut body = v2(&key.pem(), "");
        body["publicKeyRequest"]["proofOfPossession"] = proof;
        request(&server, &body)
    };
    for (what, proof) in [
        ("empty", json!("")),
        ("null", Value::Null),
        ("zeros", json!(STANDARD.encode([0; 64]))),
        ("2048 octets", json!(STANDARD.encode([0x30; 2048]))),
        ("2049 octets", json!(STANDARD.encode([0x30; 2049]))),
    ] {
        server.refuses(what, &body(proof), BAD_PROOF);
    }
    let mut missing = v2(&key.pem(), "");
    let members = missing["publicKeyRequest"].as_object_mut().unwrap();
    members.remove("proofOfPossession");
    server.refuses("missing", &request(&server, &missing), BAD_PROOF);
    for (what, proof) in [
        ("not base64", json!("!!!!")),
        ("a number", json!(7)),
        ("a list", json!([1, 2])),
        ("base64 with a line end in it", json!("AAAA\0AAAA")),
    ] {
        server.refuses(what, &body(proof), MALFORMED_REQUEST);
    }
    let too_long = body(json!("A".repeat(140_000)));
    server.answers_with("beyond the body's limit", &too_long, TOO_LARGE);

    // Clients need it: base64 in either alphabet, padded or not.
    let url_safe = body(json!(URL_SAFE_NO_PAD.encode(&proof)));
    server.issues("base64url without padding", &url_safe);
}

/// P03, P06
#[test]
fn an_ecdsa_proof_may_be_der_or_halves_and_either_twin() {
    let server = TestServer::start();
    for (key, coordinate_bytes) in [
        (ClientKey::p256(1), 32),
        (ClientKey::p384(), 48),
        (ClientKey::p521(), 66),
    ] {
        let proof = key.sign(EMAIL.as_bytes());
        let raw = halves(&proof, coordinate_bytes);
        let v1 = json!({
            "publicKey": { "content": STANDARD.encode(key.spki()) },
            "signedEmailAddress": STANDARD.encode(&raw),
        });
        let token = server.token(&TestClaims::email(EMAIL));
        let v1 = Request::post(V1, v1.to_string()).bearer(&token);
        server.issues("DER", &with_proof(&server, &key.pem(), &proof));
        server.issues("halves", &with_proof(&server, &key.pem(), &raw));
        server.issues("halves in version 1", &v1);
        let cut = with_proof(&server, &key.pem(), &raw[1..]);
        server.refuses("halves, one octet short", &cut, BAD_PROOF);
        let longer = with_proof(&server, &key.pem(), &[&raw[..], &[0, 0]].concat());
        server.refuses("halves, two octets more", &longer, BAD_PROOF);
    }
    let key = ClientKey::p256(1);
    let [r, s] = numbers(&key.sign(EMAIL.as_bytes()));
    let order = BigUint::parse_bytes(P256_ORDER, 16).unwrap();
    for s in [s.clone(), order - s] {
        let twin = signature_der(&integer(&r), &integer(&s));
        server.issues("a twin", &with_proof(&server, &key.pem(), &twin));
    }
}

/// P04, P05
#[test]
fn an_ecdsa_proof_that_is_not_der_of_numbers_in_range_is_refused() {
    let server = TestServer::start();
    let key = ClientKey::p256(1);
    let good = key.sign(EMAIL.as_bytes());
    let order = BigUint::parse_bytes(P256_ORDER, 16).unwrap();
    let [r, s] = numbers(&good);
    let (r_der, s_der) = (integer(&r), integer(&s));
    let pad = |number: &BigUint| {
        let bytes = number.to_bytes_be();
        [vec![0; 32 - bytes.len()], bytes].concat()
    };
    for (what, proof) in [
        ("trailing octet", [&good[..], &[0]].concat()),
        (
            "trailing value inside",
            der::encode(tag::SEQUENCE, &[&good[2..], &[5, 0]]),
        ),
        (
            "r not minimal",
            signature_der(&[&[0], &r_der[..]].concat(), &s_der),
        ),
        (
            "s not minimal",
            signature_der(&r_der, &[&[0, 0], &s_der[..]].concat()),
        ),
        (
            "long form of the length",
            [&[0x30, 0x81], &good[1..]].concat(),
        ),
        (
            "indefinite length",
            [&[0x30, 0x80], &good[2..], &[0, 0]].concat(),
        ),
        (
            "r negative",
            signature_der(&[&[0x80], &r_der[..]].concat(), &s_der),
        ),
        ("r is 0", signature_der(&[0], &s_der)),
        ("s is 0", signature_der(&r_der, &[0])),
        ("both are 0", signature_der(&[0], &[0])),
        ("r + n", signature_der(&integer(&(&r + &order)), &s_der)),
        ("s + n", signature_der(&r_der, &integer(&(&s + &order)))),
        ("s is n", signature_der(&r_der, &integer(&order))),
        ("halves of 0", vec![0; 64]),
        ("halves, r is 0", [vec![0; 32], pad(&s)].concat()),
        ("halves, s is 0", [pad(&r), vec![0; 32]].concat()),
        ("halves, s is n", [pad(&r), pad(&order)].concat()),
        ("halves, swapped", [pad(&s), pad(&r)].concat()),
    ] {
        server.refuses(what, &with_proof(&server, &key.pem(), &proof), BAD_PROOF);
    }
    still_issues(&server);
}

/// P07, P08
#[test]
fn a_proof_with_another_hash_or_padding_is_refused() {
    let server = TestServer::start();
    let (p256, p384, p521) = (ClientKey::p256(1), ClientKey::p384(), ClientKey::p521());
    let (sha1, challenge) = (&SHA1_FOR_LEGACY_USE_ONLY, EMAIL.as_bytes());
    for (what, key, proof) in [
        ("SHA-384", &p256, p256.sign_hashed(&SHA384, challenge)),
        ("SHA-1", &p256, p256.sign_hashed(sha1, challenge)),
        ("SHA-256", &p384, p384.sign_hashed(&SHA256, challenge)),
        ("SHA-256", &p521, p521.sign_hashed(&SHA256, challenge)),
        ("SHA-384", &p521, p521.sign_hashed(&SHA384, challenge)),
    ] {
        let answer = server.refuses(what, &with_proof(&server, &key.pem(), &proof), BAD_PROOF);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("SHA-"), "names the hash: {message}");
    }
    let rsa = ClientKey::rsa();
    for (what, proof) in [
        ("PSS", rsa.sign_pss(challenge)),
        ("SHA-384", rsa.sign_pkcs1_sha384(challenge)),
        ("too short", rsa.sign(challenge)[1..].to_vec()),
        ("zero", vec![0; 256]),
        ("one", [&[0; 255][..], &[1]].concat()),
    ] {
        server.refuses(what, &with_proof(&server, &rsa.pem(), &proof), BAD_PROOF);
    }
    for key in ClientKey::all() {
        let good = with_proof(&server, &key.pem(), &key.sign(challenge));
        server.issues("each kind with its own", &good);
    }
}

/// P09
#[test]
fn an_ed25519_key_that_anyone_can_sign_for_is_refused() {
    let server = TestServer::start();
    let prime: BigUint = (BigUint::from(1_u8) << 255) - 19_u8;
    let little_endian = |number: BigUint| {
        let mut point = number.to_bytes_le();
        point.resize(32, 0);
        point
    };
    let order_eight = b"7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7";
    let order_eight = BigUint::parse_bytes(order_eight, 16).unwrap();
    // R is the identity and S is 0: for a key of small order that verifies over some text, for the identity over all.
    let forged: Vec<u8> = [&[1][..], &[0; 63]].concat();
    for (what, y) in [
        ("order 4", BigUint::from(0_u8)),
        ("the identity", BigUint::from(1_u8)),
        ("order 2", &prime - 1_u8),
        ("order 8", order_eight.clone()),
        ("order 8, the other", &prime - &order_eight),
        ("order 4, not canonical", prime.clone()),
        ("the identity, not canonical", &prime + 1_u8),
        ("not canonical", &prime + 5_u8),
    ] {
        for sign in [0, 0x80] {
            let mut point = little_endian(y.clone());
            point[31] |= sign;
            let key = ed25519_spki(&point);
            let by_proof = with_proof(&server, &pem("PUBLIC KEY", &key), &forged);
            server.refuses(what, &by_proof, WEAK_KEY);
            let csr = Csr {
                algorithm: ED25519,
                ..Csr::of(&key)
            };
            let by_csr = with_csr(&server, &csr.signed(|_| forged.clone()));
            server.refuses(what, &by_csr, WEAK_KEY);
        }
    }
    for octets in [31, 33] {
        let key = ed25519_spki(&vec![9; octets]);
        server.refuses("length", &with_key(&server, &key), MALFORMED_KEY);
    }
    still_issues(&server);
}

/// P10
#[test]
fn an_ed25519_proof_with_a_scalar_beyond_the_order_is_refused() {
    let server = TestServer::start();
    let key = ClientKey::ed25519();
    let good = key.sign(EMAIL.as_bytes());
    server.issues("as it is", &with_proof(&server, &key.pem(), &good));
    // L, the order of the base point (RFC 8032, section 5.1).
    let order: BigUint = (BigUint::from(1_u8) << 252)
        + BigUint::parse_bytes(b"27742317777372353535851937790883648493", 10).unwrap();
    let s: BigUint = BigUint::from_bytes_le(&good[32..]) + order;
    let mut beyond = [&good[..32], &s.to_bytes_le()].concat();
    beyond.resize(64, 0);
    let request = with_proof(&server, &key.pem(), &beyond);
    server.refuses("S + L", &request, BAD_PROOF);
    let cut = with_proof(&server, &key.pem(), &good[..63]);
    server.refuses("63 octets", &cut, BAD_PROOF);
}

/// P11, P12
#[test]
fn a_point_that_is_no_plain_point_of_its_curve_is_refused() {
    let server = TestServer::start();
    let spki_der = ClientKey::p256(1).spki();
    let point = &spki_der[spki_der.len() - 65..];
    let x_and_y = &point[1..];
    let parity = point[64] & 1;
    let with = |first: u8, rest: &[u8]| [&[first], rest].concat();
    let mut off_curve = point.to_vec();
    off_curve[64] ^= 1;
    let prime = b"ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
    let prime = BigUint::parse_bytes(prime, 16).unwrap().to_bytes_be();
    for (what, bits) in [
        ("infinity", vec![0]),
        ("(0, 0)", with(4, &[0; 64])),
        ("off the curve", off_curve),
        ("x is p", with(4, &[&prime[..], &x_and_y[32..]].concat())),
        ("hybrid", with(6 | parity, x_and_y)),
        ("compressed", with(2 | parity, &x_and_y[..32])),
        ("trailing octet", [point, &[0]].concat()),
    ] {
        let request = with_key(&server, &elliptic_spki(P256, &bits));
        server.refuses(what, &request, MALFORMED_KEY);
    }
    let parameters: &[(&str, &[u8])] = &[
        ("no parameters", &[]),
        ("explicit parameters", &[0x30, 3, 2, 1, 1]),
        ("NULL parameters", &[5, 0]),
    ];
    for (what, parameters) in parameters {
        let request = with_key(&server, &elliptic_spki_with(parameters, point));
        server.refuses(what, &request, MALFORMED_KEY);
    }
    let request = with_key(&server, &elliptic_spki(P384, point));
    server.refuses("P-384 named over P-256", &request, MALFORMED_KEY);
    still_issues(&server);
}

/// P13, P36
#[test]
fn keys_of_other_algorithms_are_refused_by_name() {
    let server = TestServer::start();
    let curve = |oid: &[u8]| elliptic_spki(oid, &[4; 65]);
    let other = |oid: &[u8]| spki(&[&der::encode(tag::OID, &[oid])], &[4; 57]);
    for (what, key, shown) in [
        ("P-224", curve(&[0x2b, 0x81, 4, 0, 0x21]), "P-224"),
        ("secp256k1", curve(&[0x2b, 0x81, 4, 0, 10]), "1.3.132.0.10"),
        (
            "brainpoolP256r1",
            curve(&[0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7]),
            "1.3.36.3.3.2.8.1.1.7",
        ),
        (
            "SM2",
            curve(&[0x2a, 0x81, 0x1c, 0xcf, 0x55, 1, 0x82, 0x2d]),
            "1.2.156.10197.1.301",
        ),
        ("X25519", other(&[0x2b, 0x65, 0x6e]), "X25519"),
        ("X448", other(&[0x2b, 0x65, 0x6f]), "1.3.101.111"),
        ("Ed448", other(&[0x2b, 0x65, 0x71]), "1.3.101.113"),
        ("DSA", other(&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1]), "DSA"),
        (
            "Diffie-Hellman",
            other(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 3, 1]),
            "1.2.840.113549.1.3.1",
        ),
        (
            "RSASSA-PSS",
            other(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10]),
            "1.2.840.113549.1.1.10",
        ),
        (
            "GOST R 34.10-2012",
            other(&[0x2a, 0x85, 3, 7, 1, 1, 1, 1]),
            "1.2.643.7.1.1.1.1",
        ),
        (
            "ML-DSA-65",
            other(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 0x12]),
            "2.16.840.1.101.3.4.3.18",
        ),
    ] {
        let answer = server.refuses(what, &with_key(&server, &key), NOT_PERMITTED);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(shown), "{what}: {message}");
    }
    still_issues(&server);
}

/// A number of so many bits whose remainder by every prime up to 751 is a power of 65537: the fingerprint of the broken
/// generator, and no small factor.
fn roca_modulus(bits: u64) -> BigUint {
    let primes = (2_u32..=751).filter(|n| (2..*n).all(|d| n % d != 0));
    let product: BigUint = primes.map(BigUint::from).product();
    let residue = BigUint::from(65_537_u32).modpow(&BigUint::from(123_457_u32), &product);
    ((BigUint::from(3_u8) << (bits - 2)) / &product) * &product + residue
}

/// The product of two odd numbers next to each other, without small factors, of 2048 bits.
fn product_of_neighbours() -> BigUint {
    let primes: Vec<u32> = (3_u32..=751)
        .filter(|n| (2..*n).all(|d| n % d != 0))
        .collect();
    let zero = BigUint::from(0_u8);
    let has_small_factor = |number: &BigUint| primes.iter().any(|prime| number % *prime == zero);
    let mut lower = (BigUint::from(0xf_u8) << 1020) + 1_u8;
    while has_small_factor(&lower) || has_small_factor(&(&lower + 2_u8)) {
        lower += 2_u8;
    }
    &lower * (&lower + 2_u8)
}

/// P14 to P19
#[test]
fn a_weak_rsa_key_is_refused() {
    let server = TestServer::start();
    let e: &[u8] = &[1, 0, 1];
    let power = |bits: u64| integer(&(BigUint::from(1_u8) << (bits - 1)));
    for bits in [512, 1024, 2040, 2041, 2047, 2049, 2056, 4104, 5120, 65_536] {
        let key = rsa_spki(&power(bits), e);
        let answer = server.refuses("size", &with_key(&server, &key), WEAK_KEY);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("{bits} bits")), "{message}");
    }
    // A million bits are more octets than a key may have, and more than a body.
    let request = with_key(&server, &rsa_spki(&[0x7f; 20_000], e));
    server.refuses("160 000 bits", &request, MALFORMED_KEY);

    let good = ClientKey::rsa().spki();
    let modulus = {
        let (outer, _) = der::expect(&good, tag::SEQUENCE).unwrap();
        let (_algorithm, rest) = der::read(outer.content).unwrap();
        let (bits, _) = der::expect(rest, tag::BIT_STRING).unwrap();
        let (key, _) = der::expect(&bits.content[1..], tag::SEQUENCE).unwrap();
        der::expect(key.content, tag::INTEGER).unwrap().0.content
    };
    let exponents: &[(&str, &[u8])] = &[
        ("e is 0", &[0]),
        ("e is 1", &[1]),
        ("e is 2", &[2]),
        ("e is 3", &[3]),
        ("e is even", &[1, 0, 0]),
        ("e is negative", &[0xff]),
        ("e is -65537", &[0xfe, 0xff, 0xff]),
        ("e has 2000 bits", &[0x7f; 250]),
    ];
    for (what, exponent) in exponents {
        let request = with_key(&server, &rsa_spki(modulus, exponent));
        server.refuses(what, &request, WEAK_KEY);
    }
    // With e = 1 the signature of a message is its padding: whoever can pad can sign.
    for (what, modulus) in [
        ("n is 0", vec![0]),
        ("n is 1", vec![1]),
        ("n is negative", vec![0x80; 256]),
        ("n is even", power(2048)),
        (
            "n is divisible by 751",
            integer(&((BigUint::from(1_u8) << 2047) / 751_u32 * 751_u32 + 751_u32)),
        ),
        ("neighbouring factors", integer(&product_of_neighbours())),
        ("a broken generator's", integer(&roca_modulus(2048))),
    ] {
        let request = with_key(&server, &rsa_spki(&modulus, e));
        let answer = server.refuses(what, &request, WEAK_KEY);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        let digits = message.bytes().filter(u8::is_ascii_digit).count();
        assert!(digits < 30, "{what}: no factors in {message}");
    }
    still_issues(&server);
}

/// P21
#[test]
fn the_servers_own_keys_are_no_clients_keys() {
    let server = TestServer::start();
    let file = |path: &str| std::fs::read_to_string(server.data_dir().join(path)).unwrap();
    let p256 =
        |path| ClientKey::P256(p256::ecdsa::SigningKey::from_pkcs8_pem(&file(path)).unwrap());
    let root = file("ca/root/key.pem");
    for (what, key) in [
        ("the issuing CA's", p256("ca/current/key.pem")),
        ("the log's", p256("ct/main/key.pem")),
        (
            "the root's",
            ClientKey::P384(p384::ecdsa::SigningKey::from_pkcs8_pem(&root).unwrap()),
        ),
    ] {
        let proof = key.sign(EMAIL.as_bytes());
        server.refuses(what, &with_proof(&server, &key.pem(), &proof), WEAK_KEY);
        let spki_der = key.spki();
        if matches!(key, ClientKey::P256(_)) {
            let csr = Csr::of(&spki_der).signed(|info| key.sign(info));
            server.refuses(what, &with_csr(&server, &csr), WEAK_KEY);
        }
        let named = with_proof(&server, &key.pem(), &ClientKey::p256(9).sign(b""));
        server.refuses("only named", &named, BAD_PROOF);
    }
    still_issues(&server);
}

/// P22
#[test]
fn a_private_key_is_refused_with_a_warning_to_its_owner() {
    let server = TestServer::start();
    let secret = STANDARD.encode(b"a secret that must not be told again");
    for label in [
        "PRIVATE KEY",
        "EC PRIVATE KEY",
        "RSA PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
    ] {
        let text = format!("-----BEGIN {label}-----\n{secret}\n-----END {label}-----\n");
        let as_key = server.refuses(label, &with_key_text(&server, &text), MALFORMED_KEY);
        let as_csr = request(&server, &key::csr(&text));
        let as_csr = server.refuses(label, &as_csr, MALFORMED_CSR);
        for answer in [as_key, as_csr] {
            assert!(answer.text().contains("private key; stop using"), "{label}");
            assert!(!answer.text().contains(&secret), "{label}");
        }
    }
    still_issues(&server);
}

/// P23
#[test]
fn text_around_the_first_block_of_a_key_changes_nothing() {
    let server = TestServer::start();
    let (key, other) = (ClientKey::p256(1), ClientKey::p256(2));
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let (first, second) = (key.pem(), other.pem());
    for (what, text) in [
        ("two blocks", format!("{first}{second}")),
        ("a private key behind", format!("{first}{private}")),
        ("text before", format!("my key:\n{first}")),
        ("text behind", format!("{first}\nregards, Ada")),
    ] {
        let answer = server.issues(what, &with_key_text(&server, &text));
        let leaf = leaf_of(&answer);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        assert_eq!(leaf.public_key().raw, key.spki(), "{what}");
    }
    // The first block counts: what stands before it must be no block.
    let text = format!("{second}{first}");
    server.refuses("the other first", &with_key_text(&server, &text), BAD_PROOF);
    let text = format!("{private}{first}");
    server.refuses(
        "private first",
        &with_key_text(&server, &text),
        MALFORMED_KEY,
    );
}

/// P24
#[test]
fn a_public_key_in_another_dress_is_refused() {
    let server = TestServer::start();
    let good = ClientKey::p256(1).spki();
    let text = pem("PUBLIC KEY", &good);
    let mut unused_bits = good.clone();
    unused_bits[26] = 1;
    for (what, text) in [
        ("CERTIFICATE", pem("CERTIFICATE", &good)),
        ("EC PUBLIC KEY", pem("EC PUBLIC KEY", &good)),
        ("RSA PUBLIC KEY of no RSA key", pem("RSA PUBLIC KEY", &good)),
        ("empty block", pem("PUBLIC KEY", &[])),
        ("white space", " \n\t".to_owned()),
        (
            "headers",
            text.replace("KEY-----\nM", "KEY-----\nProc-Type: 4,CLEAR\n\nM"),
        ),
        ("lower case", text.to_lowercase()),
        ("another end", text.replace("END PUBLIC", "END RSA PUBLIC")),
        ("no end", text.replace("-----END", "")),
        ("base64url in it", text.replace(['+', '/', '='], "-")),
        (
            "octet behind",
            pem("PUBLIC KEY", &[&good[..], &[0]].concat()),
        ),
        (
            "value inside",
            pem(
                "PUBLIC KEY",
                &der::encode(tag::SEQUENCE, &[&good[2..], &[5, 0]]),
            ),
        ),
        ("unused bits", pem("PUBLIC KEY", &unused_bits)),
    ] {
        server.refuses(what, &with_key_text(&server, &text), MALFORMED_KEY);
    }
    still_issues(&server);
}

/// P25, P26, P28
#[test]
fn keys_are_taken_in_every_form_that_clients_send() {
    let server = TestServer::start();
    let rsa = ClientKey::rsa();
    let pkcs1 = {
        let spki_der = rsa.spki();
        let (outer, _) = der::expect(&spki_der, tag::SEQUENCE).unwrap();
        let (_algorithm, rest) = der::read(outer.content).unwrap();
        let (bits, _) = der::expect(rest, tag::BIT_STRING).unwrap();
        bits.content[1..].to_vec()
    };
    let proof = rsa.sign(EMAIL.as_bytes());
    let request_pkcs1 = with_proof(&server, &pem("RSA PUBLIC KEY", &pkcs1), &proof);
    let answer = server.issues("PKCS#1", &request_pkcs1);
    let leaf = leaf_of(&answer);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert_eq!(leaf.public_key().raw, rsa.spki());

    let key = TestKey::generate();
    let token = server.token(&TestClaims::email(EMAIL));
    for (what, content) in [
        ("DER in version 1", key.der()),
        ("PEM in version 1", key.pem().into_bytes()),
    ] {
        let mut body = key.v1(EMAIL);
        body["publicKey"]["content"] = json!(STANDARD.encode(content));
        server.issues(what, &Request::post(V1, body.to_string()).bearer(&token));
    }
    for algorithm in ["RSA_PSS", "ED25519", "", "nonsense"] {
        let mut body = key.v2(EMAIL);
        body["publicKeyRequest"]["publicKey"]["algorithm"] = json!(algorithm);
        server.issues(&format!("called {algorithm:?}"), &request(&server, &body));
    }
}

/// P27
#[test]
fn long_and_deep_keys_are_refused() {
    let server = TestServer::start();
    let block = "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n";
    let begin = "-----BEGIN PUBLIC KEY-----\n";
    let nested = (0..3000).fold(Vec::new(), |inner: Vec<u8>, _| {
        der::encode(tag::SEQUENCE, &[&inner])
    });
    let nested_algorithm = {
        let bits = der::encode(tag::BIT_STRING, &[&[0, 4]]);
        der::encode(tag::SEQUENCE, &[&nested, &bits])
    };
    for (what, text) in [
        ("16 KiB of a key", pem("PUBLIC KEY", &[0x30; 12_288])),
        ("below the body's limit", "A".repeat(120_000)),
        ("empty blocks", block.repeat(2000)),
        ("beginnings", begin.repeat(500)),
        ("more beginnings", begin.repeat(4000)),
        ("nested", pem("PUBLIC KEY", &nested)),
        ("a nested algorithm", pem("PUBLIC KEY", &nested_algorithm)),
        ("dashes", "-".repeat(16_000)),
        ("beginnings without a label", "-----BEGIN ".repeat(1000)),
    ] {
        server.refuses(what, &with_key_text(&server, &text), MALFORMED_KEY);
    }
    for text in ["A".repeat(140_000), block.repeat(3000), begin.repeat(6000)] {
        let request = with_key_text(&server, &text);
        server.answers_with("beyond the body's limit", &request, TOO_LARGE);
    }
    still_issues(&server);
}

/// P29
#[test]
fn a_request_has_one_key_or_one_signing_request() {
    let server = TestServer::start();
    let key = TestKey::generate().v2(EMAIL)["publicKeyRequest"].clone();
    let csr = key::csr(&key::new_csr())["certificateSigningRequest"].clone();
    for (what, body) in [
        ("neither", json!({})),
        ("null", json!({ "publicKeyRequest": null })),
        (
            "both null",
            json!({ "publicKeyRequest": null, "certificateSigningRequest": null }),
        ),
        ("no key in it", json!({ "publicKeyRequest": {} })),
        (
            "a key that is null",
            json!({ "publicKeyRequest": { "publicKey": null } }),
        ),
    ] {
        server.refuses(what, &request(&server, &body), MALFORMED_KEY);
    }
    let both = json!({ "publicKeyRequest": key, "certificateSigningRequest": csr });
    server.refuses("both", &request(&server, &both), MALFORMED_REQUEST);
    still_issues(&server);
}

/// P30
#[test]
fn a_signing_request_that_is_broken_is_refused() {
    let server = TestServer::start();
    let (key, rsa) = (ClientKey::p256(1), ClientKey::rsa());
    let (key_der, rsa_der) = (key.spki(), rsa.spki());
    let other_der = ClientKey::p256(2).spki();
    let sign = |info: &[u8]| key.sign(info);
    let good = Csr::of(&key_der).signed(sign);
    server.issues("as it should be", &with_csr(&server, &good));

    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut changed = good.clone();
    changed[40] ^= 1;
    let swapped = Csr::of(&other_der).signed(sign);
    let sha1 = Csr {
        algorithm: ECDSA_SHA1,
        ..Csr::of(&key_der)
    };
    let sha1 = sha1.signed(|info| key.sign_hashed(&SHA1_FOR_LEGACY_USE_ONLY, info));
    let md5 = Csr {
        algorithm: RSA_MD5,
        ..Csr::of(&rsa_der)
    };
    let md5 = md5.signed(|info| rsa.sign(info));
    let version = Csr {
        version: 1,
        ..Csr::of(&key_der)
    };
    let weak_der = rsa_spki(&[0x40; 128], &[1, 0, 1]);
    let weak = Csr::of(&weak_der).signed(sign);
    let empty_signature = Csr::of(&key_der).signed(|_| Vec::new());
    for (what, der, reasons) in [
        ("signature changed", flipped, BAD_PROOF),
        ("key swapped", swapped, BAD_PROOF),
        ("no signature", empty_signature, BAD_PROOF),
        ("SHA-1", sha1, BAD_PROOF),
        ("MD5", md5, BAD_PROOF),
        ("RSA-1024", weak, WEAK_KEY),
        ("version 2", version.signed(sign), MALFORMED_CSR),
        ("octet behind", [&good[..], &[0]].concat(), MALFORMED_CSR),
        (
            "BER length",
            [&[0x30, 0x82, 0], &good[2..]].concat(),
            MALFORMED_CSR,
        ),
        ("cut", good[..good.len() - 1].to_vec(), MALFORMED_CSR),
        ("garbage", b"garbage".to_vec(), MALFORMED_CSR),
        ("empty", Vec::new(), MALFORMED_CSR),
        ("a key alone", key_der.clone(), MALFORMED_CSR),
    ] {
        server.refuses(what, &with_csr(&server, &der), reasons);
    }
    let answer = server.refuses(
        "a bit of the key changed",
        &with_csr(&server, &changed),
        &["bad_proof", "malformed_csr"],
    );
    assert!(!answer.text().is_empty());

    let certificate = server.trust.chain.issuing().pem();
    for (what, content) in [
        ("a certificate", json!(STANDARD.encode(certificate))),
        ("a public key", json!(STANDARD.encode(key.pem()))),
        ("DER", json!(STANDARD.encode(&good))),
        ("no PEM", json!(STANDARD.encode("hello"))),
    ] {
        let body = json!({ "certificateSigningRequest": content });
        server.refuses(what, &request(&server, &body), MALFORMED_CSR);
    }
    let text = json!({ "certificateSigningRequest": pem("CERTIFICATE REQUEST", &good) });
    server.refuses("not base64", &request(&server, &text), MALFORMED_REQUEST);
    still_issues(&server);
}

/// P31
#[test]
fn nothing_of_what_a_signing_request_asks_for_is_in_the_certificate() {
    let server = TestServer::start();
    let key = ClientKey::p256(1);
    let extension = |oid: &[u8], critical: &[u8], value: &[u8]| {
        let oid = der::encode(tag::OID, &[oid]);
        let value = der::encode(tag::OCTET_STRING, &[value]);
        der::encode(tag::SEQUENCE, &[&oid, critical, &value])
    };
    let critical = &[1, 1, 0xff];
    let name = der::encode(
        tag::SEQUENCE,
        &[&der::encode(0x81, &[b"victim@example.com"])],
    );
    let any_usage = [0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0];
    let wishes = der::encode(
        tag::SEQUENCE,
        &[
            // BasicConstraints CA:TRUE; key usage keyCertSign; any extended key usage.
            &extension(&[0x55, 0x1d, 0x13], critical, &[0x30, 3, 1, 1, 0xff]),
            &extension(&[0x55, 0x1d, 0x0f], critical, &[3, 2, 2, 4]),
            &extension(&[0x55, 0x1d, 0x25], &[], &any_usage),
            // Alternative name, key identifier, name constraints.
            &extension(&[0x55, 0x1d, 0x11], critical, &name),
            &extension(&[0x55, 0x1d, 0x0e], &[], &[4, 2, 1, 2]),
            &extension(&[0x55, 0x1d, 0x1e], critical, &[0x30, 0]),
            // Poison, and the issuer of Sigstore's extensions.
            &extension(&[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 3], critical, &[5, 0]),
            &extension(
                &[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1, 8],
                &[],
                b"\x0c\x04evil",
            ),
        ],
    );
    // extensionRequest (RFC 2985, section 5.4.2).
    let request_oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
    let attribute = der::encode(
        tag::SEQUENCE,
        &[&request_oid, &der::encode(0x31, &[&wishes])],
    );
    let common_name = [&[6, 3, 0x55, 4, 3, 0x0c, 7][..], b"Mallory"].concat();
    let common_name = der::encode(tag::SEQUENCE, &[&common_name]);
    let subject = der::encode(0x31, &[&common_name]);
    let key_der = key.spki();
    let wishing = Csr {
        subject: &subject,
        attributes: &attribute,
        ..Csr::of(&key_der)
    };
    let wishing = wishing.signed(|info| key.sign(info));
    let (_, read) = X509CertificationRequest::from_der(&wishing).unwrap();
    assert_eq!(read.requested_extensions().unwrap().count(), 8);
    let plain = Csr::of(&key_der).signed(|info| key.sign(info));

    let wished = leaf_of(&server.issues("wishes", &with_csr(&server, &wishing)));
    let plain = leaf_of(&server.issues("none", &with_csr(&server, &plain)));

    let (_, wished) = X509Certificate::from_der(&wished).unwrap();
    let (_, plain) = X509Certificate::from_der(&plain).unwrap();
    assert_eq!(wished.subject().as_raw(), plain.subject().as_raw());
    assert_eq!(wished.public_key().raw, plain.public_key().raw);
    let said = |certificate: &X509Certificate<'_>| -> Vec<(String, bool, Vec<u8>)> {
        let extensions = certificate.extensions().iter();
        // The timestamp is of the one certificate.
        let kept = extensions.filter(|one| one.oid.to_id_string() != "1.3.6.1.4.1.11129.2.4.2");
        kept.map(|one| (one.oid.to_id_string(), one.critical, one.value.to_vec()))
            .collect()
    };
    assert_eq!(said(&wished), said(&plain));
}

/// P32
#[test]
fn a_signing_request_with_very_many_attributes_is_refused() {
    let server = TestServer::start();
    let key = ClientKey::p256(1);
    let key_der = key.spki();
    let attribute = [0x30, 7, 6, 3, 0x55, 4, 3, 0x31, 0];
    let with_attributes = |count: usize| {
        let csr = Csr {
            attributes: &attribute.repeat(count),
            ..Csr::of(&key_der)
        };
        let der = csr.signed(|info| key.sign(info));
        with_csr(&server, &der)
    };
    server.issues("a thousand", &with_attributes(1000));
    server.refuses("two thousand", &with_attributes(2000), MALFORMED_CSR);
    server.answers_with("ten thousand", &with_attributes(10_000), TOO_LARGE);
    still_issues(&server);
}

/// P33, P35
#[test]
fn a_proof_says_that_it_was_made_and_not_when_or_for_whom() {
    let server = TestServer::start();
    // A signing request is bound to no token: whoever finds one can have a certificate for its key in their own name.
    let csr = key::csr(&key::new_csr());
    for address in [EMAIL, "eve@example.com"] {
        let token = server.token(&TestClaims::email(address));
        let request = Request::post(V2, csr.to_string()).bearer(&token);
        server.issues(address, &request);
    }
    // The challenge is the identity itself, by protocol: a proof stays good.
    let body = TestKey::generate().v2(EMAIL);
    server.issues("today", &request(&server, &body));
    server.wait_for_checkpoint();
    server.clock.advance(Duration::from_secs(86_400));
    server.issues("tomorrow", &request(&server, &body));
}
