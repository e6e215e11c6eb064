//! What clients must trust and where they must go: `trusted_root.json`, `signing_config.json`, and the single files that
//! older clients read.
//!
//! The same material gives the same bytes: every date in it comes from a certificate or from a key's creation, none from
//! the moment of the export.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::x509::algorithm::KeyKind;
use crate::x509::chain::{CertificateChain, certificate_pem};
use crate::x509::der;
use crate::x509::spki::SubjectPublicKey;

pub mod canonical;
pub mod tuf;

use tuf::{Target, Usage};

/// A key is trusted from a little before it was made, for clocks that are behind.
const CLOCK_SLACK: Duration = Duration::minutes(5);

/// The parts of an instance that clients need to know.
#[derive(Clone, Debug)]
pub struct TrustMaterial {
    /// Where clients reach the CA, without a slash at the end.
    pub ca_url: String,
    /// Who runs it: a name without a scheme.
    pub operator: String,
    /// The chain that certificates end in.
    pub chain: CertificateChain,
    /// The logs of which one holds each certificate.
    pub ct_logs: Vec<TrustedLog>,
    /// Issuers where a person can get a token in a browser.
    pub oidc_urls: Vec<String>,
    /// Logs and timestamp authorities run elsewhere.
    pub external: ExternalTrust,
}

/// A log and its key.
#[derive(Clone, Debug)]
pub struct TrustedLog {
    /// Its submission URL, without a slash at the end.
    pub url: String,
    /// The first line of its checkpoints, where that is known.
    pub origin: Option<String>,
    /// Its public key, a DER SubjectPublicKeyInfo.
    pub public_key_der: Vec<u8>,
    /// When it was made, or an earlier time than that of any timestamp for us.
    pub created: OffsetDateTime,
}

/// `trust.external` of the configuration: services that this server does not run and its clients need.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ExternalTrust {
    /// Signature logs (Rekor v2).
    pub transparency_logs: Vec<ExternalLog>,
    /// Timestamp authorities (RFC 3161).
    pub timestamp_authorities: Vec<ExternalTimestampAuthority>,
}

/// A signature log run elsewhere.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExternalLog {
    /// Where clients reach it.
    pub url: String,
    /// Its public key: a PEM file.
    pub public_key_file: PathBuf,
    /// The first line of its checkpoints; default: the host of `url`.
    pub origin: Option<String>,
    /// Since when its key is trusted, RFC 3339.
    pub start: String,
    /// The version of its API; default 2.
    pub api_version: Option<u32>,
}

/// A timestamp authority run elsewhere.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExternalTimestampAuthority {
    /// Its full URL, path included.
    pub url: String,
    /// Its certificates: a PEM file, the signing one first, the root last.
    pub certificate_chain_file: PathBuf,
    /// Since when it is trusted, RFC 3339; default: since all its certificates are valid.
    pub start: Option<String>,
}

/// Why trust files cannot be written. Each names the file or the option.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file or an option holds something else.
    #[error("{place}: {what}")]
    Content {
        /// Where.
        place: String,
        /// What is wrong, and what is accepted.
        what: String,
    },
}

/// The media type that every client accepts; the newer spelling is refused by most.
const TRUSTED_ROOT_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";
const SIGNING_CONFIG_TYPE: &str = "application/vnd.dev.sigstore.signingconfig.v0.2+json";
const TRUST_CONFIG_TYPE: &str = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json";

