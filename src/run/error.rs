use std::path::PathBuf;

use crate::data::{DataError, Split};
use crate::from_hub::HubError;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::models::decode::TrieError;
use crate::train::TrainError;

/// Why a run cannot be started, resumed, evaluated or read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The catalog.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// A model of the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A file or folder.
    #[error(transparent)]
    Input(#[from] InputError),
    /// No example is left to train on.
    #[error("there are no examples to train on")]
    NoExamples,
    /// No row is left to evaluate on.
    #[error("the data has no {} rows to evaluate on", split.name())]
    NoRows {
        /// The split.
        split: Split,
    },
    /// There are no validation users to choose a setting on.
    #[error("there are no validation users to choose a setting on")]
    NoValidation,
    /// Stage 2 needs a model with thoughts.
    #[error("{}: has no thoughts to reinforce; fine-tune it with thoughts first", model.display())]
    NoThoughts {
        /// The model's folder.
        model: PathBuf,
    },
    /// Stage 2 is to train on rows that stage 1 held out, and there are none.
    #[error(
        "{}: {problem}; training on held-out rows needs a stage 1 model that held out rows of the same data",
        model.display()
    )]
    NothingHeldOut {
        /// The model's folder.
        model: PathBuf,
        /// Why not.
        problem: &'static str,
    },
    /// A model cannot think as many thoughts as were asked for.
    #[error("the model has learnt {learnt} thoughts, not {asked}")]
    Thoughts {
        /// The thoughts that it has learnt.
        learnt: usize,
        /// The thoughts that were asked for.
        asked: usize,
    },
    /// The data was tokenised by another tokenizer than the model's.
    #[error("{}: {problem}; prepare the data with the model's tokenizer", model.display())]
    OtherTokenizer {
        /// The model's folder.
        model: PathBuf,
        /// How they differ.
        problem: String,
    },
    /// The prompts are too long for the model.
    #[error(
        "{}: sequences of up to {tokens} tokens do not fit the model's {positions} positions; \
         prepare the data with shorter prompts",
        model.display()
    )]
    TooLong {
        /// The model's folder.
        model: PathBuf,
        /// The longest prompt with thoughts and title.
        tokens: usize,
        /// The model's positions.
        positions: usize,
    },
    /// A run folder holds a run of another stage.
    #[error("{}: is a run of `{stage}`", run.display())]
    OtherStage {
        /// The run's folder.
        run: PathBuf,
        /// The command that made it.
        stage: String,
    },
    /// The data differs from what the run began with.
    #[error("{}: was made with other data than {} has now: {differ} differ", run.display(), data.display())]
    OtherData {
        /// The run's folder.
        run: PathBuf,
        /// The folder of the data.
        data: PathBuf,
        /// Names of the files that differ.
        differ: String,
    },
    /// A run resumes with its original settings.
    #[error("{setting} is {asked} here and {recorded} in the run; a run resumes with its original settings")]
    OtherSetting {
        /// The setting.
        setting: &'static str,
        /// As it was given.
        asked: String,
        /// As the run has it.
        recorded: String,
    },
    /// A run to compare has no result on the test split.
    #[error("{}: has no evaluations/test.json", run.display())]
    NotEvaluated {
        /// The run's folder.
        run: PathBuf,
    },
    /// The result of a run to compare is not its best model's.
    #[error("{}: its evaluation is of an earlier best model", run.display())]
    EvaluatedBefore {
        /// The run's folder.
        run: PathBuf,
    },
    /// An evaluation was asked to stop; nothing of it is kept.
    #[error("stopped before the evaluation finished")]
    EvaluationStopped,
    /// The run was asked to stop and saved what it did.
    #[error("stopped after step {step}; the run is saved")]
    Interrupted {
        /// The run's folder.
        run: PathBuf,
        /// Steps done.
        step: usize,
    },
}
