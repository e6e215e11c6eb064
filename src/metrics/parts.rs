//! What the parts below the API count: the keys, the store, the logs. Each handle holds its series, so that counting takes
//! no look-up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{
    Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::{BATCH_BUCKETS, LATENCY_BUCKETS, Registrar};

/// The families.
#[derive(Debug)]
pub(super) struct PartMetrics {
    signing_operations: IntCounterVec,
    signing_duration: HistogramVec,
    store_operations: IntCounterVec,
    store_duration: HistogramVec,
    store_puts_a_month: IntGaugeVec,
    ct_submissions: IntCounterVec,
    ct_submission_duration: HistogramVec,
    ct_log_up: IntGaugeVec,
    ct_last_sct: IntGaugeVec,
    ct_late_timestamps: IntCounterVec,
    ct_inclusion_overdue: IntGaugeVec,
    appends: IntCounterVec,
    append_wait: HistogramVec,
    pending_entries: IntGaugeVec,
    sequencing_duration: HistogramVec,
    batch_entries: HistogramVec,
    sequencing_failures: IntCounterVec,
    journal_conflicts: IntCounterVec,
    journal_unanswered: IntCounterVec,
    integrity_errors: IntCounterVec,
    tiles_written: IntCounterVec,
    bytes_written: IntCounterVec,
    checkpoint_timestamp: IntGaugeVec,
}

