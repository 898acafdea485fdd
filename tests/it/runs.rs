//! Training runs that are stopped, damaged or misused, through the program.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::program::{GRPO, SFT, Workshop, latentr3, refuse, run, succeed};
use latentr3::models::random::generator;
use rand::RngExt;

/// What must be the same, bit by bit, however often a run was stopped.
const RESULTS: [&str; 5] = [
    "last/model.safetensors",
    "last/optimizer.safetensors",
    "best/model.safetensors",
    "best/optimizer.safetensors",
    "metrics.jsonl",
];

fn start(args: &[String]) -> Child {
    let program = Command::new(env!("CARGO_BIN_EXE_latentr3")).args(args).stderr(Stdio::piped()).spawn();
    program.unwrap()
}

fn resume<'a>(stage: &'a str, folder: &'a str) -> [&'a str; 4] {
    [stage, "--resume", folder, "--quiet"]
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| arg.to_string()).collect()
}

fn assert_same_results(w: &Workshop, folder: &str, whole: &str) {
    for file in RESULTS {
        assert!(w.bytes(&format!("{folder}/{file}")) == w.bytes(&format!("{whole}/{file}")), "{folder}/{file}");
    }
}

/// Every file below a folder with its content, but the lock, which says who wrote last.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
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

/// `LATENTR3_KILLS` kills, 24 if it is not set, at moments spread over the whole life of runs of both stages: in steps, in
/// validations, in the writing of checkpoints, before the first one.
#[test]
fn runs_killed_at_random_moments_end_like_runs_never_stopped() {
    let kills: usize = std::env::var("LATENTR3_KILLS").map_or(24, |kills| kills.parse().unwrap());
    let w = Workshop::new();
    let more =
        ["--validations", "3", "--patience", "0", "--rank-sample", "2", "--keep-every", "3", "--keep-limit", "2"];
    let args = [("sft", "base", [&SFT[..], &more].concat()), ("grpo", "whole-sft", [&GRPO[..], &more].concat())];
    let mut random = generator([7, 0, 0, 0]);
    for (stage, model, more) in args {
        let whole = format!("whole-{stage}");
        let clock = Instant::now();
        run(&w.train(stage, model, &whole, &more));
        let life = clock.elapsed().as_secs_f64();
        let (mut killed, mut number) = (0, 0);
        while killed < kills.div_ceil(2) {
            number += 1;
            let name = format!("{stage}-{number}");
            let folder = w.path(&name);
            let fresh = w.train(stage, model, &name, &more);
            loop {
                let exists = Path::new(&folder).join("run.json").exists();
                let mut child = start(&if exists { owned(&resume(stage, &folder)) } else { fresh.clone() });
                std::thread::sleep(Duration::from_secs_f64(life * random.random_range(0.0..1.0)));
                child.kill().unwrap();
                let output = child.wait_with_output().unwrap();
                if output.status.success() {
                    break;
                }
                let message = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), None, "it ended by itself: {message}");
                killed += 1;
            }
            assert_same_results(&w, &name, &whole);
            let files = |folder: &str| content(Path::new(&w.path(folder))).len();
            assert_eq!(files(&name), files(&whole), "nothing is left over");
        }
        println!("{stage}: {killed} kills over {number} runs of {life:.2} s");
    }
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

