//! The TBSCertificate (RFC 5280, section 4.1.2): what all certificates of an authority share, and what each request adds.
//!
//! rcgen builds one TBSCertificate when an authority starts. A request then only writes what differs, into the places of
//! that template; building each certificate anew took several times as long.

use std::cell::RefCell;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, Issuer, PublicKeyData, SerialNumber,
    SigningKey,
};
use time::OffsetDateTime;

use crate::ca::authority::AuthorityError;
use crate::ca::profile::CertificateProfile;
use crate::keys::SignatureAlgorithm;
use crate::x509::chain::Certificate;
use crate::x509::der::{self, DerError, tag};

/// The `[3]` around the extensions of a TBSCertificate.
const EXTENSIONS_TAG: u8 = 0xa3;

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
/// digitalSignature alone.
const DIGITAL_SIGNATURE: &[u8] = &[0x03, 0x02, 0x07, 0x80];
/// codeSigning alone.
const CODE_SIGNING: &[u8] = &[
    0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03,
];
/// 2.5.29.14, DER.
const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x0e];
/// 2.5.29.17, DER.
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];
/// BOOLEAN TRUE.
const CRITICAL: &[u8] = &[0x01, 0x01, 0xff];

/// What all certificates of an authority have in common, DER.
#[derive(Debug)]
pub(super) struct TbsTemplate {
    version: Vec<u8>,
    /// Signature algorithm, and the issuer's name octet for octet as its own certificate has it.
    algorithm_and_issuer: Vec<u8>,
    /// An empty name.
    subject: Vec<u8>,
    /// Key usage and extended key usage.
    usages: Vec<u8>,
    /// The extension, or nothing where the issuer has no subject key identifier.
    authority_key_identifier: Vec<u8>,
}

impl TbsTemplate {
    /// The template of the certificates that `issuing` issues with signatures of `algorithm`.
    ///
    /// # Errors
    /// [`AuthorityError::Build`] when rcgen builds something else than was asked for.
    pub(super) fn new(
        issuing: &Certificate,
        algorithm: SignatureAlgorithm,
    ) -> Result<Self, AuthorityError> {
        // RFC 5280, 4.2.1.1: the value of the issuer's own identifier, whatever method made it.
        let identifier = issuing.subject_key_identifier();
        let built = build(identifier, algorithm)?;
        Self::take_apart(&built, issuing.subject_der(), identifier.is_some()).map_err(|_| {
            AuthorityError::Build("the template of certificates does not parse".to_owned())
        })
    }

