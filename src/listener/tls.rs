//! The certificate that TLS shows, of which another can take the place while connections are open.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

/// The names of the protocols (RFC 7301, section 6).
const HTTP_1_1: &[u8] = b"http/1.1";
pub(super) const HTTP_2: &[u8] = b"h2";

/// Why a TLS certificate and key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// Which.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{file}: {what}")]
    Content {
        /// Which.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// Certificate and key do not fit.
    #[error("the TLS certificate and key do not fit: {0}")]
    Mismatch(#[from] rustls::Error),
    /// It is not valid now, and the one in force is.
    #[error("{file}: the certificate is valid from {} to {}", .validity.0, .validity.1)]
    NotValid {
        /// The certificate's file.
        file: String,
        /// From when to when it is.
        validity: (OffsetDateTime, OffsetDateTime),
    },
}

/// What a port speaks under TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocols {
    /// HTTP/1.1, and HTTP/2 with those who offer nothing else.
    Both,
    /// HTTP/2.
    Http2,
}

/// A certificate chain and its key, read from two PEM files.
pub struct TlsCertificate {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    certified: Arc<CertifiedKey>,
    validity: (OffsetDateTime, OffsetDateTime),
}

impl TlsCertificate {
    /// Reads a certificate chain, leaf first, and its key.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or key and certificate do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            current: ArcSwap::from_pointee(Loaded::read(certificate, key)?),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Reads the files again. From now on new connections see what they hold, unless something is wrong with it.
    ///
    /// # Errors
    /// As for [`Self::load`]; and when the new certificate is not valid `now` while the one in force is.
    pub fn reload(&self, now: OffsetDateTime) -> Result<(), TlsError> {
        let loaded = Loaded::read(&self.certificate, &self.key)?;
        if !loaded.is_valid(now) && self.current.load().is_valid(now) {
            return Err(TlsError::NotValid {
                file: self.certificate.display().to_string(),
                validity: loaded.validity,
            });
        }
        self.current.store(Arc::new(loaded));
        Ok(())
    }

    /// When the certificate in force ends.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.current.load().validity.1
    }

    /// What clients will not like about the certificate in force, who come to `host`.
    #[must_use]
    pub fn warnings(&self, host: &str, now: OffsetDateTime) -> Vec<String> {
        let loaded = self.current.load();
        let file = self.certificate.display();
        let mut warnings = Vec::new();
        if !loaded.is_valid(now) {
            let (not_before, not_after) = loaded.validity;
            warnings.push(format!(
                "{file}: the certificate is valid from {not_before} to {not_after}, and not now"
            ));
        }
        if !loaded.is_for(host) {
            warnings.push(format!("{file}: the certificate is not for {host}"));
        }
        warnings
    }

    /// TLS 1.2 and 1.3 with this certificate, and whatever takes its place.
    ///
    /// # Errors
    /// When there is no randomness for the keys of session tickets.
    pub fn server_config(
        self: &Arc<Self>,
        protocols: Protocols,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.ticketer = Ticketer::new()?;
        // The first that a client offers too. Clients that offer both expect the API, which HTTP/1.1 carries.
        config.alpn_protocols = match protocols {
            Protocols::Both => vec![HTTP_1_1.to_vec(), HTTP_2.to_vec()],
            Protocols::Http2 => vec![HTTP_2.to_vec()],
        };
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for TlsCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

impl fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read {
                file: path.display().to_string(),
                source,
            })
        };
        let content = |path: &Path, what: String| TlsError::Content {
            file: path.display().to_string(),
            what,
        };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&read(certificate)?)
                .collect::<Result<_, _>>()
                .map_err(|error| content(certificate, error.to_string()))?;
        let Some(leaf) = chain.first() else {
            let what = "no certificate in this file".to_owned();
            return Err(content(certificate, what));
        };
        let (_, parsed) = parse_x509_certificate(leaf)
            .map_err(|error| content(certificate, format!("not a certificate: {error}")))?;
        let validity = parsed.validity();
        let validity = (
            validity.not_before.to_datetime(),
            validity.not_after.to_datetime(),
        );
        let key_text = Zeroizing::new(read(key)?);
        let private = PrivateKeyDer::from_pem_slice(&key_text)
            .map_err(|error| content(key, error.to_string()))?;
        let certified = CertifiedKey::from_der(chain, private, &default_provider())?;
        Ok(Self {
            certified: Arc::new(certified),
            validity,
        })
    }

    fn is_valid(&self, now: OffsetDateTime) -> bool {
        let (not_before, not_after) = self.validity;
        (not_before..=not_after).contains(&now)
    }

    fn is_for(&self, host: &str) -> bool {
        // An IPv6 address stands in brackets in a URL.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let leaf = self.certified.cert.first().map(ParsedCertificate::try_from);
        match (leaf, ServerName::try_from(host)) {
            (Some(Ok(leaf)), Ok(name)) => verify_server_name(&leaf, &name).is_ok(),
            (_, _) => false,
        }
    }
}
