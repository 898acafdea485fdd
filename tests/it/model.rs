//! What must hold of the model whatever its weights are.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::small::{small_model, weights};
use burn::module::Module;
use burn::tensor::Tensor;
use latentr3::models::decode::{
    BeamConfig, Guide, ItemTrie, TitleEmbeddings, beam_search, beam_search_after, generate, guided_beam_search,
};
use latentr3::models::host::read;
use latentr3::models::hub::{PendingTensor, StoredTensor};
use latentr3::models::{LatentRecommender, ModelError, Objective, ObjectiveKind, ThoughtKind, ThoughtSource, hub};
use proptest::prelude::*;

const PROMPTS: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[1, 2, 9, 8, 7, 6, 5, 4], &[1, 2, 3]];
const TARGETS: [&[u32]; 3] = [&[7, 0], &[3, 3, 3, 0], &[0]];

fn log_probs(model: &LatentRecommender, prompts: &[&[u32]], targets: &[&[u32]]) -> Vec<f32> {
    let mut state = model.prefill(prompts).unwrap();
    let thought = model.think(&mut state).unwrap();
    read(model.target_log_probs(&state, thought, targets, &Objective::vocabulary()).unwrap().values)
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * largest, "{a} and {b}");
    }
}

/// The small model has 64 positions: 61 tokens of a prompt and one thought leave two for all tokens of a target but its last.
#[test]
fn what_goes_beyond_the_models_positions_is_refused() {
    let model = small_model(1, 1);
    let prompt = [3; 65];
    let refused = |error: ModelError| assert!(error.to_string().contains("64 positions"), "{error}");
    refused(model.prefill(&[&prompt]).unwrap_err());
    refused(model.reason(&[&prompt[..64]]).unwrap_err());
    let mut state = model.prefill(&[&prompt[..61]]).unwrap();
    let thought = model.think(&mut state).unwrap();
    let log_probs =
        |target: &[u32]| model.target_log_probs(&state, thought.clone(), &[target], &Objective::vocabulary());
    assert!(log_probs(&[1, 2, 0]).is_ok());
    refused(log_probs(&[1, 2, 3, 0]).unwrap_err());
    for title in [vec![1, 2, 0], vec![1, 2, 3, 0]] {
        let fits = title.len() == 3;
        let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&[title]).unwrap());
        let found = beam_search(&model, &objective, &[&prompt[..61]], BeamConfig::default());
        assert_eq!(found.is_ok(), fits);
        found.err().into_iter().for_each(refused);
    }
}

#[test]
fn padding_and_batch_composition_change_nothing() {
    for thoughts in 0..3 {
        let model = small_model(thoughts, 1);
        let together = log_probs(&model, &PROMPTS, &TARGETS);
        let alone: Vec<f32> = (0..3).flat_map(|i| log_probs(&model, &PROMPTS[i..=i], &TARGETS[i..=i])).collect();
        assert_close(&together, &alone, 1e-5);
        // Without a beginning in common the prompts run in another way.
        let with_stranger = log_probs(&model, &[PROMPTS[0], &[30, 31], PROMPTS[1]], &[TARGETS[0], &[5, 0], TARGETS[1]]);
        assert_close(&with_stranger[..2], &alone[..2], 1e-5);
        assert_close(&with_stranger[4..], &alone[2..6], 1e-5);
    }
}

