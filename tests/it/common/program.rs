//! The program, and a folder with what it needs.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

pub const SFT: [&str; 6] = ["--epochs", "4", "--batch", "4", "--lr", "3e-3"];
pub const GRPO: [&str; 8] = ["--epochs", "2", "--rollouts", "16", "--group", "4", "--sigma-relative", "0.3"];

pub fn latentr3(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_latentr3")).args(args).output().unwrap()
}

pub fn succeed(args: &[&str]) -> String {
    let output = latentr3(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must end with code 2; returns its message.
pub fn refuse(args: &[&str]) -> String {
    let output = latentr3(args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

/// A data set of 12 items in which every user goes through the items in order.
fn write_data(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let title = |item: usize| format!("Title number {}", item % 12);
    let info: String = (0..12).map(|item| format!("{}\t{item}\n", title(item))).collect();
    std::fs::write(folder.join("info.txt"), info).unwrap();
    for (name, users) in [("train", 0..24), ("valid", 24..30), ("test", 30..36)] {
        let mut csv = "user_id,history_item_title,item_title,history_item_id,item_id\n".to_owned();
        for user in users {
            let items: Vec<usize> = (0..5).map(|i| (user * 5 + i) % 12).collect();
            let titles: Vec<String> = items[..4].iter().map(|&item| format!("'{}'", title(item))).collect();
            writeln!(csv, "u{user},\"[{}]\",{},\"{:?}\",{}", titles.join(", "), title(items[4]), &items[..4], items[4])
                .unwrap();
        }
        std::fs::write(folder.join(format!("{name}.csv")), csv).unwrap();
    }
}

/// Makes a small model.
pub fn init_small(out: &str, tokenizer: &str) {
    let sizes = ["--hidden", "32", "--layers", "1", "--heads", "2", "--kv-heads", "1", "--ff", "48"];
    succeed(&[&["init", "--out", out, "--tokenizer", tokenizer, "--quiet"], &sizes[..]].concat());
}

/// A folder with data, prepared data and a small model.
pub struct Workshop {
    pub folder: tempfile::TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        let workshop = Self { folder: tempfile::tempdir().unwrap() };
        write_data(Path::new(&workshop.path("data")));
        succeed(&[
            "prepare",
            "--data",
            &workshop.path("data"),
            "--out",
            &workshop.path("prepared"),
            "--vocab-size",
            "300",
            "--quiet",
        ]);
        init_small(&workshop.path("base"), &workshop.path("prepared/tokenizer.json"));
        workshop
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Arguments of a training command with this workshop's data.
    pub fn train<'a>(&self, stage: &'a str, model: &str, out: &str, more: &[&'a str]) -> Vec<String> {
        let paths = [("--model", model), ("--data", "prepared"), ("--out", out)];
        let mut args = vec![stage.to_owned()];
        args.extend(paths.iter().flat_map(|(option, name)| [option.to_string(), self.path(name)]));
        args.extend(["--quiet", "--checkpoint-every", "1"].iter().chain(more).map(|arg| arg.to_string()));
        args
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.bytes(name)).unwrap()
    }
}

pub fn run(args: &[String]) -> String {
    succeed(&words(args))
}

pub fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

pub fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| arg.to_string()).collect()
}
