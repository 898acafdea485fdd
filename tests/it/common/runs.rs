//! Runs of training through the program: started, stopped and compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::program::Workshop;

/// What must be the same, bit by bit, however often a run was stopped.
pub const RESULTS: [&str; 5] = [
    "last/model.safetensors",
    "last/optimizer.safetensors",
    "best/model.safetensors",
    "best/optimizer.safetensors",
    "metrics.jsonl",
];

pub fn assert_same_results(w: &Workshop, folder: &str, whole: &str) {
    for file in RESULTS {
        assert!(w.bytes(&format!("{folder}/{file}")) == w.bytes(&format!("{whole}/{file}")), "{folder}/{file}");
    }
}

/// Every file below a folder with its content, but the lock, which says who wrote last.
pub fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false if entry.file_name() == "lock" => {}
                false => {
                    files.insert(entry.path().display().to_string(), std::fs::read(entry.path()).unwrap());
                }
            }
        }
    }
    files
}

pub fn start(args: &[String]) -> Child {
    let program = Command::new(env!("CARGO_BIN_EXE_latentr3")).args(args).stderr(Stdio::piped()).spawn();
    program.unwrap()
}

/// Starts a run and kills it after so many lines of its log.
pub fn start_and_kill(args: &[String], folder: &str, lines: usize) {
    let mut child = start(args);
    wait_for_lines(folder, lines);
    child.kill().unwrap();
    child.wait().unwrap();
}

pub fn resume<'a>(stage: &'a str, folder: &'a str) -> [&'a str; 4] {
    [stage, "--resume", folder, "--quiet"]
}

/// Waits until the log of a run has so many lines.
pub fn wait_for_lines(folder: &str, lines: usize) {
    let clock = Instant::now();
    let metrics = Path::new(folder).join("metrics.jsonl");
    while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < lines {
        assert!(clock.elapsed() < Duration::from_secs(120), "no step was done");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(unix)]
pub fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// A run of some hundred steps that checkpoints only when it is stopped.
#[cfg(unix)]
pub fn long_run(w: &Workshop, name: &str) -> Vec<String> {
    let mut args = w.train("sft", "base", name, &["--epochs", "40", "--batch", "4", "--lr", "3e-3", "--patience", "0"]);
    let at = args.iter().position(|arg| arg == "--checkpoint-every").unwrap();
    args[at + 1] = "1000000".into();
    args
}

/// Starts a [`long_run`] and interrupts it after some steps.
#[cfg(unix)]
pub fn stopped_run(w: &Workshop, name: &str) -> std::process::Output {
    let child = start(&long_run(w, name));
    wait_for_lines(&w.path(name), 8);
    interrupt(&child);
    child.wait_with_output().unwrap()
}
