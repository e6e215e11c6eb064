//! What a log needs of a store, as contracts, and the stores that keep them, one file each.
//!
//! A store knows nothing of trees or certificates: it keeps named blobs, and one journal of numbered segments. The
//! journal is the truth; every blob but the issuers can be made again from it.

use std::fmt::Debug;
use std::io;

use rustix::io::Errno;

use crate::reason::Reason;

#[cfg(test)]
pub(crate) mod faulty;
pub mod folder;
pub mod memory;
pub mod metered;
pub mod object;
mod wal;

pub use folder::{Folder, FolderReader};
pub use memory::MemoryStore;
pub use object::ObjectStorage;

/// The first four octets of every segment. By them a damaged journal is searched for whole segments behind the damage.
pub const SEGMENT_MAGIC: [u8; 4] = *b"MFJ1";

/// Where one log lives: blobs by name, and its journal.
///
/// Names are relative paths of lower-case letters, digits, `.`, `-` and `/`. Every `put` is durable when it returns:
/// neither a crash nor a power cut undoes it, and no reader ever sees a part of it.
pub trait Store: Debug + Send + Sync {
    /// Returns a blob, or nothing where there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a blob that never changes. Writing the same bytes again is no error.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name holds other bytes, which are left as they are.
    fn put_immutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Writes or replaces a blob.
    ///
    /// # Errors
    /// When the store cannot be written; the old blob or the new one is there then, whole.
    fn put_mutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Begins the journal of a new log. No segment is in it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is a journal.
    fn create_journal(&self, log_id: &[u8; 32]) -> Result<(), StoreError>;

    /// Opens the journal for reading from segment `from` on; after reading and [`Journal::settle`] it takes more.
    ///
    /// # Errors
    /// When there is no journal of that log, or it has no segment `from` and does not end right before it.
    fn open_journal(&self, log_id: &[u8; 32], from: u64) -> Result<Box<dyn Journal>, StoreError>;

    /// How many reads or writes at once are worth it: more than one where each takes a journey and not work.
    fn at_once(&self) -> usize {
        1
    }

    /// The store as one that several processes write at once; nothing where a store has one writer.
    fn as_shared(&self) -> Option<&dyn SharedStore> {
        None
    }
}

/// A store that several processes write at once: it is the arbiter between them, and they need no other.
///
/// For one number of the journal it keeps the first segment that reaches it, and it replaces a blob only in the version
/// that the writer has seen.
pub trait SharedStore: Store {
    /// Reads a blob that is replaced now and then, and which version of it this is.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn read_version(&self, name: &str) -> Result<Option<Versioned>, StoreError>;

    /// Replaces the version of a blob that was read, or makes the blob where there was none; `false` when that is not the
    /// version that stands there.
    ///
    /// # Errors
    /// After [`StoreError::Unanswered`] the blob may be replaced or not; reading it tells.
    fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        version: Option<&Version>,
    ) -> Result<bool, StoreError>;

    /// Reads the segments from number `from` on, as far as they are there, some of them at least.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn segments(&self, from: u64) -> Result<Vec<Vec<u8>>, StoreError>;
}

/// One version of a blob.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Versioned {
    /// The content.
    pub bytes: Vec<u8>,
    /// By what the store knows it.
    pub version: Version,
    /// When the store took it, by the store's own clock, milliseconds since 1970.
    pub written: u64,
}

/// By what a store tells the versions of a blob apart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Version {
    pub(crate) e_tag: Option<String>,
    pub(crate) generation: Option<String>,
}

/// What became of a segment that was to be committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Commit {
    /// It is in the journal, durably.
    Written,
    /// Another process was first with this number. [`Journal::next`] reads its segment, and those behind it; the next
    /// commit is of the number after them.
    Taken,
}

/// The segments of one log, numbered from 0 without a gap.
///
/// The order of calls is: [`Self::next`] until it returns nothing, [`Self::settle`] once, [`Self::commit`] for ever.
/// For one number a journal keeps one segment, for good: two writers can never both succeed with it.
pub trait Journal: Debug + Send {
    /// Reads the next segment with its number.
    ///
    /// A last segment whose commit was cut off is passed over silently, for nobody was told of it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where a segment is unreadable and was not the last: it may have been promised.
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, StoreError>;

