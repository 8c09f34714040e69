//! Some lanes of an AVX2 register.

#![expect(unsafe_code, reason = "registers of which some lanes are read and written")]

use std::arch::x86_64::*;

/// All of them are read and written whole: the CPU does not see ahead of other loads, and an instruction that stores some takes
/// ten times as long, so that the first few are stored in pieces.
#[derive(Clone, Copy)]
pub(crate) enum Lanes {
    All,
    First(u32, __m256i),
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
        let some = _mm256_cmpeq_epi32(some, each);
        if bits & bits.wrapping_add(1) == 0 {
            Self::First(bits.trailing_ones(), some)
        } else {
            Self::Some(some)
        }
    }

    /// Zero in the others, which need not lie in any memory.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        match self {
            Self::All => unsafe { _mm256_loadu_ps(from) },
            Self::First(_, lanes) | Self::Some(lanes) => unsafe { _mm256_maskload_ps(from, lanes) },
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn store(self, to: *mut f32, x: __m256) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::All => _mm256_storeu_ps(to, x),
                Self::First(count, _) => first(count, to, x),
                Self::Some(lanes) => _mm256_maskstore_ps(to, lanes, x),
            }
        }
    }
}

/// Stores up to seven lanes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn first(count: u32, mut to: *mut f32, x: __m256) {
    let mut rest = _mm256_castps256_ps128(x);
    // SAFETY: the caller's promise.
    unsafe {
        if count & 4 != 0 {
            _mm_storeu_ps(to, rest);
            (to, rest) = (to.add(4), _mm256_extractf128_ps::<1>(x));
        }
        if count & 2 != 0 {
            _mm_storel_pd(to.cast(), _mm_castps_pd(rest));
            (to, rest) = (to.add(2), _mm_movehl_ps(rest, rest));
        }
        if count & 1 != 0 {
            _mm_store_ss(to, rest);
        }
    }
}
