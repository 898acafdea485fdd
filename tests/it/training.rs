//! What must hold of training whatever the data is.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::examples::examples;
use crate::common::small::{small_model, weights};
use crate::common::training::{GO_ON, likelihood, optimizer, step, training};
use burn::module::Module;
use latentr3::models::host::read;
use latentr3::models::hub::read_tensors;
use latentr3::models::{LatentRecommender, LoraConfig, Objective, Precision};
use latentr3::train::grpo::{EstimatorKind, Grpo, GrpoConfig, freeze_untrained};
use latentr3::train::sft::Sft;
use latentr3::train::{
    AdamWConfig, Event, Example, Found, Optimizer, ParameterGroup, RunFolder, Stage, TrainConfig, World,
};

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
            Found::last(run.path(), AdamWConfig::default(), &crate::common::device(), Precision::F32).unwrap();
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
        let (model, report) = stage.step(small_model(1, 2).train(), &mut optimizer, &local).unwrap();
        optimizer.adamw.save(&file, &model).unwrap();
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
    let last = Found::last(run.path(), config.optimizer, &crate::common::device(), Precision::F32).unwrap().trained;
    let config = TrainConfig { max_steps: Some(6), patience: None, ..config };
    let end = training(&config, &examples, &run, &world, &mut |_| {}, &GO_ON).resume(&stage, last).unwrap();
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
                (found.metrics.get("loss").unwrap(), names, values)
            };
            assert_eq!(gradients(&model), gradients(&model.clone().with_gradient_checkpointing()));
        }
    }
    for estimator in [EstimatorKind::Likelihood, EstimatorKind::Score] {
        let config = GrpoConfig { group: 4, sigma: 0.5, estimator, ..Default::default() };
        let model = freeze_untrained(small_model(1, 1), &config);
        let stage = Grpo::new(config, 8, 3, &model, Objective::vocabulary()).unwrap();
        let again = step(&stage, model.clone().with_gradient_checkpointing());
        assert_eq!(weights(&step(&stage, model)), weights(&again));
    }
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
        let mut figures = vec![loss];
        for estimator in [EstimatorKind::Likelihood, EstimatorKind::Score] {
            let config = GrpoConfig { group: 4, sigma: 0.5, estimator, ..Default::default() };
            let model = freeze_untrained(small_model(1, 2), &config);
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
    let before = likelihood(&model, &Objective::vocabulary(), &examples, 4);
    let end = training(&config, &examples, &run, &world, &mut |_| {}, &GO_ON)
        .start(&Sft::new(3, Objective::vocabulary()), model);
    let end = end.unwrap();
    assert_eq!((end.step, end.finished), (12 * 4, true));
    let best = latentr3::models::hub::load(&run.best(), &crate::common::device()).unwrap();
    let after = likelihood(&best, &Objective::vocabulary(), &examples, 4);
    assert!((after.loss + end.best.unwrap().score).abs() < 1e-5);
    assert!(after.loss < 0.7 * before.loss, "{} {}", after.loss, before.loss);
}
