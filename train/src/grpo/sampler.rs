//! The pass that samples: prompts, thoughts, noise on the last thought, and the targets after each sample.

use burn::module::Module;
use burn::tensor::Tensor;
use latentr3_models::backbone::SharedPrefix;
use latentr3_models::{LatentRecommender, Objective, host, on_tape};

use super::advantage::Advantage;
use super::config::GrpoConfig;
use super::reward::{Reward, Sample};
use super::rollout::{BatchValues, Densities, Rollouts};
use super::samples::{gather_noise, repeat_rows, repeated_targets};
use crate::batches::micro_batches;
use crate::forward::{prompts, shared_prefix};
use crate::world::LocalBatch;
use crate::{Example, TrainError};

/// What the pass keeps for the estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// The gradients of the targets' likelihood by each sample.
    GradientsBySample,
    /// What the samples were drawn from.
    Densities,
}

/// The last thoughts of one micro-batch, from which gradients go back to their source.
pub(super) struct Thoughts {
    /// The prompts' places in the local batch.
    pub places: Vec<usize>,
    /// `[prompts, d_model]`, with its gradient history.
    pub thought: Tensor<2>,
    /// How the likelihood of the targets changes with each sample, where the estimator wants it: gradients of the
    /// summed log-probabilities, `[prompts * group, d_model]`.
    ///
    /// Rows are independent, so that with the ratio at 1 the policy's gradient splits: each sample's part is known
    /// before the batch's rewards are, and their weighted sum goes back through the thoughts' source once.
    pub by_sample: Option<Tensor<2>>,
}

/// What a micro-batch leaves: on the device until the whole local batch is done, then as the host's lists.
struct Part<T> {
    places: Vec<usize>,
    /// Predicted tokens of each sample.
    lengths: Vec<usize>,
    /// `[predicted tokens]` of the samples, under the policy.
    log_probs: T,
    /// The same under the reference, where there is one.
    reference: Option<T>,
    /// `[prompts]`: the thoughts' norms, and what their standard noise was multiplied by.
    norms: T,
    scales: T,
    /// `[prompts * d_model]`: the thoughts, and those of the reference, where they are wanted.
    thoughts: Option<T>,
    reference_thoughts: Option<T>,
}

impl<T> Part<T> {
    /// Each value changed, in the order of the fields.
    fn map<U>(self, mut change: impl FnMut(T) -> U) -> Part<U> {
        Part {
            places: self.places,
            lengths: self.lengths,
            log_probs: change(self.log_probs),
            reference: self.reference.map(&mut change),
            norms: change(self.norms),
            scales: change(self.scales),
            thoughts: self.thoughts.map(&mut change),
            reference_thoughts: self.reference_thoughts.map(&mut change),
        }
    }
}

/// Brings the parts of a local batch to the host in one read.
fn read_parts(parts: Vec<Part<Tensor<1>>>) -> Vec<Part<Vec<f32>>> {
    let mut tensors = Vec::new();
    let places: Vec<Part<()>> = parts.into_iter().map(|part| part.map(|tensor| tensors.push(tensor))).collect();
    let mut values = host::read_all(tensors).into_iter();
    let mut next = |()| values.next().expect("all tensors were read");
    places.into_iter().map(|part| part.map(&mut next)).collect()
}

/// The models of a rollout.
struct Policies<'a> {
    /// What the last thoughts come from.
    policy: &'a LatentRecommender,
    /// What runs prompts and targets: the policy, off the tape where that is not needed.
    runner: &'a LatentRecommender,
    prefix: Option<SharedPrefix>,
    /// The reference policy with the prefix of its own prompts, which are the runner's while the backbone is frozen.
    reference: Option<(&'a LatentRecommender, Option<SharedPrefix>)>,
}

/// How a batch is sampled.
pub(super) struct Sampler<'a> {
    pub config: &'a GrpoConfig,
    pub micro_batch: usize,
    pub objective: &'a Objective,
    pub reward: &'a dyn Reward,
    pub advantage: &'a Advantage,
    pub reference: Option<&'a LatentRecommender>,
    pub keeps: Keeps,
}

