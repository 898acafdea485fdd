//! The baselines as a user meets them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::program::{Workshop, latentr3, refuse, run, succeed};
use serde_json::{Value, json};

/// Small enough for a second, and sure to learn.
const RECIPE: [&str; 14] = [
    "--hidden",
    "16",
    "--layers",
    "1",
    "--dropout",
    "0.1",
    "--epochs",
    "40",
    "--batch",
    "6",
    "--lr",
    "1e-2",
    "--patience",
    "40",
];

fn baseline(w: &Workshop, name: &str, more: &[&str]) -> Value {
    let (data, json) = (w.path("prepared"), w.path("baseline.json"));
    let options = ["--data", &data, "--split", "test", "--json", &json];
    let said = succeed(&[&["baseline", name], &options[..], more].concat());
    assert!(said.contains("HR@10") && said.contains(" users in "), "{said}");
    w.json("baseline.json")
}

#[test]
fn counts_rank_what_they_say() {
    let w = Workshop::new();
    let popularity = baseline(&w, "popularity", &[]);
    assert_eq!(popularity["by_item"]["hr"]["10"], popularity["popularity"]["hr"]["10"]);
    assert_eq!(popularity["method"], "popularity");
    assert_eq!(popularity["users"], 6);
    assert!(popularity["by_item"]["ndcg"]["20"].is_number() && popularity["by_title"]["hr"]["1"].is_number());
    // Everybody goes through the items in order: the next one follows the last one, and nobody takes one again.
    let transition = baseline(&w, "transition", &[]);
    assert_eq!(transition["by_item"]["hr"]["1"], 1.0);
    let recent = baseline(&w, "recent", &[]);
    for rank in recent["ranks"].as_array().unwrap() {
        assert!(rank["rank"].as_f64().unwrap() > 4.0, "four items of the history come first: {rank}");
    }
    assert_eq!(baseline(&w, "recent", &["--limit", "2", "--top", "3"])["by_item"]["hr"]["5"], Value::Null);
}

#[test]
fn sasrec_trains_and_is_evaluated_again_from_its_folder() {
    let w = Workshop::new();
    let run = w.path("run");
    let mut trained = baseline(&w, "sasrec", &[&["--out", &run], &RECIPE[..]].concat());
    assert!(trained["by_item"]["hr"]["1"].as_f64().unwrap() >= 0.5, "{}", trained["by_item"]);
    assert_eq!(trained["model_files"].as_object().unwrap().keys().collect::<Vec<_>>(), ["model.safetensors"]);
    let best = format!("{run}/best");
    for again in [["--model", &run], ["--model", &best], ["--resume", &run]] {
        let mut again = baseline(&w, "sasrec", &again);
        for result in [&mut trained, &mut again] {
            result["seconds"] = Value::Null;
        }
        assert_eq!(again, trained);
    }
    let log = String::from_utf8(w.bytes("run/metrics.jsonl")).unwrap();
    let progress = w.json("run/last/progress.json");
    assert_eq!(log.lines().filter(|line| line.contains("valid_ndcg")).count(), 40, "one after each epoch");
    assert_eq!(log.lines().count(), 40 + progress["step"].as_u64().unwrap() as usize);
}

#[test]
fn gru4rec_trains_in_the_same_way_and_is_called_by_its_name() {
    let w = Workshop::new();
    let run = w.path("run");
    let trained = baseline(&w, "sasrec", &[&["--encoder", "gru", "--out", &run], &RECIPE[..]].concat());
    assert!(trained["by_item"]["hr"]["1"].as_f64().unwrap() >= 0.5, "{}", trained["by_item"]);
    assert_eq!(trained["method"], "gru4rec");
    let again = baseline(&w, "sasrec", &["--model", &run]);
    assert_eq!([&again["by_item"], &again["method"]], [&trained["by_item"], &trained["method"]]);
}

