//! Interactions as they were collected, to be kept and to be joined with later ones.

use std::path::Path;

use indexmap::{IndexMap, IndexSet};

use super::config::RawConfig;
use super::events::Event;
use super::{Collected, collect};
use crate::data::{DataError, Interactions};

/// Who chose what, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct RawEvent {
    /// The user's id.
    pub user: String,
    /// The item's id.
    pub item: String,
    /// Seconds since 1970.
    pub time: f64,
}

/// Interactions, and the titles of items that have one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawEvents {
    /// In the order of their file.
    pub events: Vec<RawEvent>,
    /// Titles by the items' ids.
    pub titles: IndexMap<String, String>,
}

/// How [`RawEvents::write`] names its columns.
const EVENT_COLUMNS: [&str; 3] = ["user", "item_id", "timestamp"];
const ITEM_COLUMNS: [&str; 2] = ["item_id", "title"];

impl RawEvents {
    /// Reads the interactions of a folder or a file, without those that ratings and dates leave out; `None` for rows
    /// with histories.
    ///
    /// # Errors
    /// See [`Interactions::read`].
    pub fn read(data: &Path, config: &RawConfig) -> Result<Option<Self>, DataError> {
        let Some(mut found) = Interactions::find(data)? else {
            return Ok(None);
        };
        let Collected { events, titles, .. } = collect(&mut found, config)?;
        let event = |event: &Event| RawEvent {
            user: events.users[event.user as usize].clone(),
            item: events.items[event.item as usize].clone(),
            time: event.time,
        };
        let titled = events.items.iter().cloned().zip(titles).filter(|(_, title)| !title.is_empty());
        Ok(Some(Self { events: events.all.iter().map(event).collect(), titles: titled.collect() }))
    }

    /// Adds later interactions and titles. What is there already does not come twice, and a later title takes the place
    /// of an earlier one, unless it is no more than the item's id.
    pub fn join(&mut self, later: Self) {
        let key = |event: &RawEvent| (event.user.clone(), event.item.clone(), event.time.to_bits());
        let known: IndexSet<_> = self.events.iter().map(key).collect();
        self.events.extend(later.events.into_iter().filter(|event| !known.contains(&key(event))));
        self.add_titles(later.titles);
    }

    /// Adds titles, as [`join`](Self::join) does.
    pub fn add_titles(&mut self, titles: impl IntoIterator<Item = (String, String)>) {
        for (item, title) in titles {
            if title != item || !self.titles.contains_key(&item) {
                self.titles.insert(item, title);
            }
        }
    }

    /// The interactions and the items as two CSV files.
    pub fn as_csv(&self) -> [Vec<u8>; 2] {
        let mut events = csv::Writer::from_writer(Vec::new());
        let mut items = csv::Writer::from_writer(Vec::new());
        let write = |writer: &mut csv::Writer<Vec<u8>>, fields: &[&str]| {
            writer.write_record(fields).expect("memory takes all that is written to it, and all rows are as long");
        };
        write(&mut events, &EVENT_COLUMNS);
        for RawEvent { user, item, time } in &self.events {
            write(&mut events, &[user, item, &time.to_string()]);
        }
        write(&mut items, &ITEM_COLUMNS);
        for (item, title) in &self.titles {
            write(&mut items, &[item, title]);
        }
        [events, items].map(|writer| writer.into_inner().expect("memory can be flushed"))
    }

    /// How the two files of [`as_csv`](Self::as_csv) are read again, on top of how they were read first.
    pub fn config(items: &Path, first: &RawConfig) -> RawConfig {
        let [user, item, time] = EVENT_COLUMNS.map(|name| Some(name.to_owned()));
        RawConfig {
            items: Some(items.to_owned()),
            user_column: user,
            item_column: item.clone(),
            time_column: time,
            title_column: Some(ITEM_COLUMNS[1].into()),
            catalog_column: item,
            rating_column: None,
            min_rating: None,
            from: None,
            until: None,
            clean_titles: false,
            ..first.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(rows: &[(&str, &str, f64)], titles: &[(&str, &str)]) -> RawEvents {
        let event = |&(user, item, time): &(&str, &str, f64)| RawEvent { user: user.into(), item: item.into(), time };
        let titles = titles.iter().map(|(item, title)| (item.to_string(), title.to_string())).collect();
        RawEvents { events: rows.iter().map(event).collect(), titles }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let [events_file, items_file] = ["events.csv", "items.csv"].map(|name| folder.path().join(name));
        let written = events(
            &[("u, \"x\"", "a", 1.5e9), ("v", "b", 0.25), ("v", "a", -3.0), ("v", "c", 1.6e9)],
            &[("a", "A \"quoted\" title, with a comma"), ("b", "&amp; é"), ("d", "never chosen")],
        );
        let [events_csv, items_csv] = written.as_csv();
        std::fs::write(&events_file, events_csv).unwrap();
        std::fs::write(&items_file, items_csv).unwrap();
        let config = RawEvents::config(&items_file, &RawConfig { whole_catalog: true, ..Default::default() });
        let read = RawEvents::read(&events_file, &config).unwrap().unwrap();
        assert_eq!(read.events, written.events);
        assert_eq!(read.titles, written.titles);
    }

    #[test]
    fn later_interactions_come_behind_and_no_one_twice() {
        let mut all = events(&[("u", "a", 1.0), ("u", "a", 1.0), ("u", "b", 2.0)], &[("a", "A"), ("b", "B")]);
        all.join(events(&[("u", "b", 2.0), ("u", "b", 3.0), ("w", "c", 1.0)], &[("a", "a"), ("b", "New"), ("c", "c")]));
        let expected = [("u", "a", 1.0), ("u", "a", 1.0), ("u", "b", 2.0), ("u", "b", 3.0), ("w", "c", 1.0)];
        assert_eq!(all, events(&expected, &[("a", "A"), ("b", "New"), ("c", "c")]));
    }
}