#[test]
fn prefill_and_extend_equal_one_full_run_with_gradients() {
    let model = small_model(0, 2).train();
    let sequence: Vec<u32> = PROMPTS[1].iter().chain(TARGETS[1]).copied().collect();
    let prompt_length = PROMPTS[1].len();
    // In one run: every token's prediction is read from the hidden state before it.
    let full = model.prefill(&[&sequence[..sequence.len() - 1]]).unwrap();
    let [segment] = full.segments() else { panic!("a single prompt is a single segment") };
    let hidden = segment.hidden().narrow(1, prompt_length - 1, TARGETS[1].len());
    let [_, tokens, width] = hidden.dims();
    let ids = Tensor::<1, burn::tensor::Int>::from_data(
        TARGETS[1].iter().map(|&id| id as i32).collect::<Vec<_>>().as_slice(),
        &crate::common::device(),
    );
    let logits = model.backbone.logits(hidden.reshape([tokens, width]));
    let at_once = burn::tensor::activation::log_softmax(logits, 1).gather(1, ids.unsqueeze_dim(1)).reshape([tokens]);

    let state = model.prefill(&[PROMPTS[1]]).unwrap();
    let in_parts = model.target_log_probs(&state, None, &[TARGETS[1]], &Objective::vocabulary()).unwrap().values;
    assert_close(&read(in_parts.clone()), &read(at_once.clone()), 1e-5);

    let gradients =
        [at_once, in_parts].map(|values| latentr3::train::Gradients::collect(&model, values.sum().backward()));
    let [at_once, in_parts] = gradients;
    assert!(at_once.names().count() > 10);
    for name in at_once.names() {
        assert_close(&read(in_parts.get(name).unwrap()), &read(at_once.get(name).unwrap()), 1e-4);
    }
}

#[test]
fn samples_of_one_prompt_equal_as_many_prompts() {
    let model = small_model(1, 3);
    let targets = [TARGETS[0], TARGETS[1], TARGETS[1], TARGETS[0]];
    let mut state = model.prefill(&PROMPTS[..2]).unwrap();
    let thought = model.think(&mut state).unwrap().unwrap();
    let [_, width] = thought.dims();
    let repeated = thought.unsqueeze_dim::<3>(1).repeat_dim(1, 2).reshape([4, width]);
    let shared =
        read(model.target_log_probs(&state, Some(repeated), &targets, &Objective::vocabulary()).unwrap().values);
    let copied = log_probs(&model, &[PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]], &targets);
    assert_close(&shared, &copied, 1e-5);
}

#[test]
fn attention_weights_add_up_to_one_spare_the_padding_and_make_the_thought() {
    // With two thoughts the last one attends to the first, too.
    for thoughts in [1, 2] {
        let model = small_model(thoughts, 6);
        let ThoughtSource::LatentAttention(attention) = &model.source else { panic!("the model has latent attention") };
        let mut state = model.prefill(&PROMPTS).unwrap();
        let thought = read(model.think(&mut state).unwrap().unwrap());
        let weights = attention.weights(&state);
        let [prompts, tokens] = weights.dims();
        let weights = read(weights);
        let width = thought.len() / prompts;
        // All prompts begin with [1, 2], which has run once; then come up to six tokens of each, then the thoughts so far.
        assert_eq!((prompts, tokens), (3, 2 + 6 + thoughts - 1));
        let hidden: Vec<Vec<f32>> = state.segments().iter().map(|segment| read(segment.hidden())).collect();
        for (prompt, row) in weights.chunks(tokens).enumerate() {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
            let own = PROMPTS[prompt].len();
            assert!(row[own..8].iter().all(|&weight| weight == 0.0), "{row:?}");
            assert!(row[..own].iter().chain(&row[8..]).all(|&weight| weight > 0.0), "{row:?}");
            let state_at = |token: usize| match token {
                0..2 => &hidden[0][token * width..][..width],
                2..8 => &hidden[1][(prompt * 6 + token - 2) * width..][..width],
                _ => &hidden[2][prompt * width..][..width],
            };
            let mean = |at: usize| (0..tokens).map(|token| row[token] * state_at(token)[at]).sum::<f32>();
            let mean: Vec<f32> = (0..width).map(mean).collect();
            let mean = Tensor::<1>::from_data(mean.as_slice(), &crate::common::device()).unsqueeze_dim(0);
            assert_close(&read(attention.value.forward(mean)), &thought[prompt * width..][..width], 1e-4);
        }
    }
}

#[test]
fn a_checkpoint_survives_a_round_trip_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, thoughts) in [
        (ThoughtKind::LatentAttention, 2),
        (ThoughtKind::LastHidden, 1),
        (ThoughtKind::Constants, 3),
        (ThoughtKind::LatentAttention, 0),
    ] {
        let model = small_model(1, 4).with_thoughts(kind, thoughts, 5).unwrap();
        hub::save(&model, folder.path()).unwrap();
        let loaded = hub::load(folder.path(), &crate::common::device()).unwrap();
        assert_eq!(loaded.thoughts(), thoughts);
        assert_eq!(loaded.source.kind(), model.source.kind());
        assert_eq!(weights(&loaded), weights(&model));
    }
}

