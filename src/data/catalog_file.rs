//! Building a catalog from the lines of a file.

use super::catalog::{Catalog, Item};
use super::error::{CellProblem, DataError};
use super::interactions::ReadOptions;
use super::text_file::TextFile;

/// A line of a catalog file.
pub(super) struct ItemLine<'a> {
    pub(super) line: usize,
    pub(super) id: &'a str,
    pub(super) title: &'a str,
}

/// Where in a file items stand: the names of the columns for messages.
#[derive(Clone, Copy)]
pub(super) struct ItemColumns {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
}

/// Makes the catalog, with ids and titles trimmed.
pub(super) fn build(
    file: &TextFile,
    columns: ItemColumns,
    lines: &[ItemLine],
    options: &ReadOptions,
) -> Result<Catalog, DataError> {
    let cell = |at: &ItemLine, column: &str, value: &str, problem| DataError::Cell {
        path: file.path.clone(),
        line: at.line,
        column: column.into(),
        value: value.into(),
        problem,
    };
    let mut items = Vec::with_capacity(lines.len());
    for at in lines {
        let item = Item { id: at.id.trim().into(), title: at.title.trim().into() };
        if item.title.is_empty() && !options.allow_empty_titles {
            return Err(cell(at, columns.title, at.title, CellProblem::EmptyTitle));
        }
        items.push(item);
    }
    Catalog::new(items).map_err(|duplicate| {
        let second = &lines[duplicate.second];
        let first_line = lines[duplicate.first].line;
        cell(second, columns.id, second.id, CellProblem::DuplicateItem { first_line })
    })
}
