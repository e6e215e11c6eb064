//! A store in a folder of a local disk.
//!
//! Blobs are files, written beside their place, synced, and renamed into it. The folder is locked for the life of the
//! process, so it has one writer.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::wal::{FILE_BYTES, Wal};
use super::{Journal, Store, StoreError};
use crate::random::{Random, SystemRandomness};

/// Where the journal's files are.
const JOURNAL: &str = "journal";
/// Where blobs are written before they are renamed into their place.
const TEMPORARY: &str = "tmp";

/// What a folder may be besides a local disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct FolderOptions {
    /// Whether it may vanish with the machine or container (tmpfs, overlay). Right only where the log's key lies in the
    /// same folder: a log whose key outlives its tree would start a second tree.
    pub allow_volatile: bool,
    /// Whether it may be on a network file system or on FUSE, whose locks and syncs may promise more than they keep.
    pub allow_network: bool,
}

/// A folder that holds one log, locked.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// The open folder; the lock lasts as long as this.
    lock: Arc<File>,
    random: Arc<dyn Random>,
    /// Subfolders that are known to exist durably.
    known: Mutex<HashSet<PathBuf>>,
    temporary_names: AtomicU64,
    wal_bytes: usize,
}

impl Folder {
    /// Locks an existing folder.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::Unsuitable`] for a file system that `options` do
    /// not allow.
    pub fn open(
        root: impl Into<PathBuf>,
        options: FolderOptions,
        random: Arc<dyn Random>,
    ) -> Result<Self, StoreError> {
        let root = root.into();
        let handle =
            File::open(&root).map_err(StoreError::io(format!("open {}", root.display())))?;
        check_file_system(&handle, options)?;
        // The folder itself, not a file in it: whoever tidies up could delete a lock file under a running process.
        lock(&handle)?;
        let folder = Self {
            root,
            lock: Arc::new(handle),
            random,
            known: Mutex::default(),
            temporary_names: AtomicU64::new(0),
            wal_bytes: FILE_BYTES,
        };
        folder.clear_temporary()?;
        Ok(folder)
    }

    /// Deletes what a process left behind that was killed while it wrote. The folder stays: a full disk may have no room to
    /// make it again.
    fn clear_temporary(&self) -> Result<(), StoreError> {
        let temporary = self.root.join(TEMPORARY);
        let left = match fs::read_dir(&temporary) {
            Ok(left) => left,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.make_folder(&temporary);
            }
            Err(error) => return Err(StoreError::io("read tmp")(error)),
        };
        for file in left {
            file.and_then(|file| fs::remove_file(file.path()))
                .map_err(StoreError::io("clear tmp"))?;
        }
        Ok(())
    }

    /// Makes a folder, which must not exist yet, and locks it.
    ///
    /// # Errors
    /// As [`Self::open`], and when it exists or cannot be made.
    pub fn create(
        root: impl Into<PathBuf>,
        options: FolderOptions,
        random: Arc<dyn Random>,
    ) -> Result<Self, StoreError> {
        let root = root.into();
        fs::create_dir(&root).map_err(StoreError::io(format!("make {}", root.display())))?;
        if let Some(parent) = root.parent() {
            sync_folder(parent)?;
        }
        Self::open(root, options, random)
    }

    /// Makes the journal's files this large, so that a test fills several.
    #[cfg(test)]
    pub(crate) const fn with_wal_bytes(mut self, bytes: usize) -> Self {
        self.wal_bytes = bytes;
        self
    }

    /// Makes a folder and those above it, durably, down from the root.
    fn make_folder(&self, path: &Path) -> Result<(), StoreError> {
        if path == self.root || self.lock_known().contains(path) {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.root);
        self.make_folder(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io(format!("make {}", path.display()))(error));
            }
            _ => sync_folder(parent)?,
        }
        self.lock_known().insert(path.to_owned());
        Ok(())
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = path_in(&self.root, name)?;
        if let Some(parent) = path.parent() {
            self.make_folder(parent)?;
        }
        let number = self.temporary_names.fetch_add(1, Ordering::Relaxed);
        replace(
            &path,
            &self.root.join(TEMPORARY).join(number.to_string()),
            bytes,
        )
    }
}

