//! Parallel coordinates as SVG text: a line a trial, an axis a key, the score on the last one.

use serde::{Deserialize, Serialize};

use super::{
    plots::{svg, text},
    shorten,
};

/// Trials of a study; the last axis is the score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trials {
    pub axes: Vec<Axis>,
    pub lines: Vec<Line>,
}

/// One axis: its name, and the texts at its bottom and top.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    pub name: String,
    pub bottom: String,
    pub top: String,
}

/// One line: a place on every axis, from 0 (bottom) to 1, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// `None` where there is none.
    pub places: Vec<Option<f64>>,
    pub best: bool,
    /// Not stopped before its end.
    pub whole: bool,
}

const HEIGHT: f64 = 320.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 64.0;
/// Between two axes.
const GAP: f64 = 130.0;
const SIDE: f64 = 70.0;

/// A drawing as wide as the axes need; `alone` makes it a file with its own colours, else a page has them.
pub fn parallel_svg(title: &str, trials: &Trials, alone: bool) -> String {
    let Trials { axes, lines } = trials;
    let width = 2.0 * SIDE + GAP * axes.len().saturating_sub(1) as f64;
    let x = |axis: usize| SIDE + GAP * axis as f64;
    let y = |place: f64| HEIGHT - BOTTOM - place.clamp(0.0, 1.0) * (HEIGHT - BOTTOM - TOP);
    let mut body = String::new();
    text(&mut body, 8.0, 18.0, "t", title);
    let mut order: Vec<&Line> = lines.iter().collect();
    order.sort_by_key(|line| (line.best, line.whole)); // what is drawn last lies on top
    for line in order {
        let points: Vec<String> = line
            .places
            .iter()
            .enumerate()
            .filter_map(|(axis, place)| Some(format!("{:.1},{:.1}", x(axis), y((*place)?))))
            .collect();
        let style = match (line.best, line.whole) {
            (true, _) => "class=\"l k1\" style=\"stroke-width:3\"",
            (_, true) => "class=\"l k0\" style=\"stroke-width:1.4;opacity:.75\"",
            _ => "class=\"l k4\" style=\"stroke-width:1;opacity:.55\" stroke-dasharray=\"3 3\"",
        };
        body += &format!("<polyline {style} points=\"{}\"/>\n", points.join(" "));
    }
    for (index, axis) in axes.iter().enumerate() {
        let at = x(index);
        let (low, high) = (y(0.0), y(1.0));
        body +=
            &format!("<line class=\"x\" x1=\"{at}\" y1=\"{low}\" x2=\"{at}\" y2=\"{high}\"/>\n");
        text(&mut body, at, low + 16.0, "m c", &shorten(&axis.bottom, 14));
        text(&mut body, at, high - 6.0, "m c", &shorten(&axis.top, 14));
        text(&mut body, at, low + 36.0, "c", &shorten(&axis.name, 20));
    }
    let whole = lines.iter().filter(|line| line.whole).count();
    let spoken = format!(
        "{title}: {} axes, {} lines, {whole} of them to their end",
        axes.len(),
        lines.len()
    );
    svg(width.max(240.0), HEIGHT, alone, &spoken, &body)
}