impl TrustMaterial {
    /// The trusted root (protobuf-specs `TrustedRoot`): whose signatures count.
    ///
    /// # Errors
    /// When a file of `trust.external` cannot be used.
    pub fn trusted_root(&self) -> Result<Value, TrustError> {
        let certificates = self.chain.certificates();
        // Oldest date at which all of the chain is valid.
        let start = certificates
            .iter()
            .map(|certificate| certificate.not_before())
            .max();
        let root = self.chain.root();
        let authority = json!({
            "subject": subject(root.organization(), root.common_name()),
            "uri": self.ca_url,
            "certChain": { "certificates": certificates.iter().map(|one| raw(one.der())).collect::<Vec<_>>() },
            "validFor": { "start": instant(start.unwrap_or(OffsetDateTime::UNIX_EPOCH)) },
        });
        let ct_logs = self.ct_logs.iter().map(|log| {
            let key = &log.public_key_der;
            log_entry(
                &log.url,
                key,
                ct_key_details(key),
                &log_start(log.created),
                sha256(key),
            )
        });
        let tlogs = self
            .external
            .transparency_logs
            .iter()
            .map(ExternalLog::trusted);
        let authorities = self
            .external
            .timestamp_authorities
            .iter()
            .map(ExternalTimestampAuthority::trusted);
        Ok(json!({
            "mediaType": TRUSTED_ROOT_TYPE,
            "tlogs": tlogs.collect::<Result<Vec<_>, _>>()?,
            "certificateAuthorities": [authority],
            "ctlogs": ct_logs.collect::<Vec<_>>(),
            "timestampAuthorities": authorities.collect::<Result<Vec<_>, _>>()?,
        }))
    }

    /// The signing configuration (protobuf-specs `SigningConfig`): where signing clients go.
    #[must_use]
    pub fn signing_config(&self) -> Value {
        let start = self.chain.issuing().not_before();
        let service = |url: &str, version: u32, start: String| {
            json!({
                "url": url,
                "majorApiVersion": version,
                "validFor": { "start": start },
                "operator": self.operator,
            })
        };
        // The version of the CA's API is 1 for every client, although its path says v2.
        let ca = service(&self.ca_url, 1, instant(start));
        let oidc: Vec<Value> = self
            .oidc_urls
            .iter()
            .map(|url| service(url, 1, instant(start)))
            .collect();
        let tlogs = &self.external.transparency_logs;
        let rekor: Vec<Value> = tlogs
            .iter()
            .map(|log| service(&log.url, log.api_version.unwrap_or(2), log.start.clone()))
            .collect();
        let authorities = &self.external.timestamp_authorities;
        let timestamps: Vec<Value> = authorities
            .iter()
            .map(|authority| {
                service(
                    &authority.url,
                    1,
                    authority.start.clone().unwrap_or_else(|| instant(start)),
                )
            })
            .collect();
        let mut config =
            json!({ "mediaType": SIGNING_CONFIG_TYPE, "caUrls": [ca], "oidcUrls": oidc });
        if let Some(config) = config.as_object_mut() {
            // A selector without services makes clients look for one.
            if !rekor.is_empty() {
                config.insert("rekorTlogUrls".to_owned(), rekor.into());
                config.insert("rekorTlogConfig".to_owned(), json!({ "selector": "ANY" }));
            }
            if !timestamps.is_empty() {
                config.insert("tsaUrls".to_owned(), timestamps.into());
                config.insert("tsaConfig".to_owned(), json!({ "selector": "ANY" }));
            }
        }
        config
    }

    /// Every trust file: its name and content.
    ///
    /// # Errors
    /// When a file of `trust.external` cannot be used.
    pub fn files(&self) -> Result<Vec<(&'static str, String)>, TrustError> {
        let trusted_root = self.trusted_root()?;
        let signing_config = self.signing_config();
        let trust_config = json!({
            "mediaType": TRUST_CONFIG_TYPE,
            "trustedRoot": trusted_root,
            "signingConfig": signing_config,
        });
        let chain: Vec<String> = self
            .chain
            .certificates()
            .iter()
            .map(|one| one.pem() + "\n")
            .collect();
        let (root, intermediates) = chain
            .split_last()
            .map_or((String::new(), String::new()), |(root, others)| {
                (root.clone(), others.concat())
            });
        let mut files = vec![
            ("trusted_root.json", pretty(&trusted_root)),
            ("signing_config.json", pretty(&signing_config)),
            ("trust_config.json", pretty(&trust_config)),
            ("fulcio.crt.pem", chain.concat()),
            ("root.pem", root),
            ("intermediates.pem", intermediates),
        ];
        // Clients that read single files know one log.
        if let Some(log) = self.ct_logs.first() {
            files.push(("ctfe.pub", public_key_pem(&log.public_key_der)));
        }
        if let Some(log) = self.external.transparency_logs.first() {
            files.push(("rekor.pub", public_key_pem(&log.public_key()?)));
        }
        if let Some(authority) = self.external.timestamp_authorities.first() {
            let certificates = authority.certificates()?;
            let pems: Vec<String> = certificates
                .iter()
                .map(|der| certificate_pem(der) + "\n")
                .collect();
            files.push(("tsa.certchain.pem", pems.concat()));
        }
        Ok(files)
    }

