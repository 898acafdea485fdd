//! The collaborative model that guides a search, and how much it says: chosen on validation, and remembered.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::RunError;
use super::model_folder::{absolute, is_run, model_folder};
use crate::data::{Prepared, PreparedRow, Split};
use crate::eval::{
    CollaborativeModel, EvalConfig, Guidance, Metric, Shard, TransitionChoices, TransitionConfig, Transitions,
    evaluate_guided, load_sasrec, sample,
};
use crate::input_error::InputError;
use crate::models::decode::GuidanceKind;
use crate::models::files::{read_json, write_json};
use crate::models::{LatentRecommender, ModelError, Objective, device};

/// The file of a run's folder with what was chosen.
const FILE: &str = "guidance.json";

/// What guides a search.
#[derive(Debug, Clone, PartialEq)]
pub enum GuideSource {
    /// Counts of item transitions in the training rows.
    Transition,
    /// A SASRec run, or the folder of such a model.
    SasRec(PathBuf),
}

impl fmt::Display for GuideSource {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Transition => formatter.write_str("transition"),
            Self::SasRec(run) => run.display().fmt(formatter),
        }
    }
}

impl From<&str> for GuideSource {
    /// The guide that [`Display`](fmt::Display) writes so.
    fn from(text: &str) -> Self {
        match text {
            "transition" => Self::Transition,
            run => Self::SasRec(run.into()),
        }
    }
}

impl GuideSource {
    /// The guide, for prepared data; SASRec computes on a device.
    ///
    /// # Errors
    ///
    /// A SASRec model that cannot be read or is of another catalog.
    pub fn open(
        &self,
        prepared: &Prepared,
        transition: Option<TransitionConfig>,
        device_name: &str,
    ) -> Result<Box<dyn CollaborativeModel>, RunError> {
        Ok(match self {
            Self::Transition => Box::new(Transitions::new(prepared, transition.unwrap_or_default())),
            Self::SasRec(run) => Box::new(load_sasrec(&model_folder(run)?, prepared, &device(device_name)?)?),
        })
    }
}

/// A guide, and what to choose among by NDCG@10 on validation users. Where nothing is to choose, no user is asked.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct GuidanceRequest {
    /// Guide the search with a collaborative model: `transition` for counts of item transitions, or a SASRec run
    /// (`latentr3 baseline sasrec`). SASRec with --objective vocabulary --length-penalty 0 is D3.
    #[cfg_attr(
        feature = "clap",
        arg(id = "guidance", long = "guidance", value_name = "transition|SASREC_RUN", required = false)
    )]
    pub guide: GuideSource,
    /// How to combine the language model's distribution over items with the guide's: product or mixture, weighted by
    /// --guidance-scale. Of several values, as of the next two options, the best by NDCG@10 on validation users is
    /// used.
    #[cfg_attr(feature = "clap", arg(id = "guidance_kind", long = "guidance-kind", value_name = "KINDS", value_delimiter = ',', default_values_t = [GuidanceKind::Product], requires = "guidance"))]
    pub kinds: Vec<GuidanceKind>,
    /// Weight of the language model in a guided search, from 0 to 1.
    #[cfg_attr(feature = "clap", arg(id = "guidance_scale", long = "guidance-scale", value_name = "SCALES", value_delimiter = ',', default_values_t = Self::SCALES, requires = "guidance"))]
    pub scales: Vec<f64>,
    /// Votes for popularity if transitions guide. Chosen after kind and scale, which are chosen with the first value.
    /// The two decay exponents are those with which counts alone rank best.
    #[cfg_attr(feature = "clap", arg(id = "guidance_smoothing", long = "guidance-smoothing", value_name = "VOTES", value_delimiter = ',', default_values_t = Self::SMOOTHING, requires = "guidance"))]
    pub smoothing: Vec<f64>,
    /// Number of validation users for these choices.
    #[cfg_attr(
        feature = "clap",
        arg(
            id = "guidance_users",
            long = "guidance-users",
            value_name = "N",
            default_value_t = 500,
            requires = "guidance"
        )
    )]
    pub users: usize,
}

impl From<&ChosenGuidance> for GuidanceRequest {
    /// Nothing is left to choose.
    fn from(chosen: &ChosenGuidance) -> Self {
        Self {
            guide: GuideSource::from(chosen.guide.as_str()),
            kinds: vec![chosen.kind],
            scales: vec![chosen.scale],
            smoothing: vec![chosen.transition.unwrap_or_default().smoothing],
            users: 1,
        }
    }
}

impl GuidanceRequest {
    /// The language model's shares to choose among where nothing else is said; with none the guide is alone.
    pub const SCALES: [f64; 6] = [0.0, 0.1, 0.2, 0.4, 0.6, 0.8];

    /// Weights of popularity to choose among where nothing else is said.
    pub const SMOOTHING: [f64; 3] = [0.1, 1.0, 10.0];

    /// Makes sure that every value makes sense.
    pub(super) fn check(&self) -> Result<(), RunError> {
        let refused = |problem: String| RunError::Model(ModelError::Input(problem));
        for &smoothing in &self.smoothing {
            TransitionConfig { smoothing, ..Default::default() }.check().map_err(refused)?;
        }
        match self.scales.iter().find(|scale| !(0.0..=1.0).contains(*scale)) {
            Some(scale) => Err(refused(format!("the guidance scale must be from 0 to 1, got {scale}"))),
            None => Ok(()),
        }
    }
}

