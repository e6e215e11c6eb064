//! The same work on many items, several at a time: for work that waits, such as for a store that is far away.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does `work` with each item, with as many as `at_once` at a time, and returns what came of them in the order of the items.
///
/// # Errors
/// The error of the first item, in their order, of those that were tried; after an error no further item is begun.
pub fn try_map<T: Sync, R: Send, E: Send>(
    at_once: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let others = at_once.min(items.len()).saturating_sub(1);
    if others == 0 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return done;
            };
            let result = work(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            done.push((index, result));
        }
    };
    let mut done = thread::scope(|scope| {
        // Where the system has no thread left, fewer do it.
        let threads: Vec<_> = (0..others)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, take).ok())
            .collect();
        let mut done = take();
        for thread in threads {
            done.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        for at_once in [0, 1, 2, 16, 1000] {
            let doubled = try_map(at_once, &items, |item| Ok::<_, ()>(item * 2));
            assert_eq!(
                doubled.unwrap(),
                (0..100).map(|item| item * 2).collect::<Vec<_>>()
            );
            let none = try_map(at_once, &[], |item: &u32| Ok::<_, ()>(*item));
            assert_eq!(none, Ok(Vec::new()));
        }
    }

    #[test]
    fn as_many_are_at_work_as_were_asked_for() {
        // Nobody passes it who is not one of four.
        let barrier = Barrier::new(4);
        let work = |_: &u32| {
            barrier.wait();
            Ok::<_, ()>(())
        };
        assert_eq!(try_map(4, &[0; 12], work).unwrap().len(), 12);
    }

    #[test]
    fn after_an_error_nothing_more_is_begun() {
        for at_once in [1, 4] {
            let begun = AtomicUsize::new(0);
            let items: Vec<usize> = (0..10_000).collect();
            let result = try_map(at_once, &items, |item| {
                begun.fetch_add(1, Ordering::Relaxed);
                if *item == 3 { Err(*item) } else { Ok(()) }
            });
            assert_eq!(result, Err(3));
            assert!(begun.load(Ordering::Relaxed) < 10_000, "{at_once} at once");
        }
    }

    #[test]
    #[should_panic(expected = "of an item")]
    fn a_panic_reaches_the_caller() {
        let _ = try_map(2, &[1, 2], |item| {
            if *item > 0 {
                panic!("of an item")
            } else {
                Ok::<_, ()>(())
            }
        });
    }
}
