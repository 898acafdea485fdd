//! The forward pass of examples: what a model says of their targets.

use std::sync::atomic::Ordering;

use burn::module::Module;
use latentr3_models::backbone::SharedPrefix;
use latentr3_models::{LatentRecommender, Objective, TargetLogProbs, TargetSize, host};
use serde_json::{Map, Value, json};

use crate::batches::micro_batches;
use crate::progress::Validation;
use crate::stage::ValidationPass;
use crate::{Example, TrainError};

/// How likely a model finds held-out targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// Mean negative log-likelihood of all target tokens, or with the catalog's objective of all titles: nats per item.
    pub loss: f64,
    /// Mean over the rows of the perplexity of a predicted token, bounded as stage 2's rewards are by default: minus
    /// their mean.
    pub perplexity: f64,
    /// Mean negative log-likelihood of all predicted tokens; with the catalog's objective these are the choices.
    pub choice_loss: f64,
    /// Number of rows.
    pub rows: usize,
}

impl Likelihood {
    /// As a validation, which selects by the loss.
    pub fn validation(&self, objective: &Objective) -> Validation {
        let metrics = [
            ("valid_loss", json!(self.loss)),
            ("valid_perplexity", json!(self.perplexity)),
            ("valid_choice_loss", json!(self.choice_loss)),
            ("valid_rows", json!(self.rows)),
        ];
        let mut metrics: Map<String, Value> =
            metrics.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        metrics.extend(objective.log_titles().map(|nats| ("log_catalog_size".into(), json!(nats))));
        Validation { score: -self.loss, metrics, watched: Some(self.choice_loss) }
    }
}

/// Measures a model on held-out examples, without thinking noise or gradients; each rank takes its part of the
/// micro-batches.
///
/// # Errors
///
/// No examples, tokens outside the model's vocabulary, an empty row, a target that is no title of the objective's
/// catalog, or, for a single rank, an interruption meanwhile.
pub fn likelihood(
    model: &LatentRecommender,
    objective: &Objective,
    examples: &[Example],
    pass: &ValidationPass,
) -> Result<Likelihood, TrainError> {
    let (model, world) = (model.valid().with_joined_projections(), pass.world);
    let rows: Vec<&Example> = examples.iter().collect();
    if rows.is_empty() {
        return Err(TrainError::config("validation", "there are no examples to validate on"));
    }
    let prefix = shared_prefix(&model, &rows)?;
    // Of each row, so that the sums are the same for any number of ranks.
    let mut log_likelihoods = vec![0.0; rows.len()];
    for places in micro_batches(&rows, pass.micro_batch).into_iter().skip(world.rank()).step_by(world.size()) {
        // Several ranks must not stop one by one.
        if pass.interrupted.load(Ordering::Relaxed) && world.size() == 1 {
            return Err(TrainError::Interrupted);
        }
        let own: Vec<&Example> = places.iter().map(|&place| rows[place]).collect();
        let log_probs = forward_after(&model, objective, prefix.as_ref(), &own)?;
        let values = host::read(log_probs.values);
        let mut rest = values.as_slice();
        for (place, length) in places.into_iter().zip(log_probs.lengths) {
            let (row, others) = rest.split_at(length);
            log_likelihoods[place] = row.iter().map(|&value| f64::from(value)).sum();
            rest = others;
        }
    }
    world.all_reduce(&mut log_likelihoods);
    let (mut sum, mut all, mut perplexity) = (0.0, TargetSize::default(), 0.0);
    for (row, log_likelihood) in rows.iter().zip(log_likelihoods) {
        let size = objective.size(&row.target)?;
        sum -= log_likelihood;
        all += size;
        perplexity += (-log_likelihood / size.choices as f64).exp().min(f64::from(f32::MAX));
    }
    Ok(Likelihood {
        loss: sum / objective.terms(all) as f64,
        perplexity: perplexity / rows.len() as f64,
        choice_loss: sum / all.choices as f64,
        rows: rows.len(),
    })
}

/// Prompts, thoughts and targets of some examples: the log-probabilities of the targets' predicted tokens.
///
/// # Errors
///
/// See [`LatentRecommender::prefill`] and [`LatentRecommender::target_log_probs`].
pub fn forward(
    model: &LatentRecommender,
    objective: &Objective,
    rows: &[&Example],
) -> Result<TargetLogProbs, TrainError> {
    let prefix = shared_prefix(model, rows)?;
    forward_after(&model.with_joined_projections(), objective, prefix.as_ref(), rows)
}

/// The validation of a stage that selects by the [`likelihood`] of its examples.
///
/// # Errors
///
/// See [`likelihood`].
pub(crate) fn validate(
    model: &LatentRecommender,
    objective: &Objective,
    examples: &[Example],
    pass: &ValidationPass,
) -> Result<Option<Validation>, TrainError> {
    Ok(Some(likelihood(model, objective, examples, pass)?.validation(objective)))
}

/// Numbers of the rows whose targets' log-likelihood is not finite; of all rows where it is for each of them, so that
/// only the noise or the backward pass can tell.
pub(crate) fn unlikely_rows(
    model: &LatentRecommender,
    objective: &Objective,
    rows: &[&Example],
) -> Result<Vec<usize>, TrainError> {
    let model = model.valid();
    let mut unlikely = Vec::new();
    for row in rows {
        let values = host::read(forward_after(&model, objective, None, &[row])?.values);
        if values.iter().any(|value| !value.is_finite()) {
            unlikely.push(row.row);
        }
    }
    Ok(if unlikely.is_empty() { rows.iter().map(|row| row.row).collect() } else { unlikely })
}

/// [`forward`] of examples whose prompts all begin with `prefix`, which has run.
///
/// # Errors
///
/// See [`forward`]; also a prompt that does not begin with `prefix`.
pub(crate) fn forward_after(
    model: &LatentRecommender,
    objective: &Objective,
    prefix: Option<&SharedPrefix>,
    rows: &[&Example],
) -> Result<TargetLogProbs, TrainError> {
    let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
    let mut state = model.backbone.prefill_after(prefix, &prompts(rows))?;
    let thought = model.think(&mut state)?;
    Ok(model.target_log_probs(&state, thought, &targets, objective)?)
}

/// The prefix that the prompts of some examples share, run once; nothing where a rank has no example, or where the model
/// runs it along with them.
///
/// # Errors
///
/// See [`LatentRecommender::prefill`].
pub(crate) fn shared_prefix(model: &LatentRecommender, rows: &[&Example]) -> Result<Option<SharedPrefix>, TrainError> {
    if rows.is_empty() {
        return Ok(None);
    }
    Ok(model.backbone.prefix_ahead(&prompts(rows))?)
}

/// The prompts of some examples.
pub(crate) fn prompts<'a>(rows: &[&'a Example]) -> Vec<&'a [u32]> {
    rows.iter().map(|row| row.prompt.as_slice()).collect()
}
