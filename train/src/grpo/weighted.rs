//! The estimators that weigh the gradient of the target's likelihood: the published one by the advantage, the pathwise one
//! by the perplexity, which gives the derivative of the reward itself.

use burn::tensor::{Tensor, TensorData};
use latentr3_models::LatentRecommender;
use latentr3_models::backbone::Cut;

use super::config::Estimator;
use super::loss::policy_loss;
use super::rollout::{Rollouts, Thoughts, gather_noise, no_thoughts, repeat_rows, repeated_targets};
use super::stage::Grpo;
use crate::batches::micro_batches;
use crate::forward::{common_head, prompts};
use crate::local_update::LocalUpdate;
use crate::world::LocalBatch;
use crate::{Example, TrainError};

impl Grpo {
    /// A rank's part of loss and gradients from the pass that sampled.
    pub(super) fn weighted_update(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
        thoughts: Vec<Thoughts>,
    ) -> Result<LocalUpdate, TrainError> {
        let total = self.tokens(batch)? as f64;
        let (group, weights) = (self.config.group, self.weights(batch, rollouts, total));
        let mut update = LocalUpdate::new(model);
        for Thoughts { places, thought, by_sample } in thoughts {
            let by_sample = by_sample.expect("this estimator's rollouts have it");
            let own = |place: &usize| weights[place * group..(place + 1) * group].iter().map(|&weight| weight as f32);
            let own: Vec<f32> = places.iter().flat_map(own).collect();
            let [prompts, width] = thought.dims();
            let own = Tensor::<2>::from_data(TensorData::new(own, [prompts * group, 1]), &by_sample.device());
            let by_thought = (by_sample * own).reshape([prompts, group, width]).sum_dim(1).reshape([prompts, width]);
            // A function whose gradient by the thought is the weighted sum.
            update.add_gradients(model, (thought * by_thought).sum().backward());
        }
        let loss: f64 = match self.config.estimator {
            Estimator::Pathwise => -rollouts.rewards.iter().sum::<f64>() / (batch.global.len() * group) as f64,
            _ => weights.iter().zip(&rollouts.log_probs).map(|(weight, row)| weight * row.len() as f64).sum(),
        };
        let tokens = rollouts.log_probs.iter().map(Vec::len).sum::<usize>() as f64;
        for (name, value) in [("loss", loss), ("ratio", tokens / total), ("clip_share", 0.0)] {
            update.add_value(name, value);
        }
        self.add_kl(&mut update, batch, rollouts)?;
        Ok(update)
    }

    /// The derivative of the loss by each rollout's summed log-probabilities: `-A_k / tokens`, or with [`Estimator::Pathwise`] that
    /// of minus the mean reward, `s_k / (|y| rollouts)`, which is 0 where the reward is bounded.
    fn weights(&self, batch: &LocalBatch, rollouts: &Rollouts, total: f64) -> Vec<f64> {
        if self.config.estimator == Estimator::Pathwise {
            let all = (batch.global.len() * self.config.group) as f64;
            let weight = |(&reward, row): (&f64, &Vec<f32>)| match reward > -self.config.max_perplexity {
                true => reward / (row.len() as f64 * all),
                false => 0.0,
            };
            return rollouts.rewards.iter().zip(&rollouts.log_probs).map(weight).collect();
        }
        rollouts.advantages.iter().map(|advantage| -advantage / total).collect()
    }

    /// A rank's part of loss and gradients of the published estimator's clipped loss on given rollouts.
    pub(super) fn ratio_update(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
    ) -> Result<LocalUpdate, TrainError> {
        let (group, total, device) = (self.config.group, self.tokens(batch)?, model.device());
        let names = ["loss", "ratio", "clip_share", "kl"].into_iter().take(3 + usize::from(self.reference.is_some()));
        let mut update = LocalUpdate::new(model).with_metrics(names);
        // As in the rollout; where the backbone trains, gradients go through it when all micro-batches are done.
        let (mut head, mut cut) = (common_head(model, &batch.rows)?, None);
        if self.config.train_backbone {
            cut = head.take().map(Cut::new);
        }
        for places in micro_batches(&batch.rows, self.micro_batch) {
            let rows: Vec<&Example> = places.iter().map(|&place| batch.rows[place]).collect();
            let head = cut.as_ref().map(Cut::head).or(head.as_ref());
            let mut state = model.backbone.prefill_after(head, &prompts(&rows))?;
            let thought = model.think(&mut state)?.ok_or_else(no_thoughts)?;
            let [_, width] = thought.dims();
            let noise = gather_noise(&rollouts.noise, &places, group * width, width, &device);
            let samples = repeat_rows(thought, group) + noise;
            let targets = repeated_targets(&rows, group);
            let log_probs = model.target_log_probs(&state, Some(samples), &targets, &self.objective)?.values;

            let own: Vec<usize> = places.iter().flat_map(|place| place * group..(place + 1) * group).collect();
            let flat = |rows: &[Vec<f32>]| own.iter().flat_map(|&rollout| rows[rollout].clone()).collect::<Vec<f32>>();
            let tensor = |values: &[f32]| Tensor::<1>::from_data(values, &device);
            let advantages: Vec<f32> = own
                .iter()
                .flat_map(|&rollout| {
                    std::iter::repeat_n(rollouts.advantages[rollout] as f32, rollouts.log_probs[rollout].len())
                })
                .collect();
            let old = tensor(&flat(&rollouts.log_probs));
            let reference = rollouts.reference.as_ref().map(|reference| tensor(&flat(reference)));
            let loss = policy_loss(log_probs, old, tensor(&advantages), reference, total, &self.config);
            let mut tape = loss.loss.backward();
            if let Some(cut) = &mut cut {
                cut.collect(&mut tape);
            }
            update.add_gradients(model, tape);
            loss.metrics("kl").for_each(|(name, value)| update.metrics.add(name, value));
        }
        if let Some(tape) = cut.and_then(Cut::backward) {
            update.add_gradients(model, tape);
        }
        Ok(update)
    }
}
