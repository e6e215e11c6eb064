//! What was measured: a table for people, JSON for machines, from the same figures.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::floor::{Floor, SEGMENT_BYTES, SyncTime, percentile};
use super::load::Outcome;
use super::process::CpuTime;

/// CPU time of a certificate, at most so many times the floor, where connections wait for the processor.
const MAX_CPU_RATIO: f64 = 1.6;
/// The fewest connections for which that is said.
const BUSY_CONNECTIONS: usize = 64;
/// Median latency on one connection, at most so much above a sync of the disk.
const MAX_ABOVE_SYNC: Duration = Duration::from_micros(600);
/// Peak memory.
const MAX_MEMORY_BYTES: u64 = 64 << 20;
/// Start of the process to the first answer.
const MAX_START: Duration = Duration::from_millis(500);

/// Serialises a duration as microseconds, with three places.
pub(super) fn microseconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e9).round() / 1e3)
}

/// Latencies; microseconds when serialised.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latencies {
    /// The median.
    #[serde(rename = "p50_us", serialize_with = "microseconds")]
    pub p50: Duration,
    /// 90 of 100 took no longer.
    #[serde(rename = "p90_us", serialize_with = "microseconds")]
    pub p90: Duration,
    /// 99 of 100 took no longer.
    #[serde(rename = "p99_us", serialize_with = "microseconds")]
    pub p99: Duration,
    /// 999 of 1000 took no longer.
    #[serde(rename = "p999_us", serialize_with = "microseconds")]
    pub p999: Duration,
    /// The longest.
    #[serde(rename = "max_us", serialize_with = "microseconds")]
    pub max: Duration,
}

/// What the server's process took for a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerUse {
    /// CPU time a certificate, user and system together.
    #[serde(rename = "cpu_per_certificate_us", serialize_with = "microseconds")]
    pub cpu_per_certificate: Duration,
    /// The part in the program.
    #[serde(rename = "user_us", serialize_with = "microseconds")]
    pub user: Duration,
    /// The part in the kernel.
    #[serde(rename = "system_us", serialize_with = "microseconds")]
    pub system: Duration,
    /// The floor, measured during the run.
    #[serde(rename = "floor_us", serialize_with = "microseconds")]
    pub floor: Duration,
    /// CPU time a certificate over that floor.
    pub cpu_ratio: f64,
    /// CPU time a certificate over the floor of an idle machine, measured between the runs.
    pub cpu_ratio_to_idle: f64,
    /// The most memory it held, in bytes.
    pub peak_memory_bytes: u64,
    /// Whether that is the peak of this run; else it is the peak since the process began.
    pub peak_is_of_run: bool,
}

/// One run: some number of connections, some number of requests.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Certificates that were issued.
    pub certificates: usize,
    /// Requests without one.
    pub failed: usize,
    /// What happened to the first of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
    /// Certificates that a second implementation checked.
    pub checked: usize,
    /// Certificates a second.
    pub per_second: f64,
    /// From a request's first byte to its answer's last.
    pub latency: Latencies,
    /// What the server took; absent for one on another machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerUse>,
}

impl Run {
    /// Sums up what a load came to.
    #[must_use]
    pub fn new(connections: usize, outcome: Outcome, checked: usize) -> Self {
        let at = |per_mille| percentile(&outcome.latencies, per_mille);
        let certificates = outcome.latencies.len();
        Self {
            connections,
            certificates,
            failed: outcome.failed,
            checked,
            per_second: count(certificates) / outcome.elapsed.as_secs_f64().max(1e-9),
            latency: Latencies {
                p50: at(500),
                p90: at(900),
                p99: at(990),
                p999: at(999),
                max: at(1000),
            },
            first_failure: outcome.first_failure,
            server: None,
        }
    }

    /// Adds what the server took, beside the floor of the same time; the ratio to the floor of an idle machine is worked out
    /// at the end of all runs.
    pub fn set_server_use(
        &mut self,
        cpu: CpuTime,
        floor: &Floor,
        peak_memory_bytes: u64,
        peak_is_of_run: bool,
    ) {
        let share = |time: Duration| time.div_f64(count(self.certificates.max(1)));
        let cpu_per_certificate = share(cpu.user + cpu.system);
        let floor = floor.per_certificate();
        self.server = Some(ServerUse {
            cpu_per_certificate,
            user: share(cpu.user),
            system: share(cpu.system),
            floor,
            cpu_ratio: ratio(cpu_per_certificate, floor),
            cpu_ratio_to_idle: 0.0,
            peak_memory_bytes,
            peak_is_of_run,
        });
    }
}

fn ratio(time: Duration, floor: Duration) -> f64 {
    time.as_secs_f64() / floor.as_secs_f64().max(1e-9)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52"
)]
const fn count(number: usize) -> f64 {
    number as f64
}

