//! The metrics that follow from the users' ranks and lists.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::exposure::Exposure;
use super::metrics::{Metric, Ranking};
use super::ranks::UserRank;
use super::target_groups::TargetGroups;
use super::transitions::TransitionConfig;
use crate::models::ObjectiveKind;
use crate::models::decode::GuidanceKind;

/// Longest list that [`Exposure`] looks at.
const SHOWN: usize = 10;

/// How the lists were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Its name, as `beam search` or `popularity`.
    pub method: String,
    /// Length of the lists; in a search the beams.
    pub beams: usize,
    /// What the tokens of a title competed with; absent where no tokens were scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveKind>,
    /// Exponent of the length in the score of a search.
    pub length_penalty: Option<f64>,
    /// How the language model and its guide become one in a guided search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_kind: Option<GuidanceKind>,
    /// The language model's share in a guided search.
    pub guidance_scale: Option<f64>,
    /// How transitions are counted, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<TransitionConfig>,
    /// Whether the items of a user's history were left out of the list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclude_history: bool,
}

/// A model's metrics on some users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of rows; a user may have several.
    pub users: usize,
    /// Items of the catalog.
    pub items: usize,
    /// How the lists were made.
    #[serde(flatten)]
    pub method: Method,
    /// The items by how often they were chosen in training, the same list for everybody.
    pub popularity: Ranking,
    /// By item.
    pub by_item: Ranking,
    /// By title: a hit if the target's title is in the list, whichever of its items was meant.
    pub by_title: Ranking,
    /// The users by how popular the item is that they chose.
    pub targets: TargetGroups,
    /// What the lists show; absent where they are empty.
    pub exposure: Option<Exposure>,
    /// Seconds of prefill and search.
    pub seconds: f64,
    /// How often each item was chosen in training, by place in the catalog.
    pub item_counts: Vec<u64>,
    /// Each user's rank.
    pub ranks: Vec<UserRank>,
}

impl Method {
    /// Lists of a length that something of this name makes without a search.
    pub fn named(name: &str, length: usize) -> Self {
        Self {
            method: name.into(),
            beams: length,
            objective: None,
            length_penalty: None,
            guidance_kind: None,
            guidance_scale: None,
            transition: None,
            exclude_history: false,
        }
    }
}

impl Evaluation {
    /// A metric's mean over the users, whether it is one of those that are reported or not.
    pub fn mean(&self, metric: Metric) -> f64 {
        let gains = self.ranks.iter().map(|user| metric.gain(user.rank));
        gains.sum::<f64>() / self.users.max(1) as f64
    }

    /// Number of users, each of which may have several rows.
    pub fn distinct_users(&self) -> usize {
        self.ranks.iter().map(|row| row.user.as_str()).collect::<HashSet<_>>().len()
    }

    /// What in it cannot be, whatever was evaluated; none of what the program itself wrote.
    pub(crate) fn contradiction(&self) -> Option<String> {
        if self.users != self.ranks.len() {
            return Some(format!("{} ranks for {} users", self.ranks.len(), self.users));
        }
        let shown = self.ranks.iter().flat_map(|user| user.list.iter().flatten());
        if let Some(item) = shown.copied().find(|&item| item as usize >= self.items) {
            return Some(format!("a list has item {item}, but the catalog has only {}", self.items));
        }
        let figures =
            [&self.by_item, &self.by_title, &self.popularity].into_iter().flat_map(|by| by.hr.iter().chain(&by.ndcg));
        let mut figures = figures.filter_map(|(k, figure)| Some((k, (*figure)?)));
        let wrong = figures.find(|(_, figure)| !(0.0..=1.0).contains(figure));
        wrong.map(|(k, figure)| format!("a metric at {k} is {figure:?}, which is not between 0 and 1"))
    }

    /// All metrics of some users.
    pub(super) fn of(ranks: Vec<UserRank>, item_counts: Vec<u64>, method: Method, seconds: f64) -> Self {
        let (items, longest) = (item_counts.len(), method.beams);
        let by = |rank: fn(&UserRank) -> Option<f64>, longest| {
            Ranking::of(&ranks.iter().map(rank).collect::<Vec<_>>(), longest)
        };
        Self {
            users: ranks.len(),
            items,
            popularity: by(|user| Some(user.popularity_rank), items),
            by_item: by(|user| user.rank, longest),
            by_title: by(|user| user.title_rank, longest),
            targets: TargetGroups::of(&ranks, &item_counts, longest),
            exposure: Exposure::of(ranks.iter().map(|user| user.list.as_slice()), &item_counts, longest.min(SHOWN)),
            method,
            seconds,
            item_counts,
            ranks,
        }
    }
}
