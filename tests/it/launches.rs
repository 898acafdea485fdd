//! What a training step asks of a GPU, which a software driver counts as well as a card. On a CPU there is nothing to
//! count: the test does something only where `LATENTR3_TEST_DEVICE` names a GPU.

use latentr3::models::driver;
use serde_json::Value;

use crate::common::device;
use crate::common::program::{Workshop, succeed};

const LAYERS: [&str; 2] = ["2", "6"];

/// Launches that each further layer adds to a step which follows one of other rows.
fn launches_of_a_layer(w: &Workshop, stage: &[&str]) -> f64 {
    let device = std::env::var("LATENTR3_TEST_DEVICE").expect("the test runs on a GPU");
    let data = w.path("prepared");
    let [few, many] = LAYERS.map(|layers| {
        let model = w.path(layers);
        let steps = ["--model", &model, "--data", &data, "--device", &device, "--steps", "1", "--warm-up", "1"];
        let found: Value = serde_json::from_str(&succeed(&[&["bench"], stage, &steps].concat())).unwrap();
        found["launches"][0].as_f64().unwrap()
    });
    (many - few) / 4.0
}

#[test]
fn a_layer_launches_few_kernels() {
    if driver(&device()).is_none() {
        return;
    }
    let w = Workshop::new();
    let tokenizer = w.path("prepared/tokenizer.json");
    for layers in LAYERS {
        let (model, sizes) = (w.path(layers), ["--hidden", "64", "--heads", "4", "--kv-heads", "2", "--ff", "96"]);
        let paths = ["init", "--out", &model, "--tokenizer", &tokenizer, "--layers", layers, "--quiet"];
        succeed(&[&paths, &sizes[..]].concat());
    }
    let stage_1 = launches_of_a_layer(&w, &["sft", "--batch", "8"]);
    let stage_2 = launches_of_a_layer(&w, &["grpo", "--batch", "64", "--group", "8"]);
    println!("launches of a layer: {stage_1} in stage 1, {stage_2} in stage 2");
    assert!(stage_1 <= 259.0 && stage_2 <= 95.0, "{stage_1} in stage 1, {stage_2} in stage 2");
}
