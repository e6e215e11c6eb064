//! Certificate chains: the certificates of an authority, from the one that issues to the root.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature as lc;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use x509_parser::oid_registry as oids;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::x509::name::name_text;

/// The label of a certificate's PEM block (RFC 7468, section 5).
const PEM_LABEL: &str = "CERTIFICATE";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// The characters of a PEM line.
const LINE: usize = 64;

/// The signatures that are believed, for messages.
const SIGNATURES: &str = "Ed25519, or SHA-2 with ECDSA or with RSA of at least 2048 bits";

/// One certificate of a chain, with what an authority needs to know of it.
#[derive(Clone, Eq, PartialEq)]
pub struct Certificate {
    der: Vec<u8>,
    fingerprint: [u8; 32],
    subject_der: Vec<u8>,
    subject_text: String,
    common_name: Option<String>,
    organization: Option<String>,
    is_self_issued: bool,
    public_key_der: Vec<u8>,
    subject_key_identifier: Option<Vec<u8>>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    is_ca: bool,
    may_sign_certificates: bool,
    extended_key_usage: ExtendedKeyUsage,
    path_length: Option<u32>,
}

/// What a certificate's extended key usage extension says of code signing (RFC 5280, section 4.2.1.12).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ExtendedKeyUsage {
    Absent,
    CodeSigning,
    Other,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject_text)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why certificates do not make the chain of an authority.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChainError {
    /// There is no certificate.
    #[error(
        "no certificate: the file must hold PEM blocks `CERTIFICATE`, the issuing CA first and the root last"
    )]
    Empty,
    /// The text is not PEM, or a block is something else.
    #[error("not a PEM file of certificates: {0}")]
    NotPem(String),
    /// A block does not hold a certificate.
    #[error("certificate {position} is not a valid X.509 certificate")]
    NotACertificate {
        /// Its place in the file, from 1.
        position: usize,
    },
    /// A certificate is not one of a CA.
    #[error(
        "certificate {position} ({subject}) is not a CA certificate: it needs CA:TRUE and key usage keyCertSign"
    )]
    NotACa {
        /// Its place in the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// A certificate is not signed by the one that follows it.
    #[error(
        "certificate {position} ({subject}) is not signed by the one after it; the order is issuing CA first, root last, and signatures are {SIGNATURES}"
    )]
    NotSignedByNext {
        /// Its place in the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// The last certificate is not self-signed.
    #[error(
        "the chain does not end in a self-signed root: the last certificate is {subject}; signatures are {SIGNATURES}"
    )]
    NoRoot {
        /// The subject of the last certificate.
        subject: String,
    },
    /// An intermediate certificate lacks the usage.
    #[error(
        "certificate {position} ({subject}) must have extended key usage code signing (1.3.6.1.5.5.7.3.3)"
    )]
    NotForCodeSigning {
        /// Its place in the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// A certificate allows fewer certificates below it than there are.
    #[error(
        "certificate {position} ({subject}) has a path length constraint that this chain exceeds"
    )]
    PathTooLong {
        /// Its place in the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// A certificate is not valid now.
    #[error(
        "certificate {position} ({subject}) is valid from {not_before} to {not_after}, and the time is {now}"
    )]
    NotValidNow {
        /// Its place in the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
        /// The first second of its validity.
        not_before: OffsetDateTime,
        /// The last second of its validity.
        not_after: OffsetDateTime,
        /// When it was looked at.
        now: OffsetDateTime,
    },
}

