//! The program's commands: each a thin call into the library.

mod add_items;
mod baseline;
mod bench;
mod compare;
mod demo;
mod devices;
mod direction;
mod error;
mod evaluate;
mod experiment;
mod export;
mod fit;
mod grpo_args;
mod init;
mod interrupt;
mod merge;
mod model;
mod outputs;
mod prepare;
mod recommend;
mod report_page;
mod run_display;
mod sasrec_args;
mod score;
mod scored_lists;
#[cfg(feature = "serve")]
mod serve;
mod terminal;
mod train_args;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use error::CliError;

use crate::data::silence_expected_panics;
use crate::models::{ObjectiveKind, default_device, is_cpu};
use crate::runtime::{use_threads, with_awake_threads};

/// Train and serve recommenders that think in latent space before they write the next item's title.
#[derive(Debug, Parser)]
#[command(
    name = "latentr3",
    version,
    after_help = "Start with `latentr3 demo`: it builds a recommender from synthetic data in at most three minutes. \
Then run `latentr3 fit` on your own data."
)]
pub struct Cli {
    /// Show no progress and no tables
    #[arg(long, global = true, help_heading = "Common options")]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
    /// Whether the command names a GPU to compute on.
    #[arg(skip)]
    on_gpu: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a recommender from synthetic data, as `fit` builds one from yours
    Demo(demo::DemoArgs),
    /// Build a recommender from a file of orders: try item transitions, SASRec and a language model, and keep the best
    Fit(fit::FitArgs),
    /// Read, split and tokenise a data set; the other commands use the resulting folder
    Prepare(prepare::PrepareArgs),
    /// Create a model: with random weights, or from another one by merging adapters or adding a latent attention
    Init(init::InitArgs),
    /// Pretrain a model on the training histories
    Pretrain(train_args::PretrainArgs),
    /// Stage 1: fine-tune the model and its latent attention on the training rows
    Sft(train_args::SftArgs),
    /// Stage 2: reinforce the latent attention with the modified GRPO
    Grpo(grpo_args::GrpoArgs),
    /// Compare the gradient of each stage 2 estimator with the true reward gradient
    Direction(direction::DirectionArgs),
    /// Rank the catalog for each user of a split and report HR@k and NDCG@k
    Evaluate(evaluate::EvaluateArgs),
    /// Evaluate baselines: popularity, repeat-last, item transitions, SASRec, GRU4Rec
    Baseline(baseline::BaselineArgs),
    /// Merge evaluation shards
    Merge(merge::MergeArgs),
    /// Test whether one model is significantly better than another, over users and seeds
    Compare(compare::CompareArgs),
    /// Run the remaining steps of an experiment file and print its tables
    Experiment(experiment::ExperimentArgs),
    /// Recommend items for the history of one or many users
    Recommend(recommend::RecommendArgs),
    /// Add items to a shop's catalog, so that they can be recommended by their titles without training
    AddItems(add_items::AddItemsArgs),
    /// Serve recommendations over HTTP, with a web page to try them
    #[cfg(feature = "serve")]
    Serve(serve::ServeArgs),
    /// Write an HTML report on runs: metrics, learning curves, speed, popularity, and what thoughts attend to
    Report(report_page::ReportArgs),
    /// Export the metrics of runs for TensorBoard
    Export(export::ExportArgs),
    /// Print the log-probabilities of the targets in a token file as JSON lines
    Score(score::ScoreArgs),
    /// List the devices that this program was built for; with --check, verify what each computes
    Devices(devices::DevicesArgs),
    /// Benchmark training steps, the search or request latency, and print one JSON line
    Bench(bench::BenchArgs),
}

/// The option of commands that compute.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArg {
    /// Device: flex, ndarray, wgpu, vulkan, metal, cuda or rocm, if compiled in. A number selects one of several GPUs,
    /// from 0, as in cuda:1; wgpu, vulkan and metal count discrete GPUs only
    #[arg(long, default_value = default_device(), help_heading = "Common options")]
    pub device: String,
}

/// The option of commands that draw something at random.
#[derive(Debug, Clone, Args)]
pub(crate) struct SeedArg {
    /// Random seed
    #[arg(long, default_value_t = 0, help_heading = "Common options")]
    pub seed: u64,
}

