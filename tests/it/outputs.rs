//! Where commands write, and what they must not write over.

use std::path::Path;

use crate::common::program::{Workshop, latentr3, refuse, run, succeed, words};

#[test]
fn json_replaces_results_and_nothing_else() {
    let w = Workshop::new();
    let [base, prepared, data] = ["base", "prepared", "data"].map(|name| w.path(name));
    let evaluate = ["evaluate", "--model", &base, "--data", &prepared, "--split", "valid", "--quiet", "--json"];
    let [first, second] = ["a.json", "b.json"].map(|name| w.path(name));
    std::fs::write(&first, "").unwrap();
    for json in [&first, &second, &first] {
        succeed(&[&evaluate[..], &[json]].concat());
    }
    let recommend = ["recommend", "--model", &base, "--data", &prepared, "--history", "x", "--json"];
    let prepare = ["prepare", "--data", &data, "--out", &w.path("more"), "--json"];
    let compare = ["compare", &first, &second, "--json"];
    for (command, file, part) in [
        (&evaluate[..], "base/model.safetensors", "not written by this command"),
        (&recommend, "prepared/catalog.jsonl", "not written by this command"),
        (&recommend, "base/config.json", "is part of a model"),
        (&evaluate, "prepared/dataset.json", "is part of a model"),
        (&prepare, "data/train.csv", "not written by this command"),
        (&compare, "b.json", "is an input of this command"),
        (&["merge", &first, "--json"], "a.json", "is an input of this command"),
        (&["report", &first, "--out"], "b.json", "not written by this command"),
    ] {
        let before = w.bytes(file);
        let message = refuse(&[command, &[&w.path(file)]].concat());
        assert!(message.contains(file) && message.contains(part), "{message}");
        assert!(w.bytes(file) == before, "{file}");
    }
    assert!(!Path::new(&w.path("more")).exists());
    for _ in 0..2 {
        succeed(&["report", &first, "--out", &w.path("page.html"), "--examples", "0"]);
    }
}

#[test]
fn a_run_is_resumed_by_its_own_command() {
    let w = Workshop::new();
    let [data, sasrec] = ["prepared", "sasrec"].map(|name| w.path(name));
    let train = ["baseline", "sasrec", "--data", &data, "--split", "valid", "--epochs", "1", "--quiet"];
    succeed(&[&train[..], &["--out", &sasrec]].concat());
    let message = refuse(&["sft", "--resume", &sasrec]);
    assert!(message.contains("latentr3 baseline sasrec --resume"), "{message}");
}

#[test]
fn a_negative_number_is_a_value() {
    let w = Workshop::new();
    for (option, part) in [("--lr", "learning_rate: must be"), ("--clip-norm", "clip_norm: must be")] {
        let mut args = w.train("sft", "base", "out", &[]);
        args.extend([option, "-1"].map(str::to_owned));
        let message = refuse(&words(&args));
        assert!(message.contains(part), "{message}");
    }
    let data = w.path("prepared");
    let message =
        refuse(&["baseline", "sasrec", "--data", &data, "--split", "valid", "--out", &w.path("out"), "--lr", "-1"]);
    assert!(message.contains("learning_rate: must be"), "{message}");
}

#[test]
fn a_title_may_begin_with_a_dash() {
    let w = Workshop::new();
    let [model, data, json] = ["base", "prepared", "list.json"].map(|name| w.path(name));
    let history = ["--history", "- (Deluxe)", "--history", "Title number 3"];
    succeed(&[&["recommend", "--model", &model, "--data", &data, "--json", &json, "--quiet"], &history[..]].concat());
    assert_eq!(w.json("list.json")["history"][0], "- (Deluxe)");
}

#[test]
fn bench_says_which_options_change_nothing() {
    let w = Workshop::new();
    let [model, data] = ["base", "prepared"].map(|name| w.path(name));
    let bench = |what: &str, more: &[&str]| {
        let output = latentr3(&[&["bench", what, "--model", &model, "--data", &data], more].concat());
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = bench("eval", &["--users", "2", "--micro", "4"]);
    assert!(said.contains("--micro has no effect") && !said.contains("--users"), "{said}");
    assert!(bench("sft", &["--steps", "1", "--batch", "2", "--sigma", "1"]).contains("--sigma has no effect"));
}

/// A model's weights are hashed by whoever loads them; who only names them believes the record.
#[test]
fn recorded_checksums_name_a_models_weights() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &["--epochs", "1"]));
    let (model, data, json) = (w.path("sft"), w.path("prepared"), w.path("result.json"));
    succeed(&["evaluate", "--model", &model, "--data", &data, "--split", "valid", "--json", &json, "--quiet"]);
    let sums = String::from_utf8(w.bytes("sft/best/SHA256SUMS")).unwrap();
    let sum = sums.lines().find_map(|line| line.strip_suffix("  model.safetensors")).unwrap();
    assert_eq!(w.json("result.json")["model_files"]["model.safetensors"], sum);
}

#[cfg(unix)]
#[test]
fn paths_that_are_no_text_are_refused_before_anything_is_trained() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    let w = Workshop::new();
    let strange = OsStr::from_bytes(b"not-\xff-text");
    let folder = w.folder.path();
    std::fs::rename(folder.join("prepared"), folder.join(strange)).unwrap();
    let program =
        |args: &[&OsStr]| Command::new(env!("CARGO_BIN_EXE_latentr3")).args(args).current_dir(folder).output().unwrap();
    for command in
        [&["sft", "--model", "base", "--out", "out"][..], &["baseline", "sasrec", "--split", "valid", "--out", "out"]]
    {
        let words: Vec<&OsStr> =
            command.iter().map(|word| OsStr::new(*word)).chain([OsStr::new("--data"), strange]).collect();
        let output = program(&words);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("UTF-8") && !folder.join("out").exists(), "{message}");
    }
    // A run of such a name needs nothing of it but to be found.
    std::fs::rename(folder.join(strange), folder.join("prepared")).unwrap();
    let words =
        ["sft", "--model", "base", "--data", "prepared", "--epochs", "1", "--quiet", "--json", "run.json", "--out"];
    let output = program(&words.iter().map(|word| OsStr::new(*word)).chain([strange]).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.join(strange).join("best").exists() && w.json("run.json")["steps"].is_number());
}

#[test]
fn what_contradicts_itself_is_no_result() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &["--epochs", "1"]));
    let [model, data, json] = ["sft", "prepared", "result.json"].map(|name| w.path(name));
    succeed(&["evaluate", "--model", &model, "--data", &data, "--split", "test", "--quiet", "--json", &json]);
    let page =
        |file: &str| ["report", &w.path(file), "--out", &w.path("page.html"), "--examples", "0"].map(str::to_owned);
    for (pointer, value, part) in [
        ("/users", 99.into(), "6 ranks for 99 users"),
        ("/by_item/hr/1", 2.0.into(), "a metric at 1 is 2.0"),
        ("/ranks/0/list/0/0", 4_000_000.into(), "a list has item 4000000"),
    ] {
        let mut result = w.json("result.json");
        *result.pointer_mut(pointer).unwrap() = value;
        std::fs::write(w.path("wrong.json"), result.to_string()).unwrap();
        let message = refuse(&page("wrong.json").each_ref().map(String::as_str));
        assert!(message.contains("wrong.json") && message.contains(part), "{message}");
    }
    std::fs::write(w.path("sft/run.json"), "{}").unwrap();
    let message = refuse(&page("sft").each_ref().map(String::as_str));
    assert!(message.contains("run.json") && message.contains("no stage"), "{message}");
    assert!(!Path::new(&w.path("page.html")).exists());
}