/// The floor of a run, complete.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FloorReport {
    /// The sum.
    #[serde(rename = "per_certificate_us", serialize_with = "microseconds")]
    pub per_certificate: Duration,
    /// Its parts.
    #[serde(flatten)]
    pub primitives: Floor,
    /// A write that lasts, of a segment with one entry.
    pub fdatasync: SyncTime,
}

impl FloorReport {
    /// The medians of several measurements.
    #[must_use]
    pub fn new(primitives: &[Floor], syncs: &[SyncTime]) -> Self {
        let primitives = Floor::median(primitives);
        Self {
            per_certificate: primitives.per_certificate(),
            primitives,
            fdatasync: SyncTime::median(syncs),
        }
    }
}

impl fmt::Display for FloorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Floor {
            rs256_verification,
            p256_verification,
            p256_signature,
            hashing,
        } = self.primitives;
        writeln!(
            f,
            "  floor, CPU a certificate        {}",
            micros(self.per_certificate)
        )?;
        writeln!(
            f,
            "    RS256 verification            {}",
            micros(rs256_verification)
        )?;
        writeln!(
            f,
            "    P-256 verification, new key   {}",
            micros(p256_verification)
        )?;
        writeln!(
            f,
            "    P-256 signature, three times  {}",
            micros(p256_signature)
        )?;
        writeln!(f, "    SHA-256                       {}", micros(hashing))?;
        writeln!(
            f,
            "  write and fdatasync, {SEGMENT_BYTES} octets {}   (p99 {} µs)",
            micros(self.fdatasync.median),
            self.fdatasync.p99.as_micros()
        )
    }
}

fn micros(duration: Duration) -> String {
    format!("{:>7.1} µs", duration.as_secs_f64() * 1e6)
}

/// Something that was aimed at, and what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What.
    pub name: String,
    /// What was measured.
    pub measured: String,
    /// Whether it is within.
    pub holds: bool,
}

/// All that `mayfly bench load` found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version and commit of the program that measured.
    pub version: String,
    /// The floor, measured between the runs.
    pub floor: FloorReport,
    /// Process start to first answer; absent for a server that ran before.
    #[serde(
        rename = "start_us",
        skip_serializing_if = "Option::is_none",
        serialize_with = "some_microseconds"
    )]
    pub start: Option<Duration>,
    /// The runs, in the order in which they were asked for.
    pub runs: Vec<Run>,
    /// Goals of the project and how they were met; they assume that server and load share two cores.
    pub goals: Vec<Goal>,
}

#[expect(clippy::ref_option, reason = "serde passes a reference")]
fn some_microseconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    microseconds(&duration.unwrap_or_default(), serializer)
}

impl Report {
    /// Completes the runs with their ratio to the floor, and compares with the goals.
    #[must_use]
    pub fn new(floor: FloorReport, start: Option<Duration>, mut runs: Vec<Run>) -> Self {
        for run in &mut runs {
            if let Some(server) = &mut run.server {
                server.cpu_ratio_to_idle = ratio(server.cpu_per_certificate, floor.per_certificate);
            }
        }
        Self {
            version: format!("{} ({})", crate::VERSION, crate::REVISION),
            goals: goals(&floor, start, &runs),
            floor,
            start,
            runs,
        }
    }

    /// Requests without a certificate, in all runs together.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.runs.iter().map(|run| run.failed).sum()
    }
}

fn goals(floor: &FloorReport, start: Option<Duration>, runs: &[Run]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut goal = |name: String, measured: String, holds: bool| {
        goals.push(Goal {
            name,
            measured,
            holds,
        });
    };
    for run in runs {
        let connections = run.connections;
        if connections == 1 {
            let above = run.latency.p50.saturating_sub(floor.fdatasync.median);
            goal(
                "median at 1 connection at most fdatasync + 0.6 ms".to_owned(),
                format!("+ {:.2} ms", above.as_secs_f64() * 1e3),
                above <= MAX_ABOVE_SYNC,
            );
        }
        let Some(server) = &run.server else { continue };
        if connections >= BUSY_CONNECTIONS {
            goal(
                format!("CPU a certificate at {connections} connections at most 1.6 × the floor"),
                format!("{:.2} ×", server.cpu_ratio),
                server.cpu_ratio <= MAX_CPU_RATIO,
            );
            goal(
                format!("peak memory at {connections} connections at most 64 MiB"),
                mebibytes(server.peak_memory_bytes),
                server.peak_memory_bytes <= MAX_MEMORY_BYTES,
            );
        }
    }
    if let Some(start) = start {
        goal(
            "start to first answer in less than 0.5 s".to_owned(),
            format!("{:.3} s", start.as_secs_f64()),
            start < MAX_START,
        );
    }
    goals
}

