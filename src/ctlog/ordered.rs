//! Several logs, of which one timestamp is wanted.
//!
//! A certificate carries one timestamp, because some clients take no more. So the logs are not all asked: the first is, and
//! the next only when the one before it failed, or lets wait.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::{CtLog, SignedCertificateTimestamp, Submission, SubmitError};

/// Logs in the order in which they are asked.
#[derive(Debug)]
pub struct OrderedLogs {
    logs: Vec<Arc<dyn CtLog>>,
    patience: Patience,
}

/// How long is waited for logs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// For one log alone; then the next one is asked beside it.
    pub hedge_after: Duration,
    /// For all of them.
    pub in_all: Duration,
}

impl OrderedLogs {
    /// Asks `logs` in this order.
    #[must_use]
    pub const fn new(logs: Vec<Arc<dyn CtLog>>, patience: Patience) -> Self {
        Self { logs, patience }
    }

    async fn first_timestamp(
        &self,
        submission: &Arc<Submission>,
    ) -> Result<SignedCertificateTimestamp, SubmitError> {
        let deadline = Instant::now() + self.patience.in_all;
        let mut asked = FuturesUnordered::new();
        // What counts is why the preferred log gave none; the others only stand in for it.
        let mut failure = None;
        let mut logs = self.logs.iter().enumerate().peekable();
        while let Some((place, log)) = logs.next() {
            let answer = log.submit(Arc::clone(submission));
            asked.push(answer.map(move |answer| (place, answer)));
            let is_last = logs.peek().is_none();
            let until = if is_last {
                deadline
            } else {
                deadline.min(Instant::now() + self.patience.hedge_after)
            };
            while let Ok(Some((place, answer))) = timeout_at(until, asked.next()).await {
                match answer {
                    Ok(timestamp) => return Ok(timestamp),
                    Err(error) if place == 0 => failure = Some(error),
                    Err(_) => {}
                }
                if !is_last {
                    break;
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            SubmitError::Unavailable(format!("no answer within {:?}", self.patience.in_all))
        }))
    }
}

impl CtLog for OrderedLogs {
    fn name(&self) -> &str {
        self.logs.first().map_or("", |log| log.name())
    }

    fn submit(
        &self,
        submission: Arc<Submission>,
    ) -> BoxFuture<'_, Result<SignedCertificateTimestamp, SubmitError>> {
        async move { self.first_timestamp(&submission).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ctlog::testing;

    const HEDGE: Duration = Duration::from_millis(500);
    const IN_ALL: Duration = Duration::from_secs(2);

    /// What a log does after a while.
    #[derive(Clone, Copy, Debug)]
    enum Does {
        Gives(u64),
        Refuses(&'static str),
        Hangs,
    }

    /// A log that answers in its own time, and remembers when it was asked.
    #[derive(Debug)]
    struct PlayedLog {
        after: Duration,
        does: Does,
        asked_at: Mutex<Vec<Instant>>,
    }

    impl PlayedLog {
        fn new(after_millis: u64, does: Does) -> Arc<Self> {
            Arc::new(Self {
                after: Duration::from_millis(after_millis),
                does,
                asked_at: Mutex::default(),
            })
        }

        fn asked_after(&self, start: Instant) -> Vec<u128> {
            let asked_at = self.asked_at.lock().unwrap();
            let asked_after = asked_at.iter().map(|at| (*at - start).as_millis());
            asked_after.collect()
        }
    }

    impl CtLog for PlayedLog {
        fn name(&self) -> &'static str {
            "played"
        }

        fn submit(
            &self,
            _: Arc<Submission>,
        ) -> BoxFuture<'_, Result<SignedCertificateTimestamp, SubmitError>> {
            self.asked_at.lock().unwrap().push(Instant::now());
            async {
                tokio::time::sleep(self.after).await;
                match self.does {
                    Does::Gives(time) => Ok(timestamp(time)),
                    Does::Refuses(why) => Err(SubmitError::Rejected(why.to_owned())),
                    Does::Hangs => std::future::pending().await,
                }
            }
            .boxed()
        }
    }

    fn timestamp(time: u64) -> SignedCertificateTimestamp {
        SignedCertificateTimestamp::by_ecdsa([0; 32], time, Vec::new(), Vec::new())
    }

    /// Asks these logs, and says what came of it, after how many milliseconds, and when each was asked.
    async fn ask(logs: &[Arc<PlayedLog>]) -> (Result<u64, String>, u128, Vec<Vec<u128>>) {
        let patience = Patience {
            hedge_after: HEDGE,
            in_all: IN_ALL,
        };
        let dynamic = logs.iter().map(|log| Arc::clone(log) as Arc<dyn CtLog>);
        let ordered = OrderedLogs::new(dynamic.collect(), patience);
        let start = Instant::now();
        let answer = ordered.submit(Arc::new(testing::submission())).await;
        let answer = answer.map(|sct| sct.timestamp());
        let asked = logs.iter().map(|log| log.asked_after(start)).collect();
        (
            answer.map_err(|error| error.to_string()),
            start.elapsed().as_millis(),
            asked,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_log_is_not_asked_while_the_first_is_quick() {
        let logs = [
            PlayedLog::new(499, Does::Gives(1)),
            PlayedLog::new(0, Does::Gives(2)),
        ];
        assert_eq!(ask(&logs).await, (Ok(1), 499, vec![vec![0], vec![]]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_lets_wait_gets_company() {
        let logs = [
            PlayedLog::new(0, Does::Hangs),
            PlayedLog::new(100, Does::Gives(2)),
        ];
        assert_eq!(ask(&logs).await, (Ok(2), 600, vec![vec![0], vec![500]]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_counts_whichever_log_it_is_from() {
        let logs = [
            PlayedLog::new(700, Does::Gives(1)),
            PlayedLog::new(300, Does::Gives(2)),
            PlayedLog::new(0, Does::Gives(3)),
        ];
        let (answer, took, asked) = ask(&logs).await;
        assert_eq!((answer, took), (Ok(1), 700));
        assert_eq!(asked, [vec![0], vec![500], vec![]]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_the_next_log_is_asked_at_once() {
        let logs = [
            PlayedLog::new(10, Does::Refuses("full")),
            PlayedLog::new(10, Does::Refuses("frozen")),
            PlayedLog::new(10, Does::Gives(3)),
        ];
        let (answer, took, asked) = ask(&logs).await;
        assert_eq!((answer, took), (Ok(3), 30));
        assert_eq!(asked, [[0], [10], [20]]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_refuse_the_preferred_log_says_why() {
        let logs = [
            PlayedLog::new(600, Does::Refuses("the first")),
            PlayedLog::new(10, Does::Refuses("the second")),
        ];
        let (answer, took, _) = ask(&logs).await;
        assert!(answer.unwrap_err().contains("the first"));
        assert_eq!(took, 600);
    }

    #[tokio::test(start_paused = true)]
    async fn one_deadline_holds_for_all_of_them() {
        let hanging = || PlayedLog::new(0, Does::Hangs);
        let (answer, took, asked) = ask(&[hanging(), hanging(), hanging()]).await;
        assert!(answer.unwrap_err().contains("no answer within 2s"));
        assert_eq!(took, 2000);
        assert_eq!(asked, [[0], [500], [1000]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_of_the_first_is_taken_while_the_second_fails() {
        let logs = [
            PlayedLog::new(1500, Does::Gives(1)),
            PlayedLog::new(1, Does::Refuses("no")),
        ];
        let (answer, took, asked) = ask(&logs).await;
        assert_eq!((answer, took), (Ok(1), 1500));
        assert_eq!(asked, [[0], [500]]);
    }
}
