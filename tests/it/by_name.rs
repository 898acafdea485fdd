//! Models by their names on a hub: one on this machine, on which everything that can go wrong does.

use std::path::Path;
use std::process::Output;

use crate::common::hub::{COMMIT, Faults, MODEL, TestHub};
use crate::common::program::Workshop;

/// A hub with the workshop's small model.
fn hub(w: &Workshop, faults: Faults) -> TestHub {
    TestHub::start(Path::new(&w.path("base")), faults)
}

fn init(w: &Workshop, hub: &TestHub, name: &str, out: &str) -> Output {
    hub.latentr3(&w.path("cache"), &["init", "--base", name, "--out", &w.path(out)])
}

#[track_caller]
fn made(output: &Output) {
    assert!(output.status.success(), "{}", message(output));
}

/// What a command that failed says.
#[track_caller]
fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", message(output));
    assert!(!message(output).contains("panicked"), "{}", message(output));
    message(output)
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn snapshot(w: &Workshop, file: &str) -> Vec<u8> {
    w.bytes(&format!("cache/models--org--tiny/snapshots/{COMMIT}/{file}"))
}

#[test]
fn a_model_trains_by_its_name_and_is_found_again_without_a_network() {
    let w = Workshop::new();
    let hub = hub(&w, Faults::default());
    let more = ["--max-steps", "2", "--batch", "4"];
    let sft = |out: &str| {
        let mut args = w.train("sft", "base", out, &more);
        args[2] = MODEL.to_owned();
        args
    };
    made(&hub.command(&w.path("cache")).args(sft("sft")).output().unwrap());
    assert_eq!(w.json("sft/run.json")["model"], format!("{MODEL}@{COMMIT}"));
    let asked: Vec<String> = hub.asked().into_iter().map(|(file, _)| file).collect();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"] {
        assert!(asked.iter().filter(|name| *name == file).count() <= 3, "{file}: {asked:?}");
    }
    made(&hub.command(&w.path("cache")).env("HF_HUB_OFFLINE", "1").args(sft("again")).output().unwrap());
    // The commit and a tag are the same files.
    made(&init(&w, &hub, &format!("{MODEL}@{COMMIT}"), "by-commit"));
    assert!(hub.asked().is_empty(), "all is there");
    made(&init(&w, &hub, &format!("{MODEL}@v1"), "by-tag"));
    assert!(hub.asked().iter().all(|(_, range)| range == "bytes=0-0"), "nothing is downloaded twice");
    made(&init(&w, &hub, &format!("{MODEL}@v1"), "by-tag-again"));
    assert!(hub.asked().is_empty(), "the tag is known now");
    let pointer = format!("{}/models--org--tiny/snapshots/{COMMIT}/model.safetensors", w.path("cache"));
    std::fs::remove_file(pointer).unwrap();
    made(&init(&w, &hub, MODEL, "pointer-lost"));
    assert!(hub.asked().iter().all(|(_, range)| range == "bytes=0-0"), "the file itself is there");
    assert_eq!(w.bytes("by-tag/model.safetensors"), w.bytes("base/model.safetensors"));
    hub.asked();
    // The same model as from its folder.
    let weights = |run: &str| w.bytes(&format!("{run}/last/model.safetensors"));
    crate::common::program::run(&w.train("sft", "base", "from-folder", &more));
    assert!(weights("sft") == weights("again") && weights("sft") == weights("from-folder"));
    // Once it runs it needs the model no more, as one that began with a folder.
    std::fs::remove_dir_all(w.path("cache")).unwrap();
    let resumed = ["sft", "--resume", &w.path("sft"), "--max-steps", "3"];
    made(&hub.command(&w.path("cache")).env("HF_HUB_OFFLINE", "1").args(resumed).output().unwrap());
    assert!(hub.asked().iter().all(|(file, _)| file != "model.safetensors"));
    // A report shows where it came from.
    let page = w.path("report.html");
    crate::common::program::succeed(&["report", &w.path("sft"), "--out", &page, "--quiet"]);
    assert!(std::fs::read_to_string(page).unwrap().contains(&format!("{MODEL}@{COMMIT}")));
}

