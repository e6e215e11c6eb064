//! A store whose operations are counted and timed.

use std::sync::Arc;
use std::time::Instant;

use super::{Commit, Journal, SharedStore, Store, StoreError, Version, Versioned};
use crate::metrics::{StoreMetrics, StoreOperation};

/// Another store, watched.
#[derive(Debug)]
pub struct MeteredStore {
    store: Arc<dyn Store>,
    metrics: StoreMetrics,
}

impl MeteredStore {
    /// Watches `store`.
    #[must_use]
    pub const fn new(store: Arc<dyn Store>, metrics: StoreMetrics) -> Self {
        Self { store, metrics }
    }
}

fn timed<T>(
    metrics: &StoreMetrics,
    operation: StoreOperation,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let start = Instant::now();
    let result = work();
    metrics.operated(operation, result.is_ok(), start.elapsed());
    result
}

impl Store for MeteredStore {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        timed(&self.metrics, StoreOperation::Get, || self.store.get(name))
    }

    fn put_immutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        timed(&self.metrics, StoreOperation::PutIf, || {
            self.store.put_immutable(name, bytes)
        })
    }

    fn put_mutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        timed(&self.metrics, StoreOperation::Put, || {
            self.store.put_mutable(name, bytes)
        })
    }

    fn create_journal(&self, log_id: &[u8; 32]) -> Result<(), StoreError> {
        self.store.create_journal(log_id)
    }

    fn open_journal(&self, log_id: &[u8; 32], from: u64) -> Result<Box<dyn Journal>, StoreError> {
        let journal = self.store.open_journal(log_id, from)?;
        let metrics = self.metrics.clone();
        Ok(Box::new(MeteredJournal { journal, metrics }))
    }

    fn at_once(&self) -> usize {
        self.store.at_once()
    }

    fn as_shared(&self) -> Option<&dyn SharedStore> {
        self.store.as_shared().map(|_| self as &dyn SharedStore)
    }
}

impl MeteredStore {
    /// The store below, which is a shared one where this was handed out as one.
    fn shared(&self) -> Result<&dyn SharedStore, StoreError> {
        self.store
            .as_shared()
            .ok_or_else(|| StoreError::Unsuitable("the store has one writer".to_owned()))
    }
}

impl SharedStore for MeteredStore {
    fn read_version(&self, name: &str) -> Result<Option<Versioned>, StoreError> {
        timed(&self.metrics, StoreOperation::Get, || {
            self.shared()?.read_version(name)
        })
    }

    fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        version: Option<&Version>,
    ) -> Result<bool, StoreError> {
        timed(&self.metrics, StoreOperation::PutIf, || {
            self.shared()?.replace(name, bytes, version)
        })
    }

    fn segments(&self, from: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        timed(&self.metrics, StoreOperation::Get, || {
            self.shared()?.segments(from)
        })
    }
}

#[derive(Debug)]
struct MeteredJournal {
    journal: Box<dyn Journal>,
    metrics: StoreMetrics,
}

impl Journal for MeteredJournal {
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.journal.next()
    }

    fn look(&mut self, number: u64) -> Result<(), StoreError> {
        let journal = &mut self.journal;
        timed(&self.metrics, StoreOperation::Get, || journal.look(number))
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        self.journal.settle()
    }

    fn commit(&mut self, number: u64, segment: &[u8]) -> Result<Commit, StoreError> {
        let journal = &mut self.journal;
        timed(&self.metrics, StoreOperation::Commit, || {
            journal.commit(number, segment)
        })
    }
}
