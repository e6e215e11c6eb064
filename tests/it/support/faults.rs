//! A CA key, a log and a source of randomness that count what they are asked, and fail when they are told to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use mayfly::ctlog::{CtLog, SignedCertificateTimestamp, Submission, SubmitError};
use mayfly::keys::{SignError, SignatureAlgorithm, Signer};
use mayfly::random::{Random, RandomError, SystemRandomness};
use tokio::sync::watch;

/// A key that can fail, or take its time.
#[derive(Debug)]
pub(crate) struct WatchedKey {
    key: Arc<dyn Signer>,
    signatures: AtomicU64,
    /// How many signatures it gives before it fails.
    left: AtomicU64,
    is_garbling: AtomicBool,
    /// A device that makes one signature after the other, and how long each takes. `None`: a key in memory.
    pace: Option<Duration>,
    device: tokio::sync::Mutex<()>,
}

impl WatchedKey {
    pub(crate) fn new(key: Arc<dyn Signer>) -> Self {
        Self {
            key,
            signatures: AtomicU64::new(0),
            left: AtomicU64::new(u64::MAX),
            is_garbling: AtomicBool::new(false),
            pace: None,
            device: tokio::sync::Mutex::default(),
        }
    }

    /// The same key in a device that makes one signature after the other, each in this time.
    pub(crate) fn paced(self, pace: Duration) -> Self {
        Self {
            pace: Some(pace),
            ..self
        }
    }

    /// How often it was asked to sign.
    pub(crate) fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    /// Fails after so many signatures more.
    pub(crate) fn fail_after(&self, signatures: u64) {
        self.left.store(signatures, Ordering::Relaxed);
    }

    /// Gives signatures with one bit that is wrong, or sound ones again.
    pub(crate) fn garble(&self, is_garbling: bool) {
        self.is_garbling.store(is_garbling, Ordering::Relaxed);
    }

    /// The key itself.
    pub(crate) fn unwatched(&self) -> &dyn Signer {
        self.key.as_ref()
    }
}

impl Signer for WatchedKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }

    fn public_key_der(&self) -> &[u8] {
        self.key.public_key_der()
    }

    fn at_once(&self) -> Option<usize> {
        self.pace.map(|_| 1)
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        // Certificates are sequences; what the background checks sign is not, and must not count.
        let is_certificate = message.first() == Some(&0x30);
        let taken = u64::from(is_certificate);
        self.signatures.fetch_add(taken, Ordering::Relaxed);
        let fewer = |left: u64| left.checked_sub(taken);
        let has_failed = self.left.load(Ordering::Relaxed) == 0;
        if has_failed
            || self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer)
                .is_err()
        {
            return ready(Err(SignError::Backend(
                "slot 3 of the module at 10.9.8.7 is gone".to_owned(),
            )))
            .boxed();
        }
        let is_garbling = self.is_garbling.load(Ordering::Relaxed);
        async move {
            if let Some(pace) = self.pace {
                let _device = self.device.lock().await;
                tokio::time::sleep(pace).await;
            }
            let mut signature = self.key.sign(message).await?;
            if is_garbling && let Some(last) = signature.last_mut() {
                *last ^= 1;
            }
            Ok(signature)
        }
        .boxed()
    }
}

/// The system's randomness, which can break.
#[derive(Debug, Default)]
pub(crate) struct BreakableRandomness(Mutex<Option<RandomFault>>);

/// How randomness is broken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RandomFault {
    /// There is none.
    Fails,
    /// It is always the same.
    Constant,
}

impl BreakableRandomness {
    /// Breaks it, or mends it.
    pub(crate) fn set(&self, fault: Option<RandomFault>) {
        *self.0.lock().unwrap() = fault;
    }
}

impl Random for BreakableRandomness {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        match *self.0.lock().unwrap() {
            None => SystemRandomness.fill(bytes),
            Some(RandomFault::Fails) => Err(RandomError),
            Some(RandomFault::Constant) => {
                bytes.fill(0x5a);
                Ok(())
            }
        }
    }
}

/// A log that can fail, or keep its answers back.
#[derive(Debug)]
pub(crate) struct WatchedLog {
    log: Arc<dyn CtLog>,
    submissions: AtomicU64,
    waiting: AtomicU64,
    fault: Mutex<Option<fn() -> SubmitError>>,
    is_held: watch::Sender<bool>,
}

impl WatchedLog {
    pub(crate) fn new(log: Arc<dyn CtLog>) -> Self {
        Self {
            log,
            submissions: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            fault: Mutex::default(),
            is_held: watch::Sender::new(false),
        }
    }

    /// How often something was submitted.
    pub(crate) fn submissions(&self) -> u64 {
        self.submissions.load(Ordering::Relaxed)
    }

    /// How many wait for an answer.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Fails from now on.
    pub(crate) fn fail_with(&self, fault: fn() -> SubmitError) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Does not fail any more.
    pub(crate) fn mend(&self) {
        *self.fault.lock().unwrap() = None;
    }

    /// Does not answer until it is let go.
    pub(crate) fn hold(&self) {
        self.is_held.send_replace(true);
    }

    /// Answers what waits.
    pub(crate) fn let_go(&self) {
        self.is_held.send_replace(false);
    }
}

/// Counts one who waits, until it is dropped.
struct Waits<'a>(&'a AtomicU64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CtLog for WatchedLog {
    fn name(&self) -> &str {
        self.log.name()
    }

    fn submit(
        &self,
        submission: Arc<Submission>,
    ) -> BoxFuture<'_, Result<SignedCertificateTimestamp, SubmitError>> {
        self.submissions.fetch_add(1, Ordering::Relaxed);
        let fault = *self.fault.lock().unwrap();
        let mut is_held = self.is_held.subscribe();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(&self.waiting);
        async move {
            let _waits = waits;
            is_held
                .wait_for(|is_held| !is_held)
                .await
                .expect("the log lives as long as the server");
            match fault {
                Some(fault) => Err(fault()),
                None => self.log.submit(submission).await,
            }
        }
        .boxed()
    }
}
