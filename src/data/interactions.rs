//! Interactions, in time order.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::catalog::Catalog;
use super::raw::config::{RawConfig, RawSummary};
use super::splits::{Split, Splits};

/// One interaction and the history before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The user's id.
    pub user: String,
    /// Catalog indices of earlier interactions, oldest first, at least one.
    pub history: Vec<usize>,
    /// Catalog index of the target.
    pub item: usize,
    /// When it was made, in seconds since 1970 (UTC), where that is known.
    pub timestamp: Option<i64>,
    /// Line of the target in the split's file, counted from 1.
    pub line: usize,
}

/// The layouts of data that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Split tables with ASINs beside the item ids, and `info.txt`.
    AmazonAsin,
    /// Split tables with semantic ids beside the item ids, and `info.txt`.
    SemanticIds,
    /// Split tables with neither, and `info.txt`.
    SplitTables,
    /// RecBole's atomic files.
    Recbole,
    /// MovieLens's ratings and movies.
    MovieLens,
    /// Any file with an interaction a record, Amazon's reviews among them.
    Events,
}

/// What a reader noticed and passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Titles in rows that differ from the catalog's (which is used).
    pub titles_unlike_catalog: usize,
    /// Users who only have training rows, because two interactions are too few to leave any out.
    pub users_without_test: usize,
    /// Users without any row, because a single interaction has no history.
    pub users_without_rows: usize,
}

/// A data set as its owner wrote it, with items resolved to the catalog.
#[derive(Debug, Clone)]
pub struct Interactions {
    /// How it was written.
    pub layout: Layout,
    /// The items.
    pub catalog: Catalog,
    /// The rows, in the order of their files.
    pub rows: Splits<Vec<Row>>,
    /// Which file each split comes from.
    pub files: Splits<PathBuf>,
    /// All files that were read.
    pub inputs: Vec<PathBuf>,
    /// What was passed over.
    pub notes: Notes,
    /// How raw interactions were filtered.
    pub raw: Option<RawSummary>,
}

impl Interactions {
    /// Moves the rows of the other splits to those that train.
    pub(super) fn train_on_all(&mut self) {
        for split in [Split::Valid, Split::Test] {
            let rows = std::mem::take(self.rows.get_mut(split));
            self.rows.train.extend(rows);
        }
    }
}

/// How to read interactions.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Longest history where the reader builds it; split tables keep the histories that they have.
    pub max_history: usize,
    /// Take items of split tables without a title instead of refusing them.
    pub allow_empty_titles: bool,
    /// Whether the rows of all splits train, for a model that is served.
    pub all_train: bool,
    /// How raw interactions become rows.
    pub raw: RawConfig,
}
