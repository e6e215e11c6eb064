//! Certificate signing requests (PKCS #10, RFC 2986), as a proof of possession and nothing else.
//!
//! Only the key and the signature are used. Subject, attributes and requested extensions are not even parsed, so nothing of
//! them can reach a certificate.

use std::fmt;

use super::der::{self, DerError, tag};
use super::pem::{PemBlock, PemError};
use super::spki::{BadSignature, Hash, KeyError, SignatureScheme, SubjectPublicKey, oid_text};
use crate::reason::Reason;

/// The longest request that is looked at, in octets of PEM.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// The tag of the attributes, `[0] IMPLICIT SET` (RFC 2986, section 4.1).
const ATTRIBUTES_TAG: u8 = 0xa0;

/// The signature algorithms that are verified, by the content octets of their OIDs.
const ALGORITHMS: [(&[u8], SignatureScheme); 7] = [
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        SignatureScheme::Ecdsa(Hash::Sha256),
    ),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
        SignatureScheme::Ecdsa(Hash::Sha384),
    ),
    (
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
        SignatureScheme::Ecdsa(Hash::Sha512),
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
        SignatureScheme::RsaPkcs1(Hash::Sha256),
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c],
        SignatureScheme::RsaPkcs1(Hash::Sha384),
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d],
        SignatureScheme::RsaPkcs1(Hash::Sha512),
    ),
    (&[0x2b, 0x65, 0x70], SignatureScheme::Ed25519),
];

/// id-RSASSA-PSS (RFC 4055, section 3.1), content octets.
const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// The OIDs of hashes as they stand in the parameters of RSASSA-PSS, with the name that goes with each.
const PSS_HASHES: [(&[u8], &str); 3] = [
    (
        &[
            0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        ],
        "SHA256-RSAPSS",
    ),
    (
        &[
            0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
        ],
        "SHA384-RSAPSS",
    ),
    (
        &[
            0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03,
        ],
        "SHA512-RSAPSS",
    ),
];

/// Why a certificate signing request is not accepted. The client's fault, always.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_REQUEST_BYTES`].
    #[error("the certificate signing request is longer than {MAX_REQUEST_BYTES} bytes")]
    TooLarge,
    /// DER, where PEM was expected.
    #[error("the certificate signing request is DER; send its PEM text, base64-encoded once more")]
    Der,
    /// Not PEM.
    #[error("{0}; expected a PEM block labelled CERTIFICATE REQUEST")]
    Pem(#[from] PemError),
    /// PEM of something else.
    #[error("the PEM block is not labelled CERTIFICATE REQUEST or NEW CERTIFICATE REQUEST")]
    Label,
    /// It is a private key, which its owner must replace: it has been sent over the network.
    #[error(
        "the certificate signing request is a private key; stop using that key, and send only a request"
    )]
    PrivateKey,
    /// Not a DER CertificationRequest; what is wrong with it.
    #[error("the certificate signing request is malformed: {0}")]
    Malformed(&'static str),
    /// The key in it is not accepted.
    #[error("in the certificate signing request: {0}")]
    Key(#[from] KeyError),
    /// It was not signed with the key in it.
    #[error("the certificate signing request is not signed with its own key, or was changed since")]
    Signature,
    /// It is signed with an algorithm that is not verified: broken (SHA-1, MD5) or unknown; its OID.
    #[error(
        "the certificate signing request is signed with algorithm {0}; use ECDSA or RSA PKCS#1 v1.5 with SHA-256, \
         SHA-384 or SHA-512, or Ed25519"
    )]
    Algorithm(String),
    /// It is signed with RSASSA-PSS; the algorithm's name.
    #[error("the certificate signing request is signed with {0}; use RSA PKCS#1 v1.5 with SHA-256")]
    Pss(&'static str),
}

impl CsrError {
    /// The code that stands for it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::TooLarge
            | Self::Der
            | Self::Pem(_)
            | Self::Label
            | Self::PrivateKey
            | Self::Malformed(_) => Reason::MalformedCsr,
            Self::Key(error) if matches!(error.reason(), Reason::MalformedPublicKey) => {
                Reason::MalformedCsr
            }
            Self::Key(error) => error.reason(),
            Self::Signature | Self::Algorithm(_) => Reason::BadProof,
            Self::Pss(_) => Reason::AlgorithmNotPermitted,
        }
    }
}

impl From<DerError> for CsrError {
    fn from(_: DerError) -> Self {
        Self::Malformed("it is not a DER CertificationRequest")
    }
}

