//! Signed certificate timestamps: their bytes, signing and checking (RFC 6962, section 3; C2SP static-ct-api).

use aws_lc_rs::signature as lc;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Submission;
use crate::tlog::tree::{Hash, leaf_hash};
use crate::x509::der;

/// The type of the leaf index among the extensions (static-ct-api, "SCT Extension").
const LEAF_INDEX: u8 = 0;
/// An index has 40 bits.
const LEAF_INDEX_BYTES: usize = 5;
/// The longest extensions that a timestamp of another's log may put into a certificate; the leaf index takes 8.
const MAX_EXTENSION_BYTES: usize = 1024;
/// How far the time in a new timestamp may be from ours, in milliseconds.
const MAX_SKEW_MILLIS: u64 = 5 * 60 * 1000;
/// `precert_entry` of `LogEntryType`.
const PRECERT_ENTRY: u16 = 1;

/// How a timestamp is signed: hash and signature algorithm (RFC 5246, section 7.4.1.4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SctAlgorithm {
    EcdsaSha256,
    RsaSha256,
}

impl SctAlgorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::EcdsaSha256 => "ECDSA with SHA-256",
            Self::RsaSha256 => "RSA with SHA-256",
        }
    }

    const fn code(self) -> [u8; 2] {
        match self {
            Self::EcdsaSha256 => [4, 3],
            Self::RsaSha256 => [4, 1],
        }
    }

    fn verifies(self, message: &[u8], signature: &[u8], public_key_der: &[u8]) -> bool {
        let algorithm: &'static dyn lc::VerificationAlgorithm = match self {
            Self::EcdsaSha256 => &lc::ECDSA_P256_SHA256_ASN1,
            Self::RsaSha256 => &lc::RSA_PKCS1_2048_8192_SHA256,
        };
        let key = lc::UnparsedPublicKey::new(algorithm, public_key_der);
        key.verify(message, signature).is_ok()
    }

    /// Takes a `digitally-signed` struct apart.
    fn split(signed: &[u8]) -> Result<(Self, &[u8]), SctError> {
        let (code, rest) = signed.split_first_chunk().ok_or(SctError::Malformed)?;
        let algorithm = [Self::EcdsaSha256, Self::RsaSha256]
            .into_iter()
            .find(|algorithm| algorithm.code() == *code)
            .ok_or(SctError::UnknownAlgorithm)?;
        match split_u16(rest) {
            Some((signature, [])) => Ok((algorithm, signature)),
            _ => Err(SctError::Malformed),
        }
    }
}

/// What a timestamp says besides the time. A log keeps it for its whole life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SctExtensions {
    /// Where the entry is, as static-ct-api requires.
    #[default]
    LeafIndex,
    /// Nothing, for sigstore-python before 4.2, which refuses any extension.
    None,
}

