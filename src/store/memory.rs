//! A store in memory, for a log that lives as long as its process, and for tests: it fails on demand.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Commit, Journal, Store, StoreError};

/// A store in memory. Clones share their content, so that a test can open it again after a "crash".
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    content: Mutex<Content>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Content {
    blobs: HashMap<String, Vec<u8>>,
    journal: Option<Vec<Vec<u8>>>,
    faults: Vec<(String, Fault)>,
    holds_commits: bool,
}

/// How a write fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// There is no room; nothing is written.
    NoSpace,
    /// An error, and nothing is written.
    Before,
    /// An error, although everything is written.
    After,
    /// No error, although something else is written: its first bit is flipped.
    Garbled,
    /// The writing thread panics.
    Panic,
}

impl MemoryStore {
    /// Makes the next write whose name begins with `prefix` fail; segments are named `journal/<number>`.
    pub fn fail_next(&self, prefix: &str, fault: Fault) {
        self.lock().faults.push((prefix.to_owned(), fault));
    }

    /// Makes commits wait after writing, as for a disk that does not answer a sync, until [`Self::release_commits`].
    pub fn hold_commits(&self) {
        self.lock().holds_commits = true;
    }

    /// Lets commits through again.
    pub fn release_commits(&self) {
        self.lock().holds_commits = false;
        self.0.released.notify_all();
    }

    /// The segments in the journal.
    #[must_use]
    pub fn segments(&self) -> Vec<Vec<u8>> {
        self.lock().journal.clone().unwrap_or_default()
    }

    /// The names of all blobs, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.lock().blobs.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// A store of its own with the content of this moment: a backup.
    #[must_use]
    pub fn copy(&self) -> Self {
        let content = self.lock();
        Self(Arc::new(Shared {
            content: Mutex::new(Content {
                blobs: content.blobs.clone(),
                journal: content.journal.clone(),
                ..Content::default()
            }),
            released: Condvar::new(),
        }))
    }

    /// Flips the first bit of a blob, or of a segment.
    pub fn garble(&self, name: &str) {
        self.lock().garble(name);
    }

    /// Takes away every blob whose name begins with `prefix`.
    pub fn remove(&self, prefix: &str) {
        self.lock()
            .blobs
            .retain(|name, _| !name.starts_with(prefix));
    }

    /// Replaces the last segment or, without one, takes it away.
    pub fn damage_last_segment(&self, with: Option<Vec<u8>>) {
        let mut content = self.lock();
        if let Some(journal) = &mut content.journal {
            journal.pop();
            journal.extend(with);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0
            .content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `apply` unless a fault is due for `name`.
    #[expect(
        clippy::panic,
        reason = "a test asked for the death of the writing thread"
    )]
    fn write(
        &self,
        name: &str,
        apply: impl FnOnce(&mut Content) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut content = self.lock();
        let due = content
            .faults
            .iter()
            .position(|(prefix, _)| name.starts_with(prefix))
            .map(|position| content.faults.remove(position).1);
        let failed = || StoreError::io(format!("write {name}"))(io::Error::other("injected"));
        match due {
            None => apply(&mut content),
            Some(Fault::NoSpace) => Err(StoreError::NoSpace),
            Some(Fault::Before) => Err(failed()),
            Some(Fault::After) => {
                apply(&mut content)?;
                Err(failed())
            }
            Some(Fault::Garbled) => {
                apply(&mut content)?;
                content.garble(name);
                Ok(())
            }
            Some(Fault::Panic) => panic!("injected"),
        }
    }
}

impl Content {
    fn garble(&mut self, name: &str) {
        let segment = name
            .strip_prefix("journal/")
            .and_then(|number| number.parse::<usize>().ok());
        let bytes = match (segment, &mut self.journal) {
            (Some(number), Some(journal)) => journal.get_mut(number),
            _ => self.blobs.get_mut(name),
        };
        if let Some(first) = bytes.and_then(|bytes| bytes.first_mut()) {
            *first ^= 0x80;
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().blobs.get(name).cloned())
    }

    fn put_immutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(name, |content| match content.blobs.get(name) {
            Some(existing) if existing != bytes => Err(StoreError::Conflict(name.to_owned())),
            _ => {
                content.blobs.insert(name.to_owned(), bytes.to_vec());
                Ok(())
            }
        })
    }

    fn put_mutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(name, |content| {
            content.blobs.insert(name.to_owned(), bytes.to_vec());
            Ok(())
        })
    }

    fn create_journal(&self, _log_id: &[u8; 32]) -> Result<(), StoreError> {
        self.write("journal", |content| match content.journal {
            Some(_) => Err(StoreError::Conflict("journal".to_owned())),
            None => {
                content.journal = Some(Vec::new());
                Ok(())
            }
        })
    }

    fn open_journal(&self, _log_id: &[u8; 32], from: u64) -> Result<Box<dyn Journal>, StoreError> {
        let holds = |journal: &Vec<Vec<u8>>| from <= journal.len() as u64;
        if !self.lock().journal.as_ref().is_some_and(holds) {
            return Err(StoreError::Damaged(format!("there is no segment {from}")));
        }
        Ok(Box::new(MemoryJournal {
            store: self.clone(),
            next_number: from,
        }))
    }
}

#[derive(Debug)]
struct MemoryJournal {
    store: MemoryStore,
    next_number: u64,
}

impl Journal for MemoryJournal {
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let number = self.next_number;
        let content = self.store.lock();
        let segment = content
            .journal
            .as_ref()
            .zip(usize::try_from(number).ok())
            .and_then(|(journal, position)| journal.get(position));
        self.next_number += u64::from(segment.is_some());
        Ok(segment.map(|segment| (number, segment.clone())))
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        self.store.write("settle", |_| Ok(()))
    }

    fn commit(&mut self, number: u64, segment: &[u8]) -> Result<Commit, StoreError> {
        self.store.write(&format!("journal/{number}"), |content| {
            let journal = content.journal.get_or_insert_default();
            if journal.len() as u64 != number {
                return Err(StoreError::Conflict(format!("journal/{number}")));
            }
            journal.push(segment.to_vec());
            Ok(())
        })?;
        self.next_number = number + 1;
        let held = self
            .store
            .0
            .released
            .wait_while(self.store.lock(), |content| content.holds_commits);
        drop(held);
        Ok(Commit::Written)
    }
}
