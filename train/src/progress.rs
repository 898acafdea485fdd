//! What is known of a run: what a step says, where the run stands, and what its observer is told.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::guard::{Alarm, Watch, Watched};

/// What a step has to say.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// The metric to show while training: the loss of stage 1, the reward of stage 2.
    pub headline: f64,
    /// Everything for the log.
    pub metrics: Map<String, Value>,
    /// What was not finite, for which the model was not moved; with several updates a step, not by the one that it came
    /// from and those after it.
    pub fault: Option<Fault>,
    /// What guards look at, where the stage has it.
    pub watched: Option<Watched>,
}

/// What a validation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// What the best model is selected by: the higher, the better.
    pub score: f64,
    /// Everything for the log, by the names that it has there.
    pub metrics: Map<String, Value>,
    /// Mean negative log-likelihood of a predicted token, for [`Guards`](crate::Guards).
    pub watched: Option<f64>,
}

impl Validation {
    /// The metric of this name, if there is one that is a number.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name)?.as_f64()
    }
}

/// A metric that is not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// Which.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
}

impl Fault {
    /// The fault that `value` is, if it is one.
    pub fn of(what: &'static str, value: f64) -> Option<Self> {
        (!value.is_finite()).then_some(Self { what, value })
    }
}

/// Where a run stands; with the model and the optimiser's state all that is needed to resume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Best validation so far.
    pub best: Option<Validation>,
    /// Step of the best validation.
    pub best_step: Option<usize>,
    /// Validations since then.
    pub validations_since_best: usize,
    /// Whether the model is to be validated before the next step.
    pub validation_due: bool,
    /// Steps skipped because a metric was NaN or infinite.
    pub skipped: usize,
    /// Those of them since the last step that was not skipped.
    pub skipped_in_a_row: usize,
    /// Whether the run is over.
    pub finished: bool,
    /// Why it is to end before its last step, if it is.
    #[serde(default)]
    pub stopped: Option<String>,
    /// What guards remember.
    #[serde(default)]
    pub watch: Watch,
    /// The temperature of the next step, where it adapts.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Bytes of the metrics file that belong to the steps done.
    pub metrics_bytes: u64,
    /// Seconds of training so far.
    pub seconds: f64,
}

impl Progress {
    pub(crate) fn start(validate_first: bool) -> Self {
        Self {
            step: 0,
            best: None,
            best_step: None,
            validations_since_best: 0,
            validation_due: validate_first,
            skipped: 0,
            skipped_in_a_row: 0,
            finished: false,
            stopped: None,
            watch: Watch::default(),
            temperature: None,
            metrics_bytes: 0,
            seconds: 0.0,
        }
    }
}

/// What an observer of a run is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done.
    Step {
        /// Number of the step, from 1.
        step: usize,
        /// Steps of the whole run.
        steps: usize,
        /// Prompt and target tokens of the batch.
        tokens: usize,
        /// The headline of its report.
        headline: f64,
    },
    /// A step was skipped because a metric was NaN or infinite.
    Skipped {
        /// Number of the step, from 1.
        step: usize,
        /// The metric.
        fault: Fault,
    },
    /// The model was validated.
    Validated {
        /// After this step.
        step: usize,
        /// What it found.
        validation: &'a Validation,
        /// Whether it is the best so far.
        is_best: bool,
    },
    /// A guard found something wrong.
    Alarmed {
        /// After this step.
        step: usize,
        /// What.
        alarm: &'a Alarm,
    },
}
