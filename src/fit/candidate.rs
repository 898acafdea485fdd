//! The models that are tried.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A model that may be the best one, from the simplest to the most elaborate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Candidate {
    /// Items by how often they were chosen.
    Popularity,
    /// Counts of item transitions.
    Transition,
    /// SASRec (arXiv 1808.09781).
    Sasrec,
    /// The language model.
    LanguageModel,
    /// The language model, guided by the better one of item transitions and SASRec.
    Guided,
}

impl fmt::Display for Candidate {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Popularity => "popularity",
            Self::Transition => "transition",
            Self::Sasrec => "sasrec",
            Self::LanguageModel => "language-model",
            Self::Guided => "guided",
        })
    }
}
