//! One loop compiled for several instruction sets; the best one that this CPU has is run.

/// `for_this_cpu!(name = body(arg: Type, ..))` makes `fn name(arg: Type, ..)` that runs the
/// `#[inline(always)]` function `body`, compiled for AVX-512 or AVX2 where the CPU has it.
#[macro_export]
#[doc(hidden)]
macro_rules! for_this_cpu {
    ($name:ident = $body:ident($($arg:ident: $type:ty),*)) => {
        fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,fma")]
                fn avx512($($arg: $type),*) {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) {
                    $body($($arg),*)
                }
                if std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("fma")
                {
                    #[expect(unsafe_code, reason = "a safe function of a wider instruction set")]
                    // SAFETY: the CPU has every feature that `avx512` is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    #[expect(unsafe_code, reason = "a safe function of a wider instruction set")]
                    // SAFETY: the CPU has every feature that `avx2` is compiled for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}

/// For loops that are written by hand.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    std::is_x86_feature_detected!("avx512f")
}

/// As [`has_avx512`]; with fused multiplication and addition.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
}

/// Asks for the cache lines of `of`, to be there when they are read or written.
#[inline(always)]
pub(crate) fn prefetch<T>(of: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in of.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "a hint that takes a pointer")]
        // SAFETY: a prefetch reads nothing, and the CPU has had the instruction since SSE.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = of;
}
