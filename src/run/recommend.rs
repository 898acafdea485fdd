//! Recommendations for a history of titles.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::RunError;
use super::model_folder::{check_device, check_fit, load_model};
use crate::data::Prepared;
use crate::models::decode::{BeamConfig, Hypothesis, beam_search};
use crate::models::{ObjectiveKind, Precision};

/// What to recommend, and to whom.
#[derive(Debug, Clone)]
pub struct RecommendRequest {
    /// Hugging Face folder or run folder.
    pub model: PathBuf,
    /// Prepared data: the catalog and the prompt's wording.
    pub data: PathBuf,
    /// Titles that were chosen, oldest first.
    pub history: Vec<String>,
    /// Titles to recommend at most.
    pub top: usize,
    /// Beams of the search, of which there are at least `top` to find so many titles.
    pub beam: BeamConfig,
    /// What the model is read by, if not by the objective that it was trained for.
    pub objective: Option<ObjectiveKind>,
    /// What the blocks multiply in.
    pub precision: Precision,
    /// Where to compute.
    pub device: String,
}

/// What a recommendation tells of meanwhile.
#[derive(Debug)]
pub enum RecommendEvent<'a> {
    /// The model is loaded.
    Loaded {
        /// The objective that it was trained for.
        trained: ObjectiveKind,
        /// The objective that it is read by.
        read: ObjectiveKind,
    },
    /// A title of the history is not in the catalog; its words are used all the same.
    UnknownTitle(&'a str),
}

/// What a model recommends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendations {
    /// The titles that were chosen.
    pub history: Vec<String>,
    /// What the model was read by.
    pub objective: ObjectiveKind,
    /// The titles, the best first.
    pub recommendations: Vec<Recommendation>,
}

/// A title that a model recommends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Its place, from 1.
    pub rank: usize,
    /// The title.
    pub title: String,
    /// Ids of the items with this title.
    pub items: Vec<String>,
    /// Its score under the length penalty, see [`Hypothesis`].
    pub score: f64,
}

impl RecommendRequest {
    /// Searches for the titles that the model finds likeliest after the history.
    ///
    /// # Errors
    ///
    /// A model or data that cannot be read or do not fit, and settings that make no sense.
    pub fn carry_out(&self, observer: &mut dyn FnMut(RecommendEvent)) -> Result<Recommendations, RunError> {
        self.beam.check(ObjectiveKind::Vocabulary)?;
        check_device(&self.device, self.precision)?;
        let prepared = Prepared::load(&self.data)?;
        let model = load_model(&self.model, &self.device)?.with_precision(self.precision)?;
        check_fit(&model, &self.model, &prepared)?;
        let items = prepared.catalog.items();
        for title in self.history.iter().filter(|title| items.iter().all(|item| item.title != **title)) {
            observer(RecommendEvent::UnknownTitle(title));
        }
        let (trained, read) = (model.objective(), self.objective.unwrap_or(model.objective()));
        observer(RecommendEvent::Loaded { trained, read });
        let objective = prepared.objective(read)?;
        let prompt = prepared.prompt_for_titles(&self.history)?;
        let found = beam_search(&model, &objective, &[&prompt], self.beam)?;
        let best = found.iter().flatten().take(self.top).enumerate();
        let recommendation = |(at, hypothesis): (usize, &Hypothesis)| Recommendation {
            rank: at + 1,
            title: prepared.catalog.title(hypothesis.items[0] as usize).to_owned(),
            items: hypothesis.items.iter().map(|&item| items[item as usize].id.clone()).collect(),
            score: hypothesis.score,
        };
        let recommendations = best.map(recommendation).collect();
        Ok(Recommendations { history: self.history.clone(), objective: read, recommendations })
    }
}