    /// What clients find in a TUF repository: the trusted root and the signing configuration, and for older clients each key
    /// and certificate by itself.
    ///
    /// # Errors
    /// When a file of `trust.external` cannot be used.
    pub fn targets(&self) -> Result<Vec<Target>, TrustError> {
        let plain = |name: &str, content: String| Target {
            name: name.to_owned(),
            content: content.into_bytes(),
            usage: None,
        };
        let mut targets = vec![
            plain("trusted_root.json", pretty(&self.trusted_root()?)),
            plain("signing_config.v0.2.json", pretty(&self.signing_config())),
        ];
        let mut add = |name: String, content: String, usage: &'static str, uri: &str| {
            let uri = uri.to_owned();
            let usage = Some(Usage { name: usage, uri });
            targets.push(Target {
                usage,
                ..plain(&name, content)
            });
        };
        let chain: Vec<_> = self.chain.certificates().iter().rev().collect();
        for (index, certificate) in chain.into_iter().enumerate() {
            let name = match index {
                0 => "fulcio_v1.crt.pem".to_owned(),
                1 => "fulcio_intermediate_v1.crt.pem".to_owned(),
                _ => format!("fulcio_intermediate_{index}_v1.crt.pem"),
            };
            add(name, certificate.pem() + "\n", "Fulcio", &self.ca_url);
        }
        for (index, log) in self.ct_logs.iter().enumerate() {
            let key = public_key_pem(&log.public_key_der);
            add(numbered("ctfe", index, "pub"), key, "CTFE", &log.url);
        }
        for (index, log) in self.external.transparency_logs.iter().enumerate() {
            let key = public_key_pem(&log.public_key()?);
            add(numbered("rekor", index, "pub"), key, "Rekor", &log.url);
        }
        for (index, authority) in self.external.timestamp_authorities.iter().enumerate() {
            let certificates = authority.certificates()?;
            let last = certificates.len().saturating_sub(1);
            for (place, der) in certificates.iter().enumerate() {
                let part = match place {
                    0 => "tsa_leaf".to_owned(),
                    _ if place == last => "tsa_root".to_owned(),
                    _ => format!("tsa_intermediate_{}", place - 1),
                };
                let pem = certificate_pem(der) + "\n";
                add(
                    numbered(&part, index, "crt.pem"),
                    pem,
                    "TSA",
                    &authority.url,
                );
            }
        }
        Ok(targets)
    }

    /// Writes every trust file into a folder, which is made when it is not there. Returns their names.
    ///
    /// # Errors
    /// When a file cannot be written, or one of `trust.external` cannot be used.
    pub fn export(&self, folder: &Path) -> Result<Vec<&'static str>, TrustError> {
        let files = self.files()?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TrustError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        for (name, content) in &files {
            let path = folder.join(name);
            std::fs::write(&path, content).map_err(failed(&path))?;
        }
        Ok(files.into_iter().map(|(name, _)| name).collect())
    }
}

impl ExternalLog {
    fn public_key(&self) -> Result<Vec<u8>, TrustError> {
        let path = &self.public_key_file;
        let text = std::fs::read_to_string(path).map_err(|source| TrustError::File {
            path: path.clone(),
            source,
        })?;
        let block = pem::parse(text)
            .ok()
            .filter(|block| block.tag() == "PUBLIC KEY");
        block
            .map(pem::Pem::into_contents)
            .ok_or_else(|| TrustError::Content {
                place: path.display().to_string(),
                what: "not a PEM file with one block `PUBLIC KEY`".to_owned(),
            })
    }