impl SctExtensions {
    /// Its name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeafIndex => "leaf_index",
            Self::None => "none",
        }
    }

    /// The extensions of the timestamp of the entry at `index`.
    #[must_use]
    pub fn bytes(self, index: u64) -> Vec<u8> {
        match self {
            Self::LeafIndex => leaf_index_extensions(index),
            Self::None => Vec::new(),
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
    /// Its extensions are no list of extensions, name the entry's place twice or wrongly, or are too long.
    #[error("its extensions are malformed or longer than {MAX_EXTENSION_BYTES} octets")]
    BadExtensions,
    /// Its time is not now.
    #[error("its time is {0} s from ours")]
    OtherTime(i64),
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
        let (algorithm, signature) = SctAlgorithm::split(signed)?;
        u16::try_from(extensions.len()).map_err(|_| SctError::Malformed)?;
        Ok(Self {
            log_id,
            timestamp,
            extensions: extensions.to_vec(),
            algorithm,
            signature: signature.to_vec(),
        })
    }

    /// The TLS encoding (RFC 6962, section 3.2).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        self.write(&mut bytes);
        bytes
    }

    /// The length of the TLS encoding, in octets.
    const fn encoded_len(&self) -> usize {
        1 + 32 + 8 + 2 + self.extensions.len() + 2 + 2 + self.signature.len()
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(0);
        bytes.extend_from_slice(&self.log_id);
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        extend_u16(bytes, &self.extensions);
        self.write_digitally_signed(bytes);
    }

    /// The value of the extension that carries this timestamp alone in a certificate (OID 1.3.6.1.4.1.11129.2.4.2): a DER
    /// OCTET STRING with a `SignedCertificateTimestampList` (RFC 6962, section 3.3).
    #[must_use]
    pub fn list_extension_value(&self) -> Vec<u8> {
        let item = self.encoded_len();
        let list = 2 + item;
        let mut value = Vec::with_capacity(der::encoded_len(2 + list));
        der::put_header(&mut value, der::tag::OCTET_STRING, 2 + list);
        extend_length_u16(&mut value, list);
        extend_length_u16(&mut value, item);
        self.write(&mut value);
        value
    }

    /// A log's answer to `add-chain`: JSON (RFC 6962, section 4.1).
    #[must_use]
    pub fn add_chain_json(&self) -> String {
        let mut signed = Vec::new();
        self.write_digitally_signed(&mut signed);
        let answer = AddChainAnswer {
            sct_version: 0,
            id: STANDARD.encode(self.log_id),
            timestamp: self.timestamp,
            extensions: STANDARD.encode(&self.extensions),
            signature: STANDARD.encode(signed),
        };
        // Five fields of text and numbers always have a JSON form.
        serde_json::to_string(&answer).unwrap_or_default()
    }

    fn write_digitally_signed(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.algorithm.code());
        extend_u16(bytes, &self.signature);
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

    /// How it is signed, for people.
    #[must_use]
    pub const fn algorithm_name(&self) -> &'static str {
        self.algorithm.name()
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

    /// What it says besides the time.
    #[must_use]
    pub fn extensions(&self) -> &[u8] {
        &self.extensions
    }

    /// Checks what a timestamp that was asked for just now must have besides a signature: the time `now` (milliseconds since
    /// 1970) within five minutes, and extensions that are few and well formed.
    ///
    /// # Errors
    /// [`SctError::OtherTime`] and [`SctError::BadExtensions`].
    pub fn check_new(&self, now: u64) -> Result<(), SctError> {
        let skew = self.timestamp.abs_diff(now);
        if skew > MAX_SKEW_MILLIS {
            let seconds = i64::try_from(skew / 1000).unwrap_or(i64::MAX);
            let is_ahead = self.timestamp > now;
            return Err(SctError::OtherTime(if is_ahead {
                seconds
            } else {
                -seconds
            }));
        }
        let extensions = &self.extensions;
        let has_index = ExtensionIter(extensions).any(|one| matches!(one, Some((LEAF_INDEX, _))));
        let is_well_formed = ExtensionIter(extensions).all(|one| one.is_some());
        if !is_well_formed
            || extensions.len() > MAX_EXTENSION_BYTES
            || has_index != self.leaf_index().is_some()
        {
            return Err(SctError::BadExtensions);
        }
        Ok(())
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
        self.verify_entry(
            &submission.tbs,
            &submission.issuer_key_hash,
            log_public_key_der,
        )
    }

    /// Checks that this is the timestamp of that log for the certificate with this TBSCertificate, without poison and
    /// timestamps, whose issuer's key has this hash.
    ///
    /// # Errors
    /// [`SctError::OtherLog`] and [`SctError::BadSignature`].
    pub fn verify_entry(
        &self,
        tbs: &[u8],
        issuer_key_hash: &[u8; 32],
        log_public_key_der: &[u8],
    ) -> Result<(), SctError> {
        let key_hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, log_public_key_der);
        if key_hash.as_ref() != self.log_id {
            return Err(SctError::OtherLog);
        }
        let entry = TimestampedEntry {
            timestamp: self.timestamp,
            issuer_key_hash,
            tbs,
            extensions: &self.extensions,
        };
        let is_good = self.algorithm.verifies(
            &entry.merkle_tree_leaf(),
            &self.signature,
            log_public_key_der,
        );
        is_good.then_some(()).ok_or(SctError::BadSignature)
    }

    /// The hash of the leaf that it promises for `submission`.
    pub(super) fn leaf_hash(&self, submission: &Submission) -> Hash {
        let entry = TimestampedEntry {
            timestamp: self.timestamp,
            issuer_key_hash: &submission.issuer_key_hash,
            tbs: &submission.tbs,
            extensions: &self.extensions,
        };
        leaf_hash(&entry.merkle_tree_leaf())
    }

    /// Reads the list of timestamps in a certificate's extension (RFC 6962, section 3.3), each in its TLS encoding.
    ///
    /// # Errors
    /// [`SctError::Malformed`] when it is anything else.
    pub fn split_list(extension_value: &[u8]) -> Result<Vec<&[u8]>, SctError> {
        let malformed = SctError::Malformed;
        let octets = der::expect(extension_value, der::tag::OCTET_STRING);
        let (octets, []) = octets.map_err(|_| malformed)? else {
            return Err(malformed);
        };
        let (mut rest, []) = split_u16(octets.content).ok_or(malformed)? else {
            return Err(malformed);
        };
        let mut list = Vec::new();
        while !rest.is_empty() {
            let item;
            (item, rest) = split_u16(rest).ok_or(malformed)?;
            list.push(item);
        }
        Ok(list)
    }
}

