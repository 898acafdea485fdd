//! How a step of an experiment is carried out: the program in a process of its own.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf, is_separator};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::ExperimentError;
use super::origin::Origin;
use super::plan::Step;
use super::result::Kept;
use super::work::WorkFolder;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::models::files::read_json;
use crate::train::RunPaths;

/// How often a step that runs is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a step may take to save what it did when the experiment is asked to stop.
const GRACE: Duration = Duration::from_secs(60);

/// Options of `baseline sasrec` that a resumed run has from its beginning.
pub(crate) const OF_A_NEW_SASREC: [&str; 11] = [
    "--encoder",
    "--hidden",
    "--layers",
    "--heads",
    "--ff",
    "--dropout",
    "--epochs",
    "--batch",
    "--lr",
    "--patience",
    "--loss",
];

/// The program that carries out steps.
pub struct Program<'a> {
    /// Its file.
    pub path: PathBuf,
    /// The exit code by which it says that it was asked to stop.
    pub interrupted_code: u8,
    /// Where its commands compute.
    pub device: String,
    /// Whether the command of these words computes somewhere.
    pub takes_device: fn(&[String]) -> bool,
    /// Set to have the experiment stop.
    pub interrupted: &'a AtomicBool,
    /// Asks a step that runs to save what it did, when the experiment is to stop.
    pub stop: fn(&Child),
    /// Asks a step that runs to save what it did, when its time is over.
    pub terminate: fn(&Child),
    /// Told what happens.
    pub observer: &'a mut dyn FnMut(StepEvent),
}

/// What happens to a step.
#[derive(Debug)]
pub enum StepEvent<'a> {
    /// Its turn has come.
    Begun {
        /// The step.
        step: &'a Step,
        /// Its place among the steps that are due, from 1.
        place: usize,
        /// The steps that are due.
        due: usize,
    },
    /// It has the result of another step, which did the same with the same model.
    TakenOver {
        /// The step.
        step: &'a Step,
        /// The other one's name.
        twin: &'a str,
    },
    /// Another experiment carries it out; this one waits.
    Waiting(&'a Step),
    /// It is done.
    Done {
        /// The step.
        step: &'a Step,
        /// How long it took.
        seconds: f64,
    },
}

