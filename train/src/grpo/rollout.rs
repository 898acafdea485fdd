use burn::tensor::{Device, Tensor, TensorData};
use latentr3_models::backbone::CommonHead;
use latentr3_models::{LatentRecommender, host, on_tape};

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

/// Figures of all rollouts of a batch, whichever worker made them.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Reward of each rollout.
    pub rewards: Vec<f64>,
    /// Advantage of each rollout.
    pub advantages: Vec<f64>,
    /// Euclidean norm of each rollout's noise.
    pub noise_norms: Vec<f64>,
    /// Euclidean norm of each prompt's thought.
    pub thought_norms: Vec<f64>,
}

/// How the likelihood of one micro-batch's targets changes with its thoughts.
///
/// Rows are independent, so that with the ratio at 1 the policy's gradient splits: each sample's part is known before the
/// batch's rewards are, and their weighted sum goes back through the thoughts' source once.
pub(super) struct Sensitivity {
    /// The prompts' places in the share.
    pub places: Vec<usize>,
    /// `[prompts, d_model]`, with its gradient history.
    pub thought: Tensor<2>,
    /// Gradients of each sample's summed log-probabilities by its thought, `[prompts * group, d_model]`.
    pub by_sample: Tensor<2>,
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

    /// [`Self::roll_out`], if asked together with the sensitivities, from the same forward pass.
    pub(super) fn sample(
        &self,
        model: &LatentRecommender,
        share: &Share,
        noise: &[f32],
        with_sensitivities: bool,
    ) -> Result<(Rollouts, Vec<Sensitivity>), TrainError> {
        let (mut parts, mut sensitivities) = (Vec::new(), Vec::new());
        let head = common_head(model, &share.rows)?;
        let reference_head = match &self.reference {
            Some(reference) => common_head(reference, &share.rows)?,
            None => None,
        };
        let heads = [head, reference_head];
        for places in micro_batches(&share.rows, self.micro_batch) {
            let rows: Vec<&Example> = places.iter().map(|&place| share.rows[place]).collect();
            let (part, sensitivity) = self.sample_some(model, &heads, places, &rows, noise, with_sensitivities)?;
            parts.push(part);
            sensitivities.extend(sensitivity);
        }
        Ok((self.reward_all(parts, share, noise), sensitivities))
    }

    fn sample_some(
        &self,
        model: &LatentRecommender,
        [head, reference_head]: &[Option<CommonHead>; 2],
        places: Vec<usize>,
        rows: &[&Example],
        noise: &[f32],
        with_sensitivities: bool,
    ) -> Result<(Part, Option<Sensitivity>), TrainError> {
        let (group, targets) = (self.config.group, repeated_targets(rows, self.config.group));
        let mut state = model.backbone.prefill_after(head.as_ref(), &prompts(rows))?;
        let thought = model
            .think(&mut state)
            .ok_or_else(|| TrainError::config("thoughts", "stage 2 needs a model that thinks"))?;
        let [_, width] = thought.dims();
        let norms: Tensor<1> = thought.clone().inner().square().sum_dim(1).sqrt().squeeze_dim(1);
        let scales = match self.config.sigma_relative {
            Some(share) => norms.clone().mul_scalar(share / (width as f64).sqrt()),
            None => norms.full_like(self.config.sigma),
        };
        let standard = gather_noise(noise, &places, group * width, width, &model.device());
        let noise = standard * repeat_rows(scales.clone().unsqueeze_dim(1), group);
        let mut samples = repeat_rows(thought.clone().inner(), group) + noise.clone();
        if with_sensitivities {
            samples = on_tape(samples, thought.gradient_checkpointing_strategy()).require_grad();
        }
        let log_probs = model.target_log_probs(&state.detach(), Some(samples.clone()), &targets)?.values;
        let reference = match &self.reference {
            None => None,
            Some(reference) => {
                let mut state = reference.backbone.prefill_after(reference_head.as_ref(), &prompts(rows))?;
                let thought = reference
                    .think(&mut state)
                    .ok_or_else(|| TrainError::config("reference", "has no thoughts, the policy has"))?;
                Some(reference.target_log_probs(&state, Some(repeat_rows(thought, group) + noise), &targets)?.values)
            }
        };
        let sensitivity = with_sensitivities.then(|| {
            let mut tape = log_probs.clone().sum().backward();
            let by_sample = samples.grad_remove(&mut tape).expect("the samples are part of the graph");
            Sensitivity { places: places.clone(), thought, by_sample }
        });
        Ok((Part { places, log_probs: log_probs.inner(), reference, norms, scales }, sensitivity))
    }

    /// Brings what was sampled to the host, in one read, and compares the rewards of the whole batch.
    fn reward_all(&self, parts: Vec<Part>, share: &Share, noise: &[f32]) -> Rollouts {
        let (group, rollouts) = (self.config.group, share.rows.len() * self.config.group);
        let tensors = |part: &Part| {
            let Part { log_probs, reference, norms, scales, .. } = part;
            [Some(log_probs), reference.as_ref(), Some(norms), Some(scales)]
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
        for Part { places, .. } in &parts {
            scatter_rows(&next(), share, places, group, &mut log_probs);
            if let Some(reference) = &mut reference {
                scatter_rows(&next(), share, places, group, reference);
            }
            for ((&place, norm), scale) in places.iter().zip(next()).zip(next()) {
                thought_norms[place] = f64::from(norm);
                let noise = &mut noise[place * group * width..(place + 1) * group * width];
                noise.iter_mut().for_each(|value| *value *= scale);
            }
        }
        let lowest = -self.config.max_perplexity;
        // Not `max`, which would turn a reward that is no number into the lowest.
        let bounded = |reward: f64| if reward < lowest { lowest } else { reward };
        let rewards: Vec<f64> = log_probs.iter().map(|log_probs| bounded((self.reward)(log_probs))).collect();
        let norm = |noise: &[f32]| noise.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>().sqrt();
        let noise_norms: Vec<f64> = noise.chunks(width.max(1)).map(norm).collect();
        let mut pool = Pool {
            rewards: share.of_all(&rewards, group),
            noise_norms: share.of_all(&noise_norms, group),
            thought_norms: share.of_all(&thought_norms, 1),
            advantages: Vec::new(),
        };
        pool.advantages = (self.advantage)(&pool.rewards, group);
        let own = |place: &usize| &pool.advantages[place * group..(place + 1) * group];
        let advantages = share.places.iter().flat_map(own).copied().collect();
        Rollouts { noise, log_probs, reference, rewards, advantages, pool }
    }
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