impl PartMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Result<Self, Error> {
        let log = &["log"];
        Ok(Self {
            signing_operations: registrar.counter(
                "mayfly_signing_operations_total",
                "Signatures that were asked of a key, by outcome",
                &["key", "backend", "result"],
            )?,
            signing_duration: registrar.histogram(
                "mayfly_signing_duration_seconds",
                "Time that a signature took",
                &["key", "backend"],
                LATENCY_BUCKETS,
            )?,
            store_operations: registrar.counter(
                "mayfly_store_operations_total",
                "Operations on a log's store, by outcome",
                &["backend", "op", "result"],
            )?,
            store_duration: registrar.histogram(
                "mayfly_store_operation_duration_seconds",
                "Time that an operation on a log's store took",
                &["backend", "op"],
                LATENCY_BUCKETS,
            )?,
            store_puts_a_month: registrar.gauge(
                "mayfly_store_estimated_puts_per_month",
                "Writes of a log's store in 30 days, if they go on as in the last minutes",
                &["backend"],
            )?,
            ct_submissions: registrar.counter(
                "mayfly_ct_submissions_total",
                "Precertificates that were submitted to a log, by outcome",
                &["log", "result"],
            )?,
            ct_submission_duration: registrar.histogram(
                "mayfly_ct_submission_duration_seconds",
                "Time from a submission to the log's timestamp",
                log,
                LATENCY_BUCKETS,
            )?,
            ct_log_up: registrar.gauge(
                "mayfly_ct_log_up",
                "Whether the log's last answer was a timestamp, or, from a log of others, its roots with ours among them",
                log,
            )?,
            ct_last_sct: registrar.gauge(
                "mayfly_ct_last_sct_timestamp_seconds",
                "The time in the last timestamp of the log, seconds since 1970",
                log,
            )?,
            ct_late_timestamps: registrar.counter(
                "mayfly_ct_late_timestamps_total",
                "Timestamps of a log of others that nobody waited for any more: it has an entry without a certificate",
                log,
            )?,
            ct_inclusion_overdue: registrar.gauge(
                "mayfly_ct_inclusion_overdue",
                "Sampled entries that a log of others promised to hold by now, and does not",
                log,
            )?,
            appends: registrar.counter(
                "mayfly_log_appends_total",
                "Entries that were to be appended to the log, by outcome",
                &["log", "result"],
            )?,
            append_wait: registrar.histogram(
                "mayfly_log_append_wait_seconds",
                "Time that an entry waited for its durable place",
                log,
                LATENCY_BUCKETS,
            )?,
            pending_entries: registrar.gauge(
                "mayfly_log_pending_entries",
                "Entries that wait for their place",
                log,
            )?,
            sequencing_duration: registrar.histogram(
                "mayfly_log_sequencing_duration_seconds",
                "Time that a batch of entries took, from its end of gathering to durable",
                log,
                LATENCY_BUCKETS,
            )?,
            batch_entries: registrar.histogram(
                "mayfly_log_batch_entries",
                "Entries in a batch",
                log,
                BATCH_BUCKETS,
            )?,
            sequencing_failures: registrar.counter(
                "mayfly_log_sequencing_failures_total",
                "Batches that came to nothing, by what failed",
                &["log", "reason"],
            )?,
            journal_conflicts: registrar.counter(
                "mayfly_log_journal_conflicts_total",
                "Segments whose number another process had taken",
                log,
            )?,
            journal_unanswered: registrar.counter(
                "mayfly_log_journal_unanswered_total",
                "Writes of segments after which it was not known whether they had happened",
                log,
            )?,
            integrity_errors: registrar.counter(
                "mayfly_log_integrity_errors_total",
                "Times that the log was found damaged, or two computations differed; any is an incident",
                log,
            )?,
            tiles_written: registrar.counter(
                "mayfly_log_tiles_written_total",
                "Files that the log wrote, by kind",
                &["log", "kind"],
            )?,
            bytes_written: registrar.counter(
                "mayfly_log_bytes_written_total",
                "Octets that the log wrote, by kind of file",
                &["log", "kind"],
            )?,
            checkpoint_timestamp: registrar.gauge(
                "mayfly_log_checkpoint_timestamp_seconds",
                "The time in the published checkpoint, seconds since 1970",
                log,
            )?,
        })
    }

    pub(super) fn signing(&self, key: &str, backend: &str) -> SigningMetrics {
        let operations = |result| {
            self.signing_operations
                .with_label_values(&[key, backend, result])
        };
        SigningMetrics {
            ok: operations("ok"),
            error: operations("error"),
            duration: self.signing_duration.with_label_values(&[key, backend]),
        }
    }

    pub(super) fn store(&self, backend: &str) -> StoreMetrics {
        let operations = StoreOperation::ALL.map(|operation| {
            let op = operation.label();
            let operations = |result| {
                self.store_operations
                    .with_label_values(&[backend, op, result])
            };
            Operation {
                ok: operations("ok"),
                error: operations("error"),
                duration: self.store_duration.with_label_values(&[backend, op]),
            }
        });
        StoreMetrics {
            operations,
            puts: Arc::default(),
            puts_a_month: self.store_puts_a_month.with_label_values(&[backend]),
        }
    }

    pub(super) fn ct_log(&self, log: &str) -> CtLogMetrics {
        CtLogMetrics {
            by_result: SubmissionResult::ALL.map(|result| {
                self.ct_submissions
                    .with_label_values(&[log, result.label()])
            }),
            duration: self.ct_submission_duration.with_label_values(&[log]),
            up: self.ct_log_up.with_label_values(&[log]),
            last_sct: self.ct_last_sct.with_label_values(&[log]),
            late: self.ct_late_timestamps.with_label_values(&[log]),
            overdue: self.ct_inclusion_overdue.with_label_values(&[log]),
        }
    }

    pub(super) fn log(&self, log: &str) -> LogMetrics {
        let appends = |result| self.appends.with_label_values(&[log, result]);
        let failures = |reason| self.sequencing_failures.with_label_values(&[log, reason]);
        let written = |kind| Written {
            files: self.tiles_written.with_label_values(&[log, kind]),
            bytes: self.bytes_written.with_label_values(&[log, kind]),
        };
        LogMetrics {
            appended: appends("ok"),
            overloaded: appends("overloaded"),
            append_failed: appends("error"),
            append_wait: self.append_wait.with_label_values(&[log]),
            pending_entries: self.pending_entries.with_label_values(&[log]),
            sequencing_duration: self.sequencing_duration.with_label_values(&[log]),
            batch_entries: self.batch_entries.with_label_values(&[log]),
            store_failures: failures("store"),
            sign_failures: failures("sign"),
            clock_failures: failures("clock"),
            conflicts: self.journal_conflicts.with_label_values(&[log]),
            unanswered: self.journal_unanswered.with_label_values(&[log]),
            integrity_errors: self.integrity_errors.with_label_values(&[log]),
            hash_tiles: written("tile"),
            data_tiles: written("data"),
            checkpoints: written("checkpoint"),
            checkpoint_timestamp: self.checkpoint_timestamp.with_label_values(&[log]),
        }
    }
}

