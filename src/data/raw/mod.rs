//! Interactions as they were collected, one event a record: filtered, ordered and split here.
//!
//! ```text
//! files -> Records -> Events -> rating, dates, titles, repeats, k-core -> rows of history and target in three splits
//! ```

mod columns;
pub(super) mod config;
mod events;
mod fields;
mod guess;
mod json_fields;
mod locate;
mod parquet_rows;
mod records;
mod split;
mod steps;
pub(super) mod time;
mod titles;
pub(super) mod unfiltered;

use indexmap::IndexSet;

use config::{RawConfig, RawSummary, SplitKind};
use events::{Event, Events};
pub(super) use locate::{Found, locate};
use records::Records;
use split::Place;
use steps::Steps;

use super::catalog::{Catalog, Item};
use super::error::{CellProblem, DataError};
use super::interactions::{Interactions, Layout, Notes, Row};
use super::splits::{Split, Splits};

/// What reading leaves out.
#[derive(Debug)]
struct Filter {
    min_rating: Option<f64>,
    from: Option<f64>,
    until: Option<f64>,
}

impl RawConfig {
    fn filter(&self) -> Result<Filter, DataError> {
        let setting = |setting, problem: &str| DataError::Setting { setting, problem: problem.into() };
        let moment = |name, text: &Option<String>| {
            // As a number of seconds it would be an hour of 1970.
            let is_year = |text: &&str| [4, 8].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            match text.as_deref().map(|text| Some(text.trim()).filter(|text| !is_year(text)).and_then(time::parse_time))
            {
                Some(None) => Err(setting(name, "must be a date such as 2024-03-01, or seconds since 1970")),
                found => Ok(found.flatten()),
            }
        };
        for (name, is_zero) in [
            ("k_core", self.k_core == Some(0)),
            ("min_history", self.min_history == 0),
            ("max_title", self.max_title == 0),
        ] {
            if is_zero {
                return Err(setting(name, "must be at least 1"));
            }
        }
        if self.split_ratio.contains(&0) || self.split_ratio.iter().any(|&part| part > 1_000_000) {
            return Err(setting("split_ratio", "must be three whole numbers from 1 to 1000000, as in 8:1:1"));
        }
        if self.min_rating.is_some_and(|rating| !rating.is_finite()) {
            return Err(setting("min_rating", "must be a number"));
        }
        let [from, until] = [moment("from", &self.from)?, moment("until", &self.until)?];
        Ok(Filter { min_rating: self.min_rating, from, until })
    }
}

/// Interactions that were read, filtered and split, not yet made into rows.
pub(super) struct Plan {
    found: Found,
    users: IndexSet<String>,
    items: IndexSet<String>,
    /// By the items' numbers.
    titles: Vec<String>,
    /// Whether items without interactions stay.
    whole_catalog: bool,
    /// Sorted by user and time.
    events: Vec<Event>,
    places: Splits<Vec<Place>>,
    notes: Notes,
    pub summary: RawSummary,
}

/// The interactions of a data set, with which columns hold what filled in where it is not given.
fn open(found: &Found, config: &RawConfig) -> Result<(Records, RawConfig), DataError> {
    let records = Records::open(&found.events)?;
    let has = |name: &str| records.columns.iter().any(|column| column == name);
    let is_untitled = found.items.is_none() && config.items.is_none() && config.title_column.is_none();
    if is_untitled && has("parent_asin") && has("text") {
        let path = found.events.display();
        let problem =
            format!("is required: `title` in {path} is the headline of a review; item titles are in Amazon's metadata");
        return Err(DataError::Setting { setting: "items", problem });
    }
    let config = guess::guess_columns(found, &records, config)?;
    Ok((records, config))
}

/// How a data set is read whatever it has: the columns as [`guess::guess_columns`] finds them, the ids as titles if
/// there are none, and the split as [`guess::guess_split`] finds it.
pub(super) fn guess(found: &Found, given: &RawConfig) -> Result<RawConfig, DataError> {
    let (records, mut guess) = open(found, given)?;
    if let (None, Some(time)) = (guess.split, &guess.time_column) {
        guess.split = Some(guess::guess_split(&records, time)?);
    }
    guess.title_column = guess.title_column.or_else(|| guess.item_column.clone());
    Ok(guess)
}

/// Interactions that ratings and dates leave.
struct Collected {
    events: Events,
    /// Of each item, which may be empty.
    titles: Vec<String>,
    items_with_several_titles: usize,
    /// How they were read, with all columns.
    config: RawConfig,
}

