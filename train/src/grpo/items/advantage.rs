//! What each choice of each item of a list is worth: the weight of its log-probability's gradient.

use std::collections::BTreeMap;

use super::candidate::Candidate;
use crate::grpo::advantage::{AdvantageKind, group_advantage, leave_one_out_advantage};

impl AdvantageKind {
    /// The weights of the choices of a list's items, from the items' rewards; 0 where a hint chose. The loss of a prompt
    /// is minus the sum over items and choices of weight times probability ratio.
    pub(in crate::grpo) fn weights(self, list: &[Candidate], rewards: &[f64]) -> Vec<Vec<f64>> {
        let count = list.len() as f64;
        let (of_items, of_choices, scale) = match self {
            Self::Sibling => (group_advantage(rewards, list.len()), Some(siblings(list, rewards)), 1.0 / count),
            Self::Expectation => (expectation(list, rewards).1, None, 1.0),
            Self::Raml => (softmax(rewards), None, 1.0),
            Self::LeaveOneOut => (leave_one_out_advantage(rewards, list.len()), None, 1.0 / count),
            Self::Group => (group_advantage(rewards, list.len()), None, 1.0 / count),
            Self::Batch | Self::Own | Self::Pool => unreachable!("the configuration refuses them for items"),
        };
        let weight = |item: usize, choice: usize| {
            if choice < list[item].given {
                return 0.0;
            }
            let of_item = of_items[item];
            scale * of_choices.as_ref().map_or(of_item, |of_choices| (of_item + of_choices[item][choice]) / 2.0)
        };
        (0..list.len()).map(|item| (0..list[item].path.len()).map(|choice| weight(item, choice)).collect()).collect()
    }
}

/// For each item and choice, how much better those of the list that chose the same do than those that chose otherwise
/// at the same node.
fn siblings(list: &[Candidate], rewards: &[f64]) -> Vec<Vec<f64>> {
    // Of each node, the rewards of the items that came through each of its children.
    let mut nodes: BTreeMap<u32, BTreeMap<usize, Vec<f64>>> = BTreeMap::new();
    for (candidate, &reward) in list.iter().zip(rewards) {
        for &(node, child) in &candidate.path {
            nodes.entry(node).or_default().entry(child).or_default().push(reward);
        }
    }
    let advantages: BTreeMap<u32, BTreeMap<usize, f64>> = nodes
        .into_iter()
        .map(|(node, children)| {
            let means: Vec<f64> =
                children.values().map(|rewards| rewards.iter().sum::<f64>() / rewards.len() as f64).collect();
            (node, children.into_keys().zip(group_advantage(&means, means.len())).collect())
        })
        .collect();
    let of_choice = |&(node, child): &(u32, usize)| advantages[&node][&child];
    list.iter().map(|candidate| candidate.path.iter().map(of_choice).collect()).collect()
}

/// The expected reward over a list, and its derivative by each item's log-probability.
pub(super) fn expectation(list: &[Candidate], rewards: &[f64]) -> (f64, Vec<f64>) {
    let shares = softmax(&list.iter().map(Candidate::log_prob).collect::<Vec<_>>());
    let expected = shares.iter().zip(rewards).map(|(share, reward)| share * reward).sum::<f64>();
    (expected, shares.iter().zip(rewards).map(|(share, reward)| share * (reward - expected)).collect())
}

