//! The Merkle tree: hashes, roots and proofs (RFC 6962, section 2.1).

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256 of a leaf, a node or a tree.
pub type Hash = [u8; 32];

/// The hash of a leaf: SHA-256 of `0x00` followed by the leaf's bytes.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    sha256(&[&[0], leaf])
}

/// The hash of a node: SHA-256 of `0x01` followed by the hashes below it.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The root of a tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// SHA-256 of `parts`, one after the other.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// What must be remembered of a tree to append to it: the roots of its perfect subtrees, largest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CompactRange {
    size: u64,
    nodes: Vec<Hash>,
}

impl CompactRange {
    /// Makes the range of `size` leaves from the roots of its perfect subtrees, largest first: one for every 1 in the
    /// binary form of `size`.
    #[must_use]
    pub(super) const fn of_nodes(size: u64, nodes: Vec<Hash>) -> Self {
        Self { size, nodes }
    }

    /// The number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends the hash of a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        // Two subtrees of one size become one, as a carry does in a binary counter.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let nodes = self.nodes.iter().rev().copied();
        nodes
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(empty_root)
    }
}

impl FromIterator<Hash> for CompactRange {
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut range = Self::default();
        for leaf in leaves {
            range.push(leaf);
        }
        range
    }
}

/// A source of the roots of perfect subtrees: `node(level, index)` is the root over the leaves from `index · 2^level` up to
/// `(index + 1) · 2^level`.
pub trait Nodes {
    /// Why a node cannot be had.
    type Error;

    /// Returns one root.
    ///
    /// # Errors
    /// When the node cannot be had; the caller asks only for nodes inside the tree.
    fn node(&self, level: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The root over the leaves from `start` up to `end`, where `start` is a multiple of the smallest power of two that is not
/// less than `end - start`.
fn range_root<N: Nodes>(nodes: &N, start: u64, end: u64) -> Result<Hash, N::Error> {
    let mut parts = Vec::new();
    let mut at = start;
    while at < end {
        let level = (end - at).ilog2();
        parts.push(nodes.node(level, at >> level)?);
        at += 1 << level;
    }
    let parts = parts.into_iter().rev();
    Ok(parts
        .reduce(|right, left| node_hash(&left, &right))
        .unwrap_or_else(empty_root))
}

/// The largest power of two that is less than `size`, which is at least 2.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The hashes that show that the leaf at `index` is in the tree of `size` leaves, lowest first; `index` is less than
/// `size` (section 2.1.1).
///
/// # Errors
/// When a node cannot be had.
pub fn inclusion_proof<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The hashes that show that the tree of `second` leaves extends that of `first`, where `first` is at most `second`
/// (section 2.1.2). Empty when there is nothing to show: `first` is 0 or equals `second`.
///
/// # Errors
/// When a node cannot be had.
pub fn consistency_proof<N: Nodes>(
    nodes: &N,
    first: u64,
    second: u64,
) -> Result<Vec<Hash>, N::Error> {
    let mut proof = Vec::new();
    if first == 0 || first == second {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, second);
    while end != first {
        let middle = start + split(end - start);
        if first <= middle {
            proof.push(range_root(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(nodes, start, middle)?);
            start = middle;
        }
    }
    // The verifier knows the root of the first tree; it needs this part only where it is not that root.
    if start != 0 {
        proof.push(range_root(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` leads from the hash of the leaf at `index` to the root of the tree of `size` leaves (RFC 9162, section
/// 2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `second` leaves extends that of `first` (RFC 9162, section 2.1.4.2).
#[must_use]
pub fn verify_consistency(
    first: u64,
    first_root: &Hash,
    second: u64,
    second_root: &Hash,
    proof: &[Hash],
) -> bool {
    if first == second {
        return proof.is_empty() && first_root == second_root;
    }
    if first == 0 {
        return proof.is_empty() && *first_root == empty_root();
    }
    if first > second {
        return false;
    }
    let (mut node, mut last) = (first - 1, second - 1);
    let shift = node.trailing_ones();
    node >>= shift;
    last >>= shift;
    let (start, rest) = if node == 0 {
        (first_root, proof)
    } else {
        let Some((start, rest)) = proof.split_first() else {
            return false;
        };
        (start, rest)
    };
    let (mut old, mut new) = (*start, *start);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old == *first_root && new == *second_root
}
