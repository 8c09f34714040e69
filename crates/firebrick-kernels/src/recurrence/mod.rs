//! Recurrent layers over whole sequences: one projection of all inputs, then step by step the product of the state with
//! its gates, and in the backward pass one product a weight over all steps at the end.
//!
//! Elman 1990; LSTM: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; GRU: Cho et al. 2014,
//! <https://arxiv.org/abs/1406.1078>. Formulas, order of gates and weights are those of `torch.nn.RNN`, `LSTM` and `GRU`.
//! At padding the state stays what it was and the output is 0, which on the right of a sequence is what PyTorch's packed
//! sequences are.
//!
//! Axis letters: `B` batch, `T` steps, `C` inputs, `H` units, `G` gates, `S` vectors of the state.

mod backward;
mod cells;
mod panel;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::{
    cells::Lanes,
    panel::{LANES, Panel, Panels, ROWS, Sums, VECTORS},
};
use crate::{
    cpu::prefetch,
    matmul::{Matrix, MatrixMut, matmul},
};

pub use backward::{Gradients, backward};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Tanh,
    Relu,
    Gru,
    Lstm,
}

impl Cell {
    /// `G`
    pub fn gates(self) -> usize {
        match self {
            Self::Tanh | Self::Relu => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    /// `S`
    pub fn states(self) -> usize {
        if self == Self::Lstm { 2 } else { 1 }
    }

    /// Units whose gates a panel of the weight holds.
    fn units(self) -> usize {
        if self.gates() == 1 { VECTORS * LANES } else { LANES }
    }

    /// Where unit `index` of a register of a panel stands in a row of all gates.
    fn column(self, hidden: usize, panel: usize, vector: usize, lane: usize) -> Option<usize> {
        let (gate, unit) = match self.gates() {
            1 => (0, (panel * VECTORS + vector) * LANES + lane),
            gates if vector < gates => (vector, panel * LANES + lane),
            _ => return None,
        };
        (unit < hidden).then_some(gate * hidden + unit)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Recurrence<'a> {
    pub cell: Cell,
    /// From the last step to the first.
    pub reverse: bool,
    pub batch: usize,
    pub steps: usize,
    pub hidden: usize,
    /// `[B, T, C]`
    pub x: &'a [f32],
    /// `[G H, C]`
    pub weight_ih: &'a [f32],
    /// `[G H, H]`
    pub weight_hh: &'a [f32],
    /// `[2, G H]`: of the inputs, and of the state.
    pub bias: &'a [f32],
    /// `[S, B, H]`: before the first step. LSTM: output and cell.
    pub state: &'a [f32],
    /// `[B, T]`, not 0 where padding.
    pub pad: Option<&'a [u8]>,
}

/// What the backward pass reads.
#[derive(Debug, Clone)]
pub struct Memory {
    /// `[B, T, G H]`
    gates: Vec<f32>,
    /// `[B, T, H]`: the state before each step.
    before: Vec<f32>,
    /// `[B, T, H]`: the LSTM's cell before each step, the GRU's candidate's sum over the state; else empty.
    extra: Vec<f32>,
}

impl<'a> Recurrence<'a> {
    fn check(&self) {
        let Self { batch, steps, hidden, .. } = *self;
        let (gates, states) = (self.cell.gates() * hidden, self.cell.states());
        assert!(batch > 0 && steps > 0 && hidden > 0, "a recurrence over nothing");
        assert!(self.x.len().is_multiple_of(batch * steps), "inputs of unlike width");
        assert_eq!(self.weight_ih.len(), gates * self.input(), "weights of {hidden} units");
        assert_eq!(self.weight_hh.len(), gates * hidden, "weights of {hidden} units");
        assert_eq!(self.bias.len(), 2 * gates, "biases of {hidden} units");
        assert_eq!(self.state.len(), states * batch * hidden, "a state of {hidden} units");
        assert!(self.pad.is_none_or(|pad| pad.len() == batch * steps), "padding in another shape");
    }

    /// `C`
    fn input(&self) -> usize {
        self.x.len() / (self.batch * self.steps)
    }

    /// `G H`
    fn width(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    /// Which step is taken as number `index`.
    fn step(&self, index: usize) -> usize {
        if self.reverse { self.steps - 1 - index } else { index }
    }

    /// `[B, T, C]` as rows, times `[C, G H]`.
    fn inputs(&self) -> [Matrix<'a>; 2] {
        let c = self.input();
        let x = Matrix::new(self.x, self.batch * self.steps, c);
        [x, Matrix::new(self.weight_ih, self.width(), c).transposed()]
    }

    /// Rows of the batch that a task takes through all steps by itself; all of them where the weight is too large for a
    /// core's own cache, whose columns are shared among tasks instead.
    fn rows_of_a_task(&self) -> usize {
        const SMALL: usize = 1 << 18;
        match self.weight_hh.len() <= SMALL {
            true => self.batch.div_ceil(self.batch.div_ceil(ROWS).min(8)),
            false => self.batch,
        }
    }
}

/// `y`: `[B, T, H]`; `last`: `[S, B, H]`, the state after the last step.
pub fn forward(a: &Recurrence, y: &mut [f32], last: &mut [f32]) -> Memory {
    a.check();
    let Recurrence { batch, steps, hidden, .. } = *a;
    let numbers = batch * steps * hidden;
    assert!(y.len() == numbers && last.len() == a.state.len());
    let mut bias = a.bias[..a.width()].to_vec();
    // The candidate of a GRU weighs its sum over the state with the reset gate, bias included.
    let shared = if a.cell == Cell::Gru { 2 * hidden } else { a.width() };
    bias.iter_mut().zip(&a.bias[a.width()..]).take(shared).for_each(|(sum, b)| *sum += b);
    let mut memory = Memory {
        gates: vec![0.0; a.cell.gates() * numbers],
        before: vec![0.0; numbers],
        extra: vec![0.0; if a.cell.gates() > 1 { numbers } else { 0 }],
    };
    let [x, weight] = a.inputs();
    matmul(x, weight, Some(&bias), &mut memory.gates);

    // One token at a time: laying the weight out would cost more than it brings.
    let panels = (batch * steps > crate::matvec::MOST_ROWS).then(|| {
        let weight = Matrix::new(a.weight_hh, a.width(), hidden).transposed();
        let column = |panel, vector, lane| a.cell.column(hidden, panel, vector, lane);
        Panels::new(weight, hidden.div_ceil(a.cell.units()), column)
    });
    last.copy_from_slice(a.state);
    let (h, c) = last.split_at_mut(batch * hidden);
    let rows = a.rows_of_a_task();
    let tasks = batch.div_ceil(rows);
    let sequences = rows * steps * hidden;
    let parts = split(&mut memory.gates, a.cell.gates() * sequences, tasks)
        .zip(split(&mut memory.before, sequences, tasks))
        .zip(split(&mut memory.extra, sequences, tasks))
        .zip(split(y, sequences, tasks))
        .zip(split(h, rows * hidden, tasks))
        .zip(split(c, rows * hidden, tasks))
        .enumerate();
    let parts = parts.map(|(task, (((((gates, before), extra), y), h), c))| {
        let first = task * rows;
        let rows = rows.min(batch - first);
        Sequences { a, first, rows, shared: tasks == 1, gates, before, extra, y, h, c }
    });
    let parts: Vec<Sequences> = parts.collect();
    parts.into_par_iter().for_each(|part| part.forward(panels.as_ref()));
    memory
}

/// `count` pieces of `size`, the last ones perhaps smaller.
fn split(x: &mut [f32], size: usize, count: usize) -> impl Iterator<Item = &mut [f32]> {
    let mut rest = x;
    (0..count).map(move |_| {
        let size = size.min(rest.len());
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(size);
        rest = after;
        piece
    })
}

/// Some rows of the batch.
struct Sequences<'a> {
    a: &'a Recurrence<'a>,
    first: usize,
    rows: usize,
    /// Whether every step is shared among threads.
    shared: bool,
    gates: &'a mut [f32],
    before: &'a mut [f32],
    extra: &'a mut [f32],
    y: &'a mut [f32],
    h: &'a mut [f32],
    c: &'a mut [f32],
}

impl Sequences<'_> {
    fn forward(self, panels: Option<&Panels>) {
        let Self { a, first, rows, shared, gates, before, extra, y, h, c } = self;
        let (hidden, width, units) = (a.hidden, a.width(), a.cell.units());
        let mut now = h.to_vec();
        let mut next = vec![0.0; now.len()];
        let mut product = vec![0.0; if panels.is_some() { 0 } else { rows * width }];
        for index in 0..a.steps {
            let t = a.step(index);
            if panels.is_none() {
                let weight = Matrix::new(a.weight_hh, width, hidden).transposed();
                matmul(Matrix::new(&now, rows, hidden), weight, None, &mut product);
            }
            {
                let mut gates = by_gate(at_step(gates, rows, a.steps, t), hidden, units);
                let mut before = at_step(before, rows, a.steps, t).into_blocks_of_cols(units);
                let mut extra = (!extra.is_empty())
                    .then(|| at_step(extra, rows, a.steps, t).into_blocks_of_cols(units));
                let mut y = at_step(y, rows, a.steps, t).into_blocks_of_cols(units);
                let mut c =
                    (!c.is_empty()).then(|| at_step(c, rows, 1, 0).into_blocks_of_cols(units));
                let mut outputs = at_step(&mut next, rows, 1, 0).into_blocks_of_cols(units);
                let blocks = (0..hidden.div_ceil(units)).map(|panel| Block {
                    a,
                    panel,
                    product: match panels {
                        Some(panels) => Product::Panel(panels.panel(panel)),
                        None => Product::Sums(&product),
                    },
                    padded: Padded { a, first, t },
                    now: &now,
                    gates: gates.iter_mut().map(next_of).collect(),
                    before: next_of(&mut before),
                    extra: extra.as_mut().map(next_of),
                    y: next_of(&mut y),
                    c: c.as_mut().map(next_of),
                    next: next_of(&mut outputs),
                });
                in_parallel(shared, blocks.collect(), dispatch_block);
            }
            std::mem::swap(&mut now, &mut next);
        }
        h.copy_from_slice(&now);
    }
}

/// `[rows, T, width]` at one step.
fn at_step(x: &mut [f32], rows: usize, steps: usize, t: usize) -> MatrixMut<'_> {
    let width = x.len() / (rows * steps);
    MatrixMut::strided(&mut x[t * width..], rows, width, steps * width)
}

/// `[rows, G H]`, by gate in blocks of `units`.
fn by_gate(
    x: MatrixMut<'_>,
    hidden: usize,
    units: usize,
) -> Vec<impl Iterator<Item = MatrixMut<'_>>> {
    x.into_blocks_of_cols(hidden).map(|gate| gate.into_blocks_of_cols(units)).collect()
}

