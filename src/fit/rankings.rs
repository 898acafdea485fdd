//! How well each candidate ranks, on validation and on test users.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::candidate::Candidate;
use super::config::FitConfig;
use crate::data::{Prepared, Split};
use crate::eval::{EvaluationResult, Shard, TransitionConfig};
use crate::models::Precision;
use crate::models::decode::{BeamConfig, GuidanceKind};
use crate::models::files::write_json;
use crate::run::{
    Baseline, BaselineEvent, BaselineRequest, Decoding, EvaluationEvent, EvaluationRequest, GuidanceRequest,
    GuideSource, RunError, read_result,
};

/// Places of a list.
const TOP: usize = 10;

/// Test users at most.
const TEST_USERS: usize = 5000;

/// What is ranked and where the results are kept.
pub(super) struct Rankings<'a> {
    pub config: &'a FitConfig,
    pub prepared: &'a Prepared,
    /// The prepared folder.
    pub data: PathBuf,
    /// The folder of the results.
    pub results: PathBuf,
    /// Validation users.
    pub users: usize,
    pub interrupted: &'a AtomicBool,
}

/// A candidate as it is ranked.
pub(super) enum Ranked<'a> {
    Popularity,
    /// Item transitions; without a configuration, its weights are chosen on validation.
    Transition(Option<TransitionConfig>),
    Sasrec(&'a std::path::Path),
    LanguageModel(&'a std::path::Path),
    /// The guided language model; without settings of the guidance, they are chosen on validation.
    Guided(&'a std::path::Path, GuideSource, Option<(GuidanceKind, f64, f64)>),
}

impl Ranked<'_> {
    pub fn candidate(&self) -> Candidate {
        match self {
            Self::Popularity => Candidate::Popularity,
            Self::Transition(_) => Candidate::Transition,
            Self::Sasrec(_) => Candidate::Sasrec,
            Self::LanguageModel(_) => Candidate::LanguageModel,
            Self::Guided(..) => Candidate::Guided,
        }
    }
}

impl Rankings<'_> {
    /// The result on a split; a stored one is reused.
    pub fn of(
        &self,
        ranked: &Ranked,
        split: Split,
        progress: &mut dyn FnMut(Candidate, Split, usize, usize),
    ) -> Result<EvaluationResult, RunError> {
        let candidate = ranked.candidate();
        let file = self.results.join(format!("{candidate}-{}.json", split.name()));
        if file.is_file() {
            return read_result(&file);
        }
        let mut progress = |done, all| progress(candidate, split, done, all);
        let result = match ranked {
            Ranked::Popularity => self.scored(Baseline::Popularity, split, &mut progress)?,
            Ranked::Transition(config) => {
                let baseline = Baseline::Transition {
                    position_decay: config.map(|config| config.position_decay),
                    distance_decay: config.map(|config| config.distance_decay),
                    smoothing: config.map(|config| config.smoothing),
                };
                self.scored(baseline, split, &mut progress)?
            }
            Ranked::Sasrec(model) => {
                let device = self.config.device.clone();
                self.scored(Baseline::SasRec { model: model.to_path_buf(), device }, split, &mut progress)?
            }
            Ranked::LanguageModel(model) => self.searched(model, Decoding::Search, split, &mut progress)?,
            Ranked::Guided(model, guide, chosen) => {
                let request = GuidanceRequest {
                    guide: guide.clone(),
                    kinds: chosen.map_or(vec![GuidanceKind::Product, GuidanceKind::Mixture], |(kind, ..)| vec![kind]),
                    scales: chosen.map_or(GuidanceRequest::SCALES.to_vec(), |(_, scale, _)| vec![scale]),
                    smoothing: chosen.map_or(GuidanceRequest::SMOOTHING.to_vec(), |(.., smoothing)| vec![smoothing]),
                    users: (self.users / 4).max(100),
                };
                self.searched(model, Decoding::Guided(request), split, &mut progress)?
            }
        };
        std::fs::create_dir_all(&self.results).map_err(crate::models::ModelError::io(&self.results))?;
        write_json(&file, &result)?;
        Ok(result)
    }

    fn limit(&self, split: Split) -> Option<usize> {
        Some(if split == Split::Test { TEST_USERS } else { self.users })
    }

    fn scored(
        &self,
        baseline: Baseline,
        split: Split,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<EvaluationResult, RunError> {
        let request = BaselineRequest {
            baseline,
            split,
            limit: self.limit(split),
            top: TOP,
            batch: 256,
            exclude_history: self.config.exclude_history,
            seed: self.config.seed,
        };
        request.carry_out(self.prepared, self.interrupted, &mut |event| {
            if let BaselineEvent::Advanced { done, all } = event {
                progress(done, all);
            }
        })
    }

    fn searched(
        &self,
        model: &std::path::Path,
        decoding: Decoding,
        split: Split,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<EvaluationResult, RunError> {
        let request = EvaluationRequest {
            model: model.to_path_buf(),
            data: self.data.clone(),
            device: self.config.device.clone(),
            split,
            decoding,
            beam: BeamConfig { beams: TOP, ..Default::default() },
            objective: None,
            thoughts: None,
            limit: self.limit(split),
            seed: self.config.seed,
            batch: 16,
            precision: Precision::F32,
            shard: Shard::WHOLE,
            exclude_history: self.config.exclude_history,
        };
        request.carry_out(&mut |event| {
            if let EvaluationEvent::Advanced { done, all } = event {
                progress(done, all);
            }
        })
    }
}
