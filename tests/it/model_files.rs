//! Files of a model: written, read back, incomplete and damaged.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::small::{small_model, weights};
use latentr3::models::hub::{PendingTensor, StoredTensor};
use latentr3::models::{LatentRecommender, ObjectiveKind, ThoughtKind, hub};

#[test]
fn a_checkpoint_survives_a_round_trip_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, thoughts) in [
        (ThoughtKind::LatentAttention, 2),
        (ThoughtKind::LastHidden, 1),
        (ThoughtKind::Constants, 3),
        (ThoughtKind::LatentAttention, 0),
    ] {
        let model = small_model(1, 4).with_thoughts(kind, thoughts, 5).unwrap();
        hub::save(&model, folder.path()).unwrap();
        let loaded = hub::load(folder.path(), &crate::common::device()).unwrap();
        assert_eq!(loaded.thoughts(), thoughts);
        assert_eq!(loaded.source.kind(), model.source.kind());
        assert_eq!(weights(&loaded), weights(&model));
    }
}

fn write_tensors(path: &Path, tensors: &BTreeMap<String, StoredTensor>) {
    let pending = |(name, StoredTensor { shape, values }): (&String, &StoredTensor)| PendingTensor {
        name: name.clone(),
        shape: shape.clone(),
        values: {
            let values = values.clone();
            Box::new(|| values)
        },
    };
    hub::write_tensors(path, tensors.iter().map(pending).collect()).unwrap();
}

#[test]
fn a_checkpoint_must_be_whole() {
    let folder = tempfile::tempdir().unwrap();
    hub::save(&small_model(1, 7), folder.path()).unwrap();
    let path = folder.path().join("model.safetensors");
    let whole = hub::read_tensors(&path).unwrap();
    let without = |part: &str| {
        let mut tensors = whole.clone();
        tensors.retain(|name, _| !name.contains(part));
        assert!(tensors.len() < whole.len());
        write_tensors(&path, &tensors);
        hub::load(folder.path(), &crate::common::device()).unwrap_err().to_string()
    };
    for part in ["attention.query.weight", "attention.", "model.norm.weight"] {
        let message = without(part);
        assert!(message.contains(part) && message.contains("is missing"), "{message}");
    }
}

#[test]
fn damaged_checkpoints_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    hub::save(&small_model(1, 8), folder.path()).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let message = hub::load(folder.path(), &crate::common::device()).unwrap_err().to_string();
        assert!(message.contains("model.safetensors"), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(hub::load(folder.path(), &crate::common::device()).is_err());
}

#[test]
fn a_checkpoint_knows_its_objective() {
    let folder = tempfile::tempdir().unwrap();
    let save = |model: &LatentRecommender| hub::save(model, folder.path()).unwrap();
    let load = || hub::load(folder.path(), &crate::common::device());
    save(&small_model(1, 1).with_objective(ObjectiveKind::Catalog));
    assert_eq!(load().unwrap().objective(), ObjectiveKind::Catalog);
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("latent_objective", "other")).unwrap();
    assert_eq!(load().unwrap().objective(), ObjectiveKind::Vocabulary, "one that records none is older");
    std::fs::write(&path, config.replace("\"catalog\"", "\"songs\"")).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("latent_objective") && error.contains("songs"), "{error}");
}
