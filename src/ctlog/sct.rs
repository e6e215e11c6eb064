//! Signed certificate timestamps: their bytes, signing and checking (RFC 6962, section 3; C2SP static-ct-api).

use aws_lc_rs::signature as lc;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Submission;
use crate::x509::der;

/// The type of the leaf index among the extensions (static-ct-api, "SCT Extension").
const LEAF_INDEX: u8 = 0;
/// An index has 40 bits.
const LEAF_INDEX_BYTES: usize = 5;
/// `precert_entry` of `LogEntryType`.
const PRECERT_ENTRY: u16 = 1;

/// How a timestamp is signed: hash and signature algorithm (RFC 5246, section 7.4.1.4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SctAlgorithm {
    EcdsaSha256,
    RsaSha256,
}

impl SctAlgorithm {
    const fn code(self) -> [u8; 2] {
        match self {
            Self::EcdsaSha256 => [4, 3],
            Self::RsaSha256 => [4, 1],
        }
    }
}

/// A log's signed promise that it holds an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedCertificateTimestamp {
    log_id: [u8; 32],
    timestamp: u64,
    extensions: Vec<u8>,
    algorithm: SctAlgorithm,
    signature: Vec<u8>,
}

/// Why bytes are not a signed certificate timestamp, or not the one that is expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SctError {
    /// Cut short, too long, or a length that does not fit.
    #[error("it is malformed")]
    Malformed,
    /// Not version 1.
    #[error("its version is not 1")]
    UnknownVersion,
    /// Neither ECDSA nor RSA, or not with SHA-256.
    #[error("its signature algorithm is not ECDSA or RSA with SHA-256")]
    UnknownAlgorithm,
    /// Another log made it.
    #[error("it is by another log than the configured one")]
    OtherLog,
    /// The signature does not verify for this entry.
    #[error("its signature does not verify for this precertificate")]
    BadSignature,
}

impl SignedCertificateTimestamp {
    /// Puts together what a log with an ECDSA P-256 key signed.
    pub(crate) const fn by_ecdsa(
        log_id: [u8; 32],
        timestamp: u64,
        extensions: Vec<u8>,
        signature: Vec<u8>,
    ) -> Self {
        Self {
            log_id,
            timestamp,
            extensions,
            algorithm: SctAlgorithm::EcdsaSha256,
            signature,
        }
    }

    /// Reads the TLS encoding (RFC 6962, section 3.2).
    ///
    /// # Errors
    /// When `bytes` are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SctError> {
        let malformed = SctError::Malformed;
        let (&version, rest) = bytes.split_first().ok_or(malformed)?;
        if version != 0 {
            return Err(SctError::UnknownVersion);
        }
        let (log_id, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (timestamp, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (extensions, rest) = split_u16(rest).ok_or(malformed)?;
        Self::assemble(*log_id, u64::from_be_bytes(*timestamp), extensions, rest)
    }

    /// Reads a log's answer to `add-chain` or `add-pre-chain`: JSON (RFC 6962, section 4.1).
    ///
    /// # Errors
    /// When `json` is anything else.
    pub fn from_add_chain_json(json: &[u8]) -> Result<Self, SctError> {
        let malformed = |_| SctError::Malformed;
        let answer: AddChainAnswer =
            serde_json::from_slice(json).map_err(|_| SctError::Malformed)?;
        if answer.sct_version != 0 {
            return Err(SctError::UnknownVersion);
        }
        let log_id = STANDARD.decode(answer.id).map_err(malformed)?;
        Self::assemble(
            log_id.try_into().map_err(|_| SctError::Malformed)?,
            answer.timestamp,
            &STANDARD.decode(answer.extensions).map_err(malformed)?,
            &STANDARD.decode(answer.signature).map_err(malformed)?,
        )
    }

    /// Takes the parts, the last one as a `digitally-signed` struct.
    fn assemble(
        log_id: [u8; 32],
        timestamp: u64,
        extensions: &[u8],
        signed: &[u8],
    ) -> Result<Self, SctError> {
        let (code, rest) = signed.split_first_chunk().ok_or(SctError::Malformed)?;
        let algorithm = [SctAlgorithm::EcdsaSha256, SctAlgorithm::RsaSha256]
            .into_iter()
            .find(|algorithm| algorithm.code() == *code)
            .ok_or(SctError::UnknownAlgorithm)?;
        match split_u16(rest) {
            Some((signature, [])) if u16::try_from(extensions.len()).is_ok() => Ok(Self {
                log_id,
                timestamp,
                extensions: extensions.to_vec(),
                algorithm,
                signature: signature.to_vec(),
            }),
            _ => Err(SctError::Malformed),
        }
    }

    /// The TLS encoding (RFC 6962, section 3.2).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&self.log_id);
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        extend_u16(&mut bytes, &self.extensions);
        bytes.extend(self.digitally_signed());
        bytes
    }

    /// The value of the extension that carries this timestamp alone in a certificate (OID 1.3.6.1.4.1.11129.2.4.2): a DER
    /// OCTET STRING with a `SignedCertificateTimestampList` (RFC 6962, section 3.3).
    #[must_use]
    pub fn list_extension_value(&self) -> Vec<u8> {
        let mut item = Vec::new();
        extend_u16(&mut item, &self.bytes());
        let mut list = Vec::new();
        extend_u16(&mut list, &item);
        der::encode(der::tag::OCTET_STRING, &[&list])
    }

    /// A log's answer to `add-chain`: JSON (RFC 6962, section 4.1).
    #[must_use]
    pub fn add_chain_json(&self) -> String {
        let answer = AddChainAnswer {
            sct_version: 0,
            id: STANDARD.encode(self.log_id),
            timestamp: self.timestamp,
            extensions: STANDARD.encode(&self.extensions),
            signature: STANDARD.encode(self.digitally_signed()),
        };
        // Five fields of text and numbers always have a JSON form.
        serde_json::to_string(&answer).unwrap_or_default()
    }

