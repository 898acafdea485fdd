//! A real pretrained backbone, SmolLM2-135M-Instruct as a Hugging Face folder; opt in with its path:
//!
//! LATENTR3_SMOLLM2=path cargo test --workspace --profile quick --features ndarray,wgpu --test it smollm2 -- --ignored

use std::path::PathBuf;

use latentr3::data::{encode, load_tokenizer};
use latentr3::models::{ThoughtKind, hub};

#[test]
#[ignore = "needs LATENTR3_SMOLLM2, the path of a SmolLM2-135M folder"]
fn smollm2_continues_the_capital_of_france_is_with_paris() {
    let folder = PathBuf::from(std::env::var("LATENTR3_SMOLLM2").expect("LATENTR3_SMOLLM2 names the folder"));
    let model =
        hub::load(&folder, &crate::common::device()).unwrap().with_thoughts(ThoughtKind::LastHidden, 0, 0).unwrap();
    let tokenizer = load_tokenizer(&folder.join("tokenizer.json")).unwrap();
    let prompt = encode(&tokenizer, "The capital of France is").unwrap();
    let state = model.prefill(&[&prompt]).unwrap();
    let next = model.backbone.logits(state.last_hidden()).argmax(1).into_data().iter::<i64>().next().unwrap();
    assert_eq!(tokenizer.decode(&[next as u32], false).unwrap(), " Paris");
}
