//! A shop's folder: the model that was chosen, why, and all that it needs to recommend.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::candidate::Candidate;
use crate::data::RawConfig;
use crate::eval::compare::mean_and_error;
use crate::eval::{Evaluation, Metric, TransitionConfig};
use crate::input_error::InputError;
use crate::models::files::{read_json, write_json};
use crate::run::{ChosenGuidance, RunError};

/// The file that makes a folder a shop's.
const FILE: &str = "shop.json";

/// A shop's folder; `shop.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shop {
    /// Version of the program that made it.
    pub latentr3: String,
    /// How interactions were read and split; absent for rows with histories, which are used as they are.
    pub columns: Option<RawConfig>,
    /// What recommends.
    pub chosen: Candidate,
    /// Why.
    pub why: String,
    /// All models that were tried.
    pub models: Vec<FittedModel>,
    /// Whether the chosen model was trained once more on all interactions, after its metrics were found.
    pub refitted: bool,
    /// Whether what a user has chosen before is left out of the lists.
    pub exclude_history: bool,
    /// The prepared data that it recommends from, within the folder, as the other paths are.
    pub data: PathBuf,
    /// How transitions are counted.
    pub transition: TransitionConfig,
    /// The language model, where there is one; it answers where the chosen model knows nothing of a title.
    pub language_model: Option<PathBuf>,
    /// SASRec, where there is one.
    pub sasrec: Option<PathBuf>,
    /// Guidance of the language model, if that was chosen; a SASRec guide is the one in `sasrec`.
    pub guidance: Option<ChosenGuidance>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A model that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FittedModel {
    /// The model.
    pub model: Candidate,
    /// On validation users.
    pub valid: Metrics,
    /// On test users.
    pub test: Metrics,
}

/// How well a model ranks some users' items, with 95% confidence intervals over the users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Number of users.
    pub users: usize,
    /// HR@10.
    #[serde(rename = "hr@10")]
    pub hr_10: f64,
    /// Its interval.
    #[serde(rename = "hr@10_interval")]
    pub hr_10_interval: [f64; 2],
    /// NDCG@10.
    #[serde(rename = "ndcg@10")]
    pub ndcg_10: f64,
    /// Its interval.
    #[serde(rename = "ndcg@10_interval")]
    pub ndcg_10_interval: [f64; 2],
}

impl Metrics {
    pub(super) fn of(evaluation: &Evaluation) -> Self {
        let of = |metric: Metric| {
            let (_, error) = mean_and_error(&evaluation.ranks, |row| metric.gain(row.rank));
            let (mean, half) = (evaluation.mean(metric), 1.96 * error.unwrap_or(0.0));
            (mean, [(mean - half).max(0.0), (mean + half).min(1.0)])
        };
        let ((hr_10, hr_10_interval), (ndcg_10, ndcg_10_interval)) = (of(Metric::Hr(10)), of(Metric::Ndcg(10)));
        Self { users: evaluation.distinct_users(), hr_10, hr_10_interval, ndcg_10, ndcg_10_interval }
    }
}

impl Shop {
    /// The file that makes a folder a shop's.
    pub fn file(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Whether a folder is a shop's.
    pub fn is_one(folder: &Path) -> bool {
        Self::file(folder).is_file()
    }

    /// Reads a shop's folder; its paths are the folder's.
    ///
    /// # Errors
    ///
    /// It is no shop's, or damaged.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let path = Self::file(folder);
        let damaged = |error: serde_json::Error| InputError::new(&path, format!("is damaged: {error}"));
        let mut shop: Self = serde_json::from_value(read_json(&path)?).map_err(damaged)?;
        let within = |path: &Path| path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let paths = [Some(&mut shop.data), shop.language_model.as_mut(), shop.sasrec.as_mut()];
        for path in paths.into_iter().flatten() {
            if !within(path) {
                let problem = format!("`{}` is outside the folder", path.display());
                return Err(InputError::new(&path, problem).into());
            }
            *path = folder.join(&*path);
        }
        Ok(shop)
    }

    /// Writes the file; the paths are relative to the folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), RunError> {
        Ok(write_json(&Self::file(folder), self)?)
    }

    /// The metrics of a model that was tried.
    pub fn model(&self, model: Candidate) -> Option<&FittedModel> {
        self.models.iter().find(|fitted| fitted.model == model)
    }
}
