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
    /// Prepared data: the catalog and the prompt's wording, and for item transitions as a guide the training rows. A
    /// shop's folder has its own.
    pub data: Option<PathBuf>,
    /// Objective to score titles by; absent, that of the language model's training.
    pub objective: Option<ObjectiveKind>,
    /// Guide of the search, as chosen by an evaluation; see [`ChosenGuidance::of_run`]. A shop's folder has its own.
    pub guidance: Option<ChosenGuidance>,
    /// Beam width; absent, the number of titles, at least 10.
    pub beams: Option<usize>,
    /// Exponent of the length in a title's score; absent, that of the objective.
    pub length_penalty: Option<f64>,
    /// Matmul precision of the language model.
    pub precision: Precision,
    /// Device to compute on.
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
