//! Request bodies of the signing endpoints: from JSON, or a message of gRPC, to a [`SigningRequest`].
//!
//! Reads what Fulcio's protobuf JSON decoder reads: `null` is absence, unknown members are skipped, bytes are base64 of
//! either alphabet; a member given twice is an error. The body is read in one pass, and no message repeats what it holds.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use prost::Message as _;
use serde::de::{self, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::ca::request::{IdToken, KeyEncoding, ProofOfPossession, SigningRequest};
use crate::proto::fulcio;
use crate::reason::Reason;

/// How deep objects and arrays may be nested, in members that are skipped too.
const MAX_DEPTH: u8 = 32;

/// Why a body is no request for a certificate. The client's fault, always.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not the JSON that the endpoint takes; what was expected, with line and column.
    #[error("the request body is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Not the message that the procedure takes.
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
    /// There is no token.
    #[error("the request has no ID token; {expected}")]
    NoToken {
        /// Where this endpoint looks for one.
        expected: &'static str,
    },
    /// More than one `Authorization` header: it is not for us to choose.
    #[error("the request has more than one Authorization header")]
    SeveralAuthorizations,
    /// The first version of the interface wants a key, or a certificate signing request, before it looks at the token.
    #[error("the request has neither `publicKey` nor `certificateSigningRequest`")]
    NoKey,
}

impl RequestError {
    /// The code that stands for it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Json(_) | Self::Protobuf(_) => Reason::MalformedRequest,
            Self::NoToken { .. } | Self::SeveralAuthorizations => Reason::MissingToken,
            Self::NoKey => Reason::MalformedPublicKey,
        }
    }
}

/// Decodes the body of `POST /api/v2/signingCert`. `authorizations` are the values of all `Authorization` headers; they
/// count only when the body has no token.
///
/// # Errors
/// See [`RequestError`].
pub fn decode_v2<'a>(
    body: &[u8],
    authorizations: impl IntoIterator<Item = &'a [u8]>,
) -> Result<SigningRequest, RequestError> {
    let body: BodyV2 = decode(body)?;
    let token = match body.credentials.unwrap_or_default().token {
        Some(token) if !token.trim_ascii().is_empty() => trimmed(token),
        _ => header_token(
            authorizations,
            "send `credentials.oidcIdentityToken` or `Authorization: Bearer <token>`",
        )?,
    };
    let proof = match body.certificate_signing_request {
        Some(pem) if !pem.is_empty() => ProofOfPossession::CertificateRequest { pem },
        _ => {
            let request = body.public_key_request.unwrap_or_default();
            ProofOfPossession::Challenge {
                public_key: request
                    .public_key
                    .unwrap_or_default()
                    .content
                    .unwrap_or_default(),
                encoding: KeyEncoding::Pem,
                signature: request.proof_of_possession.unwrap_or_default(),
            }
        }
    };
    Ok(SigningRequest { token, proof })
}

/// Decodes the body of `POST /api/v1/signingCert`. `authorizations` are the values of all `Authorization` headers, where
/// the token must be.
///
/// # Errors
/// See [`RequestError`].
pub fn decode_v1<'a>(
    body: &[u8],
    authorizations: impl IntoIterator<Item = &'a [u8]>,
) -> Result<SigningRequest, RequestError> {
    let body: BodyV1 = decode(body)?;
    let proof = match (body.certificate_signing_request, body.public_key) {
        (Some(pem), _) if !pem.is_empty() => ProofOfPossession::CertificateRequest { pem },
        (_, Some(public_key)) => ProofOfPossession::Challenge {
            public_key: public_key.content.unwrap_or_default(),
            encoding: KeyEncoding::PemOrDer,
            signature: body.signed_email_address.unwrap_or_default(),
        },
        (_, None) => return Err(RequestError::NoKey),
    };
    let token = header_token(authorizations, "send `Authorization: Bearer <token>`")?;
    Ok(SigningRequest { token, proof })
}

