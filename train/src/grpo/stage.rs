use burn::module::Module;
use latentr3_models::{LatentRecommender, Objective, ThoughtKind};
use serde_json::{Map, Value, json};

use super::advantage::Advantage;
use super::config::{Estimator, GrpoConfig};
use super::loss::LARGEST_KL;
use super::noise::group_noise;
use super::reward::{Reward, negative_perplexity};
use super::rollout::{Pool, Rollouts};
use crate::forward::{likelihood, unlikely_rows};
use crate::guard::{Guards, Watched};
use crate::local_update::LocalUpdate;
use crate::optimizer::Optimizer;
use crate::progress::{Fault, StepReport, Validation};
use crate::stage::{Stage, ValidationPass};
use crate::world::LocalBatch;
use crate::{Example, TrainError};

/// The reinforcing stage.
pub struct Grpo {
    /// The knobs.
    pub config: GrpoConfig,
    /// Prompts that run through the model at once, each with its whole group.
    pub micro_batch: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// What the targets' tokens compete with, in rewards and ratios.
    pub objective: Objective,
    /// Reward of a sample; [`negative_perplexity`] unless replaced, which [`Estimator::Pathwise`] needs.
    pub reward: Reward,
    /// Advantages of a batch; those of the configuration unless replaced.
    pub advantage: Advantage,
    /// The policy that the KL divergence is measured from, where [`GrpoConfig::needs_reference`]. While the backbone is frozen its
    /// prompts are taken from the policy's.
    pub reference: Option<LatentRecommender>,
}

/// Freezes what stage 2 does not train.
pub fn prepare_model(model: LatentRecommender, config: &GrpoConfig) -> LatentRecommender {
    let mut model = model.train();
    if !config.train_backbone {
        model.backbone = model.backbone.no_grad();
    }
    model
}

impl Grpo {
    /// The stage with the method's reward and the configuration's advantage. `start` is the model as stage 2 finds it;
    /// it becomes the reference policy if the configuration asks for one.
    ///
    /// # Errors
    ///
    /// A configuration that makes no sense, or a model of which nothing would train.
    pub fn new(
        config: GrpoConfig,
        micro_batch: usize,
        seed: u64,
        start: &LatentRecommender,
        objective: Objective,
    ) -> Result<Self, TrainError> {
        config.check()?;
        if start.thoughts() == 0 {
            return Err(TrainError::config("thoughts", "is 0; stage 2 needs a model that thinks"));
        }
        if !config.train_backbone && start.source.kind() == ThoughtKind::LastHidden {
            let problem = "is off, and the last hidden state as thought has no parameters: nothing would train";
            return Err(TrainError::config("train_backbone", problem));
        }
        if config.estimator == Estimator::Pathwise && start.thoughts() != 1 {
            let problem = format!("is pathwise, which is for one thought; the model has {}", start.thoughts());
            return Err(TrainError::config("estimator", problem));
        }
        let advantage = config.advantage.function();
        let reference = config.needs_reference().then(|| start.valid());
        let reward = Box::new(negative_perplexity);
        Ok(Self { config, micro_batch, seed, objective, reward, advantage, reference })
    }

    /// Samples and rewards a local batch, and gives its part of the policy's gradients from the same forward pass.
    ///
    /// With [`Estimator::Likelihood`] this holds while the ratio is 1, which is at the first update on a rollout, for a
    /// frozen backbone, one thought and no KL divergence in the loss: it is then `-A_k log p_k / tokens` up to a constant, and
    /// its gradient by the thought a weighted sum of each sample's own.
    ///
    /// # Errors
    ///
    /// What the model refuses, a model without thoughts, or an update that needs a pass of its own.
    pub fn roll_out_and_update(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        noise: &[f32],
    ) -> Result<(Rollouts, LocalUpdate), TrainError> {
        if !self.updates_at_once(model) {
            let problem =
                "is likelihood: an update from the pass that samples needs a frozen backbone, one thought and no kl";
            return Err(TrainError::config("estimator", problem));
        }
        let (rollouts, thoughts) = self.sample(model, batch, noise, true)?;
        let update = match self.config.estimator {
            Estimator::Likelihood | Estimator::Pathwise => self.weighted_update(model, batch, &rollouts, thoughts)?,
            Estimator::Score => self.score_update(model, batch, &rollouts, thoughts)?,
        };
        Ok((rollouts, update))
    }

    /// A rank's part of loss and gradients of one update on given rollouts, in a forward pass of its own; with
    /// [`Estimator::Score`] one of the prompts only.
    ///
    /// Figures: `loss`, the mean probability `ratio` over the target tokens, `clip_share`, the share of tokens whose ratio is outside the
    /// clip range, and, where there is a reference, the estimated `kl` divergence to it, of the policy that made the rollouts where the
    /// loss has no use for it. [`Estimator::Score`] counts noisy samples instead of tokens, and adds `thought_kl`, the divergence of the
    /// thoughts, where it has a weight.
    ///
    /// # Errors
    ///
    /// What the model refuses, a model without thoughts, or [`Estimator::Pathwise`], which has one update only.
    pub fn update(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
    ) -> Result<LocalUpdate, TrainError> {
        match self.config.estimator {
            Estimator::Likelihood => self.ratio_update(model, batch, rollouts),
            Estimator::Score => self.score_update(model, batch, rollouts, self.think_again(model, batch)?),
            Estimator::Pathwise => {
                Err(TrainError::config("estimator", "is pathwise, whose only update comes with its rollout"))
            }
        }
    }

