//! The evaluation of a model in a folder on a split of prepared data.

use std::path::PathBuf;

use super::error::RunError;
use super::evaluations::EvaluationLog;
use super::guidance::{ChosenGuidance, GuidanceRequest, GuideSource, GuidedSearch};
use super::model_folder::{check_device, check_fit, is_run, load_model, weight_files, with_learnt_thoughts};
use crate::data::{Prepared, Split};
use crate::eval::{
    EvalConfig, EvaluationResult, Guidance, Shard, evaluate, evaluate_grounded, evaluate_guided, sample,
};
use crate::input_error::InputError;
use crate::models::decode::BeamConfig;
use crate::models::{LatentRecommender, ObjectiveKind, Precision};

/// What to evaluate, and how.
#[derive(Debug, Clone)]
pub struct EvaluationRequest {
    /// Hugging Face folder or run folder.
    pub model: PathBuf,
    /// Prepared data.
    pub data: PathBuf,
    /// Where to compute.
    pub device: String,
    /// Which rows.
    pub split: Split,
    /// How titles are found.
    pub decoding: Decoding,
    /// Beams of the search, and length of the lists.
    pub beam: BeamConfig,
    /// What the model is read by, if not by the objective that it was trained for.
    pub objective: Option<ObjectiveKind>,
    /// Thoughts, if not as many as the model has learnt.
    pub thoughts: Option<usize>,
    /// Users drawn at random by the seed, if not all.
    pub limit: Option<usize>,
    /// Seed of what is drawn.
    pub seed: u64,
    /// Users searched at once; changes memory and speed, and results by rounding only.
    pub batch: usize,
    /// What the blocks multiply in.
    pub precision: Precision,
    /// The part of the users to search for.
    pub shard: Shard,
    /// Whether the items of a user's history are left out of the list; free text knows nothing of it.
    pub exclude_history: bool,
}

/// How titles are found.
#[derive(Debug, Clone)]
pub enum Decoding {
    /// A beam search over the prefix tree of the catalog.
    Search,
    /// The search, guided by a collaborative model.
    Guided(GuidanceRequest),
    /// Free text, and the titles whose embeddings are nearest to it (BIGRec).
    Grounding,
}

/// What an evaluation tells of.
#[derive(Debug)]
pub enum EvaluationEvent<'a> {
    /// The model is read by another objective than it was trained for.
    OtherObjective {
        /// What it was trained for.
        trained: ObjectiveKind,
        /// What it is read by.
        read: ObjectiveKind,
    },
    /// The run's folder cannot be written; it will have no record of the evaluation.
    NotRecorded(&'a InputError),
    /// A guidance was tried on validation users.
    Tried(&'a ChosenGuidance),
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

impl EvaluationRequest {
    /// Evaluates the model and, where it is a run's, records it in the run's folder.
    ///
    /// # Errors
    ///
    /// A model or data that cannot be read or do not fit, settings that make no sense, and a run that went on
    /// meanwhile.
    pub fn carry_out(&self, observer: &mut dyn FnMut(EvaluationEvent)) -> Result<EvaluationResult, RunError> {
        self.beam.check(ObjectiveKind::Vocabulary)?;
        check_device(&self.device, self.precision)?;
        if let Decoding::Guided(request) = &self.decoding {
            request.check()?;
        }
        let prepared = Prepared::load(&self.data)?;
        let model_files = weight_files(&self.model)?;
        let mut model = load_model(&self.model, &self.device)?.with_precision(self.precision)?;
        if let Some(thoughts) = self.thoughts {
            model = with_learnt_thoughts(model, thoughts, self.seed)?;
        }
        check_fit(&model, &self.model, &prepared)?;
        if is_run(&self.model) && weight_files(&self.model)? != model_files {
            let problem = "its best model changed while it was being read; evaluate it again";
            return Err(InputError::new(&self.model, problem).into());
        }
        let log = EvaluationLog::open(&self.model).unwrap_or_else(|error| {
            observer(EvaluationEvent::NotRecorded(&error));
            None
        });
        let objective = prepared.objective(self.read_by(&model, observer))?;
        self.beam.check(objective.kind())?;
        let rows = sample(prepared.rows.get(self.split), self.limit, self.seed);
        if rows.is_empty() {
            return Err(RunError::NoRows { split: self.split });
        }
        let config =
            EvalConfig { beam: self.beam, batch: self.batch, shard: self.shard, exclude_history: self.exclude_history };
        let guide_files = match &self.decoding {
            Decoding::Guided(GuidanceRequest { guide: GuideSource::SasRec(run), .. }) => weight_files(run)?,
            _ => Default::default(),
        };
        let evaluation = match &self.decoding {
            Decoding::Search => evaluate(&model, &prepared, &objective, &rows, config, &mut advance(observer))?,
            Decoding::Grounding => evaluate_grounded(&model, &prepared, &rows, config, &mut advance(observer))?,
            Decoding::Guided(request) => {
                let search = GuidedSearch {
                    model: &model,
                    prepared: &prepared,
                    objective: &objective,
                    config,
                    device: &self.device,
                    seed: self.seed,
                };
                let (guide, chosen) = search.choose(request, &mut |tried| observer(EvaluationEvent::Tried(tried)))?;
                chosen.record(&self.model)?;
                let guidance = Guidance { model: guide.as_ref(), kind: chosen.kind, scale: chosen.scale };
                let mut evaluation =
                    evaluate_guided(&model, guidance, &prepared, &objective, &rows, config, &mut advance(observer))?;
                evaluation.method.transition = chosen.transition;
                evaluation
            }
        };
        let result = EvaluationResult {
            split: self.split.name().into(),
            data_fingerprint: prepared.fingerprint(),
            model_files,
            limit: self.limit,
            seed: self.seed,
            batch: self.batch,
            precision: self.precision,
            trained_objective: Some(model.objective()),
            thoughts: Some(model.thoughts()),
            guide_files,
            users_of_all_parts: rows.len(),
            shard: self.shard,
            evaluation,
        };
        if let Some(log) = log {
            let is_plain = self.thoughts.is_none()
                && matches!(self.decoding, Decoding::Search)
                && !self.exclude_history
                && self.precision == Precision::F32
                && objective.kind() == model.objective()
                && self.beam.penalty(&objective) == objective.length_penalty();
            let times = log.record(&result, is_plain)?;
            if times > 0 {
                observer(EvaluationEvent::ReadBefore { times });
            }
        }
        Ok(result)
    }

    /// What the model is read by. Free text is read by `vocabulary`, whatever was asked for.
    fn read_by(&self, model: &LatentRecommender, observer: &mut dyn FnMut(EvaluationEvent)) -> ObjectiveKind {
        let asked = self.objective.unwrap_or(model.objective());
        let (trained, read) = match self.decoding {
            Decoding::Grounding => (asked, ObjectiveKind::Vocabulary),
            Decoding::Search | Decoding::Guided(_) => (model.objective(), asked),
        };
        if trained != read {
            observer(EvaluationEvent::OtherObjective { trained, read });
        }
        read
    }
}

fn advance(observer: &mut dyn FnMut(EvaluationEvent)) -> impl FnMut(usize, usize) {
    move |done, all| observer(EvaluationEvent::Advanced { done, all })
}
