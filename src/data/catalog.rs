//! The items that can be recommended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};

use crate::models::files::sha256;

/// One item of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The name that the data's owner gave it.
    pub id: String,
    /// What the model reads and writes.
    pub title: String,
}

/// All items, in the order of their file; an item's position is its index everywhere else.
#[derive(Debug, Clone)]
pub struct Catalog {
    items: Vec<Item>,
    by_id: HashMap<String, usize>,
    title_groups: Vec<usize>,
    titles: usize,
}

/// Two items with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuplicateId {
    /// Position of the first.
    pub first: usize,
    /// Position of the second.
    pub second: usize,
}

impl Catalog {
    /// Indexes the items.
    ///
    /// # Errors
    /// If two have the same id.
    pub fn new(items: Vec<Item>) -> Result<Self, DuplicateId> {
        let mut by_id = HashMap::with_capacity(items.len());
        for (second, item) in items.iter().enumerate() {
            match by_id.entry(item.id.clone()) {
                Entry::Occupied(first) => {
                    return Err(DuplicateId { first: *first.get(), second });
                }
                Entry::Vacant(place) => place.insert(second),
            };
        }
        let mut by_title = HashMap::new();
        let group_of = |item: &Item| {
            let next = by_title.len();
            *by_title.entry(item.title.clone()).or_insert(next)
        };
        let title_groups = items.iter().map(group_of).collect();
        let titles = by_title.len();
        Ok(Self { items, by_id, title_groups, titles })
    }

    /// The items in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The title of the item at `index`.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn title(&self, index: usize) -> &str {
        &self.items[index].title
    }

    /// The index of an item.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// A name for the items and their order, 64 hexadecimal digits: the SHA-256 of the ids, each with its length before
    /// it.
    pub fn fingerprint(&self) -> String {
        let ids: String = self.items.iter().map(|item| format!("{} {}\n", item.id.len(), item.id)).collect();
        sha256(ids.as_bytes())
    }

    /// For each item the number of its title; items with the same title have the same number.
    ///
    /// Numbers count up from 0 in the order in which titles first appear.
    pub fn title_groups(&self) -> &[usize] {
        &self.title_groups
    }

    /// Number of different titles.
    pub fn titles(&self) -> usize {
        self.titles
    }

    /// How many items have each title, by the title's number.
    pub fn title_group_sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.titles];
        for &group in &self.title_groups {
            sizes[group] += 1;
        }
        sizes
    }

    /// The catalog with further items behind its own.
    ///
    /// # Errors
    /// If two have the same id.
    pub fn with(&self, more: &[Item]) -> Result<Self, DuplicateId> {
        Self::new(self.items.iter().chain(more).cloned().collect())
    }

    /// The catalog without some items, and where each old index has gone.
    pub fn without(&self, dropped: impl Fn(&Item) -> bool) -> (Self, Vec<Option<usize>>) {
        let mut kept = Vec::new();
        let mut moved = Vec::with_capacity(self.len());
        for item in &self.items {
            let keep = !dropped(item);
            moved.push(keep.then_some(kept.len()));
            if keep {
                kept.push(item.clone());
            }
        }
        let catalog = Self::new(kept).expect("ids that were distinct stay distinct");
        (catalog, moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(items: &[(&str, &str)]) -> Result<Catalog, DuplicateId> {
        Catalog::new(items.iter().map(|(id, title)| Item { id: (*id).into(), title: (*title).into() }).collect())
    }

    #[test]
    fn items_that_share_a_title_share_a_group() {
        let catalog = catalog(&[("a", "Hits"), ("b", "Live"), ("c", "Hits"), ("d", "hits")]).unwrap();
        assert_eq!(catalog.title_groups(), [0, 1, 0, 2]);
        assert_eq!(catalog.title_group_sizes(), [2, 1, 1]);
        assert_eq!(catalog.titles(), 3);
        assert_eq!(catalog.position("c"), Some(2));
        assert_eq!(catalog.position("C"), None);
    }

    #[test]
    fn the_fingerprint_is_that_of_the_ids_in_their_order() {
        let of = |items: &[(&str, &str)]| catalog(items).unwrap().fingerprint();
        assert_eq!(of(&[("a", "x"), ("b", "y")]), of(&[("a", "other"), ("b", "titles")]));
        for other in [&[("b", "y"), ("a", "x")][..], &[("a", "x")], &[("a\n1 b", "x")]] {
            assert_ne!(of(&[("a", "x"), ("b", "y")]), of(other));
        }
    }

    #[test]
    fn a_second_item_with_the_same_id_is_refused() {
        let error = catalog(&[("a", "x"), ("b", "y"), ("a", "z")]).unwrap_err();
        assert_eq!(error, DuplicateId { first: 0, second: 2 });
    }

    #[test]
    fn dropping_items_moves_the_rest_up() {
        let (smaller, moved) =
            catalog(&[("a", "x"), ("b", "y"), ("c", "x")]).unwrap().without(|item| item.title == "y");
        assert_eq!(moved, [Some(0), None, Some(1)]);
        assert_eq!(smaller.position("c"), Some(1));
        assert_eq!(smaller.title_groups(), [0, 0]);
    }
}
