//! What must hold of training whatever the data is.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::examples::examples;
use crate::common::small::{small_model, weights};
use burn::module::Module;
use latentr3::models::decode::{BeamConfig, ItemTrie, beam_search};
use latentr3::models::host::{read, reads};
use latentr3::models::hub::read_tensors;
use latentr3::models::{LatentRecommender, LoraConfig, Objective, ObjectiveKind};
use latentr3::train::grpo::{EstimatorKind, Grpo, GrpoConfig, NegativePerplexity, Reward, Sample, prepare_model};
use latentr3::train::sft::Sft;
use latentr3::train::{
    AdamW, AdamWConfig, Event, Example, Found, LocalUpdate, Optimizer, ParameterGroup, RunFolder, Stage, TrainConfig,
    Training, ValidationPass, World, likelihood,
};

/// Nobody interrupts.
static GO_ON: AtomicBool = AtomicBool::new(false);

fn optimizer() -> Optimizer {
    Optimizer {
        groups: Vec::new(),
        adamw: AdamW::new(AdamWConfig::default()),
        clip_norm: 1.0,
        learning_rate: 1e-2,
        step: 1,
        temperature: None,
    }
}

fn step(stage: &dyn Stage<LatentRecommender>, model: LatentRecommender) -> LatentRecommender {
    let examples = examples();
    let world = World::alone();
    stage.step(model, &mut optimizer(), &world.local_batch(&examples.iter().collect::<Vec<_>>())).unwrap().0
}

/// A run on the examples, which are also validated on.
fn training<'a>(
    config: &'a TrainConfig,
    examples: &'a [Example],
    run: &'a RunFolder,
    world: &'a World,
    observer: &'a mut dyn FnMut(Event),
    interrupted: &'a AtomicBool,
) -> Training<'a, LatentRecommender> {
    Training { config, train: examples, valid: examples, run: Some(run), world, observer, interrupted }
}

/// The first step of Adam moves a weight by about the learning rate, whatever its gradient.
#[test]
fn groups_of_parameters_have_learning_rates_of_their_own_or_none() {
    let group = |prefix: &str, rate| ParameterGroup { prefix: prefix.into(), rate };
    let config = TrainConfig {
        batch: 64,
        max_steps: Some(1),
        warmup: Some(0),
        learning_rate: 1e-4,
        groups: vec![group("attention.", 3.0), group("model.layers.0.", 0.0)],
        ..Default::default()
    };
    let (examples, folder, world) = (examples(), tempfile::tempdir().unwrap(), World::alone());
    let stage = Sft::new(8, Objective::vocabulary());
    let train = |config: &TrainConfig, name: &str| {
        let run = RunFolder::create(&folder.path().join(name), &serde_json::json!({}), Vec::new()).unwrap();
        let mut observer = |_: Event| {};
        training(config, &examples, &run, &world, &mut observer, &GO_ON).start(&stage, small_model(1, 1))?;
        let last: Found<LatentRecommender> =
            Found::last(run.path(), AdamWConfig::default(), &crate::common::device()).unwrap();
        Ok::<_, latentr3::train::TrainError>(weights(&last.trained.model))
    };
    let (before, after) = (weights(&small_model(1, 1)), train(&config, "run").unwrap());
    let moved = |name: &str| {
        let by = before[name].iter().zip(&after[name]).map(|(a, b)| (a - b).abs());
        by.fold(0.0, f32::max)
    };
    assert_eq!(moved("model.layers.0.mlp.up_proj.weight"), 0.0);
    assert!((moved("model.layers.1.mlp.up_proj.weight") - 1e-4).abs() < 2e-6);
    assert!((moved("attention.value.weight") - 3e-4).abs() < 6e-6);
    let unknown = TrainConfig { groups: vec![group("layers.0.", 0.0)], ..config };
    assert!(train(&unknown, "unknown").unwrap_err().to_string().contains("`layers.0.`"));
}

