//! Following a log: each checkpoint must be the one before it, or extend it.
//!
//! What is remembered is one checkpoint. It is enough: a log that showed another tree before, or shows one later, cannot
//! extend both.

use std::fmt;

use super::entries::EntryKind;
use super::source::Source;
use super::tree::CheckedTree;
use super::{AuditError, Checkpoint};
use crate::tlog::checkpoint::TreeHead;
use crate::tlog::tile::TILE_WIDTH;
use crate::tlog::tree::{Hash, verify_consistency};

/// Who follows one log.
#[derive(Clone, Debug)]
pub struct Follower {
    /// The log's public key, a DER `SubjectPublicKeyInfo`.
    pub public_key_der: Vec<u8>,
    /// What the log must be called, if that is known.
    pub origin: Option<String>,
    /// The last checkpoint that was believed.
    pub last: Option<Checkpoint>,
}

/// Why a checkpoint is not believed after another one.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It cannot be read or verified, or its tiles are not its own.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The log's key signed two trees. Nobody can do that but who has the key.
    #[error("{0}")]
    Contradiction(Box<Contradiction>),
}

/// Two checkpoints of one key that cannot both be of one log.
#[derive(Clone, Debug)]
pub struct Contradiction {
    /// What was believed.
    pub before: Checkpoint,
    /// What came after it.
    pub after: Checkpoint,
    /// In what they contradict each other.
    pub kind: ContradictionKind,
}

/// In what two checkpoints contradict each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContradictionKind {
    /// The later one covers fewer entries.
    RolledBack,
    /// They cover as many entries, and not the same.
    SplitView,
    /// The later one covers more entries, and its first ones are not those of the earlier.
    Fork,
}

impl ContradictionKind {
    /// One word for machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled_back",
            Self::SplitView => "split_view",
            Self::Fork => "fork",
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before.signed.head, self.after.signed.head);
        match self.kind {
            ContradictionKind::RolledBack => write!(
                f,
                "the log went back: it has shown {} entries, and now shows {}; an older copy of it is served, or it lost entries",
                before.size, after.size
            ),
            ContradictionKind::SplitView => write!(
                f,
                "the log shows two trees: its key signed two different roots over {} entries; two copies of it run, or it \
                 shows different things to different people",
                before.size
            ),
            ContradictionKind::Fork => write!(
                f,
                "the log forked: the first {} of its {} entries are not those that it has shown before; two copies of it \
                 grew apart, or its history was changed",
                before.size, after.size
            ),
        }
    }
}

/// What a look at the log came to.
#[derive(Clone, Debug)]
pub struct Look {
    /// How many entries were known before.
    pub known: u64,
    /// What the log shows now; it is believed.
    pub checkpoint: Checkpoint,
}

impl Follower {
    /// Reads the published checkpoint, and proves that it extends the last one. It is believed only with [`Self::believe`].
    ///
    /// # Errors
    /// When it cannot be read, or does not extend the last one.
    pub fn look(&self, source: &dyn Source, kind: &dyn EntryKind) -> Result<Look, FollowError> {
        // A log does not change its name.
        let origin = self
            .origin
            .as_deref()
            .or_else(|| self.last.as_ref().map(|last| last.identity.origin()));
        let checkpoint = Checkpoint::read(source, &self.public_key_der, origin)?;
        let Some(last) = &self.last else {
            // The edge at least is to be there.
            CheckedTree::open(source, kind, &checkpoint)?;
            return Ok(Look {
                known: 0,
                checkpoint,
            });
        };
        let (before, after) = (last.signed.head, checkpoint.signed.head);
        if let Some(contradiction) = contradiction(source, kind, before, &checkpoint)? {
            return Err(FollowError::Contradiction(Box::new(Contradiction {
                before: last.clone(),
                after: checkpoint,
                kind: contradiction,
            })));
        }
        // The same tree, signed earlier: whoever serves it is late, and that is no harm.
        let checkpoint = if after.size == before.size && after.timestamp < before.timestamp {
            last.clone()
        } else {
            checkpoint
        };
        Ok(Look {
            known: before.size,
            checkpoint,
        })
    }

    /// Takes a checkpoint as the one that all later ones must extend.
    pub fn believe(&mut self, checkpoint: Checkpoint) {
        self.last = Some(checkpoint);
    }
}

fn contradiction(
    source: &dyn Source,
    kind: &dyn EntryKind,
    before: TreeHead,
    checkpoint: &Checkpoint,
) -> Result<Option<ContradictionKind>, AuditError> {
    let after = checkpoint.signed.head;
    if after.size < before.size {
        return Ok(Some(ContradictionKind::RolledBack));
    }
    if after.size == before.size {
        return Ok((after.root != before.root).then_some(ContradictionKind::SplitView));
    }
    let tree = CheckedTree::open(source, kind, checkpoint)?;
    let proof = tree.consistency_proof(before.size)?;
    let extends = verify_consistency(before.size, &before.root, after.size, &after.root, &proof);
    Ok((!extends).then_some(ContradictionKind::Fork))
}

/// Calls `take` with the entries of a checkpoint's tree from index `from` on, each with its index and the hash of its leaf;
/// all of them are in the tree. Ends early when `take` returns `false`.
///
/// # Errors
/// When entries cannot be read, or are not those of the tree; some were handed over before then.
pub fn entries_from(
    source: &dyn Source,
    kind: &dyn EntryKind,
    checkpoint: &Checkpoint,
    from: u64,
    mut take: impl FnMut(u64, &[u8], &Hash) -> bool,
) -> Result<(), AuditError> {
    let size = checkpoint.signed.head.size;
    let tree = CheckedTree::open(source, kind, checkpoint)?;
    for tile in from / TILE_WIDTH..size.div_ceil(TILE_WIDTH) {
        for (index, (entry, leaf)) in (tile * TILE_WIDTH..).zip(tree.entries(tile)?) {
            if index >= from && !take(index, &entry, &leaf) {
                return Ok(());
            }
        }
    }
    Ok(())
}
