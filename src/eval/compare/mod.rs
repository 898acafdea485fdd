//! Whether one model ranks better than another, from the ranks of the same users.
//!
//! Two questions have two answers. *Are these trained models different, for users like these?* Sign flips and a
//! bootstrap over users answer it, for single runs too. *Is this way of training better, for users and seeds like
//! these?* needs runs of several seeds, for two runs of one model differ by more than chance with the users; a t test
//! over users and runs answers it.

mod bootstrap;
mod gains;
mod group;
mod holm;
mod lists;
mod permutation;
mod runs;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{CUTOFFS, Metric, UserRank};
use gains::{Gains, Users};

pub(crate) use gains::{mean_and_error, mean_and_error_by_user};
pub use group::{CompareError, Group, Run};
pub use holm::holm;
pub use lists::OtherLists;

/// How to compare.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    /// What counts as a hit.
    pub by: By,
    /// The metrics; [`default_metrics`] has all that the lists are long enough for.
    pub metrics: Vec<Metric>,
    /// Which models are compared with which.
    pub pairs: Pairs,
    /// Resamples of the bootstrap, and sign flips: from 100 to 1,000,000.
    pub resamples: usize,
    /// Seed of both.
    pub seed: u64,
}

/// What counts as a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The target item.
    Item,
    /// Any item of the target's title.
    Title,
}

impl By {
    fn rank(self, user: &UserRank) -> Option<f64> {
        match self {
            Self::Item => user.rank,
            Self::Title => user.title_rank,
        }
    }
}

/// Which models are compared with which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pairs {
    /// Every other one with the first.
    AgainstFirst,
    /// Every other one with the one of this name.
    Against(String),
    /// Each with each.
    All,
}

/// Models beside each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparisons {
    /// Name of the split.
    pub split: String,
    /// Checksum of the prepared data.
    pub data_fingerprint: String,
    /// What counts as a hit.
    pub by: By,
    /// Rows that were ranked.
    pub rows: usize,
    /// Different users; those with several rows are drawn with all of them.
    pub users: usize,
    /// Resamples of the bootstrap, and sign flips.
    pub resamples: usize,
    /// Seed of both.
    pub seed: u64,
    /// The models.
    pub models: Vec<Model>,
    /// How many lists are other lists, for each pair of models.
    pub lists: Vec<OtherLists>,
    /// Each metric of each pair of models.
    pub comparisons: Vec<Comparison>,
}

/// A model's name and runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// The files of its runs.
    pub runs: Vec<PathBuf>,
}

/// Two models in one metric. Differences are the other model's value less the baseline's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the model that the other one is compared with.
    pub baseline: String,
    /// Name of the other model.
    pub other: String,
    /// The metric.
    pub metric: Metric,
    /// The baseline's value in each of its runs.
    pub baseline_runs: Vec<f64>,
    /// The other model's value in each of its runs.
    pub other_runs: Vec<f64>,
    /// Mean of the baseline's runs.
    pub baseline_mean: f64,
    /// Mean of the other model's runs.
    pub other_mean: f64,
    /// How much the other model is better.
    pub difference: f64,
    /// What is known of just these runs, for users like these.
    pub these_runs: Evidence,
    /// What is known of the training, for users and seeds like these; null where a model has a single run.
    pub runs_like_these: Option<RunEvidence>,
}

/// How far a difference could come from chance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The difference's 95% interval.
    pub interval: [f64; 2],
    /// Probability of a difference at least as far from 0, were there none.
    pub p: f64,
    /// The same after Holm's correction for all metrics and pairs of the same question.
    pub p_holm: f64,
}

/// How far a difference could come from chance with the users and with the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunEvidence {
    /// Interval and p values.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// The difference's standard error.
    pub standard_error: f64,
    /// Degrees of freedom of the t distribution that interval and p value are from.
    pub degrees_of_freedom: f64,
}

impl Comparison {
    /// The difference of each run and the baseline's of the same place; `None` where they are not equally many.
    pub fn differences_of_runs(&self) -> Option<Vec<f64>> {
        let pairs = self.other_runs.iter().zip(&self.baseline_runs);
        (self.other_runs.len() == self.baseline_runs.len()).then(|| pairs.map(|(other, own)| other - own).collect())
    }
}

/// The shortest of the lists that are compared; none without results.
fn shortest_lists(groups: &[Group]) -> usize {
    let runs = groups.iter().flat_map(|group| &group.runs);
    runs.map(|run| run.result.evaluation.method.beams).min().unwrap_or(0)
}

/// All metrics that lists of this length allow; NDCG@1 is HR@1.
pub fn default_metrics(beams: usize) -> Vec<Metric> {
    let allowed = || CUTOFFS.into_iter().filter(move |&k| k <= beams);
    allowed().map(Metric::Hr).chain(allowed().filter(|&k| k > 1).map(Metric::Ndcg)).collect()
}

/// Each of the metrics that are asked for once; if none is, all that the shortest lists of the groups allow.
pub fn chosen_metrics(asked: &[Metric], groups: &[Group]) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for &metric in asked {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    if metrics.is_empty() { default_metrics(shortest_lists(groups)) } else { metrics }
}

