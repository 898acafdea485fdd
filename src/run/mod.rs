//! Runs in folders: how one is started, resumed, evaluated and read, as the program's commands do it.

mod augmented;
mod baseline;
mod carry_out;
mod compared;
mod defaults;
mod description;
mod direction;
mod error;
mod evaluate;
mod evaluations;
mod guidance;
mod held_out;
mod item_guide;
mod log;
mod memory;
mod model_folder;
mod new_model;
mod pipeline;
mod ranked;
mod recipe;
mod recorded;
mod samples;
mod sasrec;
mod score;
mod selection;
mod settings;
mod settings_file;
mod tensorboard;
mod training_options;

pub use augmented::Augmentation;
pub use baseline::{Baseline, BaselineEvent, BaselineRequest};
pub use carry_out::{RunContext, RunEvent, RunOutcome};
pub use compared::{equal_runs, read_compared};
pub use defaults::{Defaults, FromScratch};
pub use description::{RunDescription, StageConfig};
pub use direction::{DirectionRequest, Directions};
pub use error::RunError;
pub use evaluate::{Decoding, EvaluationEvent, EvaluationRequest};
pub use evaluations::{EvaluationLog, read_result, result_file, times_evaluated};
pub use guidance::{ChosenGuidance, GuidanceRequest, GuideSource};
pub use held_out::{HeldOut, TrainRows};
pub use log::{Log, Point};
pub use memory::peak_mib;
pub use model_folder::{
    TOKENIZER_FILE, check_device, check_fit, is_run, load_model, model_folder, own_tokenizer, tokenizer_asset,
    weight_files, with_learnt_thoughts,
};
pub(crate) use model_folder::{absolute, lasting, load_rounded_model};
pub use new_model::{InitRequest, ModelOrigin, ModelSizes};
pub use pipeline::{Resumption, resume, start};
pub use recipe::{Recipe, Stage2Recipe};
pub use samples::Sample;
pub use sasrec::SasRecRun;
pub use score::{ScoreRequest, Scorer, TargetScore};
pub use selection::Selection;
pub use settings::{SETTINGS, check_same};
pub use settings_file::model_and_data;
pub use tensorboard::export_tensorboard;
pub use training_options::TrainingOptions;
