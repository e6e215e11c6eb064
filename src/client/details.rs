//! A certificate as people read it: every extension by name, its timestamps taken apart. Nothing of it is verified.

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::{ExtendedKeyUsage, KeyUsage, ParsedExtension, X509Extension};
use x509_parser::oid_registry as oids;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::extensions;
use crate::ctlog::sct::{SignedCertificateTimestamp, time_text};
use crate::hex::hex;
use crate::x509::name::name_text;
use crate::x509::spki::SubjectPublicKey;

/// The extension with the timestamps of logs (RFC 6962, section 3.3).
pub(super) const SCT_LIST: &str = "1.3.6.1.4.1.11129.2.4.2";
/// The extension that makes a precertificate unusable (RFC 6962, section 3.1).
pub(super) const POISON: &str = "1.3.6.1.4.1.11129.2.4.3";

/// What a certificate says.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateDetails {
    /// The names that it certifies.
    pub san: Vec<Name>,
    /// Who vouched for the name: the issuer of the token.
    pub issuer: Option<String>,
    /// The first second of its validity, RFC 3339.
    pub not_before: String,
    /// The last second of it.
    pub not_after: String,
    /// How many seconds lie between them.
    pub lifetime_seconds: i64,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Its subject; empty in what Sigstore's CAs issue.
    pub subject: String,
    /// Who signed it.
    pub authority: String,
    /// The algorithm of that signature.
    pub signature_algorithm: String,
    /// The kind of its key, such as `ECDSA P-256`.
    pub public_key: String,
    /// SHA-256 of its key, a DER SubjectPublicKeyInfo, hexadecimal.
    pub public_key_sha256: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub sha256: String,
    /// The timestamps in it.
    pub timestamps: Vec<Timestamp>,
    /// Every extension, in its order.
    pub extensions: Vec<Extension>,
}

/// A name in a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Name {
    /// `email`, `uri`, `other_name`, `dns` or `other`.
    pub kind: &'static str,
    /// The name.
    pub value: String,
}

/// A timestamp of a log, which is a promise to hold the certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Timestamp {
    /// SHA-256 of the log's key, hexadecimal.
    pub log_id: String,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// The same, RFC 3339.
    pub time: String,
    /// The place of the entry in the log, where the timestamp tells it.
    pub leaf_index: Option<u64>,
    /// The signature's algorithm.
    pub signature_algorithm: &'static str,
    /// The signature, hexadecimal.
    pub signature: String,
}

/// An extension of a certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Extension {
    /// Its object identifier.
    pub oid: String,
    /// Its name; nothing where that is not known.
    pub name: Option<String>,
    /// Whether a verifier that does not know it must refuse the certificate.
    pub critical: bool,
    /// Its value as text; hexadecimal where its form is not known.
    pub value: String,
}

impl CertificateDetails {
    /// Reads a certificate, DER. Nothing, if it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let validity = certificate.validity();
        let (start, end) = (
            validity.not_before.to_datetime(),
            validity.not_after.to_datetime(),
        );
        let extensions: Vec<Extension> = certificate.extensions().iter().map(extension).collect();
        // The newer form of the extension is the better one.
        let issuer = [8, 1].into_iter().find_map(|number| {
            let oid = format!("{}.{number}", extensions::ARC);
            let found = extensions.iter().find(|extension| extension.oid == oid);
            found.map(|extension| extension.value.clone())
        });
        Some(Self {
            san: names(&certificate),
            issuer,
            not_before: instant(start),
            not_after: instant(end),
            lifetime_seconds: (end - start).whole_seconds(),
            serial: hex(&certificate.serial.to_bytes_be()),
            subject: name_text(certificate.subject()),
            authority: name_text(certificate.issuer()),
            signature_algorithm: algorithm_name(&certificate.signature_algorithm.algorithm),
            public_key: key_name(&certificate),
            public_key_sha256: sha256_hex(certificate.public_key().raw),
            sha256: sha256_hex(der),
            timestamps: timestamps(&certificate),
            extensions,
        })
    }
}

pub(super) fn names(certificate: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter().map(extensions::name_of);
    names.map(|(kind, value)| Name { kind, value }).collect()
}

fn key_name(certificate: &X509Certificate<'_>) -> String {
    let key = certificate.public_key();
    match SubjectPublicKey::from_der(key.raw.to_vec()) {
        Ok(known) => known.kind().to_string(),
        Err(_) => algorithm_name(&key.algorithm.algorithm),
    }
}

fn algorithm_name(oid: &oids::Oid<'_>) -> String {
    let known = oids::OidRegistry::default().with_crypto();
    let name = known.get(oid).map(|entry| entry.sn().to_owned());
    name.unwrap_or_else(|| oid.to_id_string())
}

