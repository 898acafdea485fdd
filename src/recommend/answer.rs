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
    /// Why, where that was asked for and the model can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// What a recommendation goes back to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// What the shares are shares of.
    pub by: Evidence,
    /// The titles of the history that have a share, oldest first.
    pub history: Vec<TitleShare>,
}

/// What speaks for a title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// How often it followed each title of the history; the shares add up to 1.
    Transitions,
    /// The attention of the thought from which the whole list is made. The wording around the history has what the
    /// shares lack to 1.
    Attention,
}

impl Evidence {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transitions => "transitions",
            Self::Attention => "attention",
        }
    }
}

/// A title of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TitleShare {
    /// The title.
    pub title: String,
    /// Its share.
    pub share: f64,
}

impl Why {
    /// Of the titles with a share.
    pub(super) fn new<'a>(by: Evidence, shares: impl Iterator<Item = (&'a str, f64)>) -> Self {
        let share = |(title, share): (&str, f64)| TitleShare { title: title.to_owned(), share };
        Self { by, history: shares.filter(|(_, share)| *share > 0.0).map(share).collect() }
    }
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
