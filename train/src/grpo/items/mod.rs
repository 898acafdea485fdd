//! Rollouts that are recommendations: a prompt's samples are the items that the search finds.

mod advantage;
mod candidate;
mod config;
mod guide;
mod loss;
mod pass;
mod search;
mod stage;

pub use candidate::Candidate;
pub use config::{ItemsConfig, RewardKind, RewardTerm};
pub use guide::ItemGuide;
pub use stage::{ItemGroup, RankingGrpo};