fn timestamps(certificate: &X509Certificate<'_>) -> Vec<Timestamp> {
    let list = certificate
        .extensions()
        .iter()
        .find(|extension| extension.oid.to_id_string() == SCT_LIST);
    let items = list.and_then(|list| SignedCertificateTimestamp::split_list(list.value).ok());
    let items = items.unwrap_or_default().into_iter();
    let read = items.filter_map(|item| SignedCertificateTimestamp::from_bytes(item).ok());
    let timestamp = |sct: SignedCertificateTimestamp| Timestamp {
        log_id: hex(sct.log_id()),
        timestamp: sct.timestamp(),
        time: time_text(sct.timestamp()),
        leaf_index: sct.leaf_index(),
        signature_algorithm: sct.algorithm_name(),
        signature: hex(sct.signature()),
    };
    read.map(timestamp).collect()
}

fn extension(extension: &X509Extension<'_>) -> Extension {
    let oid = extension.oid.to_id_string();
    let (name, value) = match extensions::number_of(&oid) {
        Some(number) => (
            extensions::content_of(number).map(extensions::Content::name),
            extensions::text_of(number, extension.value).map(str::to_owned),
        ),
        None => {
            let (name, value) = standard(&oid, extension);
            (name.map(str::to_owned), value)
        }
    };
    Extension {
        name,
        critical: extension.critical,
        value: value.unwrap_or_else(|| hex(extension.value)),
        oid,
    }
}

/// The name and the value of an extension of X.509 or of certificate transparency.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not named here is shown by its octets"
)]
fn standard(oid: &str, extension: &X509Extension<'_>) -> (Option<&'static str>, Option<String>) {
    match extension.parsed_extension() {
        ParsedExtension::BasicConstraints(constraints) => {
            let value = match (constraints.ca, constraints.path_len_constraint) {
                (false, _) => "not a CA".to_owned(),
                (true, None) => "a CA".to_owned(),
                (true, Some(length)) => format!("a CA, with at most {length} CAs below it"),
            };
            (Some("basic constraints"), Some(value))
        }
        ParsedExtension::KeyUsage(usage) => (Some("key usage"), Some(key_usage(usage))),
        ParsedExtension::ExtendedKeyUsage(usage) => {
            (Some("extended key usage"), Some(extended_key_usage(usage)))
        }
        ParsedExtension::SubjectKeyIdentifier(identifier) => {
            (Some("subject key identifier"), Some(hex(identifier.0)))
        }
        ParsedExtension::AuthorityKeyIdentifier(identifier) => {
            let value = identifier.key_identifier.as_ref().map(|key| hex(key.0));
            (Some("authority key identifier"), value)
        }
        ParsedExtension::SubjectAlternativeName(names) => {
            let names = names.general_names.iter().map(extensions::name_of);
            let names: Vec<String> = names.map(|(_, name)| name).collect();
            (Some("subject alternative name"), Some(names.join(", ")))
        }
        _ if oid == SCT_LIST => {
            let count = SignedCertificateTimestamp::split_list(extension.value);
            let value = count.ok().map(|list| match list.len() {
                1 => "1 timestamp".to_owned(),
                count => format!("{count} timestamps"),
            });
            (Some("signed certificate timestamps"), value)
        }
        _ if oid == POISON => {
            let value = "this is a precertificate, which nobody accepts";
            (Some("poison"), Some(value.to_owned()))
        }
        _ => (None, None),
    }
}

fn key_usage(usage: &KeyUsage) -> String {
    let named = [
        (usage.digital_signature(), "digital signature"),
        (usage.non_repudiation(), "non-repudiation"),
        (usage.key_encipherment(), "key encipherment"),
        (usage.data_encipherment(), "data encipherment"),
        (usage.key_agreement(), "key agreement"),
        (usage.key_cert_sign(), "certificates"),
        (usage.crl_sign(), "revocation lists"),
    ];
    listed(&named, Vec::new())
}

fn extended_key_usage(usage: &ExtendedKeyUsage<'_>) -> String {
    let named = [
        (usage.any, "any"),
        (usage.code_signing, "code signing"),
        (usage.server_auth, "TLS server"),
        (usage.client_auth, "TLS client"),
        (usage.email_protection, "e-mail"),
        (usage.time_stamping, "timestamping"),
        (usage.ocsp_signing, "OCSP"),
    ];
    let others = usage.other.iter().map(oids::Oid::to_id_string);
    listed(&named, others.collect())
}

fn listed(named: &[(bool, &str)], others: Vec<String>) -> String {
    let named = named.iter().filter(|(is_set, _)| *is_set);
    let mut names: Vec<String> = named.map(|(_, name)| (*name).to_owned()).collect();
    names.extend(others);
    names.join(", ")
}

fn sha256_hex(octets: &[u8]) -> String {
    hex(digest(&SHA256, octets).as_ref())
}

/// RFC 3339.
pub(super) fn instant(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
