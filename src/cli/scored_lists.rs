//! Evaluation of what gives every item a score.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use clap::Args;

use super::evaluate::show;
use super::interrupt::interrupted;
use super::outputs::{check_json, write_json};
use super::terminal::{Progress, is_quiet};
use super::{CliError, SeedArg, names_of};
use crate::data::{Prepared, PreparedRow, Split};
use crate::eval::{EvalConfig, EvaluationResult, Method, Shard, evaluate_scores, sample};
use crate::models::Precision;
use crate::models::decode::BeamConfig;

/// What to evaluate on, and where the result goes.
#[derive(Debug, Clone, Args)]
pub(super) struct EvaluationArgs {
    /// Which rows; choose settings on valid, report test
    #[arg(long, value_parser = names_of::<Split>())]
    pub split: Split,
    /// Evaluate this many users, drawn at random by --seed
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Length of the lists
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Users scored at once; changes memory and speed, and results by rounding only
    #[arg(long, value_name = "USERS", default_value_t = 256, visible_alias = "users")]
    micro_batch: usize,
    /// Write the figures and every user's rank as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    pub seed: SeedArg,
}

impl EvaluationArgs {
    /// Makes sure before any work that the options make sense.
    pub fn check(&self) -> Result<(), CliError> {
        if self.top == 0 || self.micro_batch == 0 || self.limit == Some(0) {
            return Err(CliError::Usage("--top, --micro-batch and --limit must be at least 1".into()));
        }
        check_json(self.json.as_deref())
    }

    /// Evaluates what `score` gives, and reports it; returns the result.
    pub fn run(
        &self,
        method: Method,
        prepared: &Prepared,
        model_files: BTreeMap<String, String>,
        mut score: impl FnMut(&[&PreparedRow]) -> Result<Vec<Vec<f32>>, CliError>,
    ) -> Result<EvaluationResult, CliError> {
        let score = |rows: &[&PreparedRow]| match interrupted().load(Ordering::Relaxed) {
            true => Err(CliError::Stopped("stopped before the evaluation was done; the same command does it".into())),
            false => score(rows),
        };
        let split = self.split;
        let rows = sample(prepared.rows.get(split), self.limit, self.seed.seed);
        let beam = BeamConfig { beams: self.top, ..Default::default() };
        let config = EvalConfig { beam, batch: self.micro_batch, shard: Shard::WHOLE };
        let mut progress = Progress::new(&method.method);
        let mut advance = |done: usize, all: usize| progress.advance(done as u64, all as u64, 0, "users");
        let evaluation = evaluate_scores(method, prepared, &rows, config, score, &mut advance)?;
        drop(progress);
        let result = EvaluationResult {
            split: split.name().into(),
            data_fingerprint: prepared.fingerprint(),
            model_files,
            limit: self.limit,
            seed: self.seed.seed,
            batch: self.micro_batch,
            precision: Precision::F32,
            trained_objective: None,
            thoughts: None,
            guide_files: BTreeMap::new(),
            users_of_all_parts: rows.len(),
            shard: Shard::WHOLE,
            evaluation,
        };
        write_json(self.json.as_deref(), &result)?;
        if !is_quiet() {
            show(&result)?;
        }
        Ok(result)
    }
}
