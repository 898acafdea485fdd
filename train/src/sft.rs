//! Stage 1: supervised fine-tuning of backbone and latent attention together.
//!
//! The same step pretrains a new model: the beginning of the template as prompt, a history's text as target, no thought.

use burn::tensor::Tensor;
use latentr3_models::LatentRecommender;
use latentr3_models::backbone::Cut;
use serde_json::{Map, json};

use crate::TrainError;
use crate::batches::micro_batches;
use crate::gradients::Gradients;
use crate::likelihood::{common_head, target_log_probs};
use crate::optimizer::{Applied, Optimizer};
use crate::progress::StepReport;
use crate::trainer::Stage;
use crate::workers::Share;

/// The supervised stage.
#[derive(Debug, Clone, Copy)]
pub struct Sft {
    /// Rows that run through the model at once.
    pub micro_batch: usize,
}

/// Loss and gradients of one worker's share of a batch.
#[derive(Debug)]
pub struct BatchGradients {
    /// Negative log-likelihood of the share's target tokens, divided by the number of the batch's, `[1]`. All shares
    /// together add up to the mean over the batch.
    pub loss: Tensor<1>,
    /// The loss's gradients.
    pub gradients: Gradients,
}

impl Sft {
    /// A share's part of the mean negative log-likelihood over all target tokens of the batch, and its gradients.
    ///
    /// # Errors
    ///
    /// Tokens outside the model's vocabulary, or an empty row.
    pub fn gradients(&self, model: &LatentRecommender, share: &Share) -> Result<BatchGradients, TrainError> {
        let loss = Tensor::zeros([1], &model.device());
        let mut total = BatchGradients { loss, gradients: Gradients::default() };
        // What all prompts begin with runs once, forward and, when all micro-batches are done, backward.
        let mut head = common_head(model, &share.rows)?.map(Cut::new);
        for places in micro_batches(&share.rows, self.micro_batch) {
            let rows: Vec<_> = places.into_iter().map(|place| share.rows[place]).collect();
            let log_probs = target_log_probs(model, head.as_ref().map(Cut::head), &rows)?;
            let loss = log_probs.values.sum().neg().div_scalar(share.target_tokens as f64);
            let mut tape = loss.backward();
            if let Some(head) = &mut head {
                head.collect(&mut tape);
            }
            total.gradients.add(Gradients::collect(model, tape));
            total.loss = total.loss + loss.inner();
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
        share: &Share,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let BatchGradients { loss, gradients } = self.gradients(&model, share)?;
        let (model, applied) = optimizer.apply(model, gradients, vec![("loss", loss)], share.workers);
        let Applied { figures, norm, fault } = applied;
        let metrics = Map::from_iter([("loss".into(), json!(figures[0])), ("gradient_norm".into(), json!(norm))]);
        Ok((model, StepReport { headline: figures[0], metrics, fault, watched: None }))
    }
}
