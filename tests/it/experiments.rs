//! Experiments that are stopped, gone on with, and skipped where they are done.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::program::{Workshop, latentr3, refuse, succeed};
#[cfg(unix)]
use crate::common::runs::wait_for_lines;

const EXPERIMENT: &str = r#"
title = "Two seeds"
inputs = { made = "a folder with prepared data and a model" }

[matrix]
seed = [0, 1]

[[step]]
name = "sft-{seed}"
run = "sft --model {made}/base --data {made}/prepared --seed {seed} --epochs 2 --batch 4 --lr 3e-3 --out {makes} --quiet"
makes = "runs/sft-{seed}"

[[step]]
name = "eval-{seed}"
run = "evaluate --model runs/sft-{seed} --data {made}/prepared --split test --json {json} --quiet"
needs = ["sft-{seed}"]
keep = true

[[step]]
name = "compared"
run = "compare {reads} --metrics hr@10 --resamples 100 --json {json}"
reads = [{ name = "A", results = "eval-0" }, { name = "B", results = "eval-1" }]
keep = true

[[table]]
title = "What came out"
columns = ["hr@10", "title ndcg@10"]
rows = [{ name = "SFT", results = "eval-{seed}" }]

[[chart]]
file = "hr.svg"
title = "What came out"
x = "by_item.hr.5"
x_label = "HR@5"
y = "hr@10"
lines = [{ name = "SFT", points = [{ x = "eval-0", y = "eval-{seed}" }, { x = "eval-1", y = "eval-1" }] }]
"#;

fn workshop() -> (Workshop, [String; 4]) {
    let w = Workshop::new();
    std::fs::write(w.path("two-seeds.toml"), EXPERIMENT).unwrap();
    std::fs::create_dir(w.path("made")).unwrap();
    for part in ["base", "prepared"] {
        std::fs::rename(w.path(part), w.path(&format!("made/{part}"))).unwrap();
    }
    let made = format!("made={}", w.path("made"));
    let paths = [w.path("two-seeds.toml"), made, w.path("work"), w.path("results")];
    (w, paths)
}

fn command<'a>([file, made, work, results]: &'a [String; 4], more: &[&'a str]) -> Vec<&'a str> {
    [&["experiment", file, "--input", made, "--work", work, "--results", results], more].concat()
}

#[test]
fn what_is_done_is_skipped_and_what_is_missing_is_made() {
    let (w, paths) = workshop();
    let planned = succeed(&command(&paths, &["--dry-run"]));
    assert!(planned.contains("sft-0: latentr3 sft") && planned.contains("| SFT | 0 |"), "{planned}");
    succeed(&command(&paths, &["--only", "eval-0"]));
    let first = w.bytes("results/eval-0.json");
    assert!(!Path::new(&w.path("results/eval-1.json")).exists());
    let said = succeed(&command(&paths, &[]));
    assert!(said.contains("### What came out") && said.contains("| SFT | 2 |") && said.contains("±"), "{said}");
    assert_eq!(w.bytes("results/eval-0.json"), first, "it was done");

    let chart = String::from_utf8(w.bytes("results/hr.svg")).unwrap();
    assert!(said.contains("hr.svg") && chart.matches("<circle").count() == 2, "{said} {chart}");
    let kept = w.json("results/eval-1.json");
    assert_eq!(kept["command"][0], "evaluate");
    assert!(!kept.to_string().contains(w.folder.path().to_str().unwrap()), "no path of this machine: {kept}");
    assert!(kept["result"]["by_item"]["hr"]["10"].is_number() && kept["result"].get("ranks").is_none());
    let mut ranks = String::new();
    let packed = std::fs::File::open(w.path("results/eval-1.ranks.csv.gz")).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed), &mut ranks).unwrap();
    assert_eq!(
        (ranks.lines().next(), ranks.lines().count()),
        (Some("row,user,item,item_count,rank,title_rank,popularity_rank"), 7)
    );
    let said =
        succeed(&["compare", &w.path("results/eval-0.json"), &w.path("results/eval-1.json"), "--metrics", "hr@10"]);
    assert!(said.contains("eval-1"), "{said}");
    let message = refuse(&["merge", &w.path("results/eval-1.json"), "--json", &w.path("merged.json")]);
    assert!(message.contains("no item counts"), "{message}");

    let compared = w.json("results/compared.json");
    assert_eq!(compared["result"]["models"][1]["runs"][0], "{results}/eval-1.json");

    // Figures without the ranks that belong to them are not all of a result.
    let ranks = w.bytes("results/eval-1.ranks.csv.gz");
    std::fs::remove_file(w.path("results/eval-1.ranks.csv.gz")).unwrap();
    let planned = succeed(&command(&paths, &["--dry-run"]));
    assert!(planned.contains("eval-1: latentr3") && !planned.contains("eval-0: latentr3"), "{planned}");
    std::fs::write(w.path("results/eval-1.ranks.csv.gz"), ranks).unwrap();

    // Results outlive what made them, also for one that reads them, and a step that is asked for otherwise is made
    // again from what it needs.
    std::fs::remove_dir_all(w.path("work")).unwrap();
    succeed(&command(&paths, &[]));
    assert!(!Path::new(&w.path("work")).exists());
    std::fs::remove_file(w.path("results/compared.json")).unwrap();
    let planned = succeed(&command(&paths, &["--dry-run"]));
    assert!(planned.contains("compared: latentr3") && !planned.contains("eval-0: latentr3"), "{planned}");
    succeed(&command(&paths, &[]));
    std::fs::write(w.path("two-seeds.toml"), EXPERIMENT.replace("--split test", "--split test --beams 12")).unwrap();
    let planned = succeed(&command(&paths, &["--dry-run"]));
    assert!(planned.contains("sft-0") && planned.contains("eval-1"), "{planned}");
}

