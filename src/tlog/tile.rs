//! Tiles: the tree cut into static files of up to 256 hashes or entries (C2SP tlog-tiles, static-ct-api).

use std::fmt;
use std::str::FromStr;

use super::tree::{CompactRange, Hash};
use super::{EntryFormat, Position};
use crate::parallel::try_map;
use crate::store::{Store, StoreError};

/// How many hashes or entries a full tile holds.
pub const TILE_WIDTH: u64 = 256;
/// The octets of one hash.
const HASH_BYTES: usize = 32;
/// The highest level that a path may name (C2SP static-ct-api).
const MAX_LEVEL: u8 = 5;

/// What a tile holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TileKind {
    /// Hashes of a level: 0 holds the leaves', each higher one the roots of the full tiles below it.
    Hashes(u8),
    /// The entries themselves.
    Data,
}

/// The name of a tile: `tile/<level or "data">/<index>[.p/<width>]`.
///
/// The index is written in groups of three digits, all but the last marked with `x`: 1234067 is `x001/x234/067`. Parsing
/// takes the canonical form alone, so that every tile has one URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u64,
}

impl TilePath {
    /// Names a full tile.
    #[must_use]
    pub const fn full(kind: TileKind, index: u64) -> Self {
        Self {
            kind,
            index,
            width: TILE_WIDTH,
        }
    }

    /// Names the part of a tile that its first `width` hashes or entries are; `width` is 1 to 256.
    #[must_use]
    pub const fn of_width(kind: TileKind, index: u64, width: u64) -> Self {
        Self { kind, index, width }
    }

    /// What it holds.
    #[must_use]
    pub const fn kind(self) -> TileKind {
        self.kind
    }

    /// Its place in its level.
    #[must_use]
    pub const fn index(self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds: 1 to 256.
    #[must_use]
    pub const fn width(self) -> u64 {
        self.width
    }

    /// How many of its hashes or entries a tree of `size` leaves has: 0 to 256.
    #[must_use]
    pub const fn available(self, size: u64) -> u64 {
        let level = match self.kind {
            TileKind::Hashes(level) => level,
            TileKind::Data => 0,
        };
        let at_level = match size.checked_shr(8 * level as u32) {
            Some(count) => count,
            None => 0,
        };
        let behind = at_level.saturating_sub(self.index.saturating_mul(TILE_WIDTH));
        if behind > TILE_WIDTH {
            TILE_WIDTH
        } else {
            behind
        }
    }
}

impl TileKind {
    /// Names the last tile of this kind of a tree of `size` leaves where that tile is not full; nothing where it is, or
    /// there is none.
    #[must_use]
    pub const fn partial_of(self, size: u64) -> Option<TilePath> {
        let level = match self {
            Self::Hashes(level) => level,
            Self::Data => 0,
        };
        let count = match size.checked_shr(8 * level as u32) {
            Some(count) => count,
            None => 0,
        };
        match count % TILE_WIDTH {
            0 => None,
            width => Some(TilePath::of_width(self, count / TILE_WIDTH, width)),
        }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Data => f.write_str("tile/data/")?,
        }
        let digits = self.index.to_string();
        let groups = digits.len().div_ceil(3);
        let digits = format!("{digits:0>width$}", width = groups * 3);
        for (group, digit) in digits.chars().enumerate() {
            let (group, is_first) = (group / 3, group % 3 == 0);
            if is_first && group > 0 {
                f.write_str("/")?;
            }
            if is_first && group + 1 < groups {
                f.write_str("x")?;
            }
            write!(f, "{digit}")?;
        }
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// The text is not the canonical path of a tile.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not the canonical path of a tile, such as tile/0/x001/234 or tile/data/000.p/7")]
pub struct NotATilePath;

impl FromStr for TilePath {
    type Err = NotATilePath;

