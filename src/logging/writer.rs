//! Log lines on their way to standard error: gathered here, and written by a thread of their own.
//!
//! Whoever logs only appends to a buffer. So a standard error that stalls (a full pipe, a stopped terminal) never holds up a
//! request; and under load one system call writes many lines. Lines that find the buffer full are dropped and counted.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How much may wait to be written, in octets: some thousand lines.
const CAPACITY: usize = 1 << 20;
/// How long lines are gathered before the next write.
const PAUSE: Duration = Duration::from_millis(5);

/// Where log lines go. Clones share one buffer.
#[derive(Clone, Debug)]
pub(super) struct LineWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The thread waits for lines, or for the end of its pause.
    to_thread: Condvar,
    /// A flush waits for the thread.
    to_flush: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines that found no room, or could not be written.
    dropped: u64,
    is_thread_waiting: bool,
    is_writing: bool,
    is_flushing: bool,
}

impl LineWriter {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log-lines".to_owned())
            .spawn(move || for_thread.write_for_ever(out))?;
        Ok(Self(shared))
    }

    /// How many lines were lost so far.
    pub(super) fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// Waits until everything is written, at most for `timeout`.
    pub(super) fn flush_within(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        let mut state = self.0.lock();
        state.is_flushing = true;
        self.0.to_thread.notify_one();
        while !state.lines.is_empty() || state.is_writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.0.to_flush.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_flushing = false;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() + line.len() > CAPACITY {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        // Waking is a system call: only where somebody sleeps.
        if std::mem::take(&mut state.is_thread_waiting) {
            drop(state);
            self.to_thread.notify_one();
        }
    }

    fn write_for_ever(&self, mut out: impl Write) {
        let mut taken = Vec::new();
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() {
                state.is_thread_waiting = true;
                let woken = self.to_thread.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
            state.is_thread_waiting = false;
            std::mem::swap(&mut state.lines, &mut taken);
            state.is_writing = true;
            drop(state);

            let written = out.write_all(&taken).and_then(|()| out.flush());

            let mut state = self.lock();
            state.is_writing = false;
            if written.is_err() {
                // There is nowhere to say so; the count tells.
                let lost = taken.iter().filter(|&&byte| byte == b'\n').count();
                state.dropped += lost as u64;
            }
            taken.clear();
            self.to_flush.notify_all();
            if !state.is_flushing {
                let rested = self.to_thread.wait_timeout(state, PAUSE);
                drop(rested.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

/// One line: what is written to it at once belongs together.
#[derive(Debug)]
pub(super) struct Line<'a>(&'a Shared);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const HANG: Duration = Duration::from_secs(30);

    /// An output that takes nothing before it is let go, and tells what it took.
    struct Stalled {
        let_go: mpsc::Receiver<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.let_go.recv_timeout(HANG).unwrap();
            self.taken.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn append(writer: &LineWriter, line: &str) {
        writer.make_writer().write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn an_output_that_stalls_holds_nobody_up_and_what_does_not_fit_is_counted() {
        let (go, let_go) = mpsc::channel();
        let (taken, written) = mpsc::channel();
        let writer = LineWriter::start(Stalled { let_go, taken }).unwrap();
        let line = format!("{}\n", "x".repeat(1023));

        // The first lines may be on their way out; what waits behind them is at most the capacity.
        for _ in 0..3 * CAPACITY / line.len() {
            append(&writer, &line);
        }
        let dropped = writer.dropped();
        assert!(dropped >= (CAPACITY / line.len()) as u64, "{dropped}");

        go.send(()).unwrap();
        go.send(()).unwrap();
        writer.flush_within(HANG);
        let lengths = written.try_iter().map(|lines| lines.len());
        let kept = lengths.sum::<usize>() / line.len();
        assert_eq!(kept as u64 + dropped, 3 * (CAPACITY / line.len()) as u64);
    }

    #[test]
    fn a_flush_returns_when_all_is_written_in_order() {
        let (go, let_go) = mpsc::channel();
        let (taken, written) = mpsc::channel();
        let writer = LineWriter::start(Stalled { let_go, taken }).unwrap();
        for number in 0..100 {
            append(&writer, &format!("{number}\n"));
            go.send(()).unwrap();
        }
        writer.flush_within(HANG);
        let text: Vec<u8> = written.try_iter().flatten().collect();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn a_flush_gives_up_on_an_output_that_stalls() {
        let (_go, let_go) = mpsc::channel();
        let (taken, _written) = mpsc::channel();
        let writer = LineWriter::start(Stalled { let_go, taken }).unwrap();
        append(&writer, "lost\n");
        writer.flush_within(Duration::from_millis(1));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let writer = LineWriter::start(Closed).unwrap();
        append(&writer, "one\ntwo\n");
        writer.flush_within(HANG);
        assert_eq!(writer.dropped(), 2);
    }
}
