//! A source of thoughts: a projection of the mean of the prompt's last hidden states, beside a model that does not
//! train.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use latentr3_models::{LatentRecommender, ModelError, Objective, Precision, hub};
use latentr3_train::{LocalBatch, LocalUpdate, Optimizer, Stage, StepReport, TrainError, Trainable};

#[derive(Module, Debug)]
pub struct MeanThought {
    pub model: LatentRecommender,
    /// `[d_model, d_model]`.
    pub projection: Param<Tensor<2>>,
}

impl MeanThought {
    pub fn new(model: LatentRecommender, seed: u64) -> Self {
        let (device, width) = (model.device(), model.backbone.config().d_model);
        device.seed(seed);
        let weights = Tensor::random([width, width], Distribution::Normal(0.0, 0.02), &device);
        Self { model: model.no_grad(), projection: Param::from_tensor(weights) }
    }
}

impl Trainable for MeanThought {
    const NAME: &'static str = "mean thought";

    fn device(&self) -> Device {
        self.model.device()
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        hub::save(&self.model, folder)?;
        hub::write_tensors(&folder.join("thought.safetensors"), hub::pending_parameters(self))
    }

    fn load(folder: &Path, device: &Device, _frozen: Precision) -> Result<Self, ModelError> {
        let mut new = Self::new(hub::load(folder, device)?, 0);
        let mut stored = hub::read_tensors(&folder.join("thought.safetensors"))?;
        if let Some(projection) = stored.remove("projection") {
            let width = projection.shape[0];
            new.projection =
                Param::from_tensor(Tensor::<1>::from_data(&projection.values[..], device).reshape([width, width]));
        }
        Ok(new)
    }

    fn with_gradient_checkpointing(self) -> Self {
        self
    }
}

pub struct ThinkInMeans {
    pub objective: Objective,
}

impl Stage<MeanThought> for ThinkInMeans {
    fn step(
        &self,
        model: MeanThought,
        optimizer: &mut Optimizer,
        batch: &LocalBatch,
    ) -> Result<(MeanThought, StepReport), TrainError> {
        let mut update = LocalUpdate::default();
        for row in &batch.rows {
            let state = model.model.prefill(&[&row.prompt])?;
            let hidden = state.segments().last().expect("a prompt has run").hidden();
            let thought = hidden.mean_dim(1).squeeze_dim::<2>(1).matmul(model.projection.val());
            let log_probs = model.model.target_log_probs(&state, Some(thought), &[&row.target], &self.objective)?;
            let loss = log_probs.values.mean().neg().div_scalar(batch.global.len() as f64);
            update.add(&model, loss.clone(), [("loss", loss)]);
        }
        optimizer.apply(model, update, batch)
    }
}
