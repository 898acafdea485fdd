//! Prompts that begin with the token that begins texts, from the tokenizer's file to what a model makes of them.

use std::path::Path;

use burn::tensor::activation::log_softmax;
use latentr3::data::{Prepared, Split};
use latentr3::models::{ThoughtKind, host, hub};
use serde_json::{Value, json};

use crate::common::program::{Workshop, succeed};

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

/// What the model would write after prompts that begin with the token is the truth here; how many nats worse does it
/// predict that from prompts that do not? The golden model's attention is far from even, as that of a trained one.
#[test]
fn a_llama_predicts_worse_without_the_token_that_its_texts_begin_with() {
    let model = hub::load(Path::new("tests/data/golden/llama"), &crate::common::device()).unwrap();
    let model = model.with_thoughts(ThoughtKind::LastHidden, 0, 0).unwrap();
    let begin = 1;
    let prompts: Vec<Vec<u32>> = (0..16).map(|row| (0..9).map(|at| 2 + (row * 83 + at * 37) % 290).collect()).collect();
    let predicted = |rows: &[Vec<u32>]| {
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let hidden = model.prefill(&rows).unwrap().last_hidden();
        host::read(log_softmax(model.backbone.logits(hidden), 1))
    };
    let begun: Vec<_> = prompts.iter().map(|prompt| [&[begin], prompt.as_slice()].concat()).collect();
    let (truth, without) = (predicted(&begun), predicted(&prompts));
    let loss = |of: &[f32]| -truth.iter().zip(of).map(|(truth, of)| truth.exp() * of).sum::<f32>() / 16.0;
    assert!(loss(&without) > loss(&truth) + 0.1, "{} nats without, {} with", loss(&without), loss(&truth));
}
