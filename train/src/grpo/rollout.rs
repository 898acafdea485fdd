use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use latentr3_models::backbone::CommonHead;
use latentr3_models::{LatentRecommender, host, on_tape};

use super::config::Estimator;
use super::stage::Grpo;
use crate::batches::micro_batches;
use crate::likelihood::{common_head, prompts};
use crate::workers::Share;
use crate::{Example, TrainError};

/// The samples of a share's prompts and what they earned, the groups one after the other.
#[derive(Debug, Clone)]
pub struct Rollouts {
    /// The noise as it was added, `[rollouts, d_model]`.
    pub noise: Vec<f32>,
    /// What the samples were drawn from, for [`Estimator::Score`].
    pub densities: Option<Densities>,
    /// Log-probabilities of each rollout's target tokens under the policy that made it.
    pub log_probs: Vec<Vec<f32>>,
    /// The same under the reference policy, where there is one.
    pub reference: Option<Vec<Vec<f32>>>,
    /// Reward of each rollout.
    pub rewards: Vec<f64>,
    /// Advantage of each rollout.
    pub advantages: Vec<f64>,
    /// Figures of the whole batch, to which the rewards are compared.
    pub pool: Pool,
}

/// The Gaussians that the samples of each prompt were drawn from.
#[derive(Debug, Clone, Default)]
pub struct Densities {
    /// The thoughts, `[prompts, d_model]`.
    pub means: Vec<f32>,
    /// Standard deviation of each coordinate, `[prompts]`.
    pub deviations: Vec<f32>,
    /// The thoughts of the reference policy, `[prompts, d_model]`, where there is one.
    pub reference_means: Option<Vec<f32>>,
}

/// Figures of all rollouts of a batch, whichever worker made them.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Reward of each rollout.
    pub rewards: Vec<f64>,
    /// Advantage of each rollout.
    pub advantages: Vec<f64>,
    /// Mean negative log-likelihood of each prompt's target tokens after the thought without noise.
    pub losses: Vec<f64>,
    /// Euclidean norm of each rollout's noise.
    pub noise_norms: Vec<f64>,
    /// Euclidean norm of each prompt's thought.
    pub thought_norms: Vec<f64>,
}

/// The last thoughts of one micro-batch, from which gradients go back to their source.
pub(super) struct Thoughts {
    /// The prompts' places in the share.
    pub places: Vec<usize>,
    /// `[prompts, d_model]`, with its gradient history.
    pub thought: Tensor<2>,
    /// How the likelihood of the targets changes with each sample, for all estimators but [`Estimator::Score`]: gradients of the summed
    /// log-probabilities, `[prompts * group, d_model]`.
    ///
    /// Rows are independent, so that with the ratio at 1 the policy's gradient splits: each sample's part is known before
    /// the batch's rewards are, and their weighted sum goes back through the thoughts' source once.
    pub by_sample: Option<Tensor<2>>,
}

/// What a micro-batch leaves on the device until the whole share is done.
struct Part {
    places: Vec<usize>,
    /// `[target tokens]` of the samples, under the policy.
    log_probs: Tensor<1>,
    /// The same under the reference, where there is one.
    reference: Option<Tensor<1>>,
    /// `[prompts]`: the thoughts' norms, and what their standard noise was multiplied by.
    norms: Tensor<1>,
    scales: Tensor<1>,
    /// `[prompts * d_model]`: the thoughts, and those of the reference, where they are wanted.
    thoughts: Option<Tensor<1>>,
    reference_thoughts: Option<Tensor<1>>,
}

/// Who takes part in a rollout.
struct Cast<'a> {
    /// What the last thoughts come from.
    thinker: &'a LatentRecommender,
    /// What runs prompts and targets.
    runner: &'a LatentRecommender,
    head: Option<CommonHead>,
    /// The reference policy with the head of its own prompts, which are the runner's while the backbone is frozen.
    reference: Option<(&'a LatentRecommender, Option<CommonHead>)>,
}

impl Grpo {
    /// Samples the group of each of a share's prompts with the given standard noise, `[rollouts, d_model]`, and rewards it;
    /// nothing trains.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a model without thoughts.
    pub fn roll_out(&self, model: &LatentRecommender, share: &Share, noise: &[f32]) -> Result<Rollouts, TrainError> {
        Ok(self.sample(model, share, noise, false)?.0)
    }

