//! Settings of a run from a file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::description::RunDescription;
use super::error::RunError;
use super::recorded::to_json;
use super::settings::SETTINGS;
use crate::input_error::InputError;

/// What a run finds out itself when it starts.
const FOUND_OUT: [&str; 3] = ["latentr3", "model_files", "data_files"];

impl RunDescription {
    /// These settings with those of a file in their place, but for what `is_given` says was asked for besides.
    ///
    /// The file is TOML, or JSON if it is called so. It has settings by the names of options (`lr = 1e-3`), or where
    /// they stand in a run's `run.json`, which is such a file itself.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or parsed, or names what no run of this stage has.
    pub fn with_file(self, path: &Path, is_given: &dyn Fn(&str) -> bool) -> Result<Self, RunError> {
        let unusable = |problem: String| RunError::from(InputError::new(path, problem));
        let own = to_json(&self)?;
        let mut merged = own.clone();
        for (name, value) in read(path)? {
            let option = name.replace('-', "_");
            let place = SETTINGS.iter().find(|(setting, _)| *setting == option).map(|(_, pointer)| *pointer);
            match place.filter(|_| !value.is_object()) {
                Some(_) if option == "rollouts" => {
                    return Err(unusable("rollouts: give `batch`, prompts a step".into()));
                }
                Some(pointer) => put(&mut merged, pointer, value),
                None if FOUND_OUT.contains(&name.as_str()) => {}
                None => merge(&mut merged, Map::from_iter([(name, value)])),
            }
        }
        let places = [
            ("model", "/model"),
            ("data", "/data"),
            ("device", "/device"),
            ("micro_batch", "/train/micro_batch"),
            ("gradient_checkpointing", "/train/gradient_checkpointing"),
            ("max_steps", "/train/max_steps"),
        ];
        for (_, pointer) in SETTINGS.into_iter().chain(places).filter(|(setting, _)| is_given(setting)) {
            put(&mut merged, pointer, own.pointer(pointer).cloned().unwrap_or_default());
        }
        if let Some(stage) = merged.get_mut("stage").and_then(Value::as_object_mut) {
            stage.remove("held_out");
        }
        let stage = merged.pointer("/stage/name").and_then(Value::as_str);
        if stage != Some(self.stage.name()) {
            let problem = format!("is of the stage {}, not {}", stage.unwrap_or("?"), self.stage.name());
            return Err(unusable(problem));
        }
        let description: Self = serde_json::from_value(merged).map_err(|error| unusable(error.to_string()))?;
        description.train.check()?;
        Ok(description)
    }
}

/// The model and the data that a file of settings names; nothing where it cannot be read, which whoever takes its
/// settings will say.
pub fn model_and_data(path: &Path) -> Option<(Option<PathBuf>, Option<PathBuf>)> {
    let content = read(path).ok()?;
    let of = |name: &str| content.get(name).and_then(Value::as_str).map(PathBuf::from);
    Some((of("model"), of("data")))
}

fn read(path: &Path) -> Result<Map<String, Value>, RunError> {
    let unusable = |problem: String| InputError::new(path, problem);
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let content = match is_json {
        true => serde_json::from_str(&text).map_err(|error| error.to_string()),
        false => toml::from_str(&text).map_err(|error| error.to_string()),
    };
    Ok(content.map_err(unusable)?)
}

/// Puts a value in its place, with the objects around it.
fn put(into: &mut Value, pointer: &str, value: Value) {
    let mut place = into;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = value;
}

/// Puts values in their places; of objects each value has its own.
fn merge(into: &mut Value, values: Map<String, Value>) {
    for (name, value) in values {
        match (into.get_mut(&name), value) {
            (Some(Value::Object(inner)), Value::Object(values)) => {
                let mut inner = Value::Object(std::mem::take(inner));
                merge(&mut inner, values);
                into[&name] = inner;
            }
            (_, value) => into[&name] = value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ThoughtKind;
    use crate::run::{Augmentation, StageConfig};
    use crate::train::{Regularization, Temperature, TrainConfig};

    fn sft() -> RunDescription {
        let stage = StageConfig::Sft {
            thoughts: 1,
            source: ThoughtKind::LatentAttention,
            temperature: Temperature::default(),
            lora: None,
            regularization: Regularization::default(),
            augmentation: Augmentation::default(),
            hold_out: None,
        };
        RunDescription::new(stage, Path::new("model"), Path::new("data"), "flex", TrainConfig::default())
    }

    fn with(name: &str, text: &str, given: &[&str]) -> Result<RunDescription, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        sft().with_file(&path, &|option| given.contains(&option)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_and_places_are_settings_and_the_command_line_counts_most() {
        let text = "model = 'other'\nlr = 0.5\nbatch = 7\nthoughts = 2\nkeep-every = 5\nkeep_limit = 2\n\
                    [train]\nclip_norm = 0.25\n[train.optimizer]\nweight_decay = 0.5\n";
        let found = with("sft.toml", text, &["batch"]).unwrap();
        assert_eq!((found.model.to_str(), found.data.to_str()), (Some("other"), Some("data")));
        let train = &found.train;
        assert_eq!((train.learning_rate, train.batch, train.clip_norm), (0.5, TrainConfig::default().batch, 0.25));
        assert_eq!((train.optimizer.weight_decay, train.keep.map(|keep| keep.every)), (0.5, Some(5)));
        assert!(matches!(found.stage, StageConfig::Sft { thoughts: 2, .. }));
        assert_eq!(with("sft.toml", "", &[]).unwrap(), sft());
    }

    #[test]
    fn a_runs_description_is_such_a_file() {
        let mut other = sft();
        (other.train.learning_rate, other.device, other.sample_users) = (0.25, "wgpu".into(), 5);
        other.model_files.insert("model.safetensors".into(), "sum".into());
        let found = with("run.json", &serde_json::to_string(&other).unwrap(), &["device"]).unwrap();
        other.model_files.clear();
        other.device = "flex".into();
        assert_eq!(found, other);
    }

    #[test]
    fn what_no_run_of_the_stage_has_is_refused() {
        for (name, text, wanted) in [
            ("a.toml", "learning = 1", "learning"),
            ("a.toml", "[train]\nlearning = 1", "learning"),
            ("a.toml", "lr = 'fast'", "fast"),
            ("a.toml", "lr = -1.0", "learning_rate"),
            ("a.toml", "lr = ", "a.toml"),
            ("a.toml", "rollouts = 8", "batch"),
            ("a.json", "[1]", "a.json"),
            ("a.json", r#"{"stage": {"name": "grpo"}}"#, "grpo"),
            ("a.toml", "group = 8", "config"),
        ] {
            let error = with(name, text, &[]).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
