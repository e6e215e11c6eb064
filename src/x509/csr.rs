//! Certificate signing requests (PKCS #10, RFC 2986), as a proof of possession and nothing else.
//!
//! Only the key and the signature are used. Subject, attributes and requested extensions are not even parsed, so nothing of
//! them can reach a certificate.

use std::fmt;

use super::algorithm::{Hash, SignatureScheme};
use super::der::{self, DerError, tag};
use super::pem::{PemBlock, PemError};
use super::spki::{BadSignature, KeyError, SubjectPublicKey, oid_text};
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::algorithm::KeyKind;
    use crate::x509::test_key::{
        TestKey, algorithm_identifier, elliptic_spki, pem, rsa_spki, signed,
    };

    const P256_SHA256: SignatureScheme = SignatureScheme::Ecdsa(Hash::Sha256);

    /// A request as sigstore-python makes it: P-256, empty subject, BasicConstraints CA:false, critical. Made with
    /// pyca/cryptography.
    const SIGSTORE_PYTHON: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIHaMIGBAgEAMAAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASoyssYzxIQzdi2
PKIViLjVKEqlQCr0LPGC9rjsfJpBqacoI5ntCJN28pN5gbW9Xq4lnEFGJJ4ko1g4
Ql4MxDTQoB8wHQYJKoZIhvcNAQkOMRAwDjAMBgNVHRMBAf8EAjAAMAoGCCqGSM49
BAMCA0gAMEUCIQCVb+1mJKXyEJh3RZHYJI3t5vIRdv+pQUS5XWiQINRTFQIgQftv
qJFzz1v/vGfq5jeVvaQaijZqmtXMx2RLKH9eciA=
-----END CERTIFICATE REQUEST-----
";

    fn verified(pem: &str) -> Result<(SubjectPublicKey, SignatureScheme), CsrError> {
        CertificateRequest::from_pem(pem.as_bytes())?.verify()
    }

    #[test]
    fn requests_give_their_key_and_scheme() {
        for (kind, hash) in [
            (KeyKind::EcdsaP256, Some(Hash::Sha256)),
            (KeyKind::EcdsaP256, Some(Hash::Sha384)),
            (KeyKind::EcdsaP384, Some(Hash::Sha384)),
            (KeyKind::EcdsaP384, Some(Hash::Sha256)),
            (KeyKind::EcdsaP521, Some(Hash::Sha512)),
            (KeyKind::Rsa2048, Some(Hash::Sha256)),
            (KeyKind::Rsa2048, Some(Hash::Sha512)),
            (KeyKind::Ed25519, None),
        ] {
            let key = TestKey::new(kind);
            let scheme = match (kind.proof_scheme(), hash) {
                (SignatureScheme::Ecdsa(_), Some(hash)) => SignatureScheme::Ecdsa(hash),
                (SignatureScheme::RsaPkcs1(_), Some(hash)) => SignatureScheme::RsaPkcs1(hash),
                (scheme, _) => scheme,
            };
            let (proven, used) = verified(&key.csr(scheme)).unwrap();
            assert_eq!((proven.spki_der(), used), (key.spki_der(), scheme));
        }
    }

    #[test]
    fn requests_of_other_programs_are_read() {
        let crlf = SIGSTORE_PYTHON.replace('\n', "\r\n");
        let old_label = SIGSTORE_PYTHON.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
        let framed = format!("Certificate Request:\n  …\n{SIGSTORE_PYTHON}");
        for text in [
            SIGSTORE_PYTHON,
            SIGSTORE_PYTHON.trim_end(),
            &crlf,
            &old_label,
            &framed,
        ] {
            let (key, scheme) = verified(text).unwrap();
            assert_eq!((key.kind(), scheme), (KeyKind::EcdsaP256, P256_SHA256));
        }
    }

    #[test]
    fn wishes_in_a_request_change_nothing() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut wishes = rcgen::CertificateParams::new(vec!["victim.example".to_owned()]).unwrap();
        wishes.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Any];
        wishes.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 4, 1, 57264, 1, 8],
            b"\x0c\x01x".to_vec(),
        )];
        let request = wishes.serialize_request(&key).unwrap().pem().unwrap();

        let (proven, scheme) = verified(&request).unwrap();

        assert_eq!(
            proven.spki_der(),
            rcgen::PublicKeyData::subject_public_key_info(&key)
        );
        assert_eq!(scheme, SignatureScheme::Ecdsa(Hash::Sha384));
    }

    #[test]
    fn requests_not_signed_with_their_own_key_are_refused() {
        let key = TestKey::new(KeyKind::EcdsaP256);
        let other = TestKey::numbered(KeyKind::EcdsaP256, 2);
        let algorithm = algorithm_identifier(P256_SHA256);
        let sign = |message: &[u8]| key.sign(P256_SHA256, message);
        let flipped = |message: &[u8]| {
            let mut signature = sign(message);
            *signature.last_mut().unwrap() ^= 1;
            signature
        };
        let rsa = algorithm_identifier(SignatureScheme::RsaPkcs1(Hash::Sha256));
        for (what, request) in [
            (
                "key swapped",
                key.csr_with(other.spki_der(), &algorithm, sign),
            ),
            (
                "bit flipped",
                key.csr_with(key.spki_der(), &algorithm, flipped),
            ),
            (
                "no signature",
                key.csr_with(key.spki_der(), &algorithm, |_| Vec::new()),
            ),
            ("another family", key.csr_with(key.spki_der(), &rsa, sign)),
        ] {
            let error = verified(&request).unwrap_err();
            assert_eq!(error, CsrError::Signature, "{what}");
            assert_eq!(error.reason(), Reason::BadProof);
        }
    }

    #[test]
    fn broken_and_unknown_signature_algorithms_are_refused() {
        let key = TestKey::new(KeyKind::Rsa2048);
        let rsa = |last| {
            let oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last];
            der::encode(tag::SEQUENCE, &[&oid, &[5, 0]])
        };
        let pss = |hash: u8| {
            let oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
            let hash = [6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, hash, 5, 0];
            let hash = der::encode(0xa0, &[&der::encode(tag::SEQUENCE, &[&hash])]);
            der::encode(
                tag::SEQUENCE,
                &[&oid, &der::encode(tag::SEQUENCE, &[&hash])],
            )
        };
        let other = |oid: &str| CsrError::Algorithm(oid.to_owned());
        let ecdsa_sha1 = [0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
        for (algorithm, expected, reason) in [
            (rsa(4), other("1.2.840.113549.1.1.4"), Reason::BadProof),
            (rsa(5), other("1.2.840.113549.1.1.5"), Reason::BadProof),
            (
                ecdsa_sha1.to_vec(),
                other("1.2.840.10045.4.1"),
                Reason::BadProof,
            ),
            (rsa(10), other("1.2.840.113549.1.1.10"), Reason::BadProof),
            (
                pss(1),
                CsrError::Pss("SHA256-RSAPSS"),
                Reason::AlgorithmNotPermitted,
            ),
            (
                pss(2),
                CsrError::Pss("SHA384-RSAPSS"),
                Reason::AlgorithmNotPermitted,
            ),
            (
                pss(3),
                CsrError::Pss("SHA512-RSAPSS"),
                Reason::AlgorithmNotPermitted,
            ),
        ] {
            let request = key.csr_with(key.spki_der(), &algorithm, |message| key.sign_pss(message));
            let error = verified(&request).unwrap_err();
            assert_eq!((error.reason(), error), (reason, expected));
        }
    }

    #[test]
    fn keys_in_requests_are_judged_like_others() {
        let signer = TestKey::new(KeyKind::EcdsaP256);
        let request = |spki_der: &[u8]| {
            signer.csr_with(spki_der, &algorithm_identifier(P256_SHA256), |_| vec![0; 8])
        };
        let mut modulus = [0; 129];
        modulus[1] = 0x80;
        for (spki_der, reason) in [
            (rsa_spki(&modulus, &[1, 0, 1]), Reason::WeakKey),
            (
                elliptic_spki(&[0x2b, 0x81, 4, 0, 10], &[4; 65]),
                Reason::AlgorithmNotPermitted,
            ),
            (
                elliptic_spki(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], &[4; 65]),
                Reason::MalformedCsr,
            ),
        ] {
            let error = verified(&request(&spki_der)).unwrap_err();
            assert!(matches!(error, CsrError::Key(_)), "{error}");
            assert_eq!(error.reason(), reason, "{error}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        let key = TestKey::new(KeyKind::EcdsaP256);
        let algorithm = algorithm_identifier(P256_SHA256);
        let subject = der::encode(tag::SEQUENCE, &[]);
        let info = |parts: &[&[u8]]| der::encode(tag::SEQUENCE, parts);
        let request = |info: &[u8]| signed(info, &algorithm, &key.sign(P256_SHA256, info));
        let good_info = info(&[&[2, 1, 0], &subject, key.spki_der(), &[0xa0, 0]]);
        let good = request(&good_info);
        let labelled = |der: &[u8]| pem("CERTIFICATE REQUEST", der);
        assert!(verified(&labelled(&good)).is_ok());

        let mut unused_bits = good.clone();
        unused_bits[good.len() - key.sign(P256_SHA256, &good_info).len() - 1] = 1;
        for (what, text) in [
            ("trailing octet", labelled(&[&good[..], &[0]].concat())),
            (
                "trailing value",
                labelled(&der::encode(tag::SEQUENCE, &[&good[3..], &[5, 0]])),
            ),
            ("cut", labelled(&good[..good.len() - 1])),
            (
                "BER length",
                labelled(&[&[0x30, 0x82, 0], &good[2..]].concat()),
            ),
            ("unused bits", labelled(&unused_bits)),
            ("version 1", {
                labelled(&request(&info(&[
                    &[2, 1, 1],
                    &subject,
                    key.spki_der(),
                    &[0xa0, 0],
                ])))
            }),
            ("no attributes", {
                labelled(&request(&info(&[&[2, 1, 0], &subject, key.spki_der()])))
            }),
            ("value behind the attributes", {
                labelled(&request(&info(&[
                    &[2, 1, 0],
                    &subject,
                    key.spki_der(),
                    &[0xa0, 0, 5, 0],
                ])))
            }),
            ("garbage", labelled(b"garbage")),
            ("empty", labelled(&[])),
        ] {
            let error = verified(&text).unwrap_err();
            assert!(matches!(error, CsrError::Malformed(_)), "{what}: {error:?}");
            assert_eq!(error.reason(), Reason::MalformedCsr);
        }
        for (text, expected) in [
            (pem("CERTIFICATE", &good), CsrError::Label),
            (pem("PUBLIC KEY", key.spki_der()), CsrError::Label),
            (pem("PRIVATE KEY", b"secret"), CsrError::PrivateKey),
            ("hello".to_owned(), CsrError::Pem(PemError::NoBlock)),
            (labelled(&vec![0; MAX_REQUEST_BYTES]), CsrError::TooLarge),
        ] {
            let error = verified(&text).unwrap_err();
            assert_eq!((error.reason(), error), (Reason::MalformedCsr, expected));
        }
        assert_eq!(
            CertificateRequest::from_pem(&good).unwrap_err(),
            CsrError::Der
        );
    }

    #[test]
    fn a_malformed_request_is_called_so_before_its_key_is_called_weak() {
        let key = TestKey::new(KeyKind::EcdsaP256);
        let weak = rsa_spki(&[0x40; 64], &[1, 0, 1]);
        let request = key.csr_with(&weak, &[0x30, 2, 5, 0], |_| Vec::new());
        assert!(matches!(verified(&request), Err(CsrError::Malformed(_))));
    }
}
