//! How raw interactions are to become rows, and what became of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::splits::Splits;

/// How raw interactions become rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args), command(next_help_heading = "Raw interactions"))]
pub struct RawConfig {
    /// File with the items' titles, if it is not found beside the interactions.
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub items: Option<PathBuf>,
    /// Column of users [default: the first there is of user_id, reviewerID, userId, user, customer_id].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub user_column: Option<String>,
    /// Column of items, in both files [default: parent_asin, asin, item_id, movieId, item, product_id].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub item_column: Option<String>,
    /// Column of times: seconds since 1970, or milli-, micro- or nanoseconds, or dates [default: timestamp,
    /// unixReviewTime, time, date].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub time_column: Option<String>,
    /// Column of ratings, read only to leave out low ones [default: rating, overall].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub rating_column: Option<String>,
    /// Column of titles [default: title, movie_title, name, item_title, product_title].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub title_column: Option<String>,
    /// Column of items in the file of titles, where it is not called as in the interactions.
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_column: Option<String>,
    /// Keep the items of that file that no interaction has, so that they can be recommended too.
    #[cfg_attr(feature = "clap", arg(long))]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole_catalog: bool,
    /// Leave out interactions with a lower rating, or with none; else all count, as in the published data.
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATING"))]
    pub min_rating: Option<f64>,
    /// Leave out interactions before this date, as in 2015-10-01; or with `fit` the folder of a shop to go on from.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DATE"))]
    pub from: Option<String>,
    /// Leave out interactions at this date or later.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DATE"))]
    pub until: Option<String>,
    /// What becomes of an item that a user chooses again.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Repeats::Keep))]
    pub repeats: Repeats,
    /// Leave out users and items with fewer interactions, until all have so many [default: 5 as in the published data;
    /// 1 for RecBole's files, which are filtered already].
    #[cfg_attr(feature = "clap", arg(long, value_name = "K"))]
    pub k_core: Option<usize>,
    /// Items that a history has at least.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = 1))]
    pub min_history: usize,
    /// How rows are split [default: temporal as in the published data, leave-one-out for RecBole's files].
    #[cfg_attr(feature = "clap", arg(long, value_enum))]
    pub split: Option<SplitKind>,
    /// Shares of training, validation and test rows by time.
    #[cfg_attr(feature = "clap", arg(long, value_name = "A:B:C", default_value = "8:1:1", value_parser = parse_ratio))]
    pub split_ratio: [u32; 3],
    /// Take HTML and its entities out of titles (as an option: leave them in).
    #[cfg_attr(feature = "clap", arg(long = "keep-markup", action = clap::ArgAction::SetFalse))]
    pub clean_titles: bool,
    /// Characters of a title at most; a longer one is cut at a word.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = 200))]
    pub max_title: usize,
    /// How to handle validation and test rows whose item no training row has: keep or drop.
    #[cfg_attr(feature = "clap", arg(long = "cold-items", value_name = "keep|drop", default_value = "keep", value_parser = parse_cold, action = clap::ArgAction::Set))]
    pub drop_cold: bool,
}

/// `8:1:1`, as an option of the program.
#[cfg(feature = "clap")]
fn parse_ratio(text: &str) -> Result<[u32; 3], String> {
    let parts: Vec<u32> = text.split(':').map(|part| part.parse().unwrap_or(0)).collect();
    match <[u32; 3]>::try_from(parts) {
        Ok(parts) if !parts.contains(&0) => Ok(parts),
        _ => Err("three whole numbers from 1, as in 8:1:1".into()),
    }
}

/// Whether cold items are dropped, as an option of the program.
#[cfg(feature = "clap")]
fn parse_cold(text: &str) -> Result<bool, String> {
    match text {
        "keep" => Ok(false),
        "drop" => Ok(true),
        _ => Err("write keep or drop".into()),
    }
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
