use std::path::PathBuf;

use clap::Args;

use super::model::{note_other_objective, warn_of_software};
use super::terminal::print_to_reader;
use super::{CliError, DeviceArg, ObjectiveArg};
use crate::run::ScoreRequest;

/// Options of `score`.
#[derive(Debug, Args)]
#[command(after_help = r#"A line of --tokens is {"prompt": [ids], "target": [ids]}. A line of the output is
{"log_probs": [..], "sum": .., "mean": ..}, with one log-probability per token of the target.

With the objective `catalog`, sum is log p(item). A token that is the only one the catalog allows has log-probability 0
and does not count for mean."#)]
pub(super) struct ScoreArgs {
    /// Hugging Face folder, run folder or name on the hub
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Token file: one JSON object per line, with the fields prompt and target
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Token file whose first line is the catalog, for the objective `catalog` if --tokens has none
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// Rows per forward pass
    #[arg(long, value_name = "ROWS", default_value_t = 16)]
    micro_batch: usize,
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &ScoreArgs) -> Result<(), CliError> {
    if args.micro_batch == 0 {
        return Err(CliError::Usage("--micro-batch must be at least 1".into()));
    }
    warn_of_software(&args.device.device)?;
    let request = ScoreRequest {
        model: args.model.clone(),
        tokens: args.tokens.clone(),
        catalog: args.catalog.clone(),
        objective: args.objective.objective,
        micro_batch: args.micro_batch,
        device: args.device.device.clone(),
    };
    let scorer = request.open()?;
    let (trained, read) = scorer.objectives();
    note_other_objective(trained, read);
    for scores in scorer.scores() {
        for score in scores? {
            let line = serde_json::to_string(&score).expect("numbers can be written as JSON");
            if !print_to_reader(&format!("{line}\n"))? {
                return Ok(());
            }
        }
    }
    Ok(())
}
