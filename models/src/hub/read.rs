//! Reading a model folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;

use super::adapter::AdapterConfig;
use super::tensors::{TensorInFile, open_tensors};
use super::{
    ADAPTER_CONFIG_FILE, CONFIG_FILE, INDEX_FILE, OBJECTIVE_FIELD, SOURCE_FIELD, THOUGHTS_FIELD, WEIGHTS_FILE,
};
use crate::backbone::BackboneConfig;
use crate::files::{read_json, verify_checksums};
use crate::latent::ThoughtKind;
use crate::named::FACTOR_A;
use crate::parameters::Parameters;
use crate::recommender::MOST_THOUGHTS;
use crate::{LatentRecommender, ModelError, ObjectiveKind, Precision};

/// Loads the model in `folder` onto `device`, in float32.
///
/// Low-rank adapters beside the model become part of its weights; a folder with an adapter only names that of its
/// model. A checkpoint that says nothing about thoughts has one if it holds `attention.*`, else none.
///
/// # Errors
///
/// Files missing, malformed, cut short or not as `SHA256SUMS` beside them records; a configuration that cannot be
/// computed exactly; tensors missing, left over or of another shape. Each names the file and the field or tensor.
///
/// # Example
///
/// ```
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// # #[cfg(feature = "flex")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use latentr3_models::backbone::{BackboneConfig, NewBackbone};
/// use latentr3_models::{LatentRecommender, ThoughtKind, device, hub};
///
/// let (config, device) = (BackboneConfig::new(&NewBackbone::tiny(16, 0))?, device("flex")?);
/// let model = LatentRecommender::new(config, ThoughtKind::LatentAttention, 2, 0, &device)?;
/// # let temporary = tempfile::tempdir()?;
/// # let folder = temporary.path().join("model");
/// hub::save(&model, &folder)?;
/// assert_eq!(hub::load(&folder, &device)?.thoughts(), 2);
/// # Ok(())
/// # }
/// ```
pub fn load(folder: &Path, device: &Device) -> Result<LatentRecommender, ModelError> {
    load_rounded(folder, device, Precision::F32)
}

/// [`load`] with the backbone's matrices rounded to a precision and kept in it, for training that leaves them as they
/// are: at no moment are they in memory in float32. Those that an adapter becomes part of are kept in float32.
///
/// # Errors
///
/// See [`load`].
pub fn load_rounded(folder: &Path, device: &Device, backbone: Precision) -> Result<LatentRecommender, ModelError> {
    let has_adapter = folder.join(ADAPTER_CONFIG_FILE).exists();
    let backbone = if has_adapter { Precision::F32 } else { backbone };
    Ok(load_with_adapter(folder, device, backbone)?.merged())
}

/// [`load_rounded`] for a training that resumes: low-rank adapters stay apart from the frozen weights.
///
/// # Errors
///
/// See [`load`].
pub fn load_with_adapter(folder: &Path, device: &Device, backbone: Precision) -> Result<LatentRecommender, ModelError> {
    verify_checksums(folder)?;
    let Some(adapter) = AdapterConfig::read(folder)? else {
        return load_weights(folder, device, backbone);
    };
    let base = adapter.base(folder)?;
    if base != folder {
        verify_checksums(&base)?;
    }
    let model = load_weights(&base, device, backbone)?;
    let factors = adapter.factors(folder)?;
    let has_factors = |projection: &str| factors.contains_key(&format!("{projection}{FACTOR_A}"));
    let mut lora = adapter.lora;
    if model.projections().keys().any(|projection| lora.adapts(projection) != has_factors(projection)) {
        // Chosen in a way that is not understood here, such as a pattern: what has factors is adapted.
        lora.targets = factors.keys().filter_map(|name| name.strip_suffix(FACTOR_A)).map(str::to_owned).collect();
    }
    let mut parameters = Parameters::stored(folder, ADAPTER_CONFIG_FILE, factors, device);
    let model = model.attach(&lora, &mut parameters).map_err(|error| match error {
        ModelError::Input(problem) => ModelError::damaged(folder, problem),
        other => other,
    })?;
    parameters.finish()?;
    Ok(model)
}

fn load_weights(folder: &Path, device: &Device, backbone: Precision) -> Result<LatentRecommender, ModelError> {
    let config = read_config(folder)?;
    let mut stored = open_weights(folder)?;
    let is_spare = |name: &str| {
        // Old checkpoints carry the rotary frequencies, and some the output matrix that they tie to the embeddings.
        name.ends_with("rotary_emb.inv_freq") || (config.tie_embeddings && name == "lm_head.weight")
    };
    stored.retain(|name, _| !is_spare(name));
    let has_attention = stored.keys().any(|name| name.starts_with("attention."));
    let (kind, thoughts) = thoughts_of(folder, &config, has_attention)?;
    let objective = objective_of(folder, &config)?;
    if thoughts == 0 || kind != ThoughtKind::LatentAttention {
        stored.retain(|name, _| !name.starts_with("attention."));
    }
    let mut parameters = Parameters::stored(folder, CONFIG_FILE, stored, device).with_backbone_in(backbone);
    let model = LatentRecommender::build(&mut parameters, config, kind, thoughts)?;
    parameters.finish()?;
    Ok(model.with_objective(objective))
}