impl From<BadSignature> for CsrError {
    fn from(_: BadSignature) -> Self {
        Self::Signature
    }
}

/// A certificate signing request, not yet verified: it has no key to give before [`Self::verify`].
pub struct CertificateRequest {
    key: SubjectPublicKey,
    /// What is signed: the CertificationRequestInfo, DER.
    info: Vec<u8>,
    algorithm: Algorithm,
    signature: Vec<u8>,
}

/// What the request says it is signed with.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Algorithm {
    Known(SignatureScheme),
    Pss(&'static str),
    Other(String),
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl CertificateRequest {
    /// Reads the first PEM block of `text`: `CERTIFICATE REQUEST` (RFC 7468, section 7) or `NEW CERTIFICATE REQUEST`.
    ///
    /// # Errors
    /// See [`CsrError`]; a request that is malformed anywhere is called so before its key is called weak.
    pub fn from_pem(text: &[u8]) -> Result<Self, CsrError> {
        if text.len() > MAX_REQUEST_BYTES {
            return Err(CsrError::TooLarge);
        }
        let block = match PemBlock::first(text) {
            Err(PemError::NoBlock) if der::expect(text, tag::SEQUENCE).is_ok() => {
                return Err(CsrError::Der);
            }
            block => block?,
        };
        if block.is_private_key() {
            return Err(CsrError::PrivateKey);
        }
        match block.label() {
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::from_der(&block.decode()?),
            _ => Err(CsrError::Label),
        }
    }

    /// Reads a CertificationRequest (RFC 2986, section 4.2).
    fn from_der(request_der: &[u8]) -> Result<Self, CsrError> {
        let (request, after) = der::expect(request_der, tag::SEQUENCE)?;
        let (info, rest) = der::expect(request.content, tag::SEQUENCE)?;
        let (algorithm, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (signature, inside) = der::expect(rest, tag::BIT_STRING)?;
        let (version, rest) = der::expect(info.content, tag::INTEGER)?;
        let (_subject, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (key, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (_attributes, inside_info) = der::expect(rest, ATTRIBUTES_TAG)?;
        if ![after, inside, inside_info]
            .iter()
            .all(|rest| rest.is_empty())
        {
            return Err(CsrError::Malformed("there are bytes after its end"));
        }
        if version.content != [0] {
            return Err(CsrError::Malformed("its version is not 0"));
        }
        let [0, signature @ ..] = signature.content else {
            return Err(CsrError::Malformed(
                "its signature does not hold whole octets",
            ));
        };
        Ok(Self {
            algorithm: parse_algorithm(algorithm.content)?,
            key: SubjectPublicKey::from_der(key.whole.to_vec())?,
            info: info.whole.to_vec(),
            signature: signature.to_vec(),
        })
    }

    /// Verifies the request's signature with the key in it, and returns that key with the scheme of the signature.
    ///
    /// # Errors
    /// When it does not verify, or is of an algorithm that is not verified.
    pub fn verify(self) -> Result<(SubjectPublicKey, SignatureScheme), CsrError> {
        let scheme = match self.algorithm {
            Algorithm::Known(scheme) => scheme,
            Algorithm::Pss(name) => return Err(CsrError::Pss(name)),
            Algorithm::Other(oid) => return Err(CsrError::Algorithm(oid)),
        };
        self.key.verify(scheme, &self.info, &self.signature)?;
        Ok((self.key, scheme))
    }
}

/// Reads an AlgorithmIdentifier, given by its content. Parameters of the known algorithms are absent or NULL.
fn parse_algorithm(content: &[u8]) -> Result<Algorithm, CsrError> {
    let (oid, parameters) = der::expect(content, tag::OID)?;
    if oid.content == RSASSA_PSS {
        let names = |hash: &[u8]| parameters.windows(hash.len()).any(|window| window == hash);
        if let Some((_, name)) = PSS_HASHES.iter().find(|(hash, _)| names(hash)) {
            return Ok(Algorithm::Pss(name));
        }
    }
    let Some((_, scheme)) = ALGORITHMS.iter().find(|(known, _)| *known == oid.content) else {
        return Ok(Algorithm::Other(oid_text(oid.content)));
    };
    match parameters {
        [] | [tag::NULL, 0] => Ok(Algorithm::Known(*scheme)),
        _ => Err(CsrError::Malformed(
            "its signature algorithm has parameters it must not have",
        )),
    }
}
