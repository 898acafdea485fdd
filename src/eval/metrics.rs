//! HR@k and NDCG@k for one relevant item per user.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The list lengths that are reported.
pub const CUTOFFS: [usize; 5] = [1, 3, 5, 10, 20];

/// The expected rank, from 1, of an item behind `before` others and in random order with `equal` items, itself included.
pub fn expected_rank(before: usize, equal: usize) -> f64 {
    before as f64 + (equal as f64 + 1.0) / 2.0
}

/// Hit rates and NDCG over some users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// HR@k: the share of users whose item is at rank k or better; null where the lists are shorter than k.
    pub hr: Map<String, Value>,
    /// NDCG@k: the mean of `1 / log2(1 + rank)` over users, 0 for ranks beyond k; null where the lists are shorter than k.
    pub ndcg: Map<String, Value>,
}

impl Ranking {
    /// The metrics of the users' ranks, from 1; `None` where the item was not found. Lists are `longest` items long.
    pub fn of(ranks: &[Option<f64>], longest: usize) -> Self {
        let mean = |gain: &dyn Fn(f64) -> f64| {
            ranks.iter().flatten().map(|&rank| gain(rank)).sum::<f64>() / ranks.len().max(1) as f64
        };
        let at = |gain: &dyn Fn(f64) -> f64| {
            let value = |k: usize| match k <= longest {
                true => json!(mean(&|rank| if rank <= k as f64 { gain(rank) } else { 0.0 })),
                false => Value::Null,
            };
            CUTOFFS.into_iter().map(|k| (k.to_string(), value(k))).collect()
        };
        Self { hr: at(&|_| 1.0), ndcg: at(&|rank| 1.0 / (1.0 + rank).log2()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_equal_the_definitions() {
        let ranking = Ranking::of(&[Some(1.0), Some(3.0), None, Some(12.0)], 10);
        assert_eq!(ranking.hr["1"], json!(0.25));
        assert_eq!(ranking.hr["3"], json!(0.5));
        assert_eq!(ranking.hr["10"], json!(0.5));
        assert_eq!(ranking.ndcg["10"], json!((1.0 + 0.5) / 4.0));
        assert_eq!(ranking.hr["20"], Value::Null, "the lists are 10 long");
    }

    #[test]
    fn items_that_share_a_place_get_its_mean() {
        assert_eq!(expected_rank(0, 1), 1.0);
        assert_eq!(expected_rank(2, 3), 4.0);
    }
}
