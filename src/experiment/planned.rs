//! An experiment with what is due of it, and how that is carried out.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use super::carry_out::{Program, StepEvent};
use super::chart::Chart;
use super::error::{ExperimentError, PlanError};
use super::plan::{Experiment, Step};
use super::table::{Table, markdown};
use super::work::WorkFolder;
use crate::input_error::InputError;
use crate::models::files::write_atomically;
use crate::report::picture;

/// Which experiment to carry out, where, and which part of it.
#[derive(Debug, Clone)]
pub struct ExperimentRequest {
    /// The experiment's file.
    pub file: PathBuf,
    /// Where steps make their folders.
    pub work: PathBuf,
    /// Where results are kept; if not given, a folder named after the file, in `results` beside it.
    pub results: Option<PathBuf>,
    /// What the experiment needs, by name, with its path.
    pub inputs: Vec<(String, String)>,
    /// Parts of names: only those steps to be kept whose names contain one of them, and what they need; all if there is
    /// none.
    pub only: Vec<String>,
}

/// An experiment, and what is due of it.
pub struct PlannedExperiment {
    /// As its file says it.
    pub experiment: Experiment,
    steps: Vec<Step>,
    tables: Vec<Table>,
    charts: Vec<Chart>,
    folder: WorkFolder,
    /// Places of the steps to carry out, in their order.
    due: Vec<usize>,
}

/// A chart that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenChart {
    /// Its heading.
    pub title: String,
    /// The file.
    pub file: PathBuf,
}

impl ExperimentRequest {
    /// Reads the experiment and finds what is due of it. A step is due if its result is to be kept and is not, or if
    /// one that is due needs it. `check` refuses the words of a step that the program does not understand.
    ///
    /// # Errors
    ///
    /// A file that makes no sense, inputs that it does not know or that cannot be read, and parts of names that no step
    /// has.
    pub fn plan(&self, check: &dyn Fn(&[String]) -> Result<(), String>) -> Result<PlannedExperiment, ExperimentError> {
        let problem = |problem: String| InputError::new(&self.file, problem);
        let senseless = |error: PlanError| problem(error.to_string());
        let text = fs::read_to_string(&self.file).map_err(|error| problem(format!("cannot be read: {error}")))?;
        let experiment = Experiment::parse(&text).map_err(senseless)?;
        let steps = experiment.steps().map_err(senseless)?;
        for step in &steps {
            check(&step.command).map_err(|refused| problem(format!("step `{}`: {refused}", step.name)))?;
        }
        let tables = experiment.tables().map_err(senseless)?;
        let charts = experiment.charts().map_err(senseless)?;
        let beside = self.file.with_file_name("results").join(self.file.file_stem().unwrap_or_default());
        let results = self.results.as_ref().unwrap_or(&beside);
        let folder = WorkFolder::new(&self.work, results, self.inputs_of(&experiment)?)?;
        let is_asked =
            |step: &Step| step.keep && (self.only.is_empty() || self.only.iter().any(|part| step.name.contains(part)));
        if !self.only.is_empty() && !steps.iter().any(is_asked) {
            return Err(ExperimentError::NoSuchStep(self.only.clone()));
        }
        let mut asked = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            if is_asked(step) && folder.kept(step)?.is_none() {
                asked.push(at);
            }
        }
        let due = folder.due(&steps, asked)?;
        Ok(PlannedExperiment { experiment, steps, tables, charts, folder, due })
    }

    /// The inputs by their names, each of which the experiment knows.
    fn inputs_of(&self, experiment: &Experiment) -> Result<BTreeMap<String, String>, ExperimentError> {
        let mut inputs = BTreeMap::new();
        for (name, path) in &self.inputs {
            if inputs.insert(name.clone(), path.clone()).is_some() {
                return Err(ExperimentError::InputTwice(name.clone()));
            }
        }
        match inputs.keys().find(|name| !experiment.inputs.contains_key(*name)) {
            None => Ok(inputs),
            Some(name) => {
                let known = experiment.inputs.keys().cloned().collect();
                Err(ExperimentError::UnknownInput { name: name.clone(), known })
            }
        }
    }
}

impl PlannedExperiment {
    /// The steps that are due, in their order.
    pub fn due(&self) -> impl Iterator<Item = &Step> {
        self.due.iter().map(|&at| &self.steps[at])
    }

    /// Carries out the steps that are due, until `end` if one is given; false if there was no time for all of them.
    ///
    /// # Errors
    ///
    /// Inputs that are missing, a step that failed, a folder that is in the way or cannot be written, and
    /// [`ExperimentError::Stopped`].
    pub fn carry_out(&self, program: &mut Program, end: Option<Instant>) -> Result<bool, ExperimentError> {
        self.folder.check_inputs(&self.experiment, self.due())?;
        for (place, step) in self.due().enumerate() {
            (program.observer)(StepEvent::Begun { step, place: place + 1, due: self.due.len() });
            if let Some(twin) = self.folder.take_over(&self.steps, step)? {
                (program.observer)(StepEvent::TakenOver { step, twin: &twin });
            } else if !program.carry_out(&self.folder, step, end)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The tables of the results that are kept by now, in Markdown.
    ///
    /// # Errors
    ///
    /// A result that cannot be read.
    pub fn tables(&self) -> Result<Vec<String>, ExperimentError> {
        let results = self.results()?;
        Ok(self.tables.iter().map(|table| markdown(table, &|step: &str| results.get(step).cloned())).collect())
    }

    /// Writes the charts that have a point by now, among the results.
    ///
    /// # Errors
    ///
    /// A result that cannot be read, or a chart that cannot be written.
    pub fn write_charts(&self) -> Result<Vec<WrittenChart>, ExperimentError> {
        let results = self.results()?;
        let mut written = Vec::new();
        for chart in &self.charts {
            let series = chart.series(&|step: &str| results.get(step).cloned());
            if series.iter().any(|series| !series.points.is_empty()) {
                let file = self.folder.results.join(&chart.file);
                write_atomically(&file, picture(&chart.title, &chart.x_label, &series).as_bytes())?;
                written.push(WrittenChart { title: chart.title.clone(), file });
            }
        }
        Ok(written)
    }

    /// The results that are kept, by the names of their steps.
    fn results(&self) -> Result<BTreeMap<&str, Value>, ExperimentError> {
        let mut results = BTreeMap::new();
        for step in self.steps.iter().filter(|step| step.keep) {
            results.extend(self.folder.kept(step)?.map(|kept| (step.name.as_str(), kept.result)));
        }
        Ok(results)
    }
}
