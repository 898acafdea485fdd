//! Low-rank adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::read::read_json;
use super::tensors::{StoredTensor, read_tensors, write_atomically, write_tensors};
use crate::ModelError;
use crate::lora::{FACTOR_A, FACTOR_B, LoraConfig, MOST_RANK};

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model's own modules.
const PREFIX: &str = "base_model.model.";

/// Fields that ask for more than plain LoRA unless they are absent, off or empty.
const EXTENSIONS: [&str; 16] = [
    "use_dora",
    "use_qalora",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
];

/// An adapter's files.
pub(super) struct StoredAdapter {
    pub config: LoraConfig,
    /// The factors, by their names in the model.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// The model that it was made for, as its file says.
    base: Option<String>,
}

impl StoredAdapter {
    /// The adapter in `folder`, if there is one.
    pub fn read(folder: &Path) -> Result<Option<Self>, ModelError> {
        let path = folder.join(CONFIG_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let content = read_json(&path)?;
        let error =
            |field: &str, problem: String| ModelError::Config { path: path.clone(), field: field.into(), problem };
        if !content.is_object() {
            return Err(ModelError::weights(&path, "is not a JSON object"));
        }
        let is_absent = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        let kinds = [("peft_type", "LORA"), ("bias", "none")].map(|(field, plain)| (field, content[field] == plain));
        for (field, is_plain) in kinds.into_iter().chain(EXTENSIONS.map(|field| (field, false))) {
            let value = &content[field];
            if !is_plain && !is_absent(value) {
                return Err(error(field, format!("is {value}; only plain LoRA is computed here")));
            }
        }
        let rank = match content["r"].as_u64() {
            Some(rank) if rank > 0 && rank <= MOST_RANK as u64 => rank as usize,
            _ => return Err(error("r", format!("is {}; must be from 1 to {MOST_RANK}", content["r"]))),
        };
        let Some(alpha) = content["lora_alpha"].as_f64().filter(|alpha| alpha.is_finite()) else {
            return Err(error("lora_alpha", format!("is {}; must be a number", content["lora_alpha"])));
        };
        // Rank-stabilised: the product is divided by the root of the rank.
        let is_stabilized = content["use_rslora"] == true;
        let alpha = if is_stabilized { alpha * (rank as f64).sqrt() } else { alpha };
        let tensors: BTreeMap<String, StoredTensor> = read_tensors(&folder.join(WEIGHTS_FILE))?
            .into_iter()
            .map(|(name, tensor)| (name.strip_prefix(PREFIX).unwrap_or(&name).to_owned(), tensor))
            .collect();
        let targets = tensors.keys().filter_map(|name| name.strip_suffix(FACTOR_A)).map(str::to_owned).collect();
        let config = LoraConfig { rank, alpha, targets };
        let base = content["base_model_name_or_path"].as_str().map(str::to_owned);
        Ok(Some(Self { config, tensors, base }))
    }

    /// The folder of the model that the adapter in `folder` was made for: `folder` itself if it holds one, else the one that its
    /// file names, as seen from `folder`.
    pub fn base(&self, folder: &Path) -> Result<PathBuf, ModelError> {
        if is_model(folder) {
            return Ok(folder.to_owned());
        }
        let named = self.base.as_ref().map(|base| folder.join(base));
        named.filter(|base| is_model(base)).ok_or_else(|| ModelError::Config {
            path: folder.join(CONFIG_FILE),
            field: "base_model_name_or_path".into(),
            problem: format!(
                "is {}; must be a folder with the config.json and weights that the adapter was made for, or these must lie \
                 beside the adapter",
                self.base.as_deref().map_or("missing".into(), |base| format!("`{base}`"))
            ),
        })
    }
}

/// The folder whose `config.json` and weights make up the model in `folder`: another one where `folder` holds an adapter only.
///
/// # Errors
///
/// An adapter that is damaged, or whose model is not to be found.
pub fn base_folder(folder: &Path) -> Result<PathBuf, ModelError> {
    match StoredAdapter::read(folder)? {
        Some(adapter) => adapter.base(folder),
        None => Ok(folder.to_owned()),
    }
}

/// Whether a name in a model is that of an adapter's factor.
pub(super) fn is_factor(name: &str) -> bool {
    name.ends_with(FACTOR_A) || name.ends_with(FACTOR_B)
}

/// Writes an adapter into `folder`; without one, makes sure that the folder has none.
pub(super) fn write_adapter(
    folder: &Path,
    config: Option<&LoraConfig>,
    tensors: BTreeMap<String, StoredTensor>,
) -> Result<(), ModelError> {
    let [config_file, weights_file] = [CONFIG_FILE, WEIGHTS_FILE].map(|file| folder.join(file));
    let Some(config) = config else {
        for file in [config_file, weights_file] {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(ModelError::io(&file)(error)),
                _ => {}
            }
        }
        return Ok(());
    };
    let named = tensors.into_iter().map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor)).collect();
    write_tensors(&weights_file, &named)?;
    let targets: BTreeSet<&str> = config.targets.iter().map(String::as_str).collect();
    let content = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": null,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "target_modules": targets,
    });
    let mut text = serde_json::to_vec_pretty(&content).expect("a JSON map can be written");
    text.push(b'\n');
    write_atomically(&config_file, &text)
}

fn is_model(folder: &Path) -> bool {
    folder.join("config.json").is_file()
}
