//! Where the parts of a run folder are.
//!
//! ```text
//! RUN/run.json        what was asked for, as resolved, with which program, model and data
//! RUN/metrics.jsonl   a line for every step and validation
//! RUN/last/           the latest checkpoint
//! RUN/best/           the checkpoint of the best validation
//! RUN/step-N/         checkpoints that are kept, if that was asked for
//! RUN/reference/      for stage 2 that looks back at it, the model that it began with
//! RUN/evaluations/    what the program found when it evaluated the run
//! RUN/lock            who writes the run, or did so last
//! ```
//!
//! A checkpoint is a Hugging Face folder with what resuming needs beside it (`optimizer.safetensors`, `progress.json`)
//! and the checksums of all its files (`SHA256SUMS`).

use std::path::{Path, PathBuf};

pub(crate) const OPTIMIZER_FILE: &str = "optimizer.safetensors";
pub(crate) const PROGRESS_FILE: &str = "progress.json";
pub(crate) const LOCK_FILE: &str = "lock";
const KEPT_PREFIX: &str = "step-";

/// The parts of the run folder at a path, whether they are there or not.
#[derive(Debug, Clone, Copy)]
pub struct RunPaths<'a>(pub &'a Path);

impl RunPaths<'_> {
    /// Whether the folder is a run's.
    pub fn is_run(self) -> bool {
        self.description().exists()
    }

    /// What the run records of itself.
    pub fn description(self) -> PathBuf {
        self.0.join("run.json")
    }

    /// Its log.
    pub fn metrics(self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The latest checkpoint.
    pub fn last(self) -> PathBuf {
        self.0.join("last")
    }

    /// Where the run stands at its latest checkpoint.
    pub fn progress(self) -> PathBuf {
        self.last().join(PROGRESS_FILE)
    }

    /// The checkpoint of the best validation.
    pub fn best(self) -> PathBuf {
        self.0.join("best")
    }

    /// The checkpoint of a step that is kept.
    pub(crate) fn kept(self, step: usize) -> PathBuf {
        self.0.join(format!("{KEPT_PREFIX}{step}"))
    }

    /// The model that stage 2 began with, if it looks back at it.
    pub fn reference(self) -> PathBuf {
        self.0.join("reference")
    }

    /// What was found when the run was evaluated.
    pub fn evaluations(self) -> PathBuf {
        self.0.join("evaluations")
    }

    /// Who writes the run.
    pub(crate) fn lock(self) -> PathBuf {
        self.0.join(LOCK_FILE)
    }
}

/// The step whose kept checkpoint has this name.
pub(crate) fn kept_step(name: &str) -> Option<usize> {
    name.strip_prefix(KEPT_PREFIX)?.parse().ok()
}

/// Whether a file of this name in a checkpoint holds weights of its model.
pub fn holds_weights(name: &str) -> bool {
    name.ends_with(".safetensors") && name != OPTIMIZER_FILE
}
