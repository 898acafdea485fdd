//! How many lists are other lists, whoever's item is in them.

use serde::{Deserialize, Serialize};

use super::{Group, Run};
use crate::eval::UserRank;

/// Shares of the rows whose lists differ anywhere, as means over pairs of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherLists {
    /// Name of the model that the other one is compared with.
    pub baseline: String,
    /// Name of the other model.
    pub other: String,
    /// Between a run of the one and a run of the other; null where lists were not kept.
    pub between_models: Option<f64>,
    /// Between a run of the one and the run of the other in the same place, as of one seed or of the same weights; null
    /// unless both have several runs and equally many.
    pub between_paired_runs: Option<f64>,
    /// Between two runs of the baseline; null where it has one.
    pub between_baseline_runs: Option<f64>,
    /// Between two runs of the other model; null where it has one.
    pub between_other_runs: Option<f64>,
}

impl OtherLists {
    pub(super) fn of(baseline: &Group, other: &Group) -> Self {
        let across = other.runs.iter().flat_map(|own| baseline.runs.iter().map(move |run| share(own, run)));
        let is_paired = other.runs.len() == baseline.runs.len() && other.runs.len() > 1;
        let paired = other.runs.iter().zip(&baseline.runs).filter(|_| is_paired).map(|(own, run)| share(own, run));
        Self {
            baseline: baseline.name.clone(),
            other: other.name.clone(),
            between_models: mean(across),
            between_paired_runs: mean(paired),
            between_baseline_runs: between_runs(baseline),
            between_other_runs: between_runs(other),
        }
    }
}

fn between_runs(group: &Group) -> Option<f64> {
    let runs = &group.runs;
    mean(runs.iter().enumerate().flat_map(|(at, run)| runs[..at].iter().map(move |other| share(run, other))))
}

fn share(a: &Run, b: &Run) -> Option<f64> {
    let [a, b] = [a, b].map(|run| &run.result.evaluation.ranks);
    let is_known = |ranks: &[UserRank]| ranks.iter().any(|user| !user.list.is_empty());
    let others = || a.iter().zip(b).filter(|(a, b)| a.list != b.list).count();
    (is_known(a) && is_known(b)).then(|| others() as f64 / a.len() as f64)
}

/// The mean of values that are all known and at least one.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
