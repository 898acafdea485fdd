use std::path::PathBuf;

use clap::Args;

use super::model::{note_other_objective, warn_of_software};
use super::terminal::print_to_reader;
use super::{CliError, DeviceArg, ObjectiveArg};
use crate::run::ScoreRequest;

/// Options of `score`.
#[derive(Debug, Args)]
#[command(
    after_help = r#"The file has a JSON object a line, {"prompt": [ids], "target": [ids]}; a line of the output is {"log_probs": [..], "sum": .., "mean": ..},
with a log-probability for each token of the target. With the objective `catalog` a token that is the only one the catalog allows has 0, the sum is
log p(item), and the mean is over the choices."#
)]
pub(super) struct ScoreArgs {
    /// Hugging Face folder or run folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Token file
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Token file whose first line has the catalog, for the objective `catalog` where the first line of --tokens has
    /// none
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// Rows that run through the model at once
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
