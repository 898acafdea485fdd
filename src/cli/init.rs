use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::model::load_model;
use super::outputs::check_free;
use super::terminal::{is_quiet, print};
use super::{CliError, DeviceArg, SeedArg};
use crate::data::{EndToken, Staging, load_tokenizer, vocab_size};
use crate::models::backbone::{Architecture, BackboneConfig, NewBackbone};
use crate::models::hub::{self, write_atomically};
use crate::models::{LatentRecommender, ModelError, ThoughtKind, device};
use crate::run::{TOKENIZER_FILE, model_folder, own_tokenizer, with_learnt_thoughts};

/// Options of `init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Folder to make, in Hugging Face's layout
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The tokenizer.json of the model, for instance the one in a prepared folder
    #[arg(long, value_name = "FILE", required_unless_present = "base")]
    tokenizer: Option<PathBuf>,
    /// The token that ends a target; found in the tokenizer or its config.json if not given
    #[arg(long, value_name = "TEXT")]
    end_token: Option<String>,
    /// Take this model and its tokenizer instead, its low-rank adapters merged into its weights; one that knows nothing of thoughts
    /// gets a fresh latent attention
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tokenizer", "end_token", "arch", "hidden", "layers", "heads", "kv_heads", "ff", "max_positions"])]
    base: Option<PathBuf>,
    /// Family of the backbone
    #[arg(long, value_enum, default_value_t = ArchArg::Qwen2)]
    arch: ArchArg,
    /// Width of the hidden states
    #[arg(long, default_value_t = 256)]
    hidden: usize,
    /// Transformer layers
    #[arg(long, default_value_t = 4)]
    layers: usize,
    /// Query heads
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Key and value heads
    #[arg(long, default_value_t = 2)]
    kv_heads: usize,
    /// Width inside the gated MLP
    #[arg(long, default_value_t = 768)]
    ff: usize,
    /// Longest sequence
    #[arg(long, default_value_t = 1024)]
    max_positions: usize,
    /// Thoughts that the model's latent attention has [default: those of --base and whatever makes them, else 1]
    #[arg(long)]
    thoughts: Option<usize>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ArchArg {
    Qwen2,
    Llama,
}

pub(super) fn run(args: &InitArgs) -> Result<(), CliError> {
    check_free(&args.out)?;
    let seed = args.seed.seed;
    let (model, tokenizer) = match &args.base {
        Some(base) => {
            let model = load_model(base, &args.device.device)?;
            let model = match args.thoughts {
                None if model.thoughts() > 0 || hub::records_thoughts(&model) => model,
                thoughts => with_thoughts(model, thoughts.unwrap_or(1), seed)?,
            };
            (model, own_tokenizer(&model_folder(base))?)
        }
        None => (fresh(args)?, args.tokenizer.clone()),
    };
    let staging = Staging::start(&args.out)?;
    hub::save(&model, &staging.folder())?;
    if let Some(tokenizer) = tokenizer.filter(|path| path.exists()) {
        let bytes = std::fs::read(&tokenizer).map_err(ModelError::io(&tokenizer))?;
        write_atomically(&staging.folder().join(TOKENIZER_FILE), &bytes)?;
    }
    staging.publish()?;
    if !is_quiet() {
        use burn::module::Module;
        print(&format!("{} parameters, written to {}\n", model.num_params(), args.out.display()))?;
    }
    Ok(())
}

/// The model with so many thoughts of what makes them already, or of a fresh latent attention.
fn with_thoughts(model: LatentRecommender, thoughts: usize, seed: u64) -> Result<LatentRecommender, CliError> {
    match model.thoughts() {
        0 => Ok(model.with_thoughts(ThoughtKind::LatentAttention, thoughts, seed)?),
        _ => Ok(with_learnt_thoughts(model, thoughts, seed)?),
    }
}

fn fresh(args: &InitArgs) -> Result<LatentRecommender, CliError> {
    let path = args.tokenizer.as_ref().ok_or_else(|| CliError::Usage("--tokenizer is needed".into()))?;
    let tokenizer = load_tokenizer(path)?;
    let end = EndToken::find(&tokenizer, Some(path), args.end_token.as_deref())?;
    let config = BackboneConfig::new(&NewBackbone {
        architecture: match args.arch {
            ArchArg::Qwen2 => Architecture::Qwen2,
            ArchArg::Llama => Architecture::Llama,
        },
        vocab_size: vocab_size(&tokenizer),
        d_model: args.hidden,
        d_ff: args.ff,
        layers: args.layers,
        heads: args.heads,
        kv_heads: args.kv_heads,
        max_positions: args.max_positions,
        end_token: end.id,
    })?;
    Ok(LatentRecommender::new(
        config,
        ThoughtKind::LatentAttention,
        args.thoughts.unwrap_or(1),
        args.seed.seed,
        &device(&args.device.device)?,
    )?)
}
