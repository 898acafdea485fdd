//! The evaluation of baselines, which give every item of the catalog a score.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::RunError;
use super::evaluations::EvaluationLog;
use super::model_folder::{model_folder, weight_files};
use crate::data::{Prepared, PreparedRow, Split};
use crate::eval::{
    Counting, Counts, EvalConfig, EvaluationResult, Method, Shard, TransitionChoices, TransitionConfig,
    evaluate_scores, load_sasrec, sample, sasrec_scores,
};
use crate::input_error::InputError;
use crate::models::decode::BeamConfig;
use crate::models::{ModelError, Precision, device};

/// What to evaluate, and on what.
#[derive(Debug, Clone)]
pub struct BaselineRequest {
    /// The baseline.
    pub baseline: Baseline,
    /// Which rows.
    pub split: Split,
    /// Users drawn at random by the seed, if not all.
    pub limit: Option<usize>,
    /// Length of the lists.
    pub top: usize,
    /// Users scored at once; changes memory and speed, and results by rounding only.
    pub batch: usize,
    /// Whether the items of a user's history are left out of the list.
    pub exclude_history: bool,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// A baseline.
#[derive(Debug, Clone)]
pub enum Baseline {
    /// Items by how often they were chosen in training.
    Popularity,
    /// The user's own last items again, then the popular ones.
    Recent,
    /// Transitions between items; what is not given is chosen on validation, see [`TransitionConfig`].
    Transition {
        /// Exponent of an item's place in the history.
        position_decay: Option<f64>,
        /// Exponent of the distance between two items of a training row.
        distance_decay: Option<f64>,
        /// Votes that popularity has.
        smoothing: Option<f64>,
    },
    /// A SASRec model that was trained before.
    SasRec {
        /// The run's folder, or one with a model.
        model: PathBuf,
        /// Where to compute.
        device: String,
    },
}

/// What the evaluation of a baseline tells of.
#[derive(Debug)]
pub enum BaselineEvent {
    /// How transitions are counted was chosen on validation users.
    Chosen {
        /// What was chosen.
        config: TransitionConfig,
        /// Its NDCG@10.
        ndcg: f64,
    },
    /// The run's folder cannot be written; it will have no record of the evaluation.
    NotRecorded(InputError),
    /// Users are done.
    Advanced {
        /// So many.
        done: usize,
        /// Of so many.
        all: usize,
    },
    /// The run's record says that it was evaluated on this split before.
    ReadBefore {
        /// So often.
        times: usize,
    },
}

impl Baseline {
    /// The baseline's name in results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Popularity => "popularity",
            Self::Recent => "recent",
            Self::Transition { .. } => "transition",
            Self::SasRec { .. } => "sasrec",
        }
    }

    /// Makes sure that the settings make sense.
    ///
    /// # Errors
    ///
    /// One that does not.
    pub fn check(&self) -> Result<(), RunError> {
        let refused = |problem: String| RunError::Model(ModelError::Input(problem));
        self.transition(TransitionConfig::default()).check().map_err(refused)
    }

    /// How transitions are counted, with what is given in the place of `config`'s.
    fn transition(&self, config: TransitionConfig) -> TransitionConfig {
        match *self {
            Self::Transition { position_decay, distance_decay, smoothing } => TransitionConfig {
                position_decay: position_decay.unwrap_or(config.position_decay),
                distance_decay: distance_decay.unwrap_or(config.distance_decay),
                smoothing: smoothing.unwrap_or(config.smoothing),
            },
            _ => config,
        }
    }
}

