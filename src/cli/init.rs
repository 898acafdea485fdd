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
    /// Folder to create, in Hugging Face's layout
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The model's tokenizer: a tokenizer.json, such as that of prepared data, or a model folder or hub name that has
    /// one
    #[arg(long, value_name = "FILE|MODEL", required_unless_present = "base")]
    tokenizer: Option<PathBuf>,
    /// Token that ends a target [default: found in the tokenizer or the files beside it]
    #[arg(long, value_name = "TEXT")]
    end_token: Option<String>,
    /// Start from this model and its tokenizer: a folder, a run, or a name on the hub. Low-rank adapters are merged
    /// into the weights; a model without thoughts gets a new latent attention
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["tokenizer", "end_token", "arch", "hidden", "layers", "heads", "kv_heads", "ff", "max_positions"])]
    base: Option<PathBuf>,
    #[command(flatten)]
    sizes: ModelSizes,
    /// Precision in which the weights are stored: f32, bf16 or f16; they are converted to float32 when loaded
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    dtype: Precision,
    /// Number of thoughts [default: as in --base, else 1]
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
        (None, None) => return Err(CliError::Usage("--tokenizer is required".into())),
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
