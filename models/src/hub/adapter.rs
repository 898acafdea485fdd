//! Low-rank adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::tensors::{PendingTensor, TensorInFile, open_tensors, write_tensors};
use crate::ModelError;
use crate::files::{read_json, write_json};
use crate::lora::{LoraConfig, MOST_RANK};
use crate::named::{FACTOR_A, FACTOR_B};

/// An adapter's configuration.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model's own modules.
const PREFIX: &str = "base_model.model.";

/// Fields that change nothing of what a trained adapter computes, whatever they say. Every other one that is not read
/// here must be absent, off or empty: what it asks for is not computed.
const HARMLESS: [&str; 20] = [
    "peft_type",
    "bias",
    "init_lora_weights",
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "base_model_name_or_path",
    "task_type",
    "auto_mapping",
    "revision",
    "inference_mode",
    "peft_version",
    // Of training only.
    "lora_dropout",
    "loftq_config",
    "eva_config",
    // Of what is off elsewhere, or of where a model runs.
    "qalora_group_size",
    "megatron_config",
    "megatron_core",
    "runtime_config",
];

/// Ways to begin, by name, that leave the model's own weights as they are; what others begin by fits no other model.
const PLAIN_BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What an adapter's configuration says.
pub(super) struct AdapterConfig {
    pub lora: LoraConfig,
    path: PathBuf,
}

impl AdapterConfig {
    /// The configuration of the adapter in `folder`, if there is one.
    pub fn read(folder: &Path) -> Result<Option<Self>, ModelError> {
        let path = folder.join(ADAPTER_CONFIG_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let content = read_json(&path)?;
        let error = |field: &str, problem: String| ModelError::config(&path, field, problem);
        let Some(fields) = content.as_object() else {
            return Err(ModelError::damaged(&path, "is not a JSON object"));
        };
        let is_absent = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        let begins = &content["init_lora_weights"];
        let kinds = [
            ("peft_type", content["peft_type"] == "LORA"),
            ("bias", content["bias"] == "none"),
            ("init_lora_weights", begins.is_boolean() || PLAIN_BEGINNINGS.iter().any(|plain| begins == plain)),
        ];
        let others = fields.iter().filter(|(field, _)| !HARMLESS.contains(&field.as_str()));
        for (field, is_plain) in kinds.into_iter().chain(others.map(|(field, _)| (field.as_str(), false))) {
            let value = &content[field];
            if !is_plain && !is_absent(value) {
                return Err(error(field, format!("{value} is not supported; only plain LoRA is")));
            }
        }
        let rank = match content["r"].as_u64() {
            Some(rank) if rank > 0 && rank <= MOST_RANK as u64 => rank as usize,
            _ => return Err(error("r", format!("must be from 1 to {MOST_RANK}, got {}", content["r"]))),
        };
        let Some(alpha) = content["lora_alpha"].as_f64().filter(|alpha| alpha.is_finite()) else {
            return Err(error("lora_alpha", format!("must be a number, got {}", content["lora_alpha"])));
        };
        // Rank-stabilised: the product is divided by the root of the rank.
        let alpha = match &content["use_rslora"] {
            Value::Bool(true) => alpha * (rank as f64).sqrt(),
            Value::Bool(false) | Value::Null => alpha,
            other => return Err(error("use_rslora", format!("must be true or false, got {other}"))),
        };
        let names = content["target_modules"].as_array().into_iter().flatten();
        let targets = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let base = content["base_model_name_or_path"].as_str().map(str::to_owned);
        Ok(Some(Self { lora: LoraConfig { rank, alpha, targets, base }, path }))
    }

    /// The folder of the model that the adapter in `folder` was made for: `folder` itself if it holds one, else the one
    /// that its file names, as seen from `folder`.
    pub fn base(&self, folder: &Path) -> Result<PathBuf, ModelError> {
        if is_model(folder) {
            return Ok(folder.to_owned());
        }
        let error = |problem: String| ModelError::config(&self.path, "base_model_name_or_path", problem);
        let named = self.lora.base.as_deref();
        let Some(base) = named.map(|base| folder.join(base)).filter(|base| is_model(base)) else {
            return Err(error(format!(
                "{}; give a folder with the config.json and weights of the adapter's model, or put these files beside \
                 the adapter",
                named.map_or("missing".into(), |base| format!("`{base}` is not a model folder"))
            )));
        };
        if base.join(ADAPTER_CONFIG_FILE).exists() {
            let base = base.display();
            return Err(error(format!("`{base}` has an adapter of its own; merge that one first")));
        }
        Ok(base)
    }

    /// The factors of the adapter in `folder`, by their names in the model.
    pub fn factors(&self, folder: &Path) -> Result<BTreeMap<String, TensorInFile>, ModelError> {
        let tensors = open_tensors(&folder.join(ADAPTER_WEIGHTS_FILE))?.into_iter();
        Ok(tensors.map(|(name, tensor)| (name.strip_prefix(PREFIX).unwrap_or(&name).to_owned(), tensor)).collect())
    }
}

/// The folder whose `config.json` and weights make up the model in `folder`: another one where `folder` holds an
/// adapter only.
///
/// # Errors
///
/// An adapter that is damaged, or whose model is not to be found.
pub fn base_folder(folder: &Path) -> Result<PathBuf, ModelError> {
    match AdapterConfig::read(folder)? {
        Some(adapter) => adapter.base(folder),
        None => Ok(folder.to_owned()),
    }
}

/// Whether a name in a model is that of an adapter's factor.
pub(super) fn is_factor(name: &str) -> bool {
    name.ends_with(FACTOR_A) || name.ends_with(FACTOR_B)
}

/// Makes sure that `folder` has no adapter.
pub(super) fn remove_adapter(folder: &Path) -> Result<(), ModelError> {
    for file in [ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE].map(|file| folder.join(file)) {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(ModelError::io(&file)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Writes an adapter into `folder`.
pub(super) fn write_adapter(
    folder: &Path,
    config: &LoraConfig,
    mut factors: Vec<PendingTensor>,
) -> Result<(), ModelError> {
    for factor in &mut factors {
        factor.name.insert_str(0, PREFIX);
    }
    write_tensors(&folder.join(ADAPTER_WEIGHTS_FILE), factors)?;
    let content = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "target_modules": config.targets,
    });
    write_json(&folder.join(ADAPTER_CONFIG_FILE), &content)
}

fn is_model(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).is_file();
    has(super::CONFIG_FILE) && (has(super::WEIGHTS_FILE) || has(super::INDEX_FILE))
}
