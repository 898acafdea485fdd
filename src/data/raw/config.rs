//! How raw interactions are to become rows, and what became of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::splits::Splits;

/// How raw interactions become rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args), command(next_help_heading = "Raw interactions"))]
pub struct RawConfig {
    /// File with the items' titles [default: found beside the interactions].
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub items: Option<PathBuf>,
    /// Column of user ids [default: user_id, reviewerID, userId, user, customer_id, else guessed from the names].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub user_column: Option<String>,
    /// Column of item ids, in both files [default: parent_asin, asin, item_id, movieId, item, product_id, else
    /// guessed].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub item_column: Option<String>,
    /// Column of timestamps: seconds, milli-, micro- or nanoseconds since 1970, or dates [default: timestamp,
    /// unixReviewTime, time, date, else guessed from names and values].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub time_column: Option<String>,
    /// Column of ratings, used only for --min-rating [default: rating, overall].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub rating_column: Option<String>,
    /// Column of titles [default: title, movie_title, name, item_title, product_title, else guessed; for
    /// `fit`, the item ids if there is none].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub title_column: Option<String>,
    /// Column of item ids in the file of titles [default: the one that holds the ids of the interactions].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_column: Option<String>,
    /// Keep items in the file of titles that have no interactions, so that they can be recommended; `fit`
    /// always does.
    #[cfg_attr(feature = "clap", arg(long))]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole_catalog: bool,
    /// Drop interactions with a lower rating or none [default: keep all, as in the published data].
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATING"))]
    pub min_rating: Option<f64>,
    /// Drop interactions before this date, as in 2015-10-01; for `fit`, a date or a shop folder to continue from.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DATE"))]
    pub from: Option<String>,
    /// Drop interactions on or after this date.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DATE"))]
    pub until: Option<String>,
    /// How to handle repeated interactions of a user with an item.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Repeats::Keep))]
    pub repeats: Repeats,
    /// Drop users and items with fewer than K interactions, until all have K [default: 5, as in the published data; 1
    /// for RecBole's files, which are already filtered, and for `fit`].
    #[cfg_attr(feature = "clap", arg(long, value_name = "K"))]
    pub k_core: Option<usize>,
    /// Minimum number of items in a history.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = 1))]
    pub min_history: usize,
    /// How rows are split [default: temporal, as in the published data; leave-one-out for RecBole's files;
    /// for `fit`, temporal if the times are real ones over more than a month, else leave-one-out].
    #[cfg_attr(feature = "clap", arg(long, value_enum))]
    pub split: Option<SplitKind>,
    /// Ratio of training, validation and test rows in a temporal split.
    #[cfg_attr(feature = "clap", arg(long, value_name = "A:B:C", default_value = "8:1:1", value_parser = parse_ratio))]
    pub split_ratio: [u32; 3],
    /// Whether HTML and its entities are removed from titles.
    #[cfg_attr(
        feature = "clap",
        arg(
            long = "keep-markup",
            action = clap::ArgAction::SetFalse,
            help = "Keep HTML and its entities in titles"
        )
    )]
    pub clean_titles: bool,
    /// Maximum number of characters in a title; a longer one is cut at a word.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = 200))]
    pub max_title: usize,
    /// How to handle cold-start targets, validation and test rows whose item is in no training row: keep or drop them.
    #[cfg_attr(feature = "clap", arg(long = "cold-items", value_name = "keep|drop", default_value = "keep", value_parser = parse_cold, action = clap::ArgAction::Set))]
    pub drop_cold: bool,
}

/// `8:1:1`, as an option of the program.
#[cfg(feature = "clap")]
fn parse_ratio(text: &str) -> Result<[u32; 3], String> {
    let parts: Vec<u32> = text.split(':').map(|part| part.parse().unwrap_or(0)).collect();
    match <[u32; 3]>::try_from(parts) {
        Ok(parts) if !parts.contains(&0) => Ok(parts),
        _ => Err("must be three positive whole numbers, as in 8:1:1".into()),
    }
}

/// Whether cold items are dropped, as an option of the program.
#[cfg(feature = "clap")]
fn parse_cold(text: &str) -> Result<bool, String> {
    match text {
        "keep" => Ok(false),
        "drop" => Ok(true),
        _ => Err("must be keep or drop".into()),
    }
}

impl RawConfig {
    /// The same with the name of the file of titles in the place of its path.
    pub(in crate::data) fn without_path(self) -> Self {
        let name = |path: PathBuf| PathBuf::from(path.file_name().unwrap_or_default());
        Self { items: self.items.map(name), ..self }
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

/// How rows are assigned to the splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum SplitKind {
    /// By time, over all users: the oldest rows train, the newest test.
    Temporal,
    /// By user: the last interaction tests, the one before it validates, the others train.
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

/// How to handle repeated interactions of a user with an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Repeats {
    /// Keep all, except those with the same timestamp.
    #[default]
    Keep,
    /// Keep the first one.
    First,
    /// Keep the last one.
    Last,
}

/// How the interactions were before they were split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawSummary {
    /// How they were read, with what was left open: columns, the name of the file of titles, k-core and split.
    #[serde(default)]
    pub config: RawConfig,
    /// What each step left.
    pub steps: Vec<Step>,
    /// Interactions for each pair of a user and an item that are left.
    pub density: f64,
    /// Items with more than one title, of which the first is used.
    pub items_with_several_titles: usize,
    /// Rows left out because no training row has their target.
    pub cold_rows_dropped: usize,
    /// Rows of each split.
    pub rows: Splits<usize>,
    /// How many rows have a history of 1, 2, 3, .. interactions; the last are as long as is allowed.
    pub history_lengths: Vec<usize>,
}
