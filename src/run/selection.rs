//! What the best model of a run is selected by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::eval::Metric;

/// What a validation's score is; written `loss`, `ndcg@10` or `hr@10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Selection {
    /// The loss on the validation examples, the lower, the better.
    #[default]
    Loss,
    /// A ranking metric over the sample of validation users, the higher, the better.
    Ranking(Metric),
}

impl Selection {
    /// NDCG of lists of ten.
    pub const NDCG_10: Self = Self::Ranking(Metric::Ndcg(10));
    /// Longest list that a ranking is selected by.
    pub const MOST_PLACES: usize = 100;

    /// The metric that it is, if it is one of rankings.
    pub fn metric(self) -> Option<Metric> {
        match self {
            Self::Loss => None,
            Self::Ranking(metric) => Some(metric),
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Loss => formatter.write_str("loss"),
            Self::Ranking(metric) => formatter.write_str(&metric.to_string().to_lowercase()),
        }
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "loss" {
            return Ok(Self::Loss);
        }
        match text.parse::<Metric>() {
            Ok(metric) if metric.cutoff() <= Self::MOST_PLACES => Ok(Self::Ranking(metric)),
            _ => Err(format!(
                "`{text}` cannot be selected by; write loss, or for example ndcg@10 or hr@10, with lists of up to {}",
                Self::MOST_PLACES
            )),
        }
    }
}

impl From<Selection> for String {
    fn from(selection: Selection) -> Self {
        selection.to_string()
    }
}

impl TryFrom<String> for Selection {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_read_as_it_is_written() {
        for text in ["loss", "ndcg@10", "hr@1"] {
            assert_eq!(text.parse::<Selection>().unwrap().to_string(), text);
        }
        for text in ["", "Loss", "ndcg", "ndcg@0", "hr@101"] {
            assert!(text.parse::<Selection>().is_err(), "{text}");
        }
    }
}