/// After the first step AdamW's first moment is a tenth of the gradient that it was given.
#[test]
fn gradients_are_clipped_by_their_global_norm() {
    let (examples, folder) = (examples(), tempfile::tempdir().unwrap());
    let (world, file) = (World::alone(), folder.path().join("optimizer.safetensors"));
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let stage = Sft::new(64, Objective::vocabulary());
    let given = |clip_norm: f64| {
        let mut optimizer = Optimizer { clip_norm, ..optimizer() };
        let (_, report) = stage.step(small_model(1, 2).train(), &mut optimizer, &local).unwrap();
        optimizer.adamw.save(&file).unwrap();
        let moments = read_tensors(&file).unwrap();
        let first = moments.iter().filter(|(name, _)| name.ends_with(".first")).flat_map(|(_, moment)| &moment.values);
        let norm = 10.0 * first.map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        (norm, report.metrics["gradient_norm"].as_f64().unwrap())
    };
    let (whole, norm) = given(1e9);
    assert!((whole - norm).abs() < 1e-4 * norm, "{whole} {norm}");
    let (clipped, same) = given(norm / 4.0);
    assert_eq!(same, norm, "what is logged is the norm before clipping");
    assert!((clipped - norm / 4.0).abs() < 1e-4 * norm, "{clipped} {norm}");
}

#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let (examples, folder) = (examples(), tempfile::tempdir().unwrap());
    let run = RunFolder::create(&folder.path().join("run"), &serde_json::json!({}), vec![]).unwrap();
    let config = TrainConfig { epochs: 9, batch: 4, learning_rate: 1e-30, patience: Some(2), ..TrainConfig::default() };
    let (world, stage) = (World::alone(), Sft::new(8, Objective::vocabulary()));
    let end = training(&config, &examples, &run, &world, &mut |_| {}, &GO_ON).start(&stage, small_model(1, 5));
    let end = end.unwrap();
    assert_eq!((end.step, end.best_step, end.finished), (3 * 4, Some(4), true));
}

#[test]
fn a_run_that_is_to_be_no_longer_than_it_is_ends_with_a_validation() {
    let (examples, folder) = (examples(), tempfile::tempdir().unwrap());
    let run = RunFolder::create(&folder.path().join("run"), &serde_json::json!({}), vec![]).unwrap();
    let (world, stage, stop) = (World::alone(), Sft::new(8, Objective::vocabulary()), AtomicBool::new(false));
    let mut observer = |event: Event| {
        if let Event::Step { step, .. } = event {
            stop.store(step == 6, Ordering::Relaxed);
        }
    };
    let config = TrainConfig { epochs: 9, batch: 4, ..TrainConfig::default() };
    let end = training(&config, &examples, &run, &world, &mut observer, &stop).start(&stage, small_model(1, 5));
    assert_eq!(end.unwrap().step, 6);
    let last = Found::last(run.path(), config.optimizer, &crate::common::device()).unwrap().trained;
    let config = TrainConfig { max_steps: Some(6), patience: None, ..config };
    let end = training(&config, &examples, &run, &world, &mut |_| {}, &GO_ON).go_on(&stage, last).unwrap();
    assert!(end.finished && end.step == 6 && end.best_step.is_some(), "{end:?}");
}

/// With adapters and without, in stage 2 with a frozen backbone.
#[test]
fn gradient_checkpointing_changes_no_loss_and_no_gradient() {
    let examples = examples();
    let rows: Vec<&Example> = examples.iter().collect();
    let world = World::alone();
    for thoughts in [0, 1, 2] {
        let adapted = small_model(thoughts, 2).with_lora(&LoraConfig::of_rank(2), 1).unwrap();
        for model in [small_model(thoughts, 2), adapted] {
            let model = model.train();
            let gradients = |model: &LatentRecommender| {
                let found = Sft::new(5, Objective::vocabulary()).update(model, &world.local_batch(&rows)).unwrap();
                let names: Vec<String> = found.gradients.names().map(str::to_owned).collect();
                let values: Vec<Vec<f32>> = names.iter().map(|name| read(found.gradients.get(name).unwrap())).collect();
                (read(found.metrics.get("loss").unwrap()), names, values)
            };
            assert_eq!(gradients(&model), gradients(&model.clone().with_gradient_checkpointing()));
        }
    }
    for estimator in [EstimatorKind::Likelihood, EstimatorKind::Score] {
        let config = GrpoConfig { group: 4, sigma: 0.5, estimator, ..Default::default() };
        let model = prepare_model(small_model(1, 1), &config);
        let stage = Grpo::new(config, 8, 3, &model, Objective::vocabulary()).unwrap();
        let again = step(&stage, model.clone().with_gradient_checkpointing());
        assert_eq!(weights(&step(&stage, model)), weights(&again));
    }
}

