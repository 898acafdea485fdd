//! How a stage trains, as far as a user wants it otherwise than by default.

use super::selection::Selection;
use crate::models::Precision;
#[cfg(feature = "clap")]
use crate::option_values::names_of;
use crate::train::{AdamWConfig, Keep, OnNonfinite, Schedule, TrainConfig};

/// Users to rank for where a ranking is selected by and nothing else is said.
pub(super) const RANKED_USERS: usize = 500;

/// Kept checkpoints where nothing else is said.
pub(super) const KEPT: usize = 3;

/// How a stage trains; what is absent is the stage's default.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct TrainingOptions {
    /// Passes over the training examples at most [default: 10 for pretrain, 3 for sft, 1 for grpo; for a model from
    /// scratch 24 for pretrain, and for sft as many as show 200,000 rows, from 4 to 20]
    #[cfg_attr(feature = "clap", arg(long))]
    pub epochs: Option<usize>,
    /// Highest learning rate [default: 1e-3 for pretrain, 3e-4 for sft, 5e-5 for grpo; for a model from scratch 1.5e-3 for
    /// pretrain, 6e-4 for sft]
    #[cfg_attr(feature = "clap", arg(long))]
    pub lr: Option<f64>,
    /// Steps until the learning rate is at its highest [default: 20; for grpo the smaller of 200 and a tenth of all]
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS"))]
    pub warmup: Option<usize>,
    /// Select the best model by this on the validation rows: loss (the default), or over the users of --rank-sample a
    /// metric of the ranked catalog such as hr@10 or ndcg@10 (the default for sft of a model from scratch)
    #[cfg_attr(feature = "clap", arg(long, value_name = "METRIC"))]
    pub select: Option<Selection>,
    /// Stop after this many validations without a better model; 0 for never [default: 1, for grpo 0; for a model from
    /// scratch 2 for pretrain, 4 for sft]
    #[cfg_attr(feature = "clap", arg(long, value_name = "VALIDATIONS"))]
    pub patience: Option<usize>,
    /// Prompts that run through the model at once, for grpo with all their samples; changes memory and speed, and
    /// results by rounding only
    #[cfg_attr(feature = "clap", arg(long, value_name = "ROWS", default_value_t = 32))]
    pub micro_batch: usize,
    /// Compute activations again in the backward pass instead of keeping them; changes memory and speed, not results,
    /// and may be given beside --resume
    #[cfg_attr(feature = "clap", arg(long))]
    pub gradient_checkpointing: bool,
    /// What the blocks multiply in, forward and backward: f32, bf16 or f16, where the device computes in it; weights,
    /// losses, rewards and checkpoints stay f32
    #[cfg_attr(feature = "clap", arg(long, value_name = "PRECISION", default_value_t = Precision::F32))]
    pub precision: Precision,
    /// How the learning rate falls after the warm-up [default: linear for sft, cosine for pretrain, grpo and
    /// a model from scratch]
    #[cfg_attr(feature = "clap", arg(long, value_parser = names_of::<Schedule>()))]
    pub schedule: Option<Schedule>,
    /// Decoupled weight decay on matrices
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 0.0))]
    pub weight_decay: f64,
    /// Validate and save an exponential average of the weights with this decay instead of the weights as they are, as
    /// 0.99; 0 for none
    #[cfg_attr(feature = "clap", arg(long, value_name = "DECAY"))]
    pub average: Option<f64>,
    /// Largest global norm of the gradients
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 1.0))]
    pub clip_norm: f64,
    /// Validations in an epoch at most, equally far apart, or in the whole run where that is shorter [default: 1, for
    /// grpo 10]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub validations: Option<usize>,
    /// Steps between checkpoints, besides those at validations
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", default_value_t = 50))]
    pub checkpoint_every: usize,
    /// Keep a checkpoint of every so many steps as RUN/step-N, besides RUN/last and RUN/best
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS"))]
    pub keep_every: Option<usize>,
    /// Kept checkpoints at most; the oldest go
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = KEPT, requires = "keep_every"))]
    pub keep_limit: usize,
    /// What to do when a loss, reward or gradient is not finite: stop and name the rows, or skip the step and count;
    /// ten skipped in a row stop the run all the same
    #[cfg_attr(feature = "clap", arg(long, value_enum, value_parser = names_of::<OnNonfinite>(), default_value_t = OnNonfinite::Stop))]
    pub on_nonfinite: OnNonfinite,
    /// Stop after this many steps, for trials
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS"))]
    pub max_steps: Option<usize>,
    /// Train on this many examples, drawn at random, for trials
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub limit: Option<usize>,
    /// Validate on this many examples, drawn at random
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub valid_limit: Option<usize>,
    /// At each validation also rank the catalog for this many validation users, drawn at random [default: 0, or 500
    /// where --select needs them]
    #[cfg_attr(feature = "clap", arg(long, value_name = "USERS"))]
    pub rank_sample: Option<usize>,
    /// At each validation show what the model recommends to this many validation users, drawn at random
    #[cfg_attr(feature = "clap", arg(long, value_name = "USERS", default_value_t = 3))]
    pub sample_users: usize,
}

impl TrainingOptions {
    /// Validation users to rank for, where the best model is selected by `select`.
    pub fn rank_sample(&self, select: Selection) -> usize {
        self.rank_sample.unwrap_or(if select == Selection::Loss { 0 } else { RANKED_USERS })
    }

    /// The stage's defaults with what is asked for in their place.
    pub fn config(&self, defaults: TrainConfig, seed: u64) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs.unwrap_or(defaults.epochs),
            micro_batch: self.micro_batch,
            gradient_checkpointing: self.gradient_checkpointing,
            learning_rate: self.lr.unwrap_or(defaults.learning_rate),
            schedule: self.schedule.unwrap_or(defaults.schedule),
            warmup: self.warmup.or(defaults.warmup),
            optimizer: AdamWConfig {
                weight_decay: self.weight_decay,
                average: self.average.filter(|&decay| decay != 0.0),
                ..defaults.optimizer
            },
            clip_norm: self.clip_norm,
            validations: self.validations.unwrap_or(defaults.validations),
            patience: self.patience.map_or(defaults.patience, |most| (most > 0).then_some(most)),
            checkpoint_every: self.checkpoint_every,
            keep: self.keep_every.map(|every| Keep { every, limit: self.keep_limit }),
            on_nonfinite: self.on_nonfinite,
            max_steps: self.max_steps,
            seed,
            ..defaults
        }
    }
}
