//! What keeps a model from over-fitting: dropout, label smoothing, averaged weights, changed histories, selection by a
//! ranking. Each is what its definition says, and a run with all of them resumes with identical results.

use crate::common::catalog::{END, examples, items, objective};
use crate::common::close::assert_close;
use crate::common::program::{SFT, Workshop, refuse, run, succeed};
use crate::common::runs::{assert_same_results, resume, start_and_kill};
use crate::common::small::small_model;
use burn::module::Module;
use latentr3::models::LatentRecommender;
use latentr3::models::host::read;
use latentr3::train::sft::Sft;
use latentr3::train::{AdamW, AdamWConfig, Example, Optimizer, Regularization, Stage, World, forward};

fn optimizer(step: usize) -> Optimizer {
    let adamw = AdamW::new(AdamWConfig::default());
    Optimizer { adamw, clip_norm: 1.0, learning_rate: 1e-2, groups: Vec::new(), step, temperature: None }
}

/// The loss of a step, and its gradient's norm.
fn step(stage: &Sft, model: &LatentRecommender, rows: &[Example], step: usize) -> (f64, f64) {
    let world = World::alone();
    let rows: Vec<&Example> = rows.iter().collect();
    let (_, report) = stage.step(model.clone().train(), &mut optimizer(step), &world.local_batch(&rows)).unwrap();
    (report.headline, report.metrics["gradient_norm"].as_f64().unwrap())
}

#[test]
fn gradient_checkpointing_changes_no_step_with_dropout_and_label_smoothing() {
    let (items, model) = (items(), small_model(1, 3));
    let regularization = Regularization { dropout: 0.2, attention_dropout: 0.1, label_smoothing: 0.1 };
    let stage = Sft { regularization, ..Sft::new(3, objective(&items)) };
    let of = |model: LatentRecommender| {
        let (rows, world) = (examples(&items), World::alone());
        let rows: Vec<&Example> = rows.iter().collect();
        let (_, report) = stage.step(model, &mut optimizer(1), &world.local_batch(&rows)).unwrap();
        report.metrics
    };
    let model = model.train();
    assert_eq!(of(model.clone()), of(model.with_gradient_checkpointing()));
}

#[test]
fn dropout_depends_on_seed_and_step_and_not_on_how_a_batch_is_split() {
    let (items, model) = (items(), small_model(1, 3));
    let examples = examples(&items);
    let with = |micro_batch, [dropout, attention_dropout]: [f64; 2], seed| Sft {
        regularization: Regularization { dropout, attention_dropout, ..Default::default() },
        seed,
        ..Sft::new(micro_batch, objective(&items))
    };
    let none = [0.0; 2];
    for rates in [[0.3, 0.0], [0.0, 0.3], [0.2, 0.1]] {
        let (loss, whole) = step(&with(64, rates, 1), &model, &examples, 5);
        for micro_batch in [1, 2, 3] {
            let (other, split) = step(&with(micro_batch, rates, 1), &model, &examples, 5);
            assert!((loss - other).abs() < 1e-5, "{rates:?}: {loss} {other}");
            assert!((whole - split).abs() < 1e-4 * whole, "{rates:?}: {whole} {split}");
        }
        let fewer = rates.map(|rate| rate / 3.0);
        for (other, at) in
            [(with(64, rates, 2), 5), (with(64, rates, 1), 6), (with(64, none, 1), 5), (with(64, fewer, 1), 5)]
        {
            assert!((step(&other, &model, &examples, at).0 - loss).abs() > 1e-4, "{rates:?}");
        }
    }
    let (plain, _) = step(&with(64, none, 1), &model, &examples, 5);
    assert_eq!(plain, step(&Sft::new(64, objective(&items)), &model, &examples, 9).0);
}

