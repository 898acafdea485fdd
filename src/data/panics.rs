//! Libraries that panic on some damaged files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// What a call returns; nothing if it panics, and then nothing is printed. What the call was working on must not be used any more.
pub(super) fn without_panic<T>(call: impl FnOnce() -> T) -> Option<T> {
    thread_local! {
        static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
    }
    // Nobody needs to see the panic besides; those of other threads are printed as ever.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let former = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                former(panic);
            }
        }));
    });
    IS_GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(false);
    result.ok()
}
