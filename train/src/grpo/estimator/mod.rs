//! Estimators of the gradient of the expected reward; `docs/stage-2.md` derives them.

mod likelihood;
mod pathwise;
mod score;

use latentr3_models::{LatentRecommender, Objective, host};

use super::config::{EstimatorKind, GrpoConfig};
use super::loss::LARGEST_KL;
use super::rollout::Rollouts;
use super::sampler::{Keeps, Thoughts};
use crate::TrainError;
use crate::local_update::LocalUpdate;
use crate::world::LocalBatch;

/// What the estimators share of a stage.
pub(super) struct Setup<'a> {
    pub config: &'a GrpoConfig,
    pub micro_batch: usize,
    pub objective: &'a Objective,
}

/// An estimator: the updates that it makes of rollouts, and what it refuses.
pub(super) trait Estimator {
    /// Makes sure that the configuration makes sense together with it.
    fn check(&self, config: &GrpoConfig) -> Result<(), TrainError>;

    /// Makes sure that it can train the model.
    fn check_model(&self, model: &LatentRecommender) -> Result<(), TrainError> {
        let _ = model;
        Ok(())
    }

    /// What the pass that samples keeps for it.
    fn keeps(&self) -> Keeps;

    /// Whether its first update comes from the pass that samples.
    fn updates_at_once(&self, config: &GrpoConfig, model: &LatentRecommender) -> bool;

    /// A rank's part of loss and gradients from the pass that sampled.
    fn first(
        &self,
        setup: &Setup,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
        thoughts: Vec<Thoughts>,
    ) -> Result<LocalUpdate, TrainError>;

    /// A rank's part of loss and gradients on given rollouts, in a forward pass of its own.
    fn further(
        &self,
        setup: &Setup,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
    ) -> Result<LocalUpdate, TrainError>;
}

impl EstimatorKind {
    /// The estimator of this kind.
    pub(super) fn estimator(self) -> &'static dyn Estimator {
        match self {
            Self::Likelihood => &likelihood::Likelihood,
            Self::Score => &score::Score,
            Self::Pathwise => &pathwise::Pathwise,
        }
    }
}

impl Setup<'_> {
    /// Predicted tokens of all rollouts of a batch.
    fn tokens(&self, batch: &LocalBatch) -> Result<usize, TrainError> {
        Ok(batch.target_size(self.objective)?.choices * self.config.group)
    }

    /// Adds the metric `kl`, a rank's part of the KL divergence to the reference at the rollouts, where there is one.
    fn add_kl(&self, update: &mut LocalUpdate, batch: &LocalBatch, rollouts: &Rollouts) -> Result<(), TrainError> {
        if let Some(kl) = rollouts.kl() {
            let kl = kl / self.tokens(batch)? as f64;
            update.metrics.add_value("kl", if kl > LARGEST_KL { LARGEST_KL } else { kl });
        }
        Ok(())
    }

    /// An update whose gradient by each thought is the sum of its samples' own gradients, weighted; with these metrics.
    fn weighted(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
        thoughts: Vec<Thoughts>,
        (weights, loss): (Vec<f64>, f64),
    ) -> Result<LocalUpdate, TrainError> {
        let (group, total) = (self.config.group, self.tokens(batch)? as f64);
        let mut update = LocalUpdate::default();
        for Thoughts { places, thought, by_sample } in thoughts {
            let by_sample = by_sample.expect("this estimator's rollouts have it");
            let own = |place: &usize| weights[place * group..(place + 1) * group].iter().map(|&weight| weight as f32);
            let own: Vec<f32> = places.iter().flat_map(own).collect();
            let [prompts, width] = thought.dims();
            let own = host::floats(own, [prompts * group, 1], &by_sample.device());
            let by_thought = (by_sample * own).reshape([prompts, group, width]).sum_dim(1).reshape([prompts, width]);
            // A function whose gradient by the thought is the weighted sum.
            update.add_gradients(model, (thought * by_thought).sum().backward());
        }
        let tokens = rollouts.log_probs.iter().map(Vec::len).sum::<usize>() as f64;
        for (name, value) in [("loss", loss), ("ratio", tokens / total), ("clip_share", 0.0)] {
            update.metrics.add_value(name, value);
        }
        self.add_kl(&mut update, batch, rollouts)?;
        Ok(update)
    }
}

/// Whether a frozen backbone and a single thought let the gradient by each sample stand for that by the thought.
fn splits_by_sample(config: &GrpoConfig, model: &LatentRecommender) -> bool {
    config.kl == 0.0 && !config.train_backbone && model.thoughts() == 1
}
