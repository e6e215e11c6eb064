//! The journal of a folder: files of one fixed size, filled with zeros ahead, that are only ever written further.
//!
//! ```text
//! file    "MFJW" ‖ format u32 ‖ log_id[32] ‖ first segment u64 ‖ salt[16] ‖ crc32c of these u32 ‖ frame* ‖ zeros
//! frame   length u32 ‖ crc32c(salt ‖ segment) u32 ‖ segment
//! ```
//!
//! Integers are big-endian. A frame is synced before the next is written, so only the last one can be torn. The salt
//! keeps an entry, whose bytes a requester chooses, from passing for a frame.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::folder::sync_folder;
use super::{Commit, Journal, SEGMENT_MAGIC, StoreError};
use crate::random::Random;

/// The size of a file.
pub(super) const FILE_BYTES: usize = 16 << 20;
/// How much of a file is filled with zeros between two syncs, so that commits beside it do not wait long.
const FILL_BYTES: usize = 1 << 20;

const FILE_MAGIC: [u8; 4] = *b"MFJW";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 68;
const FRAME_HEADER_BYTES: usize = 8;
/// The name of the file of zeros that stands ready.
const SPARE: &str = "spare";

/// See the module.
#[derive(Debug)]
pub(super) struct Wal {
    folder: PathBuf,
    log_id: [u8; 32],
    file_bytes: usize,
    random: Arc<dyn Random>,
    /// First segments of the files that are still to be read.
    unread: VecDeque<u64>,
    /// The first segment that the reader asked for.
    from: u64,
    /// The number of the next segment, to be read or to be written.
    next_number: u64,
    tail: Tail,
    last: Option<LastFrame>,
    state: State,
    spare: Option<JoinHandle<Result<(), StoreError>>>,
    /// Keeps the folder locked while this exists. Without it, the journal is only read.
    lock: Option<Arc<File>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Reading,
    Read,
    Ready,
    /// A write failed: what is on the disk is not known any more.
    Broken,
}

/// The file that is read, or written, at `position`.
#[derive(Debug)]
struct Tail {
    file: Arc<File>,
    salt: [u8; 16],
    position: usize,
    /// The whole file while it is read.
    bytes: Vec<u8>,
}

/// Where the last good frame lies, to be written again.
#[derive(Debug)]
struct LastFrame {
    file: Arc<File>,
    position: usize,
    frame: Vec<u8>,
}

impl Wal {
    /// Makes the first file of a new journal.
    pub(super) fn create(
        folder: &Path,
        log_id: &[u8; 32],
        file_bytes: usize,
        random: &dyn Random,
    ) -> Result<(), StoreError> {
        if !file_numbers(folder)?.is_empty() {
            return Err(StoreError::Conflict("journal".to_owned()));
        }
        fill_spare(folder, file_bytes)?;
        begin_file(folder, log_id, 0, random)?;
        Ok(())
    }

    /// Opens the journal to be read from segment `from` on.
    pub(super) fn open(
        folder: PathBuf,
        log_id: [u8; 32],
        from: u64,
        file_bytes: usize,
        random: Arc<dyn Random>,
        lock: Option<Arc<File>>,
    ) -> Result<Self, StoreError> {
        let numbers = file_numbers(&folder)?;
        let mut unread: VecDeque<u64> = numbers.iter().copied().collect();
        // The last file that begins at or before `from` is where reading starts.
        while unread.get(1).is_some_and(|&second| second <= from) {
            unread.pop_front();
        }
        let first = unread
            .pop_front()
            .filter(|&first| first <= from)
            .ok_or_else(|| StoreError::Damaged(format!("no journal file holds segment {from}")))?;
        let tail = Tail::read(&folder, &log_id, first, lock.is_some())?;
        Ok(Self {
            folder,
            log_id,
            file_bytes,
            random,
            unread,
            from,
            next_number: first,
            tail,
            last: None,
            state: State::Reading,
            spare: None,
            lock,
        })
    }

