//! Turns at what serves only a few at once, such as a key in a device, with a bound on how long anyone waits for one.
//!
//! A bound on how *many* wait would have to know how fast the line moves. This one bounds the *time*, after CoDel (RFC
//! 8289) as servers use it: a line that was empty a moment ago is a burst, and everyone in it may wait a while. A line that
//! has not been empty for [`BURST`] comes of more arrivals than there is service, and waiting would serve nobody sooner:
//! then nobody waits longer than two turns take, the newest goes first, and the others are told to come back. So whoever is
//! served under overload is served almost as fast as without it, and the device never idles.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How long a line is taken for a burst, and how long one waits in it.
const BURST: Duration = Duration::from_millis(40);
/// How many turns one waits in a line that is no burst.
const PATIENCE: u32 = 2;

/// The line is longer than waiting makes sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("more is asked of the signing key than it can do")]
pub struct TooBusy;

/// Gives turns.
#[derive(Debug)]
pub struct Turns(Mutex<Line>);

/// A turn. It ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// `None` once it has been handed on.
    turns: Option<Arc<Turns>>,
    began: Instant,
}

#[derive(Debug)]
struct Line {
    /// Turns that nobody has. None are free while somebody waits.
    free: usize,
    /// Those who had a turn and need another to finish what they began.
    returning: VecDeque<oneshot::Sender<Turn>>,
    /// The others, oldest first.
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// Since when somebody waits.
    since: Instant,
    /// How long a turn takes: a mean that moves by an eighth.
    usual: Duration,
}