impl Certificate {
    /// Parses one certificate.
    ///
    /// # Errors
    /// Nothing but the failure: `der` is not exactly one certificate.
    fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
        let constraints = parsed
            .basic_constraints()
            .ok()?
            .map(|extension| extension.value);
        let key_usage = parsed.key_usage().ok()?.map(|extension| extension.value);
        let extended_key_usage = parsed
            .extended_key_usage()
            .ok()?
            .map(|extension| extension.value);
        let subject_key_identifier = parsed.extensions().iter().find_map(|extension| {
            let ParsedExtension::SubjectKeyIdentifier(identifier) = extension.parsed_extension()
            else {
                return None;
            };
            Some(identifier.0.to_vec())
        });
        let text_of = |name: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            name.and_then(|attribute| attribute.as_str().ok())
                .map(str::to_owned)
        };
        Some(Self {
            fingerprint,
            subject_der: parsed.subject().as_raw().to_vec(),
            subject_text: name_text(parsed.subject()),
            common_name: text_of(parsed.subject().iter_common_name().next()),
            organization: text_of(parsed.subject().iter_organization().next()),
            is_self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            public_key_der: parsed.public_key().raw.to_vec(),
            subject_key_identifier,
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            is_ca: constraints.is_some_and(|constraints| constraints.ca),
            may_sign_certificates: key_usage.is_none_or(|usage| usage.key_cert_sign()),
            extended_key_usage: extended_key_usage.map_or(ExtendedKeyUsage::Absent, |usage| {
                if usage.code_signing || usage.any {
                    ExtendedKeyUsage::CodeSigning
                } else {
                    ExtendedKeyUsage::Other
                }
            }),
            path_length: constraints.and_then(|constraints| constraints.path_len_constraint),
            der: der.to_vec(),
        })
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate as one PEM block without a line end after it.
    #[must_use]
    pub fn pem(&self) -> String {
        certificate_pem(&self.der)
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The subject, a DER `Name`, as it stands in the certificate.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The subject for people to read.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject_text
    }

    /// The subject's first common name.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The subject's first organization.
    #[must_use]
    pub fn organization(&self) -> Option<&str> {
        self.organization.as_deref()
    }

    /// The public key, a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// The value of the subject key identifier extension.
    #[must_use]
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.subject_key_identifier.as_deref()
    }

    /// The first second of the validity.
    #[must_use]
    pub const fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// The last second of the validity.
    #[must_use]
    pub const fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether `issuer` is named as, and its key verifies as, the one that signed this certificate.
    fn is_signed_by(&self, issuer: &Self) -> bool {
        issuer.has_signed(&self.der)
    }

    /// Whether another certificate, DER, names this one's subject as its issuer, and this one's key has signed it.
    #[must_use]
    pub fn has_signed(&self, certificate_der: &[u8]) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate_der) else {
            return false;
        };
        parsed.issuer().as_raw() == self.subject_der
            && parsed.signature_algorithm == parsed.tbs_certificate.signature
            && verifies(
                &self.public_key_der,
                &parsed.signature_algorithm.algorithm,
                parsed.tbs_certificate.as_ref(),
                &parsed.signature_value.data,
            )
    }
}

/// Whether `signature` is one over `message` by the key, in any of the algorithms that a CA may use.
fn verifies(
    public_key_der: &[u8],
    algorithm: &oids::Oid<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let candidates: &[&'static dyn lc::VerificationAlgorithm] = match algorithm {
        oid if *oid == oids::OID_SIG_ECDSA_WITH_SHA256 => &[
            &lc::ECDSA_P256_SHA256_ASN1,
            &lc::ECDSA_P384_SHA256_ASN1,
            &lc::ECDSA_P521_SHA256_ASN1,
        ],
        oid if *oid == oids::OID_SIG_ECDSA_WITH_SHA384 => &[
            &lc::ECDSA_P384_SHA384_ASN1,
            &lc::ECDSA_P256_SHA384_ASN1,
            &lc::ECDSA_P521_SHA384_ASN1,
        ],
        oid if *oid == oids::OID_SIG_ECDSA_WITH_SHA512 => &[
            &lc::ECDSA_P521_SHA512_ASN1,
            &lc::ECDSA_P384_SHA512_ASN1,
            &lc::ECDSA_P256_SHA512_ASN1,
        ],
        oid if *oid == oids::OID_PKCS1_SHA256WITHRSA => &[&lc::RSA_PKCS1_2048_8192_SHA256],
        oid if *oid == oids::OID_PKCS1_SHA384WITHRSA => &[&lc::RSA_PKCS1_2048_8192_SHA384],
        oid if *oid == oids::OID_PKCS1_SHA512WITHRSA => &[&lc::RSA_PKCS1_2048_8192_SHA512],
        oid if *oid == oids::OID_SIG_ED25519 => &[&lc::ED25519],
        _ => &[],
    };
    candidates.iter().any(|&candidate| {
        lc::UnparsedPublicKey::new(candidate, public_key_der)
            .verify(message, signature)
            .is_ok()
    })
}

/// Writes a DER certificate as one PEM block of 64-column lines (RFC 7468), without a line end after it.
#[must_use]
pub fn certificate_pem(der: &[u8]) -> String {
    let mut text = String::new();
    put_certificate_pem(&mut text, der, "\n");
    text
}

/// Appends the block that [`certificate_pem`] writes, with `line_end` between its lines: in a JSON string, that is an escape.
pub fn put_certificate_pem(text: &mut String, der: &[u8], line_end: &str) {
    // All at once, and cut into lines then: many short pieces take the encoder several times as long.
    let digits = STANDARD.encode(der);
    let lines = digits.len().div_ceil(LINE);
    text.reserve(digits.len() + (lines + 1) * line_end.len() + BEGIN.len() + END.len());
    text.push_str(BEGIN);
    text.push_str(line_end);
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push_str(line_end);
        rest = behind;
    }
    text.push_str(END);
}

/// The certificates of an authority: the issuing one first, a self-signed root last. Never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateChain(Vec<Certificate>);

