//! `latentr3 compare` as a user meets it.

use crate::common::program::{Workshop, refuse, succeed, words};
use serde_json::{Value, json};

/// A real evaluation of 6 users, and copies of it in which users' ranks are others.
struct Evaluations {
    workshop: Workshop,
    real: Value,
}

impl Evaluations {
    fn new() -> Self {
        let workshop = Workshop::new();
        let [model, data, json] = ["base", "prepared", "real.json"].map(|name| workshop.path(name));
        succeed(&["evaluate", "--model", &model, "--data", &data, "--split", "test", "--json", &json, "--quiet"]);
        let real = workshop.json("real.json");
        Self { workshop, real }
    }

    /// Writes the evaluation with other ranks and model; returns the file.
    fn write(&self, name: &str, ranks: [Option<f64>; 6], change: impl Fn(&mut Value)) -> String {
        let mut result = self.real.clone();
        for (user, rank) in result["ranks"].as_array_mut().unwrap().iter_mut().zip(ranks) {
            user["rank"] = json!(rank);
            user["title_rank"] = json!(rank);
        }
        result["model_files"] = json!({"model.safetensors": name});
        change(&mut result);
        let path = self.workshop.path(name);
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, result.to_string()).unwrap();
        path
    }
}

const NONE: Option<f64> = None;