impl Store for Folder {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        read_in(&self.root, name)
    }

    fn put_immutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let Some(existing) = self.get(name)? else {
            return self.put(name, bytes);
        };
        if existing != bytes {
            return Err(StoreError::Conflict(name.to_owned()));
        }
        // A process that was killed may have left the file in the cache alone.
        let path = path_in(&self.root, name)?;
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(StoreError::io(format!("sync {name}")))?;
        path.parent().map_or(Ok(()), sync_folder)
    }

    fn put_mutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.put(name, bytes)
    }

    fn create_journal(&self, log_id: &[u8; 32]) -> Result<(), StoreError> {
        let folder = self.root.join(JOURNAL);
        self.make_folder(&folder)?;
        Wal::create(&folder, log_id, self.wal_bytes, &*self.random)
    }

    fn open_journal(&self, log_id: &[u8; 32], from: u64) -> Result<Box<dyn Journal>, StoreError> {
        let wal = Wal::open(
            self.root.join(JOURNAL),
            *log_id,
            from,
            self.wal_bytes,
            Arc::clone(&self.random),
            Some(Arc::clone(&self.lock)),
        )?;
        Ok(Box::new(wal))
    }
}

/// The path of a blob.
fn path_in(root: &Path, name: &str) -> Result<PathBuf, StoreError> {
    let is_plain = !name.is_empty()
        && name.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        });
    if is_plain {
        Ok(root.join(name))
    } else {
        Err(StoreError::io(format!("use the name {name:?}"))(
            io::ErrorKind::InvalidInput.into(),
        ))
    }
}

fn read_in(root: &Path, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path_in(root, name)?) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(format!("read {name}"))(error)),
    }
}

/// A folder that holds a log, only read: for who looks at a log while its process runs, or at a copy.
///
/// Nothing is locked and nothing changed.
#[derive(Clone, Debug)]
pub struct FolderReader {
    root: PathBuf,
}

impl FolderReader {
    /// Reads in this folder, which need not exist.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a blob, or nothing where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        read_in(&self.root, name)
    }

    /// Opens the journal of a log for reading from segment `from` on. It may grow meanwhile; what is being written when it is
    /// read may be missing at its end, or look damaged: then it is to be read again.
    ///
    /// # Errors
    /// As [`Store::open_journal`].
    pub fn open_journal(
        &self,
        log_id: &[u8; 32],
        from: u64,
    ) -> Result<Box<dyn Journal>, StoreError> {
        let random = Arc::new(SystemRandomness);
        let folder = self.root.join(JOURNAL);
        let wal = Wal::open(folder, *log_id, from, FILE_BYTES, random, None)?;
        Ok(Box::new(wal))
    }
}

/// Writes a file durably: the old content or the new one is there, whole, whenever the machine stops.
///
/// # Errors
/// When the system refuses.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    replace(path, &path.with_added_extension("tmp"), bytes)
}

/// Locks a file or folder for as long as it is open.
///
/// # Errors
/// [`StoreError::Locked`] when another process has locked it, and when the file system has no locks.
pub(crate) fn lock(file: &File) -> Result<(), StoreError> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        if error == Errno::WOULDBLOCK {
            StoreError::Locked
        } else {
            StoreError::io("lock the log")(error.into())
        }
    })
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let doing = |what: &str| StoreError::io(format!("{what} {}", path.display()));
    let mut file = File::create(temporary).map_err(doing("write"))?;
    let written = file
        .write_all(bytes)
        .map_err(doing("write"))
        .and_then(|()| file.sync_all().map_err(doing("sync")))
        .and_then(|()| fs::rename(temporary, path).map_err(doing("rename")));
    if written.is_err() {
        // A failed write must not keep what room there is; the error is already on its way.
        let _ = fs::remove_file(temporary);
    }
    written?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    // `Path::parent` of a bare name is empty and means here.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::io(format!("sync {}", path.display())))
}

/// Refuses the file systems on which a lock, a sync or the whole folder may not last.
#[cfg(target_os = "linux")]
fn check_file_system(folder: &File, options: FolderOptions) -> Result<(), StoreError> {
    let status = rustix::fs::fstatfs(folder)
        .map_err(|error| StoreError::io("look at the file system")(error.into()))?;
    // The type of `f_type` differs between architectures; the magic numbers have 32 bits.
    check_magic(
        u32::try_from(status.f_type & 0xffff_ffff).unwrap_or(0),
        options,
    )
}

