//! Segments: what the log is made of. One segment is one durable write and gives its entries their indexes, for good.
//!
//! ```text
//! "MFJ1" ‖ flags u32 ‖ number u64 ‖ first index u64 ‖ count u32 ‖ timestamp u64
//! ‖ hash of the segment before[32] ‖ root before[32] ‖ root after[32] ‖ log_id[32] ‖ writer: length u8, UTF-8 ‖ nonce[16]
//! ‖ count × (length u32 ‖ entry) ‖ SHA-256 of all before[32] ‖ length u16 ‖ signature
//! ```
//!
//! Integers are big-endian. The log's key signs `"mayfly segment\0"` and the hash: without it, whoever can write the store
//! could slip entries in and have them signed into a checkpoint. Reading a segment is always a verification; what does not
//! fit is an error, never repaired.

use super::checkpoint::{LogIdentity, LogKey, wait};
use super::tree::{CompactRange, Hash, empty_root, sha256};
use super::{EntryFormat, Position};
use crate::keys::SignError;
use crate::store::SEGMENT_MAGIC;

/// The most entries in a segment.
pub const MAX_ENTRIES: usize = 1024;
/// A segment with this many octets of entries takes no more.
pub const MAX_SEGMENT_BYTES: usize = 4 << 20;
/// The most octets of one entry.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// No segment has a larger number or first index: there is always one after it, and clients read sizes with a sign.
const MAX_NUMBER: u64 = u64::MAX >> 1;
/// What stands before the hash in what the key signs.
const SIGNATURE_CONTEXT: &[u8] = b"mayfly segment\0";
/// The writer's name in our segments.
const WRITER: &[u8] = b"mayfly";
/// The flag of the last segment of a log: nothing may follow it.
const CLOSED: u32 = 1;

/// Why bytes are not the segment that continues the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SegmentError {
    /// Cut short, too long, or not a segment.
    #[error("it is malformed")]
    Malformed,
    /// A flag is set that this version does not know.
    #[error("it was written by a newer version; run that version")]
    NewerVersion,
    /// The hash over it is wrong: it was damaged.
    #[error("its hash is wrong")]
    BadHash,
    /// The log's key did not sign it.
    #[error("the log's key did not sign it")]
    BadSignature,
    /// It belongs to another log.
    #[error("it belongs to another log")]
    OtherLog,
    /// Its number, first index, timestamp, predecessor or root before does not continue the log.
    #[error("it does not follow the segment before it")]
    OutOfOrder,
    /// An entry is not one for its index and timestamp.
    #[error("its entry for index {0} is malformed")]
    BadEntry(u64),
    /// The root after it is not the root of its entries.
    #[error("its root is wrong")]
    BadRoot,
}

/// A segment as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Its place in the journal.
    pub number: u64,
    /// The index of its first entry.
    pub first_index: u64,
    /// The time of its entries, milliseconds since 1970.
    pub timestamp: u64,
    /// Whether it ends the log.
    pub is_closed: bool,
    /// The entries, in the form of data tiles.
    pub entries: Vec<Vec<u8>>,
    previous: Hash,
    root_before: Hash,
    root_after: Hash,
    log_id: Hash,
    hash: Hash,
    signature: Vec<u8>,
}

impl Segment {
    /// Reads a segment. Its hash is checked; whether it continues a log is for [`Tip::extend`] to say.
    ///
    /// # Errors
    /// See [`SegmentError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let mut reader = Reader(bytes);
        if reader.array::<4>()? != SEGMENT_MAGIC {
            return Err(SegmentError::Malformed);
        }
        let flags = reader.u32()?;
        if flags & !CLOSED != 0 {
            return Err(SegmentError::NewerVersion);
        }
        let number = reader.u64()?;
        let first_index = reader.u64()?;
        let count = reader.u32()?;
        let timestamp = reader.u64()?;
        let previous = reader.array()?;
        let root_before = reader.array()?;
        let root_after = reader.array()?;
        let log_id = reader.array()?;
        let [writer_length] = reader.array()?;
        reader.take(usize::from(writer_length))?;
        let _nonce: [u8; 16] = reader.array()?;
        let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(MAX_ENTRIES));
        for _ in 0..count {
            let length = usize::try_from(reader.u32()?).map_err(|_| SegmentError::Malformed)?;
            entries.push(reader.take(length)?.to_vec());
        }
        let hashed = bytes
            .get(..bytes.len() - reader.0.len())
            .unwrap_or_default();
        let hash = reader.array()?;
        let length = u16::from_be_bytes(reader.array()?);
        let signature = reader.take(usize::from(length))?.to_vec();
        if !reader.0.is_empty() {
            return Err(SegmentError::Malformed);
        }
        if sha256(&[hashed]) != hash {
            return Err(SegmentError::BadHash);
        }
        let is_closed = flags & CLOSED != 0;
        if entries.is_empty() != is_closed || number.max(first_index) > MAX_NUMBER {
            return Err(SegmentError::Malformed);
        }
        Ok(Self {
            number,
            first_index,
            timestamp,
            is_closed,
            entries,
            previous,
            root_before,
            root_after,
            log_id,
            hash,
            signature,
        })
    }

    /// Checks that the log's key signed it.
    ///
    /// # Errors
    /// [`SegmentError::OtherLog`] and [`SegmentError::BadSignature`].
    pub fn verify_signature(&self, identity: &LogIdentity) -> Result<(), SegmentError> {
        if self.log_id != *identity.log_id() {
            return Err(SegmentError::OtherLog);
        }
        identity
            .verifies(&signed_bytes(&self.hash), &self.signature)
            .then_some(())
            .ok_or(SegmentError::BadSignature)
    }

    /// The hashes of its leaves, recomputed from the entries' bytes.
    ///
    /// # Errors
    /// [`SegmentError::BadEntry`].
    pub fn leaf_hashes(&self, format: &dyn EntryFormat) -> Result<Vec<Hash>, SegmentError> {
        (self.first_index..)
            .zip(&self.entries)
            .map(|(index, entry)| {
                let position = Position {
                    index,
                    timestamp: self.timestamp,
                };
                format
                    .leaf_hash(entry, position)
                    .ok_or(SegmentError::BadEntry(index))
            })
            .collect()
    }
}

