//! Progress on stderr: a bar on a terminal, else a line every few seconds.

use std::{
    io::IsTerminal,
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

/// Shows a training's events.
pub struct Progress {
    bar: Option<ProgressBar>,
    plain: bool,
    last: Option<Instant>,
    /// Moving average.
    tokens_per_second: f64,
}

const EVERY: Duration = Duration::from_secs(5);

impl Progress {
    pub fn new(style: Style) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = style == Style::Bar || style == Style::Auto && terminal;
        let plain = style == Style::Plain || style == Style::Auto && !terminal;
        Self { bar: bar.then(new_bar), plain, last: None, tokens_per_second: 0.0 }
    }

    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Step(step) => {
                let rate = &mut self.tokens_per_second;
                *rate += 0.1 * (step.tokens_per_second - *rate);
                if step.step < 5 {
                    *rate = step.tokens_per_second;
                }
                let text = format!(
                    "loss {:.4}  lr {:.1e}  {:.0} tokens/s",
                    step.loss, step.learning_rate, rate
                );
                if let Some(bar) = &self.bar {
                    bar.set_length(step.of as u64);
                    bar.set_position(step.step as u64);
                    bar.set_message(text);
                } else if self.plain && self.last.is_none_or(|last| last.elapsed() >= EVERY) {
                    self.last = Some(Instant::now());
                    eprintln!("step {}/{}  {text}", step.step, step.of);
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
                    eprintln!("interrupted after step {step}; the same command continues");
                }
                End::OutOfTime => self.line("stopped by --max-seconds; the same command continues"),
                _ => {}
            },
        }
    }

    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.plain => eprintln!("{text}"),
            None => {}
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}<{eta} {msg}");
    let bar = ProgressBar::new(0);
    bar.set_style(style.expect("the template is a constant"));
    bar
}
