//! A key whose signatures are counted and timed.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{BoxFuture, FutureExt};

use super::{SignError, SignatureAlgorithm, Signer};
use crate::metrics::SigningMetrics;

/// Another key, watched.
#[derive(Debug)]
pub struct MeteredSigner {
    key: Arc<dyn Signer>,
    metrics: SigningMetrics,
}

impl MeteredSigner {
    /// Watches `key`.
    #[must_use]
    pub const fn new(key: Arc<dyn Signer>, metrics: SigningMetrics) -> Self {
        Self { key, metrics }
    }
}

impl Signer for MeteredSigner {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }

    fn public_key_der(&self) -> &[u8] {
        self.key.public_key_der()
    }

    fn at_once(&self) -> Option<usize> {
        self.key.at_once()
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        let start = Instant::now();
        let mut signing = self.key.sign(message);
        // A key in memory has signed by now; that answer is passed on as it is.
        if let Some(signed) = (&mut signing).now_or_never() {
            self.metrics.signed(signed.is_ok(), start.elapsed());
            return futures_util::future::ready(signed).boxed();
        }
        async move {
            let signed = signing.await;
            self.metrics.signed(signed.is_ok(), start.elapsed());
            signed
        }
        .boxed()
    }
}
