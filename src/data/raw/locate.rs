//! Which files of a folder are a data set.

use std::path::{Path, PathBuf};

use crate::data::DataError;
use crate::data::interactions::Layout;

/// Files that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub layout: Layout,
    /// The interactions.
    pub events: PathBuf,
    /// The items' titles, unless they stand in the interactions.
    pub items: Option<PathBuf>,
}

/// Endings of files of records; `.gz` may follow.
const ENDINGS: [&str; 6] = [".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"];

/// Finds the interactions and, if they have a file of their own, the items; `None` if nothing looks like it.
///
/// A file is the interactions itself. In a folder they are `NAME.inter` with `NAME.item`, `ratings.dat` with
/// `movies.dat`, `ratings.csv` with `movies.csv`, or the one file of records beside one whose name has `meta`, `item` or `product`.
pub(crate) fn locate(data: &Path) -> Result<Option<Found>, DataError> {
    if data.is_file() {
        return Ok(Some(Found { layout: Layout::Events, events: data.into(), items: None }));
    }
    let entries = std::fs::read_dir(data).map_err(|error| DataError::io(data, "list", error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| DataError::io(data, "list", error))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    let path = |name: &str| data.join(name);
    let several = |found: &[&String]| DataError::SeveralDataSets {
        dir: data.into(),
        found: found.iter().map(|name| name.to_string()).collect(),
    };

    let inter: Vec<&String> = names.iter().filter(|name| name.ends_with(".inter")).collect();
    match inter.as_slice() {
        [] => {}
        [name] => {
            let items = path(name).with_extension("item");
            if !items.exists() {
                let needed_for = "it has the titles of the items in the .inter file";
                return Err(DataError::MissingFile { path: items, needed_for });
            }
            return Ok(Some(Found { layout: Layout::Recbole, events: path(name), items: Some(items) }));
        }
        more => return Err(several(more)),
    }
    for (ratings, movies) in [("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv")] {
        let [has_ratings, has_movies] = [ratings, movies].map(|name| names.iter().any(|other| other == name));
        if has_ratings && has_movies {
            let (events, items) = (path(ratings), Some(path(movies)));
            return Ok(Some(Found { layout: Layout::MovieLens, events, items }));
        }
    }
    let is_records = |name: &&String| {
        let lower = name.to_lowercase();
        let bare = lower.strip_suffix(".gz").unwrap_or(&lower);
        ENDINGS.iter().any(|ending| bare.ends_with(ending))
    };
    let is_items = |name: &&String| {
        let lower = name.to_lowercase();
        lower.contains("meta") || lower.contains("item") || lower.contains("product")
    };
    let (items, events): (Vec<&String>, Vec<&String>) = names.iter().filter(is_records).partition(is_items);
    match (events.as_slice(), items.as_slice()) {
        ([], _) => Ok(None),
        ([name], []) => Ok(Some(Found { layout: Layout::Events, events: path(name), items: None })),
        ([name], [meta]) => Ok(Some(Found { layout: Layout::Events, events: path(name), items: Some(path(meta)) })),
        ([_], more) | (more, _) => Err(several(more)),
    }
}