    fn take_apart(tbs: &[u8], issuer_name: &[u8], has_identifier: bool) -> Result<Self, DerError> {
        let (tbs, _) = der::expect(tbs, tag::SEQUENCE)?;
        let (version, rest) = der::read(tbs.content)?;
        let (_serial, rest) = der::expect(rest, tag::INTEGER)?;
        let (algorithm, rest) = der::expect(rest, tag::SEQUENCE)?;
        // rcgen holds names in a map and can lose attributes, so the issuer's own octets take the place of its name.
        let (_issuer, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (_validity, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (subject, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (_public_key, rest) = der::expect(rest, tag::SEQUENCE)?;
        let (wrapper, _) = der::expect(rest, EXTENSIONS_TAG)?;
        let (extensions, _) = der::expect(wrapper.content, tag::SEQUENCE)?;
        let (key_usage, rest) = der::expect(extensions.content, tag::SEQUENCE)?;
        let (extended_key_usage, mut rest) = der::expect(rest, tag::SEQUENCE)?;
        let mut authority_key_identifier = Vec::new();
        if has_identifier {
            let (extension, behind) = der::expect(rest, tag::SEQUENCE)?;
            authority_key_identifier = extension.whole.to_vec();
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(DerError);
        }
        Ok(Self {
            version: version.whole.to_vec(),
            algorithm_and_issuer: [algorithm.whole, issuer_name].concat(),
            subject: subject.whole.to_vec(),
            usages: [key_usage.whole, extended_key_usage.whole].concat(),
            authority_key_identifier,
        })
    }

    /// The TBSCertificate of a profile, up to and without poison or timestamp. Extensions stand in the order in which
    /// Sigstore certificates carry them.
    pub(super) fn fill(&self, profile: &CertificateProfile) -> Tbs {
        let public_key = profile.public_key.spki_der();
        let fixed = self.version.len() + self.algorithm_and_issuer.len() + self.subject.len();
        let mut head = Vec::with_capacity(fixed + public_key.len() + 64);
        head.extend_from_slice(&self.version);
        der::put(&mut head, tag::INTEGER, &[&profile.serial]);
        head.extend_from_slice(&self.algorithm_and_issuer);
        let (not_before, not_after) = (time(profile.not_before), time(profile.not_after));
        der::put(&mut head, tag::SEQUENCE, &[&not_before, &not_after]);
        head.extend_from_slice(&self.subject);
        head.extend_from_slice(public_key);

        let name = &profile.subject_alternative_name;
        let sigstore = profile.sigstore_extensions.iter();
        let sigstore_len: usize = sigstore.map(|one| one.value.len() + 24).sum();
        let fixed = self.usages.len() + self.authority_key_identifier.len();
        let mut extensions = Vec::with_capacity(fixed + name.len() + sigstore_len + 64);
        extensions.extend_from_slice(&self.usages);
        let key_identifier =
            der::encode(tag::OCTET_STRING, &[&profile.public_key.key_identifier()]);
        put_extension(
            &mut extensions,
            SUBJECT_KEY_IDENTIFIER,
            &[],
            &key_identifier,
        );
        extensions.extend_from_slice(&self.authority_key_identifier);
        // Critical, as the subject is empty (RFC 5280, section 4.2.1.6).
        put_extension(&mut extensions, SUBJECT_ALTERNATIVE_NAME, CRITICAL, name);
        for sigstore in &profile.sigstore_extensions {
            put_extension(&mut extensions, &sigstore.oid_der(), &[], &sigstore.value);
        }
        Tbs { head, extensions }
    }
}

/// A TBSCertificate, open at its end for the one extension in which precertificate and certificate differ.
#[derive(Debug)]
pub(super) struct Tbs {
    /// Version to SubjectPublicKeyInfo.
    head: Vec<u8>,
    /// The extensions that both share, one after the other.
    extensions: Vec<u8>,
}

impl Tbs {
    /// The whole TBSCertificate, with this as its last extension.
    pub(super) fn with_last_extension(&self, last: &[u8]) -> Vec<u8> {
        assemble(&[&self.head], &[&self.extensions, last])
    }
}

/// A TBSCertificate of its fields up to the extensions, and of the extensions. Without any, their field is left out (RFC
/// 5280, section 4.1.2.9).
fn assemble(fields: &[&[u8]], extensions: &[&[u8]]) -> Vec<u8> {
    let length = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum::<usize>();
    let (fields_len, list_len) = (length(fields), length(extensions));
    let wrapped_len = der::encoded_len(list_len);
    let content_len = if list_len == 0 {
        fields_len
    } else {
        fields_len + der::encoded_len(wrapped_len)
    };
    let mut out = Vec::with_capacity(der::encoded_len(content_len));
    der::put_header(&mut out, tag::SEQUENCE, content_len);
    fields.iter().for_each(|part| out.extend_from_slice(part));
    if list_len > 0 {
        der::put_header(&mut out, EXTENSIONS_TAG, wrapped_len);
        der::put(&mut out, tag::SEQUENCE, extensions);
    }
    out
}

/// Appends an extension (RFC 5280, section 4.1): `oid` with its header, `critical` as BOOLEAN or nothing.
fn put_extension(out: &mut Vec<u8>, oid: &[u8], critical: &[u8], value: &[u8]) {
    let length = oid.len() + critical.len() + der::encoded_len(value.len());
    der::put_header(out, tag::SEQUENCE, length);
    out.extend_from_slice(oid);
    out.extend_from_slice(critical);
    der::put(out, tag::OCTET_STRING, &[value]);
}

/// A point in time: UTCTime up to 2049, GeneralizedTime from then on, in whole seconds (RFC 5280, section 4.1.2.5).
fn time(at: OffsetDateTime) -> Vec<u8> {
    let at = at.to_offset(time::UtcOffset::UTC);
    let year = u16::try_from(at.year()).unwrap_or_default();
    let mut text = Vec::with_capacity(17);
    let mut put = |number: u16| {
        let digit = |number: u16| b'0' + u8::try_from(number % 10).unwrap_or_default();
        text.extend([digit(number / 10), digit(number)]);
    };
    let is_utc_time = (1950..2050).contains(&year);
    if !is_utc_time {
        put(year / 100);
    }
    put(year % 100);
    let date_and_time = [
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
    ];
    date_and_time
        .into_iter()
        .for_each(|number| put(number.into()));
    text.push(b'Z');
    let tag = if is_utc_time {
        tag::UTC_TIME
    } else {
        tag::GENERALIZED_TIME
    };
    der::encode(tag, &[&text])
}

/// The TBSCertificate of a certificate, DER.
#[must_use]
pub fn tbs_of(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, []) = der::expect(certificate, tag::SEQUENCE).ok()? else {
        return None;
    };
    let (_, rest) = der::expect(certificate.content, tag::SEQUENCE).ok()?;
    let length = certificate.content.len() - rest.len();
    certificate.content.get(..length)
}

/// Returns a TBSCertificate without the one extension of the given OID, all else byte for byte (RFC 6962, section 3.2).
///
/// # Errors
/// When `tbs` is no TBSCertificate, or does not have that extension exactly once.
pub fn without_extension(tbs: &[u8], oid: &[u8]) -> Result<Vec<u8>, DerError> {
    let (sequence, []) = der::expect(tbs, tag::SEQUENCE)? else {
        return Err(DerError);
    };
    let mut rest = sequence.content;
    let (fields, wrapper) = loop {
        let start = sequence.content.len() - rest.len();
        let (field, behind) = der::read(rest)?;
        rest = behind;
        if field.tag == EXTENSIONS_TAG {
            break (
                sequence.content.get(..start).ok_or(DerError)?,
                field.content,
            );
        }
    };
    // The extensions are the last field.
    let (list, []) = der::expect(wrapper, tag::SEQUENCE)? else {
        return Err(DerError);
    };
    if !rest.is_empty() {
        return Err(DerError);
    }
    let mut rest = list.content;
    let mut around = None;
    while !rest.is_empty() {
        let start = list.content.len() - rest.len();
        let (extension, behind) = der::expect(rest, tag::SEQUENCE)?;
        rest = behind;
        if extension.content.starts_with(oid) {
            let before = list.content.get(..start).ok_or(DerError)?;
            if around.replace((before, behind)).is_some() {
                return Err(DerError);
            }
        }
    }
    let (before, behind) = around.ok_or(DerError)?;
    Ok(assemble(&[fields], &[before, behind]))
}

/// Has rcgen build a TBSCertificate with the extensions that never change, and whatever else in the other places.
fn build(
    authority_key_identifier: Option<&[u8]>,
    algorithm: SignatureAlgorithm,
) -> Result<Vec<u8>, AuthorityError> {
    let extension = |oid: &[u64], critical: bool, value: &[u8]| {
        let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
        extension.set_criticality(critical);
        extension
    };
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&[1]));
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![
        extension(KEY_USAGE, true, DIGITAL_SIGNATURE),
        extension(EXTENDED_KEY_USAGE, false, CODE_SIGNING),
    ];
    params
        .custom_extensions
        .extend(authority_key_identifier.map(|identifier| {
            // AuthorityKeyIdentifier ::= SEQUENCE { [0] IMPLICIT OCTET STRING, … }
            let value = der::encode(tag::SEQUENCE, &[&der::encode(0x80, &[identifier])]);
            extension(AUTHORITY_KEY_IDENTIFIER, false, &value)
        }));
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = DistinguishedName::new();
    let issuer = Issuer::new(issuer, TbsCapture::new(algorithm));
    params
        .signed_by(issuer.key(), &issuer)
        .map_err(|error| AuthorityError::Build(format!("rcgen: {error}")))?;
    Ok(issuer.key().message.take())
}

