//! SASRec on prepared data.

use std::path::Path;

use burn::tensor::Device;

use crate::data::PreparedCatalog;
use crate::models::sasrec::{SasRec, SasRecConfig};
use crate::models::{ModelError, host};

/// The usual sizes of a model for a data set's catalog and histories.
pub fn sasrec_config(prepared: &PreparedCatalog) -> SasRecConfig {
    let config = SasRecConfig::new(prepared.catalog.len(), prepared.max_history);
    SasRecConfig { catalog: Some(prepared.catalog.fingerprint()), ..config }
}

/// Loads the model in a folder if it was made for the catalog of this data set.
///
/// # Errors
///
/// See [`SasRec::load`]; also a model of other items.
pub fn load_sasrec(folder: &Path, prepared: &PreparedCatalog, device: &Device) -> Result<SasRec, ModelError> {
    let model = SasRec::load(folder, device)?;
    let config = model.config();
    let is_other = config.catalog.as_ref().is_some_and(|name| *name != prepared.catalog.fingerprint());
    if is_other || config.items != prepared.catalog.len() {
        let problem = "was trained on another catalog than this data's; train a model on this data".into();
        return Err(ModelError::Damaged { path: folder.to_owned(), problem });
    }
    Ok(model)
}

/// Log-probabilities of the catalog for each history of catalog indices, by place in the catalog.
///
/// # Errors
///
/// See [`SasRec::forward`]; also scores that are NaN or infinite.
pub fn sasrec_scores(model: &SasRec, histories: &[&[usize]]) -> Result<Vec<Vec<f32>>, ModelError> {
    let scores = host::read(model.log_probs(histories)?);
    if scores.iter().any(|score| score.is_nan()) {
        return Err(ModelError::NotFinite("scores"));
    }
    Ok(scores.chunks(model.config().items).map(<[f32]>::to_vec).collect())
}
