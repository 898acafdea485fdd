use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::error::INTERRUPTED;
use super::files::write_json;
use super::interrupt::interrupted;
use super::report::{duration, note, print};
use super::{CliError, CommonArgs};
use crate::experiment::{Experiment, Kept, Step, markdown};
use crate::models::ModelError;
use crate::models::hub::read_json;

/// How often a step that runs is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Options of `experiment`.
#[derive(Debug, Args)]
#[command(
    after_help = "A step whose result is kept already is skipped, and so is all that only it would need. Whatever stops the program, the same \
command goes on: training steps from their last checkpoint, others from their start."
)]
pub(super) struct ExperimentArgs {
    /// The experiment's file
    file: PathBuf,
    /// Where steps make their folders; may be deleted at any time
    #[arg(long, value_name = "DIR", default_value = "experiments/work")]
    work: PathBuf,
    /// Where results are kept [default: a folder named after the file, in `results` beside it]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Something that the experiment needs, as NAME=PATH
    #[arg(long, value_name = "NAME=PATH", value_parser = input)]
    input: Vec<(String, String)>,
    /// Only steps whose names contain one of these, and what they need
    #[arg(long, value_name = "PART", allow_hyphen_values = true)]
    only: Vec<String>,
    /// Stop after so many minutes, in the middle of a step if need be
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
    /// Say what would be done, and print the tables of what is
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: CommonArgs,
}

fn input(text: &str) -> Result<(String, String), String> {
    let (name, path) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=PATH"))?;
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    Ok((name.into(), path.to_string_lossy().into_owned()))
}

pub(super) fn run(args: &ExperimentArgs) -> Result<(), CliError> {
    let error = |problem: String| CliError::Input { path: args.file.clone(), line: None, problem };
    let text = fs::read_to_string(&args.file).map_err(|cause| error(format!("cannot be read: {cause}")))?;
    let experiment = Experiment::parse(&text).map_err(|cause| error(cause.to_string()))?;
    let steps = experiment.steps().map_err(|cause| error(cause.to_string()))?;
    let tables = experiment.tables().map_err(|cause| error(cause.to_string()))?;
    let [work, results] = [Some(&args.work), args.results.as_ref()].map(|folder| folder.cloned());
    let beside = || args.file.with_file_name("results").join(args.file.file_stem().unwrap_or_default());
    let absolute = |folder: PathBuf| std::path::absolute(&folder).map_err(io(&folder));
    let place = Place {
        work: absolute(work.unwrap_or_default())?,
        results: absolute(results.unwrap_or_else(beside))?,
        inputs: args.input.iter().cloned().collect(),
        device: args.common.device.clone(),
    };
    let is_asked = |step: &Step| args.only.is_empty() || args.only.iter().any(|part| step.name.contains(part));
    let mut asked = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if step.keep && is_asked(step) && !place.is_kept(step)? {
            asked.push(at);
        }
    }
    let due = place.due(&steps, &asked)?;
    if args.dry_run {
        for &at in &due {
            print(&format!("{}: latentr3 {}\n", steps[at].name, steps[at].command.join(" ")))?;
        }
    } else {
        let end = args.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e6)));
        for (done, &at) in due.iter().enumerate() {
            if !args.common.quiet {
                note(&format!("step {} of {}: {}", done + 1, due.len(), steps[at].name));
            }
            if !place.carry_out(&steps[at], end)? {
                note("the time is over; the same command goes on");
                break;
            }
        }
    }
    let result = |step: &str| Kept::read(&place.results, step).ok().flatten().map(|kept| kept.result);
    for table in &tables {
        print(&format!("{}\n", markdown(table, &result)))?;
    }
    Ok(())
}

/// Where an experiment is carried out.
struct Place {
    work: PathBuf,
    results: PathBuf,
    inputs: BTreeMap<String, String>,
    device: String,
}

impl Place {
    /// The steps to carry out for those that are asked, in their order.
    fn due(&self, steps: &[Step], asked: &[usize]) -> Result<Vec<usize>, CliError> {
        let mut due = vec![false; steps.len()];
        let mut open = asked.to_vec();
        while let Some(at) = open.pop() {
            // One that is asked for has no result yet; others are needed for what they make.
            if !due[at] && (asked.contains(&at) || !self.is_made(&steps[at])?) {
                due[at] = true;
                open.extend(&steps[at].needs);
                for &read in &steps[at].reads {
                    if !due[read] && !self.is_kept(&steps[read])? {
                        due[read] = true;
                        open.extend(&steps[read].needs);
                    }
                }
            }
        }
        Ok((0..steps.len()).filter(|&at| due[at]).collect())
    }

    /// Whether a step's result is kept, of the very same command.
    fn is_kept(&self, step: &Step) -> Result<bool, CliError> {
        Ok(Kept::read(&self.results, &step.name)?.is_some_and(|kept| kept.command == step.command))
    }

