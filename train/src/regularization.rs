//! What keeps a model from over-fitting while it trains.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// What keeps stage 1's model from over-fitting; a validation knows none of it. What drops values out is a
/// [`Dropout`](latentr3_models::backbone::Dropout).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args), command(next_help_heading = "Regularization"))]
pub struct Regularization {
    /// Dropout rate on the embeddings and on the output of each attention and MLP [default: 0; 0.1 for a model from
    /// scratch].
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true))]
    pub dropout: f64,
    /// Dropout rate on the attention weights.
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", default_value_t = 0.0))]
    pub attention_dropout: f64,
    /// Label smoothing with the objective `catalog`: fraction of a choice's probability spread evenly over all of its
    /// tokens.
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", default_value_t = 0.0))]
    pub label_smoothing: f64,
}

impl Regularization {
    /// Makes sure that all are shares below 1.
    ///
    /// # Errors
    ///
    /// One that is none; the message names it.
    pub fn check(&self) -> Result<(), TrainError> {
        check_share("dropout", self.dropout)?;
        check_share("attention_dropout", self.attention_dropout)?;
        check_share("label_smoothing", self.label_smoothing)
    }
}

/// Makes sure that a value is a share below 1.
pub(crate) fn check_share(field: &'static str, value: f64) -> Result<(), TrainError> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(TrainError::config(field, format!("must be at least 0 and below 1, got {value:?}"))),
    }
}
