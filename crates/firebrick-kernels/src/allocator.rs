//! Memory for tensors.
//!
//! glibc gives large blocks back to the system at once and faults them in again at the next step: a
//! third of a training step's time. `benches/benches/allocator.rs` measures it.

use std::alloc::{GlobalAlloc, Layout, System};

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

/// The system's allocator, whose large blocks begin with a cache line: two threads that share the columns of a matrix
/// then do not write to the same lines, and no register of 64 bytes is read from two. For the binary's
/// `#[global_allocator]`; `cargo run --release --example speed` in this crate measures it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CacheLines;

/// Bytes from which a block begins with a line.
const LARGE: usize = 4096;
const LINE: usize = 64;

#[expect(unsafe_code, reason = "what an allocator is")]
// SAFETY: every block is one of the system's. On Unix those go back by `free` and grow by `realloc` whatever they were
// aligned to; elsewhere nothing is changed.
unsafe impl GlobalAlloc for CacheLines {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let align = if cfg!(unix) && layout.size() >= LARGE { LINE } else { 1 };
        let layout = layout.align_to(align).unwrap_or(layout);
        // SAFETY: the caller's promises, and a layout of the same size.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises.
        unsafe { System.dealloc(block, layout) }
    }

    /// As the system has them: pages that are zeros already are not touched.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// `len` zeros in pages of 2 MiB, for what is read again and again, as weights are.
///
/// Linux has pages of 4 KiB unless told otherwise; at every end of one the CPU stops to read ahead and looks for the next.
/// `cargo bench --bench kernels -- pages` measures it.
pub fn lasting<T: Copy + Default>(len: usize) -> Vec<T> {
    let mut x = Vec::with_capacity(len);
    // Before the first write, which takes the page.
    large_pages(x.spare_capacity_mut());
    x.resize(len, T::default());
    x
}

#[cfg(target_os = "linux")]
fn large_pages<T>(x: &[T]) {
    const PAGE: usize = 2 << 20;
    const BEYOND: usize = 16 * PAGE;
    let bytes = x.as_ptr_range();
    let (start, end) = (bytes.start as usize, bytes.end as usize);
    if end - start < PAGE / 2 {
        return;
    }
    // Outwards, for small weights lie side by side and share pages; and far beyond, because with the next weight the
    // allocator writes behind it before it comes here, and takes a small page in the midst of a large one.
    let (start, end) = (start / PAGE * PAGE, end.next_multiple_of(PAGE) + BEYOND);
    #[expect(unsafe_code, reason = "madvise is a call of the system")]
    // SAFETY: this advice leaves what memory holds as it is, also that of neighbours; where none is mapped it says so.
    unsafe {
        libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn large_pages<T>(_x: &[T]) {}

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