    fn from_str(text: &str) -> Result<Self, NotATilePath> {
        // Longer than any path of an index below 2^40.
        if text.len() > 64 {
            return Err(NotATilePath);
        }
        let rest = text.strip_prefix("tile/").ok_or(NotATilePath)?;
        let (kind, rest) = rest.split_once('/').ok_or(NotATilePath)?;
        let kind = match kind {
            "data" => TileKind::Data,
            level => TileKind::Hashes(level.parse().map_err(|_| NotATilePath)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().map_err(|_| NotATilePath)?),
            None => (rest, TILE_WIDTH),
        };
        let index = index
            .replace(['x', '/'], "")
            .parse()
            .map_err(|_| NotATilePath)?;
        let path = Self { kind, index, width };
        let is_in_range = (1..=TILE_WIDTH).contains(&width)
            && !matches!(kind, TileKind::Hashes(level) if level > MAX_LEVEL);
        // What is written back the same is canonical, by definition.
        (is_in_range && path.to_string() == text)
            .then_some(path)
            .ok_or(NotATilePath)
    }
}

/// The first `width` hashes of a tile; nothing when it holds fewer.
#[must_use]
pub fn cut_hashes(tile: &[u8], width: u64) -> Option<&[u8]> {
    tile.get(..usize::try_from(width).ok()?.checked_mul(HASH_BYTES)?)
}

/// The first `width` entries of a data tile; nothing when it holds fewer.
#[must_use]
pub fn cut_entries<'a>(format: &dyn EntryFormat, tile: &'a [u8], width: u64) -> Option<&'a [u8]> {
    let mut rest = tile;
    for _ in 0..width {
        (_, rest) = format.split_first(rest)?;
    }
    tile.get(..tile.len() - rest.len())
}

/// The hashes of the leaves of a data tile whose first entry has the index `first`, one after the other; nothing when it is
/// not made of whole entries for their places.
fn leaf_hashes(format: &dyn EntryFormat, first: u64, tile: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut hashes) = (tile, Vec::new());
    for index in first.. {
        if rest.is_empty() {
            break;
        }
        let (entry, behind) = format.split_first(rest)?;
        let timestamp = format.timestamp(entry)?;
        hashes.extend(format.leaf_hash(entry, Position { index, timestamp })?);
        rest = behind;
    }
    Some(hashes)
}

/// The hashes of a tile.
fn hashes(tile: &[u8]) -> impl Iterator<Item = Hash> {
    tile.chunks_exact(HASH_BYTES)
        .map(|hash| hash.try_into().unwrap_or_default())
}

/// The root over hashes whose number is a power of two.
#[must_use]
pub fn perfect_root(tile: &[u8]) -> Hash {
    hashes(tile).collect::<CompactRange>().root()
}

/// A tile that became full: its name and its content.
pub type FullTile = (TilePath, Vec<u8>);

/// The right edge of the tree: the tiles that are not full yet, one a level, with the entries of the last data tile.
///
/// It holds everything that full tiles do not, so it and they are the whole tree.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    size: u64,
    /// The hashes of each level's last tile, one after the other, lowest level first.
    levels: Vec<Vec<u8>>,
    data: Vec<u8>,
}

impl Edge {
    /// Reads the edge of the tree of `size` leaves back from full tiles, where every leaf below `size` is in one.
    ///
    /// The entries are those of the leaves; the root is to be checked against a known one.
    ///
    /// # Errors
    /// When a tile is missing or cut short, the entries are others, or the store fails.
    pub fn load(
        store: &dyn Store,
        format: &dyn EntryFormat,
        size: u64,
    ) -> Result<Self, StoreError> {
        let read = |kind, index, width| -> Result<Vec<u8>, StoreError> {
            let path = TilePath::full(kind, index);
            let tile = store.get(&path.to_string())?;
            let part = tile.as_deref().and_then(|tile| match kind {
                TileKind::Hashes(_) => cut_hashes(tile, width),
                TileKind::Data => cut_entries(format, tile, width),
            });
            part.map(<[u8]>::to_vec).ok_or_else(|| damaged(path))
        };
        let (last_tile, width) = (size / TILE_WIDTH, size % TILE_WIDTH);
        let mut edge = Self {
            size,
            ..Self::default()
        };
        if width > 0 {
            edge.data = read(TileKind::Data, last_tile, width)?;
            let leaves = read(TileKind::Hashes(0), last_tile, width)?;
            if leaf_hashes(format, size - width, &edge.data).as_ref() != Some(&leaves) {
                let path = TilePath::full(TileKind::Data, last_tile);
                return Err(damaged(path));
            }
            edge.levels = vec![leaves];
        } else if size > 0 {
            edge.levels = vec![Vec::new()];
        }
        let (mut level, mut count) = (0, size / TILE_WIDTH);
        while count > 0 {
            let below: Vec<_> = (count - count % TILE_WIDTH..count).collect();
            let roots = try_map(store.at_once(), &below, |index| {
                let tile = read(TileKind::Hashes(level), *index, TILE_WIDTH)?;
                Ok::<_, StoreError>(perfect_root(&tile))
            })?;
            edge.levels.push(roots.concat());
            level += 1;
            count /= TILE_WIDTH;
        }
        Ok(edge)
    }

