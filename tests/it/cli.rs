//! The program as a user meets it.

use std::path::Path;

use crate::common::program::{GRPO, SFT, Workshop, latentr3, refuse, run, succeed};
use serde_json::Value;

#[test]
fn the_whole_way_from_data_to_recommendations() {
    let w = Workshop::new();
    run(&w.train("pretrain", "base", "pretrained", &["--epochs", "2", "--batch", "4"]));
    run(&w.train("sft", "pretrained", "sft", &SFT));
    run(&w.train("grpo", "sft", "grpo", &GRPO));
    for folder in ["pretrained", "sft", "grpo"] {
        for file in [
            "best/model.safetensors",
            "best/config.json",
            "best/tokenizer.json",
            "last/model.safetensors",
            "metrics.jsonl",
        ] {
            assert!(Path::new(&w.path(folder)).join(file).exists(), "{folder}/{file}");
        }
    }
    assert_eq!(w.json("sft/best/config.json")["latent_thoughts"], 1);
    let [model, data, json] = ["grpo", "prepared", "result.json"].map(|name| w.path(name));
    succeed(&["evaluate", "--model", &model, "--data", &data, "--split", "test", "--beams", "12", "--json", &json]);
    let result = w.json("result.json");
    assert_eq!(result["users"], 6);
    assert_eq!(result["ranks"].as_array().unwrap().len(), 6);
    assert!(result["by_item"]["hr"]["10"].is_number() && result["by_item"]["hr"]["20"].is_null());
    assert!(result["popularity"]["hr"]["10"].is_number());
    assert_eq!(result["targets"]["warm"]["users"], 6);
    assert!(result["exposure"]["coverage"].as_f64().unwrap() > 0.5, "12 beams over 12 items");
    // The run has it too, and knows that it was read.
    assert_eq!(w.json("grpo/evaluations/test.json"), result);
    let again = latentr3(&["evaluate", "--model", &model, "--data", &data, "--split", "test", "--thoughts", "0"]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("on the test split: 1"));
    assert_eq!(w.json("grpo/evaluations/test.json"), result, "a model without its thought is not the run's");
    succeed(&[
        "evaluate",
        "--model",
        &model,
        "--data",
        &data,
        "--split",
        "valid",
        "--decode",
        "grounding",
        "--json",
        &json,
    ]);
    let grounded = w.json("result.json");
    assert_eq!((&grounded["method"], &grounded["users"]), (&"grounding".into(), &6.into()));
    assert!(
        grounded["ranks"].as_array().unwrap().iter().all(|user| user["rank"].is_number()),
        "nothing is unreachable"
    );
    assert!(!Path::new(&w.path("grpo/evaluations/valid.json")).exists());
    assert_eq!(w.bytes("grpo/evaluations/log.jsonl").iter().filter(|&&byte| byte == b'\n').count(), 3);

    // Where the run cannot record it, an evaluation is done all the same.
    let (log, sft) = (w.path("sft/evaluations"), w.path("sft"));
    std::fs::write(&log, "in the way").unwrap();
    let unrecorded = latentr3(&["evaluate", "--model", &sft, "--data", &data, "--split", "valid", "--json", &json]);
    let said = String::from_utf8_lossy(&unrecorded.stderr).into_owned();
    assert!(unrecorded.status.success() && said.contains("no record of this evaluation"), "{said}");
    assert_eq!(w.json("result.json")["users"], 6);
    std::fs::remove_file(&log).unwrap();

    let said = succeed(&[
        "recommend",
        "--model",
        &model,
        "--data",
        &data,
        "--history",
        "Title number 3",
        "--top",
        "3",
        "--json",
        &json,
    ]);
    assert!(said.contains("Title number"), "{said}");
    assert_eq!(w.json("result.json")["recommendations"].as_array().unwrap().len(), 3);
}