/// Whether the checkpoint that a model was loaded from says how many thoughts it has.
pub fn records_thoughts(model: &LatentRecommender) -> bool {
    model.backbone.config().raw_field(THOUGHTS_FIELD).is_some_and(|value| !value.is_null())
}

fn read_config(folder: &Path) -> Result<BackboneConfig, ModelError> {
    let path = folder.join(CONFIG_FILE);
    BackboneConfig::from_json(&path, read_json(&path)?)
}

fn thoughts_of(
    folder: &Path,
    config: &BackboneConfig,
    has_attention: bool,
) -> Result<(ThoughtKind, usize), ModelError> {
    let error = |field: &str, problem: String| ModelError::config(&folder.join(CONFIG_FILE), field, problem);
    let thoughts = match config.raw_field(THOUGHTS_FIELD) {
        None | Some(Value::Null) => usize::from(has_attention),
        Some(value) => match value.as_u64() {
            Some(thoughts) if thoughts <= MOST_THOUGHTS as u64 => thoughts as usize,
            _ => {
                return Err(error(
                    THOUGHTS_FIELD,
                    format!("must be a whole number from 0 to {MOST_THOUGHTS}, got {value}"),
                ));
            }
        },
    };
    let kind = match config.raw_field(SOURCE_FIELD) {
        None | Some(Value::Null) => ThoughtKind::LatentAttention,
        Some(value) => serde_json::from_value(value.clone()).map_err(|cause| error(SOURCE_FIELD, cause.to_string()))?,
    };
    Ok((kind, thoughts))
}

/// The objective that a checkpoint records; [`ObjectiveKind::Vocabulary`] where it records none.
///
/// # Errors
///
/// `config`, which is that of `folder`, names no objective there is.
pub fn objective_of(folder: &Path, config: &BackboneConfig) -> Result<ObjectiveKind, ModelError> {
    match config.raw_field(OBJECTIVE_FIELD) {
        None | Some(Value::Null) => Ok(ObjectiveKind::Vocabulary),
        Some(value) => value.as_str().unwrap_or_default().parse().map_err(|_| {
            let problem = format!("must be \"catalog\" or \"vocabulary\", got {value}");
            ModelError::config(&folder.join(CONFIG_FILE), OBJECTIVE_FIELD, problem)
        }),
    }
}

/// The names of the files of weights that an index names.
///
/// # Errors
///
/// An index that cannot be read, or that names anything but files beside it.
pub fn shards(index: &Path) -> Result<BTreeSet<String>, ModelError> {
    Ok(read_weight_map(index)?.into_values().collect())
}

/// The file of each tensor, by an index of weights.
fn read_weight_map(index: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    let content = read_json(index)?;
    let Some(map) = content.get("weight_map").and_then(Value::as_object) else {
        return Err(ModelError::damaged(index, "has no `weight_map` object"));
    };
    let file = |(tensor, shard): (&String, &Value)| {
        let shard = shard.as_str().filter(|name| !name.contains(['/', '\\']))?;
        Some((tensor.clone(), shard.to_owned()))
    };
    let problem = "`weight_map` must map tensor names to names of files in the same folder";
    map.iter().map(file).collect::<Option<_>>().ok_or_else(|| ModelError::damaged(index, problem))
}

/// All tensors of the folder, from the one weights' file or from the shards that the index names.
fn open_weights(folder: &Path) -> Result<BTreeMap<String, TensorInFile>, ModelError> {
    let single = folder.join(WEIGHTS_FILE);
    let index = folder.join(INDEX_FILE);
    if single.exists() || !index.exists() {
        return open_tensors(&single);
    }
    let map = read_weight_map(&index)?;
    let mut tensors = BTreeMap::new();
    for shard in map.values().collect::<BTreeSet<_>>() {
        let path = folder.join(shard);
        let mut own = open_tensors(&path)?;
        if let Some(name) = own.keys().find(|name| map.get(*name) != Some(shard)) {
            return Err(ModelError::damaged(
                &path,
                format!("contains tensor `{name}`, but {INDEX_FILE} does not place it there"),
            ));
        }
        tensors.append(&mut own);
    }
    match map.keys().find(|name| !tensors.contains_key(*name)) {
        None => Ok(tensors),
        Some(name) => {
            Err(ModelError::damaged(&index, format!("lists tensor `{name}`, but its shard does not contain it")))
        }
    }
}
