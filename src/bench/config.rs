use std::path::{Path, PathBuf};

use super::error::BenchError;
use crate::data::{DataError, Split, TokenFile};
use crate::models::{ObjectiveKind, Precision};
use crate::train::grpo::GrpoConfig;

/// Most rows of a step.
const MOST_ROWS: usize = 1 << 20;

/// What to time, and on what.
#[derive(Debug, Clone)]
pub struct BenchConfig {
    /// Hugging Face folder or run folder.
    pub model: PathBuf,
    /// Where rows and catalog are from. Rows are taken in their order, and from the first again when they are used up.
    pub rows: BenchRows,
    /// A token file with the catalog, where that of the rows has none.
    pub catalog: Option<PathBuf>,
    /// Objective to score titles by; absent, that of the model's training.
    pub objective: Option<ObjectiveKind>,
    /// Matmul precision.
    pub precision: Precision,
    /// Device to compute on.
    pub device: String,
    /// Random seed.
    pub seed: u64,
    /// What to time.
    pub timed: Timed,
}

/// Where the rows are from.
#[derive(Debug, Clone)]
pub enum BenchRows {
    /// A token file.
    Tokens(PathBuf),
    /// Prepared data: its training rows for steps, its test rows for searches and requests.
    Prepared(PathBuf),
}

/// What is timed.
#[derive(Debug, Clone)]
pub enum Timed {
    /// Steps of stage 1.
    Sft {
        /// How they train.
        steps: StepConfig,
        /// Rank of low-rank adapters that train instead of the backbone.
        lora_rank: Option<usize>,
    },
    /// Steps of stage 2, whose batch is counted in rollouts.
    Grpo {
        /// How they train.
        steps: StepConfig,
        /// How they sample, reward and estimate.
        config: GrpoConfig,
    },
    /// The beam search for a number of users at once.
    Search {
        /// Users to search for, at most.
        users: usize,
        /// Users searched at once.
        batch: usize,
        /// Beam width.
        beams: usize,
    },
    /// Request latency, by kind and length of reasoning.
    Latency(RequestConfig),
}

/// Steps of training: AdamW at a constant rate with gradients clipped to norm 1.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct StepConfig {
    /// Training steps; for latency, rounds of requests over the users.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 3))]
    pub steps: usize,
    /// Steps before those that are timed (sft, grpo).
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", default_value_t = 0))]
    pub warm_up: usize,
    /// Use the same batch in every step (sft, grpo).
    #[cfg_attr(feature = "clap", arg(long))]
    pub repeat: bool,
    /// Rows or rollouts per step.
    #[cfg_attr(feature = "clap", arg(skip))]
    pub batch: usize,
    /// Prompts per forward pass; for grpo, each with all its samples.
    #[cfg_attr(feature = "clap", arg(id = "micro", long = "micro", value_name = "MICRO", default_value_t = 8))]
    pub micro_batch: usize,
    /// Learning rate (sft, grpo).
    #[cfg_attr(feature = "clap", arg(id = "lr", long = "lr", value_name = "LR", default_value_t = 1e-4))]
    pub learning_rate: f64,
    /// Recompute activations in the backward pass instead of storing them.
    #[cfg_attr(feature = "clap", arg(long))]
    pub gradient_checkpointing: bool,
    /// Precision in which frozen weights are stored (sft with --lora-rank, grpo): f32, bf16 or f16.
    #[cfg_attr(feature = "clap", arg(long, value_name = "PRECISION", default_value_t = Precision::F32))]
    pub frozen_weights: Precision,
}

/// Requests to time.
#[derive(Debug, Clone)]
pub struct RequestConfig {
    /// Users who ask, at most.
    pub users: usize,
    /// Users of a request; each number is timed.
    pub batches: Vec<usize>,
    /// Number of requests of every user.
    pub rounds: usize,
    /// Beam width.
    pub beams: usize,
}

impl BenchConfig {
    /// Makes sure that the settings make sense.
    ///
    /// # Errors
    ///
    /// One that does not.
    pub fn check(&self) -> Result<(), BenchError> {
        let (counts, batches) = match &self.timed {
            Timed::Sft { steps, .. } | Timed::Grpo { steps, .. } => {
                steps.check()?;
                (vec![steps.steps, steps.micro_batch], vec![steps.batch])
            }
            Timed::Search { users, batch, beams } => (vec![*users, *beams], vec![*batch]),
            Timed::Latency(requests) => {
                (vec![requests.users, requests.rounds, requests.beams], requests.batches.clone())
            }
        };
        if counts.contains(&0) || batches.contains(&0) {
            return Err(BenchError::Setting("steps, batch, micro, group, users and beams must be at least 1".into()));
        }
        if batches.iter().any(|&batch| batch > MOST_ROWS) {
            return Err(BenchError::Setting(format!("batch must be at most {MOST_ROWS}")));
        }
        if let Timed::Grpo { steps: StepConfig { batch, .. }, config } = &self.timed {
            config.check()?;
            if !batch.is_multiple_of(config.group) {
                return Err(BenchError::Setting(format!("batch {batch} must be a multiple of group {}", config.group)));
            }
        }
        Ok(())
    }

    /// The rows and their catalog.
    pub(super) fn token_file(&self) -> Result<TokenFile, DataError> {
        match &self.rows {
            BenchRows::Tokens(path) => TokenFile::read(path),
            BenchRows::Prepared(folder) => TokenFile::of_split(folder, self.timed.split()),
        }
    }

    /// The file that should have the catalog, where the rows are those of `file`.
    pub(super) fn catalog_file<'a>(&'a self, file: &'a TokenFile) -> &'a Path {
        self.catalog.as_deref().unwrap_or(&file.path)
    }
}

impl StepConfig {
    fn check(&self) -> Result<(), BenchError> {
        match self.learning_rate.is_finite() && self.learning_rate >= 0.0 {
            true => Ok(()),
            false => Err(BenchError::Setting(format!(
                "the learning rate must be 0 or a positive number, got {:?}",
                self.learning_rate
            ))),
        }
    }
}

impl Timed {
    fn split(&self) -> Split {
        match self {
            Self::Sft { .. } | Self::Grpo { .. } => Split::Train,
            Self::Search { .. } | Self::Latency(_) => Split::Test,
        }
    }

    /// Precision in which frozen weights are stored.
    pub(super) fn frozen_weights(&self) -> Precision {
        match self {
            Self::Sft { steps, .. } | Self::Grpo { steps, .. } => steps.frozen_weights,
            Self::Search { .. } | Self::Latency(_) => Precision::F32,
        }
    }
}