#[test]
fn the_parts_of_an_evaluation_make_the_whole_of_one_process() {
    let w = Workshop::new();
    let [model, data] = ["base", "prepared"].map(|name| w.path(name));
    let evaluate = |json: &str, more: &[&str]| {
        let json = w.path(json);
        let fixed =
            ["evaluate", "--model", &model, "--data", &data, "--split", "test", "--batch", "2", "--json", &json];
        succeed(&[&fixed[..], more].concat());
        json
    };
    evaluate("whole.json", &[]);
    let [first, second, third] =
        ["1/3", "2/3", "3/3"].map(|shard| evaluate(&format!("{}.json", &shard[..1]), &["--shard", shard]));
    let merged = w.path("merged.json");
    assert!(succeed(&["merge", &third, &first, &second, "--json", &merged]).contains("6 users"));
    let [mut whole, mut merged_result] = ["whole.json", "merged.json"].map(|name| w.json(name));
    for result in [&mut whole, &mut merged_result] {
        assert!(result.as_object_mut().unwrap().remove("seconds").unwrap().is_number());
    }
    assert_eq!(whole, merged_result);

    // What is no whole is refused.
    let before = w.bytes("merged.json");
    let other = evaluate("other.json", &["--shard", "2/3", "--beams", "5"]);
    let coarse = evaluate("coarse.json", &["--shard", "2/3", "--precision", "bf16"]);
    for (parts, problem) in [
        (vec![&first, &second], "2 of 3 shards"),
        (vec![&first, &second, &second], "2/3 is given twice"),
        (vec![&first, &other, &third], "differ in beams"),
        (vec![&first, &coarse, &third], "differ in precision"),
        (vec![&w.path("prepared/dataset.json")], "not an evaluation result"),
    ] {
        let args = [&["merge", "--json", &merged], &parts.iter().map(|part| part.as_str()).collect::<Vec<_>>()[..]];
        let message = refuse(&args.concat());
        assert!(message.contains(problem), "{message}");
    }
    assert_eq!(w.bytes("merged.json"), before);
    assert!(
        refuse(&["evaluate", "--model", &model, "--data", &data, "--split", "test", "--shard", "4/3"]).contains("4/3")
    );
}

#[test]
fn score_and_bench_read_token_files() {
    let w = Workshop::new();
    let rows = r#"{"catalog": [[5, 6, 0], [5, 7, 0], [8, 0]], "eos": 0}
{"prompt": [1, 2, 3], "target": [5, 7, 0]}
{"prompt": [1, 2], "target": [8, 0]}
"#;
    std::fs::write(w.path("tokens.jsonl"), rows).unwrap();
    let [model, tokens, dump] = ["base", "tokens.jsonl", "dump.json"].map(|name| w.path(name));
    let scores = succeed(&["score", "--model", &model, "--tokens", &tokens]);
    let lines: Vec<Value> = scores.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["log_probs"].as_array().unwrap().len()).collect::<Vec<_>>(), [3, 2]);

    for (what, more) in [
        ("sft", &["--batch", "2"][..]),
        ("grpo", &["--batch", "8", "--group", "4"]),
        ("eval", &["--beams", "3", "--dump", &dump]),
    ] {
        let args = [&["bench", what, "--model", &model, "--tokens", &tokens, "--steps", "2"], more].concat();
        let result: Value = serde_json::from_str(&succeed(&args)).unwrap();
        let keys: &[&str] = match what {
            "eval" => &["users_per_s", "s", "hr", "peak_mib"],
            _ => &["step_s", "step_s_min", "loss", "reward", "tokens", "peak_mib"],
        };
        assert!(keys.iter().all(|key| result.get(key).is_some()), "{result}");
    }
    let args = ["bench", "latency", "--model", &model, "--tokens", &tokens, "--steps", "1", "--batch", "2", "--quiet"];
    let result: Value = serde_json::from_str(&succeed(&args)).unwrap();
    let kinds: Vec<_> = result["latency"].as_array().unwrap().iter().map(|row| row["length"].clone()).collect();
    assert_eq!(kinds, [0, 1, 2, 4, 32, 64, 128]);
    let p50 = |at: usize| result["latency"][at]["p50_ms"].as_f64().unwrap();
    assert!(p50(6) > p50(1), "128 tokens take longer than a thought: {result}");
    let dump = w.json("dump.json");
    assert_eq!(dump[0][0].as_array().unwrap().len(), 3);
    assert_eq!(dump[0][1].as_array().unwrap().len(), 3);

    // Prepared data has rows and a catalog too.
    let [data, json] = ["prepared", "bench.json"].map(|name| w.path(name));
    for (what, key) in [("grpo", "loss"), ("eval", "hr")] {
        let said = succeed(&["bench", what, "--model", &model, "--data", &data, "--json", &json, "--steps", "1"]);
        assert_eq!(w.json("bench.json"), serde_json::from_str::<Value>(&said).unwrap());
        assert!(w.json("bench.json").get(key).is_some(), "{said}");
    }
}

