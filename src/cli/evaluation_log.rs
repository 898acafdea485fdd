//! What a run folder knows of its evaluations.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::CliError;
use super::files::write_json;
use super::terminal::note;
use crate::eval::{EvaluationResult, Shard};
use crate::models::ModelError;

const FOLDER: &str = "evaluations";
const LOG: &str = "log.jsonl";

/// The result of a run's last evaluation on a whole split by plain beam search.
pub(super) fn result_file(run: &Path, split: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{split}.json"))
}

/// Records an evaluation of a run, or a part of one: a line in the log, and the result itself where it is of the whole split and
/// `is_plain`, which is the model as it was trained under plain beam search in float32. Says so where the test split was read before.
pub(super) fn record(run: &Path, result: &EvaluationResult, is_plain: bool) -> Result<(), CliError> {
    let folder = run.join(FOLDER);
    fs::create_dir_all(&folder).map_err(ModelError::io(&folder))?;
    let path = folder.join(LOG);
    let log = read_log(&path)?;
    let before = times_read(&log, &result.split);
    if result.split == "test" && before > 0 {
        note(&format!("note: readings of the test split for this run before: {before}; choose settings on valid"));
    }
    let evaluation = &result.evaluation;
    let line = json!({
        "time": jiff::Timestamp::now().to_string(),
        "split": result.split,
        "limit": result.limit,
        "seed": result.seed,
        "users": evaluation.users,
        "shard": result.shard,
        "precision": result.precision,
        "thoughts": result.thoughts,
        "method": evaluation.method,
        "hr": evaluation.by_item.hr,
        "ndcg": evaluation.by_item.ndcg,
        "model_files": result.model_files,
        "data_fingerprint": result.data_fingerprint,
    });
    // A line that was cut off is ended, so that this one is not part of it.
    let is_torn = !log.is_empty() && !log.ends_with('\n');
    let line = format!("{}{line}\n", if is_torn { "\n" } else { "" });
    let append = |mut file: File| file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
    OpenOptions::new().create(true).append(true).open(&path).and_then(append).map_err(ModelError::io(&path))?;
    match is_plain && result.limit.is_none() && result.shard == Shard::WHOLE {
        true => write_json(Some(&result_file(run, &result.split)), result),
        false => Ok(()),
    }
}

/// The log's text; none where there is no log yet.
fn read_log(path: &Path) -> Result<String, CliError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => Ok(read.map_err(ModelError::io(path))?),
    }
}

/// How often the log has a split; parts of one evaluation count each.
fn times_read(log: &str, split: &str) -> usize {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["split"] == split).count()
}
