//! The catalog's objective in training: probabilities of targets, losses and rewards against their definitions.

use crate::common::catalog::{END, PROMPTS, catalog, examples, items, log_probability, objective};
use crate::common::small::small_model;
use crate::common::training::likelihood;
use burn::module::Module;
use latentr3::models::decode::{BeamConfig, beam_search};
use latentr3::models::host::read;
use latentr3::train::grpo::{Grpo, GrpoConfig, freeze_untrained};
use latentr3::train::sft::Sft;
use latentr3::train::{Example, World};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn targets_have_the_probabilities_of_their_definition(items in catalog(), thoughts in 0usize..2, seed in 0u64..4) {
        let (model, objective) = (small_model(thoughts, seed), objective(&items));
        let targets: Vec<&[u32]> = (0..3).map(|i| items[i * 7 % items.len()].as_slice()).collect();
        let mut state = model.prefill(&PROMPTS).unwrap();
        let thought = model.think(&mut state).unwrap();
        let found = model.target_log_probs(&state, thought, &targets, &objective).unwrap();
        let values = read(found.values);
        let mut rest = values.as_slice();
        for ((prompt, target), length) in PROMPTS.iter().zip(targets).zip(found.lengths) {
            let (own, others) = rest.split_at(length);
            rest = others;
            prop_assert_eq!(length, objective.size(target).unwrap().choices);
            let (sum, expected) = (own.iter().map(|&p| f64::from(p)).sum::<f64>(), log_probability(&model, prompt, &items, target));
            prop_assert!((sum - expected).abs() < 1e-4 * expected.abs().max(1.0), "{} {}", sum, expected);
        }
    }
}

#[test]
fn the_loss_is_in_nats_per_item_in_training_and_validation() {
    let (model, items, world) = (small_model(1, 3), items(), World::alone());
    let (objective, examples) = (objective(&items), examples(&items));
    let nats = |row: &Example| -log_probability(&model, &row.prompt, &items, &row.target);
    let expected = examples.iter().map(nats).sum::<f64>() / examples.len() as f64;
    let rows: Vec<&Example> = examples.iter().collect();
    for micro_batch in [1, 2, 8] {
        let stage = Sft::new(micro_batch, objective.clone());
        let update = stage.update(&model.clone().train(), &world.local_batch(&rows)).unwrap();
        let loss = update.metrics.get("loss").unwrap();
        assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
    }
    let validation = likelihood(&model, &objective, &examples, 2);
    assert!((validation.loss - expected).abs() < 1e-4, "{validation:?} {expected}");
    let perplexity = |row: &Example| (nats(row) / objective.size(&row.target).unwrap().choices as f64).exp();
    let expected = examples.iter().map(perplexity).sum::<f64>() / examples.len() as f64;
    assert!((validation.perplexity - expected).abs() < 1e-3 * expected, "{validation:?} {expected}");
    assert_eq!(objective.log_titles(), Some(4f64.ln()), "two items have one title");
}

#[test]
fn titles_that_follow_each_other_are_targets_of_one_pass() {
    let (model, items, world) = (small_model(0, 4), items(), World::alone());
    let objective = objective(&items);
    let window = [items[1].clone(), items[3].clone(), items[0].clone()].concat();
    let example = Example { prompt: vec![1, 2], target: window, item: 0, row: 0 };
    let stage = Sft::new(1, objective.clone());
    let update = stage.update(&model.clone().train(), &world.local_batch(&[&example])).unwrap();
    let loss = update.metrics.get("loss").unwrap();
    // Each title after the prompt and the titles before it, without their end tokens.
    let before = [vec![1, 2], vec![1, 2, 3, 4], vec![1, 2, 3, 4, 9]];
    let titles = [&items[1], &items[3], &items[0]];
    let nats = |(prompt, title): (&Vec<u32>, &&Vec<u32>)| -log_probability(&model, prompt, &items, title);
    let expected = before.iter().zip(&titles).map(nats).sum::<f64>() / 3.0;
    assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
}

#[test]
fn a_reward_is_minus_the_perplexity_of_a_choice() {
    let (items, world) = (items(), World::alone());
    let (objective, examples) = (objective(&items), examples(&items));
    let config = GrpoConfig { group: 2, sigma: 0.0, ..Default::default() };
    let model = freeze_untrained(small_model(1, 5), &config);
    let stage = Grpo::new(config, 2, 0, &model, objective.clone()).unwrap();
    let rows: Vec<&Example> = examples.iter().collect();
    let rollouts = stage.roll_out(&model, &world.local_batch(&rows), &[0.0; 3 * 2 * 16]).unwrap();
    for (example, rewards) in examples.iter().zip(rollouts.rewards.chunks(2)) {
        let choices = objective.size(&example.target).unwrap().choices as f64;
        let expected = -(-log_probability(&model, &example.prompt, &items, &example.target) / choices).exp();
        for reward in rewards {
            assert!((reward - expected).abs() < 1e-3 * expected.abs(), "{reward} {expected}");
        }
    }
    assert!(rollouts.log_probs.iter().map(Vec::len).eq([3, 3, 3, 3, 2, 2]), "of choices only");
}

#[test]
fn the_only_title_of_a_catalog_is_certain_and_teaches_nothing() {
    let (model, items, world) = (small_model(1, 6), vec![vec![3, 4, END]; 2], World::alone());
    let (objective, examples) = (objective(&items), examples(&items));
    let rows: Vec<&Example> = examples.iter().collect();
    let update = Sft::new(2, objective.clone()).update(&model.clone().train(), &world.local_batch(&rows)).unwrap();
    assert_eq!(update.metrics.get("loss"), Some(0.0));
    let found = beam_search(&model, &objective, &PROMPTS, BeamConfig::default()).unwrap();
    for found in found {
        assert_eq!((found[0].score, &found[0].tokens[..], &found[0].items[..]), (0.0, &[3, 4, END][..], &[0, 1][..]));
        assert_eq!(found.len(), 1);
    }
}

#[test]
fn a_target_outside_the_catalog_and_a_token_outside_the_vocabulary_are_errors() {
    let model = small_model(1, 7);
    let state = model.prefill(&[PROMPTS[0]]).unwrap();
    let error = model.target_log_probs(&state, None, &[&[3, END]], &objective(&items())).unwrap_err().to_string();
    assert!(error.contains("not a title in the catalog"), "{error}");
    let beyond = objective(&[vec![3, END], vec![40, END]]);
    let error = model.target_log_probs(&state, None, &[&[3, END]], &beyond).unwrap_err().to_string();
    assert!(error.contains("token 40") && error.contains("vocabulary of 40"), "{error}");
    assert!(beam_search(&model, &beyond, &PROMPTS, BeamConfig::default()).is_err());
}