/// The option of commands that read a model by an objective.
#[derive(Debug, Clone, Args)]
pub(crate) struct ObjectiveArg {
    /// Which tokens a title's tokens compete with: `catalog`, those that the prefix tree allows, so that scores are
    /// log-probabilities of items; `vocabulary`, all, as published [default: the objective of training]
    #[arg(long, value_name = "OBJECTIVE")]
    pub objective: Option<ObjectiveKind>,
}

/// Where no other option is called so, `--sample-users` is `--samples` too.
fn with_samples(command: clap::Command) -> clap::Command {
    ["pretrain", "sft"].into_iter().fold(command, |command, stage| {
        command.mut_subcommand(stage, |stage| stage.mut_arg("sample_users", |arg| arg.visible_alias("samples")))
    })
}

/// Takes `--lr -1` for a value, so that what is wrong with it is said.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    command.mut_subcommands(with_negative_numbers).mut_args(|arg| {
        let takes_value = arg.get_action().takes_values();
        if takes_value { arg.allow_negative_numbers(true) } else { arg }
    })
}

/// Says on standard error why a command could not be done. Nobody may be reading; [`CliError::exit_code`] says it too.
pub fn say(error: &CliError) {
    let kind = if error.exit_code() == error::INTERRUPTED { "" } else { "error: " };
    terminal::note(&format!("{kind}{error}"));
}

impl Cli {
    fn parser() -> clap::Command {
        with_negative_numbers(with_samples(Self::command()))
    }

    /// Reads the command line; ends the program with a message where it makes no sense.
    pub fn from_command_line() -> Self {
        let matches = Self::parser().get_matches();
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let list = match &mut cli.command {
            Command::Pretrain(args) => Some(&mut args.run.given),
            Command::Sft(args) => Some(&mut args.run.given),
            Command::Grpo(args) => Some(&mut args.run.given),
            Command::Bench(args) => Some(&mut args.given),
            _ => None,
        };
        let Some((_, matches)) = matches.subcommand() else {
            return cli;
        };
        if let Some(list) = list {
            let given = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
            *list = matches.ids().filter(given).map(|id| id.to_string()).collect();
        }
        // Some commands have commands of their own.
        let innermost = std::iter::successors(Some(matches), |matches| Some(matches.subcommand()?.1)).last();
        let device = innermost.and_then(|matches| matches.try_get_one::<String>("device").ok()?);
        cli.on_gpu = device.is_some_and(|device| !is_cpu(device));
        cli
    }

    /// Runs the command.
    ///
    /// # Errors
    ///
    /// What the command could not do; see [`CliError::exit_code`].
    pub fn run(self) -> Result<(), CliError> {
        silence_expected_panics();
        terminal::be_quiet(self.quiet);
        #[cfg(feature = "hub")]
        crate::from_hub::watch_downloads(terminal::show_download);
        if let Command::Bench(args) = &self.command {
            use_threads(args.threads).map_err(CliError::Usage)?;
        }
        match self.command {
            // They wait for programs of their own, which want the processors.
            Command::Experiment(_) | Command::Devices(_) => self.command.run(),
            // It is idle most of the time.
            #[cfg(feature = "serve")]
            Command::Serve(_) => self.command.run(),
            // What is left for the processors there is not worth waiting for awake.
            _ if self.on_gpu => self.command.run(),
            _ => with_awake_threads(|| self.command.run()),
        }
    }
}

impl Command {
    fn run(self) -> Result<(), CliError> {
        match self {
            Self::Demo(args) => demo::run(&args),
            Self::Fit(args) => fit::run(&args),
            Self::Prepare(args) => prepare::run(&args),
            Self::Init(args) => init::run(&args),
            Self::Pretrain(args) => train_args::pretrain(&args),
            Self::Sft(args) => train_args::sft(&args),
            Self::Grpo(args) => grpo_args::grpo(&args),
            Self::Direction(args) => direction::run(&args),
            Self::Evaluate(args) => evaluate::run(&args),
            Self::Baseline(args) => baseline::run(&args),
            Self::Merge(args) => merge::run(&args),
            Self::Compare(args) => compare::run(&args),
            Self::Experiment(args) => experiment::run(&args),
            Self::Recommend(args) => recommend::run(&args),
            Self::AddItems(args) => add_items::run(&args),
            #[cfg(feature = "serve")]
            Self::Serve(args) => serve::run(&args),
            Self::Report(args) => report_page::run(&args),
            Self::Export(args) => export::run(&args),
            Self::Score(args) => score::run(&args),
            Self::Devices(args) => devices::run(&args),
            Self::Bench(args) => bench::run(&args),
        }
    }
}
