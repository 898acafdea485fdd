//! Ctrl-C: the first one asks a run to stop, the second one ends the program.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::INTERRUPTED;
use super::terminal::note;

/// Whether a system or a user asked this program alone to end, and not a terminal all that it runs.
static IS_TERMINATED: AtomicBool = AtomicBool::new(false);

/// Whether it was by a signal that programs begun by this one do not get.
pub(super) fn is_terminated() -> bool {
    IS_TERMINATED.load(Ordering::Relaxed)
}

/// Asks a program that this one began to end, where the system can.
pub(super) fn terminate(child: &Child) {
    #[cfg(unix)]
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // One that has just ended needs no asking.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    #[cfg(not(unix))]
    let _ = child;
}

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
                for signal in signals.forever() {
                    IS_TERMINATED.fetch_or(signal == SIGTERM, Ordering::Relaxed);
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
