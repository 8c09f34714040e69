//! Line charts and confusion matrices as SVG text.
//!
//! Written by hand: SVG text needs no font here, and a chart is some twenty elements. Colours follow the
//! reader's light or dark theme; curves differ in dash pattern too, for readers who do not see the hues.

use serde::{Deserialize, Deserializer, Serialize};

use super::{escape, scientific, short, shorten};

/// A named line of a chart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    pub name: String,
    /// Step and value. Values that are not finite leave a gap and are counted in the legend.
    #[serde(deserialize_with = "points")]
    pub points: Vec<(f64, f64)>,
}

/// Every colour of the charts and of the report page. `--a` and `--b` shade the cells of a confusion
/// matrix (right and wrong), `--on` is the text on the darker shades.
pub(super) const STYLE: &str = "\
.fb{--paper:#ffffff;--ink:#1b1d1f;--muted:#565b61;--rule:#d9dcdf;--axis:#8a9097;--tint:#f5f6f7;\
--c0:#0b5cad;--c1:#b04a00;--c2:#0a7349;--c3:#94307c;--c4:#5a5f66;--c5:#7d6200;--a:#0b4a8a;--b:#7d2d00;--on:#ffffff}\
@media screen and (prefers-color-scheme:dark){\
.fb{--paper:#16181b;--ink:#e8eaec;--muted:#a7adb4;--rule:#34383d;--axis:#7b828a;--tint:#1e2125;\
--c0:#6cb4ff;--c1:#ffa45c;--c2:#5bd0a0;--c3:#e795d3;--c4:#b9bfc6;--c5:#e0c350;--a:#8cc8ff;--b:#ffb27d;--on:#0d0f11}}\
svg.fb{font-family:system-ui,-apple-system,'Segoe UI','Noto Sans','PingFang SC','Microsoft YaHei','Noto Sans CJK SC',sans-serif;font-size:12px}\
svg.fb text{fill:var(--ink)}svg.fb text.m{fill:var(--muted)}svg.fb .t{font-size:14px;font-weight:600}\
svg.fb .bg{fill:var(--paper)}svg.fb .g{stroke:var(--rule)}svg.fb .x{stroke:var(--axis)}\
svg.fb .l{fill:none;stroke-width:1.9;stroke-linejoin:round;stroke-linecap:butt}svg.fb .w{fill:none;stroke-width:1;opacity:.22}\
svg.fb .e{text-anchor:end}svg.fb .c{text-anchor:middle}svg.fb .p{font-size:10px}svg.fb .n{font-size:10px}\
svg.fb .k0{stroke:var(--c0)}svg.fb .k1{stroke:var(--c1)}svg.fb .k2{stroke:var(--c2)}svg.fb .k3{stroke:var(--c3)}svg.fb .k4{stroke:var(--c4)}svg.fb .k5{stroke:var(--c5)}\
svg.fb circle.k0{fill:var(--c0)}svg.fb circle.k1{fill:var(--c1)}svg.fb circle.k2{fill:var(--c2)}svg.fb circle.k3{fill:var(--c3)}svg.fb circle.k4{fill:var(--c4)}svg.fb circle.k5{fill:var(--c5)}\
svg.fb text.k0{fill:var(--c0);stroke:none}svg.fb text.k1{fill:var(--c1);stroke:none}svg.fb text.k2{fill:var(--c2);stroke:none}svg.fb text.k3{fill:var(--c3);stroke:none}svg.fb text.k4{fill:var(--c4);stroke:none}svg.fb text.k5{fill:var(--c5);stroke:none}\
svg.fb .a{fill:var(--a)}svg.fb .b{fill:var(--b)}svg.fb text.on{fill:var(--on)}\
svg.fb .q0{fill-opacity:.06}svg.fb .q1{fill-opacity:.14}svg.fb .q2{fill-opacity:.24}svg.fb .q3{fill-opacity:.36}svg.fb .q4{fill-opacity:.86}svg.fb .q5{fill-opacity:1}";

const COLORS: usize = 6;
const DASHES: [&str; 4] = ["", "7 3", "2 2.5", "9 3 2 3"];

/// Width and least height, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    width: f64,
    height: f64,
}

impl Size {
    pub(super) const WIDE: Self = Self { width: 640.0, height: 320.0 };
    /// For a telephone held upright.
    pub(super) const NARROW: Self = Self { width: 350.0, height: 280.0 };
}

/// A chart as an SVG file, 640 pixels wide and 320 high (higher if the legend takes many lines).
pub fn line_chart_svg(title: &str, x_label: &str, y_label: &str, curves: &[Curve]) -> String {
    chart(Size::WIDE, Some(title), &description(title, curves), x_label, y_label, curves)
}

