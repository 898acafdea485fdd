use burn::tensor::Tensor;
use latentr3_models::{LatentRecommender, ThoughtKind};
use serde::{Deserialize, Serialize};

use super::advantage::{AdvantageKind, AdvantageOver};
use super::items::ItemsConfig;
use super::loss::Clip;
use crate::TrainError;
use crate::config::{TrainConfig, check_not_negative};
use crate::guard::Guards;
use crate::schedule::Schedule;

/// Most samples of a prompt.
const LARGEST_GROUP: usize = 1 << 16;
/// Most updates on one rollout, between which a run does not end.
const MOST_UPDATES: usize = 1000;

/// Estimators of the gradient of the expected reward; `docs/stage-2.md` derives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum EstimatorKind {
    /// Gradient of the target's likelihood, weighted by the advantage, as published.
    ///
    /// It needs a backward pass through the backbone.
    Likelihood,
    /// Gradient of the samples' log-density, weighted by the advantage; needs no backward pass through the backbone.
    ///
    /// The density is `N(r_k; r, sigma^2 I)` (Williams, 1992).
    Score,
    /// Derivative of the reward at every sample, without an advantage.
    ///
    /// It is also called the reparameterised gradient (Kingma and Welling, arXiv 1312.6114).
    Pathwise,
}

/// What is sampled for each prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum SampleKind {
    /// The last thought with noise, after which the target is scored (as published).
    Noise,
    /// The items that the search finds: the list that a user would see.
    Items,
}

impl SampleKind {
    /// Configuration of items, if they are the samples, and advantage where nothing else is asked for.
    pub fn defaults(self) -> (Option<ItemsConfig>, AdvantageKind) {
        match self {
            Self::Noise => (None, AdvantageKind::Batch),
            Self::Items => (Some(ItemsConfig::default()), AdvantageKind::Group),
        }
    }
}

/// Knobs of stage 2. The defaults are the published settings (arXiv 2505.19092).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoConfig {
    /// Samples of each prompt, the noise-free one included.
    pub group: usize,
    /// Standard deviation of each coordinate of the noise.
    pub sigma: f64,
    /// Instead of `sigma`: the noise's expected norm as a share of the thought's. The published sigma is absolute and
    /// can drown the thought of a small model.
    pub sigma_relative: Option<f64>,
    /// Upper bound on the perplexity in a reward. Without a bound, one hopeless target whose perplexity overflows would
    /// make every advantage of its batch undefined. By default the largest float32, so that rewards are the published
    /// ones wherever those are finite.
    pub max_perplexity: f64,
    /// Items as samples, and what is made of them; absent, the samples are noise on the thought, as published. A group
    /// has at most [`group`](Self::group) items then, and the noise is that of [`ItemsConfig::thoughts`].
    pub items: Option<ItemsConfig>,
    /// How the gradient is estimated.
    pub estimator: EstimatorKind,
    /// What a reward is compared with.
    pub advantage: AdvantageKind,
    /// Prompts over which advantages are computed, where the samples are noise.
    pub advantage_over: AdvantageOver,
    /// The probability ratio is clipped below `1 - clip_low`.
    pub clip_low: f64,
    /// The probability ratio is clipped above `1 + clip_high`; a wider upper side is DAPO's (arXiv 2503.14476).
    pub clip_high: f64,
    /// Weight of the KL divergence to the reference policy, the model as stage 2 found it: of the distributions of the
    /// target's tokens, or with [`EstimatorKind::Score`] of the thought's.
    pub kl: f64,
    /// Updates made on one rollout.
    pub updates: usize,
    /// Whether the backbone trains too.
    pub train_backbone: bool,
    /// Stop the run when a step's estimate of the tokens' KL divergence to the reference policy is larger; absent,
    /// never. Where `kl` is 0 this costs a forward pass of the reference over each sample's target.
    pub max_kl: Option<f64>,
    /// Stop the run when the perplexity without noise is so many times what it was at the start; absent, only warn, at
    /// [`WARNING_FACTOR`](crate::WARNING_FACTOR).
    pub stop_on_collapse: Option<f64>,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            group: 8,
            sigma: 1.5,
            sigma_relative: None,
            max_perplexity: f64::from(f32::MAX),
            items: None,
            estimator: EstimatorKind::Likelihood,
            advantage: AdvantageKind::Batch,
            advantage_over: AdvantageOver::Batch,
            clip_low: 0.2,
            clip_high: 0.28,
            kl: 0.0,
            updates: 1,
            train_backbone: false,
            max_kl: None,
            stop_on_collapse: None,
        }
    }
}

impl GrpoConfig {
    /// The published settings of the training loop in stage 2: 256 rollouts a step, one epoch, cosine schedule. The
    /// learning rate is in the middle of those published, and the start itself may turn out to be the best.
    pub fn train_defaults() -> TrainConfig {
        TrainConfig {
            epochs: 1,
            batch: 32,
            learning_rate: 5e-5,
            schedule: Schedule::Cosine,
            warmup: None,
            validations: 10,
            validate_first: true,
            patience: None,
            ..Default::default()
        }
    }

