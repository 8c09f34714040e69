//! Backpropagation through all steps.

use rayon::prelude::*;

use super::{
    Cell, Memory, Padded, Recurrence, add, at_step, by_gate, cells, in_parallel, load, next_of,
    panel::{LANES, Panel, Panels, ROWS, VECTORS},
    split, store, tiles,
};
use crate::{
    cpu::prefetch,
    matmul::{Matrix, MatrixMut, matmul, sum_rows},
};

/// Where gradients go, each in the shape of what it is of; `None` where nobody asks.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    pub x: Option<&'a mut [f32]>,
    pub weight_ih: Option<&'a mut [f32]>,
    pub weight_hh: Option<&'a mut [f32]>,
    pub bias: Option<&'a mut [f32]>,
    pub state: Option<&'a mut [f32]>,
}

/// Of [`super::forward`]; `dy`: `[B, T, H]`, `dlast`: `[S, B, H]`.
pub fn backward(a: &Recurrence, memory: Memory, dy: &[f32], dlast: &[f32], out: Gradients) {
    a.check();
    let Recurrence { batch, steps, hidden, .. } = *a;
    let (width, count) = (a.width(), batch * steps);
    assert!(dy.len() == count * hidden && dlast.len() == a.state.len());
    assert_eq!(memory.before.len(), dy.len());
    // The gates' buffer becomes that of the gradients of the sums over the inputs, and a GRU's other one that of its
    // candidate's sum over the state.
    let Memory { mut gates, before, mut extra } = memory;
    let mut dstate = dlast.to_vec();
    let panels = (steps > 1).then(|| {
        let column = |panel: usize, vector: usize, lane: usize| {
            let unit = (panel * VECTORS + vector) * LANES + lane;
            (unit < hidden).then_some(unit)
        };
        let weight = Matrix::new(a.weight_hh, width, hidden);
        Panels::new(weight, hidden.div_ceil(UNITS), column)
    });
    let rows = a.rows_of_a_task();
    let tasks = batch.div_ceil(rows);
    let sequences = rows * steps * hidden;
    let (dh, dc) = dstate.split_at_mut(batch * hidden);
    let parts = split(&mut gates, a.cell.gates() * sequences, tasks)
        .zip(split(&mut extra, sequences, tasks))
        .zip(split(dh, rows * hidden, tasks))
        .zip(split(dc, rows * hidden, tasks))
        .enumerate();
    let parts = parts.map(|(task, (((gates, extra), carry), dc))| {
        let first = task * rows;
        let rows = rows.min(batch - first);
        Sequences {
            a,
            first,
            rows,
            shared: tasks == 1,
            before: &before,
            dy,
            gates,
            extra,
            carry,
            dc,
        }
    });
    let parts: Vec<Sequences> = parts.collect();
    parts.into_par_iter().for_each(|part| part.backward(panels.as_ref()));

    let dgates = Matrix::new(&gates, count, width);
    let [x, weight] = a.inputs();
    if let Some(dx) = out.x {
        matmul(dgates, weight.transposed(), None, dx);
    }
    if let Some(dweight) = out.weight_ih {
        matmul(dgates.transposed(), x, None, dweight);
    }
    // Columns of the gates that the sums over the state share with those over the inputs, and the others.
    let shared = if a.cell == Cell::Gru { 2 * hidden } else { width };
    if let Some(dweight) = out.weight_hh {
        let before = Matrix::new(&before, count, hidden);
        let (first, rest) = dweight.split_at_mut(shared * hidden);
        let dgates = Matrix::strided(&gates, count, shared, width, 1);
        matmul(dgates.transposed(), before, None, first);
        if !rest.is_empty() {
            matmul(Matrix::new(&extra, count, hidden).transposed(), before, None, rest);
        }
    }
    if let Some(dbias) = out.bias {
        let (of_inputs, of_state) = dbias.split_at_mut(width);
        sum_rows(&gates, of_inputs);
        of_state[..shared].copy_from_slice(&of_inputs[..shared]);
        if shared < width {
            sum_rows(&extra, &mut of_state[shared..]);
        }
    }
    if let Some(out) = out.state {
        out.copy_from_slice(&dstate);
    }
}

