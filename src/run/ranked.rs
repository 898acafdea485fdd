//! A stage whose validations also rank the catalog for some validation users.

use burn::module::Module;
use serde_json::json;

use super::description::{RunData, RunDescription};
use super::samples::samples;
use super::selection::Selection;
use crate::data::{PreparedRow, Split};
use crate::eval::{CUTOFFS, EvalConfig, Metric, Shard, evaluate, sample, shown};
use crate::models::LatentRecommender;
use crate::models::decode::BeamConfig;
use crate::train::{Example, Guards, LocalBatch, Optimizer, Stage, StepReport, TrainError, Validation, ValidationPass};

/// A stage that does as `stage` does, and also ranks the catalog for a fixed sample of validation users.
///
/// Its validations have HR and NDCG, which the run may select by, and what the lists show. The ranks share the
/// users.
pub(super) struct Ranked<'a> {
    stage: &'a dyn Stage<LatentRecommender>,
    data: &'a RunData,
    rows: Vec<&'a PreparedRow>,
    /// Rows of users to show recommendations for.
    shown: Vec<&'a PreparedRow>,
    micro_batch: usize,
    select: Selection,
}

impl<'a> Ranked<'a> {
    pub fn new(stage: &'a dyn Stage<LatentRecommender>, description: &RunDescription, data: &'a RunData) -> Self {
        let users = data.prepared.rows.get(Split::Valid);
        let rows = sample(users, Some(description.rank_sample), description.train.seed);
        let shown = sample(users, Some(description.sample_users), description.train.seed);
        Self { stage, data, rows, shown, micro_batch: description.train.micro_batch, select: description.select }
    }

    /// The metrics that lists of ten have, and the one that is selected by; the share of the catalog that the first ten
    /// places show, and the number of items that stand first.
    fn rank(
        &self,
        model: &LatentRecommender,
        pass: &ValidationPass,
    ) -> Result<(Vec<(Metric, f64)>, Shown), TrainError> {
        let selected = self.select.metric();
        let beams = BeamConfig::default().beams.max(selected.map_or(0, Metric::cutoff));
        let mut metrics: Vec<Metric> =
            CUTOFFS.into_iter().filter(|&k| k <= beams).flat_map(|k| [Metric::Hr(k), Metric::Ndcg(k)]).collect();
        metrics.extend(selected.filter(|metric| !metrics.contains(metric)));
        let shard = Shard::of_rank(pass.world.rank(), pass.world.size());
        let beam = BeamConfig { beams, ..BeamConfig::default() };
        let config = EvalConfig { beam, batch: self.micro_batch, shard, exclude_history: false };
        let evaluation =
            evaluate(&model.valid(), &self.data.prepared, &self.data.objective, &self.rows, config, &mut |_, _| {})?;
        let sum = |metric: &Metric| evaluation.ranks.iter().map(|user| metric.gain(user.rank)).sum::<f64>();
        let mut sums: Vec<f64> = metrics.iter().map(sum).collect();
        pass.world.all_reduce(&mut sums);
        let users = self.rows.len() as f64;
        let items = self.data.prepared.catalog.len();
        let shown_within = |places| {
            let lists = evaluation.ranks.iter().map(|user| user.list.as_slice());
            let mut shown = shown(lists, items, places).unwrap_or_else(|| vec![0.0; items]);
            pass.world.all_reduce(&mut shown);
            shown.iter().filter(|&&shown| shown > 0.0).count()
        };
        let exposure = Shown { coverage: shown_within(10) as f64 / items as f64, first_items: shown_within(1) };
        Ok((metrics.into_iter().zip(sums).map(|(metric, sum)| (metric, sum / users)).collect(), exposure))
    }
}

/// What the lists of the sample show.
struct Shown {
    /// Share of the catalog in the first ten places.
    coverage: f64,
    /// Items that stand first in a list.
    first_items: usize,
}

impl Stage<LatentRecommender> for Ranked<'_> {
    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &LocalBatch,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        self.stage.step(model, optimizer, batch)
    }

    fn validate(
        &self,
        model: &LatentRecommender,
        rows: &[Example],
        pass: &ValidationPass,
    ) -> Result<Option<Validation>, TrainError> {
        let Some(mut validation) = self.stage.validate(model, rows, pass)? else {
            return Ok(None);
        };
        if !self.rows.is_empty() {
            let (metrics, Shown { coverage, first_items }) = self.rank(model, pass)?;
            validation.metrics.insert("valid_coverage".into(), json!(coverage));
            validation.metrics.insert("valid_first_items".into(), json!(first_items));
            for (metric, value) in metrics {
                let name = if matches!(metric, Metric::Hr(_)) { "valid_hr" } else { "valid_ndcg" };
                let values = validation.metrics.entry(name).or_insert_with(|| json!({}));
                values[metric.cutoff().to_string()] = json!(value);
                if self.select == Selection::Ranking(metric) {
                    validation.score = value;
                }
            }
        }
        if pass.world.is_root() {
            let samples = samples(&model.valid(), self.data, &self.shown, self.micro_batch)?;
            if !samples.is_empty() {
                validation.metrics.insert("valid_samples".into(), json!(samples));
            }
        }
        Ok(Some(validation))
    }

    fn freeze(&self, model: LatentRecommender) -> LatentRecommender {
        self.stage.freeze(model)
    }

    fn guards(&self) -> Option<Guards> {
        self.stage.guards()
    }

    fn suspects(&self, model: &LatentRecommender, rows: &[&Example]) -> Result<Vec<usize>, TrainError> {
        self.stage.suspects(model, rows)
    }
}
