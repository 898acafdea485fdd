//! LatentR3 in Rust: language models that think in latent space before they recommend.
//!
//! The method is "Reinforced Latent Reasoning for LLM-based Recommendation" (arXiv 2505.19092). This crate is what a
//! user meets: data, evaluation and the program's commands. Models are in [`models`], training is in [`train`].
//!
//! ```text
//! files -> Interactions -> Catalog + splits -> prompts -> examples          (data)
//!       -> PromptState -> thought -> target log-probabilities               (models)
//!       -> loss | reward -> gradients -> a better model                     (train)
//!       -> beam search over the prefix tree -> ranks -> HR@k, NDCG@k        (models, eval)
//! ```

#![deny(missing_docs)]

pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod demo;
pub mod devices;
pub mod eval;
pub mod experiment;
pub mod fit;
pub mod from_hub;
pub mod golden;
mod input_error;
#[cfg(feature = "clap")]
mod option_values;
pub mod outputs;
pub mod recommend;
pub mod report;
pub mod run;
pub mod runtime;
#[cfg(feature = "serve")]
pub mod serve;
pub mod text;

/// The programs in the README and the documents compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/objectives.md")]
#[doc = include_str!("../docs/extending.md")]
struct Documents;

pub use input_error::InputError;
pub use latentr3_models as models;
pub use latentr3_train as train;

/// What a program that trains or serves a recommender needs most.
pub mod prelude {
    pub use crate::data::{PrepareConfig, Prepared, Split, prepare};
    pub use crate::eval::{EvalConfig, Shard, evaluate};
    pub use crate::models::decode::{BeamConfig, beam_search};
    pub use crate::models::{LatentRecommender, Objective, ObjectiveKind, ThoughtKind, device, hub};
    pub use crate::recommend::{Query, Recommender, RecommenderConfig};
    pub use crate::train::grpo::{Grpo, GrpoConfig};
    pub use crate::train::sft::Sft;
    pub use crate::train::{Example, RunFolder, TrainConfig, Training, World};
}