    /// Whether a copy of the model that stage 2 starts from must be kept as reference.
    pub fn needs_reference(&self) -> bool {
        self.kl > 0.0 || self.max_kl.is_some()
    }

    /// The standard deviations of the noise on each coordinate of thoughts of a width, from their norms: `[prompts]`.
    pub(super) fn deviations(&self, norms: Tensor<1>, width: usize) -> Tensor<1> {
        match self.sigma_relative {
            Some(relative) => norms.mul_scalar(relative / (width as f64).sqrt()),
            None => norms.full_like(self.sigma),
        }
    }

    /// How the policy's loss is clipped.
    pub(super) fn clip(&self) -> Clip {
        Clip { low: self.clip_low, high: self.clip_high, kl: self.kl }
    }

    /// What a run must keep to.
    pub fn guards(&self) -> Guards {
        Guards { max_kl: self.max_kl, stop_on_collapse: self.stop_on_collapse }
    }

    /// Makes sure that a step of so many rollouts has whole groups.
    ///
    /// # Errors
    ///
    /// No rollouts, or a number that is no multiple of [`group`](Self::group).
    pub fn check_rollouts(&self, rollouts: usize) -> Result<(), TrainError> {
        match rollouts > 0 && rollouts.is_multiple_of(self.group) {
            true => Ok(()),
            false => {
                let problem = format!("must be a multiple of the group size {}, got {rollouts}", self.group);
                Err(TrainError::config("rollouts", problem))
            }
        }
    }

    /// Makes sure that advantage and estimator are valid for this kind of sample.
    fn check_samples(&self) -> Result<(), TrainError> {
        let problem = |field, problem: &str| Err(TrainError::config(field, problem));
        match &self.items {
            None if self.advantage.function(self.advantage_over).is_none() => {
                problem("advantage", "this kind is for items as samples, but the samples are noise on the thought")
            }
            None => Ok(()),
            Some(_) if !self.advantage.works_with_items() => problem(
                "advantage",
                "this kind compares samples of noise; for items use group, leave-one-out, sibling, expectation or raml",
            ),
            Some(_) if self.advantage_over != AdvantageOver::Batch => problem(
                "advantage_over",
                "applies only when the samples are noise; with items, each list is its own group",
            ),
            Some(_) if self.estimator != EstimatorKind::Likelihood => {
                problem("estimator", "must be likelihood when the samples are items")
            }
            Some(items) => items.check(self.group),
        }
    }

    /// Whether only a model that thinks can be reinforced: without a thought only the backbone can learn, and only from
    /// items.
    pub fn needs_thoughts(&self) -> bool {
        self.items.as_ref().is_none_or(|items| !self.train_backbone || items.thoughts > 1)
    }

    /// Makes sure that something of a model would train.
    pub(super) fn check_trains(&self, start: &LatentRecommender) -> Result<(), TrainError> {
        if start.thoughts() == 0 && self.needs_thoughts() {
            return Err(TrainError::config("thoughts", "the model has none; stage 2 needs a model with thoughts"));
        }
        if !self.train_backbone && start.source.kind() == ThoughtKind::LastHidden {
            let problem =
                "must be on: the thought is the last hidden state, which has no parameters, so nothing would train";
            return Err(TrainError::config("train_backbone", problem));
        }
        Ok(())
    }

    /// Makes sure that every value makes sense.
    ///
    /// # Errors
    ///
    /// One that does not; the message names it.
    pub fn check(&self) -> Result<(), TrainError> {
        self.check_values()?;
        self.estimator.estimator().check(self)
    }

    /// Makes sure that every value makes sense by itself.
    fn check_values(&self) -> Result<(), TrainError> {
        if !(2..=LARGEST_GROUP).contains(&self.group) {
            let problem = format!("must be from 2 to {LARGEST_GROUP} samples, got {}", self.group);
            return Err(TrainError::config("group", problem));
        }
        if !(1..=MOST_UPDATES).contains(&self.updates) {
            let problem = format!("must be from 1 to {MOST_UPDATES} per rollout, got {}", self.updates);
            return Err(TrainError::config("updates", problem));
        }
        if !(self.max_perplexity >= 1.0 && self.max_perplexity <= f64::from(f32::MAX)) {
            let problem = format!("must be from 1 to {:e}, got {:?}", f32::MAX, self.max_perplexity);
            return Err(TrainError::config("max_perplexity", problem));
        }
        let not_negative = [
            ("sigma", self.sigma),
            ("sigma_relative", self.sigma_relative.unwrap_or(0.0)),
            ("clip_low", self.clip_low),
            ("clip_high", self.clip_high),
            ("kl", self.kl),
        ];
        self.guards().check()?;
        self.check_samples()?;
        not_negative.into_iter().try_for_each(|(field, value)| check_not_negative(field, value))
    }
}
