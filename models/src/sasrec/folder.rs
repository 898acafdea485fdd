//! The model as a folder: `config.json` and `model.safetensors`.

use std::path::Path;

use burn::tensor::Device;
use serde_json::json;

use super::{SasRec, SasRecConfig};
use crate::ModelError;
use crate::files;
use crate::hub::{self, CONFIG_FILE, WEIGHTS_FILE};
use crate::parameters::Parameters;

/// Field of `config.json` with the kind of the model.
const KIND_FIELD: &str = "model_type";
/// What it says of this one.
const KIND: &str = "sasrec";

impl SasRec {
    /// Loads the model that [`Self::save`] wrote into `folder`.
    ///
    /// # Errors
    ///
    /// Files missing, damaged, not as `SHA256SUMS` beside them records, or of another model; each names the file.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        files::verify_checksums(folder)?;
        let path = folder.join(CONFIG_FILE);
        let error = |field: &str, problem: String| ModelError::config(&path, field, problem);
        let mut content = files::read_json(&path)?;
        let kind = content.as_object_mut().and_then(|fields| fields.remove(KIND_FIELD)).unwrap_or_default();
        if kind != KIND {
            return Err(error(KIND_FIELD, format!("must be `{KIND}` for a SASRec model, got {kind}")));
        }
        let config: SasRecConfig =
            serde_json::from_value(content).map_err(|cause| ModelError::damaged(&path, cause.to_string()))?;
        if let Some((field, problem)) = config.fault() {
            return Err(error(field, problem));
        }
        let stored = hub::open_tensors(&folder.join(WEIGHTS_FILE))?;
        let mut parameters = Parameters::stored(folder, CONFIG_FILE, stored, device);
        let model = Self::build(&mut parameters, config, device)?;
        parameters.finish()?;
        Ok(model)
    }

    /// Writes `config.json` and `model.safetensors` into `folder`, which is made if need be. Each file replaces an
    /// older one only when it is whole.
    ///
    /// # Errors
    ///
    /// What the system refuses, with the file's name.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        std::fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let mut config = json!(self.config);
        config[KIND_FIELD] = json!(KIND);
        files::write_json(&folder.join(CONFIG_FILE), &config)?;
        hub::write_tensors(&folder.join(WEIGHTS_FILE), hub::pending_parameters(self))
    }
}
