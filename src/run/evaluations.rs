//! What a run folder knows of its evaluations.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::RunError;
use super::model_folder::is_run;
use crate::eval::{EvaluationResult, Shard};
use crate::experiment::Kept;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::models::files::write_json;
use crate::train::RunPaths;

/// The file in a run's folder of evaluations that has a line for each.
const LOG: &str = "log.jsonl";

/// The result of a run's last evaluation on a whole split by plain beam search.
pub fn result_file(run: &Path, split: &str) -> PathBuf {
    RunPaths(run).evaluations().join(format!("{split}.json"))
}

/// The log of a run's evaluations, ready to be written.
pub struct EvaluationLog {
    run: PathBuf,
    file: File,
    path: PathBuf,
}

impl EvaluationLog {
    /// Opens the log of a run before anything is computed; a folder that is no run's has none.
    ///
    /// # Errors
    ///
    /// The log cannot be written. The run's model may be evaluated all the same.
    pub fn open(run: &Path) -> Result<Option<Self>, InputError> {
        if !is_run(run) {
            return Ok(None);
        }
        let folder = RunPaths(run).evaluations();
        let path = folder.join(LOG);
        let open = || {
            fs::create_dir_all(&folder)?;
            OpenOptions::new().create(true).read(true).append(true).open(&path)
        };
        let file = open().map_err(|error| InputError::new(&path, error.to_string()))?;
        Ok(Some(Self { run: run.to_owned(), file, path }))
    }

    /// Records an evaluation of the run, or a part of one: a line in the log, and the result itself where it is of the
    /// whole split and `is_plain`, which is the model as it was trained under plain beam search in float32. Returns how
    /// often the run was evaluated on this split before.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written.
    pub fn record(self, result: &EvaluationResult, is_plain: bool) -> Result<usize, RunError> {
        let Self { run, file, path } = self;
        let before = times_evaluated(&run)?.get(&result.split).copied().unwrap_or(0);
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
        let append = |mut file: File| {
            let line = format!("{}{line}\n", if is_torn(&mut file)? { "\n" } else { "" });
            file.write_all(line.as_bytes()).and_then(|()| file.sync_data())
        };
        append(file).map_err(ModelError::io(&path))?;
        if is_plain && result.limit.is_none() && result.shard == Shard::WHOLE {
            write_json(&result_file(&run, &result.split), result)?;
        }
        Ok(before)
    }
}

/// Whether a file ends in the middle of a line.
fn is_torn(file: &mut File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// How often a run was evaluated on each split, by its log of evaluations, which may not be there; parts of one
/// evaluation count each. A line that is no record, such as one that was cut off, counts for nothing.
///
/// # Errors
///
/// The log cannot be read.
pub fn times_evaluated(run: &Path) -> Result<BTreeMap<String, usize>, InputError> {
    let log = RunPaths(run).evaluations().join(LOG);
    let bytes = match fs::read(&log) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(InputError::new(log, error.to_string())),
    };
    let mut times = BTreeMap::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Ok(line) = serde_json::from_slice::<Value>(line)
            && let Some(split) = line["split"].as_str()
        {
            *times.entry(split.to_owned()).or_default() += 1;
        }
    }
    Ok(times)
}

/// Reads an evaluation as `latentr3 evaluate --json` wrote it, or as an experiment has kept it.
///
/// # Errors
///
/// The file cannot be read, or is neither; the message names its line. A rank that is none.
pub fn read_result(path: &Path) -> Result<EvaluationResult, RunError> {
    let bytes = std::fs::read(path).map_err(|error| InputError::new(path, error.to_string()))?;
    let problem = |error: serde_json::Error| {
        let line = (error.line() > 0).then(|| error.line());
        InputError { line, ..InputError::new(path, format!("is not an evaluation result: {error}")) }
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(problem)?;
    let result: EvaluationResult = match value.get("command") {
        Some(_) => Kept::evaluation(path)?,
        None => serde_json::from_slice(&bytes).map_err(problem)?,
    };
    if let Some(problem) = result.evaluation.contradiction() {
        return Err(InputError::new(path, format!("is inconsistent: {problem}")).into());
    }
    match result.evaluation.ranks.iter().find_map(|user| Some((user, user.wrong_rank()?))) {
        None => Ok(result),
        Some((user, rank)) => {
            let problem = format!("{rank} is not a rank; ranks start at 1 (user `{}`, row {})", user.user, user.row);
            Err(InputError::new(path, problem).into())
        }
    }
}