/// Decodes the message of `CreateSigningCertificate`. `tokens` are the values of the metadata `oidcidentitytoken`, which count
/// when the message has no token and there is one of them; after them the one of `authorizations` counts.
///
/// # Errors
/// See [`RequestError`].
pub fn decode_grpc<'a>(
    message: &[u8],
    tokens: impl IntoIterator<Item = &'a [u8]>,
    authorizations: impl IntoIterator<Item = &'a [u8]>,
) -> Result<SigningRequest, RequestError> {
    let message = fulcio::CreateSigningCertificateRequest::decode(message)?;
    let in_message = message.credentials.and_then(|credentials| {
        let fulcio::credentials::Credentials::OidcIdentityToken(token) = credentials.credentials?;
        Some(token)
    });
    let token = match in_message {
        Some(token) if !token.trim_ascii().is_empty() => trimmed(token),
        _ => metadata_token(tokens).map_or_else(
            || {
                let expected = "send `credentials.oidc_identity_token`, or the metadata `authorization: Bearer <token>`";
                header_token(authorizations, expected)
            },
            Ok,
        )?,
    };
    use fulcio::create_signing_certificate_request::Key;
    let proof = match message.key {
        Some(Key::CertificateSigningRequest(pem)) if !pem.is_empty() => {
            let pem = Zeroizing::new(pem);
            ProofOfPossession::CertificateRequest { pem }
        }
        Some(Key::PublicKeyRequest(request)) => ProofOfPossession::Challenge {
            public_key: Zeroizing::new(request.public_key.unwrap_or_default().content.into_bytes()),
            encoding: KeyEncoding::Pem,
            signature: request.proof_of_possession,
        },
        Some(Key::CertificateSigningRequest(_)) | None => ProofOfPossession::Challenge {
            public_key: Zeroizing::default(),
            encoding: KeyEncoding::Pem,
            signature: Vec::new(),
        },
    };
    Ok(SigningRequest { token, proof })
}

/// The token in the one value of the metadata for it; several count as none.
fn metadata_token<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<IdToken> {
    let mut values = values.into_iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let token = std::str::from_utf8(value).ok()?.trim_ascii();
    (!token.is_empty()).then(|| IdToken::new(token.to_owned()))
}

/// Reads the token of the one `Authorization` header: `Bearer <token>`, in any case, or the token alone.
fn header_token<'a>(
    authorizations: impl IntoIterator<Item = &'a [u8]>,
    expected: &'static str,
) -> Result<IdToken, RequestError> {
    /// The scheme (RFC 6750, section 2.1), with the space behind it.
    const SCHEME: &[u8] = b"bearer ";
    let mut values = authorizations.into_iter();
    let value = values.next().unwrap_or_default();
    if values.next().is_some() {
        return Err(RequestError::SeveralAuthorizations);
    }
    let value = value.trim_ascii_start();
    let token = match value.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => token,
        _ => value,
    };
    match std::str::from_utf8(token.trim_ascii()) {
        // With a space in it, it is of another scheme.
        Ok(token)
            if !token.is_empty()
                && !token.eq_ignore_ascii_case("bearer")
                && !token.contains(' ') =>
        {
            Ok(IdToken::new(token.to_owned()))
        }
        _ => Err(RequestError::NoToken { expected }),
    }
}

fn trimmed(token: String) -> IdToken {
    let inner = token.trim_ascii();
    IdToken::new(if inner.len() == token.len() {
        token
    } else {
        inner.to_owned()
    })
}

