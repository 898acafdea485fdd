//! The users by how popular the item is that they chose.

use serde::{Deserialize, Serialize};

use super::metrics::Ranking;
use super::ranks::UserRank;

/// Figures of the users whose items are of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetGroup {
    /// Users.
    pub users: usize,
    /// Items of the catalog that are of this kind.
    pub items: usize,
    /// The users' items ranked by item.
    pub by_item: Ranking,
}

/// The users by how often their items were chosen in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetGroups {
    /// Items never chosen in training.
    pub cold: TargetGroup,
    /// All others.
    pub warm: TargetGroup,
    /// The most popular items, which together have a third of all choices of training.
    pub head: TargetGroup,
    /// The next items, with the next third.
    pub middle: TargetGroup,
    /// The least popular of the warm items, with the last third.
    pub tail: TargetGroup,
}

impl TargetGroups {
    /// Groups the users; `counts` says how often each item was chosen in training, lists are `longest` items long.
    ///
    /// Items that were chosen equally often are in one group: that in which the first of them belongs.
    pub fn of(ranks: &[UserRank], counts: &[u64], longest: usize) -> Self {
        let [head, middle] = bounds(counts);
        let group = |is_in: &dyn Fn(u64) -> bool| {
            let users: Vec<Option<f64>> =
                ranks.iter().filter(|user| is_in(user.item_count)).map(|user| user.rank).collect();
            TargetGroup {
                users: users.len(),
                items: counts.iter().filter(|&&count| is_in(count)).count(),
                by_item: Ranking::of(&users, longest),
            }
        };
        Self {
            cold: group(&|count| count == 0),
            warm: group(&|count| count > 0),
            head: group(&|count| count > 0 && count >= head),
            middle: group(&|count| count > 0 && count >= middle && count < head),
            tail: group(&|count| count > 0 && count < middle),
        }
    }
}

/// How often an item of the head and of the middle was chosen at least.
fn bounds(counts: &[u64]) -> [u64; 2] {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let all: u128 = sorted.iter().map(|&count| u128::from(count)).sum();
    [1, 2].map(|third| {
        let mut before = 0;
        let belongs = |count: &&u64| {
            let belongs = 3 * before < third * all;
            before += u128::from(**count);
            belongs
        };
        sorted.iter().take_while(belongs).last().copied().unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(item_count: u64, rank: Option<f64>) -> UserRank {
        UserRank {
            row: 0,
            user: "u".into(),
            item: "i".into(),
            item_count,
            rank,
            title_rank: rank,
            popularity_rank: 1.0,
            list: Vec::new(),
        }
    }

    #[test]
    fn each_third_of_the_choices_is_a_group() {
        // 18 choices: 6, then 3 + 3, then 2 + 2 + 1 + 1.
        let counts = [1, 3, 0, 6, 2, 3, 2, 1, 0];
        assert_eq!(bounds(&counts), [6, 3]);
        let users = [user(6, Some(1.0)), user(3, None), user(2, Some(2.0)), user(1, None), user(0, None)];
        let groups = TargetGroups::of(&users, &counts, 10);
        let size = |group: &TargetGroup| (group.users, group.items);
        assert_eq!([&groups.head, &groups.middle, &groups.tail].map(size), [(1, 1), (1, 2), (2, 4)]);
        assert_eq!([&groups.cold, &groups.warm].map(size), [(1, 2), (4, 7)]);
        assert_eq!(groups.tail.by_item.hr[&10], Some(0.5));
        assert_eq!(groups.tail.by_item.hr[&1], Some(0.0));
        assert_eq!(groups.warm.by_item.hr[&3], Some(0.5));
    }

    #[test]
    fn without_choices_everything_is_cold() {
        let groups = TargetGroups::of(&[user(0, None)], &[0, 0], 10);
        assert_eq!((groups.cold.users, groups.warm.users, groups.head.items), (1, 0, 0));
    }
}
