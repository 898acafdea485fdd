use std::path::PathBuf;

use clap::Args;

use super::model::{note_other_objective, warn_of_software};
use super::outputs::{check_json, write_json};
use super::terminal::{is_quiet, note, print, table};
use super::{CliError, DeviceArg, ObjectiveArg};
use crate::models::Precision;
use crate::models::decode::BeamConfig;
use crate::run::{RecommendEvent, RecommendRequest, Recommendation};

/// Options of `recommend`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: latentr3 recommend --model RUN --data PREPARED --history \"Hot Rocks\" --history \"Kansas\""
)]
pub(super) struct RecommendArgs {
    /// Hugging Face folder or run folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prepared data: the catalog and the prompt's wording
    #[arg(long, value_name = "PREPARED")]
    data: PathBuf,
    /// A title that was chosen, oldest first; may be given again and again
    #[arg(long, value_name = "TITLE", required = true, allow_hyphen_values = true)]
    history: Vec<String>,
    /// Titles to recommend
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Beams of the search; as many as titles if not given
    #[arg(long)]
    beams: Option<usize>,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// Rank by the sum of log-probabilities divided by the tokens to this power: 1 is the mean, 0 the sum [default: 1;
    /// with the objective `catalog` 0, the only value]
    #[arg(long, value_name = "POWER")]
    length_penalty: Option<f64>,
    /// What the blocks multiply in: f32, bf16 or f16, where the device computes in it; changes results a little
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// Write the recommendations as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &RecommendArgs) -> Result<(), CliError> {
    let beams = args.beams.unwrap_or(args.top);
    if args.top == 0 || beams < args.top {
        return Err(CliError::Usage("--top must be at least 1 and --beams at least as many".into()));
    }
    check_json(args.json.as_deref())?;
    warn_of_software(&args.device.device)?;
    let request = RecommendRequest {
        model: args.model.clone(),
        data: args.data.clone(),
        history: args.history.clone(),
        top: args.top,
        beam: BeamConfig { beams, length_penalty: args.length_penalty },
        objective: args.objective.objective,
        precision: args.precision,
        device: args.device.device.clone(),
    };
    let found = request.carry_out(&mut |event| match event {
        RecommendEvent::Loaded { trained, read } => note_other_objective(trained, read),
        RecommendEvent::UnknownTitle(title) if !is_quiet() => {
            note(&format!("note: \"{title}\" is not in the catalog; its words are used all the same"))
        }
        RecommendEvent::UnknownTitle(_) => {}
    })?;
    write_json(args.json.as_deref(), &found)?;
    let mut rows = vec![["rank", "title", "item", "score"].map(str::to_owned).to_vec()];
    for Recommendation { rank, title, items, score } in found.recommendations {
        rows.push(vec![rank.to_string(), title, items.join(" "), format!("{score:.4}")]);
    }
    if is_quiet() { Ok(()) } else { print(&table(&rows)) }
}
