//! Stage 1: supervised fine-tuning of backbone and latent attention together.
//!
//! The same step pretrains a new model: the beginning of the template as prompt, a history's text as target, no thought.

use latentr3_models::LatentRecommender;
use latentr3_models::backbone::Cut;
use serde_json::{Map, json};

use crate::batches::micro_batches;
use crate::gradients::Gradients;
use crate::likelihood::{prompts, target_log_probs};
use crate::optimizer::{Optimizer, scalar};
use crate::trainer::{Fault, Stage, StepReport};
use crate::{Example, TrainError};

/// The supervised stage.
#[derive(Debug, Clone, Copy)]
pub struct Sft {
    /// Rows that run through the model at once.
    pub micro_batch: usize,
}

/// Loss and gradients of one batch.
#[derive(Debug)]
pub struct BatchGradients {
    /// Mean negative log-likelihood of the batch's target tokens.
    pub loss: f64,
    /// The loss's gradients.
    pub gradients: Gradients,
}

impl Sft {
    /// The mean negative log-likelihood over all target tokens of the batch, and its gradients.
    ///
    /// # Errors
    ///
    /// Tokens outside the model's vocabulary, or an empty row.
    pub fn gradients(&self, model: &LatentRecommender, batch: &[&Example]) -> Result<BatchGradients, TrainError> {
        let tokens: usize = batch.iter().map(|example| example.target.len()).sum();
        let mut total = BatchGradients { loss: 0.0, gradients: Gradients::default() };
        // What all prompts begin with runs once, forward and, when all micro-batches are done, backward.
        let mut head = model.backbone.common_head(&prompts(batch))?.map(Cut::new);
        for places in micro_batches(batch, self.micro_batch) {
            let rows: Vec<&Example> = places.into_iter().map(|place| batch[place]).collect();
            let log_probs = target_log_probs(model, head.as_ref().map(Cut::head), &rows)?;
            let loss = log_probs.values.sum().neg().div_scalar(tokens as f64);
            let mut tape = loss.backward();
            if let Some(head) = &mut head {
                head.collect(&mut tape);
            }
            total.gradients.add(Gradients::collect(model, tape));
            total.loss += scalar(loss.inner());
        }
        if let Some(tape) = head.and_then(Cut::backward) {
            total.gradients.add(Gradients::collect(model, tape));
        }
        Ok(total)
    }
}

impl Stage for Sft {
    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &[&Example],
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let BatchGradients { loss, gradients } = self.gradients(&model, batch)?;
        let mut fault = Fault::of("loss", loss);
        let (mut model, mut norm) = (model, None);
        if fault.is_none() {
            let (moved, its_norm) = optimizer.apply(model, gradients);
            (model, norm, fault) = (moved, Some(its_norm), Fault::of("norm of the gradients", its_norm));
        }
        let metrics = Map::from_iter([("loss".into(), json!(loss)), ("gradient_norm".into(), json!(norm))]);
        Ok((model, StepReport { headline: loss, metrics, fault }))
    }
}
