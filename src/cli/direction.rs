use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::grpo_args::SampleArgs;
use super::model::warn_of_software;
use super::outputs::{check_json, write_json};
use super::terminal::{Progress, is_quiet, print, table};
use super::{CliError, DeviceArg, SeedArg};
use crate::run::{DirectionRequest, Directions};

/// Options of `direction`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is trained. Each figure is the cosine of an estimator's gradient, by all parameters that make the thought, with the \
derivative of the reward itself over the same samples (--estimator pathwise): 1 is up the expected reward, -1 down. docs/stage-2.md derives why they \
differ."
)]
pub(super) struct DirectionArgs {
    /// Hugging Face folder or run folder, of a model with one thought
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prepared data
    #[arg(long, value_name = "PREPARED")]
    data: PathBuf,
    /// Training prompts, drawn by --seed
    #[arg(long, default_value_t = 32)]
    prompts: usize,
    /// Noisy samples of each, drawn by --seed, beside the one without noise
    #[arg(long, default_value_t = 32)]
    samples: usize,
    #[command(flatten)]
    noise: SampleArgs,
    /// Write the figures as JSON
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
    if is_quiet() { Ok(()) } else { print(&text(&directions)) }
}

fn text(directions: &Directions) -> String {
    let cell = |cosine: &Option<f64>| cosine.map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.3}"));
    let head = directions.cosine.values().next().into_iter().flat_map(|of| of.keys().map(name_of));
    let head = std::iter::once("advantage".to_owned()).chain(head).collect();
    let mut rows: Vec<Vec<String>> = vec![head];
    for (advantage, of) in &directions.cosine {
        rows.push(std::iter::once(name_of(advantage)).chain(of.values().map(cell)).collect());
    }
    let Directions { prompts, samples, thought_norm, noise_norm, reward_noise_free, reward_noisy, .. } = directions;
    format!(
        "{prompts} prompts, {samples} noisy samples of each; norm of the thought {thought_norm:.2}, of the noise {noise_norm:.2}; \
         reward {reward_noise_free:.3} without noise, {reward_noisy:.3} with it\n{}",
        table(&rows)
    )
}

/// What a setting is called in files.
fn name_of(setting: &impl Serialize) -> String {
    json!(setting).as_str().unwrap_or_default().to_owned()
}
