//! What training and search ask of a GPU, which a software driver counts as well as a card. On a CPU there is nothing to
//! count: the test does something only where `LATENTR3_TEST_DEVICE` names a GPU.

use latentr3::models::driver;
use serde_json::Value;

use crate::common::device;
use crate::common::program::{Workshop, succeed};

const LAYERS: [&str; 2] = ["2", "6"];

/// What each further layer adds to the launches that `of` finds in what `bench` prints.
fn launches_of_a_layer(w: &Workshop, what: &[&str], mut of: impl FnMut(&Value) -> f64) -> f64 {
    let device = std::env::var("LATENTR3_TEST_DEVICE").expect("the test runs on a GPU");
    let data = w.path("prepared");
    let [few, many] = LAYERS.map(|layers| {
        let model = w.path(layers);
        let where_and_on = ["--model", &model, "--data", &data, "--device", &device];
        of(&serde_json::from_str(&succeed(&[&["bench"], what, &where_and_on].concat())).unwrap())
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
    // Steps that follow one of other rows: the most new kernels of all, and transfers of one.
    let (mut new_kernels, mut transfers) = (0, 0);
    let mut step = |found: &Value| {
        let of_steps = |key: &str| found[key].as_array().unwrap().iter().map(|count| count.as_u64().unwrap());
        new_kernels = new_kernels.max(of_steps("new_kernels").sum());
        transfers =
            of_steps("uploads").zip(of_steps("downloads")).map(|(up, down)| up + down).fold(transfers, u64::max);
        found["launches"][0].as_f64().unwrap()
    };
    let later = ["--objective", "catalog", "--steps", "3", "--warm-up", "1"];
    let stage_1 = launches_of_a_layer(&w, &[&["sft", "--batch", "8"], &later[..]].concat(), &mut step);
    let rollouts = ["grpo", "--batch", "64", "--group", "8"];
    let stage_2 = launches_of_a_layer(&w, &[&rollouts, &later[..]].concat(), &mut step);
    let pass = |found: &Value| found["launches"].as_f64().unwrap() / found["downloads"].as_f64().unwrap();
    let search = launches_of_a_layer(&w, &["eval", "--users", "4", "--batch", "4"], pass);
    let found = format!("{stage_1} in stage 1, {stage_2} in stage 2, {search} in a pass of the search");
    println!(
        "launches of a layer: {found}; {new_kernels} new kernels in three later steps, {transfers} transfers in one"
    );
    assert_eq!(new_kernels, 0, "a kernel that an earlier step did not have");
    assert!(transfers <= 8, "{transfers} transfers in a step");
    assert!(stage_1 <= 99.0 && stage_2 <= 39.0 && search <= 16.5, "{found}");
}
