//! HR@k and NDCG@k for one relevant item per user.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// The list lengths that are reported.
pub const CUTOFFS: [usize; 5] = [1, 3, 5, 10, 20];

/// The expected rank, from 1, of an item behind `before` others and in random order with `equal` items, itself
/// included.
pub fn expected_rank(before: usize, equal: usize) -> f64 {
    before as f64 + (equal as f64 + 1.0) / 2.0
}

/// What is counted of a list's first k places; written `HR@10`, read in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Metric {
    /// Whether the item is among the first k.
    Hr(usize),
    /// `1 / log2(1 + rank)` where the item is among the first k; the best possible is 1.
    Ndcg(usize),
}

impl Metric {
    /// The places of the list that count.
    pub fn cutoff(self) -> usize {
        match self {
            Self::Hr(k) | Self::Ndcg(k) => k,
        }
    }

    /// One user's value, from 0 to 1, where the item has a rank, from 1, or was not found.
    pub fn gain(self, rank: Option<f64>) -> f64 {
        match (self, rank) {
            (Self::Hr(k), Some(rank)) if rank <= k as f64 => 1.0,
            (Self::Ndcg(k), Some(rank)) if rank <= k as f64 => 1.0 / (1.0 + rank).log2(),
            _ => 0.0,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Hr(k) => write!(formatter, "HR@{k}"),
            Self::Ndcg(k) => write!(formatter, "NDCG@{k}"),
        }
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('@').and_then(|(name, k)| Some((name.to_ascii_lowercase(), k.parse().ok()?)));
        match parts {
            Some((name, k)) if k > 0 && name == "hr" => Ok(Self::Hr(k)),
            Some((name, k)) if k > 0 && name == "ndcg" => Ok(Self::Ndcg(k)),
            _ => Err(format!("`{text}` is not a metric; write for example hr@10 or ndcg@10")),
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Hit rates and NDCG over some users, by the length k of the list; none where the lists are shorter than k.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// HR@k: the share of users whose item is at rank k or better.
    #[serde(deserialize_with = "by_length")]
    pub hr: BTreeMap<usize, Option<f64>>,
    /// NDCG@k: the mean of `1 / log2(1 + rank)` over users, 0 for ranks beyond k.
    #[serde(deserialize_with = "by_length")]
    pub ndcg: BTreeMap<usize, Option<f64>>,
}

impl Ranking {
    /// The metrics of the users' ranks, from 1; `None` where the item was not found. Lists are `longest` items long.
    pub fn of(ranks: &[Option<f64>], longest: usize) -> Self {
        // The sum of nothing is -0.
        let sum = |metric: Metric| 0.0 + ranks.iter().map(|&rank| metric.gain(rank)).sum::<f64>();
        let mean = |metric: Metric| sum(metric) / ranks.len().max(1) as f64;
        let at = |metric: fn(usize) -> Metric| {
            CUTOFFS.into_iter().map(|k| (k, (k <= longest).then(|| mean(metric(k))))).collect()
        };
        Self { hr: at(Metric::Hr), ndcg: at(Metric::Ndcg) }
    }

    /// A metric's mean, if the lists are long enough for it and it is one of those that are reported.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        let values = match metric {
            Metric::Hr(_) => &self.hr,
            Metric::Ndcg(_) => &self.ndcg,
        };
        values.get(&metric.cutoff()).copied().flatten()
    }
}

/// Reads values by the length of the list. Within a flattened field serde does not read numbers from the names of
/// fields itself.
fn by_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<usize, Option<f64>>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    let length = |(k, value): (String, Option<f64>)| Ok((k.parse().map_err(D::Error::custom)?, value));
    values.into_iter().map(length).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn figures_equal_the_definitions() {
        let ranking = Ranking::of(&[Some(1.0), Some(3.0), None, Some(12.0)], 10);
        assert_eq!(ranking.get(Metric::Hr(1)), Some(0.25));
        assert_eq!(ranking.get(Metric::Hr(3)), Some(0.5));
        assert_eq!(ranking.get(Metric::Hr(10)), Some(0.5));
        assert_eq!(ranking.get(Metric::Ndcg(10)), Some((1.0 + 0.5) / 4.0));
        assert_eq!(ranking.get(Metric::Hr(20)), None, "the lists are 10 long");
        let json = serde_json::to_string(&ranking).unwrap();
        assert!(json.starts_with(r#"{"hr":{"1":0.25,"3":0.5,"5":0.5,"10":0.5,"20":null},"ndcg":{"1":"#), "{json}");
        assert_eq!(serde_json::from_str::<Ranking>(&json).unwrap(), ranking);
    }

    #[test]
    fn figures_equal_those_of_other_libraries() {
        let text = include_str!("../../tests/data/ranking/values.json");
        let file: Value = serde_json::from_str(text).unwrap();
        let ranks: Vec<Option<f64>> = serde_json::from_value(file["ranks"].clone()).unwrap();
        let ours = serde_json::to_value(Ranking::of(&ranks, 20)).unwrap();
        let libraries = file["values"].as_object().unwrap();
        assert_eq!((ranks.len(), libraries.len()), (400, 2));
        for (library, theirs) in libraries {
            for metric in ["hr", "ndcg"] {
                for k in CUTOFFS.map(|k| k.to_string()) {
                    let [ours, theirs] = [&ours, theirs].map(|values| values[metric][&k].as_f64().unwrap());
                    assert!((ours - theirs).abs() < 1e-14, "{metric}@{k}: {ours}, {library} has {theirs}");
                }
            }
        }
    }

    #[test]
    fn a_metric_is_read_as_it_is_written_and_in_lower_case() {
        for metric in [Metric::Hr(10), Metric::Ndcg(7)] {
            assert_eq!(metric.to_string().parse(), Ok(metric));
            assert_eq!(metric.to_string().to_lowercase().parse(), Ok(metric));
        }
        for text in ["", "hr", "hr@", "hr@0", "hr@-1", "hr@1.5", "map@10", "@10", "hr@@1"] {
            assert!(text.parse::<Metric>().is_err(), "{text}");
        }
    }

    #[test]
    fn items_that_share_a_place_get_its_mean() {
        assert_eq!(expected_rank(0, 1), 1.0);
        assert_eq!(expected_rank(2, 3), 4.0);
    }
}
