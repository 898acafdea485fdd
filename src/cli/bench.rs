use std::path::PathBuf;
use std::time::Instant;

use burn::module::Module;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::grpo_args::EstimatorArg;
use super::latency::{self, Plan};
use super::model::{load_model, objective_of};
use super::outputs::{check_json, write_json};
use super::terminal::{note, print};
use super::{CliError, DeviceArg, ObjectiveArg, SeedArg};
use crate::data::{Split, TokenFile};
use crate::models::decode::{BeamConfig, beam_search};
use crate::models::{LatentRecommender, LoraConfig, Objective, Precision};
use crate::run::check_device;
use crate::run::peak_mib;
use crate::train::grpo::{Grpo, GrpoConfig, prepare_model};
use crate::train::sft::Sft;
use crate::train::{AdamW, AdamWConfig, Example, Fault, Optimizer, Stage, TrainError, World};

/// Most threads that a pool is asked for.
const MOST_THREADS: usize = 1024;
/// Most rows of a step.
const MOST_ROWS: usize = 1 << 20;

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Times the code that `sft`, `grpo` and `evaluate` run. Rows are taken in the order of the file; the optimiser is AdamW at a \
constant rate with gradients clipped to norm 1."
)]
pub(super) struct BenchArgs {
    /// What to time
    #[arg(value_enum)]
    what: What,
    /// Hugging Face folder or run folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Token file; for eval and latency its first line is the catalog
    #[arg(long, value_name = "FILE", required_unless_present = "data")]
    tokens: Option<PathBuf>,
    /// Prepared data instead: its training rows, or for eval and latency its test rows
    #[arg(long, value_name = "PREPARED", conflicts_with = "tokens")]
    data: Option<PathBuf>,
    /// Token file whose first line has the catalog, where that of --tokens has none: for the objective `catalog` in sft and grpo
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    catalog: Option<PathBuf>,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// Training steps, or rounds of latency over the users
    #[arg(long, default_value_t = 3)]
    steps: usize,
    /// Rows a step (sft), rollouts a step (grpo), users at once (eval, latency); 32, 64, 8, and both 1 and 16 if not given
    #[arg(long)]
    batch: Option<usize>,
    /// Prompts that run through the model at once, for grpo with all their samples
    #[arg(long, default_value_t = 8)]
    micro: usize,
    /// Train low-rank adapters of this rank in the place of the backbone (sft)
    #[arg(long, value_name = "RANK")]
    lora_rank: Option<usize>,
    /// Compute activations again in the backward pass instead of keeping them
    #[arg(long)]
    gradient_checkpointing: bool,
    /// What the blocks multiply in: f32, bf16 or f16, where the device computes in it
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// What the weights that do not train are kept in (sft with --lora-rank, grpo): f32, bf16 or f16
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    frozen_weights: Precision,
    /// Samples of each prompt
    #[arg(long, default_value_t = 8)]
    group: usize,
    /// Standard deviation of the noise
    #[arg(long, default_value_t = 1.5)]
    sigma: f64,
    /// How the gradient is estimated (grpo)
    #[arg(long, value_enum, default_value_t = EstimatorArg::Likelihood)]
    estimator: EstimatorArg,
    /// Learning rate
    #[arg(long, default_value_t = 1e-4)]
    lr: f64,
    /// Users to rank the catalog for
    #[arg(long, default_value_t = 16)]
    users: usize,
    /// Beams of the search
    #[arg(long, default_value_t = 10)]
    beams: usize,
    /// Threads; 0 for one per core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Write per user [[token ids, ...], [scores, ...]]
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Write the line into a file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
    /// The options that the command line named.
    #[arg(skip)]
    pub(super) given: Vec<String>,
}

