//! Counts of item transitions, as a distribution over the catalog.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::metrics::{Metric, expected_rank};
use super::sample::sample;
use crate::data::{Prepared, PreparedRow, Split};

/// What a whole vote of either weight counts. A share of it at any of the first ten places is a whole number where the
/// decay is 1, so that votes add up without rounding and equal ones are equal.
const UNIT: f64 = 2520.0;

/// Validation users at most that the weights are chosen by.
const USERS: usize = 5000;

/// How transitions are counted.
///
/// Each item of a history votes for what followed it in training. With the newest item at place `p = 1`, its vote for
/// an item that came `d` choices after it is `1 / (p^position_decay d^distance_decay)`, the second factor summed over
/// the training rows. The probability of an item is `(votes + smoothing popularity) / (all votes + smoothing)`,
/// popularity being its share of the training choices, each item's counted once more than it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransitionConfig {
    /// Exponent of the place in the history.
    pub position_decay: f64,
    /// Exponent of the distance in a training row.
    pub distance_decay: f64,
    /// Weight of popularity, in votes.
    pub smoothing: f64,
}

impl Default for TransitionConfig {
    fn default() -> Self {
        Self { position_decay: 1.0, distance_decay: 1.0, smoothing: 0.1 }
    }
}

impl TransitionConfig {
    /// Makes sure that every value makes sense.
    ///
    /// # Errors
    ///
    /// The name of one that does not, and what it must be.
    pub fn check(&self) -> Result<(), String> {
        let Self { position_decay, distance_decay, smoothing } = *self;
        for (name, value, least) in [
            ("position decay", position_decay, 0.0),
            ("distance decay", distance_decay, 0.0),
            ("smoothing", smoothing, 1e-6),
        ] {
            if !(least..=1e6).contains(&value) {
                return Err(format!("the {name} must be from {least} to 1000000, got {value:?}"));
            }
        }
        Ok(())
    }
}

/// The values that a configuration is chosen among.
#[derive(Debug, Clone, PartialEq)]
pub struct TransitionChoices {
    /// Exponents of the place.
    pub position_decays: Vec<f64>,
    /// Exponents of the distance.
    pub distance_decays: Vec<f64>,
    /// Weights of popularity.
    pub smoothing: Vec<f64>,
    /// Whether the items of a user's history are left out of the list that they are chosen by.
    pub exclude_history: bool,
}

impl Default for TransitionChoices {
    fn default() -> Self {
        let decays = vec![0.0, 0.5, 1.0, 2.0];
        Self {
            position_decays: decays.clone(),
            distance_decays: decays,
            smoothing: vec![0.01, 0.1, 1.0, 10.0],
            exclude_history: false,
        }
    }
}

impl TransitionChoices {
    /// The choices with the position decay, distance decay and smoothing that are given in the place of those of their
    /// kind.
    pub fn with_given(self, [position_decay, distance_decay, smoothing]: [Option<f64>; 3]) -> Self {
        let one = |given: Option<f64>, else_all| given.map_or(else_all, |value| vec![value]);
        Self {
            position_decays: one(position_decay, self.position_decays),
            distance_decays: one(distance_decay, self.distance_decays),
            smoothing: one(smoothing, self.smoothing),
            exclude_history: self.exclude_history,
        }
    }

    /// The configuration with the best NDCG@10 on validation users, at most 5,000 drawn by the seed, and that NDCG. Of
    /// equal ones the first is taken, the smoothing changing most quickly and the distance decay least.
    pub fn choose(&self, prepared: &Prepared, seed: u64) -> (TransitionConfig, f64) {
        let rows = sample(prepared.rows.get(Split::Valid), Some(USERS), seed);
        let mut best = (TransitionConfig::default(), f64::NEG_INFINITY);
        for &distance_decay in &self.distance_decays {
            let mut transitions =
                Transitions::new(prepared, TransitionConfig { distance_decay, ..TransitionConfig::default() });
            for &position_decay in &self.position_decays {
                transitions.config.position_decay = position_decay;
                for (&smoothing, ndcg) in
                    self.smoothing.iter().zip(transitions.ndcg(&rows, &self.smoothing, self.exclude_history))
                {
                    if ndcg > best.1 {
                        best = (TransitionConfig { position_decay, distance_decay, smoothing }, ndcg);
                    }
                }
            }
        }
        best
    }
}

