//! Memory for tensors.
//!
//! glibc gives large blocks back to the system at once and faults them in again at the next step: a
//! third of a training step's time. `benches/benches/allocator.rs` measures it.

/// Tells glibc to keep freed memory for the next tensors. Call it once, first thing in `main`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_memory() {
    const LARGEST: libc::c_int = 1 << 30;
    #[expect(unsafe_code, reason = "mallopt is called once, before any thread is started")]
    // SAFETY: mallopt only sets the allocator's parameters; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_memory() {}

/// `len` numbers that hold anything, for what is written before it is read: to zero them first costs a pass over memory.
pub fn unwritten(len: usize) -> Vec<f32> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut x = Vec::with_capacity(len);
        #[expect(unsafe_code, reason = "memory is taken as it is")]
        // SAFETY: the compiler knows nothing of the assembly but that it may write to memory whose address it gets.
        // So the numbers are whatever that wrote, which are the bytes that lie there; any bytes are an `f32`.
        unsafe {
            std::arch::asm!("/* {0} */", in(reg) x.as_mut_ptr(), options(nostack, preserves_flags));
            x.set_len(len);
        }
        x
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    vec![0.0; len]
}
