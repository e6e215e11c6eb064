//! The tree of one checkpoint, read from tiles. Every hash that leaves here has been checked up to the signed root.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::entries::EntryKind;
use super::source::{Source, cut};
use super::{AuditError, Checkpoint};
use crate::tlog::checkpoint::TreeHead;
use crate::tlog::tile::{TILE_WIDTH, TileKind, TilePath, cut_hashes, perfect_root};
use crate::tlog::tree::{Hash, Nodes, consistency_proof, empty_root, inclusion_proof, node_hash};

/// How many checked tiles are kept above the lowest level: 8 KiB each, and enough for a proof of any entry of 2^32.
const KEPT_TILES: usize = 1024;

/// A tile of hashes that was checked.
pub type CheckedTile = Arc<Vec<u8>>;

/// The tree of a verified checkpoint.
#[derive(Debug)]
pub struct CheckedTree<'a> {
    source: &'a dyn Source,
    kind: &'a dyn EntryKind,
    head: TreeHead,
    /// The last tile of each level, as far as it is filled; empty where it is full or there is none.
    edge: Vec<CheckedTile>,
    kept: Mutex<HashMap<(u8, u64), CheckedTile>>,
}

impl<'a> CheckedTree<'a> {
    /// Reads the right edge of the tree of a checkpoint, a few tiles, and checks that its root is the signed one.
    ///
    /// # Errors
    /// When tiles cannot be read, or are not those of the checkpoint.
    pub fn open(
        source: &'a dyn Source,
        kind: &'a dyn EntryKind,
        checkpoint: &Checkpoint,
    ) -> Result<Self, AuditError> {
        let head = checkpoint.signed.head;
        let mut edge = Vec::new();
        for level in 0..=u8::MAX {
            let count = head.size.checked_shr(8 * u32::from(level)).unwrap_or(0);
            if count == 0 {
                break;
            }
            let mut tile = Vec::new();
            if let Some(path) = TileKind::Hashes(level).partial_of(head.size) {
                tile = read_tile(source, kind, path)?.ok_or_else(|| AuditError::missing(path))?;
            }
            edge.push(Arc::new(tile));
        }
        let tree = Self {
            source,
            kind,
            head,
            edge,
            kept: Mutex::default(),
        };
        if root_of_edge(tree.edge.iter().map(|tile| tile.as_slice())) == head.root {
            Ok(tree)
        } else {
            Err(AuditError::wrong(
                "the right edge of the tree",
                "its tiles do not have the root that the checkpoint signs",
            ))
        }
    }

    /// The head of the tree.
    #[must_use]
    pub const fn head(&self) -> &TreeHead {
        &self.head
    }

