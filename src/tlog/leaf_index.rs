//! Where leaves are, by their hashes: for `get-proof-by-hash` of RFC 6962, which asks for no index.
//!
//! Derived from the published level-0 tiles, in memory, behind everything else: whoever asks brings it up to date, a piece
//! at a time. Nothing is believed of it: a place that it names is looked up in the tree before it is told.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Log;
use super::tile::{TILE_WIDTH, TileKind, TilePath};
use super::tree::{Hash, Nodes as _};
use crate::parallel::try_map;
use crate::store::StoreError;

/// How many tiles one call takes in at least, however slow they are.
const MIN_TILES: u64 = 16;
/// How long one call takes in more: a client waits for it.
const STEP: Duration = Duration::from_millis(50);

/// Leaf hash → index, over the published tree, or its beginning.
///
/// Sixteen octets an entry, and as much again for a moment while two runs become one.
#[derive(Debug, Default)]
pub struct LeafIndex(Mutex<Runs>);

/// Sorted runs, each at least twice as long as the next.
#[derive(Debug, Default)]
struct Runs {
    size: u64,
    runs: Vec<Vec<Item>>,
}

/// The beginning of a hash, and the index of its leaf.
type Item = (u64, u64);

/// What is known of a leaf.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// It is the leaf at this index, or one of several.
    At(u64),
    /// No published leaf has this hash.
    Nowhere,
    /// Not all published leaves are in the index yet, and this one is not among those that are.
    NotYet,
}

impl LeafIndex {
    /// Takes in some more of the published leaves; `true` when all of them are in.
    ///
    /// # Errors
    /// When a tile cannot be read.
    pub fn advance(&self, log: &Log) -> Result<bool, StoreError> {
        let begun = Instant::now();
        let first = self.lock().size;
        let published = log.head().map_or(0, |head| head.size);
        let (mut size, mut items) = (first, Vec::new());
        let is_time = |size| size < first + MIN_TILES * TILE_WIDTH || begun.elapsed() < STEP;
        while size < published && is_time(size) {
            let tiles: Vec<_> = (size / TILE_WIDTH..published.div_ceil(TILE_WIDTH))
                .take(log.reads_at_once())
                .collect();
            let tiles = try_map(tiles.len(), &tiles, |index| {
                read_leaves(log, *index, published)
            })?;
            for leaves in tiles {
                let new = leaves.into_iter().filter(|(_, at)| *at >= size);
                items.extend(new);
                size = items.last().map_or(size, |(_, at)| at + 1);
            }
        }
        // Nobody waits while a store is read. Of two who read the same, one was first.
        let mut runs = self.lock();
        if runs.size == first {
            runs.add(items);
            runs.size = size;
        }
        Ok(runs.size >= published)
    }

    /// Finds the leaf with this hash, the first one where there are several.
    ///
    /// # Errors
    /// When the store fails.
    pub fn find(&self, log: &Log, leaf: &Hash) -> Result<Found, StoreError> {
        let is_complete = self.advance(log)?;
        let mut places = self.lock().places(leaf);
        places.sort_unstable();
        for index in places {
            if log.node(0, index)? == *leaf {
                return Ok(Found::At(index));
            }
        }
        Ok(if is_complete {
            Found::Nowhere
        } else {
            Found::NotYet
        })
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leaves of a tile, as far as the published tree of so many leaves has filled it.
fn read_leaves(log: &Log, index: u64, published: u64) -> Result<Vec<Item>, StoreError> {
    let path = TilePath::full(TileKind::Hashes(0), index);
    let path = TilePath::of_width(path.kind(), index, path.available(published));
    let tile = log
        .tile(path)?
        .ok_or_else(|| StoreError::Damaged(format!("{path} of the published tree is missing")))?;
    let (hashes, _) = tile.as_chunks::<32>();
    let places = index * TILE_WIDTH..;
    Ok(places
        .zip(hashes)
        .map(|(at, hash)| (prefix(hash), at))
        .collect())
}

impl Runs {
    /// Adds items with indexes above all that are there.
    fn add(&mut self, mut items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        items.sort_unstable();
        while let Some(last) = self
            .runs
            .pop_if(|last| last.len() < items.len().saturating_mul(2))
        {
            items = merge(&last, &items);
        }
        self.runs.push(items);
    }

    /// The indexes of the leaves whose hashes begin as this one.
    fn places(&self, leaf: &Hash) -> Vec<u64> {
        let wanted = prefix(leaf);
        let of_run = |run: &Vec<Item>| {
            let start = run.partition_point(|(prefix, _)| *prefix < wanted);
            let items = run.iter().skip(start);
            items
                .take_while(|(prefix, _)| *prefix == wanted)
                .map(|(_, index)| *index)
                .collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(of_run).collect()
    }
}

/// Two sorted runs as one.
fn merge(one: &[Item], other: &[Item]) -> Vec<Item> {
    let mut merged = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let next = match (one.peek(), other.peek()) {
            (Some(left), Some(right)) if left <= right => one.next(),
            (_, Some(_)) => other.next(),
            (_, None) => one.next(),
        };
        match next {
            Some(item) => merged.push(*item),
            None => return merged,
        }
    }
}

fn prefix(hash: &Hash) -> u64 {
    let (start, _) = hash.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(prefix: u64) -> Hash {
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&prefix.to_be_bytes());
        hash
    }

    #[test]
    fn leaves_that_begin_alike_are_all_found() {
        let mut runs = Runs::default();
        runs.add(vec![(9, 0), (5, 1)]);
        runs.add(vec![(5, 2)]);
        runs.add(vec![(5, 3), (1, 4)]);
        let mut places = runs.places(&hash(5));
        places.sort_unstable();
        assert_eq!(places, [1, 2, 3]);
        assert!(runs.places(&hash(6)).is_empty());
    }

    proptest! {
        #[test]
        fn every_leaf_is_found_in_few_runs(batches in prop::collection::vec(1_u64..50, 1..60)) {
            let mut runs = Runs::default();
            let mut size = 0;
            for batch in batches {
                runs.add((size..size + batch).map(|at| (at.wrapping_mul(0x9e37_79b9), at)).collect());
                size += batch;
            }
            for at in 0..size {
                prop_assert_eq!(runs.places(&hash(at.wrapping_mul(0x9e37_79b9))), vec![at]);
            }
            prop_assert!(runs.runs.len() <= 64 - size.leading_zeros() as usize);
            prop_assert!(runs.runs.windows(2).all(|pair| pair[0].len() >= 2 * pair[1].len()));
        }
    }
}
