//! What is answered.

use serde::{Deserialize, Serialize};

use crate::fit::Candidate;

/// A title that is recommended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Its place, from 1.
    pub rank: usize,
    /// The title.
    pub title: String,
    /// Ids of the items with this title that may be recommended.
    pub items: Vec<String>,
    /// Its score, the higher, the better: of a language model see [`Hypothesis`](crate::models::decode::Hypothesis), of
    /// any other the logarithm of its best item's probability.
    pub score: f64,
}

/// A list, best first, and what made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The model that answered; another than the recommender's own where that knows nothing of the history.
    pub model: Candidate,
    /// The titles.
    pub recommendations: Vec<Recommendation>,
}

/// What a user of several gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserAnswer {
    /// The user's id.
    pub user: String,
    /// The list.
    #[serde(flatten)]
    pub answer: Answer,
}