/// The cross-entropy with a target that is mixed with the uniform distribution over the tokens of each choice.
#[test]
fn label_smoothing_equals_its_definition() {
    let (items, model, share) = (items(), small_model(1, 3), 0.2);
    let (objective, examples) = (objective(&items), examples(&items));
    let tree = objective.tree().unwrap();
    let smoothed = objective.with_label_smoothing(share);
    for example in &examples {
        let found = forward(&model, &smoothed, &[example]).unwrap();
        let plain = forward(&model, &objective, &[example]).unwrap();
        assert_close(&read(found.values.clone()), &read(plain.values), 1e-5);
        assert!(plain.smoothing.is_none());
        // The log-probability of each token of a choice, by the item that begins with it: all choices before are the
        // same.
        let mut expected = 0.0;
        let mut node = latentr3::models::decode::ItemTrie::ROOT;
        for (place, token) in example.target.iter().enumerate() {
            let (tokens, children) = tree.children(node);
            let before: Vec<u32> = example.target[..place].to_vec();
            if tokens.len() > 1 {
                let log_prob = |token: &u32| {
                    let begins = |item: &&Vec<u32>| item.starts_with(&before) && item[place] == *token;
                    let target = items.iter().find(begins).unwrap().clone();
                    let other = Example { target: target.clone(), ..example.clone() };
                    let values = read(forward(&model, &objective, &[&other]).unwrap().values);
                    let at = objective.predicted(&target).unwrap().iter().position(|&at| at == place).unwrap();
                    f64::from(values[at])
                };
                let mean = tokens.iter().map(log_prob).sum::<f64>() / tokens.len() as f64;
                expected += share * (mean - log_prob(token));
            }
            node = children[tokens.iter().position(|other| other == token).unwrap()];
        }
        let smoothing = f64::from(read(found.smoothing.unwrap())[0]);
        assert!((smoothing - expected).abs() < 1e-4, "{smoothing} {expected}");
        assert_eq!(example.target.last(), Some(&END));
    }
    // The step's loss is the mean over the rows.
    let sums = |example: &Example| {
        let found = forward(&model, &smoothed, &[example]).unwrap();
        f64::from(read(found.values.sum() + found.smoothing.unwrap())[0])
    };
    let expected = -examples.iter().map(sums).sum::<f64>() / examples.len() as f64;
    let regularization = Regularization { label_smoothing: share, ..Default::default() };
    let (loss, _) = step(&Sft { regularization, ..Sft::new(2, objective) }, &model, &examples, 1);
    assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
}

#[test]
fn a_run_with_everything_resumes_with_identical_results_and_selects_by_its_ranking() {
    let w = Workshop::new();
    let everything = [
        &SFT[..],
        &[
            "--dropout",
            "0.2",
            "--attention-dropout",
            "0.1",
            "--label-smoothing",
            "0.1",
            "--drop-history",
            "0.2",
            "--swap-history",
            "0.3",
        ],
        &["--average", "0.9", "--select", "ndcg@10", "--rank-sample", "3", "--validations", "3", "--patience", "0"],
    ]
    .concat();
    run(&w.train("sft", "base", "whole", &everything));
    start_and_kill(&w.train("sft", "base", "killed", &everything), &w.path("killed"), 3);
    succeed(&resume("sft", &w.path("killed")));
    assert_same_results(&w, "killed", "whole");

    let progress = w.json("whole/last/progress.json");
    let log = String::from_utf8(w.bytes("whole/metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ranked: Vec<(u64, f64)> =
        lines.filter_map(|line| Some((line["step"].as_u64()?, line["valid_ndcg"]["10"].as_f64()?))).collect();
    assert!(ranked.len() > 2);
    // The first of equal ones is the best.
    let best = ranked.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!((progress["best_step"].as_u64(), progress["best"]["score"].as_f64()), (Some(best.0), Some(best.1)));
    // What is saved is the average; what trains lies beside it.
    assert_ne!(w.bytes("whole/last/model.safetensors"), w.bytes("whole/best/model.safetensors"));
    let state = latentr3::models::hub::read_tensors(w.path("whole/last/optimizer.safetensors").as_ref()).unwrap();
    assert!(state.keys().any(|name| name.ends_with(".trained")));

    for (options, part) in [
        (&["--dropout", "1"][..], "dropout"),
        (&["--label-smoothing", "-0.1"], "label_smoothing"),
        (&["--attention-dropout", "1"], "attention_dropout"),
        (&["--drop-history", "2"], "drop a title"),
        (&["--average", "1.5"], "average"),
        (&["--select", "ndcg@10", "--rank-sample", "0"], "--rank-sample"),
        (&["--select", "loud"], "ndcg@10"),
    ] {
        let args = w.train("sft", "base", "refused", options);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert!(refuse(&args).contains(part), "{options:?}");
    }
    assert!(
        refuse(&["sft", "--resume", &w.path("whole"), "--dropout", "0.1"]).contains("--dropout is 0.1 here and 0.2")
    );
}

#[test]
fn a_model_from_scratch_says_so_and_one_from_elsewhere_does_not() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "tuned", &SFT));
    for folder in ["base", "tuned/best"] {
        assert_eq!(w.json(&format!("{folder}/config.json"))["latent_from_scratch"], true, "{folder}");
    }
}