    /// Reads ahead what other processes may have written from `number` on; [`Self::next`] returns it. Where nobody else
    /// writes, it does nothing.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn look(&mut self, number: u64) -> Result<(), StoreError> {
        let _ = number;
        Ok(())
    }

    /// Makes what was read durable, and discards what a cut-off commit left behind.
    ///
    /// What was read may so far have been in a cache only; nothing may be built on it before this returns.
    ///
    /// # Errors
    /// When the store cannot be written; the journal takes nothing then.
    fn settle(&mut self) -> Result<(), StoreError>;

    /// Writes `segment` under `number`, the one after the last. When this returns [`Commit::Written`] it is durable.
    ///
    /// # Errors
    /// After [`StoreError::Unanswered`] the segment may be in the journal, or may still come to be in it: this very call, with
    /// the same bytes, has to be repeated until it ends otherwise. After another error that
    /// [passes](StoreError::is_passing) nothing was written, and the call may be repeated with this number and any segment.
    /// After every other error the segment may or may not be in the journal: the process has to end, so that the next one
    /// finds out.
    fn commit(&mut self, number: u64, segment: &[u8]) -> Result<Commit, StoreError>;
}

/// Why a store did not do what it was asked for. The texts are for operators.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room; nothing was written.
    #[error("there is no space left on the log's disk; free some")]
    NoSpace,
    /// The process, or the machine, has as many files and connections open as it may; nothing was written.
    #[error(
        "too many files and connections are open; raise the limit (`ulimit -n`, `LimitNOFILE=` of systemd)"
    )]
    NoDescriptors,
    /// The store gave no answer, or not one that says what happened: what was to be written may be there, or not, or come
    /// to be there later.
    #[error("the log's store does not answer: {0}")]
    Unanswered(String),
    /// A name that never changes holds other bytes.
    #[error(
        "{0} exists with other content, although it never changes; the store is damaged or two logs share it"
    )]
    Conflict(String),
    /// Another process has the store.
    #[error("another process has opened this log; a log has one writer: stop the other one first")]
    Locked,
    /// The file system does not keep the promises that a log needs.
    #[error("{0}")]
    Unsuitable(String),
    /// What is stored is not what was written.
    #[error("the log is damaged: {0}; restore nothing over it, and look at the disk")]
    Damaged(String),
    /// The store was written by a version that knows more.
    #[error("{0} was written by a newer version; run that version")]
    NewerVersion(String),
    /// The system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried, such as `sync journal/0000000000000000.wal`.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// The code that clients and metrics see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        Reason::StoreUnavailable
    }

    /// Whether the same may be tried again, and succeed then: the log goes on by itself.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::NoSpace | Self::NoDescriptors | Self::Unanswered(_) => true,
            Self::Conflict(_)
            | Self::Locked
            | Self::Unsuitable(_)
            | Self::Damaged(_)
            | Self::NewerVersion(_)
            | Self::Io { .. } => false,
        }
    }

    /// Makes the error of a failed system call; where room or descriptors are what was missing, one that passes.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace,
            Some(Errno::MFILE | Errno::NFILE) => Self::NoDescriptors,
            _ => Self::Io { doing, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missing_tells_whether_a_later_try_may_succeed() {
        for (errno, is_passing, text) in [
            (Errno::NOSPC, true, "no space"),
            (Errno::DQUOT, true, "no space"),
            (Errno::MFILE, true, "ulimit -n"),
            (Errno::NFILE, true, "ulimit -n"),
            (Errno::IO, false, "cannot sync x: Input/output error"),
            (Errno::ROFS, false, "cannot sync x: Read-only file system"),
        ] {
            let error = StoreError::io("sync x")(errno.into());
            assert_eq!(error.is_passing(), is_passing, "{errno}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