fn wait_for_lines(folder: &str, lines: usize) {
    let clock = Instant::now();
    let metrics = Path::new(folder).join("metrics.jsonl");
    while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < lines {
        assert!(clock.elapsed() < Duration::from_secs(120), "no step was done");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A run of some hundred steps that checkpoints only when it is stopped.
fn long_run(w: &Workshop, name: &str) -> Vec<String> {
    let mut args = w.train("sft", "base", name, &["--epochs", "40", "--batch", "4", "--lr", "3e-3", "--patience", "0"]);
    let at = args.iter().position(|arg| arg == "--checkpoint-every").unwrap();
    args[at + 1] = "1000000".into();
    args
}

/// Starts a [`long_run`] and interrupts it after some steps.
#[cfg(unix)]
fn stopped_run(w: &Workshop, name: &str) -> Output {
    let child = start(&long_run(w, name));
    wait_for_lines(&w.path(name), 8);
    interrupt(&child);
    child.wait_with_output().unwrap()
}

/// Its checkpoints hold the adapters apart, and whoever starts from it has them in the weights.
#[test]
fn a_run_with_adapters_goes_on_and_is_a_model_like_others() {
    let w = Workshop::new();
    let lora = [&SFT[..], &["--lora-rank", "3", "--lora-targets", "q_proj,up_proj", "--patience", "0"]].concat();
    run(&w.train("sft", "base", "whole", &lora));
    let mut child = start(&w.train("sft", "base", "killed", &lora));
    wait_for_lines(&w.path("killed"), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(&resume("sft", &w.path("killed")));
    assert_same_results(&w, "killed", "whole");
    for file in ["last/adapter_model.safetensors", "best/adapter_model.safetensors", "last/adapter_config.json"] {
        assert!(w.bytes(&format!("killed/{file}")) == w.bytes(&format!("whole/{file}")), "{file}");
    }
    assert_eq!(w.json("whole/best/adapter_config.json")["r"], 3);

    succeed(&["init", "--base", &w.path("whole"), "--out", &w.path("merged"), "--quiet"]);
    assert!(!Path::new(&w.path("merged/adapter_config.json")).exists());
    let evaluate = |model: &str| {
        let json = w.path(&format!("{model}.json"));
        let data = w.path("prepared");
        let options = ["--split", "test", "--json", &json, "--quiet"];
        succeed(&[&["evaluate", "--model", &w.path(model), "--data", &data], &options[..]].concat());
        w.json(&format!("{model}.json"))["by_item"].clone()
    };
    assert_eq!(evaluate("whole"), evaluate("merged"));
    assert_ne!(evaluate("whole"), serde_json::Value::Null);
    run(&w.train("grpo", "whole", "reinforced", &[&GRPO[..], &["--train-backbone", "--max-steps", "2"]].concat()));
    run(&w.train("sft", "whole", "tuned", &[&SFT[..], &["--max-steps", "2"]].concat()));

    // A folder with the adapter only, which names that of its model, with the tokenizer.
    let only = Path::new(&w.path("only")).to_owned();
    std::fs::create_dir(&only).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(w.path(&format!("whole/best/{file}")), only.join(file)).unwrap();
    }
    succeed(&["init", "--base", &w.path("only"), "--out", &w.path("from-only"), "--quiet"]);
    assert!(w.bytes("from-only/tokenizer.json") == w.bytes("base/tokenizer.json"));
    run(&w.train("sft", "only", "from-adapter", &[&SFT[..], &["--max-steps", "2"]].concat()));
    let [start, end] = ["merged", "reinforced/last"].map(|folder| w.bytes(&format!("{folder}/model.safetensors")));
    assert_eq!(start.len(), end.len(), "stage 2 has no adapters");

    let mut other = owned(&resume("sft", &w.path("whole")));
    other.extend(owned(&["--lora-rank", "4"]));
    let message = refuse(&other.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(message.contains("--lora-rank is 4 here and 3 in the run"), "{message}");
}

/// Both stages, the second with a reference policy. What is written stays in float32.
#[test]
fn a_run_in_16_bits_goes_on_as_it_began() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "f32", &SFT));
    let more = ["--precision", "bf16"];
    let frozen = ["--frozen-weights", "bf16"];
    let runs = [
        ("sft", "sft", "base", [&SFT[..], &more].concat()),
        ("sft", "lora", "base", [&SFT[..], &more, &frozen, &["--lora-rank", "3"]].concat()),
        ("grpo", "grpo", "whole-sft", [&GRPO[..], &more, &frozen, &["--kl", "0.1"]].concat()),
    ];
    for (stage, name, model, more) in runs {
        let [whole, killed] = ["whole", "killed"].map(|part| format!("{part}-{name}"));
        run(&w.train(stage, model, &whole, &more));
        let mut child = start(&w.train(stage, model, &killed, &more));
        wait_for_lines(&w.path(&killed), 2);
        child.kill().unwrap();
        child.wait().unwrap();
        succeed(&resume(stage, &w.path(&killed)));
        assert_same_results(&w, &killed, &whole);
        assert_eq!(w.json(&format!("{whole}/run.json"))["precision"], "bf16");
        let message = refuse(&[stage, "--resume", &w.path(&whole), "--precision", "f32"]);
        assert!(message.contains("--precision is \"f32\" here and \"bf16\" in the run"));
    }
    assert_ne!(w.bytes("f32/metrics.jsonl"), w.bytes("whole-sft/metrics.jsonl"));
    let message = refuse(
        &w.train("sft", "base", "all", &[&SFT[..], &frozen].concat()).iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert!(message.contains("all of them train"), "{message}");
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let [f32, bf16] = ["f32", "whole-sft"].map(|name| w.bytes(&format!("{name}/last/{file}")));
        let header = |bytes: &[u8]| {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            serde_json::from_slice::<serde_json::Value>(&bytes[8..8 + length]).unwrap()
        };
        assert!(header(&bf16) == header(&f32) && !header(&bf16).to_string().contains("BF16"), "{file}");
    }
    // A run that was made before there was a choice.
    let mut description = w.json("f32/run.json");
    assert_eq!(description.as_object_mut().unwrap().remove("precision").unwrap(), "f32");
    std::fs::write(w.path("f32/run.json"), description.to_string()).unwrap();
    succeed(&resume("sft", &w.path("f32")));
}