fn mebibytes(bytes: u64) -> String {
    // Tenths, rounded up: a figure that says 64.0 is within 64.
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  Mayfly {}\n", self.version)?;
        writeln!(
            f,
            "  connections  certificates/s   p50 ms   p90 ms   p99 ms  p99.9 ms   max ms   CPU µs  (user+system)  × floor  × idle  peak memory"
        )?;
        for run in &self.runs {
            write_run(f, run)?;
        }
        writeln!(f, "\n{}", self.floor)?;
        for Goal {
            name,
            measured,
            holds,
        } in &self.goals
        {
            let mark = if *holds { '✓' } else { '✗' };
            writeln!(f, "  {mark} {name:<64} {measured}")?;
        }
        let checked: usize = self.runs.iter().map(|run| run.checked).sum();
        writeln!(
            f,
            "\n  {checked} certificates checked by a second implementation"
        )?;
        for run in &self.runs {
            if let Some(failure) = &run.first_failure {
                let (connections, failed) = (run.connections, run.failed);
                writeln!(
                    f,
                    "  {failed} requests failed at {connections} connections; the first: {failure}"
                )?;
            }
        }
        Ok(())
    }
}

fn write_run(f: &mut fmt::Formatter<'_>, run: &Run) -> fmt::Result {
    let mut line = format!("  {:>11}  {:>14.0}", run.connections, run.per_second);
    let Latencies {
        p50,
        p90,
        p99,
        p999,
        max,
    } = run.latency;
    for (time, width) in [(p50, 9), (p90, 9), (p99, 9), (p999, 10), (max, 9)] {
        write!(line, "{:>width$.2}", time.as_secs_f64() * 1e3)?;
    }
    if let Some(server) = &run.server {
        let parts = format!(
            "({}+{})",
            server.user.as_micros(),
            server.system.as_micros()
        );
        let memory = mebibytes(server.peak_memory_bytes);
        let cpu = server.cpu_per_certificate.as_micros();
        let (ratio, to_idle) = (server.cpu_ratio, server.cpu_ratio_to_idle);
        write!(
            line,
            "  {cpu:>7}  {parts:>13}  {ratio:>7.2}  {to_idle:>6.2}  {memory:>11}"
        )?;
    }
    writeln!(f, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let micros = Duration::from_micros;
        let floor = Floor {
            rs256_verification: micros(15),
            p256_verification: micros(63),
            p256_signature: micros(20),
            hashing: micros(2),
        };
        let sync = SyncTime {
            median: micros(100),
            p99: micros(200),
        };
        let run = |connections, latency, cpu| {
            let outcome = Outcome {
                latencies: vec![latency; 10],
                elapsed: micros(1000),
                ..Outcome::default()
            };
            let mut run = Run::new(connections, outcome, 1);
            let cpu = CpuTime {
                user: cpu * 10,
                system: Duration::ZERO,
            };
            let beside = Floor {
                p256_signature: micros(30),
                ..floor
            };
            run.set_server_use(cpu, &beside, 64 << 20, true);
            run
        };
        let runs = vec![
            run(1, micros(701), micros(300)),
            run(64, micros(9000), micros(272)),
        ];
        Report::new(FloorReport::new(&[floor], &[sync]), Some(micros(499)), runs)
    }

    #[test]
    fn goals_are_held_against_the_floor_of_the_same_time() {
        let goals: Vec<(String, bool)> = report()
            .goals
            .into_iter()
            .map(|goal| (goal.measured, goal.holds))
            .collect();
        assert_eq!(
            goals,
            [
                ("+ 0.60 ms".to_owned(), false),
                ("1.60 ×".to_owned(), true),
                ("64.0 MiB".to_owned(), true),
                ("0.000 s".to_owned(), true),
            ]
        );
    }

    #[test]
    fn table_and_json_say_the_same() {
        let report = report();
        let table = report.to_string();
        let line = table
            .lines()
            .find(|line| line.starts_with("           64"))
            .unwrap();
        let cells: Vec<&str> = line.split_ascii_whitespace().collect();
        assert_eq!(
            cells,
            [
                "64", "10000", "9.00", "9.00", "9.00", "9.00", "9.00", "272", "(272+0)", "1.60",
                "1.94", "64.0", "MiB"
            ]
        );
        let json = serde_json::to_value(&report).unwrap();
        let run = &json["runs"][1];
        assert_eq!(run["latency"]["p50_us"], 9000.0);
        assert_eq!(run["server"]["cpu_per_certificate_us"], 272.0);
        assert_eq!(run["server"]["floor_us"], 170.0);
        assert_eq!(json["floor"]["per_certificate_us"], 140.0);
        assert_eq!(json["floor"]["fdatasync"]["median_us"], 100.0);
    }
}
