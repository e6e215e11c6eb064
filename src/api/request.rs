//! Request bodies of the signing endpoints: from JSON to a [`SigningRequest`].
//!
//! Reads what Fulcio's protobuf JSON decoder reads: `null` is absence, unknown members are skipped, bytes are base64 of
//! either alphabet; a member given twice is an error. The body is read in one pass, and no message repeats what it holds.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::de::{self, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::ca::request::{IdToken, KeyEncoding, ProofOfPossession, SigningRequest};
use crate::reason::Reason;

/// How deep objects and arrays may be nested, in members that are skipped too.
const MAX_DEPTH: u8 = 32;

/// Why a body is no request for a certificate. The client's fault, always.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not the JSON that the endpoint takes; what was expected, with line and column.
    #[error("the request body is not valid: {0}")]
    Json(#[from] serde_json::Error),
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
            Self::Json(_) => Reason::MalformedRequest,
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
        Ok(token) if !token.is_empty() && !token.eq_ignore_ascii_case("bearer") => {
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
