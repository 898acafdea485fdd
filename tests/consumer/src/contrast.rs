//! A stage: a loss that fades for targets that are likely already.

use burn::tensor::activation::softplus;
use latentr3_models::{LatentRecommender, Objective};
use latentr3_train::{LocalBatch, LocalUpdate, Optimizer, Stage, StepReport, TrainError, forward};

pub struct Contrast {
    pub objective: Objective,
    pub micro_batch: usize,
}

impl Stage<LatentRecommender> for Contrast {
    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &LocalBatch,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let mut update = LocalUpdate::default();
        for rows in batch.micro_batches(self.micro_batch) {
            let scores = forward(&model, &self.objective, &rows)?.sums();
            let loss = softplus(scores.neg(), 1.0).sum().div_scalar(batch.global.len() as f64);
            update.add(&model, loss.clone(), [("contrast", loss)]);
        }
        optimizer.apply(model, update, batch)
    }
}
