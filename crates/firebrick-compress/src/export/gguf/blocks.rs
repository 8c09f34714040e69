//! How ggml stores numbers: <https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c>.

use burn::tensor::{bf16, f16};

/// Numbers that share a scale.
const BLOCK: usize = 32;

/// Number type of matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    F32,
    F16,
    Bf16,
    /// `Q8_0`: whole numbers of 8 bits, 32 with a scale in f16.
    Int8,
    /// `Q4_0`: the same of 4 bits.
    Int4,
}

impl Number {
    /// ggml's number of it.
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 30,
            Self::Int8 => 8,
            Self::Int4 => 2,
        }
    }

    /// `general.file_type`
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 32,
            Self::Int8 => 7,
            Self::Int4 => 2,
        }
    }

    /// Rows that are no whole number of blocks stay f16.
    pub fn for_rows_of(self, columns: usize) -> Self {
        match self {
            Self::Int8 | Self::Int4 if !columns.is_multiple_of(BLOCK) => Self::F16,
            other => other,
        }
    }

    pub fn row_bytes(self, columns: usize) -> u64 {
        let bytes = match self {
            Self::F32 => 4 * columns,
            Self::F16 | Self::Bf16 => 2 * columns,
            Self::Int8 => columns / BLOCK * (2 + BLOCK),
            Self::Int4 => columns / BLOCK * (2 + BLOCK / 2),
        };
        bytes as u64
    }

    /// Rows of `columns` each.
    pub fn store(self, floats: &[f32], columns: usize) -> Vec<u8> {
        debug_assert!(floats.len().is_multiple_of(columns.max(1)));
        match self {
            Self::F32 => floats.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16 => floats.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Self::Bf16 => floats.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            Self::Int8 => floats.chunks_exact(BLOCK).flat_map(int8).collect(),
            Self::Int4 => floats.chunks_exact(BLOCK).flat_map(int4).collect(),
        }
    }
}

fn int8(block: &[f32]) -> Vec<u8> {
    let largest = block.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let levels = block.iter().map(|x| (x * inverse).round() as i8 as u8);
    f16::from_f32(scale).to_le_bytes().into_iter().chain(levels).collect()
}

/// The number furthest from 0 becomes -8; the first half of the block lies in low halves of bytes.
fn int4(block: &[f32]) -> Vec<u8> {
    let furthest =
        block.iter().fold(0.0_f32, |most, x| if x.abs() > most.abs() { *x } else { most });
    let scale = furthest / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let level = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    let pairs = low.iter().zip(high).map(|(low, high)| level(*low) | (level(*high) << 4));
    f16::from_f32(scale).to_le_bytes().into_iter().chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Vec<f32> {
        (0..64).map(|i| ((i * 37 % 64) as f32 - 31.5) / 16.0).collect()
    }

    #[test]
    fn blocks_are_as_long_as_they_say() {
        for number in [Number::F32, Number::F16, Number::Bf16, Number::Int8, Number::Int4] {
            let stored = number.store(&numbers(), 64);
            assert_eq!(stored.len() as u64, number.row_bytes(64), "{number:?}");
        }
        assert_eq!(Number::Int4.for_rows_of(33), Number::F16);
    }

    #[test]
    fn levels_times_scales_are_near() {
        let x = numbers();
        let scale = |block: &[u8]| f16::from_le_bytes([block[0], block[1]]).to_f32();
        let eight = Number::Int8.store(&x, 64);
        for (block, x) in eight.chunks(34).zip(x.chunks(32)) {
            for (level, x) in block[2..].iter().zip(x) {
                assert!((f32::from(*level as i8) * scale(block) - x).abs() <= 0.51 * scale(block));
            }
        }
        let four = Number::Int4.store(&x, 64);
        for (block, x) in four.chunks(18).zip(x.chunks(32)) {
            for (i, x) in x.iter().enumerate() {
                let byte = block[2 + i % 16];
                let level = f32::from(if i < 16 { byte & 15 } else { byte >> 4 }) - 8.0;
                // The other end reaches to 7 only.
                assert!((level * scale(block) - x).abs() <= 1.01 * scale(block).abs(), "{i}");
            }
        }
    }
}
