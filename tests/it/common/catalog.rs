//! Catalogs for the small model, and the probabilities of their titles by definition.

use std::collections::BTreeSet;

use latentr3::models::decode::ItemTrie;
use latentr3::models::host::read;
use latentr3::models::{LatentRecommender, Objective, ObjectiveKind};
use latentr3::train::Example;
use proptest::prelude::*;

pub const END: u32 = 0;
pub const PROMPTS: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[1, 2, 9], &[7]];

pub fn objective(items: &[Vec<u32>]) -> Objective {
    Objective::new(ObjectiveKind::Catalog, ItemTrie::new(items).unwrap())
}

/// The logits after a prompt with its thoughts and some tokens, from one pass over all of them.
fn logits(model: &LatentRecommender, prompt: &[u32], tokens: &[u32]) -> Vec<f32> {
    let state = model.reason(&[prompt]).unwrap();
    if tokens.is_empty() {
        return read(model.backbone.logits(state.last_hidden()));
    }
    let embedded = model.backbone.model.embed_tokens.forward(tokens, 1);
    let hidden = model.backbone.extend(embedded, &[tokens.len()], &state).unwrap().hidden();
    let [_, length, width] = hidden.dims();
    read(model.backbone.logits(hidden.narrow(1, length - 1, 1).reshape([1, width])))
}

/// `log p(title)` by its definition: at each token the logarithm of its share among those that any item has there.
pub fn log_probability(model: &LatentRecommender, prompt: &[u32], items: &[Vec<u32>], title: &[u32]) -> f64 {
    let mut sum = 0.0;
    for at in 0..title.len() {
        let allowed: BTreeSet<u32> =
            items.iter().filter(|item| item.starts_with(&title[..at])).map(|item| item[at]).collect();
        if allowed.len() > 1 {
            let logits = logits(model, prompt, &title[..at]);
            let logit = |token: u32| f64::from(logits[token as usize]);
            let all: f64 = allowed.iter().map(|&token| (logit(token) - logit(title[at])).exp()).sum();
            sum -= all.ln();
        }
    }
    sum
}

/// Titles of which some begin others, and some are several items'.
pub fn catalog() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let stem = prop::collection::vec(1u32..5, 1..5);
    let with_end = |stem: Vec<u32>| stem.into_iter().chain([END]).collect::<Vec<u32>>();
    prop::collection::vec(stem, 1..18).prop_map(move |stems| {
        let mut items: Vec<Vec<u32>> = stems.into_iter().map(with_end).collect();
        let first = items[0].clone();
        // One that begins another, and one that is there twice.
        items.push(first[..first.len() - 1].iter().copied().chain([6, END]).collect());
        items.push(first);
        items
    })
}

pub fn items() -> Vec<Vec<u32>> {
    vec![vec![3, 4, 5, END], vec![3, 4, END], vec![3, 6, 7, 8, END], vec![9, END], vec![3, 4, END]]
}

pub fn examples(items: &[Vec<u32>]) -> Vec<Example> {
    let example = |row: usize| Example {
        prompt: PROMPTS[row].to_vec(),
        target: items[row % items.len()].clone(),
        item: row % items.len(),
        row,
    };
    (0..PROMPTS.len()).map(example).collect()
}
