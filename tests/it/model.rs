//! What must hold of the model whatever its weights are.

use crate::common::small::{PROMPTS, log_probs, small_model};
use burn::module::Module;
use burn::tensor::Tensor;
use latentr3::models::decode::{BeamConfig, ItemTrie, beam_search};
use latentr3::models::host::read;
use latentr3::models::{ModelError, Objective, ObjectiveKind, ThoughtSource};

const TARGETS: [&[u32]; 3] = [&[7, 0], &[3, 3, 3, 0], &[0]];

/// Like `common::close::assert_close`, but some gradients are 0 up to rounding: the largest value counts as at least
/// 1e-3.
fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * largest, "{a} and {b}");
    }
}

/// The small model has 64 positions: 61 tokens of a prompt and one thought leave two for all tokens of a target but its
/// last.
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
        // All prompts begin with [1, 2], which has run once; then come up to six tokens of each, then the thoughts so
        // far.
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
