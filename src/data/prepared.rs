//! A prepared data set, loaded.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;

use latentr3_train::Example;

use super::error::DataError;
use super::folder;
use super::prepared_catalog::PreparedCatalog;
use super::prepared_files::{Bounds, Files};
use super::prepared_row::PreparedRow;
use super::splits::{Split, Splits};
use super::windows::{Window, count_items};
use crate::models::ObjectiveKind;
use crate::models::files::sha256;

/// A data set as [`prepare`](super::prepare) wrote it: its catalog, and the rows of its splits.
#[derive(Debug, Clone)]
pub struct Prepared {
    base: PreparedCatalog,
    /// The rows of each split.
    pub rows: Splits<Vec<PreparedRow>>,
    head: Vec<u32>,
    windows: Vec<Window>,
    files: BTreeMap<String, String>,
}

/// All that the catalog has, the data set has.
impl Deref for Prepared {
    type Target = PreparedCatalog;

    fn deref(&self) -> &PreparedCatalog {
        &self.base
    }
}

impl Prepared {
    /// Loads a prepared folder.
    ///
    /// # Errors
    /// If a file is missing, cut off or damaged, or the folder was written by another version.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        let mut files = Files::of(dir);
        let (base, head) = PreparedCatalog::read(&mut files)?;
        let summary = &base.summary;
        let bounds = Bounds::of(summary);
        let rows = Splits::try_make(|split| {
            let expected = summary.splits.get(split).rows;
            files.read_lines(&folder::rows_file(split), expected, |row| bounds.row(row))
        })?;
        let expected = summary.windows.train.saturating_add(summary.windows.valid);
        let windows = files.read_lines(folder::WINDOWS, expected, |window| bounds.window(window))?;
        Ok(Self { base, rows, head, windows, files: files.sums })
    }

    /// The catalog without the rows.
    pub fn into_catalog(self) -> PreparedCatalog {
        self.base
    }

    /// The rows of a split, to train or evaluate on.
    pub fn examples(&self, split: Split) -> Vec<Example> {
        let example = |(at, row): (usize, &PreparedRow)| Example {
            prompt: row.prompt.clone(),
            target: self.item_tokens[row.item].clone(),
            item: row.item,
            row: at,
        };
        self.rows.get(split).iter().enumerate().map(example).collect()
    }

    /// Pretraining windows, those that train and those that validate.
    ///
    /// The prompt is the wording before the history; the target is the items' tokens one after the other, for an
    /// objective: of the end tokens the last one only, or for the catalog's all of them. The item is the last. Each
    /// training interaction is in exactly one window. The validation windows are those of one user in 20 (chosen by a
    /// hash of the id; at least one of two users, and from the second one on at most 500 windows), who have no training
    /// window.
    pub fn windows(&self, objective: ObjectiveKind) -> (Vec<Example>, Vec<Example>) {
        let (mut train, mut valid) = (Vec::new(), Vec::new());
        for (row, window) in self.windows.iter().enumerate() {
            let Some(&item) = window.items.last() else {
                continue;
            };
            let target = window.target(&self.item_tokens, objective);
            let example = Example { prompt: self.head.clone(), target, item, row };
            if window.split == Split::Train { train.push(example) } else { valid.push(example) }
        }
        (train, valid)
    }

    /// How often each item was chosen in training, by catalog index.
    ///
    /// Every interaction counts once, whether a training row has it as its item or only in its history.
    pub fn train_counts(&self) -> Vec<u64> {
        count_items(self.windows.iter().map(|window| window.items.as_slice()), self.catalog.len())
    }

    /// For each token of a row's prompt, the place in the row's history of the title that it belongs to; none for the
    /// wording around the history.
    ///
    /// # Errors
    /// If the prompt is not the one that is made of the row's history.
    pub fn titles_of_tokens(&self, row: &PreparedRow) -> Result<Vec<Option<usize>>, DataError> {
        let titles: Vec<_> = row.history.iter().map(|&item| self.catalog.title(item)).collect();
        match self.prompt_by_title(&titles)? {
            (tokens, places) if tokens == row.prompt => Ok(places),
            _ => Err(DataError::OtherPrompt { user: row.user.clone() }),
        }
    }

    /// SHA-256 of every file of the folder, by its name.
    pub fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    /// A name for the folder's content, 64 hexadecimal digits: any change of a file changes it, a copy has the same.
    pub fn fingerprint(&self) -> String {
        let sums: String = self.files.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        sha256(sums.as_bytes())
    }
}

#[cfg(test)]
mod tests;
