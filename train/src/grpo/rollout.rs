use burn::tensor::{Tensor, TensorData};
use latentr3_models::{LatentRecommender, TargetLogProbs};

use super::stage::Grpo;
use crate::batches::micro_batches;
use crate::likelihood::prompts;
use crate::{Example, TrainError};

/// The samples of a batch's prompts and what they earned, the groups one after the other.
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
    /// Euclidean norm of each prompt's thought.
    pub thought_norms: Vec<f64>,
}

impl Rollouts {
    /// Target tokens of all rollouts.
    pub fn tokens(&self) -> usize {
        self.log_probs.iter().map(Vec::len).sum()
    }
}

/// How the likelihood of one micro-batch's targets changes with its thoughts.
///
/// Rows are independent, so that with the ratio at 1 the policy's gradient splits: each sample's part is known before the
/// batch's rewards are, and their weighted sum goes back through the thoughts' source once.
pub(super) struct Sensitivity {
    /// The prompts' places in the batch.
    pub places: Vec<usize>,
    /// `[prompts, d_model]`, with its gradient history.
    pub thought: Tensor<2>,
    /// Gradients of each sample's summed log-probabilities by its thought, `[prompts * group, d_model]`.
    pub by_sample: Tensor<2>,
}

impl Grpo {
    /// Samples every prompt's group with the given standard noise, `[rollouts, d_model]`, and rewards it; nothing trains.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a model without thoughts.
    pub fn roll_out(
        &self,
        model: &LatentRecommender,
        batch: &[&Example],
        noise: &[f32],
    ) -> Result<Rollouts, TrainError> {
        Ok(self.sample(model, batch, noise, false)?.0)
    }

    /// [`Self::roll_out`], if asked together with the sensitivities, from the same forward pass.
    pub(super) fn sample(
        &self,
        model: &LatentRecommender,
        batch: &[&Example],
        noise: &[f32],
        with_sensitivities: bool,
    ) -> Result<(Rollouts, Vec<Sensitivity>), TrainError> {
        let group = self.config.group;
        let width = noise.len() / (batch.len() * group);
        let mut rollouts = Rollouts {
            noise: noise.to_vec(),
            log_probs: vec![Vec::new(); batch.len() * group],
            reference: self.reference.as_ref().map(|_| vec![Vec::new(); batch.len() * group]),
            rewards: Vec::new(),
            advantages: Vec::new(),
            thought_norms: vec![0.0; batch.len()],
        };
        let mut sensitivities = Vec::new();
        let head = model.backbone.common_head(&prompts(batch))?;
        let reference_head = match &self.reference {
            Some(reference) => reference.backbone.common_head(&prompts(batch))?,
            None => None,
        };
        for places in micro_batches(batch, self.micro_batch) {
            let rows: Vec<&Example> = places.iter().map(|&place| batch[place]).collect();
            let mut state = model.backbone.prefill_after(head.as_ref(), &prompts(&rows))?;
            let thought = model
                .think(&mut state)
                .ok_or_else(|| TrainError::config("thoughts", "stage 2 needs a model that thinks"))?;
            let values: Vec<f32> = thought.clone().inner().into_data_as::<f32>().iter::<f32>().collect();
            for (&place, thought) in places.iter().zip(values.chunks(width)) {
                let norm = thought.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
                rollouts.thought_norms[place] = norm;
                let scale = match self.config.sigma_relative {
                    Some(share) => share * norm / (width as f64).sqrt(),
                    None => self.config.sigma,
                };
                let noise = &mut rollouts.noise[place * group * width..(place + 1) * group * width];
                noise.iter_mut().for_each(|value| *value *= scale as f32);
            }
            let noise = gather_noise(&rollouts.noise, &places, group * width, width, &model.device());
            let mut samples = repeat_rows(thought.clone().inner(), group) + noise.clone();
            if with_sensitivities {
                samples = samples.autodiff().require_grad();
            }
            let targets = repeated_targets(&rows, group);
            let log_probs = model.target_log_probs(&state.detach(), Some(samples.clone()), &targets)?;
            if with_sensitivities {
                let mut tape = log_probs.values.clone().sum().backward();
                let by_sample = samples.grad_remove(&mut tape).expect("the samples are part of the graph");
                sensitivities.push(Sensitivity { places: places.clone(), thought, by_sample });
            }
            scatter_rows(log_probs, &places, group, &mut rollouts.log_probs);
            if let (Some(reference), Some(into)) = (&self.reference, &mut rollouts.reference) {
                let mut state = reference.backbone.prefill_after(reference_head.as_ref(), &prompts(&rows))?;
                let thought = reference
                    .think(&mut state)
                    .ok_or_else(|| TrainError::config("reference", "has no thoughts, the policy has"))?;
                let log_probs =
                    reference.target_log_probs(&state, Some(repeat_rows(thought, group) + noise), &targets)?;
                scatter_rows(log_probs, &places, group, into);
            }
        }
        let lowest = -self.config.max_perplexity;
        // Not `max`, which would turn a reward that is no number into the lowest.
        let bounded = |reward: f64| if reward < lowest { lowest } else { reward };
        rollouts.rewards = rollouts.log_probs.iter().map(|log_probs| bounded((self.reward)(log_probs))).collect();
        rollouts.advantages = (self.advantage)(&rollouts.rewards, group);
        Ok((rollouts, sensitivities))
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
    device: &burn::tensor::Device,
) -> Tensor<2> {
    let values: Vec<f32> =
        places.iter().flat_map(|place| &noise[place * per_prompt..(place + 1) * per_prompt]).copied().collect();
    let rows = values.len() / width;
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Puts a micro-batch's log-probabilities where its prompts' rollouts stand in the batch.
fn scatter_rows(log_probs: TargetLogProbs, places: &[usize], group: usize, into: &mut [Vec<f32>]) {
    let values: Vec<f32> = log_probs.values.inner().into_data_as::<f32>().iter::<f32>().collect();
    let mut rest = values.as_slice();
    for (row, length) in log_probs.lengths.into_iter().enumerate() {
        let (own, others) = rest.split_at(length);
        into[places[row / group] * group + row % group] = own.to_vec();
        rest = others;
    }
}