/// The time of a timestamp, milliseconds since 1970, as RFC 3339 has it.
#[must_use]
pub fn time_text(millis: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    let time = time.ok().and_then(|time| time.format(&Rfc3339).ok());
    time.unwrap_or_else(|| format!("{millis} ms"))
}

/// Whether `signed`, a `digitally-signed` struct, is a signature of this key over `message`.
pub(super) fn is_signed(message: &[u8], signed: &[u8], public_key_der: &[u8]) -> bool {
    SctAlgorithm::split(signed)
        .is_ok_and(|(algorithm, signature)| algorithm.verifies(message, signature, public_key_der))
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
    /// The leaf: `MerkleTreeLeaf`. The octets that the timestamp signs are the same, as `certificate_timestamp` and
    /// `timestamped_entry` are both 0.
    #[must_use]
    pub fn merkle_tree_leaf(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.tbs.len());
        bytes.extend_from_slice(&[0, 0]);
        self.write(&mut bytes);
        bytes
    }

    /// Appends the entry as it begins a data tile's entry: everything but version and leaf type.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
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
    let mut bytes = Vec::with_capacity(3 + LEAF_INDEX_BYTES);
    bytes.push(LEAF_INDEX);
    extend_u16(&mut bytes, &index);
    bytes
}

/// The extensions of a timestamp one by one, type and content; `None` once, at the end, for what is none.
struct ExtensionIter<'a>(&'a [u8]);

impl<'a> Iterator for ExtensionIter<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, behind) = self.0.split_first()?;
        let Some((content, rest)) = split_u16(behind) else {
            self.0 = &[];
            return Some(None);
        };
        self.0 = rest;
        Some(Some((kind, content)))
    }
}

