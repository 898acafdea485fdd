use std::path::PathBuf;

use crate::data::DataError;
use crate::golden::GoldenError;
use crate::models::ModelError;
use crate::models::decode::TrieError;
use crate::report::ReportError;
use crate::train::TrainError;

/// The exit code of a program that the user stopped.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The catalog.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// A report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The user stopped a run, which is saved.
    #[error("stopped after step {step}, which is saved; go on with `latentr3 {stage} --resume {}`{also}", run.display())]
    Interrupted {
        /// The command that goes on.
        stage: &'static str,
        /// The run folder.
        run: PathBuf,
        /// What to say after the command.
        also: &'static str,
        /// Steps done.
        step: usize,
    },
    /// The user stopped an experiment or an evaluation.
    #[error("{0}")]
    Stopped(String),
    /// A golden folder cannot be checked.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// A step of an experiment failed.
    #[error("step `{step}` failed; what it said is in {}", log.display())]
    Step {
        /// Its name.
        step: String,
        /// What it printed.
        log: PathBuf,
    },
    /// Devices do not compute what they should.
    #[error("not usable: {0}")]
    Devices(String),
    /// What the user asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    /// A file of the user's is not what it should be.
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

impl CliError {
    /// 2 for bad input, 1 for a failure, 130 where the user stopped the program, as shells have it.
    pub fn exit_code(&self) -> u8 {
        if let Self::Interrupted { .. } | Self::Stopped(_) | Self::Data(DataError::Interrupted) = self {
            return INTERRUPTED;
        }
        let failed = match self {
            Self::Model(error) | Self::Report(ReportError::Model(error)) | Self::Golden(GoldenError::Model(error)) => {
                matches!(error, ModelError::NotFinite(_))
            }
            Self::Train(error) | Self::Report(ReportError::Train(error)) | Self::Golden(GoldenError::Train(error)) => {
                matches!(error, TrainError::NotFinite { .. } | TrainError::Model(ModelError::NotFinite(_)))
            }
            Self::Devices(_) | Self::Step { .. } => true,
            _ => false,
        };
        let failed = failed || self.refused_by_system().is_some_and(is_failure);
        if failed { 1 } else { 2 }
    }

    /// What the system said, if that is why.
    fn refused_by_system(&self) -> Option<&std::io::Error> {
        let mut cause: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref() {
                return Some(refusal);
            }
            cause = error.source();
        }
        None
    }
}

/// Whether the system refused something that is no matter of the input.
fn is_failure(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound};
    !matches!(error.kind(), NotFound | IsADirectory | NotADirectory | InvalidData)
}
