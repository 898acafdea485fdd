//! A stage whose validations also rank the catalog for some validation users.

use burn::module::Module;
use serde_json::json;

use super::description::{RunData, RunDescription};
use crate::data::{PreparedRow, Split};
use crate::eval::{CUTOFFS, EvalConfig, Metric, Shard, evaluate, sample};
use crate::models::LatentRecommender;
use crate::models::decode::BeamConfig;
use crate::train::{Example, Guards, LocalBatch, Optimizer, Stage, StepReport, TrainError, Validation, ValidationPass};

/// A stage that does as `stage` does, and adds HR and NDCG on a fixed sample of validation users to its validations. The ranks share the
/// users.
pub(super) struct Ranked<'a> {
    stage: &'a dyn Stage<LatentRecommender>,
    data: &'a RunData,
    rows: Vec<&'a PreparedRow>,
    micro_batch: usize,
}

impl<'a> Ranked<'a> {
    pub fn new(stage: &'a dyn Stage<LatentRecommender>, description: &RunDescription, data: &'a RunData) -> Self {
        let users = data.prepared.rows.get(Split::Valid);
        let rows = sample(users, Some(description.rank_sample), description.train.seed);
        Self { stage, data, rows, micro_batch: description.train.micro_batch }
    }

    /// Sums over this rank's users of each metric that lists of ten have, and the number of users, added up over the ranks.
    fn rank(&self, model: &LatentRecommender, pass: &ValidationPass) -> Result<Vec<(Metric, f64)>, TrainError> {
        let metrics: Vec<Metric> = CUTOFFS
            .into_iter()
            .filter(|&k| k <= BeamConfig::default().beams)
            .flat_map(|k| [Metric::Hr(k), Metric::Ndcg(k)])
            .collect();
        let shard = Shard::of_rank(pass.world.rank(), pass.world.size());
        let config = EvalConfig { beam: BeamConfig::default(), batch: self.micro_batch, shard };
        let evaluation =
            evaluate(&model.valid(), &self.data.prepared, &self.data.objective, &self.rows, config, &mut |_, _| {})?;
        let sum = |metric: &Metric| evaluation.ranks.iter().map(|user| metric.gain(user.rank)).sum::<f64>();
        let mut sums: Vec<f64> = metrics.iter().map(sum).collect();
        pass.world.all_reduce(&mut sums);
        let users = self.rows.len() as f64;
        Ok(metrics.into_iter().zip(sums).map(|(metric, sum)| (metric, sum / users)).collect())
    }
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
            for (metric, value) in self.rank(model, pass)? {
                let name = if matches!(metric, Metric::Hr(_)) { "valid_hr" } else { "valid_ndcg" };
                let values = validation.metrics.entry(name).or_insert_with(|| json!({}));
                values[metric.cutoff().to_string()] = json!(value);
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
