//! Which files of a folder are a data set.

use std::path::{Path, PathBuf};

use crate::data::DataError;
use crate::data::interactions::Layout;
use crate::models::files::parent;

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

/// MovieLens's files of ratings and of films.
const MOVIE_LENS: [(&str, &str); 2] = [("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv")];

/// Parts of the names of files of items.
const ITEM_WORDS: [&str; 2] = ["item", "product"];

/// Parts of the names of files of interactions, whatever else the names hold: `order_items.csv`,
/// `product_reviews.jsonl`.
const EVENT_WORDS: [&str; 9] =
    ["review", "rating", "order", "event", "interaction", "purchase", "transaction", "click", "session"];

/// Finds the interactions and, if they have a file of their own, the items; `None` if nothing looks like it.
///
/// A file is the interactions itself, and the items are beside it under the names that belong to its own. In a folder
/// they are `NAME.inter` with `NAME.item`, `ratings.dat` with `movies.dat`, `ratings.csv` with `movies.csv`, or the one
/// file of records beside one of items: see [`events_and_items`].
pub(crate) fn locate(data: &Path) -> Result<Option<Found>, DataError> {
    if data.is_file() {
        return Ok(Some(of_file(data)));
    }
    let entries = std::fs::read_dir(data).map_err(|error| DataError::io(data, "read", error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| DataError::io(data, "read", error))?;
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
                let needed_for = "it holds the titles of the items in the .inter file";
                return Err(DataError::MissingFile { path: items, needed_for });
            }
            return Ok(Some(Found { layout: Layout::Recbole, events: path(name), items: Some(items) }));
        }
        more => return Err(several(more)),
    }
    for (ratings, movies) in MOVIE_LENS {
        let [has_ratings, has_movies] = [ratings, movies].map(|name| names.iter().any(|other| other == name));
        if has_ratings && has_movies {
            let (events, items) = (path(ratings), Some(path(movies)));
            return Ok(Some(Found { layout: Layout::MovieLens, events, items }));
        }
    }
    let (events, items) = events_and_items(names.iter().filter(|name| is_records(name)).collect());
    match (events.as_slice(), items.as_slice()) {
        ([], _) => Ok(None),
        ([name], []) => Ok(Some(Found { layout: Layout::Events, events: path(name), items: None })),
        ([name], [meta]) => Ok(Some(Found { layout: Layout::Events, events: path(name), items: Some(path(meta)) })),
        ([_], more) | (more, _) => Err(several(more)),
    }
}

/// Which files of records have interactions, and which have items.
///
/// Where a name has `meta`, such files are the items, as Amazon's are (`Office_Products.jsonl.gz`,
/// `meta_Office_Products.jsonl.gz`). Otherwise names with [`ITEM_WORDS`] and none of [`EVENT_WORDS`] are; a single file
/// has interactions whatever its name.
fn events_and_items(files: Vec<&String>) -> (Vec<&String>, Vec<&String>) {
    let has_any = |name: &str, words: &[&str]| words.iter().any(|word| name.to_lowercase().contains(word));
    if files.len() == 1 {
        return (files, Vec::new());
    }
    let has_metadata = files.iter().any(|name| has_any(name, &["meta"]));
    files.into_iter().partition(|name| match has_metadata {
        true => !has_any(name, &["meta"]),
        false => !has_any(name, &ITEM_WORDS) || has_any(name, &EVENT_WORDS),
    })
}

/// A file of interactions with what belongs to it.
fn of_file(events: &Path) -> Found {
    let name = events.file_name().unwrap_or_default().to_string_lossy();
    let beside = |name: &str| Some(events.with_file_name(name)).filter(|path| path.is_file());
    let found = |layout, items| Found { layout, events: events.into(), items };
    if let Some(bare) = name.strip_suffix(".inter") {
        return found(Layout::Recbole, beside(&format!("{bare}.item")));
    }
    for (ratings, movies) in MOVIE_LENS {
        if let Some(movies) = beside(movies).filter(|_| name == ratings) {
            return found(Layout::MovieLens, Some(movies));
        }
    }
    found(Layout::Events, amazon_metadata(events, &name))
}

/// Amazon's `meta_NAME` of some form beside the reviews or ratings `NAME`, or `NAME_5`, which are those of users and
/// items with five.
fn amazon_metadata(events: &Path, name: &str) -> Option<PathBuf> {
    let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let of_events = stem(name);
    let wanted = format!("meta_{}", of_events.strip_suffix("_5").unwrap_or(&of_events));
    let names =
        std::fs::read_dir(parent(events)).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let first = names.filter(|name| stem(name) == wanted && is_records(name)).min()?;
    Some(events.with_file_name(first))
}

/// Whether a file of this name has records.
fn is_records(name: &str) -> bool {
    let lower = name.to_lowercase();
    let bare = lower.strip_suffix(".gz").unwrap_or(&lower);
    ENDINGS.iter().any(|ending| bare.ends_with(ending))
}
