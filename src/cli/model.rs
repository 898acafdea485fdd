//! What the user of a model should know of it.

use super::CliError;
use super::terminal::note;
use crate::models::{Driver, ObjectiveKind, device, driver};

/// Says so where a model is read by another objective than it was trained for.
pub(super) fn note_other_objective(trained: ObjectiveKind, read: ObjectiveKind) {
    if trained != read {
        note(&format!("note: the model was trained for the objective `{trained}`, but is scored with `{read}`"));
    }
}

/// Says so where a driver only computes on the CPU: it is slow, and some of them compute wrong numbers without an
/// error.
pub(super) fn warn_of_software(name: &str) -> Result<(), CliError> {
    if let Some(Driver { name: driver, is_software: true }) = driver(&device(name)?) {
        note(&format!(
            "warning: `{name}` is a software driver on this machine ({driver}), slower than `flex`; \
             `latentr3 devices --check {name}` verifies its results"
        ));
    }
    Ok(())
}
