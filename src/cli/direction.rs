use std::path::PathBuf;

use clap::Args;

use super::grpo_args::SampleArgs;
use super::model::warn_of_software;
use super::outputs::{check_json, write_json};
use super::terminal::{Progress, is_quiet, print};
use super::{CliError, DeviceArg, SeedArg};
use crate::run::DirectionRequest;
use crate::text;

/// Options of `direction`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is trained. Each number is the cosine between an estimator's gradient and the derivative of \
the reward itself over the same samples (--estimator pathwise), for all parameters that make the thought: 1 points up \
the expected reward, -1 down. docs/stage-2.md derives why they differ."
)]
pub(super) struct DirectionArgs {
    /// Model with one thought: a Hugging Face folder, a run folder or a name on the hub
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Prepared data
    #[arg(long, value_name = "PREPARED")]
    data: PathBuf,
    /// Number of training prompts, drawn at random by --seed
    #[arg(long, default_value_t = 32)]
    prompts: usize,
    /// Noisy samples per prompt, drawn at random by --seed, in addition to the noise-free one
    #[arg(long, default_value_t = 32)]
    samples: usize,
    #[command(flatten)]
    noise: SampleArgs,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &DirectionArgs) -> Result<(), CliError> {
    let request = DirectionRequest {
        model: args.model.clone(),
        data: args.data.clone(),
        device: args.device.device.clone(),
        prompts: args.prompts,
        config: args.noise.config(args.samples.saturating_add(1)),
        seed: args.seed.seed,
    };
    request.check()?;
    check_json(args.json.as_deref())?;
    warn_of_software(&request.device)?;
    let mut progress = Progress::new("direction");
    let directions = request.carry_out(&mut |done, all| progress.advance(done as u64, all as u64, 0, "gradients"))?;
    drop(progress);
    write_json(args.json.as_deref(), &directions)?;
    if is_quiet() { Ok(()) } else { print(&text::of_directions(&directions)) }
}
