//! The language model, searching.

use burn::module::Module;

use super::config::RecommenderConfig;
use super::error::RecommendError;
use super::query::Resolved;
use super::scorer::Found;
use crate::data::PreparedCatalog;
use crate::eval::CollaborativeModel;
use crate::models::decode::{
    BeamConfig, GuidanceKind, Guide, Hypothesis, ItemMask, ItemTrie, SearchTerms, beam_search_on_terms,
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
        queries: Vec<Resolved>,
        beams: usize,
        catalog: &PreparedCatalog,
    ) -> Result<Vec<Found>, RecommendError> {
        let prompts = queries.iter().map(|query| catalog.prompt_for_titles(&query.titles));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let tree = self.objective.tree()?;
        let terms = queries.into_iter().map(|query| self.terms(query, tree)).collect::<Result<Vec<_>, _>>()?;
        let beam = BeamConfig { beams, ..self.beam };
        let found = beam_search_on_terms(&self.model, &self.objective, &prompts, &terms, beam)?;
        let list = |found: Vec<Hypothesis>| found.into_iter().map(|one| (one.items, one.score)).collect();
        Ok(found.into_iter().map(list).collect())
    }

    fn terms(&self, query: Resolved, tree: &ItemTrie) -> Result<SearchTerms, RecommendError> {
        let mask = query.allowed.map(|allowed| ItemMask::new(tree, allowed)).transpose()?;
        let guide = match &self.guide {
            // Of items that it has never seen a guide knows nothing.
            Some((model, kind, scale)) if !query.items.is_empty() => {
                let log_probs = model.log_probs(&[&query.items])?;
                Some(Guide::new(tree, &log_probs[0], *kind, *scale)?)
            }
            _ => None,
        };
        Ok(SearchTerms { guide, mask })
    }
}
