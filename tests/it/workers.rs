//! Several processes that train one model: as one process would, whatever their number.
//!
//! Needs the feature `mpi` and an `mpirun`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::program::{Workshop, run};
use latentr3::models::hub::{StoredTensor, read_tensors};
use serde_json::{Map, Value};

const STEPS: usize = 10;
/// Seven rows a step and three in the last of an epoch, so that four workers have shares of different sizes, and none.
const SFT: [&str; 4] = ["--batch", "7", "--epochs", "3"];
const GRPO: [&str; 8] = ["--rollouts", "28", "--group", "4", "--epochs", "3", "--sigma", "0.5"];

/// `mpirun` with so many workers, each with one thread, also where there are fewer cores and for root in a container.
fn mpirun(workers: usize, args: &[String]) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["-n", &workers.to_string(), env!("CARGO_BIN_EXE_latentr3")]).args(args).arg("--mpi");
    command.env("RAYON_NUM_THREADS", "1");
    // Containers often forbid one process to read another's memory.
    command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    for setting in ["ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM", "MCA_rmaps_base_oversubscribe"] {
        command.env(format!("OMPI_{setting}"), "1");
    }
    command
}

fn run_with(workers: usize, args: &[String]) {
    let output = mpirun(workers, args).output().expect("mpirun is installed");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn metrics(w: &Workshop, run: &str) -> Vec<Map<String, Value>> {
    let text = String::from_utf8(w.bytes(&format!("{run}/metrics.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn tensors(w: &Workshop, file: &str) -> BTreeMap<String, StoredTensor> {
    read_tensors(Path::new(&w.path(file))).unwrap()
}

/// All tensors within `tolerance` of each one's norm.
fn close(a: &BTreeMap<String, StoredTensor>, b: &BTreeMap<String, StoredTensor>, tolerance: f64, least: f64) {
    assert!(a.keys().eq(b.keys()));
    for (name, a) in a {
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let b = &b[name].values;
        let size = norm(&mut a.values.iter().map(|&x| f64::from(x)));
        let apart = norm(&mut a.values.iter().zip(b).map(|(x, y)| f64::from(*x) - f64::from(*y)));
        assert!(apart <= tolerance * size.max(least), "{name}: {apart:e} apart at a norm of {size:e}");
    }
}

/// A stage that begins with a new model, or with one that was fine-tuned for the objective `start`.
fn agree_with_one_process(stage: &str, start: Option<&str>, options: &[&str]) {
    let w = Workshop::new();
    let model = if start.is_some() { "sft" } else { "base" };
    if let Some(objective) = start {
        run(&w.train("sft", "base", model, &["--epochs", "1", "--batch", "4", "--objective", objective]));
    }
    let steps = STEPS.to_string();
    let more = ["--max-steps", &steps, "--keep-every", "1", "--keep-limit", &steps];
    let train = |out: &str| {
        let args = w.train(stage, model, out, &[]);
        args.into_iter().chain(options.iter().chain(&more).map(|option| option.to_string())).collect::<Vec<_>>()
    };
    run(&train("one"));
    for workers in [1, 2, 4] {
        let name = format!("workers-{workers}");
        run_with(workers, &train(&name));
        let (alone, together) = (metrics(&w, "one"), metrics(&w, &name));
        assert_eq!(alone.len(), together.len());
        for (alone, together) in alone.iter().zip(&together) {
            assert!(alone.keys().eq(together.keys()));
            for (figure, value) in alone {
                if let (Some(a), Some(b)) = (value.as_f64(), together[figure].as_f64()) {
                    assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{workers} workers: {figure} is {b}, alone {a}");
                } else {
                    assert_eq!(*value, together[figure], "{workers} workers: {figure}");
                }
            }
        }
        // After the first step the first moment is a tenth of the clipped gradient.
        let moments = |run: &str| tensors(&w, &format!("{run}/step-1/optimizer.safetensors"));
        close(&moments("one"), &moments(&name), 1e-5, 1e-4);
        let weights = |run: &str| tensors(&w, &format!("{run}/last/model.safetensors"));
        close(&weights("one"), &weights(&name), 1e-4, 1e-3);
    }
}

#[test]
fn any_number_of_workers_fine_tunes_as_one_process_does() {
    agree_with_one_process("sft", None, &SFT);
}

#[test]
fn any_number_of_workers_reinforces_as_one_process_does() {
    agree_with_one_process("grpo", Some("catalog"), &GRPO);
}

#[test]
fn any_number_of_workers_follows_the_score_and_watches_the_divergence() {
    let more = ["--estimator", "score", "--advantage", "own", "--kl", "0.01", "--max-kl", "1e6"];
    // On a catalog of twelve items noise moves the rewards in the fourth digit only. Advantages from one's own
    // noise-free sample bring that to norm one, and rounding with it; over the vocabulary the rewards differ more.
    agree_with_one_process("grpo", Some("vocabulary"), &[&GRPO[..], &more].concat());
}

/// Processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let tasks = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    tasks.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn a_worker_that_dies_stops_the_others_and_another_number_of_them_goes_on() {
    let w = Workshop::new();
    let args = w.train("sft", "base", "run", &["--batch", "6", "--epochs", "100", "--patience", "0"]);
    let child = mpirun(2, &args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("mpirun is installed");
    let launcher = child.id();
    let wait_until = |what: &str, holds: &dyn Fn() -> bool| {
        let clock = Instant::now();
        while !holds() {
            assert!(clock.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let log = w.path("run/metrics.jsonl");
    wait_until("no steps", &|| std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 5));
    let victim = *children(launcher).last().expect("the launcher has workers");
    let clock = Instant::now();
    assert!(Command::new("kill").args(["-9", &victim.to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(clock.elapsed() < Duration::from_secs(10), "{:?}", clock.elapsed());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("signal 9"), "{message}");

    let resume = |workers: usize| {
        let args = ["sft", "--resume", &w.path("run"), "--quiet"].map(str::to_owned);
        run_with(workers, &args);
    };
    resume(3);
    let steps: Vec<u64> = metrics(&w, "run")
        .iter()
        .filter(|line| line.contains_key("loss"))
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert!(steps.into_iter().eq(1..=400), "every step is there once");
}