    /// Adds the figure `kl`, a rank's part of the KL divergence to the reference at the rollouts, where there is one.
    pub(super) fn add_kl(
        &self,
        update: &mut LocalUpdate,
        batch: &LocalBatch,
        rollouts: &Rollouts,
    ) -> Result<(), TrainError> {
        if let Some(kl) = rollouts.kl() {
            let kl = kl / self.tokens(batch)? as f64;
            update.add_value("kl", if kl > LARGEST_KL { LARGEST_KL } else { kl });
        }
        Ok(())
    }

    /// Standard noise for a step's local batch, `[rollouts, d_model]`.
    fn noise(&self, step: usize, batch: &LocalBatch, width: usize) -> Vec<f32> {
        let of_prompt = |&place: &usize| group_noise(self.seed, step as u64, place as u64, self.config.group, width);
        batch.places.iter().flat_map(of_prompt).collect()
    }

    /// Predicted tokens of all rollouts of a batch.
    pub(super) fn tokens(&self, batch: &LocalBatch) -> Result<usize, TrainError> {
        Ok(batch.target_size(&self.objective)?.choices * self.config.group)
    }

    /// Whether [`Self::roll_out_and_update`] holds.
    fn updates_at_once(&self, model: &LatentRecommender) -> bool {
        let GrpoConfig { estimator, kl, train_backbone, .. } = self.config;
        estimator == Estimator::Score || (kl == 0.0 && !train_backbone && model.thoughts() == 1)
    }
}

impl Stage<LatentRecommender> for Grpo {
    fn step(
        &self,
        mut model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &LocalBatch,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let noise = self.noise(optimizer.step, batch, model.backbone.config().d_model);
        let (rollouts, mut first) = match self.updates_at_once(&model) {
            true => {
                self.roll_out_and_update(&model, batch, &noise).map(|(rollouts, update)| (rollouts, Some(update)))?
            }
            false => (self.roll_out(&model.valid(), batch, &noise)?, None),
        };
        let rewards = &rollouts.pool.rewards;
        let mut fault = rewards.iter().find_map(|&reward| Fault::of("reward of a sample", reward));
        let mut metrics = Map::new();
        // The log has the last update's figures.
        for _ in 0..self.config.updates {
            if fault.is_none() {
                let update = match first.take() {
                    Some(update) => update,
                    None => self.update(&model, batch, &rollouts)?,
                };
                let (moved, report) = optimizer.apply(model, update, batch)?;
                (model, fault, metrics) = (moved, report.fault, report.metrics);
                metrics.entry("kl").or_insert(Value::Null);
            }
        }
        metrics.extend(describe(&rollouts.pool, self.config.group));
        let reward = mean(rollouts.pool.rewards.iter().copied());
        let kl = metrics.get("kl").and_then(Value::as_f64);
        let watched = Watched { loss: mean(rollouts.pool.losses.iter().copied()), kl };
        Ok((model, StepReport { headline: reward, metrics, fault, watched: Some(watched) }))
    }

    fn freeze(&self, model: LatentRecommender) -> LatentRecommender {
        prepare_model(model, &self.config)
    }

    fn validate(
        &self,
        model: &LatentRecommender,
        rows: &[Example],
        pass: &ValidationPass,
    ) -> Result<Option<Validation>, TrainError> {
        Ok(Some(likelihood(model, &self.objective, rows, pass)?.validation(&self.objective)))
    }

    fn suspects(&self, model: &LatentRecommender, rows: &[&Example]) -> Result<Vec<usize>, TrainError> {
        unlikely_rows(model, &self.objective, rows)
    }

    fn guards(&self) -> Option<Guards> {
        Some(self.config.guards())
    }
}

/// The figures by which one sees whether stage 2 does any good.
fn describe(pool: &Pool, group: usize) -> Map<String, Value> {
    let square_sum: f64 = pool.advantages.iter().map(|a| a * a).sum();
    let largest = pool.advantages.iter().map(|a| a * a).fold(0.0, f64::max);
    let average = mean(pool.advantages.iter().copied());
    let spread = mean(pool.advantages.iter().map(|a| (a - average).powi(2))).sqrt();
    let figures = [
        ("reward_noise_free", mean_of_samples(&pool.rewards, group, false)),
        ("reward_noisy", mean_of_samples(&pool.rewards, group, true)),
        ("loss_noise_free", mean(pool.losses.iter().copied())),
        ("advantage_spread", spread),
        ("advantage_largest_share", if square_sum > 0.0 { largest / square_sum } else { 0.0 }),
        ("thought_norm", mean(pool.thought_norms.iter().copied())),
        ("noise_norm", mean_of_samples(&pool.noise_norms, group, true)),
    ];
    figures.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

/// The mean of what each rollout of a batch has: over the noisy samples, or over the first one of each group, which is free of noise.
pub fn mean_of_samples(values: &[f64], group: usize, is_noisy: bool) -> f64 {
    let keep = |(i, value): (usize, &f64)| (i.is_multiple_of(group) != is_noisy).then_some(*value);
    mean(values.iter().enumerate().filter_map(keep))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}
