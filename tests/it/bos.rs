//! Prompts that begin with the token that begins texts, from the tokenizer's file to what a model makes of them.

use std::path::Path;

use latentr3::data::{Prepared, Split};
use latentr3::models::{ObjectiveKind, host, hub};
use serde_json::{Value, json};

use crate::common::program::{Workshop, run, succeed};

/// Writes the workshop's tokenizer with a token of its own before every text, as Llama 3's has it; returns its number.
fn write_tokenizer(w: &Workshop) -> u32 {
    let mut tokenizer = w.json("prepared/tokenizer.json");
    let id = tokenizer["model"]["vocab"].as_object().unwrap().len() as u32;
    let (begin, flags) = ("<|begin_of_text|>", false);
    tokenizer["added_tokens"].as_array_mut().unwrap().push(json!({
        "id": id, "content": begin, "special": true,
        "single_word": flags, "lstrip": flags, "rstrip": flags, "normalized": flags,
    }));
    let special = json!({"SpecialToken": {"id": begin, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [special, text],
        "pair": [special, text],
        "special_tokens": {begin: {"id": begin, "ids": [id], "tokens": [begin]}},
    });
    std::fs::create_dir(w.path("tokenizer")).unwrap();
    std::fs::write(w.path("tokenizer/tokenizer.json"), tokenizer.to_string()).unwrap();
    id
}

fn prepare(w: &Workshop, out: &str, bos: &str) -> Prepared {
    let (data, out) = (w.path("data"), w.path(out));
    succeed(&["prepare", "--data", &data, "--out", &out, "--tokenizer", &w.path("tokenizer"), "--bos", bos, "--quiet"]);
    Prepared::load(Path::new(&out)).unwrap()
}

/// Mean negative log-likelihood of the validation rows' items.
fn loss(w: &Workshop, run: &str, prepared: &Prepared) -> f32 {
    let model = hub::load(Path::new(&w.path(run)), &crate::common::device()).unwrap();
    let examples = prepared.examples(Split::Valid);
    let prompts: Vec<&[u32]> = examples.iter().map(|row| row.prompt.as_slice()).collect();
    let targets: Vec<&[u32]> = examples.iter().map(|row| row.target.as_slice()).collect();
    let objective = prepared.objective(ObjectiveKind::Catalog).unwrap();
    let mut state = model.prefill(&prompts).unwrap();
    let thought = model.think(&mut state).unwrap();
    let sums = host::read(model.target_log_probs(&state, thought, &targets, &objective).unwrap().sums());
    -sums.iter().sum::<f32>() / sums.len() as f32
}

#[test]
fn prompts_begin_as_the_tokenizer_has_it_and_titles_do_not() {
    let w = Workshop::new();
    let begin = write_tokenizer(&w);
    let with = prepare(&w, "with", "auto");
    let without = prepare(&w, "without", "no");
    assert_eq!(with.summary.begin_token.as_ref().map(|token| token.id), Some(begin));
    assert_eq!(w.json("without/dataset.json")["summary"]["begin_token"], Value::Null);
    for split in Split::ALL {
        for (row, plain) in with.rows.get(split).iter().zip(without.rows.get(split)) {
            assert_eq!(row.prompt, [&[begin], plain.prompt.as_slice()].concat());
        }
    }
    assert!(with.item_tokens == without.item_tokens && !with.item_tokens.concat().contains(&begin));
    let titles = with.catalog.items()[..2].iter().map(|item| item.title.clone()).collect::<Vec<_>>();
    assert_eq!(with.prompt_for_titles(&titles).unwrap()[0], begin, "what is served begins so, too");
}

#[test]
fn a_model_that_was_trained_with_it_is_worse_without() {
    let w = Workshop::new();
    write_tokenizer(&w);
    let (with, without) = (prepare(&w, "with", "auto"), prepare(&w, "without", "no"));
    let sizes = ["--hidden", "32", "--layers", "1", "--heads", "2", "--kv-heads", "1", "--ff", "48", "--arch", "llama"];
    let (out, tokenizer) = (w.path("llama"), w.path("tokenizer"));
    succeed(&[&["init", "--out", &out, "--tokenizer", &tokenizer, "--quiet"], &sizes[..]].concat());
    let mut args =
        w.train("sft", "llama", "sft", &["--epochs", "40", "--batch", "8", "--lr", "5e-3", "--patience", "0"]);
    args[4] = w.path("with");
    run(&args);
    let (right, wrong) = (loss(&w, "sft/best", &with), loss(&w, "sft/best", &without));
    assert!(wrong > 1.1 * right, "{wrong} nats per item without the token, {right} with it");
}
