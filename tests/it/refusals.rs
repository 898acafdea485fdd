//! Bad input is refused before anything is made.

use std::path::Path;

use crate::common::program::{GRPO, Workshop, refuse, run, words};

#[test]
fn what_is_wrong_with_data_is_said_with_the_option_that_helps() {
    let w = Workshop::new();
    let prepare = |name: &str, text: &str, more: &[&str], parts: &[&str]| {
        let (file, out) = (w.path(name), w.path("made"));
        std::fs::write(&file, text).unwrap();
        let message = refuse(&[&["prepare", "--data", &file, "--out", &out], more].concat());
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
    };
    let orders = "user_id,item_id,title,timestamp,rating\nu,i1,One,1,5\nu,i2,Two,2,5\nu,i3,Three,3,5\nu,i4,Four,4,5\n";
    let two = ["--k-core", "1", "--split", "leave-one-out"];
    let with = |more: &[&'static str]| [&two[..], more].concat();
    prepare("a.csv", "who,what\nu,i\n", &[], &["no column `user_id`", "(--user-column)"]);
    prepare("b.csv", "user_id,item_id,timestamp\nu,i,1\n", &[], &["no column `title`", "(--title-column)", "--items"]);
    prepare("c.csv", &orders.replace("One", ""), &["--min-rating", "6"], &["no interactions are left", "--min-rating"]);
    prepare("d.csv", orders, &["--max-history", "0"], &["--max-history: must be at least 1"]);
    prepare("e.csv", orders, &["--split-ratio", "1000001:1:1"], &["--split-ratio: must be three"]);
    prepare("f.csv", orders, &with(&["--min-history", "4"]), &["no rows for the", "--min-history"]);
    prepare("g.csv", orders, &with(&["--max-tokens", "5"]), &["more than the limit of 5", "(--max-tokens)"]);
    prepare("h.csv", orders, &with(&["--end-token", "<stop>"]), &["end token: ", "(--end-token)"]);
    prepare("i.csv", orders, &with(&["--vocab-size", "9"]), &["--vocab-size: 9 tokens are too few"]);
    prepare("j.csv", orders, &with(&["--train-users", "1", "--dry-run"]), &["--train-users: applies only after"]);
}

#[test]
fn bad_input_is_refused_with_its_name_and_nothing_is_overwritten() {
    let w = Workshop::new();
    let [base, prepared, data, out] = ["base", "prepared", "data", "out"].map(|name| w.path(name));
    let expect = |args: &[&str], parts: &[&str]| {
        let message = refuse(args);
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
    };
    // Devices.
    expect(
        &["evaluate", "--model", &base, "--data", &prepared, "--split", "test", "--device", "abacus"],
        &["abacus", "flex"],
    );
    // Folders that exist.
    let before = w.bytes("prepared/dataset.json");
    expect(&["prepare", "--data", &data, "--out", &prepared], &["prepared"]);
    assert_eq!(w.bytes("prepared/dataset.json"), before);
    expect(&["init", "--out", &base, "--tokenizer", &w.path("prepared/tokenizer.json")], &["base", "exists"]);
    expect(&["sft", "--model", &base, "--data", &prepared, "--out", &prepared], &["prepared", "exists"]);
    // Missing things.
    expect(&["sft", "--model", &w.path("nowhere"), "--data", &prepared, "--out", &out], &["nowhere"]);
    expect(&["sft", "--model", &base, "--data", &w.path("nowhere"), "--out", &out], &["nowhere"]);
    expect(&["sft", "--resume", &base], &["run.json"]);
    expect(&["score", "--model", &base, "--tokens", &w.path("nowhere")], &["nowhere"]);
    expect(
        &["grpo", "--model", &base, "--data", &prepared, "--out", &out, "--rollouts", "10"],
        &["rollouts: must be", "multiple"],
    );
    // Values that make no sense.
    let sft = |more: &[&'static str]| [&["sft", "--model", &base, "--data", &prepared, "--out", &out], more].concat();
    expect(&sft(&["--limit", "0"]), &["--limit"]);
    expect(&sft(&["--thoughts", "18446744073709551615"]), &["too many"]);
    expect(&sft(&["--lr", "NaN"]), &["learning_rate"]);
    expect(&sft(&["--precision", "f64"]), &["--precision", "f32, bf16 or f16"]);
    expect(&sft(&["--json", "nowhere/result.json"]), &["nowhere/result.json", "no such folder"]);
    expect(&["demo", "--out", &data], &["data", "exists"]);
    expect(&["bench", "sft", "--model", &base, "--tokens", &out, "--threads", "99999999"], &["99999999 threads"]);
    let long = format!("{{\"prompt\": {:?}, \"target\": [0]}}", vec![1; 2000]);
    std::fs::write(w.path("long.jsonl"), long).unwrap();
    expect(&["score", "--model", &base, "--tokens", &w.path("long.jsonl")], &["2002 tokens", "1024 positions"]);
    // Damaged files.
    for (content, part) in [
        ("", "no rows"),
        ("{\"prompt\": [1]}", "line 1"),
        ("{\"prompt\": [], \"target\": [1]}", "line 1"),
        ("\u{1}\u{2}", "line 1"),
    ] {
        std::fs::write(w.path("bad.jsonl"), content).unwrap();
        expect(&["score", "--model", &base, "--tokens", &w.path("bad.jsonl")], &["bad.jsonl", part]);
    }
    std::fs::write(w.path("huge.jsonl"), "{\"prompt\": [4000000000], \"target\": [1]}").unwrap();
    expect(&["score", "--model", &base, "--tokens", &w.path("huge.jsonl")], &["4000000000", "vocabulary"]);
    let weights = w.bytes("base/model.safetensors");
    std::fs::write(w.path("base/model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    expect(
        &["recommend", "--model", &base, "--data", &prepared, "--history", "x"],
        &["model.safetensors", "truncated"],
    );
    std::fs::write(w.path("base/config.json"), "{").unwrap();
    expect(&["recommend", "--model", &base, "--data", &prepared, "--history", "x"], &["config.json"]);
    assert!(!Path::new(&out).exists(), "nothing was made for a run that could not begin");
}

#[test]
fn stage_2_without_anything_to_train_is_refused() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "last-hidden", &["--epochs", "1", "--source", "last-hidden"]));
    let args = w.train("grpo", "last-hidden", "grpo", &GRPO);
    assert!(refuse(&words(&args)).contains("nothing would train"));
    assert!(!Path::new(&w.path("grpo")).exists());
}