/// A confusion matrix as an SVG file: a row is a true class, a column a predicted one.
///
/// Few classes show the count and its share of the row in every cell, many show the counts, and the
/// share that is right at the end of the row. Cells outside `counts` are zero; a class without a label
/// is called by its number.
pub fn confusion_svg(labels: &[String], counts: &[Vec<u64>]) -> String {
    matrix(labels, counts, true)
}

/// What a chart shows, for who cannot see it.
pub(super) fn description(title: &str, curves: &[Curve]) -> String {
    let ends = curves.iter().map(|curve| match curve.points.last() {
        Some((step, value)) => {
            format!("{} ends at {} in step {}", curve.name, short(*value), short(*step))
        }
        None => format!("{} has no points", curve.name),
    });
    format!("{title}: {}", ends.collect::<Vec<_>>().join("; "))
}

/// A line chart; with a `title` it is a file of its own, without one a part of a page.
pub(super) fn chart(
    size: Size,
    title: Option<&str>,
    description: &str,
    x_label: &str,
    y_label: &str,
    curves: &[Curve],
) -> String {
    let points: Vec<Vec<(f64, f64)>> = curves.iter().map(in_order).collect();
    let all = || points.iter().flatten().filter(|(_, value)| value.is_finite());
    let x_range = range(all().map(|(step, _)| *step));
    let y_range = range(all().map(|(_, value)| *value));

    let mut body = String::new();
    let mut top = 8.0;
    if let Some(title) = title {
        let most = (size.width / 8.0) as usize;
        text(&mut body, 12.0, 20.0, "t", &shorten(title, most));
        top = 32.0;
    }
    // Points by themselves have their names beside them.
    let scattered = curves.len() > 1 && points.iter().all(|points| points.len() <= 1);
    if !scattered {
        top += legend(&mut body, size.width, top, curves);
    }
    text(&mut body, 12.0, top + 12.0, "m", &shorten(y_label, (size.width / 7.0) as usize));
    top += 24.0;

    let (Some(x_range), Some(y_range)) = (x_range, y_range) else {
        text(&mut body, size.width / 2.0, size.height / 2.0 + 10.0, "m c", "no data");
        return svg(size.width, size.height.max(top + 40.0), title.is_some(), description, &body);
    };

    let x = Axis::inside(x_range, (size.width / 90.0) as usize);
    let y = Axis::around(y_range, 5);
    let ends = points.iter().map(|points| End::of(points).filter(|_| !scattered));
    let ends: Vec<Option<End>> = ends.collect();
    let end_width = ends.iter().flatten().map(|end| width_of(&end.label)).fold(0.0, f64::max);
    let tick_width = y.labels().iter().map(|label| width_of(label)).fold(0.0, f64::max);
    let noisy = points.iter().any(|points| is_noisy(points));

    let height = size.height.max(top + 190.0);
    let frame = Frame {
        left: 12.0 + tick_width + 6.0,
        right: size.width - 14.0 - end_width,
        top,
        bottom: height - if noisy { 58.0 } else { 42.0 },
        x,
        y,
    };
    frame.axes(&mut body, x_label);
    if noisy {
        let note = "thin: each value; thick: mean over 1/80 of the axis";
        text(&mut body, frame.left, height - 8.0, "m n", note);
    }
    for (index, points) in points.iter().enumerate() {
        frame.curve(&mut body, index, points);
    }
    frame.end_labels(&mut body, &ends);
    if scattered {
        frame.names(&mut body, curves, &points);
    }
    svg(size.width, height, title.is_some(), description, &body)
}

/// Points of a curve by step; values are kept where arithmetic on them cannot overflow.
fn in_order(curve: &Curve) -> Vec<(f64, f64)> {
    let tame = |number: f64| if number.is_finite() { number.clamp(-1e300, 1e300) } else { number };
    let known = curve.points.iter().filter(|(step, _)| step.is_finite());
    let mut points: Vec<_> = known.map(|(step, value)| (tame(*step), tame(*value))).collect();
    points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    points
}

fn range(numbers: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    numbers.fold(None, |range, n| match range {
        None => Some((n, n)),
        Some((lo, hi)) => Some((n.min(lo), n.max(hi))),
    })
}

/// Is the line so restless that a mean is needed to see where it goes?
///
/// A curve that falls has a path as long as its range, a warm-up and decay twice that.
fn is_noisy(points: &[(f64, f64)]) -> bool {
    let values: Vec<f64> =
        points.iter().map(|(_, value)| *value).filter(|v| v.is_finite()).collect();
    let path: f64 = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum();
    match range(values.iter().copied()) {
        Some((lo, hi)) => values.len() > 160 && path > 8.0 * (hi - lo),
        None => false,
    }
}

