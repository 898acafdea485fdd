//! Ctrl-C: the first one asks a run to stop, the second one ends the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::INTERRUPTED;
use super::report::note;

/// A flag that is set when the user, or a system that shuts down, asks the program to stop.
///
/// Before the first call a signal ends the program at once; a program that cannot watch for signals keeps it so.
pub(super) fn interrupted() -> &'static AtomicBool {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
            let flag = flag.clone();
            std::thread::spawn(move || {
                for _ in signals.forever() {
                    if flag.swap(true, Ordering::Relaxed) {
                        std::process::exit(INTERRUPTED.into());
                    }
                    note("stopping where the run can go on from; once more stops at once");
                }
            });
        }
        flag
    })
}
