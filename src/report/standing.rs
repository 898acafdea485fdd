//! Where a run stands, whatever it trains.

use std::path::Path;

use crate::input_error::InputError;
use crate::models::files::read_json;
use crate::run::RunError;
use crate::train::{Progress, RunPaths};

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Steps done.
    pub done: usize,
    /// Step of the best validation.
    pub best_at: Option<usize>,
    /// The best validation.
    pub best: Option<Best>,
    /// Whether the run is over.
    pub finished: bool,
    /// Why it was stopped early, if it was.
    pub stopped: Option<String>,
    /// Seconds of training so far.
    pub seconds: f64,
}

/// The metrics by which a run chose its best model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Best {
    /// Of a language model: mean negative log-likelihood, per item or with the objective `vocabulary` per token, and
    /// the targets' mean perplexity.
    Loss {
        /// The one that counts.
        loss: f64,
        /// Beside it.
        perplexity: f64,
    },
    /// Of SASRec.
    Ndcg10(f64),
}

impl Standing {
    /// Reads a run's last checkpoint; nothing before there is one.
    ///
    /// # Errors
    ///
    /// The file is damaged.
    pub(super) fn read(run: &Path) -> Result<Option<Self>, RunError> {
        let file = RunPaths(run).progress();
        if !file.exists() {
            return Ok(None);
        }
        let progress: Progress = serde_json::from_value(read_json(&file)?).map_err(|error| {
            InputError::new(&file, format!("is damaged or was written by another version: {error}"))
        })?;
        let Progress { step, best, best_step, finished, stopped, seconds, .. } = progress;
        let best = best.map(|best| match (best.metric("valid_loss"), best.metric("valid_perplexity")) {
            (Some(loss), Some(perplexity)) => Best::Loss { loss, perplexity },
            _ => Best::Ndcg10(best.score),
        });
        Ok(Some(Self { done: step, best_at: best_step, best, finished, stopped, seconds }))
    }
}
