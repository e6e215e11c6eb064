//! Turns at what serves only a few at once, such as a key in a device, with a bound on how long anyone waits for one.
//!
//! A bound on how *many* wait would have to know how fast the line moves. This one bounds the *time*, and learns it from
//! those who were turned away: the longer ago the last one was, the longer one may wait, from two turns to twelve. A burst
//! is waited out. Where more comes than can be served, somebody is turned away every moment, nobody waits longer than two
//! turns, the newest goes first, and the others are told to come back: waiting would only make all of them late. Whoever is
//! served then is served almost as fast as without an overload, and the device never idles. As CoDel does for packets (RFC
//! 8289), it tells a line that comes and goes from one that stays.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// The fewest turns that one waits.
const SHORTEST_WAIT: u32 = 2;
/// The most turns that one waits.
const LONGEST_WAIT: u32 = 12;
/// No bound on the wait in a burst is shorter: below it, the scheduling of threads makes lines.
const BURST: Duration = Duration::from_millis(30);

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
    /// When somebody was last turned away.
    refused: Option<Instant>,
    /// How long a turn takes: a mean that moves by an eighth.
    usual: Duration,
}

impl Turns {
    /// `at_once` turns at a time, one at least, of which each takes about as long as `usual`.
    #[must_use]
    pub fn new(at_once: usize, usual: Duration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Line {
            free: at_once.max(1),
            returning: VecDeque::new(),
            waiting: VecDeque::new(),
            refused: None,
            usual,
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
            Ok(Err(_)) | Err(_) => {
                self.line().refused = Some(Instant::now());
                Err(TooBusy)
            }
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
        self.waiting.push_back(giver);
        self.patience()
    }

    /// How long one waits: half as long as nobody has been turned away.
    fn patience(&self) -> Duration {
        let longest = self.longest_wait();
        let calm = self.refused.map_or(longest, |last| last.elapsed() / 2);
        calm.clamp((self.usual * SHORTEST_WAIT).min(longest), longest)
    }

    fn longest_wait(&self) -> Duration {
        (self.usual * LONGEST_WAIT).max(BURST)
    }

    /// Remembers how long a turn took.
    fn note(&mut self, took: Duration) {
        self.usual = (self.usual * 7 + took) / 8;
    }

    /// Who is next.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.returning.pop_front().or_else(|| {
            if self.patience() < self.longest_wait() {
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
    use crate::random::{Random, SeededRandom};

    /// Long, because tokio's timers count in milliseconds.
    const TURN: Duration = Duration::from_millis(200);

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
        let turns = Turns::new(3, TURN);
        let waited = join_all((0..3).map(|_| waits(&turns))).await;
        assert_eq!(waited, [Some(Duration::ZERO); 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_served_in_the_order_of_arrival() {
        let turns = Turns::new(1, TURN);
        let waited = join_all((0..LONGEST_WAIT).map(|_| waits(&turns))).await;
        let expected: Vec<_> = (0..LONGEST_WAIT)
            .map(|before| Some(TURN * before))
            .collect();
        assert_eq!(waited, expected);
    }

    /// Sends clients at random moments, `load` times as many as can be served, and returns what each waited, in the order
    /// of arrival.
    async fn arrive(turns: &Arc<Turns>, count: usize, load: f64) -> Vec<Option<Duration>> {
        let random = SeededRandom::new(7);
        let mut clients = Vec::new();
        for _ in 0..count {
            let turns = Arc::clone(turns);
            clients.push(tokio::spawn(async move { waits(&turns).await }));
            let mut drawn = [0; 4];
            random.fill(&mut drawn).unwrap();
            // Times between arrivals that have no memory: an exponential distribution.
            let uniform =
                (f64::from(u32::from_le_bytes(drawn)) + 1.0) / (f64::from(u32::MAX) + 1.0);
            sleep(TURN.mul_f64(-uniform.ln() / load)).await;
        }
        let waited = join_all(clients).await;
        waited.into_iter().map(Result::unwrap).collect()
    }

    /// How many of a hundred were served, and what the slowest one of a hundred served waited.
    fn summary(waited: &[Option<Duration>]) -> (usize, Duration) {
        let mut served: Vec<Duration> = waited.iter().copied().flatten().collect();
        served.sort();
        (
            served.len() * 100 / waited.len(),
            served[served.len() * 99 / 100],
        )
    }

    #[tokio::test(start_paused = true)]
    async fn three_times_too_much_is_served_fast_or_not_at_all() {
        let turns = Turns::new(1, TURN);
        let waited = arrive(&turns, 9000, 3.0).await;
        let (served, slowest) = summary(&waited);
        assert!(
            (30..=34).contains(&served),
            "{served} of 100, of 33 possible"
        );
        assert!(slowest <= TURN * SHORTEST_WAIT, "{slowest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_be_served_is_served() {
        for load in [0.3, 0.5, 0.7] {
            let turns = Turns::new(1, TURN);
            let (served, _) = summary(&arrive(&turns, 3000, load).await);
            assert!(served >= 99, "load {load}: {served} of 100");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_overload_that_has_passed_leaves_nothing_behind() {
        let turns = Turns::new(1, TURN);
        arrive(&turns, 3000, 5.0).await;
        let (served, _) = summary(&arrive(&turns, 3000, 0.7).await);
        assert!(served >= 98, "{served} of 100");
        sleep(TURN * LONGEST_WAIT * 2).await;
        let waited = join_all((0..LONGEST_WAIT).map(|_| waits(&turns))).await;
        assert!(
            waited.iter().all(Option::is_some),
            "a burst is taken again: {waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_returns_goes_before_all_who_wait() {
        let turns = Turns::new(1, TURN);
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
        let turns = Turns::new(1, TURN);
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
