//! What is left of the interactions, step by step.

use rayon::prelude::*;

use super::config::{Repeats, Step};
use super::events::Event;

/// The steps taken so far.
pub(super) struct Steps {
    pub taken: Vec<Step>,
    users: usize,
    items: usize,
}

impl Steps {
    /// The file as it was.
    pub fn start(interactions: usize, [users, items]: [usize; 2]) -> Self {
        let whole = Step { step: "read".into(), removed: 0, interactions, users, items };
        Self { taken: vec![whole], users, items }
    }

    /// Counts what a step left.
    pub fn took(&mut self, step: &str, left: &[Event]) {
        let (by_user, by_item) = count(left, self.users, self.items);
        let distinct = |counts: &[u32]| counts.iter().filter(|&&count| count > 0).count();
        let before = self.taken.last().map_or(0, |step| step.interactions);
        self.taken.push(Step {
            step: step.into(),
            removed: before - left.len(),
            interactions: left.len(),
            users: distinct(&by_user),
            items: distinct(&by_item),
        });
    }

    /// Interactions for each pair of a user and an item that are left.
    pub fn density(&self) -> f64 {
        self.taken.last().map_or(0.0, |last| last.interactions as f64 / (last.users as f64 * last.items as f64))
    }

    /// The steps on one line.
    pub fn describe(&self) -> String {
        let step = |step: &Step| format!("{} {}", step.step, step.interactions);
        self.taken.iter().map(step).collect::<Vec<_>>().join(", ")
    }
}

fn count(events: &[Event], users: usize, items: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut by_user, mut by_item) = (vec![0; users], vec![0; items]);
    for event in events {
        by_user[event.user as usize] += 1;
        by_item[event.item as usize] += 1;
    }
    (by_user, by_item)
}

/// Sorts by user and time; what happened at one time stays in the order of the file.
pub(super) fn sort(events: &mut [Event]) {
    events.par_sort_unstable_by(|a, b| a.user.cmp(&b.user).then(a.time.total_cmp(&b.time)).then(a.line.cmp(&b.line)));
}

/// Removes interactions that a user made twice, from sorted events.
pub(super) fn remove_repeats(events: &mut Vec<Event>, repeats: Repeats) {
    // Equal interactions of one user together, oldest first.
    let mut order: Vec<u32> = (0..events.len() as u32).collect();
    order.par_sort_unstable_by_key(|&at| {
        let event = &events[at as usize];
        (event.user, event.item, at)
    });
    let mut gone = vec![false; events.len()];
    for pair in order.windows(2) {
        let [before, after] = [pair[0] as usize, pair[1] as usize];
        let (a, b) = (&events[before], &events[after]);
        if (a.user, a.item) != (b.user, b.item) {
            continue;
        }
        match repeats {
            Repeats::Keep => gone[after] = a.time == b.time,
            Repeats::First => gone[after] = true,
            Repeats::Last => gone[before] = true,
        }
    }
    let mut gone = gone.into_iter();
    events.retain(|_| !gone.next().unwrap_or(false));
}

/// Removes users and items with fewer than `k` interactions, until none is left that has.
pub(super) fn k_core(events: &mut Vec<Event>, k: usize, [users, items]: [usize; 2]) {
    loop {
        let (by_user, by_item) = count(events, users, items);
        let before = events.len();
        events.retain(|event| by_user[event.user as usize] as usize >= k && by_item[event.item as usize] as usize >= k);
        if events.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(user: u32, item: u32, time: f64, line: u32) -> Event {
        Event { time, user, item, line }
    }

    fn bare(events: &[Event]) -> Vec<(u32, u32, u32)> {
        events.iter().map(|event| (event.user, event.item, event.line)).collect()
    }

    #[test]
    fn equal_times_keep_the_order_of_the_file() {
        let mut events = vec![event(1, 0, 5.0, 2), event(0, 1, 9.0, 3), event(1, 2, 1.0, 4), event(1, 3, 5.0, 5)];
        sort(&mut events);
        assert_eq!(bare(&events), [(0, 1, 3), (1, 2, 4), (1, 0, 2), (1, 3, 5)]);
    }

    #[test]
    fn repeats_are_removed_as_asked() {
        let events = vec![
            event(0, 1, 1.0, 2),
            event(0, 1, 1.0, 3),
            event(0, 2, 2.0, 4),
            event(0, 1, 3.0, 5),
            event(1, 1, 3.0, 6),
        ];
        for (repeats, lines) in
            [(Repeats::Keep, &[2, 4, 5, 6][..]), (Repeats::First, &[2, 4, 6]), (Repeats::Last, &[4, 5, 6])]
        {
            let mut left = events.clone();
            remove_repeats(&mut left, repeats);
            assert_eq!(left.iter().map(|event| event.line).collect::<Vec<_>>(), lines, "{repeats:?}");
        }
    }

    proptest! {
        #[test]
        fn the_core_is_the_largest_part_in_which_all_have_k(
            pairs in prop::collection::vec((0u32..8, 0u32..8), 0..60), k in 1usize..5
        ) {
            let all: Vec<Event> = pairs.iter().map(|&(user, item)| event(user, item, 0.0, 0)).collect();
            let mut core = all.clone();
            k_core(&mut core, k, [8, 8]);
            let (by_user, by_item) = count(&core, 8, 8);
            prop_assert!(by_user.iter().chain(&by_item).all(|&count| count == 0 || count as usize >= k));
            // Removing one user or item at a time, in another order, comes to the same.
            let mut other = all;
            while let Some((user, item)) = {
                let (by_user, by_item) = count(&other, 8, 8);
                let few = |counts: &[u32]| counts.iter().rposition(|&count| count > 0 && (count as usize) < k);
                match (few(&by_user), few(&by_item)) {
                    (None, None) => None,
                    found => Some(found),
                }
            } {
                match item {
                    Some(item) => other.retain(|event| event.item as usize != item),
                    None => other.retain(|event| Some(event.user as usize) != user),
                }
            }
            prop_assert_eq!(bare(&core), bare(&other));
        }
    }
}
