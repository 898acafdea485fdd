//! Everything of LatentR3 that has weights: the backbone with its adapters, latent attention, constrained decoding,
//! grounding, the baseline SASRec, and the Hugging Face layout in and out. It knows tokens, embeddings and catalog
//! indices, but no file of a data set and no training loop.
//!
//! LatentR3 is the method of "Reinforced Latent Reasoning for LLM-based Recommendation" (arXiv 2505.19092). The idea
//! that makes it fast here: a prompt runs once ([`Backbone::prefill`](backbone::Backbone::prefill)), and targets,
//! samples and beams run over what it left behind ([`PromptState`](backbone::PromptState)).
//!
//! No backend is enabled by default; choose one or more by feature and pick one at run time with [`device()`].

#![deny(missing_docs)]

pub mod backbone;
pub mod decode;
mod device;
mod error;
pub mod files;
pub mod host;
pub mod hub;
mod latent;
mod launches;
mod lora;
mod named;
mod objective;
pub mod ops;
mod parameters;
mod precision;
pub mod random;
mod recommender;
pub mod sasrec;
mod tape;
mod trie;

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use device::{BACKENDS, Driver, compiled_backends, default_device, device, driver, is_cpu};
pub use error::ModelError;
pub use latent::{Constants, LastHidden, LatentAttention, ThoughtKind, ThoughtSource};
pub use launches::{LaunchCounter, Launches};
pub use lora::{LoraConfig, LoraRequest};
pub use named::{NamedMapper, NamedVisitor, map_named, visit_named};
pub use objective::{LogitSpread, Objective, ObjectiveKind, TargetSize};
pub use precision::Precision;
pub use recommender::{LatentRecommender, Samples, TargetLogProbs};
pub use tape::on_tape;
