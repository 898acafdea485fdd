//! Runs to compare: their results on the test split, with what can be wrong with them.

use std::path::PathBuf;

use super::error::RunError;
use super::evaluations::{read_result, result_file};
use super::model_folder::weight_files;
use crate::data::Split;
use crate::eval::compare::{Group, Run};

/// Reads the result in a file, or that of a run folder's best model on the test split.
///
/// # Errors
///
/// A file that is no result, and a run that has none ([`RunError::NotEvaluated`]) or one of an earlier best model
/// ([`RunError::EvaluatedBefore`]).
pub fn read_compared(path: PathBuf) -> Result<Run, RunError> {
    if !path.is_dir() {
        return Ok(Run { result: read_result(&path)?, path });
    }
    let file = result_file(&path, Split::Test.name());
    if !file.exists() {
        return Err(RunError::NotEvaluated { run: path });
    }
    let result = read_result(&file)?;
    // A run without its weights cannot say.
    let now = weight_files(&path).unwrap_or_default();
    if !now.is_empty() && now != result.model_files {
        return Err(RunError::EvaluatedBefore { run: path });
    }
    Ok(Run { result, path: file })
}

/// Runs of a model that have the weights of another one before them, each after that one: they add nothing to a
/// comparison.
pub fn equal_runs(group: &Group) -> Vec<(&Run, &Run)> {
    let mut equal = Vec::new();
    for (at, run) in group.runs.iter().enumerate() {
        let files = &run.result.model_files;
        let same = group.runs[..at].iter().find(|other| !files.is_empty() && other.result.model_files == *files);
        equal.extend(same.map(|other| (other, run)));
    }
    equal
}
