//! What can be wrong with data, in words that let its owner fix it.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::list_cell::ListError;
use super::visible::visible;
use crate::from_hub::HubError;

/// Why data cannot be read, prepared or loaded.
///
/// A line is counted from 1 in the file, header included; a row that spans lines is named by its first.
#[derive(Debug, Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// What it reported.
        source: std::io::Error,
    },
    /// The user stopped the command; nothing was written.
    #[error("stopped; nothing was written")]
    Interrupted,
    /// A folder in none of the supported layouts.
    #[error(
        "{}: no data set found; expected train.csv, valid.csv, test.csv and info.txt; or NAME.inter and NAME.item; \
         or ratings.dat and movies.dat (or .csv); or a file of reviews and one of items; \
         or give the file of interactions itself",
        dir.display()
    )]
    UnknownLayout {
        /// The folder.
        dir: PathBuf,
    },
    /// A file of records in none of the supported formats.
    #[error(
        "{}: unknown file format; expected a name ending in .csv, .tsv, .json or .jsonl (optionally .gz), .parquet, \
         .inter or .item, or ratings.dat or movies.dat",
        path.display()
    )]
    UnknownForm {
        /// The file.
        path: PathBuf,
    },
    /// A record that cannot be read.
    #[error("{}, line {line}: {problem}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A file that cannot be read as a whole.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The filters leave no interactions.
    #[error("{}: no interactions are left ({steps})", path.display())]
    NothingLeft {
        /// The interactions.
        path: PathBuf,
        /// Interactions after each step.
        steps: String,
    },
    /// Interactions with none of the items that have titles.
    #[error(
        "{}: no item of {} has a title here; check that `{id}` matches in both files and `{title}` holds the titles",
        path.display(),
        events.display()
    )]
    Untitled {
        /// The items.
        path: PathBuf,
        /// Their column of ids.
        id: String,
        /// Their column of titles.
        title: String,
        /// The interactions.
        events: PathBuf,
    },
    /// A folder with several data sets.
    #[error("{}: more than one data set ({}); keep one per folder", dir.display(), found.join(", "))]
    SeveralDataSets {
        /// The folder.
        dir: PathBuf,
        /// The files that each start a data set.
        found: Vec<String>,
    },
    /// A file that the layout needs.
    #[error("{}: file not found; {needed_for}", path.display())]
    MissingFile {
        /// Where it should be.
        path: PathBuf,
        /// What it holds and why it is needed.
        needed_for: &'static str,
    },
    /// A file without content.
    #[error("{}: the file is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A file that has a header and nothing else.
    #[error("{}: the file has a header but no rows; at least one row is needed", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that are not UTF-8.
    #[error("{}, line {line}: not UTF-8; convert the file (for example with iconv -f LATIN1 -t UTF-8)", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first bad byte.
        line: usize,
    },
    /// A column that the header lacks.
    #[error("{}, line 1: no column {column} among {}; add it or rename one", path.display(), listed(found))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// What the column is called; in backquotes, alternatives joined by "or".
        column: String,
        /// The columns that are there.
        found: Vec<String>,
        /// The field of [`RawConfig`](super::RawConfig) that names another, if there is one.
        setting: Option<&'static str>,
    },
    /// A column that the header has twice.
    #[error("{}, line 1: two columns are called `{column}`; rename one of them", path.display())]
    TwoColumns {
        /// The file.
        path: PathBuf,
        /// The name.
        column: String,
    },
    /// A row with more or fewer fields than it should have.
    #[error(
        "{}, line {line}: {found} fields instead of {expected}; look for an unquoted separator or an unclosed quote",
        path.display()
    )]
    FieldCount {
        /// The file.
        path: PathBuf,
        /// Line of the row.
        line: usize,
        /// Number of fields of the first line, or of what the file may have.
        expected: usize,
        /// Number of fields in this one.
        found: usize,
    },
    /// A quote that swallows the rest of the file.
    #[error("{}, line {line}: a quote is opened and never closed; close it or double it", path.display())]
    UnclosedQuote {
        /// The file.
        path: PathBuf,
        /// Line of the row that the quote is in.
        line: usize,
    },
    /// A value that cannot be used.
    #[error("{}, line {line}, column `{column}`: {problem}; the value is `{}`", path.display(), shortened(value))]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line of the row.
        line: usize,
        /// Name of the column.
        column: String,
        /// The whole value (the message shortens it).
        value: String,
        /// What is wrong with it and what to do.
        problem: CellProblem,
    },
    /// A split for which the data has no row.
    #[error("{}: no rows for the {split} split{reason}", path.display())]
    EmptySplit {
        /// The file that the split is made from.
        path: PathBuf,
        /// `train`, `valid` or `test`.
        split: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A setting out of its range.
    #[error("{setting}: {problem}")]
    Setting {
        /// Its field in the configuration.
        setting: &'static str,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A prompt template that cannot be used.
    #[error("{}: {problem}", path.display())]
    Template {
        /// The template's file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A text that does not fit a model's input even when nothing more can be left out of it.
    #[error(
        "{place}: {what} takes {tokens} tokens, more than the limit of {max_tokens}; \
         raise the limit or shorten the title `{}`",
        shortened(title)
    )]
    TooLong {
        /// The row or user that the text belongs to.
        place: String,
        /// The text: a prompt or a window.
        what: &'static str,
        /// Its length.
        tokens: usize,
        /// The limit.
        max_tokens: usize,
        /// The one title in it.
        title: String,
    },
    /// A request for a recommendation without any history.
    #[error("a prompt needs at least one title of the user's history")]
    NoTitles,
    /// A tokenizer file that cannot be used.
    #[error("{}: not a usable tokenizer: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A tokenizer that could not be trained.
    #[error("training the tokenizer failed: {0}")]
    TokenizerTraining(String),
    /// A text that the tokenizer refuses.
    #[error("the tokenizer cannot encode `{}`: {problem}", shortened(text))]
    Encode {
        /// The text.
        text: String,
        /// The tokenizer's answer.
        problem: String,
    },
    /// An end token that cannot be used.
    #[error("end token: {problem}; name one that the tokenizer has")]
    EndToken {
        /// What is wrong.
        problem: String,
    },
    /// A tokenizer of the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A begin token (BOS) that cannot be used.
    #[error("BOS token: {problem}")]
    BeginToken {
        /// What is wrong.
        problem: String,
    },
    /// A title that would end its own generation.
    #[error(
        "item `{}`: its title `{}` contains the end token `{end_token}`; rename the item or choose another end token",
        shortened(id),
        shortened(title)
    )]
    EndTokenInTitle {
        /// The item's id.
        id: String,
        /// Its title.
        title: String,
        /// The end token.
        end_token: String,
    },
    /// An item that cannot join a catalog.
    #[error("item `{}`: {problem}", shortened(id))]
    AddedItem {
        /// The item's id.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A prompt that does not match its row's history.
    #[error(
        "the prompt of user `{}` does not match its history, template and tokenizer; prepare the data again",
        shortened(user)
    )]
    OtherPrompt {
        /// The user's id.
        user: String,
    },
    /// An output folder that already holds something.
    #[error("{}: already exists; choose another folder or remove it first", path.display())]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
    /// A prepared folder that is damaged or made by another version.
    #[error("{}{}: {problem}; prepare the data again", path.display(), at_line(line))]
    Prepared {
        /// The file.
        path: PathBuf,
        /// The line, where it is known.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
    },
}

