//! The Merkle tree: hashes, roots and proofs (RFC 6962, section 2.1).

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256 of a leaf, a node or a tree.
pub type Hash = [u8; 32];

/// The hash of a leaf: SHA-256 of `0x00` followed by the leaf's bytes.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    leaf_hash_of_parts(&[], leaf)
}

/// The hash of a leaf whose octets lie in two places, one after the other.
#[must_use]
pub fn leaf_hash_of_parts(start: &[u8], rest: &[u8]) -> Hash {
    sha256(&[&[0], start, rest])
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

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the trees of tests are small"
)]
pub(super) mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// The tree head as the RFC defines it: nothing but recursion.
    pub(in crate::tlog) fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let mut middle = 1;
                while middle * 2 < leaves.len() {
                    middle *= 2;
                }
                let (left, right) = leaves.split_at(middle);
                node_hash(&naive_root(left), &naive_root(right))
            }
        }
    }

    /// Leaves that are all different.
    pub(in crate::tlog) fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    struct Leaves<'a>(&'a [Hash]);

    impl Nodes for Leaves<'_> {
        type Error = Infallible;

        fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
            let (start, width) = ((index << level) as usize, 1 << level);
            Ok(naive_root(&self.0[start..start + width]))
        }
    }

    fn hash(hex: &str) -> Hash {
        let octet = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        std::array::from_fn(|n| octet(2 * n))
    }

    /// The leaves that the reference implementation of RFC 6962 tests with.
    fn reference_leaves() -> Vec<Hash> {
        let mut leaves: Vec<&[u8]> = vec![b"", b"\0", b"\x10", b" !", b"01"];
        leaves.push(b"@ABC");
        leaves.push(b"PQRSTUVW");
        leaves.push(b"`abcdefghijklmno");
        leaves.into_iter().map(leaf_hash).collect()
    }

    #[test]
    fn roots_are_those_of_the_reference() {
        let leaves = reference_leaves();
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (size, root) in roots.into_iter().enumerate() {
            let range: CompactRange = leaves[..size].iter().copied().collect();
            assert_eq!(range.root(), hash(root), "size {size}");
        }
    }

    #[test]
    fn proofs_are_those_of_the_reference() {
        let leaves = reference_leaves();
        let nodes = Leaves(&leaves);
        assert_eq!(
            inclusion_proof(&nodes, 5, 7).unwrap(),
            [
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
            .map(hash)
        );
        assert_eq!(
            consistency_proof(&nodes, 3, 7).unwrap(),
            [
                "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
                "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
                "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                "837dbb152e9b079010717e84e865da4ebc0fa198a806d59d31bf15accef22d0e",
            ]
            .map(hash)
        );
        assert_eq!(
            consistency_proof(&nodes, 4, 8).unwrap(),
            ["6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"].map(hash)
        );
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proved_included() {
        let leaves = leaves(64);
        for size in 1..=64 {
            let root = naive_root(&leaves[..size]);
            for index in 0..size as u64 {
                let proof = inclusion_proof(&Leaves(&leaves), index, size as u64).unwrap();
                let leaf = &leaves[index as usize];
                assert!(verify_inclusion(leaf, index, size as u64, &proof, &root));

                let elsewhere = (index + 1) % size as u64;
                assert_eq!(
                    verify_inclusion(leaf, elsewhere, size as u64, &proof, &root),
                    size == 1,
                    "{index} passes for {elsewhere} of {size}"
                );
                let mut longer = proof;
                longer.push(root);
                assert!(!verify_inclusion(leaf, index, size as u64, &longer, &root));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any tree against its definition: its root, the path of any leaf, its growth from any smaller tree.
        #[test]
        fn roots_and_proofs_are_those_of_the_definition(
            size in 1_usize..2000,
            leaf in any::<prop::sample::Index>(),
            first in any::<prop::sample::Index>(),
        ) {
            let leaves = leaves(size);
            let (root, nodes, size) = (naive_root(&leaves), Leaves(&leaves), size as u64);
            let range: CompactRange = leaves.iter().copied().collect();
            prop_assert_eq!(range.root(), root);

            let index = leaf.index(leaves.len());
            let proof = inclusion_proof(&nodes, index as u64, size).unwrap();
            prop_assert_eq!(&proof, &naive_path(index, &leaves));
            prop_assert!(verify_inclusion(&leaves[index], index as u64, size, &proof, &root));

            let first = first.index(leaves.len()) + 1;
            let old = naive_root(&leaves[..first]);
            let proof = consistency_proof(&nodes, first as u64, size).unwrap();
            prop_assert_eq!(&proof, &naive_growth(first, &leaves, true));
            prop_assert!(verify_consistency(first as u64, &old, size, &root, &proof));
        }
    }

    /// The audit path as the RFC defines it (section 2.1.1).
    fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        let (mut path, beside) = match index.checked_sub(left.len()) {
            None => (naive_path(index, left), right),
            Some(index) => (naive_path(index, right), left),
        };
        path.push(naive_root(beside));
        path
    }

    /// The consistency proof as the RFC defines it (section 2.1.2); `is_known` says whether the verifier has the root of the
    /// first `first` leaves.
    fn naive_growth(first: usize, leaves: &[Hash], is_known: bool) -> Vec<Hash> {
        if first == leaves.len() {
            return if is_known {
                Vec::new()
            } else {
                vec![naive_root(leaves)]
            };
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        let (mut proof, beside) = match first.checked_sub(left.len()) {
            None | Some(0) => (naive_growth(first, left, is_known), right),
            Some(first) => (naive_growth(first, right, false), left),
        };
        proof.push(naive_root(beside));
        proof
    }

    #[test]
    fn every_small_tree_is_proved_to_extend_every_smaller_one() {
        let leaves = leaves(64);
        let roots: Vec<_> = (0..=64).map(|size| naive_root(&leaves[..size])).collect();
        let other = leaf_hash(b"other");
        for second in 0..=64_u64 {
            for first in 0..=second {
                let proof = consistency_proof(&Leaves(&leaves), first, second).unwrap();
                let (old, new) = (&roots[first as usize], &roots[second as usize]);
                assert!(verify_consistency(first, old, second, new, &proof));
                assert!(!verify_consistency(first, &other, second, new, &proof));
                if first > 0 {
                    assert!(!verify_consistency(first, old, second, &other, &proof));
                }
            }
        }
    }
}
