//! The loss of a micro-batch of lists, and what there is to log of it.

use std::ops::Range;

use burn::tensor::Tensor;
use latentr3_models::host;

use super::advantage::expectation;
use super::stage::{ItemGroup, RankingGrpo};
use crate::grpo::loss::{Clip, PolicyLoss, policy_loss};
use crate::local_update::LocalUpdate;

/// Where the values of each list's titles lie.
pub(super) struct Spans {
    /// Of the items of each list.
    pub items: Vec<Vec<Range<usize>>>,
    /// Of each target.
    pub targets: Vec<Range<usize>>,
}

impl Spans {
    /// From the numbers of values of all titles, as many titles for each group, the target last.
    pub fn new(groups: &[ItemGroup], lengths: &[usize]) -> Self {
        let (mut items, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
        for (group, lengths) in groups.iter().zip(lengths.chunks(lengths.len() / groups.len().max(1))) {
            let span = |length: &usize| {
                start += length;
                start - length..start
            };
            let mut spans: Vec<_> = lengths.iter().map(span).collect();
            targets.extend(spans.pop());
            spans.truncate(group.list.len());
            items.push(spans);
        }
        Self { items, targets }
    }
}

/// The places of some spans, one after the other.
fn places<'a>(spans: impl IntoIterator<Item = &'a Range<usize>>) -> Vec<i32> {
    spans.into_iter().flat_map(|span| span.clone().map(|place| place as i32)).collect()
}

impl RankingGrpo {
    /// The loss of a micro-batch as its part of the mean over the lists of the batch: the clipped policy loss of the
    /// items' choices and, where thoughts earn something, of the target's, and the cross-entropy of the target.
    pub(super) fn loss(
        &self,
        update: &mut LocalUpdate,
        values: Tensor<1>,
        reference: Option<Tensor<1>>,
        groups: &[ItemGroup],
        spans: &Spans,
        lists: usize,
    ) -> Tensor<1> {
        let device = values.device().inner();
        let tensor = |values: Vec<f32>| host::vector(values, &device);
        let pick = |from: &Tensor<1>, places: Vec<i32>| from.clone().select(0, host::indices(&places, &device));
        let weighed = |weight: &f64| (weight / lists as f64) as f32;
        let of_items = || places(spans.items.iter().flatten());
        let candidates = || groups.iter().flat_map(|group| &group.list);
        let old = tensor(candidates().flat_map(|candidate| candidate.log_probs.iter().copied()).collect());
        let weights = groups.iter().flat_map(|group| group.weights.iter().flatten());
        let weights = tensor(weights.map(weighed).collect());
        let reference = reference.map(|reference| pick(&reference, of_items()));
        // Sums over choices; the divergence that has a weight is that of an item, a mean over the items.
        let kl = self.config.kl / (lists * self.config.group) as f64;
        let clip = Clip { kl, ..self.config.clip() };
        let policy = policy_loss(pick(&values, of_items()), old, weights, reference, 1, clip);
        let mut loss = policy.loss.clone();

        let targets = pick(&values, places(&spans.targets));
        if self.thought_reward.is_some() {
            let of_group = |group: &ItemGroup| vec![weighed(&group.thought_weight); group.target.len()];
            let weights = tensor(groups.iter().flat_map(of_group).collect());
            let old = tensor(groups.iter().flat_map(|group| group.target.iter().copied()).collect());
            loss = loss + policy_loss(targets.clone(), old, weights, None, 1, clip).loss;
        }
        let cross_entropy = targets.sum().neg().div_scalar(lists as f64);
        update.metrics.add("target_loss", cross_entropy.clone());
        if self.items.anchor > 0.0 {
            loss = loss + cross_entropy.mul_scalar(self.items.anchor);
        }
        let logged = PolicyLoss { loss: loss.clone(), ..policy };
        logged.metrics("kl").for_each(|(name, value)| update.metrics.add(name, value));
        loss
    }

    /// The names of the metrics that add up over micro-batches and ranks.
    pub(super) fn metrics(&self) -> impl Iterator<Item = &'static str> {
        let kl = self.reference.is_some().then_some("kl");
        let thoughts = self.thought_reward.is_some().then_some("thought_reward");
        let lists =
            ["loss_noise_free", "choices", "reward", "expected_reward", "hit_share", "no_difference_share", "mass"];
        ["target_loss", "loss", "ratio", "clip_share"].into_iter().chain(kl).chain(lists).chain(thoughts)
    }

    /// Adds what there is to log of the lists of a micro-batch, but the number of choices as parts of means over the
    /// lists of the batch.
    pub(super) fn add_list_metrics(
        &self,
        update: &mut LocalUpdate,
        groups: &[ItemGroup],
        spans: &Spans,
        values: &[f32],
        lists: usize,
    ) {
        let choices: usize = spans.items.iter().flatten().map(|span| span.len()).sum();
        update.metrics.add_value("choices", choices as f64);
        // The first sample of each prompt has no noise.
        let without_noise = spans.targets.iter().step_by(self.items.thoughts).flat_map(|span| &values[span.clone()]);
        let log_likelihood: f64 = without_noise.map(|&value| f64::from(value)).sum();
        update.metrics.add_value("loss_noise_free", -log_likelihood / (lists / self.items.thoughts) as f64);
        let mean = |of: &dyn Fn(usize, &ItemGroup) -> f64| {
            groups.iter().enumerate().map(|(at, group)| of(at, group)).sum::<f64>() / lists as f64
        };
        let share = |is: bool| f64::from(u8::from(is));
        let probability = |span: &Range<usize>| f64::from(values[span.clone()].iter().sum::<f32>().exp());
        let reward = |group: &ItemGroup| group.rewards.iter().sum::<f64>() / group.rewards.len() as f64;
        let is_hit =
            |group: &ItemGroup| group.list.iter().any(|item| item.is_target && !item.is_added && item.given == 0);
        let is_level = |group: &ItemGroup| group.rewards.iter().all(|&reward| reward == group.rewards[0]);
        update.metrics.add_value("reward", mean(&|_, group| reward(group)));
        update.metrics.add_value("expected_reward", mean(&|_, group| expectation(&group.list, &group.rewards).0));
        update.metrics.add_value("hit_share", mean(&|_, group| share(is_hit(group))));
        update.metrics.add_value("no_difference_share", mean(&|_, group| share(is_level(group))));
        update.metrics.add_value("mass", mean(&|at, _| spans.items[at].iter().map(probability).sum()));
        if self.thought_reward.is_some() {
            update.metrics.add_value("thought_reward", mean(&|_, group| group.thought_reward));
        }
    }
}