    /// A tile of hashes, as far as the tree fills it.
    ///
    /// # Errors
    /// When it, or one above it, cannot be read, or is not that of the tree.
    pub fn hashes(&self, level: u8, index: u64) -> Result<CheckedTile, AuditError> {
        let path = TilePath::full(TileKind::Hashes(level), index);
        let width = path.available(self.head.size);
        if width == 0 {
            return Err(AuditError::missing(path));
        }
        if width < TILE_WIDTH {
            let tile = self.edge.get(usize::from(level)).cloned();
            return tile.ok_or_else(|| AuditError::missing(path));
        }
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tile) = kept().get(&(level, index)) {
            return Ok(Arc::clone(tile));
        }
        let tile = read_tile(self.source, self.kind, path)?;
        let tile = tile.ok_or_else(|| AuditError::missing(path))?;
        if !self.is_genuine(path, &tile)? {
            return Err(AuditError::wrong(path, "it is not the tile of the tree"));
        }
        let tile = Arc::new(tile);
        if level > 0 {
            let mut kept = kept();
            if kept.len() >= KEPT_TILES {
                kept.clear();
            }
            kept.insert((level, index), Arc::clone(&tile));
        }
        Ok(tile)
    }

    /// Whether this is the full tile of hashes of that name: whether the root over it stands in the tile above.
    ///
    /// # Errors
    /// When the tile above cannot be read, or is not that of the tree.
    pub fn is_genuine(&self, path: TilePath, tile: &[u8]) -> Result<bool, AuditError> {
        let TileKind::Hashes(level) = path.kind() else {
            return Ok(false);
        };
        let above = self.hashes(level + 1, path.index() / TILE_WIDTH)?;
        let up_to_it = cut_hashes(&above, path.index() % TILE_WIDTH + 1);
        Ok(cut_hashes(tile, TILE_WIDTH) == Some(tile)
            && up_to_it.is_some_and(|hashes| hashes.ends_with(&perfect_root(tile))))
    }

    /// The entries of a data tile, as far as the tree fills it, each with the hash of its leaf.
    ///
    /// # Errors
    /// When it cannot be read, or its entries are not those of the leaves.
    pub fn entries(&self, index: u64) -> Result<Vec<(Vec<u8>, Hash)>, AuditError> {
        let full = TilePath::full(TileKind::Data, index);
        let path = TilePath::of_width(TileKind::Data, index, full.available(self.head.size));
        if path.width() == 0 {
            return Err(AuditError::missing(full));
        }
        let leaves = self.hashes(0, index)?;
        let tile = read_tile(self.source, self.kind, path)?;
        let tile = tile.ok_or_else(|| AuditError::missing(path))?;
        let mut rest = tile.as_slice();
        let mut entries = Vec::new();
        for (number, leaf) in (index * TILE_WIDTH..).zip(leaves.as_chunks::<32>().0) {
            let split = self.kind.split_first(rest);
            let (entry, behind) = split.ok_or_else(|| {
                AuditError::wrong(path, format!("there is no whole entry {number} in it"))
            })?;
            if self.kind.leaf_hash(entry) != *leaf {
                let what = format!("entry {number} is not the one that was logged");
                return Err(AuditError::wrong(path, what));
            }
            entries.push((entry.to_vec(), *leaf));
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(AuditError::wrong(path, "octets follow its last entry"));
        }
        Ok(entries)
    }

    /// The proof that the leaf at `index` is in the tree.
    ///
    /// # Errors
    /// When it is not in it, or tiles cannot be read.
    pub fn inclusion_proof(&self, index: u64) -> Result<Vec<Hash>, AuditError> {
        if index >= self.head.size {
            let what = format!("the checkpoint covers {} entries", self.head.size);
            return Err(AuditError::wrong(format_args!("entry {index}"), what));
        }
        inclusion_proof(self, index, self.head.size)
    }

    /// The proof that the tree extends that of the first `size` leaves.
    ///
    /// # Errors
    /// When it has not as many, or tiles cannot be read.
    pub fn consistency_proof(&self, size: u64) -> Result<Vec<Hash>, AuditError> {
        if size > self.head.size {
            let what = format!("the checkpoint covers {} entries", self.head.size);
            return Err(AuditError::wrong(format_args!("a tree of {size}"), what));
        }
        consistency_proof(self, size, self.head.size)
    }

    /// The root over the first `size` leaves.
    ///
    /// # Errors
    /// When the tree has not as many, or tiles cannot be read.
    pub fn root_at(&self, size: u64) -> Result<Hash, AuditError> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < size {
            let level = (size - at).ilog2();
            parts.push(self.node(level, at >> level)?);
            at += 1 << level;
        }
        let parts = parts.into_iter().rev();
        Ok(parts
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(empty_root))
    }

    /// The index of the first leaf with this hash, which every tile of leaves is read for.
    ///
    /// # Errors
    /// When a tile cannot be read.
    pub fn find(&self, leaf: &Hash) -> Result<Option<u64>, AuditError> {
        for index in 0..self.head.size.div_ceil(TILE_WIDTH) {
            let tile = self.hashes(0, index)?;
            let (leaves, _) = tile.as_chunks::<32>();
            let found = (index * TILE_WIDTH..)
                .zip(leaves)
                .find(|(_, one)| *one == leaf);
            if let Some((index, _)) = found {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }
}

impl Nodes for CheckedTree<'_> {
    type Error = AuditError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, AuditError> {
        // A tile level is eight levels of the tree; the node is the root over a part of one tile.
        let within = level % 8;
        let first = index << within;
        let tile_level = u8::try_from(level / 8).unwrap_or(u8::MAX);
        let tile = self.hashes(tile_level, first / TILE_WIDTH)?;
        let start = first % TILE_WIDTH;
        let part = cut_hashes(&tile, start + (1 << within))
            .zip(cut_hashes(&tile, start))
            .and_then(|(end, start)| end.get(start.len()..));
        let path = TilePath::full(TileKind::Hashes(tile_level), first / TILE_WIDTH);
        part.map(perfect_root)
            .ok_or_else(|| AuditError::missing(path))
    }
}

/// The root of the tree whose right edge holds these tiles, one a level, lowest first; empty where a level's last tile is full.
///
/// Higher levels lie to the left of lower ones, and within a tile larger subtrees do.
pub(super) fn root_of_edge<'a>(edge: impl DoubleEndedIterator<Item = &'a [u8]>) -> Hash {
    let mut nodes = Vec::new();
    for tile in edge.rev() {
        let mut rest = tile;
        while !rest.is_empty() {
            let width = 1_usize << (rest.len() / 32).max(1).ilog2();
            let (part, behind) = rest.split_at_checked(width * 32).unwrap_or((rest, &[]));
            nodes.push(perfect_root(part));
            rest = behind;
        }
    }
    let nodes = nodes.into_iter().rev();
    nodes
        .reduce(|right, left| node_hash(&left, &right))
        .unwrap_or_else(empty_root)
}

/// Reads a tile; where a log no longer keeps a part of one, the tile that it became.
pub(super) fn read_tile(
    source: &dyn Source,
    kind: &dyn EntryKind,
    path: TilePath,
) -> Result<Option<Vec<u8>>, AuditError> {
    if let Some(tile) = source.read(&path.to_string())? {
        return Ok(Some(tile));
    }
    if path.width() == TILE_WIDTH {
        return Ok(None);
    }
    let full = TilePath::full(path.kind(), path.index());
    let tile = source.read(&full.to_string())?;
    Ok(tile.and_then(|tile| cut(kind, path, &tile)))
}
