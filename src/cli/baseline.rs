//! `latentr3 baseline`: what a recommender should beat.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::{Args, Subcommand};

use super::evaluate::{SplitArg, show};
use super::evaluation_log;
use super::files::{check_json, is_run, model_folder, weight_files, write_json};
use super::interrupt::interrupted;
use super::sasrec_run::{self, SasRecArgs};
use super::terminal::Progress;
use super::{CliError, CommonArgs};
use crate::data::{Prepared, PreparedRow, Split};
use crate::eval::{
    Counting, Counts, EvalConfig, EvaluationResult, Shard, evaluate_scores, load_sasrec, sample, sasrec_scores,
};
use crate::models::decode::BeamConfig;
use crate::models::{Precision, device};

/// Options of `baseline`.
#[derive(Debug, Args)]
pub(super) struct BaselineArgs {
    #[command(subcommand)]
    baseline: Baseline,
    #[command(flatten)]
    common: CommonArgs,
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

/// What to evaluate on, and where the result goes.
#[derive(Debug, Clone, Args)]
pub(super) struct EvaluationArgs {
    /// Which rows; choose settings on valid, report test
    #[arg(long, value_enum)]
    pub split: SplitArg,
    /// Evaluate this many users, drawn at random by --seed
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Length of the lists
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Users scored at once; changes memory and speed, and results by rounding only
    #[arg(long, value_name = "USERS", default_value_t = 256)]
    users: usize,
    /// Write the figures and every user's rank as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl EvaluationArgs {
    /// Makes sure before any work that the options make sense.
    fn check(&self) -> Result<(), CliError> {
        if self.top == 0 || self.users == 0 || self.limit == Some(0) {
            return Err(CliError::Usage("--top, --users and --limit must be at least 1".into()));
        }
        check_json(self.json.as_deref())
    }

    /// Evaluates what `score` gives, and reports it; returns the result.
    fn run(
        &self,
        name: &str,
        prepared: &Prepared,
        model_files: BTreeMap<String, String>,
        common: &CommonArgs,
        mut score: impl FnMut(&[&PreparedRow]) -> Result<Vec<Vec<f32>>, CliError>,
    ) -> Result<EvaluationResult, CliError> {
        let score = |rows: &[&PreparedRow]| match interrupted().load(Ordering::Relaxed) {
            true => Err(CliError::Stopped("stopped before the evaluation was done; the same command does it".into())),
            false => score(rows),
        };
        let split = Split::from(self.split);
        let rows = sample(prepared.rows.get(split), self.limit, common.seed);
        let beam = BeamConfig { beams: self.top, ..Default::default() };
        let config = EvalConfig { beam, batch: self.users, shard: Shard::WHOLE };
        let mut progress = Progress::new(name, common.quiet);
        let mut advance = |done: usize, all: usize| progress.advance(done as u64, all as u64, 0, "users");
        let evaluation = evaluate_scores(name, prepared, &rows, config, score, &mut advance)?;
        drop(progress);
        let result = EvaluationResult {
            split: split.name().into(),
            data_fingerprint: prepared.fingerprint(),
            model_files,
            limit: self.limit,
            seed: common.seed,
            batch: self.users,
            precision: Precision::F32,
            thoughts: None,
            guide_files: BTreeMap::new(),
            users_of_all_parts: rows.len(),
            shard: Shard::WHOLE,
            evaluation,
        };
        write_json(self.json.as_deref(), &result)?;
        if !common.quiet {
            show(&result)?;
        }
        Ok(result)
    }
}

pub(super) fn run(args: &BaselineArgs) -> Result<(), CliError> {
    match &args.baseline {
        Baseline::Popularity(counting) => count("popularity", Counting::Popularity, counting, &args.common),
        Baseline::Recent(counting) => count("recent", Counting::Recent, counting, &args.common),
        Baseline::Transition(counting) => count("transition", Counting::Transition, counting, &args.common),
        Baseline::Sasrec(sasrec) => sasrec_baseline(sasrec, &args.common),
    }
}

fn count(name: &str, counting: Counting, args: &CountingArgs, common: &CommonArgs) -> Result<(), CliError> {
    args.evaluation.check()?;
    let prepared = Prepared::load(&args.data)?;
    let counts = Counts::new(counting, &prepared);
    args.evaluation.run(name, &prepared, BTreeMap::new(), common, |rows| Ok(counts.scores(rows))).map(drop)
}

fn sasrec_baseline(args: &SasRecArgs, common: &CommonArgs) -> Result<(), CliError> {
    args.evaluation.check()?;
    let (prepared, folder) = sasrec_run::trained(args, common)?;
    let best = model_folder(&folder);
    let model = load_sasrec(&best, &prepared, &device(&common.device)?)?;
    let files = weight_files(&folder)?;
    let result = args.evaluation.run("sasrec", &prepared, files, common, |rows| Ok(sasrec_scores(&model, rows)?))?;
    if is_run(&folder) { evaluation_log::record(&folder, &result, true) } else { Ok(()) }
}
