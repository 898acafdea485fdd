//! Stage 2 on lists with several samples of each thought.

use burn::tensor::Tensor;
use latentr3::models::Samples;
use latentr3::models::decode::TitleStart;
use latentr3::models::host::read;
use latentr3::train::World;
use latentr3::train::grpo::{AdvantageKind, GrpoConfig, ItemGroup, ItemsConfig, freeze_untrained};

use crate::common::catalog::{examples, items, objective};
use crate::common::lists::{assert_same_gradients, config, metric, rolled_out, stage, terms};
use crate::common::small::small_model;

#[test]
fn samples_of_a_thought_have_lists_of_their_own_and_earn_by_the_target() {
    let (items, start) = (items(), small_model(1, 3));
    let (objective, examples) = (objective(&items), examples(&items));
    let world = World::alone();
    let batch = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let of = ItemsConfig { rewards: terms("hit=0,log-posterior,perplexity=0.1"), thoughts: 3, ..Default::default() };
    let config = GrpoConfig {
        sigma_relative: Some(0.5),
        kl: 0.01,
        max_perplexity: 1.8,
        ..config(AdvantageKind::LeaveOneOut, of)
    };
    let policy = freeze_untrained(start.clone(), &config);
    let [one, two] = [1, 8].map(|micro_batch| stage(config.clone(), &start, &objective, micro_batch));
    let (groups, update) = one.roll_out_and_update(&policy, &batch, 1).unwrap();
    assert_eq!(groups.len(), 9);
    let plain = config_of_one_thought();
    let policy_of_one = freeze_untrained(start.clone(), &plain);
    let (single, _) = rolled_out(&stage(plain, &start, &objective, 8), &policy_of_one, &examples);
    let mut capped = 0;
    for (samples, single) in groups.chunks(3).zip(&single) {
        let sums = |group: &ItemGroup| group.list.iter().map(|item| item.log_prob()).collect::<Vec<_>>();
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near(&sums(&samples[0]), &sums(single)), "the first sample is free of noise");
        assert!(!near(&sums(&samples[1]), &sums(single)) && !near(&sums(&samples[1]), &sums(&samples[2])));
        assert!(samples.iter().map(|sample| sample.thought_weight).sum::<f64>().abs() < 1e-9);
        for sample in samples {
            let target: f64 = sample.target.iter().map(|&value| f64::from(value)).sum();
            let others = sample.list.iter().filter(|item| !item.is_target).map(|item| item.log_prob().exp());
            let posterior = (target.exp() / (target.exp() + others.sum::<f64>())).ln();
            let perplexity = (-target / sample.target.len() as f64).exp();
            assert!((sample.thought_reward - (posterior - 0.1 * perplexity.min(1.8))).abs() < 1e-6);
            capped += usize::from(perplexity > 1.8);
        }
    }
    assert!(capped > 0 && capped < 9, "{capped}");
    // The same in other micro-batches, and in a pass of its own.
    let (_, other) = two.roll_out_and_update(&policy, &batch, 1).unwrap();
    assert_same_gradients(&update.gradients, &other.gradients, 1.0);
    assert_same_gradients(&update.gradients, &two.update(&policy, &batch, 1, &groups).unwrap().gradients, 1.0);
    let (elsewhere, _) = one.roll_out_and_update(&policy, &batch, 2).unwrap();
    assert_ne!(elsewhere[1].target, groups[1].target, "another step has other noise");
}

#[test]
fn a_further_update_keeps_the_noise_as_it_was_added() {
    let (items, start) = (items(), small_model(1, 3));
    let (objective, examples) = (objective(&items), examples(&items));
    let world = World::alone();
    let batch = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let of = ItemsConfig { rewards: terms("hit=0,log-posterior"), thoughts: 3, ..Default::default() };
    let config = GrpoConfig { sigma_relative: Some(0.5), ..config(AdvantageKind::LeaveOneOut, of) };
    let stage = stage(config.clone(), &start, &objective, 8);
    let (groups, _) = stage.roll_out_and_update(&freeze_untrained(start, &config), &batch, 1).unwrap();
    // Its thoughts have other norms.
    let moved = freeze_untrained(small_model(1, 4), &config);
    let found = metric(&stage.update(&moved, &batch, 1, &groups).unwrap(), "target_loss");
    let mut expected = 0.0;
    for (example, samples) in examples.iter().zip(groups.chunks(3)) {
        let noise: Vec<f32> = samples.iter().flat_map(|sample| sample.noise.clone()).collect();
        let draw = |thought: Tensor<2>| {
            let [_, width] = thought.dims();
            let noise = Tensor::<1>::from_data(noise.as_slice(), &thought.device().inner()).reshape([3, width]);
            thought.repeat_dim(0, 3) + noise
        };
        let (state, samples) = (moved.prefill(&[&example.prompt]).unwrap(), Samples { count: 3, draw: Box::new(draw) });
        let start = TitleStart::think_in_samples(&moved, &objective, state, samples).unwrap();
        let sums = moved.title_log_probs(&start, &[example.target.as_slice(); 3], &objective).unwrap().sums();
        expected -= read(sums).iter().map(|&sum| f64::from(sum)).sum::<f64>() / 9.0;
    }
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

fn config_of_one_thought() -> GrpoConfig {
    config(AdvantageKind::Group, ItemsConfig::default())
}