#[test]
#[cfg(unix)]
fn a_run_that_is_interrupted_saves_its_last_step_and_goes_on_from_there() {
    let w = Workshop::new();
    run(&long_run(&w, "whole"));
    let output = stopped_run(&w, "stopped");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains("--resume") && !message.contains("error"), "{message}");
    let log = String::from_utf8(w.bytes("stopped/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(w.json("stopped/last/progress.json")["step"], last["step"]);
    succeed(&resume("sft", &w.path("stopped")));
    assert_same_results(&w, "stopped", "whole");
}

#[test]
fn kept_checkpoints_are_complete_and_limited() {
    let w = Workshop::new();
    run(&w.train(
        "sft",
        "base",
        "sft",
        &[&SFT[..], &["--recipe", "latentr3", "--keep-every", "5", "--keep-limit", "2"]].concat(),
    ));
    let mut kept: Vec<String> = std::fs::read_dir(w.path("sft"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("step-"))
        .collect();
    kept.sort();
    assert_eq!(kept, ["step-15", "step-20"]);
    // Going on from an older checkpoint comes to the same end.
    let before = content(Path::new(&w.path("sft")));
    std::fs::remove_dir_all(w.path("sft/last")).unwrap();
    std::fs::remove_dir_all(w.path("sft/best")).unwrap();
    succeed(&resume("sft", &w.path("sft")));
    let after = content(Path::new(&w.path("sft")));
    for (path, bytes) in before.iter().filter(|(path, _)| RESULTS.iter().any(|file| path.ends_with(file))) {
        assert!(after[path] == *bytes, "{path}");
    }
}

/// A change of a file's content.
type Damage = fn(&mut Vec<u8>);

#[test]
fn damaged_checkpoints_are_noticed_and_the_newest_whole_one_is_used() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &[&SFT[..], &["--keep-every", "5"]].concat()));
    let results = RESULTS.map(|file| w.bytes(&format!("sft/{file}")));
    let damage: [(&str, Damage); 3] = [
        ("model.safetensors", |bytes| bytes[2000] ^= 1),
        ("optimizer.safetensors", |bytes| bytes.truncate(bytes.len() / 2)),
        ("progress.json", |bytes| bytes.clear()),
    ];
    for (file, damage) in damage {
        for checkpoint in ["last", "best"] {
            let path = w.path(&format!("sft/{checkpoint}/{file}"));
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            // Another checkpoint may be the same file.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        let output = latentr3(&["sft", "--resume", &w.path("sft")]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
        assert!(message.contains(&format!("last/{file}: is damaged")) && message.contains("step-"), "{message}");
        for (file, bytes) in RESULTS.iter().zip(&results) {
            assert!(w.bytes(&format!("sft/{file}")) == *bytes, "{file}");
        }
    }
    // Nothing whole is left: the newest is named, and nothing changes.
    for folder in ["last", "best", "step-10", "step-15", "step-20", "step-5"] {
        let path = w.path(&format!("sft/{folder}/model.safetensors"));
        if let Ok(bytes) = std::fs::read(&path) {
            std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }
    }
    let before = content(Path::new(&w.path("sft")));
    let message = refuse(&resume("sft", &w.path("sft")));
    assert!(message.contains("last/model.safetensors: is damaged"), "{message}");
    let message = refuse(&["evaluate", "--model", &w.path("sft"), "--data", &w.path("prepared"), "--split", "test"]);
    assert!(message.contains("best/model.safetensors: is damaged"), "{message}");
    assert!(content(Path::new(&w.path("sft"))) == before);
}

/// At a constant rate the steps of a longer run are those of a shorter one and more.
#[test]
fn a_trial_that_ended_goes_on_for_more_steps() {
    let w = Workshop::new();
    let constant = [&SFT[..], &["--schedule", "constant", "--warmup", "2", "--patience", "0"]].concat();
    let train =
        |out: &str, steps: &str| run(&w.train("sft", "base", out, &[&constant[..], &["--max-steps", steps]].concat()));
    train("short", "5");
    train("long", "9");
    let short = w.path("short");
    succeed(&[&resume("sft", &short)[..], &["--max-steps", "9", "--micro-batch", "4"]].concat());
    assert_eq!(w.json("short/run.json")["train"]["max_steps"], 9);
    assert_eq!(w.json("short/last/progress.json")["step"], 9);
    assert!(w.bytes("short/last/model.safetensors") == w.bytes("long/last/model.safetensors"));
    // It has done more by now.
    assert!(refuse(&[&resume("sft", &short)[..], &["--max-steps", "7"]].concat()).contains("has done 9 steps of 7"));
    succeed(&resume("sft", &short));
}