#[test]
fn models_of_several_runs_are_compared_by_both_questions() {
    let files = Evaluations::new();
    let as_is = |_: &mut Value| ();
    let a0 = files.write("a-0.json", [Some(1.0), NONE, NONE, Some(9.0), NONE, NONE], as_is);
    let a1 = files.write("a-1.json", [Some(1.0), NONE, Some(2.0), NONE, NONE, NONE], as_is);
    let b0 = files.write("b-0.json", [Some(1.0), Some(1.0), Some(2.0), Some(1.0), Some(4.0), NONE], as_is);
    let b1 = files.write(
        "runs/b/evaluations/test.json",
        [Some(1.0), Some(2.0), Some(1.0), Some(1.0), NONE, Some(1.0)],
        as_is,
    );
    let b1 = b1.strip_suffix("/evaluations/test.json").unwrap();
    let (sft, grpo, json) = (format!("SFT={a0},{a1}"), format!("Latent R3={b0},{b1}"), files.workshop.path("out.json"));
    let args = ["compare", &sft, &grpo, "--metrics", "hr@10,NDCG@3,hr@10", "--json", &json, "--seed", "4"];
    let said = succeed(&args);
    for part in [
        "test, by item: 6 rows of 6 users",
        "Latent R3 (2 runs) against SFT (2 runs)",
        "Retrained models (users and seeds vary)",
        "Fixed models (users vary)",
        "HR@10   0.3333     0.8333     +0.5000",
        "run 2",
        "Lists that differ: 0.0% between the models, 0.0% between paired runs, 0.0% between two runs of SFT",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let result = files.workshop.json("out.json");
    assert_eq!(
        (&result["rows"], &result["users"], &result["resamples"], &result["seed"]),
        (&json!(6), &json!(6), &json!(10000), &json!(4))
    );
    assert_eq!(result["models"][1]["name"], "Latent R3");
    let of_hr = &result["comparisons"][0];
    assert_eq!(
        (&of_hr["metric"], &of_hr["baseline"], &of_hr["baseline_runs"]),
        (&json!("HR@10"), &json!("SFT"), &json!([2.0 / 6.0, 2.0 / 6.0]))
    );
    assert_eq!(result["comparisons"].as_array().unwrap().len(), 2, "a metric counts once");
    for question in ["these_runs", "runs_like_these"] {
        let evidence = &of_hr[question];
        assert!(
            evidence["interval"][0].as_f64().unwrap() <= 0.5 && evidence["p_holm"].as_f64() >= evidence["p"].as_f64(),
            "{of_hr}"
        );
    }
    assert!(of_hr["runs_like_these"]["degrees_of_freedom"].as_f64().unwrap() >= 1.0);

    // The same numbers with other threads, others with another seed.
    let before = files.workshop.bytes("out.json");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_latentr3"))
        .args(args)
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(files.workshop.bytes("out.json"), before);
    succeed(&[&args[..8], &["5"]].concat());
    assert_ne!(files.workshop.bytes("out.json"), before);
}

#[test]
fn single_runs_are_named_after_their_files_and_say_nothing_of_the_training() {
    let files = Evaluations::new();
    let as_is = |_: &mut Value| ();
    let a = files.write("first.json", [Some(1.0), NONE, NONE, Some(9.0), NONE, NONE], as_is);
    let b = files.write("odd,name=x.json", [Some(1.0); 6], as_is);
    let said = succeed(&["compare", &a, &b]);
    assert!(said.contains("odd,name=x (1 run) against first (1 run)"), "{said}");
    assert!(!said.contains("Retrained models") && said.contains("Use several seeds of both"), "{said}");
    assert!(said.contains("NDCG@10") && !said.contains("@20") && !said.contains("NDCG@1 "), "{said}");
    assert!(succeed(&["compare", &a, &b, "--against", "odd,name=x"]).contains("first (1 run) against odd"));
    assert_eq!(succeed(&["compare", &a, &b, "--quiet"]), "");
    // Two runs of the same weights are one.
    let same = files.write("same.json", [Some(1.0); 6], |result| {
        result["model_files"] = json!({"model.safetensors": "first.json"})
    });
    let output = crate::common::program::latentr3(&["compare", &format!("A={a},{same}"), &b]);
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warning.contains("have the same weights"), "{warning}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let files = Evaluations::new();
    let as_is = |_: &mut Value| ();
    let ranks = [Some(1.0); 6];
    let good = files.write("good.json", ranks, as_is);
    let other = files.write("other.json", ranks, as_is);
    let changed = |name: &str, change: fn(&mut Value)| files.write(name, ranks, change);
    let paths = |name: &str| files.workshop.path(name);
    for (args, parts) in [
        (
            vec![good.clone(), changed("valid.json", |result| result["split"] = json!("valid"))],
            vec!["good.json", "valid.json", "differ in split"],
        ),
        (
            vec![good.clone(), changed("user.json", |result| result["ranks"][2]["user"] = json!("nobody"))],
            vec!["row 2", "nobody"],
        ),
        (
            vec![good.clone(), changed("rank.json", |result| result["ranks"][2]["rank"] = json!(-3.5))],
            vec!["rank.json", "-3.5 is not a rank"],
        ),
        (
            vec![good.clone(), changed("part.json", |result| result["shard"] = json!("1/2"))],
            vec!["part.json", "shard 1/2", "latentr3 merge"],
        ),
        (vec![good.clone()], vec!["at least two models"]),
        (vec![good.clone(), format!("A={good}")], vec!["good.json is given twice"]),
        (vec![format!("A={good}"), format!("A={other}")], vec!["two models are named `A`"]),
        (vec![good.clone(), format!("={other}")], vec!["is not a model; write NAME=RUN,RUN"]),
        (vec![good.clone(), format!("A={other},")], vec!["is not a model; write NAME=RUN,RUN"]),
        (vec![good.clone(), paths("nowhere.json")], vec!["nowhere.json"]),
        (vec![good.clone(), paths("prepared/dataset.json")], vec!["dataset.json", "not an evaluation result"]),
        (vec![good.clone(), paths("base")], vec!["base", "has no evaluations/test.json"]),
        (
            vec![good.clone(), other.clone(), "--metrics".into(), "hr@20".into()],
            vec!["HR@20 needs lists longer than 10 items"],
        ),
        (vec![good.clone(), other.clone(), "--metrics".into(), "map@10".into()], vec!["`map@10` is not a metric"]),
        (vec![good.clone(), other.clone(), "--resamples".into(), "0".into()], vec!["got 0"]),
        (
            vec![good.clone(), other.clone(), "--against".into(), "third".into()],
            vec!["no model is named `third`; the models are `good`, `other`"],
        ),
        (
            vec![good.clone(), other.clone(), "--against".into(), "good".into(), "--all-pairs".into()],
            vec!["--all-pairs"],
        ),
        (vec![good.clone(), other.clone(), "--json".into(), paths("nowhere/out.json")], vec!["no such folder"]),
    ] {
        let message = refuse(&[&["compare"], &words(&args)[..]].concat());
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
    }
}
