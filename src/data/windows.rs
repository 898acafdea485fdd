//! Pieces of users' training histories, to pretrain a model that is to recommend.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::catalog::Catalog;
use super::error::DataError;
use super::interactions::Row;
use super::splits::Split;
use crate::models::ObjectiveKind;
use crate::models::files::sha256;

/// Share of users whose windows validate pretraining: one in this many.
const USERS_PER_HELD_OUT: usize = 20;

/// Most windows that validate pretraining.
const MAX_HELD_OUT_WINDOWS: usize = 500;

/// All interactions of one user that the training rows know of, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) user: String,
    pub(super) items: Vec<usize>,
}

/// Consecutive interactions of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    /// Whether the window trains or validates; never [`Split::Test`].
    pub(super) split: Split,
    pub(super) items: Vec<usize>,
}

impl Window {
    /// The items' own tokens one after the other, as they follow each other in a model. Of the end tokens it has the
    /// last one only; with the catalog's objective all of them, by which it knows where a title ends.
    pub(super) fn target(&self, item_tokens: &[Vec<u32>], objective: ObjectiveKind) -> Vec<u32> {
        let last = self.items.len().saturating_sub(1);
        let tokens = |(place, &item): (usize, &usize)| {
            let tokens = item_tokens[item].as_slice();
            match objective {
                ObjectiveKind::Vocabulary if place < last => &tokens[..tokens.len() - 1],
                _ => tokens,
            }
        };
        self.items.iter().enumerate().flat_map(tokens).copied().collect()
    }

    /// Tokens of the titles and an end token.
    pub(super) fn tokens(items: &[usize], item_tokens: &[Vec<u32>]) -> usize {
        items.iter().map(|&item| item_tokens[item].len() - 1).sum::<usize>() + 1
    }
}

/// What windows are cut by.
pub(super) struct WindowSettings<'a> {
    pub(super) catalog: &'a Catalog,
    /// Tokens of each item, the end token last.
    pub(super) item_tokens: &'a [Vec<u32>],
    /// Tokens before the titles.
    pub(super) head: usize,
    pub(super) max_tokens: usize,
    /// Most interactions in a window.
    pub(super) window: usize,
}

/// Puts each user's interactions together from training rows, which repeat earlier interactions as history.
///
/// A row continues the user's sequence where its history overlaps the sequence's end the most; what the history has
/// beyond that, and then the item, is appended. Users stand in the order of their first row.
pub(super) fn train_sequences(rows: &[Row]) -> Vec<Sequence> {
    let mut sequences: Vec<Sequence> = Vec::new();
    let mut of_user: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        let at = *of_user.entry(&row.user).or_insert(sequences.len());
        if at == sequences.len() {
            sequences.push(Sequence { user: row.user.clone(), items: Vec::new() });
        }
        let items = &mut sequences[at].items;
        let longest = items.len().min(row.history.len());
        let overlap = (0..=longest).rev().find(|&length| items.ends_with(&row.history[..length])).unwrap_or(0);
        items.extend(&row.history[overlap..]);
        items.push(row.item);
    }
    sequences
}

/// How often each item was chosen in training, each interaction counted once.
pub(super) fn count_items<'a>(runs: impl IntoIterator<Item = &'a [usize]>, items: usize) -> Vec<u64> {
    let mut counts = vec![0; items];
    for &item in runs.into_iter().flatten() {
        counts[item] += 1;
    }
    counts
}

/// Cuts all sequences into windows; every interaction is in exactly one.
///
/// One user in 20, at least one if there are two, validates instead of training: those first by a hash of their id,
/// as long as they have at most 500 windows together.
///
/// # Errors
/// If a window of one title is longer than allowed.
pub(super) fn cut_windows(sequences: &[Sequence], settings: &WindowSettings) -> Result<Vec<Window>, DataError> {
    let cut: Vec<_> = sequences.par_iter().map(|sequence| settings.cut(sequence)).collect();
    let mut of_users = cut.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_cached_key(|&at| (sha256(sequences[at].user.as_bytes()), &sequences[at].user));
    let users = if sequences.len() < 2 { 0 } else { sequences.len().div_ceil(USERS_PER_HELD_OUT) };
    let mut windows = 0;
    for (taken, &at) in order[..users].iter().enumerate() {
        windows += of_users[at].len();
        if taken > 0 && windows > MAX_HELD_OUT_WINDOWS {
            break;
        }
        for window in &mut of_users[at] {
            window.split = Split::Valid;
        }
    }
    Ok(of_users.into_iter().flatten().collect())
}

