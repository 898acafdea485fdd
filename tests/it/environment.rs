//! The environment of a run: other processes, threads, a full disk, a read-only folder, a closed pipe.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::program::{SFT, Workshop, refuse, run, words};
#[cfg(unix)]
use crate::common::program::{owned, succeed};
use crate::common::runs::{assert_same_results, content, resume, start};
#[cfg(unix)]
use crate::common::runs::{interrupt, long_run, stopped_run};

#[test]
fn a_run_is_written_by_one_process_which_the_second_one_names() {
    let w = Workshop::new();
    let args = w.train("sft", "base", "sft", &["--epochs", "100000", "--batch", "4", "--patience", "0"]);
    let mut first = start(&args);
    let clock = Instant::now();
    while !Path::new(&w.path("sft/last")).exists() {
        assert!(clock.elapsed() < Duration::from_secs(120), "the run did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let message = refuse(&resume("sft", &w.path("sft")));
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(message.contains("another process") && message.contains(&first.id().to_string()), "{message}");
    // And a run that exists is not begun anew.
    let before = content(Path::new(&w.path("sft")));
    let message = refuse(&words(&args));
    assert!(message.contains("--resume"), "{message}");
    assert!(content(Path::new(&w.path("sft"))) == before);
}

/// Runs the program where no file may grow beyond `blocks` of 512 bytes, as on a disk that is full.
#[cfg(unix)]
fn with_small_files(blocks: usize, args: &[String]) -> std::process::Output {
    let limit = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    Command::new("sh").arg("-c").arg(limit).arg(env!("CARGO_BIN_EXE_latentr3")).args(args).output().unwrap()
}

#[test]
#[cfg(unix)]
fn a_disk_that_is_full_loses_nothing() {
    let w = Workshop::new();
    run(&long_run(&w, "whole"));
    assert_eq!(stopped_run(&w, "sft").status.code(), Some(130));
    let before = content(Path::new(&w.path("sft")));
    let output = with_small_files(16, &owned(&resume("sft", &w.path("sft"))));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("sft/") && message.contains("arge") && !message.contains("panicked"), "{message}");
    let after = content(Path::new(&w.path("sft")));
    assert!(before.keys().eq(after.keys()), "nothing is left over");
    for (path, bytes) in &before {
        let is_log = path.ends_with("metrics.jsonl");
        assert!(if is_log { after[path].starts_with(bytes) } else { after[path] == *bytes }, "{path}");
    }
    succeed(&resume("sft", &w.path("sft")));
    assert_same_results(&w, "sft", "whole");
}

/// As root a permission forbids nothing, so that the program runs as nobody there.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_is_read_only_is_named() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &SFT));
    let program = w.path("latentr3");
    std::fs::copy(env!("CARGO_BIN_EXE_latentr3"), &program).unwrap();
    let allow = |path: &str, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(w.folder.path().to_str().unwrap(), 0o755);
    allow(&program, 0o755);
    let before = content(w.folder.path());
    let is_root = std::fs::metadata(w.path("sft")).is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
    allow(&w.path("sft"), 0o555);
    allow(&w.path("sft/lock"), 0o444);
    let try_it = |args: &[String]| {
        let mut command = Command::new(&program);
        if is_root {
            command.uid(65534).gid(65534);
        }
        let output = command.args(args).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("sft") && message.contains("ermission denied"), "{message}");
    };
    try_it(&owned(&resume("sft", &w.path("sft"))));
    try_it(&w.train("sft", "base", "sft/inside", &SFT));
    allow(&w.path("sft"), 0o755);
    assert!(content(w.folder.path()) == before);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft-2", &SFT));
    for threads in ["1", "3"] {
        let name = format!("sft-{threads}");
        let args = w.train("sft", "base", &name, &SFT);
        let output = Command::new(env!("CARGO_BIN_EXE_latentr3")).env("RAYON_NUM_THREADS", threads).args(args).output();
        assert!(output.unwrap().status.success());
        assert_same_results(&w, &name, "sft-2");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_reader_that_is_gone_is_no_failure_and_a_full_disk_is_one() {
    use std::process::Stdio;
    let w = Workshop::new();
    let (model, data) = (w.path("base"), w.path("prepared"));
    let args = ["recommend", "--model", &model, "--data", &data, "--history", "Title number 3"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_latentr3"))
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_latentr3")).args(args).stdout(full).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("standard output") && !message.contains("panicked"), "{message}");
}

/// Ctrl-C in the middle of a data set that takes seconds.
#[test]
#[cfg(unix)]
fn preparing_that_is_interrupted_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..400_000).map(|row| format!("u{},i{},{row}\n", row / 9, row * 7 % 5000)).collect();
    let items: String = (0..5000).map(|item| format!("i{item},Title of the item number {item}\n")).collect();
    std::fs::write(folder.path().join("reviews.csv"), format!("user_id,item_id,timestamp\n{rows}")).unwrap();
    std::fs::write(folder.path().join("items.csv"), format!("item_id,title\n{items}")).unwrap();
    let [data, out] = [folder.path().to_owned(), folder.path().join("out")].map(|path| path.display().to_string());
    let child = start(&owned(&["prepare", "--data", &data, "--out", &out]));
    std::thread::sleep(Duration::from_millis(400));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains("nothing was written"), "{message}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