/// What is wrong with one value of a table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CellProblem {
    /// Not a Python list.
    #[error("not a Python list: {0}")]
    List(#[from] ListError),
    /// No user.
    #[error("the user is empty; every row needs one")]
    EmptyUser,
    /// No item.
    #[error("the item is empty; every row needs one")]
    EmptyItem,
    /// No number.
    #[error("not a rating; it must be a number or be left out")]
    Rating,
    /// A history without items.
    #[error("the history is empty; remove the row")]
    EmptyHistory,
    /// Lists of one row that should be as long as each other.
    #[error("{ids} ids but {titles} titles in the history; both must have one entry for each item")]
    UnequalLengths {
        /// Number of ids.
        ids: usize,
        /// Number of titles.
        titles: usize,
    },
    /// An item without an entry in the catalog.
    #[error("no such item in {catalog}; add it there or remove the row")]
    UnknownItem {
        /// Name of the catalog's file.
        catalog: String,
    },
    /// An item's second entry in the catalog.
    #[error("this id already appears in line {first_line}; keep one of the two")]
    DuplicateItem {
        /// Line of the first entry.
        first_line: usize,
    },
    /// An item without a title.
    #[error("the item's title is empty; add one or leave such items out")]
    EmptyTitle,
    /// No number.
    #[error("not a time; write seconds or milliseconds since 1970, or a date such as 2024-03-01 or 2024-03-01 17:30")]
    Timestamp,
}

impl DataError {
    pub(super) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), action, source }
    }

    pub(super) fn prepared(path: &Path, line: Option<usize>, problem: impl ToString) -> Self {
        Self::Prepared { path: path.into(), line, problem: problem.to_string() }
    }
}

/// At most 60 characters of a value, on one line.
pub(super) fn shortened(value: &str) -> String {
    let mut text: String = value.chars().take(60).map(visible).collect();
    if value.chars().nth(60).is_some() {
        text.push('…');
    }
    text
}

fn listed(columns: &[String]) -> String {
    let columns: Vec<_> = columns.iter().take(20).map(|column| shortened(column)).collect();
    format!("`{}`", columns.join("`, `"))
}

fn at_line(line: &Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shortened_by_characters_and_kept_on_one_line() {
        assert_eq!(shortened("a\n['b']\u{202e}"), "a\\n['b']\\u{202e}");
        assert_eq!(shortened(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(shortened(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
