//! Where an experiment is carried out, and how its steps are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf, is_separator};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::INTERRUPTED;
use super::files::weight_files;
use super::interrupt::{interrupted, is_terminated, terminate};
use super::outputs::write_json;
use super::terminal::{duration, is_quiet, note};
use super::{Cli, CliError};
use crate::experiment::{Experiment, Kept, Origin, Step, checksum};
use crate::models::ModelError;
use crate::models::hub::read_json;
use crate::train::RunPaths;

/// How often a step that runs is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a step may take to save what it did when the experiment is asked to stop.
const GRACE: Duration = Duration::from_secs(60);

/// Options of `baseline sasrec` that a run which goes on has from its beginning.
const OF_A_NEW_SASREC: [&str; 9] =
    ["--hidden", "--layers", "--heads", "--ff", "--dropout", "--epochs", "--batch", "--lr", "--patience"];

/// Whether the command of these words computes somewhere.
fn takes_device(words: &[String]) -> bool {
    let program = Cli::command();
    let mut command = &program;
    while let Some(subcommand) = words.iter().find_map(|word| command.find_subcommand(word)) {
        command = subcommand;
    }
    command.get_arguments().any(|argument| argument.get_long() == Some("device"))
}

/// Where an experiment is carried out.
pub(super) struct WorkFolder {
    work: PathBuf,
    results: PathBuf,
    inputs: BTreeMap<String, String>,
    /// Of the inputs, by their names.
    checksums: BTreeMap<String, String>,
    device: String,
}

/// How far a step is whose result is not kept, or not yet.
#[derive(Serialize, Deserialize)]
struct State {
    /// What it makes is made from this.
    origin: Origin,
    is_done: bool,
}

impl WorkFolder {
    /// A place that works in `work` with what the user gave, by the names of the experiment's inputs.
    pub fn new(work: &Path, results: &Path, inputs: BTreeMap<String, String>, device: &str) -> Result<Self, CliError> {
        let sum = |(name, path): (&String, &String)| Ok((name.clone(), checksum(Path::new(path))?));
        let absolute = |folder: &Path| std::path::absolute(folder).map_err(ModelError::io(folder));
        Ok(Self {
            work: absolute(work)?,
            results: absolute(results)?,
            checksums: inputs.iter().map(sum).collect::<Result<_, CliError>>()?,
            inputs,
            device: device.to_owned(),
        })
    }

