//! Stage 1: supervised fine-tuning of backbone and latent attention together.
//!
//! The same step pretrains a new model: the beginning of the template as prompt, the titles of a history as target, no thought.

use latentr3_models::backbone::Cut;
use latentr3_models::{LatentRecommender, Objective, ObjectiveKind};
use serde_json::{Map, json};

use crate::TrainError;
use crate::batches::micro_batches;
use crate::gradients::Gradients;
use crate::likelihood::{common_head, target_log_probs};
use crate::optimizer::{Applied, Optimizer};
use crate::progress::StepReport;
use crate::share_update::ShareUpdate;
use crate::trainer::Stage;
use crate::workers::Share;

/// The supervised stage.
#[derive(Debug, Clone)]
pub struct Sft {
    /// Rows that run through the model at once.
    pub micro_batch: usize,
    /// What the targets' tokens compete with.
    pub objective: Objective,
}

impl Sft {
    /// A share's part of an update: the figure `loss` is its part of the mean negative log-likelihood over all target tokens of the batch,
    /// or with the catalog's objective over all of its titles.
    ///
    /// # Errors
    ///
    /// Tokens outside the model's vocabulary, an empty row, or a target that is no title of the objective's catalog.
    pub fn update(&self, model: &LatentRecommender, share: &Share) -> Result<ShareUpdate, TrainError> {
        let terms = self.objective.terms(share.target_size(&self.objective)?);
        let mut total = ShareUpdate::with_figures(["loss"], &model.device());
        // What all prompts begin with runs once, forward and, when all micro-batches are done, backward.
        let mut head = common_head(model, &share.rows)?.map(Cut::new);
        for places in micro_batches(&share.rows, self.micro_batch) {
            let rows: Vec<_> = places.into_iter().map(|place| share.rows[place]).collect();
            let log_probs = target_log_probs(model, &self.objective, head.as_ref().map(Cut::head), &rows)?;
            let loss = log_probs.values.sum().neg().div_scalar(terms as f64);
            let mut tape = loss.backward();
            if let Some(head) = &mut head {
                head.collect(&mut tape);
            }
            total.gradients.add(Gradients::collect(model, tape));
            total.figures.add("loss", loss.inner());
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
        let update = self.update(&model, share)?;
        let (model, Applied { figures, norm, fault }) = optimizer.apply(model, update, share.workers);
        let (_, loss) = figures[0];
        let mut metrics = Map::from_iter([("loss".into(), json!(loss)), ("gradient_norm".into(), json!(norm))]);
        if self.objective.kind() == ObjectiveKind::Catalog {
            let size = share.target_size(&self.objective)?;
            let choice_loss = loss * self.objective.terms(size) as f64 / size.choices as f64;
            metrics.insert("choice_perplexity".into(), json!(choice_loss.exp()));
        }
        Ok((model, StepReport { headline: loss, metrics, fault, watched: None }))
    }
}