#[test]
fn an_experiment_that_is_killed_goes_on_with_its_runs() {
    let (w, paths) = workshop();
    for minutes in ["0", "0.005", "0.01"] {
        succeed(&command(&paths, &["--minutes", minutes]));
    }
    succeed(&command(&paths, &[]));
    let (other, other_paths) = workshop();
    succeed(&command(&other_paths, &[]));
    let figures = |w: &Workshop, seed| w.json(&format!("results/eval-{seed}.json"))["result"]["by_item"].clone();
    for seed in 0..2 {
        assert_eq!(figures(&w, seed), figures(&other, seed));
        let weights = format!("work/runs/sft-{seed}/last/model.safetensors");
        assert_eq!(w.bytes(&weights), other.bytes(&weights), "seed {seed}");
    }
}

#[test]
fn experiments_side_by_side_wait_for_what_both_need() {
    let (w, paths) = workshop();
    let others = [paths[0].clone(), paths[1].clone(), paths[2].clone(), w.path("results-b")];
    let begin = |paths: &[String; 4]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_latentr3"));
        program.args(command(paths, &[])).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [begin(&paths), begin(&others)] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for seed in 0..2 {
        let [one, other] = ["results", "results-b"].map(|folder| w.json(&format!("{folder}/eval-{seed}.json")));
        assert_eq!(one["result"]["by_item"], other["result"]["by_item"]);
        let metrics = String::from_utf8(w.bytes(&format!("work/runs/sft-{seed}/metrics.jsonl"))).unwrap();
        let first_steps = metrics.lines().filter(|line| line.contains("\"step\":1,")).count();
        assert!(first_steps == 1, "it was trained once: {metrics}");
    }
}

#[cfg(unix)]
#[test]
fn a_request_to_end_reaches_the_step_that_runs() {
    let (w, paths) = workshop();
    std::fs::write(w.path("two-seeds.toml"), EXPERIMENT.replace("--epochs 2", "--epochs 100000 --patience 0")).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_latentr3"));
    program.args(command(&paths, &[])).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = program.spawn().unwrap();
    let log = w.path("work/runs/sft-0/metrics.jsonl");
    wait_for_lines(&w.path("work/runs/sft-0"), 5);
    let clock = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(clock.elapsed() < Duration::from_secs(50), "the step was not asked");
    let steps = std::fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains("\"loss\"")).count();
    assert_eq!(w.json("work/runs/sft-0/last/progress.json")["step"], steps, "it was saved as it ended");
    std::fs::write(w.path("work/runs/sft-0/mark"), "").unwrap();
    succeed(&command(&paths, &["--minutes", "0.01"]));
    assert!(Path::new(&w.path("work/runs/sft-0/mark")).exists(), "a run that was stopped goes on in its folder");
    let now = w.json("work/runs/sft-0/last/progress.json")["step"].as_u64().unwrap();
    assert!(now >= steps as u64, "{now} of {steps} steps are left");
}

#[test]
fn what_no_step_made_is_left_alone() {
    let (w, paths) = workshop();
    std::fs::create_dir_all(w.path("work/runs/sft-0")).unwrap();
    std::fs::write(w.path("work/runs/sft-0/mine"), "precious").unwrap();
    let message = refuse(&command(&paths, &[]));
    assert!(message.contains("runs/sft-0") && message.contains("was not made by the step"), "{message}");
    assert_eq!(w.bytes("work/runs/sft-0/mine"), b"precious");
}

