//! How likely a model finds the targets of examples.

use burn::module::Module;
use std::sync::atomic::{AtomicBool, Ordering};

use latentr3_models::backbone::CommonHead;
use latentr3_models::{LatentRecommender, Objective, TargetLogProbs, TargetSize, host};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::batches::micro_batches;
use crate::workers::Workers;
use crate::{Example, TrainError};

/// How well a model predicts held-out targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean negative log-likelihood of all target tokens, or with the catalog's objective of all titles: nats per item.
    pub loss: f64,
    /// Mean over the rows of the perplexity of a predicted token, bounded as stage 2's rewards are by default: minus their mean.
    pub perplexity: f64,
    /// Mean negative log-likelihood of all predicted tokens; with the catalog's objective these are the choices.
    #[serde(default)]
    pub choice_loss: f64,
    /// Number of rows.
    pub rows: usize,
}

impl Validation {
    /// The figures as they go into a log.
    pub fn metrics(&self) -> Map<String, Value> {
        Map::from_iter([("valid_loss".into(), json!(self.loss)), ("valid_perplexity".into(), json!(self.perplexity))])
    }
}

/// Measures a model on held-out examples, `batch` at a time, without thinking noise or gradients; each worker takes its share
/// of the batches.
///
/// # Errors
///
/// No examples, tokens outside the model's vocabulary, an empty row, a target that is no title of the objective's catalog, or, for a worker
/// alone, `interrupted` set meanwhile.
pub fn validate(
    model: &LatentRecommender,
    objective: &Objective,
    examples: &[Example],
    batch: usize,
    interrupted: &AtomicBool,
    workers: &Workers,
) -> Result<Validation, TrainError> {
    let model = model.valid();
    let rows: Vec<&Example> = examples.iter().collect();
    if rows.is_empty() {
        return Err(TrainError::config("validation", "there are no examples to validate on"));
    }
    let head = common_head(&model, &rows)?;
    // Of each row, so that the sums are the same for any number of workers.
    let mut log_likelihoods = vec![0.0; rows.len()];
    for places in micro_batches(&rows, batch).into_iter().skip(workers.number()).step_by(workers.count()) {
        // Several workers must not stop one by one.
        if interrupted.load(Ordering::Relaxed) && workers.count() == 1 {
            return Err(TrainError::Interrupted);
        }
        let own: Vec<&Example> = places.iter().map(|&place| rows[place]).collect();
        let log_probs = target_log_probs(&model, objective, head.as_ref(), &own)?;
        let values = host::read(log_probs.values);
        let mut rest = values.as_slice();
        for (place, length) in places.into_iter().zip(log_probs.lengths) {
            let (row, others) = rest.split_at(length);
            log_likelihoods[place] = row.iter().map(|&value| f64::from(value)).sum();
            rest = others;
        }
    }
    workers.sum(&mut log_likelihoods);
    let (mut sum, mut all, mut perplexity) = (0.0, TargetSize::default(), 0.0);
    for (row, log_likelihood) in rows.iter().zip(log_likelihoods) {
        let size = objective.size(&row.target)?;
        sum -= log_likelihood;
        all += size;
        perplexity += (-log_likelihood / size.choices as f64).exp().min(f64::from(f32::MAX));
    }
    Ok(Validation {
        loss: sum / objective.terms(all) as f64,
        perplexity: perplexity / rows.len() as f64,
        choice_loss: sum / all.choices as f64,
        rows: rows.len(),
    })
}

/// Numbers of the rows whose targets' log-likelihood is not finite; of all rows where it is for each of them, so that only the noise or
/// the backward pass can tell.
pub(crate) fn unlikely_rows(
    model: &LatentRecommender,
    objective: &Objective,
    rows: &[&Example],
) -> Result<Vec<usize>, TrainError> {
    let model = model.valid();
    let mut unlikely = Vec::new();
    for row in rows {
        let values = host::read(target_log_probs(&model, objective, None, &[row])?.values);
        if values.iter().any(|value| !value.is_finite()) {
            unlikely.push(row.row);
        }
    }
    Ok(if unlikely.is_empty() { rows.iter().map(|row| row.row).collect() } else { unlikely })
}

/// Thoughts and targets of some examples whose prompts begin with `head`.
pub(crate) fn target_log_probs(
    model: &LatentRecommender,
    objective: &Objective,
    head: Option<&CommonHead>,
    rows: &[&Example],
) -> Result<TargetLogProbs, TrainError> {
    let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
    let mut state = model.backbone.prefill_after(head, &prompts(rows))?;
    let thought = model.think(&mut state)?;
    Ok(model.target_log_probs(&state, thought, &targets, objective)?)
}

/// What the prompts of some examples all begin with, run once; nothing where a worker's share has no example.
pub(crate) fn common_head(model: &LatentRecommender, rows: &[&Example]) -> Result<Option<CommonHead>, TrainError> {
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(model.backbone.common_head(&prompts(rows))?)
}

/// The prompts of some examples.
pub(crate) fn prompts<'a>(rows: &[&'a Example]) -> Vec<&'a [u32]> {
    rows.iter().map(|row| row.prompt.as_slice()).collect()
}
