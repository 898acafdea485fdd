//! A collaborative model as a reward of stage 2.

use std::sync::{Mutex, PoisonError};

use super::error::RunError;
use super::guidance::GuideSource;
use crate::data::{Prepared, Split};
use crate::eval::{CollaborativeModel, TransitionChoices, Transitions};
use crate::train::grpo::{Reward, Sample};
use crate::train::{Example, TrainError};

/// The log-probability of an item by a collaborative model, summed over the items of its title.
pub(super) struct GuideReward {
    model: Model,
    /// The history of each training row.
    histories: Vec<Vec<usize>>,
    /// The last row that was asked for, with the log-probabilities of all items.
    last: Mutex<Option<(usize, Vec<f32>)>>,
}

enum Model {
    /// They come from the training rows; each row is judged by the counts of all others.
    Counts(Transitions),
    Other(Box<dyn CollaborativeModel>),
}

impl GuideReward {
    /// The reward by `transition`, whose weights are chosen on validation, or by a SASRec run.
    pub fn open(source: &str, prepared: &Prepared, device: &str, seed: u64) -> Result<Self, RunError> {
        let model = match GuideSource::from(source) {
            GuideSource::Transition => {
                let (config, _) = TransitionChoices::default().choose(prepared, seed);
                Model::Counts(Transitions::new(prepared, config))
            }
            run => Model::Other(run.open(prepared, None, device)?),
        };
        let histories = prepared.rows.get(Split::Train).iter().map(|row| row.history.clone()).collect();
        Ok(Self { model, histories, last: Mutex::new(None) })
    }

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

impl Reward for GuideReward {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let row = sample.example.row;
        if last.as_ref().is_none_or(|(of, _)| *of != row) {
            *last = Some((row, self.log_probs(sample.example)?));
        }
        let known = last.as_ref().map(|(_, log_probs)| log_probs.as_slice()).unwrap_or_default();
        let probability = |item: &u32| f64::from(known[*item as usize]).exp();
        Ok(sample.item()?.items.iter().map(probability).sum::<f64>().ln())
    }
}
