//! The other side: what a signing client sends, and what it checks of the answer.
//!
//! Everything in this file uses `p256` and an X.509 parser of its own, none of the code that issued: a second opinion on it
//! for the self-test, the benchmarks and the tests. It speaks P-256 alone, which is what `init` makes. The modules below
//! are what `mayfly cert` is made of, and take every kind of key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::ca::precertificate::SCT_LIST_OID;
use crate::ca::tbs::without_extension;
use crate::random::{Random, RandomError};
use crate::tlog::tree::{Hash, leaf_hash, sha256};
use crate::x509::der;

pub mod certificates;
pub mod details;
mod grpc;
pub mod request;
pub mod token;
pub mod trusted_root;
pub mod verify;

/// The type of the `otherName` that holds `user!domain`.
const USER_NAME_OID: &str = "1.3.6.1.4.1.57264.1.7";

/// A key that lives as long as one signature takes.
#[derive(Debug)]
pub struct EphemeralKey(SigningKey);

impl EphemeralKey {
    /// Draws a P-256 key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomError> {
        loop {
            let mut scalar = zeroize::Zeroizing::new([0; 32]);
            random.fill(scalar.as_mut())?;
            // Zero, or not below the group's order: one draw in 2^32.
            if let Ok(key) = SigningKey::from_slice(scalar.as_ref()) {
                return Ok(Self(key));
            }
        }
    }

    /// Signs: ECDSA with SHA-256, DER.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    /// The public key as a DER SubjectPublicKeyInfo. Empty only if the library cannot encode its own key.
    #[must_use]
    pub fn public_key_der(&self) -> Vec<u8> {
        self.0
            .verifying_key()
            .to_public_key_der()
            .map(|document| document.as_bytes().to_vec())
            .unwrap_or_default()
    }

    /// The body of `POST /api/v2/signingCert`, with the token in it and a proof over `challenge`.
    #[must_use]
    pub fn signing_request(&self, token: &str, challenge: &str) -> String {
        let public_key = self
            .0
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .unwrap_or_default();
        serde_json::json!({
            "credentials": { "oidcIdentityToken": token },
            "publicKeyRequest": {
                "publicKey": { "algorithm": "ECDSA", "content": public_key },
                "proofOfPossession": STANDARD.encode(self.sign(challenge.as_bytes())),
            },
        })
        .to_string()
    }
}

/// What a verifier expects of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The key that was certified, a DER SubjectPublicKeyInfo.
    pub public_key_der: &'a [u8],
    /// The one name in the certificate.
    pub name: &'a str,
    /// The issuer of the token, in extension 1.3.6.1.4.1.57264.1.8.
    pub issuer: &'a str,
    /// The certificate of the trusted issuing CA, DER.
    pub authority_der: &'a [u8],
    /// The trusted log's key, a DER SubjectPublicKeyInfo.
    pub log_key_der: &'a [u8],
    /// When the certificate must be valid.
    pub now: OffsetDateTime,
}

/// A certificate that holds all that was expected.
#[derive(Clone, Debug)]
pub struct CheckedCertificate {
    /// Its leaf's place in the log, where the timestamp tells it.
    pub leaf_index: Option<u64>,
    /// The hash of its leaf in the log.
    pub leaf_hash: Hash,
}

/// What is wrong with a certificate. The text names the check that failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct CheckError(String);

fn failed<T>(what: impl Into<String>) -> Result<T, CheckError> {
    Err(CheckError(what.into()))
}

trait OrFailed<T> {
    fn or_failed(self, what: &str) -> Result<T, CheckError>;
}

impl<T> OrFailed<T> for Option<T> {
    fn or_failed(self, what: &str) -> Result<T, CheckError> {
        self.ok_or_else(|| CheckError(what.to_owned()))
    }
}

impl<T, E> OrFailed<T> for Result<T, E> {
    fn or_failed(self, what: &str) -> Result<T, CheckError> {
        self.map_err(|_| CheckError(what.to_owned()))
    }
}

/// Reads the PEM certificates of an answer to `POST /api/v2/signingCert`; DER, leaf first.
///
/// # Errors
/// When the answer has another shape, or a certificate is not PEM.
pub fn certificates_of_answer(body: &[u8]) -> Result<Vec<Vec<u8>>, CheckError> {
    let answer: serde_json::Value =
        serde_json::from_slice(body).or_failed("the answer is not JSON")?;
    let chain = answer.pointer("/signedCertificateEmbeddedSct/chain/certificates");
    let chain = chain
        .and_then(serde_json::Value::as_array)
        .or_failed("the answer holds no chain with an embedded SCT")?;
    let mut certificates = Vec::with_capacity(chain.len());
    for certificate in chain {
        let block = pem::parse(certificate.as_str().unwrap_or_default())
            .or_failed("a certificate is not PEM")?;
        certificates.push(block.into_contents());
    }
    Ok(certificates)
}