/// The transitions of a data set.
#[derive(Debug)]
pub struct Transitions {
    config: TransitionConfig,
    /// Each item's share of the training choices.
    popularity: Vec<f64>,
    /// For each item what it votes for at the first place, in units.
    followers: Vec<BTreeMap<usize, u64>>,
}

impl Transitions {
    /// Counts the training rows.
    pub fn new(prepared: &Prepared, config: TransitionConfig) -> Self {
        Self::of(&prepared.train_counts(), prepared.rows.get(Split::Train), config)
    }

    pub(super) fn of(counts: &[u64], rows: &[PreparedRow], config: TransitionConfig) -> Self {
        let popularity = popularity(counts);
        let mut followers = vec![BTreeMap::new(); counts.len()];
        for row in rows {
            for (distance, item) in newest_first(&row.history) {
                *followers[item].entry(row.item).or_default() += share(distance, config.distance_decay);
            }
        }
        Self { config, popularity, followers }
    }

    /// The votes of a history for all items, by place in the catalog, in squares of the unit.
    pub(super) fn votes(&self, history: &[usize]) -> Vec<u64> {
        let mut votes = vec![0; self.popularity.len()];
        for (place, item) in newest_first(history) {
            let share = share(place, self.config.position_decay);
            for (&follower, vote) in &self.followers[item] {
                votes[follower] += vote * share;
            }
        }
        votes
    }

    /// The votes of each item of a history for one item.
    pub(super) fn votes_by_place(&self, history: &[usize], item: usize) -> Vec<u64> {
        let votes = |(place, of): (u64, usize)| {
            let vote = self.followers[of].get(&item).copied().unwrap_or(0);
            vote * share(place, self.config.position_decay)
        };
        let mut votes: Vec<u64> = newest_first(history).map(votes).collect();
        votes.reverse();
        votes
    }

    /// Whether any item of a history was followed by another.
    pub fn knows(&self, history: &[usize]) -> bool {
        history.iter().any(|&item| !self.followers[item].is_empty())
    }

    /// The probability of each item after a history, by place in the catalog; they add up to 1.
    pub fn probabilities(&self, history: &[usize]) -> Vec<f64> {
        self.smoothed(self.votes(history))
    }

    fn smoothed(&self, votes: Vec<u64>) -> Vec<f64> {
        let smoothing = self.config.smoothing;
        let all = votes.iter().sum::<u64>() as f64 / (UNIT * UNIT) + smoothing;
        let probability = |(votes, popularity)| weight(votes, popularity, smoothing) / all;
        votes.into_iter().zip(&self.popularity).map(probability).collect()
    }

    /// [`Self::probabilities`] after the history of a training row, without what the row itself, which ends with `item`,
    /// has added to the counts.
    pub fn probabilities_without(&self, history: &[usize], item: usize) -> Vec<f64> {
        let decays = (self.config.distance_decay, self.config.position_decay);
        let mut votes = self.votes(history);
        for (place, of) in newest_first(history) {
            // An item that stands there more than once votes each time for what each of them has added.
            let own: u64 =
                newest_first(history).filter(|(_, other)| *other == of).map(|(at, _)| share(at, decays.0)).sum();
            votes[item] = votes[item].saturating_sub(own * share(place, decays.1));
        }
        self.smoothed(votes)
    }