impl Sampler<'_> {
    /// Samples the group of each of a local batch's prompts with the given standard noise, `[rollouts, d_model]`, and
    /// rewards it; if asked, together with the thoughts to train by, from the same forward pass.
    pub fn sample(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        noise: &[f32],
        trains: bool,
    ) -> Result<(Rollouts, Vec<Thoughts>), TrainError> {
        // Densities need no tape but that of the last thoughts.
        let plain = (trains && self.keeps == Keeps::Densities).then(|| model.valid());
        let runner = plain.as_ref().unwrap_or(model).with_joined_projections();
        let reference = self.reference.map(LatentRecommender::with_joined_projections);
        let reference_prefix = match &reference {
            Some(reference) if self.config.train_backbone => shared_prefix(reference, &batch.rows)?,
            _ => None,
        };
        let policies = Policies {
            policy: model,
            prefix: shared_prefix(&runner, &batch.rows)?,
            runner: &runner,
            reference: reference.as_ref().map(|reference| (reference, reference_prefix)),
        };
        let (mut parts, mut thoughts) = (Vec::new(), Vec::new());
        for places in micro_batches(&batch.rows, self.micro_batch) {
            let rows: Vec<&Example> = places.iter().map(|&place| batch.rows[place]).collect();
            let (part, some) = self.sample_some(&policies, places, &rows, noise, trains)?;
            parts.push(part);
            thoughts.extend(some);
        }
        Ok((self.reward_all(model, parts, batch, noise)?, thoughts))
    }

    fn sample_some(
        &self,
        policies: &Policies,
        places: Vec<usize>,
        rows: &[&Example],
        noise: &[f32],
        trains: bool,
    ) -> Result<(Part<Tensor<1>>, Option<Thoughts>), TrainError> {
        let Policies { policy, runner, prefix, reference } = policies;
        let is_score = self.keeps == Keeps::Densities;
        let (group, targets) = (self.config.group, repeated_targets(rows, self.config.group));
        let prompts = prompts(rows);
        let mut state = runner.backbone.prefill_after(prefix.as_ref(), &prompts)?;
        let of_prompts = (reference.is_some() && !self.config.train_backbone).then(|| state.detach());
        runner.think_ahead(&mut state)?;
        let thought = policy.last_thought(&state).ok_or_else(no_thoughts)?;
        let [_, width] = thought.dims();
        let means = thought.clone().inner();
        let norms: Tensor<1> = means.clone().square().sum_dim(1).sqrt().squeeze_dim(1);
        let scales = self.config.deviations(norms.clone(), width);
        let standard = gather_noise(noise, &places, group * width, width, &runner.device());
        let scaled = standard * repeat_rows(scales.clone().unsqueeze_dim(1), group);
        let mut samples = repeat_rows(means.clone(), group) + scaled.clone();
        if trains && !is_score {
            samples = on_tape(samples, thought.gradient_checkpointing_strategy()).require_grad();
        }
        let found = runner.target_log_probs(&state.detach(), Some(samples.clone()), &targets, self.objective)?;
        let (mut reference_log_probs, mut reference_thoughts) = (None, None);
        if let Some((reference, prefix)) = reference {
            let mut state = match of_prompts {
                Some(state) => state,
                None => reference.backbone.prefill_after(prefix.as_ref(), &prompts)?,
            };
            let thought = reference.think(&mut state)?.ok_or_else(no_thoughts)?;
            reference_thoughts = is_score.then(|| thought.clone().flatten(0, 1));
            let samples = repeat_rows(thought, group) + scaled;
            let of_reference = reference.target_log_probs(&state, Some(samples), &targets, self.objective)?;
            reference_log_probs = Some(of_reference.values);
        }
        let some = trains.then(|| {
            let by_sample = (!is_score).then(|| {
                let mut tape = found.total().backward();
                samples.grad_remove(&mut tape).expect("the samples are part of the graph")
            });
            Thoughts { places: places.clone(), thought, by_sample }
        });
        let part = Part {
            places,
            lengths: found.lengths,
            log_probs: found.values.inner(),
            reference: reference_log_probs,
            norms,
            scales,
            thoughts: is_score.then(|| means.flatten(0, 1)),
            reference_thoughts,
        };
        Ok((part, some))
    }

    /// Puts what was sampled into the order of the local batch and rewards it.
    fn reward_all(
        &self,
        model: &LatentRecommender,
        parts: Vec<Part<Tensor<1>>>,
        batch: &LocalBatch,
        standard_noise: &[f32],
    ) -> Result<Rollouts, TrainError> {
        let (group, prompts) = (self.config.group, batch.rows.len());
        let width = standard_noise.len() / (prompts * group).max(1);
        let mut noise = standard_noise.to_vec();
        let mut log_probs = vec![Vec::new(); prompts * group];
        let mut reference = self.reference.as_ref().map(|_| log_probs.clone());
        let mut thought_norms = vec![0.0; prompts];
        let mut densities = (self.keeps == Keeps::Densities).then(|| Densities {
            means: vec![0.0; prompts * width],
            deviations: vec![0.0; prompts],
            reference_means: reference.as_ref().map(|_| vec![0.0; prompts * width]),
        });
        for part in read_parts(parts) {
            scatter_rows(&part.log_probs, &part, group, &mut log_probs);
            if let (Some(values), Some(reference)) = (&part.reference, &mut reference) {
                scatter_rows(values, &part, group, reference);
            }
            for ((&place, &norm), &scale) in part.places.iter().zip(&part.norms).zip(&part.scales) {
                thought_norms[place] = f64::from(norm);
                let noise = &mut noise[place * group * width..(place + 1) * group * width];
                noise.iter_mut().for_each(|value| *value *= scale);
                if let Some(densities) = &mut densities {
                    densities.deviations[place] = scale;
                }
            }
            if let Some(Densities { means, reference_means, .. }) = &mut densities {
                let own = part.thoughts.map(|values| (values, means));
                let of_reference = part.reference_thoughts.zip(reference_means.as_mut());
                for (values, means) in own.into_iter().chain(of_reference) {
                    for (place, mean) in part.places.iter().zip(values.chunks(width)) {
                        means[place * width..(place + 1) * width].copy_from_slice(mean);
                    }
                }
            }
        }
        let samples: Vec<Sample> = log_probs
            .iter()
            .zip(noise.chunks(width.max(1)))
            .enumerate()
            .map(|(at, (log_probs, noise))| Sample {
                model,
                example: batch.rows[at / group],
                noise,
                log_probs,
                list: &[],
                place: 0,
            })
            .collect();
        let rewards: Vec<f64> = samples.iter().map(|sample| self.reward.of(sample)).collect::<Result<_, _>>()?;
        let slopes = samples.iter().zip(&rewards).map(|(sample, &reward)| self.reward.slope(sample, reward)).collect();
        let pool = self.compare(batch, &rewards, &log_probs, &noise, &thought_norms);
        let own = |place: &usize| &pool.advantages[place * group..(place + 1) * group];
        let advantages = batch.places.iter().flat_map(own).copied().collect();
        Ok(Rollouts { noise, densities, log_probs, reference, rewards, slopes, advantages, pool })
    }

    /// The values of the whole batch, from those of the local batch.
    fn compare(
        &self,
        batch: &LocalBatch,
        rewards: &[f64],
        log_probs: &[Vec<f32>],
        noise: &[f32],
        thought_norms: &[f64],
    ) -> BatchValues {
        let group = self.config.group;
        let width = noise.len() / log_probs.len().max(1);
        let norm = |noise: &[f32]| noise.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>().sqrt();
        let loss =
            |log_probs: &Vec<f32>| -log_probs.iter().map(|&p| f64::from(p)).sum::<f64>() / log_probs.len() as f64;
        let losses: Vec<f64> = log_probs.iter().step_by(group).map(loss).collect();
        let noise_norms: Vec<f64> = noise.chunks(width.max(1)).map(norm).collect();
        let rewards = batch.all_gather(rewards, group);
        BatchValues {
            advantages: (self.advantage)(&rewards, group),
            rewards,
            losses: batch.all_gather(&losses, 1),
            noise_norms: batch.all_gather(&noise_norms, group),
            thought_norms: batch.all_gather(thought_norms, 1),
        }
    }
}

pub(super) fn no_thoughts() -> TrainError {
    TrainError::config("thoughts", "stage 2 needs a model with thoughts")
}

/// Puts a micro-batch's log-probabilities where its prompts' rollouts stand in the local batch.
fn scatter_rows<T>(values: &[f32], part: &Part<T>, group: usize, into: &mut [Vec<f32>]) {
    let samples = part.places.iter().flat_map(|place| place * group..(place + 1) * group);
    let mut rest = values;
    for (sample, &length) in samples.zip(&part.lengths) {
        let (own, others) = rest.split_at(length);
        into[sample] = own.to_vec();
        rest = others;
    }
}
