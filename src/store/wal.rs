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
use super::{Journal, SEGMENT_MAGIC, StoreError};
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
    /// Keeps the folder locked while this exists.
    _lock: Arc<File>,
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
    /// Whether no frame was written to it by this process.
    is_fresh: bool,
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
        lock: Arc<File>,
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
        let tail = Tail::read(&folder, &log_id, first)?;
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
            _lock: lock,
        })
    }

    /// Takes the next file into reading, or ends the reading with this one.
    fn turn_page(&mut self) -> Result<bool, StoreError> {
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
            return Ok(false);
        };
        if rest.iter().any(|&byte| byte != 0) || next != self.next_number {
            return Err(StoreError::Damaged(format!(
                "segment {} is unreadable, and the journal file of segment {next} follows it",
                self.next_number
            )));
        }
        self.tail = Tail::read(&self.folder, &self.log_id, next)?;
        Ok(true)
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
        if self.tail.is_fresh {
            self.tail.file.sync_all().map_err(doing("sync"))?;
            sync_folder(&self.folder)?;
            self.tail.is_fresh = false;
        } else {
            self.tail.file.sync_data().map_err(doing("sync"))?;
        }
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
        if self.state != State::Read {
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

    fn commit(&mut self, number: u64, segment: &[u8]) -> Result<(), StoreError> {
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
            match self.rotate() {
                Err(StoreError::NoSpace) => return Err(StoreError::NoSpace),
                result => result.inspect_err(|_| self.state = State::Broken)?,
            }
            // Another file has another salt.
            return self.commit(number, segment);
        }
        self.write(&frame).map_err(|error| {
            self.state = State::Broken;
            match error {
                // Without room for a block that was filled ahead, what is on the disk is as unknown as after any error.
                StoreError::NoSpace => StoreError::io("write the journal")(io::Error::other(
                    "no space for a block that was written before",
                )),
                error => error,
            }
        })
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
    fn read(folder: &Path, log_id: &[u8; 32], first: u64) -> Result<Self, StoreError> {
        let path = folder.join(file_name(first));
        let name = format!("journal file {}", file_name(first));
        let bytes = fs::read(&path).map_err(StoreError::io(format!("read {name}")))?;
        let file = OpenOptions::new()
            .write(true)
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
            is_fresh: true,
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
    bytes.windows(mark).enumerate().any(|(position, window)| {
        window.ends_with(&SEGMENT_MAGIC)
            && bytes
                .get(position..)
                .is_some_and(|rest| frame_at(rest, salt).is_some())
    })
}

/// Makes the spare file, unless it is there: nothing but zeros, all of them on the disk.
fn fill_spare(folder: &Path, file_bytes: usize) -> Result<(), StoreError> {
    let path = folder.join(SPARE);
    let is_good = fs::read(&path)
        .is_ok_and(|bytes| bytes.len() == file_bytes && bytes.iter().all(|&byte| byte == 0));
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
        is_fresh: true,
    })
}
