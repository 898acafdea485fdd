//! An evaluation with what it was made of, whole or from the parts that several processes made.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::evaluation::Evaluation;
use super::shard::Shard;
use crate::models::{ObjectiveKind, Precision};

/// The metrics of a model on a split, and on which data and with which model they were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationResult {
    /// Name of the split.
    pub split: String,
    /// Checksum of the prepared data.
    pub data_fingerprint: String,
    /// SHA-256 of the model's files of weights, by their names.
    pub model_files: BTreeMap<String, String>,
    /// Users that were drawn, if not all of the split.
    pub limit: Option<usize>,
    /// What they were drawn by.
    pub seed: u64,
    /// Users searched at once.
    pub batch: usize,
    /// What the model's blocks multiplied in.
    #[serde(default)]
    pub precision: Precision,
    /// The objective that the model was trained for, as it records it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_objective: Option<ObjectiveKind>,
    /// Thoughts before the lists; absent for what does not think.
    #[serde(default)]
    pub thoughts: Option<usize>,
    /// SHA-256 of the files of weights of the model that guided the search, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guide_files: BTreeMap<String, String>,
    /// Users of all parts together.
    pub users_of_all_parts: usize,
    /// Which part of them this is.
    pub shard: Shard,
    /// The metrics and each user's rank.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// Why shards do not make a whole evaluation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Two results are not of one evaluation.
    #[error("result {0} and the first one are not shards of the same evaluation: they differ in {1}")]
    Different(usize, &'static str),
    /// A shard is given twice.
    #[error("shard {0} is given twice")]
    Twice(Shard),
    /// Shards are missing.
    #[error("only {0} of {1} shards are given")]
    Missing(usize, usize),
    /// Without them there is no popularity, and no group of targets.
    #[error(
        "the results have no item counts, which an experiment does not keep; merge the files that the evaluations wrote"
    )]
    NoItemCounts,
    /// The ranks of all shards are not those of all users.
    #[error("the shards have ranks for {0} of {1} users")]
    Ranks(usize, usize),
}

impl EvaluationResult {
    /// The whole evaluation from all of its shards, in any order: the same as one process would have made, with the
    /// seconds of all.
    ///
    /// # Errors
    ///
    /// See [`MergeError`].
    pub fn merge(parts: Vec<Self>) -> Result<Self, MergeError> {
        let Some(first) = parts.first() else {
            return Err(MergeError::Missing(0, 1));
        };
        if first.evaluation.item_counts.is_empty() {
            return Err(MergeError::NoItemCounts);
        }
        let mut seen = BTreeSet::new();
        for (at, part) in parts.iter().enumerate() {
            if let Some(field) = first.difference(part) {
                return Err(MergeError::Different(at + 1, field));
            }
            if !seen.insert(part.shard) {
                return Err(MergeError::Twice(part.shard));
            }
        }
        if parts.len() < first.shard.count() {
            return Err(MergeError::Missing(parts.len(), first.shard.count()));
        }
        let mut whole = Self { shard: Shard::WHOLE, ..first.clone() };
        let seconds = parts.iter().map(|part| part.evaluation.seconds).sum();
        let mut ranks: Vec<_> = parts.into_iter().flat_map(|part| part.evaluation.ranks).collect();
        ranks.sort_by_key(|user| user.row);
        let all = whole.users_of_all_parts;
        if !ranks.iter().map(|user| user.row).eq(0..all) {
            let rows: BTreeSet<usize> = ranks.iter().map(|user| user.row).filter(|&row| row < all).collect();
            return Err(MergeError::Ranks(rows.len(), all));
        }
        let Evaluation { item_counts, method, .. } = whole.evaluation;
        whole.evaluation = Evaluation::of(ranks, item_counts, method, seconds);
        Ok(whole)
    }

    /// The first thing in which another result is of another evaluation.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let (a, b) = (&self.evaluation, &other.evaluation);
        let same = [
            ("split", self.split == other.split),
            ("data", self.data_fingerprint == other.data_fingerprint),
            ("model", self.model_files == other.model_files),
            ("limit or seed", (self.limit, self.seed) == (other.limit, other.seed)),
            ("batch", self.batch == other.batch),
            ("precision", self.precision == other.precision),
            ("thoughts", self.thoughts == other.thoughts),
            ("the guiding model", self.guide_files == other.guide_files),
            ("users", self.users_of_all_parts == other.users_of_all_parts),
            ("number of parts", self.shard.count() == other.shard.count()),
            ("items", a.item_counts == b.item_counts),
            ("beams or another setting of the search", a.method == b.method),
        ];
        same.into_iter().find(|(_, is_same)| !is_same).map(|(field, _)| field)
    }
}
