use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::guide::Guide;
use crate::TrainError;
use crate::config::check_not_negative;
use crate::grpo::reward::{Entropy, Hit, LogPosterior, Mixed, NdcgGain, NegativePerplexity, RankPenalty, Reward};

/// Most samples of a prompt's thought.
const MOST_THOUGHTS: usize = 1 << 10;

/// Rollouts of items and what they earn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct ItemsConfig {
    /// With --samples items: the reward, a sum of terms with optional weights, as in hit,rank=0.5.
    ///
    /// Terms for items: hit is 1 for the target; rank penalises wrong items by their place, in lists with the target;
    /// ndcg is the target's gain at its place; guide is the item's log-probability under the model of --guide; entropy
    /// is minus its log-probability under the model itself. Terms for thoughts, with --thought-samples: perplexity is
    /// minus the target's perplexity; log-posterior is the logarithm of the target's share of its list's probability.
    #[cfg_attr(
        feature = "clap",
        arg(
            id = "reward",
            long = "reward",
            value_name = "NAME[=WEIGHT],..",
            value_delimiter = ',',
            default_value = "hit,rank"
        )
    )]
    pub rewards: Vec<RewardTerm>,
    /// With --samples items: number of thoughts sampled per prompt, each with its own list. All but the first have
    /// noise of --sigma or --sigma-relative
    #[cfg_attr(
        feature = "clap",
        arg(id = "thought_samples", long = "thought-samples", value_name = "K", default_value_t = 1)
    )]
    pub thoughts: usize,
    /// With --samples items: put the target in the last place of a list that lacks it
    #[cfg_attr(feature = "clap", arg(id = "add_target", long = "add-target"))]
    pub target: bool,
    /// With --samples items: if a list lacks the target, fix the first N choices of the target and search again from
    /// there; 0 for never (GenRec)
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = 0))]
    pub hint: usize,
    /// With --reward guide: the collaborative model, a SASRec run or `transition` for counts of the training rows, in
    /// which a row does not count for itself
    #[cfg_attr(feature = "clap", arg(long, value_name = "SASREC_RUN|transition"))]
    pub guide: Option<String>,
    /// With --reward guide: fill the last N places of each list with the guide's likeliest items that the search has
    /// not found
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = 0))]
    pub proposals: usize,
    /// With --samples items: weight of the target's cross-entropy, in nats per item, in the loss
    #[cfg_attr(feature = "clap", arg(long, value_name = "WEIGHT", default_value_t = 0.0))]
    pub anchor: f64,
}

impl Default for ItemsConfig {
    /// The rewards of MiniOneRec: hits and the penalty by rank.
    fn default() -> Self {
        let rewards = [RewardKind::Hit, RewardKind::Rank].map(|kind| RewardTerm { kind, weight: 1.0 });
        Self { rewards: rewards.to_vec(), thoughts: 1, target: false, hint: 0, guide: None, proposals: 0, anchor: 0.0 }
    }
}

impl ItemsConfig {
    /// Makes sure that every value makes sense for lists of `group` items.
    pub(in crate::grpo) fn check(&self, group: usize) -> Result<(), TrainError> {
        if self.rewards.is_empty() {
            return Err(TrainError::config("reward", "must name at least one reward"));
        }
        if self.guide.is_some() != self.rewards.iter().any(|term| term.kind == RewardKind::Guide) {
            return Err(TrainError::config("guide", "give both a guide and the reward `guide`, or neither"));
        }
        if self.proposals > 0 && self.guide.is_none() {
            return Err(TrainError::config("proposals", "need a guide, and none is given"));
        }
        if self.proposals > group {
            let problem = format!("must not exceed the group size {group}, got {}", self.proposals);
            return Err(TrainError::config("proposals", problem));
        }
        if let Some(RewardTerm { weight, .. }) = self.rewards.iter().find(|term| !term.weight.is_finite()) {
            return Err(TrainError::config("reward", format!("every weight must be finite, got {weight}")));
        }
        if !(1..=MOST_THOUGHTS).contains(&self.thoughts) {
            let problem = format!("must be from 1 to {MOST_THOUGHTS}, got {}", self.thoughts);
            return Err(TrainError::config("thought_samples", problem));
        }
        if self.thoughts == 1 && self.rewards.iter().any(|term| !term.kind.rewards_items()) {
            let problem =
                "perplexity and log-posterior compare samples of a thought; thought_samples must be at least 2";
            return Err(TrainError::config("reward", problem));
        }
        check_not_negative("anchor", self.anchor)
    }