/// Stands in for the authority's key while rcgen builds: it keeps what it is asked to sign, and signs nothing.
struct TbsCapture {
    algorithm: &'static rcgen::SignatureAlgorithm,
    message: RefCell<Vec<u8>>,
}

impl TbsCapture {
    const fn new(algorithm: SignatureAlgorithm) -> Self {
        let algorithm = match algorithm {
            SignatureAlgorithm::EcdsaP256Sha256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            SignatureAlgorithm::EcdsaP384Sha384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            SignatureAlgorithm::EcdsaP521Sha512 => &rcgen::PKCS_ECDSA_P521_SHA512,
            SignatureAlgorithm::RsaPkcs1Sha256 => &rcgen::PKCS_RSA_SHA256,
            SignatureAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
        };
        Self {
            algorithm,
            message: RefCell::new(Vec::new()),
        }
    }
}

impl PublicKeyData for TbsCapture {
    fn der_bytes(&self) -> &[u8] {
        &[]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for TbsCapture {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.message.replace(message.to_vec());
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ca::extensions::Extension;
    use crate::ca::precertificate::{POISON_OID, SCT_LIST_OID};
    use crate::client::EphemeralKey;
    use crate::clock::{Clock, FixedClock};
    use crate::random::SeededRandom;
    use crate::x509::spki::SubjectPublicKey;

    /// A client's key as rcgen wants it: the point alone.
    struct ClientKey(Vec<u8>);

    impl PublicKeyData for ClientKey {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ECDSA_P256_SHA256
        }
    }

    /// What rcgen makes of a profile, by an issuer without a name.
    fn built_by_rcgen(profile: &CertificateProfile, identifier: &[u8]) -> Vec<u8> {
        let extension = |oid: &[u64], critical: bool, value: Vec<u8>| {
            let mut extension = CustomExtension::from_oid_content(oid, value);
            extension.set_criticality(critical);
            extension
        };
        let key_identifier = profile.public_key.key_identifier();
        let authority = der::encode(tag::SEQUENCE, &[&der::encode(0x80, &[identifier])]);
        let name = profile.subject_alternative_name.clone();
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&profile.serial));
        params.not_before = profile.not_before;
        params.not_after = profile.not_after;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![
            extension(KEY_USAGE, true, DIGITAL_SIGNATURE.to_vec()),
            extension(EXTENDED_KEY_USAGE, false, CODE_SIGNING.to_vec()),
            extension(
                &[2, 5, 29, 14],
                false,
                der::encode(tag::OCTET_STRING, &[&key_identifier]),
            ),
            extension(AUTHORITY_KEY_IDENTIFIER, false, authority),
            extension(&[2, 5, 29, 17], true, name),
        ];
        let sigstore = profile.sigstore_extensions.iter();
        params.custom_extensions.extend(sigstore.map(|one| {
            let oid = [1, 3, 6, 1, 4, 1, 57264, 1, one.number.into()];
            extension(&oid, false, one.value.clone())
        }));
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = DistinguishedName::new();
        let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
        let issuer = Issuer::new(issuer, TbsCapture::new(algorithm));
        let spki = profile.public_key.spki_der();
        let point = spki[spki.len() - 65..].to_vec();
        params.signed_by(&ClientKey(point), &issuer).unwrap();
        issuer.key().message.take()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_filled_template_is_what_rcgen_builds(
            serial in proptest::array::uniform20(any::<u8>()),
            // From 1970 to 2099.
            seconds in 0_i64..4_102_444_800,
            name in proptest::collection::vec(any::<u8>(), 0..300),
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..23),
        ) {
            let mut serial = serial;
            serial[0] = serial[0] & 0x7f | 0x40;
            let not_before = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let key = EphemeralKey::generate(&SeededRandom::new(seconds.unsigned_abs())).unwrap();
            let numbered = (1_u8..).zip(values);
            let profile = CertificateProfile {
                serial,
                not_before,
                not_after: not_before + crate::ca::profile::LIFETIME,
                public_key: SubjectPublicKey::from_der(key.public_key_der()).unwrap(),
                subject_alternative_name: name,
                sigstore_extensions: numbered.map(|(number, value)| Extension { number, value }).collect(),
            };
            let identifier = [7; 20];
            let built = build(Some(&identifier), SignatureAlgorithm::EcdsaP256Sha256).unwrap();
            let template = TbsTemplate::take_apart(&built, &[0x30, 0x00], true).unwrap();

            let filled = template.fill(&profile).with_last_extension(&[]);

            prop_assert_eq!(filled, built_by_rcgen(&profile, &identifier));
        }
    }

    #[test]
    fn times_are_utc_time_through_2049_and_generalized_time_from_then_on() {
        for (at, expected) in [
            ("1999-12-31T23:59:59Z", &b"\x17\x0d991231235959Z"[..]),
            ("2027-01-02T03:04:05.678Z", b"\x17\x0d270102030405Z"),
            ("2028-02-29T00:00:00Z", b"\x17\x0d280229000000Z"),
            ("2038-01-19T03:14:08Z", b"\x17\x0d380119031408Z"),
            ("2049-12-31T23:59:59Z", b"\x17\x0d491231235959Z"),
            ("2050-01-01T00:00:00Z", b"\x18\x0f20500101000000Z"),
            ("2050-01-01T01:30:00+02:00", b"\x17\x0d491231233000Z"),
        ] {
            let moment = FixedClock::at(at).now();
            assert_eq!(time(moment), expected, "{at}");
        }
    }

    #[test]
    fn an_extension_is_removed_only_where_it_stands_exactly_once() {
        let extension = |oid: &[u8]| der::encode(tag::SEQUENCE, &[oid, &[0x04, 0x00]]);
        let tbs = |extensions: &[Vec<u8>]| {
            let list = der::encode(tag::SEQUENCE, &[&extensions.concat()]);
            der::encode(
                tag::SEQUENCE,
                &[&[0x02, 0x01, 0x07], &der::encode(EXTENSIONS_TAG, &[&list])],
            )
        };
        let (poison, other) = (extension(POISON_OID), extension(SCT_LIST_OID));

        assert_eq!(
            without_extension(&tbs(&[other.clone(), poison.clone()]), POISON_OID),
            Ok(tbs(std::slice::from_ref(&other)))
        );
        // RFC 5280, 4.1.2.9: no empty list of extensions.
        assert_eq!(
            without_extension(&tbs(std::slice::from_ref(&poison)), POISON_OID).unwrap(),
            [0x30, 3, 2, 1, 7]
        );
        for refused in [
            tbs(&[other]),
            tbs(&[poison.clone(), poison]),
            Vec::new(),
            vec![0x30, 0x05, 0x02],
        ] {
            assert_eq!(
                without_extension(&refused, POISON_OID),
                Err(DerError),
                "{refused:02x?}"
            );
        }
    }
}
