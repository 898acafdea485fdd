//! Checkpoints of runs: how many are kept, that they share files, and what happens to damaged ones.

use std::path::Path;

use crate::common::program::{SFT, Workshop, latentr3, refuse, run, succeed};
use crate::common::runs::{RESULTS, content, resume};

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

#[test]
#[cfg(unix)]
fn checkpoints_of_one_state_share_their_files() {
    use std::os::unix::fs::MetadataExt;

    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &[&SFT[..], &["--keep-every", "24", "--patience", "0"]].concat()));
    let file = |folder: &str| std::fs::metadata(w.path(&format!("sft/{folder}/optimizer.safetensors"))).unwrap().ino();
    assert_eq!(file("last"), file("step-24"));
}

/// A change of a file's content.
type Damage = fn(&mut Vec<u8>);

#[test]
fn damaged_checkpoints_are_noticed_and_the_newest_whole_one_is_used() {
    let w = Workshop::new();
    // So the run ends soon after its best model, which can be made again from what is kept.
    let late = ["--keep-every", "5", "--select", "loss", "--patience", "1"];
    run(&w.train("sft", "base", "sft", &[&SFT[..], &late].concat()));
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
