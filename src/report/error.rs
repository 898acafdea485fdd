use std::path::{Path, PathBuf};

use crate::data::DataError;
use crate::models::ModelError;
use crate::models::decode::TrieError;
use crate::train::TrainError;

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The data of the examples.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model of the examples.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The catalog of the examples.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// A run folder.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A file of a run or an evaluation is not what it should be.
    #[error("{}{}: {problem}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Input {
        /// The file.
        path: PathBuf,
        /// Its line, from 1, where there is one.
        line: Option<usize>,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl ReportError {
    pub(super) fn input(path: &Path, line: Option<usize>, problem: impl Into<String>) -> Self {
        Self::Input { path: path.to_owned(), line, problem: problem.into() }
    }
}
