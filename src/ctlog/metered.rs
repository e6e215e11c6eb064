//! A log whose answers are counted and timed.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{BoxFuture, FutureExt};

use super::{CtLog, SignedCertificateTimestamp, Submission, SubmitError};
use crate::metrics::{CtLogMetrics, SubmissionResult};

/// Another log, watched.
#[derive(Debug)]
pub struct MeteredLog {
    log: Arc<dyn CtLog>,
    metrics: CtLogMetrics,
}

impl MeteredLog {
    /// Watches `log`.
    #[must_use]
    pub const fn new(log: Arc<dyn CtLog>, metrics: CtLogMetrics) -> Self {
        Self { log, metrics }
    }
}

impl CtLog for MeteredLog {
    fn name(&self) -> &str {
        self.log.name()
    }

    fn submit(
        &self,
        submission: Arc<Submission>,
    ) -> BoxFuture<'_, Result<SignedCertificateTimestamp, SubmitError>> {
        let start = Instant::now();
        let answer = self.log.submit(submission);
        async move {
            let answer = answer.await;
            let (result, sct_millis) = match &answer {
                Ok(sct) => (SubmissionResult::Ok, Some(sct.timestamp())),
                Err(SubmitError::Timeout) => (SubmissionResult::Timeout, None),
                Err(SubmitError::Rejected(_)) => (SubmissionResult::Rejected, None),
                Err(SubmitError::BadSct(_)) => (SubmissionResult::BadSct, None),
                Err(
                    SubmitError::Overloaded | SubmitError::Store(_) | SubmitError::Unavailable(_),
                ) => (SubmissionResult::Unavailable, None),
            };
            self.metrics.submitted(result, sct_millis, start.elapsed());
            answer
        }
        .boxed()
    }
}
