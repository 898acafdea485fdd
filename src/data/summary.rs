//! What a prepared data set is like, in numbers.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::drop_titles::Dropped;
use super::interactions::{Layout, Notes};
use super::prepared_row::PreparedRow;
use super::raw::config::RawSummary;
use super::special_tokens::SpecialToken;
use super::splits::{Split, Splits};
use super::windows::Window;

/// What a prepared data set is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How the data was written.
    pub layout: Layout,
    /// Users in any split.
    pub users: usize,
    /// Items of the catalog.
    pub items: usize,
    /// Different titles.
    pub titles: usize,
    /// Titles that more than one item has.
    pub shared_titles: usize,
    /// Items whose title another item has too.
    pub items_with_shared_title: usize,
    /// Items with HTML in the title, before any were dropped.
    pub markup_titles: usize,
    /// Each split.
    pub splits: Splits<SplitSummary>,
    /// What was dropped.
    pub dropped: Dropped,
    /// What the reader passed over.
    pub notes: Notes,
    /// How raw interactions were filtered.
    pub raw: Option<RawSummary>,
    /// The pretraining windows.
    pub windows: WindowSummary,
    /// Tokens of the items' targets, end token included.
    pub target_tokens: Spread,
    /// The token that begins prompts, if one does.
    #[serde(default)]
    pub begin_token: Option<SpecialToken>,
    /// The token that ends targets.
    pub end_token: SpecialToken,
    /// Size of the vocabulary.
    pub vocab_size: usize,
}

/// What a split is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// Number of rows.
    pub rows: usize,
    /// Different users.
    pub users: usize,
    /// Rows whose item no training row has, neither as target nor in the history.
    pub cold_targets: usize,
    /// Their share of the rows.
    pub cold_share: f64,
    /// Choices in the history, after the cut to the longest allowed.
    pub history: Spread,
    /// Tokens of the prompt.
    pub prompt_tokens: Spread,
    /// Tokens of the target, end token included.
    pub target_tokens: Spread,
    /// Prompts that lost titles to fit the allowed tokens.
    pub shortened_prompts: usize,
}

/// What the pretraining windows are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowSummary {
    /// Windows that train.
    pub train: usize,
    /// Windows that validate, from users who have none that trains.
    pub valid: usize,
    /// Choices in all windows.
    pub choices: usize,
    /// Tokens of a window's titles, one end token included.
    pub target_tokens: Spread,
}

/// How far values lie apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: usize,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: usize,
}

impl Spread {
    /// The spread of some values; all zero for none.
    pub fn of(values: impl IntoIterator<Item = usize>) -> Self {
        let (mut min, mut max, mut sum, mut count) = (usize::MAX, 0, 0, 0usize);
        for value in values {
            min = min.min(value);
            max = max.max(value);
            sum += value;
            count += 1;
        }
        if count == 0 { Self::default() } else { Self { min, mean: sum as f64 / count as f64, max } }
    }
}

impl SplitSummary {
    pub(super) fn of(
        rows: &[PreparedRow],
        item_tokens: &[Vec<u32>],
        train_counts: &[u64],
        shortened_prompts: usize,
    ) -> Self {
        let cold_targets = rows.iter().filter(|row| train_counts[row.item] == 0).count();
        Self {
            rows: rows.len(),
            users: rows.iter().map(|row| &row.user).collect::<HashSet<_>>().len(),
            cold_targets,
            cold_share: cold_targets as f64 / rows.len().max(1) as f64,
            history: Spread::of(rows.iter().map(|row| row.history.len())),
            prompt_tokens: Spread::of(rows.iter().map(|row| row.prompt.len())),
            target_tokens: Spread::of(rows.iter().map(|row| item_tokens[row.item].len())),
            shortened_prompts,
        }
    }
}

impl WindowSummary {
    pub(super) fn of(windows: &[Window], item_tokens: &[Vec<u32>]) -> Self {
        let train = windows.iter().filter(|window| window.split == Split::Train).count();
        Self {
            train,
            valid: windows.len() - train,
            choices: windows.iter().map(|window| window.items.len()).sum(),
            target_tokens: Spread::of(windows.iter().map(|window| Window::tokens(&window.items, item_tokens))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_values() {
        assert_eq!(Spread::of([3, 1, 4]), Spread { min: 1, mean: 8.0 / 3.0, max: 4 });
        assert_eq!(Spread::of([]), Spread { min: 0, mean: 0.0, max: 0 });
    }
}
