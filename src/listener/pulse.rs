//! Whether the threads that serve still do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Asks every worker thread for an answer from its event loop: one that hangs in a request gives none, however many
/// connections it has.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Vec<Worker>>>);

type Worker = UnboundedSender<std::sync::mpsc::Sender<()>>;

impl Pulse {
    /// Adds this thread. Must be called inside an actix system.
    pub(super) fn add_this_thread(&self) {
        let (worker, mut questions) = unbounded_channel::<std::sync::mpsc::Sender<()>>();
        self.workers().push(worker);
        actix_web::rt::spawn(async move {
            while let Some(answer) = questions.recv().await {
                // Who asked has stopped waiting.
                let _ = answer.send(());
            }
        });
    }

    /// Whether every thread answers within `timeout`. Blocks until then. Threads that have ended are not asked.
    #[must_use]
    pub fn is_felt_within(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let (answer, answers) = std::sync::mpsc::channel();
        let asked = {
            let mut workers = self.workers();
            workers.retain(|worker| worker.send(answer.clone()).is_ok());
            workers.len()
        };
        (0..asked).all(|_| {
            let left = end.saturating_duration_since(Instant::now());
            answers.recv_timeout(left).is_ok()
        })
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        // A list of senders is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_has_no_pulse_and_one_that_ended_is_forgotten() {
        let pulse = Pulse::default();
        assert!(pulse.is_felt_within(Duration::ZERO));
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let (hung, is_hung) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::spawn({
            let pulse = pulse.clone();
            move || {
                actix_web::rt::System::new().block_on(async move {
                    pulse.add_this_thread();
                    hung.send(()).unwrap();
                    waits.recv().unwrap();
                    actix_web::rt::task::yield_now().await;
                });
            }
        });
        is_hung.recv().unwrap();
        assert!(!pulse.is_felt_within(Duration::from_millis(1)));
        go_on.send(()).unwrap();
        worker.join().unwrap();
        assert!(pulse.is_felt_within(Duration::ZERO));
    }
}
