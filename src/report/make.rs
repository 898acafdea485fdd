//! A report from the paths of runs and results.

use std::path::{Path, PathBuf};

use super::attention::{Examples, View, views};
use super::contents::Contents;
use super::page::page;
use super::run::Run;
use crate::data::{Prepared, PreparedRow, Split};
use crate::eval::sample;
use crate::fit::{Shop, Trial};
use crate::models::{Objective, ObjectiveKind};
use crate::run::{RunError, check_fit, load_model, model_folder};

/// Split of the prompts that are looked into.
const SPLIT: Split = Split::Test;

/// What a report is to be about.
#[derive(Debug, Clone)]
pub struct ReportConfig {
    /// Run folders, shops' folders, and results as `latentr3 evaluate --json` writes them.
    pub runs: Vec<PathBuf>,
    /// Prepared data, for popularity and for the prompts to look into; if not given, where the first run found it.
    pub data: Option<PathBuf>,
    /// Prompts of the test split to look into, drawn by the seed; 0 for none, which needs no model.
    pub examples: usize,
    /// Where the models compute.
    pub device: String,
    /// Seed of the prompts.
    pub seed: u64,
}

/// A report.
#[derive(Debug, Clone)]
pub struct Report {
    /// The page.
    pub html: String,
    /// Runs that it is about.
    pub runs: usize,
    /// Evaluations that it is about.
    pub evaluations: usize,
}

/// What happens while a report is made.
#[derive(Debug)]
pub enum ReportEvent<'a> {
    /// A run's model is going to look at the prompts.
    LookingInto {
        /// How many prompts there are.
        prompts: usize,
        /// The run's folder.
        run: &'a Path,
    },
    /// A run's model cannot be looked into; the page says so.
    NoView(&'a RunError),
}

impl ReportConfig {
    /// Reads the runs and results, has the models look at some prompts, and makes the page.
    ///
    /// # Errors
    ///
    /// A path that is neither a run nor a result, a damaged file, or data that was asked for and cannot be read. A
    /// model that cannot be read is no error.
    pub fn make(&self, observer: &mut dyn FnMut(ReportEvent)) -> Result<Report, RunError> {
        let mut runs = Vec::new();
        for path in &self.runs {
            match Shop::is_one(path) {
                // What was tried, with its results.
                true => {
                    let Trial { model, results, .. } = Trial::of(path)?;
                    runs.extend(std::iter::once(model).chain(results));
                }
                false => runs.push(path.clone()),
            }
        }
        let contents = Contents::read(&runs)?;
        let prepared = self.find_data(&contents)?;
        let examples = match &prepared {
            Ok(prepared) => self.look_into(&contents, prepared, observer)?,
            Err(why) => Err(why.clone()),
        };
        let (runs, evaluations) = (contents.runs().count(), contents.evaluations.len());
        Ok(Report { html: page(&contents, &examples), runs, evaluations })
    }

    /// The prepared data that was asked for, or that the first run names; or why there is none.
    fn find_data(&self, contents: &Contents) -> Result<Result<Prepared, String>, RunError> {
        if let Some(data) = &self.data {
            return Ok(Ok(Prepared::load(data)?));
        }
        let Some(folder) = contents.runs().find_map(|(_, run)| run.data()) else {
            return Ok(Err("no run records where its data is, and none was given".into()));
        };
        let gone = |error| format!("prepared data not found; name it if it was moved ({error})");
        Ok(Prepared::load(&folder).map_err(gone))
    }

    /// Draws prompts and has each run's best model look at them.
    fn look_into<'a>(
        &self,
        contents: &Contents,
        prepared: &'a Prepared,
        observer: &mut dyn FnMut(ReportEvent),
    ) -> Result<Result<Examples<'a>, String>, RunError> {
        let rows = sample(prepared.rows.get(SPLIT), Some(self.examples), self.seed);
        if rows.is_empty() {
            return Ok(Err(format!("no examples were requested, or the {} split is empty", SPLIT.name())));
        }
        let objective = prepared.objective(ObjectiveKind::Catalog)?;
        let mut models: Vec<(usize, Result<Vec<View>, String>)> = Vec::new();
        for (subject, run) in contents.runs() {
            observer(ReportEvent::LookingInto { prompts: rows.len(), run: &run.path });
            let seen = match why_not(run, prepared) {
                Some(why) => Err(why.to_owned()),
                // The page has other things to tell of a run whose model cannot be read.
                None => self.view(&run.path, prepared, &objective, &rows).unwrap_or_else(|error| {
                    observer(ReportEvent::NoView(&error));
                    Err(format!("whose model cannot be examined: {error}"))
                }),
            };
            models.push((subject, seen));
        }
        Ok(Ok(Examples { prepared, split: SPLIT.name(), rows, models }))
    }

    /// What a run's model attends to in some prompts; or why it shows nothing.
    fn view(
        &self,
        run: &Path,
        prepared: &Prepared,
        objective: &Objective,
        rows: &[&PreparedRow],
    ) -> Result<Result<Vec<View>, String>, RunError> {
        let model = load_model(run, &self.device)?;
        check_fit(&model, run, prepared)?;
        let objective = objective.with_kind(model.objective())?;
        Ok(views(&model, prepared, &objective, rows)?.ok_or_else(|| "which has no latent attention".to_owned()))
    }
}

/// Why a run's model cannot look at the data's prompts.
fn why_not(run: &Run, prepared: &Prepared) -> Option<&'static str> {
    if !["pretrain", "sft", "grpo"].contains(&run.stage()) {
        return Some("which is not a language model");
    }
    if run.data_files() != *prepared.files() {
        return Some("which was made with other data");
    }
    (!model_folder(&run.path).is_ok_and(|folder| folder.exists())).then_some("which has no best checkpoint yet")
}