    /// [`Self::roll_out`], if asked together with the thoughts to train by, from the same forward pass.
    pub(super) fn sample(
        &self,
        model: &LatentRecommender,
        share: &Share,
        noise: &[f32],
        trains: bool,
    ) -> Result<(Rollouts, Vec<Thoughts>), TrainError> {
        // The score needs no tape but that of the last thoughts.
        let plain = (trains && self.config.estimator == Estimator::Score).then(|| model.valid());
        let runner = plain.as_ref().unwrap_or(model);
        let reference_head = match &self.reference {
            Some(reference) if self.config.train_backbone => common_head(reference, &share.rows)?,
            _ => None,
        };
        let cast = Cast {
            thinker: model,
            runner,
            head: common_head(runner, &share.rows)?,
            reference: self.reference.as_ref().map(|reference| (reference, reference_head)),
        };
        let (mut parts, mut thoughts) = (Vec::new(), Vec::new());
        for places in micro_batches(&share.rows, self.micro_batch) {
            let rows: Vec<&Example> = places.iter().map(|&place| share.rows[place]).collect();
            let (part, some) = self.sample_some(&cast, places, &rows, noise, trains)?;
            parts.push(part);
            thoughts.extend(some);
        }
        Ok((self.reward_all(parts, share, noise), thoughts))
    }

    fn sample_some(
        &self,
        cast: &Cast,
        places: Vec<usize>,
        rows: &[&Example],
        noise: &[f32],
        trains: bool,
    ) -> Result<(Part, Option<Thoughts>), TrainError> {
        let is_score = self.config.estimator == Estimator::Score;
        let (group, targets) = (self.config.group, repeated_targets(rows, self.config.group));
        let prompts = prompts(rows);
        let mut state = cast.runner.backbone.prefill_after(cast.head.as_ref(), &prompts)?;
        let of_prompts = (cast.reference.is_some() && !self.config.train_backbone).then(|| state.detach());
        cast.runner.think_ahead(&mut state);
        let thought = cast.thinker.last_thought(&state).ok_or_else(no_thoughts)?;
        let [_, width] = thought.dims();
        let plain = thought.clone().inner();
        let norms: Tensor<1> = plain.clone().square().sum_dim(1).sqrt().squeeze_dim(1);
        let scales = match self.config.sigma_relative {
            Some(share) => norms.clone().mul_scalar(share / (width as f64).sqrt()),
            None => norms.full_like(self.config.sigma),
        };
        let standard = gather_noise(noise, &places, group * width, width, &cast.runner.device());
        let noise = standard * repeat_rows(scales.clone().unsqueeze_dim(1), group);
        let mut samples = repeat_rows(plain.clone(), group) + noise.clone();
        if trains && !is_score {
            samples = on_tape(samples, thought.gradient_checkpointing_strategy()).require_grad();
        }
        let log_probs = cast.runner.target_log_probs(&state.detach(), Some(samples.clone()), &targets)?.values;
        let (mut reference, mut reference_thoughts) = (None, None);
        if let Some((policy, head)) = &cast.reference {
            let mut state = match of_prompts {
                Some(state) => state,
                None => policy.backbone.prefill_after(head.as_ref(), &prompts)?,
            };
            let thought = policy.think(&mut state).ok_or_else(no_thoughts)?;
            reference_thoughts = is_score.then(|| thought.clone().flatten(0, 1));
            let samples = repeat_rows(thought, group) + noise;
            reference = Some(policy.target_log_probs(&state, Some(samples), &targets)?.values);
        }
        let some = trains.then(|| {
            let by_sample = (!is_score).then(|| {
                let mut tape = log_probs.clone().sum().backward();
                samples.grad_remove(&mut tape).expect("the samples are part of the graph")
            });
            Thoughts { places: places.clone(), thought, by_sample }
        });
        let thoughts = is_score.then(|| plain.flatten(0, 1));
        let log_probs = log_probs.inner();
        Ok((Part { places, log_probs, reference, norms, scales, thoughts, reference_thoughts }, some))
    }

