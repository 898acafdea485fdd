//! The catalog's objective: probabilities of items, their search, training and rewards, against their definitions.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::small::small_model;
use burn::module::Module;
use latentr3::models::decode::{BeamConfig, Guide, ItemTrie, beam_search, guided_beam_search};
use latentr3::models::host::read;
use latentr3::models::{LatentRecommender, Objective, ObjectiveKind, ThoughtKind};
use latentr3::train::grpo::{Grpo, GrpoConfig, prepare_model};
use latentr3::train::sft::Sft;
use latentr3::train::{
    Event, Example, Found, RunFolder, Temperature, TrainConfig, Training, ValidationPass, World, likelihood,
};
use proptest::prelude::*;

const END: u32 = 0;
const PROMPTS: [&[u32]; 3] = [&[1, 2, 3, 4, 5], &[1, 2, 9], &[7]];

fn objective(items: &[Vec<u32>]) -> Objective {
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
fn log_probability(model: &LatentRecommender, prompt: &[u32], items: &[Vec<u32>], title: &[u32]) -> f64 {
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

/// The search as it is defined: one token of the tree a step, the best `2 * beams` continuations, of which one that leaves a single title ends
/// if it is among the first `beams`, until nothing goes on.
fn plain_search(model: &LatentRecommender, prompt: &[u32], items: &[Vec<u32>], beams: usize) -> Vec<Vec<u32>> {
    let titles: BTreeSet<&Vec<u32>> = items.iter().collect();
    let through = |path: &[u32]| titles.iter().filter(|title| title.starts_with(path)).copied().collect::<Vec<_>>();
    // Up to a path's end its probability is that of a title which goes on from there with certainty.
    let sum = |path: &[u32]| {
        let catalog: Vec<Vec<u32>> =
            items.iter().map(|item| if item.starts_with(path) { path.to_vec() } else { item.clone() }).collect();
        log_probability(model, prompt, &catalog, path)
    };
    let mut live: Vec<Vec<u32>> = vec![vec![]];
    let mut ended: Vec<(f64, Vec<u32>)> = vec![];
    while !live.is_empty() {
        let next = live.iter().flat_map(|path| {
            let tokens: BTreeSet<u32> = through(path).iter().map(|title| title[path.len()]).collect();
            tokens.into_iter().map(|token| [path.as_slice(), &[token]].concat()).collect::<Vec<_>>()
        });
        let mut next: Vec<(f64, Vec<u32>)> = next.map(|path| (sum(&path), path)).collect();
        next.sort_by(|a, b| b.0.total_cmp(&a.0));
        next.truncate(2 * beams);
        live.clear();
        for (rank, (sum, path)) in next.into_iter().enumerate() {
            match through(&path).as_slice() {
                [only] if rank < beams => ended.push((sum, only.to_vec())),
                [_] => {}
                _ if live.len() < beams => live.push(path),
                _ => {}
            }
        }
    }
    ended.sort_by(|a, b| b.0.total_cmp(&a.0));
    ended.truncate(beams);
    ended.into_iter().map(|(_, title)| title).collect()
}

/// Titles of which some begin others, and some are several items'.
fn catalog() -> impl Strategy<Value = Vec<Vec<u32>>> {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn as_many_beams_as_items_equal_exhaustive_scoring_and_add_up_to_one(
        items in catalog(), thoughts in 0usize..3, seed in 0u64..4
    ) {
        let (model, objective) = (small_model(thoughts, seed), objective(&items));
        let config = BeamConfig { beams: items.len(), length_penalty: None };
        let found = beam_search(&model, &objective, &PROMPTS, config).unwrap();
        for (prompt, found) in PROMPTS.iter().zip(found) {
            let titles: BTreeSet<&Vec<u32>> = items.iter().collect();
            let exact: BTreeMap<&[u32], f64> = titles
                .iter()
                .map(|title| (title.as_slice(), log_probability(&model, prompt, &items, title)))
                .collect();
            prop_assert_eq!(found.len(), titles.len());
            prop_assert!(found.is_sorted_by(|a, b| a.score >= b.score));
            prop_assert!((found.iter().map(|found| found.score.exp()).sum::<f64>() - 1.0).abs() < 1e-4);
            for hypothesis in &found {
                // The whole title, whatever was run of it.
                let expected = exact[hypothesis.tokens.as_slice()];
                prop_assert!((hypothesis.score - expected).abs() < 1e-4 * expected.abs().max(1.0));
                let holders: Vec<u32> = (0..items.len() as u32).filter(|&i| items[i as usize] == hypothesis.tokens).collect();
                prop_assert_eq!(&hypothesis.items, &holders);
            }
        }
    }

    #[test]
    fn few_beams_equal_the_definition(items in catalog(), beams in 1usize..5, seed in 0u64..4) {
        let (model, objective) = (small_model(1, seed), objective(&items));
        let found = beam_search(&model, &objective, &PROMPTS, BeamConfig { beams, length_penalty: None }).unwrap();
        for (prompt, found) in PROMPTS.iter().zip(found) {
            let expected = plain_search(&model, prompt, &items, beams);
            let tokens: Vec<_> = found.iter().map(|hypothesis| hypothesis.tokens.clone()).collect();
            prop_assert_eq!(tokens, expected);
        }
    }

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

    #[test]
    fn a_guided_search_ranks_by_the_product_of_both_distributions(
        items in catalog(), scale in 0.0f64..=1.0, logits in prop::collection::vec(-3.0f32..3.0, 20)
    ) {
        let (model, objective) = (small_model(1, 2), objective(&items));
        let all = logits[..items.len()].iter().map(|logit| logit.exp()).sum::<f32>().ln();
        let log_probs: Vec<f32> = logits[..items.len()].iter().map(|logit| logit - all).collect();
        let guides = vec![Guide::new(objective.tree().unwrap(), &log_probs, scale).unwrap(); PROMPTS.len()];
        let config = BeamConfig { beams: items.len(), length_penalty: None };
        let found = guided_beam_search(&model, &objective, &PROMPTS, &guides, config).unwrap();
        for (prompt, found) in PROMPTS.iter().zip(found) {
            for hypothesis in found {
                let own = log_probability(&model, prompt, &items, &hypothesis.tokens);
                let mass: f64 = hypothesis.items.iter().map(|&item| f64::from(log_probs[item as usize]).exp()).sum();
                let expected = scale * own + (1.0 - scale) * mass.ln();
                prop_assert!((hypothesis.score - expected).abs() < 1e-4 * expected.abs().max(1.0));
            }
        }
    }
}

fn examples(items: &[Vec<u32>]) -> Vec<Example> {
    let example = |row: usize| Example {
        prompt: PROMPTS[row].to_vec(),
        target: items[row % items.len()].clone(),
        item: row % items.len(),
        row,
    };
    (0..PROMPTS.len()).map(example).collect()
}

fn items() -> Vec<Vec<u32>> {
    vec![vec![3, 4, 5, END], vec![3, 4, END], vec![3, 6, 7, 8, END], vec![9, END], vec![3, 4, END]]
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
        let loss = f64::from(read(update.metrics.get("loss").unwrap())[0]);
        assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let validation = likelihood(
        &model,
        &objective,
        &examples,
        &ValidationPass { micro_batch: 2, world: &world, interrupted: &stop },
    )
    .unwrap();
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
    let loss = f64::from(read(update.metrics.get("loss").unwrap())[0]);
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
    let model = prepare_model(small_model(1, 5), &config);
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
    assert_eq!(read(update.metrics.get("loss").unwrap()), [0.0]);
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
    assert!(error.contains("no title of the catalog"), "{error}");
    let beyond = objective(&[vec![3, END], vec![40, END]]);
    let error = model.target_log_probs(&state, None, &[&[3, END]], &beyond).unwrap_err().to_string();
    assert!(error.contains("token 40") && error.contains("ends at 40"), "{error}");
    assert!(beam_search(&model, &beyond, &PROMPTS, BeamConfig::default()).is_err());
}

#[test]
fn a_length_penalty_does_not_go_with_probabilities_of_items() {
    let (model, objective) = (small_model(0, 1), objective(&items()));
    let search = |length_penalty| beam_search(&model, &objective, &PROMPTS, BeamConfig { beams: 3, length_penalty });
    assert!(search(Some(1.0)).unwrap_err().to_string().contains("must be 0"));
    assert_eq!(search(Some(0.0)).unwrap(), search(None).unwrap());
}

#[test]
fn equal_scores_come_in_the_order_of_the_catalog() {
    // All logits of a model whose weights are 0 are alike.
    struct Zero;
    impl latentr3::models::NamedMapper for Zero {
        fn map<const D: usize>(
            &mut self,
            _: &str,
            parameter: burn::module::Param<burn::tensor::Tensor<D>>,
        ) -> burn::module::Param<burn::tensor::Tensor<D>> {
            parameter.map(|value| value.zeros_like())
        }
    }
    let model = latentr3::models::map_named(small_model(0, 1), &mut Zero);
    let items: Vec<Vec<u32>> = [9, 4, 7, 2].into_iter().map(|token| vec![token, END]).collect();
    let found = beam_search(&model, &objective(&items), &PROMPTS, BeamConfig::default()).unwrap();
    for found in found {
        let order: Vec<u32> = found.iter().map(|hypothesis| hypothesis.items[0]).collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}

#[test]
fn a_checkpoint_knows_its_objective() {
    let folder = tempfile::tempdir().unwrap();
    let save = |model: &LatentRecommender| latentr3::models::hub::save(model, folder.path()).unwrap();
    let load = || latentr3::models::hub::load(folder.path(), &crate::common::device());
    save(&small_model(1, 1).with_objective(ObjectiveKind::Catalog));
    assert_eq!(load().unwrap().objective(), ObjectiveKind::Catalog);
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("latent_objective", "other")).unwrap();
    assert_eq!(load().unwrap().objective(), ObjectiveKind::Vocabulary, "one that records none is older");
    std::fs::write(&path, config.replace("\"catalog\"", "\"songs\"")).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("latent_objective") && error.contains("songs"), "{error}");
}

#[test]
fn a_temperature_divides_the_logits_of_the_loss_and_nothing_else() {
    let (items, world) = (items(), World::alone());
    let (objective, examples) = (objective(&items), examples(&items));
    let rows: Vec<&Example> = examples.iter().collect();
    let loss = |stage: &Sft, model: &LatentRecommender| {
        let update = stage.update(&model.clone().train(), &world.local_batch(&rows)).unwrap();
        f64::from(read(update.metrics.get("loss").unwrap())[0])
    };
    let model = small_model(1, 3);
    // With the norm before the output matrix halved, the logits are, but so are the hidden states that the thought is made of: without one.
    let model = model.with_thoughts(ThoughtKind::LastHidden, 0, 0).unwrap();
    let mut halved = model.clone();
    halved.backbone.model.norm.weight = halved.backbone.model.norm.weight.map(|weight| weight.div_scalar(2.0));
    let (plain, warm) = (Sft::new(2, objective.clone()), Temperature::Fixed(2.0));
    let warm = Sft { temperature: warm, ..plain.clone() };
    assert!((loss(&warm, &model) - loss(&plain, &halved)).abs() < 1e-5);
    assert!((loss(&warm, &model) - loss(&plain, &model)).abs() > 1e-2);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let validation = likelihood(
        &model,
        &warm.objective,
        &examples,
        &ValidationPass { micro_batch: 2, world: &world, interrupted: &stop },
    )
    .unwrap();
    assert!((validation.loss - loss(&plain, &model)).abs() < 1e-4);
}

/// The temperature that adapts is part of the checkpoint.
#[test]
fn a_run_whose_temperature_adapts_resumes_with_identical_results() {
    // A wide choice at the root, or there would be nothing to adapt to.
    let items: Vec<Vec<u32>> = (1..30).map(|token| vec![token, END]).collect();
    let row = |row: usize| Example {
        prompt: vec![1 + row as u32 % 7, 2, 3],
        target: items[row % 5].clone(),
        item: row % 5,
        row,
    };
    let examples: Vec<Example> = (0..12).map(row).collect();
    let stage = Sft { temperature: Temperature::Adaptive, ..Sft::new(2, objective(&items)) };
    let config = TrainConfig { epochs: 12, batch: 4, learning_rate: 5e-2, patience: None, ..Default::default() };
    let (folder, world) = (tempfile::tempdir().unwrap(), World::alone());
    let log = |name: &str| std::fs::read_to_string(folder.path().join(name).join("metrics.jsonl")).unwrap();
    for (name, stop_after) in [("whole", None), ("stopped", Some(4))] {
        let run = RunFolder::create(&folder.path().join(name), &serde_json::json!({}), vec![]).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let train = |observer: &mut dyn FnMut(Event), from: Option<_>| {
            let training = Training {
                config: &config,
                train: &examples,
                valid: &examples,
                run: Some(&run),
                world: &world,
                observer,
                interrupted: &stop,
            };
            match from {
                None => training.start(&stage, small_model(1, 3)).unwrap(),
                Some(trained) => training.go_on(&stage, trained).unwrap(),
            }
        };
        let mut observer = |event: Event| {
            if let Event::Step { step, .. } = event {
                stop.store(stop_after == Some(step), std::sync::atomic::Ordering::Relaxed);
            }
        };
        let end = train(&mut observer, None);
        assert_eq!(end.finished, stop_after.is_none());
        if !end.finished {
            stop.store(false, std::sync::atomic::Ordering::Relaxed);
            let last = Found::last(run.path(), config.optimizer, &crate::common::device()).unwrap().trained;
            assert!(train(&mut |_| {}, Some(last)).finished);
        }
    }
    assert_eq!(log("whole"), log("stopped"));
    let temperatures: Vec<f64> = log("whole")
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["temperature"].as_f64())
        .collect();
    assert!(temperatures[0] == 1.5 && temperatures.iter().any(|&temperature| temperature > 1.5), "{temperatures:?}");
    assert!(temperatures.iter().all(|temperature| (1.5..=5.0).contains(temperature)));
}