    /// Takes the next file into reading, or ends the reading with this one.
    fn turn_page(&mut self) -> Result<(), StoreError> {
        let rest = self
            .tail
            .bytes
            .get(self.tail.position..)
            .unwrap_or_default();
        let Some(next) = self.unread.pop_front() else {
            if has_frame(rest, &self.tail.salt) {
                return Err(StoreError::Damaged(format!(
                    "segment {} is unreadable, and readable ones follow it",
                    self.next_number
                )));
            }
            if self.next_number < self.from {
                return Err(StoreError::Damaged(format!(
                    "the journal ends before segment {}",
                    self.from
                )));
            }
            self.state = State::Read;
            return Ok(());
        };
        if !without_blank_end(rest).is_empty() || next != self.next_number {
            return Err(StoreError::Damaged(format!(
                "segment {} is unreadable, and the journal file of segment {next} follows it",
                self.next_number
            )));
        }
        self.tail = Tail::read(&self.folder, &self.log_id, next, self.lock.is_some())?;
        Ok(())
    }

    /// Begins the next file with the spare one.
    fn rotate(&mut self) -> Result<(), StoreError> {
        self.prepare_spare();
        let made = self
            .spare
            .take()
            .map_or(Ok(Ok(())), JoinHandle::join)
            .map_err(|_| {
                StoreError::io("fill the spare journal file")(io::Error::other("panic"))
            })?;
        made?;
        // Whether or not the next file gets its name, this one takes nothing more: a frame here would have the number in
        // that name, and the next start would find the two at odds.
        self.tail.position = self.file_bytes;
        self.tail = begin_file(&self.folder, &self.log_id, self.next_number, &*self.random)?;
        self.prepare_spare();
        Ok(())
    }

    /// Sees to it that a spare file is there or is being made.
    fn prepare_spare(&mut self) {
        if self.spare.is_some() {
            return;
        }
        let (folder, file_bytes) = (self.folder.clone(), self.file_bytes);
        let maker = thread::Builder::new().name("journal-spare".to_owned());
        self.spare = maker.spawn(move || fill_spare(&folder, file_bytes)).ok();
    }

    fn write(&mut self, frame: &[u8]) -> Result<(), StoreError> {
        let offset = self.tail.position as u64;
        let doing = |what: &str| StoreError::io(format!("{what} the journal"));
        self.tail
            .file
            .write_all_at(frame, offset)
            .map_err(doing("write"))?;
        // The file's size and name were made durable before its first frame, by `begin_file` or `settle`.
        self.tail.file.sync_data().map_err(doing("sync"))?;
        self.tail.position += frame.len();
        self.next_number += 1;
        Ok(())
    }
}