/// The number beside the end of a curve.
struct End {
    /// Height at which the curve ends: its last finite value.
    value: f64,
    /// The last value, finite or not.
    label: String,
}

impl End {
    fn of(points: &[(f64, f64)]) -> Option<Self> {
        let (_, last) = points.last()?;
        let (_, value) = points.iter().rev().find(|(_, value)| value.is_finite())?;
        Some(Self { value: *value, label: short(*last) })
    }
}

/// One axis: the numbers at its ends, and where its ticks are.
struct Axis {
    lo: f64,
    hi: f64,
    step: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// From the least to the largest number, ticks between them.
    fn inside(range: (f64, f64), ticks: usize) -> Self {
        let (lo, hi) = widened(range);
        let step = nice_step(hi - lo, ticks);
        let axis = Self { lo, hi, step, ticks: vec![] };
        axis.with_ticks((lo / step).ceil(), (hi / step).floor())
    }

    /// From a tick at or below the least number to one at or above the largest; from zero if that is near.
    fn around(range: (f64, f64), ticks: usize) -> Self {
        let (mut lo, hi) = widened(range);
        if lo > 0.0 && lo < 0.3 * hi {
            lo = 0.0;
        }
        let step = nice_step(hi - lo, ticks);
        let (first, last) = ((lo / step).floor(), (hi / step).ceil());
        let axis = Self { lo: first * step, hi: last * step, step, ticks: vec![] };
        axis.with_ticks(first, last)
    }

    fn with_ticks(self, first: f64, last: f64) -> Self {
        let count = (last - first).clamp(0.0, 20.0) as usize; // 20: never reached, whatever rounding does
        let ticks = (0..=count).map(|index| (first + index as f64) * self.step).collect();
        Self { ticks, ..self }
    }

    /// Tick labels with just the digits that tell them apart.
    fn labels(&self) -> Vec<String> {
        let size = self.ticks.iter().fold(0.0, |size: f64, tick| size.max(tick.abs()));
        let decimals = (-self.step.log10().floor()).clamp(0.0, 300.0) as usize;
        let plain = decimals <= 4 && size < 1e6;
        let label = |tick: &f64| {
            if plain {
                return format!("{tick:.decimals$}").replace('-', "−");
            }
            let digits =
                (size.log10().floor() - self.step.log10().floor()).clamp(0.0, 15.0) as usize;
            if tick.abs() < self.step / 2.0 { "0".to_owned() } else { scientific(*tick, digits) }
        };
        self.ticks.iter().map(label).collect()
    }

    /// 0 at the low end, 1 at the high end.
    fn fraction(&self, number: f64) -> f64 {
        (number - self.lo) / (self.hi - self.lo)
    }
}

/// A range with some room if all numbers are (nearly) the same.
fn widened((lo, hi): (f64, f64)) -> (f64, f64) {
    let size = lo.abs().max(hi.abs());
    if hi - lo > 1e-9 * size && hi - lo > 1e-290 {
        return (lo, hi);
    }
    let room = if size > 1e-280 { size * 0.1 } else { 1.0 };
    (lo - room, hi + room)
}

/// The 1, 2 or 5 times a power of ten that cuts `span` into at most about `parts`.
fn nice_step(span: f64, parts: usize) -> f64 {
    let rough = span / parts.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let factor = match rough / power {
        f if f <= 1.001 => 1.0,
        f if f <= 2.001 => 2.0,
        f if f <= 5.001 => 5.0,
        _ => 10.0,
    };
    factor * power
}

/// Where a chart's plane lies in the picture.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: Axis,
    y: Axis,
}

impl Frame {
    fn px(&self, step: f64) -> f64 {
        self.left + self.x.fraction(step) * (self.right - self.left)
    }

    fn py(&self, value: f64) -> f64 {
        self.bottom - self.y.fraction(value) * (self.bottom - self.top)
    }