#[test]
fn the_frozen_backbone_is_bit_equal_after_grpo_and_the_attention_is_not() {
    let (likelihood, score) = (EstimatorKind::Likelihood, EstimatorKind::Score);
    for (estimator, kl, updates) in [(likelihood, 0.0, 1), (likelihood, 0.1, 2), (score, 0.0, 1), (score, 0.1, 2)] {
        let config = GrpoConfig { group: 4, sigma: 0.5, estimator, kl, updates, ..Default::default() };
        let model = prepare_model(small_model(1, 1), &config);
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
    let last = Found::last(run.path(), config.optimizer, &crate::common::device()).unwrap().trained;
    for (name, values) in &weights(&last.model) {
        assert_eq!(before[name] == *values, !name.starts_with("attention."), "{name}");
    }
}

#[test]
fn an_update_that_needs_a_pass_of_its_own_does_not_come_with_the_rollout() {
    let (examples, world) = (examples(), World::alone());
    let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let noise = vec![0.1; local.rows.len() * 4 * 16];
    let config = GrpoConfig { group: 4, ..Default::default() };
    let is_given = |thoughts: usize, config: GrpoConfig| {
        let model = prepare_model(small_model(thoughts, 1), &config);
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
fn the_backbone_trains_in_grpo_where_it_is_asked_to() {
    let config = GrpoConfig { group: 4, sigma: 0.5, train_backbone: true, ..Default::default() };
    let model = prepare_model(small_model(1, 1), &config);
    let before = weights(&model);
    let stage = Grpo::new(config, 8, 3, &model, Objective::vocabulary()).unwrap();
    let after = weights(&step(&stage, model));
    assert!(before.iter().all(|(name, values)| after[name] != *values));
}

#[test]
fn micro_batches_do_not_change_a_step() {
    let examples = examples();
    let batch: Vec<&Example> = examples.iter().collect();
    let world = World::alone();
    let local = world.local_batch(&batch);
    let losses = |micro_batch: usize| {
        let loss = Sft::new(micro_batch, Objective::vocabulary())
            .update(&small_model(1, 2).train(), &local)
            .unwrap()
            .metrics
            .get("loss")
            .unwrap();
        let mut figures = vec![f64::from(read(loss)[0])];
        for estimator in [EstimatorKind::Likelihood, EstimatorKind::Score] {
            let config = GrpoConfig { group: 4, sigma: 0.5, estimator, ..Default::default() };
            let model = prepare_model(small_model(1, 2), &config);
            let stage = Grpo::new(config, micro_batch, 3, &model, Objective::vocabulary()).unwrap();
            let (_, report) = stage.step(model, &mut optimizer(), &local).unwrap();
            figures.extend([report.headline, report.metrics["gradient_norm"].as_f64().unwrap()]);
        }
        figures
    };
    let whole = losses(64);
    for micro_batch in [1, 5, 8] {
        let (others, limits) = (losses(micro_batch), [1e-5, 1e-4, 1e-3, 1e-4, 1e-3]);
        for ((one, other), limit) in whole.iter().zip(&others).zip(limits) {
            assert!((one - other).abs() < limit * one.abs(), "{whole:?} {others:?}");
        }
    }
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
        let model = prepare_model(small_model(1, 4), &config);
        let stage = Grpo::new(config, 8, 0, &model, Objective::vocabulary()).unwrap();
        let (rollouts, one) = stage.roll_out_and_update(&model, &local, &noise).unwrap();
        let rollouts_alone = stage.roll_out(&model, &local, &noise).unwrap();
        assert_eq!(rollouts.rewards, rollouts_alone.rewards);
        let two = stage.update(&model, &local, &rollouts_alone).unwrap();
        assert_same_update(one, two);
    }
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
            prepare_model(start.clone(), &config),
        );
        let update = |config: GrpoConfig| {
            let stage = Grpo::new(config, 8, 0, &start, Objective::vocabulary()).unwrap();
            let (rollouts, update) = stage.roll_out_and_update(&model, &local, &noise).unwrap();
            let again = stage.update(&model, &local, &rollouts).unwrap();
            let kl = |update: &LocalUpdate| update.metrics.get("kl").map(|kl| read(kl)[0]);
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

fn assert_same_update(one: LocalUpdate, two: LocalUpdate) {
    assert!(one.metrics.iter().map(|(name, _)| name).eq(two.metrics.iter().map(|(name, _)| name)));
    for ((name, one), (_, two)) in one.metrics.iter().zip(two.metrics.iter()) {
        let [one, two] = [one, two].map(|figure| read(figure.clone())[0]);
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

#[test]
fn training_lowers_the_loss_and_keeps_the_best() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(&folder.path().join("run"), &serde_json::json!({}), vec![]).unwrap();
    let examples = examples();
    let config = TrainConfig {
        epochs: 12,
        batch: 4,
        learning_rate: 1e-2,
        warmup: Some(2),
        patience: None,
        ..Default::default()
    };
    let model = small_model(1, 5);
    let world = World::alone();
    let before = likelihood(
        &model,
        &Objective::vocabulary(),
        &examples,
        &ValidationPass { micro_batch: 4, world: &world, interrupted: &GO_ON },
    )
    .unwrap();
    let end = training(&config, &examples, &run, &world, &mut |_| {}, &GO_ON)
        .start(&Sft::new(3, Objective::vocabulary()), model);
    let end = end.unwrap();
    assert_eq!((end.step, end.finished), (12 * 4, true));
    let best = latentr3::models::hub::load(&run.best(), &crate::common::device()).unwrap();
    let after = likelihood(
        &best,
        &Objective::vocabulary(),
        &examples,
        &ValidationPass { micro_batch: 4, world: &world, interrupted: &GO_ON },
    )
    .unwrap();
    assert!((after.loss + end.best.unwrap().score).abs() < 1e-5);
    assert!(after.loss < 0.7 * before.loss, "{} {}", after.loss, before.loss);
}

/// A read makes the host wait for the device, so that steps read what they decide by, and nothing else.
#[test]
fn a_step_reads_once_from_the_device_for_each_decision() {
    let examples = examples();
    let batch: Vec<&Example> = examples.iter().collect();
    let world = World::alone();
    let local = world.local_batch(&batch);
    let reads_of = |stage: &dyn Stage<LatentRecommender>, model: LatentRecommender| {
        let before = reads();
        stage.step(model, &mut optimizer(), &local).unwrap();
        reads() - before
    };
    // Whether the loss and the gradients' norm are numbers, and what to clip by.
    assert_eq!(reads_of(&Sft::new(3, Objective::vocabulary()), small_model(1, 2).train()), 1);
    // The rewards besides, by which the advantages are made; then one for each update.
    for estimator in [EstimatorKind::Likelihood, EstimatorKind::Score] {
        for (updates, kl, sigma_relative) in [(1, 0.0, None), (1, 0.0, Some(0.3)), (3, 0.1, None)] {
            let config = GrpoConfig { group: 4, estimator, updates, kl, sigma_relative, ..Default::default() };
            let model = prepare_model(small_model(1, 2), &config);
            let stage = Grpo::new(config, 3, 3, &model, Objective::vocabulary()).unwrap();
            assert_eq!(reads_of(&stage, model), 1 + updates);
        }
    }
}

#[test]
fn a_search_reads_once_for_each_pass_of_the_model() {
    // Titles of one length whose tokens are all free, so that every token needs a pass.
    let titles: Vec<Vec<u32>> = (0..64).map(|i| vec![1 + i / 16, 5 + i / 4 % 4, 9 + i % 4, 0]).collect();
    let prompts: [&[u32]; 3] = [&[1, 2, 3], &[4, 5], &[6, 7, 8, 9]];
    let model = small_model(1, 2);
    let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&titles).unwrap());
    let before = reads();
    beam_search(&model, &objective, &prompts, BeamConfig::default()).unwrap();
    assert_eq!(reads() - before, 4);
}

#[test]
fn a_hopeless_target_leaves_the_other_advantages_defined() {
    let examples = examples();
    let batch: Vec<&Example> = examples.iter().collect();
    let world = World::alone();
    let config = GrpoConfig { group: 4, sigma: 0.5, ..Default::default() };
    let model = prepare_model(small_model(1, 2), &config);
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
