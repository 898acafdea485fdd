//! What is asked for.

use serde::{Deserialize, Serialize};

use super::error::{MOST_ITEMS, RecommendError};
use crate::data::PreparedCatalog;

/// An item of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chosen {
    /// An item of the catalog, by its id.
    Id(String),
    /// Anything by its title. The model reads its words, whether the catalog has it or not.
    Title(String),
}

/// For whom to recommend, and among what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// What was chosen, oldest first.
    pub history: Vec<Chosen>,
    /// Titles to recommend at most.
    pub top: usize,
    /// Whether items of the history are left out.
    pub exclude_history: bool,
    /// Ids of items to leave out.
    pub exclude: Vec<String>,
    /// Ids of the only items that may be recommended; all if absent.
    pub only: Option<Vec<String>>,
    /// Whether to say [why](super::Recommendation::why) each title is recommended.
    pub why: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self { history: Vec::new(), top: 10, exclude_history: false, exclude: Vec::new(), only: None, why: false }
    }
}

/// A query in the catalog's terms.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Titles of the history, for the language model.
    pub titles: Vec<String>,
    /// Places in the catalog of those that all models were trained with, for the others.
    pub items: Vec<usize>,
    /// Whether each item may be recommended; absent where all may.
    pub allowed: Option<Vec<bool>>,
}

impl Query {
    /// The query in the catalog's terms; `places` gives the items of a title, and the models were trained with the
    /// first `trained` items.
    pub(super) fn resolve(
        &self,
        catalog: &PreparedCatalog,
        trained: usize,
        places: impl Fn(&str) -> Vec<usize>,
    ) -> Result<Resolved, RecommendError> {
        if !(1..=MOST_ITEMS).contains(&self.top) {
            return Err(RecommendError::Top(self.top));
        }
        let place = |field: &'static str, id: &String| {
            let unknown = || RecommendError::UnknownItem { field, id: id.clone() };
            catalog.catalog.position(id).ok_or_else(unknown)
        };
        let (mut titles, mut items, mut own) = (Vec::new(), Vec::new(), Vec::new());
        for chosen in &self.history {
            match chosen {
                Chosen::Id(id) => {
                    let item = place("history", id)?;
                    titles.push(catalog.catalog.title(item).to_owned());
                    items.push(item);
                    own.push(item);
                }
                Chosen::Title(title) => {
                    // Of items that share the title any may be meant: the first one stands for them.
                    let same = places(title);
                    items.extend(same.first());
                    own.extend(same);
                    titles.push(title.clone());
                }
            }
        }
        items.retain(|&item| item < trained);
        let all = self.only.is_none() && self.exclude.is_empty() && !self.exclude_history;
        let allowed = match all {
            true => None,
            false => {
                let mut allowed = vec![self.only.is_none(); catalog.catalog.len()];
                for id in self.only.iter().flatten() {
                    allowed[place("only", id)?] = true;
                }
                for id in &self.exclude {
                    allowed[place("exclude", id)?] = false;
                }
                for item in own.into_iter().filter(|_| self.exclude_history) {
                    allowed[item] = false;
                }
                Some(allowed)
            }
        };
        Ok(Resolved { titles, items, allowed })
    }
}
