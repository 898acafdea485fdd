//! What a run recorded, against what it is to resume with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::RunError;
use crate::data::Prepared;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::train::{Found, RunPaths};

/// A run's description as `run.json` holds it.
pub(super) fn to_json(description: &impl Serialize) -> Result<Value, RunError> {
    // All but a path can be written as JSON.
    let refused = |_| ModelError::Input("a run records its paths as text, but one of them is not UTF-8".into());
    Ok(serde_json::to_value(description).map_err(refused)?)
}

/// A run's description from what its `run.json` holds.
pub(super) fn from_json<D: DeserializeOwned>(run: &Path, recorded: Value) -> Result<D, RunError> {
    serde_json::from_value(recorded).map_err(|error| {
        InputError::new(RunPaths(run).description(), format!("is damaged or was written by another version: {error}"))
            .into()
    })
}

/// The names that two lists of checksums do not agree on.
pub(super) fn differences(recorded: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Option<String> {
    let names = recorded.keys().chain(now.keys()).collect::<BTreeSet<_>>();
    let different: Vec<&str> =
        names.into_iter().filter(|name| recorded.get(*name) != now.get(*name)).map(String::as_str).collect();
    (!different.is_empty()).then(|| different.join(", "))
}

/// Makes sure that the data is still what the run was made with; `data` is its folder now.
pub(super) fn check_data(
    run: &Path,
    recorded: &BTreeMap<String, String>,
    data: &Path,
    prepared: &Prepared,
) -> Result<(), RunError> {
    match differences(recorded, prepared.files()) {
        Some(differ) => Err(RunError::OtherData { run: run.to_owned(), data: data.to_owned(), differ }),
        None => Ok(()),
    }
}

/// Which checkpoints of a run are damaged, and from where it resumes instead; nothing where all are whole.
pub(super) fn damage<M>(found: &Found<M>) -> Vec<String> {
    let mut damage: Vec<String> = found.damaged.iter().map(ToString::to_string).collect();
    if !damage.is_empty() {
        let step = found.trained.progress.step;
        damage.push(format!("resuming from {}, step {step}, instead", found.folder.display()));
    }
    damage
}
