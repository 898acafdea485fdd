//! Evaluation of what gives every item a score.

use std::path::PathBuf;

use clap::Args;

use super::evaluate::{note_not_recorded, note_read_before};
use super::interrupt::interrupted;
use super::outputs::{check_json, write_json};
use super::terminal::{Progress, is_quiet, print, tell};
use super::{CliError, SeedArg};
use crate::data::{Prepared, Split};
use crate::option_values::names_of;
use crate::run::{Baseline, BaselineEvent, BaselineRequest};
use crate::text;

/// What to evaluate on, and where the result goes.
#[derive(Debug, Clone, Args)]
pub(super) struct EvaluationArgs {
    /// Split to evaluate; choose settings on valid, report test
    #[arg(long, value_parser = names_of::<Split>())]
    pub split: Split,
    /// Evaluate only this many rows, drawn at random by --seed
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Length of the lists
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Exclude the items of a user's history from the list
    #[arg(long)]
    exclude_history: bool,
    /// Users scored at once; affects memory and speed, and results only by rounding
    #[arg(long, value_name = "USERS", default_value_t = 256, visible_alias = "users")]
    micro_batch: usize,
    /// Write the metrics and every user's rank as JSON
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

    fn request(&self, baseline: Baseline) -> BaselineRequest {
        let Self { split, limit, top, micro_batch: batch, exclude_history, seed: SeedArg { seed }, .. } = *self;
        BaselineRequest { baseline, split, limit, top, batch, exclude_history, seed }
    }

    /// Evaluates, and reports it.
    pub fn run(&self, baseline: Baseline, prepared: &Prepared) -> Result<(), CliError> {
        let mut progress = Progress::new(baseline.name());
        let result = self.request(baseline).carry_out(prepared, interrupted(), &mut |event| match event {
            BaselineEvent::Chosen { config, ndcg } => tell(&text::of_transition(&config, ndcg)),
            BaselineEvent::NotRecorded(error) => note_not_recorded(&error),
            BaselineEvent::Advanced { done, all } => progress.advance(done as u64, all as u64, 0, "rows"),
            BaselineEvent::ReadBefore { times } => note_read_before(self.split.name(), times),
        })?;
        drop(progress);
        write_json(self.json.as_deref(), &result)?;
        if is_quiet() { Ok(()) } else { print(&text::of_evaluation(&result)) }
    }
}
