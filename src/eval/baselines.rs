//! Baselines that count what was chosen in training; each scores the whole catalog for a row.

use std::collections::BTreeMap;

use super::transitions::{TransitionConfig, Transitions};
use crate::data::{Prepared, PreparedRow};

/// What a baseline counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Counting {
    /// How often an item was chosen in training: the same list for everybody.
    Popularity,
    /// The user's own items, newest first, then the popular ones.
    Recent,
    /// What followed the user's items in training; see [`TransitionConfig`].
    Transition(TransitionConfig),
}

/// The counts of a data set.
#[derive(Debug)]
pub struct Counts {
    counting: Counted,
    /// Of each item, from 0 to below 1.
    popularity: Vec<f32>,
}

#[derive(Debug)]
enum Counted {
    Popularity,
    Recent,
    Transition(Transitions),
}

impl Counts {
    /// Counts the training choices.
    pub fn new(counting: Counting, prepared: &Prepared) -> Self {
        let counting = match counting {
            Counting::Popularity => Counted::Popularity,
            Counting::Recent => Counted::Recent,
            Counting::Transition(config) => Counted::Transition(Transitions::new(prepared, config)),
        };
        Self::of(counting, &prepared.train_counts())
    }

    fn of(counting: Counted, counts: &[u64]) -> Self {
        let most = counts.iter().max().map_or(1, |most| most + 1);
        let popularity = counts.iter().map(|&count| (count as f64 / most as f64) as f32).collect();
        Self { counting, popularity }
    }

    /// Scores of the catalog for each row, by place in the catalog; higher is better.
    pub fn scores(&self, rows: &[&PreparedRow]) -> Vec<Vec<f32>> {
        let of_row = |row: &&PreparedRow| match &self.counting {
            Counted::Popularity => self.popularity.clone(),
            Counted::Recent => self.ahead(own_items(&row.history)),
            Counted::Transition(transitions) => numbered(&transitions.probabilities(&row.history)),
        };
        rows.iter().map(of_row).collect()
    }

    /// Scores by popularity, but for the items of `ahead`, which come first, by their numbers.
    fn ahead(&self, ahead: BTreeMap<usize, u64>) -> Vec<f32> {
        let mut scores = self.popularity.clone();
        ahead.into_iter().for_each(|(item, number)| scores[item] = number as f32);
        scores
    }
}

/// Each value's number among the different values in ascending order: single precision could make different ones the
/// same.
fn numbered(values: &[f64]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut numbers = vec![0.0; values.len()];
    for (number, group) in order.chunk_by(|&a, &b| values[a] == values[b]).enumerate() {
        group.iter().for_each(|&item| numbers[item] = number as f32);
    }
    numbers
}

/// The items of a history; a newer one has more.
fn own_items(history: &[usize]) -> BTreeMap<usize, u64> {
    (1..).zip(history).map(|(number, &item)| (item, number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(history: &[usize], item: usize) -> PreparedRow {
        PreparedRow { user: "u".into(), history: history.into(), item, prompt: vec![1] }
    }

    /// The items, best first; those that score the same together.
    fn order(scores: &[f32]) -> Vec<Vec<usize>> {
        let mut items: Vec<usize> = (0..scores.len()).collect();
        items.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        items.chunk_by(|&a, &b| scores[a] == scores[b]).map(<[usize]>::to_vec).collect()
    }

    #[test]
    fn transitions_come_by_votes_and_then_by_popularity() {
        let rows = [row(&[0], 1), row(&[0], 2), row(&[0], 3)];
        let counted = |counts: &[u64]| {
            Counts::of(Counted::Transition(Transitions::of(counts, &rows, TransitionConfig::default())), counts)
        };
        let scores = counted(&[9, 1, 2, 1, 0, 0]).scores(&[&row(&[0], 0)]);
        assert_eq!(order(&scores[0]), [vec![2], vec![1, 3], vec![0], vec![4, 5]]);
    }

    #[test]
    fn recent_items_come_newest_first_and_count_once() {
        let counts = Counts::of(Counted::Recent, &[1, 5, 0, 2]);
        let scores = counts.scores(&[&row(&[2, 0, 2], 0), &row(&[0], 0)]);
        assert_eq!(order(&scores[0]), [[2], [0], [1], [3]]);
        assert_eq!(order(&scores[1]), [[0], [1], [3], [2]]);
        let counts = Counts::of(Counted::Popularity, &[1, 5, 0, 1]);
        assert_eq!(order(&counts.scores(&[&row(&[2], 0)])[0]), [vec![1], vec![0, 3], vec![2]]);
    }
}
