//! The stage: rollouts, updates on them, and what the log says of both.

use burn::module::Module;
use latentr3_models::{LatentRecommender, Objective};
use serde_json::{Map, Value};

use super::advantage::Advantage;
use super::config::GrpoConfig;
use super::estimator::{Estimator, Setup};
use super::items::{ItemGuide, RankingGrpo};
use super::reward::{NegativePerplexity, Reward};
use super::rollout::{Rollouts, mean};
use super::sampler::Sampler;
use super::samples::group_noise;
use crate::forward::{unlikely_rows, validate};
use crate::guard::{Guards, Watched};
use crate::local_update::LocalUpdate;
use crate::optimizer::Optimizer;
use crate::progress::{Fault, StepReport, Validation};
use crate::stage::{Stage, ValidationPass};
use crate::world::LocalBatch;
use crate::{Example, TrainError};

/// The reinforcing stage.
pub struct Grpo {
    config: GrpoConfig,
    micro_batch: usize,
    seed: u64,
    objective: Objective,
    reward: Box<dyn Reward>,
    advantage: Advantage,
    reference: Option<LatentRecommender>,
}

/// Freezes what stage 2 does not train.
pub fn freeze_untrained(model: LatentRecommender, config: &GrpoConfig) -> LatentRecommender {
    let mut model = model.train();
    if !config.train_backbone {
        model.backbone = model.backbone.no_grad();
    }
    model
}

/// The stage of a configuration: [`RankingGrpo`] where the samples are items, else [`Grpo`].
///
/// # Errors
///
/// As [`RankingGrpo::new`] and [`Grpo::new`].
pub fn stage(
    config: GrpoConfig,
    micro_batch: usize,
    seed: u64,
    start: &LatentRecommender,
    objective: Objective,
    guide: Option<Box<dyn ItemGuide>>,
) -> Result<Box<dyn Stage<LatentRecommender>>, TrainError> {
    Ok(match config.items {
        Some(_) => Box::new(RankingGrpo::guided(config, micro_batch, seed, start, objective, guide)?),
        None => Box::new(Grpo::new(config, micro_batch, seed, start, objective)?),
    })
}