#[test]
fn sasrec_guides_a_search_at_a_scale_chosen_on_validation() {
    let w = Workshop::new();
    let [run, base, data, json] = ["run", "base", "prepared", "guided.json"].map(|name| w.path(name));
    baseline(&w, "sasrec", &[&["--out", &run], &RECIPE[..]].concat());
    let evaluate = |more: &[&str]| {
        let fixed = ["evaluate", "--model", &base, "--data", &data, "--split", "test", "--length-penalty", "0"];
        succeed(&[&fixed[..], &["--guidance", &run, "--json", &json], more].concat());
        w.json("guided.json")
    };
    // The language model knows nothing yet: alone it finds little, SASRec is better without it, and guided by SASRec alone
    // it is SASRec.
    let guided = evaluate(&[]);
    assert_eq!((&guided["method"], guided["guidance_scale"].as_f64()), (&"guided beam search".into(), Some(0.0)));
    let collaborative = evaluate(&["--guidance-scale", "0", "--beams", "12"]);
    assert_eq!(collaborative["by_item"], baseline(&w, "sasrec", &["--model", &run, "--top", "12"])["by_item"]);
    let alone = evaluate(&["--guidance-scale", "1"]);
    assert!(alone["by_item"]["hr"]["1"].as_f64() < collaborative["by_item"]["hr"]["1"].as_f64());

    let [path, model] = ["--guidance", "--model"].map(|_| base.as_str());
    let fixed = ["evaluate", "--model", model, "--data", &data, "--split", "test"];
    assert!(refuse(&[&fixed[..], &["--guidance", path]].concat()).contains("config.json"));
    for scale in ["1.5", "x", "-1"] {
        refuse(&[&fixed[..], &["--guidance", &run, &format!("--guidance-scale={scale}")]].concat());
    }
    refuse(&[&fixed[..], &["--guidance", &run, "--decode", "grounding"]].concat());
}

