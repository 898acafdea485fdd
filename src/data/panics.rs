//! Libraries that panic on some damaged files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

thread_local! {
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// What a call returns; nothing if it panics. What the call was working on must not be used any more.
pub(super) fn without_panic<T>(call: impl FnOnce() -> T) -> Option<T> {
    IS_EXPECTED.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_EXPECTED.set(false);
    result.ok()
}

/// Sets a panic hook that prints nothing where a damaged file makes another library panic, for which this one has an
/// error of its own; all other panics go to the hook that was there before. For programs: the hook is the whole
/// process's.
pub fn silence_expected_panics() {
    let former = take_hook();
    set_hook(Box::new(move |panic| {
        if !IS_EXPECTED.get() {
            former(panic);
        }
    }));
}
