//! The log-probabilities of a token file's targets.

use std::path::PathBuf;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::error::RunError;
use super::model_folder::load_model;
use crate::data::TokenFile;
use crate::models::{LatentRecommender, ModelError, Objective, ObjectiveKind, host};
use crate::train::Example;

/// Which targets to score, and by what.
#[derive(Debug, Clone)]
pub struct ScoreRequest {
    /// Hugging Face folder or run folder.
    pub model: PathBuf,
    /// The token file.
    pub tokens: PathBuf,
    /// A token file with the catalog, for the objective `catalog` where `tokens` has none.
    pub catalog: Option<PathBuf>,
    /// What the model is read by, if not by the objective that it was trained for.
    pub objective: Option<ObjectiveKind>,
    /// Rows that run through the model at once; changes memory and speed, and results by rounding only.
    pub micro_batch: usize,
    /// Where to compute.
    pub device: String,
}

/// How likely a model finds a target after its prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetScore {
    /// The log-probability of each token of the target; 0 for one that the objective leaves no choice.
    pub log_probs: Vec<f64>,
    /// Their sum.
    pub sum: f64,
    /// The sum divided by the number of tokens that were predicted.
    pub mean: f64,
}

/// A model and the rows that it scores.
pub struct Scorer {
    model: LatentRecommender,
    objective: Objective,
    file: TokenFile,
    micro_batch: usize,
}

impl ScoreRequest {
    /// Loads the model and the rows.
    ///
    /// # Errors
    ///
    /// A model, file or catalog that cannot be read, or rows that do not fit the model or the catalog.
    pub fn open(&self) -> Result<Scorer, RunError> {
        let file = TokenFile::read(&self.tokens)?;
        let model = load_model(&self.model, &self.device)?.valid();
        let kind = self.objective.unwrap_or(model.objective());
        let objective = file.objective(self.catalog.as_deref(), kind, &model.backbone)?;
        file.check(&model, &objective)?;
        Ok(Scorer { model, objective, file, micro_batch: self.micro_batch.max(1) })
    }
}

impl Scorer {
    /// What the model was trained for, and what it is read by.
    pub fn objectives(&self) -> (ObjectiveKind, ObjectiveKind) {
        (self.model.objective(), self.objective.kind())
    }

    /// The rows' scores in their order, those of a micro-batch at a time; each is computed when it is asked for.
    ///
    /// # Errors
    ///
    /// Log-probabilities that are NaN or infinite.
    pub fn scores(&self) -> impl Iterator<Item = Result<Vec<TargetScore>, RunError>> {
        self.file.rows.chunks(self.micro_batch).map(|rows| Ok(self.score(rows)?))
    }

    fn score(&self, rows: &[Example]) -> Result<Vec<TargetScore>, ModelError> {
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
        let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
        let mut state = self.model.prefill(&prompts)?;
        let thought = self.model.think(&mut state)?;
        let log_probs = self.model.target_log_probs(&state, thought, &targets, &self.objective)?;
        let values = host::read(log_probs.values);
        let mut rest = values.as_slice();
        let mut scores = Vec::with_capacity(rows.len());
        for (target, length) in targets.into_iter().zip(log_probs.lengths) {
            let (predicted, others) = rest.split_at(length);
            rest = others;
            let mut log_probs = vec![0.0; target.len()];
            for (place, &value) in self.objective.predicted(target)?.into_iter().zip(predicted) {
                log_probs[place] = f64::from(value);
            }
            let sum: f64 = log_probs.iter().sum();
            if !sum.is_finite() {
                return Err(ModelError::NotFinite("log-probabilities"));
            }
            scores.push(TargetScore { log_probs, sum, mean: sum / length as f64 });
        }
        Ok(scores)
    }
}
