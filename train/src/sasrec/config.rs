//! What is asked of a run.

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::TrainConfig;
use crate::schedule::Schedule;

/// The loss at the end of each history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum SasRecLoss {
    /// Cross-entropy over the whole catalog.
    #[default]
    Softmax,
    /// Binary cross-entropy of the next item and one negative, drawn uniformly from the items outside the history (as
    /// published, arXiv 1808.09781)
    Bce,
}

/// How the model trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SasRecTrainConfig {
    /// Maximum number of passes over the training rows.
    pub epochs: usize,
    /// Rows per step.
    pub batch: usize,
    /// Learning rate, constant.
    pub learning_rate: f64,
    /// Stop after this many epochs without a better validation.
    pub patience: usize,
    /// Loss to minimise.
    pub loss: SasRecLoss,
    /// Seed of the shuffling and of dropout.
    pub seed: u64,
}

impl Default for SasRecTrainConfig {
    /// The learning rate is the paper's (arXiv 1808.09781).
    fn default() -> Self {
        Self { epochs: 300, batch: 256, learning_rate: 1e-3, patience: 10, loss: SasRecLoss::Softmax, seed: 0 }
    }
}

impl SasRecTrainConfig {
    /// As the loop takes it: a validation after each epoch, no warm-up, no clipping.
    pub fn training(&self) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs,
            batch: self.batch,
            micro_batch: self.batch,
            learning_rate: self.learning_rate,
            schedule: Schedule::Constant,
            warmup: Some(0),
            clip_norm: f64::from(f32::MAX),
            validations: 1,
            patience: Some(self.patience),
            checkpoint_every: usize::MAX,
            seed: self.seed,
            ..Default::default()
        }
    }

    /// Makes sure that every value makes sense.
    ///
    /// # Errors
    ///
    /// A value that makes no sense; the message names it.
    pub fn check(&self) -> Result<(), TrainError> {
        self.training().check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        let refused = |change: fn(&mut SasRecTrainConfig)| {
            let mut config = SasRecTrainConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(refused(|config| config.batch = 0).contains("batch"));
        assert!(refused(|config| config.patience = 0).contains("patience"));
        assert!(refused(|config| config.learning_rate = f64::NAN).contains("learning_rate"));
    }
}