#[test]
#[cfg(unix)]
fn checkpoints_of_one_state_share_their_files() {
    use std::os::unix::fs::MetadataExt;

    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &[&SFT[..], &["--keep-every", "24", "--patience", "0"]].concat()));
    let file = |folder: &str| std::fs::metadata(w.path(&format!("sft/{folder}/optimizer.safetensors"))).unwrap().ino();
    assert_eq!(file("last"), file("step-24"));
}

#[test]
fn a_run_goes_on_only_as_it_began() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &[&SFT[..], &["--max-steps", "3"]].concat()));
    let folder = w.path("sft");
    let before = content(Path::new(&folder));
    let expect = |args: &[&str], parts: &[&str]| {
        let message = refuse(args);
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
    };
    expect(&["sft", "--resume", &folder, "--lr", "0.1"], &["--lr", "0.1", "0.003"]);
    expect(&["sft", "--resume", &folder, "--thoughts", "2"], &["--thoughts", "2", "1"]);
    expect(&["grpo", "--resume", &folder], &["`sft`"]);
    run(&w.train("grpo", "sft", "grpo", &["--rollouts", "6", "--group", "3", "--max-steps", "1"]));
    let reinforced = w.path("grpo");
    let of_run = [&resume("grpo", &reinforced)[..], &["--group", "3"]].concat();
    succeed(&of_run);
    succeed(&[&of_run[..], &["--rollouts", "6"]].concat());
    expect(&[&of_run[..], &["--rollouts", "9"]].concat(), &["--rollouts is 9 here and 6"]);
    expect(&[&resume("grpo", &reinforced)[..], &["--rollouts", "6"]].concat(), &["needs --group"]);
    expect(&["sft", "--resume", &w.path("base")], &["run.json"]);
    // Other data, there or elsewhere.
    let rows = w.bytes("prepared/train.jsonl");
    let text = String::from_utf8(rows.clone()).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let second = rest.lines().next().unwrap();
    std::fs::write(w.path("prepared/train.jsonl"), text.replacen(first, second, 1)).unwrap();
    expect(&["sft", "--resume", &folder], &["other data", "train.jsonl"]);
    std::fs::write(w.path("prepared/train.jsonl"), rows).unwrap();
    std::fs::rename(w.path("prepared"), w.path("moved")).unwrap();
    expect(&["sft", "--resume", &folder], &["prepared"]);
    assert!(content(Path::new(&folder)) == before);
    // Moved data is the same data, and options that say the same change nothing.
    succeed(&["sft", "--resume", &folder, "--data", &w.path("moved"), "--lr", "0.003", "--quiet"]);
    assert!(content(Path::new(&folder)) == before);
    std::fs::rename(w.path("moved"), w.path("prepared")).unwrap();
    // Another model, for a run that has no checkpoint yet.
    std::fs::remove_dir_all(w.path("sft/last")).unwrap();
    std::fs::remove_dir_all(w.path("sft/best")).unwrap();
    run(&w.train("sft", "base", "other", &["--max-steps", "1"]));
    std::fs::copy(w.path("other/last/model.safetensors"), w.path("base/model.safetensors")).unwrap();
    let before = content(Path::new(&folder));
    expect(&["sft", "--resume", &folder], &["no checkpoint", "model.safetensors"]);
    assert!(content(Path::new(&folder)) == before);
    // A run file that is none.
    for content in ["", "{", "[]", "{\"stage\": 5}"] {
        std::fs::write(w.path("sft/run.json"), content).unwrap();
        expect(&["sft", "--resume", &folder], &["run.json"]);
    }
}

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
    let message = refuse(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(message.contains("--resume"), "{message}");
    assert!(content(Path::new(&w.path("sft"))) == before);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_or_is_skipped_and_counted() {
    let w = Workshop::new();
    let hopeless = ["--epochs", "4", "--batch", "4", "--lr", "1e30", "--warmup", "0", "--clip-norm", "1e30"];
    let args = w.train("sft", "base", "stopped", &hopeless);
    let output = latentr3(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("loss is") && message.contains("rows ") && message.contains("training data"), "{message}");
    // Skipped ten times in a row, it stops all the same; what came before is in the log.
    let args = w.train("sft", "base", "skipped", &[&hopeless[..], &["--on-nonfinite", "skip"]].concat());
    let output = latentr3(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let log = String::from_utf8(w.bytes("skipped/metrics.jsonl")).unwrap();
    let skipped = log.lines().filter(|line| line.contains("\"skipped\":\"loss\"")).count();
    assert!((1..=10).contains(&skipped), "{log}");
}

/// Runs the program where no file may grow beyond `blocks` of 512 bytes, as on a disk that is full.
#[cfg(unix)]
fn with_small_files(blocks: usize, args: &[String]) -> Output {
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
