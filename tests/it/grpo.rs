//! Stage 2: which weights train, and what an update consists of.

use crate::common::examples::examples;
use crate::common::small::{small_model, weights};
use crate::common::training::{GO_ON, step, training};
use latentr3::models::host::read;
use latentr3::models::{Objective, Precision};
use latentr3::train::grpo::{EstimatorKind, Grpo, GrpoConfig, NegativePerplexity, Reward, Sample, freeze_untrained};
use latentr3::train::{Example, Found, LocalUpdate, RunFolder, TrainConfig, World};

#[test]
fn the_frozen_backbone_is_bit_equal_after_grpo_and_the_attention_is_not() {
    let (likelihood, score) = (EstimatorKind::Likelihood, EstimatorKind::Score);
    for (estimator, kl, updates) in [(likelihood, 0.0, 1), (likelihood, 0.1, 2), (score, 0.0, 1), (score, 0.1, 2)] {
        let config = GrpoConfig { group: 4, sigma: 0.5, estimator, kl, updates, ..Default::default() };
        let model = freeze_untrained(small_model(1, 1), &config);
        let before = weights(&model);
        let stage = Grpo::new(config, 8, 3, &model, Objective::vocabulary()).unwrap();
        let after = weights(&step(&stage, model));
        for (name, values) in &before {
            assert_eq!(after[name] == *values, !name.starts_with("attention."), "{name}");
        }
    }
}

#[test]
fn a_run_of_grpo_freezes_the_backbone_by_itself() {
    let (examples, folder) = (examples(), tempfile::tempdir().unwrap());
    let run = RunFolder::create(&folder.path().join("run"), &serde_json::json!({}), vec![]).unwrap();
    let (world, model) = (World::alone(), small_model(1, 1));
    let stage =
        Grpo::new(GrpoConfig { group: 4, sigma: 0.5, ..Default::default() }, 8, 3, &model, Objective::vocabulary())
            .unwrap();
    let config = TrainConfig { max_steps: Some(2), ..GrpoConfig::train_defaults() };
    let before = weights(&model);
    training(&config, &examples, &run, &world, &mut |_| {}, &GO_ON).start(&stage, model).unwrap();
    let last = Found::last(run.path(), config.optimizer, &crate::common::device(), Precision::F32).unwrap().trained;
    for (name, values) in &weights(&last.model) {
        assert_eq!(before[name] == *values, !name.starts_with("attention."), "{name}");
    }
}

#[test]
fn the_backbone_trains_in_grpo_where_it_is_asked_to() {
    let config = GrpoConfig { group: 4, sigma: 0.5, train_backbone: true, ..Default::default() };
    let model = freeze_untrained(small_model(1, 1), &config);
    let before = weights(&model);
    let stage = Grpo::new(config, 8, 3, &model, Objective::vocabulary()).unwrap();
    let after = weights(&step(&stage, model));
    assert!(before.iter().all(|(name, values)| after[name] != *values));
}

#[test]
fn an_update_that_needs_a_pass_of_its_own_does_not_come_with_the_rollout() {
    let (examples, world) = (examples(), World::alone());
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let noise = vec![0.1; local.rows.len() * 4 * 16];
    let config = GrpoConfig { group: 4, ..Default::default() };
    let is_given = |thoughts: usize, config: GrpoConfig| {
        let model = freeze_untrained(small_model(thoughts, 1), &config);
        Grpo::new(config, 8, 3, &model, Objective::vocabulary())
            .unwrap()
            .roll_out_and_update(&model, &local, &noise)
            .is_ok()
    };
    assert!(is_given(1, config.clone()));
    assert!(!is_given(2, config.clone()));
    assert!(!is_given(1, GrpoConfig { kl: 0.1, ..config.clone() }));
    assert!(!is_given(1, GrpoConfig { train_backbone: true, ..config.clone() }));
    assert!(is_given(2, GrpoConfig { estimator: EstimatorKind::Score, ..config }));
}

#[test]
fn one_pass_and_two_passes_give_the_same_update() {
    let examples = examples();
    let batch: Vec<&Example> = examples.iter().collect();
    let noise: Vec<f32> =
        (0..batch.len() * 4 * 16).map(|i| if i / 16 % 4 == 0 { 0.0 } else { (i as f32 * 0.7).sin() }).collect();
    let world = World::alone();
    let local = world.local_batch(&batch);
    for estimator in [EstimatorKind::Likelihood, EstimatorKind::Score] {
        let config = GrpoConfig { group: 4, sigma: 1.0, estimator, ..Default::default() };
        let model = freeze_untrained(small_model(1, 4), &config);
        let stage = Grpo::new(config, 8, 0, &model, Objective::vocabulary()).unwrap();
        let (rollouts, one) = stage.roll_out_and_update(&model, &local, &noise).unwrap();
        let rollouts_alone = stage.roll_out(&model, &local, &noise).unwrap();
        assert_eq!(rollouts.rewards, rollouts_alone.rewards);
        let two = stage.update(&model, &local, &rollouts_alone).unwrap();
        assert_same_update(one, two);
    }
}