fn next_of<T>(blocks: &mut impl Iterator<Item = T>) -> T {
    blocks.next().expect("as many blocks as panels")
}

fn in_parallel<T: Send>(shared: bool, blocks: Vec<T>, run: impl Fn(T) + Send + Sync) {
    match shared {
        true => blocks.into_par_iter().for_each(run),
        false => blocks.into_iter().for_each(run),
    }
}

/// Where a step's rows are padding.
#[derive(Clone, Copy)]
struct Padded<'a> {
    a: &'a Recurrence<'a>,
    first: usize,
    t: usize,
}

impl Padded<'_> {
    #[inline(always)]
    fn row(&self, r: usize) -> bool {
        self.a.pad.is_some_and(|pad| pad[(self.first + r) * self.a.steps + self.t] != 0)
    }
}

#[derive(Clone, Copy)]
enum Product<'a> {
    /// To be computed.
    Panel(Panel<'a>),
    /// `[rows, G H]`
    Sums(&'a [f32]),
}

/// Some units in one step.
struct Block<'a> {
    a: &'a Recurrence<'a>,
    panel: usize,
    product: Product<'a>,
    padded: Padded<'a>,
    /// `[rows, H]`: the state before the step.
    now: &'a [f32],
    /// Of the block's units, as all below: sums over the inputs, which become gates.
    gates: Vec<MatrixMut<'a>>,
    before: MatrixMut<'a>,
    extra: Option<MatrixMut<'a>>,
    y: MatrixMut<'a>,
    c: Option<MatrixMut<'a>>,
    next: MatrixMut<'a>,
}

