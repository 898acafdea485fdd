//! `latentr3 baseline`: what a recommender should beat.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CliError;
use super::evaluate::{note_not_recorded, note_read_before};
use super::sasrec_args::{self, SasRecArgs};
use super::scored_lists::EvaluationArgs;
use crate::data::Prepared;
use crate::eval::{Counting, Counts, load_sasrec, sasrec_scores};
use crate::models::device;
use crate::run::{EvaluationLog, model_folder, weight_files};

/// Options of `baseline`.
#[derive(Debug, Args)]
pub(super) struct BaselineArgs {
    #[command(subcommand)]
    baseline: Baseline,
}

#[derive(Debug, Subcommand)]
enum Baseline {
    /// The items by how often they were chosen in training, the same list for everybody
    Popularity(CountingArgs),
    /// The user's own last items again, newest first, then the popular ones
    Recent(CountingArgs),
    /// Each of the user's items votes for what followed it in training. The P-th item from the newest (P = 1) gives an item that came
    /// D items after it 1 / (P D) votes. Equal votes go by popularity; items without votes come after, the popular ones first
    Transition(CountingArgs),
    /// A transformer over the ids of the user's last items, trained from nothing (Kang and McAuley, arXiv 1808.09781)
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

pub(super) fn run(args: &BaselineArgs) -> Result<(), CliError> {
    match &args.baseline {
        Baseline::Popularity(counting) => count("popularity", Counting::Popularity, counting),
        Baseline::Recent(counting) => count("recent", Counting::Recent, counting),
        Baseline::Transition(counting) => count("transition", Counting::Transition, counting),
        Baseline::Sasrec(sasrec) => sasrec_baseline(sasrec),
    }
}

fn count(name: &str, counting: Counting, args: &CountingArgs) -> Result<(), CliError> {
    args.evaluation.check()?;
    let prepared = Prepared::load(&args.data)?;
    let counts = Counts::new(counting, &prepared);
    args.evaluation.run(name, &prepared, BTreeMap::new(), |rows| Ok(counts.scores(rows))).map(drop)
}

fn sasrec_baseline(args: &SasRecArgs) -> Result<(), CliError> {
    args.evaluation.check()?;
    let (prepared, folder) = sasrec_args::trained(args)?;
    let best = model_folder(&folder);
    let model = load_sasrec(&best, &prepared, &device(&args.device.device)?)?;
    let files = weight_files(&folder)?;
    let log = EvaluationLog::open(&folder).unwrap_or_else(|error| {
        note_not_recorded(&error);
        None
    });
    let result = args.evaluation.run("sasrec", &prepared, files, |rows| Ok(sasrec_scores(&model, rows)?))?;
    if let Some(log) = log {
        note_read_before(&result.split, log.record(&result, true)?);
    }
    Ok(())
}
