//! The runs that are compared, and whether they can be.

use std::path::{Path, PathBuf};

use crate::eval::{EvaluationResult, Metric, Shard};

/// A run's evaluation and the file that it came from.
#[derive(Debug, Clone)]
pub struct Run {
    /// Where it was read from, for messages and reports.
    pub path: PathBuf,
    /// What `latentr3 evaluate` wrote.
    pub result: EvaluationResult,
}

/// One model: its runs differ in the seed.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name in reports.
    pub name: String,
    /// Its runs, one for each seed.
    pub runs: Vec<Run>,
}

/// Why runs cannot be compared.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// Fewer than two models.
    #[error("give at least two models to compare")]
    Models,
    /// Two models of one name.
    #[error("two models are named `{0}`; write NAME=FILE,FILE to rename one")]
    SameName(String),
    /// A model that is asked for is not there.
    #[error("no model is named `{0}`; the models are {1}")]
    UnknownName(String, String),
    /// A model without runs.
    #[error("`{0}` has no runs")]
    NoRuns(String),
    /// A run is there twice.
    #[error("{} is given twice; each run may count only once", .0.display())]
    Twice(PathBuf),
    /// Part of an evaluation.
    #[error("{} is shard {shard} of an evaluation; merge all shards with `latentr3 merge`", path.display())]
    Part {
        /// The file.
        path: PathBuf,
        /// The part.
        shard: Shard,
    },
    /// Two evaluations are not of the same users.
    #[error("{} and {} cannot be compared user by user: they differ in {difference}", first.display(), other.display())]
    Different {
        /// The first file.
        first: PathBuf,
        /// The file that differs from it.
        other: PathBuf,
        /// In what.
        difference: String,
    },
    /// A rank that is none.
    #[error("{}: {rank} is not a rank; ranks start at 1 (user `{user}`, row {row})", path.display())]
    Rank {
        /// The file.
        path: PathBuf,
        /// What is written there.
        rank: f64,
        /// The user's id.
        user: String,
        /// The row's number.
        row: usize,
    },
    /// Too few users to say anything.
    #[error("{0} users are too few to compare models")]
    Users(usize),
    /// Lists too short for a metric.
    #[error("{metric} needs lists longer than {beams} items")]
    Cutoff {
        /// The metric.
        metric: Metric,
        /// Length of the lists.
        beams: usize,
    },
    /// No metric.
    #[error("give at least one metric to compare")]
    NoMetrics,
    /// Too few or too many resamples.
    #[error("the number of resamples must be from 100 to 1000000, got {0}")]
    Resamples(usize),
}

/// Makes sure that all runs ranked the same items for the same users.
pub(super) fn check(groups: &[Group]) -> Result<(), CompareError> {
    if groups.len() < 2 {
        return Err(CompareError::Models);
    }
    for (at, group) in groups.iter().enumerate() {
        if groups[..at].iter().any(|other| other.name == group.name) {
            return Err(CompareError::SameName(group.name.clone()));
        }
        if group.runs.is_empty() {
            return Err(CompareError::NoRuns(group.name.clone()));
        }
    }
    let first = &groups[0].runs[0];
    let mut seen: Vec<&Path> = Vec::new();
    for run in groups.iter().flat_map(|group| &group.runs) {
        if seen.contains(&run.path.as_path()) {
            return Err(CompareError::Twice(run.path.clone()));
        }
        seen.push(&run.path);
        check_run(run)?;
        if let Some(difference) = difference(&first.result, &run.result) {
            let [first, other] = [first, run].map(|run| run.path.clone());
            return Err(CompareError::Different { first, other, difference });
        }
    }
    Ok(())
}

fn check_run(run: &Run) -> Result<(), CompareError> {
    if run.result.shard != Shard::WHOLE {
        return Err(CompareError::Part { path: run.path.clone(), shard: run.result.shard });
    }
    for user in &run.result.evaluation.ranks {
        if let Some(rank) = user.wrong_rank() {
            return Err(CompareError::Rank { path: run.path.clone(), rank, user: user.user.clone(), row: user.row });
        }
    }
    Ok(())
}

/// The first thing in which two results are not of the same users and items. What an experiment keeps has no counts of
/// items; its data's checksum tells enough.
fn difference(first: &EvaluationResult, other: &EvaluationResult) -> Option<String> {
    let (a, b) = (&first.evaluation, &other.evaluation);
    let fields = [
        ("split", first.split == other.split),
        ("data", first.data_fingerprint == other.data_fingerprint),
        ("items", a.item_counts == b.item_counts || a.item_counts.is_empty() || b.item_counts.is_empty()),
        ("number of users", a.ranks.len() == b.ranks.len()),
    ];
    if let Some((field, _)) = fields.into_iter().find(|(_, is_same)| !is_same) {
        return Some(field.into());
    }
    let is_other = |(a, b): &(&_, &_)| key(a) != key(b);
    let (a, b) = a.ranks.iter().zip(&b.ranks).find(is_other)?;
    Some(format!(
        "users: row {} has user `{}` and item `{}`, but in the other it is row {} with user `{}` and item `{}`",
        a.row, a.user, a.item, b.row, b.user, b.item
    ))
}

fn key(user: &crate::eval::UserRank) -> (usize, &str, &str) {
    (user.row, &user.user, &user.item)
}
