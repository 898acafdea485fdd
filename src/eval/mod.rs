//! Ranking metrics and the evaluation of a model on a split.

mod evaluate;
mod metrics;
mod result;
mod shard;

pub use evaluate::{EvalConfig, Evaluation, UserRank, evaluate, sample};
pub use metrics::{CUTOFFS, Ranking, expected_rank};
pub use result::{EvaluationResult, MergeError};
pub use shard::Shard;