#[test]
fn a_model_that_stage_2_did_not_change_is_not_evaluated_again() {
    let (w, paths) = workshop();
    let more = r#"
[[step]]
name = "grpo-{seed}"
run = "grpo --model runs/sft-{seed} --data {made}/prepared --lr 1e-30 --max-steps 1 --rollouts 4 --group 2 --out {makes} --quiet"
makes = "runs/grpo-{seed}"
needs = ["sft-{seed}"]

[[step]]
name = "after-{seed}"
run = "evaluate --model runs/grpo-{seed} --data {made}/prepared --split test --json {json} --quiet"
needs = ["grpo-{seed}"]
keep = true
"#;
    std::fs::write(&paths[0], format!("{EXPERIMENT}{more}")).unwrap();
    succeed(&command(&paths, &[]));
    for seed in 0..2 {
        let [start, after] = ["eval", "after"].map(|name| w.json(&format!("results/{name}-{seed}.json")));
        assert_eq!((&start["result"], &after["same_as"]), (&after["result"], &format!("eval-{seed}").into()));
        let [start, after] = ["eval", "after"].map(|name| w.bytes(&format!("results/{name}-{seed}.ranks.csv.gz")));
        assert_eq!(start, after);
    }
    // With other weights in its place it is.
    std::fs::remove_dir_all(w.path("work/runs/grpo-0/best")).unwrap();
    std::fs::rename(w.path("work/runs/grpo-1/best"), w.path("work/runs/grpo-0/best")).unwrap();
    std::fs::remove_file(w.path("results/after-0.json")).unwrap();
    succeed(&command(&paths, &[]));
    let [other, after] = ["eval-1", "after-0"].map(|name| w.json(&format!("results/{name}.json")));
    assert_eq!(after["same_as"], serde_json::Value::Null);
    assert_eq!(after["result"]["by_item"], other["result"]["by_item"]);
}

#[test]
fn a_result_counts_only_for_what_it_was_made_from() {
    let (w, paths) = workshop();
    succeed(&command(&paths, &[]));
    let planned = |paths: &[String; 4]| succeed(&command(paths, &["--dry-run"]));
    assert!(!planned(&paths).contains(": latentr3"));
    // Another setting of a step that only makes something, and results of it are none.
    std::fs::write(&paths[0], EXPERIMENT.replace("--lr 3e-3", "--lr 1e-3")).unwrap();
    let said = planned(&paths);
    assert!(said.contains("sft-1: ") && said.contains("compared: ") && said.contains("| SFT | 0 |"), "{said}");
    // A run that was begun otherwise is begun anew.
    succeed(&command(&paths, &["--minutes", "0.005"]));
    std::fs::write(&paths[0], EXPERIMENT).unwrap();
    std::fs::remove_dir_all(&paths[3]).unwrap();
    succeed(&command(&paths, &[]));
    let run = w.json("work/runs/sft-0/run.json");
    assert_eq!(run["train"]["learning_rate"], 3e-3, "{run}");
    // Other data behind the same name.
    std::fs::write(w.path("made/prepared/note.txt"), "one more file").unwrap();
    assert!(planned(&paths).contains("sft-0: ") && planned(&paths).contains("| SFT | 0 |"));
}

#[test]
fn what_cannot_be_run_says_why() {
    let (w, paths) = workshop();
    let [file, _, work, results] = &paths;
    let alone = ["experiment", file, "--work", work, "--results", results];
    let message = refuse(&alone);
    assert!(message.contains("--input made=PATH: a folder with prepared data and a model"), "{message}");
    for (more, part) in [
        (["--input", "mode=."], "no input named mode; it has: made"),
        (["--only", "sfd"], "sfd"),
        (["--minutes", "nan"], "number of minutes"),
    ] {
        let message = refuse(&[&alone[..], &more].concat());
        assert!(message.contains(part), "{message}");
    }
    let twice = refuse(&command(&paths, &["--input", "made=."]));
    assert!(twice.contains("--input made is given twice"), "{twice}");
    for (from, to, part) in [
        ("title =", "titel =", "titel"),
        ("needs = [\"sft-{seed}\"]", "needs = [\"x\"]", "needs `x`"),
        ("seed = [0, 1]", "seed = [[0], 1]", "neither text nor a number"),
        ("\"sft --model", "\"experiment --dry-run x.toml\" # ", "step `sft-0`: is an experiment itself"),
        ("run = \"sft", "run = \"rm", "unrecognized subcommand 'rm'"),
        ("--epochs 2", "--epochs none", "step `sft-0`: invalid value 'none' for '--epochs"),
        ("--epochs 2", "--epoch 2", "step `sft-0`: unexpected argument '--epoch'"),
        ("[matrix]", "minutes = nan\n[matrix]", "minutes"),
    ] {
        std::fs::write(file, EXPERIMENT.replace(from, to)).unwrap();
        let message = refuse(&command(&paths, &[]));
        assert!(message.contains("two-seeds.toml") && message.contains(part), "{message}");
    }
    std::fs::write(file, EXPERIMENT.replace("--lr 3e-3", "--lr -1")).unwrap();
    let failed = latentr3(&command(&paths, &[]));
    let message = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1));
    assert!(message.contains("step `sft-0` failed") && message.contains("sft-0.txt"), "{message}");
    assert!(String::from_utf8_lossy(&w.bytes("work/log/sft-0.txt")).contains("learning_rate"));
}

#[test]
fn every_step_of_the_experiments_that_come_with_it_is_understood() {
    let w = Workshop::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(files.len() > 10);
    for file in files {
        let file = file.to_str().unwrap();
        succeed(&["experiment", file, "--dry-run", "--work", &w.path("work"), "--results", &w.path("results")]);
    }
}
