//! How much is let in: requests at once, turns at a slow key, requests in a time, and whose address counts.
//!
//! Nothing here waits without a bound, and nothing grows with the number of clients.

use std::time::Duration;

use crate::random::Random;

pub mod admission;
pub mod clients;
pub mod connections;
pub mod rates;
pub mod turns;

pub use admission::{Admission, Admitted};
pub use clients::{Networks, client_address};
pub use connections::{ConnectionLimit, OpenConnection};
pub use rates::{Limited, Rate, RateLimiter, RateLimits, Scope};
pub use turns::{TooBusy, Turn, Turns};

/// After how many seconds a client that was turned away should come back: 1 to 3, at random, so that those who were turned
/// away together do not come back together.
#[must_use]
pub fn retry_after(random: &dyn Random) -> Duration {
    let mut drawn = [0];
    // Without randomness they come back together, and are turned away again.
    let _ = random.fill(&mut drawn);
    let [drawn] = drawn;
    Duration::from_secs(1 + u64::from(drawn % 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn clients_are_sent_away_for_one_to_three_seconds() {
        let random = SeededRandom::new(1);
        let drawn: std::collections::BTreeSet<u64> =
            (0..100).map(|_| retry_after(&random).as_secs()).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