/// Decodes one message that is the whole of `body`. An empty body is an empty message.
fn decode<M: Message>(body: &[u8]) -> Result<M, serde_json::Error> {
    if body.trim_ascii().is_empty() {
        return Ok(M::default());
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let message = Object::<M>::new("the request body", MAX_DEPTH).deserialize(&mut json)?;
    json.end()?;
    message.ok_or_else(|| serde_json::Error::custom("the request body must be an object, not null"))
}

/// A protobuf message as JSON: an object whose members are known by name.
trait Message: Default {
    /// The names of each member; the first one is the one that messages show and that [`Self::read`] is given.
    const MEMBERS: &'static [&'static [&'static str]];

    /// Reads the value of the member called `name`, one of [`Self::MEMBERS`].
    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        depth: u8,
        map: &mut A,
    ) -> Result<(), A::Error>;
}

/// The body of the second version.
#[derive(Default)]
struct BodyV2 {
    credentials: Option<Credentials>,
    public_key_request: Option<PublicKeyRequest>,
    certificate_signing_request: Option<Zeroizing<Vec<u8>>>,
}

impl Message for BodyV2 {
    const MEMBERS: &'static [&'static [&'static str]] = &[
        &["credentials"],
        &["publicKeyRequest", "public_key_request"],
        &["certificateSigningRequest", "certificate_signing_request"],
    ];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        depth: u8,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "credentials" => self.credentials = map.next_value_seed(Object::new(name, depth))?,
            "publicKeyRequest" => {
                self.public_key_request = map.next_value_seed(Object::new(name, depth))?;
            }
            _ => {
                self.certificate_signing_request =
                    map.next_value_seed(Base64(name))?.map(Zeroizing::new);
            }
        }
        if self.public_key_request.is_some() && self.certificate_signing_request.is_some() {
            return Err(A::Error::custom(
                "`publicKeyRequest` and `certificateSigningRequest` exclude each other",
            ));
        }
        Ok(())
    }
}

/// The body of the first version, which knows no second spelling of its members.
#[derive(Default)]
struct BodyV1 {
    public_key: Option<PublicKey<true>>,
    signed_email_address: Option<Vec<u8>>,
    certificate_signing_request: Option<Zeroizing<Vec<u8>>>,
}

impl Message for BodyV1 {
    const MEMBERS: &'static [&'static [&'static str]] = &[
        &["publicKey"],
        &["signedEmailAddress"],
        &["certificateSigningRequest"],
    ];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        depth: u8,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "publicKey" => self.public_key = map.next_value_seed(Object::new(name, depth))?,
            "signedEmailAddress" => {
                self.signed_email_address = map.next_value_seed(Base64(name))?
            }
            _ => {
                self.certificate_signing_request =
                    map.next_value_seed(Base64(name))?.map(Zeroizing::new);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Credentials {
    token: Option<String>,
}

impl Message for Credentials {
    const MEMBERS: &'static [&'static [&'static str]] =
        &[&["oidcIdentityToken", "oidc_identity_token"]];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        _depth: u8,
        map: &mut A,
    ) -> Result<(), A::Error> {
        self.token = map.next_value_seed(Text(name))?;
        Ok(())
    }
}

#[derive(Default)]
struct PublicKeyRequest {
    public_key: Option<PublicKey<false>>,
    proof_of_possession: Option<Vec<u8>>,
}

impl Message for PublicKeyRequest {
    const MEMBERS: &'static [&'static [&'static str]] = &[
        &["publicKey", "public_key"],
        &["proofOfPossession", "proof_of_possession"],
    ];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        depth: u8,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "publicKey" => self.public_key = map.next_value_seed(Object::new(name, depth))?,
            _ => self.proof_of_possession = map.next_value_seed(Base64(name))?,
        }
        Ok(())
    }
}

/// A public key; its content is base64 in the first version and text in the second.
#[derive(Default)]
struct PublicKey<const IS_BASE64: bool> {
    content: Option<Zeroizing<Vec<u8>>>,
}

impl<const IS_BASE64: bool> Message for PublicKey<IS_BASE64> {
    const MEMBERS: &'static [&'static [&'static str]] = &[&["content"], &["algorithm"]];

    fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        depth: u8,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "content" if IS_BASE64 => {
                self.content = map.next_value_seed(Base64(name))?.map(Zeroizing::new);
            }
            "content" => {
                let content = map.next_value_seed(Text(name))?;
                self.content = content.map(|text| Zeroizing::new(text.into_bytes()));
            }
            // The key says itself what it is, and clients send anything here.
            _ => map.next_value_seed(Skipped(depth))?,
        }
        Ok(())
    }
}

