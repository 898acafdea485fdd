//! What to recommend with.

use std::path::PathBuf;

use crate::models::{ObjectiveKind, Precision, default_device};
use crate::run::ChosenGuidance;

/// What to recommend with.
#[derive(Debug, Clone)]
pub struct RecommenderConfig {
    /// A shop's folder, as [`fit`](crate::fit::fit) makes it; or a language model's, in Hugging Face's layout or of a
    /// run.
    pub model: PathBuf,
    /// Prepared data: the catalog and the prompt's wording, and for counts as a guide the training rows. A shop's
    /// folder has its own.
    pub data: Option<PathBuf>,
    /// What the language model is read by, if not by the objective that it was trained for.
    pub objective: Option<ObjectiveKind>,
    /// What guides the search, as an evaluation chose it; see [`ChosenGuidance::of_run`]. A shop's folder says itself.
    pub guidance: Option<ChosenGuidance>,
    /// Beams of the search, if not as many as titles are asked for, and at least 10.
    pub beams: Option<usize>,
    /// Exponent of the length in a title's score, if not the objective's.
    pub length_penalty: Option<f64>,
    /// What the language model's blocks multiply in.
    pub precision: Precision,
    /// Where to compute.
    pub device: String,
}

impl RecommenderConfig {
    /// The model of a folder as it was chosen or trained, on the first device that is compiled in. One that is no shop's
    /// needs [`data`](Self::data) too.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            data: None,
            objective: None,
            guidance: None,
            beams: None,
            length_penalty: None,
            precision: Precision::F32,
            device: default_device().into(),
        }
    }
}