    /// What an item earns; nothing where only thoughts do. `guide` is the reward of that name.
    pub(super) fn item_reward(&self, guide: Option<Guide>) -> Mixed {
        self.mixed(|kind| match kind {
            RewardKind::Hit => Some(Box::new(Hit)),
            RewardKind::Rank => Some(Box::new(RankPenalty)),
            RewardKind::Ndcg => Some(Box::new(NdcgGain)),
            RewardKind::Guide => guide.clone().map(|guide| Box::new(guide) as Box<dyn Reward>),
            RewardKind::Entropy => Some(Box::new(Entropy)),
            RewardKind::Perplexity | RewardKind::LogPosterior => None,
        })
    }

    /// What a thought earns, where it does; a perplexity counts as at most `max_perplexity`.
    pub(super) fn thought_reward(&self, max_perplexity: f64) -> Option<Mixed> {
        let mixed = self.mixed(|kind| match kind {
            RewardKind::Perplexity => Some(Box::new(NegativePerplexity { largest: max_perplexity })),
            RewardKind::LogPosterior => Some(Box::new(LogPosterior)),
            _ => None,
        });
        Some(mixed).filter(|Mixed(terms)| !terms.is_empty())
    }

    /// The sum of the terms that `reward` has a reward for.
    fn mixed(&self, reward: impl Fn(RewardKind) -> Option<Box<dyn Reward>>) -> Mixed {
        Mixed(self.rewards.iter().filter_map(|term| Some((reward(term.kind)?, term.weight))).collect())
    }
}

/// What is rewarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardKind {
    /// See [`Hit`].
    Hit,
    /// See [`RankPenalty`].
    Rank,
    /// See [`NdcgGain`].
    Ndcg,
    /// The item's log-probability by another model.
    Guide,
    /// See [`Entropy`].
    Entropy,
    /// See [`NegativePerplexity`].
    Perplexity,
    /// See [`LogPosterior`].
    LogPosterior,
}

impl RewardKind {
    /// All of them with the names that they are written with.
    const NAMES: [(&str, Self); 7] = [
        ("hit", Self::Hit),
        ("rank", Self::Rank),
        ("ndcg", Self::Ndcg),
        ("guide", Self::Guide),
        ("entropy", Self::Entropy),
        ("perplexity", Self::Perplexity),
        ("log-posterior", Self::LogPosterior),
    ];

    /// Whether items of a list differ in it; else it rewards a thought, and is the same for all of them.
    pub fn rewards_items(self) -> bool {
        !matches!(self, Self::Perplexity | Self::LogPosterior)
    }
}

/// A reward with its weight in the sum; written `hit`, or with a weight `rank=0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardTerm {
    /// The reward.
    pub kind: RewardKind,
    /// What it is multiplied by.
    pub weight: f64,
}

impl FromStr for RewardTerm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
        let kind = RewardKind::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind);
        let names = RewardKind::NAMES.map(|(name, _)| name).join(", ");
        let kind = kind.ok_or_else(|| format!("`{name}` is not a reward; must be one of {names}"))?;
        let weight = weight.parse().map_err(|_| format!("the weight `{weight}` of {name} is not a number"))?;
        Ok(Self { kind, weight })
    }
}