/// Reads a message, or `None` for `null`.
struct Object<M> {
    name: &'static str,
    depth: u8,
    message: PhantomData<M>,
}

impl<M> Object<M> {
    /// `depth` is how many levels of nesting are left, this one included.
    const fn new(name: &'static str, depth: u8) -> Self {
        Self {
            name,
            depth,
            message: PhantomData,
        }
    }
}

impl<'de, M: Message> DeserializeSeed<'de> for Object<M> {
    type Value = Option<M>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, M: Message> Visitor<'de> for Object<M> {
    type Value = Option<M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be an object", Quoted(self.name))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, _text: &str) -> Result<Self::Value, E> {
        // The default names the text, and this one may be a token or a key in the wrong place.
        Err(E::custom(format_args!(
            "{} must be an object, not a string",
            Quoted(self.name)
        )))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let depth = deeper(self.depth)?;
        let mut message = M::default();
        let mut seen = 0_u8;
        while let Some(member) = map.next_key_seed(Member(M::MEMBERS))? {
            let Some((index, name)) = member else {
                map.next_value_seed(Skipped(depth))?;
                continue;
            };
            if seen >> index & 1 != 0 {
                return Err(A::Error::custom(format_args!("`{name}` is given twice")));
            }
            seen |= 1 << index;
            message.read(name, depth, &mut map)?;
        }
        Ok(Some(message))
    }
}

/// A member's name in backquotes; the body, which has none, without.
struct Quoted(&'static str);

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(' ') {
            f.write_str(self.0)
        } else {
            write!(f, "`{}`", self.0)
        }
    }
}

