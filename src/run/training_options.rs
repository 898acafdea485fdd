//! How a stage trains, as far as a user wants it otherwise than by default.

use super::description::RunDescription;
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
    /// Maximum number of passes over the training examples [default: 10 for pretrain, 3 for sft, 1 for grpo; for a
    /// model from scratch 24 for pretrain, and for sft enough to show 200,000 rows, from 4 to 20]
    #[cfg_attr(feature = "clap", arg(long))]
    pub epochs: Option<usize>,
    /// Peak learning rate [default: 1e-3 for pretrain, 3e-4 for sft, 5e-5 for grpo; for a model from scratch 1.5e-3 for
    /// pretrain, 6e-4 for sft]
    #[cfg_attr(feature = "clap", arg(long))]
    pub lr: Option<f64>,
    /// Warm-up steps, over which the learning rate rises to its peak [default: 20; for grpo a tenth of all steps, at
    /// most 200]
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS"))]
    pub warmup: Option<usize>,
    /// Criterion for the best model: the validation loss (the default), or a ranking metric such as hr@10 or ndcg@10
    /// over the users of --rank-sample (ndcg@10 is the default for sft of a model from scratch)
    #[cfg_attr(feature = "clap", arg(long, value_name = "METRIC"))]
    pub select: Option<Selection>,
    /// Early stopping: stop after this many validations without a better model; 0 for never [default: 1; 0 for grpo;
    /// for a model from scratch 2 for pretrain, 4 for sft]
    #[cfg_attr(feature = "clap", arg(long, value_name = "VALIDATIONS"))]
    pub patience: Option<usize>,
    /// Prompts per forward pass; for grpo, each with all its samples. Affects memory and speed, and results only by
    /// rounding
    #[cfg_attr(feature = "clap", arg(long, value_name = "ROWS", default_value_t = 32))]
    pub micro_batch: usize,
    /// Recompute activations in the backward pass instead of storing them. Affects memory and speed, not results; can
    /// be combined with --resume
    #[cfg_attr(feature = "clap", arg(long))]
    pub gradient_checkpointing: bool,
    /// Matmul precision, forward and backward: f32, bf16 or f16, if the device supports it. Weights, losses, rewards
    /// and checkpoints stay in f32
    #[cfg_attr(feature = "clap", arg(long, value_name = "PRECISION", default_value_t = Precision::F32))]
    pub precision: Precision,
    /// Learning rate schedule after warm-up [default: linear for sft; cosine for pretrain, grpo and a model from
    /// scratch]
    #[cfg_attr(feature = "clap", arg(long, value_parser = names_of::<Schedule>()))]
    pub schedule: Option<Schedule>,
    /// Decoupled weight decay, on matrices only
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 0.0))]
    pub weight_decay: f64,
    /// Validate and save an exponential moving average of the weights with this decay, such as 0.99; 0 for the weights
    /// themselves
    #[cfg_attr(feature = "clap", arg(long, value_name = "DECAY"))]
    pub average: Option<f64>,
    /// Clip the gradients to this global norm
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 1.0))]
    pub clip_norm: f64,
    /// Maximum number of validations per epoch, or per run if that is shorter, evenly spaced [default: 1; 10 for grpo]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub validations: Option<usize>,
    /// Steps between checkpoints, in addition to those at validations
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", default_value_t = 50))]
    pub checkpoint_every: usize,
    /// Keep a checkpoint every STEPS steps as RUN/step-N, in addition to RUN/last and RUN/best
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS"))]
    pub keep_every: Option<usize>,
    /// Maximum number of checkpoints that --keep-every keeps; the oldest are deleted
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = KEPT, requires = "keep_every"))]
    pub keep_limit: usize,
    /// What to do if a loss, reward or gradient is NaN or infinite: stop and name the rows, or skip the step. Ten
    /// skipped steps in a row stop the run in any case
    #[cfg_attr(feature = "clap", arg(long, value_enum, value_parser = names_of::<OnNonfinite>(), default_value_t = OnNonfinite::Stop))]
    pub on_nonfinite: OnNonfinite,
    /// Stop after this many steps, for quick trials
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS"))]
    pub max_steps: Option<usize>,
    /// Train on only this many examples, drawn at random, for quick trials
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub limit: Option<usize>,
    /// Validate on only this many examples, drawn at random
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub valid_limit: Option<usize>,
    /// Rank the catalog for this many validation users, drawn at random, at each validation [default: 0; 500 if
    /// --select needs them]
    #[cfg_attr(feature = "clap", arg(long, value_name = "USERS"))]
    pub rank_sample: Option<usize>,
    /// Show recommendations for this many validation users, drawn at random, at each validation
    #[cfg_attr(feature = "clap", arg(long, value_name = "USERS", default_value_t = 3))]
    pub sample_users: usize,
}

impl TrainingOptions {
    /// The run with what is asked of its data, precision and validation; `select` is what the stage selects by.
    ///
    /// # Errors
    ///
    /// A selection by a ranking metric without users to rank for.
    pub fn of_run(&self, run: RunDescription, select: Selection) -> Result<RunDescription, String> {
        let select = self.select.unwrap_or(select);
        let rank_sample = self.rank_sample.unwrap_or(if select == Selection::Loss { 0 } else { RANKED_USERS });
        if select != Selection::Loss && rank_sample == 0 {
            return Err(format!("--select {select} needs users to rank for; give --rank-sample"));
        }
        let (limit, valid_limit, sample_users) = (self.limit, self.valid_limit, self.sample_users);
        Ok(RunDescription { limit, valid_limit, rank_sample, sample_users, select, precision: self.precision, ..run })
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
