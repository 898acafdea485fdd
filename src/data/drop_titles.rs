//! Leaving out items whose title is no name.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, Item};
use super::error::DataError;
use super::interactions::{Interactions, Row};
use super::markup::is_markup;
use super::splits::{Split, Splits};

/// What left a data set together with the items whose title is HTML or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Items with HTML in the title.
    pub markup_items: usize,
    /// Items without a title.
    pub untitled_items: usize,
    /// Rows whose target was such an item.
    pub rows_by_item: Splits<usize>,
    /// Rows whose history had only such items.
    pub rows_by_history: Splits<usize>,
    /// Entries taken out of the histories of rows that stay.
    pub history_entries: Splits<usize>,
}

/// Takes items with HTML or nothing for a title out of the catalog, of histories, and with the rows that chose them.
///
/// # Errors
/// If a split has no row left.
pub(super) fn drop_titles(interactions: &mut Interactions) -> Result<Dropped, DataError> {
    let mut dropped = Dropped::default();
    for item in interactions.catalog.items() {
        dropped.untitled_items += usize::from(item.title.is_empty());
        dropped.markup_items += usize::from(is_markup(&item.title));
    }
    let unusable = |item: &Item| item.title.is_empty() || is_markup(&item.title);
    let (catalog, moved) = interactions.catalog.without(unusable);
    interactions.catalog = catalog;
    for split in Split::ALL {
        let rows = std::mem::take(interactions.rows.get_mut(split));
        let had_none = rows.is_empty();
        let kept: Vec<_> = rows.into_iter().filter_map(|row| move_row(row, &moved, split, &mut dropped)).collect();
        if kept.is_empty() && !(had_none && split != Split::Train) {
            let reason = ": all were left out with the items whose title is empty or HTML";
            let path: &Path = interactions.files.get(split);
            return Err(DataError::EmptySplit { path: path.into(), split: split.name(), reason });
        }
        *interactions.rows.get_mut(split) = kept;
    }
    Ok(dropped)
}

fn move_row(row: Row, moved: &[Option<usize>], split: Split, dropped: &mut Dropped) -> Option<Row> {
    let Some(item) = moved[row.item] else {
        *dropped.rows_by_item.get_mut(split) += 1;
        return None;
    };
    let history: Vec<_> = row.history.iter().filter_map(|&index| moved[index]).collect();
    if history.is_empty() {
        *dropped.rows_by_history.get_mut(split) += 1;
        return None;
    }
    *dropped.history_entries.get_mut(split) += row.history.len() - history.len();
    Some(Row { history, item, ..row })
}

/// Number of items with HTML in the title.
pub(super) fn count_markup(catalog: &Catalog) -> usize {
    catalog.items().iter().filter(|item| is_markup(&item.title)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::interactions::{Layout, Notes};

    fn row(history: &[usize], item: usize) -> Row {
        Row { user: "u".into(), history: history.into(), item, timestamp: None, line: 2 }
    }

    fn interactions(train: Vec<Row>) -> Interactions {
        let titles = ["A", "<span class=\"x", "B", ""];
        let item = |(at, title): (usize, &&str)| Item { id: at.to_string(), title: (*title).into() };
        Interactions {
            layout: Layout::SplitTables,
            catalog: Catalog::new(titles.iter().enumerate().map(item).collect()).unwrap(),
            rows: Splits { train, valid: vec![row(&[0], 2)], test: vec![row(&[3, 0], 2)] },
            files: Splits::default(),
            inputs: Vec::new(),
            notes: Notes::default(),
            raw: None,
        }
    }

    #[test]
    fn rows_histories_and_catalog_lose_the_items() {
        let mut data = interactions(vec![row(&[0], 1), row(&[1], 2), row(&[0, 1, 3], 2)]);
        let dropped = drop_titles(&mut data).unwrap();
        assert_eq!(data.catalog.len(), 2);
        assert_eq!(data.rows.train, [row(&[0], 1)]);
        assert_eq!(data.rows.test, [row(&[0], 1)]);
        assert_eq!((dropped.markup_items, dropped.untitled_items), (1, 1));
        assert_eq!((dropped.rows_by_item.train, dropped.rows_by_history.train), (1, 1));
        assert_eq!(dropped.history_entries, Splits { train: 2, valid: 0, test: 1 });
    }

    #[test]
    fn a_split_without_rows_is_an_error() {
        let error = drop_titles(&mut interactions(vec![row(&[0], 1)])).unwrap_err();
        assert!(matches!(error, DataError::EmptySplit { split: "train", .. }), "{error}");
    }
}
