//! Runs of stage 2 on lists, through the program.

use crate::common::program::{SFT, Workshop, refuse, run, succeed, words};
use crate::common::runs::{assert_same_results, resume, start_and_kill};

/// The lines of a run's log.
fn log(w: &Workshop, run: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(w.bytes(&format!("{run}/metrics.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_reinforces_what_stage_1_held_out_and_resumes_with_identical_results() {
    let w = Workshop::new();
    let (of_sft, of_grpo) = (w.path("sft.json"), w.path("grpo.json"));
    let hold_out = [&SFT[..], &["--hold-out", "0.25", "--seed", "3", "--json", &of_sft]].concat();
    run(&w.train("sft", "base", "sft", &hold_out));
    assert_eq!(w.json("sft.json")["train_examples"], 18, "three fourths of 24");
    let reinforce = [
        "--samples",
        "items",
        "--train-backbone",
        "--rows",
        "held-out",
        "--rollouts",
        "12",
        "--group",
        "4",
        "--epochs",
        "6",
        "--reward",
        "hit,rank=0.5",
        "--advantage",
        "sibling",
        "--hint",
        "1",
        "--anchor",
        "0.1",
        "--kl",
        "0.01",
        "--updates",
        "2",
        "--select",
        "ndcg@10",
        "--rank-sample",
        "6",
    ];
    let whole = [&reinforce[..], &["--json", &of_grpo]].concat();
    run(&w.train("grpo", "sft", "whole", &whole));
    assert_eq!(w.json("grpo.json")["train_examples"], 6);
    assert_eq!(w.json("whole/run.json")["stage"]["held_out"]["share"], 0.25);
    start_and_kill(&w.train("grpo", "sft", "killed", &reinforce), &w.path("killed"), 3);
    succeed(&resume("grpo", &w.path("killed")));
    assert_same_results(&w, "killed", "whole");
    let lines = log(&w, "whole");
    let steps: Vec<_> = lines.iter().filter(|line| line["reward"].is_number()).collect();
    assert_eq!(steps.len(), 12, "6 rows by 3 prompts a step, 6 times");
    for name in
        ["target_loss", "hit_share", "no_difference_share", "mass", "expected_reward", "ratio", "clip_share", "kl"]
    {
        assert!(steps.iter().all(|step| step[name].is_number()), "{name}");
    }
    let shown = lines.iter().filter(|line| line["valid_coverage"].is_number() && line["valid_first_items"].is_u64());
    assert!(shown.count() > 1);

    run(&w.train("sft", "base", "plain", &SFT));
    let (items, guided) = (["--samples", "items", "--group", "4", "--rollouts", "12"], "guide,entropy,hit=0.5");
    let guided = ["--reward", guided, "--guide", "transition", "--advantage", "expectation", "--max-steps", "2"];
    run(&w.train("grpo", "plain", "guided", &[&items[..], &guided].concat()));
    assert_eq!(w.json("guided/run.json")["stage"]["config"]["items"]["guide"], "transition");
    assert!(log(&w, "guided").iter().any(|line| line["reward"].as_f64().is_some_and(|reward| reward != 0.0)));
    let refused = |model: &str, more: &[&'static str]| {
        refuse(&words(&w.train("grpo", model, "refused", &[&["--samples", "items"], more].concat())))
    };
    assert!(refused("plain", &["--rows", "held-out"]).contains("held out no training rows"));
    assert!(refused("sft", &["--advantage", "batch"]).contains("advantage"));
    assert!(refused("sft", &["--reward", "fame"]).contains("hit, rank, ndcg"));
    assert!(refused("sft", &["--reward", "guide"]).contains("guide"));
    assert!(refused("sft", &["--objective", "vocabulary"]).contains("objective"));
    assert!(refuse(&words(&w.train("sft", "base", "refused", &["--hold-out", "1"]))).contains("hold_out"));
    let changed = refuse(&[&resume("grpo", &w.path("whole"))[..], &["--reward", "hit"]].concat());
    assert!(changed.contains("--reward is"), "{changed}");
}

#[test]
fn a_model_from_scratch_of_the_catalog_learns_from_item_transitions_unless_samples_are_named() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "catalog", &SFT));
    run(&w.train("sft", "base", "vocabulary", &[&SFT[..], &["--objective", "vocabulary"]].concat()));
    let settings = |model: &str, out: &str, more: &[&'static str]| {
        run(&w.train("grpo", model, out, &[&["--max-steps", "1"], more].concat()));
        let run = w.json(&format!("{out}/run.json"));
        (run["stage"]["config"].clone(), run["train"]["batch"].clone(), run["select"].clone())
    };
    let (usual, batch, select) = settings("catalog", "usual", &[]);
    assert_eq!(settings("vocabulary", "named", &["--recipe", "transitions"]), (usual.clone(), batch.clone(), select));
    assert_eq!((usual["group"].as_u64(), batch.as_u64()), (Some(16), Some(64)));
    assert_eq!(usual["items"]["guide"], "transition");
    assert_eq!(w.json("usual/run.json")["train"]["learning_rate"], 1e-4);
    assert_eq!(w.json("named/run.json")["objective"], "catalog");
    let own = ["--group", "4", "--rollouts", "12", "--lr", "1e-3", "--select", "loss", "--updates", "2"];
    let (changed, batch, select) = settings("catalog", "changed", &own);
    assert_eq!((changed["group"].as_u64(), batch.as_u64(), select.as_str()), (Some(4), Some(3), Some("loss")));
    assert_eq!((changed["items"]["proposals"].as_u64(), changed["updates"].as_u64()), (Some(2), Some(2)));
    assert_eq!(w.json("changed/run.json")["train"]["learning_rate"], 1e-3);
    for (out, more) in [("sigma", ["--sigma-relative", "0.3"]), ("noise", ["--samples", "noise"])] {
        assert!(settings("catalog", out, &more).0["items"].is_null(), "{more:?}");
    }
    let (published, batch, _) = settings("vocabulary", "published", &[]);
    assert!(published["items"].is_null() && published["group"] == 8 && batch == 32);
    for (more, problem) in [
        (&["--rollouts", "24"][..], "group size 16"),
        (&["--group", "0"], "group size 0"),
        (&["--recipe", "transitions", "--samples", "noise"], "cannot be used with"),
        (&["--recipe", "transitions", "--proposals", "17"], "must not exceed the group size 16"),
    ] {
        let message = refuse(&words(&w.train("grpo", "catalog", "refused", more)));
        assert!(message.contains(problem), "{message}");
    }
    succeed(&[&resume("grpo", &w.path("usual"))[..], &["--max-steps", "2"]].concat());
}
