use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::model::{note_other_objective, warn_of_software};
use super::outputs::{check_json, write_json};
use super::terminal::{note, print, tell};
use super::{CliError, DeviceArg, ObjectiveArg, SeedArg};
use crate::bench::{BenchConfig, BenchEvent, BenchResult, BenchRows, RequestConfig, StepConfig, Timed};
use crate::models::Precision;
use crate::train::grpo::{EstimatorKind, GrpoConfig, SampleKind};

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Times the code that `sft`, `grpo` and `evaluate` run. Rows are taken in file order. The optimiser is \
AdamW with a constant learning rate and gradients clipped to norm 1."
)]
pub(super) struct BenchArgs {
    /// What to time
    #[arg(value_enum)]
    what: What,
    /// Hugging Face folder, run folder or name on the hub
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Token file; for eval and latency, its first line is the catalog
    #[arg(long, value_name = "FILE", required_unless_present = "data")]
    tokens: Option<PathBuf>,
    /// Prepared data instead of a token file: its training rows, or for eval and latency its test rows
    #[arg(long, value_name = "PREPARED", conflicts_with = "tokens")]
    data: Option<PathBuf>,
    /// Token file whose first line is the catalog, for the objective `catalog` in sft and grpo if --tokens has none
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    catalog: Option<PathBuf>,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// Rows per step (sft), rollouts per step (grpo) or users at once (eval, latency) [default: 32 for sft, 64 for
    /// grpo, 8 for eval, both 1 and 16 for latency]
    #[arg(long)]
    batch: Option<usize>,
    #[command(flatten)]
    steps: StepConfig,
    /// Train low-rank adapters of this rank instead of the backbone (sft)
    #[arg(long, value_name = "RANK")]
    lora_rank: Option<usize>,
    /// Matmul precision: f32, bf16 or f16, if the device supports it
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// What is sampled for each prompt (grpo); with items, the whole model trains
    #[arg(long, value_enum, default_value_t = SampleKind::Noise)]
    samples: SampleKind,
    /// Samples per prompt (grpo)
    #[arg(long, default_value_t = 8)]
    group: usize,
    /// Standard deviation of the noise (grpo)
    #[arg(long, default_value_t = 1.5)]
    sigma: f64,
    /// Gradient estimator (grpo)
    #[arg(long, value_enum, default_value_t = EstimatorKind::Likelihood)]
    estimator: EstimatorKind,
    /// Users to rank the catalog for (eval, latency)
    #[arg(long, default_value_t = 16)]
    users: usize,
    /// Beam width (eval, latency)
    #[arg(long, default_value_t = 10)]
    beams: usize,
    /// Number of threads; 0 for one per core
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
    /// Write the lists as JSON, per user [[token ids, ...], [scores, ...]] (eval)
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Also write the output line to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
    /// Options given on the command line.
    #[arg(skip)]
    pub(super) given: Vec<String>,
}

/// Options that apply only to some benchmarks, and to which.
const ONLY_FOR: [(&str, &[What]); 14] = [
    ("samples", &[What::Grpo]),
    ("steps", &[What::Sft, What::Grpo, What::Latency]),
    ("warm_up", &[What::Sft, What::Grpo]),
    ("repeat", &[What::Sft, What::Grpo]),
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
    /// Training steps of stage 1
    Sft,
    /// Training steps of stage 2
    Grpo,
    /// Beam search
    Eval,
    /// Request latency by kind and length of reasoning, for one user and for 16 at once
    Latency,
}

impl BenchArgs {
    fn config(&self) -> Result<BenchConfig, CliError> {
        let rows = match (&self.data, &self.tokens) {
            (Some(data), _) => BenchRows::Prepared(data.clone()),
            (None, Some(tokens)) => BenchRows::Tokens(tokens.clone()),
            (None, None) => return Err(CliError::Usage("give --tokens or --data".into())),
        };
        Ok(BenchConfig {
            model: self.model.clone(),
            rows,
            catalog: self.catalog.clone(),
            objective: self.objective.objective,
            precision: self.precision,
            device: self.device.device.clone(),
            seed: self.seed.seed,
            timed: self.timed(),
        })
    }

    fn timed(&self) -> Timed {
        let Self { users, beams, group, sigma, estimator, .. } = *self;
        let steps = |batch| StepConfig { batch: self.batch.unwrap_or(batch), ..self.steps.clone() };
        match self.what {
            What::Sft => Timed::Sft { steps: steps(32), lora_rank: self.lora_rank },
            What::Grpo => {
                let (items, advantage) = self.samples.defaults();
                let config = GrpoConfig { group, sigma, estimator, advantage, ..Default::default() };
                Timed::Grpo {
                    steps: steps(64),
                    config: GrpoConfig { train_backbone: items.is_some(), items, ..config },
                }
            }
            What::Eval => Timed::Search { users, batch: self.batch.unwrap_or(8), beams },
            What::Latency => {
                let batches = self.batch.map_or(vec![1, 16], |batch| vec![batch]);
                Timed::Latency(RequestConfig { users, batches, rounds: self.steps.steps, beams })
            }
        }
    }
}

pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let config = args.config()?;
    config.check()?;
    for (option, of) in ONLY_FOR {
        if args.given.iter().any(|given| given == option) && !of.contains(&args.what) {
            note(&format!("note: --{} has no effect on what is timed here", option.replace('_', "-")));
        }
    }
    if args.dump.is_some() && args.what != What::Eval {
        return Err(CliError::Usage("--dump works only with eval".into()));
    }
    check_json(args.dump.as_deref())?;
    check_json(args.json.as_deref())?;
    warn_of_software(&args.device.device)?;
    let result = config.time(&mut |event| match event {
        BenchEvent::Loaded { trained, read } => note_other_objective(trained, read),
        BenchEvent::Answered { done, all, users } => {
            tell(&format!("latency: request {done} of {all} with {users} users"))
        }
    })?;
    if let BenchResult::Search(found) = &result {
        write_json(args.dump.as_deref(), &found.dump())?;
    }
    write_json(args.json.as_deref(), &result)?;
    print(&format!("{}\n", serde_json::to_string(&result).expect("numbers can be written as JSON")))
}
