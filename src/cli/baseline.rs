//! `latentr3 baseline`: baselines to beat.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CliError;
use super::sasrec_args::{self, SasRecArgs};
use super::scored_lists::EvaluationArgs;
use crate::data::Prepared;
use crate::run::Baseline;

/// Options of `baseline`.
#[derive(Debug, Args)]
pub(super) struct BaselineArgs {
    #[command(subcommand)]
    baseline: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Rank items by their number of training interactions: the same list for every user
    Popularity(CountingArgs),
    /// Repeat the user's last items, newest first, followed by popular items
    Recent(CountingArgs),
    /// Rank items by counts of item transitions in training (a Markov model)
    ///
    /// Each item of a user's history votes for the items that followed it in training. The P-th newest item (P = 1 for
    /// the newest) gives an item that came D items after it 1 / (P^position-decay D^distance-decay) votes. Popularity
    /// adds --smoothing votes. Values that are not given are chosen by NDCG@10 on validation users.
    Transition(TransitionArgs),
    /// Rank items with SASRec, a transformer over item ids (Kang and McAuley, arXiv 1808.09781), or with GRU4Rec
    Sasrec(SasRecArgs),
}

/// Options of the baselines that count.
#[derive(Debug, Args)]
struct CountingArgs {
    /// Prepared data
    #[arg(long, value_name = "PREPARED")]
    data: PathBuf,
    #[command(flatten)]
    evaluation: EvaluationArgs,
}

/// Options of `baseline transition`.
#[derive(Debug, Args)]
struct TransitionArgs {
    #[command(flatten)]
    counting: CountingArgs,
    /// Exponent of an item's position in the history [default: chosen on validation]
    #[arg(long, value_name = "EXPONENT")]
    position_decay: Option<f64>,
    /// Exponent of the distance between two items in a training row [default: chosen on validation]
    #[arg(long, value_name = "EXPONENT")]
    distance_decay: Option<f64>,
    /// Votes for popularity, above 0 [default: chosen on validation]
    #[arg(long, value_name = "VOTES")]
    smoothing: Option<f64>,
}

pub(super) fn run(args: &BaselineArgs) -> Result<(), CliError> {
    match &args.baseline {
        Command::Popularity(args) => count(args, Baseline::Popularity),
        Command::Recent(args) => count(args, Baseline::Recent),
        Command::Transition(args) => {
            let TransitionArgs { position_decay, distance_decay, smoothing, .. } = *args;
            count(&args.counting, Baseline::Transition { position_decay, distance_decay, smoothing })
        }
        Command::Sasrec(args) => {
            args.evaluation.check()?;
            let (prepared, model) = sasrec_args::trained(args)?;
            let device = args.device.device.clone();
            args.evaluation.run(Baseline::SasRec { model, device }, &prepared)
        }
    }
}

fn count(args: &CountingArgs, baseline: Baseline) -> Result<(), CliError> {
    args.evaluation.check()?;
    baseline.check()?;
    args.evaluation.run(baseline, &Prepared::load(&args.data)?)
}