/// The end of the log: what the next segment must continue.
#[derive(Clone, Debug)]
pub struct Tip {
    /// The number of the next segment.
    pub next_number: u64,
    /// The timestamp of the last segment, milliseconds since 1970; 0 before the first.
    pub timestamp: u64,
    /// Whether the log was ended.
    pub is_closed: bool,
    root: Hash,
    range: CompactRange,
    segment_hash: Hash,
}

/// A durable segment, and the end of the log behind it.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) segment: Segment,
    pub(super) tip: Tip,
}

/// A segment that is to be written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The entries, in the form of data tiles.
    pub entries: Vec<Vec<u8>>,
    /// The hashes of their leaves.
    pub leaves: Vec<Hash>,
    /// The time of the entries, milliseconds since 1970; not before the tip's.
    pub timestamp: u64,
    /// What tells two attempts of one writer apart.
    pub nonce: [u8; 16],
}

impl Tip {
    /// The tip before the first segment.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            next_number: 0,
            timestamp: 0,
            is_closed: false,
            root: empty_root(),
            range: CompactRange::default(),
            segment_hash: [0; 32],
        }
    }

    /// The tip before `segment`, when the leaves before it are known from elsewhere.
    ///
    /// # Errors
    /// [`SegmentError::OutOfOrder`] when the segment was built on another tree.
    pub fn before(segment: &Segment, range: CompactRange) -> Result<Self, SegmentError> {
        let root = range.root();
        if range.size() != segment.first_index || root != segment.root_before {
            return Err(SegmentError::OutOfOrder);
        }
        Ok(Self {
            next_number: segment.number,
            timestamp: 0,
            is_closed: false,
            root,
            range,
            segment_hash: segment.previous,
        })
    }

    /// The number of entries.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.range.size()
    }

    /// The root over them.
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// Encodes and signs the segment that gives the entries of `draft` the next indexes. Waits for the key.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn seal(&self, draft: &Draft, key: &LogKey) -> Result<Vec<u8>, SignError> {
        let flags = if draft.entries.is_empty() { CLOSED } else { 0 };
        // Numbers too large for their field make a segment that the check before the write refuses.
        let count = u32::try_from(draft.entries.len()).unwrap_or(u32::MAX);
        let entries_bytes: usize = draft.entries.iter().map(|entry| entry.len() + 4).sum();
        let mut bytes = Vec::with_capacity(512 + entries_bytes);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&self.next_number.to_be_bytes());
        bytes.extend_from_slice(&self.size().to_be_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(&draft.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.segment_hash);
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.range_with(&draft.leaves).root());
        bytes.extend_from_slice(key.identity().log_id());
        bytes.extend(u8::try_from(WRITER.len()));
        bytes.extend_from_slice(WRITER);
        bytes.extend_from_slice(&draft.nonce);
        for entry in &draft.entries {
            let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(entry);
        }
        let hash = sha256(&[&bytes]);
        bytes.extend_from_slice(&hash);
        let signature = wait(key.signer().sign(&signed_bytes(&hash)))?;
        let length = u16::try_from(signature.len()).map_err(|_| SignError::BadSignature)?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&signature);
        Ok(bytes)
    }

    /// Reads the segment that continues this tip: its hash, its signature, its entries and their root are checked.
    ///
    /// # Errors
    /// See [`SegmentError`].
    pub(super) fn read(
        &self,
        bytes: &[u8],
        identity: &LogIdentity,
        format: &dyn EntryFormat,
    ) -> Result<Committed, SegmentError> {
        let segment = Segment::decode(bytes)?;
        segment.verify_signature(identity)?;
        let leaves = segment.leaf_hashes(format)?;
        let tip = self.extend(&segment, &leaves)?;
        Ok(Committed { segment, tip })
    }

    /// Appends a segment whose leaves have the hashes `leaves`. Its signature is not looked at.
    ///
    /// # Errors
    /// When it does not continue this tip, or its root is not that of its leaves; the tip is as before then.
    pub fn extend(&self, segment: &Segment, leaves: &[Hash]) -> Result<Self, SegmentError> {
        let continues = !self.is_closed
            && segment.number == self.next_number
            && segment.first_index == self.size()
            && segment.timestamp >= self.timestamp
            && segment.previous == self.segment_hash
            && segment.root_before == self.root
            && segment.entries.len() == leaves.len();
        if !continues {
            return Err(SegmentError::OutOfOrder);
        }
        let range = self.range_with(leaves);
        let root = range.root();
        if root != segment.root_after {
            return Err(SegmentError::BadRoot);
        }
        Ok(Self {
            next_number: self.next_number + 1,
            timestamp: segment.timestamp,
            is_closed: segment.is_closed,
            root,
            range,
            segment_hash: segment.hash,
        })
    }

    fn range_with(&self, leaves: &[Hash]) -> CompactRange {
        let mut range = self.range.clone();
        for leaf in leaves {
            range.push(*leaf);
        }
        range
    }
}

fn signed_bytes(hash: &Hash) -> Vec<u8> {
    [SIGNATURE_CONTEXT, hash].concat()
}

/// What is left of the bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], SegmentError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(SegmentError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SegmentError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(SegmentError::Malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32, SegmentError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, SegmentError> {
        self.array().map(u64::from_be_bytes)
    }
}
