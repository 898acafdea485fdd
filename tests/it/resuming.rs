//! Runs that are stopped and resumed: the same results as of a run that never stopped, bit by bit.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::program::{GRPO, SFT, Workshop, owned, refuse, run, succeed, words};
use crate::common::runs::{assert_same_results, content, resume, start, start_and_kill};
#[cfg(unix)]
use crate::common::runs::{long_run, stopped_run};
use latentr3::models::random::generator;
use rand::RngExt;

/// `LATENTR3_KILLS` kills, 24 if it is not set, at moments spread over the whole life of runs of both stages: in steps,
/// in validations, in the writing of checkpoints, before the first one.
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

/// Its checkpoints hold the adapters apart, and whoever starts from it has them in the weights.
#[test]
fn a_run_with_adapters_goes_on_and_is_a_model_like_others() {
    let w = Workshop::new();
    let lora = [&SFT[..], &["--lora-rank", "3", "--lora-targets", "q_proj,up_proj", "--patience", "0"]].concat();
    run(&w.train("sft", "base", "whole", &lora));
    start_and_kill(&w.train("sft", "base", "killed", &lora), &w.path("killed"), 2);
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
    let message = refuse(&words(&other));
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
        start_and_kill(&w.train(stage, model, &killed, &more), &w.path(&killed), 2);
        succeed(&resume(stage, &w.path(&killed)));
        assert_same_results(&w, &killed, &whole);
        assert_eq!(w.json(&format!("{whole}/run.json"))["precision"], "bf16");
        let message = refuse(&[stage, "--resume", &w.path(&whole), "--precision", "f32"]);
        assert!(message.contains("--precision is \"f32\" here and \"bf16\" in the run"));
    }
    assert_ne!(w.bytes("f32/metrics.jsonl"), w.bytes("whole-sft/metrics.jsonl"));
    let message = refuse(&words(&w.train("sft", "base", "all", &[&SFT[..], &frozen].concat())));
    assert!(message.contains("all weights are trained"), "{message}");
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
    assert!(refuse(&[&resume("sft", &short)[..], &["--max-steps", "7"]].concat()).contains("has already done 9 steps"));
    succeed(&resume("sft", &short));
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
