//! Where an experiment is carried out: what is made there, what is kept, and what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::ExperimentError;
use super::origin::{Origin, checksum};
use super::plan::{Experiment, Step};
use super::result::Kept;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::models::files::{read_json, write_json};
use crate::run::weight_files;

/// Where an experiment is carried out.
pub(super) struct WorkFolder {
    pub(super) work: PathBuf,
    pub(super) results: PathBuf,
    pub(super) inputs: BTreeMap<String, String>,
    /// Of the inputs, by their names.
    pub(super) checksums: BTreeMap<String, String>,
}

/// How far a step is whose result is not kept, or not yet.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    /// What it makes is made from this.
    origin: Origin,
    is_done: bool,
}

impl WorkFolder {
    /// A place that works in `work` with what the user gave, by the names of the experiment's inputs.
    ///
    /// # Errors
    ///
    /// An input that cannot be read.
    pub fn new(work: &Path, results: &Path, inputs: BTreeMap<String, String>) -> Result<Self, ExperimentError> {
        let sum = |(name, path): (&String, &String)| Ok((name.clone(), checksum(Path::new(path))?));
        let absolute = |folder: &Path| std::path::absolute(folder).map_err(ModelError::io(folder));
        Ok(Self {
            work: absolute(work)?,
            results: absolute(results)?,
            checksums: inputs.iter().map(sum).collect::<Result<_, ExperimentError>>()?,
            inputs,
        })
    }

    /// Makes sure that there is what these steps take.
    ///
    /// # Errors
    ///
    /// [`ExperimentError::Inputs`] with those that are missing.
    pub fn check_inputs<'a>(
        &self,
        experiment: &Experiment,
        steps: impl Iterator<Item = &'a Step>,
    ) -> Result<(), ExperimentError> {
        let needed: BTreeSet<&String> = steps.flat_map(|step| &step.inputs).collect();
        let missing: Vec<(String, String)> = needed
            .into_iter()
            .filter(|name| !self.inputs.contains_key(*name))
            .map(|name| (name.clone(), experiment.inputs[name].clone()))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(ExperimentError::Inputs(missing)) }
    }

    /// The steps to carry out for those that are asked, in their order.
    ///
    /// # Errors
    ///
    /// A file of the folders that is damaged.
    pub fn due(&self, steps: &[Step], mut asked: Vec<usize>) -> Result<Vec<usize>, ExperimentError> {
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
    ///
    /// # Errors
    ///
    /// A file that is damaged.
    pub fn kept(&self, step: &Step) -> Result<Option<Kept>, ExperimentError> {
        let kept =
            Kept::read(&self.results, &step.name)?.filter(|kept| kept.has_ranks(&self.results, &step.name, step.lists));
        Ok(kept.filter(|kept| kept.origin.is_of(step, &self.checksums)))
    }

    /// Whether what a step makes is there, whole, and what it would make now.
    pub(super) fn is_made(&self, step: &Step) -> Result<bool, ExperimentError> {
        let is_there = step.makes.as_ref().is_none_or(|makes| self.work.join(makes).exists());
        Ok(is_there && self.state(step)?.is_some_and(|state| state.is_done))
    }

    /// How far a step is, if it was begun as it would be now.
    pub(super) fn state(&self, step: &Step) -> Result<Option<State>, ExperimentError> {
        let file = self.state_file(step);
        if !file.exists() {
            return Ok(None);
        }
        let state: State =
            serde_json::from_value(read_json(&file)?).map_err(|error| InputError::new(file, error.to_string()))?;
        Ok(Some(state).filter(|state| state.origin.is_of(step, &self.checksums)))
    }

    pub(super) fn state_file(&self, step: &Step) -> PathBuf {
        self.work.join("steps").join(format!("{}.json", step.name))
    }

    /// Gives an evaluation the result of the same evaluation of the same weights, where there is one: that of the model
    /// which stage 2 began with and never made better. Returns the name of the step that it was.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written.
    pub fn take_over(&self, steps: &[Step], step: &Step) -> Result<Option<String>, ExperimentError> {
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

    pub(super) fn write_state(&self, step: &Step, is_done: bool) -> Result<(), ExperimentError> {
        Ok(write_json(&self.state_file(step), &State { origin: Origin::of(step, &self.checksums), is_done })?)
    }
}

/// The steps that a step needs what they make of.
fn needed<'a>(steps: &'a [Step], step: &'a Step) -> impl Iterator<Item = &'a Step> {
    step.needs.iter().map(|&need| &steps[need])
}
