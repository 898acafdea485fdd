//! The pathwise estimator: the derivative of the reward itself at every sample.

use latentr3_models::LatentRecommender;

use super::{Estimator, Setup, splits_by_sample};
use crate::TrainError;
use crate::grpo::config::GrpoConfig;
use crate::grpo::rollout::Rollouts;
use crate::grpo::sampler::{Keeps, Thoughts};
use crate::local_update::LocalUpdate;
use crate::world::LocalBatch;

/// See [`EstimatorKind::Pathwise`](crate::grpo::EstimatorKind::Pathwise).
pub(super) struct Pathwise;

impl Estimator for Pathwise {
    fn check(&self, config: &GrpoConfig) -> Result<(), TrainError> {
        if config.updates > 1 || config.kl > 0.0 || config.train_backbone {
            let problem =
                "pathwise needs a single update per rollout, no kl and a frozen backbone, because it has no ratio";
            return Err(TrainError::config("estimator", problem));
        }
        Ok(())
    }

    fn check_model(&self, model: &LatentRecommender) -> Result<(), TrainError> {
        if model.thoughts() != 1 {
            let problem = format!("pathwise needs a model with exactly one thought; this one has {}", model.thoughts());
            return Err(TrainError::config("estimator", problem));
        }
        Ok(())
    }

    fn keeps(&self) -> Keeps {
        Keeps::GradientsBySample
    }

    fn updates_at_once(&self, config: &GrpoConfig, model: &LatentRecommender) -> bool {
        splits_by_sample(config, model)
    }

    /// The loss is minus the mean reward.
    fn first(
        &self,
        setup: &Setup,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
        thoughts: Vec<Thoughts>,
    ) -> Result<LocalUpdate, TrainError> {
        let Some(slopes) = &rollouts.slopes else {
            let problem = "pathwise needs the derivative of the reward, and this reward has none";
            return Err(TrainError::config("estimator", problem));
        };
        let all = (batch.global.len() * setup.config.group) as f64;
        let weights = slopes.iter().map(|slope| -slope / all).collect();
        let loss = -rollouts.rewards.iter().sum::<f64>() / all;
        setup.weighted(model, batch, rollouts, thoughts, (weights, loss))
    }

    fn further(
        &self,
        _: &Setup,
        _: &LatentRecommender,
        _: &LocalBatch,
        _: &Rollouts,
    ) -> Result<LocalUpdate, TrainError> {
        Err(TrainError::config("estimator", "pathwise has no further updates on a rollout"))
    }
}
