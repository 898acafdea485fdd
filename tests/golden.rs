//! Every figure of the method against what PyTorch computes in float64.
//!
//! Each folder under `tests/data/golden`, or under `LATENTR3_GOLDEN_DIR` where that is set, holds a small checkpoint and
//! `golden.json`. No test knows a size: folders with other sizes must pass too. `LATENTR3_TEST_DEVICE` chooses the device.

mod common;

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Tensor;
use latentr3::models::decode::{BeamConfig, ItemTrie, beam_search};
use latentr3::models::{LatentRecommender, ThoughtKind, hub};
use latentr3::train::grpo::{AdvantageKind, Grpo, GrpoConfig, Rollouts, baseline, prepare_model};
use latentr3::train::sft::Sft;
use latentr3::train::{Example, Gradients};
use serde_json::Value;

/// Largest relative error of a tensor, to its largest value.
const TOLERANCE: f64 = 1e-4;
/// The same for gradients of stage 2.
const GRPO_GRADIENT_TOLERANCE: f64 = 1e-3;

struct Golden {
    name: String,
    values: Value,
    model: LatentRecommender,
}

fn goldens() -> Vec<Golden> {
    let root = std::env::var("LATENTR3_GOLDEN_DIR").map_or_else(|_| PathBuf::from("tests/data/golden"), PathBuf::from);
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("golden.json").exists()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "no golden folder under {}", root.display());
    let load = |folder: PathBuf| Golden {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        values: hub::read_json(&folder.join("golden.json")).unwrap(),
        model: hub::load(&folder, 0, &common::device()).unwrap(),
    };
    folders.into_iter().map(load).collect()
}

impl Golden {
    fn rows(&self, key: &str) -> Vec<Vec<u32>> {
        serde_json::from_value(self.values[key].clone()).unwrap()
    }

    fn examples(&self) -> Vec<Example> {
        let row = |(row, (prompt, target))| Example { prompt, target, item: 0, row };
        self.rows("prompts").into_iter().zip(self.rows("targets")).enumerate().map(row).collect()
    }

    fn with_thoughts(&self, thoughts: usize) -> LatentRecommender {
        self.model.clone().with_thoughts(ThoughtKind::LatentAttention, thoughts, 0).unwrap()
    }

    fn check(&self, what: &str, got: &[f64], expected: &Value, tolerance: f64) {
        let expected = numbers(expected);
        assert_eq!(got.len(), expected.len(), "{}: {what}", self.name);
        assert!(got.iter().all(|value| value.is_finite()), "{}: {what}: not finite", self.name);
        let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let error =
            got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest.max(f64::MIN_POSITIVE);
        assert!(error <= tolerance, "{}: {what}: relative error {error:.2e}", self.name);
    }

    /// Losses may be sums that cancel: 1e-4 relative or 1e-5 absolute.
    fn check_loss(&self, what: &str, got: f64, expected: &Value) {
        let expected = expected.as_f64().unwrap();
        let error = (got - expected).abs();
        assert!(error <= 1e-4 * expected.abs() || error <= 1e-5, "{}: {what}: {got}, expected {expected}", self.name);
    }