/// What is counted of a key.
#[derive(Clone, Debug)]
pub struct SigningMetrics {
    ok: IntCounter,
    error: IntCounter,
    duration: Histogram,
}

impl SigningMetrics {
    /// Counts a signature that was asked for.
    pub fn signed(&self, is_ok: bool, duration: Duration) {
        if is_ok { &self.ok } else { &self.error }.inc();
        self.duration.observe(duration.as_secs_f64());
    }
}

/// An operation on a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreOperation {
    /// Reading a blob.
    Get,
    /// Writing a blob that may be replaced.
    Put,
    /// Writing a blob that never changes.
    PutIf,
    /// Making a segment of the journal durable.
    Commit,
}

impl StoreOperation {
    const ALL: [Self; 4] = [Self::Get, Self::Put, Self::PutIf, Self::Commit];

    const fn label(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::PutIf => "put_if",
            Self::Commit => "fsync",
        }
    }
}

#[derive(Clone, Debug)]
struct Operation {
    ok: IntCounter,
    error: IntCounter,
    duration: Histogram,
}

/// What is counted of a store.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    operations: [Operation; 4],
    puts: Arc<Mutex<Puts>>,
    puts_a_month: IntGauge,
}

/// Writes, for an estimate of what they come to.
#[derive(Debug, Default)]
struct Puts {
    /// When counting began, and how many there were since; the one before the last ten minutes, and these.
    before: Option<(Instant, u64)>,
    current: Option<(Instant, u64)>,
}

impl Puts {
    const WINDOW: Duration = Duration::from_secs(600);
    /// Less than this tells nothing.
    const SHORTEST: Duration = Duration::from_secs(60);
    const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// Counts one, and returns how many a month there would be if it went on like this.
    fn count(&mut self, now: Instant) -> i64 {
        let (began, count) = self.current.get_or_insert((now, 0));
        *count += 1;
        if now.duration_since(*began) >= Self::WINDOW {
            self.before = self.current.replace((now, 0));
        }
        let windows = [self.before, self.current];
        let count: u64 = windows.iter().flatten().map(|(_, count)| count).sum();
        let began = windows.iter().flatten().map(|(began, _)| *began).min();
        let passed = began.map_or(Duration::ZERO, |began| now.duration_since(began));
        let months = Self::MONTH.as_secs() / passed.max(Self::SHORTEST).as_secs();
        i64::try_from(count.saturating_mul(months)).unwrap_or(i64::MAX)
    }
}

impl StoreMetrics {
    /// Counts an operation.
    pub fn operated(&self, operation: StoreOperation, is_ok: bool, duration: Duration) {
        if operation != StoreOperation::Get {
            let mut puts = self.puts.lock().unwrap_or_else(PoisonError::into_inner);
            self.puts_a_month.set(puts.count(Instant::now()));
        }
        let [get, put, put_if, commit] = &self.operations;
        let series = match operation {
            StoreOperation::Get => get,
            StoreOperation::Put => put,
            StoreOperation::PutIf => put_if,
            StoreOperation::Commit => commit,
        };
        if is_ok { &series.ok } else { &series.error }.inc();
        series.duration.observe(duration.as_secs_f64());
    }
}

/// What a submission to a log came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubmissionResult {
    /// A timestamp.
    Ok,
    /// No answer in time.
    Timeout,
    /// The log refused it.
    Rejected,
    /// A timestamp that does not verify.
    BadSct,
    /// The log cannot take it now.
    Unavailable,
}

