//! Training of LatentR3 recommenders on tokenised examples: supervised fine-tuning ([`sft`]) and the modified GRPO
//! ([`grpo`]), and the baseline [`sasrec`]. Each is a [`Stage`] of one loop ([`Training`]), whose runs resume from
//! their checkpoints with bit-identical results on the CPU. A [`Stage`] of one's own trains anything that is
//! [`Trainable`].

#![deny(missing_docs)]

mod adamw;
mod batches;
mod checkpoint;
mod config;
mod error;
mod example;
mod forward;
mod gradients;
mod groups;
pub mod grpo;
mod guard;
mod local_update;
#[cfg(feature = "mpi")]
mod mpi;
mod optimizer;
mod progress;
mod regularization;
mod run;
mod run_paths;
pub mod sasrec;
mod schedule;
pub mod sft;
mod stage;
mod temperature;
mod trainable;
mod trainer;
mod world;

pub use adamw::{AdamW, AdamWConfig};
pub use checkpoint::Trained;
pub use config::{Keep, OnNonfinite, TrainConfig};
pub use error::TrainError;
pub use example::Example;
pub use forward::{Likelihood, forward, likelihood};
pub use gradients::Gradients;
pub use groups::ParameterGroup;
pub use guard::{Alarm, Guards, WARNING_FACTOR, Watch, Watched};
pub use local_update::{LocalUpdate, Metrics};
pub use optimizer::Optimizer;
pub use progress::{Event, Fault, Progress, StepReport, Validation};
pub use regularization::Regularization;
pub use run::{Found, RunFolder};
pub use run_paths::{RunPaths, holds_weights};
pub use schedule::Schedule;
pub use stage::{Stage, ValidationPass};
pub use temperature::{Temperature, suggested};
pub use trainable::Trainable;
pub use trainer::Training;
pub use world::{LocalBatch, Summed, World};

/// The device in `LATENTR3_TEST_DEVICE`, `flex` if it is not set: what Burn takes by default is the first GPU compiled
/// in.
#[cfg(test)]
fn device_under_test() -> burn::tensor::Device {
    let name = std::env::var("LATENTR3_TEST_DEVICE").unwrap_or_else(|_| "flex".into());
    latentr3_models::device(&name).expect("LATENTR3_TEST_DEVICE names a device that is compiled in")
}