/// Units of a block.
const UNITS: usize = VECTORS * LANES;

/// Some rows of the batch.
struct Sequences<'a> {
    a: &'a Recurrence<'a>,
    first: usize,
    rows: usize,
    shared: bool,
    /// `[B, T, H]`, as is `dy`.
    before: &'a [f32],
    dy: &'a [f32],
    gates: &'a mut [f32],
    extra: &'a mut [f32],
    /// `[rows, H]`: of the state, as far as it is known without the product; in the end all of it.
    carry: &'a mut [f32],
    dc: &'a mut [f32],
}

impl Sequences<'_> {
    fn backward(self, panels: Option<&Panels>) {
        let Self { a, first, rows, shared, before, dy, gates, extra, carry, dc } = self;
        let (hidden, width) = (a.hidden, a.width());
        // Gradients of the sums over the state.
        let mut now = vec![0.0; rows * width];
        let mut next = vec![0.0; rows * width];
        for index in (0..a.steps).rev() {
            let t = a.step(index);
            {
                let mut gates = by_gate(at_step(gates, rows, a.steps, t), hidden, UNITS);
                let mut dsums = by_gate(at_step(&mut next, rows, 1, 0), hidden, UNITS);
                let mut extra = (!extra.is_empty())
                    .then(|| at_step(extra, rows, a.steps, t).into_blocks_of_cols(UNITS));
                let mut carry = at_step(carry, rows, 1, 0).into_blocks_of_cols(UNITS);
                let mut dc =
                    (!dc.is_empty()).then(|| at_step(dc, rows, 1, 0).into_blocks_of_cols(UNITS));
                let blocks = (0..hidden.div_ceil(UNITS)).map(|panel| Block {
                    a,
                    panel,
                    // Nothing comes from behind the last step but what `carry` has.
                    product: panels
                        .filter(|_| index + 1 < a.steps)
                        .map(|panels| panels.panel(panel)),
                    padded: Padded { a, first, t },
                    now: &now,
                    before,
                    dy,
                    gates: gates.iter_mut().map(next_of).collect(),
                    dsums: dsums.iter_mut().map(next_of).collect(),
                    extra: extra.as_mut().map(next_of),
                    carry: next_of(&mut carry),
                    dc: dc.as_mut().map(next_of),
                });
                in_parallel(shared, blocks.collect(), dispatch_block);
            }
            std::mem::swap(&mut now, &mut next);
        }
        let weight = Matrix::new(a.weight_hh, width, hidden);
        let mut product = vec![0.0; carry.len()];
        matmul(Matrix::new(&now, rows, width), weight, None, &mut product);
        carry.iter_mut().zip(&product).for_each(|(carry, x)| *carry += x);
    }
}

/// Some units in one step.
struct Block<'a> {
    a: &'a Recurrence<'a>,
    panel: usize,
    product: Option<Panel<'a>>,
    padded: Padded<'a>,
    /// `[rows, G H]`: gradients of the sums over the state in the step after this.
    now: &'a [f32],
    before: &'a [f32],
    dy: &'a [f32],
    /// Of the block's units, as all below: gates, which become their sums' gradients.
    gates: Vec<MatrixMut<'a>>,
    /// As `now`, of this step.
    dsums: Vec<MatrixMut<'a>>,
    extra: Option<MatrixMut<'a>>,
    carry: MatrixMut<'a>,
    dc: Option<MatrixMut<'a>>,
}

