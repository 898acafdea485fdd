//! How interactions that come one by one are to become rows, and what became of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::splits::Splits;

/// How interactions that come one by one become rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// The file with the items' titles, where it is not found beside the interactions.
    pub items: Option<PathBuf>,
    /// The column of users; found by its usual names if absent, as are the others.
    pub user_column: Option<String>,
    /// The column of items, in both files.
    pub item_column: Option<String>,
    /// The column of times.
    pub time_column: Option<String>,
    /// The column of ratings, read only for `min_rating`.
    pub rating_column: Option<String>,
    /// The column of titles.
    pub title_column: Option<String>,
    /// The column of items in the file with their titles, where it is another than in the interactions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_column: Option<String>,
    /// Keep the items of that file that no interaction has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole_catalog: bool,
    /// Leave out interactions with a lower rating, or with none; absent, all count, as in the published data.
    pub min_rating: Option<f64>,
    /// Leave out interactions before this date.
    pub from: Option<String>,
    /// Leave out interactions at this date or later.
    pub until: Option<String>,
    /// What becomes of choices that a user makes again.
    pub repeats: Repeats,
    /// Users and items have at least so many interactions with each other; absent, 5 as in the published data, and 1
    /// for RecBole's files, which are filtered already where their owner wanted it.
    pub k_core: Option<usize>,
    /// Choices that a history has at least.
    pub min_history: usize,
    /// How rows are dealt out; absent, by time as in the published data, and leaving one out for RecBole's files.
    pub split: Option<SplitKind>,
    /// Shares of the splits by time.
    pub split_ratio: [u32; 3],
    /// Take HTML and its entities out of titles.
    pub clean_titles: bool,
    /// Characters of a title at most.
    pub max_title: usize,
    /// Leave out rows of the validation and test splits whose choice no training row has.
    pub drop_cold: bool,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            items: None,
            user_column: None,
            item_column: None,
            time_column: None,
            rating_column: None,
            title_column: None,
            catalog_column: None,
            whole_catalog: false,
            min_rating: None,
            from: None,
            until: None,
            repeats: Repeats::Keep,
            k_core: None,
            min_history: 1,
            split: None,
            split_ratio: [8, 1, 1],
            clean_titles: true,
            max_title: 200,
            drop_cold: false,
        }
    }
}

/// How rows are dealt out to the splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum SplitKind {
    /// By the time of the choice, over all users: the oldest train, the newest test.
    Temporal,
    /// Each user's last choice tests, the one before it validates, the others train.
    LeaveOneOut,
}

/// What a step left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub step: String,
    /// Interactions that it removed.
    pub removed: usize,
    /// Interactions that are left.
    pub interactions: usize,
    /// Users that are left.
    pub users: usize,
    /// Items that are left.
    pub items: usize,
}

/// What becomes of choices that a user makes again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Repeats {
    /// All stay, but for those with the same time.
    #[default]
    Keep,
    /// The first one stays.
    First,
    /// The last one stays.
    Last,
}

/// How the interactions were before they were split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawSummary {
    /// What each step left.
    pub steps: Vec<Step>,
    /// Interactions for each pair of a user and an item that are left.
    pub density: f64,
    /// Items with more than one title, of which the first is used.
    pub items_with_several_titles: usize,
    /// Rows left out because no training row has their choice.
    pub cold_rows_dropped: usize,
    /// Rows of each split.
    pub rows: Splits<usize>,
    /// How many rows have a history of 1, 2, 3, .. choices; the last are as long as is allowed.
    pub history_lengths: Vec<usize>,
}
