//! What the training loop asks of a model.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use latentr3_models::sasrec::SasRec;
use latentr3_models::{LatentRecommender, ModelError, Precision, hub};

/// A model that [`Training`](crate::Training) can train: it knows its device and is saved and loaded as a folder.
pub trait Trainable: Module {
    /// What messages call it.
    const NAME: &'static str;

    /// The device of the weights, without autodiff.
    fn device(&self) -> Device;

    /// Writes the model into a folder, which exists.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    fn save(&self, folder: &Path) -> Result<(), ModelError>;

    /// Loads the model that [`Self::save`] wrote, after the folder's checksums were verified. Matrices that do not train
    /// may be rounded to the precision `frozen` and kept in it.
    ///
    /// # Errors
    ///
    /// Files missing, damaged, or of another model.
    fn load(folder: &Path, device: &Device, frozen: Precision) -> Result<Self, ModelError>;

    /// The same model that computes activations again in the backward pass instead of keeping them.
    fn with_gradient_checkpointing(self) -> Self;
}

impl Trainable for LatentRecommender {
    const NAME: &'static str = "LatentR3";

    fn device(&self) -> Device {
        self.device()
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        hub::save(self, folder)
    }

    /// Adapters stay apart from the backbone.
    fn load(folder: &Path, device: &Device, frozen: Precision) -> Result<Self, ModelError> {
        hub::load_with_adapter(folder, device, frozen)
    }

    fn with_gradient_checkpointing(self) -> Self {
        self.with_gradient_checkpointing()
    }
}

impl Trainable for SasRec {
    const NAME: &'static str = "SASRec";

    fn device(&self) -> Device {
        self.device()
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.save(folder)
    }

    fn load(folder: &Path, device: &Device, _frozen: Precision) -> Result<Self, ModelError> {
        Self::load(folder, device)
    }

    /// It is small: it keeps them.
    fn with_gradient_checkpointing(self) -> Self {
        self
    }
}