    fn axes(&self, out: &mut String, x_label: &str) {
        let Self { left, right, top, bottom, .. } = self;
        for (tick, label) in self.y.ticks.iter().zip(self.y.labels()) {
            let y = self.py(*tick);
            *out += &format!(
                "<line class=\"g\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            text(out, left - 6.0, y + 4.0, "m e", &label);
        }
        for (tick, label) in self.x.ticks.iter().zip(self.x.labels()) {
            let x = self.px(*tick);
            let end = bottom + 4.0;
            *out += &format!(
                "<line class=\"g\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>"
            );
            *out += &format!(
                "<line class=\"x\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom:.1}\" y2=\"{end:.1}\"/>"
            );
            text(out, x, bottom + 17.0, "m c", &label);
        }
        *out += &format!(
            "<path class=\"x\" fill=\"none\" d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\"/>"
        );
        let most = ((right - left) / 7.0).max(1.0) as usize;
        text(out, (left + right) / 2.0, bottom + 34.0, "m c", &shorten(x_label, most));
    }

    fn curve(&self, out: &mut String, index: usize, points: &[(f64, f64)]) {
        let color = index % COLORS;
        let dash = match DASHES[index % DASHES.len()] {
            "" => String::new(),
            dash => format!(" stroke-dasharray=\"{dash}\""),
        };
        if is_noisy(points) {
            let (thin, thick) = (self.path(&self.thinned(points)), self.path(&self.means(points)));
            *out += &format!("<path class=\"w k{color}\" d=\"{thin}\"/>");
            *out += &format!("<path class=\"l k{color}\"{dash} d=\"{thick}\"/>");
        } else {
            let path = self.path(&self.thinned(points));
            *out += &format!("<path class=\"l k{color}\"{dash} d=\"{path}\"/>");
        }
        let finite = || points.iter().filter(|(_, value)| value.is_finite());
        if finite().count() <= 25 {
            for (step, value) in finite() {
                let (x, y) = (self.px(*step), self.py(*value));
                *out +=
                    &format!("<circle class=\"k{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>");
            }
        }
    }

    /// A path through `points`, broken where a value is not finite.
    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        let mut command = 'M';
        for (step, value) in points {
            if value.is_finite() {
                path += &format!("{command}{:.1} {:.1}", self.px(*step), self.py(*value));
                command = 'L';
            } else {
                command = 'M';
            }
        }
        path
    }

    /// At most four points for each column of pixels, chosen so that the line looks the same:
    /// the first, the lowest, the highest, the last; and one that is not finite if there is one.
    fn thinned(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let mut kept = vec![];
        for column in points.chunk_by(|(a, _), (b, _)| self.px(*a).floor() == self.px(*b).floor()) {
            let finite = || (0..column.len()).filter(|i| column[*i].1.is_finite());
            let by_value = |a: &usize, b: &usize| column[*a].1.total_cmp(&column[*b].1);
            let gap = (0..column.len()).find(|i| !column[*i].1.is_finite());
            let mut chosen: Vec<usize> = [
                finite().next(),
                finite().min_by(by_value),
                finite().max_by(by_value),
                finite().next_back(),
                gap,
            ]
            .into_iter()
            .flatten()
            .collect();
            chosen.sort_unstable();
            chosen.dedup();
            kept.extend(chosen.into_iter().map(|i| column[i]));
        }
        kept
    }

    /// Means of the finite values over 80 equal parts of the x axis.
    fn means(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let part = |step: f64| (self.x.fraction(step) * 80.0).floor().clamp(0.0, 79.0);
        let finite: Vec<_> =
            points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
        let mean = |points: &[(f64, f64)]| {
            let n = points.len() as f64;
            points.iter().fold((0.0, 0.0), |(x, y), (step, value)| (x + step / n, y + value / n))
        };
        finite.chunk_by(|(a, _), (b, _)| part(*a) == part(*b)).map(mean).collect()
    }

    /// Values at the right edge, moved apart where they would overlap.
    fn end_labels(&self, out: &mut String, ends: &[Option<End>]) {
        let known = ends.iter().enumerate().filter_map(|(index, end)| Some((index, end.as_ref()?)));
        let mut labels: Vec<(f64, usize, &str)> =
            known.map(|(index, end)| (self.py(end.value), index, end.label.as_str())).collect();
        labels.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
        let gap = 13.0_f64.min((self.bottom - self.top) / labels.len().max(1) as f64);
        let mut lowest = self.top - gap;
        for (y, ..) in &mut labels {
            *y = y.max(lowest + gap);
            lowest = *y;
        }
        let mut highest = self.bottom + gap;
        for (y, ..) in labels.iter_mut().rev() {
            *y = y.min(highest - gap);
            highest = *y;
        }
        for (y, index, label) in labels {
            text(out, self.right + 6.0, y + 4.0, &format!("k{}", index % COLORS), label);
        }
    }