/// The leaf index among a timestamp's extensions. Other types are passed over; a list that is malformed, or has the index
/// twice, has none.
#[must_use]
pub fn leaf_index(extensions: &[u8]) -> Option<u64> {
    let mut found = None;
    for extension in ExtensionIter(extensions) {
        let (kind, data) = extension?;
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
    extend_length_u16(bytes, field.len());
    bytes.extend_from_slice(field);
}

fn extend_length_u16(bytes: &mut Vec<u8>, length: usize) {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
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

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ctlog::testing::{chain, unhex};
    use crate::hex::hex;
    use crate::keys::Signer;
    use crate::keys::deterministic::DeterministicKey;

    /// An SCT for [`TBS`], by the log whose private scalar is `0x11` × 32.
    pub(in crate::ctlog) const SCT: &str = "0076805a63a6980c18075424a13f32772d02d7c71b4965754c1ce84f58412203270000019b76daa87b00080000050000000000040300463044022001e5f55625c0382452a8337cb096774894a7560515cc691c24fe4084bc2f1b9502205f9962ca571bccc1f259eaeca51b76f55e091957cf9e066c4bdec7077fe1796e";
    const PRECERTIFICATE: &str = "308201d63082017ca003020102020203e8300a06082a8648ce3d040302302731143012060355040a0c0b6d6179666c792e74657374310f300d06035504030c066d6179666c79301e170d3236303130313030303030305a170d3236303130313030313030305a30003059301306072a8648ce3d020106082a8648ce3d0301070342000451a7580833898ea1b183cbd7350a4099078c6ef1c1e18e970cd7683035f25e7d0110522712b0b5a7cff081685486984a94e6831edac46e7360fa9d834a7a81a1a381be3081bb300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070303301d0603551d0e04160414fd8f14419beb4376a6c37cbb1b430f5e059448b9301f0603551d230418301680140b6993f12d0755df63a9622afee00aac88cb69db301c0603551d110101ff04123010810e6130406d6179666c792e746573743021060a2b0601040183bf300101041368747470733a2f2f6973737565722e746573743013060a2b06010401d6790204030101ff04020500300a06082a8648ce3d0403020348003045022100ba50129943cd93a39f249020d88f59e4c27e95d1ed895b23aa7d88d165140cb20220433e43e746a679d1e332aa2b3f78c8b30bfef5b80fe7f5ff6b1dfdc55938aa42";
    /// Its TBSCertificate without poison.
    const TBS: &str = "30820167a003020102020203e8300a06082a8648ce3d040302302731143012060355040a0c0b6d6179666c792e74657374310f300d06035504030c066d6179666c79301e170d3236303130313030303030305a170d3236303130313030313030305a30003059301306072a8648ce3d020106082a8648ce3d0301070342000451a7580833898ea1b183cbd7350a4099078c6ef1c1e18e970cd7683035f25e7d0110522712b0b5a7cff081685486984a94e6831edac46e7360fa9d834a7a81a1a381a93081a6300e0603551d0f0101ff04040302078030130603551d25040c300a06082b06010505070303301d0603551d0e04160414fd8f14419beb4376a6c37cbb1b430f5e059448b9301f0603551d230418301680140b6993f12d0755df63a9622afee00aac88cb69db301c0603551d110101ff04123010810e6130406d6179666c792e746573743021060a2b0601040183bf300101041368747470733a2f2f6973737565722e74657374";
    const ISSUER_KEY_HASH: &str =
        "bfcba2b742a807bbb72b522fa4694c4604ff68ebd21b048c56d53dc18a94d5c4";

    pub(in crate::ctlog) fn submission() -> Submission {
        Submission {
            precertificate: unhex(PRECERTIFICATE),
            tbs: unhex(TBS),
            issuer_key_hash: unhex(ISSUER_KEY_HASH).try_into().unwrap(),
            chain: Arc::new(chain()),
        }
    }

    fn sct() -> SignedCertificateTimestamp {
        SignedCertificateTimestamp::from_bytes(&unhex(SCT)).unwrap()
    }

    fn log_key() -> DeterministicKey {
        DeterministicKey::new(0x11)
    }

    #[test]
    fn the_golden_timestamp_reads_back_and_verifies() {
        let sct = sct();
        assert_eq!(hex(&sct.bytes()), SCT);
        assert_eq!(sct.timestamp(), 1_767_225_600_123);
        assert_eq!(sct.leaf_index(), Some(0));
        sct.verify(&submission(), log_key().public_key_der())
            .unwrap();
    }

    #[test]
    fn the_leaf_has_the_bytes_of_the_golden_vector() {
        let extensions = leaf_index_extensions(0);
        assert_eq!(hex(&extensions), "0000050000000000");
        let submission = submission();
        let leaf = TimestampedEntry {
            timestamp: 1_767_225_600_123,
            issuer_key_hash: &submission.issuer_key_hash,
            tbs: &submission.tbs,
            extensions: &extensions,
        }
        .merkle_tree_leaf();
        assert_eq!(leaf.len(), 420);
        assert_eq!(
            hex(&crate::tlog::tree::sha256(&[&leaf])),
            "7b6aacdbcd55f0cc47dc013dc78f373955e994d45a4a72690caffaf5d8702a28"
        );
        assert_eq!(
            hex(&leaf_hash(&leaf)),
            "5ab115b3f02ae6aaf6ff94bb01ed67fe78931565f96d781e6dcf7d8ee301dfa5"
        );
    }

    #[test]
    fn the_list_has_the_length_form_that_its_length_needs() {
        let long = hex(&sct().list_extension_value());
        assert_eq!(long, format!("048181007f007d{SCT}"));
        let value = sct().list_extension_value();
        let list = SignedCertificateTimestamp::split_list(&value).unwrap();
        assert_eq!(list, [unhex(SCT)]);
        for cut in 0..value.len() {
            assert!(SignedCertificateTimestamp::split_list(&value[..cut]).is_err());
        }

        // Without extension the same timestamp is short enough for one octet of length.
        let short = SignedCertificateTimestamp {
            extensions: Vec::new(),
            ..sct()
        };
        let value = short.list_extension_value();
        assert_eq!(value.len(), 2 + 121);
        assert_eq!(value[..6], [0x04, 121, 0, 119, 0, 117]);
        let (outer, rest) = der::read(&value).unwrap();
        assert_eq!((outer.content.len(), rest.len()), (121, 0));
    }

    #[test]
    fn the_answer_to_add_chain_reads_back() {
        let json = sct().add_chain_json();
        assert!(json.starts_with(r#"{"sct_version":0,"id":"doBaY6aYDBgHVCShPzJ3LQLXxxtJZXVMHOhPWEEiAyc=","timestamp":1767225600123,"extensions":"AAAFAAAAAAA=","signature":"BAMARjBE"#), "{json}");
        let read = SignedCertificateTimestamp::from_add_chain_json(json.as_bytes());
        assert_eq!(read, Ok(sct()));

        let more = json.replacen('{', r#"{"more":[1],"#, 1);
        let read = SignedCertificateTimestamp::from_add_chain_json(more.as_bytes());
        assert_eq!(read, Ok(sct()), "unknown members are passed over");
    }

    #[test]
    fn answers_of_another_form_are_refused() {
        let json = sct().add_chain_json();
        for (what, json, error) in [
            ("nothing", String::new(), SctError::Malformed),
            ("a list", "[]".to_owned(), SctError::Malformed),
            (
                "another version",
                json.replacen(":0,", ":1,", 1),
                SctError::UnknownVersion,
            ),
            (
                "a short log ID",
                json.replacen("doBa", "", 1),
                SctError::Malformed,
            ),
            (
                "another hash",
                json.replacen("\"BAMA", "\"BgMA", 1),
                SctError::UnknownAlgorithm,
            ),
            (
                "a negative time",
                json.replacen(":1767", ":-1767", 1),
                SctError::Malformed,
            ),
        ] {
            let read = SignedCertificateTimestamp::from_add_chain_json(json.as_bytes());
            assert_eq!(read, Err(error), "{what}");
        }
    }

    #[test]
    fn bytes_that_are_not_exactly_a_timestamp_are_refused() {
        let good = unhex(SCT);
        for length in 0..good.len() {
            assert!(
                SignedCertificateTimestamp::from_bytes(&good[..length]).is_err(),
                "{length} octets"
            );
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(
            SignedCertificateTimestamp::from_bytes(&longer),
            Err(SctError::Malformed)
        );
    }

    #[test]
    fn a_changed_timestamp_does_not_verify() {
        let good = unhex(SCT);
        for position in 1..good.len() {
            let mut bytes = good.clone();
            bytes[position] ^= 1;
            let verdict = SignedCertificateTimestamp::from_bytes(&bytes)
                .and_then(|sct| sct.verify(&submission(), log_key().public_key_der()));
            assert!(verdict.is_err(), "octet {position}");
        }
    }

    #[test]
    fn a_timestamp_holds_for_its_own_entry_and_log_alone() {
        let (sct, log) = (sct(), log_key());
        let mut other = submission();
        other.tbs[20] ^= 1;
        assert_eq!(
            sct.verify(&other, log.public_key_der()),
            Err(SctError::BadSignature)
        );
        let other = Submission {
            issuer_key_hash: [0; 32],
            ..submission()
        };
        assert_eq!(
            sct.verify(&other, log.public_key_der()),
            Err(SctError::BadSignature)
        );
        let another_log = DeterministicKey::new(0x22);
        assert_eq!(
            sct.verify(&submission(), another_log.public_key_der()),
            Err(SctError::OtherLog)
        );
    }

    #[test]
    fn a_new_timestamp_is_of_now_and_has_few_and_sound_extensions() {
        let now = sct().timestamp();
        let minute = 60_000;
        for (clock, verdict) in [
            (now, Ok(())),
            (now - 5 * minute, Ok(())),
            (now + 5 * minute, Ok(())),
            (now - 5 * minute - 1, Err(SctError::OtherTime(300))),
            (now + 6 * minute, Err(SctError::OtherTime(-360))),
            (0, Err(SctError::OtherTime(1_767_225_600))),
        ] {
            assert_eq!(sct().check_new(clock), verdict, "{clock}");
        }
        let index = leaf_index_extensions(7);
        for (extensions, is_sound) in [
            (vec![], true),
            (index.clone(), true),
            (vec![9, 0, 1, 7], true),
            ([&index[..], &[9, 0, 0]].concat(), true),
            ([&[9, 3, 253][..], &[0; 1021]].concat(), true),
            ([&[9, 3, 254][..], &[0; 1022]].concat(), false),
            ([&index[..], &index].concat(), false),
            (vec![0, 0, 4, 1, 2, 3, 4], false),
            (vec![9], false),
            (vec![9, 0], false),
            (vec![9, 0, 2, 1], false),
        ] {
            let changed = SignedCertificateTimestamp {
                extensions: extensions.clone(),
                ..sct()
            };
            assert_eq!(
                changed.check_new(now).is_ok(),
                is_sound,
                "{extensions:02x?}"
            );
        }
    }

    #[test]
    fn the_leaf_index_is_found_among_other_extensions() {
        let index = leaf_index_extensions(0x01_0203_0405);
        for (extensions, found) in [
            (vec![], None),
            (index.clone(), Some(0x01_0203_0405)),
            ([&[9, 0, 1, 7][..], &index].concat(), Some(0x01_0203_0405)),
            ([&index[..], &[9, 0, 0]].concat(), Some(0x01_0203_0405)),
            ([&index[..], &index].concat(), None),
            (vec![0, 0, 4, 1, 2, 3, 4], None),
            (vec![0, 0, 5, 1, 2, 3, 4], None),
            ([&index[..], &[9]].concat(), None),
        ] {
            assert_eq!(leaf_index(&extensions), found, "{extensions:02x?}");
        }
    }
}