impl Journal for Wal {
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        while self.state == State::Reading {
            let rest = self
                .tail
                .bytes
                .get(self.tail.position..)
                .unwrap_or_default();
            let Some(segment) = frame_at(rest, &self.tail.salt).map(<[u8]>::to_vec) else {
                self.turn_page()?;
                continue;
            };
            let position = self.tail.position;
            let end = position + FRAME_HEADER_BYTES + segment.len();
            self.last = Some(LastFrame {
                file: Arc::clone(&self.tail.file),
                position,
                frame: self
                    .tail
                    .bytes
                    .get(position..end)
                    .unwrap_or_default()
                    .to_vec(),
            });
            self.tail.position = end;
            let number = self.next_number;
            self.next_number += 1;
            if number >= self.from {
                return Ok(Some((number, segment)));
            }
        }
        Ok(None)
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        if self.state != State::Read || self.lock.is_none() {
            return Err(out_of_order());
        }
        self.state = State::Broken;
        let doing = |what: &str| StoreError::io(format!("{what} the journal"));
        let rest = self
            .tail
            .bytes
            .get(self.tail.position..)
            .unwrap_or_default();
        if rest.iter().any(|&byte| byte != 0) {
            let zeros = vec![0; rest.len()];
            self.tail
                .file
                .write_all_at(&zeros, self.tail.position as u64)
                .map_err(doing("write"))?;
        }
        // After a kill the last frame may be in the page cache alone, and after a failed sync the cache may call it
        // clean: only writing it again makes the sync mean something.
        if let Some(last) = self.last.take() {
            last.file
                .write_all_at(&last.frame, last.position as u64)
                .map_err(doing("write"))?;
            last.file.sync_all().map_err(doing("sync"))?;
        }
        self.tail.file.sync_all().map_err(doing("sync"))?;
        sync_folder(&self.folder)?;
        self.tail.bytes = Vec::new();
        self.prepare_spare();
        self.state = State::Ready;
        Ok(())
    }

    fn commit(&mut self, number: u64, segment: &[u8]) -> Result<Commit, StoreError> {
        let frame = frame(segment, &self.tail.salt);
        let fits_a_file = HEADER_BYTES + frame.len() <= self.file_bytes;
        if self.state != State::Ready
            || number != self.next_number
            || !segment.starts_with(&SEGMENT_MAGIC)
            || !fits_a_file
        {
            return Err(out_of_order());
        }
        if self.tail.position + frame.len() > self.file_bytes {
            self.rotate().inspect_err(|error| {
                if !error.is_passing() {
                    self.state = State::Broken;
                }
            })?;
            // Another file has another salt.
            return self.commit(number, segment);
        }
        self.write(&frame).map_err(|error| {
            self.state = State::Broken;
            // The blocks were filled ahead; a disk that has none for them leaves as much in doubt as any error.
            if error.is_passing() {
                return StoreError::io("write the journal")(io::Error::other(error));
            }
            error
        })?;
        Ok(Commit::Written)
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // The maker of the spare writes into the folder; it must not outlive the lock.
        if let Some(spare) = self.spare.take() {
            let _ = spare.join();
        }
    }
}

impl Tail {
    fn read(
        folder: &Path,
        log_id: &[u8; 32],
        first: u64,
        is_writer: bool,
    ) -> Result<Self, StoreError> {
        let path = folder.join(file_name(first));
        let name = format!("journal file {}", file_name(first));
        let bytes = fs::read(&path).map_err(StoreError::io(format!("read {name}")))?;
        let file = OpenOptions::new()
            .read(true)
            .write(is_writer)
            .open(&path)
            .map_err(StoreError::io(format!("open {name}")))?;
        let header = bytes
            .first_chunk::<HEADER_BYTES>()
            .ok_or_else(|| StoreError::Damaged(format!("{name} is cut short")))?;
        let (magic, rest) = header.split_at(4);
        let (format, _) = rest.split_at(4);
        if magic == FILE_MAGIC && format != FORMAT.to_be_bytes() {
            return Err(StoreError::NewerVersion(name));
        }
        let salt = salt_of(header);
        if *header != file_header(log_id, first, salt) {
            return Err(StoreError::Damaged(format!(
                "{name} has no good header of this log"
            )));
        }
        Ok(Self {
            file: Arc::new(file),
            salt,
            position: HEADER_BYTES,
            bytes,
        })
    }
}

fn out_of_order() -> StoreError {
    StoreError::io("use the journal")(io::Error::other(
        "a segment out of order, too large, or after an error",
    ))
}

fn file_name(first: u64) -> String {
    format!("{first:016}.wal")
}

/// The first segments of the journal's files, ascending.
fn file_numbers(folder: &Path) -> Result<Vec<u64>, StoreError> {
    let doing = || StoreError::io("list the journal");
    let mut numbers = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        Err(error) => return Err(doing()(error)),
    };
    for entry in entries {
        let name = entry.map_err(doing())?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".wal"))
            .and_then(|stem| stem.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn file_header(log_id: &[u8; 32], first: u64, salt: [u8; 16]) -> [u8; HEADER_BYTES] {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&FILE_MAGIC);
    header.extend_from_slice(&FORMAT.to_be_bytes());
    header.extend_from_slice(log_id);
    header.extend_from_slice(&first.to_be_bytes());
    header.extend_from_slice(&salt);
    header.extend_from_slice(&crc32c::crc32c(&header).to_be_bytes());
    header.try_into().unwrap_or([0; HEADER_BYTES])
}