    fn trusted(&self) -> Result<Value, TrustError> {
        let url = url::Url::parse(&self.url).ok();
        let host =
            url.as_ref()
                .and_then(url::Url::host_str)
                .ok_or_else(|| TrustError::Content {
                    place: "trust.external.transparency-logs".to_owned(),
                    what: format!("url {:?} is not a URL with a host", self.url),
                })?;
        check_instant("trust.external.transparency-logs", &self.start)?;
        let key = self.public_key()?;
        let origin = self.origin.as_deref().unwrap_or(host);
        let (details, id) = match ed25519_key(&key) {
            // The id of a Rekor v2 log with an Ed25519 key is that of its note key (C2SP signed-note).
            Some(raw) => {
                let note_key = [origin.as_bytes(), b"\n\x01", raw].concat();
                ("PKIX_ED25519", sha256(&note_key))
            }
            None => ("PKIX_ECDSA_P256_SHA_256", sha256(&key)),
        };
        Ok(log_entry(&self.url, &key, details, &self.start, id))
    }
}

impl ExternalTimestampAuthority {
    fn certificates(&self) -> Result<Vec<Vec<u8>>, TrustError> {
        let path = &self.certificate_chain_file;
        let text = std::fs::read_to_string(path).map_err(|source| TrustError::File {
            path: path.clone(),
            source,
        })?;
        let blocks = pem::parse_many(text).unwrap_or_default();
        if blocks.len() < 2 || blocks.iter().any(|block| block.tag() != "CERTIFICATE") {
            return Err(TrustError::Content {
                place: path.display().to_string(),
                what: "must hold at least two PEM blocks `CERTIFICATE`: the signing one first, the root last".to_owned(),
            });
        }
        Ok(blocks.into_iter().map(pem::Pem::into_contents).collect())
    }

    fn trusted(&self) -> Result<Value, TrustError> {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let certificates = self.certificates()?;
        let mut valid_from = OffsetDateTime::UNIX_EPOCH;
        let mut root_subject = (None, None);
        for der in &certificates {
            let (_, parsed) = X509Certificate::from_der(der).map_err(|_| TrustError::Content {
                place: self.certificate_chain_file.display().to_string(),
                what: "a block is not an X.509 certificate".to_owned(),
            })?;
            valid_from = valid_from.max(parsed.validity().not_before.to_datetime());
            let text = |attribute: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
                attribute
                    .and_then(|attribute| attribute.as_str().ok())
                    .map(str::to_owned)
            };
            let name = parsed.subject();
            root_subject = (
                text(name.iter_organization().next()),
                text(name.iter_common_name().next()),
            );
        }
        if let Some(start) = &self.start {
            check_instant("trust.external.timestamp-authorities", start)?;
        }
        Ok(json!({
            "subject": subject(root_subject.0.as_deref(), root_subject.1.as_deref()),
            "uri": self.url,
            "certChain": { "certificates": certificates.iter().map(|der| raw(der)).collect::<Vec<_>>() },
            "validFor": { "start": self.start.clone().unwrap_or_else(|| instant(valid_from)) },
        }))
    }
}

/// How trusted roots name the kind of a transparency log's key (protobuf-specs, `PublicKeyDetails`).
fn ct_key_details(public_key_der: &[u8]) -> &'static str {
    let kind = SubjectPublicKey::from_der(public_key_der.to_vec()).map(|key| key.kind());
    match kind {
        Ok(KeyKind::Rsa2048) => "PKIX_RSA_PKCS1V15_2048_SHA256",
        Ok(KeyKind::Rsa3072) => "PKIX_RSA_PKCS1V15_3072_SHA256",
        Ok(KeyKind::Rsa4096) => "PKIX_RSA_PKCS1V15_4096_SHA256",
        // No log has another kind.
        Ok(KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 | KeyKind::Ed25519)
        | Err(_) => "PKIX_ECDSA_P256_SHA_256",
    }
}

