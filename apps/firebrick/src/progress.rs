//! Progress on stderr: a bar on a terminal, else a line every few seconds.

use std::{
    fs,
    io::IsTerminal,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use firebrick_train::fit::{End, Event};
use indicatif::{ProgressBar, ProgressStyle};

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// A bar on a terminal, else plain lines.
    Auto,
    Bar,
    Plain,
    None,
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// `--quiet`: from now on [`note`] says nothing.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// A line that is neither a result nor an error.
pub fn note(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        stderr!("{text}");
    }
}

/// Shows a training's events.
pub struct Progress {
    bar: Option<ProgressBar>,
    plain: bool,
    last: Option<Instant>,
    /// Where this sitting began: when, and after which step.
    begun: Option<(Instant, usize)>,
    /// Moving average.
    tokens_per_second: f64,
    /// Which are no tokens everywhere.
    unit: &'static str,
}

const EVERY: Duration = Duration::from_secs(5);

impl Progress {
    pub fn new(style: Style) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = style == Style::Bar || style == Style::Auto && terminal;
        let plain = style == Style::Plain || style == Style::Auto && !terminal;
        let bar = bar.then(new_bar);
        Self { bar, plain, last: None, begun: None, tokens_per_second: 0.0, unit: "tokens" }
    }

    pub fn counting(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Step(step) => {
                let rate = &mut self.tokens_per_second;
                *rate += 0.1 * (step.tokens_per_second - *rate);
                if step.step < 5 {
                    *rate = step.tokens_per_second;
                }
                let digits = usize::from(*rate < 10.0);
                let mut text = format!(
                    "loss {:.4}  lr {:.1e}  {rate:.digits$} {}/s",
                    step.loss, step.learning_rate, self.unit
                );
                if let Some(bytes) = resident() {
                    text.push_str(&format!("  {} MB", bytes >> 20));
                }
                let (begun, first) = *self.begun.get_or_insert((Instant::now(), step.step));
                if let Some(bar) = &self.bar {
                    bar.set_length(step.of as u64);
                    bar.set_position(step.step as u64);
                    bar.set_message(text);
                } else if self.plain && self.last.is_none_or(|last| last.elapsed() >= EVERY) {
                    self.last = Some(Instant::now());
                    let left = left(begun.elapsed(), step.step - first, step.of - step.step);
                    stderr!("step {}/{}{left}  {text}", step.step, step.of);
                }
            }
            Event::Evaluated { step, metrics, best } => {
                let scores = metrics.iter().map(|(name, value)| format!("{name} {value:.4}"));
                let mark = if *best { "  best so far" } else { "" };
                let scores = scores.collect::<Vec<_>>().join("  ");
                self.line(&format!("step {step}  validation: {scores}{mark}"));
            }
            Event::Resumed { step } => self.line(&format!("continues after step {step}")),
            Event::Saved { .. } => {}
            Event::Stopped { step, end } => match end {
                End::Interrupted => {
                    stderr!("interrupted after step {step}; the same command continues");
                }
                End::OutOfTime => self.line("stopped by --max-seconds; the same command continues"),
                _ => {}
            },
        }
    }

    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.plain => stderr!("{text}"),
            None => {}
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How long `left` steps will take if they are as the `done` ones, which took `elapsed`; nothing before there is one.
fn left(elapsed: Duration, done: usize, left: usize) -> String {
    if done == 0 {
        return String::new();
    }
    let seconds = (elapsed.as_secs_f64() * left as f64 / done as f64).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("  {minutes}:{seconds:02} left"),
        (hours, minutes, seconds) => format!("  {hours}:{minutes:02}:{seconds:02} left"),
    }
}

/// Bytes of memory that this process holds, where the system says so in pages of 4 KiB.
fn resident() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    Some(4096 * pages.split(' ').nth(1)?.parse::<u64>().ok()?)
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}<{eta} {msg}");
    let bar = ProgressBar::new(0);
    bar.set_style(style.expect("the template is a constant"));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was() {
        assert_eq!(left(Duration::from_secs(10), 0, 5), "");
        assert_eq!(left(Duration::from_secs(10), 5, 35), "  1:10 left");
        assert_eq!(left(Duration::from_secs(10), 1, 371), "  1:01:50 left");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_that_of_this_process() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(resident().unwrap() >= held.len() as u64);
    }
}