fn salt_of(header: &[u8; HEADER_BYTES]) -> [u8; 16] {
    header
        .get(48..64)
        .and_then(|salt| salt.try_into().ok())
        .unwrap_or_default()
}

fn frame(segment: &[u8], salt: &[u8; 16]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + segment.len());
    // A length that does not fit cannot pass the check of the file's size either.
    frame.extend_from_slice(
        &u32::try_from(segment.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    frame.extend_from_slice(&checksum(segment, salt).to_be_bytes());
    frame.extend_from_slice(segment);
    frame
}

fn checksum(segment: &[u8], salt: &[u8; 16]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(salt), segment)
}

/// The segment of a good frame that `bytes` begin with.
fn frame_at<'a>(bytes: &'a [u8], salt: &[u8; 16]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let segment = rest.get(..length)?;
    (segment.starts_with(&SEGMENT_MAGIC) && checksum(segment, salt) == u32::from_be_bytes(*sum))
        .then_some(segment)
}

/// Whether a good frame begins anywhere in `bytes`.
fn has_frame(bytes: &[u8], salt: &[u8; 16]) -> bool {
    let mark = FRAME_HEADER_BYTES + SEGMENT_MAGIC.len();
    let used = without_blank_end(bytes);
    used.windows(mark).enumerate().any(|(position, window)| {
        window.ends_with(&SEGMENT_MAGIC)
            && bytes
                .get(position..)
                .is_some_and(|rest| frame_at(rest, salt).is_some())
    })
}

/// Bytes without the zeros at their end, to within a block: most of a journal file is blank, and every start looks at it.
fn without_blank_end(bytes: &[u8]) -> &[u8] {
    const BLANK: [u8; 4096] = [0; 4096];
    let blocks = bytes.rchunks(BLANK.len());
    let blank = blocks.take_while(|block| BLANK.starts_with(block));
    let used = bytes.len() - blank.map(<[u8]>::len).sum::<usize>();
    bytes.get(..used).unwrap_or(bytes)
}

/// Makes the spare file, unless it is there: nothing but zeros, all of them on the disk.
fn fill_spare(folder: &Path, file_bytes: usize) -> Result<(), StoreError> {
    let path = folder.join(SPARE);
    let is_good = fs::read(&path)
        .is_ok_and(|bytes| bytes.len() == file_bytes && without_blank_end(&bytes).is_empty());
    if is_good {
        return Ok(());
    }
    let doing = || StoreError::io("fill the spare journal file");
    let fill = || -> Result<(), StoreError> {
        let mut file = File::create(&path).map_err(doing())?;
        let zeros = vec![0; FILL_BYTES.min(file_bytes)];
        let mut missing = file_bytes;
        while missing > 0 {
            let step = zeros.get(..missing).unwrap_or(&zeros);
            file.write_all(step).map_err(doing())?;
            file.sync_data().map_err(doing())?;
            missing -= step.len();
        }
        file.sync_all().map_err(doing())
    };
    fill().inspect_err(|_| {
        // Half a spare would keep the room that is missing.
        let _ = fs::remove_file(&path);
    })
}

