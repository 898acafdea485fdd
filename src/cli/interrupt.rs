//! Ctrl-C: the first one asks a run to stop, the second one ends the program.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::error::INTERRUPTED;
use super::terminal::note;

/// Whether a system or a user asked this program alone to end, and not a terminal all that it runs.
static IS_TERMINATED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// How long a user waits at most until the program says that it heard.
const SOON: Duration = Duration::from_millis(50);

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
        if watch(&flag).is_ok() {
            let flag = flag.clone();
            std::thread::spawn(move || {
                while !flag.load(Ordering::Relaxed) {
                    std::thread::sleep(SOON);
                }
                note("stopping as soon as it is safe; interrupt again to stop at once");
            });
        }
        flag
    })
}

/// A flag that is set when the terminal hangs up or a system asks for the configuration to be read again (SIGHUP).
#[cfg(feature = "serve")]
pub(super) fn hung_up() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    // Where there is no such signal, or no way to watch for it, it stays as it is.
    #[cfg(unix)]
    let _ = flag::register(signal_hook::consts::SIGHUP, flag.clone());
    flag
}

fn watch(flag: &Arc<AtomicBool>) -> std::io::Result<()> {
    flag::register(SIGTERM, IS_TERMINATED.clone())?;
    for signal in [SIGINT, SIGTERM] {
        // In this order: only what finds the flag set ends the program.
        flag::register_conditional_shutdown(signal, INTERRUPTED.into(), flag.clone())?;
        flag::register(signal, flag.clone())?;
    }
    Ok(())
}
