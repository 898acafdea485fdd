//! Collaborative models that guide stage 2.

use super::error::RunError;
use super::guidance::GuideSource;
use crate::data::{Prepared, Split};
use crate::eval::{CollaborativeModel, TransitionChoices, Transitions};
use crate::train::grpo::ItemGuide;
use crate::train::{Example, TrainError};

/// A collaborative model that judges training rows.
struct Collaborative {
    model: Model,
    /// The history of each training row.
    histories: Vec<Vec<usize>>,
}

enum Model {
    /// They come from the training rows; each row is judged by the counts of all others.
    Counts(Transitions),
    Other(Box<dyn CollaborativeModel>),
}

/// The guide `transition`, whose weights are chosen on validation, or a SASRec run.
pub(super) fn item_guide(
    source: &str,
    prepared: &Prepared,
    device: &str,
    seed: u64,
) -> Result<Box<dyn ItemGuide>, RunError> {
    let model = match GuideSource::from(source) {
        GuideSource::Transition => {
            let (config, _) = TransitionChoices::default().choose(prepared, seed);
            Model::Counts(Transitions::new(prepared, config))
        }
        run => Model::Other(run.open(prepared, None, device)?),
    };
    let histories = prepared.rows.get(Split::Train).iter().map(|row| row.history.clone()).collect();
    Ok(Box::new(Collaborative { model, histories }))
}

impl ItemGuide for Collaborative {
    fn log_probs(&self, example: &Example) -> Result<Vec<f32>, TrainError> {
        let history = &self.histories[example.row];
        match &self.model {
            Model::Counts(counts) => {
                let probabilities = counts.probabilities_without(history, example.item);
                Ok(probabilities.into_iter().map(|probability| probability.ln() as f32).collect())
            }
            Model::Other(model) => Ok(model.log_probs(&[history])?.swap_remove(0)),
        }
    }
}