    fn check_gradients(&self, gradients: &Gradients, expected: &Value, tolerance: f64) {
        let expected = expected.as_object().unwrap();
        assert!(!expected.is_empty());
        for (key, expected) in expected {
            // `NAME` or `NAME rows [1, 2, 3]`
            let (name, rows) = key.split_once(" rows ").map_or((key.as_str(), None), |(name, rows)| (name, Some(rows)));
            let gradient = gradients.get(name).unwrap_or_else(|| panic!("{}: no gradient of {name}", self.name));
            let width = gradient.dims()[1];
            let mut values = host(gradient);
            if let Some(rows) = rows {
                let rows: Vec<usize> = serde_json::from_str(rows).unwrap();
                values = rows.iter().flat_map(|row| values[row * width..(row + 1) * width].to_vec()).collect();
            }
            self.check(key, &values, &expected["values"], tolerance);
        }
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.inner().into_data_as::<f32>().iter::<f32>().map(f64::from).collect()
}

fn slices(rows: &[Vec<u32>]) -> Vec<&[u32]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn per_row<T: Clone>(flat: &[f64], lengths: &[usize], make: impl Fn(&[f64]) -> T) -> Vec<T> {
    let mut start = 0;
    let row = |length: &usize| {
        start += length;
        make(&flat[start - length..start])
    };
    lengths.iter().map(row).collect()
}

#[test]
fn golden_last_hidden_states_and_thoughts() {
    for golden in goldens() {
        let prompts = golden.rows("prompts");
        let state = golden.model.prefill(&slices(&prompts)).unwrap();
        golden.check("last hidden", &host(state.last_hidden()), &golden.values["last_hidden"], TOLERANCE);
        for (thoughts, key) in [(1, "thought"), (2, "thought_2nd")] {
            let model = golden.with_thoughts(thoughts);
            let mut state = model.prefill(&slices(&prompts)).unwrap();
            let thought = model.think(&mut state).unwrap();
            golden.check(key, &host(thought), &golden.values[key], TOLERANCE);
        }
    }
}

#[test]
fn golden_target_log_probabilities_with_any_number_of_thoughts() {
    for golden in goldens() {
        let (prompts, targets) = (golden.rows("prompts"), golden.rows("targets"));
        for (thoughts, key) in [(0, "target_logps_no_thought"), (1, "target_logps"), (2, "target_logps_two_thoughts")] {
            let model = golden.with_thoughts(thoughts);
            let mut state = model.prefill(&slices(&prompts)).unwrap();
            let thought = model.think(&mut state);
            let log_probs = model.target_log_probs(&state, thought, &slices(&targets)).unwrap();
            golden.check(key, &host(log_probs.values), &golden.values[key], TOLERANCE);
        }
    }
}

#[test]
fn golden_sft_loss_and_gradients_in_any_micro_batch() {
    for golden in goldens() {
        let examples = golden.examples();
        let batch: Vec<&Example> = examples.iter().collect();
        let model = golden.with_thoughts(1).train();
        for micro_batch in [1, 2, 3] {
            let result = Sft { micro_batch }.gradients(&model, &batch).unwrap();
            golden.check_loss("sft loss", result.loss, &golden.values["sft"]["loss"]);
            golden.check_gradients(&result.gradients, &golden.values["sft"]["grads"], TOLERANCE);
        }
    }
}

/// The stage with standard deviation 1, so that the golden noise is added as it is.
fn grpo(golden: &Golden, kind: AdvantageKind, kl: f64, micro_batch: usize) -> Grpo {
    let group = golden.values["noise"][0].as_array().unwrap().len();
    let clip = numbers(&golden.values["grpo"]["clip"]);
    let config = GrpoConfig {
        group,
        sigma: 1.0,
        advantage: kind,
        kl,
        clip_low: clip[0],
        clip_high: clip[1],
        ..Default::default()
    };
    Grpo::new(config, micro_batch, 0, &golden.model).unwrap()
}

fn noise(golden: &Golden) -> Vec<f32> {
    numbers(&golden.values["noise"]).into_iter().map(|value| value as f32).collect()
}

#[test]
fn golden_grpo_rewards_advantages_loss_and_gradients_from_one_pass() {
    for golden in goldens() {
        let examples = golden.examples();
        let batch: Vec<&Example> = examples.iter().collect();
        for (kind, key) in [(AdvantageKind::Batch, "batch_advantage"), (AdvantageKind::Group, "group_advantage")] {
            let expected = &golden.values["grpo"][key];
            for micro_batch in [1, 64] {
                let mut stage = grpo(&golden, kind, 0.0, micro_batch);
                let model = prepare_model(golden.with_thoughts(1), &stage.config);
                let rollouts = stage.roll_out(&model, &batch, &noise(&golden)).unwrap();
                let log_probs: Vec<f64> = rollouts.log_probs.iter().flatten().map(|&value| f64::from(value)).collect();
                golden.check("log-probabilities", &log_probs, &expected["logps"], TOLERANCE);
                golden.check("rewards", &rollouts.rewards, &expected["reward"], TOLERANCE);
                golden.check(
                    "baseline",
                    &[baseline(&rollouts.rewards, stage.config.group)],
                    &expected["baseline"],
                    TOLERANCE,
                );
                golden.check("advantages", &rollouts.advantages, &expected["advantage"], TOLERANCE);

                let advantages = numbers(&expected["advantage"]);
                stage.advantage = Box::new(move |_, _| advantages.clone());
                let (_, update) = stage.roll_out_and_update(&model, &batch, &noise(&golden)).unwrap();
                golden.check_loss("loss", update.loss, &expected["loss"]);
                golden.check_gradients(&update.gradients, &expected["grads"], GRPO_GRADIENT_TOLERANCE);
                let trained: Vec<&str> = update.gradients.names().collect();
                assert!(
                    trained.iter().all(|name| name.starts_with("attention.")),
                    "the backbone is frozen: {trained:?}"
                );
            }
        }
    }
}

#[test]
fn golden_grpo_updates_off_policy_with_clipping_and_kl() {
    for golden in goldens() {
        let examples = golden.examples();
        let batch: Vec<&Example> = examples.iter().collect();
        for (kind, key) in [
            (AdvantageKind::Batch, "batch_advantage"),
            (AdvantageKind::Group, "group_advantage"),
            (AdvantageKind::Batch, "clipped_with_kl"),
        ] {
            let expected = &golden.values["grpo"][key];
            let stage = grpo(&golden, kind, expected["beta"].as_f64().unwrap_or(0.0), 1);
            let model = prepare_model(golden.with_thoughts(1), &stage.config);
            let lengths: Vec<usize> =
                examples.iter().flat_map(|row| vec![row.target.len(); stage.config.group]).collect();
            let rows = |key: &str| {
                per_row(&numbers(&expected[key]), &lengths, |row| {
                    row.iter().map(|&value| value as f32).collect::<Vec<f32>>()
                })
            };
            let old = if expected["old_logps"].is_null() { "logps" } else { "old_logps" };
            let rollouts = Rollouts {
                noise: noise(&golden),
                log_probs: rows(old),
                reference: (!expected["ref_logps"].is_null()).then(|| rows("ref_logps")),
                rewards: numbers(&expected["reward"]),
                advantages: numbers(&expected["advantage"]),
                thought_norms: vec![0.0; batch.len()],
            };
            let update = stage.update(&model, &batch, &rollouts).unwrap();
            golden.check_loss("loss", update.loss, &expected["loss"]);
            if let Some(kl) = expected["kl"].as_f64() {
                golden.check_loss("kl", update.kl.unwrap(), &kl.into());
            }
            golden.check_gradients(&update.gradients, &expected["grads"], GRPO_GRADIENT_TOLERANCE);
        }
    }
}

#[test]
fn golden_catalog_scores_and_ranking() {
    for golden in goldens() {
        let (prompts, catalog) = (golden.rows("prompts"), golden.rows("catalog"));
        let model = golden.with_thoughts(1);
        // All items of all prompts as rows of one batch.
        let mut state = model.prefill(&slices(&prompts)).unwrap();
        let thought = model.think(&mut state).unwrap();
        let [rows, width] = thought.dims();
        let thought = thought.unsqueeze_dim::<3>(1).repeat_dim(1, catalog.len()).reshape([rows * catalog.len(), width]);
        let targets: Vec<&[u32]> = prompts.iter().flat_map(|_| slices(&catalog)).collect();
        let log_probs = model.target_log_probs(&state, Some(thought), &targets).unwrap();
        let scores = per_row(&host(log_probs.values), &log_probs.lengths, |row| row.iter().sum::<f64>());
        golden.check("catalog scores", &scores, &golden.values["catalog_scores"], TOLERANCE);

        let trie = ItemTrie::new(&catalog).unwrap();
        let config = BeamConfig { beams: catalog.len(), length_penalty: 1.0 };
        let found = beam_search(&model, &trie, &slices(&prompts), config).unwrap();
        for (row, hypotheses) in found.iter().enumerate() {
            let expected: Vec<u32> = serde_json::from_value(golden.values["ranking"][row].clone()).unwrap();
            let ranking: Vec<u32> = hypotheses.iter().flat_map(|hypothesis| hypothesis.items.clone()).collect();
            assert_eq!(ranking, expected, "{}: ranking of prompt {row}", golden.name);
        }
    }
}
