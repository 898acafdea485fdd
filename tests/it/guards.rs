//! Training that goes wrong: a NaN loss, and guards of stage 2, through the program.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::common::program::{Workshop, latentr3, run, words};
use serde_json::Value;

/// One prompt a step, validated after each epoch of 24, with a rate that the published estimator ruins this model by.
const RUINOUS: [&str; 14] = [
    "--rollouts",
    "4",
    "--group",
    "4",
    "--epochs",
    "2",
    "--validations",
    "1",
    "--lr",
    "0.01",
    "--warmup",
    "10",
    "--sigma-relative",
    "0.5",
];

/// A folder with a model that has learnt the order of the items, by the published objective.
fn workshop() -> Workshop {
    let w = Workshop::new();
    let sft = ["--recipe", "latentr3", "--epochs", "30", "--batch", "4", "--lr", "1e-2", "--patience", "0"];
    run(&w.train("sft", "base", "sft", &sft));
    w
}

fn log(w: &Workshop, name: &str) -> Vec<Value> {
    let text = String::from_utf8(w.bytes(&format!("{name}/metrics.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn reinforce(w: &Workshop, name: &str, more: &[&str]) -> (Output, Value) {
    let json = w.path(&format!("{name}.json"));
    let args = w.train("grpo", "sft", name, &[&RUINOUS[..], more].concat());
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--json", &json]).collect();
    let output = latentr3(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (output, w.json(&format!("{name}.json")))
}

#[test]
fn a_collapse_is_one_line_and_a_field_of_the_log_unless_it_is_to_stop_the_run() {
    let w = workshop();
    let (output, result) = reinforce(&w, "told", &[]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.lines().count() == 1 && message.contains("warning: the perplexity"), "{message}");
    assert_eq!((&result["stopped"], result["steps"].as_u64()), (&Value::Null, Some(48)));
    let warned: Vec<Value> = log(&w, "told").into_iter().filter(|line| !line["warning"].is_null()).collect();
    assert_eq!(warned.len(), 1);
    assert!(message.contains(warned[0]["warning"].as_str().unwrap()), "{message}");

    let (output, result) = reinforce(&w, "stopped", &["--stop-on-collapse"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.lines().count() == 1 && message.contains("stopping: the perplexity"), "{message}");
    let (reason, steps) = (result["stopped"].as_str().unwrap(), result["steps"].as_u64().unwrap());
    assert_eq!(Some(steps), warned[0]["step"].as_u64());
    // The step that says why, then what has become of the model; the best is still the start.
    let lines = log(&w, "stopped");
    let [step, validation] = lines.last_chunk().unwrap();
    assert_eq!((step["stop"].as_str(), step["step"].as_u64()), (Some(reason), Some(steps)));
    assert!(step["perplexity_growth"].as_f64().unwrap() > 1.5);
    assert_eq!((validation["step"].as_u64(), &validation["best"]), (Some(steps), &Value::Bool(false)));
    assert_eq!(w.json("stopped/best/progress.json")["step"], 0);
    let last = w.json("stopped/last/progress.json");
    assert_eq!((&last["finished"], last["stopped"].as_str()), (&Value::Bool(true), Some(reason)));
}

#[test]
fn a_validation_that_is_far_worse_stops_a_run_too() {
    let w = workshop();
    let json = w.path("stopped.json");
    let args = ["--rollouts", "16", "--group", "4", "--validations", "1", "--lr", "0.03", "--sigma", "3"];
    let more = ["--epochs", "6", "--warmup", "10", "--stop-on-collapse", "1.5", "--json", &json];
    run(&w.train("grpo", "sft", "stopped", &[&args[..], &more].concat()));
    let reason = w.json("stopped.json")["stopped"].as_str().unwrap().to_owned();
    assert!(reason.contains("in validation"), "{reason}");
    let lines = log(&w, "stopped");
    let loss = |line: &Value| line["valid_loss"].as_f64();
    let (first, last) = (loss(&lines[0]).unwrap(), loss(lines.last().unwrap()).unwrap());
    assert!(last - first > 1.5f64.ln(), "{first} {last}");
    assert_eq!(lines.last().unwrap()["stop"].as_str(), Some(&*reason));
    assert_eq!(lines.iter().filter(|line| loss(line).is_some()).count(), 2);
}

#[test]
fn the_divergence_stops_a_run_of_either_estimator() {
    let w = workshop();
    for estimator in ["likelihood", "score"] {
        let name = format!("far-{estimator}");
        let (_, result) = reinforce(&w, &name, &["--max-kl", "1e-4", "--estimator", estimator]);
        assert!(result["stopped"].as_str().unwrap().contains("KL divergence"), "{result}");
        let lines = log(&w, &name);
        let divergences: Vec<f64> = lines.iter().filter_map(|line| line["kl"].as_f64()).collect();
        let (last, before) = divergences.split_last().unwrap();
        assert!(divergences[0] < 1e-6, "the first step is taken by the model at the start");
        assert!(*last > 1e-4 && before.iter().all(|kl| *kl <= 1e-4), "{divergences:?}");
    }
}

/// What guards remember is part of the checkpoint.
#[test]
fn a_killed_run_is_stopped_at_the_same_step() {
    let w = workshop();
    let stops = ["--stop-on-collapse", "1.3", "--max-kl", "1e6"];
    let (_, whole) = reinforce(&w, "whole", &stops);
    assert!(!whole["stopped"].is_null());
    let args = w.train("grpo", "sft", "killed", &[&RUINOUS[..], &stops].concat());
    let steps = whole["steps"].as_u64().unwrap() as usize;
    // At the beginning, in the middle of what is averaged, and just before the end.
    for lines in [2, 8, steps] {
        let folder = w.path("killed");
        let exists = Path::new(&folder).join("run.json").exists();
        let resume = ["grpo", "--resume", &folder, "--quiet"].map(str::to_owned);
        let mut child = Command::new(env!("CARGO_BIN_EXE_latentr3"))
            .args(if exists { &resume[..] } else { &args })
            .spawn()
            .unwrap();
        let clock = Instant::now();
        let metrics = Path::new(&folder).join("metrics.jsonl");
        while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < lines
            && child.try_wait().unwrap().is_none()
        {
            assert!(clock.elapsed() < Duration::from_secs(120), "no step was done");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let json = w.path("killed.json");
    let output = latentr3(&["grpo", "--resume", &w.path("killed"), "--quiet", "--json", &json]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in ["metrics.jsonl", "last/model.safetensors", "last/optimizer.safetensors", "best/model.safetensors"] {
        assert!(w.bytes(&format!("killed/{file}")) == w.bytes(&format!("whole/{file}")), "{file}");
    }
    assert_eq!(w.json("killed.json")["stopped"], whole["stopped"]);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_or_is_skipped_and_counted() {
    let w = Workshop::new();
    let hopeless = ["--epochs", "4", "--batch", "4", "--lr", "1e30", "--warmup", "0", "--clip-norm", "1e30"];
    let args = w.train("sft", "base", "stopped", &hopeless);
    let output = latentr3(&words(&args));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("loss is") && message.contains("rows ") && message.contains("training data"), "{message}");
    // Skipped ten times in a row, it stops all the same; what came before is in the log.
    let args = w.train("sft", "base", "skipped", &[&hopeless[..], &["--on-nonfinite", "skip"]].concat());
    let output = latentr3(&words(&args));
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let log = String::from_utf8(w.bytes("skipped/metrics.jsonl")).unwrap();
    let skipped = log.lines().filter(|line| line.contains("\"skipped\":\"loss\"")).count();
    assert!((1..=10).contains(&skipped), "{log}");
}
