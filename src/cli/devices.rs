use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::CliError;
use super::outputs::{check_json, write_json};
use super::terminal::{is_quiet, note, print, table};
use crate::golden::{Deviation, Golden, GoldenError};
use crate::models::hub::write_atomically;
use crate::models::{Driver, Precision, compiled_backends, device, driver};

/// How long a device may take for its check; a software driver takes minutes to compile its kernels.
const PATIENCE: Duration = Duration::from_secs(600);

/// What says how long a GPU's backend searches for fast kernels.
const AUTOTUNE: &str = "CUBECL_AUTOTUNE_LEVEL";

/// The checkpoint and figures that `--check` compares with, in Hugging Face's layout.
const BUILT_IN: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../golden/qwen2/config.json")),
    ("model.safetensors", include_bytes!("../golden/qwen2/model.safetensors")),
    ("golden.json", include_bytes!("../golden/qwen2/golden.json")),
];

/// Options of `devices`.
#[derive(Debug, Args)]
#[command(
    after_help = "The check runs a small model through everything that training and decoding do, forward and backward, and compares \
with what PyTorch computed in float64; where a device computes in 16 bits (--precision), how far those are off is printed, too. \
Each device runs in a process of its own, for a broken driver may take its process with it. The program ends with code 1 if \
a device fails. What works and what does not: docs/which-backend.md."
)]
pub(super) struct DevicesArgs {
    /// Devices to list, as `--device` takes them elsewhere; all that are compiled in if none is given
    #[arg(value_name = "DEVICE")]
    names: Vec<String>,
    /// Check each device
    #[arg(long)]
    check: bool,
    /// Check with this golden folder instead of the built-in one
    #[arg(long, value_name = "DIR", requires = "check")]
    golden: Option<PathBuf>,
    /// Write the table as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Report on one device in this process, as a JSON line
    #[arg(long, hide = true)]
    in_process: bool,
}

/// What is found out about a device.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    device: String,
    /// The driver's name for it.
    driver: Option<String>,
    /// Whether the driver computes on the CPU.
    is_software: bool,
    /// The largest deviations, if it was checked and came to an end.
    check: Option<Check>,
    /// The same in the precisions of 16 bits that it has; a software driver, which would take minutes, is not asked.
    sixteen_bits: Vec<Check>,
    /// Why it is not usable.
    problem: Option<String>,
}

/// The largest deviation of each kind of figure; a huge one stands for NaN.
#[derive(Debug, Serialize, Deserialize)]
struct Check {
    precision: Precision,
    forward: f64,
    sft_gradients: f64,
    grpo_gradients: f64,
    seconds: f64,
}

impl Report {
    /// On a device that is not usable.
    fn failed(name: &str, problem: String) -> Self {
        let (device, problem) = (name.to_owned(), Some(problem));
        Self { device, driver: None, is_software: false, check: None, sixteen_bits: Vec::new(), problem }
    }
}

impl Check {
    fn cells(&self) -> Vec<String> {
        let errors = [self.forward, self.sft_gradients, self.grpo_gradients].map(|error| format!("{error:.1e}"));
        [&errors[..], &[format!("{:.1}", self.seconds)]].concat()
    }
}

pub(super) fn run(args: &DevicesArgs) -> Result<(), CliError> {
    check_json(args.json.as_deref())?;
    let names = match args.names.is_empty() {
        true => compiled_backends().into_iter().map(str::to_owned).collect(),
        false => args.names.clone(),
    };
    if args.in_process {
        let report = names.first().map(|name| examine(name, args.check, args.golden.as_deref())).transpose()?;
        return print(&format!("{}\n", serde_json::to_string(&report).expect("a report can be written as JSON")));
    }
    let mut reports = Vec::new();
    for name in &names {
        if args.check && !is_quiet() {
            note(&format!("checking {name}"));
        }
        reports.push(examine_apart(name, args.check, args.golden.as_deref())?);
    }
    write_json(args.json.as_deref(), &reports)?;
    if !is_quiet() {
        print(&table(&rows(&reports, args.check)))?;
    }
    let failed: Vec<&str> =
        reports.iter().filter(|report| report.problem.is_some()).map(|report| report.device.as_str()).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(CliError::Devices(failed.join(", "))),
    }
}

fn rows(reports: &[Report], checked: bool) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<String>>();
    let figures = ["forward", "SFT gradients", "GRPO gradients", "seconds"];
    let mut rows = vec![words(&["device"])];
    rows[0].extend(words(if checked { &figures } else { &[] }));
    rows[0].extend(words(&["", "driver"]));
    for report in reports {
        let mut row = vec![report.device.clone()];
        if checked {
            row.extend(report.check.as_ref().map_or(words(&["-"; 4]), Check::cells));
        }
        let driver = report.driver.as_deref().unwrap_or("-");
        let software = if report.is_software { " (software)" } else { "" };
        row.push(report.problem.clone().unwrap_or_else(|| "works".into()));
        row.push(format!("{driver}{software}"));
        rows.push(row);
        for check in &report.sixteen_bits {
            rows.push([vec![format!("  in {}", check.precision)], check.cells(), words(&["", ""])].concat());
        }
    }
    rows
}