impl CertificateChain {
    /// Reads a chain from PEM text, issuing CA first, root last, and checks it as an authority's chain: every certificate
    /// is one of a CA, is signed by the next, allows as many certificates below it as there are, and the last one is
    /// self-signed. All but the root must be for code signing, as verifiers nest that usage.
    ///
    /// Validity is checked by [`Self::check_validity`], because it changes with time.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn from_pem(text: &str) -> Result<Self, ChainError> {
        let blocks =
            pem::parse_many(text).map_err(|error| ChainError::NotPem(error.to_string()))?;
        let mut ders = Vec::with_capacity(blocks.len());
        for block in blocks {
            if block.tag() != PEM_LABEL {
                return Err(ChainError::NotPem(format!(
                    "there is a block `{}`",
                    block.tag()
                )));
            }
            ders.push(block.into_contents());
        }
        Self::from_ders(&ders)
    }

    /// Makes a chain from DER certificates; see [`Self::from_pem`].
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn from_ders(ders: &[Vec<u8>]) -> Result<Self, ChainError> {
        let mut certificates = Vec::with_capacity(ders.len());
        for (index, der) in ders.iter().enumerate() {
            let position = index + 1;
            let certificate =
                Certificate::from_der(der).ok_or(ChainError::NotACertificate { position })?;
            certificates.push(certificate);
        }
        let chain = Self(certificates);
        chain.check()?;
        Ok(chain)
    }

    fn check(&self) -> Result<(), ChainError> {
        let last = self.0.last().ok_or(ChainError::Empty)?;
        for (index, certificate) in self.0.iter().enumerate() {
            let position = index + 1;
            let subject = || certificate.subject_text.clone();
            if !certificate.is_ca || !certificate.may_sign_certificates {
                return Err(ChainError::NotACa {
                    position,
                    subject: subject(),
                });
            }
            // First of what the order decides, as the order is what is most often wrong.
            if let Some(next) = self.0.get(position)
                && !certificate.is_signed_by(next)
            {
                return Err(ChainError::NotSignedByNext {
                    position,
                    subject: subject(),
                });
            }
            let below = index;
            if certificate
                .path_length
                .is_some_and(|limit| usize::try_from(limit).is_ok_and(|limit| limit < below))
            {
                return Err(ChainError::PathTooLong {
                    position,
                    subject: subject(),
                });
            }
            let is_last = position == self.0.len();
            let usage_fits = match certificate.extended_key_usage {
                ExtendedKeyUsage::CodeSigning => true,
                ExtendedKeyUsage::Absent => is_last,
                ExtendedKeyUsage::Other => false,
            };
            if !usage_fits {
                return Err(ChainError::NotForCodeSigning {
                    position,
                    subject: subject(),
                });
            }
        }
        if !last.is_self_issued || !last.is_signed_by(last) {
            return Err(ChainError::NoRoot {
                subject: last.subject_text.clone(),
            });
        }
        Ok(())
    }

    /// Checks that every certificate of the chain is valid at `now`.
    ///
    /// # Errors
    /// [`ChainError::NotValidNow`] for the first that is not.
    pub fn check_validity(&self, now: OffsetDateTime) -> Result<(), ChainError> {
        for (index, certificate) in self.0.iter().enumerate() {
            if now < certificate.not_before || now > certificate.not_after {
                return Err(ChainError::NotValidNow {
                    position: index + 1,
                    subject: certificate.subject_text.clone(),
                    not_before: certificate.not_before,
                    not_after: certificate.not_after,
                    now,
                });
            }
        }
        Ok(())
    }

    /// The certificates, issuing CA first.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.0
    }

    /// The certificate whose key signs leaves.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "every constructor refuses an empty chain"
    )]
    pub fn issuing(&self) -> &Certificate {
        self.0.first().expect("a chain is never empty")
    }

    /// The self-signed certificate at the end.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "every constructor refuses an empty chain"
    )]
    pub fn root(&self) -> &Certificate {
        self.0.last().expect("a chain is never empty")
    }

    /// The first moment at which every certificate of the chain is valid.
    #[must_use]
    pub fn not_before(&self) -> OffsetDateTime {
        self.0
            .iter()
            .map(Certificate::not_before)
            .max()
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The last moment at which every certificate of the chain is valid.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.0
            .iter()
            .map(Certificate::not_after)
            .min()
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    use rcgen::{CertifiedIssuer, KeyUsagePurpose};

    use super::*;

    /// A CA certificate of the test's making.
    fn params(name: &str, is_ca: IsCa, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = is_ca;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = usages.to_vec();
        params
    }

    const ANY_PATH: IsCa = IsCa::Ca(BasicConstraints::Unconstrained);
    const CODE_SIGNING: [ExtendedKeyUsagePurpose; 1] = [ExtendedKeyUsagePurpose::CodeSigning];

    fn root(is_ca: IsCa) -> CertifiedIssuer<'static, KeyPair> {
        CertifiedIssuer::self_signed(params("root", is_ca, &[]), KeyPair::generate().unwrap())
            .unwrap()
    }

    fn below(
        issuer: &Issuer<'static, KeyPair>,
        name: &str,
        is_ca: IsCa,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> CertifiedIssuer<'static, KeyPair> {
        CertifiedIssuer::signed_by(
            params(name, is_ca, usages),
            KeyPair::generate().unwrap(),
            issuer,
        )
        .unwrap()
    }

    fn chain(
        certificates: &[&CertifiedIssuer<'static, KeyPair>],
    ) -> Result<CertificateChain, ChainError> {
        let text: String = certificates.iter().map(|one| one.pem()).collect();
        CertificateChain::from_pem(&text)
    }

    #[test]
    fn chains_of_one_two_and_three_are_read_in_their_order() {
        let root = root(ANY_PATH);
        let upper = below(&root, "upper", ANY_PATH, &CODE_SIGNING);
        let lower = below(&upper, "lower", ANY_PATH, &CODE_SIGNING);

        for certificates in [&[&root][..], &[&upper, &root], &[&lower, &upper, &root]] {
            let chain = chain(certificates).unwrap();
            assert_eq!(chain.certificates().len(), certificates.len());
            assert_eq!(chain.issuing().der(), &certificates[0].der()[..]);
            assert_eq!(chain.root().common_name(), Some("root"));
            assert_eq!(
                CertificateChain::from_pem(&chain.issuing().pem()).is_ok(),
                certificates.len() == 1
            );
        }
    }

    #[test]
    fn what_is_no_chain_is_refused_with_the_certificate_at_fault() {
        let root = root(ANY_PATH);
        let stranger = self::root(ANY_PATH);
        let issuing = below(&root, "issuing", ANY_PATH, &CODE_SIGNING);
        let without_usage = below(&root, "no usage", ANY_PATH, &[]);
        let for_servers = below(
            &root,
            "servers",
            ANY_PATH,
            &[ExtendedKeyUsagePurpose::ServerAuth],
        );
        let leaf = below(&root, "leaf", IsCa::NoCa, &CODE_SIGNING);
        let mut no_cert_sign = params("cannot sign", ANY_PATH, &CODE_SIGNING);
        no_cert_sign.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let cannot_sign =
            CertifiedIssuer::signed_by(no_cert_sign, KeyPair::generate().unwrap(), &*root).unwrap();
        // The stranger has the root's name and another key.
        let other_key = below(&stranger, "other key", ANY_PATH, &CODE_SIGNING);
        let narrow = self::root(IsCa::Ca(BasicConstraints::Constrained(0)));
        let below_narrow = below(&narrow, "below", ANY_PATH, &CODE_SIGNING);
        let deeper = below(&below_narrow, "deeper", ANY_PATH, &CODE_SIGNING);

        for (certificates, expected) in [
            (&[][..], "no certificate"),
            (&[&issuing], "does not end in a self-signed root"),
            (
                &[&root, &issuing],
                "certificate 1 (CN=root) is not signed by the one after it",
            ),
            (&[&issuing, &stranger], "is not signed by the one after it"),
            (&[&leaf, &root], "is not a CA certificate"),
            (&[&cannot_sign, &root], "is not a CA certificate"),
            (&[&other_key, &root], "is not signed by the one after it"),
            (
                &[&without_usage, &root],
                "must have extended key usage code signing",
            ),
            (
                &[&for_servers, &root],
                "must have extended key usage code signing",
            ),
            (&[&below_narrow, &narrow], "certificate 2"),
            (&[&deeper, &below_narrow, &narrow], "path length"),
        ] {
            let error = chain(certificates).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{error:?} does not say {expected:?}"
            );
        }
        let key = pem::encode(&pem::Pem::new("PRIVATE KEY", vec![1, 2, 3]));
        for (text, expected) in [
            ("hello", "no certificate"),
            (key.as_str(), "there is a block `PRIVATE KEY`"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate 1 is not a valid",
            ),
            (
                include_str!("../../tests/vectors/sha-1-ca.pem"),
                "signatures are Ed25519, or SHA-2 with",
            ),
            (
                include_str!("../../tests/vectors/rsa-1024-ca.pem"),
                "RSA of at least 2048 bits",
            ),
        ] {
            let error = CertificateChain::from_pem(text).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{error:?} does not say {expected:?}"
            );
        }
    }

    #[test]
    fn certificates_are_written_as_any_pem_reader_expects() {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        for length in (0..200).chain([1024]) {
            let der: Vec<u8> = (0..=255).cycle().take(length).collect();
            let expected = pem::encode_config(&pem::Pem::new(PEM_LABEL, der.as_slice()), config);
            assert_eq!(
                certificate_pem(&der),
                expected.trim_end(),
                "{length} octets"
            );
        }
    }
}
