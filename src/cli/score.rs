use std::path::{Path, PathBuf};

use burn::module::Module;
use clap::Args;
use serde_json::json;

use super::model::{load_model, objective_of};
use super::terminal::print_to_reader;
use super::{CliError, DeviceArg, ObjectiveArg};
use crate::data::TokenFile;
use crate::input_error::InputError;
use crate::models::decode::ItemTrie;
use crate::models::{LatentRecommender, ModelError, Objective, ObjectiveKind, host};

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
    /// Token file whose first line has the catalog, for the objective `catalog` where the first line of --tokens has none
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
    let file = TokenFile::read(&args.tokens)?;
    let model = load_model(&args.model, &args.device.device)?.valid();
    let objective =
        file_objective(&file, args.catalog.as_deref(), objective_of(&model, args.objective.objective), &model)?;
    file.check(&model, &objective)?;
    for rows in file.rows.chunks(args.micro_batch) {
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
        let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
        let mut state = model.prefill(&prompts)?;
        let thought = model.think(&mut state)?;
        let log_probs = model.target_log_probs(&state, thought, &targets, &objective)?;
        let values = host::read(log_probs.values);
        let mut rest = values.as_slice();
        for (target, length) in targets.into_iter().zip(log_probs.lengths) {
            let (predicted, others) = rest.split_at(length);
            rest = others;
            let mut row = vec![0.0; target.len()];
            for (place, &value) in objective.predicted(target)?.into_iter().zip(predicted) {
                row[place] = value;
            }
            let sum: f64 = row.iter().map(|&value| f64::from(value)).sum();
            if !sum.is_finite() {
                return Err(ModelError::NotFinite("log-probabilities").into());
            }
            let line = json!({ "log_probs": row, "sum": sum, "mean": sum / length as f64 });
            if !print_to_reader(&format!("{line}\n"))? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// An objective over the catalog in a file's first line, which is that of `catalog` where that is given; `vocabulary` needs none.
pub(super) fn file_objective(
    file: &TokenFile,
    catalog: Option<&Path>,
    kind: ObjectiveKind,
    model: &LatentRecommender,
) -> Result<Objective, CliError> {
    let other = catalog.map(TokenFile::read_catalog).transpose()?;
    let path = catalog.unwrap_or(&file.path);
    let problem = |problem: String| InputError::new(path, problem).at_line(1);
    let objective = match other.as_ref().or(file.catalog.as_ref()) {
        Some(items) => {
            let tree = ItemTrie::new(items).map_err(|error| problem(error.to_string()))?;
            Objective::new(kind, tree)
        }
        None if kind == ObjectiveKind::Vocabulary => Objective::vocabulary(),
        None => return Err(TokenFile::no_catalog(path).into()),
    };
    objective.check_vocabulary(&model.backbone).map_err(|error| problem(error.to_string()))?;
    Ok(objective)
}
