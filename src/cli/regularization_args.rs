//! The options against over-fitting.

use clap::Args;

use super::CliError;
use crate::run::Augmentation;
use crate::train::Regularization;

/// What keeps a model from over-fitting while it trains.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Against over-fitting")]
pub(super) struct RegularizationArgs {
    /// Share of the values that are set to zero, of the embeddings and of what each attention and MLP adds
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    dropout: f64,
    /// Share of each choice's probability that all its tokens have alike in the loss, with the objective `catalog`
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    label_smoothing: f64,
}

/// How the histories of training rows are changed.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Against over-fitting")]
pub(super) struct AugmentationArgs {
    /// Leave each title of a training row's history out with this probability, anew in each epoch
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.0)]
    drop_history: f64,
    /// Let each title of a training row's history change places with the next one with this probability
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.0)]
    swap_history: f64,
}

impl RegularizationArgs {
    pub fn config(&self) -> Result<Regularization, CliError> {
        let config = Regularization { dropout: self.dropout, label_smoothing: self.label_smoothing };
        config.check()?;
        Ok(config)
    }
}

impl AugmentationArgs {
    pub fn config(&self) -> Result<Augmentation, CliError> {
        let config = Augmentation { drop: self.drop_history, swap: self.swap_history };
        config.check().map_err(CliError::Usage)?;
        Ok(config)
    }
}
