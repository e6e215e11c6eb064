//! The certificate that TLS shows, and the CA of those who must show one too; others can take their place while connections
//! are open.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
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
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.1, and HTTP/2 with those who offer nothing else.
    Both,
    /// HTTP/2.
    Http2,
}

/// The PEM files that TLS is served from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs whose certificates clients must show; without it, they show none.
    pub client_ca: Option<PathBuf>,
}

/// A certificate chain with its key, and the CA of its clients if they have one, read from files.
pub struct TlsCertificate {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    certified: Arc<CertifiedKey>,
    validity: (OffsetDateTime, OffsetDateTime),
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl TlsCertificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or key and certificate do not belong together.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            current: ArcSwap::from_pointee(Loaded::read(files)?),
            files: files.clone(),
        })
    }

    /// Reads the files again. From now on new connections see what they hold, unless something is wrong with it.
    ///
    /// # Errors
    /// As for [`Self::load`]; and when the new certificate is not valid `now` while the one in force is.
    pub fn reload(&self, now: OffsetDateTime) -> Result<(), TlsError> {
        let loaded = Loaded::read(&self.files)?;
        if !loaded.is_valid(now) && self.current.load().is_valid(now) {
            return Err(TlsError::NotValid {
                file: self.files.certificate.display().to_string(),
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

    /// What clients will not like about the certificate in force, who come to `host`; nothing is known of where those come to
    /// who have certificates themselves.
    #[must_use]
    pub fn warnings(&self, host: &str, now: OffsetDateTime) -> Vec<String> {
        let loaded = self.current.load();
        let file = self.files.certificate.display();
        let mut warnings = Vec::new();
        if !loaded.is_valid(now) {
            let (not_before, not_after) = loaded.validity;
            warnings.push(format!(
                "{file}: the certificate is valid from {not_before} to {not_after}, and not now"
            ));
        }
        if loaded.clients.is_none() && !loaded.is_for(host) {
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
        let builder = ServerConfig::builder();
        let mut config = if self.files.client_ca.is_some() {
            let clients = Arc::clone(self) as Arc<dyn ClientCertVerifier>;
            let builder = builder.with_client_cert_verifier(clients);
            let mut config = builder.with_cert_resolver(resolver);
            // A session that goes on shows no certificate: it would outlive the trust in the one before.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        } else {
            let builder = builder.with_no_client_auth();
            let mut config = builder.with_cert_resolver(resolver);
            config.ticketer = Ticketer::new()?;
            config
        };
        // The first that a client offers too. Clients that offer both expect the API, which HTTP/1.1 carries.
        config.alpn_protocols = match protocols {
            Protocols::Http1 => vec![HTTP_1_1.to_vec()],
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

/// By the CA that is in force when a client shows its certificate.
impl ClientCertVerifier for TlsCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Names would have to outlive a reload. Without any, clients show what they have (RFC 8446, section 4.2.4).
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match &self.current.load().clients {
            Some(clients) => clients.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// The signatures that clients may prove their keys with.
fn algorithms() -> WebPkiSupportedAlgorithms {
    default_provider().signature_verification_algorithms
}

impl fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("certificate", &self.files.certificate)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        file: path.display().to_string(),
        source,
    })
}

fn content(path: &Path, what: String) -> TlsError {
    TlsError::Content {
        file: path.display().to_string(),
        what,
    }
}

/// The certificates in a file; never none.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|error| content(path, error.to_string()))?;
    if found.is_empty() {
        return Err(content(path, "no certificate in this file".to_owned()));
    }
    Ok(found)
}

/// What verifies the certificates of clients, by the CAs in a file.
fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| content(path, format!("not the certificate of a CA: {error}")))?;
    }
    WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|error| content(path, error.to_string()))
}

impl Loaded {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let TlsFiles {
            certificate,
            key,
            client_ca,
        } = files;
        let chain = certificates(certificate)?;
        // Never empty.
        let leaf = chain.first().map_or(&[][..], |leaf| leaf);
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
            clients: client_ca.as_deref().map(verifier).transpose()?,
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
