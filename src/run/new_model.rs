//! A new model's folder: with random weights, or from another model.

use std::path::{Path, PathBuf};

use burn::module::Module;

use super::error::RunError;
use super::model_folder::{TOKENIZER_FILE, load_model, model_folder, own_tokenizer, with_learnt_thoughts};
use crate::data::{SpecialToken, Staging, load_tokenizer, vocab_size};
use crate::from_hub::{TOKENIZER_FILES, tokenizer_file};
use crate::models::backbone::{Architecture, BackboneConfig, NewBackbone};
use crate::models::files::write_atomically;
use crate::models::hub;
use crate::models::{LatentRecommender, ModelError, Precision, ThoughtKind, device};

/// Which model to make.
#[derive(Debug, Clone)]
pub struct InitRequest {
    /// The folder to make, in Hugging Face's layout.
    pub out: PathBuf,
    /// What it is made from.
    pub origin: ModelOrigin,
    /// Thoughts that the model has; if not given, those of the model that it is made from and whatever makes them, else
    /// one of a latent attention.
    pub thoughts: Option<usize>,
    /// What its weights are rounded to and written as.
    pub dtype: Precision,
    /// Where to compute.
    pub device: String,
    /// Seed of random weights.
    pub seed: u64,
}

/// What a new model is made from.
#[derive(Debug, Clone)]
pub enum ModelOrigin {
    /// Another model and its tokenizer, in a Hugging Face folder or a run folder; low-rank adapters become part of its
    /// weights.
    Base(PathBuf),
    /// Random weights, for a tokenizer.
    Random {
        /// The file `tokenizer.json`.
        tokenizer: PathBuf,
        /// The token that ends a target; see [`SpecialToken::end`] if not given.
        end_token: Option<String>,
        /// The sizes.
        sizes: ModelSizes,
    },
}

/// Sizes of a new model; the tokenizer determines the rest.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct ModelSizes {
    /// Architecture of the backbone.
    #[cfg_attr(feature = "clap", arg(id = "arch", long = "arch", value_enum, default_value_t = Architecture::Qwen2))]
    pub architecture: Architecture,
    /// Width of the hidden states.
    #[cfg_attr(feature = "clap", arg(id = "hidden", long = "hidden", value_name = "WIDTH", default_value_t = 256))]
    pub d_model: usize,
    /// Number of transformer layers.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 4))]
    pub layers: usize,
    /// Number of query heads.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 4))]
    pub heads: usize,
    /// Number of key and value heads.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 2))]
    pub kv_heads: usize,
    /// Inner width of the gated MLP.
    #[cfg_attr(feature = "clap", arg(id = "ff", long = "ff", value_name = "WIDTH", default_value_t = 768))]
    pub d_ff: usize,
    /// Maximum sequence length in tokens.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 1024))]
    pub max_positions: usize,
}

impl InitRequest {
    /// Makes the model's folder, with its tokenizer; returns the number of parameters.
    ///
    /// # Errors
    ///
    /// A folder that is in use, a tokenizer or model that cannot be read, sizes that do not fit together, and more
    /// thoughts than the model has learnt.
    pub fn carry_out(&self) -> Result<usize, RunError> {
        let (model, tokenizer) = match &self.origin {
            ModelOrigin::Base(base) => (self.based_on(base)?, own_tokenizer(&model_folder(base)?)?),
            ModelOrigin::Random { tokenizer, end_token, sizes } => {
                let tokenizer = tokenizer_file(tokenizer)?;
                (self.random(&tokenizer, end_token.as_deref(), sizes)?, Some(tokenizer))
            }
        };
        let staging = Staging::start(&self.out)?;
        hub::save_as(&model, &staging.folder(), self.dtype)?;
        if let Some(tokenizer) = tokenizer.filter(|path| path.exists()) {
            for name in TOKENIZER_FILES {
                let from = if name == TOKENIZER_FILE { tokenizer.clone() } else { tokenizer.with_file_name(name) };
                if from.exists() {
                    let bytes = std::fs::read(&from).map_err(ModelError::io(&from))?;
                    write_atomically(&staging.folder().join(name), &bytes)?;
                }
            }
        }
        staging.publish()?;
        Ok(model.num_params())
    }

    fn based_on(&self, base: &Path) -> Result<LatentRecommender, RunError> {
        let model = load_model(base, &self.device)?;
        let thoughts = match self.thoughts {
            None if model.thoughts() > 0 || hub::records_thoughts(&model) => return Ok(model),
            thoughts => thoughts.unwrap_or(1),
        };
        match model.thoughts() {
            0 => Ok(model.with_thoughts(ThoughtKind::LatentAttention, thoughts, self.seed)?),
            _ => with_learnt_thoughts(model, thoughts, self.seed),
        }
    }

    fn random(&self, file: &Path, end_token: Option<&str>, sizes: &ModelSizes) -> Result<LatentRecommender, RunError> {
        let tokenizer = load_tokenizer(file)?;
        let end = SpecialToken::end(&tokenizer, Some(file), end_token)?;
        let config = BackboneConfig::new(&NewBackbone {
            architecture: sizes.architecture,
            vocab_size: vocab_size(&tokenizer),
            d_model: sizes.d_model,
            d_ff: sizes.d_ff,
            layers: sizes.layers,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            max_positions: sizes.max_positions,
            end_token: end.id,
        })?;
        let (thoughts, device) = (self.thoughts.unwrap_or(1), device(&self.device)?);
        Ok(LatentRecommender::new(config, ThoughtKind::LatentAttention, thoughts, self.seed, &device)?)
    }
}
