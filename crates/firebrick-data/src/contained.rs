//! Work of foreign code on foreign bytes, whose panics are answers like any other.

use std::{cell::Cell, panic, sync::Once};

thread_local! {
    /// Whether a panic of this thread is expected and dealt with.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// `None` where `work` panics, and no word of it: decoders meet bytes that their authors did not think of.
pub fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                before(info);
            }
        }));
    });
    let outer = CONTAINED.replace(true);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work));
    CONTAINED.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_contained() {
        assert_eq!(contained(|| -> u8 { panic!("a decoder's bug") }), None);
        assert_eq!(contained(|| 3), Some(3));
    }
}