    /// Reads a full tile of the tree back from full tiles.
    ///
    /// It has been checked: the hash over it is computed again, and stands in the tile above it, which is read and checked in
    /// the same way up to this edge. The files of the store are trusted for nothing.
    ///
    /// # Errors
    /// When it, or a tile above it, is missing or not the one of this tree, or the store fails.
    pub fn full_tile(
        &self,
        kind: TileKind,
        index: u64,
        store: &dyn Store,
        format: &dyn EntryFormat,
    ) -> Result<Vec<u8>, StoreError> {
        let path = TilePath::full(kind, index);
        let tile = store.get(&path.to_string())?;
        let tile = tile.ok_or_else(|| damaged(path))?;
        let is_good = match kind {
            TileKind::Data => {
                let leaves = self.full_tile(TileKind::Hashes(0), index, store, format)?;
                leaf_hashes(format, index * TILE_WIDTH, &tile) == Some(leaves)
            }
            TileKind::Hashes(level) => {
                let (above, position) = (TileKind::Hashes(level + 1), index % TILE_WIDTH);
                let parent = TilePath::full(above, index / TILE_WIDTH);
                let hashes = if parent.available(self.size) == TILE_WIDTH {
                    &self.full_tile(above, parent.index(), store, format)?
                } else {
                    self.partial(above)
                };
                let up_to_it = cut_hashes(hashes, position + 1);
                cut_hashes(&tile, TILE_WIDTH) == Some(&tile)
                    && up_to_it.is_some_and(|hashes| hashes.ends_with(&perfect_root(&tile)))
            }
        };
        is_good.then_some(tile).ok_or_else(|| damaged(path))
    }

    /// The number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends an entry with the hash of its leaf, and adds the tiles that it makes full to `full`.
    pub fn push(&mut self, entry: &[u8], leaf: Hash, full: &mut Vec<FullTile>) {
        self.data.extend_from_slice(entry);
        self.size += 1;
        let mut hash = leaf;
        let mut count = self.size;
        for level in 0_u8.. {
            if self.levels.len() <= usize::from(level) {
                self.levels.push(Vec::new());
            }
            let Some(tile) = self.levels.get_mut(usize::from(level)) else {
                return;
            };
            tile.extend(hash);
            if !count.is_multiple_of(TILE_WIDTH) {
                return;
            }
            let index = count / TILE_WIDTH - 1;
            let tile = std::mem::take(tile);
            if level == 0 {
                let data = std::mem::take(&mut self.data);
                full.push((TilePath::full(TileKind::Data, index), data));
            }
            hash = perfect_root(&tile);
            full.push((TilePath::full(TileKind::Hashes(level), index), tile));
            count /= TILE_WIDTH;
        }
    }

    /// The roots of the tree's perfect subtrees.
    #[must_use]
    pub fn range(&self) -> CompactRange {
        let mut nodes = Vec::new();
        // Higher levels lie to the left of lower ones, and within a level larger subtrees to the left of smaller ones.
        for level in self.levels.iter().rev() {
            let mut rest = level.as_slice();
            while !rest.is_empty() {
                let width = 1_usize << (rest.len() / HASH_BYTES).max(1).ilog2();
                let (part, behind) = rest
                    .split_at_checked(width * HASH_BYTES)
                    .unwrap_or((rest, &[]));
                nodes.push(perfect_root(part));
                rest = behind;
            }
        }
        CompactRange::of_nodes(self.size, nodes)
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.range().root()
    }

    /// The content of a tile that is not full, as far as it is filled; empty for any other.
    #[must_use]
    pub fn partial(&self, kind: TileKind) -> &[u8] {
        match kind {
            TileKind::Hashes(level) => self
                .levels
                .get(usize::from(level))
                .map_or(&[], Vec::as_slice),
            TileKind::Data => &self.data,
        }
    }
}