fn write_tensors(path: &Path, tensors: &BTreeMap<String, StoredTensor>) {
    let pending = |(name, StoredTensor { shape, values }): (&String, &StoredTensor)| PendingTensor {
        name: name.clone(),
        shape: shape.clone(),
        values: {
            let values = values.clone();
            Box::new(|| values)
        },
    };
    hub::write_tensors(path, tensors.iter().map(pending).collect()).unwrap();
}

#[test]
fn a_checkpoint_must_be_whole() {
    let folder = tempfile::tempdir().unwrap();
    hub::save(&small_model(1, 7), folder.path()).unwrap();
    let path = folder.path().join("model.safetensors");
    let whole = hub::read_tensors(&path).unwrap();
    let without = |part: &str| {
        let mut tensors = whole.clone();
        tensors.retain(|name, _| !name.contains(part));
        assert!(tensors.len() < whole.len());
        write_tensors(&path, &tensors);
        hub::load(folder.path(), &crate::common::device()).unwrap_err().to_string()
    };
    for part in ["attention.query.weight", "attention.", "model.norm.weight"] {
        let message = without(part);
        assert!(message.contains(part) && message.contains("is missing"), "{message}");
    }
}

#[test]
fn damaged_checkpoints_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    hub::save(&small_model(1, 8), folder.path()).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let message = hub::load(folder.path(), &crate::common::device()).unwrap_err().to_string();
        assert!(message.contains("model.safetensors"), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(hub::load(folder.path(), &crate::common::device()).is_err());
}

/// Every item scored by itself.
fn exhaustive(model: &LatentRecommender, prompt: &[u32], items: &[Vec<u32>], penalty: f64) -> Vec<(f64, Vec<u32>)> {
    let score = |item: &Vec<u32>| {
        let sum: f64 = log_probs(model, &[prompt], &[item]).iter().map(|&value| f64::from(value)).sum();
        (sum / (item.len() as f64).powf(penalty), item.clone())
    };
    let mut distinct = items.to_vec();
    distinct.sort();
    distinct.dedup();
    let mut scores: Vec<_> = distinct.iter().map(score).collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    scores
}

#[test]
fn prompts_of_a_wide_search_run_apart_and_find_the_same() {
    let model = small_model(1, 3);
    let objective = Objective::new(
        ObjectiveKind::Vocabulary,
        ItemTrie::new(&[vec![3, 4, 0], vec![3, 5, 0], vec![6, 0], vec![7, 7, 7, 0]]).unwrap(),
    );
    let config = BeamConfig { beams: 700, ..BeamConfig::default() };
    let together = beam_search(&model, &objective, &PROMPTS, config).unwrap();
    assert_eq!(together.len(), PROMPTS.len());
    for (prompt, found) in PROMPTS.iter().zip(together) {
        assert_eq!(vec![found], beam_search(&model, &objective, &[prompt], config).unwrap());
    }
}

/// The search as its definition says it: candidates are the best `2 * beams` continuations, an ended one counts among
/// the first `beams`, and the search goes on until nothing is left.
fn plain_search(model: &LatentRecommender, prompt: &[u32], items: &[Vec<u32>], beams: usize) -> Vec<(f64, Vec<u32>)> {
    let mut live: Vec<Vec<u32>> = vec![vec![]];
    let mut ended: Vec<(f64, Vec<u32>)> = vec![];
    let sum = |path: &[u32]| log_probs(model, &[prompt], &[path]).iter().map(|&value| f64::from(value)).sum::<f64>();
    while !live.is_empty() {
        let mut next: Vec<Vec<u32>> = live
            .iter()
            .flat_map(|path| {
                items
                    .iter()
                    .filter(|item| item.starts_with(path) && item.len() > path.len())
                    .map(|item| item[..=path.len()].to_vec())
            })
            .collect();
        next.sort();
        next.dedup();
        let mut next: Vec<(f64, Vec<u32>)> = next.into_iter().map(|path| (sum(&path), path)).collect();
        next.sort_by(|a, b| b.0.total_cmp(&a.0));
        next.truncate(2 * beams);
        live.clear();
        for (rank, (sum, path)) in next.into_iter().enumerate() {
            if path.last() == Some(&0) {
                if rank < beams {
                    ended.push((sum / path.len() as f64, path));
                }
            } else if live.len() < beams {
                live.push(path);
            }
        }
    }
    ended.sort_by(|a, b| b.0.total_cmp(&a.0));
    ended.truncate(beams);
    ended
}

