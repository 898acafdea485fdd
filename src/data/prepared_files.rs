//! The files of a prepared folder as they are read: hashed, and checked line by line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::DataError;
use super::folder::{self, Dataset};
use super::prepared_row::PreparedRow;
use super::splits::Split;
use super::summary::Summary;
use super::windows::Window;
use crate::models::files::sha256;

pub(super) fn read_dataset(files: &mut Files) -> Result<Dataset, DataError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let (path, json) = files.read(folder::DATASET)?;
    let damaged = |problem: serde_json::Error| DataError::prepared(&path, None, problem);
    let Version { format } = serde_json::from_str(&json).map_err(damaged)?;
    if format != folder::FORMAT {
        let problem = format!("format {format}, but this program reads format {}", folder::FORMAT);
        return Err(DataError::prepared(&path, None, problem));
    }
    serde_json::from_str(&json).map_err(damaged)
}

/// The number of training rows of a prepared folder, of which nothing else is read.
///
/// # Errors
/// If the folder's description is missing or damaged, or was written by another version.
pub fn training_rows(dir: &Path) -> Result<usize, DataError> {
    Ok(read_dataset(&mut Files::of(dir))?.summary.splits.train.rows)
}

/// The files of a folder, hashed as they are read.
pub(super) struct Files {
    pub dir: PathBuf,
    /// SHA-256 of those that were read, by their names.
    pub sums: BTreeMap<String, String>,
}

impl Files {
    /// Those of a folder, of which none was read yet.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.into(), sums: BTreeMap::new() }
    }

    pub fn read(&mut self, name: &str) -> Result<(PathBuf, String), DataError> {
        let path = self.dir.join(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(DataError::MissingFile {
                    path,
                    needed_for: "every folder made by `latentr3 prepare` has it",
                });
            }
            Err(error) => return Err(DataError::io(&path, "read", error)),
        };
        self.sums.insert(name.into(), sha256(&bytes));
        match String::from_utf8(bytes) {
            Ok(text) => Ok((path, text)),
            Err(_) => Err(DataError::prepared(&path, None, "not UTF-8")),
        }
    }

    /// Reads and checks one value from each line.
    pub fn read_lines<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: usize,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<Vec<T>, DataError> {
        let (path, text) = self.read(name)?;
        let mut values = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let value = serde_json::from_str(line).map_err(|error| error.to_string());
            let value = value.and_then(|value| check(&value).map(|()| value));
            values.push(value.map_err(|problem| DataError::prepared(&path, Some(at + 1), problem))?);
        }
        if values.len() != expected {
            let problem = format!("{} lines, but {} records {expected}", values.len(), folder::DATASET);
            return Err(DataError::prepared(&path, None, problem));
        }
        Ok(values)
    }
}

/// What indices and tokens of a prepared folder must keep to.
pub(super) struct Bounds {
    pub items: usize,
    pub vocab_size: usize,
    pub end_token: u32,
}

impl Bounds {
    /// Those that a summary tells.
    pub fn of(summary: &Summary) -> Self {
        Self { items: summary.items, vocab_size: summary.vocab_size, end_token: summary.end_token.id }
    }

    pub fn tokens(&self, tokens: &[u32]) -> Result<(), String> {
        if tokens.is_empty() {
            return Err("no tokens".into());
        }
        match tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            Some(token) => Err(format!("token {token} is outside the vocabulary of {}", self.vocab_size)),
            None => Ok(()),
        }
    }

    pub fn target(&self, tokens: &[u32]) -> Result<(), String> {
        self.tokens(tokens)?;
        match tokens.iter().position(|&token| token == self.end_token) {
            Some(at) if at + 1 == tokens.len() => Ok(()),
            _ => Err(format!("the end token {} must be last and appear nowhere else", self.end_token)),
        }
    }

    fn items(&self, items: &[usize]) -> Result<(), String> {
        if items.is_empty() {
            return Err("no items".into());
        }
        match items.iter().find(|&&item| item >= self.items) {
            Some(item) => Err(format!("item {item} is outside the catalog of {}", self.items)),
            None => Ok(()),
        }
    }

    pub fn row(&self, row: &PreparedRow) -> Result<(), String> {
        self.items(&row.history)?;
        self.items(&[row.item])?;
        self.tokens(&row.prompt)
    }

    pub fn window(&self, window: &Window) -> Result<(), String> {
        if window.split == Split::Test {
            return Err("a window must be for training or validation".into());
        }
        self.items(&window.items)
    }
}
