//! `train.csv`, `valid.csv`, `test.csv` with histories as Python lists, and the items in `info.txt`.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};

use super::catalog::Catalog;
use super::catalog_file::{self, ItemColumns, ItemLine};
use super::error::{CellProblem, DataError};
use super::interactions::{Interactions, Layout, Notes, ReadOptions, Row};
use super::list_cell::{parse_ids, parse_strings};
use super::raw::time::parse_time;
use super::splits::{Split, Splits};
use super::text_file::{LineCounter, TextFile};

const USER: &str = "user_id";
const HISTORY_TITLES: &str = "history_item_title";
const TITLE: &str = "item_title";
const HISTORY_IDS: &str = "history_item_id";
const ID: &str = "item_id";
const TIME: &str = "timestamp";

pub(super) fn read(dir: &Path, options: &ReadOptions) -> Result<Interactions, DataError> {
    let info = TextFile::read(&dir.join("info.txt"), "it lists every item as title<TAB>id")?;
    let catalog = read_info(&info, options)?;
    let files = Splits::make(|split| dir.join(split.name()).with_extension("csv"));
    let mut notes = Notes::default();
    let mut layout = Layout::SplitTables;
    let rows = Splits::try_make(|split| {
        let file = TextFile::read(files.get(split), "the data set consists of train.csv, valid.csv and test.csv")?;
        let table = Table::open(&file)?;
        if split == Split::Train {
            layout = table.layout();
        }
        table.rows(&catalog, &info.name(), &mut notes)
    })?;
    let inputs = [files.train.clone(), files.valid.clone(), files.test.clone(), info.path].into();
    Ok(Interactions { layout, catalog, rows, files, inputs, notes, raw: None })
}

/// Reads lines of `title, id` or `semantic id, title, id`, whichever the first line is.
fn read_info(info: &TextFile, options: &ReadOptions) -> Result<Catalog, DataError> {
    let mut lines = Vec::new();
    let mut expected = None;
    for (line, fields) in info.tab_separated() {
        let expected = *expected.get_or_insert(fields.len().clamp(2, 3));
        match fields[..] {
            [.., title, id] if fields.len() == expected => lines.push(ItemLine { line, id, title }),
            _ => {
                let path = info.path.clone();
                return Err(DataError::FieldCount { path, line, expected, found: fields.len() });
            }
        }
    }
    catalog_file::build(info, ItemColumns { id: "id", title: "title" }, &lines, options)
}

/// A table whose header has been read.
struct Table<'a> {
    file: &'a TextFile,
    reader: csv::Reader<&'a [u8]>,
    header: Vec<String>,
}

/// Positions of the columns that are used.
struct Columns {
    user: usize,
    history_titles: usize,
    title: usize,
    history_ids: usize,
    id: usize,
    time: Option<usize>,
}

