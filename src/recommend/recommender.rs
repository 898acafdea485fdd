//! A model that was loaded to recommend.

use std::collections::HashMap;
use std::path::Path;

use super::answer::{Answer, Evidence, Recommendation, UserAnswer, Why};
use super::config::RecommenderConfig;
use super::error::RecommendError;
use super::histories::UserHistory;
use super::language::Language;
use super::query::{Chosen, Query, Resolved};
use super::scorer::{Found, Scorer};
use crate::data::{Item, Prepared, PreparedCatalog};
use crate::eval::{CollaborativeModel, load_sasrec};
use crate::fit::{Candidate, Shop, added_items};
use crate::models::files::{file_sha256, sha256};
use crate::models::{ObjectiveKind, device};
use crate::run::{ChosenGuidance, GuideSource, check_device, model_folder, weight_files};

/// Users that are answered before the next ones are.
const AT_ONCE: usize = 256;

/// Queries that are searched together.
const TOGETHER: usize = 16;

/// Models, their catalog and whatever guides a search, loaded once to answer any number of queries.
pub struct Recommender {
    pub(super) catalog: PreparedCatalog,
    /// What recommends to whom it knows something of.
    own: Candidate,
    scorer: Option<Scorer>,
    pub(super) language: Option<Language>,
    /// For who has no history; absent where there is no more than a language model.
    popularity: Option<Scorer>,
    exclude_history: bool,
    by_title: HashMap<String, Vec<usize>>,
    /// Items that the models were trained with; further ones were added.
    pub(super) trained: usize,
    /// What names models and catalog.
    fingerprint: String,
}

impl Recommender {
    /// Loads everything.
    ///
    /// # Errors
    ///
    /// Models, data or a guide that cannot be read or do not fit, and settings that make no sense.
    pub fn load(config: &RecommenderConfig) -> Result<Self, RecommendError> {
        let added = if Shop::is_one(&config.model) { added_items(&config.model)? } else { Vec::new() };
        Self::load_with(config, &added)
    }

    /// Loads everything, with these items added to a shop's.
    pub(super) fn load_with(config: &RecommenderConfig, added: &[Item]) -> Result<Self, RecommendError> {
        check_device(&config.device, config.precision)?;
        if Shop::is_one(&config.model) {
            return Self::of_shop(config, &Shop::read(&config.model)?, added);
        }
        let data = config.data.as_ref().ok_or_else(|| RecommendError::NoData { model: config.model.clone() })?;
        let (catalog, guide) = match &config.guidance {
            None => (PreparedCatalog::load(data)?, None),
            Some(guidance) => {
                let (catalog, guide) = guide(guidance, data, &config.device)?;
                (catalog, Some((guide, guidance.kind, guidance.scale)))
            }
        };
        let language = Language::load(config, &config.model, &catalog, guide)?;
        let own = if language.is_guided() { Candidate::Guided } else { Candidate::LanguageModel };
        let names: String = weight_files(&config.model)?.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        let recommender = Self::new(catalog, own, None, Some(language), None);
        Ok(Self { fingerprint: recommender.named(&names), ..recommender })
    }

    fn of_shop(config: &RecommenderConfig, shop: &Shop, added: &[Item]) -> Result<Self, RecommendError> {
        let data = config.data.as_ref().unwrap_or(&shop.data);
        let prepared = Prepared::load(data)?;
        let sasrec = shop.sasrec.as_deref().unwrap_or(Path::new(""));
        let guide = match shop.guidance.as_ref().filter(|_| shop.chosen == Candidate::Guided) {
            None => None,
            Some(guidance) => {
                let source = match GuideSource::from(guidance.guide.as_str()) {
                    GuideSource::Transition => GuideSource::Transition,
                    GuideSource::SasRec(_) => GuideSource::SasRec(sasrec.to_owned()),
                };
                let model = source.open(&prepared, guidance.transition, &config.device)?;
                Some((model, guidance.kind, guidance.scale))
            }
        };
        let scorer = match shop.chosen {
            Candidate::Popularity => Some(Scorer::popularity(&prepared)),
            Candidate::Transition => Some(Scorer::transition(&prepared, shop.transition)),
            Candidate::Sasrec => {
                let model = load_sasrec(&model_folder(sasrec)?, &prepared, &device(&config.device)?)?;
                Some(Scorer::Sasrec(Box::new(model)))
            }
            Candidate::LanguageModel | Candidate::Guided => None,
        };
        let popularity = Some(Scorer::popularity(&prepared));
        let mut catalog = prepared.into_catalog();
        let trained = catalog.catalog.len();
        catalog.add(added)?;
        let language = match &shop.language_model {
            Some(folder) => Some(Language::load(config, folder, &catalog, guide)?),
            None => None,
        };
        let recommender = Self::new(catalog, shop.chosen, scorer, language, popularity);
        let name = file_sha256(&Shop::file(&config.model))?;
        let fingerprint = recommender.named(&name);
        Ok(Self { exclude_history: shop.exclude_history, trained, fingerprint, ..recommender })
    }

