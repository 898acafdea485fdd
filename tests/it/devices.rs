//! Devices: their check, and precisions that they do not compute in.

use std::path::Path;

use crate::common::program::{Workshop, latentr3, refuse, succeed};
use serde_json::Value;

#[test]
fn devices_are_checked_against_golden_figures() {
    let w = Workshop::new();
    let json = w.path("devices.json");
    assert!(succeed(&["devices"]).contains("flex"));
    let said = succeed(&["devices", "flex", "--check", "--json", &json]);
    assert!(said.contains("works"), "{said}");
    let check = w.json("devices.json")[0]["check"].clone();
    for figure in ["forward", "sft_gradients", "grpo_gradients"] {
        assert!((1e-9..1e-4).contains(&check[figure].as_f64().unwrap()), "{check}");
    }
    let sixteen_bits = &w.json("devices.json")[0]["sixteen_bits"];
    for (at, precision) in ["bf16", "f16"].into_iter().enumerate() {
        assert_eq!(sixteen_bits[at]["precision"], precision);
        assert!((1e-5..0.5).contains(&sixteen_bits[at]["sft_gradients"].as_f64().unwrap()), "{sixteen_bits}");
    }
    // Another model's figures are wrong ones.
    let golden = w.folder.path().join("golden");
    std::fs::create_dir(&golden).unwrap();
    for file in ["config.json", "model.safetensors", "golden.json"] {
        std::fs::copy(Path::new("tests/data/golden/llama").join(file), golden.join(file)).unwrap();
    }
    let folder = golden.to_str().unwrap();
    succeed(&["devices", "flex", "--check", "--golden", folder]);
    let figures = std::fs::read_to_string(golden.join("golden.json")).unwrap();
    let mut figures: Value = serde_json::from_str(&figures).unwrap();
    figures["thought"][0][0] = 1.5.into();
    std::fs::write(golden.join("golden.json"), figures.to_string()).unwrap();
    let output = latentr3(&["devices", "flex", "--check", "--golden", folder]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("wrong numbers: 1 of"));
    // What cannot be checked is no device's fault.
    assert!(refuse(&["devices", "abacus"]).contains("abacus"));
    std::fs::write(golden.join("golden.json"), "{}").unwrap();
    assert!(refuse(&["devices", "flex", "--check", "--golden", folder]).contains("golden.json"));
}

/// The model and the data are not even looked for.
#[test]
#[cfg(feature = "ndarray")]
fn a_device_without_a_precision_is_refused_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [model, data, out] = ["model", "data", "out"].map(path);
    let train = |stage| vec![stage, "--model", &model, "--data", &data, "--out", &out];
    for (args, precision) in [
        (train("pretrain"), "bf16"),
        (train("sft"), "f16"),
        (train("grpo"), "bf16"),
        (vec!["evaluate", "--model", &model, "--data", &data, "--split", "test"], "bf16"),
        (vec!["recommend", "--model", &model, "--data", &data, "--history", "x"], "f16"),
        (vec!["bench", "sft", "--model", &model, "--tokens", &data], "bf16"),
    ] {
        let message = refuse(&[&args[..], &["--device", "ndarray", "--precision", precision]].concat());
        let expected = format!("precision `{precision}`: not supported by this device, which supports f32");
        assert!(message.contains(&expected), "{args:?}: {message}");
        let message = refuse(&[&args[..], &["--device", "ndarray", "--precision", "f32"]].concat());
        assert!(message.contains("model") || message.contains("data"), "{args:?}: {message}");
    }
    assert!(!Path::new(&out).exists());
}