#[inline(always)]
fn run(mut block: Block) {
    let (rows, width) = (block.carry.rows(), block.a.width());
    let vectors = block.carry.row(0).len().div_ceil(LANES);
    for (tile, (first, count)) in tiles(rows).enumerate() {
        let mut sums = [[[0.0; LANES]; VECTORS]; ROWS];
        block.ask_for(first, count);
        if let Some(panel) = block.product {
            panel.sums(&block.now[first * width..], count, vectors, tile, &mut sums);
        }
        for (r, sums) in (first..first + count).zip(&sums) {
            for (v, sums) in sums.iter().enumerate().take(vectors) {
                let dh = add(load(block.carry.row(r), v * LANES), sums);
                block.step(r, v * LANES, dh);
            }
        }
    }
}

crate::for_this_cpu!(dispatch_block = run(block: Block));

impl Block<'_> {
    /// As in the forward pass.
    #[inline(always)]
    fn ask_for(&mut self, first: usize, count: usize) {
        for r in first..first + count {
            let written = self.gates.iter_mut().chain(&mut self.extra);
            written.for_each(|x| prefetch(x.row(r)));
            let (from, units) = (self.place(r), self.carry.row(r).len());
            prefetch(&self.dy[from..][..units]);
            prefetch(&self.before[from..][..units]);
        }
    }

    /// Where the block's units begin in `dy` and `before`.
    #[inline(always)]
    fn place(&self, r: usize) -> usize {
        let Padded { first, t, .. } = self.padded;
        ((first + r) * self.a.steps + t) * self.a.hidden + self.panel * UNITS
    }

    /// From the gradient of the state after the step to that of the state before it; sixteen units from `at` on.
    #[inline(always)]
    fn step(&mut self, r: usize, at: usize, dh: [f32; LANES]) {
        const NONE: [f32; LANES] = [0.0; LANES];
        let cell = self.a.cell;
        if self.padded.row(r) {
            store(self.carry.row(r), at, dh);
            for gate in self.gates.iter_mut().chain(&mut self.dsums) {
                store(gate.row(r), at, NONE);
            }
            if let (Cell::Gru, Some(extra)) = (cell, &mut self.extra) {
                store(extra.row(r), at, NONE);
            }
            return;
        }
        let count = self.carry.row(r).len() - at;
        let from = self.place(r) + at;
        let of_step = |x: &[f32]| load(&x[from..][..count.min(LANES)], 0);
        let dh = add(dh, &of_step(self.dy));
        let mut carry = NONE;
        match cell {
            Cell::Tanh | Cell::Relu => {
                let h = load(self.gates[0].row(r), at);
                self.put(r, at, [cells::elman_gradient(cell == Cell::Relu, h, dh)]);
            }
            Cell::Gru => {
                let extra = self.extra.as_mut().expect("a GRU's").row(r);
                let former = of_step(self.before);
                let sum = load(extra, at);
                let gates = [0, 1, 2].map(|g| load(self.gates[g].row(r), at));
                let d = cells::gru_gradient(gates, sum, former, dh);
                store(extra, at, d.hidden);
                carry = d.h;
                self.put(r, at, d.gates);
                store(self.dsums[2].row(r), at, d.hidden);
            }
            Cell::Lstm => {
                let former = load(self.extra.as_mut().expect("an LSTM's").row(r), at);
                let dc = self.dc.as_mut().expect("an LSTM's").row(r);
                let gates = [0, 1, 2, 3].map(|g| load(self.gates[g].row(r), at));
                let (gates, next) = cells::lstm_gradient(gates, former, dh, load(dc, at));
                store(dc, at, next);
                self.put(r, at, gates);
            }
        }
        store(self.carry.row(r), at, carry);
    }

    #[inline(always)]
    fn put<const G: usize>(&mut self, r: usize, at: usize, d: [[f32; LANES]; G]) {
        for (g, d) in d.into_iter().enumerate() {
            store(self.gates[g].row(r), at, d);
            store(self.dsums[g].row(r), at, d);
        }
    }
}
