//! What of a backbone is adapted, and how much.

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// The projections of a block.
pub(crate) const PROJECTIONS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Highest rank that a file may ask for.
pub(crate) const MOST_RANK: usize = 1 << 16;

/// Low-rank adaptation (Hu et al., arXiv 2106.09685): a weight `W` stays as it is and becomes `W + alpha / rank * B A`,
/// of which the factors `A`, `[rank, d_input]`, and `B`, `[d_output, rank]`, train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Columns of `B` and rows of `A`.
    pub rank: usize,
    /// What the product of the factors is multiplied by, times the rank.
    pub alpha: f64,
    /// The projections that are adapted: names as `q_proj`, for all blocks, or whole names as
    /// `model.layers.0.self_attn.q_proj`.
    pub targets: Vec<String>,
    /// Name or folder of the model that is adapted, for PEFT to find it.
    #[serde(default)]
    pub base: Option<String>,
}

/// A [`LoraConfig`] as a user requests it; what is not given has the usual value.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct LoraRequest {
    /// Freeze the backbone and train low-rank adapters (LoRA) of this rank on its projections, with a fraction of the
    /// memory; 16 is usual. Checkpoints hold the adapters in PEFT's layout; `init --base RUN` merges them
    #[cfg_attr(feature = "clap", arg(id = "lora_rank", long = "lora-rank", value_name = "RANK"))]
    pub rank: Option<usize>,
    /// Scale of the adapters, which are multiplied by ALPHA / RANK [default: twice the rank]
    #[cfg_attr(
        feature = "clap",
        arg(id = "lora_alpha", long = "lora-alpha", value_name = "ALPHA", requires = "lora_rank")
    )]
    pub alpha: Option<f64>,
    /// Projections to adapt [default: q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]
    #[cfg_attr(
        feature = "clap",
        arg(
            id = "lora_targets",
            long = "lora-targets",
            value_name = "NAMES",
            value_delimiter = ',',
            requires = "lora_rank"
        )
    )]
    pub targets: Option<Vec<String>>,
}

impl LoraRequest {
    /// What is asked for, if a rank is.
    ///
    /// # Errors
    ///
    /// As [`LoraConfig::check`].
    pub fn config(&self) -> Result<Option<LoraConfig>, ModelError> {
        let Some(usual) = self.rank.map(LoraConfig::of_rank) else {
            return Ok(None);
        };
        let targets = self.targets.clone().unwrap_or_else(|| usual.targets.clone());
        let config = LoraConfig { alpha: self.alpha.unwrap_or(usual.alpha), targets, ..usual };
        config.check().map(|()| Some(config))
    }
}

impl LoraConfig {
    /// All projections of all blocks, with twice the rank as `alpha`.
    pub fn of_rank(rank: usize) -> Self {
        Self { rank, alpha: 2.0 * rank as f64, targets: PROJECTIONS.map(str::to_owned).to_vec(), base: None }
    }

    /// Makes sure that every value makes sense.
    ///
    /// # Errors
    ///
    /// One that does not; the message names it.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.rank == 0 || self.rank > MOST_RANK {
            return Err(ModelError::Input(format!("the LoRA rank must be from 1 to {MOST_RANK}, got {}", self.rank)));
        }
        if !self.alpha.is_finite() {
            return Err(ModelError::Input(format!("the LoRA alpha must be finite, got {}", self.alpha)));
        }
        if self.targets.is_empty() {
            return Err(ModelError::Input("LoRA needs at least one projection to adapt".into()));
        }
        Ok(())
    }

    /// Whether the projection of this name is adapted.
    pub(crate) fn adapts(&self, projection: &str) -> bool {
        let is_it = |target: &String| {
            projection.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.targets.iter().any(is_it)
    }
}
