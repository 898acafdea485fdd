//! Stage 1: supervised fine-tuning of backbone and latent attention together.
//!
//! The same step pretrains a new model: the beginning of the template as prompt, the titles of a history as target, no thought.

use burn::tensor::Tensor;
use latentr3_models::backbone::Cut;
use latentr3_models::{LatentRecommender, LogitSpread, Objective, ObjectiveKind, TargetSize};
use serde_json::{Map, json};

use crate::TrainError;
use crate::batches::micro_batches;
use crate::gradients::Gradients;
use crate::likelihood::{common_head, target_log_probs};
use crate::optimizer::{Applied, Optimizer};
use crate::progress::StepReport;
use crate::share_update::ShareUpdate;
use crate::temperature::{Temperature, moved};
use crate::trainer::Stage;
use crate::workers::Share;

/// The figures of a [`LogitSpread`], in the order of its fields.
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
}

impl Sft {
    /// The stage at temperature 1.
    pub fn new(micro_batch: usize, objective: Objective) -> Self {
        Self { micro_batch, objective, temperature: Temperature::default() }
    }

    /// A share's part of an update: the figure `loss` is its part of the mean negative log-likelihood over all target tokens of the batch,
    /// or with the catalog's objective over all of its titles.
    ///
    /// # Errors
    ///
    /// Tokens outside the model's vocabulary, an empty row, or a target that is no title of the objective's catalog.
    pub fn update(&self, model: &LatentRecommender, share: &Share) -> Result<ShareUpdate, TrainError> {
        self.update_at(self.temperature.now(None), share.target_size(&self.objective)?, model, share)
    }

    /// [`Self::update`] at a temperature, with the sums of [`LogitSpread`] as further figures where it adapts.
    fn update_at(
        &self,
        temperature: f64,
        size: TargetSize,
        model: &LatentRecommender,
        share: &Share,
    ) -> Result<ShareUpdate, TrainError> {
        let adapts = self.temperature == Temperature::Adaptive;
        let objective = self.objective.at_temperature(temperature, adapts);
        let terms = self.objective.terms(size);
        let names = ["loss"].into_iter().chain(SPREAD.into_iter().filter(|_| adapts));
        let mut total = ShareUpdate::with_figures(names, &model.device());
        // What all prompts begin with runs once, forward and, when all micro-batches are done, backward.
        let mut head = common_head(model, &share.rows)?.map(Cut::new);
        for places in micro_batches(&share.rows, self.micro_batch) {
            let rows: Vec<_> = places.into_iter().map(|place| share.rows[place]).collect();
            let log_probs = target_log_probs(model, &objective, head.as_ref().map(Cut::head), &rows)?;
            let loss = log_probs.values.sum().neg().div_scalar(terms as f64);
            let mut tape = loss.backward();
            if let Some(head) = &mut head {
                head.collect(&mut tape);
            }
            total.gradients.add(Gradients::collect(model, tape));
            total.figures.add("loss", loss.inner());
            if adapts {
                let LogitSpread { rows, gap, variance, children } = log_probs.spread;
                for (name, value) in SPREAD.into_iter().zip([rows, gap, variance, children]) {
                    total.figures.add(name, Tensor::from_data([value as f32], &model.device()));
                }
            }
        }
        if let Some(tape) = head.and_then(Cut::backward) {
            total.gradients.add(Gradients::collect(model, tape));
        }
        Ok(total)
    }
}

impl Stage for Sft {
    fn objective(&self) -> &Objective {
        &self.objective
    }

    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        share: &Share,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let temperature = self.temperature.now(optimizer.temperature);
        let size = share.target_size(&self.objective)?;
        let update = self.update_at(temperature, size, &model, share)?;
        let (model, Applied { figures, norm, fault }) = optimizer.apply(model, update, share.workers);
        let (_, loss) = figures[0];
        let mut metrics = Map::from_iter([("loss".into(), json!(loss)), ("gradient_norm".into(), json!(norm))]);
        if self.objective.kind() == ObjectiveKind::Catalog {
            let choice_loss = loss * self.objective.terms(size) as f64 / size.choices as f64;
            metrics.insert("choice_perplexity".into(), json!(choice_loss.exp()));
            if self.temperature != Temperature::default() {
                metrics.insert("temperature".into(), json!(temperature));
            }
        }
        if let [_, (_, rows), (_, gap), (_, variance), (_, children)] = figures[..]
            && fault.is_none()
        {
            optimizer.temperature = Some(moved(temperature, LogitSpread { rows, gap, variance, children }));
        }
        Ok((model, StepReport { headline: loss, metrics, fault, watched: None }))
    }
}
