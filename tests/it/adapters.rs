//! Low-rank adapters: their files, and what trains.

use crate::common::close::assert_close;
use crate::common::small::{self, small_model, weights};
use burn::module::Module;
use latentr3::models::{LatentRecommender, LoraConfig, Objective, Precision, hub};
use latentr3::train::sft::Sft;
use latentr3::train::{Example, World};

fn example(prompt: &[u32], target: &[u32]) -> Example {
    Example { prompt: prompt.to_vec(), target: target.to_vec(), item: 0, row: 0 }
}

fn log_probs(model: &LatentRecommender) -> Vec<f32> {
    small::log_probs(model, &[&[1, 2, 3, 4], &[1, 2, 9]], &[&[7, 0], &[3, 3, 0]])
}

#[test]
fn fresh_adapters_change_nothing_and_train_alone_with_the_thoughts() {
    let base = small_model(1, 5);
    let adapted = base.clone().with_lora(&LoraConfig::of_rank(2), 1).unwrap();
    // A device may take other kernels the second time, so that the last bit differs.
    assert_close(&log_probs(&adapted), &log_probs(&base), 1e-6);

    let adapted = adapted.train();
    let example = example(&[1, 2, 3], &[4, 5]);
    let world = World::alone();
    let gradients =
        Sft::new(1, Objective::vocabulary()).update(&adapted, &world.local_batch(&[&example])).unwrap().gradients;
    let is_new = |name: &str| name.starts_with("attention.") || name.contains(".lora_");
    assert!(gradients.names().all(is_new));
    assert!(gradients.names().any(|name| name.starts_with("attention.")));
    assert!(gradients.names().any(|name| name.contains(".mlp.down_proj.lora_B.")));
}

/// Also where the adapters came from a file: whoever starts from such a model trains all of it.
#[test]
fn a_merged_model_trains_like_any_other() {
    let rows = [example(&[1, 2, 3], &[4, 5]), example(&[1, 2, 9], &[6])];
    let world = World::alone();
    let names = |model: LatentRecommender| {
        let local = world.local_batch(&rows.iter().collect::<Vec<_>>());
        let found = Sft::new(2, Objective::vocabulary()).update(&model.train(), &local).unwrap();
        found.gradients.names().map(str::to_owned).collect::<Vec<_>>()
    };
    let base = small_model(1, 5);
    let merged = base.clone().with_lora(&LoraConfig::of_rank(2), 1).unwrap().merged();
    assert_eq!(weights(&base), weights(&merged));
    assert_eq!(names(base), names(merged));
}

/// The last projection has no part in any key or value, so that nothing goes back through the prompts' common
/// beginning.
#[test]
fn adapters_that_the_common_beginning_does_not_pass_train() {
    let lora = LoraConfig { targets: vec!["model.layers.1.mlp.down_proj".into()], ..LoraConfig::of_rank(2) };
    let model = small_model(0, 5).with_lora(&lora, 1).unwrap().train();
    let rows = [example(&[1, 2, 3], &[4, 5]), example(&[1, 2, 9], &[6])];
    let world = World::alone();
    let local = world.local_batch(&rows.iter().collect::<Vec<_>>());
    let found = Sft::new(2, Objective::vocabulary()).update(&model, &local).unwrap();
    assert_eq!(found.gradients.names().count(), 2);
}

#[test]
fn adapters_come_back_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let targets = vec!["v_proj".into(), "model.layers.0.mlp.up_proj".into()];
    let lora = LoraConfig { rank: 3, alpha: 5.0, targets, base: Some("elsewhere".into()) };
    let model = small_model(1, 6).with_lora(&lora, 1).unwrap();
    hub::save(&model, folder.path()).unwrap();
    let again = hub::load_with_adapter(folder.path(), &crate::common::device(), Precision::F32).unwrap();
    assert_eq!(again.lora(), Some(&lora));
    assert_eq!(weights(&model), weights(&again));

    // A model without adapters leaves none behind.
    hub::save(&again.merged(), folder.path()).unwrap();
    assert!(hub::load_with_adapter(folder.path(), &crate::common::device(), Precision::F32).unwrap().lora().is_none());
}

#[test]
fn what_is_no_plain_adapter_is_refused() {
    let model = small_model(1, 7);
    let config = |rank, targets: &[&str]| LoraConfig {
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
        ..LoraConfig::of_rank(rank)
    };
    for (config, part) in [
        (config(0, &["q_proj"]), "got 0"),
        (config(1, &["proj"]), "`proj`"),
        (config(1, &[]), "at least one projection"),
        (config(17, &["k_proj"]), "exceeds both"),
    ] {
        let error = model.clone().with_lora(&config, 0).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    hub::save(&model.with_lora(&config(2, &["q_proj"]), 0).unwrap(), folder.path()).unwrap();
    let path = folder.path().join("adapter_config.json");
    let plain: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (field, value) in [
        ("use_dora", true.into()),
        ("init_lora_weights", "pissa_niter_16".into()),
        ("init_lora_weights", "lora_ga".into()),
        ("init_lora_weights", "OLoRA".into()),
        ("use_rslora", 1.into()),
        ("r", 60_000.into()),
        ("peft_type", "IA3".into()),
        ("r", 0.into()),
        ("r", 3.into()),
        ("lora_alpha", "much".into()),
        ("modules_to_save", serde_json::json!(["lm_head"])),
        ("layers_to_transform", serde_json::json!([0])),
        ("use_what_comes_next", true.into()),
    ] {
        let mut changed = plain.clone();
        changed[field] = value;
        std::fs::write(&path, changed.to_string()).unwrap();
        assert!(hub::load(folder.path(), &crate::common::device()).is_err(), "{field}");
    }
    let mut harmless = plain.clone();
    (harmless["lora_dropout"], harmless["revision"]) = (0.1.into(), "main".into());
    std::fs::write(&path, harmless.to_string()).unwrap();
    assert!(hub::load(folder.path(), &crate::common::device()).is_ok());
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    let error = hub::load(folder.path(), &crate::common::device()).unwrap_err().to_string();
    assert!(error.contains("base_model_name_or_path"), "{error}");
}
