//! From files to interactions, whatever their layout.

use std::path::Path;

use super::error::DataError;
use super::interactions::{Interactions, ReadOptions};
use super::raw::config::{RawConfig, RawSummary};
use super::{raw, split_tables};

impl Interactions {
    /// Reads the data set in a folder, whose files tell its layout, or in a file of interactions:
    ///
    /// - `train.csv`, `valid.csv`, `test.csv` with at least the columns `user_id`, `history_item_title`, `item_title`,
    ///   `history_item_id` and `item_id` (histories as Python lists), and `info.txt` with `title<TAB>id` or
    ///   `semantic id<TAB>title<TAB>id` lines: rows as they are;
    /// - interactions one a record, with a user, an item and a time, and the items' titles in the same file or another:
    ///   RecBole's `NAME.inter` and `NAME.item`, MovieLens's `ratings.dat` and `movies.dat` or the same as `.csv`,
    ///   Amazon's reviews and metadata of 2018 and 2023, and any other CSV, TSV, JSON lines or Parquet file. They are
    ///   filtered and split as [`RawConfig`] says.
    ///
    /// # Errors
    /// On the first thing that is wrong, with file, line and column.
    pub fn read(data: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        let mut read = match Self::find(data)? {
            Some(found) => {
                let plan = raw::plan(found, &options.raw, options.max_history, options.all_train)?;
                Ok(plan.into_interactions())
            }
            None if options.raw != RawConfig::default() => Err(DataError::Damaged {
                path: data.into(),
                problem: "has rows with histories, which are used as they are; settings for raw interactions do not \
                          apply"
                    .into(),
            }),
            None => split_tables::read(data, options),
        }?;
        if options.all_train {
            read.train_on_all();
        }
        Ok(read)
    }

    /// What `given` leaves open of how raw interactions become rows, from the names and the content of
    /// their columns; `None` for split tables.
    ///
    /// # Errors
    /// A file that cannot be read, and a column that must be there and looks like none of them.
    pub fn guess(data: &Path, given: &RawConfig) -> Result<Option<RawConfig>, DataError> {
        Self::find(data)?.map(|found| raw::guess(&found, given)).transpose()
    }

    /// What [`Self::read`] would make of raw interactions, without making rows of them; `None` for
    /// split tables.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub fn survey(data: &Path, options: &ReadOptions) -> Result<Option<RawSummary>, DataError> {
        match Self::find(data)? {
            Some(found) => Ok(Some(raw::plan(found, &options.raw, options.max_history, options.all_train)?.summary)),
            None => Ok(None),
        }
    }

    /// The interactions that are there, or `None` for split tables.
    pub(in crate::data) fn find(data: &Path) -> Result<Option<raw::Found>, DataError> {
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
