//! `golden.json`, read and checked.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::GoldenError;
use crate::models::files;

/// The figures as they stand in `golden.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Figures {
    pub prompts: Vec<Vec<u32>>,
    pub targets: Vec<Vec<u32>>,
    pub catalog: Vec<Vec<u32>>,
    pub last_hidden: Value,
    pub thought: Value,
    pub thought_2nd: Value,
    pub target_logps: Value,
    pub target_logps_two_thoughts: Value,
    pub target_logps_no_thought: Value,
    pub sft: SftFigures,
    pub noise: Vec<Value>,
    pub grpo: GrpoFigures,
    pub catalog_scores: Value,
    pub ranking: Vec<Vec<u32>>,
    /// Absent in older folders.
    pub catalog_objective: Option<CatalogFigures>,
}

/// The figures of the catalog's objective.
#[derive(Debug, Deserialize)]
pub(super) struct CatalogFigures {
    /// Of every token of the targets, 0 where the tree allows no other.
    pub target_logps: Value,
    pub loss: f64,
    pub grads: BTreeMap<String, GradientFigures>,
    pub scores: Vec<Vec<f64>>,
    pub ranking: Vec<Vec<u32>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SftFigures {
    pub loss: f64,
    pub grads: BTreeMap<String, GradientFigures>,
}

/// A gradient, or rows of it if its name says so: `NAME rows [1, 2, 3]`.
#[derive(Debug, Deserialize)]
pub(super) struct GradientFigures {
    pub values: Vec<f64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct GrpoFigures {
    pub batch_advantage: UpdateFigures,
    pub group_advantage: UpdateFigures,
    pub clipped_with_kl: UpdateFigures,
    pub clip: [f64; 2],
}

#[derive(Debug, Deserialize)]
pub(super) struct UpdateFigures {
    pub logps: Vec<Vec<f32>>,
    pub reward: Vec<f64>,
    pub baseline: f64,
    pub advantage: Vec<f64>,
    pub old_logps: Option<Vec<Vec<f32>>>,
    pub ref_logps: Option<Vec<Vec<f32>>>,
    pub beta: Option<f64>,
    pub kl: Option<f64>,
    pub loss: f64,
    pub grads: BTreeMap<String, GradientFigures>,
}

impl Figures {
    /// Reads them. There must be as many targets, noise and rollouts as the prompts need, and gradients.
    pub(super) fn read(path: &Path) -> Result<Self, GoldenError> {
        let refused = |problem: String| GoldenError::Figures { path: path.to_owned(), problem };
        let figures: Self =
            serde_json::from_value(files::read_json(path)?).map_err(|error| refused(error.to_string()))?;
        let (rows, rollouts) = (figures.prompts.len(), figures.rollouts());
        let fits = |update: &UpdateFigures| {
            update.logps.len() == rollouts && update.advantage.len() == rollouts && !update.grads.is_empty()
        };
        if rows == 0
            || figures.sft.grads.is_empty()
            || figures.targets.len() != rows
            || figures.noise.len() != rows
            || !figures.updates().into_iter().all(fits)
        {
            return Err(refused(
                "its prompts, targets, noise and rollouts differ in number, or it has no gradients".into(),
            ));
        }
        Ok(figures)
    }

    /// Whether each prompt has as many samples of noise of this width, and each sample as many log-probabilities as its
    /// target has tokens.
    pub(super) fn fit(&self, width: usize) -> bool {
        let group = self.rollouts() / self.prompts.len();
        let is_noise = |sample: &Value| sample.as_array().is_some_and(|sample| sample.len() == width);
        let has_noise = |samples: &Value| {
            samples.as_array().is_some_and(|samples| samples.len() == group && samples.iter().all(is_noise))
        };
        let tokens: Vec<usize> =
            self.targets.iter().flat_map(|target| std::iter::repeat_n(target.len(), group)).collect();
        let are_of_targets = |rows: &Vec<Vec<f32>>| rows.iter().map(Vec::len).eq(tokens.iter().copied());
        group > 0
            && self.noise.iter().all(has_noise)
            && self
                .updates()
                .into_iter()
                .flat_map(|update| [Some(&update.logps), update.old_logps.as_ref(), update.ref_logps.as_ref()])
                .flatten()
                .all(are_of_targets)
    }

    fn rollouts(&self) -> usize {
        self.noise.iter().map(|group| group.as_array().map_or(0, Vec::len)).sum()
    }

    fn updates(&self) -> [&UpdateFigures; 3] {
        [&self.grpo.batch_advantage, &self.grpo.group_advantage, &self.grpo.clipped_with_kl]
    }
}