fn collect(found: &mut Found, config: &RawConfig) -> Result<Collected, DataError> {
    let filter = config.filter()?;
    let (records, config) = open(found, config)?;
    found.items.clone_from(&config.items);
    let mut events = events::read(&records, &config, &filter)?;
    let (titles, items_with_several_titles) = read_titles(found, &records, &config, &mut events.items)?;
    Ok(Collected { events, titles, items_with_several_titles, config })
}

/// Reads, filters and splits interactions.
pub(super) fn plan(
    mut found: Found,
    config: &RawConfig,
    max_history: usize,
    all_train: bool,
) -> Result<Plan, DataError> {
    if max_history == 0 {
        return Err(DataError::Setting { setting: "max_history", problem: "must be at least 1".into() });
    }
    let is_recbole = found.layout == Layout::Recbole;
    let Collected { events, titles, items_with_several_titles, config } = collect(&mut found, config)?;
    let Events { users, items, all, read, low_ratings, outside_dates } = events;
    let sizes = [users.len(), items.len()];
    let mut left = all;
    let mut steps = Steps::start(read, sizes);
    if left.len() < read {
        steps.took(&format!("rating ({low_ratings}) and dates ({outside_dates})"), &left);
    }
    left.retain(|event| !titles[event.item as usize].is_empty());
    steps.took("no title", &left);
    steps::sort(&mut left);
    steps::remove_repeats(&mut left, config.repeats);
    steps.took("repeats", &left);
    let k = config.k_core.unwrap_or(if is_recbole { 1 } else { 5 });
    steps::k_core(&mut left, k, sizes);
    steps.took(&format!("{k}-core"), &left);
    if left.is_empty() {
        return Err(DataError::NothingLeft { path: found.events, steps: steps.describe() });
    }

    let kind = config.split.unwrap_or(if is_recbole { SplitKind::LeaveOneOut } else { SplitKind::Temporal });
    let (mut places, notes) = split::split(&left, kind, config.split_ratio, [config.min_history, max_history]);
    let cold_rows_dropped = if config.drop_cold { drop_cold(&left, &mut places, sizes[1]) } else { 0 };
    for (split, reason) in [
        (Split::Train, ": a row needs an interaction and, before it, a history of at least the minimum length"),
        (Split::Valid, ": the filters and the split leave too few rows"),
        (Split::Test, ": the filters and the split leave too few rows"),
    ] {
        if places.get(split).is_empty() && (split == Split::Train || !all_train) {
            return Err(DataError::EmptySplit { path: found.events, split: split.name(), reason });
        }
    }
    let lengths = || Split::ALL.iter().flat_map(|&split| places.get(split)).map(|place| place.history as usize);
    let mut history_lengths = vec![0; lengths().max().unwrap_or(0)];
    for length in lengths() {
        // No row is without a history, for `min_history` is at least 1.
        history_lengths[length - 1] += 1;
    }
    let rows = Splits::make(|split| places.get(split).len());
    let whole_catalog = config.whole_catalog;
    let summary = RawSummary {
        config: RawConfig { k_core: Some(k), split: Some(kind), ..config.without_path() },
        density: steps.density(),
        steps: steps.taken,
        items_with_several_titles,
        cold_rows_dropped,
        rows,
        history_lengths,
    };
    Ok(Plan { found, users, items, titles, whole_catalog, events: left, places, notes, summary })
}

impl Plan {
    /// The rows.
    pub fn into_interactions(self) -> Interactions {
        let Self { found, users, items, titles, whole_catalog, events, places, notes, summary } = self;
        let (catalog, new_number) = build_catalog(&items, titles, whole_catalog, &events);
        let rows = Splits::make(|split| {
            let row = |place: &Place| {
                let at = place.target as usize;
                let item = |event: &Event| new_number[event.item as usize] as usize;
                Row {
                    user: users[events[at].user as usize].clone(),
                    history: events[at - place.history as usize..at].iter().map(item).collect(),
                    item: item(&events[at]),
                    timestamp: Some(events[at].time as i64),
                    line: events[at].line as usize,
                }
            };
            places.get(split).iter().map(row).collect()
        });
        let files = Splits::make(|_| found.events.clone());
        let inputs = std::iter::once(found.events).chain(found.items).collect();
        Interactions { layout: found.layout, catalog, rows, files, inputs, notes, raw: Some(summary) }
    }
}

