//! The temperature of the loss of stage 1, fixed and adaptive.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::catalog::{END, examples, items, objective};
use crate::common::small::small_model;
use crate::common::training::{likelihood, training};
use burn::module::Module;
use latentr3::models::{LatentRecommender, Precision, ThoughtKind};
use latentr3::train::sft::Sft;
use latentr3::train::{Event, Example, Found, RunFolder, Temperature, TrainConfig, World};

#[test]
fn a_temperature_divides_the_logits_of_the_loss_and_nothing_else() {
    let (items, world) = (items(), World::alone());
    let (objective, examples) = (objective(&items), examples(&items));
    let rows: Vec<&Example> = examples.iter().collect();
    let loss = |stage: &Sft, model: &LatentRecommender| {
        let update = stage.update(&model.clone().train(), &world.local_batch(&rows)).unwrap();
        update.metrics.get("loss").unwrap()
    };
    let model = small_model(1, 3);
    // With the norm before the output matrix halved, the logits are, but so are the hidden states that the thought is
    // made of: without one.
    let model = model.with_thoughts(ThoughtKind::LastHidden, 0, 0).unwrap();
    let mut halved = model.clone();
    halved.backbone.model.norm.weight = halved.backbone.model.norm.weight.map(|weight| weight.div_scalar(2.0));
    let (plain, warm) = (Sft::new(2, objective.clone()), Temperature::Fixed(2.0));
    let warm = Sft { temperature: warm, ..plain.clone() };
    assert!((loss(&warm, &model) - loss(&plain, &halved)).abs() < 1e-5);
    assert!((loss(&warm, &model) - loss(&plain, &model)).abs() > 1e-2);
    let validation = likelihood(&model, &warm.objective, &examples, 2);
    assert!((validation.loss - loss(&plain, &model)).abs() < 1e-4);
}

/// The temperature that adapts is part of the checkpoint.
#[test]
fn a_run_whose_temperature_adapts_resumes_with_identical_results() {
    // A wide choice at the root, or there would be nothing to adapt to.
    let items: Vec<Vec<u32>> = (1..30).map(|token| vec![token, END]).collect();
    let row = |row: usize| Example {
        prompt: vec![1 + row as u32 % 7, 2, 3],
        target: items[row % 5].clone(),
        item: row % 5,
        row,
    };
    let examples: Vec<Example> = (0..12).map(row).collect();
    let stage = Sft { temperature: Temperature::Adaptive, ..Sft::new(2, objective(&items)) };
    let config = TrainConfig { epochs: 12, batch: 4, learning_rate: 5e-2, patience: None, ..Default::default() };
    let (folder, world) = (tempfile::tempdir().unwrap(), World::alone());
    let log = |name: &str| std::fs::read_to_string(folder.path().join(name).join("metrics.jsonl")).unwrap();
    for (name, stop_after) in [("whole", None), ("stopped", Some(4))] {
        let run = RunFolder::create(&folder.path().join(name), &serde_json::json!({}), vec![]).unwrap();
        let stop = AtomicBool::new(false);
        let train = |observer: &mut dyn FnMut(Event), from: Option<_>| {
            let training = training(&config, &examples, &run, &world, observer, &stop);
            match from {
                None => training.start(&stage, small_model(1, 3)).unwrap(),
                Some(trained) => training.resume(&stage, trained).unwrap(),
            }
        };
        let mut observer = |event: Event| {
            if let Event::Step { step, .. } = event {
                stop.store(stop_after == Some(step), Ordering::Relaxed);
            }
        };
        let end = train(&mut observer, None);
        assert_eq!(end.finished, stop_after.is_none());
        if !end.finished {
            stop.store(false, Ordering::Relaxed);
            let last =
                Found::last(run.path(), config.optimizer, &crate::common::device(), Precision::F32).unwrap().trained;
            assert!(train(&mut |_| {}, Some(last)).finished);
        }
    }
    assert_eq!(log("whole"), log("stopped"));
    let temperatures: Vec<f64> = log("whole")
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["temperature"].as_f64())
        .collect();
    assert!(temperatures[0] == 1.5 && temperatures.iter().any(|&temperature| temperature > 1.5), "{temperatures:?}");
    assert!(temperatures.iter().all(|temperature| (1.5..=5.0).contains(temperature)));
}
