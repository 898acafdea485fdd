//! A run as it is carried out: what it tells of meanwhile, and its outcome.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::description::{RunData, RunDescription, RunPlace};
use super::error::RunError;
use super::log::Log;
use super::memory::peak_mib;
use super::ranked::Ranked;
use crate::models::{LatentRecommender, ObjectiveKind};
use crate::train::{self, Event, RunPaths, Stage, TrainError, Training, Validation, World};

/// What a run needs of the program that carries it out.
pub struct RunContext<'a> {
    /// The processes that train together.
    pub world: &'a World,
    /// Set to have the run stop with a checkpoint.
    pub interrupted: &'a AtomicBool,
    /// Told of what happens.
    pub observer: &'a mut dyn FnMut(RunEvent),
}

/// What happens in a run.
#[derive(Debug)]
pub enum RunEvent<'a> {
    /// Data and model are loaded.
    Ready {
        /// Examples to train on.
        train_examples: usize,
        /// Examples to validate on.
        valid_examples: usize,
        /// Where the loss is in nats per item, that of a model by which all titles are equally likely.
        uniform_loss: Option<f64>,
    },
    /// The training loop did something.
    Training(Event<'a>),
    /// Something is not as it should be, and the run goes on all the same.
    Warning(String),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// The command that made it.
    pub stage: String,
    /// What the targets' tokens competed with.
    pub objective: ObjectiveKind,
    /// The run's folder; in JSON without what is no text.
    #[serde(serialize_with = "lossy")]
    pub run: PathBuf,
    /// The processes that trained.
    pub workers: usize,
    /// Steps done.
    pub steps: usize,
    /// Step of the best validation.
    pub best_step: Option<usize>,
    /// The best validation's metrics, by their names without `valid_`.
    pub best_validation: Option<Map<String, Value>>,
    /// The validation loss by step.
    pub valid_loss: BTreeMap<String, f64>,
    /// Steps skipped because a metric was NaN or infinite.
    pub skipped: usize,
    /// Why the run ended before its last step, where it did.
    pub stopped: Option<String>,
    /// Seconds of training.
    pub seconds: f64,
    /// The most memory that the process had resident, in MiB, where the system tells.
    pub peak_mib: Option<f64>,
    /// Examples trained on.
    pub train_examples: usize,
    /// Examples validated on.
    pub valid_examples: usize,
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Trains with a stage as `go` begins or resumes it.
pub(super) fn carry_out(
    description: &RunDescription,
    data: &RunData,
    place: RunPlace,
    context: &mut RunContext,
    stage: &dyn Stage<LatentRecommender>,
    go: impl FnOnce(Training, &dyn Stage<LatentRecommender>) -> Result<train::Progress, TrainError>,
) -> Result<RunOutcome, RunError> {
    let (train_examples, valid_examples) = (data.train.len(), data.valid.len());
    let uniform_loss = data.objective.log_titles();
    (context.observer)(RunEvent::Ready { train_examples, valid_examples, uniform_loss });
    let world = context.world;
    let training = Training {
        config: &description.train,
        train: &data.train,
        valid: &data.valid,
        run: place.run.as_ref(),
        world,
        observer: &mut |event| (context.observer)(RunEvent::Training(event)),
        interrupted: context.interrupted,
    };
    let end = go(training, &Ranked::new(stage, description, data))?;
    if !end.finished {
        return Err(RunError::Interrupted { run: place.folder.into(), step: end.step });
    }
    let log = place.run.as_ref().map(|run| Log::read(&RunPaths(run.path()).metrics())).transpose()?;
    let valid_loss = log.iter().flat_map(|log| log.series("valid_loss"));
    Ok(RunOutcome {
        stage: description.stage.name().into(),
        objective: data.objective.kind(),
        run: place.folder.into(),
        workers: world.size(),
        steps: end.step,
        best_step: end.best_step,
        best_validation: end.best.as_ref().map(best_validation),
        valid_loss: valid_loss.map(|(step, loss)| (step.to_string(), *loss)).collect(),
        skipped: end.skipped,
        stopped: end.stopped,
        seconds: end.seconds,
        peak_mib: peak_mib(),
        train_examples,
        valid_examples,
    })
}

/// The metrics of the best validation, by the names without the prefix that they have in the log.
fn best_validation(best: &Validation) -> Map<String, Value> {
    let metrics = best.metrics.iter().filter_map(|(name, value)| Some((name.strip_prefix("valid_")?, value)));
    metrics.map(|(name, value)| (name.to_owned(), value.clone())).collect()
}
