//! `latentr3 baseline`: what a recommender should beat.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CliError;
use super::evaluate::{note_not_recorded, note_read_before};
use super::sasrec_args::{self, SasRecArgs};
use super::scored_lists::EvaluationArgs;
use super::terminal::{is_quiet, note};
use crate::data::Prepared;
use crate::eval::{Counting, Counts, Method, TransitionChoices, TransitionConfig, load_sasrec, sasrec_scores};
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
    /// D items after it 1 / (P^position-decay D^distance-decay) votes, and popularity has as many votes as the smoothing. What is not
    /// given is chosen by NDCG@10 on validation users
    Transition(TransitionArgs),
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

/// Options of `baseline transition`.
#[derive(Debug, Args)]
struct TransitionArgs {
    #[command(flatten)]
    counting: CountingArgs,
    /// Exponent of an item's place in the history [default: chosen on validation]
    #[arg(long, value_name = "EXPONENT")]
    position_decay: Option<f64>,
    /// Exponent of the distance between two items of a training row [default: chosen on validation]
    #[arg(long, value_name = "EXPONENT")]
    distance_decay: Option<f64>,
    /// Votes that popularity has, more than 0 [default: chosen on validation]
    #[arg(long, value_name = "VOTES")]
    smoothing: Option<f64>,
}

pub(super) fn run(args: &BaselineArgs) -> Result<(), CliError> {
    match &args.baseline {
        Baseline::Popularity(counting) => count("popularity", Counting::Popularity, counting),
        Baseline::Recent(counting) => count("recent", Counting::Recent, counting),
        Baseline::Transition(args) => transition(args),
        Baseline::Sasrec(sasrec) => sasrec_baseline(sasrec),
    }
}

fn count(name: &str, counting: Counting, args: &CountingArgs) -> Result<(), CliError> {
    args.evaluation.check()?;
    let prepared = Prepared::load(&args.data)?;
    let counts = Counts::new(counting, &prepared);
    let method = Method::named(name, 0);
    args.evaluation.run(method, &prepared, BTreeMap::new(), |rows| Ok(counts.scores(rows))).map(drop)
}

fn transition(args: &TransitionArgs) -> Result<(), CliError> {
    let evaluation = &args.counting.evaluation;
    evaluation.check()?;
    let with_given = |config: TransitionConfig| TransitionConfig {
        position_decay: args.position_decay.unwrap_or(config.position_decay),
        distance_decay: args.distance_decay.unwrap_or(config.distance_decay),
        smoothing: args.smoothing.unwrap_or(config.smoothing),
    };
    with_given(TransitionConfig::default()).check().map_err(CliError::Usage)?;
    let prepared = Prepared::load(&args.counting.data)?;
    let given = [args.position_decay, args.distance_decay, args.smoothing];
    let config = match given.iter().all(Option::is_some) {
        true => with_given(TransitionConfig::default()),
        false => {
            let ranges = TransitionChoices::default().with_given(given);
            let (config, ndcg) = ranges.choose(&prepared, evaluation.seed.seed);
            let TransitionConfig { position_decay, distance_decay, smoothing } = config;
            if !is_quiet() {
                note(&format!(
                    "chosen on validation, NDCG@10 {ndcg:.4}: --position-decay {position_decay} --distance-decay {distance_decay} \
                     --smoothing {smoothing}"
                ));
            }
            config
        }
    };
    let counts = Counts::new(Counting::Transition(config), &prepared);
    let method = Method { transition: Some(config), ..Method::named("transition", 0) };
    evaluation.run(method, &prepared, BTreeMap::new(), |rows| Ok(counts.scores(rows))).map(drop)
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
    let result =
        args.evaluation.run(Method::named("sasrec", 0), &prepared, files, |rows| Ok(sasrec_scores(&model, rows)?))?;
    if let Some(log) = log {
        note_read_before(&result.split, log.record(&result, true)?);
    }
    Ok(())
}
