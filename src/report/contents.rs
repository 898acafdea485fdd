//! The runs and evaluations that a report is about.

use std::path::{Path, PathBuf};

use super::run::{Run, name_of};
use crate::eval::{EvaluationResult, Shard};
use crate::input_error::InputError;
use crate::run::{RunError, read_result};
use crate::train::RunPaths;

/// What a report is about.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The runs, then the single results, each in the order in which they were given; the page calls them A, B, ...
    pub subjects: Vec<Subject>,
    /// Their evaluations.
    pub evaluations: Vec<Evaluated>,
}

/// A run, or a model of which there is only a result.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What it is called.
    pub name: String,
    /// The run, where there is one.
    pub run: Option<Run>,
}

/// An evaluation and whose it is.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// Place of its model among the subjects.
    pub subject: usize,
    /// The evaluation.
    pub result: EvaluationResult,
    /// Whether it is in the folder of a run whose best model is another by now.
    pub is_outdated: bool,
}

impl Contents {
    /// Reads run folders, with the evaluations that they hold, and results as `latentr3 evaluate --json` writes them.
    ///
    /// A result of one run's best model, and of no other's, belongs to that run; any other stands for itself.
    ///
    /// # Errors
    ///
    /// A path that is neither, a damaged file, or a result that is only a part of one.
    pub fn read(paths: &[PathBuf]) -> Result<Self, RunError> {
        let mut contents = Self::default();
        let (folders, files): (Vec<&PathBuf>, Vec<&PathBuf>) = paths.iter().partition(|path| path.is_dir());
        for folder in folders {
            let run = Run::read(folder)?;
            let mut evaluations = Vec::new();
            for file in results_in(&RunPaths(folder).evaluations())? {
                let result = read_whole(&file)?;
                let is_outdated = !run.best_weights().is_empty() && !run.is_best(&result.model_files);
                evaluations.push((result, is_outdated));
            }
            let subject = contents.add(folder, Some(run));
            let of_run = |(result, is_outdated)| Evaluated { subject, result, is_outdated };
            contents.evaluations.extend(evaluations.into_iter().map(of_run));
        }
        let runs = contents.subjects.len();
        for file in files {
            let result = read_whole(file)?;
            let is_of = |place: &usize| contents.run(*place).is_some_and(|run| run.is_best(&result.model_files));
            let owners: Vec<usize> = (0..runs).filter(is_of).collect();
            let subject = match owners[..] {
                [only] => only,
                _ => contents.add(file, None),
            };
            let is_known = |known: &Evaluated| known.subject == subject && known.result == result;
            if !contents.evaluations.iter().any(is_known) {
                contents.evaluations.push(Evaluated { subject, result, is_outdated: false });
            }
        }
        Ok(contents)
    }

    /// The run of a subject, if it is one.
    pub fn run(&self, subject: usize) -> Option<&Run> {
        self.subjects[subject].run.as_ref()
    }

    /// All runs with their places among the subjects.
    pub fn runs(&self) -> impl Iterator<Item = (usize, &Run)> {
        self.subjects.iter().enumerate().filter_map(|(place, subject)| Some((place, subject.run.as_ref()?)))
    }

    /// The evaluations that may be compared: of the same users of the same split of the same data.
    pub fn groups(&self) -> Vec<Vec<&Evaluated>> {
        let mut groups: Vec<Vec<&Evaluated>> = Vec::new();
        for evaluated in &self.evaluations {
            let fits = |group: &&mut Vec<&Evaluated>| same_users(&group[0].result, &evaluated.result);
            match groups.iter_mut().find(fits) {
                Some(group) => group.push(evaluated),
                None => groups.push(vec![evaluated]),
            }
        }
        groups
    }

    /// Adds a subject under a name that no other has; returns its place.
    fn add(&mut self, path: &Path, run: Option<Run>) -> usize {
        let own = match run {
            Some(_) => name_of(path),
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let is_taken = self.subjects.iter().any(|subject| subject.name == own);
        let name = if is_taken { path.display().to_string() } else { own };
        self.subjects.push(Subject { name, run });
        self.subjects.len() - 1
    }
}

fn same_users(a: &EvaluationResult, b: &EvaluationResult) -> bool {
    let of = |result: &EvaluationResult| {
        let EvaluationResult { split, data_fingerprint, limit, seed, users_of_all_parts, .. } = result;
        // Without a limit nothing was drawn.
        (split.clone(), data_fingerprint.clone(), limit.map(|limit| (limit, *seed)), *users_of_all_parts)
    };
    of(a) == of(b)
}

/// The JSON files of a folder that may not be there, by name.
fn results_in(folder: &Path) -> Result<Vec<PathBuf>, RunError> {
    let failed = |error: std::io::Error| InputError::new(folder, error.to_string());
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<PathBuf>, _>>().map_err(failed)?;
    let is_hidden = |path: &PathBuf| name_of(path).starts_with('.');
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json") && !is_hidden(path));
    paths.sort();
    Ok(paths)
}

/// Reads an evaluation that is not a shard of one.
fn read_whole(path: &Path) -> Result<EvaluationResult, RunError> {
    if !path.exists() {
        return Err(InputError::new(path, "no such run folder or result").into());
    }
    let result = read_result(path)?;
    if result.shard != Shard::WHOLE {
        let part = result.shard;
        let problem = format!("is shard {part} of an evaluation; merge all shards with `latentr3 merge`");
        return Err(InputError::new(path, problem).into());
    }
    Ok(result)
}