    fn digitally_signed(&self) -> Vec<u8> {
        let mut bytes = self.algorithm.code().to_vec();
        extend_u16(&mut bytes, &self.signature);
        bytes
    }

    /// SHA-256 of the log's public key.
    #[must_use]
    pub const fn log_id(&self) -> &[u8; 32] {
        &self.log_id
    }

    /// When the log took the entry, milliseconds since 1970.
    #[must_use]
    pub const fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// The signature: DER `ECDSA-Sig-Value`, or RSA PKCS #1 v1.5.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Where the entry is in the log, if the log says so (static-ct-api).
    #[must_use]
    pub fn leaf_index(&self) -> Option<u64> {
        leaf_index(&self.extensions)
    }

    /// Checks that this is the timestamp of the log with the key `log_public_key_der` (a DER `SubjectPublicKeyInfo`) for
    /// `submission`.
    ///
    /// # Errors
    /// [`SctError::OtherLog`] and [`SctError::BadSignature`].
    pub fn verify(
        &self,
        submission: &Submission,
        log_public_key_der: &[u8],
    ) -> Result<(), SctError> {
        let key_hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, log_public_key_der);
        if key_hash.as_ref() != self.log_id {
            return Err(SctError::OtherLog);
        }
        let algorithm: &'static dyn lc::VerificationAlgorithm = match self.algorithm {
            SctAlgorithm::EcdsaSha256 => &lc::ECDSA_P256_SHA256_ASN1,
            SctAlgorithm::RsaSha256 => &lc::RSA_PKCS1_2048_8192_SHA256,
        };
        let entry = TimestampedEntry {
            timestamp: self.timestamp,
            issuer_key_hash: &submission.issuer_key_hash,
            tbs: &submission.tbs,
            extensions: &self.extensions,
        };
        lc::UnparsedPublicKey::new(algorithm, log_public_key_der)
            .verify(&entry.merkle_tree_leaf(), &self.signature)
            .map_err(|_| SctError::BadSignature)
    }
}

/// What a log hashes and signs for a precertificate (RFC 6962, sections 3.2 and 3.4).
#[derive(Clone, Copy, Debug)]
pub struct TimestampedEntry<'a> {
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// SHA-256 of the SubjectPublicKeyInfo of the key that signs the certificate.
    pub issuer_key_hash: &'a [u8; 32],
    /// The TBSCertificate without poison and without timestamps, DER; less than 2^24 octets.
    pub tbs: &'a [u8],
    /// The timestamp's extensions, without the length before them; less than 2^16 octets.
    pub extensions: &'a [u8],
}

impl TimestampedEntry<'_> {
    /// The entry as it begins a data tile's entry: everything but version and leaf type.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.tbs.len());
        self.write(&mut bytes);
        bytes
    }

    /// The leaf: `MerkleTreeLeaf`. The octets that the timestamp signs are the same, as `certificate_timestamp` and
    /// `timestamped_entry` are both 0.
    #[must_use]
    pub fn merkle_tree_leaf(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.tbs.len());
        bytes.extend_from_slice(&[0, 0]);
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&PRECERT_ENTRY.to_be_bytes());
        bytes.extend_from_slice(self.issuer_key_hash);
        extend_u24(bytes, self.tbs);
        extend_u16(bytes, self.extensions);
    }
}

/// The extensions of a timestamp that says where its entry is; `index` is less than 2^40.
#[must_use]
pub fn leaf_index_extensions(index: u64) -> Vec<u8> {
    let [_, _, _, index @ ..] = index.to_be_bytes();
    let mut bytes = vec![LEAF_INDEX];
    extend_u16(&mut bytes, &index);
    bytes
}

/// The leaf index among a timestamp's extensions. Other types are passed over; a list that is malformed, or has the index
/// twice, has none.
#[must_use]
pub fn leaf_index(extensions: &[u8]) -> Option<u64> {
    let mut found = None;
    let mut rest = extensions;
    while let Some((&kind, behind)) = rest.split_first() {
        let data;
        (data, rest) = split_u16(behind)?;
        if kind == LEAF_INDEX {
            let data: [u8; LEAF_INDEX_BYTES] = data.try_into().ok()?;
            let index = data
                .iter()
                .fold(0, |index, &octet| index << 8 | u64::from(octet));
            if found.replace(index).is_some() {
                return None;
            }
        }
    }
    found
}

/// The answer to `add-chain`, as its JSON has it.
#[derive(Deserialize, Serialize)]
struct AddChainAnswer {
    sct_version: u8,
    id: String,
    timestamp: u64,
    #[serde(default)]
    extensions: String,
    signature: String,
}

/// Appends `field` after its length in 16 bits. Every caller's field is shorter than 2^16 octets.
pub(super) fn extend_u16(bytes: &mut Vec<u8>, field: &[u8]) {
    let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(field);
}

/// Appends `field` after its length in 24 bits. Every caller's field is shorter than 2^24 octets.
pub(super) fn extend_u24(bytes: &mut Vec<u8>, field: &[u8]) {
    let [_, length @ ..] = u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes();
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(field);
}

/// Cuts off a field after its length in 16 bits.
pub(super) fn split_u16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Cuts off a field after its length in 24 bits.
pub(super) fn split_u24(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ([a, b, c], rest) = bytes.split_first_chunk::<3>()?;
    let length = u32::from_be_bytes([0, *a, *b, *c]);
    rest.split_at_checked(usize::try_from(length).ok()?)
}
