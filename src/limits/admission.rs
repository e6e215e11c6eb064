//! A door that counts: so many are inside at once, and whoever comes then is turned away and does not wait.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts who is inside.
#[derive(Debug)]
pub struct Admission {
    most: usize,
    inside: AtomicUsize,
}

impl Admission {
    /// A door for `most` at once.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            inside: AtomicUsize::new(0),
        }
    }

    /// Lets one in until the value is dropped. `None`: there are as many inside as there may be.
    pub fn enter(&self) -> Option<Admitted<'_>> {
        // Made before the comparison: dropping it takes back the count of one who is turned away.
        let admitted = Admitted(self);
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        (before < self.most).then_some(admitted)
    }

    /// How many are inside.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed).min(self.most)
    }
}

/// One who is inside.
#[derive(Debug)]
pub struct Admitted<'a>(&'a Admission);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_inside_than_may_be_and_leaving_makes_room() {
        let door = Admission::new(2);
        let first = door.enter();
        let second = door.enter();
        assert!(first.is_some() && second.is_some());
        assert!(door.enter().is_none());
        assert!(door.enter().is_none(), "being turned away takes no room");
        assert_eq!(door.inside(), 2);
        drop(first);
        assert!(door.enter().is_some());
        drop(second);
        assert_eq!(door.inside(), 0);
    }
}
