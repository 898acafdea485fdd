//! The language model, searching.

use burn::module::Module;
use rayon::prelude::*;

use super::attention::{Attended, attended};
use super::config::RecommenderConfig;
use super::error::RecommendError;
use super::query::Resolved;
use super::scorer::{Found, with_added};
use crate::data::PreparedCatalog;
use crate::eval::CollaborativeModel;
use crate::models::decode::{
    BeamConfig, GuidanceKind, Guide, Hypothesis, ItemMask, ItemTrie, SearchTerms, beam_search, beam_search_on_terms,
};
use crate::models::{LatentRecommender, Objective, ObjectiveKind};
use crate::run::{check_fit, load_model};

/// Fewest beams of a search whose width is not given.
const FEWEST_BEAMS: usize = 10;

/// What guides a search: a model, how it does, and the language model's share.
type SearchGuide = (Box<dyn CollaborativeModel>, GuidanceKind, f64);

/// A language model, what it is read by, and what guides it.
pub(super) struct Language {
    model: LatentRecommender,
    objective: Objective,
    guide: Option<SearchGuide>,
    beam: BeamConfig,
    beams: Option<usize>,
}

impl Language {
    pub fn load(
        config: &RecommenderConfig,
        folder: &std::path::Path,
        catalog: &PreparedCatalog,
        guide: Option<SearchGuide>,
    ) -> Result<Self, RecommendError> {
        let beam = BeamConfig { beams: config.beams.unwrap_or(1), length_penalty: config.length_penalty };
        beam.check(ObjectiveKind::Vocabulary)?;
        let model = load_model(folder, &config.device)?.with_precision(config.precision)?.valid();
        check_fit(&model, folder, catalog)?;
        let objective = catalog.objective(config.objective.unwrap_or(model.objective()))?;
        beam.check(objective.kind())?;
        Ok(Self { model, objective, guide, beam, beams: config.beams })
    }

    /// What the model was trained for, and what it is read by.
    pub fn objectives(&self) -> [ObjectiveKind; 2] {
        [self.model.objective(), self.objective.kind()]
    }

    pub fn is_guided(&self) -> bool {
        self.guide.is_some()
    }

    /// Beams of a search for so many titles.
    pub fn width(&self, top: usize) -> usize {
        self.beams.unwrap_or(top.max(FEWEST_BEAMS))
    }

    /// The lists of queries, by a search of so many beams.
    pub fn lists(
        &self,
        queries: &[Resolved],
        beams: usize,
        catalog: &PreparedCatalog,
    ) -> Result<Vec<Found>, RecommendError> {
        let prompts = queries.par_iter().map(|query| catalog.prompt_for_titles(&query.titles));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let tree = self.objective.tree()?;
        let terms = queries.par_iter().map(|query| self.terms(query, tree)).collect::<Result<Vec<_>, _>>()?;
        let beam = BeamConfig { beams, ..self.beam };
        let found = beam_search_on_terms(&self.model, &self.objective, &prompts, &terms, beam)?;
        let list = |found: Vec<Hypothesis>| found.into_iter().map(|one| (one.items, one.score)).collect();
        Ok(found.into_iter().map(list).collect())
    }

    /// The share of the thought's attention that each title of a history has; absent where the model has none.
    pub fn attention(&self, titles: &[String], catalog: &PreparedCatalog) -> Result<Option<Vec<f64>>, RecommendError> {
        let texts: Vec<&str> = titles.iter().map(String::as_str).collect();
        let (prompt, places) = catalog.prompt_by_title(&texts)?;
        let shares = |attended: Attended| {
            let mut shares = vec![0.0; titles.len()];
            attended.titles.into_iter().for_each(|(place, share)| shares[place] += share);
            shares
        };
        Ok(attended(&self.model, &prompt, &places)?.map(shares))
    }

    /// How much each item of a history has to do with an item, where the guide can say.
    pub fn guide_shares(&self, history: &[usize], item: usize) -> Option<Vec<f64>> {
        self.guide.as_ref().and_then(|(guide, ..)| guide.shares(history, item))
    }

    /// The scores of texts after a history, by place: as of a catalog that has nothing but them; an empty
    /// one has none.
    pub fn score_texts(
        &self,
        titles: &[String],
        texts: &[String],
        catalog: &PreparedCatalog,
    ) -> Result<Vec<f64>, RecommendError> {
        let places: Vec<usize> = (0..texts.len()).filter(|&place| !texts[place].trim().is_empty()).collect();
        let mut scores = vec![f64::NEG_INFINITY; texts.len()];
        if places.is_empty() {
            return Ok(scores);
        }
        let targets = places.iter().map(|&place| catalog.encode_target(&texts[place]));
        let targets = targets.collect::<Result<Vec<_>, _>>().map_err(RecommendError::Document)?;
        let prompt = catalog.prompt_for_titles(titles)?;
        let longest = targets.iter().map(Vec::len).max().unwrap_or(0);
        let (tokens, positions) =
            (prompt.len() + self.model.thoughts() + longest, self.model.backbone.config().max_positions);
        if tokens > positions {
            return Err(RecommendError::LongDocument { tokens, positions });
        }
        let objective = Objective::new(self.objective.kind(), ItemTrie::new(&targets)?);
        let beam = BeamConfig { beams: targets.len(), ..self.beam };
        for one in beam_search(&self.model, &objective, &[&prompt], beam)?.into_iter().flatten() {
            one.items.iter().for_each(|&text| scores[places[text as usize]] = one.score);
        }
        Ok(scores)
    }

    fn terms(&self, query: &Resolved, tree: &ItemTrie) -> Result<SearchTerms, RecommendError> {
        let mask = query.allowed.clone().map(|allowed| ItemMask::new(tree, allowed)).transpose()?;
        let guide = match &self.guide {
            // Of items that it has never seen a guide knows nothing.
            Some((model, kind, scale)) if !query.items.is_empty() => {
                let log_probs = with_added(model.log_probs(&[&query.items])?.remove(0), tree.item_count());
                Some(Guide::new(tree, &log_probs, *kind, *scale)?)
            }
            _ => None,
        };
        Ok(SearchTerms { guide, mask })
    }
}