#[test]
fn a_tokenizer_by_its_name_prepares_data() {
    let w = Workshop::new();
    let hub = hub(&w, Faults::default());
    let (data, out, cache) = (w.path("data"), w.path("by-name"), w.path("cache"));
    made(&hub.latentr3(&cache, &["prepare", "--data", &data, "--out", &out, "--tokenizer", MODEL]));
    assert!(w.bytes("by-name/tokenizer.json") == w.bytes("base/tokenizer.json"));
    assert!(!Path::new(&w.path(&format!("cache/models--org--tiny/snapshots/{COMMIT}/model.safetensors"))).exists());
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was() {
    let w = Workshop::new();
    let hub = hub(&w, Faults { cuts: 2, cut_after: 10_000, refusals: 1, ..Faults::default() });
    made(&init(&w, &hub, MODEL, "made"));
    assert!(snapshot(&w, "model.safetensors") == w.bytes("base/model.safetensors"));
    let ranges: Vec<String> =
        hub.asked().into_iter().filter(|(file, _)| file == "model.safetensors").map(|a| a.1).collect();
    for wanted in ["bytes=10000-", "bytes=20000-"] {
        assert!(ranges.iter().any(|range| range == wanted), "{ranges:?}");
    }
    // A hub that never finishes: what is there is kept for the next command.
    let later = "later";
    hub.set(Faults { cuts: usize::MAX, cut_after: 1_000, ..Faults::default() });
    let try_it = || hub.latentr3(&w.path(later), &["init", "--base", MODEL, "--out", &w.path("second")]);
    assert!(said(&try_it(), 1).contains("rerun the command to continue"));
    hub.asked();
    hub.set(Faults::default());
    made(&try_it());
    assert!(hub.asked().iter().any(|(_, range)| range == "bytes=6000-"), "six tries of 1,000 bytes each");
}

#[test]
fn large_files_may_lie_elsewhere_and_are_what_they_should_be() {
    let w = Workshop::new();
    let hub = hub(&w, Faults { redirects: true, token: Some("secret"), ..Faults::default() });
    let init = |out: &str| {
        let mut command = hub.command(&w.path("cache"));
        command.env("HF_TOKEN", "secret").args(["init", "--base", MODEL, "--out", &w.path(out)]).output().unwrap()
    };
    hub.set(Faults { wrong_sum: true, ..Faults::default() });
    let message = said(&init("wrong"), 1);
    assert!(message.contains("model.safetensors does not have") && message.contains("SHA-256"), "{message}");
    assert!(!Path::new(&w.path("wrong")).exists());
    hub.set(Faults { redirects: true, token: Some("secret"), ..Faults::default() });
    made(&init("made"));
    assert!(w.bytes("made/model.safetensors") == w.bytes("base/model.safetensors"));
}

#[test]
fn a_model_in_several_files_is_whole() {
    let w = Workshop::new();
    let hub = TestHub::start(Path::new("tests/data/golden/llama3"), Faults::default());
    made(&init(&w, &hub, MODEL, "made"));
    for file in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        assert!(snapshot(&w, file) == std::fs::read(format!("tests/data/golden/llama3/{file}")).unwrap());
    }
    // One of them is lost: the next command fetches it and nothing else of weights.
    std::fs::remove_file(
        w.path(&format!("cache/models--org--tiny/snapshots/{COMMIT}/model-00002-of-00002.safetensors")),
    )
    .unwrap();
    hub.asked();
    made(&init(&w, &hub, MODEL, "again"));
    assert!(!hub.asked().iter().any(|(file, range)| file.starts_with("model-00001") && range == "bytes=0-"));
}

#[test]
fn what_cannot_be_had_is_said_with_what_helps() {
    let w = Workshop::new();
    let hub = hub(&w, Faults { token: Some("secret"), ..Faults::default() });
    let message = said(&init(&w, &hub, MODEL, "x"), 2);
    assert!(message.contains("401") && message.contains("HF_TOKEN"), "{message}");
    hub.set(Faults::default());
    let message = said(&init(&w, &hub, "org/other", "x"), 2);
    assert!(message.contains("org/other") && message.contains("404") && message.contains("spelling"), "{message}");
    let message = said(&init(&w, &hub, &format!("{MODEL}@v2"), "x"), 2);
    assert!(message.contains("no revision `v2`"), "{message}");
    let offline =
        hub.command(&w.path("cache")).env("HF_HUB_OFFLINE", "1").args(["init", "--base", MODEL, "--out", "x"]).output();
    let message = said(&offline.unwrap(), 2);
    assert!(message.contains("HF_HUB_OFFLINE") && message.contains("cache"), "{message}");
    // A port at which nobody listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = hub
        .command(&w.path("cache"))
        .env("HF_ENDPOINT", format!("http://{closed}"))
        .args(["init", "--base", MODEL, "--out", "x"])
        .output();
    let message = said(&nobody.unwrap(), 1);
    assert!(message.contains("HF_ENDPOINT") && message.contains("check the network"), "{message}");
    std::fs::remove_file(w.path("base/config.json")).unwrap();
    std::fs::write(w.path("base/README.md"), "words").unwrap();
    let message = said(&init(&w, &hub, MODEL, "x"), 2);
    assert!(message.contains("no config.json"), "{message}");
}

#[test]
#[cfg(unix)]
fn a_disk_that_is_full_is_named_and_the_download_kept() {
    let w = Workshop::new();
    let hub = hub(&w, Faults::default());
    let limited = |blocks: usize, cache: &str| {
        let limit = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        std::process::Command::new("sh")
            .args(["-c", &limit, env!("CARGO_BIN_EXE_latentr3"), "prepare", "--tokenizer", MODEL])
            .args(["--data", &w.path("data"), "--out", &w.path("prepared-again")])
            .env("HF_ENDPOINT", &hub.endpoint)
            .env("HF_HUB_CACHE", w.path(cache))
            .output()
            .unwrap()
    };
    let message = said(&limited(2, "cache"), 1);
    assert!(message.contains("no room") && message.contains("HF_HUB_CACHE"), "{message}");
    hub.asked();
    made(&limited(100_000, "cache"));
    assert!(hub.asked().iter().any(|(file, range)| file == "tokenizer.json" && range == "bytes=1024-"));
}
