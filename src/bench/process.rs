//! What the kernel knows of a process: the CPU time it took and the most memory it held (proc(5)).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A running process, by its id.
#[derive(Clone, Copy, Debug)]
pub struct Process(u32);

/// CPU time of all threads of a process, those that ended included. The kernel counts it in ticks of 10 ms.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// In the program.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
}

impl CpuTime {
    /// What was used since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

impl Process {
    /// The process with this id; whether there is one shows at the first question.
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The CPU time so far.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn cpu_time(self) -> io::Result<CpuTime> {
        let stat = std::fs::read_to_string(self.file("stat"))?;
        parse_cpu_time(&stat, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| malformed("stat"))
    }

    /// The most physical memory it held since its start or the last [`Self::forget_peak_memory`], in bytes.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn peak_memory(self) -> io::Result<u64> {
        let status = std::fs::read_to_string(self.file("status"))?;
        parse_peak_memory(&status).ok_or_else(|| malformed("status"))
    }

    /// Begins the count of peak memory anew.
    ///
    /// # Errors
    /// When the system does not permit it; the peak is then that of the whole life.
    pub fn forget_peak_memory(self) -> io::Result<()> {
        std::fs::write(self.file("clear_refs"), "5")
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }
}

fn malformed(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{name} of the process has another form"),
    )
}

fn parse_cpu_time(stat: &str, ticks_per_second: u64) -> Option<CpuTime> {
    // The program's name is the second field, in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut time = || -> Option<Duration> {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_nanos(
            ticks * (1_000_000_000 / ticks_per_second.max(1)),
        ))
    };
    Some(CpuTime {
        user: time()?,
        system: time()?,
    })
}

fn parse_peak_memory(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_parentheses() {
        let stat = "7 (may) 1 (fly) S 1 7 7 0 -1 4194560 900 0 0 0 123 45 0 0 20 0 9 0 1 2 3";
        let time = parse_cpu_time(stat, 100).unwrap();
        assert_eq!(time.user, Duration::from_millis(1230));
        assert_eq!(time.system, Duration::from_millis(450));
        assert!(parse_cpu_time("7 (mayfly) S 1", 100).is_none());
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        let status = "Name:\tmayfly\nVmPeak:\t  9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_peak_memory(status), Some(2 << 20));
        assert_eq!(parse_peak_memory("Name:\tmayfly\n"), None);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let this = Process::new(std::process::id());
        assert!(this.peak_memory().unwrap() > 0);
        this.cpu_time().unwrap();
    }
}
