//! Sets of settings that have a name.

use serde_json::{Map, Value, json};

use super::defaults::FromScratch;
use super::selection::Selection;
use super::settings::SETTINGS;
use crate::models::ObjectiveKind;
use crate::train::grpo::{AdvantageKind, ItemsConfig, RewardKind, RewardTerm, SampleKind};

/// A published set of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Recipe {
    /// LatentR3 as published (arXiv 2505.19092): the objective `vocabulary`, and the published value of every option
    /// that is not given.
    Latentr3,
}

impl Recipe {
    /// What the targets' tokens compete with.
    pub fn objective(self) -> ObjectiveKind {
        match self {
            Self::Latentr3 => ObjectiveKind::Vocabulary,
        }
    }
}

/// Where a run's description has what its lists are.
const LISTS: &str = "/stage/config/items";

/// Options besides those of lists that say what the samples are, what they earn, or what this is compared with.
const OF_SAMPLES: [&str; 8] =
    ["config", "objective", "sigma", "sigma_relative", "max_perplexity", "estimator", "advantage", "advantage_over"];

/// A set of settings for stage 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Stage2Recipe {
    /// LatentR3 as published (arXiv 2505.19092): noise on the thought, the objective `vocabulary`, and the published
    /// value of every option that is not given.
    Latentr3,
    /// Lists of 16 items, half of them proposed by item transitions, which also reward them; all weights train, with
    /// --lr 1e-4, --epochs 3 and --select ndcg@10. On Office Products it was better than stage 1 continued.
    Transitions,
}

impl Stage2Recipe {
    /// What the targets' tokens compete with.
    pub fn objective(self) -> ObjectiveKind {
        match self {
            Self::Latentr3 => Recipe::Latentr3.objective(),
            Self::Transitions => ObjectiveKind::Catalog,
        }
    }

    /// The recipe for a model from scratch where no option says what the samples are. It has been measured on small
    /// models of the objective `catalog`; none is usual for others.
    pub fn usual(model: FromScratch, is_given: &dyn Fn(&str) -> bool) -> Option<Self> {
        let of_lists = SETTINGS.iter().filter(|(_, place)| place.starts_with(LISTS)).map(|(option, _)| option);
        let is_said = of_lists.chain(&OF_SAMPLES).any(|option| is_given(option));
        (model.objective == ObjectiveKind::Catalog && !is_said).then_some(Self::Transitions)
    }

    /// What is sampled.
    pub fn samples(self) -> SampleKind {
        match self {
            Self::Latentr3 => SampleKind::Noise,
            Self::Transitions => SampleKind::Items,
        }
    }

    /// How many are sampled, where it is not the published number.
    pub fn group(self) -> Option<usize> {
        match self {
            Self::Latentr3 => None,
            Self::Transitions => Some(16),
        }
    }

    /// What it sets for so many samples, as a run's `run.json` has it.
    pub fn settings(self, group: usize) -> Map<String, Value> {
        let settings = match self {
            Self::Latentr3 => json!({}),
            Self::Transitions => json!({
                "select": Selection::NDCG_10,
                "train": { "batch": 64, "learning_rate": 1e-4, "epochs": 3 },
                "stage": { "config": {
                    "group": group,
                    "advantage": AdvantageKind::Expectation,
                    "train_backbone": true,
                    "items": ItemsConfig {
                        rewards: [RewardKind::Guide, RewardKind::Entropy].map(|kind| RewardTerm { kind, weight: 1.0 }).into(),
                        target: true,
                        guide: Some("transition".into()),
                        proposals: group / 2,
                        anchor: 0.5,
                        ..Default::default()
                    },
                } },
            }),
        };
        settings.as_object().cloned().unwrap_or_default()
    }
}
