//! The work from its beginning to the shop's folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::budget::Clock;
use super::candidate::Candidate;
use super::choice::{Tried, choose};
use super::config::FitConfig;
use super::language_model::{LanguageModel, Workbench};
use super::rankings::{Ranked, Rankings};
use super::sasrec::TrainedSasRec;
use super::shop::{FittedModel, Metrics, Shop};
use crate::data::{DataError, Interactions, PrepareConfig, Prepared, RawConfig, Split, Summary, prepare_unless};
use crate::eval::{EvaluationResult, TransitionConfig};
use crate::models::files::is_occupied;
use crate::models::{ModelError, device};
use crate::run::{ChosenGuidance, GuideSource, RunError, RunEvent, load_model, model_folder, own_tokenizer};
use crate::train::TrainError;

/// What happens meanwhile.
#[derive(Debug)]
pub enum FitEvent<'a> {
    /// Which columns are taken for what.
    Guessed(&'a RawConfig),
    /// The data is prepared.
    Prepared(&'a Summary),
    /// A model trains; the name of its stage comes with what happens.
    Training(&'static str, RunEvent<'a>),
    /// A candidate's users of a split are ranked.
    Ranking {
        /// The candidate.
        model: Candidate,
        /// The split.
        split: Split,
        /// Users that are done.
        done: usize,
        /// Of so many.
        all: usize,
    },
    /// A candidate's metrics on a split.
    Ranked(Candidate, Split, &'a Metrics),
    /// A candidate is left out, and why.
    LeftOut(Candidate, &'a str),
    /// The best one, and why.
    Chosen(Candidate, &'a str),
    /// The best one trains once more on all interactions.
    Refitting,
    /// The chosen model is not trained again, and why.
    NotRefitted(&'a str),
}

/// Makes a shop's folder, or resumes the work in it.
///
/// # Errors
///
/// Data, a model or settings that make no sense, a folder that holds something else, and [`RunError::Interrupted`] or
/// [`DataError::Interrupted`] once `interrupted` is set.
pub fn fit(config: &FitConfig, interrupted: &AtomicBool, observer: &mut dyn FnMut(FitEvent)) -> Result<Shop, RunError> {
    config.check()?;
    device(&config.device)?;
    let clock = Clock::start(config.minutes);
    let is_new = !FitConfig::is_begun(&config.out);
    if is_new {
        if is_occupied(&config.out) {
            return Err(TrainError::Exists { path: config.out.clone() }.into());
        }
        if let Some(model) = &config.model {
            load_model(model, &config.device)?;
            config.tokenizer()?;
        }
        let guessed = config.guess()?;
        std::fs::create_dir_all(&config.out).map_err(ModelError::io(&config.out))?;
        let kept = config.keep(guessed).and_then(|kept| kept.write());
        kept.inspect_err(|_| config.clear())?;
    }
    let begun = FitConfig::read(&config.out)?;
    // As many as when the work began, so that all models are ranked for the same users.
    let users = (begun.minutes * 100.0).clamp(200.0, 2000.0) as usize;
    let config = FitConfig { minutes: config.minutes, ..begun };
    let fit = Fit { config: &config, users, clock, interrupted };
    let shop = fit.carry_out(observer).inspect_err(|_| {
        if is_new && !fit.trial("data").exists() {
            config.clear();
        }
    })?;
    shop.write(&config.out)?;
    Shop::read(&config.out)
}

impl FitConfig {
    /// The pretrained model's tokenizer.
    fn tokenizer(&self) -> Result<Option<PathBuf>, RunError> {
        let Some(model) = &self.model else {
            return Ok(None);
        };
        let own = own_tokenizer(&model_folder(model)?)?;
        let problem = "has no tokenizer.json".to_owned();
        own.map(Some).ok_or_else(|| RunError::OtherTokenizer { model: model.clone(), problem })
    }

    /// The data's columns; absent for rows with histories.
    fn guess(&self) -> Result<Option<RawConfig>, RunError> {
        let guessed = Interactions::guess(&self.data, &self.raw)?;
        Ok(guessed.map(|raw| RawConfig { k_core: raw.k_core.or(Some(1)), whole_catalog: true, ..raw }))
    }

    /// How the data is prepared in a folder.
    fn prepare(&self, out: PathBuf, tokenizer: Option<PathBuf>, all_train: bool) -> PrepareConfig {
        PrepareConfig {
            data: self.data.clone(),
            out,
            domain: self.domain.clone(),
            tokenizer,
            raw: self.raw.clone(),
            all_train,
            ..Default::default()
        }
    }
}

struct Fit<'a> {
    config: &'a FitConfig,
    /// Validation users.
    users: usize,
    clock: Clock,
    interrupted: &'a AtomicBool,
}

/// The candidates that there are, and what is known of them.
#[derive(Default)]
struct Found {
    transition: TransitionConfig,
    sasrec: Option<TrainedSasRec>,
    language_model: Option<LanguageModel>,
    guidance: Option<ChosenGuidance>,
    /// All of them, from the simplest on, as they rank validation users.
    tried: Vec<Tried>,
}

impl Fit<'_> {
    fn trial(&self, name: &str) -> PathBuf {
        self.config.out.join("trial").join(name)
    }

    fn carry_out(&self, observer: &mut dyn FnMut(FitEvent)) -> Result<Shop, RunError> {
        if self.config.raw.user_column.is_some() {
            observer(FitEvent::Guessed(&self.config.raw));
        }
        let data = self.trial("data");
        if !data.exists() {
            let prepared =
                prepare_unless(&self.config.prepare(data.clone(), self.config.tokenizer()?, false), self.interrupted);
            match prepared {
                Ok(summary) => observer(FitEvent::Prepared(&summary)),
                Err(DataError::EmptySplit { .. }) => return self.without_trial(observer),
                Err(error) => return Err(error.into()),
            }
        }
        let prepared = Prepared::load(&data)?;
        let rankings = Rankings {
            config: self.config,
            prepared: &prepared,
            data: data.clone(),
            results: self.trial("results"),
            users: self.users,
            interrupted: self.interrupted,
        };
        let found = self.try_all(&rankings, observer)?;
        let (chosen, why) = choose(&found.tried);
        observer(FitEvent::Chosen(chosen, &why));
        let mut models = Vec::new();
        for Tried { model, valid, .. } in &found.tried {
            let ranked = found.ranked(*model).expect("what was ranked once can be ranked again");
            let result = self.rank(&rankings, &ranked, Split::Test, observer)?;
            models.push(FittedModel { model: *model, valid: valid.clone(), test: Metrics::of(&result.evaluation) });
        }
        let guidance = found.guidance.clone().filter(|_| chosen == Candidate::Guided);
        let shop = Shop {
            models,
            transition: found.transition,
            language_model: found.language_model.as_ref().map(|model| self.within(&model.tuned.model)),
            sasrec: found.sasrec.as_ref().map(|model| self.within(&model.run)),
            guidance,
            ..self.shop(chosen, why)
        };
        self.refit(shop, &found, &prepared, observer)
    }

    /// Where models are trained on prepared data, within the folder.
    fn workbench(&self, data: &Path, folder: &str) -> Workbench<'_> {
        let folder = self.config.out.join(folder);
        Workbench { config: self.config, data: data.to_owned(), folder, interrupted: self.interrupted }
    }

    /// A path within the folder.
    fn within(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.config.out).unwrap_or(path).to_owned()
    }

    /// The shop of data that is too little to try anything.
    fn without_trial(&self, observer: &mut dyn FnMut(FitEvent)) -> Result<Shop, RunError> {
        let why = "too little data to hold any out, so no other model was tried";
        observer(FitEvent::Chosen(Candidate::Transition, why));
        let data = self.config.out.join("data");
        if !data.exists() {
            let summary = prepare_unless(&self.config.prepare(data, None, true), self.interrupted)?;
            observer(FitEvent::Prepared(&summary));
        }
        Ok(Shop { refitted: true, seconds: self.clock.seconds(), ..self.shop(Candidate::Transition, why.into()) })
    }

    /// A shop in which nothing was trained yet.
    fn shop(&self, chosen: Candidate, why: String) -> Shop {
        Shop {
            latentr3: env!("CARGO_PKG_VERSION").into(),
            columns: self.config.raw.user_column.is_some().then(|| self.config.raw.clone()),
            chosen,
            why,
            models: Vec::new(),
            refitted: false,
            exclude_history: self.config.exclude_history,
            data: "data".into(),
            transition: TransitionConfig::default(),
            language_model: None,
            sasrec: None,
            guidance: None,
            seconds: 0.0,
        }
    }

    fn rank(
        &self,
        rankings: &Rankings,
        ranked: &Ranked,
        split: Split,
        observer: &mut dyn FnMut(FitEvent),
    ) -> Result<EvaluationResult, RunError> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(RunError::EvaluationStopped);
        }
        let result = rankings.of(ranked, split, &mut |model, split, done, all| {
            observer(FitEvent::Ranking { model, split, done, all });
        })?;
        observer(FitEvent::Ranked(ranked.candidate(), split, &Metrics::of(&result.evaluation)));
        Ok(result)
    }

    /// Trains all candidates, and ranks them on validation users.
    fn try_all(&self, rankings: &Rankings, observer: &mut dyn FnMut(FitEvent)) -> Result<Found, RunError> {
        let mut found = Found::default();
        let add = |found: &mut Found, ranked: &Ranked, observer: &mut dyn FnMut(FitEvent)| {
            let result = self.rank(rankings, ranked, Split::Valid, observer)?;
            found.tried.push(Tried::new(ranked.candidate(), &result.evaluation));
            Ok::<_, RunError>(result)
        };
        add(&mut found, &Ranked::Popularity, observer)?;
        let counts = add(&mut found, &Ranked::Transition(None), observer)?;
        found.transition = counts.evaluation.method.transition.unwrap_or_default();

        let bench = self.workbench(&rankings.data, "trial");
        let mut train = |name, event: RunEvent| observer(FitEvent::Training(name, event));
        found.sasrec = bench.train_sasrec(rankings.prepared, &self.clock, &mut train)?;
        match found.sasrec.clone() {
            Some(model) => drop(add(&mut found, &Ranked::Sasrec(&model.run), observer)?),
            None => observer(FitEvent::LeftOut(Candidate::Sasrec, "an epoch would take longer than the time left")),
        }

        let trained = bench.train(&self.clock, &mut |name, event| observer(FitEvent::Training(name, event)))?;
        let model = trained.tuned.model.clone();
        found.language_model = Some(trained);
        add(&mut found, &Ranked::LanguageModel(&model), observer)?;

        let ndcg =
            |candidate| found.tried.iter().find(|tried| tried.model == candidate).map(|tried| tried.valid.ndcg_10);
        let guide = match &found.sasrec {
            Some(sasrec) if ndcg(Candidate::Sasrec) > ndcg(Candidate::Transition) => {
                GuideSource::SasRec(sasrec.run.clone())
            }
            _ => GuideSource::Transition,
        };
        let guided = add(&mut found, &Ranked::Guided(&model, guide.clone(), None), observer)?;
        let method = &guided.evaluation.method;
        found.guidance = Some(ChosenGuidance {
            guide: guide.to_string(),
            kind: method.guidance_kind.unwrap_or_default(),
            scale: method.guidance_scale.unwrap_or(1.0),
            transition: method.transition,
            ndcg: None,
            users: guided.evaluation.users,
            data_fingerprint: rankings.prepared.fingerprint(),
        });
        Ok(found)
    }

    /// Prepares all interactions, and trains the chosen model on them if there is time.
    fn refit(
        &self,
        mut shop: Shop,
        found: &Found,
        trial: &Prepared,
        observer: &mut dyn FnMut(FitEvent),
    ) -> Result<Shop, RunError> {
        let data = self.config.out.join("data");
        if !data.exists() {
            // With the trial's tokens, so that its models read this data too.
            let tokenizer = Some(self.trial("data").join(crate::run::TOKENIZER_FILE));
            prepare_unless(&self.config.prepare(data.clone(), tokenizer, true), self.interrupted)?;
        }
        let prepared = Prepared::load(&data)?;
        let rows = prepared.rows.train.len();
        let growth = rows as f64 / trial.rows.train.len().max(1) as f64;
        let is_guided_by_sasrec = shop.guidance.as_ref().is_some_and(|guidance| guidance.guide != "transition");
        let trains_sasrec = shop.chosen == Candidate::Sasrec || is_guided_by_sasrec;
        let trains_language_model = matches!(shop.chosen, Candidate::LanguageModel | Candidate::Guided);
        let sasrec = found.sasrec.as_ref().filter(|_| trains_sasrec);
        let model = found.language_model.as_ref().filter(|_| trains_language_model);
        let seconds =
            sasrec.map_or(0.0, |model| model.seconds() * growth) + model.map_or(0.0, |model| model.seconds(rows));
        let left = self.clock.share(1.0).as_secs_f64();
        if seconds > left {
            let why = format!("it would take {seconds:.0} seconds, but only {left:.0} are left");
            observer(FitEvent::NotRefitted(&why));
        } else {
            observer(FitEvent::Refitting);
            let bench = self.workbench(&data, "model");
            let mut train = |name, event: RunEvent| observer(FitEvent::Training(name, event));
            if let Some(trained) = sasrec {
                let again = bench.refit_sasrec(trained, &prepared, &mut train)?;
                shop.sasrec = again.map(|model| self.within(&model.run));
            }
            if let Some(trained) = model {
                let again = bench.refit(trained, rows, &mut train)?;
                shop.language_model = Some(self.within(&again.tuned.model));
            }
            shop.refitted = true;
        }
        if let Some(guidance) = &mut shop.guidance {
            guidance.data_fingerprint = prepared.fingerprint();
        }
        shop.seconds = self.clock.seconds();
        Ok(shop)
    }
}

impl Found {
    /// A candidate as it was chosen on validation.
    fn ranked(&self, candidate: Candidate) -> Option<Ranked<'_>> {
        Some(match candidate {
            Candidate::Popularity => Ranked::Popularity,
            Candidate::Transition => Ranked::Transition(Some(self.transition)),
            Candidate::Sasrec => Ranked::Sasrec(&self.sasrec.as_ref()?.run),
            Candidate::LanguageModel => Ranked::LanguageModel(&self.language_model.as_ref()?.tuned.model),
            Candidate::Guided => {
                let guidance = self.guidance.as_ref()?;
                let smoothing = guidance.transition.unwrap_or_default().smoothing;
                Ranked::Guided(
                    &self.language_model.as_ref()?.tuned.model,
                    GuideSource::from(guidance.guide.as_str()),
                    Some((guidance.kind, guidance.scale, smoothing)),
                )
            }
        })
    }
}
