//! From each user's interactions to rows of a history and a target, in three splits.

use super::config::SplitKind;
use super::events::Event;
use crate::data::interactions::Notes;
use crate::data::splits::{Split, Splits};

/// A row: the place of its target among the sorted events, and how many of those before it are its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub target: u32,
    pub history: u32,
}

/// The rows of each split from events sorted by user and time.
///
/// A row has from `shortest` to `longest` interactions in its history. By time, rows are in its order; otherwise users
/// stay together.
pub(super) fn split(
    events: &[Event],
    kind: SplitKind,
    ratio: [u32; 3],
    [shortest, longest]: [usize; 2],
) -> (Splits<Vec<Place>>, Notes) {
    let mut notes = Notes::default();
    let mut rows: Splits<Vec<Place>> = Splits::default();
    let mut start = 0;
    for of_user in events.chunk_by(|a, b| a.user == b.user) {
        let count = of_user.len();
        if count <= shortest {
            notes.users_without_rows += 1;
        } else if kind == SplitKind::LeaveOneOut && count < shortest + 2 {
            notes.users_without_test += 1;
        }
        // Too few interactions to leave any out only train.
        let held_out = if count < shortest + 2 { 0 } else { 2 };
        for at in shortest..count {
            let split = match (kind, count - at) {
                (SplitKind::LeaveOneOut, 1) if held_out == 2 => Split::Test,
                (SplitKind::LeaveOneOut, 2) if held_out == 2 => Split::Valid,
                _ => Split::Train,
            };
            rows.get_mut(split).push(Place { target: (start + at) as u32, history: at.min(longest) as u32 });
        }
        start += count;
    }
    if kind == SplitKind::Temporal {
        let mut all = std::mem::take(&mut rows.train);
        all.sort_by(|a, b| {
            let [a, b] = [a, b].map(|place| &events[place.target as usize]);
            a.time.total_cmp(&b.time).then(a.line.cmp(&b.line))
        });
        let total: u64 = ratio.iter().map(|&part| u64::from(part)).sum();
        let end = |parts: u64| (all.len() as u64 * parts / total) as usize;
        let (valid, test) = (end(ratio[0].into()), end((ratio[0] + ratio[1]).into()));
        rows = Splits { train: all[..valid].to_vec(), valid: all[valid..test].to_vec(), test: all[test..].to_vec() };
    }
    (rows, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(users: &[(u32, &[u32])]) -> Vec<Event> {
        let of_user = |&(user, times): &(u32, &[u32])| {
            times.iter().map(move |&time| Event { time: time.into(), user, item: 0, line: time }).collect::<Vec<_>>()
        };
        users.iter().flat_map(of_user).collect()
    }

    /// Each row as the line of its target and the length of its history.
    fn bare(events: &[Event], rows: &[Place]) -> Vec<(u32, u32)> {
        rows.iter().map(|row| (events[row.target as usize].line, row.history)).collect()
    }

    #[test]
    fn the_oldest_rows_train_and_the_newest_test() {
        let events = events(&[(0, &[1, 4, 6, 9, 12]), (1, &[2, 3, 5, 7, 8, 10, 11])]);
        let (rows, notes) = split(&events, SplitKind::Temporal, [8, 1, 1], [1, 3]);
        assert_eq!(bare(&events, &rows.train), [(3, 1), (4, 1), (5, 2), (6, 2), (7, 3), (8, 3), (9, 3), (10, 3)]);
        assert_eq!(bare(&events, &rows.valid), [(11, 3)]);
        assert_eq!(bare(&events, &rows.test), [(12, 3)]);
        assert_eq!(notes, Notes::default());
    }

    #[test]
    fn the_last_interaction_is_tested_and_the_one_before_validates() {
        let events = events(&[(0, &[1, 2, 3, 4, 5]), (1, &[6, 7]), (2, &[8]), (3, &[9, 10, 11])]);
        let (rows, notes) = split(&events, SplitKind::LeaveOneOut, [8, 1, 1], [1, 2]);
        assert_eq!(bare(&events, &rows.train), [(2, 1), (3, 2), (7, 1)]);
        assert_eq!(bare(&events, &rows.valid), [(4, 2), (10, 1)]);
        assert_eq!(bare(&events, &rows.test), [(5, 2), (11, 2)]);
        assert_eq!((notes.users_without_test, notes.users_without_rows), (1, 1));
    }

    #[test]
    fn a_history_has_at_least_as_many_interactions_as_asked() {
        let events = events(&[(0, &[1, 2, 3, 4, 5]), (1, &[6, 7, 8])]);
        let (rows, notes) = split(&events, SplitKind::LeaveOneOut, [8, 1, 1], [3, 9]);
        assert_eq!((bare(&events, &rows.valid), bare(&events, &rows.test)), (vec![(4, 3)], vec![(5, 4)]));
        assert_eq!((rows.train.len(), notes.users_without_rows), (0, 1));
    }
}