/// Checks a certificate's signature, validity, key, name, issuer and timestamp.
///
/// # Errors
/// The first check that fails.
pub fn check_certificate(
    der: &[u8],
    expected: &Expected<'_>,
) -> Result<CheckedCertificate, CheckError> {
    let (_, leaf) = X509Certificate::from_der(der).or_failed("the certificate does not parse")?;
    let (_, authority) =
        X509Certificate::from_der(expected.authority_der).or_failed("the CA's does not parse")?;
    let tbs = leaf.tbs_certificate.as_ref();
    if !verifies(authority.public_key().raw, tbs, &leaf.signature_value.data) {
        return failed("the CA's signature does not verify");
    }
    if leaf.issuer().as_raw() != authority.subject().as_raw() {
        return failed("the certificate names another issuer than the CA");
    }
    let validity = leaf.validity();
    let (start, end) = (
        validity.not_before.to_datetime(),
        validity.not_after.to_datetime(),
    );
    // The second in which it was made is cut off its start.
    if expected.now < start || expected.now > end || (end - start).whole_seconds() != 600 {
        return failed("the certificate is not valid now for ten minutes");
    }
    if leaf.public_key().raw != expected.public_key_der {
        return failed("the certificate is for another key");
    }
    let names = leaf
        .subject_alternative_name()
        .ok()
        .flatten()
        .or_failed("the certificate has no name")?;
    let name = match names.value.general_names.as_slice() {
        [GeneralName::RFC822Name(name) | GeneralName::URI(name)] => *name,
        [GeneralName::OtherName(kind, value)] if kind.to_id_string() == USER_NAME_OID => {
            user_name(value).or_failed("the certificate's user name does not parse")?
        }
        _ => return failed("the certificate does not have exactly one name"),
    };
    if name != expected.name || !names.critical {
        return failed(format!(
            "the certificate is for {name:?}, expected {:?}",
            expected.name
        ));
    }
    let issuer = extension(&leaf, "1.3.6.1.4.1.57264.1.8")
        .or_failed("the certificate names no token issuer")?;
    let is_expected = matches!(
        der::expect(issuer, der::tag::UTF8_STRING),
        Ok((text, [])) if text.content == expected.issuer.as_bytes()
    );
    if !is_expected {
        return failed("the certificate names another token issuer");
    }

    let list = extension(&leaf, "1.3.6.1.4.1.11129.2.4.2")
        .or_failed("the certificate has no timestamp")?;
    let sct = Sct::only_one_of(list).or_failed("the certificate's timestamp does not parse")?;
    if sct.log_id != sha256(&[expected.log_key_der]) {
        return failed("the timestamp is of another log");
    }
    // RFC 6962, 3.2: what the log promised to hold is the certificate as it was before the timestamp.
    let logged =
        without_extension(tbs, SCT_LIST_OID).or_failed("the certificate cannot be taken apart")?;
    let entry = sct.signed_entry(&sha256(&[authority.public_key().raw]), &logged);
    if !verifies(expected.log_key_der, &entry, sct.signature) {
        return failed("the log's signature does not verify");
    }
    Ok(CheckedCertificate {
        leaf_index: sct.leaf_index(),
        leaf_hash: leaf_hash(&entry),
    })
}

/// The text in the value of an `otherName`: `[0] EXPLICIT UTF8String`.
fn user_name(value: &[u8]) -> Option<&str> {
    let (tagged, []) = der::expect(value, 0xa0).ok()? else {
        return None;
    };
    let (text, []) = der::expect(tagged.content, der::tag::UTF8_STRING).ok()? else {
        return None;
    };
    str::from_utf8(text.content).ok()
}

fn verifies(key_der: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (
        VerifyingKey::from_public_key_der(key_der),
        Signature::from_der(signature),
    ) else {
        return false;
    };
    key.verify(message, &signature).is_ok()
}

fn extension<'a>(certificate: &'a X509Certificate<'_>, oid: &str) -> Option<&'a [u8]> {
    let mut found = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.oid.to_id_string() == oid);
    found.next().map(|extension| extension.value)
}

/// A signed certificate timestamp, cut out of its list (RFC 6962, sections 3.2 and 3.3).
struct Sct<'a> {
    log_id: [u8; 32],
    timestamp: [u8; 8],
    extensions: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Sct<'a> {
    fn only_one_of(extension: &'a [u8]) -> Option<Self> {
        let (list, []) = der::expect(extension, der::tag::OCTET_STRING).ok()? else {
            return None;
        };
        let (list, []) = vector(list.content)? else {
            return None;
        };
        let (sct, []) = vector(list)? else {
            return None;
        };
        let (&[0], rest) = sct.split_first_chunk::<1>()? else {
            return None;
        };
        let (&log_id, rest) = rest.split_first_chunk()?;
        let (&timestamp, rest) = rest.split_first_chunk()?;
        let (extensions, rest) = vector(rest)?;
        // SHA-256 with ECDSA.
        let (&[4, 3], rest) = rest.split_first_chunk::<2>()? else {
            return None;
        };
        let (signature, []) = vector(rest)? else {
            return None;
        };
        Some(Self {
            log_id,
            timestamp,
            extensions,
            signature,
        })
    }

    /// The bytes that the timestamp signs, which are also those of the leaf: version, type, time, the entry, extensions.
    fn signed_entry(&self, issuer_key_hash: &Hash, tbs: &[u8]) -> Vec<u8> {
        let length = u32::try_from(tbs.len()).unwrap_or(u32::MAX).to_be_bytes();
        let extensions_length = u16::try_from(self.extensions.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        [
            &[0, 0],
            &self.timestamp[..],
            &[0, 1],
            issuer_key_hash,
            length.get(1..).unwrap_or_default(),
            tbs,
            &extensions_length,
            self.extensions,
        ]
        .concat()
    }

    /// Extension `leaf_index`: type 0, five octets (C2SP static-ct-api).
    fn leaf_index(&self) -> Option<u64> {
        let index: &[u8; 5] = self.extensions.strip_prefix(&[0, 0, 5])?.try_into().ok()?;
        Some(
            index
                .iter()
                .fold(0, |sum, &octet| sum << 8 | u64::from(octet)),
        )
    }
}

/// A TLS vector with a length of two octets, and what follows it.
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(length)))
}
