//! The loops around a tile, and what all instruction sets share.

#![expect(unsafe_code, reason = "checks in these loops would cost much of their speed")]

use std::{
    arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch},
    cell::UnsafeCell,
};

use super::{COLS, LANES, Matrix, MatrixMut, Plus, ROWS};
use crate::affine::Line;

/// Rows of the deepest panel.
pub(super) const DEPTH: usize = 256;
/// Rows of the left matrix that stay in the core's own cache, half of it with [`DEPTH`].
const BLOCK: usize = 64 * ROWS;

/// Rows of a panel of which all strips stay in the core's first cache.
const SHALLOW: usize = 96;
/// Numbers of a page.
const PAGE: usize = 1024;

/// And behind its end what may be written beside the last row.
#[repr(align(64))]
struct Panel([f32; DEPTH * COLS + LANES]);

struct Buffers {
    panel: Box<Panel>,
    /// Of a left matrix whose rows do not lie in one piece, or in bf16.
    block: Vec<f32>,
}

thread_local! {
    static BUFFERS: UnsafeCell<Buffers> = UnsafeCell::new(Buffers {
        panel: Box::new(Panel([0.0; DEPTH * COLS + LANES])),
        block: vec![],
    });
}

/// Where a number is read and how far it is to the next row and the next column.
#[derive(Clone, Copy)]
pub(super) struct From {
    pub data: *const f32,
    pub row: usize,
    pub col: usize,
}

impl From {
    fn of(x: Matrix) -> Self {
        Self { data: x.data.as_ptr(), row: x.row_stride, col: x.col_stride }
    }

    pub fn at(self, row: usize, col: usize) -> Self {
        Self { data: self.data.wrapping_add(row * self.row + col * self.col), ..self }
    }

    pub fn turned(self) -> Self {
        Self { row: self.col, col: self.row, ..self }
    }
}

/// What a tile is multiplied from and written to.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub a: From,
    pub panel: *const f32,
    pub depth: usize,
    pub out: *mut f32,
    pub out_row: usize,
    /// How far behind `out` is what the CPU is asked for meanwhile.
    pub expected: usize,
    /// Lanes of the last register of each row.
    pub mask: u16,
    /// A number a column, or null.
    pub bias: *const f32,
    /// Is `out` itself added?
    pub add: bool,
    pub finish: Option<Finish>,
    pub next: Ahead,
}

/// [`super::Rows`] from a tile's first row and column on.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// A number a row each, or null.
    pub scale: *const f32,
    pub shift: *const f32,
    /// Or null.
    pub residual: *const f32,
    pub residual_row: usize,
    pub low: f32,
    pub high: f32,
}

impl Finish {
    fn of(plus: Plus) -> Option<Self> {
        let Plus::Rows(rows) = plus else { return None };
        let null = std::ptr::null;
        let Line { low, high, .. } = Line::new(1.0, 0.0, rows.activation);
        Some(Self {
            scale: rows.scale.map_or(null(), <[f32]>::as_ptr),
            shift: rows.shift.map_or(null(), <[f32]>::as_ptr),
            residual: rows.residual.map_or(null(), |residual| residual.data.as_ptr()),
            residual_row: rows.residual.map_or(0, |residual| residual.row_stride),
            low,
            high,
        })
    }

    /// From this row and column on.
    fn at(self, row: usize, col: usize) -> Self {
        let later = |x: *const f32, by: usize| if x.is_null() { x } else { x.wrapping_add(by) };
        Self {
            scale: later(self.scale, row),
            shift: later(self.shift, row),
            residual: later(self.residual, row * self.residual_row + col),
            ..self
        }
    }
}

/// What one instruction set does its own way; each of its functions wants a CPU that has it.
pub(super) trait Instructions {
    /// Columns of a tile; the panel holds as many after one another.
    const COLS: usize;
    /// Rows of a panel, of pairs where a lane holds two numbers; at most [`DEPTH`].
    const DEPTH: usize;
    /// Numbers of a lane.
    const PAIR: usize;

    /// How far [`Self::left`] puts a number from that of the next row and of the next column.
    const LEFT: [usize; 2];