/// The title of each item, cleaned; empty where there is none. Also how many items have several.
fn read_titles(
    found: &Found,
    records: &Records,
    config: &RawConfig,
    items: &mut IndexSet<String>,
) -> Result<(Vec<String>, usize), DataError> {
    let own;
    let table = match &found.items {
        Some(path) => {
            own = Records::open(path)?;
            &own
        }
        None => records,
    };
    let own_column = config.catalog_column.as_deref().filter(|_| found.items.is_some());
    let id = columns::ITEM.require(table, own_column.or(config.item_column.as_deref()))?;
    let title = columns::TITLE.require(table, config.title_column.as_deref())?;
    let mut titles = vec![String::new(); items.len()];
    let mut several = vec![false; items.len()];
    for_each_title(table, [&id, &title], config, &mut |name, title| {
        if config.whole_catalog && title.is_some() && items.insert(name.to_owned()) {
            titles.push(String::new());
            several.push(false);
        }
        if let (Some(number), Some(title)) = (items.get_index_of(name), title) {
            match titles[number].is_empty() {
                true => titles[number] = title,
                false => several[number] |= titles[number] != title && !title.is_empty(),
            }
        }
    })?;
    if titles.iter().all(String::is_empty) {
        return Err(DataError::Untitled { path: table.path.clone(), id, title, events: records.path.clone() });
    }
    Ok((titles, several.into_iter().filter(|&several| several).count()))
}

/// Calls `see` with each row's item and its cleaned title, if it has one.
fn for_each_title(
    table: &Records,
    [id, title]: [&str; 2],
    config: &RawConfig,
    see: &mut dyn FnMut(&str, Option<String>),
) -> Result<(), DataError> {
    let mut rows = 0;
    table.for_each(&[id, title], &mut |line, fields| {
        rows += 1;
        let Some(name) = fields[0] else {
            return Err(DataError::Cell {
                path: table.path.clone(),
                line,
                column: id.into(),
                value: String::new(),
                problem: CellProblem::EmptyItem,
            });
        };
        see(name, fields[1].map(|title| titles::clean(title, config.clean_titles, config.max_title)));
        Ok(())
    })?;
    if rows == 0 {
        return Err(DataError::NoRows { path: table.path.clone() });
    }
    Ok(())
}

/// The items of a file of titles, in its order, their titles cleaned as those of interactions are; the first title of
/// an item counts, and items without one are left out. A column that the configuration names is looked for by its usual
/// names where the file does not have it.
///
/// # Errors
/// A file that cannot be read, or that lacks a column or an item's id.
pub fn read_items(path: &std::path::Path, config: &RawConfig) -> Result<Vec<Item>, DataError> {
    let table = Records::open(path)?;
    let has = |name: &&str| table.columns.iter().any(|column| column == name);
    let own = config.catalog_column.as_deref().filter(has).or(config.item_column.as_deref().filter(has));
    let found = columns::ITEM.find(&table, own).or_else(|| Some("id".to_owned()).filter(|name| has(&name.as_str())));
    let id = found.map_or_else(|| columns::ITEM.require(&table, own), Ok)?;
    let title = columns::TITLE.require(&table, config.title_column.as_deref().filter(has))?;
    let mut items = indexmap::IndexMap::new();
    for_each_title(&table, [&id, &title], config, &mut |name, title| {
        if let Some(title) = title.filter(|title| !title.is_empty()) {
            items.entry(name.to_owned()).or_insert(title);
        }
    })?;
    Ok(items.into_iter().map(|(id, title)| Item { id, title }).collect())
}

/// The items that are left, in the order in which the interactions first name them, and each item's new number; of the
/// whole catalog all with a title.
fn build_catalog(
    names: &IndexSet<String>,
    mut titles: Vec<String>,
    whole_catalog: bool,
    left: &[Event],
) -> (Catalog, Vec<u32>) {
    let mut is_left: Vec<bool> = titles.iter().map(|title| whole_catalog && !title.is_empty()).collect();
    for event in left {
        is_left[event.item as usize] = true;
    }
    let mut new_number = vec![0; names.len()];
    let mut items = Vec::new();
    for (number, name) in names.iter().enumerate().filter(|(number, _)| is_left[*number]) {
        new_number[number] = items.len() as u32;
        items.push(Item { id: name.clone(), title: std::mem::take(&mut titles[number]) });
    }
    (Catalog::new(items).expect("names in a set are distinct"), new_number)
}

/// Takes rows out of the validation and test splits whose target no training row has, as target or in its history.
fn drop_cold(events: &[Event], places: &mut Splits<Vec<Place>>, items: usize) -> usize {
    let mut known = vec![false; items];
    for place in &places.train {
        let at = place.target as usize;
        for event in &events[at - place.history as usize..=at] {
            known[event.item as usize] = true;
        }
    }
    let mut dropped = 0;
    for split in [Split::Valid, Split::Test] {
        let rows = places.get_mut(split);
        let before = rows.len();
        rows.retain(|place| known[events[place.target as usize].item as usize]);
        dropped += before - rows.len();
    }
    dropped
}