/// A guidance, and how good it was on validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChosenGuidance {
    /// The guide: `transition`, or the folder of a SASRec run.
    pub guide: String,
    /// How it and the language model become one.
    pub kind: GuidanceKind,
    /// The language model's share.
    pub scale: f64,
    /// How transitions are counted, where they guide.
    pub transition: Option<TransitionConfig>,
    /// NDCG of the list's first places, 10 at most, on validation; absent where nothing was to choose.
    pub ndcg: Option<f64>,
    /// The validation users.
    pub users: usize,
    /// Checksum of the prepared data.
    pub data_fingerprint: String,
}

impl ChosenGuidance {
    /// What was chosen last for the run in a folder; nothing for a folder that is no run's.
    ///
    /// # Errors
    ///
    /// A file that is damaged.
    pub fn of_run(run: &Path) -> Result<Option<Self>, RunError> {
        let file = run.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let damaged = |error: serde_json::Error| InputError::new(&file, format!("is damaged: {error}"));
        Ok(Some(serde_json::from_value(read_json(&file)?).map_err(damaged)?))
    }

    /// Remembers it in a run's folder where it was chosen among several; another folder is left as it is.
    pub(super) fn record(&self, run: &Path) -> Result<(), RunError> {
        if self.ndcg.is_some() && is_run(run) {
            write_json(&run.join(FILE), self)?;
        }
        Ok(())
    }
}

/// What a guide is chosen for.
pub(super) struct GuidedSearch<'a> {
    pub model: &'a LatentRecommender,
    pub prepared: &'a Prepared,
    pub objective: &'a Objective,
    /// How the lists are searched.
    pub config: EvalConfig,
    /// Where a SASRec run computes.
    pub device: &'a str,
    /// What users are drawn by.
    pub seed: u64,
}

impl GuidedSearch<'_> {
    /// The guide, and the guidance with the best NDCG@10, or of the longest list, on validation users; of equal ones
    /// the first. Kind and scale are chosen with the first smoothing, and then the smoothing, on which lists depend
    /// little.
    pub fn choose(
        &self,
        request: &GuidanceRequest,
        tried: &mut dyn FnMut(&ChosenGuidance),
    ) -> Result<(Box<dyn CollaborativeModel>, ChosenGuidance), RunError> {
        let counted: Vec<Option<TransitionConfig>> = match request.guide {
            GuideSource::Transition => {
                let exclude_history = self.config.exclude_history;
                let choices = TransitionChoices { exclude_history, ..Default::default() };
                let (weights, _) = choices.choose(self.prepared, self.seed);
                request.smoothing.iter().map(|&smoothing| Some(TransitionConfig { smoothing, ..weights })).collect()
            }
            GuideSource::SasRec(_) => vec![None],
        };
        let (&first, others) = counted.split_first().ok_or(RunError::NoValidation)?;
        let rows = sample(self.prepared.rows.get(Split::Valid), Some(request.users), self.seed);
        let is_choice = request.kinds.len() * request.scales.len() + others.len() > 1;
        if is_choice && rows.is_empty() {
            return Err(RunError::NoValidation);
        }
        let mut measure = |guide: &dyn CollaborativeModel, kind, scale, transition| -> Result<_, RunError> {
            let mut candidate = ChosenGuidance {
                guide: match &request.guide {
                    GuideSource::SasRec(run) => absolute(run).display().to_string(),
                    GuideSource::Transition => request.guide.to_string(),
                },
                kind,
                scale,
                transition,
                ndcg: None,
                users: rows.len(),
                data_fingerprint: self.prepared.fingerprint(),
            };
            if is_choice {
                candidate.ndcg = Some(self.ndcg(Guidance { model: guide, kind, scale }, &rows)?);
                tried(&candidate);
            }
            Ok(candidate)
        };
        let open = |transition| request.guide.open(self.prepared, transition, self.device);
        let mut guide = open(first)?;
        let mut best: Option<ChosenGuidance> = None;
        for &kind in &request.kinds {
            for &scale in &request.scales {
                let candidate = measure(guide.as_ref(), kind, scale, first)?;
                if best.as_ref().is_none_or(|best| candidate.ndcg > best.ndcg) {
                    best = Some(candidate);
                }
            }
        }
        let mut best = best.ok_or(RunError::NoValidation)?;
        for &transition in others {
            let other = open(transition)?;
            let candidate = measure(other.as_ref(), best.kind, best.scale, transition)?;
            if candidate.ndcg > best.ndcg {
                (guide, best) = (other, candidate);
            }
        }
        Ok((guide, best))
    }

    /// NDCG of the list's first places, 10 at most.
    fn ndcg(&self, guidance: Guidance, rows: &[&PreparedRow]) -> Result<f64, RunError> {
        let config = EvalConfig { shard: Shard::WHOLE, ..self.config };
        let Self { model, prepared, objective, .. } = *self;
        let found = evaluate_guided(model, guidance, prepared, objective, rows, config, &mut |_, _| {})?;
        Ok(found.mean(Metric::Ndcg(config.beam.beams.min(10))))
    }
}
