//! The published estimator: the advantage-weighted gradient of the target's likelihood, which goes back through the
//! backbone.

use latentr3_models::backbone::DetachedPrefix;
use latentr3_models::{LatentRecommender, host};

use super::{Estimator, Setup, splits_by_sample};
use crate::batches::micro_batches;
use crate::forward::{prompts, shared_prefix};
use crate::grpo::config::GrpoConfig;
use crate::grpo::loss::policy_loss;
use crate::grpo::rollout::Rollouts;
use crate::grpo::sampler::{Keeps, Thoughts, no_thoughts};
use crate::grpo::samples::{gather_noise, repeat_rows, repeated_targets};
use crate::local_update::LocalUpdate;
use crate::world::LocalBatch;
use crate::{Example, TrainError};

/// See [`EstimatorKind::Likelihood`](crate::grpo::EstimatorKind::Likelihood).
pub(super) struct Likelihood;

impl Estimator for Likelihood {
    fn check(&self, _: &GrpoConfig) -> Result<(), TrainError> {
        Ok(())
    }

    fn keeps(&self) -> Keeps {
        Keeps::GradientsBySample
    }

    fn updates_at_once(&self, config: &GrpoConfig, model: &LatentRecommender) -> bool {
        splits_by_sample(config, model)
    }

    /// While the ratio is 1 the loss is `-A_k log p_k / tokens` up to a constant, and its gradient by the thought a
    /// weighted sum of each sample's own.
    fn first(
        &self,
        setup: &Setup,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
        thoughts: Vec<Thoughts>,
    ) -> Result<LocalUpdate, TrainError> {
        let total = setup.tokens(batch)? as f64;
        let weights: Vec<f64> = rollouts.advantages.iter().map(|advantage| -advantage / total).collect();
        let loss = weights.iter().zip(&rollouts.log_probs).map(|(weight, row)| weight * row.len() as f64).sum();
        setup.weighted(model, batch, rollouts, thoughts, (weights, loss))
    }

    /// The clipped loss.
    fn further(
        &self,
        setup: &Setup,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
    ) -> Result<LocalUpdate, TrainError> {
        let (group, total, device) = (setup.config.group, setup.tokens(batch)?, model.device());
        let names =
            ["loss", "ratio", "clip_share", "kl"].into_iter().take(3 + usize::from(rollouts.reference.is_some()));
        let mut update = LocalUpdate::default().with_metrics(names);
        // As in the rollout; where the backbone trains, gradients go through it when all micro-batches are done.
        let (mut prefix, mut detached) = (shared_prefix(model, &batch.rows)?, None);
        if setup.config.train_backbone {
            detached = prefix.take().map(DetachedPrefix::new);
        }
        for places in micro_batches(&batch.rows, setup.micro_batch) {
            let rows: Vec<&Example> = places.iter().map(|&place| batch.rows[place]).collect();
            let prefix = detached.as_ref().map(DetachedPrefix::prefix).or(prefix.as_ref());
            let model_of_pass = model.with_joined_projections();
            let mut state = model_of_pass.backbone.prefill_after(prefix, &prompts(&rows))?;
            let thought = model_of_pass.think(&mut state)?.ok_or_else(no_thoughts)?;
            let [_, width] = thought.dims();
            let noise = gather_noise(&rollouts.noise, &places, group * width, width, &device);
            let samples = repeat_rows(thought, group) + noise;
            let targets = repeated_targets(&rows, group);
            let log_probs = model_of_pass.target_log_probs(&state, Some(samples), &targets, setup.objective)?.values;

            let own: Vec<usize> = places.iter().flat_map(|place| place * group..(place + 1) * group).collect();
            let flat = |rows: &[Vec<f32>]| own.iter().flat_map(|&rollout| rows[rollout].clone()).collect::<Vec<f32>>();
            let tensor = |values: Vec<f32>| host::vector(values, &device);
            let advantages: Vec<f32> = own
                .iter()
                .flat_map(|&rollout| {
                    std::iter::repeat_n(rollouts.advantages[rollout] as f32, rollouts.log_probs[rollout].len())
                })
                .collect();
            let old = tensor(flat(&rollouts.log_probs));
            let reference = rollouts.reference.as_ref().map(|reference| tensor(flat(reference)));
            let loss = policy_loss(log_probs, old, tensor(advantages), reference, total, setup.config.clip());
            let mut tape = loss.loss.backward();
            if let Some(detached) = &mut detached {
                detached.collect(&mut tape);
            }
            update.add_gradients(model, tape);
            loss.metrics("kl").for_each(|(name, value)| update.metrics.add(name, value));
        }
        if let Some(tape) = detached.and_then(DetachedPrefix::backward) {
            update.add_gradients(model, tape);
        }
        Ok(update)
    }
}
