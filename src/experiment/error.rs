use std::path::PathBuf;

use crate::input_error::InputError;
use crate::models::ModelError;
use crate::run::RunError;

/// Why an experiment's file is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub(super) String);

/// Why an experiment is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A run that a step made.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file or folder that is not what it should be.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Inputs are missing: their names, and what they are.
    #[error("inputs are missing: {}", .0.iter().map(|(name, what)| format!("{name} ({what})")).collect::<Vec<_>>().join(", "))]
    Inputs(Vec<(String, String)>),
    /// An input is given twice.
    #[error("input `{0}` is given twice")]
    InputTwice(String),
    /// An input that the experiment does not have.
    #[error("the experiment has no input named {name}; it has: {}", known.join(", "))]
    UnknownInput {
        /// What it is called.
        name: String,
        /// The names of those that there are.
        known: Vec<String>,
    },
    /// No step to be kept has one of these parts in its name.
    #[error("no kept step has {} in its name", .0.join(" or "))]
    NoSuchStep(Vec<String>),
    /// A step failed.
    #[error("step `{step}` failed; its output is in {}", log.display())]
    Step {
        /// Its name.
        step: String,
        /// What it printed.
        log: PathBuf,
    },
    /// The user stopped it.
    #[error("stopped in step `{step}`; rerun the command to resume")]
    Stopped {
        /// The step that was not done.
        step: String,
    },
}