    fn new(
        catalog: PreparedCatalog,
        own: Candidate,
        scorer: Option<Scorer>,
        language: Option<Language>,
        popularity: Option<Scorer>,
    ) -> Self {
        let mut by_title: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, item) in catalog.catalog.items().iter().enumerate() {
            by_title.entry(item.title.clone()).or_default().push(place);
        }
        let trained = catalog.catalog.len();
        let (exclude_history, fingerprint) = (false, String::new());
        Self { catalog, own, scorer, language, popularity, exclude_history, by_title, trained, fingerprint }
    }

    /// What names models of this name with the catalog.
    fn named(&self, models: &str) -> String {
        sha256(format!("{models}{}", self.catalog.catalog.fingerprint()).as_bytes())
    }

    /// A name for models and catalog, 64 hexadecimal digits: where one of them changes, so does it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What the language model was trained for, and what it is read by, where there is one.
    pub fn objectives(&self) -> Option<[ObjectiveKind; 2]> {
        self.language.as_ref().map(Language::objectives)
    }

    /// What recommends wherever it knows something of a history.
    pub fn own(&self) -> Candidate {
        self.own
    }

    /// The catalog.
    pub fn catalog(&self) -> &PreparedCatalog {
        &self.catalog
    }

    /// Whether a shop's lists leave out what a user has chosen before; a [`Query`] says for itself.
    pub fn excludes_history(&self) -> bool {
        self.exclude_history
    }

    /// Whether an item of the catalog has this title.
    pub fn knows(&self, title: &str) -> bool {
        self.by_title.contains_key(title)
    }

    /// The titles that the model finds likeliest after each history, best first. What one query gets does not depend on
    /// the others, but for rounding.
    ///
    /// Item transitions and SASRec leave a history that they know nothing of to the shop's language model, and who has no
    /// history gets what is popular.
    ///
    /// # Errors
    ///
    /// An id that the catalog does not have, an empty history where only a language model is there, or a title so long
    /// that no prompt has room for it.
    pub fn recommend(&self, queries: &[Query]) -> Result<Vec<Answer>, RecommendError> {
        let mut answers: Vec<Option<Answer>> = vec![None; queries.len()];
        // Those that a search answers, by its width.
        let mut searched: Vec<(usize, usize, Resolved)> = Vec::new();
        for (place, query) in queries.iter().enumerate() {
            let resolved = query.resolve(&self.catalog, self.trained, |title| self.places(title))?;
            let cold = self.popularity.as_ref().filter(|_| query.history.is_empty());
            let known = self.scorer.as_ref().filter(|scorer| scorer.knows(&resolved.items));
            // Without a language model counts answer with what is popular.
            let scorer = cold.or(known).or(self.scorer.as_ref().filter(|_| self.language.is_none()));
            match (scorer, &self.language) {
                (Some(scorer), _) => {
                    let list = scorer.list(&resolved, query.top, &self.catalog.catalog)?;
                    let mut answer = self.answer(scorer.candidate(), list, query.top);
                    if query.why {
                        self.explain(&mut answer, &resolved.items, |item| scorer.shares(&resolved.items, item));
                    }
                    answers[place] = Some(answer);
                }
                (None, Some(language)) if !query.history.is_empty() => {
                    searched.push((language.width(query.top), place, resolved))
                }
                _ => return Err(RecommendError::NoHistory),
            }
        }
        if let Some(language) = &self.language {
            let model = match self.own {
                Candidate::Guided => Candidate::Guided,
                _ => Candidate::LanguageModel,
            };
            // Those of one width together: a list does not depend on who else asks.
            searched.sort_by_key(|(width, place, _)| (*width, *place));
            let mut searched = searched.into_iter().peekable();
            while let Some(&(width, ..)) = searched.peek() {
                let mut together = Vec::new();
                while together.len() < TOGETHER
                    && let Some(next) = searched.next_if(|(of, ..)| *of == width)
                {
                    together.push(next);
                }
                let (places, resolved): (Vec<usize>, Vec<Resolved>) =
                    together.into_iter().map(|(_, place, query)| (place, query)).unzip();
                let lists = language.lists(&resolved, width, &self.catalog)?;
                for ((place, resolved), list) in places.into_iter().zip(resolved).zip(lists) {
                    let mut answer = self.answer(model, list, queries[place].top);
                    if queries[place].why {
                        if let Some(shares) = language.attention(&resolved.titles, &self.catalog)? {
                            let titles = || resolved.titles.iter().map(String::as_str).zip(shares.iter().copied());
                            for one in &mut answer.recommendations {
                                one.why = Some(Why::new(Evidence::Attention, titles()));
                            }
                        }
                        self.explain(&mut answer, &resolved.items, |item| language.guide_shares(&resolved.items, item));
                    }
                    answers[place] = Some(answer);
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// [`recommend`](Self::recommend) for many users on the terms of one query, whose own history does not count. `give`
    /// is given the answers part by part, with the number of users that are done, and says whether to continue.
    ///
    /// # Errors
    ///
    /// An id that the catalog does not have, before anything is computed; as [`recommend`](Self::recommend), and what
    /// `give` fails with.
    pub fn recommend_to_all<E: From<RecommendError>>(
        &self,
        users: &[UserHistory],
        query: &Query,
        mut give: impl FnMut(Vec<UserAnswer>, usize) -> Result<bool, E>,
    ) -> Result<(), E> {
        for UserHistory { user, history } in users {
            let unknown = history.iter().find_map(|chosen| match chosen {
                Chosen::Id(id) if self.catalog.catalog.position(id).is_none() => Some(id),
                _ => None,
            });
            if let Some(id) = unknown {
                return Err(RecommendError::UnknownItemOf { user: user.clone(), id: id.clone() }.into());
            }
        }
        let mut done = 0;
        for users in users.chunks(AT_ONCE) {
            let of_user = |user: &UserHistory| Query { history: user.history.clone(), ..query.clone() };
            let answers = self.recommend(&users.iter().map(of_user).collect::<Vec<_>>())?;
            let named = |(user, answer): (&UserHistory, _)| UserAnswer { user: user.user.clone(), answer };
            done += users.len();
            if !give(users.iter().zip(answers).map(named).collect(), done)? {
                break;
            }
        }
        Ok(())
    }

    /// Places in the catalog of the items of a title.
    pub(super) fn places(&self, title: &str) -> Vec<usize> {
        self.by_title.get(title).cloned().unwrap_or_default()
    }

    /// Says why titles are recommended, where the shares of the history are known.
    fn explain(&self, answer: &mut Answer, history: &[usize], shares: impl Fn(usize) -> Option<Vec<f64>>) {
        let catalog = &self.catalog.catalog;
        let titles = || history.iter().map(|&item| catalog.title(item));
        for one in &mut answer.recommendations {
            let place = one.items.first().and_then(|id| catalog.position(id)).filter(|&place| place < self.trained);
            if let Some(shares) = place.and_then(&shares) {
                one.why = Some(Why::new(Evidence::Transitions, titles().zip(shares)));
            }
        }
    }

    fn answer(&self, model: Candidate, list: Found, top: usize) -> Answer {
        let catalog = &self.catalog.catalog;
        let recommendation = |(at, (items, score)): (usize, (Vec<u32>, f64))| Recommendation {
            rank: at + 1,
            title: catalog.title(items[0] as usize).to_owned(),
            items: items.iter().map(|&item| catalog.items()[item as usize].id.clone()).collect(),
            score,
            why: None,
        };
        Answer { model, recommendations: list.into_iter().take(top).enumerate().map(recommendation).collect() }
    }
}

/// A guide as it was chosen, and the catalog.
fn guide(
    guidance: &ChosenGuidance,
    data: &Path,
    device_name: &str,
) -> Result<(PreparedCatalog, Box<dyn CollaborativeModel>), RecommendError> {
    Ok(match GuideSource::from(guidance.guide.as_str()) {
        GuideSource::Transition => {
            let prepared = Prepared::load(data)?;
            if prepared.fingerprint() != guidance.data_fingerprint {
                return Err(RecommendError::OtherGuidance { data: data.to_owned() });
            }
            let model = GuideSource::Transition.open(&prepared, guidance.transition, device_name)?;
            (prepared.into_catalog(), model)
        }
        GuideSource::SasRec(run) => {
            let catalog = PreparedCatalog::load(data)?;
            let model = load_sasrec(&model_folder(&run)?, &catalog, &device(device_name)?)?;
            (catalog, Box::new(model))
        }
    })
}
