//! Where commands write, and what they must not write over.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::IgnoredAny;

use super::CliError;
use crate::models::ModelError;
use crate::models::hub;
use crate::run::TOKENIZER_FILE;

/// Names of JSON files that models, data and runs consist of.
const PARTS: [&str; 7] = [
    "config.json",
    hub::ADAPTER_CONFIG_FILE,
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "dataset.json",
    "run.json",
    "progress.json",
];

/// Makes sure before any work that a result can be written where `--json` asks for it, and replaces nothing but another result.
pub(super) fn check_json(path: Option<&Path>) -> Result<(), CliError> {
    let Some(path) = path else { return Ok(()) };
    let is_json = |file: File| serde_json::from_reader::<_, IgnoredAny>(BufReader::new(file)).is_ok();
    check_writable(path, &is_json)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if path.exists() && (PARTS.contains(&&*name) || name.ends_with(".index.json")) {
        let problem = "exists and is no result but a part of something; give another name";
        return Err(CliError::input(path, problem));
    }
    Ok(())
}

/// Makes sure that a result does not replace one of those that it is made from.
pub(super) fn check_not_read<'a>(
    json: Option<&Path>,
    read: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), CliError> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let json = json.and_then(real);
    match read.into_iter().find(|path| json.is_some() && real(path) == json) {
        Some(path) => {
            let problem = "is read here and cannot be what --json writes";
            Err(CliError::input(path, problem))
        }
        None => Ok(()),
    }
}

/// Makes sure before any work that a file can be written at a path. One that is there already must be `of_its_kind`, or empty.
pub(super) fn check_writable(path: &Path, of_its_kind: &dyn Fn(File) -> bool) -> Result<(), CliError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let can_write = || Ok(tempfile::tempfile_in(parent).map(drop).map_err(ModelError::io(path))?);
    let problem = match (parent.is_dir(), path.is_dir()) {
        (true, false) if hub::is_pipe_or_device(path) => return Ok(()),
        (true, false) if path.metadata().is_ok_and(|found| found.len() > 0) => {
            match of_its_kind(File::open(path).map_err(ModelError::io(path))?) {
                true => return can_write(),
                false => "was not written by this command; refusing to overwrite it",
            }
        }
        (true, false) => return can_write(),
        (true, true) => "is a folder; give the name of a file",
        (false, _) => "cannot be written: there is no such folder",
    };
    Err(CliError::input(path, problem))
}

/// The error for a folder that is to be made and exists already.
pub(super) fn check_free(folder: &Path) -> Result<(), CliError> {
    if hub::is_occupied(folder) {
        let problem = "exists already; give another --out";
        return Err(CliError::input(folder, problem));
    }
    Ok(())
}

/// Writes a command's result where `--json` asks for it.
pub(super) fn write_json(path: Option<&Path>, value: &impl Serialize) -> Result<(), CliError> {
    Ok(path.map_or(Ok(()), |path| hub::write_json(path, value))?)
}