#[test]
fn counts_of_transitions_guide_a_search_and_what_was_chosen_is_remembered() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "tuned", &["--max-steps", "2"]));
    let [tuned, data, json] = ["tuned", "prepared", "guided.json"].map(|name| w.path(name));
    let evaluate = |more: &[&str]| {
        let fixed = ["evaluate", "--model", &tuned, "--data", &data, "--split", "test", "--guidance", "transition"];
        let said = succeed(&[&fixed[..], &["--json", &json], more].concat());
        assert!(said.contains("HR@10"), "{said}");
        w.json("guided.json")
    };
    // The counts alone are right about everybody; the model knows nothing yet.
    for kind in ["product", "mixture"] {
        let alone = evaluate(&["--guidance-kind", kind, "--guidance-scale", "0", "--guidance-smoothing", "0.1"]);
        assert_eq!(alone["by_item"]["hr"]["1"], 1.0, "{kind}");
        assert_eq!(alone["guidance_kind"], kind);
        assert!(!Path::new(&w.path("tuned/guidance.json")).exists(), "nothing was chosen");
    }
    let chosen = evaluate(&["--guidance-kind", "mixture,product", "--guidance-scale", "0.3,1"]);
    let record = w.json("tuned/guidance.json");
    assert_eq!((&record["guide"], &record["kind"]), (&"transition".into(), &chosen["guidance_kind"]));
    assert_eq!((&record["scale"], &record["transition"]), (&chosen["guidance_scale"], &chosen["transition"]));
    assert_eq!((record["scale"].as_f64(), record["users"].as_u64()), (Some(0.3), Some(6)));
    assert!(record["transition"]["smoothing"].is_number());

    let fixed = ["evaluate", "--model", &tuned, "--data", &data, "--split", "test", "--guidance", "transition"];
    for (options, part) in [
        (["--guidance-kind", "sum"], "neither `product` nor `mixture`"),
        (["--guidance-scale", "2"], "from 0 to 1"),
        (["--guidance-smoothing", "-1"], "smoothing"),
    ] {
        let message = refuse(&[&fixed[..], &options].concat());
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn weights_of_transitions_are_those_given_or_chosen_on_validation() {
    let w = Workshop::new();
    let given = ["--position-decay", "2", "--distance-decay", "0.5", "--smoothing", "3"];
    let result = baseline(&w, "transition", &given);
    assert_eq!(result["transition"], json!({ "position_decay": 2.0, "distance_decay": 0.5, "smoothing": 3.0 }));
    let chosen = baseline(&w, "transition", &["--smoothing", "7"]);
    assert_eq!(chosen["transition"]["smoothing"], 7.0);
    assert!([0.0, 0.5, 1.0, 2.0].contains(&chosen["transition"]["position_decay"].as_f64().unwrap()));
    let data = w.path("prepared");
    for (option, value) in [("--smoothing", "0"), ("--position-decay", "-1"), ("--distance-decay", "nan")] {
        let message = refuse(&["baseline", "transition", "--data", &data, "--split", "test", option, value]);
        assert!(message.contains("must be from"), "{message}");
    }
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_end() {
    let w = Workshop::new();
    let data = w.path("prepared");
    let args = |out: &str| {
        let fixed = ["baseline", "sasrec", "--data", &data, "--split", "valid", "--quiet", "--out", &w.path(out)];
        [&fixed[..], &RECIPE[..]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let program = || Command::new(env!("CARGO_BIN_EXE_latentr3"));
    assert!(program().args(args("whole")).status().unwrap().success());
    let mut child = program().args(args("killed")).spawn().unwrap();
    let clock = Instant::now();
    while !Path::new(&w.path("killed/best")).exists() {
        assert!(clock.elapsed() < Duration::from_secs(120), "no epoch was done");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(w.json("killed/last/progress.json")["finished"], true, "it was killed in time");
    std::fs::rename(w.path("prepared"), w.path("moved")).unwrap();
    let [killed, moved] = ["killed", "moved"].map(|name| w.path(name));
    succeed(&["baseline", "sasrec", "--resume", &killed, "--data", &moved, "--split", "valid", "--quiet"]);
    for file in ["last/model.safetensors", "last/optimizer.safetensors", "best/model.safetensors", "metrics.jsonl"] {
        assert!(w.bytes(&format!("killed/{file}")) == w.bytes(&format!("whole/{file}")), "{file}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_overwritten() {
    let w = Workshop::new();
    let [data, run, out, base] = ["prepared", "run", "out", "base"].map(|name| w.path(name));
    let quick = ["--epochs", "1", "--hidden", "8"];
    baseline(&w, "sasrec", &[&["--out", &run], &quick[..]].concat());
    let expect = |args: &[&str], parts: &[&str]| {
        let message = refuse(&[&["baseline", "sasrec", "--split", "valid"], args].concat());
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
    };
    let before = w.bytes("run/run.json");
    expect(&["--data", &data], &["--out", "--model", "--resume"]);
    expect(&["--out", &out], &["--data"]);
    expect(&["--data", &data, "--out", &run], &["run", "exists", "--resume"]);
    expect(&["--data", &data, "--model", &run, "--lr", "0.1"], &["--lr", "--model"]);
    expect(&["--resume", &run, "--epochs", "9"], &["--epochs", "--resume"]);
    expect(&["--data", &data, "--out", &out, "--heads", "5"], &["heads must divide"]);
    expect(&["--data", &data, "--out", &out, "--dropout", "1"], &["dropout"]);
    expect(&["--data", &data, "--out", &out, "--hidden", "99999999999"], &["d_model"]);
    expect(&["--data", &data, "--out", &out, "--batch", "0"], &["batch"]);
    expect(&["--data", &data, "--out", &out, "--top", "0"], &["--top"]);
    expect(&["--data", &data, "--model", &base], &["config.json", "model_type"]);
    expect(&["--data", &data, "--model", &out], &["out"]);
    expect(&["--resume", &base], &["run.json"]);
    assert!(!Path::new(&out).exists(), "nothing was made for a run that could not begin");
    assert!(refuse(&["evaluate", "--model", &run, "--data", &data, "--split", "valid"]).contains("config.json"));

    // A run of other data, and a damaged one.
    let catalog = String::from_utf8(w.bytes("prepared/catalog.jsonl")).unwrap();
    let lines: Vec<&str> = catalog.lines().collect();
    let turned = [&[lines[1], lines[0]], &lines[2..]].concat().join("\n");
    std::fs::write(w.path("prepared/catalog.jsonl"), turned).unwrap();
    expect(&["--data", &data, "--model", &run], &["another catalog"]);
    expect(&["--resume", &run], &["other data", "catalog.jsonl"]);
    std::fs::write(w.path("prepared/catalog.jsonl"), catalog).unwrap();
    for (file, part) in [("best/model.safetensors", "damaged"), ("last/progress.json", "damaged")] {
        let good = w.bytes(&format!("run/{file}"));
        std::fs::write(w.path(&format!("run/{file}")), &good[..good.len() / 2]).unwrap();
        let which = if file.starts_with("best") { ["--model", &run] } else { ["--resume", &run] };
        expect(&[&which[..], &["--data", &data]].concat(), &[file, part]);
        std::fs::write(w.path(&format!("run/{file}")), good).unwrap();
    }
    for content in ["", "[]", "{\"stage\": \"sasrec\"}"] {
        std::fs::write(w.path("run/run.json"), content).unwrap();
        expect(&["--resume", &run], &["run.json"]);
    }
    std::fs::write(w.path("run/run.json"), before).unwrap();
    // Figures that are no numbers end the run with a failure, and no such model is kept.
    let lost = latentr3(&["baseline", "sasrec", "--data", &data, "--split", "valid", "--out", &out, "--lr", "1e38"]);
    let message = String::from_utf8_lossy(&lost.stderr);
    assert!(lost.status.code() == Some(1) && message.contains("the validation score is NaN"), "{message}");
    assert!(!Path::new(&w.path("out/best")).exists());
}