fn damaged(path: TilePath) -> StoreError {
    StoreError::Damaged(format!(
        "{path} is missing, or is not the one that was written"
    ))
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the trees of tests are small"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::MemoryStore;
    use crate::tlog::tests::PlainFormat;
    use crate::tlog::tree::tests::naive_root;

    #[test]
    fn paths_have_one_spelling() {
        for (text, kind, index, width) in [
            ("tile/0/000", TileKind::Hashes(0), 0, 256),
            ("tile/0/005.p/1", TileKind::Hashes(0), 5, 1),
            ("tile/5/x001/000.p/255", TileKind::Hashes(5), 1000, 255),
            ("tile/data/x001/x234/067", TileKind::Data, 1_234_067, 256),
        ] {
            let path = TilePath::of_width(kind, index, width);
            assert_eq!(path.to_string(), text);
            assert_eq!(text.parse(), Ok(path));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/0/5",
            "tile/0/0005",
            "tile/0/x000/005",
            "tile/0/001/000",
            "tile/0/x001",
            "tile/0/x001/x000",
            "tile/0/x1/000",
            "tile/00/000",
            "tile/+0/000",
            "tile/6/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/0/000/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/257",
            "tile/0/000.p/",
            "tile/0/000.p/1/",
            "tile/0/../0/000",
            "tile/entries/000",
            "tile/Data/000",
            "/tile/0/000",
            "tile/0/000 ",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/data/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(text.parse::<TilePath>(), Err(NotATilePath), "{text}");
        }
    }

    #[test]
    fn the_last_tile_is_named_where_it_is_not_full() {
        let name = |kind: TileKind, size| kind.partial_of(size).map(|path| path.to_string());
        for (kind, size, path) in [
            (TileKind::Data, 0, None),
            (TileKind::Data, 256, None),
            (TileKind::Data, 257, Some("tile/data/001.p/1")),
            (TileKind::Hashes(0), 255, Some("tile/0/000.p/255")),
            (TileKind::Hashes(1), 255, None),
            (TileKind::Hashes(1), 256, Some("tile/1/000.p/1")),
            (TileKind::Hashes(1), 70_000, Some("tile/1/001.p/17")),
            (TileKind::Hashes(2), 65_536, Some("tile/2/000.p/1")),
            (TileKind::Hashes(9), 65_536, None),
        ] {
            assert_eq!(name(kind, size).as_deref(), path, "{kind:?} of {size}");
        }
    }

    #[test]
    fn a_tree_has_only_the_tiles_that_it_needs() {
        let hashes = |level, index| TilePath::full(TileKind::Hashes(level), index);
        for (size, path, available) in [
            (0, hashes(0, 0), 0),
            (256, hashes(0, 0), 256),
            (256, hashes(0, 1), 0),
            (256, hashes(1, 0), 1),
            (256, hashes(2, 0), 0),
            (70_000, hashes(0, 272), 256),
            (70_000, hashes(0, 273), 112),
            (70_000, hashes(1, 0), 256),
            (70_000, hashes(1, 1), 17),
            (70_000, hashes(2, 0), 1),
            (70_000, hashes(5, 0), 0),
            (70_000, TilePath::full(TileKind::Data, 273), 112),
            (u64::MAX, hashes(0, u64::MAX), 0),
        ] {
            assert_eq!(path.available(size), available, "{path} of {size}");
        }
    }

    /// An entry with nothing but its place.
    fn entry(index: u64) -> (Vec<u8>, Hash) {
        let position = Position {
            index,
            timestamp: 5,
        };
        let entry = PlainFormat::frame(&[index.to_be_bytes(), 5_u64.to_be_bytes()].concat());
        let leaf = PlainFormat.leaf_hash(&entry, position).unwrap();
        (entry, leaf)
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count as u64).map(|index| entry(index).1).collect()
    }

    /// Pushes `count` entries, and stores the tiles that become full.
    fn edge_over(store: &MemoryStore, count: usize) -> Edge {
        let mut edge = Edge::default();
        let mut full = Vec::new();
        for index in 0..count as u64 {
            let (entry, leaf) = entry(index);
            edge.push(&entry, leaf, &mut full);
        }
        for (path, tile) in full {
            store.put_immutable(&path.to_string(), &tile).unwrap();
        }
        edge
    }

    #[test]
    fn the_edge_has_the_root_of_the_tree_at_every_boundary() {
        for size in [
            0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537,
        ] {
            let edge = edge_over(&MemoryStore::default(), size);
            assert_eq!(edge.root(), naive_root(&leaves(size)), "size {size}");
            assert_eq!(
                edge.range(),
                leaves(size).into_iter().collect(),
                "size {size}"
            );
        }
    }

    #[test]
    fn full_tiles_are_those_that_the_specification_names() {
        let store = MemoryStore::default();
        edge_over(&store, 65_536 + 256);
        let names = store.names();
        assert_eq!(names.len(), 257 + 257 + 1);
        for name in [
            "tile/0/000",
            "tile/0/256",
            "tile/1/000",
            "tile/data/000",
            "tile/data/256",
        ] {
            assert!(names.iter().any(|other| other == name), "{name}");
        }
        let top = store.get("tile/1/000").unwrap().unwrap();
        assert_eq!(top.len(), 8192);
        assert_eq!(top[..32], naive_root(&leaves(256)));
    }

    #[test]
    fn the_edge_reads_back_from_full_tiles() {
        let store = MemoryStore::default();
        edge_over(&store, 66_000);
        for size in [0, 1, 255, 256, 300, 65_535, 65_536, 65_700] {
            let edge = Edge::load(&store, &PlainFormat, size).unwrap();
            let pushed = edge_over(&MemoryStore::default(), size as usize);
            assert_eq!(edge.size(), size);
            assert_eq!(edge.root(), pushed.root(), "size {size}");
            for kind in [TileKind::Data, TileKind::Hashes(0), TileKind::Hashes(1)] {
                assert_eq!(edge.partial(kind), pushed.partial(kind), "size {size}");
            }
        }
    }

    #[test]
    fn an_edge_without_its_tiles_does_not_load() {
        let store = MemoryStore::default();
        edge_over(&store, 256);
        assert!(Edge::load(&store, &PlainFormat, 257).is_err());
        store.put_mutable("tile/0/000", &[0; 8191]).unwrap();
        assert!(Edge::load(&store, &PlainFormat, 256).is_err());
    }

    #[test]
    fn the_entries_of_an_edge_are_those_of_its_leaves() {
        let store = MemoryStore::default();
        edge_over(&store, 512);
        assert!(Edge::load(&store, &PlainFormat, 300).is_ok());
        store.garble("tile/data/001");
        assert!(Edge::load(&store, &PlainFormat, 300).is_err());
        assert!(Edge::load(&store, &PlainFormat, 256).is_ok(), "not needed");
    }

    #[test]
    fn a_full_tile_reads_back_only_as_it_was_written() {
        let store = MemoryStore::default();
        let edge = edge_over(&store, 66_000);
        let read = |store: &MemoryStore, name: &str| {
            let path: TilePath = name.parse().unwrap();
            edge.full_tile(path.kind(), path.index(), store, &PlainFormat)
        };
        let names = ["tile/data/007", "tile/0/007", "tile/1/000", "tile/0/256"];
        for name in names {
            let good = store.get(name).unwrap().unwrap();
            assert_eq!(read(&store, name).unwrap(), good);
            // Every way to be wrong: gone, cut short, longer, one bit off, another tile.
            let mut flipped = good.clone();
            *flipped.last_mut().unwrap() ^= 1;
            let other = store.get("tile/0/000").unwrap().unwrap();
            for wrong in [
                &good[..good.len() - 1],
                &[&good[..], &good].concat(),
                &flipped,
                &other,
            ] {
                let store = store.copy();
                store.put_mutable(name, wrong).unwrap();
                assert!(read(&store, name).is_err(), "{name}");
            }
            let store = store.copy();
            store.remove(name);
            assert!(read(&store, name).is_err(), "{name}");
        }
        // A tile is as good as what shows it to be good; others go on being read.
        store.garble("tile/1/000");
        assert!(read(&store, "tile/data/007").is_err());
        assert!(read(&store, "tile/data/256").is_ok());
    }

    proptest! {
        #[test]
        fn every_tile_path_reads_back(
            level in proptest::option::of(0..=MAX_LEVEL),
            index in 0_u64..1 << 40,
            width in 1_u64..=256,
        ) {
            let kind = level.map_or(TileKind::Data, TileKind::Hashes);
            let path = TilePath::of_width(kind, index, width);
            prop_assert_eq!(path.to_string().parse(), Ok(path));
        }

        #[test]
        fn no_text_is_a_path_unless_it_is_written_like_one(text in "(tile/)?[0-6datx/.p]{0,20}") {
            if let Ok(path) = text.parse::<TilePath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }

        #[test]
        fn the_edge_agrees_with_the_definition(size in 0_usize..2000) {
            let edge = edge_over(&MemoryStore::default(), size);
            prop_assert_eq!(edge.root(), naive_root(&leaves(size)));
        }
    }
}