    /// Whether a step has made its folder, by the very same command.
    fn is_made(&self, step: &Step) -> Result<bool, CliError> {
        let mark = self.mark(step);
        if !mark.exists() {
            return Ok(false);
        }
        let is_there = step.makes.as_ref().is_none_or(|makes| self.work.join(makes).exists());
        Ok(is_there && read_json(&mark)? == json!(step.command))
    }

    fn mark(&self, step: &Step) -> PathBuf {
        self.work.join("done").join(format!("{}.json", step.name))
    }

    /// Carries out a step; false if there was no time for it.
    fn carry_out(&self, step: &Step, end: Option<Instant>) -> Result<bool, CliError> {
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(false);
        }
        for folder in [self.work.join("done"), self.work.join("log"), self.work.join("json"), self.results.clone()] {
            fs::create_dir_all(&folder).map_err(io(&folder))?;
        }
        let json = self.work.join("json").join(format!("{}.json", step.name));
        let words = self.words(step, &json)?;
        let log = self.work.join("log").join(format!("{}.txt", step.name));
        let output = File::create(&log).map_err(io(&log))?;
        let program = std::env::current_exe().map_err(io(Path::new("latentr3")))?;
        let clock = Instant::now();
        let mut command = Command::new(&program);
        command.args(&words).args(["--device", &self.device]).current_dir(&self.work).stdin(Stdio::null());
        command.stdout(output.try_clone().map_err(io(&log))?).stderr(output);
        let Some(status) = wait(command, end).map_err(io(&program))? else {
            return Ok(false);
        };
        if interrupted().load(Ordering::Relaxed) || status.code() == Some(INTERRUPTED.into()) {
            return Err(CliError::Usage(format!("stopped in step `{}`; the same command goes on", step.name)));
        }
        if !status.success() {
            return Err(CliError::Step { step: step.name.clone(), log });
        }
        let seconds = clock.elapsed().as_secs_f64();
        note(&format!("{} took {}", step.name, duration(seconds)));
        if step.keep {
            let result = if json.exists() { self.without_places(&read_json(&json)?) } else { Value::Null };
            let kept = Kept {
                latentr3: env!("CARGO_PKG_VERSION").into(),
                command: step.command.clone(),
                machine: machine(),
                seconds,
                result,
            };
            kept.write(&self.results, &step.name)?;
        }
        write_json(Some(&self.mark(step)), &step.command)?;
        Ok(true)
    }

    /// A result with the names of folders instead of where they are on this machine.
    fn without_places(&self, result: &Value) -> Value {
        let folders = [("{results}", &self.results), ("{work}", &self.work)];
        let named = folders.into_iter().map(|(name, folder)| (name.to_owned(), folder.to_string_lossy().into_owned()));
        let inputs = self.inputs.iter().map(|(name, path)| (format!("{{{name}}}"), path.clone()));
        let escaped = |path: String| json!(path).to_string().trim_matches('"').to_owned();
        let text =
            named.chain(inputs).fold(result.to_string(), |text, (name, path)| text.replace(&escaped(path), &name));
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The words to call the program with. A run that was begun goes on; what else was left half made goes.
    fn words(&self, step: &Step, json: &Path) -> Result<Vec<String>, CliError> {
        let mut words = Vec::new();
        for word in &step.command {
            let mut word = word.replace("{json}", &json.to_string_lossy());
            word = word.replace("{results}", &self.results.to_string_lossy());
            for (name, value) in &self.inputs {
                word = word.replace(&format!("{{{name}}}"), value);
            }
            if word.contains('{') {
                return Err(CliError::Usage(format!("step `{}` needs --input for {word}", step.name)));
            }
            words.push(word);
        }
        let Some(made) = step.makes.as_ref().map(|makes| self.work.join(makes)) else {
            return Ok(words);
        };
        let is_run = made.join("run.json").exists() && !self.mark(step).exists();
        let stage = words.first().filter(|word| ["pretrain", "sft", "grpo"].contains(&word.as_str())).cloned();
        match stage {
            Some(stage) if is_run => {
                let [made, json] = [&made, json].map(|path| path.to_string_lossy().into_owned());
                Ok(vec![stage, "--resume".into(), made, "--json".into(), json])
            }
            _ => {
                if made.exists() {
                    fs::remove_dir_all(&made).map_err(io(&made))?;
                }
                Ok(words)
            }
        }
    }
}

/// Runs a command to its end; nothing if the time was over before.
fn wait(mut command: Command, end: Option<Instant>) -> std::io::Result<Option<ExitStatus>> {
    // From here on Ctrl-C, which the command gets too, lets it save what it did.
    interrupted();
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            // Runs survive this at any moment.
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The processor's name, where the system tells, and its threads.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|line| line.trim_start_matches([' ', '\t', ':']));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads", model.unwrap_or(std::env::consts::ARCH))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CliError + use<> {
    let path = path.to_owned();
    move |source| CliError::Model(ModelError::Io { path, source })
}
