//! What clients send: requests for a certificate, and HTTP itself.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::Duration;

use actix_web::http::Uri;
use actix_web::{App, HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use mayfly::api::request::{decode_grpc, decode_v1, decode_v2};
use mayfly::ca::request::{KeyEncoding, ProofOfPossession};
use mayfly::limits::{ConnectionLimit, Networks};
use mayfly::listener::{self, ListenerConfig};
use mayfly::proto::fulcio;
use mayfly::proto::fulcio::create_signing_certificate_request::Key;
use prost::Message as _;
use serde_json::Value;

use super::check_message;

/// A message of gRPC that asks for a certificate: what is read of it comes back from being written, and stands in it.
///
/// The message without the octets before it; a token is in the metadata as well.
pub fn request_grpc(input: &[u8]) -> bool {
    const IN_METADATA: &str = "in.the.metadata";
    let read = |message: &[u8]| decode_grpc(message, [], [IN_METADATA.as_bytes()]);
    let request = match read(input) {
        Ok(request) => request,
        Err(error) => {
            check_message(&error);
            assert!(!error.to_string().contains(SECRET), "{error}");
            return false;
        }
    };
    assert!(!format!("{request:?}").contains(SECRET));
    let token = request.token.as_str();
    let stands = |octets: &[u8]| {
        octets.is_empty() || input.windows(octets.len()).any(|window| window == octets)
    };
    assert!(!token.is_empty() && token == token.trim_ascii());
    assert!(token == IN_METADATA || stands(token.as_bytes()));
    let key = match &request.proof {
        ProofOfPossession::CertificateRequest { pem } => {
            assert!(stands(pem));
            Key::CertificateSigningRequest(pem.to_vec())
        }
        ProofOfPossession::Challenge {
            public_key,
            encoding,
            signature,
        } => {
            assert_eq!(*encoding, KeyEncoding::Pem);
            assert!(stands(public_key) && stands(signature));
            Key::PublicKeyRequest(fulcio::PublicKeyRequest {
                public_key: Some(fulcio::PublicKey {
                    algorithm: 0,
                    content: String::from_utf8(public_key.to_vec()).unwrap(),
                }),
                proof_of_possession: signature.clone(),
            })
        }
    };
    let token = fulcio::credentials::Credentials::OidcIdentityToken(token.to_owned());
    let written = fulcio::CreateSigningCertificateRequest {
        credentials: Some(fulcio::Credentials {
            credentials: Some(token),
        }),
        key: Some(key),
    };
    let again = read(&written.encode_to_vec()).unwrap();
    assert_eq!(again.token.as_str(), request.token.as_str());
    match (&again.proof, &request.proof) {
        (
            ProofOfPossession::CertificateRequest { pem: again },
            ProofOfPossession::CertificateRequest { pem },
        ) => assert_eq!(again, pem),
        (
            ProofOfPossession::Challenge {
                public_key: key_again,
                signature: signature_again,
                ..
            },
            ProofOfPossession::Challenge {
                public_key,
                signature,
                ..
            },
        ) => assert_eq!((key_again, signature_again), (public_key, signature)),
        (again, first) => panic!("{first:?} came back as {again:?}"),
    }
    true
}

/// What no message may repeat; the seeds have it in tokens, keys and proofs.
const SECRET: &str = "do-not-repeat-me";

/// A request for a certificate: its members are those that a second parser finds.
///
/// The first line is the version, 1 or 2; the lines up to an empty one are the `Authorization` headers; the body follows.
pub fn request_json(input: &[u8]) -> bool {
    let mut rest = input;
    let mut line = || {
        let end = rest.iter().position(|octet| *octet == b'\n')?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        Some(line)
    };
    let Some(version) = line() else {
        return false;
    };
    let headers: Vec<&[u8]> =
        std::iter::from_fn(|| line().filter(|line| !line.is_empty())).collect();
    let body = rest;
    let is_v1 = version == b"1";
    let decoded = if is_v1 {
        decode_v1(body, headers.iter().copied())
    } else {
        decode_v2(body, headers.iter().copied())
    };
    let request = match decoded {
        Ok(request) => request,
        Err(error) => {
            check_message(&error);
            assert!(!error.to_string().contains(SECRET), "{error}");
            return false;
        }
    };
    assert!(!format!("{request:?}").contains(SECRET));
    let parsed: Value = if body.trim_ascii().is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        // What this parser refuses beyond the other lies in members that are skipped: numbers out of range.
        let Ok(parsed) = serde_json::from_slice(body) else {
            return true;
        };
        parsed
    };

    let in_body = member(&parsed, "credentials", "credentials")
        .and_then(|credentials| member(credentials, "oidcIdentityToken", "oidc_identity_token"))
        .and_then(Value::as_str)
        .map(str::trim_ascii)
        .filter(|token| !is_v1 && !token.is_empty());
    let token = request.token.as_str();
    match in_body {
        Some(expected) => assert_eq!(token, expected),
        None => {
            assert_eq!(headers.len(), 1);
            assert!(headers[0].trim_ascii().ends_with(token.as_bytes()));
        }
    }
    assert!(!token.is_empty() && token == token.trim_ascii());

    let csr = bytes(member(
        &parsed,
        "certificateSigningRequest",
        if is_v1 {
            "certificateSigningRequest"
        } else {
            "certificate_signing_request"
        },
    ));
    match &request.proof {
        ProofOfPossession::CertificateRequest { pem } => assert_eq!(**pem, csr),
        ProofOfPossession::Challenge {
            public_key,
            encoding,
            signature,
        } => {
            assert!(csr.is_empty());
            assert_eq!(*encoding == KeyEncoding::PemOrDer, is_v1);
            let (holder, proof) = if is_v1 {
                (
                    Some(&parsed),
                    member(&parsed, "signedEmailAddress", "signedEmailAddress"),
                )
            } else {
                let holder = member(&parsed, "publicKeyRequest", "public_key_request");
                let proof = holder
                    .and_then(|holder| member(holder, "proofOfPossession", "proof_of_possession"));
                (holder, proof)
            };
            let second = if is_v1 { "publicKey" } else { "public_key" };
            let content = holder
                .and_then(|holder| member(holder, "publicKey", second))
                .and_then(|key| member(key, "content", "content"));
            if is_v1 {
                assert_eq!(**public_key, bytes(content));
            } else {
                let text = content.and_then(Value::as_str).unwrap_or_default();
                assert_eq!(**public_key, text.as_bytes());
            }
            assert_eq!(*signature, bytes(proof));
        }
    }
    true
}