impl Turns {
    /// `at_once` turns at a time, one at least.
    #[must_use]
    pub fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Line {
            free: at_once.max(1),
            returning: VecDeque::new(),
            waiting: VecDeque::new(),
            since: Instant::now(),
            usual: Duration::ZERO,
        })))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// When it does not come soon.
    pub async fn take(self: &Arc<Self>) -> Result<Turn, TooBusy> {
        let (place, patience) = {
            let mut line = self.line();
            if let Some(turn) = self.free_turn(&mut line) {
                return Ok(turn);
            }
            let (giver, place) = oneshot::channel();
            (place, line.join(giver))
        };
        match timeout(patience, place).await {
            Ok(Ok(turn)) => Ok(turn),
            // The sender is dropped only with the line itself.
            Ok(Err(_)) | Err(_) => Err(TooBusy),
        }
    }

    /// Waits for another turn, before all who have had none: giving up half-way would waste the turn before.
    pub async fn take_again(self: &Arc<Self>) -> Turn {
        let place = {
            let mut line = self.line();
            if let Some(turn) = self.free_turn(&mut line) {
                return turn;
            }
            let (giver, place) = oneshot::channel();
            line.returning.push_back(giver);
            place
        };
        // The line lives as long as `self`, and hands out every place in it.
        place.await.unwrap_or_else(|_| self.turn())
    }

    fn free_turn(self: &Arc<Self>, line: &mut Line) -> Option<Turn> {
        line.free = line.free.checked_sub(1)?;
        Some(self.turn())
    }

    fn turn(self: &Arc<Self>) -> Turn {
        Turn {
            turns: Some(Arc::clone(self)),
            began: Instant::now(),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // No code that holds it can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Joins the line, and says how long to stay in it.
    fn join(&mut self, giver: oneshot::Sender<Turn>) -> Duration {
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.push_back(giver);
        let patience = self.usual * PATIENCE;
        if self.is_standing() {
            patience
        } else {
            patience.max(BURST)
        }
    }

    /// Remembers how long a turn took.
    fn note(&mut self, took: Duration) {
        self.usual = (self.usual * 7 + took) / 8;
    }

    /// Whether the line is there to stay.
    fn is_standing(&self) -> bool {
        self.since.elapsed() > BURST
    }

    /// Who is next.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.returning.pop_front().or_else(|| {
            if self.is_standing() {
                self.waiting.pop_back()
            } else {
                self.waiting.pop_front()
            }
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else {
            return;
        };
        turns.line().note(self.began.elapsed());
        // Those who have left the line are passed over.
        loop {
            let mut line = turns.line();
            let Some(giver) = line.next() else {
                line.free += 1;
                return;
            };
            drop(line);
            match giver.send(turns.turn()) {
                Ok(()) => return,
                // It must not be handed on by its own end too.
                Err(mut unwanted) => unwanted.turns = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const TURN: Duration = Duration::from_millis(2);

    /// Asks for a turn, and returns how long it waited for it, if it came.
    async fn waits(turns: &Arc<Turns>) -> Option<Duration> {
        let start = Instant::now();
        let turn = turns.take().await;
        let waited = start.elapsed();
        if turn.is_ok() {
            sleep(TURN).await;
        }
        turn.is_ok().then_some(waited)
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_as_there_are_turns_do_not_wait() {
        let turns = Turns::new(3);
        let waited = join_all((0..3).map(|_| waits(&turns))).await;
        assert_eq!(waited, [Some(Duration::ZERO); 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_served_in_the_order_of_arrival() {
        let turns = Turns::new(1);
        let waited = join_all((0..15).map(|_| waits(&turns))).await;
        let expected: Vec<_> = (0..15).map(|before| Some(TURN * before)).collect();
        assert_eq!(waited, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn three_times_too_much_is_served_fast_or_not_at_all() {
        let turns = Turns::new(1);
        let mut clients = Vec::new();
        for _ in 0..3000 {
            let turns = Arc::clone(&turns);
            clients.push(tokio::spawn(async move { waits(&turns).await }));
            sleep(TURN / 3).await;
        }
        let mut waited = Vec::new();
        for client in clients {
            waited.push(client.await.unwrap());
        }

        // After the first moments, in which it could have been a burst.
        let later = &waited[150..];
        let served: Vec<Duration> = later.iter().copied().flatten().collect();
        assert!(
            served.len() * 100 > later.len() * 30,
            "the device idles: {} of {} served",
            served.len(),
            later.len()
        );
        assert!(
            served.iter().all(|waited| *waited <= TURN * PATIENCE),
            "{:?}",
            served.iter().max()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_overload_that_has_passed_leaves_nothing_behind() {
        let turns = Turns::new(2);
        let mut clients = Vec::new();
        for _ in 0..300 {
            let turns = Arc::clone(&turns);
            clients.push(tokio::spawn(async move { waits(&turns).await }));
            sleep(TURN / 8).await;
        }
        join_all(clients).await;
        let waited = join_all((0..20).map(|_| waits(&turns))).await;
        assert!(
            waited.iter().all(Option::is_some),
            "a burst is taken again: {waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_returns_goes_before_all_who_wait() {
        let turns = Turns::new(1);
        let first = turns.take().await.unwrap();
        let order = Mutex::new(Vec::new());
        let stranger = async {
            let _turn = turns.take().await.unwrap();
            order.lock().unwrap().push("stranger");
        };
        let returning = async {
            let _turn = turns.take_again().await;
            order.lock().unwrap().push("returning");
        };
        let end = async {
            sleep(TURN).await;
            drop(first);
        };
        futures_util::future::join3(stranger, returning, end).await;
        assert_eq!(*order.lock().unwrap(), ["returning", "stranger"]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_stop_waiting_take_no_turn_with_them() {
        let turns = Turns::new(1);
        let first = turns.take().await.unwrap();
        let gone = timeout(Duration::from_millis(1), turns.take()).await;
        assert!(gone.is_err());
        let gone_too = timeout(Duration::from_millis(1), turns.take_again()).await;
        assert!(gone_too.is_err());
        drop(first);
        assert!(turns.take().await.is_ok());
        assert_eq!(turns.line().free, 1);
    }
}
