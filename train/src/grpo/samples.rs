//! The samples of a group: their noise, and how prompts and targets are repeated for them.

use burn::tensor::{Device, Tensor};
use latentr3_models::host;
use latentr3_models::random::generator;
use rand_distr::{Distribution, StandardNormal};

use crate::Example;

/// Marks the noise's generators among those of a run.
const NOISE: u64 = 0x4e4f_4953_4500_0000;

/// Standard normal noise `[group, width]` for the samples of one prompt; the first sample has none.
///
/// It depends on the seed, the step, the prompt's place in the batch and the sample, and on nothing else: not on the
/// micro-batch, the backend or the number of ranks.
pub fn group_noise(seed: u64, step: u64, prompt: u64, group: usize, width: usize) -> Vec<f32> {
    let sample = |sample: usize| {
        if sample == 0 {
            return vec![0.0; width];
        }
        let rng = generator([seed, step, prompt, NOISE | sample as u64]);
        StandardNormal.sample_iter(rng).take(width).collect::<Vec<f32>>()
    };
    (0..group).flat_map(sample).collect()
}

/// The targets of some examples, each for all samples of its group.
pub(in crate::grpo) fn repeated_targets<'a>(rows: &[&'a Example], group: usize) -> Vec<&'a [u32]> {
    rows.iter().flat_map(|row| std::iter::repeat_n(row.target.as_slice(), group)).collect()
}

/// `[rows, width]` to `[rows * times, width]`, the copies of a row together.
pub(in crate::grpo) fn repeat_rows(x: Tensor<2>, times: usize) -> Tensor<2> {
    let [rows, width] = x.dims();
    x.unsqueeze_dim::<3>(1).repeat_dim(1, times).reshape([rows * times, width])
}

/// The noise of the given prompts' groups, `[prompts * group, width]`.
pub(in crate::grpo) fn gather_noise(
    noise: &[f32],
    places: &[usize],
    per_prompt: usize,
    width: usize,
    device: &Device,
) -> Tensor<2> {
    let values: Vec<f32> =
        places.iter().flat_map(|place| &noise[place * per_prompt..(place + 1) * per_prompt]).copied().collect();
    let rows = values.len() / width;
    host::floats(values, [rows, width], device)
}

#[cfg(test)]
mod tests {
    use super::group_noise;

    #[test]
    fn first_sample_of_every_group_is_noise_free() {
        for prompt in 0..5 {
            let noise = group_noise(1, 2, prompt, 4, 16);
            assert!(noise[..16].iter().all(|value| *value == 0.0));
            assert!(noise[16..].iter().all(|value| *value != 0.0));
        }
    }

    #[test]
    fn noise_is_standard_normal_and_differs_between_samples_prompts_and_steps() {
        let noise = group_noise(0, 0, 0, 3, 4000);
        let (a, b) = noise[4000..].split_at(4000);
        assert_ne!(a, b);
        assert_ne!(group_noise(0, 0, 1, 3, 4000), noise);
        assert_ne!(group_noise(0, 1, 0, 3, 4000), noise);
        let mean = a.iter().sum::<f32>() / 4000.0;
        let variance = a.iter().map(|v| v * v).sum::<f32>() / 4000.0;
        assert!(mean.abs() < 0.06 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
    }
}
