//! Stage 1: supervised fine-tuning of backbone and latent attention together.
//!
//! The same step pretrains a new model: the beginning of the template as prompt, a history's text as target, no thought.

use burn::module::Module;
use latentr3_models::LatentRecommender;
use serde_json::{Map, Value, json};

use crate::batches::micro_batches;
use crate::gradients::Gradients;
use crate::optimizer::{Optimizer, scalar};
use crate::trainer::{Stage, StepReport};
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
        for places in micro_batches(batch, self.micro_batch) {
            let rows: Vec<&Example> = places.into_iter().map(|place| batch[place]).collect();
            let log_probs = forward(model, &rows)?;
            let loss = log_probs.values.sum().neg().div_scalar(tokens as f64);
            let tape = loss.backward();
            total.gradients.add(Gradients::collect(model, tape));
            total.loss += scalar(loss.inner());
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
        if !loss.is_finite() {
            return Err(TrainError::NotFinite { step: optimizer.step, what: "loss", value: loss });
        }
        let (model, norm) = optimizer.apply(model, gradients)?;
        let metrics = Map::from_iter([("loss".into(), json!(loss)), ("gradient_norm".into(), json!(norm))]);
        Ok((model, StepReport { headline: loss, metrics }))
    }
}

/// How well a model predicts held-out targets.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Validation {
    /// Mean negative log-likelihood of all target tokens.
    pub loss: f64,
    /// Mean over the rows of the target's perplexity: minus the mean reward of stage 2.
    pub perplexity: f64,
    /// Number of rows.
    pub rows: usize,
}

impl Validation {
    /// The figures as they go into a log.
    pub fn metrics(&self) -> Map<String, Value> {
        Map::from_iter([("valid_loss".into(), json!(self.loss)), ("valid_perplexity".into(), json!(self.perplexity))])
    }
}

/// Measures a model on held-out examples, `batch` at a time, without thinking noise or gradients.
///
/// # Errors
///
/// No examples, tokens outside the model's vocabulary, or an empty row.
pub fn validate(model: &LatentRecommender, examples: &[Example], batch: usize) -> Result<Validation, TrainError> {
    let model = model.valid();
    let rows: Vec<&Example> = examples.iter().collect();
    let (mut sum, mut tokens, mut perplexity) = (0.0, 0, 0.0);
    for places in micro_batches(&rows, batch) {
        let rows: Vec<&Example> = places.into_iter().map(|place| rows[place]).collect();
        let log_probs = forward(&model, &rows)?;
        let values: Vec<f32> = log_probs.values.into_data_as::<f32>().iter::<f32>().collect();
        let mut rest = values.as_slice();
        for length in log_probs.lengths {
            let (row, others) = rest.split_at(length);
            let log_likelihood: f64 = row.iter().map(|&value| f64::from(value)).sum();
            sum -= log_likelihood;
            tokens += length;
            perplexity += (-log_likelihood / length as f64).exp();
            rest = others;
        }
    }
    if tokens == 0 {
        return Err(TrainError::config("validation", "there are no examples to validate on"));
    }
    Ok(Validation { loss: sum / tokens as f64, perplexity: perplexity / rows.len() as f64, rows: rows.len() })
}

fn forward(model: &LatentRecommender, rows: &[&Example]) -> Result<latentr3_models::TargetLogProbs, TrainError> {
    let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
    let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
    let mut state = model.prefill(&prompts)?;
    let thought = model.think(&mut state);
    Ok(model.target_log_probs(&state, thought, &targets)?)
}
