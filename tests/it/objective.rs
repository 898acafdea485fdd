//! The option `--objective` and what checkpoints record, through the program.

use crate::common::program::{SFT, Workshop, latentr3, refuse, run, succeed};
use serde_json::Value;

#[test]
fn training_records_the_objective_and_everything_follows_the_record() {
    let workshop = Workshop::new();
    run(&workshop.train("pretrain", "base", "pretrained", &["--epochs", "1"]));
    run(&workshop.train("sft", "pretrained", "catalog", &SFT));
    run(&workshop.train("sft", "base", "published", &[&SFT[..], &["--recipe", "latentr3"]].concat()));
    run(&workshop.train("grpo", "catalog", "reinforced", &["--rollouts", "16", "--group", "4", "--max-steps", "2"]));
    let recorded = |run: &str| workshop.json(&format!("{run}/best/config.json"))["latent_objective"].clone();
    assert_eq!(["pretrained", "catalog", "reinforced"].map(recorded), ["catalog"; 3]);
    assert_eq!(recorded("published"), "vocabulary");
    assert_eq!(workshop.json("reinforced/run.json")["objective"], "catalog");

    // Twelve titles: the loss of a model that knows nothing is log 12.
    let log = String::from_utf8(workshop.bytes("catalog/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let validated = lines.iter().find(|line| line["valid_loss"].is_number()).unwrap();
    assert_eq!(validated["log_catalog_size"].as_f64(), Some(12f64.ln()));
    assert!(lines[0]["choice_perplexity"].as_f64().unwrap() > 1.0, "{}", lines[0]);

    let evaluate = |model: &str, more: &[&str]| {
        let (model, data, json) = (workshop.path(model), workshop.path("prepared"), workshop.path("result.json"));
        let args = ["evaluate", "--model", &model, "--data", &data, "--split", "test", "--json", &json];
        let output = latentr3(&[&args, more].concat());
        let notes = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{notes}");
        (workshop.json("result.json"), notes, String::from_utf8(output.stdout).unwrap())
    };
    let (result, notes, table) = evaluate("catalog", &[]);
    assert_eq!((&result["objective"], result["length_penalty"].as_f64()), (&"catalog".into(), Some(0.0)));
    assert!(!notes.contains("trained for") && table.contains("objective catalog"), "{notes}{table}");
    let (result, _, _) = evaluate("published", &[]);
    assert_eq!((&result["objective"], result["length_penalty"].as_f64()), (&"vocabulary".into(), Some(1.0)));
    // Allowed, and said.
    for (model, asked) in [("catalog", "vocabulary"), ("published", "catalog")] {
        let (result, notes, table) = evaluate(model, &["--objective", asked]);
        assert_eq!(result["objective"], asked);
        assert_ne!(result["trained_objective"], asked);
        assert!(notes.contains("trained for") && table.contains("trained for"), "{notes}{table}");
    }
    let (result, notes, _) = evaluate("catalog", &["--decode", "grounding"]);
    assert!(result["objective"] == "vocabulary" && notes.contains("free text"), "{notes}");

    let model = workshop.path("catalog");
    let history = ["--history", "Title number 3", "--json"];
    let json = workshop.path("list.json");
    let data = workshop.path("prepared");
    succeed(&[&["recommend", "--model", &model, "--data", &data, "--top", "12"], &history[..], &[&json]].concat());
    let list = workshop.json("list.json");
    let probability = |item: &Value| item["score"].as_f64().unwrap().exp();
    let sum: f64 = list["recommendations"].as_array().unwrap().iter().map(probability).sum();
    assert!(list["objective"] == "catalog" && (sum - 1.0).abs() < 1e-4, "{sum} {list}");

    let asked = ["evaluate", "--model", &model, "--data", &data, "--split", "test", "--length-penalty", "1"];
    assert!(refuse(&asked).contains("must be 0"));
    let resumed = refuse(&["sft", "--resume", &model, "--objective", "vocabulary"]);
    assert!(resumed.contains("--objective is \"vocabulary\" here and \"catalog\" in the run"), "{resumed}");
    assert!(refuse(&["sft", "--resume", &model, "--recipe", "latentr3"]).contains("--recipe"));
    let out = workshop.path("other");
    let base = ["sft", "--model", &model, "--data", &data, "--out", &out];
    assert!(refuse(&[&base[..], &["--objective", "songs"]].concat()).contains("neither `catalog` nor `vocabulary`"));
    assert!(
        refuse(&[&base[..], &["--objective", "catalog", "--recipe", "latentr3"]].concat()).contains("cannot be used")
    );
}

#[test]
fn token_files_are_scored_by_the_catalog_of_their_first_line_or_of_another_file() {
    let workshop = Workshop::new();
    let (model, tokens, catalog) = (workshop.path("base"), workshop.path("tokens"), workshop.path("catalog"));
    let items = "{\"catalog\": [[5,6,7,0],[5,8,0],[9,0],[5,8,0]], \"eos\": 0}\n";
    let rows = "{\"prompt\": [3,4], \"target\": [5,6,7,0]}\n{\"prompt\": [3], \"target\": [9,0]}\n";
    std::fs::write(&tokens, rows).unwrap();
    std::fs::write(&catalog, items).unwrap();
    let score = ["score", "--model", &model, "--tokens", &tokens, "--objective", "catalog"];
    let message = refuse(&score);
    assert!(message.contains("tokens, line 1") && message.contains("must be the catalog"), "{message}");
    let found = succeed(&[&score[..], &["--catalog", &catalog]].concat());
    std::fs::write(workshop.path("tokens"), format!("{items}{rows}")).unwrap();
    assert_eq!(found, succeed(&score));
    let lines: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = lines[0]["log_probs"].as_array().unwrap();
    // 5 or 9, then 6 or 8; 7 and the end are certain.
    assert!(row[0].as_f64().unwrap() < 0.0 && row[1].as_f64().unwrap() < 0.0, "{row:?}");
    assert_eq!((row.len(), row[2].as_f64(), row[3].as_f64()), (4, Some(0.0), Some(0.0)));
    let sum = lines[0]["sum"].as_f64().unwrap();
    assert!((lines[0]["mean"].as_f64().unwrap() - sum / 2.0).abs() < 1e-9);

    // A target that is no title, and a tree beyond the vocabulary: file and line.
    std::fs::write(&tokens, format!("{items}{{\"prompt\": [3], \"target\": [5,6,0]}}\n")).unwrap();
    let message = refuse(&score);
    assert!(message.contains("tokens, line 2") && message.contains("not a title in the catalog"), "{message}");
    for command in ["sft", "grpo"] {
        let message = refuse(&["bench", command, "--model", &model, "--tokens", &tokens, "--objective", "catalog"]);
        assert!(message.contains("tokens, line 2") && message.contains("not a title in the catalog"), "{message}");
    }
    std::fs::write(&tokens, rows).unwrap();
    for (items, wanted) in [
        ("{\"catalog\": [[5,0],[9999,0]], \"eos\": 0}\n", "token 9999"),
        ("{\"catalog\": [], \"eos\": 0}\n", "empty"),
        ("{\"catalog\": [[0,0],[0]], \"eos\": 0}\n", "a prefix of"),
        (rows, "must be the catalog"),
    ] {
        std::fs::write(&catalog, items).unwrap();
        let message = refuse(&[&score[..], &["--catalog", &catalog]].concat());
        assert!(message.contains("catalog:1: ") || message.contains("catalog, line 1"), "{message}");
        assert!(message.contains(wanted), "{message}");
    }
}
