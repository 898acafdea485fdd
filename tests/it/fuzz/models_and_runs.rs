//! Models, runs, and results of evaluations.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{copy_of, fuzz, fuzz_file, workshop};
use crate::common::program::succeed;
use latentr3::data::{encode, load_tokenizer};
use latentr3::eval::EvaluationResult;
use latentr3::golden::Golden;
use latentr3::models::hub::read_tensors;
use latentr3::models::sasrec::{SasRec, SasRecConfig};
use latentr3::models::{LatentRecommender, Precision, device, hub};
use latentr3::train::{AdamWConfig, RunFolder};
use serde_json::json;

#[test]
fn models() {
    let (_copy, folder) = copy_of("sft/best");
    fs::remove_file(folder.join("SHA256SUMS")).unwrap();
    let flex = device("flex").unwrap();
    for file in ["config.json", "model.safetensors"] {
        fuzz_file("models", &folder.join(file), || drop(hub::load(&folder, &flex)));
    }
    let (_copy_with_adapter, with_adapter) = copy_of("adapted/best");
    fs::remove_file(with_adapter.join("SHA256SUMS")).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fuzz_file("adapters", &with_adapter.join(file), || drop(hub::load(&with_adapter, &flex)));
    }
    fuzz_file("tokenizers", &folder.join("tokenizer.json"), || {
        if let Ok(tokenizer) = load_tokenizer(&folder.join("tokenizer.json")) {
            let _ = encode(&tokenizer, "Some title, and “another” one");
        }
    });
    // Mostly its header, which is a small part of the file.
    let path = folder.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    fuzz("safetensors headers", &whole[..header], |bytes| {
        fs::write(&path, [bytes, &whole[header..]].concat()).unwrap();
        let _ = hub::load(&folder, &flex);
    });
    fs::write(&path, whole).unwrap();
    let names: BTreeMap<String, &str> =
        read_tensors(&path).unwrap().into_keys().map(|name| (name, "a.safetensors")).collect();
    let index = json!({"metadata": {"total_size": 1}, "weight_map": names});
    let sharded = folder.join("model.safetensors.index.json");
    fs::rename(&path, folder.join("a.safetensors")).unwrap();
    fs::write(&sharded, index.to_string()).unwrap();
    hub::load(&folder, &flex).unwrap();
    fuzz_file("indices", &sharded, || drop(hub::load(&folder, &flex)));
    let folder = tempfile::tempdir().unwrap();
    let sizes = SasRecConfig { d_model: 8, d_ff: 8, ..SasRecConfig::new(12, 4) };
    SasRec::new(sizes, 0, &flex).unwrap().save(folder.path()).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fuzz_file("SASRec", &folder.path().join(file), || drop(SasRec::load(folder.path(), &flex)));
    }
}

#[test]
fn golden_folders() {
    let folder = Path::new("tests/data/golden/qwen2");
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "golden.json"] {
        fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    let flex = device("flex").unwrap();
    fuzz_file("golden folders", &copy.path().join("golden.json"), || drop(Golden::load(copy.path(), &flex)));
}

#[test]
fn run_folders() {
    let flex = device("flex").unwrap();
    for kind in ["sft", "grpo"] {
        let (_copy, folder) = copy_of(kind);
        for checkpoint in ["last", "best"] {
            fs::remove_file(folder.join(checkpoint).join("SHA256SUMS")).unwrap();
        }
        let read = || {
            if let Ok(run) = RunFolder::open(&folder, Vec::new()) {
                let _ = run.newest::<LatentRecommender>(AdamWConfig::default(), &flex, Precision::F32);
            }
        };
        for file in [
            "run.json",
            "lock",
            "metrics.jsonl",
            "last/progress.json",
            "last/optimizer.safetensors",
            "last/config.json",
        ] {
            fuzz_file("run folders", &folder.join(file), read);
        }
        let sums = workshop().bytes(&format!("{kind}/last/SHA256SUMS"));
        fs::write(folder.join("last/SHA256SUMS"), sums).unwrap();
        fuzz_file("checksums", &folder.join("last/SHA256SUMS"), read);
    }
}

#[test]
fn results_of_evaluations() {
    let w = workshop();
    let (data, folder) = (w.path("prepared"), tempfile::tempdir().unwrap());
    let json = folder.path().join("result.json");
    let path = json.to_str().unwrap();
    for shard in ["1/2", "1/1"] {
        let args = [
            "evaluate",
            "--model",
            &w.path("sft"),
            "--data",
            &data,
            "--split",
            "test",
            "--shard",
            shard,
            "--json",
            path,
        ];
        succeed(&args);
        fuzz("results", &fs::read(&json).unwrap(), |bytes| {
            if let Ok(result) = serde_json::from_slice::<EvaluationResult>(bytes) {
                let _ = EvaluationResult::merge(vec![result]);
            }
        });
    }
}