fn catalog() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let stem = prop::collection::vec(1u32..6, 1..5);
    prop::collection::vec(stem, 1..25).prop_map(|stems| {
        stems
            .into_iter()
            .map(|mut stem| {
                stem.push(0);
                stem
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn as_many_beams_as_items_equal_exhaustive_scoring(items in catalog(), thoughts in 0usize..3, seed in 0u64..4) {
        let model = small_model(thoughts, seed);
        let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&items).unwrap());
        for penalty in [1.0, 0.0] {
            let config = BeamConfig { beams: items.len(), length_penalty: Some(penalty) };
            let found = beam_search(&model, &objective, &PROMPTS, config).unwrap();
            for (prompt, found) in PROMPTS.iter().zip(found) {
                let expected = exhaustive(&model, prompt, &items, penalty);
                prop_assert_eq!(found.len(), expected.len());
                for (hypothesis, (score, tokens)) in found.iter().zip(&expected) {
                    prop_assert!((hypothesis.score - score).abs() < 1e-4 * score.abs().max(1.0));
                    let holders: Vec<u32> = (0..items.len() as u32).filter(|&i| items[i as usize] == hypothesis.tokens).collect();
                    prop_assert_eq!(&hypothesis.items, &holders);
                    // Only a near tie may come in another order.
                    if hypothesis.tokens != *tokens {
                        let own = expected.iter().find(|(_, other)| *other == hypothesis.tokens).unwrap().0;
                        prop_assert!((own - score).abs() < 1e-4 * score.abs().max(1.0));
                    }
                }
            }
        }
    }

    #[test]
    fn a_guided_search_mixes_the_scores_of_both_models(
        items in catalog(), scale in 0.0f64..=1.0, logits in prop::collection::vec(-3.0f32..3.0, 25)
    ) {
        let model = small_model(1, 2);
        let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&items).unwrap());
        let all = logits[..items.len()].iter().map(|logit| logit.exp()).sum::<f32>().ln();
        let log_probs: Vec<f32> = logits[..items.len()].iter().map(|logit| logit - all).collect();
        let guides = vec![Guide::new(objective.tree().unwrap(), &log_probs, scale).unwrap(); PROMPTS.len()];
        let config = BeamConfig { beams: items.len(), length_penalty: Some(0.0) };
        let found = guided_beam_search(&model, &objective, &PROMPTS, &guides, config).unwrap();
        for (prompt, found) in PROMPTS.iter().zip(found) {
            let alone = exhaustive(&model, prompt, &items, 0.0);
            prop_assert_eq!(found.len(), alone.len());
            prop_assert!(found.is_sorted_by(|a, b| a.score >= b.score));
            for hypothesis in found {
                let own = alone.iter().find(|(_, tokens)| *tokens == hypothesis.tokens).unwrap().0;
                let mass: f64 = hypothesis.items.iter().map(|&item| f64::from(log_probs[item as usize]).exp()).sum();
                let expected = scale * own + (1.0 - scale) * mass.ln();
                prop_assert!((hypothesis.score - expected).abs() < 1e-4 * expected.abs().max(1.0));
            }
        }
    }

    #[test]
    fn few_beams_equal_the_definition(items in catalog(), beams in 1usize..5, seed in 0u64..4) {
        let model = small_model(1, seed);
        let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&items).unwrap());
        let found = beam_search(&model, &objective, &PROMPTS, BeamConfig { beams, length_penalty: Some(1.0) }).unwrap();
        for (prompt, found) in PROMPTS.iter().zip(found) {
            let expected = plain_search(&model, prompt, &items, beams);
            let tokens: Vec<_> = found.iter().map(|h| h.tokens.clone()).collect();
            let expected_tokens: Vec<_> = expected.iter().map(|(_, tokens)| tokens.clone()).collect();
            prop_assert_eq!(tokens, expected_tokens);
        }
    }
}