/// Options that mean nothing to some of what is timed, and what they are for.
const ONLY_FOR: [(&str, &[What]); 11] = [
    ("steps", &[What::Sft, What::Grpo, What::Latency]),
    ("micro", &[What::Sft, What::Grpo]),
    ("lora_rank", &[What::Sft]),
    ("gradient_checkpointing", &[What::Sft, What::Grpo]),
    ("frozen_weights", &[What::Sft, What::Grpo]),
    ("group", &[What::Grpo]),
    ("sigma", &[What::Grpo]),
    ("estimator", &[What::Grpo]),
    ("lr", &[What::Sft, What::Grpo]),
    ("users", &[What::Eval, What::Latency]),
    ("beams", &[What::Eval, What::Latency]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Steps of stage 1
    Sft,
    /// Steps of stage 2
    Grpo,
    /// The search
    Eval,
    /// What a request waits, by the kind and length of reasoning, for one user and for 16 at once
    Latency,
}

impl BenchArgs {
    /// The rows and their catalog.
    fn tokens(&self) -> Result<TokenFile, CliError> {
        let split = match self.what {
            What::Sft | What::Grpo => Split::Train,
            What::Eval | What::Latency => Split::Test,
        };
        match (&self.data, &self.tokens) {
            (Some(data), _) => Ok(TokenFile::of_split(data, split)?),
            (None, Some(tokens)) => Ok(TokenFile::read(tokens)?),
            (None, None) => Err(CliError::Usage("--tokens or --data is needed".into())),
        }
    }

    /// Makes the pool of as many threads as are asked for.
    pub(super) fn use_threads(&self) -> Result<(), CliError> {
        if self.threads > MOST_THREADS {
            return Err(CliError::Usage(format!("--threads goes up to {MOST_THREADS}")));
        }
        if self.threads == 0 {
            return Ok(());
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build_global();
        pool.map_err(|error| CliError::Usage(format!("--threads {}: {error}", self.threads)))
    }
}

pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    if [args.steps, args.micro, args.group, args.users, args.beams, args.batch.unwrap_or(1)].contains(&0) {
        return Err(CliError::Usage("steps, batch, micro, group, users and beams must be at least 1".into()));
    }
    if !(args.lr.is_finite() && args.lr >= 0.0) {
        return Err(CliError::Usage(format!("--lr {:?} must be 0 or a positive number", args.lr)));
    }
    if args.batch.unwrap_or(1) > MOST_ROWS {
        return Err(CliError::Usage(format!("--batch goes up to {MOST_ROWS}")));
    }
    for (option, of) in ONLY_FOR {
        if args.given.iter().any(|given| given == option) && !of.contains(&args.what) {
            note(&format!("note: --{} changes nothing of what is timed here", option.replace('_', "-")));
        }
    }
    if args.dump.is_some() && args.what != What::Eval {
        return Err(CliError::Usage("--dump is for eval".into()));
    }
    check_json(args.dump.as_deref())?;
    check_json(args.json.as_deref())?;
    check_device(&args.device.device, args.precision)?;
    check_device(&args.device.device, args.frozen_weights)?;
    let file = args.tokens()?;
    let model = load_model(&args.model, &args.device.device)?.with_precision(args.precision)?;
    let kind = objective_of(&model, args.objective.objective);
    let objective = file.objective(args.catalog.as_deref(), kind, &model.backbone)?;
    file.check(&model, &objective)?;
    if matches!(args.what, What::Eval | What::Latency) && objective.tree().is_err() {
        return Err(TokenFile::no_catalog(args.catalog.as_deref().unwrap_or(&file.path)).into());
    }
    let result = match args.what {
        What::Sft => {
            let stage = Sft::new(args.micro, objective);
            let model = match args.lora_rank {
                Some(rank) => model.with_lora(&LoraConfig::of_rank(rank), args.seed.seed)?,
                None => model,
            };
            train(args, &stage, model, &file.rows, args.batch.unwrap_or(32), 1)?
        }
        What::Grpo => {
            let rollouts = args.batch.unwrap_or(64);
            if !rollouts.is_multiple_of(args.group) {
                return Err(CliError::Usage(format!(
                    "--batch {rollouts} must be a multiple of --group {}",
                    args.group
                )));
            }
            let estimator = args.estimator.into();
            let config = GrpoConfig { group: args.group, sigma: args.sigma, estimator, ..Default::default() };
            let model = prepare_model(model, &config);
            let stage = Grpo::new(config, args.micro, args.seed.seed, &model, objective)?;
            train(args, &stage, model, &file.rows, rollouts / args.group, args.group)?
        }
        What::Eval => search(args, &model.valid(), &objective, &file.rows)?,
        What::Latency => {
            let batches = args.batch.map_or(vec![1, 16], |batch| vec![batch]);
            let prompts: Vec<&[u32]> = file.rows.iter().take(args.users).map(|row| row.prompt.as_slice()).collect();
            let beam = BeamConfig { beams: args.beams, length_penalty: None };
            let plan = Plan { batches, rounds: args.steps, beam };
            let table = latency::measure(model.valid(), &objective, &prompts, &plan)?;
            json!({ "latency": table, "peak_mib": peak_mib() })
        }
    };
    write_json(args.json.as_deref(), &result)?;
    print(&format!("{result}\n"))
}

fn train(
    args: &BenchArgs,
    stage: &dyn Stage<LatentRecommender>,
    mut model: LatentRecommender,
    rows: &[Example],
    prompts: usize,
    samples: usize,
) -> Result<Value, CliError> {
    let adamw = AdamW::new(AdamWConfig::default());
    let mut optimizer =
        Optimizer { adamw, clip_norm: 1.0, learning_rate: args.lr, groups: Vec::new(), step: 0, temperature: None };
    model = model.train().with_frozen_weights(args.frozen_weights)?;
    if args.gradient_checkpointing {
        model = model.with_gradient_checkpointing();
    }
    let world = World::alone();
    let (mut seconds, mut losses, mut rewards, mut tokens) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for step in 0..args.steps {
        let batch: Vec<&Example> = (0..prompts).map(|i| &rows[(step * prompts + i) % rows.len()]).collect();
        optimizer.step = step + 1;
        let clock = Instant::now();
        let (moved, report) = stage.step(model, &mut optimizer, &world.local_batch(&batch))?;
        model = moved;
        seconds.push(clock.elapsed().as_secs_f64());
        if let Some(Fault { what, value }) = report.fault {
            return Err(TrainError::NotFinite { step: step + 1, what, value, rows: Vec::new() }.into());
        }
        losses.push(report.metrics["loss"].clone());
        if samples > 1 {
            rewards.push(report.headline);
        }
        tokens += batch.iter().map(|row| row.prompt.len() + row.target.len() + model.thoughts()).sum::<usize>();
    }
    let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(json!({
        "step_s": seconds,
        "loss": losses,
        "reward": rewards,
        "tokens": tokens,
        "step_s_min": fastest,
        "peak_mib": peak_mib(),
    }))
}

fn search(
    args: &BenchArgs,
    model: &LatentRecommender,
    objective: &Objective,
    rows: &[Example],
) -> Result<Value, CliError> {
    let rows = &rows[..args.users.min(rows.len())];
    let config = BeamConfig { beams: args.beams, length_penalty: None };
    let clock = Instant::now();
    let mut found = Vec::with_capacity(rows.len());
    for rows in rows.chunks(args.batch.unwrap_or(8)) {
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
        found.extend(beam_search(model, objective, &prompts, config)?);
    }
    let seconds = clock.elapsed().as_secs_f64();
    let rank = |(row, hypotheses): (&Example, &Vec<crate::models::decode::Hypothesis>)| {
        hypotheses.iter().position(|h| h.tokens == row.target)
    };
    let ranks: Vec<Option<usize>> = rows.iter().zip(&found).map(rank).collect();
    let hit = |k: usize| ranks.iter().flatten().filter(|rank| **rank < k).count() as f64 / ranks.len() as f64;
    let hr: Map<String, Value> = [1, 3, 5, 10].map(|k| (k.to_string(), json!(hit(k)))).into_iter().collect();
    let lists: Vec<Value> = found
        .iter()
        .map(|list| {
            json!([
                list.iter().map(|h| &h.tokens).collect::<Vec<_>>(),
                list.iter().map(|h| h.score).collect::<Vec<_>>()
            ])
        })
        .collect();
    write_json(args.dump.as_deref(), &lists)?;
    Ok(json!({ "users_per_s": rows.len() as f64 / seconds, "s": seconds, "hr": hr, "peak_mib": peak_mib() }))
}
