//! Tiles: the tree cut into static files of up to 256 hashes or entries (C2SP tlog-tiles, static-ct-api).

use std::fmt;
use std::str::FromStr;

use super::EntryFormat;
use super::tree::{CompactRange, Hash};
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
    /// What is read is to be checked against a known root.
    ///
    /// # Errors
    /// When a tile is missing or cut short, or the store fails.
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
            part.map(<[u8]>::to_vec)
                .ok_or_else(|| StoreError::Damaged(format!("{path} is missing or cut short")))
        };
        let (last_tile, width) = (size / TILE_WIDTH, size % TILE_WIDTH);
        let mut edge = Self {
            size,
            ..Self::default()
        };
        if width > 0 {
            edge.data = read(TileKind::Data, last_tile, width)?;
            edge.levels = vec![read(TileKind::Hashes(0), last_tile, width)?];
        } else if size > 0 {
            edge.levels = vec![Vec::new()];
        }
        let (mut level, mut count) = (0, size / TILE_WIDTH);
        while count > 0 {
            let mut roots = Vec::new();
            for index in count - count % TILE_WIDTH..count {
                roots.extend(perfect_root(&read(
                    TileKind::Hashes(level),
                    index,
                    TILE_WIDTH,
                )?));
            }
            edge.levels.push(roots);
            level += 1;
            count /= TILE_WIDTH;
        }
        Ok(edge)
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
            if count % TILE_WIDTH != 0 {
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
