use std::path::PathBuf;

use clap::Args;

use super::CliError;
use super::outputs::{check_json, check_not_read, write_json};
use super::terminal::{is_quiet, print};
use crate::eval::EvaluationResult;
use crate::run::read_result;
use crate::text;

/// Options of `merge`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each file is the output of `latentr3 evaluate --shard I/N --json FILE`, from any machine. The merged \
result equals that of a single process that evaluates all users."
)]
pub(super) struct MergeArgs {
    /// JSON files of all shards, in any order
    #[arg(required = true, value_name = "FILE")]
    parts: Vec<PathBuf>,
    /// Write the metrics and every user's rank as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &MergeArgs) -> Result<(), CliError> {
    check_json(args.json.as_deref())?;
    check_not_read(args.json.as_deref(), &args.parts)?;
    let parts = args.parts.iter().map(|path| read_result(path)).collect::<Result<Vec<_>, _>>()?;
    let whole = EvaluationResult::merge(parts).map_err(|error| CliError::Usage(error.to_string()))?;
    write_json(args.json.as_deref(), &whole)?;
    if is_quiet() { Ok(()) } else { print(&text::of_evaluation(&whole)) }
}
