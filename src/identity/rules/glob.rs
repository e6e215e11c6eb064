//! Patterns with stars, for names that have slashes.

use std::collections::BTreeSet;

/// A pattern that the whole of a text must match: `*` stands for any characters but `/`, `**` for any characters, both also
/// for none; everything else stands for itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Glob {
    written: String,
    /// What stands before the first star. Most texts that do not match differ here.
    opening: String,
    rest: Vec<Part>,
}

/// One step through a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// This octet.
    Octet(u8),
    /// Any octets but `/`.
    Star,
    /// Any octets.
    DoubleStar,
}

/// A text is not a pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum InvalidGlob {
    /// Three stars in a row.
    #[error("more than two * in a row")]
    Stars,
    /// A character that has a meaning in the patterns of shells, and none here.
    #[error("`{0}` has no meaning in a glob, only * and ** have; use regex, or several values")]
    Character(char),
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong, and at which octet of the text.
    pub(super) fn parse(text: &str) -> Result<Self, (InvalidGlob, usize)> {
        let stranger = text
            .char_indices()
            .find(|(_, character)| "?[]{}\\".contains(*character));
        if let Some((offset, character)) = stranger {
            return Err((InvalidGlob::Character(character), offset));
        }
        if let Some(offset) = text.find("***") {
            return Err((InvalidGlob::Stars, offset));
        }
        let start = text.find('*').unwrap_or(text.len());
        let (opening, rest) = text.split_at_checked(start).unwrap_or((text, ""));
        let mut parts = Vec::with_capacity(rest.len());
        let mut octets = rest.as_bytes();
        while let [octet, tail @ ..] = octets {
            let (part, tail) = match (octet, tail) {
                (b'*', [b'*', tail @ ..]) => (Part::DoubleStar, tail),
                (b'*', tail) => (Part::Star, tail),
                (octet, tail) => (Part::Octet(*octet), tail),
            };
            parts.push(part);
            octets = tail;
        }
        Ok(Self {
            written: text.to_owned(),
            opening: opening.to_owned(),
            rest: parts,
        })
    }

    /// Whether every text that matches `other` matches this pattern too, as far as that can be seen: `false` means that it may
    /// be otherwise.
    ///
    /// Follows `other` as if it were a text, in which a star is a symbol that only stars of this pattern can stand for.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let ours = self.parts();
        let mut places = BTreeSet::from([0]);
        let skip_stars = |places: &mut BTreeSet<usize>| {
            let mut at = 0;
            while let Some(&place) = places.range(at..).next() {
                if matches!(ours.get(place), Some(Part::Star | Part::DoubleStar)) {
                    places.insert(place + 1);
                }
                at = place + 1;
            }
        };
        skip_stars(&mut places);
        for symbol in other.parts() {
            let next = places.iter().filter_map(|&place| {
                let after = match (ours.get(place)?, symbol) {
                    (Part::Octet(ours), Part::Octet(theirs)) if *ours == theirs => place + 1,
                    (Part::Star, Part::Octet(octet)) if octet != b'/' => place,
                    (Part::Star, Part::Star) | (Part::DoubleStar, _) => place,
                    (Part::Octet(_) | Part::Star, _) => return None,
                };
                Some(after)
            });
            places = next.collect();
            skip_stars(&mut places);
        }
        places.contains(&ours.len())
    }

    /// The whole pattern, with its opening.
    fn parts(&self) -> Vec<Part> {
        let opening = self.opening.bytes().map(Part::Octet);
        opening.chain(self.rest.iter().copied()).collect()
    }

    /// Whether the whole of `text` is what the pattern describes.
    ///
    /// Follows all ways through the pattern at once, so that no text takes longer than its length times that of the pattern.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(&self.opening) else {
            return false;
        };
        let mut places = Places::default();
        places.reach(0, &self.rest);
        let mut next = Places::default();
        for octet in rest.bytes() {
            for &place in &places.0 {
                match self.rest.get(place) {
                    Some(Part::Octet(wanted)) if *wanted == octet => {
                        next.reach(place + 1, &self.rest)
                    }
                    Some(Part::Star) if octet != b'/' => next.reach(place, &self.rest),
                    Some(Part::DoubleStar) => next.reach(place, &self.rest),
                    Some(Part::Octet(_) | Part::Star) | None => {}
                }
            }
            if next.0.is_empty() {
                return false;
            }
            std::mem::swap(&mut places, &mut next);
            next.0.clear();
        }
        places.0.last() == Some(&self.rest.len())
    }

    /// The pattern as it is written.
    pub(super) fn as_str(&self) -> &str {
        &self.written
    }

    /// What every text begins with that matches, where any text does that begins so.
    pub(super) fn as_prefix(&self) -> Option<&str> {
        (self.rest == [Part::DoubleStar]).then_some(&self.opening)
    }

    /// What every text begins with that matches.
    pub(super) fn opening(&self) -> &str {
        &self.opening
    }
}

/// How far the ways through a pattern have come: how many of its parts lie behind each, ascending.
#[derive(Default)]
struct Places(Vec<usize>);

impl Places {
    /// Adds a place. From a star on one may go on at once. Places are added in ascending order but for repetitions.
    fn reach(&mut self, mut place: usize, parts: &[Part]) {
        loop {
            let part = parts.get(place);
            if self.0.last().is_none_or(|last| *last < place) {
                if part == Some(&Part::DoubleStar) {
                    // Whatever comes after it can come after it from here: the ways behind are not needed.
                    self.0.clear();
                }
                self.0.push(place);
            }
            match part {
                Some(Part::Star | Part::DoubleStar) => place += 1,
                Some(Part::Octet(_)) | None => return,
            }
        }
    }
}