impl Program<'_> {
    /// Carries out a step; false if there was no time for it.
    pub(super) fn carry_out(
        &mut self,
        folder: &WorkFolder,
        step: &Step,
        end: Option<Instant>,
    ) -> Result<bool, ExperimentError> {
        if is_over(end) {
            return Ok(false);
        }
        let own = ["steps", "log", "json"].map(|name| folder.work.join(name));
        for path in own.iter().chain([&folder.results]) {
            fs::create_dir_all(path).map_err(ModelError::io(path))?;
        }
        let Some(_lock) = self.lock(folder, step, end)? else {
            return Ok(false);
        };
        if folder.is_made(step)? && (!step.keep || folder.kept(step)?.is_some()) {
            // By another experiment in this folder, in the meantime.
            return Ok(true);
        }
        let json = folder.work.join("json").join(format!("{}.json", step.name));
        let words = begin(folder, step, &json)?;
        let log = folder.work.join("log").join(format!("{}.txt", step.name));
        let output = File::create(&log).map_err(ModelError::io(&log))?;
        let clock = Instant::now();
        let mut command = Command::new(&self.path);
        command.args(&words).current_dir(&folder.work).stdin(Stdio::null());
        if (self.takes_device)(&words) {
            command.args(["--device", &self.device]);
        }
        command.stdout(output.try_clone().map_err(ModelError::io(&log))?).stderr(output);
        let status = self.wait(command, end).map_err(ModelError::io(&self.path))?;
        let is_stopped = self.interrupted.load(Ordering::Relaxed);
        match status {
            Some(status) if status.success() => {}
            _ if is_stopped => return Err(stopped_in(step)),
            None => return Ok(false),
            Some(status) if status.code() == Some(self.interrupted_code.into()) => {
                return if is_over(end) { Ok(false) } else { Err(stopped_in(step)) };
            }
            Some(_) => return Err(ExperimentError::Step { step: step.name.clone(), log }),
        }
        let seconds = clock.elapsed().as_secs_f64();
        if step.keep {
            let mut result = read_json(&json)?;
            name_places(folder, &mut result);
            let kept = Kept {
                latentr3: env!("CARGO_PKG_VERSION").into(),
                command: step.command.clone(),
                origin: Origin::of(step, &folder.checksums),
                device: self.device.clone(),
                machine: machine(),
                seconds,
                same_as: None,
                result,
            };
            kept.write(&folder.results, &step.name, step.lists)?;
        }
        folder.write_state(step, true)?;
        (self.observer)(StepEvent::Done { step, seconds });
        if is_stopped { Err(stopped_in(step)) } else { Ok(true) }
    }

    /// Makes this process the only one that carries out a step in this folder, as soon as no other does; nothing if the
    /// time was over before.
    fn lock(
        &mut self,
        folder: &WorkFolder,
        step: &Step,
        end: Option<Instant>,
    ) -> Result<Option<File>, ExperimentError> {
        let path = folder.work.join("steps").join(format!("{}.lock", step.name));
        let file = File::create(&path).map_err(ModelError::io(&path))?;
        let mut is_told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::Error(error)) => return Err(ModelError::io(&path)(error).into()),
                Err(TryLockError::WouldBlock) if !is_told => {
                    (self.observer)(StepEvent::Waiting(step));
                    is_told = true;
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(stopped_in(step));
            }
            if is_over(end) {
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Runs a command to its end; when the time is over or the user wants it, it is asked to save what it did. Nothing
    /// if it does not end then.
    fn wait(&self, mut command: Command, end: Option<Instant>) -> std::io::Result<Option<ExitStatus>> {
        let mut child = command.spawn()?;
        let mut stopped: Option<Instant> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            let is_over = is_over(end);
            if stopped.is_none() && (is_over || self.interrupted.load(Ordering::Relaxed)) {
                stopped = Some(Instant::now());
                if is_over { (self.terminate)(&child) } else { (self.stop)(&child) }
            }
            if stopped.is_some_and(|since| since.elapsed() >= GRACE) {
                // Runs survive this at any moment.
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn is_over(end: Option<Instant>) -> bool {
    end.is_some_and(|end| Instant::now() >= end)
}

/// Gives a result the names of folders instead of where they are on this machine.
fn name_places(folder: &WorkFolder, result: &mut Value) {
    match result {
        Value::String(text) => {
            let folders = [("results", &folder.results), ("work", &folder.work)];
            let folders = folders.map(|(name, folder)| (name, folder.to_string_lossy()));
            let inputs = folder.inputs.iter().map(|(name, path)| (name.as_str(), path.into()));
            for (name, path) in folders.into_iter().chain(inputs) {
                *text = with_name(text, &path, &format!("{{{name}}}"));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| name_places(folder, value)),
        Value::Object(fields) => fields.values_mut().for_each(|value| name_places(folder, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Makes ready for a step and gives the words to call the program with. A run that was begun as it would be now goes
/// on; whatever else the step made before goes. What no step made is left alone.
fn begin(folder: &WorkFolder, step: &Step, json: &Path) -> Result<Vec<String>, ExperimentError> {
    let given = |word: &String| {
        let places = [("json", json), ("results", &folder.results)].map(|(name, path)| (name, path.to_string_lossy()));
        let word = places.iter().fold(word.clone(), |word, (name, path)| word.replace(&format!("{{{name}}}"), path));
        folder.inputs.iter().fold(word, |word, (name, value)| word.replace(&format!("{{{name}}}"), value))
    };
    let mut words: Vec<String> = step.command.iter().map(given).collect();
    let remove = |path: &Path| match path.exists() {
        true if path.is_dir() => fs::remove_dir_all(path).map_err(ModelError::io(path)),
        true => fs::remove_file(path).map_err(ModelError::io(path)),
        false => Ok(()),
    };
    remove(json)?;
    if let Some(made) = step.makes.as_ref().map(|makes| folder.work.join(makes)) {
        if made.exists() && !folder.state_file(step).exists() {
            let problem = format!(
                "already exists and was not made by the step `{}`; move it away or use another work folder",
                step.name
            );
            return Err(InputError::new(made, problem).into());
        }
        let run_file = RunPaths(&made).description();
        let is_begun = folder.state(step)?.is_some() && run_file.exists();
        match resumed(&words, &made, json).filter(|_| is_begun) {
            Some(resumed) => words = resumed,
            None => {
                // In this order what is half removed is neither a run to resume nor made.
                remove(&run_file)?;
                folder.write_state(step, false)?;
                remove(&made)?;
            }
        }
    }
    folder.write_state(step, false)?;
    Ok(words)
}

fn stopped_in(step: &Step) -> ExperimentError {
    ExperimentError::Stopped { step: step.name.clone() }
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

/// The words that resume the run that `words` began, where there is such a command.
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