fn softmax(logarithms: &[f64]) -> Vec<f64> {
    let most = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let masses: Vec<f64> = logarithms.iter().map(|value| (value - most).exp()).collect();
    let all: f64 = masses.iter().sum();
    masses.into_iter().map(|mass| mass / all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(path: &[(u32, usize)], log_probs: &[f32]) -> Candidate {
        Candidate {
            tokens: Vec::new(),
            items: Vec::new(),
            is_target: false,
            path: path.to_vec(),
            is_added: false,
            given: 0,
            log_probs: log_probs.to_vec(),
        }
    }

    /// Node 0 has the children 0, which leads to node 1, and 1, an item; node 1 has the items 0, 1 and 2.
    fn list() -> Vec<Candidate> {
        let paths: [&[(u32, usize)]; 4] = [&[(0, 0), (1, 0)], &[(0, 0), (1, 1)], &[(0, 0), (1, 2)], &[(0, 1)]];
        let log_probs: [&[f32]; 4] = [&[-0.5, -1.0], &[-0.5, -0.9], &[-0.5, -2.0], &[-1.2]];
        paths.into_iter().zip(log_probs).map(|(path, log_probs)| candidate(path, log_probs)).collect()
    }

    const REWARDS: [f64; 4] = [1.0, 0.0, 0.0, 0.0];

    fn assert_near(found: &[Vec<f64>], expected: &[&[f64]]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let near = found.iter().zip(*expected).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(near && found.len() == expected.len(), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn advantages_of_items_by_hand() {
        // The mean is 1/4 and the standard deviation, by three, 1/2.
        let (up, down) = (0.75 / (0.5 + 1e-4) / 4.0, -0.25 / (0.5 + 1e-4) / 4.0);
        let group = AdvantageKind::Group.weights(&list(), &REWARDS);
        assert_near(&group, &[&[up, up], &[down, down], &[down, down], &[down]]);
        let (up, down) = (1.0 / 4.0, -1.0 / 3.0 / 4.0);
        let leave_one_out = AdvantageKind::LeaveOneOut.weights(&list(), &REWARDS);
        assert_near(&leave_one_out, &[&[up, up], &[down, down], &[down, down], &[down]]);
    }

    #[test]
    fn siblings_are_compared_at_the_node_where_they_part() {
        // At node 0 one child has the mean 1/3 and the other 0; at node 1 one has 1, two have 0.
        let at_root = (1.0 / 6.0) / ((1.0f64 / 18.0).sqrt() + 1e-4);
        let below = |reward: f64| (reward - 1.0 / 3.0) / ((1.0f64 / 3.0).sqrt() + 1e-4);
        let found = siblings(&list(), &REWARDS);
        assert_near(&found, &[&[at_root, below(1.0)], &[at_root, below(0.0)], &[at_root, below(0.0)], &[-at_root]]);
        let group = group_advantage(&REWARDS, REWARDS.len());
        let weights = AdvantageKind::Sibling.weights(&list(), &REWARDS);
        assert!((weights[1][0] - (group[1] + at_root) / 8.0).abs() < 1e-12, "half and half, a mean over the items");
    }

    #[test]
    fn the_expectation_s_weights_are_its_derivative_by_each_log_probability() {
        let rewards = [1.0, -0.3, 0.2, 0.5];
        let (_, weights) = expectation(&list(), &rewards);
        for item in 0..4 {
            let moved = |by: f32| {
                let mut list = list();
                list[item].log_probs[0] += by;
                expectation(&list, &rewards).0
            };
            let step = 1.0 / 64.0;
            let difference = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            assert!((difference - weights[item]).abs() < 1e-4, "{difference} {}", weights[item]);
        }
        assert!(weights.iter().sum::<f64>().abs() < 1e-12);
    }

    #[test]
    fn reward_augmented_likelihood_shares_out_one_by_the_rewards_alone() {
        let rewards = [2f64.ln(), 0.0, f64::NEG_INFINITY, 0.0];
        let weights = AdvantageKind::Raml.weights(&list(), &rewards);
        assert_near(&weights, &[&[0.5, 0.5], &[0.25, 0.25], &[0.0, 0.0], &[0.25]]);
    }

    #[test]
    fn what_a_hint_chose_has_no_weight() {
        let mut list = list();
        list.pop();
        list.iter_mut().for_each(|candidate| candidate.given = 1);
        for advantage in [AdvantageKind::Group, AdvantageKind::Sibling, AdvantageKind::Expectation] {
            for weights in advantage.weights(&list, &REWARDS[..3]) {
                assert!(weights[0] == 0.0 && weights[1] != 0.0, "{advantage:?} {weights:?}");
            }
        }
    }

    #[test]
    fn equal_rewards_weigh_nothing() {
        use AdvantageKind::{Expectation, Group, LeaveOneOut, Sibling};
        for advantage in [Group, LeaveOneOut, Sibling, Expectation] {
            let weights = advantage.weights(&list(), &[0.5; 4]);
            assert!(weights.iter().flatten().all(|weight| weight.abs() < 1e-12), "{advantage:?}");
        }
    }
}
