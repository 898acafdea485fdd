//! A model that was loaded to recommend.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::error::RecommendError;
use super::histories::UserHistory;
use super::query::{Query, Resolved};
use crate::data::{Prepared, PreparedCatalog};
use crate::eval::{CollaborativeModel, Transitions, load_sasrec};
use crate::models::decode::{
    BeamConfig, GuidanceKind, Guide, Hypothesis, ItemMask, ItemTrie, SearchTerms, beam_search_on_terms,
};
use crate::models::{LatentRecommender, Objective, ObjectiveKind, Precision, device};
use crate::run::{ChosenGuidance, GuideSource, check_device, check_fit, load_model, model_folder};

/// Users that are answered before the next ones are.
const AT_ONCE: usize = 256;

/// Queries that are searched together.
const TOGETHER: usize = 16;

/// What to recommend with.
#[derive(Debug, Clone)]
pub struct RecommenderConfig {
    /// Hugging Face folder or run folder.
    pub model: PathBuf,
    /// Prepared data: the catalog and the prompt's wording, and for counts as a guide the training rows.
    pub data: PathBuf,
    /// What the model is read by, if not by the objective that it was trained for.
    pub objective: Option<ObjectiveKind>,
    /// What guides the search, as an evaluation chose it; see [`ChosenGuidance::of_run`].
    pub guidance: Option<ChosenGuidance>,
    /// Beams of the search, if not as many as titles are asked for, and at least 10.
    pub beams: Option<usize>,
    /// Exponent of the length in a title's score, if not the objective's.
    pub length_penalty: Option<f64>,
    /// What the blocks multiply in.
    pub precision: Precision,
    /// Where to compute.
    pub device: String,
}

/// A title that is recommended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Its place, from 1.
    pub rank: usize,
    /// The title.
    pub title: String,
    /// Ids of the items with this title that may be recommended.
    pub items: Vec<String>,
    /// Its score, see [`Hypothesis`]; with the catalog's objective the logarithm of its probability.
    pub score: f64,
}

/// What a user of several gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRecommendations {
    /// The user's id.
    pub user: String,
    /// The titles, best first.
    pub recommendations: Vec<Recommendation>,
}

/// A model, its catalog and whatever guides its search, loaded once to answer any number of queries.
pub struct Recommender {
    catalog: PreparedCatalog,
    model: LatentRecommender,
    objective: Objective,
    guide: Option<(Box<dyn CollaborativeModel>, GuidanceKind, f64)>,
    beam: BeamConfig,
    beams: Option<usize>,
    by_title: HashMap<String, Vec<usize>>,
}

