//! What a result comes from, so that it is not taken for that of another step.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::plan::Step;
use crate::models::ModelError;
use crate::models::files::{file_sha256, sha256};

/// What a step's result comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// See [`Step::recipe`].
    pub recipe: String,
    /// Checksums of what the user gave for it and for the steps before it, by the inputs' names.
    pub inputs: BTreeMap<String, String>,
}

impl Origin {
    /// That of a result that `step` makes now from inputs with these checksums.
    pub fn of(step: &Step, inputs: &BTreeMap<String, String>) -> Self {
        let is_used = |(name, _): &(&String, &String)| step.inputs.contains(*name);
        let inputs = inputs.iter().filter(is_used).map(|(name, sum)| (name.clone(), sum.clone())).collect();
        Self { recipe: step.recipe.clone(), inputs }
    }

    /// Whether a result from here is what `step` would make. An input that is not given now is taken to be the same.
    pub fn is_of(&self, step: &Step, inputs: &BTreeMap<String, String>) -> bool {
        self.recipe == step.recipe
            && self.inputs.iter().all(|(name, sum)| inputs.get(name).is_none_or(|given| given == sum))
    }
}

/// SHA-256 of a file, or of the names and checksums of all files in a folder.
///
/// # Errors
///
/// What cannot be read.
pub fn checksum(path: &Path) -> Result<String, ModelError> {
    if !path.is_dir() {
        return file_sha256(path);
    }
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let io = |source| ModelError::Io { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            // A link to a folder is not followed: it might lead back here.
            match entry.file_type().map_err(io)?.is_dir() {
                true => folders.push(entry.path()),
                false if entry.path().is_file() => files.push(entry.path()),
                false => {}
            }
        }
    }
    files.sort();
    let mut text = String::new();
    for file in files {
        let name = file.strip_prefix(path).unwrap_or(&file).display();
        text += &format!("{}  {name}\n", file_sha256(&file)?);
    }
    Ok(sha256(text.as_bytes()))
}