    /// NDCG@10 over the rows by each smoothing.
    fn ndcg(&self, rows: &[&PreparedRow], smoothing: &[f64], exclude_history: bool) -> Vec<f64> {
        let gains = |row: &&PreparedRow| {
            let votes = self.votes(&row.history);
            let left_out: BTreeSet<usize> = row.history.iter().copied().filter(|_| exclude_history).collect();
            if left_out.contains(&row.item) {
                return vec![0.0; smoothing.len()];
            }
            let gain = |&smoothing: &f64| {
                let weight = |item: usize| weight(votes[item], &self.popularity[item], smoothing);
                let own = weight(row.item);
                let (mut before, mut equal) = (0, 0);
                for other in (0..votes.len()).map(weight) {
                    before += usize::from(other > own);
                    equal += usize::from(other == own);
                }
                // A few are taken back, which is faster than to ask of each whether it counts.
                for other in left_out.iter().copied().map(weight) {
                    before -= usize::from(other > own);
                    equal -= usize::from(other == own);
                }
                Metric::Ndcg(10).gain(Some(expected_rank(before, equal)))
            };
            smoothing.iter().map(gain).collect::<Vec<f64>>()
        };
        // Added up in order: what the threads find does not depend on their number.
        let gains: Vec<Vec<f64>> = rows.par_iter().map(gains).collect();
        let mean = |at: usize| gains.iter().map(|gains| gains[at]).sum::<f64>() / rows.len().max(1) as f64;
        (0..smoothing.len()).map(mean).collect()
    }
}

/// Each item's share of the choices, each counted once more than it was chosen.
pub(crate) fn popularity(counts: &[u64]) -> Vec<f64> {
    let all = counts.iter().map(|&count| count as f64 + 1.0).sum::<f64>();
    counts.iter().map(|&count| (count as f64 + 1.0) / all).collect()
}

/// Votes with smoothing, before they are divided by all.
fn weight(votes: u64, popularity: &f64, smoothing: f64) -> f64 {
    votes as f64 / (UNIT * UNIT) + smoothing * popularity
}

/// The part of a unit that counts at a place, from 1.
fn share(place: u64, decay: f64) -> u64 {
    (UNIT / (place as f64).powf(decay)).round() as u64
}

/// Items with their places, from 1.
pub(super) fn newest_first(history: &[usize]) -> impl Iterator<Item = (u64, usize)> {
    (1..).zip(history.iter().rev().copied())
}

#[cfg(test)]
mod tests {
    use super::super::collaborative::CollaborativeModel;
    use super::*;

    fn row(history: &[usize], item: usize) -> PreparedRow {
        PreparedRow { user: "u".into(), history: history.into(), item, prompt: vec![1] }
    }

    const WHOLE: u64 = 2520 * 2520;

    #[test]
    fn a_training_row_is_judged_by_the_counts_of_all_others() {
        let rows = [row(&[0, 1, 0], 2), row(&[0], 2), row(&[1], 0), row(&[0, 1], 3)];
        let counts = [2, 2, 2, 1];
        for decays in [0.0, 1.0, 2.0] {
            let config = TransitionConfig { position_decay: decays, distance_decay: decays, smoothing: 0.5 };
            let all = Transitions::of(&counts, &rows, config);
            for left_out in 0..rows.len() {
                let others: Vec<_> = (0..rows.len()).filter(|at| *at != left_out).map(|at| rows[at].clone()).collect();
                let without = Transitions::of(&counts, &others, config);
                let PreparedRow { history, item, .. } = &rows[left_out];
                assert_eq!(all.probabilities_without(history, *item), without.probabilities(history));
            }
        }
    }