    /// Whether a block of `a` is multiplied with `cols` columns as it lies.
    fn reads(a: From, cols: usize) -> bool;

    /// Copies `rows` rows of `depth` numbers of the left matrix, those of a tile to [`DEPTH`] lanes for each row.
    unsafe fn left(from: From, rows: usize, depth: usize, to: *mut f32);

    /// Copies `depth` rows of `width` numbers of the right one, each to whole sixteens of lanes; those behind `width` hold
    /// anything, finite or not, as nothing of them is written.
    unsafe fn right(from: From, depth: usize, width: usize, panel: *mut f32);

    /// Multiplies `rows` rows with `vectors` sixteens of columns.
    unsafe fn tile(tile: Tile, vectors: usize, rows: usize);
}

/// The right matrix, of which panels are made.
pub(super) trait Right<I: Instructions>: Copy {
    /// What [`Instructions::right`] does, for the numbers from `first` (row and column) on.
    unsafe fn copy(self, first: [usize; 2], depth: usize, width: usize, panel: *mut f32);

    /// What of the panel from `first` on is fetched during `tiles` tiles.
    fn ahead(self, first: [usize; 2], depth: usize, width: usize, tiles: usize) -> Ahead;
}

impl<I: Instructions> Right<I> for Matrix<'_> {
    unsafe fn copy(self, [row, col]: [usize; 2], depth: usize, width: usize, panel: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { I::right(From::of(self).at(row, col), depth, width, panel) }
    }

    fn ahead(self, [row, col]: [usize; 2], depth: usize, width: usize, tiles: usize) -> Ahead {
        Ahead::new(From::of(self).at(row, col), depth, width, tiles)
    }
}

/// `out = a b + plus`. The CPU has the instructions; every index below the three sizes is inside its data, and `out` is
/// borrowed alone.
pub(super) unsafe fn product<I: Instructions, B: Right<I>>(
    out: &mut MatrixMut,
    plus: Plus,
    a: Matrix,
    b: B,
) {
    // SAFETY: no other borrow of this thread's buffers is alive: nothing below calls back.
    let buffers = BUFFERS.with(|buffers| unsafe { &mut *buffers.get() });
    let (panel, block) = (buffers.panel.0.as_mut_ptr(), &mut buffers.block);
    let (rows, cols, depth) = (a.rows, out.cols, a.cols);
    let (a, finish) = (From::of(a), Finish::of(plus));
    for row in (0..rows).step_by(BLOCK) {
        let rows = BLOCK.min(rows - row);
        // At least once, to write what is added to nothing.
        for first in (0..depth.max(1)).step_by(I::DEPTH * I::PAIR) {
            let whole = depth;
            let depth = (I::DEPTH * I::PAIR).min(depth - first);
            let finish = finish.filter(|_| first + depth == whole);
            let mut a = a.at(row, first);
            let mut step = a.row;
            let lies = I::reads(a, cols);
            if !lies {
                block.resize(BLOCK * DEPTH, 0.0);
                let to = block.as_mut_ptr();
                unsafe { I::left(a, rows, depth, to) };
                let [row, col] = I::LEFT;
                (a, step) = (From { data: to, row, col }, DEPTH);
            }
            for col in (0..cols).step_by(COLS) {
                let width = COLS.min(cols - col);
                let strips = (0..width).step_by(I::COLS);
                for strip in strips.clone() {
                    let (col, width) = (col + strip, I::COLS.min(width - strip));
                    unsafe { b.copy([first, col], depth, width, panel.add(strip * I::DEPTH)) };
                }
                let counts = [strips.len(), rows.div_ceil(ROWS)];
                let tiles = counts[0] * counts[1];
                let mut next = match col + COLS < cols {
                    true => {
                        let width = COLS.min(cols - col - COLS);
                        b.ahead([first, col + COLS], depth, width, tiles)
                    }
                    false => Ahead::NOTHING,
                };
                let several = counts[0] > 1;
                // Rows of the output that are pages apart are written in longer pieces, asked for before.
                let shallow = several && depth <= SHALLOW && out.row_stride >= PAGE;
                // A left matrix for few columns is read once, its next rows meanwhile.
                let narrow = several && lies && cols <= COLS;
                let by_rows = shallow || narrow;
                let [outer, inner] = if by_rows { [counts[1], counts[0]] } else { counts };
                for outer in 0..outer {
                    for inner in 0..inner {
                        let [strip, i] = if by_rows { [inner, outer] } else { [outer, inner] };
                        if narrow {
                            (strip..ROWS).step_by(counts[0]).for_each(|row| {
                                let next = a.data.wrapping_add(((i + 1) * ROWS + row) * step);
                                ask::<_MM_HINT_T0>(next, depth);
                            });
                        }
                        let (strip, i) = (strip * I::COLS, i * ROWS);
                        let (col, width) = (col + strip, I::COLS.min(width - strip));
                        let vectors = width.div_ceil(LANES);
                        let bias = match plus {
                            Plus::Bias(bias) if first == 0 => bias[col..].as_ptr(),
                            _ => std::ptr::null(),
                        };
                        let tile = Tile {
                            a: From { data: a.data.wrapping_add(i * step), ..a },
                            panel: panel.wrapping_add(strip * I::DEPTH),
                            depth: depth.div_ceil(I::PAIR),
                            out: out.data.wrapping_add((row + i) * out.row_stride + col),
                            out_row: out.row_stride,
                            expected: if shallow { COLS } else { 0 },
                            mask: u16::MAX >> (vectors * LANES - width),
                            bias,
                            add: first > 0 || matches!(plus, Plus::Itself),
                            finish: finish.map(|finish| finish.at(row + i, col)),
                            next,
                        };
                        let rows = ROWS.min(rows - i);
                        // SAFETY: the tile is inside `out`, and what it reads inside `a` and the panel.
                        unsafe { I::tile(tile, vectors, rows) };
                        next = next.after(tile.depth.div_ceil(LANES));
                    }
                }
            }
        }
    }
}