fn assert_same_update(one: LocalUpdate, two: LocalUpdate) {
    assert_eq!(one.metrics.names(), two.metrics.names());
    for name in one.metrics.names() {
        let [one, two] = [&one, &two].map(|update| update.metrics.get(name).unwrap());
        assert!((one - two).abs() < 1e-5, "{name}: {one} {two}");
    }
    let (mut names, mut difference, mut norm) = (0, 0.0f32, 0.0f32);
    for name in one.gradients.names() {
        let [a, b] = [&one.gradients, &two.gradients].map(|gradients| read(gradients.get(name).unwrap()));
        difference += a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        norm += b.iter().map(|b| b * b).sum::<f32>();
        names += 1;
    }
    assert!(names == 6 && norm > 0.0 && difference.sqrt() < 1e-4 * norm.sqrt(), "{names} {difference} {norm}");
}

/// A divergence that is only watched changes nothing, and is the one that has a weight elsewhere.
#[test]
fn a_reference_that_is_only_watched_leaves_the_update_as_it_is() {
    let examples = examples();
    let batch: Vec<&Example> = examples.iter().collect();
    let noise: Vec<f32> = (0..batch.len() * 4 * 16).map(|i| (i as f32 * 0.7).sin()).collect();
    let world = World::alone();
    let local = world.local_batch(&batch);
    let start = small_model(1, 4);
    for estimator in [EstimatorKind::Likelihood, EstimatorKind::Score] {
        let config = GrpoConfig { group: 4, sigma: 0.5, estimator, ..Default::default() };
        // Not the model at the start any more.
        let model = step(
            &Grpo::new(config.clone(), 8, 0, &start, Objective::vocabulary()).unwrap(),
            freeze_untrained(start.clone(), &config),
        );
        let update = |config: GrpoConfig| {
            let stage = Grpo::new(config, 8, 0, &start, Objective::vocabulary()).unwrap();
            let (rollouts, update) = stage.roll_out_and_update(&model, &local, &noise).unwrap();
            let again = stage.update(&model, &local, &rollouts).unwrap();
            let kl = |update: &LocalUpdate| update.metrics.get("kl");
            let values = |name: &str| read(update.gradients.get(name).unwrap());
            let gradients: Vec<_> = update.gradients.names().map(|name| (name.to_owned(), values(name))).collect();
            (gradients, kl(&update), kl(&again))
        };
        let (gradients, none, none_again) = update(config.clone());
        assert_eq!((none, none_again), (None, None));
        let (watched, kl, again) = update(GrpoConfig { max_kl: Some(1.0), ..config });
        assert_eq!(gradients, watched);
        let (kl, again) = (kl.unwrap(), again.unwrap());
        assert!(kl > 1e-4 && (kl - again).abs() < 1e-4 * kl, "{kl} {again}");
    }
}

#[test]
fn a_hopeless_target_leaves_the_other_advantages_defined() {
    let examples = examples();
    let batch: Vec<&Example> = examples.iter().collect();
    let world = World::alone();
    let config = GrpoConfig { group: 4, sigma: 0.5, ..Default::default() };
    let model = freeze_untrained(small_model(1, 2), &config);
    let stage = Grpo::new(config, 8, 3, &model, Objective::vocabulary()).unwrap();
    let noise = vec![0.1; batch.len() * 4 * 16];
    let fair = stage.roll_out(&model, &world.local_batch(&batch), &noise).unwrap();
    // The perplexity of a target that is as good as impossible overflows.
    let first = fair.log_probs[0].clone();
    let perplexity = NegativePerplexity { largest: f64::from(f32::MAX) };
    let stage = stage.with_reward(move |sample: &Sample| match sample.log_probs == first {
        true => perplexity.of(&Sample { log_probs: &[f32::NEG_INFINITY], ..*sample }).unwrap(),
        false => perplexity.of(sample).unwrap(),
    });
    let bounded = stage.roll_out(&model, &world.local_batch(&batch), &noise).unwrap();
    assert_eq!(bounded.rewards[0], -f64::from(f32::MAX));
    assert_eq!(bounded.rewards[4..], fair.rewards[4..]);
    assert!(bounded.advantages.iter().all(|advantage| advantage.is_finite()));
}
