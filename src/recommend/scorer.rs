//! A model that scores the whole catalog.

use super::query::Resolved;
use crate::data::{Catalog, Prepared};
use crate::eval::{CollaborativeModel, TransitionConfig, Transitions, popularity};
use crate::fit::Candidate;
use crate::models::ModelError;
use crate::models::sasrec::SasRec;

/// Titles, best first: places in the catalog of the items with this title that may be recommended, and its score.
pub(super) type Found = Vec<(Vec<u32>, f64)>;

/// Item transitions, SASRec or popularity.
pub(super) enum Scorer {
    Popularity(Vec<f32>),
    Transition(Transitions),
    Sasrec(Box<SasRec>),
}

impl Scorer {
    /// Items by how often training rows have them.
    pub fn popularity(prepared: &Prepared) -> Self {
        let shares = popularity(&prepared.train_counts());
        Self::Popularity(shares.into_iter().map(|share| share.ln() as f32).collect())
    }

    /// Counts of item transitions.
    pub fn transition(prepared: &Prepared, config: TransitionConfig) -> Self {
        Self::Transition(Transitions::new(prepared, config))
    }

    pub fn candidate(&self) -> Candidate {
        match self {
            Self::Popularity(_) => Candidate::Popularity,
            Self::Transition(_) => Candidate::Transition,
            Self::Sasrec(_) => Candidate::Sasrec,
        }
    }

    /// How much each item of a history has to do with an item, where it can say.
    pub fn shares(&self, history: &[usize], item: usize) -> Option<Vec<f64>> {
        match self {
            Self::Transition(transitions) => transitions.shares(history, item),
            Self::Popularity(_) | Self::Sasrec(_) => None,
        }
    }

    /// Whether it has anything to say after a history.
    pub fn knows(&self, items: &[usize]) -> bool {
        match self {
            Self::Popularity(_) => true,
            Self::Transition(transitions) => transitions.knows(items),
            Self::Sasrec(_) => !items.is_empty(),
        }
    }

    /// The best titles of a query, by the log-probability of their best items.
    pub fn list(&self, query: &Resolved, top: usize, catalog: &Catalog) -> Result<Found, ModelError> {
        let scores = match self {
            Self::Popularity(scores) => scores.clone(),
            Self::Transition(transitions) => transitions.log_probs(&[&query.items])?.remove(0),
            Self::Sasrec(model) => CollaborativeModel::log_probs(model.as_ref(), &[&query.items])?.remove(0),
        };
        let scores = with_added(scores, catalog.len());
        let may = |item: u32| query.allowed.as_ref().is_none_or(|allowed| allowed[item as usize]);
        let mut order: Vec<u32> = (0..scores.len() as u32).filter(|&item| may(item)).collect();
        let score = |item: u32| scores[item as usize];
        let better = |a: &u32, b: &u32| score(*b).total_cmp(&score(*a)).then(a.cmp(b));
        let mut list: Found = Vec::new();
        let mut place_of_title = std::collections::HashMap::new();
        // Enough for the list unless most titles are shared.
        let mut sorted = 0;
        while sorted < order.len() {
            let part = (4 * top).min(order.len() - sorted);
            let rest = &mut order[sorted..];
            if part < rest.len() {
                rest.select_nth_unstable_by(part - 1, better);
            }
            rest[..part].sort_unstable_by(better);
            for &item in &rest[..part] {
                let title = catalog.title_groups()[item as usize];
                match place_of_title.get(&title) {
                    Some(&place) => {
                        let (items, _): &mut (Vec<u32>, f64) = &mut list[place];
                        items.push(item);
                    }
                    None if list.len() < top => {
                        place_of_title.insert(title, list.len());
                        list.push((vec![item], f64::from(score(item))));
                    }
                    None => {}
                }
            }
            sorted += part;
            if list.len() == top {
                break;
            }
        }
        Ok(list)
    }
}

/// Scores of the items that a model was trained with, and of those that were added since the lowest of these: as of what
/// was never chosen.
pub(super) fn with_added(mut scores: Vec<f32>, items: usize) -> Vec<f32> {
    let lowest = scores.iter().copied().fold(f32::INFINITY, f32::min);
    scores.resize(items, lowest);
    scores
}