/// Reads a member's name: its place in the table and its first spelling, or `None` when it is unknown.
struct Member(&'static [&'static [&'static str]]);

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Option<(usize, &'static str)>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Member {
    type Value = Option<(usize, &'static str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let index = self.0.iter().position(|names| names.contains(&text));
        Ok(index.and_then(|index| Some((index, *self.0.get(index)?.first()?))))
    }
}

/// Reads a text, or `None` for `null`.
struct Text(&'static str);

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be a string", self.0)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }
}

/// Reads bytes, or `None` for `null`.
struct Base64(&'static str);

impl<'de> DeserializeSeed<'de> for Base64 {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Base64 {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be a string of base64", self.0)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        decode_base64(text)
            .map(Some)
            .ok_or_else(|| E::custom(format_args!("`{}` is not base64", self.0)))
    }
}

/// Decodes base64 of either alphabet (RFC 4648, sections 4 and 5), with its whole padding or none, with or without line
/// breaks.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let joined: String;
    let text = if text.contains(['\r', '\n']) {
        joined = text.replace(['\r', '\n'], "");
        &joined
    } else {
        text
    };
    let digits = if text.len() % 4 == 0 {
        let one_less = text.strip_suffix('=').unwrap_or(text);
        one_less.strip_suffix('=').unwrap_or(one_less)
    } else {
        text
    };
    let engine = if digits.contains(['-', '_']) {
        URL_SAFE_NO_PAD
    } else {
        STANDARD_NO_PAD
    };
    engine.decode(digits).ok()
}

/// Reads a value of any kind and drops it, no more than so many levels deep.
struct Skipped(u8);

/// One level of nesting down from `depth`.
fn deeper<E: de::Error>(depth: u8) -> Result<u8, E> {
    depth
        .checked_sub(1)
        .ok_or_else(|| E::custom(format_args!("nested more than {MAX_DEPTH} levels deep")))
}

impl<'de> DeserializeSeed<'de> for Skipped {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let depth = deeper(self.0)?;
        while sequence.next_element_seed(Self(depth))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = deeper(self.0)?;
        while map.next_key_seed(Member(&[]))?.is_some() {
            map.next_value_seed(Self(depth))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    const NO_HEADER: [&[u8]; 0] = [];
    const HEADER: [&[u8]; 1] = [b"Bearer from-header"];
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----";

    /// What a request came to: token, key or request, proof.
    fn shown(request: &SigningRequest) -> (String, String, Vec<u8>) {
        let token = request.token.as_str().to_owned();
        match &request.proof {
            ProofOfPossession::Challenge {
                public_key,
                signature,
                ..
            } => (
                token,
                String::from_utf8_lossy(public_key).into_owned(),
                signature.clone(),
            ),
            ProofOfPossession::CertificateRequest { pem } => (
                token,
                format!("csr {}", String::from_utf8_lossy(pem)),
                Vec::new(),
            ),
        }
    }

    fn v2(body: &str) -> Result<SigningRequest, RequestError> {
        decode_v2(body.as_bytes(), HEADER)
    }

    #[test]
    fn the_second_version_reads_what_clients_send() {
        let pem = PEM.replace('\n', "\\n");
        for (client, body, token, key, proof) in [
            (
                "cosign, sigstore-go",
                format!(
                    r#"{{"publicKeyRequest":{{"publicKey":{{"algorithm":"ECDSA","content":"{pem}"}},"proofOfPossession":"AQID"}}}}"#
                ),
                "from-header",
                PEM,
                &[1, 2, 3][..],
            ),
            (
                "sigstore-js",
                format!(
                    r#"{{"credentials":{{"oidcIdentityToken":"from-body"}},"publicKeyRequest":{{"publicKey":{{"algorithm":"ECDSA","content":"{pem}"}},"proofOfPossession":"AQID"}}}}"#
                ),
                "from-body",
                PEM,
                &[1, 2, 3],
            ),
            (
                "sigstore-python, sigstore-rs",
                r#"{"certificateSigningRequest": "aGVsbG8="}"#.to_owned(),
                "from-header",
                "csr hello",
                &[],
            ),
            (
                "snake case",
                r#"{"credentials":{"oidc_identity_token":"t"},"public_key_request":{"public_key":{"content":"k"},"proof_of_possession":"AQ"}}"#.to_owned(),
                "t",
                "k",
                &[1],
            ),
            (
                "snake case",
                r#"{"certificate_signing_request":"aGVsbG8"}"#.to_owned(),
                "from-header",
                "csr hello",
                &[],
            ),
            (
                "null is absence",
                r#" {"certificateSigningRequest":null,"credentials":null,"publicKeyRequest":{"publicKey":{"content":"k"},"proofOfPossession":null}} "#.to_owned(),
                "from-header",
                "k",
                &[],
            ),
            (
                "unknown members, any algorithm",
                r#"{"x":[{"a":1.5e3,"a":null},true,"s"],"publicKeyRequest":{"y":{},"publicKey":{"algorithm":{"a":[]},"content":"k"}}}"#.to_owned(),
                "from-header",
                "k",
                &[],
            ),
            (
                "empty request beside nothing",
                r#"{"certificateSigningRequest":"","credentials":{"oidcIdentityToken":""}}"#.to_owned(),
                "from-header",
                "",
                &[],
            ),
            ("empty body", String::new(), "from-header", "", &[]),
            ("white space", " \r\n".to_owned(), "from-header", "", &[]),
            ("empty object", "{}".to_owned(), "from-header", "", &[]),
            (
                "white space around the token",
                r#"{"credentials":{"oidcIdentityToken":" \n t \t"}}"#.to_owned(),
                "t",
                "",
                &[],
            ),
        ] {
            let request = v2(&body).unwrap_or_else(|error| panic!("{client}: {error}"));
            assert_eq!(
                shown(&request),
                (token.to_owned(), key.to_owned(), proof.to_vec()),
                "{client}"
            );
        }
    }

    #[test]
    fn keys_are_pem_alone_in_the_second_version_and_der_too_in_the_first() {
        let encoding = |request: SigningRequest| match request.proof {
            ProofOfPossession::Challenge { encoding, .. } => Some(encoding),
            ProofOfPossession::CertificateRequest { .. } => None,
        };
        assert_eq!(encoding(v2("{}").unwrap()), Some(KeyEncoding::Pem));
        let first = decode_v1(br#"{"publicKey":{}}"#, HEADER).unwrap();
        assert_eq!(encoding(first), Some(KeyEncoding::PemOrDer));
    }

    #[test]
    fn the_first_version_reads_what_clients_send() {
        for (client, body, key, proof) in [
            (
                "gitsign",
                r#"{"publicKey":{"content":"MAA=","algorithm":"ecdsa"},"signedEmailAddress":"AQID","certificateSigningRequest":null}"#,
                "0\0",
                &[1, 2, 3][..],
            ),
            (
                "sigstore-rs",
                r#"{"publicKey":{"content":"MAA=","algorithm":"ed25519"},"signedEmailAddress":"AQID"}"#,
                "0\0",
                &[1, 2, 3],
            ),
            (
                "a request wins over a key",
                r#"{"publicKey":{"content":"MAA="},"certificateSigningRequest":"aGVsbG8="}"#,
                "csr hello",
                &[],
            ),
            (
                "an empty request does not",
                r#"{"publicKey":{"content":"MAA="},"certificateSigningRequest":""}"#,
                "0\0",
                &[],
            ),
            (
                "a token in the body is not looked at",
                r#"{"credentials":{"oidcIdentityToken":5},"publicKey":{"content":"MAA="}}"#,
                "0\0",
                &[],
            ),
        ] {
            let request = decode_v1(body.as_bytes(), HEADER)
                .unwrap_or_else(|error| panic!("{client}: {error}"));
            assert_eq!(
                shown(&request),
                ("from-header".to_owned(), key.to_owned(), proof.to_vec()),
                "{client}"
            );
        }
    }

    #[test]
    fn the_first_version_wants_a_key_before_a_token() {
        for body in [
            "",
            "{}",
            r#"{"publicKey":null}"#,
            r#"{"public_key":{"content":"MAA="}}"#,
        ] {
            let error = decode_v1(body.as_bytes(), NO_HEADER).unwrap_err();
            assert!(matches!(error, RequestError::NoKey), "{body}: {error}");
            assert_eq!(error.reason(), Reason::MalformedPublicKey);
        }
        let error = decode_v1(br#"{"publicKey":{}}"#, NO_HEADER).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the request has no ID token; send `Authorization: Bearer <token>`"
        );
        assert_eq!(error.reason(), Reason::MissingToken);
    }

    #[test]
    fn tokens_are_read_from_one_header_with_or_without_scheme() {
        for (header, token) in [
            ("Bearer t.o.k", "t.o.k"),
            ("bearer t.o.k", "t.o.k"),
            ("BEARER  t.o.k ", "t.o.k"),
            (" t.o.k ", "t.o.k"),
            ("bearerish", "bearerish"),
            ("bearer\u{e9}xy", "bearer\u{e9}xy"),
        ] {
            let request = decode_v2(b"{}", [header.as_bytes()]).unwrap();
            assert_eq!(request.token.as_str(), token, "{header}");
        }
        for header in [
            "",
            " ",
            "Bearer",
            "bearer ",
            "Bearer \t ",
            "Basic dXNlcjpwYXNz",
            "Token t.o.k",
            "Bearer t.o.k t.o.k",
        ] {
            let error = decode_v2(b"{}", [header.as_bytes()]).unwrap_err();
            assert!(
                matches!(error, RequestError::NoToken { .. }),
                "{header:?}: {error}"
            );
            assert_eq!(error.reason(), Reason::MissingToken);
        }
        let error = decode_v2(b"{}", [&b"Bearer \xff"[..]]).unwrap_err();
        assert_eq!(error.reason(), Reason::MissingToken);
        let error = decode_v2(b"{}", NO_HEADER).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the request has no ID token; send `credentials.oidcIdentityToken` or `Authorization: Bearer <token>`"
        );
    }

    #[test]
    fn two_authorization_headers_are_no_token_unless_the_body_has_one() {
        let headers = [&b"Bearer a"[..], b"Bearer b"];
        let error = decode_v2(b"{}", headers).unwrap_err();
        assert!(
            matches!(error, RequestError::SeveralAuthorizations),
            "{error}"
        );
        assert_eq!(error.reason(), Reason::MissingToken);
        let body = br#"{"credentials":{"oidcIdentityToken":"t"}}"#;
        assert_eq!(decode_v2(body, headers).unwrap().token.as_str(), "t");
    }

    #[test]
    fn what_is_not_the_expected_json_is_refused_with_its_place() {
        for (body, text) in [
            ("hello", "expected value at line 1 column 1"),
            ("null", "the request body must be an object, not null"),
            (
                "[]",
                "invalid type: sequence, expected the request body to be an object",
            ),
            (
                "1",
                "invalid type: integer `1`, expected the request body to be an object",
            ),
            ("\"s\"", "the request body must be an object, not a string"),
            ("{", "EOF while parsing an object"),
            ("{} x", "trailing characters at line 1 column 4"),
            ("{}{}", "trailing characters at line 1 column 3"),
            ("\u{feff}{}", "expected value at line 1 column 1"),
            ("{'a':1}", "key must be a string"),
            (r#"{"a":1,}"#, "trailing comma"),
            (r#"{"a":1e999999}"#, "number out of range"),
            (r#"{"a":"\ud800"}"#, "unexpected end of hex escape"),
            (
                r#"{"credentials":{},"credentials":{}}"#,
                "`credentials` is given twice at line 1 column 31",
            ),
            (
                r#"{"credentials":null,"credentials":{}}"#,
                "`credentials` is given twice",
            ),
            (
                "{\"credentials\":{\n\"oidcIdentityToken\":\"a\",\"oidc_identity_token\":\"b\"}}",
                "`oidcIdentityToken` is given twice at line 2 column 45",
            ),
            (
                r#"{"publicKeyRequest":{"publicKey":{"content":"a","content":"a"}}}"#,
                "`content` is given twice",
            ),
            (
                r#"{"credentials":5}"#,
                "invalid type: integer `5`, expected `credentials` to be an object",
            ),
            (
                r#"{"credentials":{"oidcIdentityToken":{}}}"#,
                "invalid type: map, expected `oidcIdentityToken` to be a string",
            ),
            (
                r#"{"publicKeyRequest":{"proofOfPossession":[1]}}"#,
                "invalid type: sequence, expected `proofOfPossession` to be a string of base64",
            ),
            (
                r#"{"publicKeyRequest":{"proofOfPossession":"!!!"}}"#,
                "`proofOfPossession` is not base64 at line 1 column 46",
            ),
            (
                r#"{"publicKeyRequest":{},"certificateSigningRequest":""}"#,
                "`publicKeyRequest` and `certificateSigningRequest` exclude each other",
            ),
            (
                r#"{"certificateSigningRequest":"YQ==","publicKeyRequest":{}}"#,
                "`publicKeyRequest` and `certificateSigningRequest` exclude each other",
            ),
        ] {
            let error = v2(body).unwrap_err();
            assert_eq!(error.reason(), Reason::MalformedRequest, "{body}");
            let expected = format!("the request body is not valid: {text}");
            assert!(error.to_string().starts_with(&expected), "{body}: {error}");
        }
        for body in [
            &b"{\"credentials\":{\"oidcIdentityToken\":\"\xff\"}}"[..],
            b"\xff\xfe{\0}\0",
        ] {
            let error = decode_v2(body, HEADER).unwrap_err();
            assert_eq!(error.reason(), Reason::MalformedRequest);
        }
    }

    #[test]
    fn no_error_repeats_what_was_sent() {
        for body in [
            r#""SECRET""#,
            r#"{"credentials":"SECRET"}"#,
            r#"{"publicKeyRequest":"SECRET"}"#,
            r#"{"publicKeyRequest":{"publicKey":"SECRET"}}"#,
            r#"{"publicKeyRequest":{"proofOfPossession":"SECRET!"}}"#,
            r#"{"certificateSigningRequest":"SECRET!"}"#,
            r#"{"credentials":{"oidcIdentityToken":"SECRET"},"credentials":{}}"#,
            r#"{"SECRET":tru}"#,
            r#"{"credentials":{"oidcIdentityToken":"SECRET\x"}}"#,
            r#"{"credentials":{"oidcIdentityToken":"SECRET"}"#,
        ] {
            let error = v2(body).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("SECRET"),
                "{body}: {error:?}"
            );
        }
    }

    #[test]
    fn nesting_is_bounded_in_members_that_are_skipped_too() {
        // The body is the first level.
        let nested = |open: &str, close: &str, levels: usize| {
            format!(
                r#"{{"x":{}1{}}}"#,
                open.repeat(levels),
                close.repeat(levels)
            )
        };
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            assert!(v2(&nested(open, close, 31)).is_ok(), "{open}");
            for levels in [32, 127, 128, 50_000] {
                let error = v2(&nested(open, close, levels)).unwrap_err();
                assert_eq!(error.reason(), Reason::MalformedRequest, "{open} {levels}");
                assert!(
                    error
                        .to_string()
                        .contains("nested more than 32 levels deep"),
                    "{error}"
                );
            }
        }
        for body in ["[".repeat(100_000), r#"{"a":"#.repeat(50_000)] {
            assert_eq!(v2(&body).unwrap_err().reason(), Reason::MalformedRequest);
        }
        let inside = |levels: usize| {
            format!(
                r#"{{"publicKeyRequest":{{"publicKey":{{"algorithm":{}{}}}}}}}"#,
                "[".repeat(levels),
                "]".repeat(levels)
            )
        };
        assert!(v2(&inside(29)).is_ok());
        assert!(v2(&inside(30)).is_err());
    }

    #[test]
    fn base64_is_lenient_in_form_and_strict_in_value() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("+/8=", Some(&[0xfb, 0xff])),
            ("-_8=", Some(&[0xfb, 0xff])),
            ("+/8", Some(&[0xfb, 0xff])),
            ("-_8", Some(&[0xfb, 0xff])),
            ("AQ\r\nID\n", Some(&[1, 2, 3])),
            ("A\nQ=\n=", Some(&[1])),
            ("+_8=", None),
            ("AQ=", None),
            ("A===", None),
            ("A", None),
            ("AQID====", None),
            ("AQID=", None),
            ("AQ==AQ==", None),
            ("AR==", None),
            ("AQ ID", None),
            ("AQ*=", None),
            ("=", None),
            ("====", None),
        ] {
            assert_eq!(decode_base64(text).as_deref(), bytes, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_form_of_base64_is_the_same_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            line in 1_usize..80,
        ) {
            for padded in [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)] {
                let lines = |end: &str| {
                    padded.as_bytes().chunks(line).fold(String::new(), |text, digits| {
                        text + str::from_utf8(digits).unwrap() + end
                    })
                };
                for text in [
                    padded.as_str(),
                    padded.trim_end_matches('='),
                    &lines("\n"),
                    &lines("\r\n"),
                ] {
                    prop_assert_eq!(decode_base64(text), Some(bytes.clone()), "{:?}", text);
                }
            }
        }

        #[test]
        fn whatever_is_decoded_is_strict_base64_in_its_normal_form(text in "[A-Da-d0-9+/_=\r\n-]{0,24}") {
            if let Some(bytes) = decode_base64(&text) {
                let normal: String = text
                    .replace(['\r', '\n'], "")
                    .replace('-', "+")
                    .replace('_', "/");
                let strict = STANDARD.encode(bytes);
                prop_assert!(normal == strict || normal == strict.trim_end_matches('='), "{:?}", text);
            }
        }
    }
}
