//! Stage 2: rollouts, loss and gradients.

use super::deviation::{Deviation, difference, figure, gradient_deviations, loss_deviation, numbers};
use super::figures::{GrpoFigures, UpdateFigures};
use super::{Deviations, Golden};
use crate::models::Objective;
use crate::train::grpo::{AdvantageKind, Grpo, GrpoConfig, Rollouts, baseline, freeze_untrained};
use crate::train::{LocalUpdate, TrainError, World};

/// Largest deviation of gradients of stage 2, whose rewards' differences cancel.
const GRADIENT_LIMIT: f64 = 1e-3;

impl Golden {
    /// Log-probabilities, rewards, advantages, loss and gradients of stage 2 from one forward pass, for both
    /// advantages.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn grpo_from_one_pass(&self) -> Deviations {
        let (world, examples, noise) = (World::alone(), self.examples(), self.noise());
        let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
        let GrpoFigures { batch_advantage, group_advantage, .. } = &self.figures.grpo;
        let mut found = Vec::new();
        for (kind, expected) in [(AdvantageKind::Batch, batch_advantage), (AdvantageKind::Group, group_advantage)] {
            for micro_batch in [1, 64] {
                let stage = self.stage(kind, 0.0, micro_batch)?;
                let model = freeze_untrained(self.with_thoughts(1)?, stage.config());
                let rollouts = stage.roll_out(&model, &local, &noise)?;
                let flat =
                    |rows: &[Vec<f32>]| rows.iter().flatten().map(|&value| f64::from(value)).collect::<Vec<f64>>();
                let baseline = vec![baseline(&rollouts.rewards, stage.config().group)];
                found.extend([
                    difference("GRPO log-probabilities", flat(&rollouts.log_probs), &flat(&expected.logps)),
                    difference("GRPO rewards", rollouts.rewards, &expected.reward),
                    difference("GRPO baseline", baseline, &[expected.baseline]),
                    difference("GRPO advantages", rollouts.advantages, &expected.advantage),
                ]);
                // Given these, the gradients do not depend on how the rewards' differences were rounded.
                let advantages = expected.advantage.clone();
                let stage = stage.with_advantage(move |_, _| advantages.clone());
                let (_, update) = stage.roll_out_and_update(&model, &local, &noise)?;
                found.extend(update_deviations(&update, expected));
                found.push(Deviation {
                    what: "GRPO: weights of the backbone that train".into(),
                    error: update.gradients.names().filter(|name| !name.starts_with("attention.")).count() as f64,
                    limit: 0.0,
                });
            }
        }
        Ok(found)
    }

    /// Loss, KL divergence and gradients of updates on given rollouts: on and off policy, clipped, with a reference.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn grpo_updates(&self) -> Deviations {
        let (world, examples) = (World::alone(), self.examples());
        let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
        let GrpoFigures { batch_advantage, group_advantage, clipped_with_kl, .. } = &self.figures.grpo;
        let mut found = Vec::new();
        for (kind, expected) in [
            (AdvantageKind::Batch, batch_advantage),
            (AdvantageKind::Group, group_advantage),
            (AdvantageKind::Batch, clipped_with_kl),
        ] {
            let stage = self.stage(kind, expected.beta.unwrap_or(0.0), 1)?;
            let model = freeze_untrained(self.with_thoughts(1)?, stage.config());
            let rollouts = Rollouts {
                noise: self.noise(),
                densities: None,
                log_probs: expected.old_logps.as_ref().unwrap_or(&expected.logps).clone(),
                reference: expected.ref_logps.clone(),
                rewards: expected.reward.clone(),
                slopes: None,
                advantages: expected.advantage.clone(),
                pool: Default::default(),
            };
            found.extend(update_deviations(&stage.update(&model, &local, &rollouts)?, expected));
        }
        Ok(found)
    }

    fn noise(&self) -> Vec<f32> {
        self.figures.noise.iter().flat_map(numbers).map(|value| value as f32).collect()
    }

    /// The stage with standard deviation 1, so that the golden noise is added as it is.
    fn stage(&self, advantage: AdvantageKind, kl: f64, micro_batch: usize) -> Result<Grpo, TrainError> {
        let group = self.figures.noise[0].as_array().map_or(0, Vec::len);
        let [clip_low, clip_high] = self.figures.grpo.clip;
        let config = GrpoConfig { group, sigma: 1.0, advantage, kl, clip_low, clip_high, ..Default::default() };
        Grpo::new(config, micro_batch, 0, &self.model, Objective::vocabulary())
    }
}

fn update_deviations(update: &LocalUpdate, expected: &UpdateFigures) -> Vec<Deviation> {
    let mut found = vec![loss_deviation("GRPO loss", figure(update, "loss"), expected.loss)];
    found.extend(expected.kl.map(|kl| loss_deviation("GRPO KL divergence", figure(update, "kl"), kl)));
    found.extend(gradient_deviations("GRPO", &update.gradients, &expected.grads, GRADIENT_LIMIT));
    found
}