    /// The name of each curve beside its only point, moved down where it would lie over another's.
    fn names(&self, out: &mut String, curves: &[Curve], points: &[Vec<(f64, f64)>]) {
        const LINE: f64 = 12.0;
        const SPACE: f64 = 6.0;
        let mut placed: Vec<[f64; 3]> = vec![];
        for (index, (curve, points)) in curves.iter().zip(points).enumerate() {
            let Some((step, value)) = points.first().filter(|(_, value)| value.is_finite()) else {
                continue;
            };
            let name = shorten(&curve.name, 40);
            let (at, width) = (self.px(*step), width_of(&name));
            let beyond = at + SPACE + width > self.right;
            let left = if beyond { at - SPACE - width } else { at + SPACE };
            let mut y = self.py(*value) + 4.0;
            let covers = |y: f64, [other, wide, height]: &[f64; 3]| {
                (y - height).abs() < LINE && left < other + wide && *other < left + width
            };
            while placed.iter().any(|other| covers(y, other)) {
                y += LINE;
            }
            placed.push([left, width, y]);
            text(out, left, y, &format!("k{}", index % COLORS), &name);
        }
    }
}

/// Names of the curves, in lines from `top`; returns the height taken.
fn legend(out: &mut String, width: f64, top: f64, curves: &[Curve]) -> f64 {
    let (mut x, mut line) = (12.0, 0.0);
    for (index, curve) in curves.iter().enumerate() {
        let bad = curve.points.iter().filter(|(x, y)| !x.is_finite() || !y.is_finite()).count();
        let mut name = shorten(&curve.name, 40);
        if bad > 0 {
            name += &format!(" ({bad} not finite)");
        }
        let entry = 30.0 + width_of(&name) + 16.0;
        if x > 12.0 && x + entry > width {
            x = 12.0;
            line += 1.0;
        }
        let y = top + line * 18.0 + 8.0;
        let (color, dash, end) = (index % COLORS, DASHES[index % DASHES.len()], x + 24.0);
        *out += &format!(
            "<line class=\"l k{color}\" stroke-dasharray=\"{dash}\" x1=\"{x:.1}\" x2=\"{end:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        );
        text(out, x + 30.0, y + 4.0, "", &name);
        x += entry;
    }
    if curves.is_empty() { 0.0 } else { (line + 1.0) * 18.0 + 8.0 }
}

/// A confusion matrix; `alone` if it is a file of its own.
pub(super) fn matrix(labels: &[String], counts: &[Vec<u64>], alone: bool) -> String {
    let widest = counts.iter().map(Vec::len).max().unwrap_or(0);
    let n = labels.len().max(counts.len()).max(widest);
    if n == 0 {
        let mut body = String::new();
        text(&mut body, 160.0, 44.0, "m c", "no data");
        return svg(320.0, 80.0, alone, "confusion matrix without data", &body);
    }
    let label =
        |class: usize| labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
    let count = |row: usize, column: usize| {
        counts.get(row).and_then(|row| row.get(column)).copied().unwrap_or(0)
    };
    let total =
        |row: usize| (0..n).fold(0_u64, |sum, column| sum.saturating_add(count(row, column)));
    let largest = counts.iter().flatten().copied().max().unwrap_or(0);

    // Few classes: two lines in a cell. Many: one small number, so that 77 classes stay a picture of 2000 pixels.
    let few = n <= 12;
    let digits = width_of(&largest.to_string());
    let short_label = |class: usize| shorten(&label(class), if few { 16 } else { 24 });
    let label_width = (0..n).map(|class| width_of(&short_label(class))).fold(0.0, f64::max);
    let (w, h) = match n {
        _ if !few => (digits * 0.84 + 7.0, 18.0),
        1..=4 => (digits.max(label_width).max(42.0) + 14.0, 42.0), // so that no label stands upright
        _ => (digits.max(42.0) + 14.0, 42.0),
    };
    let left = 28.0 + label_width + 8.0;
    let upright = label_width > w - 4.0;
    let top = 30.0 + if upright { label_width + 8.0 } else { 18.0 };
    let size = n as f64;
    let (right, bottom) = (left + size * w, top + size * h);

    let mut body = String::new();
    text(&mut body, (left + right) / 2.0, 16.0, "m c", "predicted");
    let middle = (top + bottom) / 2.0;
    body += &format!(
        "<text class=\"m c\" transform=\"translate(16 {middle:.1}) rotate(-90)\">true</text>"
    );
    text(&mut body, right + 8.0, top - 6.0, "m", "right / all");
    for row in 0..n {
        let all = total(row);
        let share =
            |column: usize| if all == 0 { 0.0 } else { count(row, column) as f64 / all as f64 };
        let y = top + row as f64 * h;
        let baseline = y + h / 2.0 + 4.0;
        text(&mut body, left - 8.0, baseline, "e", &short_label(row));
        let x = left + row as f64 * w + w / 2.0;
        if upright {
            body += &format!(
                "<text transform=\"translate({:.1} {:.1}) rotate(-90)\">{}</text>",
                x + 4.0,
                top - 8.0,
                escape(&short_label(row))
            );
        } else {
            text(&mut body, x, top - 8.0, "c", &short_label(row));
        }
        let right_share = if all == 0 { "none".to_owned() } else { percent(share(row)) };
        let of = if all == 0 { String::new() } else { format!(" of {all}") };
        text(&mut body, right + 8.0, baseline, "m", &format!("{right_share}{of}"));

        for column in 0..n {
            let cell = count(row, column);
            if cell == 0 && !few {
                continue; // 77 x 77 zeros would hide the rest
            }
            let share = share(column);
            let x = left + column as f64 * w;
            let kind = if row == column { 'a' } else { 'b' };
            let level = level(share);
            let on = if level >= 4 { " on" } else { "" };
            body += "<g>";
            if cell > 0 {
                body += &format!(
                    "<title>{} predicted as {}: {cell} ({})</title>\
                     <rect class=\"{kind} q{level}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\"/>",
                    escape(&label(row)),
                    escape(&label(column)),
                    percent(share)
                );
            }
            let center = x + w / 2.0;
            match (few, cell) {
                (true, 0) => text(&mut body, center, baseline, "m c", "0"),
                (true, _) => {
                    text(&mut body, center, baseline - 6.0, &format!("c{on}"), &cell.to_string());
                    text(&mut body, center, baseline + 9.0, &format!("c p{on}"), &percent(share));
                }
                (false, _) => {
                    text(&mut body, center, baseline, &format!("c n{on}"), &cell.to_string())
                }
            }
            body += "</g>";
        }
    }
    for line in 0..=n {
        let (x, y) = (left + line as f64 * w, top + line as f64 * h);
        body += &format!(
            "<path class=\"g\" d=\"M{left:.1} {y:.1}H{right:.1}M{x:.1} {top:.1}V{bottom:.1}\"/>"
        );
    }
    let correct = (0..n).fold(0_u64, |sum, class| sum.saturating_add(count(class, class)));
    let all = (0..n).fold(0_u64, |sum, row| sum.saturating_add(total(row)));
    let description =
        format!("confusion matrix of {n} classes: {correct} of {all} rows are on the diagonal");
    svg(right + 112.0, bottom + 12.0, alone, &description, &body)
}

/// The shade of a share. Shades between levels 3 and 4 are left out: no text colour is readable on them.
fn level(share: f64) -> usize {
    [0.02, 0.1, 0.25, 0.5, 0.8].iter().filter(|bound| share >= **bound).count()
}

/// A share of one, so that only nothing reads `0 %` and only all reads `100 %`.
pub(super) fn percent(share: f64) -> String {
    let tenths = (share * 1000.0).round();
    match share {
        _ if !share.is_finite() => "unknown".to_owned(),
        s if s > 0.0 && tenths < 1.0 => "<0.1 %".to_owned(),
        s if s < 1.0 && tenths > 999.0 => ">99.9 %".to_owned(),
        _ if tenths % 10.0 == 0.0 => format!("{} %", tenths / 10.0),
        _ => format!("{:.1} %", tenths / 10.0),
    }
}

/// Roughly how wide `text` is in 12-pixel letters: there is no font to ask.
fn width_of(text: &str) -> f64 {
    let width = |c: char| match c {
        '\u{300}'..='\u{36f}' => 0.0,
        '\u{1100}'.. => 12.0, // Chinese, Japanese and Korean, and whatever else may be wide
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | ' ' => 4.0,
        'm' | 'w' | 'A'..='Z' | '%' => 9.0,
        _ => 7.0,
    };
    text.chars().map(width).sum()
}

pub(super) fn text(out: &mut String, x: f64, y: f64, class: &str, text: &str) {
    *out += &format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(text));
}