/// Turns the spare file into the one that begins with segment `first`.
fn begin_file(
    folder: &Path,
    log_id: &[u8; 32],
    first: u64,
    random: &dyn Random,
) -> Result<Tail, StoreError> {
    let doing = || StoreError::io("begin a journal file");
    let mut salt = [0; 16];
    random
        .fill(&mut salt)
        .map_err(|error| doing()(io::Error::other(error)))?;
    let spare = folder.join(SPARE);
    let file = OpenOptions::new()
        .write(true)
        .open(&spare)
        .map_err(doing())?;
    file.write_all_at(&file_header(log_id, first, salt), 0)
        .map_err(doing())?;
    file.sync_all().map_err(doing())?;
    fs::rename(&spare, folder.join(file_name(first))).map_err(doing())?;
    sync_folder(folder)?;
    Ok(Tail {
        file: Arc::new(file),
        salt,
        position: HEADER_BYTES,
        bytes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::random::SeededRandom;

    const LOG_ID: [u8; 32] = [7; 32];
    const SMALL_FILE: usize = 4096;

    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(TempDir::new().unwrap());
            Wal::create(folder.0.path(), &LOG_ID, SMALL_FILE, &SeededRandom::new(1)).unwrap();
            folder
        }

        fn open(&self, from: u64) -> Result<Wal, StoreError> {
            let path = self.0.path().to_owned();
            let lock = Arc::new(File::open(&path).unwrap());
            let random = Arc::new(SeededRandom::new(from + 2));
            Wal::open(path, LOG_ID, from, SMALL_FILE, random, Some(lock))
        }

        /// Opens for writing and returns what was read.
        fn ready(&self) -> (Wal, Vec<Vec<u8>>) {
            let mut wal = self.open(0).unwrap();
            let segments = read(&mut wal).unwrap();
            wal.settle().unwrap();
            (wal, segments)
        }

        fn write(&self, segments: &[Vec<u8>]) {
            let (mut wal, before) = self.ready();
            for (number, segment) in (before.len() as u64..).zip(segments) {
                wal.commit(number, segment).unwrap();
            }
        }

        fn bytes(&self, first: u64) -> Vec<u8> {
            fs::read(self.0.path().join(file_name(first))).unwrap()
        }

        fn edit(&self, first: u64, edit: impl FnOnce(&mut Vec<u8>)) {
            let mut bytes = self.bytes(first);
            edit(&mut bytes);
            fs::write(self.0.path().join(file_name(first)), bytes).unwrap();
        }

        fn read_all(&self) -> Result<Vec<Vec<u8>>, StoreError> {
            read(&mut self.open(0)?)
        }

        fn is_refused(&self) -> bool {
            matches!(self.read_all(), Err(StoreError::Damaged(_)))
        }
    }

    fn read(wal: &mut Wal) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut segments = Vec::new();
        while let Some((number, segment)) = wal.next()? {
            assert_eq!(number, wal.from + segments.len() as u64);
            segments.push(segment);
        }
        Ok(segments)
    }

    fn segment(content: &[u8]) -> Vec<u8> {
        [&SEGMENT_MAGIC, content].concat()
    }

    /// Segments of 204 octets: a file of the tests takes exactly [`PER_FILE`] of them.
    fn segments(count: u8) -> Vec<Vec<u8>> {
        (0..count).map(|n| segment(&[n + 1; 200])).collect()
    }

    const FRAME: usize = FRAME_HEADER_BYTES + 204;
    const PER_FILE: u8 = 19;

    #[test]
    fn segments_read_back_in_order_over_several_files() {
        let folder = Folder::new();
        folder.write(&segments(50));
        assert_eq!(folder.read_all().unwrap(), segments(50));
        assert!(folder.0.path().join(file_name(PER_FILE.into())).exists());

        folder.write(&segments(3));
        assert_eq!(folder.read_all().unwrap().len(), 53);
    }

    #[test]
    fn reading_starts_where_it_is_asked_to() {
        let folder = Folder::new();
        folder.write(&segments(40));
        for from in [0_usize, 1, 18, 19, 20, 39, 40] {
            let mut wal = folder.open(from as u64).unwrap();
            let all = segments(40);
            assert_eq!(read(&mut wal).unwrap(), all[from..], "{from}");
        }
        let beyond = folder.open(41).and_then(|mut wal| read(&mut wal));
        assert!(matches!(beyond, Err(StoreError::Damaged(_))));
    }

    #[test]
    fn a_torn_tail_is_cut_and_the_number_is_used_again() {
        // The frame of segment 2 torn in every way: cut short at any octet, or its content not written.
        let end = HEADER_BYTES + 2 * FRAME;
        let tears: Vec<_> = (0..FRAME).map(|kept| end + kept).collect();
        for kept in tears.into_iter().step_by(13) {
            let folder = Folder::new();
            folder.write(&segments(3));
            folder.edit(0, |bytes| bytes[kept..].fill(0));

            let (mut wal, found) = folder.ready();
            assert_eq!(found, segments(2), "kept {kept}");
            wal.commit(2, &segment(b"another")).unwrap();
            drop(wal);
            assert_eq!(folder.read_all().unwrap()[2], segment(b"another"));
            let rest = &folder.bytes(0)[end + FRAME_HEADER_BYTES + 11..];
            assert!(rest.iter().all(|&byte| byte == 0), "the torn frame is gone");
        }
    }

    #[test]
    fn damage_before_a_good_segment_is_refused_wherever_it_is() {
        let folder = Folder::new();
        folder.write(&segments(3));
        let good = folder.bytes(0);
        // Every octet of the first two frames, and all of them lost at once.
        for position in HEADER_BYTES..HEADER_BYTES + 2 * FRAME {
            folder.edit(0, |bytes| bytes[position] ^= 0x10);
            assert!(folder.is_refused(), "octet {position}");
            folder.edit(0, |bytes| bytes.clone_from(&good));
        }
        folder.edit(0, |bytes| {
            bytes[HEADER_BYTES..HEADER_BYTES + 2 * FRAME].fill(0);
        });
        assert!(folder.is_refused());
    }

    #[test]
    fn a_flipped_bit_in_an_earlier_file_is_refused_even_in_its_last_segment() {
        let folder = Folder::new();
        folder.write(&segments(PER_FILE + 1));
        let last = HEADER_BYTES + usize::from(PER_FILE - 1) * FRAME;
        folder.edit(0, |bytes| bytes[last + 20] ^= 1);
        assert!(folder.is_refused());
    }

    #[test]
    fn what_lies_behind_the_last_segment_of_an_earlier_file_is_zeros_or_refused() {
        let folder = Folder::new();
        let mut segments = segments(PER_FILE - 1);
        segments.push(segment(&[9; 300]));
        folder.write(&segments);
        assert!(
            folder.0.path().join(file_name(18)).exists(),
            "there is room left"
        );
        assert_eq!(folder.read_all().unwrap(), segments);
        folder.edit(0, |bytes| bytes[SMALL_FILE - 1] = 1);
        assert!(folder.is_refused());
    }

    #[test]
    fn a_file_header_that_is_damaged_or_of_another_log_is_refused() {
        for position in 8..HEADER_BYTES {
            let folder = Folder::new();
            folder.write(&segments(1));
            folder.edit(0, |bytes| bytes[position] ^= 1);
            assert!(folder.is_refused(), "octet {position}");
        }
    }

    #[test]
    fn a_file_of_a_newer_format_is_not_touched() {
        let folder = Folder::new();
        folder.edit(0, |bytes| bytes[7] = 2);
        assert!(matches!(
            folder.open(0),
            Err(StoreError::NewerVersion(name)) if name.contains("0000000000000000.wal")
        ));
    }

    #[test]
    fn a_missing_file_is_refused() {
        let folder = Folder::new();
        folder.write(&segments(40));
        for first in [0, PER_FILE.into()] {
            let (path, aside) = (
                folder.0.path().join(file_name(first)),
                folder.0.path().join("aside"),
            );
            fs::rename(&path, &aside).unwrap();
            assert!(folder.is_refused(), "file {first}");
            fs::rename(&aside, &path).unwrap();
        }
    }

    #[test]
    fn a_new_file_without_a_segment_is_the_tail() {
        let folder = Folder::new();
        folder.write(&segments(PER_FILE + 1));
        folder.edit(PER_FILE.into(), |bytes| bytes[HEADER_BYTES..].fill(0));
        let (mut wal, found) = folder.ready();
        assert_eq!(found, segments(PER_FILE));
        wal.commit(PER_FILE.into(), &segment(b"next")).unwrap();
    }

    #[test]
    fn a_frame_inside_an_entry_is_not_taken_for_one() {
        let folder = Folder::new();
        let good = frame(&segment(b"inner"), &[0; 16]);
        folder.write(&[segment(b"first"), segment(&good)]);
        // Tear the outer frame: what is inside stands whole behind the tear.
        let outer = HEADER_BYTES + FRAME_HEADER_BYTES + segment(b"first").len();
        folder.edit(0, |bytes| bytes[outer + 4] ^= 1);
        assert_eq!(folder.read_all().unwrap(), [segment(b"first")]);

        let (wal, _) = folder.ready();
        let salted = frame(&segment(b"inner"), &wal.tail.salt);
        assert!(has_frame(
            &[&[1, 2, 3][..], &salted].concat(),
            &wal.tail.salt
        ));
        assert!(!has_frame(&salted, &[0; 16]), "another salt, no frame");
    }

    proptest! {
        /// A frame reads back, alone or before others, and no bit of it can be another.
        #[test]
        fn a_frame_with_any_bit_flipped_is_none(
            content in prop::collection::vec(any::<u8>(), 0..300),
            behind in prop::collection::vec(any::<u8>(), 0..300),
            salt in any::<[u8; 16]>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let segment = segment(&content);
            let mut bytes = frame(&segment, &salt);
            let length = bytes.len();
            bytes.extend(behind);
            prop_assert_eq!(frame_at(&bytes, &salt), Some(&segment[..]));

            bytes[at.index(length)] ^= 1_u8 << bit;
            prop_assert_eq!(frame_at(&bytes, &salt), None);
        }
    }

    #[test]
    fn a_spare_file_that_is_not_all_zeros_is_made_again() {
        let folder = Folder::new();
        fs::write(folder.0.path().join(SPARE), vec![1; SMALL_FILE]).unwrap();
        folder.write(&segments(20));
        assert_eq!(folder.read_all().unwrap(), segments(20));
    }

    #[test]
    fn nothing_is_written_before_settling_or_out_of_order() {
        let folder = Folder::new();
        let mut wal = folder.open(0).unwrap();
        assert!(wal.commit(0, &segment(b"early")).is_err());
        assert!(wal.settle().is_err(), "not read to the end");
        let (mut wal, _) = folder.ready();
        assert!(wal.commit(1, &segment(b"gap")).is_err());
        assert!(wal.commit(0, b"no magic").is_err());
        assert!(wal.commit(0, &segment(&[0; SMALL_FILE])).is_err());
        drop(wal);
        assert!(folder.read_all().unwrap().is_empty());
    }

    #[test]
    fn after_a_next_file_was_begun_in_vain_the_old_one_takes_nothing() {
        let folder = Folder::new();
        folder.write(&segments(PER_FILE - 1));
        let (mut wal, _) = folder.ready();
        let number = u64::from(PER_FILE) - 1;
        let too_long_for_the_rest = segment(&[9; 300]);
        // The next file has its name already when its folder cannot be synced for want of room.
        let next = folder.0.path().join(file_name(number));
        fs::create_dir(&next).unwrap();
        wal.commit(number, &too_long_for_the_rest).unwrap_err();
        fs::remove_dir(&next).unwrap();
        let random = SeededRandom::new(9);
        begin_file(folder.0.path(), &LOG_ID, number, &random).unwrap();
        wal.state = State::Ready;

        // It is the folder that was full, so the same number is tried again, with less.
        wal.commit(number, &segment(b"short")).unwrap();
        drop(wal);
        assert_eq!(
            folder.read_all().unwrap().last().unwrap(),
            &segment(b"short")
        );
    }

    #[test]
    fn a_journal_is_created_once() {
        let folder = Folder::new();
        let again = Wal::create(folder.0.path(), &LOG_ID, SMALL_FILE, &SeededRandom::new(9));
        assert!(matches!(again, Err(StoreError::Conflict(_))));
    }
}
