//! How a figure is taken and printed: the rules of `shared/peers/common.py`, so that lines can be compared.

use std::{
    env, fs,
    time::{Duration, Instant},
};

#[cfg(unix)]
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// A call shorter than this is repeated inside one measurement, and the mean is kept.
pub const SHORT: f64 = 0.2;

/// Threads to compute with unless `--threads` says otherwise: `$BENCH_THREADS`.
pub fn threads() -> usize {
    number("BENCH_THREADS", 2)
}

/// Measurements of a figure: `$BENCH_REPEATS`.
pub fn repeats() -> usize {
    number("BENCH_REPEATS", 5)
}

fn number(name: &str, otherwise: usize) -> usize {
    let value = env::var(name).ok().and_then(|text| text.parse().ok());
    value.unwrap_or(otherwise).max(1)
}

/// Seconds of one call, measured some times.
pub struct Timing {
    pub seconds: Vec<f64>,
    /// Cores that other processes used meanwhile.
    foreign_cpu: Option<f64>,
}

impl Timing {
    pub fn median(&self) -> f64 {
        median(&self.seconds)
    }
}

/// Times `work` after `warmup` calls, alone and preferred as the environment says.
pub fn time(warmup: usize, short: f64, mut work: impl FnMut()) -> Timing {
    let _alone = Alone::new();
    let mut once = short;
    for _ in 0..warmup {
        let begun = Instant::now();
        work();
        once = begun.elapsed().as_secs_f64();
    }
    let inner = (short / once.max(1e-9)).max(1.0) as usize;
    let (before, begun) = (cpu(), Instant::now());
    let seconds = (0..repeats())
        .map(|_| {
            let begun = Instant::now();
            (0..inner).for_each(|_| work());
            begun.elapsed().as_secs_f64() / inner as f64
        })
        .collect();
    let wall = begun.elapsed().as_secs_f64();
    let foreign = |[all, own]: [f64; 2], [all0, own0]: [f64; 2]| {
        let cores = ((all - all0) - (own - own0)) / wall.max(1e-9);
        (cores.max(0.0) * 100.0).round() / 100.0
    };
    Timing { seconds, foreign_cpu: cpu().zip(before).map(|(now, before)| foreign(now, before)) }
}

/// While it lives, nobody else measures who takes the lock `$BENCH_LOCK`, and the scheduler prefers this session by
/// `$BENCH_NICE` (-20 is the most, and root's to set).
struct Alone(#[expect(dead_code, reason = "unlocks when it is dropped")] Option<fs::File>);

impl Alone {
    fn new() -> Self {
        let file = env::var_os("BENCH_LOCK").and_then(|path| fs::File::create(path).ok());
        let lock = file.filter(|file| file.lock().is_ok());
        prefer(env::var("BENCH_NICE").ok().as_deref());
        Self(lock)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        prefer(env::var_os("BENCH_NICE").map(|_| "0"));
    }
}

/// The weight of this session's scheduling group, on Linux; where it cannot be set, `foreign_cpu` tells.
fn prefer(nice: Option<&str>) {
    if let Some(nice) = nice {
        let _ = fs::write("/proc/self/autogroup", nice);
    }
}

/// Seconds that this process has run on all processors together, by a clock of nanoseconds; 0 where there is none.
pub fn cpu_seconds() -> f64 {
    #[cfg(unix)]
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok().map(Duration::from);
    #[cfg(not(unix))]
    let time: Option<Duration> = None;
    time.unwrap_or_default().as_secs_f64()
}

/// Seconds that all processors have been busy, and those of them for this process and its children; Linux only.
fn cpu() -> Option<[f64; 2]> {
    const HZ: f64 = 100.0; // USER_HZ, the same on every Linux
    let numbers = |text: &str| -> Vec<f64> {
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let all = numbers(stat.lines().next()?); // user nice system idle iowait irq softirq steal ..
    let busy = all.get(..8)?.iter().sum::<f64>() - all[3] - all[4];
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: a letter, ten numbers, then user and system time, and the children's.
    let own = numbers(stat.rsplit_once(')')?.1);
    Some([busy / HZ, own.get(10..14)?.iter().sum::<f64>() / HZ])
}

/// Prints one result.
pub struct Report<'a> {
    pub workload: &'a str,
    /// MB, where it is not this process's.
    pub peak: Option<f64>,
    /// Further keys of the line.
    pub extra: Value,
}

impl<'a> Report<'a> {
    pub fn new(workload: &'a str) -> Self {
        Self { workload, peak: None, extra: json!({}) }
    }

    pub fn with(self, extra: Value) -> Self {
        Self { extra, ..self }
    }

    pub fn latency(self, timing: &Timing) {
        self.line("latency", "ms", timing, |seconds| seconds * 1e3);
    }

    /// `amount` of `unit` in each call.
    pub fn rate(self, timing: &Timing, amount: f64, unit: &str) {
        self.line("throughput", unit, timing, |seconds| amount / seconds);
    }

    pub fn line(self, metric: &str, unit: &str, timing: &Timing, value: impl Fn(f64) -> f64) {
        let values: Vec<f64> = timing.seconds.iter().map(|seconds| value(*seconds)).collect();
        let mut line = json!({
            "peer": "firebrick", "workload": self.workload, "metric": metric, "unit": unit,
            "median": median(&values),
            "min": values.iter().copied().fold(f64::INFINITY, f64::min),
            "max": values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            "repeats": values.len(), "threads": rayon::current_num_threads(),
            "peak_rss_mb": self.peak.or_else(|| peak_mb("self")),
            "versions": {"firebrick": env!("CARGO_PKG_VERSION"), "burn": "0.22.1"},
            "foreign_cpu": timing.foreign_cpu,
        });
        if let (Some(line), Value::Object(extra)) = (line.as_object_mut(), self.extra) {
            line.extend(extra);
        }
        say!("{line}");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// Highest resident memory of a process so far, from the kernel.
pub fn peak_mb(process: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    /// Shorter than a tick of the kernel's.
    #[cfg(unix)]
    #[test]
    fn a_millisecond_of_work_is_seen() {
        let (begun, before) = (Instant::now(), cpu_seconds());
        while begun.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        let worked = cpu_seconds() - before;
        // Other tests of this process compute meanwhile, and others' processes take their share.
        assert!(worked > 1e-4, "{worked}");
    }

    #[test]
    fn short_work_is_repeated_inside() {
        let mut calls = 0;
        let timing = time(1, 0.02, || {
            calls += 1;
            std::thread::sleep(Duration::from_millis(1));
        });
        assert_eq!(timing.seconds.len(), repeats());
        assert!(calls > repeats() + 1, "{calls}");
        assert!(timing.median() >= 1e-3);
    }
}