fn log_entry(url: &str, key: &[u8], details: &str, start: &str, id: Vec<u8>) -> Value {
    json!({
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": STANDARD.encode(key),
            "keyDetails": details,
            "validFor": { "start": start },
        },
        "logId": { "keyId": STANDARD.encode(id) },
    })
}

fn subject(organization: Option<&str>, common_name: Option<&str>) -> Value {
    // Some clients refuse a subject without either.
    json!({ "organization": organization.unwrap_or_default(), "commonName": common_name.unwrap_or_default() })
}

fn raw(der: &[u8]) -> Value {
    json!({ "rawBytes": STANDARD.encode(der) })
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn log_start(created: OffsetDateTime) -> String {
    instant(created - CLOCK_SLACK)
}

/// RFC 3339 in whole seconds.
fn instant(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0)
        .unwrap_or(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}

fn parse_instant(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

fn check_instant(place: &str, text: &str) -> Result<(), TrustError> {
    parse_instant(text)
        .map(drop)
        .ok_or_else(|| TrustError::Content {
            place: place.to_owned(),
            what: format!("start {text:?} is not an RFC 3339 time such as 2026-01-02T03:04:05Z"),
        })
}

/// The 32 octets of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
fn ed25519_key(spki: &[u8]) -> Option<&[u8]> {
    const PREFIX: &[u8] = &[
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    spki.strip_prefix(PREFIX).filter(|key| key.len() == 32)
}

/// A SubjectPublicKeyInfo as PEM, with a line end after it.
#[must_use]
pub fn public_key_pem(spki: &[u8]) -> String {
    debug_assert!(
        der::expect(spki, der::tag::SEQUENCE).is_ok(),
        "a SubjectPublicKeyInfo is a SEQUENCE"
    );
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("PUBLIC KEY", spki), config)
}

/// `ctfe.pub`, `ctfe_2.pub`, and so on.
fn numbered(name: &str, index: usize, ending: &str) -> String {
    match index {
        0 => format!("{name}.{ending}"),
        _ => format!("{name}_{}.{ending}", index + 1),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::hierarchy::{Hierarchy, Names};
    use crate::clock::{Clock, FixedClock};
    use crate::keys::memory::NewKey;
    use crate::keys::{InMemoryKey, Signer};
    use crate::random::SeededRandom;

    fn material(external: ExternalTrust) -> TrustMaterial {
        let now = FixedClock::at("2026-01-02T03:04:05.5Z").now();
        let names = Names {
            organization: "Example".to_owned(),
            common_name: "Example root".to_owned(),
        };
        let (log_key, _) = InMemoryKey::generate(NewKey::P256).unwrap();
        TrustMaterial {
            ca_url: "https://ca.example.com".to_owned(),
            operator: "ca.example.com".to_owned(),
            chain: Hierarchy::generate(&names, now, &SeededRandom::new(1))
                .unwrap()
                .chain,
            ct_logs: vec![TrustedLog {
                url: "https://ca.example.com/ct/main".to_owned(),
                origin: Some("ca.example.com/ct/main".to_owned()),
                public_key_der: log_key.public_key_der().to_vec(),
                created: now,
            }],
            oidc_urls: vec!["https://accounts.example.com".to_owned()],
            external,
        }
    }

    #[test]
    fn the_trusted_root_names_chain_and_log_with_dates_of_their_making() {
        let material = material(ExternalTrust::default());
        let root = material.trusted_root().unwrap();

        assert_eq!(
            root["mediaType"],
            "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
        );
        for members in ["tlogs", "timestampAuthorities"] {
            assert_eq!(
                root[members],
                json!([]),
                "clients want the member {members}, also when it is empty"
            );
        }
        let authority = &root["certificateAuthorities"][0];
        assert_eq!(
            authority["subject"],
            json!({ "organization": "Example", "commonName": "Example root" })
        );
        assert_eq!(authority["validFor"]["start"], "2026-01-02T02:59:05Z");
        assert_eq!(
            authority["certChain"]["certificates"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        let log = &root["ctlogs"][0];
        assert_eq!(log["publicKey"]["keyDetails"], "PKIX_ECDSA_P256_SHA_256");
        assert_eq!(
            log["publicKey"]["validFor"]["start"],
            "2026-01-02T02:59:05Z"
        );
        let key = &material.ct_logs[0].public_key_der;
        assert_eq!(log["logId"]["keyId"], STANDARD.encode(sha256(key)));
        assert_eq!(material.files().unwrap(), material.files().unwrap());
    }

    #[test]
    fn a_selector_is_there_only_with_its_services() {
        let config = material(ExternalTrust::default()).signing_config();
        assert_eq!(config["caUrls"][0]["majorApiVersion"], 1);
        assert_eq!(config["oidcUrls"][0]["url"], "https://accounts.example.com");
        for absent in ["rekorTlogUrls", "rekorTlogConfig", "tsaUrls", "tsaConfig"] {
            assert!(config.get(absent).is_none(), "{absent} is there");
        }
    }

    #[test]
    fn services_run_elsewhere_are_merged_in() {
        let folder = tempfile::tempdir().unwrap();
        let (rekor, tsa) = (
            folder.path().join("rekor.pub"),
            folder.path().join("tsa.pem"),
        );
        let ed25519 = [
            &[
                0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
            ][..],
            &[7; 32],
        ]
        .concat();
        std::fs::write(&rekor, public_key_pem(&ed25519)).unwrap();
        let chain = material(ExternalTrust::default()).chain;
        let pems: String = chain
            .certificates()
            .iter()
            .map(|one| one.pem() + "\n")
            .collect();
        std::fs::write(&tsa, pems).unwrap();
        let external = ExternalTrust {
            transparency_logs: vec![ExternalLog {
                url: "https://rekor.example.com".to_owned(),
                public_key_file: rekor,
                origin: None,
                start: "2026-01-01T00:00:00Z".to_owned(),
                api_version: None,
            }],
            timestamp_authorities: vec![ExternalTimestampAuthority {
                url: "https://tsa.example.com/api/v1/timestamp".to_owned(),
                certificate_chain_file: tsa,
                start: None,
            }],
        };

        let material = material(external);
        let root = material.trusted_root().unwrap();

        let log = &root["tlogs"][0];
        assert_eq!(log["publicKey"]["keyDetails"], "PKIX_ED25519");
        // C2SP signed-note: the id of an Ed25519 key is over name, line feed, type 1 and key.
        let id = sha256(&[&b"rekor.example.com\n\x01"[..], &[7; 32]].concat());
        assert_eq!(log["logId"]["keyId"], STANDARD.encode(id));
        let authority = &root["timestampAuthorities"][0];
        assert_eq!(authority["subject"]["commonName"], "Example root");
        assert_eq!(authority["validFor"]["start"], "2026-01-02T02:59:05Z");
        let config = material.signing_config();
        assert_eq!(config["rekorTlogUrls"][0]["majorApiVersion"], 2);
        assert_eq!(config["rekorTlogConfig"], json!({ "selector": "ANY" }));
        assert_eq!(
            config["tsaUrls"][0]["url"],
            "https://tsa.example.com/api/v1/timestamp"
        );
        let names: Vec<_> = material
            .files()
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(
            names.contains(&"rekor.pub") && names.contains(&"tsa.certchain.pem"),
            "{names:?}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let external = ExternalTrust {
            transparency_logs: vec![ExternalLog {
                url: "https://rekor.example.com".to_owned(),
                public_key_file: "/nowhere/rekor.pub".into(),
                origin: None,
                start: "2026-01-01T00:00:00Z".to_owned(),
                api_version: None,
            }],
            ..ExternalTrust::default()
        };
        let error = material(external).trusted_root().unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/rekor.pub: "), "{error}");
    }
}