/// A member by either of its names.
fn member<'a>(object: &'a Value, first: &str, second: &str) -> Option<&'a Value> {
    object.get(first).or_else(|| object.get(second))
}

/// The octets of a member in base64, of either alphabet, padded or not, with or without line breaks.
fn bytes(member: Option<&Value>) -> Vec<u8> {
    let text = member.and_then(Value::as_str).unwrap_or_default();
    let mut text: String = text.chars().filter(|one| !"\r\n=".contains(*one)).collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    let engine = if text.contains(['-', '_']) {
        URL_SAFE
    } else {
        STANDARD
    };
    engine.decode(text).unwrap()
}

/// The octets of a connection, sent to the real listener: the requests that are handled are those that a strict reader
/// finds, and none comes after octets that could be read in two ways.
pub fn http_raw(input: &[u8]) -> bool {
    let handled = exchange(input);
    let mut rest = input;
    for request in &handled {
        let (expected, behind) = NaiveRequest::read(rest)
            .unwrap_or_else(|why| panic!("{why}, and yet {request:?} was handled"));
        assert_eq!(*request, expected);
        rest = behind;
    }
    !handled.is_empty()
}

/// A request as it was handled, or should be.
#[derive(Debug, Eq, PartialEq)]
struct NaiveRequest {
    method: Vec<u8>,
    target: Vec<u8>,
    body: Vec<u8>,
}

impl NaiveRequest {
    /// Reads one request whose end no two readers can disagree about (RFC 9112), and returns what follows it.
    fn read(input: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        let mut rest = input;
        while let [b'\r', b'\n', behind @ ..] | [b'\n', behind @ ..] = rest {
            rest = behind;
        }
        let mut words = head_line(&mut rest)?.split(|octet| *octet == b' ');
        let mut word = || words.next().unwrap_or_default();
        let (method, target, version) = (word(), word(), word());
        if !is_token(method) || !matches!(version, b"HTTP/1.0" | b"HTTP/1.1") {
            return Err("no request line");
        }
        let target = str::from_utf8(target).map_err(|_| "a target that is not text")?;
        let target: Uri = target.parse().map_err(|_| "a target that is not one")?;

        let (mut hosts, mut length, mut is_chunked) = (0, None, false);
        loop {
            let line = head_line(&mut rest)?;
            if line.is_empty() {
                break;
            }
            let colon = line.iter().position(|octet| *octet == b':');
            let (name, value) = line.split_at(colon.ok_or("a header without a colon")?);
            if !is_token(name) {
                return Err("a header with a name that is none");
            }
            let value = value[1..].trim_ascii();
            match &name.to_ascii_lowercase()[..] {
                b"host" => hosts += 1,
                b"content-length" => {
                    let digits = str::from_utf8(value).unwrap_or_default();
                    let is_number = !digits.is_empty() && value.iter().all(u8::is_ascii_digit);
                    let number = digits.parse::<u64>().ok().filter(|_| is_number);
                    let number = number.ok_or("a length that is not a number")?;
                    if length.replace(number).is_some() {
                        return Err("two lengths");
                    }
                }
                b"transfer-encoding" => {
                    if is_chunked
                        || version == b"HTTP/1.0"
                        || !value.eq_ignore_ascii_case(b"chunked")
                    {
                        return Err("a transfer encoding that is not just chunked");
                    }
                    is_chunked = true;
                }
                _ => {}
            }
        }
        if hosts > 1 || hosts == 0 && version == b"HTTP/1.1" {
            return Err("not one host");
        }
        let body = match (is_chunked, length) {
            (true, Some(_)) => return Err("a length and chunks"),
            (true, None) => chunks(&mut rest)?,
            (false, length) => {
                let length = usize::try_from(length.unwrap_or(0)).map_err(|_| "a huge length")?;
                take(&mut rest, length)?.to_vec()
            }
        };
        let request = Self {
            method: method.to_vec(),
            target: target.to_string().into_bytes(),
            body,
        };
        Ok((request, rest))
    }
}