impl Recommender {
    /// Loads everything.
    ///
    /// # Errors
    ///
    /// A model, data or guide that cannot be read or do not fit, and settings that make no sense.
    pub fn load(config: &RecommenderConfig) -> Result<Self, RecommendError> {
        let beam = BeamConfig { beams: config.beams.unwrap_or(1), length_penalty: config.length_penalty };
        beam.check(ObjectiveKind::Vocabulary)?;
        check_device(&config.device, config.precision)?;
        let (catalog, guide) = match &config.guidance {
            None => (PreparedCatalog::load(&config.data)?, None),
            Some(guidance) => {
                let (catalog, guide) = guide(guidance, config)?;
                (catalog, Some((guide, guidance.kind, guidance.scale)))
            }
        };
        let model = load_model(&config.model, &config.device)?.with_precision(config.precision)?.valid();
        check_fit(&model, &config.model, &catalog)?;
        let objective = catalog.objective(config.objective.unwrap_or(model.objective()))?;
        beam.check(objective.kind())?;
        let mut by_title: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, item) in catalog.catalog.items().iter().enumerate() {
            by_title.entry(item.title.clone()).or_default().push(place);
        }
        Ok(Self { catalog, model, objective, guide, beam, beams: config.beams, by_title })
    }

    /// What the model was trained for, and what it is read by.
    pub fn objectives(&self) -> [ObjectiveKind; 2] {
        [self.model.objective(), self.objective.kind()]
    }

    /// The catalog.
    pub fn catalog(&self) -> &PreparedCatalog {
        &self.catalog
    }

    /// Whether an item of the catalog has this title.
    pub fn knows(&self, title: &str) -> bool {
        self.by_title.contains_key(title)
    }

    /// The titles that the model finds likeliest after each history, best first. What one query gets does not depend on
    /// the others, but for rounding.
    ///
    /// # Errors
    ///
    /// An id that the catalog does not have, an empty history, or a title so long that no prompt has room for it.
    pub fn recommend(&self, queries: &[Query]) -> Result<Vec<Vec<Recommendation>>, RecommendError> {
        let mut lists = vec![Vec::new(); queries.len()];
        let mut order: Vec<usize> = (0..queries.len()).collect();
        order.sort_by_key(|&place| self.width(&queries[place]));
        // Those of one width together: a list does not depend on who else asks.
        for places in order.chunk_by(|&a, &b| self.width(&queries[a]) == self.width(&queries[b])) {
            for places in places.chunks(TOGETHER) {
                let queries: Vec<&Query> = places.iter().map(|&place| &queries[place]).collect();
                for (&place, list) in places.iter().zip(self.search(&queries)?) {
                    lists[place] = list;
                }
            }
        }
        Ok(lists)
    }

    /// [`recommend`](Self::recommend) for many users on the terms of one query, whose own history does not count. `give`
    /// is given the answers part by part, with the number of users that are done, and says whether to go on.
    ///
    /// # Errors
    ///
    /// As [`recommend`](Self::recommend), and what `give` fails with.
    pub fn recommend_to_all<E: From<RecommendError>>(
        &self,
        users: &[UserHistory],
        query: &Query,
        mut give: impl FnMut(Vec<UserRecommendations>, usize) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut done = 0;
        for users in users.chunks(AT_ONCE) {
            let of_user = |user: &UserHistory| Query { history: user.history.clone(), ..query.clone() };
            let lists = self.recommend(&users.iter().map(of_user).collect::<Vec<_>>())?;
            let answer = |(user, recommendations): (&UserHistory, _)| UserRecommendations {
                user: user.user.clone(),
                recommendations,
            };
            done += users.len();
            if !give(users.iter().zip(lists).map(answer).collect(), done)? {
                break;
            }
        }
        Ok(())
    }

    /// Beams of a query's search.
    fn width(&self, query: &Query) -> usize {
        self.beams.unwrap_or(query.top.max(10))
    }

    /// The lists of queries of one width.
    fn search(&self, queries: &[&Query]) -> Result<Vec<Vec<Recommendation>>, RecommendError> {
        let places = |title: &str| self.by_title.get(title).cloned().unwrap_or_default();
        let resolved = queries.iter().map(|query| query.resolve(&self.catalog, places));
        let resolved = resolved.collect::<Result<Vec<_>, _>>()?;
        let prompts = resolved.iter().map(|query| self.catalog.prompt_for_titles(&query.titles));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let tree = self.objective.tree()?;
        let terms = resolved.into_iter().map(|query| self.terms(query, tree)).collect::<Result<Vec<_>, _>>()?;
        let beam = BeamConfig { beams: self.width(queries[0]), ..self.beam };
        let found = beam_search_on_terms(&self.model, &self.objective, &prompts, &terms, beam)?;
        let list = |(query, found): (&&Query, Vec<Hypothesis>)| {
            let best = found.into_iter().take(query.top).enumerate();
            best.map(|(at, hypothesis)| self.recommendation(at + 1, &hypothesis)).collect()
        };
        Ok(queries.iter().zip(found).map(list).collect())
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

    fn recommendation(&self, rank: usize, hypothesis: &Hypothesis) -> Recommendation {
        let catalog = &self.catalog.catalog;
        Recommendation {
            rank,
            title: catalog.title(hypothesis.items[0] as usize).to_owned(),
            items: hypothesis.items.iter().map(|&item| catalog.items()[item as usize].id.clone()).collect(),
            score: hypothesis.score,
        }
    }
}

/// A guide as it was chosen, and the catalog.
fn guide(
    guidance: &ChosenGuidance,
    config: &RecommenderConfig,
) -> Result<(PreparedCatalog, Box<dyn CollaborativeModel>), RecommendError> {
    Ok(match GuideSource::from(guidance.guide.as_str()) {
        GuideSource::Transition => {
            let prepared = Prepared::load(&config.data)?;
            if prepared.fingerprint() != guidance.data_fingerprint {
                return Err(RecommendError::OtherGuidance { data: config.data.clone() });
            }
            let transitions = Transitions::new(&prepared, guidance.transition.unwrap_or_default());
            (prepared.into_catalog(), Box::new(transitions))
        }
        GuideSource::SasRec(run) => {
            let catalog = PreparedCatalog::load(&config.data)?;
            let model = load_sasrec(&model_folder(&run), &catalog, &device(&config.device)?)?;
            (catalog, Box::new(model))
        }
    })
}
