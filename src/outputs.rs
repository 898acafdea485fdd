//! Files that will be written after long work: that they can be written, and what they must not replace.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use crate::input_error::InputError;
use crate::models::files;
use crate::models::hub;
use crate::recommend::UserAnswer;
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

/// Why a file must not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It would replace something else, or there is no place for it.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: std::io::Error,
    },
}

/// Makes sure that a result can be written as JSON, and replaces at most another JSON file.
///
/// # Errors
///
/// As [`check_writable`]; also a part of a model, of data or of a run.
pub fn check_result(path: &Path) -> Result<(), OutputError> {
    let is_json = |file: File| serde_json::from_reader::<_, IgnoredAny>(BufReader::new(file)).is_ok();
    check_writable(path, &is_json)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if path.exists() && (PARTS.contains(&&*name) || name.ends_with(".index.json")) {
        return Err(InputError::new(path, "is part of a model, of data or of a run; give another name").into());
    }
    Ok(())
}

/// Makes sure that recommendations to many users can be written as JSON lines, and replace nothing but such.
///
/// # Errors
///
/// As [`check_writable`].
pub fn check_recommendations(path: &Path) -> Result<(), OutputError> {
    let is_first_line =
        |line: std::io::Result<String>| line.is_ok_and(|line| serde_json::from_str::<UserAnswer>(&line).is_ok());
    check_writable(path, &|file| BufReader::new(file).lines().next().is_some_and(is_first_line))
}

/// Makes sure that a result does not replace one of those that it is made from.
///
/// # Errors
///
/// It would.
pub fn check_not_read<'a>(path: &Path, read: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), OutputError> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let written = real(path);
    match read.into_iter().find(|path| written.is_some() && real(path) == written) {
        Some(path) => Err(InputError::new(path, "is an input of this command; give another output").into()),
        None => Ok(()),
    }
}

/// Makes sure that a folder can be made at a path.
///
/// # Errors
///
/// Something is there already.
pub fn check_free(folder: &Path) -> Result<(), OutputError> {
    match files::is_occupied(folder) {
        true => Err(InputError::new(folder, "already exists; give another folder").into()),
        false => Ok(()),
    }
}

/// Makes sure that a file can be written at a path. One that is there already must be `of_its_kind`, or empty.
///
/// # Errors
///
/// Another kind of file, a folder, a folder that is not there, and one in which nothing can be written.
pub fn check_writable(path: &Path, of_its_kind: &dyn Fn(File) -> bool) -> Result<(), OutputError> {
    let refused = |source| OutputError::Io { path: path.to_owned(), source };
    let parent = files::parent(path);
    let can_write = || tempfile::tempfile_in(parent).map(drop).map_err(refused);
    let problem = match (parent.is_dir(), path.is_dir()) {
        (true, false) if files::is_pipe_or_device(path) => return Ok(()),
        (true, false) if path.metadata().is_ok_and(|found| found.len() > 0) => {
            match of_its_kind(File::open(path).map_err(refused)?) {
                true => return can_write(),
                false => "was not written by this command; refusing to overwrite it",
            }
        }
        (true, false) => return can_write(),
        (true, true) => "is a folder; give a file name",
        (false, _) => "cannot be written: no such folder",
    };
    Err(InputError::new(path, problem).into())
}
