//! Some lanes of an AVX2 register.

#![expect(unsafe_code, reason = "registers of which some lanes are read and written")]

use std::arch::x86_64::*;

/// All of them are read and written whole: the CPU does not see ahead of other loads, and a store of some takes ten times as
/// long.
#[derive(Clone, Copy)]
pub(crate) enum Lanes {
    All,
    Some(__m256i),
}

impl Lanes {
    /// A lane a bit, the first for the lowest.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn of(bits: u8) -> Self {
        if bits == u8::MAX {
            return Self::All;
        }
        let each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        let some = _mm256_and_si256(_mm256_set1_epi32(bits.into()), each);
        Self::Some(_mm256_cmpeq_epi32(some, each))
    }

    /// Zero in the others, which need not lie in any memory.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        match self {
            Self::All => unsafe { _mm256_loadu_ps(from) },
            Self::Some(lanes) => unsafe { _mm256_maskload_ps(from, lanes) },
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn store(self, to: *mut f32, x: __m256) {
        // SAFETY: the caller's promise.
        match self {
            Self::All => unsafe { _mm256_storeu_ps(to, x) },
            Self::Some(lanes) => unsafe { _mm256_maskstore_ps(to, lanes, x) },
        }
    }
}
