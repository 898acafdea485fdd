//! Stage 1: supervised fine-tuning of backbone and latent attention together.
//!
//! The same step pretrains a new model: the beginning of the template as prompt, the titles of a history as target, no
//! thought.

use latentr3_models::backbone::{DetachedPrefix, Dropout};
use latentr3_models::{LatentRecommender, LogitSpread, Objective, ObjectiveKind, TargetSize};
use serde_json::json;

use crate::forward::{forward_after, shared_prefix, unlikely_rows, validate};
use crate::local_update::LocalUpdate;
use crate::optimizer::Optimizer;
use crate::progress::{StepReport, Validation};
use crate::regularization::Regularization;
use crate::stage::{Stage, ValidationPass};
use crate::temperature::{Temperature, moved};
use crate::world::LocalBatch;
use crate::{Example, TrainError};

/// The metrics of a [`LogitSpread`], in the order of its fields.
const SPREAD: [&str; 4] = ["spread_rows", "spread_gap", "spread_variance", "spread_children"];

/// The supervised stage.
#[derive(Debug, Clone)]
pub struct Sft {
    /// Rows that run through the model at once.
    pub micro_batch: usize,
    /// What the targets' tokens compete with.
    pub objective: Objective,
    /// By what their logits are divided in the loss, for the catalog's objective.
    pub temperature: Temperature,
    /// What keeps the model from over-fitting.
    pub regularization: Regularization,
    /// Seed of the dropout.
    pub seed: u64,
}

impl Sft {
    /// The stage at temperature 1, without regularization.
    pub fn new(micro_batch: usize, objective: Objective) -> Self {
        let (temperature, regularization) = (Temperature::default(), Regularization::default());
        Self { micro_batch, objective, temperature, regularization, seed: 0 }
    }

    /// A rank's part of an update. The metric `loss` is its part of what is minimised: the mean negative log-likelihood
    /// over all target tokens of the batch, or with the catalog's objective over all of its titles. Dropout, that of
    /// step 0, temperature and label smoothing are in it.
    ///
    /// # Errors
    ///
    /// Tokens outside the model's vocabulary, an empty row, or a target that is no title of the objective's catalog.
    pub fn update(&self, model: &LatentRecommender, batch: &LocalBatch) -> Result<LocalUpdate, TrainError> {
        self.update_at(0, self.temperature.now(None), batch.target_size(&self.objective)?, model, batch)
    }

    /// [`Self::update`] of a step at a temperature, with the sums of [`LogitSpread`] as further metrics where it
    /// adapts.
    fn update_at(
        &self,
        step: usize,
        temperature: f64,
        size: TargetSize,
        model: &LatentRecommender,
        batch: &LocalBatch,
    ) -> Result<LocalUpdate, TrainError> {
        let adapts = self.temperature == Temperature::Adaptive;
        let Regularization { dropout, attention_dropout, label_smoothing } = self.regularization;
        let objective = self.objective.at_temperature(temperature, adapts).with_label_smoothing(label_smoothing);
        let drops = dropout > 0.0 || attention_dropout > 0.0;
        let dropout = drops.then(|| Dropout::new(dropout, attention_dropout, self.seed, step));
        let terms = self.objective.terms(size);
        let names = ["loss"].into_iter().chain(SPREAD.into_iter().filter(|_| adapts));
        let mut total = LocalUpdate::default().with_metrics(names);
        // What all prompts begin with runs once, forward and, when all micro-batches are done, backward, unless the model
        // runs it along with each of them.
        let dropped = |dropout: Option<Dropout>| dropout.map_or_else(|| model.clone(), |d| model.with_dropout(d));
        // It is that of all ranks, so that dropout sets the same values to zero for any number of them.
        let shared = if batch.rows.is_empty() { &batch.rows } else { &batch.global };
        let mut prefix = shared_prefix(&dropped(dropout.clone()), shared)?.map(DetachedPrefix::new);
        for rows in batch.micro_batches(self.micro_batch) {
            let dropout = dropout.as_ref().map(|dropout| dropout.of_rows(rows.iter().map(|row| row.row)));
            let model_of_pass = dropped(dropout).with_joined_projections();
            let log_probs =
                forward_after(&model_of_pass, &objective, prefix.as_ref().map(DetachedPrefix::prefix), &rows)?;
            let sum = log_probs.total();
            let sum = log_probs.smoothing.into_iter().fold(sum, |sum, smoothing| sum + smoothing);
            let loss = sum.neg().div_scalar(terms as f64);
            let mut tape = loss.backward();
            if let Some(prefix) = &mut prefix {
                prefix.collect(&mut tape);
            }
            total.add_gradients(model, tape);
            total.metrics.add("loss", loss);
            if adapts {
                let LogitSpread { rows, gap, variance, children } = log_probs.spread;
                SPREAD
                    .into_iter()
                    .zip([rows, gap, variance, children])
                    .for_each(|(name, value)| total.metrics.add_value(name, value));
            }
        }
        if let Some(tape) = prefix.and_then(DetachedPrefix::backward) {
            total.add_gradients(model, tape);
        }
        Ok(total)
    }
}

impl Stage<LatentRecommender> for Sft {
    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &LocalBatch,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let temperature = self.temperature.now(optimizer.temperature);
        let size = batch.target_size(&self.objective)?;
        let update = self.update_at(optimizer.step, temperature, size, &model, batch)?;
        let (model, mut report) = optimizer.apply(model, update, batch)?;
        let spread = SPREAD.map(|name| report.metrics.shift_remove(name).and_then(|value| value.as_f64()));
        if self.objective.kind() == ObjectiveKind::Catalog {
            // Otherwise the loss is no likelihood.
            if temperature == 1.0 && self.regularization.label_smoothing == 0.0 {
                let choice_loss = report.headline * self.objective.terms(size) as f64 / size.choices as f64;
                report.metrics.insert("choice_perplexity".into(), json!(choice_loss.exp()));
            }
            if self.temperature != Temperature::default() {
                report.metrics.insert("temperature".into(), json!(temperature));
            }
        }
        if let [Some(rows), Some(gap), Some(variance), Some(children)] = spread
            && report.fault.is_none()
        {
            optimizer.temperature = Some(moved(temperature, LogitSpread { rows, gap, variance, children }));
        }
        Ok((model, report))
    }

    fn validate(
        &self,
        model: &LatentRecommender,
        rows: &[Example],
        pass: &ValidationPass,
    ) -> Result<Option<Validation>, TrainError> {
        validate(model, &self.objective, rows, pass)
    }

    fn suspects(&self, model: &LatentRecommender, rows: &[&Example]) -> Result<Vec<usize>, TrainError> {
        unlikely_rows(model, &self.objective, rows)
    }
}
