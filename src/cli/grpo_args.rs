//! The options of stage 2.

use clap::Args;

use super::train_args::{FrozenArgs, RunArgs, launch};
use super::{CliError, ObjectiveArg};
use crate::run::{Defaults, Stage2Recipe, StageConfig, TrainRows, TrainingOptions};
use crate::train::grpo::{AdvantageKind, AdvantageOver, EstimatorKind, GrpoConfig, ItemsConfig, SampleKind};

/// Options of `grpo`.
#[derive(Debug, Args)]
#[command(
    after_help = "A model from scratch of the objective `catalog` has `--recipe transitions` by default, unless an \
option says what samples, rewards or advantages are. Other defaults are the published settings (arXiv 2505.19092), but \
the objective is the model's; `--recipe latentr3` sets it too. With noise, watch perplexity_growth, noise_norm and \
thought_norm in metrics.jsonl: --sigma can drown the thought of a small model; --sigma-relative cannot. The best \
checkpoint may be the starting one. See docs/stage-2.md."
)]
pub(super) struct GrpoArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Rollouts per step: prompts times group
    #[arg(long, default_value_t = 256)]
    rollouts: usize,
    /// What is sampled for each prompt [default: noise, or what the recipe says]
    #[arg(long, value_enum, conflicts_with = "recipe")]
    samples: Option<SampleKind>,
    /// Samples per prompt; the first noise sample is noise-free. For items, the maximum length of the list
    #[arg(long, default_value_t = 8)]
    group: usize,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// Use a set of settings; options that are given replace them
    #[arg(long, value_enum, conflicts_with_all = ["objective", "config"])]
    recipe: Option<Stage2Recipe>,
    #[command(flatten)]
    items: ItemsConfig,
    #[command(flatten)]
    noise: SampleArgs,
    /// Gradient estimator
    #[arg(long, value_enum, default_value_t = EstimatorKind::Likelihood)]
    estimator: EstimatorKind,
    /// Baseline with which a reward is compared [default: batch; group with --samples items]
    #[arg(long, value_enum)]
    advantage: Option<AdvantageKind>,
    /// Prompts over which the advantages of noise samples are computed
    #[arg(long, value_enum, value_name = "OVER", default_value_t = AdvantageOver::Batch)]
    advantage_over: AdvantageOver,
    /// Clip the probability ratio from below, at 1 minus this
    #[arg(long, default_value_t = 0.2)]
    clip_low: f64,
    /// Clip the probability ratio from above, at 1 plus this
    #[arg(long, default_value_t = 0.28)]
    clip_high: f64,
    /// Weight of the KL divergence from the starting model: of the target tokens, or with --estimator score of the
    /// thought
    #[arg(long, default_value_t = 0.0)]
    kl: f64,
    /// Optimiser updates per batch of rollouts
    #[arg(long, default_value_t = 1)]
    updates: usize,
    /// Training rows to reinforce
    #[arg(long, value_enum, default_value_t = TrainRows::All)]
    rows: TrainRows,
    /// Train the backbone as well, not only the source of the thoughts
    #[arg(long)]
    train_backbone: bool,
    /// Stop when the KL divergence from the starting model, estimated on the target tokens of one step, exceeds this
    #[arg(long, value_name = "DIVERGENCE")]
    max_kl: Option<f64>,
    /// Stop when the noise-free perplexity exceeds FACTOR times that at the start [FACTOR if omitted: 1.5]. Without
    /// this option, a run only warns, at 1.5 times
    #[arg(long, value_name = "FACTOR", num_args = 0..=1, default_missing_value = "1.5")]
    stop_on_collapse: Option<f64>,
    #[command(flatten)]
    frozen: FrozenArgs,
    #[command(flatten)]
    training: TrainingOptions,
}

/// How a thought's samples are drawn and rewarded.
#[derive(Debug, Args)]
pub(super) struct SampleArgs {
    /// Standard deviation of the noise on each coordinate of the thought
    #[arg(long, default_value_t = 1.5)]
    sigma: f64,
    /// Norm of the noise as a fraction of the thought's norm, instead of --sigma; 0.3 is a good start
    #[arg(long, value_name = "SHARE", conflicts_with = "sigma")]
    sigma_relative: Option<f64>,
    /// Largest perplexity in a reward, so that a hopeless target cannot dominate the advantages of its batch [default:
    /// the largest float32, where the published reward overflows]
    #[arg(long, value_name = "PERPLEXITY", default_value_t = f64::from(f32::MAX), hide_default_value = true)]
    max_perplexity: f64,
}

impl SampleArgs {
    /// The configuration with so many samples of each prompt, and the published values of all else.
    pub(super) fn config(&self, group: usize) -> GrpoConfig {
        GrpoConfig {
            group,
            sigma: self.sigma,
            sigma_relative: self.sigma_relative,
            max_perplexity: self.max_perplexity,
            ..Default::default()
        }
    }
}

pub(super) fn grpo(args: &GrpoArgs) -> Result<(), CliError> {
    let named = |option: &str| args.run.names(option);
    let recipe = args.recipe.or_else(|| Stage2Recipe::usual(args.run.scratch()?, &named));
    let group = recipe.and_then(Stage2Recipe::group).filter(|_| !named("group")).unwrap_or(args.group);
    let samples = args.samples.or(recipe.map(Stage2Recipe::samples)).unwrap_or(SampleKind::Noise);
    let (items, usual) = samples.defaults();
    let config = GrpoConfig {
        items: items.map(|_| args.items.clone()),
        estimator: args.estimator,
        advantage: args.advantage.unwrap_or(usual),
        advantage_over: args.advantage_over,
        clip_low: args.clip_low,
        clip_high: args.clip_high,
        kl: args.kl,
        updates: args.updates,
        train_backbone: args.train_backbone,
        max_kl: args.max_kl,
        stop_on_collapse: args.stop_on_collapse,
        ..args.noise.config(group)
    };
    if recipe.is_none() {
        config.check()?;
    }
    // A resumed run has its own number of either, which need not be given.
    if args.run.is_new() {
        config.check_rollouts(args.rollouts)?;
    } else if args.run.names("rollouts") && !args.run.names("group") {
        let problem = "with --resume, --rollouts needs --group too; or leave both out, for the run has them";
        return Err(CliError::Usage(problem.into()));
    }
    let defaults = Defaults::grpo().with_batch(Some(args.rollouts.div_ceil(group.max(1))));
    let stage = StageConfig::Grpo { config, rows: args.rows, held_out: None };
    let objective = recipe.map(Stage2Recipe::objective).or(args.objective.objective);
    let settings = recipe.map(|recipe| recipe.settings(group));
    launch(&args.run, &args.training, args.frozen.frozen_weights, stage, objective, defaults, settings)
}
