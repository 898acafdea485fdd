//! Which way the estimators of stage 2 point.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::grpo_args::SampleArgs;
use super::model::load_model;
use super::outputs::{check_json, write_json};
use super::terminal::{Progress, is_quiet, print, table};
use super::{CliError, DeviceArg, SeedArg};
use crate::data::{Prepared, Split};
use crate::eval::sample;
use crate::models::host::read;
use crate::models::{LatentRecommender, Objective, ObjectiveKind};
use crate::run::{check_fit, weight_files};
use crate::train::grpo::{
    AdvantageKind, EstimatorKind, Grpo, GrpoConfig, Rollouts, group_noise, mean_of_samples, prepare_model,
};
use crate::train::{Example, World};

/// Prompts that run through the model at once.
const MICRO_BATCH: usize = 4;
/// Most rollouts, whose noise is all held at once.
const MOST_ROLLOUTS: usize = 1 << 16;
const ADVANTAGES: [(&str, AdvantageKind); 4] = [
    ("batch", AdvantageKind::Batch),
    ("group", AdvantageKind::Group),
    ("own", AdvantageKind::Own),
    ("pool", AdvantageKind::Pool),
];
const ESTIMATORS: [(&str, EstimatorKind); 2] =
    [("likelihood", EstimatorKind::Likelihood), ("score", EstimatorKind::Score)];

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

/// What was found.
#[derive(Debug, Serialize)]
struct Directions {
    data_fingerprint: String,
    model_files: BTreeMap<String, String>,
    seed: u64,
    objective: ObjectiveKind,
    prompts: usize,
    samples: usize,
    thought_norm: f64,
    noise_norm: f64,
    reward_noise_free: f64,
    reward_noisy: f64,
    /// By advantage and estimator; none where a gradient is zero or NaN.
    cosine: BTreeMap<&'static str, BTreeMap<&'static str, Option<f64>>>,
}

pub(super) fn run(args: &DirectionArgs) -> Result<(), CliError> {
    if args.prompts == 0 || args.samples == 0 {
        return Err(CliError::Usage("--prompts and --samples must be at least 1".into()));
    }
    let group = args.samples.saturating_add(1);
    if args.prompts.saturating_mul(group) > MOST_ROLLOUTS {
        return Err(CliError::Usage(format!("--prompts times --samples goes up to {MOST_ROLLOUTS}")));
    }
    let config = args.noise.config(group);
    config.check()?;
    check_json(args.json.as_deref())?;
    let prepared = Prepared::load(&args.data)?;
    let model_files = weight_files(&args.model)?;
    let model = prepare_model(load_model(&args.model, &args.device.device)?, &config);
    check_fit(&model, &args.model, &prepared)?;
    let objective = prepared.objective(model.objective())?;
    let examples = prepared.examples(Split::Train);
    if examples.is_empty() {
        return Err(CliError::input(&args.data, "has no training rows"));
    }
    let seed = args.seed.seed;
    let batch = sample(&examples, Some(args.prompts), seed);
    let width = model.backbone.config().d_model;
    let noise: Vec<f32> =
        (0..batch.len() as u64).flat_map(|prompt| group_noise(seed, 1, prompt, group, width)).collect();

    let mut progress = Progress::new("direction");
    let mut done = 0;
    let mut gradient = |estimator, advantage| {
        let config = GrpoConfig { estimator, advantage, ..config.clone() };
        let found = gradient(config, seed, &model, &objective, &batch, &noise);
        done += 1;
        progress.advance(done, (1 + ADVANTAGES.len() * ESTIMATORS.len()) as u64, 0, "gradients");
        found
    };
    let (Rollouts { pool, .. }, up) = gradient(EstimatorKind::Pathwise, AdvantageKind::Batch)?;
    let mut cosines = BTreeMap::new();
    for (name, advantage) in ADVANTAGES {
        let of: &mut BTreeMap<_, _> = cosines.entry(name).or_default();
        for (name, estimator) in ESTIMATORS {
            let (_, gradient) = gradient(estimator, advantage)?;
            of.insert(name, Some(cosine(&gradient, &up)).filter(|cosine| cosine.is_finite()));
        }
    }
    drop(progress);
    let directions = Directions {
        data_fingerprint: prepared.fingerprint(),
        model_files,
        seed,
        objective: objective.kind(),
        prompts: batch.len(),
        samples: args.samples,
        thought_norm: pool.thought_norms.iter().sum::<f64>() / batch.len() as f64,
        noise_norm: mean_of_samples(&pool.noise_norms, group, true),
        reward_noise_free: mean_of_samples(&pool.rewards, group, false),
        reward_noisy: mean_of_samples(&pool.rewards, group, true),
        cosine: cosines,
    };
    write_json(args.json.as_deref(), &directions)?;
    if is_quiet() { Ok(()) } else { print(&directions.text()) }
}

impl Directions {
    fn text(&self) -> String {
        let head = std::iter::once("advantage").chain(ESTIMATORS.map(|(name, _)| name)).map(str::to_owned).collect();
        let cell = |cosine: &Option<f64>| cosine.map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.3}"));
        let row = |(name, _): (&str, _)| {
            let cells = ESTIMATORS.map(|(estimator, _)| cell(&self.cosine[name][estimator]));
            std::iter::once(name.to_owned()).chain(cells).collect()
        };
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(ADVANTAGES.map(row)).collect();
        format!(
            "{} prompts, {} noisy samples of each; norm of the thought {:.2}, of the noise {:.2}; reward {:.3} without noise, {:.3} with it\n{}",
            self.prompts,
            self.samples,
            self.thought_norm,
            self.noise_norm,
            self.reward_noise_free,
            self.reward_noisy,
            table(&rows)
        )
    }
}

/// A batch's rollouts and their gradient by all parameters that make the thought.
fn gradient(
    config: GrpoConfig,
    seed: u64,
    model: &LatentRecommender,
    objective: &Objective,
    batch: &[&Example],
    noise: &[f32],
) -> Result<(Rollouts, Vec<f32>), CliError> {
    let stage = Grpo::new(config, MICRO_BATCH, seed, model, objective.clone())?;
    let (rollouts, update) = stage.roll_out_and_update(model, &World::alone().local_batch(batch), noise)?;
    let gradients = &update.gradients;
    let values = gradients.names().filter_map(|name| gradients.get(name)).flat_map(read).collect();
    Ok((rollouts, values))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
