use latentr3_models::random::generator;
use rand_distr::{Distribution, StandardNormal};

/// Marks the noise's generators among those of a run.
const NOISE: u64 = 0x4e4f_4953_4500_0000;

/// Standard normal noise `[group, width]` for the samples of one prompt; the first sample has none.
///
/// It depends on the seed, the step, the prompt's place in the batch and the sample, and on nothing else: not on the
/// micro-batch, the backend or the number of world.
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
