//! The log's formats: what its readers send as a path, and what it reads back from a disk it does not trust.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use futures_util::FutureExt as _;
use mayfly::ctlog::leaf::StaticCtFormat;
use mayfly::ctlog::sct::SctExtensions;
use mayfly::ctlog::sct::leaf_index_extensions;
use mayfly::tlog::checkpoint::{LogKey, TreeHead};
use mayfly::tlog::journal::{Draft, Segment, Tip};
use mayfly::tlog::tile::{TILE_WIDTH, TileKind, TilePath, cut_entries};
use mayfly::tlog::tree::leaf_hash;
use mayfly::tlog::{EntryFormat as _, Position};

use super::{check_message, golden_key};

/// The path of a tile: each tile has one.
pub fn tile_path(input: &[u8]) -> bool {
    if let Some((&[level, width], rest)) = input.split_first_chunk::<2>() {
        let mut index = [0; 8];
        index
            .iter_mut()
            .zip(rest)
            .for_each(|(octet, from)| *octet = *from);
        let kind = match level % 7 {
            6 => TileKind::Data,
            level => TileKind::Hashes(level),
        };
        let path = TilePath::of_width(kind, u64::from_be_bytes(index), u64::from(width) + 1);
        assert_eq!(path.to_string().parse(), Ok(path));
    }
    let Ok(text) = str::from_utf8(input) else {
        return false;
    };
    let Ok(path) = text.parse::<TilePath>() else {
        return false;
    };
    assert_eq!(path.to_string(), text);
    assert!((1..=TILE_WIDTH).contains(&path.width()));
    for size in [0, 1, 255, 256, 257, path.index(), u64::MAX] {
        assert!(path.available(size) <= TILE_WIDTH);
    }
    true
}

/// A checkpoint, and the same text with a signature of the log under it: what verifies has one spelling.
pub fn checkpoint_parse(input: &[u8]) -> bool {
    let is_own = check_checkpoint(input);
    let Ok(note) = str::from_utf8(input) else {
        return is_own;
    };
    let (text, signatures) = note.split_once("\n\n").unwrap_or((note, ""));
    let mut lines = text.split('\n').skip(1);
    let size = lines
        .next()
        .and_then(|line| line.trim().parse().ok())
        .unwrap_or_default();
    let root = lines.next().map(str::trim).unwrap_or_default();
    let lenient = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let root = lenient.decode(root).unwrap_or_default();
    let head = TreeHead {
        size,
        root: root.try_into().unwrap_or_default(),
        timestamp: 1_767_225_600_124,
    };
    let checkpoint = KEY.checkpoint(&head).unwrap();
    let (_, signature) = checkpoint.split_once("\n\n").unwrap();
    check_checkpoint(format!("{text}\n\n{signature}{signatures}").as_bytes()) | is_own
}

fn check_checkpoint(note: &[u8]) -> bool {
    let head = match KEY.identity().verify(note) {
        Ok(head) => head,
        Err(error) => {
            check_message(&error);
            return false;
        }
    };
    let text = format!("{ORIGIN}\n{}\n{}\n", head.size, STANDARD.encode(head.root));
    let note = str::from_utf8(note).unwrap();
    let signatures = note.strip_prefix(&text).unwrap();
    assert!(signatures.starts_with("\n\u{2014} ") && signatures.ends_with('\n'));
    let ours = signatures
        .lines()
        .filter(|line| line.starts_with(&format!("\u{2014} {ORIGIN} ")));
    assert!(ours.count() >= 1);
    true
}

const ORIGIN: &str = "mayfly.test/log";

static KEY: LazyLock<LogKey> =
    LazyLock::new(|| LogKey::new(ORIGIN, Arc::new(golden_key())).unwrap());

/// What our logs' data tiles hold.
const FORMAT: StaticCtFormat = StaticCtFormat {
    sct_extensions: SctExtensions::LeafIndex,
};

/// A data tile: its entries are cut where a second reader cuts them, and their leaves are what that one hashes.
pub fn data_tile(input: &[u8]) -> bool {
    let mut rest = input;
    let mut count = 0;
    while let Some((entry, behind)) = FORMAT.split_first(rest) {
        assert_eq!([entry, behind].concat(), rest);
        assert_eq!(FORMAT.split_first(entry), Some((entry, &[][..])));
        let (naive, naive_behind) = NaiveEntry::read(entry).unwrap();
        assert!(naive_behind.is_empty());
        assert_eq!(naive.bytes(), entry);
        let position = Position {
            index: count,
            timestamp: naive.timestamp,
        };
        let is_good = naive.extensions == leaf_index_extensions(count)
            && !naive.precertificate.is_empty()
            && naive.fingerprints.len() % 32 == 0;
        let leaf = is_good.then(|| leaf_hash(&naive.leaf()));
        assert_eq!(FORMAT.leaf_hash(entry, position), leaf);
        let later = Position {
            timestamp: naive.timestamp ^ 1,
            ..position
        };
        assert_eq!(FORMAT.leaf_hash(entry, later), None);
        rest = behind;
        count += 1;
    }
    assert!(NaiveEntry::read(rest).is_none());
    assert_eq!(
        cut_entries(&FORMAT, input, count),
        Some(&input[..input.len() - rest.len()])
    );
    assert_eq!(cut_entries(&FORMAT, input, count + 1), None);
    count > 0 && rest.is_empty()
}

