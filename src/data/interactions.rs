//! What users chose, in the order in which they chose it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::catalog::Catalog;
use super::error::DataError;
use super::{recbole, split_tables};

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
    /// When it was made, in the data's own unit.
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
    /// RecBole's atomic files, split by leaving each user's last two choices out.
    Recbole,
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
    /// What was passed over.
    pub notes: Notes,
}

/// How to read interactions.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// Longest history where the reader builds it (RecBole); split tables keep the histories that they have.
    pub max_history: usize,
    /// Take items without a title instead of refusing them.
    pub allow_empty_titles: bool,
}

impl Interactions {
    /// Reads the data set in a folder, whose files tell its layout:
    ///
    /// - `train.csv`, `valid.csv`, `test.csv` with at least the columns `user_id`, `history_item_title`, `item_title`,
    ///   `history_item_id` and `item_id` (histories as Python lists), and `info.txt` with `title<TAB>id` or
    ///   `semantic id<TAB>title<TAB>id` lines;
    /// - one `NAME.inter` with `user_id`, `item_id` and `timestamp`, and `NAME.item` with `item_id` and one of `title`,
    ///   `movie_title` and `name`. Each user's last choice by time is the test row, the one before it the validation
    ///   row; every earlier choice that has a history is a training row.
    ///
    /// Files are held in memory while they are read.
    ///
    /// # Errors
    /// On the first thing that is wrong, with file, line and column.
    pub fn read(dir: &Path, options: ReadOptions) -> Result<Self, DataError> {
        let mut atomic_files = Vec::new();
        let mut has_tables = false;
        let entries = std::fs::read_dir(dir).map_err(|error| DataError::io(dir, "list", error))?;
        for entry in entries {
            let name = entry.map_err(|error| DataError::io(dir, "list", error))?.file_name();
            has_tables |= name == "train.csv";
            if Path::new(&name).extension().is_some_and(|extension| extension == "inter") {
                atomic_files.push(PathBuf::from(name));
            }
        }
        atomic_files.sort();
        match (has_tables, atomic_files.as_slice()) {
            (true, []) => split_tables::read(dir, options),
            (false, [file]) => recbole::read(&dir.join(file), options),
            (false, []) => Err(DataError::UnknownLayout { dir: dir.into() }),
            (_, files) => {
                let mut found: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                found.extend(has_tables.then(|| "train.csv".into()));
                Err(DataError::SeveralDataSets { dir: dir.into(), found })
            }
        }
    }
}
