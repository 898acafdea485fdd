//! Settings of a run from a file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::description::RunDescription;
use super::error::RunError;
use super::recorded::to_json;
use super::settings::SETTINGS;
use super::training_options::{KEPT, RANKED_USERS};
use crate::input_error::InputError;
use crate::train::Temperature;

/// Options that say in short what takes more to write down.
const SHORT: [&str; 7] = ["rollouts", "recipe", "samples", "reward", "lora_rank", "lora_alpha", "lora_targets"];

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
        let description = self.with_settings(read(path)?, is_given).map_err(unusable)?;
        description.check()?;
        Ok(description)
    }

    /// [`Self::with_file`] of what such a file holds.
    ///
    /// # Errors
    ///
    /// What no run of this stage has.
    pub fn with_settings(self, settings: Map<String, Value>, is_given: &dyn Fn(&str) -> bool) -> Result<Self, String> {
        let own = to_json(&self).map_err(|error| error.to_string())?;
        let mut merged = own.clone();
        for (name, value) in settings {
            let option = name.replace('-', "_");
            let place = SETTINGS.iter().find(|(setting, _)| *setting == option).map(|(_, pointer)| *pointer);
            match place.filter(|_| !value.is_object()) {
                Some(_) if SHORT.contains(&option.as_str()) => {
                    let problem =
                        format!("{name}: is only for the command line; here give what run.json has in its place");
                    return Err(problem);
                }
                // On the command line they mean never.
                Some(pointer) if ["patience", "average"].contains(&option.as_str()) && value.as_f64() == Some(0.0) => {
                    put(&mut merged, pointer, Value::Null);
                }
                // As it is written there: a number, or a word.
                Some(pointer) if option == "temperature" => {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let temperature: Temperature = text.parse()?;
                    put(&mut merged, pointer, json!(temperature));
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
        fill_in(&mut merged, &own, is_given)?;
        if let Some(stage) = merged.get_mut("stage").and_then(Value::as_object_mut) {
            stage.remove("held_out");
        }
        let stage = merged.pointer("/stage/name").and_then(Value::as_str);
        if stage != Some(self.stage.name()) {
            let problem = format!("is for the stage {}, not {}", stage.unwrap_or("?"), self.stage.name());
            return Err(problem);
        }
        let description: Self = serde_json::from_value(merged).map_err(|error| error.to_string())?;
        for (name, path) in [("model", &description.model), ("data", &description.data)] {
            if path.as_os_str().is_empty() {
                return Err(format!("names no {name}, and neither does the command line"));
            }
        }
        Ok(description)
    }
}

/// Fills in what follows from the settings of command line and file together.
fn fill_in(merged: &mut Value, own: &Value, is_given: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let seed = merged.pointer("/train/seed").cloned().unwrap_or_default();
    for (of, missing, value) in [("/train/keep", "limit", json!(KEPT)), ("/stage/hold_out", "seed", seed)] {
        if let Some(of) = merged.pointer_mut(of).and_then(Value::as_object_mut) {
            of.entry(missing).or_insert(value);
        }
    }
    let needs_users = merged["select"].as_str().is_some_and(|select| select != "loss");
    if needs_users && merged["rank_sample"] == json!(0) && !is_given("rank_sample") {
        merged["rank_sample"] = json!(RANKED_USERS);
    }
    if is_given("rollouts") {
        // Recorded as prompts a step, which depend on the group.
        let number = |of: &Value, pointer: &str| of.pointer(pointer).and_then(Value::as_u64).unwrap_or(1);
        let (rollouts, group) =
            (number(own, "/train/batch") * number(own, "/stage/config/group"), number(merged, "/stage/config/group"));
        if group == 0 || !rollouts.is_multiple_of(group) {
            return Err(format!(
                "has groups of {group} samples, but {rollouts} rollouts are not a multiple of {group}"
            ));
        }
        put(merged, "/train/batch", json!(rollouts / group));
    }
    Ok(())
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
    use crate::run::{Augmentation, HeldOut, StageConfig};
    use crate::train::{Regularization, TrainConfig};

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
        let text = "select = 'ndcg@10'\npatience = 0\naverage = 0\nkeep_every = 5\nhold_out = 0.25\nseed = 9\n";
        let found = with("sft.toml", text, &[]).unwrap();
        assert_eq!((found.rank_sample, found.train.patience, found.train.keep.unwrap().limit), (500, None, 3));
        assert!(matches!(found.stage, StageConfig::Sft { hold_out: Some(HeldOut { seed: 9, .. }), .. }));
        assert!(with("sft.toml", text, &["rank_sample"]).unwrap_err().contains("rank_sample"));
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
            ("a.toml", "rollouts = 8", "rollouts"),
            ("a.toml", "recipe = 'latentr3'", "recipe"),
            ("a.toml", "drop_history = 1.5", "augmentation"),
            ("a.toml", "dropout = 1.5", "dropout"),
            ("a.toml", "select = 'ndcg@10'\nrank_sample = 0.5", "0.5"),
            ("a.toml", "objective = 'vocabulary'\ntemperature = 1.5", "temperature"),
            ("a.toml", "model = ''", "names no model"),
            ("a.json", "[1]", "a.json"),
            ("a.json", r#"{"stage": {"name": "grpo"}}"#, "grpo"),
            ("a.toml", "group = 8", "config"),
        ] {
            let error = with(name, text, &[]).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
