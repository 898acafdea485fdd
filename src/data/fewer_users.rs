//! A part of the training users, to see what more data brings.

use std::collections::HashSet;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::interactions::Row;
use crate::models::random::generator;

/// Marks the draw's generator.
const USERS: u64 = 0x5553_4552_5300_0000;

/// How many training users to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewerUsers {
    /// Users that keep their training rows; all if there are no more.
    pub count: usize,
    /// Seed of the draw: of one seed, fewer users are a part of more.
    pub seed: u64,
}

impl FewerUsers {
    /// Takes away the rows of all users that are not drawn; those that stay keep their order.
    pub(super) fn keep(&self, rows: &mut Vec<Row>) {
        let mut seen = HashSet::new();
        let mut users: Vec<String> =
            rows.iter().filter(|row| seen.insert(&row.user)).map(|row| row.user.clone()).collect();
        users.shuffle(&mut generator([self.seed, USERS, 0, 0]));
        let kept: HashSet<String> = users.into_iter().take(self.count).collect();
        rows.retain(|row| kept.contains(&row.user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        (0..60)
            .map(|i| Row { user: format!("u{}", i * 7 % 20), history: vec![0], item: i, timestamp: None, line: i })
            .collect()
    }

    fn kept(count: usize, seed: u64) -> Vec<Row> {
        let mut rows = rows();
        FewerUsers { count, seed }.keep(&mut rows);
        rows
    }

    #[test]
    fn whole_users_stay_in_their_order_and_fewer_are_a_part_of_more() {
        let (few, more) = (kept(5, 1), kept(12, 1));
        assert_eq!((few.len(), more.len()), (15, 36));
        assert!(few.windows(2).all(|pair| pair[0].item < pair[1].item));
        assert!(few.iter().all(|row| more.contains(row)));
        assert_ne!(few, kept(5, 2));
        assert_eq!(kept(20, 1), rows());
        assert_eq!(kept(usize::MAX, 1), rows());
    }
}
