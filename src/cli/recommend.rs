use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::model::{load_model, objective_of};
use super::outputs::{check_json, write_json};
use super::terminal::{is_quiet, note, print, table};
use super::{CliError, DeviceArg, ObjectiveArg};
use crate::data::Prepared;
use crate::models::decode::{BeamConfig, beam_search};
use crate::models::{ObjectiveKind, Precision};
use crate::run::{check_device, check_fit};

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
    /// Rank by the sum of log-probabilities divided by the tokens to this power: 1 is the mean, 0 the sum [default: 1; with the objective
    /// `catalog` 0, the only value]
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
    let beam = BeamConfig { beams, length_penalty: args.length_penalty };
    beam.check(ObjectiveKind::Vocabulary)?;
    check_json(args.json.as_deref())?;
    check_device(&args.device.device, args.precision)?;
    let prepared = Prepared::load(&args.data)?;
    let model = load_model(&args.model, &args.device.device)?.with_precision(args.precision)?;
    check_fit(&model, &args.model, &prepared)?;
    let is_unknown = |title: &&String| prepared.catalog.items().iter().all(|item| item.title != **title);
    for title in args.history.iter().filter(|title| !is_quiet() && is_unknown(title)) {
        note(&format!("note: \"{title}\" is not in the catalog; its words are used all the same"));
    }
    let objective = prepared.objective(objective_of(&model, args.objective.objective))?;
    let prompt = prepared.prompt_for_titles(&args.history)?;
    let found = beam_search(&model, &objective, &[&prompt], beam)?;
    let best = found.iter().flatten().take(args.top);
    let (mut rows, mut items) = (vec![["rank", "title", "item", "score"].map(str::to_owned).to_vec()], Vec::new());
    for (rank, hypothesis) in best.enumerate() {
        let title = prepared.catalog.title(hypothesis.items[0] as usize);
        let ids: Vec<&str> =
            hypothesis.items.iter().map(|&item| prepared.catalog.items()[item as usize].id.as_str()).collect();
        rows.push(vec![(rank + 1).to_string(), title.to_owned(), ids.join(" "), format!("{:.4}", hypothesis.score)]);
        items.push(json!({ "rank": rank + 1, "title": title, "items": ids, "score": hypothesis.score }));
    }
    let result = json!({ "history": args.history, "objective": objective.kind(), "recommendations": items });
    write_json(args.json.as_deref(), &result)?;
    if is_quiet() { Ok(()) } else { print(&table(&rows)) }
}