/// What is fetched meanwhile: pieces of `length` numbers, one every `stride`, until none is `left`.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    data: *const f32,
    left: usize,
    length: usize,
    stride: usize,
    /// Pieces at a time, with each sixteen rows of a panel.
    pieces: usize,
}

impl Ahead {
    pub const NOTHING: Self =
        Self { data: std::ptr::null(), left: 0, length: 0, stride: 0, pieces: 0 };

    /// Of a panel, during `tiles` tiles.
    fn new(from: From, depth: usize, width: usize, tiles: usize) -> Self {
        let From { data, row, col } = from;
        let (left, length, stride) =
            if col == 1 { (depth, width, row) } else { (width, depth, col) };
        let times = tiles * depth.div_ceil(LANES).max(1);
        Self { data, left, length, stride, pieces: left.div_ceil(times) }
    }

    #[inline(always)]
    pub fn fetch(&mut self) {
        let pieces = self.pieces.min(self.left);
        for piece in 0..pieces {
            ask::<_MM_HINT_T1>(self.data.wrapping_add(piece * self.stride), self.length);
        }
        *self = self.after(1);
    }

    /// Behind what `times` calls of [`Self::fetch`] fetch.
    #[inline(always)]
    fn after(self, times: usize) -> Self {
        let pieces = (times * self.pieces).min(self.left);
        let data = self.data.wrapping_add(pieces * self.stride);
        Self { data, left: self.left - pieces, ..self }
    }
}

/// Asks for numbers that lie in one piece.
#[inline(always)]
fn ask<const HINT: i32>(from: *const f32, count: usize) {
    for at in (0..count).step_by(LANES) {
        // SAFETY: a prefetch reads nothing.
        unsafe { _mm_prefetch::<HINT>(from.wrapping_add(at).cast()) };
    }
}

impl Tile {
    /// Asks for the place of `rows` rows of `vectors` sixteens, or of a tile to come.
    #[inline(always)]
    pub fn expect(&self, rows: usize, vectors: usize) {
        for r in 0..rows {
            for v in 0..vectors {
                let place = self.out.wrapping_add(r * self.out_row + v * LANES + self.expected);
                // SAFETY: a prefetch reads nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
            }
        }
    }
}
