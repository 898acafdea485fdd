use std::path::{Path, PathBuf};

use crate::Precision;

/// What can go wrong in reading, writing or running a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system reported.
        source: std::io::Error,
    },
    /// A checkpoint's `config.json` asks for something that is not computed exactly here, or is malformed.
    #[error("{}: field `{field}`: {problem}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// Name of the field in the file.
        field: String,
        /// What is wrong and what would be accepted.
        problem: String,
    },
    /// A file of a model's folder is truncated, malformed, does not match its checksum, or does not fit the others.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file or the model folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A device was asked for that is not compiled in or does not exist.
    #[error("device `{name}`: {problem}")]
    Device {
        /// The device as the user wrote it.
        name: String,
        /// What is wrong and which feature or name helps.
        problem: String,
    },
    /// The device does not support the precision that was asked for.
    #[error("precision `{asked}`: not supported by this device, which supports {}", listed(possible))]
    Precision {
        /// The precision.
        asked: Precision,
        /// Those that the device supports.
        possible: Vec<Precision>,
    },
    /// An input that the model cannot take: an empty prompt, a token outside the vocabulary.
    #[error("{0}")]
    Input(String),
    /// What the model computed for an input is NaN or infinite.
    #[error("the model's {0} contain NaN or infinite values; its weights may be damaged, or too large for 16 bits")]
    NotFinite(&'static str),
}

impl ModelError {
    /// What the system refused at `path`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// What is wrong with a field of a configuration at `path`.
    pub(crate) fn config(path: &Path, field: &str, problem: impl Into<String>) -> Self {
        Self::Config { path: path.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }
}

fn listed(precisions: &[Precision]) -> String {
    precisions.iter().map(Precision::to_string).collect::<Vec<_>>().join(" and ")
}
