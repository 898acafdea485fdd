//! A device is examined by a process of its own: a broken driver may take its process with it.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::error::DeviceError;
use super::examine::DeviceReport;
use crate::models::ModelError;

/// How long a device may take for its check; a software driver takes minutes to compile its kernels.
const PATIENCE: Duration = Duration::from_secs(600);

/// What says how long a GPU's backend searches for fast kernels.
const AUTOTUNE: &str = "CUBECL_AUTOTUNE_LEVEL";

/// The exit code by which the command says that it cannot do what it is asked for, whatever the device.
const REFUSED: i32 = 2;

/// Reports on a device by a command that prints an [`Examination`](super::Examination)'s report as JSON in its last
/// line. A process that ends without one, or gives no answer in ten minutes, is the device's fault.
///
/// # Errors
///
/// The command cannot be started, or ends with code 2.
pub fn examine_apart(name: &str, mut command: Command) -> Result<DeviceReport, DeviceError> {
    let failed = |source| ModelError::Io { path: "this program".into(), source };
    // Trying out kernels for speed would take most of the time.
    if std::env::var_os(AUTOTUNE).is_none() {
        command.env(AUTOTUNE, "minimal");
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let [output, errors] = [drain(child.stdout.take()), drain(child.stderr.take())];
    let status = wait(&mut child).map_err(failed)?;
    let [output, errors] = [output, errors].map(|text| text.join().unwrap_or_default());
    if let Some(report) = output.lines().next_back().and_then(|line| serde_json::from_str(line).ok()) {
        return Ok(report);
    }
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    if status.is_some_and(|status| status.code() == Some(REFUSED)) {
        return Err(DeviceError::Refused(last.trim_start_matches("error: ").to_owned()));
    }
    let problem = match status {
        None => format!("no answer within {} seconds", PATIENCE.as_secs()),
        Some(status) => format!("{status} {last}").trim_end().to_owned(),
    };
    Ok(DeviceReport::failed(name, problem))
}

/// Reads what a process says, so that it never waits for a reader.
fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was said until a failure is enough.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// How a process ended; `None` if it had to be ended.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let clock = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
