//! RecBole's atomic files: `NAME.inter` with one event a line, `NAME.item` with one item a line.

use std::collections::HashMap;
use std::path::Path;

use super::catalog::Catalog;
use super::catalog_file::{self, ItemColumns, ItemLine};
use super::error::{CellProblem, DataError};
use super::interactions::{Interactions, Layout, Notes, ReadOptions, Row, Split, Splits};
use super::text_file::TextFile;

const USER: &str = "user_id";
const ITEM: &str = "item_id";
const TIME: &str = "timestamp";
const TITLES: [&str; 3] = ["title", "movie_title", "name"];

pub(super) fn read(inter: &Path, options: ReadOptions) -> Result<Interactions, DataError> {
    let items = TextFile::read(&inter.with_extension("item"), "it has the titles of the items in the .inter file")?;
    let catalog = read_items(&items, options)?;
    let events = TextFile::read(inter, "it has the users' choices")?;
    let users = read_events(&events, &catalog, &items.name())?;
    let (rows, notes) = leave_last_two_out(users, options.max_history);
    for (split, reason) in [
        (Split::Train, ": a user needs two choices, or four to have a test row as well"),
        (Split::Valid, ": no user has three choices"),
    ] {
        if rows.get(split).is_empty() {
            return Err(DataError::EmptySplit { path: inter.into(), split: split.name(), reason });
        }
    }
    let files = Splits { train: inter.into(), valid: inter.into(), test: inter.into() };
    Ok(Interactions { layout: Layout::Recbole, catalog, rows, files, notes })
}

/// An atomic file, whose header has `name:type` fields.
struct AtomicFile<'a> {
    file: &'a TextFile,
    header: Vec<&'a str>,
}

impl<'a> AtomicFile<'a> {
    fn open(file: &'a TextFile) -> Self {
        let (_, header) = file.tab_separated().next().unwrap_or_default();
        Self { file, header: header.iter().map(|field| field.split(':').next().unwrap_or_default().trim()).collect() }
    }

    /// The lines after the header with their numbers.
    fn lines(&self) -> impl Iterator<Item = Result<(usize, Vec<&'a str>), DataError>> {
        let expected = self.header.len();
        self.file.tab_separated().skip(1).map(move |(line, fields)| match fields.len() {
            found if found == expected => Ok((line, fields)),
            found => Err(DataError::FieldCount { path: self.file.path.clone(), line, expected, found }),
        })
    }

