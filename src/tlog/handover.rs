//! The way from the sequencer to the publisher, who comes for what is there when a checkpoint is due.
//!
//! To wake the publisher for each segment would take longer than its work on one.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// The side that hands over.
pub(super) struct Giver<T> {
    items: Sender<T>,
    /// Nothing is ever sent here: it ends with the giver, and that is the message.
    _present: Sender<Infallible>,
}

/// The side that comes and takes.
pub(super) struct Taker<T> {
    items: Receiver<T>,
    present: Receiver<Infallible>,
}

/// What was there.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Taken<T> {
    /// Oldest first.
    pub(super) items: Vec<T>,
    /// Whether the giver is gone, and these were its last.
    pub(super) is_last: bool,
}

/// The two sides of a new way.
pub(super) fn handover<T>() -> (Giver<T>, Taker<T>) {
    let (to_taker, items) = channel();
    let (at_giver, present) = channel();
    let giver = Giver {
        items: to_taker,
        _present: at_giver,
    };
    (giver, Taker { items, present })
}

impl<T> Giver<T> {
    /// Hands one over. It wakes the other side only where that waits for a first one.
    pub(super) fn give(&self, item: T) {
        // A taker that is gone has reported why.
        let _ = self.items.send(item);
    }
}

impl<T> Taker<T> {
    /// Waits for one, at most for `timeout`.
    pub(super) fn first(&self, timeout: Duration) -> Taken<T> {
        let received = self.items.recv_timeout(timeout);
        Taken {
            is_last: matches!(received, Err(RecvTimeoutError::Disconnected)),
            items: received.into_iter().collect(),
        }
    }

    /// Lets them gather for `pause`, or until the giver is gone, and takes all.
    pub(super) fn all(&self, pause: Duration) -> Taken<T> {
        let Err(why) = self.present.recv_timeout(pause);
        Taken {
            items: self.items.try_iter().collect(),
            is_last: why == RecvTimeoutError::Disconnected,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const HANG: Duration = Duration::from_secs(30);

    fn taken(items: &[u8], is_last: bool) -> Taken<u8> {
        let items = items.to_vec();
        Taken { items, is_last }
    }

    #[test]
    fn the_first_wakes_who_waits_for_it_and_the_rest_gather() {
        let (giver, taker) = handover();
        let giving = thread::spawn(move || {
            (0..3).for_each(|number| giver.give(number));
            giver
        });
        assert_eq!(taker.first(HANG), taken(&[0], false));

        let giver = giving.join().unwrap();
        assert_eq!(taker.all(Duration::ZERO), taken(&[1, 2], false));
        assert_eq!(taker.first(Duration::ZERO), taken(&[], false));
        drop(giver);
    }

    #[test]
    fn the_end_of_the_giver_ends_every_wait_and_loses_nothing() {
        let (giver, taker) = handover();
        giver.give(7);
        drop(giver);
        assert_eq!(taker.all(HANG), taken(&[7], true));
        assert_eq!(taker.first(HANG), taken(&[], true));
    }
}
