use std::path::PathBuf;

use burn::module::Module;
use clap::Args;
use serde_json::json;

use super::files::load_model;
use super::terminal::print_to_reader;
use super::{CliError, CommonArgs};
use crate::data::TokenFile;
use crate::models::{ModelError, host};

/// Options of `score`.
#[derive(Debug, Args)]
#[command(
    after_help = r#"The file has a JSON object a line, {"prompt": [ids], "target": [ids]}; a line of the output is {"log_probs": [..], "sum": .., "mean": ..}."#
)]
pub(super) struct ScoreArgs {
    /// Hugging Face folder or run folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Token file
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Rows that run through the model at once
    #[arg(long, value_name = "ROWS", default_value_t = 16)]
    micro_batch: usize,
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) fn run(args: &ScoreArgs) -> Result<(), CliError> {
    if args.micro_batch == 0 {
        return Err(CliError::Usage("--micro-batch must be at least 1".into()));
    }
    let file = TokenFile::read(&args.tokens)?;
    let model = load_model(&args.model, &args.common.device)?.valid();
    file.check(&model)?;
    for rows in file.rows.chunks(args.micro_batch) {
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
        let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
        let mut state = model.prefill(&prompts)?;
        let thought = model.think(&mut state);
        let log_probs = model.target_log_probs(&state, thought, &targets)?;
        let values = host::read(log_probs.values);
        let mut rest = values.as_slice();
        for length in log_probs.lengths {
            let (row, others) = rest.split_at(length);
            rest = others;
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