/// Takes a line of a head, which a line feed may end alone (section 2.2).
fn head_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let end = rest.iter().position(|octet| *octet == b'\n');
    let end = end.ok_or("a head that does not end")?;
    let (line, behind) = rest.split_at(end);
    *rest = &behind[1..];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_text = |octet: &u8| *octet == b'\t' || *octet >= 0x20 && *octet != 0x7f;
    if line.iter().all(is_text) {
        Ok(line)
    } else {
        Err("control characters in a head")
    }
}

/// Takes a body in chunks (section 7.1).
fn chunks(rest: &mut &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut body = Vec::new();
    loop {
        let line = crlf_line(rest)?;
        let size = line
            .split(|octet| *octet == b';')
            .next()
            .unwrap_or_default();
        // Some white space before an extension is bad, but it is not ambiguous.
        let size = str::from_utf8(size.trim_ascii_end()).unwrap_or_default();
        let is_number = !size.is_empty() && size.bytes().all(|octet| octet.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16).ok().filter(|_| is_number);
        match size.ok_or("a chunk without a size")? {
            0 => break,
            size => body.extend_from_slice(take(rest, size)?),
        }
        if !crlf_line(rest)?.is_empty() {
            return Err("more in a chunk than its size");
        }
    }
    while !crlf_line(rest)?.is_empty() {}
    Ok(body)
}

fn crlf_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n");
    let line = take(rest, end.ok_or("chunks that do not end")?)?;
    *rest = &rest[2..];
    Ok(line)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], &'static str> {
    let taken = rest.split_at_checked(length);
    let (taken, behind) = taken.ok_or("a body that is cut short")?;
    *rest = behind;
    Ok(taken)
}

/// Whether the octets are a token (RFC 9110, section 5.6.2).
fn is_token(octets: &[u8]) -> bool {
    let is_inside =
        |octet: &u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(octet);
    !octets.is_empty() && octets.iter().all(is_inside)
}

/// Sends octets on a connection of their own, waits until the server closes it, and returns what the server handled.
fn exchange(input: &[u8]) -> Vec<NaiveRequest> {
    let mut stream = TcpStream::connect(*ADDRESS).unwrap();
    let port = stream.local_addr().unwrap().port();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(input);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server did not close the connection: {error}"),
    }
    HANDLED.lock().unwrap().remove(&port).unwrap_or_default()
}

/// What was handled on each connection, by the client's port.
static HANDLED: LazyLock<Mutex<HashMap<u16, Vec<NaiveRequest>>>> = LazyLock::new(Mutex::default);

/// Where a server listens that handles every request and remembers it.
static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
    let (started, address) = mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let socket = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = socket.local_addr().unwrap();
            let config = ListenerConfig {
                http2: None,
                tls: None,
                workers: 1,
                max_connections: 1000,
                by_address: ConnectionLimit::new(0, Networks::default(), || {}),
                metrics: None,
                idle_timeout: Duration::from_secs(5),
                shutdown_grace: Duration::from_secs(1),
            };
            let application = || App::new().default_service(web::to(remember));
            let listener = listener::serve("fuzz", socket, &config, application).unwrap();
            started.send(address).unwrap();
            listener.server.await.unwrap();
        });
    });
    address.recv().unwrap()
});

async fn remember(request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let handled = NaiveRequest {
        method: request.method().as_str().into(),
        target: request.uri().to_string().into_bytes(),
        body: body.to_vec(),
    };
    let port = request.peer_addr().unwrap().port();
    HANDLED
        .lock()
        .unwrap()
        .entry(port)
        .or_default()
        .push(handled);
    HttpResponse::Ok().finish()
}
