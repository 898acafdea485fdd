//! Ranking metrics, the evaluation of a model on a split, and whether one model ranks better than another.

mod baselines;
mod collaborative;
pub mod compare;
mod evaluate;
mod evaluation;
mod exposure;
mod grounded;
mod metrics;
mod ranks;
mod result;
mod sample;
mod sasrec;
mod scored;
mod shard;
mod spread;
mod target_groups;
mod transitions;

pub use baselines::{Counting, Counts};
pub use collaborative::CollaborativeModel;
pub use evaluate::{EvalConfig, Guidance, evaluate, evaluate_guided};
pub use evaluation::{Evaluation, Method};
pub use exposure::{Exposure, shown};
pub use grounded::evaluate_grounded;
pub use metrics::{CUTOFFS, Metric, Ranking, expected_rank};
pub use ranks::UserRank;
pub use result::{EvaluationResult, MergeError};
pub use sample::sample;
pub use sasrec::{load_sasrec, sasrec_config, sasrec_scores};
pub use scored::evaluate_scores;
pub use shard::Shard;
pub(crate) use spread::mean_and_deviation;
pub use target_groups::{TargetGroup, TargetGroups};
pub(crate) use transitions::popularity;
pub use transitions::{TransitionChoices, TransitionConfig, Transitions};
