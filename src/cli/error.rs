use std::path::{Path, PathBuf};

use crate::bench::BenchError;
use crate::data::{CellProblem, DataError};
use crate::devices::DeviceError;
use crate::experiment::ExperimentError;
use crate::from_hub::HubProblem;
use crate::golden::GoldenError;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::outputs::OutputError;
use crate::recommend::RecommendError;
use crate::run::RunError;
use crate::train::TrainError;

/// The exit code of a program that the user stopped.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The data.
    #[error("{}", of_data(.0))]
    Data(#[from] DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A run, or an evaluation of its model.
    #[error("{}", of_run(.0))]
    Run(#[from] RunError),
    /// A recommendation.
    #[error("{}", of_recommendation(.0))]
    Recommend(#[from] RecommendError),
    /// The user stopped a run, which is saved.
    #[error("stopped and saved after step {step}; resume with `latentr3 {command} --resume {}`{also}", run.display())]
    Interrupted {
        /// The command that resumes.
        command: &'static str,
        /// The run folder.
        run: PathBuf,
        /// What to say after the command.
        also: &'static str,
        /// Steps done.
        step: usize,
    },
    /// The user stopped `fit`; what was done is saved.
    #[error("stopped; resume with `latentr3 fit --resume {}`", .0.display())]
    FitStopped(PathBuf),
    /// Nothing can be served.
    #[cfg(feature = "serve")]
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
    /// Nothing can be timed.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A device cannot be examined.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An experiment.
    #[error("{}", crate::text::of_missing_inputs(.0))]
    Experiment(#[from] ExperimentError),
    /// Devices do not compute what they should.
    #[error("not usable: {0}")]
    NotUsable(String),
    /// What the user asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    /// A file that is not to be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A file of the user's is not what it should be.
    #[error(transparent)]
    Input(#[from] InputError),
}

/// What the program's user can do about a problem, where the library does not know it: which option of which command
/// helps.
fn remedy(error: &RunError) -> String {
    match error {
        RunError::NoExamples => "; check that --limit is not 0".into(),
        RunError::NoValidation => "; give a single --guidance-scale".into(),
        RunError::NoThoughts { .. } => ": `latentr3 sft --thoughts 1`".into(),
        RunError::OtherTokenizer { .. } => " (--tokenizer)".into(),
        RunError::TooLong { .. } => " (--max-tokens)".into(),
        RunError::OtherStage { stage, .. } => {
            let command = if stage == "sasrec" { "baseline sasrec" } else { stage };
            format!("; resume it with `latentr3 {command} --resume`")
        }
        RunError::OtherData { .. } => "; if the data was moved, give its folder with --data".into(),
        RunError::EvaluationStopped => "; rerun the command".into(),
        RunError::NotEvaluated { .. } | RunError::EvaluatedBefore { .. } => {
            "; run `latentr3 evaluate --model RUN --split test`".into()
        }
        RunError::Train(TrainError::Exists { .. }) => "; give another --out, or resume it with --resume".into(),
        _ => String::new(),
    }
}

/// A run's error with the option that helps.
fn of_run(error: &RunError) -> String {
    match error {
        RunError::OtherSetting { setting, .. } => {
            let option = format!("--{}", setting.replace('_', "-"));
            let problem = error.to_string().replacen(setting, &option, 1);
            format!("{problem}: leave {option} out, or start a new run")
        }
        error => format!("{error}{}", remedy(error)),
    }
}

/// An error of data by the options of `prepare`, and with those that help.
fn of_data(error: &DataError) -> String {
    let option = |setting: &str| format!("--{}", setting.replace('_', "-"));
    match error {
        DataError::Setting { setting, problem } => format!("{}: {problem}", option(setting)),
        DataError::NothingLeft { .. } => format!("{error}; see --min-rating, --from, --until and --k-core"),
        DataError::EmptySplit { .. } => format!("{error}; see --min-history, --k-core, --split and --split-ratio"),
        DataError::Untitled { .. } => format!("{error} (--item-column, --title-column)"),
        DataError::MissingColumn { setting: Some("title_column"), .. } => {
            format!("{error} (--title-column), or give a file of titles with --items")
        }
        DataError::MissingColumn { setting: Some(setting), .. } => format!("{error} ({})", option(setting)),
        DataError::TooLong { .. } => format!("{error} (--max-tokens)"),
        DataError::EndToken { .. } | DataError::EndTokenInTitle { .. } => format!("{error} (--end-token)"),
        DataError::BeginToken { .. } => format!("{error} (--bos)"),
        DataError::Cell { problem: CellProblem::EmptyTitle, .. } => format!("{error} (--drop-markup-titles)"),
        other => other.to_string(),
    }
}

/// A recommendation's error with what the program's user can do about it.
fn of_recommendation(error: &RecommendError) -> String {
    match error {
        RecommendError::Run(error) => of_run(error),
        RecommendError::NoHistory => format!("{error} (--history, --history-id, --users)"),
        RecommendError::NoData { .. } => format!("{error} (--data)"),
        RecommendError::OtherGuidance { .. } => {
            format!("{error}; choose it again with `latentr3 evaluate --guidance`, or search without it: --no-guidance")
        }
        other => other.to_string(),
    }
}

impl CliError {
    /// A run's error where the command `command` carried it out; `also` is said after how to resume.
    pub(super) fn of_run(error: RunError, command: &'static str, also: &'static str) -> Self {
        match error {
            RunError::Interrupted { run, step } => Self::Interrupted { command, run, also, step },
            error => error.into(),
        }
    }

    /// An error of `fit` in the folder `out`.
    pub(super) fn of_fit(error: RunError, out: &Path) -> Self {
        match error {
            RunError::Interrupted { .. } | RunError::EvaluationStopped | RunError::Data(DataError::Interrupted) => {
                Self::FitStopped(out.to_owned())
            }
            RunError::Data(error) => error.into(),
            error => error.into(),
        }
    }

    /// 2 for bad input, 1 for a failure, 130 where the user stopped the program, as shells have it.
    pub fn exit_code(&self) -> u8 {
        if let Self::Interrupted { .. }
        | Self::FitStopped(_)
        | Self::Run(RunError::EvaluationStopped)
        | Self::Data(DataError::Interrupted)
        | Self::Experiment(ExperimentError::Stopped { .. }) = self
        {
            return INTERRUPTED;
        }
        let failed = match self {
            Self::Model(error)
            | Self::Run(RunError::Model(error))
            | Self::Bench(BenchError::Model(error) | BenchError::Run(RunError::Model(error)))
            | Self::Device(DeviceError::Model(error) | DeviceError::Golden(GoldenError::Model(error))) => {
                matches!(error, ModelError::NotFinite(_))
            }
            Self::Train(error)
            | Self::Run(RunError::Train(error))
            | Self::Bench(BenchError::Train(error))
            | Self::Device(DeviceError::Golden(GoldenError::Train(error))) => {
                matches!(error, TrainError::NotFinite { .. } | TrainError::Model(ModelError::NotFinite(_)))
            }
            Self::NotUsable(_) | Self::Experiment(ExperimentError::Step { .. }) => true,
            _ => false,
        };
        let of_hub = || self.cause::<HubProblem>().is_some_and(HubProblem::is_failure);
        let failed = failed || of_hub() || self.cause().is_some_and(is_failure);
        if failed { 1 } else { 2 }
    }

    /// The cause of this kind, such as what the system said, if there is one.
    fn cause<E: std::error::Error + 'static>(&self) -> Option<&E> {
        let mut cause: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

/// Whether the system refused something that is no matter of the input.
fn is_failure(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound};
    !matches!(error.kind(), NotFound | IsADirectory | NotADirectory | InvalidData)
}