impl<'a> Table<'a> {
    fn open(file: &'a TextFile) -> Result<Self, DataError> {
        // Rows of a wrong length are reported here, by line.
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(file.text.as_bytes());
        let header = reader.headers().map_err(|error| csv_error(file, error))?;
        let header = header.iter().map(|name| name.trim().to_owned()).collect();
        Ok(Self { file, reader, header })
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    fn layout(&self) -> Layout {
        if self.column("item_asin").is_some() {
            Layout::AmazonAsin
        } else if self.column("item_sid").is_some() {
            Layout::SemanticIds
        } else {
            Layout::SplitTables
        }
    }

    fn columns(&self) -> Result<Columns, DataError> {
        let needed = |column: &str| {
            let missing = || DataError::MissingColumn {
                path: self.file.path.clone(),
                column: format!("`{column}`"),
                found: self.header.clone(),
                setting: None,
            };
            let place = self.column(column).ok_or_else(missing)?;
            match self.header[place + 1..].iter().any(|other| other == column) {
                true => Err(DataError::TwoColumns { path: self.file.path.clone(), column: column.into() }),
                false => Ok(place),
            }
        };
        Ok(Columns {
            user: needed(USER)?,
            history_titles: needed(HISTORY_TITLES)?,
            title: needed(TITLE)?,
            history_ids: needed(HISTORY_IDS)?,
            id: needed(ID)?,
            time: self.column(TIME),
        })
    }

    fn rows(mut self, catalog: &Catalog, catalog_name: &str, notes: &mut Notes) -> Result<Vec<Row>, DataError> {
        let columns = self.columns()?;
        let mut rows = Vec::new();
        let mut record = StringRecord::new();
        let mut lines = LineCounter::new(&self.file.text);
        let (mut start, mut line) = (0, 1);
        while self.reader.read_record(&mut record).map_err(|error| csv_error(self.file, error))? {
            start = record.position().map_or(start, |position| position.byte() as usize);
            line = lines.line_at(start);
            let (expected, found) = (self.header.len(), record.len());
            if found != expected {
                return Err(DataError::FieldCount { path: self.file.path.clone(), line, expected, found });
            }
            let fields = Fields { file: self.file, record: &record, line, catalog, catalog_name };
            rows.push(fields.row(&columns, notes)?);
        }
        if rows.is_empty() {
            return Err(DataError::NoRows { path: self.file.path.clone() });
        }
        self.check_last_row(start, line)?;
        Ok(rows)
    }

    /// The csv crate takes an unclosed quote for a field that goes on to the end of the file.
    fn check_last_row(&self, start: usize, line: usize) -> Result<(), DataError> {
        let row = self.file.text[start..].trim();
        if row.contains('\n') && row.matches('"').count() % 2 == 1 {
            return Err(DataError::UnclosedQuote { path: self.file.path.clone(), line });
        }
        Ok(())
    }
}

/// One row of a table, still text.
struct Fields<'a> {
    file: &'a TextFile,
    record: &'a StringRecord,
    line: usize,
    catalog: &'a Catalog,
    catalog_name: &'a str,
}

impl Fields<'_> {
    fn row(&self, columns: &Columns, notes: &mut Notes) -> Result<Row, DataError> {
        let user = self.record[columns.user].trim();
        if user.is_empty() {
            return Err(self.error(USER, user, CellProblem::EmptyUser));
        }
        let ids_cell = &self.record[columns.history_ids];
        let ids = parse_ids(ids_cell).map_err(|error| self.error(HISTORY_IDS, ids_cell, error.into()))?;
        let titles_cell = &self.record[columns.history_titles];
        let titles =
            parse_strings(titles_cell).map_err(|error| self.error(HISTORY_TITLES, titles_cell, error.into()))?;
        if ids.len() != titles.len() {
            let problem = CellProblem::UnequalLengths { ids: ids.len(), titles: titles.len() };
            return Err(self.error(HISTORY_IDS, ids_cell, problem));
        }
        if ids.is_empty() {
            return Err(self.error(HISTORY_IDS, ids_cell, CellProblem::EmptyHistory));
        }
        let mut history = Vec::with_capacity(ids.len());
        for (id, title) in ids.iter().zip(&titles) {
            history.push(self.item(HISTORY_IDS, id, title, notes)?);
        }
        let item = self.item(ID, &self.record[columns.id], &self.record[columns.title], notes)?;
        // Of no use here but for those who read rows: a time that is none is no reason to refuse the row.
        let timestamp = columns.time.and_then(|at| parse_time(self.record[at].trim())).map(|time| time as i64);
        Ok(Row { user: user.into(), history, item, timestamp, line: self.line })
    }

    fn item(&self, column: &'static str, id: &str, title: &str, notes: &mut Notes) -> Result<usize, DataError> {
        let Some(index) = self.catalog.position(id.trim()) else {
            return Err(self.error(column, id, CellProblem::UnknownItem { catalog: self.catalog_name.into() }));
        };
        if self.catalog.title(index) != title.trim() {
            notes.titles_unlike_catalog += 1;
        }
        Ok(index)
    }

    fn error(&self, column: &'static str, value: &str, problem: CellProblem) -> DataError {
        DataError::Cell {
            path: self.file.path.clone(),
            line: self.line,
            column: column.into(),
            value: value.into(),
            problem,
        }
    }
}

/// Text in memory that is UTF-8 leaves the csv crate nothing to fail on; should it, this says what it said.
fn csv_error(file: &TextFile, error: csv::Error) -> DataError {
    DataError::io(&file.path, "read", std::io::Error::other(error))
}
