//! Where each user's item came.

use serde::{Deserialize, Serialize};

use super::metrics::expected_rank;
use crate::data::{Prepared, PreparedRow};

/// Where one user's item came in the user's list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRank {
    /// Place of the user among all that are evaluated, from 0.
    pub row: usize,
    /// The user's id.
    pub user: String,
    /// The item's id.
    pub item: String,
    /// How often the item was chosen in training.
    pub item_count: u64,
    /// The item's rank, from 1; items of one title share the mean of their ranks. Null where it was not found.
    pub rank: Option<f64>,
    /// The title's rank among titles, from 1.
    pub title_rank: Option<f64>,
    /// The item's rank where everybody gets the items by how often they were chosen in training, equally often in
    /// random order.
    pub popularity_rank: f64,
    /// The user's list, best first, as items' places in the catalog; items that share a place stand together in random
    /// order.
    pub list: Vec<Vec<u32>>,
}

impl UserRank {
    /// A rank of it that is no place in a list, which begins at 1.
    pub(crate) fn wrong_rank(&self) -> Option<f64> {
        let ranks = [self.rank, self.title_rank, Some(self.popularity_rank)];
        ranks.into_iter().flatten().find(|rank| !(1.0..f64::INFINITY).contains(rank))
    }
}

/// What was found for a user.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub rank: Option<f64>,
    pub title_rank: Option<f64>,
    pub list: Vec<Vec<u32>>,
}

impl Found {
    /// Ranks `item` in a list whose places hold one or more of one title's items each; `titles` says which title each
    /// item has.
    pub fn in_titles(item: usize, titles: &[usize], list: Vec<Vec<u32>>) -> Self {
        let place = list.iter().position(|items| items.contains(&(item as u32)));
        let before = |place: usize| list[..place].iter().map(Vec::len).sum();
        let mut shown = Vec::new();
        for title in list.iter().map(|items| titles[items[0] as usize]) {
            if !shown.contains(&title) {
                shown.push(title);
            }
        }
        Self {
            rank: place.map(|place| expected_rank(before(place), list[place].len())),
            title_rank: shown.iter().position(|title| *title == titles[item]).map(|place| place as f64 + 1.0),
            list,
        }
    }

    /// Names the row, the user and the item.
    pub fn of(self, number: usize, row: &PreparedRow, prepared: &Prepared, popularity: &Popularity) -> UserRank {
        UserRank {
            row: number,
            user: row.user.clone(),
            item: prepared.catalog.items()[row.item].id.clone(),
            item_count: popularity.counts[row.item],
            rank: self.rank,
            title_rank: self.title_rank,
            popularity_rank: popularity.rank(row.item),
            list: self.list,
        }
    }
}

/// How often each item was chosen in training.
pub(super) struct Popularity {
    pub counts: Vec<u64>,
    sorted: Vec<u64>,
}

impl Popularity {
    pub fn new(prepared: &Prepared) -> Self {
        let counts = prepared.train_counts();
        let mut sorted = counts.clone();
        sorted.sort_unstable();
        Self { counts, sorted }
    }

    fn rank(&self, item: usize) -> f64 {
        let count = self.counts[item];
        let below = self.sorted.partition_point(|&other| other < count);
        let up_to = self.sorted.partition_point(|&other| other <= count);
        expected_rank(self.sorted.len() - up_to, up_to - below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_one_title_share_the_mean_of_their_places() {
        let list = vec![vec![3], vec![4, 9], vec![1]];
        let titles: Vec<usize> = (0..10).map(|item| if item == 9 { 4 } else { item }).collect();
        let found = |item| Found::in_titles(item, &titles, list.clone());
        assert_eq!((found(9).rank, found(9).title_rank), (Some(2.5), Some(2.0)));
        assert_eq!((found(1).rank, found(1).title_rank), (Some(4.0), Some(3.0)));
        assert_eq!((found(2).rank, found(2).title_rank), (None, None));
        // Told apart, they have places of their own, and their title has the first of them.
        let apart = Found::in_titles(1, &titles, vec![vec![9], vec![4], vec![1]]);
        assert_eq!((apart.rank, apart.title_rank), (Some(3.0), Some(2.0)));
        let other = Found::in_titles(4, &titles, vec![vec![9]]);
        assert_eq!((other.rank, other.title_rank), (None, Some(1.0)), "another item of its title");
    }
}