    #[test]
    fn votes_equal_a_case_by_hand() {
        let rows = [row(&[0], 1), row(&[0, 1], 2), row(&[2], 1), row(&[3, 0], 4), row(&[0], 4)];
        let transitions = Transitions::of(&[3, 2, 2, 1, 2, 5, 0], &rows, TransitionConfig::default());
        // 0 was followed by 1 once, by 4 twice, and by 2 at two places' distance; 1 by 2; 2 by 1; 3 by 4 at a distance
        // of two.
        assert_eq!(transitions.votes(&[2, 1, 0]), [0, WHOLE * 4 / 3, WHOLE, 0, WHOLE * 2, 0, 0]);
        let decays = TransitionConfig { position_decay: 0.0, distance_decay: 2.0, smoothing: 1.0 };
        let transitions = Transitions::of(&[3, 2, 2, 1, 2, 5, 0], &rows, decays);
        assert_eq!(transitions.votes(&[2, 1, 0]), [0, WHOLE * 2, WHOLE * 5 / 4, 0, WHOLE * 2, 0, 0]);
        // An item that comes twice votes twice.
        let rows = [row(&[0, 1], 2), row(&[1, 1, 0], 3)];
        let transitions = Transitions::of(&[0, 0, 1, 1], &rows, TransitionConfig::default());
        assert_eq!(transitions.votes(&[0]), [0, 0, WHOLE / 2, WHOLE]);
        assert_eq!(transitions.votes(&[1, 1, 0])[3], WHOLE + (WHOLE / 2 + WHOLE / 3) / 2 + (WHOLE / 2 + WHOLE / 3) / 3);
    }

    #[test]
    fn probabilities_add_up_and_popularity_decides_where_there_are_no_votes() {
        let rows = [row(&[0], 1), row(&[0], 2)];
        for smoothing in TransitionChoices::default().smoothing {
            let config = TransitionConfig { smoothing, ..Default::default() };
            let transitions = Transitions::of(&[2, 1, 1, 0], &rows, config);
            let after = transitions.probabilities(&[0]);
            assert!((after.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            // Popularity is 3, 2, 2 and 1 in 8.
            assert!((after[1] - (1.0 + smoothing * 0.25) / (2.0 + smoothing)).abs() < 1e-12);
            assert_eq!(after[1], after[2]);
            let nothing = transitions.probabilities(&[3]);
            let shares = [0.375, 0.25, 0.25, 0.125];
            assert!(nothing.iter().zip(shares).all(|(found, share)| (found - share).abs() < 1e-12));
        }
    }

    #[test]
    fn shares_are_those_of_the_votes() {
        let rows = [row(&[0, 1], 2), row(&[1], 3)];
        let transitions = Transitions::of(&[1, 2, 1, 1], &rows, TransitionConfig::default());
        // 1 voted at the first place for what followed it at once, 0 at the second for what followed it second.
        assert_eq!(transitions.shares(&[0, 1], 2), Some(vec![0.2, 0.8]));
        assert_eq!(transitions.shares(&[3, 1], 3), Some(vec![0.0, 1.0]));
        assert_eq!(transitions.shares(&[3, 1], 0), None);
    }

    #[test]
    fn what_is_left_out_takes_no_place_and_cannot_be_hit() {
        let rows = [row(&[0], 1), row(&[0], 1), row(&[0], 2)];
        let transitions = Transitions::of(&[3, 2, 1, 0], &rows, TransitionConfig::default());
        let ndcg = |row: &PreparedRow, exclude_history| transitions.ndcg(&[row], &[0.1], exclude_history)[0];
        let second = 1.0 / 3f64.log2();
        assert_eq!([false, true].map(|exclude| ndcg(&row(&[0, 1, 1], 2), exclude)), [second, 1.0]);
        assert_eq!([false, true].map(|exclude| ndcg(&row(&[1, 0], 1), exclude)), [1.0, 0.0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (field, config) in [
            ("position decay", TransitionConfig { position_decay: -1.0, ..Default::default() }),
            ("distance decay", TransitionConfig { distance_decay: f64::NAN, ..Default::default() }),
            ("smoothing", TransitionConfig { smoothing: 0.0, ..Default::default() }),
        ] {
            assert!(config.check().unwrap_err().contains(field));
        }
        TransitionConfig::default().check().unwrap();
    }
}