/// The `svg` element; `alone` adds the colours and a background.
pub(super) fn svg(width: f64, height: f64, alone: bool, description: &str, body: &str) -> String {
    let description = escape(description);
    let (width, height) = (width.ceil(), height.ceil());
    let ground = match alone {
        true => format!(
            "<style>{STYLE}</style><rect class=\"bg\" width=\"{width}\" height=\"{height}\"/>"
        ),
        false => String::new(),
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"fb\" role=\"img\" aria-label=\"{description}\" \
         width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">{ground}{body}</svg>\n"
    )
}

/// See [`super::number`].
fn points<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(f64, f64)>, D::Error> {
    let points: Vec<(Option<f64>, Option<f64>)> = Vec::deserialize(from)?;
    let number = |n: Option<f64>| n.unwrap_or(f64::NAN);
    Ok(points.into_iter().map(|(step, value)| (number(step), number(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, points: &[(f64, f64)]) -> Curve {
        Curve { name: name.into(), points: points.to_vec() }
    }

    /// A chart that a browser would accept: no number went wrong, every element is closed.
    #[track_caller]
    fn check_svg(svg: &str) {
        for (index, part) in svg.split('"').enumerate().filter(|(index, _)| index % 2 == 1) {
            let number = !part.contains("class") && (part.contains("NaN") || part.contains("inf"));
            assert!(!number || svg.split('"').nth(index - 1) == Some(" aria-label="), "{part}");
        }
        for tag in ["svg", "text", "g", "title", "style"] {
            let opened =
                svg.matches(&format!("<{tag} ")).count() + svg.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "<{tag}>");
        }
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[track_caller]
    fn check_chart(points: &[(f64, f64)]) -> String {
        let svg = line_chart_svg("title", "step", "loss", &[curve("train", points)]);
        check_svg(&svg);
        svg
    }

    #[test]
    fn a_chart_shows_names_ticks_and_last_values() {
        let curves = [
            curve("train", &[(0.0, 0.7), (100.0, 0.5), (200.0, 0.41)]),
            curve("valid", &[(100.0, 0.6), (200.0, 0.55)]),
        ];
        let svg = line_chart_svg("Loss", "step", "nats", &curves);
        check_svg(&svg);
        for text in ["Loss", "step", "nats", "train", "valid", "0.41", "0.55", "200", "0.4", "0.7"]
        {
            assert!(svg.contains(&format!(">{text}</text>")), "{text}: {svg}");
        }
    }

    #[test]
    fn a_chart_without_points_says_so() {
        check_svg(&line_chart_svg("", "", "", &[]));
        assert!(check_chart(&[]).contains("no data"));
        assert!(check_chart(&[(1.0, f64::NAN)]).contains("no data"));
        assert!(check_chart(&[(f64::NAN, 1.0)]).contains("no data"));
    }

    #[test]
    fn one_point_is_a_dot() {
        assert_eq!(check_chart(&[(5.0, 0.25)]).matches("<circle").count(), 1);
        check_chart(&[(0.0, 0.0)]);
    }

    /// Points of different curves are told apart by their names, also where they lie over each other.
    #[test]
    fn points_have_their_names_beside_them() {
        let curves = ["whole", "int8", "int4"].map(|name| curve(name, &[(4.0, 0.5)]));
        let svg = line_chart_svg("sizes", "MB", "accuracy", &curves);
        check_svg(&svg);
        let places = ["whole", "int8", "int4"].map(|name| {
            let end = svg.find(&format!(">{name}</text>")).expect("a name");
            svg[..end].rsplit_once(" y=\"").expect("its place").1.split('"').next()
        });
        assert!(places[0] != places[1] && places[1] != places[2], "{places:?}");
        assert!(!svg.contains("<line class=\"l k"), "no legend");
    }

    #[test]
    fn nan_leaves_a_gap_and_is_counted() {
        let svg =
            check_chart(&[(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 3.0), (4.0, f64::NAN)]);
        assert!(svg.contains("train (2 not finite)"));
        assert!(svg.contains(">NaN</text>"), "the run ended with a value that is not a number");
        let path = svg.split("class=\"l k0\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }

    #[test]
    fn extreme_numbers_draw() {
        let (huge, tiny) = (f64::MAX, f64::MIN_POSITIVE);
        check_chart(&[(-huge, huge), (huge, -huge)]);
        check_chart(&[(0.0, tiny), (tiny, 0.0)]);
        check_chart(&[(1e15, 1.0), (1e15 + 1.0, 1.0 + f64::EPSILON)]);
        check_chart(&[(0.0, 1e-12), (1e9, 1.00001e-12)]);
        check_chart(&[(0.0, f64::INFINITY), (1.0, -1e-320)]);
        check_chart(&[(3.0, 5.0), (3.0, 7.0)]);
    }

    #[test]
    fn a_million_points_make_a_small_file() {
        let noise = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / 2f64.powi(24);
        let points: Vec<_> = (0..1_000_000).map(|i| (i as f64, noise(i))).collect();
        let svg = check_chart(&points);
        assert!(svg.len() < 60_000, "{} bytes", svg.len());
        assert!(svg.contains("class=\"w k0\"") && svg.contains("thick: mean"));
    }

    #[test]
    fn ticks_are_round() {
        let labels = |lo, hi| Axis::around((lo, hi), 5).labels().join(" ");
        assert_eq!(labels(0.05, 0.93), "0.0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(labels(0.81, 0.89), "0.80 0.82 0.84 0.86 0.88 0.90");
        assert_eq!(labels(0.0, 5e-5), "0 1e-5 2e-5 3e-5 4e-5 5e-5");
        assert_eq!(labels(-3.0, 4.0), "−4 −2 0 2 4");
        assert_eq!(labels(0.0, 4e6), "0 1e6 2e6 3e6 4e6");
    }

    #[test]
    fn names_are_escaped() {
        let svg = line_chart_svg("<b>", "a&b", "\"", &[curve("<script>", &[(0.0, 1.0)])]);
        check_svg(&svg);
        assert!(!svg.contains("<script") && !svg.contains("<b>"));
        let svg = confusion_svg(&["<i>".into(), "\"&".into()], &[vec![1, 2], vec![3, 4]]);
        check_svg(&svg);
        assert!(!svg.contains("<i>"));
    }

    #[test]
    fn two_classes_show_counts_and_shares_of_the_row() {
        let svg = confusion_svg(&["bad".into(), "good".into()], &[vec![30, 10], vec![0, 60]]);
        check_svg(&svg);
        for text in ["30", "75 %", "10", "25 %", "0", "60", "100 %", "75 % of 40", "100 % of 60"] {
            assert!(svg.contains(&format!(">{text}</text>")), "{text}");
        }
    }

    #[test]
    fn seventy_seven_classes_fit() {
        let labels: Vec<String> = (0..77).map(|i| format!("intent_{i}_with_a_long_name")).collect();
        let counts: Vec<Vec<u64>> = (0..77)
            .map(|r| {
                (0..77).map(|c| if r == c { 39 } else { u64::from((r + c) % 40 == 0) }).collect()
            })
            .collect();
        let svg = confusion_svg(&labels, &counts);
        check_svg(&svg);
        assert_eq!(svg.matches("<rect class=\"a ").count(), 77);
        assert!(svg.len() < 200_000, "{} bytes", svg.len());
        let width = svg.split("width=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(width.parse::<f64>().unwrap() < 2200.0, "{width} pixels");
    }

    #[test]
    fn odd_matrices_draw() {
        check_svg(&confusion_svg(&[], &[]));
        check_svg(&confusion_svg(&["only".into()], &[]));
        check_svg(&confusion_svg(&["a".into()], &[vec![1, 2, 3], vec![]]));
        check_svg(&confusion_svg(&["a".into()], &[vec![u64::MAX, u64::MAX]]));
    }

    #[test]
    fn percent_rounds_to_nothing_and_all_only_if_they_are() {
        let shown = [0.0, 0.0001, 0.5, 0.3333, 0.9999, 1.0, f64::NAN].map(percent);
        assert_eq!(shown, ["0 %", "<0.1 %", "50 %", "33.3 %", ">99.9 %", "100 %", "unknown"]);
    }

    /// Contrast of WCAG 2.2: 4.5 for text, 3 for lines; in both themes, on every shade of a cell.
    #[test]
    fn colors_have_contrast() {
        let (light, dark) = STYLE.split_once("@media").unwrap();
        for theme in [light, dark] {
            let color = |name: &str| {
                let hex = theme.split(&format!("{name}:#")).nth(1).unwrap();
                [0, 2, 4]
                    .map(|i| f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0)
            };
            let paper = color("--paper");
            let check = |what: &str, a: [f64; 3], b: [f64; 3], least: f64| {
                let ratio = contrast(a, b);
                assert!(ratio >= least, "{what}: contrast {ratio:.2}");
            };
            for name in ["--ink", "--muted", "--c0", "--c1", "--c2", "--c3", "--c4", "--c5"] {
                check(name, color(name), paper, 4.5);
                check(name, color(name), color("--tint"), 4.5);
            }
            check("--axis", color("--axis"), paper, 3.0);
            for shade in ["--a", "--b"] {
                for level in 0..6 {
                    let alpha = STYLE.split(&format!(".q{level}{{fill-opacity:")).nth(1).unwrap();
                    let alpha: f64 = alpha.split('}').next().unwrap().parse().unwrap();
                    let over =
                        [0, 1, 2].map(|i| alpha * color(shade)[i] + (1.0 - alpha) * paper[i]);
                    let ink = color(if level >= 4 { "--on" } else { "--ink" });
                    check(&format!("{shade} level {level}"), ink, over, 4.5);
                }
            }
        }
    }

    fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
        let linear =
            |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
        let light = |[r, g, b]: [f64; 3]| {
            0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) + 0.05
        };
        light(a).max(light(b)) / light(a).min(light(b))
    }
}
