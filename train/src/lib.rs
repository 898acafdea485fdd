//! Training of LatentR3 recommenders on tokenised examples: supervised fine-tuning ([`sft`]) and the modified GRPO
//! ([`grpo`]), both in the same loop ([`Training`]) with checkpoints from which a run goes on to the same end. And of the baseline
//! [`sasrec`], on catalog indices and in a loop of its own.

#![deny(missing_docs)]

mod adamw;
mod batches;
mod checkpoint;
mod config;
mod error;
mod example;
mod gradients;
pub mod grpo;
mod guard;
mod likelihood;
#[cfg(feature = "mpi")]
mod mpi;
mod optimizer;
mod progress;
mod run;
mod run_paths;
pub mod sasrec;
mod schedule;
pub mod sft;
mod share_update;
mod temperature;
mod trainer;
mod workers;

pub use adamw::{AdamW, AdamWConfig};
pub use checkpoint::Trained;
pub use config::{Keep, OnNonfinite, TrainConfig};
pub use error::TrainError;
pub use example::Example;
pub use gradients::Gradients;
pub use guard::{Alarm, Guards, WARNING_FACTOR, Watch, Watched};
pub use likelihood::{Validation, validate};
pub use optimizer::{Applied, Optimizer};
pub use progress::{Event, Fault, Progress, StepReport};
pub use run::{Found, RunFolder};
pub use run_paths::{RunPaths, holds_weights};
pub use schedule::Schedule;
pub use share_update::{Figures, ShareUpdate};
pub use temperature::{Temperature, suggested};
pub use trainer::{ExtraValidation, Stage, Training};
pub use workers::{Share, Summed, Workers};

/// The device in `LATENTR3_TEST_DEVICE`, `flex` if it is not set: what Burn takes by default is the first GPU compiled in.
#[cfg(test)]
fn device_under_test() -> burn::tensor::Device {
    let name = std::env::var("LATENTR3_TEST_DEVICE").unwrap_or_else(|_| "flex".into());
    latentr3_models::device(&name).expect("LATENTR3_TEST_DEVICE names a device that is compiled in")
}
