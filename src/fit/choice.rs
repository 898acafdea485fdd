//! Which of the tried models is taken.

use std::collections::BTreeMap;

use super::candidate::Candidate;
use super::shop::Metrics;
use crate::eval::compare::mean_and_error_by_user;
use crate::eval::{Evaluation, Metric, UserRank};

/// A model and how well it ranks validation users.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub model: Candidate,
    pub valid: Metrics,
    /// The user and NDCG@10 of each row.
    gains: BTreeMap<usize, (String, f64)>,
}

impl Tried {
    pub fn new(model: Candidate, evaluation: &Evaluation) -> Self {
        let gain = |row: &UserRank| (row.row, (row.user.clone(), Metric::Ndcg(10).gain(row.rank)));
        Self { model, valid: Metrics::of(evaluation), gains: evaluation.ranks.iter().map(gain).collect() }
    }

    /// How much better it is than another one, and the standard error of that, over the same users.
    fn lead(&self, other: &Self) -> (f64, f64) {
        let shared = self.gains.iter().filter_map(|(row, own)| Some((own, other.gains.get(row)?)));
        let differences = shared.map(|((user, own), (_, other))| (user.as_str(), own - other));
        let (mean, error) = mean_and_error_by_user(differences);
        (mean, error.unwrap_or(0.0))
    }
}

/// The model to take of some that come from the simplest to the most elaborate, and why: the simplest of those that are
/// no worse than the best by more than the standard error of the difference.
pub(super) fn choose(tried: &[Tried]) -> (Candidate, String) {
    let mut best: Option<&Tried> = None;
    for one in tried {
        if best.is_none_or(|best| one.valid.ndcg_10 > best.valid.ndcg_10) {
            best = Some(one);
        }
    }
    let Some(best) = best else {
        return (Candidate::Popularity, "no model was tried".into());
    };
    let is_as_good = |one: &&Tried| {
        let (lead, error) = best.lead(one);
        lead <= error
    };
    let chosen = tried.iter().find(is_as_good).unwrap_or(best);
    let Metrics { ndcg_10, users, .. } = chosen.valid;
    let why = match chosen.model == best.model {
        true => format!("its NDCG@10 on {users} validation users is the highest, {ndcg_10:.4}"),
        false => {
            let (lead, error) = best.lead(chosen);
            format!(
                "its NDCG@10 on {users} validation users is {ndcg_10:.4}; {} leads by {lead:.4}, within the standard \
                 error of {error:.4}, but is more complex",
                best.model
            )
        }
    };
    (chosen.model, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(model: Candidate, gains: &[f64]) -> Tried {
        let ndcg_10 = gains.iter().sum::<f64>() / gains.len() as f64;
        let [hr_10_interval, ndcg_10_interval] = [[0.0; 2]; 2];
        let valid = Metrics { users: gains.len(), hr_10: 0.0, hr_10_interval, ndcg_10, ndcg_10_interval };
        Tried {
            model,
            valid,
            gains: gains.iter().enumerate().map(|(row, &gain)| (row, (row.to_string(), gain))).collect(),
        }
    }

    #[test]
    fn an_elaborate_model_must_lead_by_more_than_chance() {
        let simple = tried(Candidate::Transition, &[0.5, 0.0, 1.0, 0.0]);
        // Better for one user, worse for another: a lead of .05 with an error of .21.
        let noisy = tried(Candidate::Guided, &[1.0, 0.0, 0.7, 0.0]);
        // Better for each by the same.
        let better = tried(Candidate::Guided, &[0.51, 0.01, 1.01, 0.01]);
        let (chosen, why) = choose(&[simple.clone(), noisy]);
        assert_eq!(chosen, Candidate::Transition);
        assert!(why.contains("guided leads by 0.0500"), "{why}");
        let (chosen, why) = choose(&[simple.clone(), better]);
        assert_eq!(chosen, Candidate::Guided);
        assert!(why.contains("the highest, 0.3850"), "{why}");
        assert_eq!(choose(&[simple.clone(), tried(Candidate::Guided, &[0.5, 0.0, 1.0, 0.0])]).0, Candidate::Transition);
        assert_eq!(choose(&[]).0, Candidate::Popularity);
    }
}
