//! Low-rank adapters against PEFT's arithmetic.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use latentr3::models::host::read;
use latentr3::models::{Objective, Precision, ThoughtKind, hub};
use latentr3::train::sft::Sft;
use latentr3::train::{Example, World};
use serde::Deserialize;

use crate::common;
use crate::common::close::assert_close;

/// What PEFT computes in float64; see `tests/data/adapter/make.py`.
#[derive(Deserialize)]
struct Expected {
    tokens: Vec<Vec<u32>>,
    last_logits: Vec<Vec<f64>>,
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
}

const FOLDER: &str = "tests/data/adapter";

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(Path::new(FOLDER).join("expected.json")).unwrap()).unwrap()
}

#[test]
fn golden_adapter_of_peft_apart_and_merged() {
    let Expected { tokens, last_logits, .. } = expected();
    let prompts: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let device = common::device();
    let apart = hub::load_with_adapter(Path::new(FOLDER), &device, Precision::F32).unwrap();
    assert_eq!(apart.lora().unwrap().rank, 3);
    let merged = hub::load(Path::new(FOLDER), &device).unwrap();
    assert!(merged.lora().is_none());
    for model in [apart, merged] {
        let state = model.prefill(&prompts).unwrap();
        assert_close(&read(model.backbone.logits(state.last_hidden())), &last_logits.concat(), 1e-5);
    }
}

#[test]
fn golden_gradients_of_peft() {
    let Expected { tokens, loss, gradients, .. } = expected();
    let model = hub::load_with_adapter(Path::new(FOLDER), &common::device(), Precision::F32).unwrap();
    let model = model.with_thoughts(ThoughtKind::LastHidden, 0, 0).unwrap().train();
    let example = |row: &Vec<u32>| Example { prompt: row[..6].to_vec(), target: row[6..].to_vec(), item: 0, row: 0 };
    let examples: Vec<Example> = tokens.iter().map(example).collect();
    let rows: Vec<&Example> = examples.iter().collect();
    for micro_batch in [1, 2] {
        let world = World::alone();
        let ours = Sft::new(micro_batch, Objective::vocabulary()).update(&model, &world.local_batch(&rows)).unwrap();
        assert!((ours.metrics.get("loss").unwrap() - loss).abs() < 1e-5 * loss);
        assert!(ours.gradients.names().eq(gradients.keys()), "others train");
        for (name, golden) in &gradients {
            println!("{name}");
            assert_close(&read(ours.gradients.get(name).unwrap()), golden, 1e-4);
        }
    }
}