    /// Makes sure that there is what these steps take.
    pub fn check_inputs<'a>(
        &self,
        experiment: &Experiment,
        steps: impl Iterator<Item = &'a Step>,
    ) -> Result<(), CliError> {
        let needed: BTreeSet<&String> = steps.flat_map(|step| &step.inputs).collect();
        let missing: Vec<String> = needed
            .into_iter()
            .filter(|name| !self.inputs.contains_key(*name))
            .map(|name| format!("--input {name}=PATH: {}", experiment.inputs[name]))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(CliError::Usage(format!("needs {}", missing.join("\n      ")))) }
    }

    /// The steps to carry out for those that are asked, in their order.
    pub fn due(&self, steps: &[Step], mut asked: Vec<usize>) -> Result<Vec<usize>, CliError> {
        let mut due = vec![false; steps.len()];
        while let Some(at) = asked.pop() {
            if std::mem::replace(&mut due[at], true) {
                continue;
            }
            for &need in &steps[at].needs {
                if !self.is_made(&steps[need])? {
                    asked.push(need);
                }
            }
            for &read in &steps[at].reads {
                if self.kept(&steps[read])?.is_none() {
                    asked.push(read);
                }
            }
        }
        Ok((0..steps.len()).filter(|&at| due[at]).collect())
    }

    /// A step's kept result, if it is the one that it would have now.
    pub fn kept(&self, step: &Step) -> Result<Option<Kept>, CliError> {
        let kept =
            Kept::read(&self.results, &step.name)?.filter(|kept| kept.has_ranks(&self.results, &step.name, step.lists));
        Ok(kept.filter(|kept| kept.origin.is_of(step, &self.checksums)))
    }

    /// Whether what a step makes is there, whole, and what it would make now.
    fn is_made(&self, step: &Step) -> Result<bool, CliError> {
        let is_there = step.makes.as_ref().is_none_or(|makes| self.work.join(makes).exists());
        Ok(is_there && self.state(step)?.is_some_and(|state| state.is_done))
    }

    /// How far a step is, if it was begun as it would be now.
    fn state(&self, step: &Step) -> Result<Option<State>, CliError> {
        let file = self.state_file(step);
        if !file.exists() {
            return Ok(None);
        }
        let state: State = serde_json::from_value(read_json(&file)?).map_err(|error| CliError::Input {
            path: file,
            line: None,
            problem: error.to_string(),
        })?;
        Ok(Some(state).filter(|state| state.origin.is_of(step, &self.checksums)))
    }

    fn state_file(&self, step: &Step) -> PathBuf {
        self.work.join("steps").join(format!("{}.json", step.name))
    }

    /// Gives an evaluation the result of the same evaluation of the same weights, where there is one: that of the model which stage 2
    /// began with and never made better. Returns the name of the step that it was.
    pub fn take_over(&self, steps: &[Step], step: &Step) -> Result<Option<String>, CliError> {
        let does = |step: &Step, command: &str| step.command.first().is_some_and(|word| word == command);
        if !step.keep || !does(step, "evaluate") {
            return Ok(None);
        }
        // Stage 2 leaves all of a model but its weights as it is.
        let runs = needed(steps, step).filter(|run| does(run, "grpo"));
        let starts = runs.flat_map(|run| needed(steps, run).map(|start| (&run.makes, &start.makes)));
        for (model, start) in starts.filter_map(|(model, start)| Some((model.as_ref()?, start.as_ref()?))) {
            let words = || step.command.iter().map(|word| if word == model { start } else { word });
            let Some(twin) = steps.iter().find(|other| other.keep && other.command.iter().eq(words())) else {
                continue;
            };
            if let Some(kept) = self.kept(twin)?.filter(|_| twin.lists == step.lists)
                && kept.result["model_files"] == json!(weight_files(&self.work.join(model))?)
            {
                let kept = Kept { command: step.command.clone(), origin: Origin::of(step, &self.checksums), ..kept };
                kept.write_same(&self.results, &step.name, &twin.name)?;
                self.write_state(step, true)?;
                return Ok(Some(twin.name.clone()));
            }
        }
        Ok(None)
    }

    /// Carries out a step; false if there was no time for it.
    pub fn carry_out(&self, step: &Step, end: Option<Instant>) -> Result<bool, CliError> {
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(false);
        }
        for folder in [self.work.join("steps"), self.work.join("log"), self.work.join("json"), self.results.clone()] {
            fs::create_dir_all(&folder).map_err(ModelError::io(&folder))?;
        }
        let Some(_lock) = self.lock(step, end)? else {
            return Ok(false);
        };
        if self.is_made(step)? && (!step.keep || self.kept(step)?.is_some()) {
            // By another experiment in this folder, in the meantime.
            return Ok(true);
        }
        let json = self.work.join("json").join(format!("{}.json", step.name));
        let words = self.begin(step, &json)?;
        let log = self.work.join("log").join(format!("{}.txt", step.name));
        let output = File::create(&log).map_err(ModelError::io(&log))?;
        let program = std::env::current_exe().map_err(ModelError::io(Path::new("latentr3")))?;
        let clock = Instant::now();
        let mut command = Command::new(&program);
        command.args(&words).current_dir(&self.work).stdin(Stdio::null());
        if takes_device(&words) {
            command.args(["--device", &self.device]);
        }
        command.stdout(output.try_clone().map_err(ModelError::io(&log))?).stderr(output);
        let status = wait(command, end).map_err(ModelError::io(&program))?;
        let is_stopped = interrupted().load(Ordering::Relaxed);
        match status {
            Some(status) if status.success() => {}
            _ if is_stopped => return Err(stopped_in(step)),
            None => return Ok(false),
            Some(status) if status.code() == Some(INTERRUPTED.into()) => return Err(stopped_in(step)),
            Some(_) => return Err(CliError::Step { step: step.name.clone(), log }),
        }
        let seconds = clock.elapsed().as_secs_f64();
        if step.keep {
            let mut result = read_json(&json)?;
            self.name_places(&mut result);
            let kept = Kept {
                latentr3: env!("CARGO_PKG_VERSION").into(),
                command: step.command.clone(),
                origin: Origin::of(step, &self.checksums),
                device: self.device.clone(),
                machine: machine(),
                seconds,
                same_as: None,
                result,
            };
            kept.write(&self.results, &step.name, step.lists)?;
        }
        self.write_state(step, true)?;
        if !is_quiet() {
            note(&format!("{} took {}", step.name, duration(seconds)));
        }
        if is_stopped { Err(stopped_in(step)) } else { Ok(true) }
    }

    /// Makes this process the only one that carries out a step in this folder, as soon as no other does; nothing if the time was over before.
    fn lock(&self, step: &Step, end: Option<Instant>) -> Result<Option<File>, CliError> {
        let path = self.work.join("steps").join(format!("{}.lock", step.name));
        let file = File::create(&path).map_err(ModelError::io(&path))?;
        let mut is_told = is_quiet();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::Error(error)) => return Err(ModelError::io(&path)(error).into()),
                Err(TryLockError::WouldBlock) if !is_told => {
                    note(&format!("waiting for another experiment to carry out `{}`", step.name));
                    is_told = true;
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if interrupted().load(Ordering::Relaxed) {
                return Err(stopped_in(step));
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn write_state(&self, step: &Step, is_done: bool) -> Result<(), CliError> {
        write_json(Some(&self.state_file(step)), &State { origin: Origin::of(step, &self.checksums), is_done })
    }

    /// Gives a result the names of folders instead of where they are on this machine.
    fn name_places(&self, result: &mut Value) {
        match result {
            Value::String(text) => {
                let folders = [("results", &self.results), ("work", &self.work)];
                let folders = folders.map(|(name, folder)| (name, folder.to_string_lossy()));
                let inputs = self.inputs.iter().map(|(name, path)| (name.as_str(), path.into()));
                for (name, path) in folders.into_iter().chain(inputs) {
                    *text = with_name(text, &path, &format!("{{{name}}}"));
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.name_places(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.name_places(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Makes ready for a step and gives the words to call the program with. A run that was begun as it would be now goes on; whatever else
    /// the step made before goes. What no step made is left alone.
    fn begin(&self, step: &Step, json: &Path) -> Result<Vec<String>, CliError> {
        let given = |word: &String| {
            let places =
                [("json", json), ("results", &self.results)].map(|(name, path)| (name, path.to_string_lossy()));
            let word =
                places.iter().fold(word.clone(), |word, (name, path)| word.replace(&format!("{{{name}}}"), path));
            self.inputs.iter().fold(word, |word, (name, value)| word.replace(&format!("{{{name}}}"), value))
        };
        let mut words: Vec<String> = step.command.iter().map(given).collect();
        let remove = |path: &Path| match path.exists() {
            true if path.is_dir() => fs::remove_dir_all(path).map_err(ModelError::io(path)),
            true => fs::remove_file(path).map_err(ModelError::io(path)),
            false => Ok(()),
        };
        remove(json)?;
        if let Some(made) = step.makes.as_ref().map(|makes| self.work.join(makes)) {
            if made.exists() && !self.state_file(step).exists() {
                let problem =
                    format!("is there, and not of the step `{}`; move it away or give another --work", step.name);
                return Err(CliError::Input { path: made, line: None, problem });
            }
            let run_file = RunPaths(&made).description();
            let is_begun = self.state(step)?.is_some() && run_file.exists();
            match resumed(&words, &made, json).filter(|_| is_begun) {
                Some(resumed) => words = resumed,
                None => {
                    // In this order what is half removed is neither a run that goes on nor made.
                    remove(&run_file)?;
                    self.write_state(step, false)?;
                    remove(&made)?;
                }
            }
        }
        self.write_state(step, false)?;
        Ok(words)
    }
}

fn stopped_in(step: &Step) -> CliError {
    CliError::Stopped(format!("stopped in step `{}`; the same command goes on", step.name))
}

/// The steps that a step needs what they make of.
fn needed<'a>(steps: &'a [Step], step: &'a Step) -> impl Iterator<Item = &'a Step> {
    step.needs.iter().map(|&need| &steps[need])
}

/// A text with `name` in the place of a path or its beginning, also as one of `NAME=PATH,PATH`.
fn with_name(text: &str, path: &str, name: &str) -> String {
    let path = path.trim_end_matches(is_separator);
    let (mut named, mut rest) = (String::new(), 0);
    for (at, _) in text.match_indices(path) {
        let (before, after) = (text[..at].chars().next_back(), text[at + path.len()..].chars().next());
        if matches!(before, None | Some('=' | ',')) && after.is_none_or(|next| next == ',' || is_separator(next)) {
            named += &text[rest..at];
            named += name;
            rest = at + path.len();
        }
    }
    named + &text[rest..]
}

/// The words that go on with the run that `words` began, where there is such a command.
fn resumed(words: &[String], made: &Path, json: &Path) -> Option<Vec<String>> {
    let resume = ["--resume".to_owned(), made.to_string_lossy().into_owned()];
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [stage @ ("pretrain" | "sft" | "grpo"), ..] => {
            let json = ["--json".to_owned(), json.to_string_lossy().into_owned()];
            Some([vec![stage.to_string()], resume.to_vec(), json.to_vec()].concat())
        }
        ["baseline", "sasrec", options @ ..] => {
            let mut going_on: Vec<String> = ["baseline", "sasrec"].map(str::to_owned).to_vec();
            let mut options = options.iter();
            while let Some(&option) = options.next() {
                let name = option.split('=').next().unwrap_or(option);
                if name != "--out" && !OF_A_NEW_SASREC.contains(&name) {
                    going_on.push(option.to_owned());
                } else if name == option {
                    // Its value is a word of its own.
                    options.next();
                }
            }
            going_on.extend(resume);
            Some(going_on)
        }
        _ => None,
    }
}

/// Runs a command to its end; nothing if the time was over before, or if it did not end although the user stopped it.
fn wait(mut command: Command, end: Option<Instant>) -> std::io::Result<Option<ExitStatus>> {
    // From here on Ctrl-C, which the command gets too, lets it save what it did. A request to end is passed on.
    interrupted();
    let mut child = command.spawn()?;
    let mut stopped: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if interrupted().load(Ordering::Relaxed) && stopped.is_none() {
            stopped = Some(Instant::now());
            if is_terminated() {
                terminate(&child);
            }
        }
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        if is_over || stopped.is_some_and(|since| since.elapsed() >= GRACE) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_a_new_sasrec_is_left_out_when_it_goes_on() {
        use clap::CommandFactory;
        let cli = crate::cli::Cli::command();
        let sasrec = cli.find_subcommand("baseline").and_then(|command| command.find_subcommand("sasrec")).unwrap();
        let recipe = sasrec.get_groups().find(|group| group.get_id() == "RecipeArgs").unwrap();
        let options: Vec<String> = recipe.get_args().map(|id| format!("--{id}")).collect();
        assert_eq!(options, OF_A_NEW_SASREC);
    }

    #[test]
    fn only_whole_folders_get_a_name() {
        let named = |text: &str| with_name(text, "/a/w", "{work}");
        assert_eq!(named("/a/w/run"), "{work}/run");
        assert_eq!(named("both=/a/w/x.json,/a/w"), "both={work}/x.json,{work}");
        assert_eq!(with_name("/a/w/run", "/a/w/", "{work}"), "{work}/run");
        for text in ["/a/work/run", "/b/a/w/run", "a word"] {
            assert_eq!(named(text), text);
        }
    }

    #[test]
    fn a_run_that_goes_on_leaves_out_what_its_folder_knows() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let resumed = |text: &str| resumed(&words(text), Path::new("made"), Path::new("r.json"));
        let sft = "sft --model base --data d --lr 1 --out made --json r.json";
        assert_eq!(resumed(sft), Some(words("sft --resume made --json r.json")));
        let sasrec = "baseline sasrec --data d --out=made --hidden 8 --heads=2 --split test --json r.json";
        assert_eq!(resumed(sasrec), Some(words("baseline sasrec --data d --split test --json r.json --resume made")));
        assert_eq!(resumed("evaluate --model made --json r.json"), None);
    }
}
