//! Ranking of some items or texts, where a recommendation chooses among all.

use std::collections::HashMap;

use super::answer::Answer;
use super::error::{MOST_ITEMS, RecommendError};
use super::query::{Chosen, Query};
use super::recommender::Recommender;
use crate::fit::Candidate;

impl Recommender {
    /// Scores of some items or texts after a history, by their places, the higher, the likelier, and what scored them.
    /// Where the catalog has them all, they have the scores that [`recommend`](Self::recommend) gives them; else the
    /// language model scores them as of a catalog that has nothing but them.
    ///
    /// # Errors
    ///
    /// As [`recommend`](Self::recommend), more than [`MOST_ITEMS`] items or none, and a text that the catalog does not
    /// have where there is no language model or one that it cannot read.
    pub fn rank(&self, history: &[Chosen], items: &[Chosen]) -> Result<(Vec<f64>, Candidate), RecommendError> {
        if !(1..=MOST_ITEMS).contains(&items.len()) {
            return Err(RecommendError::Top(items.len()));
        }
        let mut places: Vec<Option<usize>> = Vec::with_capacity(items.len());
        for item in items {
            places.push(match item {
                Chosen::Title(title) => self.places(title).first().copied(),
                Chosen::Id(id) => match self.catalog.catalog.position(id) {
                    None => return Err(RecommendError::UnknownItem { field: "items", id: id.clone() }),
                    place => place,
                },
            });
        }
        let catalog = &self.catalog.catalog;
        if let Some(unknown) = places.iter().position(Option::is_none) {
            let text = |(item, place): (&Chosen, &Option<usize>)| match (item, place) {
                (Chosen::Title(title), _) => title.clone(),
                (_, place) => place.map(|place| catalog.title(place).to_owned()).unwrap_or_default(),
            };
            let texts: Vec<String> = items.iter().zip(&places).map(text).collect();
            let Some(language) = &self.language else {
                return Err(RecommendError::UnknownDocument { title: texts[unknown].clone() });
            };
            let query = Query { history: history.to_vec(), ..Default::default() };
            let resolved = query.resolve(&self.catalog, self.trained, |title| self.places(title))?;
            if history.is_empty() {
                return Err(RecommendError::NoHistory);
            }
            return Ok((language.score_texts(&resolved.titles, &texts, &self.catalog)?, Candidate::LanguageModel));
        }
        let places: Vec<usize> = places.into_iter().flatten().collect();
        let id = |place: usize| catalog.items()[place].id.clone();
        let only = places.iter().map(|&place| id(place)).collect();
        let query = Query { history: history.to_vec(), top: items.len(), only: Some(only), ..Default::default() };
        let Answer { model, recommendations } = self.recommend(&[query])?.remove(0);
        let mut scores = HashMap::new();
        for one in recommendations {
            scores.extend(one.items.into_iter().map(|id| (id, one.score)));
        }
        let score = |place: usize| scores.get(&id(place)).copied().unwrap_or(f64::NEG_INFINITY);
        Ok((places.into_iter().map(score).collect(), model))
    }
}