/// An entry of a data tile, read field by field (C2SP static-ct-api, "Log Entries").
struct NaiveEntry<'a> {
    timestamp: u64,
    issuer_key_hash: &'a [u8],
    tbs: &'a [u8],
    extensions: &'a [u8],
    precertificate: &'a [u8],
    fingerprints: &'a [u8],
}

impl<'a> NaiveEntry<'a> {
    fn read(mut input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut take = |length: usize| {
            let taken = input.get(..length)?;
            input = &input[length..];
            Some(taken)
        };
        let number = |octets: &[u8]| {
            octets
                .iter()
                .fold(0, |sum, &octet| sum << 8 | usize::from(octet))
        };
        let timestamp = u64::from_be_bytes(take(8)?.try_into().unwrap());
        if take(2)? != [0, 1] {
            return None;
        }
        let issuer_key_hash = take(32)?;
        let mut field = |width| {
            let length = number(take(width)?);
            take(length)
        };
        let entry = Self {
            timestamp,
            issuer_key_hash,
            tbs: field(3)?,
            extensions: field(2)?,
            precertificate: field(3)?,
            fingerprints: field(2)?,
        };
        Some((entry, input))
    }

    fn timestamped_entry(&self) -> Vec<u8> {
        [
            &self.timestamp.to_be_bytes()[..],
            &[0, 1],
            self.issuer_key_hash,
            &prefixed::<3>(self.tbs),
            &prefixed::<2>(self.extensions),
        ]
        .concat()
    }

    fn leaf(&self) -> Vec<u8> {
        [&[0, 0][..], &self.timestamped_entry()].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        [
            self.timestamped_entry(),
            prefixed::<3>(self.precertificate),
            prefixed::<2>(self.fingerprints),
        ]
        .concat()
    }
}

/// A field after its length in so many octets.
fn prefixed<const WIDTH: usize>(field: &[u8]) -> Vec<u8> {
    [&field.len().to_be_bytes()[8 - WIDTH..], field].concat()
}

/// A segment of the journal, as it is and with a good hash and signature behind it; and the segment that the log would write
/// of such entries: every octet of what is read has its meaning, and what is written reads back.
pub fn journal_frame(input: &[u8]) -> bool {
    let hash = digest(&SHA256, input);
    let message = [b"mayfly segment\0", hash.as_ref()].concat();
    let signature = KEY.signer().sign(&message).now_or_never();
    let signature = signature.unwrap().unwrap();
    let sealed = [input, hash.as_ref(), &prefixed::<2>(&signature)].concat();
    check_written(input);
    check_segment(input) | check_segment(&sealed)
}

fn check_segment(bytes: &[u8]) -> bool {
    let segment = match Segment::decode(bytes) {
        Ok(segment) => segment,
        Err(error) => {
            check_message(&error);
            return false;
        }
    };
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes[..4], *b"MFJ1");
    assert_eq!(bytes[4..8], [0, 0, 0, u8::from(segment.is_closed)]);
    assert_eq!(number(8), segment.number);
    assert_eq!(number(16), segment.first_index);
    let count = u32::try_from(segment.entries.len()).unwrap();
    assert_eq!(bytes[24..28], count.to_be_bytes());
    assert_eq!(number(28), segment.timestamp);
    let entries: Vec<u8> = segment
        .entries
        .iter()
        .flat_map(|entry| prefixed::<4>(entry))
        .collect();
    // Four hashes, the writer's name after its length, a nonce.
    let start = 36 + 4 * 32 + 1 + usize::from(bytes[164]) + 16;
    let end = start + entries.len();
    assert_eq!(bytes[start..end], entries);
    assert_eq!(
        bytes[end..end + 32],
        *digest(&SHA256, &bytes[..end]).as_ref()
    );
    let signature = &bytes[end + 32..];
    assert_eq!(signature, prefixed::<2>(&signature[2..]));

    let is_signed = segment.verify_signature(KEY.identity()).is_ok();
    if let Ok(leaves) = segment.leaf_hashes(&FORMAT) {
        assert_eq!(leaves.len(), segment.entries.len());
        if let Ok(tip) = Tip::empty().extend(&segment, &leaves) {
            assert_eq!(tip.size(), u64::from(count));
            assert_eq!((segment.number, segment.first_index), (0, 0));
        }
    }
    is_signed
}

/// Writes a segment with the lines of the input as its entries, and reads it.
fn check_written(input: &[u8]) {
    let entries: Vec<Vec<u8>> = input
        .split(|octet| *octet == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let draft = Draft {
        entries,
        leaves,
        timestamp: 1_767_225_600_124,
        nonce: [7; 16],
    };
    let bytes = Tip::empty().seal(&draft, &KEY).unwrap();
    let segment = Segment::decode(&bytes).unwrap();
    segment.verify_signature(KEY.identity()).unwrap();
    assert_eq!(segment.entries, draft.entries);
    assert_eq!(segment.timestamp, draft.timestamp);
    let tip = Tip::empty().extend(&segment, &draft.leaves).unwrap();
    assert_eq!(tip.size(), draft.entries.len() as u64);
    for at in [0, bytes.len() / 2, bytes.len() - 80] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let is_taken = Segment::decode(&damaged)
            .is_ok_and(|segment| segment.verify_signature(KEY.identity()).is_ok());
        assert!(!is_taken, "octet {at}");
    }
}