#[inline(always)]
fn run(mut block: Block) {
    for (tile, (first, count)) in tiles(block.next.rows()).enumerate() {
        let mut sums = [[[0.0; LANES]; VECTORS]; ROWS];
        block.ask_for(first, count);
        block.multiply(tile, first, count, &mut sums);
        for (r, sums) in (first..first + count).zip(&sums) {
            block.step(r, sums);
        }
    }
}

crate::for_this_cpu!(dispatch_block = run(block: Block));

/// Rows in tiles of like height: first row, and how many.
#[inline(always)]
fn tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(ROWS);
    let begin = move |tile: usize| tile * rows / count;
    (0..count).map(move |tile| (begin(tile), begin(tile + 1) - begin(tile)))
}

impl Block<'_> {
    /// Rows of a step lie pages apart, where the CPU does not see ahead by itself; the product leaves it the time.
    #[inline(always)]
    fn ask_for(&mut self, first: usize, count: usize) {
        for r in first..first + count {
            self.gates.iter_mut().for_each(|gate| prefetch(gate.row(r)));
            let others = [&mut self.before, &mut self.y].into_iter().chain(&mut self.extra);
            others.for_each(|x| prefetch(x.row(r)));
        }
    }

    #[inline(always)]
    fn multiply(&mut self, tile: usize, first: usize, rows: usize, sums: &mut Sums) {
        let Recurrence { cell, hidden, .. } = *self.a;
        let units = self.next.row(0).len();
        let vectors = if cell.gates() == 1 { units.div_ceil(LANES) } else { cell.gates() };
        match self.product {
            Product::Panel(panel) => {
                panel.sums(&self.now[first * hidden..], rows, vectors, tile, sums)
            }
            Product::Sums(product) => {
                let product = product.chunks_exact(self.a.width()).skip(first);
                for (product, sums) in product.zip(sums).take(rows) {
                    for (v, sums) in sums.iter_mut().enumerate().take(vectors) {
                        for (lane, sum) in sums.iter_mut().enumerate() {
                            let column = cell.column(hidden, self.panel, v, lane);
                            *sum = column.map_or(0.0, |column| product[column]);
                        }
                    }
                }
            }
        }
    }

    /// The gates of one row, and what they make of its state.
    #[inline(always)]
    fn step(&mut self, r: usize, sums: &[Lanes; VECTORS]) {
        let cell = self.a.cell;
        let first = self.panel * cell.units();
        let padded = self.padded.row(r);
        let now = &self.now[r * self.a.hidden..][..self.a.hidden][first..];
        let now = &now[..now.len().min(cell.units())];
        match cell {
            Cell::Tanh | Cell::Relu => {
                for (v, sums) in sums.iter().enumerate().take(now.len().div_ceil(LANES)) {
                    let gate = self.gates[0].row(r);
                    let h = cells::elman(cell == Cell::Relu, add(load(gate, v * LANES), sums));
                    store(gate, v * LANES, h);
                    self.put(r, v * LANES, padded, now, h);
                }
            }
            Cell::Gru => {
                let (mut x, mut hidden) = ([[0.0; LANES]; 3], sums[2]);
                for (g, x) in x.iter_mut().enumerate() {
                    *x = load(self.gates[g].row(r), 0);
                }
                x[0] = add(x[0], &sums[0]);
                x[1] = add(x[1], &sums[1]);
                let bias = &self.a.bias[self.a.width() + 2 * self.a.hidden + first..][..now.len()];
                hidden = add(hidden, &load(bias, 0));
                let new = cells::gru(x, hidden, load(now, 0));
                for (g, gate) in new.gates.into_iter().enumerate() {
                    store(self.gates[g].row(r), 0, gate);
                }
                store(self.extra.as_mut().expect("a GRU's").row(r), 0, hidden);
                self.put(r, 0, padded, now, new.h);
            }
            Cell::Lstm => {
                let mut x = [[0.0; LANES]; 4];
                for (g, x) in x.iter_mut().enumerate() {
                    *x = add(load(self.gates[g].row(r), 0), &sums[g]);
                }
                let c = self.c.as_mut().expect("an LSTM's").row(r);
                let former = load(c, 0);
                let new = cells::lstm(x, former);
                if !padded {
                    store(c, 0, new.c);
                }
                for (g, gate) in new.gates.into_iter().enumerate() {
                    store(self.gates[g].row(r), 0, gate);
                }
                store(self.extra.as_mut().expect("an LSTM's").row(r), 0, former);
                self.put(r, 0, padded, now, new.h);
            }
        }
    }

    #[inline(always)]
    fn put(&mut self, r: usize, at: usize, padded: bool, now: &[f32], h: Lanes) {
        let former = load(now, at);
        store(self.before.row(r), at, former);
        store(self.next.row(r), at, if padded { former } else { h });
        store(self.y.row(r), at, if padded { [0.0; LANES] } else { h });
    }
}

#[inline(always)]
fn add(mut a: Lanes, b: &Lanes) -> Lanes {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// Sixteen numbers from `at` on, zeros behind the last.
#[inline(always)]
fn load(x: &[f32], at: usize) -> Lanes {
    let x = &x[at..];
    match x.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut lanes = [0.0; LANES];
            lanes[..x.len()].copy_from_slice(x);
            lanes
        }
    }
}

#[inline(always)]
fn store(x: &mut [f32], at: usize, lanes: Lanes) {
    let x = &mut x[at..];
    match x.first_chunk_mut() {
        Some(whole) => *whole = lanes,
        None => x.copy_from_slice(&lanes[..x.len()]),
    }
}