/// Reports on a device from a process of its own.
fn examine_apart(name: &str, check: bool, golden: Option<&Path>) -> Result<Report, CliError> {
    let failed = |source| crate::models::ModelError::Io { path: "this program".into(), source };
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["devices", "--in-process", name]).args(check.then_some("--check"));
    // Trying out kernels for speed would take most of the time.
    if std::env::var_os(AUTOTUNE).is_none() {
        command.env(AUTOTUNE, "minimal");
    }
    if let Some(golden) = golden {
        command.arg("--golden").arg(golden);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let [output, errors] = [drain(child.stdout.take()), drain(child.stderr.take())];
    let status = wait(&mut child).map_err(failed)?;
    let [output, errors] = [output, errors].map(|text| text.join().unwrap_or_default());
    if let Some(report) = output.lines().next_back().and_then(|line| serde_json::from_str(line).ok()) {
        return Ok(report);
    }
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    if status.is_some_and(|status| status.code() == Some(2)) {
        return Err(CliError::Usage(last.trim_start_matches("error: ").to_owned()));
    }
    let problem = match status {
        None => format!("no answer within {} seconds", PATIENCE.as_secs()),
        Some(status) => format!("{status} {last}").trim_end().to_owned(),
    };
    Ok(Report::failed(name, problem))
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

/// Reports on a device; its driver may end the process.
fn examine(name: &str, check: bool, golden: Option<&Path>) -> Result<Report, CliError> {
    let opened = match device(name) {
        Ok(device) => device,
        // A name that means nothing is the user's mistake, a device that does not open is an answer.
        Err(error) if !compiled_backends().contains(&name.split(':').next().unwrap_or_default()) => {
            return Err(error.into());
        }
        Err(error) => {
            return Ok(Report::failed(name, error.to_string()));
        }
    };
    let driver = driver(&opened);
    let is_software = driver.as_ref().is_some_and(|driver| driver.is_software);
    let mut report = Report {
        device: name.into(),
        driver: driver.map(|Driver { name, .. }| name),
        is_software,
        check: None,
        sixteen_bits: Vec::new(),
        problem: None,
    };
    if check {
        let mut golden = load(&opened, golden)?;
        // What was loaded can be computed: an error is the device's.
        let (check, deviations) = match measure(&golden, Precision::F32) {
            Ok(measured) => measured,
            Err(error) => {
                return Ok(Report { problem: Some(format!("computes NaN or infinite values: {error}")), ..report });
            }
        };
        report.check = Some(check);
        let wrong: Vec<&str> =
            deviations.iter().filter(|deviation| !deviation.holds()).map(|deviation| deviation.what.as_str()).collect();
        if let Some(first) = wrong.first() {
            report.problem =
                Some(format!("computes wrong numbers: {} of {} figures, {first} first", wrong.len(), deviations.len()));
        }
        let has = |precision: &Precision| !is_software && precision.check(&opened).is_ok();
        for precision in [Precision::Bf16, Precision::F16].into_iter().filter(has) {
            golden = golden.with_precision(precision)?;
            match measure(&golden, precision) {
                Ok((check, _)) => report.sixteen_bits.push(check),
                Err(error) => {
                    report.problem.get_or_insert(format!("in {precision}: {error}"));
                }
            }
        }
    }
    Ok(report)
}

/// All deviations of a golden model that computes in a precision, and the largest of each kind.
fn measure(golden: &Golden, precision: Precision) -> Result<(Check, Vec<Deviation>), GoldenError> {
    let clock = Instant::now();
    let deviations = match precision {
        Precision::F32 => golden.check()?,
        // The rest compares with float32's own log-probabilities, or counts.
        _ => [
            golden.hidden_states_and_thoughts()?,
            golden.target_log_probabilities()?,
            golden.sft()?,
            golden.grpo_from_one_pass()?,
        ]
        .concat(),
    };
    let worst = |part: &str| {
        let errors = deviations.iter().filter(|deviation| kind(deviation) == part).map(|deviation| deviation.error);
        errors.map(|error| if error.is_finite() { error } else { f64::MAX }).fold(0.0, f64::max)
    };
    let [forward, sft_gradients, grpo_gradients] = ["forward", "SFT", "GRPO"].map(worst);
    let seconds = clock.elapsed().as_secs_f64();
    Ok((Check { precision, forward, sft_gradients, grpo_gradients, seconds }, deviations))
}

fn kind(deviation: &Deviation) -> &'static str {
    ["SFT", "GRPO"]
        .into_iter()
        .find(|stage| deviation.what.starts_with(&format!("{stage} gradient")))
        .unwrap_or("forward")
}

fn load(device: &burn::tensor::Device, golden: Option<&Path>) -> Result<Golden, GoldenError> {
    if let Some(folder) = golden {
        return Golden::load(folder, device);
    }
    let io = |source| crate::models::ModelError::Io { path: std::env::temp_dir(), source };
    let folder = tempfile::tempdir().map_err(io)?;
    for (name, content) in BUILT_IN {
        write_atomically(&folder.path().join(name), content)?;
    }
    Golden::load(folder.path(), device)
}
