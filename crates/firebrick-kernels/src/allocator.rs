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