/// Compares models that ranked the same items for the same users.
///
/// # Errors
///
/// See [`CompareError`].
pub fn compare(groups: &[Group], config: &CompareConfig) -> Result<Comparisons, CompareError> {
    group::check(groups)?;
    let pairs = pairs(groups, &config.pairs)?;
    let first = &groups[0].runs[0].result;
    let beams = shortest_lists(groups);
    if config.metrics.is_empty() {
        return Err(CompareError::NoMetrics);
    }
    if let Some(&metric) = config.metrics.iter().find(|metric| metric.cutoff() > beams) {
        return Err(CompareError::Cutoff { metric, beams });
    }
    if !(100..=1_000_000).contains(&config.resamples) {
        return Err(CompareError::Resamples(config.resamples));
    }
    let users = Users::of(first.evaluation.ranks.iter().map(|row| row.user.as_str()));
    if users.rows.len() < 2 {
        return Err(CompareError::Users(users.rows.len()));
    }
    let gains = |group: &Group| -> Vec<Gains> {
        config.metrics.iter().map(|&metric| Gains::of(&group.runs, metric, config.by, &users)).collect()
    };
    let gains: Vec<Vec<Gains>> = groups.iter().map(gains).collect();
    let of_pair = |&(baseline, other): &(usize, usize)| {
        compare_pair([&groups[baseline].name, &groups[other].name], [&gains[baseline], &gains[other]], &users, config)
    };
    let mut comparisons: Vec<Comparison> = pairs.iter().flat_map(of_pair).collect();
    adjust(comparisons.iter_mut().map(|comparison| &mut comparison.these_runs));
    let over_runs = comparisons.iter_mut().filter_map(|comparison| comparison.runs_like_these.as_mut());
    adjust(over_runs.map(|of_runs| &mut of_runs.evidence));
    let model = |group: &Group| Model {
        name: group.name.clone(),
        runs: group.runs.iter().map(|run| run.path.clone()).collect(),
    };
    Ok(Comparisons {
        split: first.split.clone(),
        data_fingerprint: first.data_fingerprint.clone(),
        by: config.by,
        rows: first.evaluation.ranks.len(),
        users: users.rows.len(),
        resamples: config.resamples,
        seed: config.seed,
        models: groups.iter().map(model).collect(),
        lists: pairs.iter().map(|&(baseline, other)| OtherLists::of(&groups[baseline], &groups[other])).collect(),
        comparisons,
    })
}

/// Places of the models that are compared, the baseline first.
fn pairs(groups: &[Group], pairs: &Pairs) -> Result<Vec<(usize, usize)>, CompareError> {
    let against =
        |baseline| (0..groups.len()).filter(|&other| other != baseline).map(|other| (baseline, other)).collect();
    match pairs {
        Pairs::AgainstFirst => Ok(against(0)),
        Pairs::Against(name) => match groups.iter().position(|group| group.name == *name) {
            Some(baseline) => Ok(against(baseline)),
            None => {
                let names = groups.iter().map(|group| format!("`{}`", group.name)).collect::<Vec<_>>();
                Err(CompareError::UnknownName(name.clone(), names.join(", ")))
            }
        },
        Pairs::All => Ok((0..groups.len()).flat_map(|a| (a + 1..groups.len()).map(move |b| (a, b))).collect()),
    }
}

/// Two models in all metrics, the p values not yet adjusted.
fn compare_pair(names: [&str; 2], gains: [&[Gains]; 2], users: &Users, config: &CompareConfig) -> Vec<Comparison> {
    let [baselines, others] = gains;
    let differences: Vec<Vec<f64>> = others.iter().zip(baselines).map(|(other, own)| other.over(own)).collect();
    let intervals = bootstrap::intervals(&differences, &users.rows, config.resamples, config.seed);
    let p_values = permutation::p_values(&differences, config.resamples, config.seed);
    let of_metric = |at: usize| {
        let [baseline, other] = [&baselines[at], &others[at]];
        let means = |gains: &Gains| gains.runs.iter().map(|sums| users.mean(sums)).collect::<Vec<_>>();
        let runs_like_these = runs::test(baseline, other, users).map(|test| RunEvidence {
            evidence: Evidence { interval: test.interval, p: test.p, p_holm: test.p },
            standard_error: test.standard_error,
            degrees_of_freedom: test.degrees_of_freedom,
        });
        Comparison {
            baseline: names[0].to_owned(),
            other: names[1].to_owned(),
            metric: config.metrics[at],
            baseline_runs: means(baseline),
            other_runs: means(other),
            baseline_mean: users.mean(&baseline.mean),
            other_mean: users.mean(&other.mean),
            difference: users.mean(&differences[at]),
            these_runs: Evidence { interval: intervals[at], p: p_values[at], p_holm: p_values[at] },
            runs_like_these,
        }
    };
    (0..config.metrics.len()).map(of_metric).collect()
}

fn adjust<'a>(evidence: impl Iterator<Item = &'a mut Evidence>) {
    let evidence: Vec<&mut Evidence> = evidence.collect();
    let adjusted = holm(&evidence.iter().map(|evidence| evidence.p).collect::<Vec<_>>());
    evidence.into_iter().zip(adjusted).for_each(|(evidence, p)| evidence.p_holm = p);
}
