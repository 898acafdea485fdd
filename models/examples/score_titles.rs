//! How likely a model finds each of some titles after a prompt, with the model crate alone.
//!
//! cargo run --release -p latentr3-models --features flex --example score_titles -- MODEL PROMPT TITLE [TITLE ..]

use std::path::Path;

use latentr3_models::{Objective, device, hub};
use tokenizers::Tokenizer;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, prompt, first, others @ ..] = args.as_slice() else {
        return Err("usage: score_titles MODEL PROMPT TITLE [TITLE ..]".into());
    };
    let titles: Vec<&String> = std::iter::once(first).chain(others).collect();
    let folder = Path::new(folder);
    let model = hub::load(folder, &device("flex")?)?;
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"))?;
    let encode = |text: &str| tokenizer.encode(text, false).map(|encoding| encoding.get_ids().to_vec());

    // The prompt runs once for all titles.
    let mut state = model.prefill(&[&encode(prompt)?])?;
    let thought = model.think(&mut state)?;
    let mut targets = titles.iter().map(|title| encode(title)).collect::<Result<Vec<_>, _>>()?;
    // Without its end a title would count as the beginning of longer ones too.
    let end = model.backbone.config().end_tokens.first();
    targets.iter_mut().for_each(|target| target.extend(end));
    let targets: Vec<&[u32]> = targets.iter().map(Vec::as_slice).collect();
    let thought = thought.map(|thought| thought.repeat_dim(0, targets.len()));
    let log_probs = model.target_log_probs(&state, thought, &targets, &Objective::vocabulary())?;
    let values: Vec<f32> = log_probs.values.into_data().iter::<f32>().collect();
    let mut rest = values.as_slice();
    for (title, length) in titles.iter().zip(log_probs.lengths) {
        let (row, others) = rest.split_at(length);
        println!("{:9.3}  {title}", row.iter().sum::<f32>());
        rest = others;
    }
    Ok(())
}