    /// Brings what was sampled to the host, in one read, and compares the rewards of the whole batch.
    fn reward_all(&self, parts: Vec<Part>, share: &Share, noise: &[f32]) -> Rollouts {
        let (group, rollouts) = (self.config.group, share.rows.len() * self.config.group);
        let tensors = |part: &Part| {
            let Part { log_probs, reference, norms, scales, thoughts, reference_thoughts, .. } = part;
            [
                Some(log_probs),
                reference.as_ref(),
                Some(norms),
                Some(scales),
                thoughts.as_ref(),
                reference_thoughts.as_ref(),
            ]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
        };
        let mut values = host::read_all(parts.iter().flat_map(tensors).collect()).into_iter();
        let mut next = || values.next().expect("all tensors were read");
        let width = noise.len() / rollouts.max(1);
        let mut noise = noise.to_vec();
        let mut log_probs = vec![Vec::new(); rollouts];
        let mut reference = self.reference.as_ref().map(|_| log_probs.clone());
        let mut thought_norms = vec![0.0; share.rows.len()];
        let mut densities = (self.config.estimator == Estimator::Score).then(|| {
            let means = vec![0.0; share.rows.len() * width];
            let reference_means = reference.as_ref().map(|_| means.clone());
            Densities { means, deviations: vec![0.0; share.rows.len()], reference_means }
        });
        for Part { places, .. } in &parts {
            scatter_rows(&next(), share, places, group, &mut log_probs);
            if let Some(reference) = &mut reference {
                scatter_rows(&next(), share, places, group, reference);
            }
            for ((&place, norm), scale) in places.iter().zip(next()).zip(next()) {
                thought_norms[place] = f64::from(norm);
                let noise = &mut noise[place * group * width..(place + 1) * group * width];
                noise.iter_mut().for_each(|value| *value *= scale);
                if let Some(densities) = &mut densities {
                    densities.deviations[place] = scale;
                }
            }
            if let Some(Densities { means, reference_means, .. }) = &mut densities {
                for means in std::iter::once(means).chain(reference_means) {
                    for (place, mean) in places.iter().zip(next().chunks(width)) {
                        means[place * width..(place + 1) * width].copy_from_slice(mean);
                    }
                }
            }
        }
        let lowest = -self.config.max_perplexity;
        // Not `max`, which would turn a reward that is no number into the lowest.
        let bounded = |reward: f64| if reward < lowest { lowest } else { reward };
        let rewards: Vec<f64> = log_probs.iter().map(|log_probs| bounded((self.reward)(log_probs))).collect();
        let norm = |noise: &[f32]| noise.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>().sqrt();
        let loss =
            |log_probs: &Vec<f32>| -log_probs.iter().map(|&p| f64::from(p)).sum::<f64>() / log_probs.len() as f64;
        let losses: Vec<f64> = log_probs.iter().step_by(group).map(loss).collect();
        let noise_norms: Vec<f64> = noise.chunks(width.max(1)).map(norm).collect();
        let mut pool = Pool {
            rewards: share.of_all(&rewards, group),
            losses: share.of_all(&losses, 1),
            noise_norms: share.of_all(&noise_norms, group),
            thought_norms: share.of_all(&thought_norms, 1),
            advantages: Vec::new(),
        };
        pool.advantages = (self.advantage)(&pool.rewards, group);
        let own = |place: &usize| &pool.advantages[place * group..(place + 1) * group];
        let advantages = share.places.iter().flat_map(own).copied().collect();
        Rollouts { noise, densities, log_probs, reference, rewards, advantages, pool }
    }
}

impl Rollouts {
    /// The k3 estimate of the KL divergence to the reference policy (see [`policy_loss`](super::policy_loss)), added up
    /// over the target tokens, where there is a reference.
    pub(super) fn kl(&self) -> Option<f64> {
        let tokens = self.log_probs.iter().flatten().zip(self.reference.as_ref()?.iter().flatten());
        let k3 = |(&own, &reference): (&f32, &f32)| {
            let difference = f64::from(reference) - f64::from(own);
            difference.exp_m1() - difference
        };
        Some(tokens.map(k3).sum())
    }
}

pub(super) fn no_thoughts() -> TrainError {
    TrainError::config("thoughts", "stage 2 needs a model that thinks")
}

pub(super) fn repeated_targets<'a>(rows: &[&'a Example], group: usize) -> Vec<&'a [u32]> {
    rows.iter().flat_map(|row| std::iter::repeat_n(row.target.as_slice(), group)).collect()
}

/// `[rows, width]` to `[rows * times, width]`, the copies of a row together.
pub(super) fn repeat_rows(x: Tensor<2>, times: usize) -> Tensor<2> {
    let [rows, width] = x.dims();
    x.unsqueeze_dim::<3>(1).repeat_dim(1, times).reshape([rows * times, width])
}

/// The noise of the given prompts' groups, `[prompts * group, width]`.
pub(super) fn gather_noise(
    noise: &[f32],
    places: &[usize],
    per_prompt: usize,
    width: usize,
    device: &Device,
) -> Tensor<2> {
    let values: Vec<f32> =
        places.iter().flat_map(|place| &noise[place * per_prompt..(place + 1) * per_prompt]).copied().collect();
    let rows = values.len() / width;
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Puts a micro-batch's log-probabilities where its prompts' rollouts stand in the share.
fn scatter_rows(values: &[f32], share: &Share, places: &[usize], group: usize, into: &mut [Vec<f32>]) {
    let mut rest = values;
    for &place in places {
        for sample in 0..group {
            let (own, others) = rest.split_at(share.rows[place].target.len());
            into[place * group + sample] = own.to_vec();
            rest = others;
        }
    }
}
