use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::files::{check_fit, check_json, load_model, model_folder, write_json};
use super::report::{Progress, duration, print, table};
use super::{CliError, CommonArgs};
use crate::data::{Prepared, Split};
use crate::eval::{CUTOFFS, EvalConfig, Evaluation, Ranking, evaluate, popularity, sample};
use crate::models::decode::{BeamConfig, ItemTrie};

/// Options of `evaluate`.
#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// Hugging Face folder or run folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prepared data
    #[arg(long, value_name = "PREPARED")]
    data: PathBuf,
    /// Which rows; choose settings on valid, report test
    #[arg(long, value_enum)]
    split: SplitArg,
    /// Beams of the search, and length of the list
    #[arg(long, default_value_t = 10)]
    beams: usize,
    /// Rank by the sum of log-probabilities divided by the tokens to this power: 1 is the mean, 0 the sum
    #[arg(long, default_value_t = 1.0)]
    length_penalty: f64,
    /// Evaluate this many users, drawn at random by --seed
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Users searched at once; changes memory and speed, not results
    #[arg(long, value_name = "USERS", default_value_t = 16)]
    batch: usize,
    /// Write the figures and every user's rank as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitArg {
    Train,
    Valid,
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Valid => Self::Valid,
            SplitArg::Test => Self::Test,
        }
    }
}

pub(super) fn run(args: &EvaluateArgs) -> Result<(), CliError> {
    if !args.length_penalty.is_finite() {
        return Err(CliError::Usage(format!("--length-penalty {} is not a number", args.length_penalty)));
    }
    if args.beams == 0 || args.batch == 0 || args.limit == Some(0) {
        return Err(CliError::Usage("--beams, --batch and --limit must be at least 1".into()));
    }
    check_json(args.json.as_deref())?;
    let prepared = Prepared::load(&args.data)?;
    let model = load_model(&args.model, args.common.seed, &args.common.device)?;
    check_fit(&model, &model_folder(&args.model), &prepared)?;
    let trie = ItemTrie::new(&prepared.item_tokens)?;
    let rows = sample(prepared.rows.get(args.split.into()), args.limit, args.common.seed);
    let config =
        EvalConfig { beam: BeamConfig { beams: args.beams, length_penalty: args.length_penalty }, batch: args.batch };
    let mut progress = Progress::new("evaluate", args.common.quiet);
    let mut advance = |done: usize| progress.advance(done as u64, rows.len() as u64, 0, "users");
    let evaluation = evaluate(&model, &prepared, &trie, &rows, config, &mut advance)?;
    drop(progress);
    let popular = popularity(&prepared, &rows);
    let split = args.split.into();
    write_json(args.json.as_deref(), &result(split, &evaluation, &popular, prepared.fingerprint()))?;
    if args.common.quiet {
        return Ok(());
    }
    let rankings = [("model", &evaluation.by_item), ("by title", &evaluation.by_title), ("popularity", &popular)];
    let speed = evaluation.users as f64 / evaluation.seconds;
    let time = duration(evaluation.seconds);
    print(&format!("{}{} users in {time}, {speed:.1} users/s\n", figures(&rankings), evaluation.users))
}

fn result(split: Split, evaluation: &Evaluation, popular: &Ranking, fingerprint: String) -> Value {
    let mut result = json!({ "split": split.name(), "data_fingerprint": fingerprint, "popularity": popular });
    let map = result.as_object_mut().expect("it was made as an object");
    if let Value::Object(figures) = serde_json::to_value(evaluation).expect("figures can be written as JSON") {
        map.extend(figures);
    }
    result
}

/// HR and NDCG of several rankings as a table.
pub(super) fn figures(rankings: &[(&str, &Ranking)]) -> String {
    let head = |name: &str| CUTOFFS.iter().map(|k| format!("{name}@{k}")).collect::<Vec<_>>();
    let mut rows = vec![[vec![String::new()], head("HR"), head("NDCG")].concat()];
    for (name, ranking) in rankings {
        let cells = |values: &serde_json::Map<String, Value>| {
            let cell = |k: &usize| values[&k.to_string()].as_f64().map_or("-".into(), |value| format!("{value:.4}"));
            CUTOFFS.iter().map(cell).collect::<Vec<_>>()
        };
        rows.push([vec![name.to_string()], cells(&ranking.hr), cells(&ranking.ndcg)].concat());
    }
    table(&rows)
}
