//! What a run folder knows of its evaluations.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::CliError;
use super::files::is_run;
use super::outputs::write_json;
use super::terminal::note;
use crate::eval::{EvaluationResult, Shard};
use crate::models::ModelError;
use crate::report::{EVALUATIONS_LOG, times_evaluated};
use crate::train::RunPaths;

/// The result of a run's last evaluation on a whole split by plain beam search.
pub(super) fn result_file(run: &Path, split: &str) -> PathBuf {
    RunPaths(run).evaluations().join(format!("{split}.json"))
}

/// The log of a run's evaluations, ready to be written.
pub(super) struct EvaluationLog {
    run: PathBuf,
    file: File,
    path: PathBuf,
}

impl EvaluationLog {
    /// Opens the log of a run before anything is computed; a folder that is no run's has none. Says so where it cannot be written, for a model
    /// may be evaluated all the same.
    pub fn open(run: &Path) -> Option<Self> {
        if !is_run(run) {
            return None;
        }
        let folder = RunPaths(run).evaluations();
        let path = folder.join(EVALUATIONS_LOG);
        let open = || {
            fs::create_dir_all(&folder)?;
            OpenOptions::new().create(true).read(true).append(true).open(&path)
        };
        match open() {
            Ok(file) => Some(Self { run: run.to_owned(), file, path }),
            Err(error) => {
                note(&format!("note: {}: {error}; the run will have no record of this evaluation", path.display()));
                None
            }
        }
    }

    /// Records an evaluation of the run, or a part of one: a line in the log, and the result itself where it is of the whole split and
    /// `is_plain`, which is the model as it was trained under plain beam search in float32. Says so where the test split was read before.
    pub fn record(self, result: &EvaluationResult, is_plain: bool) -> Result<(), CliError> {
        let Self { run, file, path } = self;
        let before = times_evaluated(&path)?.get(&result.split).copied().unwrap_or(0);
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
        let append = |mut file: File| {
            let line = format!("{}{line}\n", if is_torn(&mut file)? { "\n" } else { "" });
            file.write_all(line.as_bytes()).and_then(|()| file.sync_data())
        };
        append(file).map_err(ModelError::io(&path))?;
        match is_plain && result.limit.is_none() && result.shard == Shard::WHOLE {
            true => write_json(Some(&result_file(&run, &result.split)), result),
            false => Ok(()),
        }
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
