//! The handover between two threads, and every order in which they can run.

use std::thread;
use std::time::Duration;

use super::handover::{Taken, handover};

/// What the modelled handover stands on: it tries every order in which threads can run.
mod sync {
    pub(super) use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
}

#[path = "handover.rs"]
#[expect(clippy::duplicate_mod, reason = "it is to run on both")]
mod modelled;

const HANG: Duration = Duration::from_secs(30);

fn taken(items: &[u8], is_last: bool) -> Taken<u8> {
    Taken {
        items: items.to_vec(),
        is_asked: false,
        is_last,
    }
}

#[test]
fn the_first_wakes_who_waits_for_it_and_the_rest_gather() {
    let (giver, taker, _asker) = handover();
    let giving = thread::spawn(move || {
        giver.give(0, false);
        giver
    });
    assert_eq!(taker.first(HANG), taken(&[0], false));

    let giver = giving.join().unwrap();
    giver.give(1, false);
    giver.give(2, false);
    assert_eq!(taker.all(Duration::ZERO), taken(&[1, 2], false));
    assert_eq!(taker.first(Duration::ZERO), taken(&[], false));
    drop(giver);
}

#[test]
fn what_is_urgent_ends_every_wait_once() {
    let (giver, taker, _asker) = handover();
    let giving = thread::spawn(move || {
        giver.give(0, false);
        giver.give(1, true);
        giver
    });
    assert_eq!(taker.all(HANG), taken(&[0, 1], false));
    giving.join().unwrap().give(2, false);
    assert_eq!(taker.all(Duration::from_millis(1)), taken(&[2], true));
}

#[test]
fn the_end_of_the_giver_ends_every_wait_and_loses_nothing() {
    let (giver, taker, _asker) = handover();
    giver.give(7, false);
    drop(giver);
    assert_eq!(taker.all(HANG), taken(&[7], true));
    assert_eq!(taker.first(HANG), taken(&[], true));
}

#[test]
fn a_question_ends_every_wait_and_is_answered_by_a_look_that_began_after_it() {
    let (giver, taker, asker) = handover();
    let looking = thread::spawn(move || {
        for look in 0..2 {
            let taken = if look == 0 {
                taker.first(HANG)
            } else {
                taker.all(HANG)
            };
            assert!(taken.is_asked, "{taken:?}");
            taker.answer();
        }
    });
    assert!(asker.ask(HANG));
    assert!(asker.ask(HANG));
    looking.join().unwrap();
    assert!(!asker.ask(HANG), "nobody is left to look");
    giver.give(7, false);
}

/// Nothing that is handed over is lost, taken twice or in another order, and every wait ends, however the threads run.
#[test]
fn in_every_order_of_the_threads_everything_arrives_once() {
    let mut model = loom::model::Builder::new();
    // How often a thread is interrupted where it could go on. Faults hardly ever need more, and every order takes minutes.
    model.preemption_bound = Some(3);
    model.check(|| {
        let (giver, taker, asker) = modelled::handover();
        let giving = loom::thread::spawn(move || {
            giver.give(0, false);
            giver.give(1, true);
            giver
        });
        let asking = loom::thread::spawn(move || asker.ask(HANG));
        let mut items = Vec::new();
        // No wait ends by its time here: who is not woken hangs, and the model says so.
        while items.len() < 2 {
            items.extend(taker.all(HANG).items);
            taker.answer();
        }
        drop(giving.join().unwrap());
        while !taker.first(HANG).is_last {
            taker.answer();
        }
        drop(taker);
        // Answered, or told that nobody will.
        asking.join().unwrap();
        assert_eq!(items, [0, 1]);
    });
}