impl WindowSettings<'_> {
    fn cut(&self, sequence: &Sequence) -> Result<Vec<Window>, DataError> {
        let mut windows = Vec::new();
        for items in sequence.items.chunks(self.window) {
            self.fit(items, &sequence.user, &mut windows)?;
        }
        Ok(windows)
    }

    /// Makes one window of the items, or more where one would be too long.
    fn fit(&self, items: &[usize], user: &str, windows: &mut Vec<Window>) -> Result<(), DataError> {
        let tokens = self.head + Window::tokens(items, self.item_tokens);
        if tokens <= self.max_tokens {
            windows.push(Window { split: Split::Train, items: items.into() });
        } else if let [item] = items {
            return Err(DataError::TooLong {
                place: format!("user {user}"),
                what: "a pretraining window with one title",
                tokens,
                max_tokens: self.max_tokens,
                title: self.catalog.title(*item).into(),
            });
        } else {
            let (older, newer) = items.split_at(items.len().div_ceil(2));
            self.fit(older, user, windows)?;
            self.fit(newer, user, windows)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::catalog::Item;

    fn row(user: &str, history: &[usize], item: usize) -> Row {
        Row { user: user.into(), history: history.into(), item, timestamp: None, line: 2 }
    }

    fn sequence(user: &str, items: &[usize]) -> Sequence {
        Sequence { user: user.into(), items: items.into() }
    }

    /// Tokens of ten items: a quote, the title and a quote, and the end token 0.
    fn item_tokens() -> Vec<Vec<u32>> {
        (0..10).map(|at| vec![11, at + 1, 11, 0]).collect()
    }

    /// Cuts with titles of one digit.
    fn cut(sequences: &[Sequence], window: usize, max_tokens: usize) -> Result<Vec<Window>, DataError> {
        let items = (0..10).map(|at| Item { id: at.to_string(), title: at.to_string() }).collect();
        let catalog = Catalog::new(items).unwrap();
        let item_tokens = item_tokens();
        let settings = WindowSettings { catalog: &catalog, item_tokens: &item_tokens, head: 4, max_tokens, window };
        cut_windows(sequences, &settings)
    }

    #[test]
    fn rows_of_growing_histories_count_each_choice_once() {
        let rows = [row("u", &[1], 2), row("v", &[5], 5), row("u", &[1, 2], 3), row("u", &[2, 3], 4)];
        assert_eq!(train_sequences(&rows), [sequence("u", &[1, 2, 3, 4]), sequence("v", &[5, 5])]);
    }

    #[test]
    fn gaps_between_rows_are_filled_from_the_history() {
        let rows = [row("u", &[1], 2), row("u", &[2, 3, 4], 5), row("u", &[7], 8)];
        assert_eq!(train_sequences(&rows), [sequence("u", &[1, 2, 3, 4, 5, 7, 8])]);
    }

    #[test]
    fn repeated_choices_are_not_lost() {
        let rows = [row("u", &[1], 1), row("u", &[1, 1], 1), row("u", &[1, 1, 1], 2)];
        assert_eq!(train_sequences(&rows), [sequence("u", &[1, 1, 1, 2])]);
    }

    #[test]
    fn every_choice_is_in_exactly_one_window() {
        let sequences = [sequence("u", &[0, 1, 2, 3, 4, 5, 6]), sequence("v", &[7])];
        let windows = cut(&sequences, 3, 100).unwrap();
        let items: Vec<_> = windows.iter().map(|window| window.items.as_slice()).collect();
        assert_eq!(items, [&[0, 1, 2][..], &[3, 4, 5], &[6], &[7]]);
        assert_eq!(count_items(items, 8), [1; 8]);
    }

    #[test]
    fn windows_that_are_too_long_are_cut_further() {
        // A window of n titles has 4 tokens of head, 3 n of titles and the end token.
        let windows = cut(&[sequence("u", &[0, 1, 2, 3, 4])], 5, 4 + 3 * 2 + 1).unwrap();
        let items: Vec<_> = windows.iter().map(|window| window.items.as_slice()).collect();
        assert_eq!(items, [&[0, 1][..], &[2], &[3, 4]]);
        let error = cut(&[sequence("u", &[0])], 5, 7).unwrap_err();
        assert!(matches!(error, DataError::TooLong { tokens: 8, max_tokens: 7, .. }), "{error}");
    }

    #[test]
    fn the_titles_of_a_window_are_the_items_own_tokens() {
        let window = Window { split: Split::Train, items: vec![2, 0] };
        let vocabulary = window.target(&item_tokens(), ObjectiveKind::Vocabulary);
        assert_eq!(vocabulary, [11, 3, 11, 11, 1, 11, 0]);
        assert_eq!(vocabulary.len(), Window::tokens(&window.items, &item_tokens()));
        assert_eq!(window.target(&item_tokens(), ObjectiveKind::Catalog), [11, 3, 11, 0, 11, 1, 11, 0]);
    }

    #[test]
    fn one_user_in_twenty_validates_with_all_windows_whatever_the_order() {
        let mut sequences: Vec<_> = (0..100).map(|at| sequence(&format!("user{at}"), &[1, 2, 3])).collect();
        let held_out = |windows: &[Window]| windows.iter().filter(|window| window.split == Split::Valid).count();
        let windows = cut(&sequences, 2, 100).unwrap();
        assert_eq!(held_out(&windows), 5 * 2);
        let valid_users = |sequences: &[Sequence], windows: &[Window]| {
            let users = sequences.iter().flat_map(|sequence| [sequence.user.clone(), sequence.user.clone()]);
            let mut users: Vec<_> =
                users.zip(windows).filter(|(_, window)| window.split == Split::Valid).map(|(user, _)| user).collect();
            users.sort();
            users
        };
        let before = valid_users(&sequences, &windows);
        sequences.reverse();
        assert_eq!(valid_users(&sequences, &cut(&sequences, 2, 100).unwrap()), before);
    }

    #[test]
    fn at_most_500_windows_and_at_least_one_user_validate() {
        let held_out = |sequences: &[Sequence]| {
            let windows = cut(sequences, 1, 100).unwrap();
            windows.iter().filter(|window| window.split == Split::Valid).count()
        };
        let long: Vec<_> = (0..80).map(|at| sequence(&at.to_string(), &[1; 200])).collect();
        assert_eq!(held_out(&long), 400);
        assert_eq!(held_out(&[sequence("u", &[1; 600]), sequence("v", &[1; 600])]), 600);
        assert_eq!(held_out(&[sequence("u", &[1, 2])]), 0);
    }
}