#[test]
fn the_score_points_up_the_expected_reward_and_more_so_the_more_samples_there_are() {
    let w = Workshop::new();
    let [model, data, json] = ["base", "prepared", "direction.json"].map(|name| w.path(name));
    let options = ["direction", "--model", &model, "--data", &data, "--json", &json, "--sigma-relative", "0.1"];
    let cosine = |more: &[&str]| {
        let said = succeed(&[&options[..], more].concat());
        let found = w.json("direction.json");
        let cosine = found["cosine"]["own"]["score"].as_f64().unwrap();
        assert!(said.contains(&format!("{cosine:.3}")), "{said}");
        let ratio = found["noise_norm"].as_f64().unwrap() / found["thought_norm"].as_f64().unwrap();
        assert!((ratio - 0.1).abs() < 0.03, "{found}");
        cosine
    };
    let few = cosine(&["--samples", "2"]);
    let many = cosine(&["--samples", "400"]);
    assert!(many > 0.8 && few < many, "{few} with 2 samples, {many} with 400");
    assert_ne!(cosine(&["--samples", "2", "--seed", "1"]), few);
    for (more, part) in [
        (["--prompts", "0"], "prompts"),
        (["--samples", "99999999999"], "65536"),
        (["--max-perplexity", "0.5"], "max_perplexity"),
    ] {
        let message = refuse(&[&options[..], &more].concat());
        assert!(message.contains(part), "{message}");
    }
    succeed(&["init", "--base", &model, "--thoughts", "0", "--out", &w.path("silent")]);
    let message = refuse(&["direction", "--model", &w.path("silent"), "--data", &data]);
    assert!(message.contains("with thoughts"), "{message}");
}

#[test]
fn a_base_is_taken_with_its_tokenizer_and_the_thoughts_that_it_has() {
    let w = Workshop::new();
    run(&w.train("pretrain", "base", "pretrained", &["--epochs", "1"]));
    run(&w.train("sft", "base", "constants", &["--epochs", "1", "--source", "constants", "--thoughts", "3"]));
    let based = |base: &str, more: &[&str]| {
        let out = w.path("based");
        let _ = std::fs::remove_dir_all(&out);
        succeed(&[&["init", "--base", &w.path(base), "--out", &out, "--quiet"], more].concat());
        let config = w.json("based/config.json");
        (config["latent_thoughts"].as_u64(), config["latent_thought_source"].as_str().map(str::to_owned))
    };
    assert_eq!(based("constants", &[]), (Some(3), Some("constants".into())));
    assert_eq!(w.bytes("based/model.safetensors"), w.bytes("constants/best/model.safetensors"));
    let refused = ["init", "--base", &w.path("constants"), "--thoughts", "2", "--out", &w.path("other")];
    assert!(refuse(&refused).contains("has learnt 3 thoughts"));
    assert_eq!(based("pretrained", &[]).0, Some(0), "it records that it has none");
    assert_eq!(based("pretrained", &["--thoughts", "2"]), (Some(2), Some("latent_attention".into())));
    assert_eq!(w.bytes("based/tokenizer.json"), w.bytes("pretrained/best/tokenizer.json"));
}
