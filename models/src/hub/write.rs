//! Writing a model folder.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde_json::json;

use super::adapter::{is_factor, remove_adapter, write_adapter};
use super::tensors::{PendingTensor, write_tensors_as};
use super::{CONFIG_FILE, OBJECTIVE_FIELD, SOURCE_FIELD, THOUGHTS_FIELD, WEIGHTS_FILE};
use crate::files::write_json;
use crate::named::{NamedVisitor, visit_named};
use crate::{LatentRecommender, ModelError, Precision};

/// [`save_as`] float32.
///
/// # Errors
///
/// What the system refuses, with the file's name.
pub fn save(model: &LatentRecommender, folder: &Path) -> Result<(), ModelError> {
    save_as(model, folder, Precision::F32)
}

/// Writes `config.json` and `model.safetensors`, rounded to a precision, into `folder`, which is made if need be, and low-rank
/// adapters in PEFT's layout beside them. Each file replaces an older one only when it is whole.
///
/// # Errors
///
/// What the system refuses, with the file's name.
pub fn save_as(model: &LatentRecommender, folder: &Path, precision: Precision) -> Result<(), ModelError> {
    std::fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
    let mut config = model.backbone.config().to_json();
    let dtype = match precision {
        Precision::F32 => "float32",
        Precision::Bf16 => "bfloat16",
        Precision::F16 => "float16",
    };
    config.insert("torch_dtype".into(), json!(dtype));
    // From version 5 on, transformers calls it so and believes it first.
    if let Some(newer) = config.get_mut("dtype") {
        *newer = json!(dtype);
    }
    config.insert(THOUGHTS_FIELD.into(), json!(model.thoughts()));
    config.insert(SOURCE_FIELD.into(), json!(model.source.kind()));
    config.insert(OBJECTIVE_FIELD.into(), json!(model.objective()));
    write_json(&folder.join(CONFIG_FILE), &config)?;

    let (factors, weights): (Vec<_>, Vec<_>) =
        pending_parameters(model).into_iter().partition(|tensor| is_factor(&tensor.name));
    // No moment at which an older adapter lies beside weights that have it already.
    remove_adapter(folder)?;
    write_tensors_as(&folder.join(WEIGHTS_FILE), weights, precision)?;
    match model.lora() {
        Some(lora) => write_adapter(folder, lora, factors),
        None => Ok(()),
    }
}

/// All parameters of a module by name, for [`write_tensors`](super::write_tensors).
pub fn pending_parameters(model: &impl Module) -> Vec<PendingTensor<'static>> {
    struct Collect(Vec<PendingTensor<'static>>);
    impl NamedVisitor for Collect {
        fn visit<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            self.0.push(PendingTensor::of(name.to_owned(), parameter.val()));
        }
    }
    let mut collected = Collect(Vec::new());
    visit_named(model, &mut collected);
    collected.0
}