/// Judges a file system by its magic number (statfs(2)).
#[cfg(target_os = "linux")]
fn check_magic(magic: u32, options: FolderOptions) -> Result<(), StoreError> {
    let network = match magic {
        0x6969 => Some("NFS"),
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => Some("SMB"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("FUSE"),
        _ => None,
    };
    let volatile = match magic {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58f6 => Some("ramfs"),
        0x794c_7630 => Some("overlay, a container's own layer"),
        _ => None,
    };
    if let Some(name) = network.filter(|_| !options.allow_network) {
        return Err(StoreError::Unsuitable(format!(
            "the folder is on {name}, where a lock and a sync may not hold; use a local disk"
        )));
    }
    if let Some(name) = volatile.filter(|_| !options.allow_volatile) {
        return Err(StoreError::Unsuitable(format!(
            "the folder is on {name}, which does not last as long as the log's key; use a disk"
        )));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the same signature as where there is something to check"
)]
const fn check_file_system(_: &File, _: FolderOptions) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::random::SeededRandom;

    const ANYWHERE: FolderOptions = FolderOptions {
        allow_volatile: true,
        allow_network: true,
    };

    fn open(path: &Path) -> Result<Folder, StoreError> {
        Folder::open(path, ANYWHERE, Arc::new(SeededRandom::new(1)))
    }

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let temporary = TempDir::new().unwrap();
        let first = open(temporary.path()).unwrap();
        let second = open(temporary.path());
        assert!(matches!(second, Err(StoreError::Locked)), "{second:?}");
        drop(first);
        open(temporary.path()).unwrap();
    }

    #[test]
    fn an_open_journal_keeps_the_folder_locked() {
        let temporary = TempDir::new().unwrap();
        let folder = open(temporary.path()).unwrap();
        folder.create_journal(&[1; 32]).unwrap();
        let journal = folder.open_journal(&[1; 32], 0).unwrap();
        drop(folder);
        assert!(matches!(open(temporary.path()), Err(StoreError::Locked)));
        drop(journal);
        open(temporary.path()).unwrap();
    }

    #[test]
    fn blobs_read_back_and_immutable_ones_stay() {
        let temporary = TempDir::new().unwrap();
        let folder = open(temporary.path()).unwrap();
        folder.put_immutable("tile/0/x001/234", b"one").unwrap();
        folder.put_immutable("tile/0/x001/234", b"one").unwrap();
        let conflict = folder.put_immutable("tile/0/x001/234", b"two");
        assert!(matches!(conflict, Err(StoreError::Conflict(_))));
        folder.put_mutable("checkpoint", b"one").unwrap();
        folder.put_mutable("checkpoint", b"two").unwrap();

        let get = |name| folder.get(name).unwrap();
        assert_eq!(get("tile/0/x001/234").as_deref(), Some(&b"one"[..]));
        assert_eq!(get("checkpoint").as_deref(), Some(&b"two"[..]));
        assert_eq!(get("tile/0/000"), None);
        let left = fs::read_dir(temporary.path().join(TEMPORARY)).unwrap();
        assert_eq!(left.count(), 0, "temporary files are gone");
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let temporary = TempDir::new().unwrap();
        let folder = open(temporary.path()).unwrap();
        for name in [
            "",
            "..",
            "../x",
            "a/../b",
            "/etc/passwd",
            "a//b",
            "a/",
            ".hidden",
            "a\0b",
        ] {
            assert!(folder.put_mutable(name, b"").is_err(), "{name:?}");
            assert!(folder.get(name).is_err(), "{name:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn file_systems_that_keep_no_promise_are_refused_by_name() {
        let volatile = FolderOptions {
            allow_volatile: true,
            ..FolderOptions::default()
        };
        for (magic, options, refusal) in [
            (0xef53, FolderOptions::default(), None),
            (0x6969, FolderOptions::default(), Some("NFS")),
            (0x6969, volatile, Some("NFS")),
            (0x6573_5546, FolderOptions::default(), Some("FUSE")),
            (0x0102_1994, FolderOptions::default(), Some("tmpfs")),
            (0x794c_7630, FolderOptions::default(), Some("overlay")),
            (0x794c_7630, volatile, None),
            (0x6969, ANYWHERE, None),
        ] {
            let found = check_magic(magic, options)
                .err()
                .map(|error| error.to_string());
            match refusal {
                None => assert_eq!(found, None, "{magic:x}"),
                Some(name) => assert!(found.unwrap().contains(name), "{magic:x}"),
            }
        }
    }
}
