//! The stage whose samples are items.

use burn::module::Module;
use latentr3_models::{LatentRecommender, Objective, ObjectiveKind, TargetSize};
use serde_json::{Map, Value, json};

use super::candidate::Candidate;
use super::config::ItemsConfig;
use super::guide::{Guide, ItemGuide};
use crate::forward::{unlikely_rows, validate};
use crate::grpo::config::GrpoConfig;
use crate::grpo::loss::LARGEST_KL;
use crate::grpo::reward::Reward;
use crate::grpo::stage::freeze_untrained;
use crate::guard::{Guards, Watched};
use crate::local_update::LocalUpdate;
use crate::optimizer::Optimizer;
use crate::progress::{StepReport, Validation};
use crate::stage::{Stage, ValidationPass};
use crate::world::LocalBatch;
use crate::{Example, TrainError};

/// The reinforcing stage whose samples are items that the search finds.
pub struct RankingGrpo {
    pub(super) config: GrpoConfig,
    pub(super) items: ItemsConfig,
    pub(super) micro_batch: usize,
    pub(super) seed: u64,
    pub(super) objective: Objective,
    pub(super) guide: Option<Guide>,
    pub(super) reward: Box<dyn Reward>,
    pub(super) thought_reward: Option<Box<dyn Reward>>,
    pub(super) reference: Option<LatentRecommender>,
}

/// The items that were found after a prompt and a sample of its thought, and what they earned.
#[derive(Debug, Clone, Default)]
pub struct ItemGroup {
    /// The items, best first.
    pub list: Vec<Candidate>,
    /// The noise on the sample of the thought, as it was added, `[d_model]`; empty where there is a single sample.
    pub noise: Vec<f32>,
    /// What each of them earned.
    pub rewards: Vec<f64>,
    /// The weight of each of their choices.
    pub weights: Vec<Vec<f64>>,
    /// Log-probabilities of the target's choices.
    pub target: Vec<f32>,
    /// What the sample of the thought earned; 0 where thoughts earn nothing.
    pub thought_reward: f64,
    /// What that weighs for the target's choices.
    pub thought_weight: f64,
}

impl RankingGrpo {
    /// The stage with the configuration's rewards.
    ///
    /// `micro_batch` prompts run through the model at once, each with its lists; `seed` is that of the noise on their
    /// thoughts. `start` is the model as stage 2 finds it; it becomes the reference policy if the configuration asks for
    /// one.
    ///
    /// # Errors
    ///
    /// A configuration that makes no sense or that is not one of items, another objective than the catalog's, a reward
    /// by a guide, or a model with nothing to train.
    pub fn new(
        config: GrpoConfig,
        micro_batch: usize,
        seed: u64,
        start: &LatentRecommender,
        objective: Objective,
    ) -> Result<Self, TrainError> {
        Self::guided(config, micro_batch, seed, start, objective, None)
    }

    /// [`Self::new`] with the reward [`RewardKind::Guide`](super::RewardKind::Guide), which the configuration may name.
    ///
    /// # Errors
    ///
    /// See [`Self::new`]; also a guide that is missing.
    pub fn guided(
        config: GrpoConfig,
        micro_batch: usize,
        seed: u64,
        start: &LatentRecommender,
        objective: Objective,
        guide: Option<Box<dyn ItemGuide>>,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let Some(items) = config.items.clone() else {
            return Err(TrainError::config("items", "must be set: this stage samples items"));
        };
        if objective.kind() != ObjectiveKind::Catalog {
            let problem = format!("must be catalog when the samples are items, got {}", objective.kind());
            return Err(TrainError::config("objective", problem));
        }
        config.check_trains(start)?;
        if items.guide.is_some() && guide.is_none() {
            return Err(TrainError::config("guide", "is configured but was not passed to the stage"));
        }
        let tree = objective.tree()?;
        let guide = guide.map(|guide| Guide::new(guide, tree));
        let reward = Box::new(items.item_reward(guide.clone()));
        let thought_reward =
            items.thought_reward(config.max_perplexity).map(|reward| Box::new(reward) as Box<dyn Reward>);
        let reference = config.needs_reference().then(|| start.valid());
        Ok(Self { config, items, micro_batch, seed, objective, guide, reward, thought_reward, reference })
    }

    /// The same stage with another reward of items.
    #[must_use]
    pub fn with_reward(self, reward: impl Reward + 'static) -> Self {
        Self { reward: Box::new(reward), ..self }
    }

    /// The lists of a local batch's prompts at a step, those of one prompt together, and a rank's part of the policy's
    /// first update on them, from the same forward pass over the prompts.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a reward.
    pub fn roll_out_and_update(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        step: usize,
    ) -> Result<(Vec<ItemGroup>, LocalUpdate), TrainError> {
        self.pass(model, batch, step, None)
    }

    /// A rank's part of a further update on the lists of a step, in a forward pass of its own.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn update(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        step: usize,
        groups: &[ItemGroup],
    ) -> Result<LocalUpdate, TrainError> {
        Ok(self.pass(model, batch, step, Some(groups))?.1)
    }
}

impl Stage<LatentRecommender> for RankingGrpo {
    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &LocalBatch,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let (groups, first) = self.roll_out_and_update(&model, batch, optimizer.step)?;
        let (mut model, mut report) = optimizer.apply(model, first, batch)?;
        // The log has the last update's metrics.
        for _ in 1..self.config.updates {
            if report.fault.is_none() {
                let update = self.update(&model, batch, optimizer.step, &groups)?;
                (model, report) = optimizer.apply(model, update, batch)?;
            }
        }
        let mut report = finished(report, batch.target_size(&self.objective)?);
        report.metrics.entry("kl").or_insert(Value::Null);
        Ok((model, report))
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

/// A report whose sums over choices have become means, with what the guards look at.
fn finished(mut report: StepReport, targets: TargetSize) -> StepReport {
    let metrics = &mut report.metrics;
    let number = |metrics: &Map<String, Value>, name: &str| metrics.get(name).and_then(Value::as_f64);
    let choices = number(metrics, "choices").unwrap_or(1.0);
    for name in ["ratio", "clip_share", "kl"] {
        if let Some(sum) = number(metrics, name) {
            metrics.insert(name.into(), json!((sum / choices).min(LARGEST_KL)));
        }
    }
    report.headline = number(metrics, "reward").unwrap_or_default();
    let loss = number(metrics, "loss_noise_free").unwrap_or_default() * targets.titles as f64 / targets.choices as f64;
    report.watched = Some(Watched { loss, kl: number(metrics, "kl") });
    report
}
