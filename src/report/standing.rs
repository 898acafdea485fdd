//! Where a run stands, whatever it trains.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::ReportError;
use crate::models::hub::read_json;
use crate::train::sasrec::SasRecProgress;
use crate::train::{Progress, RunPaths};

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Steps done; of SASRec, epochs.
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

/// The figures by which a run chose its best model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Best {
    /// Of a language model: mean negative log-likelihood of a target token, and the targets' mean perplexity.
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
    pub(super) fn read(run: &Path, stage: &str) -> Result<Option<Self>, ReportError> {
        let file = RunPaths(run).progress();
        if !file.exists() {
            return Ok(None);
        }
        let standing = if stage == "sasrec" {
            let SasRecProgress { epoch, best, finished, seconds, .. } = progress(&file)?;
            let (best_at, best) = best.map(|(epoch, ndcg)| (epoch, Best::Ndcg10(ndcg))).unzip();
            Self { done: epoch, best_at, best, finished, stopped: None, seconds }
        } else {
            let Progress { step, best, best_step, finished, stopped, seconds, .. } = progress(&file)?;
            let best = best.map(|best| Best::Loss { loss: best.loss, perplexity: best.perplexity });
            Self { done: step, best_at: best_step, best, finished, stopped, seconds }
        };
        Ok(Some(standing))
    }
}

fn progress<P: DeserializeOwned>(file: &Path) -> Result<P, ReportError> {
    serde_json::from_value(read_json(file)?)
        .map_err(|error| ReportError::input(file, None, format!("is damaged or of another version: {error}")))
}