#[test]
fn free_text_is_the_most_likely_token_again_and_again() {
    let model = small_model(1, 4);
    let mut state = model.reason(&PROMPTS).unwrap();
    let texts = generate(&model, &mut state, 5, None).unwrap();
    for (row, (prompt, text)) in PROMPTS.iter().zip(&texts).enumerate() {
        assert_eq!(text.len(), 5);
        assert_eq!(state.lengths()[row], prompt.len() + 1 + 5);
        for end in 0..5 {
            let score = |token: u32| log_probs(&model, &[prompt], &[&[&text[..end], &[token]].concat()])[end];
            let best = (0..40).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
            assert_eq!(text[end], best, "prompt {row}, token {end}");
        }
        // A row with an end token stops there, whatever the others do.
        let stop = text[2];
        let first = text.iter().position(|&token| token == stop).unwrap();
        let stopped = generate(&model, &mut model.reason(&[prompt]).unwrap(), 5, Some(stop)).unwrap();
        assert_eq!(stopped[0], text[..=first]);
    }
}

#[test]
fn a_search_goes_on_after_text_as_after_a_longer_prompt() {
    let model = small_model(0, 5);
    let objective = Objective::new(
        ObjectiveKind::Vocabulary,
        ItemTrie::new(&[vec![3, 4, 0], vec![3, 5, 0], vec![6, 0], vec![7, 7, 7, 0]]).unwrap(),
    );
    let mut state = model.reason(&PROMPTS).unwrap();
    let texts = generate(&model, &mut state, 3, None).unwrap();
    let found = beam_search_after(&model, &objective, state, BeamConfig::default()).unwrap();
    for ((prompt, text), found) in PROMPTS.iter().zip(texts).zip(found) {
        let longer = [prompt, text.as_slice()].concat();
        let expected = &beam_search(&model, &objective, &[&longer], BeamConfig::default()).unwrap()[0];
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!(a.tokens == b.tokens && (a.score - b.score).abs() < 1e-5, "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_title_is_nearest_to_itself() {
    let model = small_model(1, 6);
    let items = [vec![3, 4, 0], vec![3, 5, 0], vec![6, 0], vec![3, 4, 0]];
    let titles = TitleEmbeddings::new(&model, &items).unwrap();
    for (item, tokens) in items.iter().enumerate() {
        let nearness = &titles.nearness(&model, &[tokens]).unwrap()[0];
        assert!(nearness[item].abs() < 1e-3, "{nearness:?}");
        let others = (0..4).filter(|&other| items[other] != *tokens);
        assert!(others.map(|other| nearness[other]).all(|other| other < nearness[item] - 1e-2), "{nearness:?}");
    }
    assert_eq!(titles.nearness(&model, &[&[6, 0]]).unwrap()[0][0], titles.nearness(&model, &[&[6, 0]]).unwrap()[0][3]);
    assert!(TitleEmbeddings::new(&model, &[]).is_err());
}

#[test]
fn tokens_outside_the_vocabulary_and_empty_rows_are_errors() {
    let model = small_model(1, 9);
    assert!(model.prefill(&[]).is_err());
    assert!(model.prefill(&[&[]]).is_err());
    assert!(model.prefill(&[&[40]]).is_err());
    let state = model.prefill(&[&[1]]).unwrap();
    assert!(model.target_log_probs(&state, None, &[&[99]], &Objective::vocabulary()).is_err());
    let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&[vec![77, 0]]).unwrap());
    assert!(beam_search(&model, &objective, &[&[1]], BeamConfig::default()).is_err());
}