impl SubmissionResult {
    const ALL: [Self; 5] = [
        Self::Ok,
        Self::Timeout,
        Self::Rejected,
        Self::BadSct,
        Self::Unavailable,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Rejected => "rejected",
            Self::BadSct => "bad_sct",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What is counted of submissions to a certificate transparency log.
#[derive(Clone, Debug)]
pub struct CtLogMetrics {
    by_result: [IntCounter; 5],
    duration: Histogram,
    up: IntGauge,
    last_sct: IntGauge,
    late: IntCounter,
    overdue: IntGauge,
}

impl CtLogMetrics {
    /// Counts a timestamp that nobody waited for any more.
    pub fn late(&self) {
        self.late.inc();
    }

    /// Tells how many sampled entries a log should hold and does not.
    pub fn overdue(&self, entries: usize) {
        self.overdue.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// Tells whether a log that nothing was submitted to is well.
    pub fn looked(&self, is_well: bool) {
        self.up.set(i64::from(is_well));
    }

    /// Counts a submission; `sct_millis` is the time in its timestamp, milliseconds since 1970.
    pub fn submitted(&self, result: SubmissionResult, sct_millis: Option<u64>, duration: Duration) {
        let [ok, timeout, rejected, bad_sct, unavailable] = &self.by_result;
        let counter = match result {
            SubmissionResult::Ok => ok,
            SubmissionResult::Timeout => timeout,
            SubmissionResult::Rejected => rejected,
            SubmissionResult::BadSct => bad_sct,
            SubmissionResult::Unavailable => unavailable,
        };
        counter.inc();
        self.duration.observe(duration.as_secs_f64());
        self.up.set(i64::from(result == SubmissionResult::Ok));
        if let Some(millis) = sct_millis {
            self.last_sct
                .set(i64::try_from(millis / 1000).unwrap_or(i64::MAX));
        }
    }
}

/// Files of one kind that a log wrote.
#[derive(Clone, Debug)]
pub struct Written {
    files: IntCounter,
    bytes: IntCounter,
}

impl Written {
    /// Counts a file.
    pub fn wrote(&self, octets: usize) {
        self.files.inc();
        self.bytes.inc_by(octets as u64);
    }
}

/// What is counted of a log of ours.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    /// Entries that got a durable place.
    pub appended: IntCounter,
    /// Entries that found the queue full.
    pub overloaded: IntCounter,
    /// Entries that got no place for another reason.
    pub append_failed: IntCounter,
    /// How long an entry waited for its place, in seconds.
    pub append_wait: Histogram,
    /// Entries that wait.
    pub pending_entries: IntGauge,
    /// How long a batch took, in seconds.
    pub sequencing_duration: Histogram,
    /// How many entries a batch holds.
    pub batch_entries: Histogram,
    /// Batches that the store did not take.
    pub store_failures: IntCounter,
    /// Batches that the key did not sign.
    pub sign_failures: IntCounter,
    /// Batches that a clock behind the log's newest timestamp kept out.
    pub clock_failures: IntCounter,
    /// Segments whose number another process had taken.
    pub conflicts: IntCounter,
    /// Writes of segments that the store did not answer.
    pub unanswered: IntCounter,
    /// Damage, or two computations that differ.
    pub integrity_errors: IntCounter,
    /// Full tiles of hashes.
    pub hash_tiles: Written,
    /// Full tiles of entries.
    pub data_tiles: Written,
    /// Checkpoints.
    pub checkpoints: Written,
    /// The time in the published checkpoint, seconds since 1970.
    pub checkpoint_timestamp: IntGauge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_month_are_estimated_from_the_last_minutes() {
        let start = Instant::now();
        let mut puts = Puts::default();
        let mut at = |seconds| puts.count(start + Duration::from_secs(seconds));
        assert_eq!(at(0), 43_200, "one in a minute, as no more is known");
        let estimate = (1..3600).map(&mut at).last().unwrap();
        assert!((2_500_000..2_700_000).contains(&estimate), "{estimate}");
        let estimate = (1..60).map(|minute| at(3600 + 60 * minute)).last().unwrap();
        assert!((40_000..47_000).contains(&estimate), "{estimate}");
    }
}
