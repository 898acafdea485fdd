use std::path::PathBuf;

use clap::Args;

use super::model::warn_of_software;
use super::terminal::{is_quiet, print};
use super::{CliError, DeviceArg, SeedArg};
use crate::models::Precision;
use crate::outputs::check_free;
use crate::run::{InitRequest, ModelOrigin, ModelSizes};

/// Options of `init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Folder to make, in Hugging Face's layout
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The tokenizer.json of the model, for instance the one in a prepared folder
    #[arg(long, value_name = "FILE|MODEL", required_unless_present = "base")]
    tokenizer: Option<PathBuf>,
    /// The token that ends a target; found in the tokenizer or the files beside it if not given
    #[arg(long, value_name = "TEXT")]
    end_token: Option<String>,
    /// Take this model and its tokenizer instead: a folder, a run, or a name on the hub. Low-rank adapters are merged
    /// into its weights; a model that knows nothing of thoughts gets a fresh latent attention
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["tokenizer", "end_token", "arch", "hidden", "layers", "heads", "kv_heads", "ff", "max_positions"])]
    base: Option<PathBuf>,
    #[command(flatten)]
    sizes: ModelSizes,
    /// What the weights are rounded to and written as: f32, bf16 or f16; whoever reads them computes in float32
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    dtype: Precision,
    /// Thoughts that the model's latent attention has [default: those of --base and whatever makes them, else 1]
    #[arg(long)]
    thoughts: Option<usize>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &InitArgs) -> Result<(), CliError> {
    check_free(&args.out)?;
    warn_of_software(&args.device.device)?;
    let origin = match (&args.base, &args.tokenizer) {
        (Some(base), _) => ModelOrigin::Base(base.clone()),
        (None, Some(tokenizer)) => {
            let (tokenizer, end_token) = (tokenizer.clone(), args.end_token.clone());
            ModelOrigin::Random { tokenizer, end_token, sizes: args.sizes.clone() }
        }
        (None, None) => return Err(CliError::Usage("--tokenizer is needed".into())),
    };
    let (out, device) = (args.out.clone(), args.device.device.clone());
    let (thoughts, dtype, seed) = (args.thoughts, args.dtype, args.seed.seed);
    let request = InitRequest { out, origin, thoughts, dtype, device, seed };
    let parameters = request.carry_out()?;
    match is_quiet() {
        true => Ok(()),
        false => print(&format!("{parameters} parameters, written to {}\n", args.out.display())),
    }
}
