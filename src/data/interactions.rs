//! What users chose, in the order in which they chose it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::catalog::Catalog;
use super::error::DataError;
use super::raw::{self, RawConfig, RawSummary};
use super::split_tables;

/// The three parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What settings are chosen by.
    Valid,
    /// What is reported in the end.
    Test,
}

impl Split {
    /// All splits in order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// The split's name: `train`, `valid` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

/// One thing for each split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splits<T> {
    /// That of the training split.
    pub train: T,
    /// That of the validation split.
    pub valid: T,
    /// That of the test split.
    pub test: T,
}

impl<T> Splits<T> {
    /// Makes the three things in order.
    pub fn make(mut make: impl FnMut(Split) -> T) -> Self {
        Self { train: make(Split::Train), valid: make(Split::Valid), test: make(Split::Test) }
    }

    /// Makes the three things in order, or the first error.
    pub fn try_make<E>(mut make: impl FnMut(Split) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { train: make(Split::Train)?, valid: make(Split::Valid)?, test: make(Split::Test)? })
    }

    /// The thing of one split.
    pub fn get(&self, split: Split) -> &T {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
            Split::Test => &self.test,
        }
    }

    /// The thing of one split, to change.
    pub fn get_mut(&mut self, split: Split) -> &mut T {
        match split {
            Split::Train => &mut self.train,
            Split::Valid => &mut self.valid,
            Split::Test => &mut self.test,
        }
    }
}

/// One choice of a user and what came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The user's id.
    pub user: String,
    /// Catalog indices of earlier choices, oldest first, at least one.
    pub history: Vec<usize>,
    /// Catalog index of the choice.
    pub item: usize,
    /// When it was made, in seconds since 1970 (UTC), where that is known.
    pub timestamp: Option<i64>,
    /// Line of the choice in the split's file, counted from 1.
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
    /// Users who only have training rows, because two choices are too few to leave any out.
    pub users_without_test: usize,
    /// Users without any row, because a single choice has no history.
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
    /// How the interactions were filtered, where they came one by one.
    pub raw: Option<RawSummary>,
}

/// How to read interactions.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Longest history where the reader builds it; split tables keep the histories that they have.
    pub max_history: usize,
    /// Take items of split tables without a title instead of refusing them.
    pub allow_empty_titles: bool,
    /// How interactions that come one by one become rows.
    pub raw: RawConfig,
}

impl Interactions {
    /// Reads the data set in a folder, whose files tell its layout, or in a file of interactions:
    ///
    /// - `train.csv`, `valid.csv`, `test.csv` with at least the columns `user_id`, `history_item_title`, `item_title`,
    ///   `history_item_id` and `item_id` (histories as Python lists), and `info.txt` with `title<TAB>id` or
    ///   `semantic id<TAB>title<TAB>id` lines: rows as they are;
    /// - interactions one a record, with a user, an item and a time, and the items' titles in the same file or another:
    ///   RecBole's `NAME.inter` and `NAME.item`, MovieLens's `ratings.dat` and `movies.dat` or the same as `.csv`, Amazon's
    ///   reviews and metadata of 2018 and 2023, and any other CSV, TSV, JSON lines or Parquet file. They are filtered and
    ///   split as [`RawConfig`] says.
    ///
    /// # Errors
    /// On the first thing that is wrong, with file, line and column.
    pub fn read(data: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        match Self::find(data)? {
            Some(found) => Ok(raw::plan(found, &options.raw, options.max_history)?.into_interactions()),
            None if options.raw != RawConfig::default() => Err(DataError::Setting {
                setting: "an option for interactions that come one by one",
                problem: format!(
                    "does not apply: {} has rows with histories, which are used as they are",
                    data.display()
                ),
            }),
            None => split_tables::read(data, options),
        }
    }

    /// What [`Self::read`] would make of interactions that come one by one, without making rows of them; `None` for
    /// split tables.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn survey(data: &Path, options: &ReadOptions) -> Result<Option<RawSummary>, DataError> {
        match Self::find(data)? {
            Some(found) => Ok(Some(raw::plan(found, &options.raw, options.max_history)?.summary)),
            None => Ok(None),
        }
    }

    /// The interactions that are there, or `None` for split tables.
    fn find(data: &Path) -> Result<Option<raw::Found>, DataError> {
        if ["train.csv", "info.txt"].iter().any(|name| data.join(name).exists()) {
            let entries = std::fs::read_dir(data).map_err(|error| DataError::io(data, "list", error))?;
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut found: Vec<String> = names.filter(|name| name.ends_with(".inter")).collect();
            if found.is_empty() {
                return Ok(None);
            }
            found.sort();
            found.push("train.csv".into());
            return Err(DataError::SeveralDataSets { dir: data.into(), found });
        }
        raw::locate(data)?.map(Some).ok_or_else(|| DataError::UnknownLayout { dir: data.into() })
    }
}
