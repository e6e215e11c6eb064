//! Certificates of TLS: when their files change, new connections see what is in them, if it holds up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Fingerprint, LOOK};
use crate::clock::Clock;
use crate::listener::{TlsCertificate, TlsError, TlsFiles};
use crate::metrics::{Metrics, Reloadable};

/// A certificate whose files are looked at.
#[derive(Debug)]
pub(crate) struct WatchedCertificate {
    certificate: Arc<TlsCertificate>,
    in_force: Fingerprint,
    last_seen: Fingerprint,
}

impl WatchedCertificate {
    /// Reads a certificate, its key, and the CA of its clients if they have one.
    ///
    /// # Errors
    /// When they cannot be served.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let others = std::iter::once(&files.key).chain(&files.client_ca);
        // Before they are read, so that what changes meanwhile is a change.
        let seen = Fingerprint::of(&files.certificate, others.cloned().collect());
        Ok(Self {
            certificate: Arc::new(TlsCertificate::load(files)?),
            last_seen: seen.clone(),
            in_force: seen,
        })
    }

    /// The certificate.
    pub(crate) const fn certificate(&self) -> &Arc<TlsCertificate> {
        &self.certificate
    }

    /// Whether the files have changed, and have stopped changing.
    fn has_changed(&mut self) -> bool {
        let seen = self.in_force.look_again();
        let is_settled = seen == self.last_seen && seen != self.in_force;
        if is_settled {
            self.in_force = seen.clone();
        }
        self.last_seen = seen;
        is_settled
    }
}

/// Looks after certificates while the server runs; a thread of its own.
pub(crate) struct CertificateWatch {
    pub(crate) certificates: Vec<WatchedCertificate>,
    /// The host that clients come to.
    pub(crate) host: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) is_stopping: Arc<AtomicBool>,
}

impl CertificateWatch {
    /// Tells of the certificates, and of each that takes the place of one, until the server stops.
    pub(crate) fn run(mut self) {
        self.metrics
            .loaded(Reloadable::Tls, self.clock.now().unix_timestamp());
        for watched in &self.certificates {
            self.tell(&watched.certificate);
        }
        while !self.is_stopping.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            let changed = self.certificates.iter_mut();
            let changed: Vec<_> = changed
                .filter_map(|watched| {
                    watched
                        .has_changed()
                        .then(|| Arc::clone(&watched.certificate))
                })
                .collect();
            for certificate in changed {
                self.reload(&certificate);
            }
        }
    }

    fn reload(&self, certificate: &TlsCertificate) {
        let now = self.clock.now();
        match certificate.reload(now) {
            Ok(()) => {
                self.metrics.reloaded(Reloadable::Tls, now.unix_timestamp());
                tracing::info!(
                    event = "tls.reloaded",
                    ?certificate,
                    "another TLS certificate is shown"
                );
                self.tell(certificate);
            }
            Err(error) => {
                self.metrics.reload_refused(Reloadable::Tls);
                tracing::error!(
                    event = "tls.rejected",
                    %error,
                    "the TLS certificate on the disk is not used; the one before stays"
                );
            }
        }
    }

    fn tell(&self, certificate: &TlsCertificate) {
        for warning in certificate.warnings(&self.host, self.clock.now()) {
            tracing::warn!(event = "tls.warning", "{warning}");
        }
        // Of several, the one that ends first.
        let ends = self
            .certificates
            .iter()
            .map(|watched| watched.certificate.not_after());
        if let Some(end) = ends.min() {
            self.metrics.tls_certificate(end.unix_timestamp());
        }
    }
}
