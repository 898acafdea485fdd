//! What a run folder says of its run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::standing::Standing;
use crate::input_error::InputError;
use crate::models::files::recorded_checksums;
use crate::run::RunError;
use crate::run::{Log, times_evaluated};
use crate::train::{RunFolder, RunPaths, holds_weights};

/// A run as its folder tells of it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The folder.
    pub path: PathBuf,
    /// Content of `run.json`.
    pub description: Value,
    /// Where the run stands; absent before its first checkpoint.
    pub standing: Option<Standing>,
    /// Its log.
    pub log: Log,
    /// How often its best model was evaluated on each split.
    pub evaluated: BTreeMap<String, usize>,
}

impl Run {
    /// Reads a run folder.
    ///
    /// # Errors
    ///
    /// It is no run folder, or one of its files is damaged.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        let description = RunFolder::description(path)?;
        if stage(&description).is_none() {
            let problem = "is damaged: it names no stage";
            return Err(InputError::new(RunPaths(path).description(), problem).into());
        }
        let standing = Standing::read(path)?;
        let log = Log::read(&RunPaths(path).metrics())?;
        let evaluated = times_evaluated(path)?;
        Ok(Self { path: path.to_owned(), description, standing, log, evaluated })
    }

    /// The stage, as the program's commands are called.
    pub fn stage(&self) -> &str {
        stage(&self.description).unwrap_or_default()
    }

    /// The folder of the prepared data, as the run knew it.
    pub fn data(&self) -> Option<PathBuf> {
        self.description["data"].as_str().map(PathBuf::from)
    }

    /// SHA-256 of the data's files that the run trained on, by their names.
    pub fn data_files(&self) -> BTreeMap<String, String> {
        strings(&self.description["data_files"])
    }

    /// What was asked of the run: the scalars of `run.json` by their paths, as `train.learning_rate`, in its order.
    /// Checksums are left out.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        flatten("", &self.description, &mut settings);
        settings.retain(|(name, _)| !["model_files.", "data_files."].iter().any(|files| name.starts_with(files)));
        settings
    }

    /// SHA-256 of the best model's files of weights, by their names; nothing where there is none or its files are not
    /// known.
    pub fn best_weights(&self) -> BTreeMap<String, String> {
        let recorded = recorded_checksums(&RunPaths(&self.path).best()).ok().flatten().unwrap_or_default();
        recorded.into_iter().filter(|(name, _)| holds_weights(name)).collect()
    }

    /// Whether an evaluation's model, SHA-256 of its files of weights by their names, is the run's best.
    pub fn is_best(&self, model_files: &BTreeMap<String, String>) -> bool {
        let best = self.best_weights();
        !best.is_empty() && best.iter().all(|(name, sum)| model_files.get(name) == Some(sum))
    }
}

/// The stage by name, alone or with its options.
fn stage(description: &Value) -> Option<&str> {
    let stage = &description["stage"];
    stage["name"].as_str().or(stage.as_str())
}

/// A folder's or file's own name.
pub(super) fn name_of(path: &Path) -> String {
    let named = path.file_name().map(|name| name.to_string_lossy().into_owned());
    // `.` has none.
    named
        .or_else(|| std::path::absolute(path).ok()?.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| path.display().to_string())
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(name, sum)| Some((name.clone(), sum.as_str()?.to_owned()))).collect()
}

fn flatten(name: &str, value: &Value, settings: &mut Vec<(String, String)>) {
    let text = match value {
        Value::Object(fields) => {
            let dot = if name.is_empty() { "" } else { "." };
            return fields.iter().for_each(|(field, value)| flatten(&format!("{name}{dot}{field}"), value, settings));
        }
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        Value::Bool(is_on) => (if *is_on { "yes" } else { "no" }).into(),
        // As many digits as one looks at; the file has all of them.
        Value::Number(number) if number.is_f64() && number.to_string().len() > 9 => {
            format!("{:.3e}", number.as_f64().unwrap_or(f64::NAN))
        }
        other => other.to_string(),
    };
    settings.push((name.to_owned(), text));
}
