//! Baselines that count what was chosen in training; each scores the whole catalog for a row.

use std::collections::BTreeMap;

use crate::data::{Prepared, PreparedRow, Split};

/// A vote at the first place for what followed at once. As long as there are no more than 10 places, every vote is a whole share
/// of it, so that votes add up without rounding.
const VOTE: u64 = 2520 * 2520;

/// What a baseline counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// How often an item was chosen in training: the same list for everybody.
    Popularity,
    /// The user's own items, newest first, then the popular ones.
    Recent,
    /// Votes of the user's items for what followed them in training, then the popular ones. The newest but p-1 item has a vote
    /// of 1 / (p d) for each training row's item that it precedes by d places; equal votes go by popularity.
    ///
    /// Both weights were chosen by NDCG@10 on the validation rows of Amazon's CDs and Office, among 1 / p and r^(p-1) with
    /// r = .5, .7, .8, .9 and 1; among 1 / d, r^(d-1) with r = .5 and .8, all alike, and the direct successor only; and
    /// among votes as they are, and divided by the item's votes in all or by the root of them.
    Transition,
}

/// The counts of a data set.
#[derive(Debug)]
pub struct Counts {
    counting: Counting,
    /// Of each item, from 0 to below 1.
    popularity: Vec<f32>,
    /// For each item what it votes for at the first place.
    followers: Vec<BTreeMap<usize, u64>>,
}

impl Counts {
    /// Counts the training choices.
    pub fn new(counting: Counting, prepared: &Prepared) -> Self {
        let rows = if counting == Counting::Transition { prepared.rows.get(Split::Train).as_slice() } else { &[] };
        Self::of(counting, &prepared.train_counts(), rows)
    }

    fn of(counting: Counting, counts: &[u64], rows: &[PreparedRow]) -> Self {
        let most = counts.iter().max().map_or(1, |most| most + 1);
        let popularity = counts.iter().map(|&count| (count as f64 / most as f64) as f32).collect();
        let mut followers = vec![BTreeMap::new(); counts.len()];
        for row in rows {
            for (distance, item) in newest_first(&row.history) {
                *followers[item].entry(row.item).or_default() += VOTE / distance;
            }
        }
        Self { counting, popularity, followers }
    }

    /// Scores of the catalog for each row, by place in the catalog; higher is better.
    pub fn scores(&self, rows: &[&PreparedRow]) -> Vec<Vec<f32>> {
        let of_row = |row: &&PreparedRow| match self.counting {
            Counting::Popularity => self.popularity.clone(),
            Counting::Recent => self.ahead(own_items(&row.history)),
            Counting::Transition => self.ahead(self.votes(&row.history)),
        };
        rows.iter().map(of_row).collect()
    }

    fn votes(&self, history: &[usize]) -> BTreeMap<usize, u64> {
        let mut votes = BTreeMap::new();
        for (place, item) in newest_first(history) {
            for (&follower, vote) in &self.followers[item] {
                *votes.entry(follower).or_default() += vote / place;
            }
        }
        votes
    }

    /// Scores by popularity, but for items with votes, which come first, by their votes and then by popularity.
    fn ahead(&self, votes: BTreeMap<usize, u64>) -> Vec<f32> {
        let mut order: Vec<(u64, f32, usize)> =
            votes.into_iter().map(|(item, votes)| (votes, self.popularity[item], item)).collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut scores = self.popularity.clone();
        // Scores that are numbers of groups leave nothing to rounding.
        for (number, group) in order.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).enumerate() {
            group.iter().for_each(|&(.., item)| scores[item] = 1.0 + number as f32);
        }
        scores
    }
}

/// Items with their places, from 1.
fn newest_first(history: &[usize]) -> impl Iterator<Item = (u64, usize)> {
    (1..).zip(history.iter().rev().copied())
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
    fn transitions_equal_a_case_by_hand() {
        let rows = [row(&[0], 1), row(&[0, 1], 2), row(&[2], 1), row(&[3, 0], 4), row(&[0], 4)];
        let counts = Counts::of(Counting::Transition, &[3, 2, 2, 1, 2, 5, 0], &rows);
        let share = |numerator: u64, denominator: u64| VOTE * numerator / denominator;
        // 0 was followed by 1 once, by 4 twice, and by 2 at two places' distance; 1 by 2; 2 by 1; 3 by 4 at a distance of two.
        let votes = counts.votes(&[2, 1, 0]);
        assert_eq!(votes, BTreeMap::from([(1, share(4, 3)), (2, share(1, 1)), (4, share(2, 1))]));
        // Then popularity: 5, 0, 3, and 6 last, which nobody chose.
        let scores = counts.scores(&[&row(&[2, 1, 0], 0)]);
        assert_eq!(order(&scores[0]), [[4], [1], [2], [5], [0], [3], [6]]);
    }

    #[test]
    fn equal_votes_go_by_popularity_and_then_share_a_place() {
        let rows = [row(&[0], 1), row(&[0], 2), row(&[0], 3)];
        let counts = Counts::of(Counting::Transition, &[9, 1, 2, 1, 0, 0], &rows);
        let scores = counts.scores(&[&row(&[0], 0)]);
        assert_eq!(order(&scores[0]), [vec![2], vec![1, 3], vec![0], vec![4, 5]]);
        // An item that comes twice votes twice.
        let rows = [row(&[0, 1], 2), row(&[1, 1, 0], 3)];
        let counts = Counts::of(Counting::Transition, &[0, 0, 1, 1], &rows);
        let votes = counts.votes(&[0]);
        assert_eq!(votes, BTreeMap::from([(2, VOTE / 2), (3, VOTE)]));
        assert_eq!(counts.votes(&[1, 1, 0])[&3], VOTE + (VOTE / 2 + VOTE / 3) / 2 + (VOTE / 2 + VOTE / 3) / 3);
    }

    #[test]
    fn recent_items_come_newest_first_and_count_once() {
        let counts = Counts::of(Counting::Recent, &[1, 5, 0, 2], &[]);
        let scores = counts.scores(&[&row(&[2, 0, 2], 0), &row(&[0], 0)]);
        assert_eq!(order(&scores[0]), [[2], [0], [1], [3]]);
        assert_eq!(order(&scores[1]), [[0], [1], [3], [2]]);
        let counts = Counts::of(Counting::Popularity, &[1, 5, 0, 1], &[]);
        assert_eq!(order(&counts.scores(&[&row(&[2], 0)])[0]), [vec![1], vec![0, 3], vec![2]]);
    }
}
