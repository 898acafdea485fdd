//! Ranking metrics and the evaluation of a model on a split.

mod evaluate;
mod metrics;

pub use evaluate::{EvalConfig, Evaluation, UserRank, evaluate, popularity, sample};
pub use metrics::{CUTOFFS, Ranking, expected_rank};
