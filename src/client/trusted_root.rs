//! The trusted root as a verifier reads it (protobuf-specs `TrustedRoot`): whose certificates and whose timestamps count,
//! and when.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::details::instant;
use crate::x509::chain::{CertificateChain, ChainError};

/// What the file may call itself: the form that every client writes, and those of the specification.
const MEDIA_TYPES: [&str; 3] = [
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
];

/// Whom a verifier trusts.
#[derive(Clone, Debug)]
pub struct TrustedRoot {
    /// The CAs.
    pub authorities: Vec<TrustedAuthority>,
    /// The certificate transparency logs.
    pub ct_logs: Vec<TrustedCtLog>,
}

/// A CA that is trusted for a while.
#[derive(Clone, Debug)]
pub struct TrustedAuthority {
    /// Its certificates.
    pub chain: CertificateChain,
    /// When its certificates count.
    pub valid_for: Period,
}

/// A certificate transparency log that is trusted for a while.
#[derive(Clone, Debug)]
pub struct TrustedCtLog {
    /// Where it is.
    pub url: String,
    /// Its public key, a DER SubjectPublicKeyInfo.
    pub public_key_der: Vec<u8>,
    /// SHA-256 of that.
    pub id: [u8; 32],
    /// When its timestamps count.
    pub valid_for: Period,
}

/// A span of time, both ends belonging to it. Without an end it goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Period {
    start: OffsetDateTime,
    end: Option<OffsetDateTime>,
}

impl Period {
    /// Whether `time` is in it.
    #[must_use]
    pub fn contains(&self, time: OffsetDateTime) -> bool {
        time >= self.start && self.end.is_none_or(|end| time <= end)
    }
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "from {}", instant(self.start))?;
        match self.end {
            Some(end) => write!(f, " to {}", instant(end)),
            None => Ok(()),
        }
    }
}

/// Why a file is no trusted root: where, and what is wrong there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no trusted root: {0}")]
pub struct TrustedRootError(String);

impl TrustedRoot {
    /// Reads a `trusted_root.json`, or the one in a `trust_config.json`.
    ///
    /// # Errors
    /// When it is anything else, or one of its CAs or certificate logs cannot be used: a root is trusted as a whole.
    pub fn parse(json: &[u8]) -> Result<Self, TrustedRootError> {
        let file: File = serde_json::from_slice(json)
            .map_err(|error| TrustedRootError(format!("not JSON of that form: {error}")))?;
        let file = match file {
            File::Root(root) => root,
            File::Config(config) => config.trusted_root,
        };
        if !MEDIA_TYPES.contains(&file.media_type.as_str()) {
            let what = format!("its mediaType is {:?}", file.media_type);
            return Err(TrustedRootError(what));
        }
        let authorities = file.certificate_authorities.iter().enumerate();
        let authorities = authorities.map(|(index, raw)| {
            raw.read().map_err(|what| {
                TrustedRootError(format!("certificateAuthorities[{index}]: {what}"))
            })
        });
        let ct_logs = file.ctlogs.iter().enumerate();
        let ct_logs = ct_logs.map(|(index, raw)| {
            raw.read()
                .map_err(|what| TrustedRootError(format!("ctlogs[{index}]: {what}")))
        });
        Ok(Self {
            authorities: authorities.collect::<Result<_, _>>()?,
            ct_logs: ct_logs.collect::<Result<_, _>>()?,
        })
    }

    /// Takes certificates, DER, at their word: the issuing CA first, the root last. Nobody has said that they are to be
    /// trusted.
    ///
    /// # Errors
    /// When they make no chain.
    pub fn of_chain(ders: &[Vec<u8>]) -> Result<Self, ChainError> {
        let valid_for = Period {
            start: OffsetDateTime::UNIX_EPOCH,
            end: None,
        };
        Ok(Self {
            authorities: vec![TrustedAuthority {
                chain: CertificateChain::from_ders(ders)?,
                valid_for,
            }],
            ct_logs: Vec::new(),
        })
    }

    /// The log with this id.
    #[must_use]
    pub fn ct_log(&self, id: &[u8; 32]) -> Option<&TrustedCtLog> {
        self.ct_logs.iter().find(|log| log.id == *id)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Config(RawConfig),
    Root(RawRoot),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawConfig {
    trusted_root: RawRoot,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRoot {
    media_type: String,
    #[serde(default)]
    certificate_authorities: Vec<RawAuthority>,
    #[serde(default)]
    ctlogs: Vec<RawLog>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAuthority {
    cert_chain: RawChain,
    valid_for: Option<RawPeriod>,
}

#[derive(Deserialize)]
struct RawChain {
    certificates: Vec<RawCertificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCertificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLog {
    #[serde(default)]
    base_url: String,
    public_key: RawKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawKey {
    raw_bytes: String,
    valid_for: Option<RawPeriod>,
}

#[derive(Deserialize)]
struct RawPeriod {
    start: Option<String>,
    end: Option<String>,
}

impl RawAuthority {
    fn read(&self) -> Result<TrustedAuthority, String> {
        let certificates = self.cert_chain.certificates.iter();
        let ders: Result<Vec<_>, String> = certificates.map(|one| decode(&one.raw_bytes)).collect();
        let chain = CertificateChain::from_ders(&ders?);
        Ok(TrustedAuthority {
            chain: chain.map_err(|error| error.to_string())?,
            valid_for: read_period(self.valid_for.as_ref())?,
        })
    }
}

impl RawLog {
    fn read(&self) -> Result<TrustedCtLog, String> {
        let public_key_der = decode(&self.public_key.raw_bytes)?;
        // The id in the file is not needed: it is what the key hashes to, or wrong.
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &public_key_der).as_ref());
        Ok(TrustedCtLog {
            url: self.base_url.clone(),
            public_key_der,
            id,
            valid_for: read_period(self.public_key.valid_for.as_ref())?,
        })
    }
}

fn decode(base64: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(base64)
        .map_err(|_| "rawBytes is not base64".to_owned())
}

/// A period without a start is refused, as every other verifier does.
fn read_period(period: Option<&RawPeriod>) -> Result<Period, String> {
    let time = |text: &String| {
        OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| format!("{text:?} in validFor is not a time such as 2026-01-02T03:04:05Z"))
    };
    let start = period.and_then(|period| period.start.as_ref());
    let end = period.and_then(|period| period.end.as_ref());
    Ok(Period {
        start: time(start.ok_or("validFor.start is missing")?)?,
        end: end.map(time).transpose()?,
    })
}
