use std::path::{Path, PathBuf};

use latentr3_models::ModelError;

/// What can go wrong in a training run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model could not be read, written or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A value of the configuration is invalid.
    #[error("{field}: {problem}")]
    Config {
        /// The field, as the configuration names it.
        field: &'static str,
        /// What is wrong and what would be accepted.
        problem: String,
    },
    /// A run folder cannot be created or resumed.
    #[error("{}: {problem}", path.display())]
    Run {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The folder of a new run is already in use.
    #[error("{}: already exists", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The loss, a reward or a gradient is NaN or infinite.
    #[error("step {step}: the {what} is {value}{}; a smaller learning rate may help", named(rows))]
    NotFinite {
        /// The step, from 1; 0 before the first one.
        step: usize,
        /// Which metric.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Numbers of the rows that it came from, see [`Example::row`](crate::Example::row); the whole batch's where
        /// none stands out.
        rows: Vec<usize>,
    },
    /// The run was asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl TrainError {
    pub(crate) fn config(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Config { field, problem: problem.into() }
    }

    /// What the system refused at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::from(ModelError::Io { path, source })
    }

    pub(crate) fn run(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Run { path: path.into(), problem: problem.into() }
    }
}

/// Rows in a message, the first 20 of them.
fn named(rows: &[usize]) -> String {
    let first: Vec<String> = rows.iter().take(20).map(|row| (row + 1).to_string()).collect();
    match rows.len() {
        0 => String::new(),
        1 => format!(" (row {} of the training data)", first[0]),
        count if count <= 20 => format!(" (rows {} of the training data)", first.join(", ")),
        count => format!(" ({count} rows of the training data: {}, ..)", first.join(", ")),
    }
}