impl BaselineRequest {
    /// Evaluates the baseline and, where it is a run's, records it in the run's folder.
    ///
    /// # Errors
    ///
    /// Settings that make no sense, a model that cannot be read or is of another catalog, and
    /// [`RunError::EvaluationStopped`] once `interrupted` is set.
    pub fn carry_out(
        &self,
        prepared: &Prepared,
        interrupted: &AtomicBool,
        observer: &mut dyn FnMut(BaselineEvent),
    ) -> Result<EvaluationResult, RunError> {
        self.baseline.check()?;
        let stop = || match interrupted.load(Ordering::Relaxed) {
            true => Err(RunError::EvaluationStopped),
            false => Ok(()),
        };
        let counting = match &self.baseline {
            Baseline::Popularity => Counting::Popularity,
            Baseline::Recent => Counting::Recent,
            Baseline::Transition { .. } => Counting::Transition(self.choose(prepared, observer)),
            Baseline::SasRec { model: folder, device: name } => {
                let model = load_sasrec(&model_folder(folder)?, prepared, &device(name)?)?;
                let files = weight_files(folder)?;
                let log = EvaluationLog::open(folder).unwrap_or_else(|error| {
                    observer(BaselineEvent::NotRecorded(error));
                    None
                });
                let scores = |rows: &[&PreparedRow]| {
                    let histories: Vec<&[usize]> = rows.iter().map(|row| row.history.as_slice()).collect();
                    stop().and_then(|()| Ok(sasrec_scores(&model, &histories)?))
                };
                let method = Method::named(model.config().encoder.model(), 0);
                let result = self.evaluate(prepared, method, files, scores, observer)?;
                let times = log.map_or(Ok(0), |log| log.record(&result, true))?;
                if times > 0 {
                    observer(BaselineEvent::ReadBefore { times });
                }
                return Ok(result);
            }
        };
        let counts = Counts::new(counting, prepared);
        let transition = match counting {
            Counting::Transition(config) => Some(config),
            _ => None,
        };
        let scores = |rows: &[&PreparedRow]| stop().map(|()| counts.scores(rows));
        let method = Method { transition, ..Method::named(self.baseline.name(), 0) };
        self.evaluate(prepared, method, BTreeMap::new(), scores, observer)
    }

    /// How transitions are counted: as it is given, or what is best on validation.
    fn choose(&self, prepared: &Prepared, observer: &mut dyn FnMut(BaselineEvent)) -> TransitionConfig {
        let given = match self.baseline {
            Baseline::Transition { position_decay, distance_decay, smoothing } => {
                [position_decay, distance_decay, smoothing]
            }
            _ => [None; 3],
        };
        if given.iter().all(Option::is_some) {
            return self.baseline.transition(TransitionConfig::default());
        }
        let choices = TransitionChoices { exclude_history: self.exclude_history, ..Default::default() };
        let (config, ndcg) = choices.with_given(given).choose(prepared, self.seed);
        observer(BaselineEvent::Chosen { config, ndcg });
        config
    }

    fn evaluate(
        &self,
        prepared: &Prepared,
        method: Method,
        model_files: BTreeMap<String, String>,
        scores: impl FnMut(&[&PreparedRow]) -> Result<Vec<Vec<f32>>, RunError>,
        observer: &mut dyn FnMut(BaselineEvent),
    ) -> Result<EvaluationResult, RunError> {
        let rows = sample(prepared.rows.get(self.split), self.limit, self.seed);
        if rows.is_empty() {
            return Err(RunError::NoRows { split: self.split });
        }
        let beam = BeamConfig { beams: self.top, ..Default::default() };
        let config = EvalConfig { beam, batch: self.batch, shard: Shard::WHOLE, exclude_history: self.exclude_history };
        let mut advance = |done: usize, all: usize| observer(BaselineEvent::Advanced { done, all });
        let evaluation = evaluate_scores(method, prepared, &rows, config, scores, &mut advance)?;
        Ok(EvaluationResult {
            split: self.split.name().into(),
            data_fingerprint: prepared.fingerprint(),
            model_files,
            limit: self.limit,
            seed: self.seed,
            batch: self.batch,
            precision: Precision::F32,
            trained_objective: None,
            thoughts: None,
            guide_files: BTreeMap::new(),
            users_of_all_parts: rows.len(),
            shard: Shard::WHOLE,
            evaluation,
        })
    }
}