    /// The position of the first of these columns that is there.
    fn column(&self, names: &[&'static str]) -> Result<(usize, &'static str), DataError> {
        let found = names.iter().find_map(|&name| Some((self.header.iter().position(|&field| field == name)?, name)));
        found.ok_or_else(|| DataError::MissingColumn {
            path: self.file.path.clone(),
            column: format!("`{}`", names.join("` or `")),
            found: self.header.iter().map(|&field| field.to_owned()).collect(),
        })
    }

    fn no_rows(&self) -> DataError {
        DataError::NoRows { path: self.file.path.clone() }
    }

    fn cell(&self, line: usize, column: &'static str, value: &str, problem: CellProblem) -> DataError {
        DataError::Cell { path: self.file.path.clone(), line, column, value: value.into(), problem }
    }
}

fn read_items(file: &TextFile, options: ReadOptions) -> Result<Catalog, DataError> {
    let table = AtomicFile::open(file);
    let (id_at, id) = table.column(&[ITEM])?;
    let (title_at, title) = table.column(&TITLES)?;
    let mut lines = Vec::new();
    for line in table.lines() {
        let (line, fields) = line?;
        lines.push(ItemLine { line, id: fields[id_at], title: fields[title_at] });
    }
    if lines.is_empty() {
        return Err(table.no_rows());
    }
    catalog_file::build(file, ItemColumns { id, title }, &lines, options)
}

/// One choice of a user.
struct Event {
    time: f64,
    item: usize,
    line: usize,
}

/// Each user's events by time, users in the order of their first line.
fn read_events(file: &TextFile, catalog: &Catalog, catalog_name: &str) -> Result<Vec<(String, Vec<Event>)>, DataError> {
    let table = AtomicFile::open(file);
    let (user_at, _) = table.column(&[USER])?;
    let (item_at, _) = table.column(&[ITEM])?;
    let (time_at, _) = table.column(&[TIME])?;
    let mut users: Vec<(String, Vec<Event>)> = Vec::new();
    let mut known = HashMap::new();
    for line in table.lines() {
        let (line, fields) = line?;
        let user = fields[user_at].trim();
        if user.is_empty() {
            return Err(table.cell(line, USER, user, CellProblem::EmptyUser));
        }
        let Some(item) = catalog.position(fields[item_at].trim()) else {
            let problem = CellProblem::UnknownItem { catalog: catalog_name.into() };
            return Err(table.cell(line, ITEM, fields[item_at], problem));
        };
        let time = match fields[time_at].trim().parse() {
            Ok(time) if f64::is_finite(time) => time,
            _ => return Err(table.cell(line, TIME, fields[time_at], CellProblem::Timestamp)),
        };
        let at = *known.entry(user).or_insert(users.len());
        if at == users.len() {
            users.push((user.into(), Vec::new()));
        }
        users[at].1.push(Event { time, item, line });
    }
    if users.is_empty() {
        return Err(table.no_rows());
    }
    for (_, events) in &mut users {
        // A stable sort: events of one time stay in the order of the file.
        events.sort_by(|a, b| a.time.total_cmp(&b.time));
    }
    Ok(users)
}

fn leave_last_two_out(users: Vec<(String, Vec<Event>)>, max_history: usize) -> (Splits<Vec<Row>>, Notes) {
    let mut rows: Splits<Vec<Row>> = Splits::default();
    let mut notes = Notes::default();
    for (user, events) in users {
        let held_out = match events.len() {
            0 | 1 => {
                notes.users_without_rows += 1;
                continue;
            }
            2 => {
                notes.users_without_test += 1;
                0
            }
            _ => 2,
        };
        let trained = events.len() - held_out;
        for at in 1..events.len() {
            let split = match at {
                at if at < trained => Split::Train,
                at if at == trained => Split::Valid,
                _ => Split::Test,
            };
            rows.get_mut(split).push(Row {
                user: user.clone(),
                history: events[at.saturating_sub(max_history)..at].iter().map(|event| event.item).collect(),
                item: events[at].item,
                timestamp: Some(events[at].time as i64),
                line: events[at].line,
            });
        }
    }
    (rows, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(items: &[usize]) -> Vec<Event> {
        items.iter().map(|&item| Event { time: 0.0, item, line: item + 2 }).collect()
    }

    /// Histories and items of rows.
    type BareRows = Vec<(Vec<usize>, usize)>;

    fn split_of(items: &[usize], max_history: usize) -> (Splits<BareRows>, Notes) {
        let (rows, notes) = leave_last_two_out(vec![("u".into(), events(items))], max_history);
        let bare = |rows: Vec<Row>| rows.into_iter().map(|row| (row.history, row.item)).collect();
        (Splits { train: bare(rows.train), valid: bare(rows.valid), test: bare(rows.test) }, notes)
    }

    #[test]
    fn last_choice_is_tested_and_the_one_before_validates() {
        let (rows, _) = split_of(&[4, 5, 6, 7, 8], 2);
        assert_eq!(rows.train, [(vec![4], 5), (vec![4, 5], 6)]);
        assert_eq!(rows.valid, [(vec![5, 6], 7)]);
        assert_eq!(rows.test, [(vec![6, 7], 8)]);
    }

    #[test]
    fn users_with_few_choices_only_train_as_far_as_they_can() {
        let (rows, _) = split_of(&[4, 5, 6], 10);
        assert!(rows.train.is_empty());
        assert_eq!(rows.valid, [(vec![4], 5)]);
        let (rows, notes) = split_of(&[4, 5], 10);
        assert_eq!((rows.train, notes.users_without_test), (vec![(vec![4], 5)], 1));
        assert!(rows.valid.is_empty() && rows.test.is_empty());
        let (rows, notes) = split_of(&[4], 10);
        assert_eq!((rows, notes.users_without_rows), (Splits::default(), 1));
    }
}