impl Grpo {
    /// The stage with the method's reward and the configuration's advantage.
    ///
    /// `micro_batch` prompts run through the model at once, each with its whole group; `seed` is that of the noise;
    /// `objective` says what the targets' tokens compete with, in rewards and ratios. `start` is the model as stage 2
    /// finds it; it becomes the reference policy if the configuration asks for one. While the backbone is frozen, the
    /// reference reuses the policy's hidden states of the prompts.
    ///
    /// # Errors
    ///
    /// A configuration that makes no sense, or a model of which nothing would train.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(not(feature = "flex"))] fn main() {}
    /// # #[cfg(feature = "flex")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use latentr3_models::backbone::{BackboneConfig, NewBackbone};
    /// use latentr3_models::{LatentRecommender, Objective, ThoughtKind, device};
    /// use latentr3_train::grpo::{Grpo, GrpoConfig, Sample, freeze_untrained};
    /// use latentr3_train::{AdamW, AdamWConfig, Example, Optimizer, Stage, World};
    ///
    /// let (sizes, thoughts) = (BackboneConfig::new(&NewBackbone::tiny(16, 0))?, ThoughtKind::LatentAttention);
    /// let model = LatentRecommender::new(sizes, thoughts, 1, 0, &device("flex")?)?;
    /// let config = GrpoConfig { group: 4, sigma: 0.3, ..Default::default() };
    /// let model = freeze_untrained(model, &config); // only the latent attention trains
    /// let stage = Grpo::new(config, 8, 0, &model, Objective::vocabulary())?
    ///     .with_reward(|sample: &Sample| f64::from(sample.log_probs[0]));
    /// let row = Example { prompt: vec![1, 2, 3], target: vec![5, 0], item: 0, row: 0 };
    /// let mut optimizer = Optimizer {
    ///     groups: Vec::new(),
    ///     adamw: AdamW::new(AdamWConfig::default()),
    ///     clip_norm: 1.0,
    ///     learning_rate: 1e-4,
    ///     step: 1,
    ///     temperature: None,
    /// };
    /// let (_model, report) = stage.step(model, &mut optimizer, &World::alone().local_batch(&[&row]))?;
    /// assert!(report.fault.is_none() && report.metrics.contains_key("reward_noise_free"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(
        config: GrpoConfig,
        micro_batch: usize,
        seed: u64,
        start: &LatentRecommender,
        objective: Objective,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let Some(advantage) = config.advantage.function(config.advantage_over).filter(|_| config.items.is_none())
        else {
            return Err(TrainError::config("items", "must not be set: this stage samples noise on the thought"));
        };
        config.check_trains(start)?;
        config.estimator.estimator().check_model(start)?;
        let reference = config.needs_reference().then(|| start.valid());
        let reward = Box::new(NegativePerplexity { largest: config.max_perplexity });
        Ok(Self { config, micro_batch, seed, objective, reward, advantage, reference })
    }

    /// The same stage with another reward.
    #[must_use]
    pub fn with_reward(self, reward: impl Reward + 'static) -> Self {
        Self { reward: Box::new(reward), ..self }
    }

    /// The same stage with other advantages than the configuration's.
    #[must_use]
    pub fn with_advantage(self, advantage: impl Fn(&[f64], usize) -> Vec<f64> + Send + Sync + 'static) -> Self {
        Self { advantage: Box::new(advantage), ..self }
    }

    /// The configuration.
    pub fn config(&self) -> &GrpoConfig {
        &self.config
    }

    /// Samples the group of each of a local batch's prompts with the given standard noise, `[rollouts, d_model]`, and
    /// rewards it; nothing trains.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a model without thoughts.
    pub fn roll_out(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        noise: &[f32],
    ) -> Result<Rollouts, TrainError> {
        Ok(self.sampler().sample(model, batch, noise, false)?.0)
    }

    /// Samples and rewards a local batch, and gives its part of the policy's gradients from the same forward pass.
    ///
    /// The published estimator can do so while the ratio is 1, which is at the first update on a rollout, for a frozen
    /// backbone, one thought and no KL divergence in the loss.
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
        if !self.estimator().updates_at_once(&self.config, model) {
            let problem = "updating from the sampling pass needs a frozen backbone, one thought and no kl";
            return Err(TrainError::config("estimator", problem));
        }
        let (rollouts, thoughts) = self.sampler().sample(model, batch, noise, true)?;
        let update = self.estimator().first(&self.setup(), model, batch, &rollouts, thoughts)?;
        Ok((rollouts, update))
    }

    /// A rank's part of loss and gradients of one update on given rollouts, in a forward pass of its own; with the
    /// score estimator one of the prompts only.
    ///
    /// Metrics: `loss`, the mean probability `ratio` over the target tokens, `clip_share`, the share of tokens whose
    /// ratio is outside the clip range, and, where there is a reference, the estimated `kl` divergence from it: of the
    /// current policy if it has a weight in the loss, else of the policy that made the rollouts. The score estimator
    /// counts noisy samples instead of tokens, and adds `thought_kl`, the divergence of the thoughts, where it has a
    /// weight.
    ///
    /// # Errors
    ///
    /// What the model refuses, a model without thoughts, or the pathwise estimator, which has one update only.
    pub fn update(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
    ) -> Result<LocalUpdate, TrainError> {
        self.estimator().further(&self.setup(), model, batch, rollouts)
    }

    fn estimator(&self) -> &'static dyn Estimator {
        self.config.estimator.estimator()
    }

    fn setup(&self) -> Setup<'_> {
        Setup { config: &self.config, micro_batch: self.micro_batch, objective: &self.objective }
    }

    fn sampler(&self) -> Sampler<'_> {
        Sampler {
            config: &self.config,
            micro_batch: self.micro_batch,
            objective: &self.objective,
            reward: self.reward.as_ref(),
            advantage: &self.advantage,
            reference: self.reference.as_ref(),
            keeps: self.estimator().keeps(),
        }
    }

    /// Standard noise for a step's local batch, `[rollouts, d_model]`.
    fn noise(&self, step: usize, batch: &LocalBatch, width: usize) -> Vec<f32> {
        let of_prompt = |&place: &usize| group_noise(self.seed, step as u64, place as u64, self.config.group, width);
        batch.places.iter().flat_map(of_prompt).collect()
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
        let (rollouts, mut first) = match self.estimator().updates_at_once(&self.config, &model) {
            true => {
                self.roll_out_and_update(&model, batch, &noise).map(|(rollouts, update)| (rollouts, Some(update)))?
            }
            false => (self.roll_out(&model.valid(), batch, &noise)?, None),
        };
        let rewards = &rollouts.pool.rewards;
        let mut fault = rewards.iter().find_map(|&reward| Fault::of("reward of a sample", reward));
        let mut metrics = Map::new();
        // The log has the last update's metrics.
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
        metrics.extend(rollouts.pool.metrics(self.config.group));
        let reward = mean(rollouts.pool.rewards.iter().copied());
        let kl = metrics.get("kl").and_then(Value::as_f64);
        let watched = Watched { loss: mean(rollouts.pool.losses.iter().copied()), kl };
        Ok((model, StepReport { headline: reward, metrics, fault, watched: Some(watched) }))
    }

    fn freeze(&self, model: LatentRecommender) -> LatentRecommender {
        freeze_untrained(model, &self.config)
    }

    fn validate(
        &self,
        model: &LatentRecommender,
        rows: &[Example],
        pass: &ValidationPass,
    ) -> Result<Option<Validation>, TrainError> {
        validate(model, &self.objective, rows, pass)
    }

    fn suspects(&self, model: &LatentRecommender, rows: &[&Example]) -> Result<Vec<usize>, TrainError> {
        unlikely_rows(model, &self.objective, rows)
    }

    fn guards(&self) -> Option<Guards> {
        Some(self.config.guards())
    }
}
