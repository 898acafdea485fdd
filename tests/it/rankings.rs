//! Stage 2 whose samples are items: lists, what they earn, and the update on them.

use std::collections::BTreeMap;

use burn::module::Param;
use burn::tensor::Tensor;
use latentr3::models::decode::{BeamConfig, SearchTerms, TitleStart, beam_search, beam_search_after};
use latentr3::models::host::read;
use latentr3::models::{LatentRecommender, NamedMapper, Objective, ObjectiveKind, map_named};
use latentr3::train::grpo::{
    AdvantageKind, GrpoConfig, Hit, ItemGroup, ItemsConfig, Mixed, NdcgGain, RankPenalty, RankingGrpo, Reward,
    RewardTerm, Sample, freeze_untrained,
};
use latentr3::train::sft::Sft;
use latentr3::train::{Example, Stage, World};

use crate::common::catalog::{END, examples, items, log_probability, objective};
use crate::common::lists::{assert_same_gradients, config, metric, rolled_out, stage, terms};
use crate::common::small::{small_model, weights};
use crate::common::training::optimizer;

#[test]
fn a_list_is_what_the_search_finds_and_its_items_have_their_probabilities() {
    let (model, items) = (small_model(1, 3), items());
    let (objective, examples) = (objective(&items), examples(&items));
    for micro_batch in [1, 2, 8] {
        let config = config(AdvantageKind::Group, ItemsConfig::default());
        let policy = freeze_untrained(model.clone(), &config);
        let (groups, _) = rolled_out(&stage(config, &policy, &objective, micro_batch), &policy, &examples);
        for (row, group) in examples.iter().zip(&groups) {
            let beam = BeamConfig { beams: 3, ..Default::default() };
            let found = &beam_search(&model, &objective, &[&row.prompt], beam).unwrap()[0];
            let tokens = |list: &[latentr3::train::grpo::Candidate]| {
                list.iter().map(|candidate| candidate.tokens.clone()).collect::<Vec<_>>()
            };
            assert_eq!(tokens(&group.list), found.iter().map(|item| item.tokens.clone()).collect::<Vec<_>>());
            for (candidate, hypothesis) in group.list.iter().zip(found) {
                let expected = log_probability(&model, &row.prompt, &items, &candidate.tokens);
                assert!((candidate.log_prob() - expected).abs() < 1e-4, "{candidate:?} {expected}");
                assert!((hypothesis.score - expected).abs() < 1e-4);
                assert_eq!(candidate.is_target, candidate.items.contains(&(row.item as u32)));
            }
            let target: f64 = group.target.iter().map(|&value| f64::from(value)).sum();
            assert!((target - log_probability(&model, &row.prompt, &items, &row.target)).abs() < 1e-4);
        }
    }
}

#[test]
fn rewards_of_items_by_hand() {
    let (model, items) = (small_model(1, 3), items());
    let (objective, examples) = (objective(&items), examples(&items));
    let config = config(AdvantageKind::Group, ItemsConfig { target: true, ..Default::default() });
    let policy = freeze_untrained(model.clone(), &config);
    let (groups, _) = rolled_out(&stage(config, &policy, &objective, 8), &policy, &examples);
    let of = |reward: &dyn Reward, list: &[_]| -> Vec<f64> {
        let sample = |place| Sample { model: &model, example: &examples[0], noise: &[], log_probs: &[], list, place };
        (0..list.len()).map(|place| reward.of(&sample(place)).unwrap()).collect()
    };
    let mut list = groups[0].list.clone();
    list.iter_mut().enumerate().for_each(|(place, candidate)| candidate.is_target = place == 1);
    assert_eq!(of(&Hit, &list), [0.0, 1.0, 0.0]);
    assert_eq!(of(&NdcgGain, &list), [0.0, 1.0 / 3f64.log2(), 0.0]);
    // The wrong ones stand at the first and the third place, whose discounts are 1 and 1/2.
    assert_eq!(of(&RankPenalty, &list), [-1.0 / 1.5, 0.0, -0.5 / 1.5]);
    let mixed = Mixed(vec![(Box::new(Hit), 2.0), (Box::new(RankPenalty), 0.5)]);
    assert_eq!(of(&mixed, &list), [-0.5 / 1.5, 2.0, -0.25 / 1.5]);
    list.iter_mut().for_each(|candidate| candidate.is_target = false);
    assert_eq!(of(&RankPenalty, &list), [0.0; 3], "a list without the target");
    let noise = Sample { model: &model, example: &examples[0], noise: &[0.0], log_probs: &[-1.0], list: &[], place: 0 };
    assert!(Hit.of(&noise).unwrap_err().to_string().contains("reward"));
}

#[test]
fn a_target_that_is_missing_takes_the_last_place_or_is_hinted_at() {
    let (items, model) = (items(), small_model(1, 3));
    let objective = objective(&items);
    let least = |row: &Example| {
        let beam = BeamConfig { beams: 4, ..Default::default() };
        let found = beam_search(&model, &objective, &[&row.prompt], beam).unwrap().remove(0);
        found.last().unwrap().tokens.clone()
    };
    let mut examples = examples(&items);
    for row in &mut examples {
        row.target = least(row);
        row.item = items.iter().position(|item| *item == row.target).unwrap();
    }
    let lists = |of: ItemsConfig| {
        let config = config(AdvantageKind::Group, of);
        let policy = freeze_untrained(model.clone(), &config);
        rolled_out(&stage(config, &policy, &objective, 2), &policy, &examples)
    };
    let (plain, update) = lists(ItemsConfig::default());
    assert!(plain.iter().all(|group| group.list.iter().all(|candidate| !candidate.is_target)));
    assert!(metric(&update, "hit_share") == 0.0 && metric(&update, "no_difference_share") == 1.0);
    let (added, update) = lists(ItemsConfig { target: true, ..Default::default() });
    for (group, plain) in added.iter().zip(&plain) {
        assert_eq!(group.list.len(), 3);
        assert_eq!(group.list[..2], plain.list[..2]);
        let target = &group.list[2];
        assert!(target.is_target && target.log_prob() < group.list[1].log_prob());
        let of_title: Vec<u32> = (0..5).filter(|&item| items[item as usize] == target.tokens).collect();
        assert_eq!(target.items, of_title, "all items of the title");
    }
    assert!(metric(&update, "hit_share") == 0.0 && metric(&update, "no_difference_share") == 0.0);
    let (hinted, _) = lists(ItemsConfig { hint: 1, ..Default::default() });
    for (group, row) in hinted.iter().zip(&examples) {
        let first = objective.path(&row.target).unwrap()[0];
        assert!(group.list.iter().any(|candidate| candidate.is_target));
        assert!(group.list.iter().all(|candidate| candidate.path[0] == first && candidate.given == 1));
        assert!(group.weights.iter().all(|weights| weights[0] == 0.0));
    }
}

/// With a part of the model moved along a direction.
fn moved(model: LatentRecommender, direction: &BTreeMap<String, Vec<f32>>, by: f32) -> LatentRecommender {
    struct Move<'a>(&'a BTreeMap<String, Vec<f32>>, f32);
    impl NamedMapper for Move<'_> {
        fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let direction = &self.0[name];
            parameter.map(|value| {
                let (shape, device) = (value.dims(), value.device().inner());
                let direction = Tensor::<1>::from_data(direction.as_slice(), &device).reshape(shape);
                let moved = value.inner() + direction.mul_scalar(self.1);
                Tensor::from_inner(moved).require_grad()
            })
        }
    }
    map_named(model, &mut Move(direction, by))
}

/// The expected reward over lists that stay as they are, by its definition.
fn expected_reward(model: &LatentRecommender, objective: &Objective, rows: &[Example], groups: &[ItemGroup]) -> f64 {
    let of_prompt = |(row, group): (&Example, &ItemGroup)| {
        let start = TitleStart::think(model, objective, model.prefill(&[&row.prompt]).unwrap()).unwrap();
        let titles: Vec<&[u32]> = group.list.iter().map(|candidate| candidate.tokens.as_slice()).collect();
        let log_probs = read(model.title_log_probs(&start, &titles, objective).unwrap().sums());
        let masses: Vec<f64> = log_probs.iter().map(|&value| f64::from(value).exp()).collect();
        let all: f64 = masses.iter().sum();
        masses.iter().zip(&group.rewards).map(|(mass, reward)| mass / all * reward).sum::<f64>()
    };
    rows.iter().zip(groups).map(of_prompt).sum::<f64>() / rows.len() as f64
}

#[test]
fn the_exact_expectation_s_gradient_is_that_of_finite_differences() {
    let (items, model) = (items(), small_model(1, 3));
    let (objective, examples) = (objective(&items), examples(&items));
    let of = ItemsConfig { rewards: terms("hit,ndcg=0.5"), target: true, ..Default::default() };
    let config = config(AdvantageKind::Expectation, of);
    let policy = freeze_untrained(model, &config);
    let (groups, update) = rolled_out(&stage(config, &policy, &objective, 2), &policy, &examples);
    let expected = expected_reward(&policy, &objective, &examples, &groups);
    assert!((metric(&update, "expected_reward") - expected).abs() < 1e-5);
    let gradient: BTreeMap<String, Vec<f32>> =
        update.gradients.names().map(|name| (name.to_owned(), read(update.gradients.get(name).unwrap()))).collect();
    let norm = gradient.values().flatten().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let direction: BTreeMap<String, Vec<f32>> = weights(&policy)
        .into_iter()
        .map(|(name, values)| {
            let along = gradient.get(&name).cloned().unwrap_or_else(|| vec![0.0; values.len()]);
            (name, along.iter().map(|value| value / norm as f32).collect())
        })
        .collect();
    let step = 3e-4f32;
    let at = |by| expected_reward(&moved(policy.clone(), &direction, by), &objective, &examples, &groups);
    let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
    // What is minimised is minus the expected reward.
    assert!((slope + norm).abs() < 0.02 * norm, "{slope} {norm}");
}

#[test]
fn a_further_update_on_the_same_model_is_the_first_one() {
    let (items, start) = (items(), small_model(1, 3));
    let (objective, examples) = (objective(&items), examples(&items));
    let world = World::alone();
    let batch = world.local_batch(&examples.iter().collect::<Vec<_>>());
    for advantage in [AdvantageKind::Group, AdvantageKind::Sibling, AdvantageKind::Expectation] {
        let of = ItemsConfig { target: true, anchor: 0.1, ..Default::default() };
        let config = GrpoConfig { kl: 0.05, ..config(advantage, of) };
        let reference = small_model(1, 4);
        let policy = freeze_untrained(start.clone(), &config);
        let [one, two] = [1, 8].map(|micro_batch| stage(config.clone(), &reference, &objective, micro_batch));
        let (groups, first) = one.roll_out_and_update(&policy, &batch, 1).unwrap();
        let further = two.update(&policy, &batch, 1, &groups).unwrap();
        assert_same_gradients(&first.gradients, &further.gradients, 1.0);
        for name in first.metrics.names() {
            let [value, other] = [&first, &further].map(|update| metric(update, name));
            assert!((value - other).abs() < 1e-4 * value.abs().max(1.0), "{name}: {value} {other}");
        }
        assert!((metric(&first, "ratio") - metric(&first, "choices")).abs() < 1e-3, "each ratio is 1");
        assert!(metric(&first, "kl") > 0.0);
    }
}

#[test]
fn without_a_difference_in_rewards_the_anchor_is_stage_1() {
    let (items, start) = (items(), small_model(1, 3));
    let (objective, examples) = (objective(&items), examples(&items));
    let world = World::alone();
    let batch = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let of = ItemsConfig { rewards: terms("hit=0"), anchor: 0.25, ..Default::default() };
    let config = config(AdvantageKind::Expectation, of);
    let policy = freeze_untrained(start, &config);
    let (_, update) = stage(config, &policy, &objective, 2).roll_out_and_update(&policy, &batch, 1).unwrap();
    let supervised = Sft::new(2, objective).update(&policy, &batch).unwrap();
    assert_same_gradients(&update.gradients, &supervised.gradients, 0.25);
    assert!((metric(&update, "target_loss") - metric(&supervised, "loss")).abs() < 1e-5);
}

#[test]
fn steps_raise_what_they_reward() {
    let (items, start) = (items(), small_model(1, 3));
    let (objective, examples) = (objective(&items), examples(&items));
    let world = World::alone();
    let batch = world.local_batch(&examples.iter().collect::<Vec<_>>());
    for advantage in
        [AdvantageKind::Group, AdvantageKind::LeaveOneOut, AdvantageKind::Sibling, AdvantageKind::Expectation]
    {
        let of = ItemsConfig { rewards: terms("hit"), target: true, ..Default::default() };
        let config = GrpoConfig { updates: 2, kl: 1e-3, ..config(advantage, of) };
        let stage = stage(config.clone(), &start, &objective, 8);
        let (mut model, mut optimizer) = (freeze_untrained(start.clone(), &config), optimizer());
        let mut expected = Vec::new();
        for step in 1..=8 {
            optimizer.step = step;
            let (moved, report) = stage.step(model, &mut optimizer, &batch).unwrap();
            assert!(report.fault.is_none());
            expected.push(report.metrics["expected_reward"].as_f64().unwrap());
            model = moved;
        }
        assert!(expected[7] > expected[0] + 0.1, "{advantage:?} {expected:?}");
    }
}

#[test]
fn only_the_thoughts_source_trains_where_the_backbone_is_frozen() {
    let (items, start) = (items(), small_model(1, 3));
    let (objective, examples) = (objective(&items), examples(&items));
    let world = World::alone();
    let batch = world.local_batch(&examples.iter().collect::<Vec<_>>());
    let of = ItemsConfig { target: true, ..Default::default() };
    let config = GrpoConfig { train_backbone: false, ..config(AdvantageKind::Expectation, of) };
    let policy = freeze_untrained(start.clone(), &config);
    let stage = stage(config, &policy, &objective, 2);
    let after = weights(&stage.step(policy, &mut optimizer(), &batch).unwrap().0);
    for (name, values) in weights(&start) {
        assert_eq!(after[&name] == values, !name.starts_with("attention."), "{name}");
    }
}

#[test]
fn titles_are_scored_after_a_start_as_after_the_prompts() {
    // All titles begin with the same two tokens, which are certain.
    let items = vec![vec![8, 9, 3, 4, END], vec![8, 9, 3, END], vec![8, 9, 5, 6, END]];
    for kind in [ObjectiveKind::Catalog, ObjectiveKind::Vocabulary] {
        for thoughts in [0, 1, 2] {
            let (model, objective) = (small_model(thoughts, 3), objective(&items).with_kind(kind).unwrap());
            let prompts: [&[u32]; 2] = [&[1, 2, 3], &[1, 4]];
            let start = TitleStart::think(&model, &objective, model.prefill(&prompts).unwrap()).unwrap();
            let titles: Vec<&[u32]> = [0, 1, 2, 2, 0, 1].map(|item| items[item].as_slice()).to_vec();
            let found = read(model.title_log_probs(&start, &titles, &objective).unwrap().sums());
            let mut state = model.prefill(&prompts).unwrap();
            let thought = model.think(&mut state).unwrap();
            let thought = thought.map(|thought| {
                let [rows, width] = thought.dims();
                thought.unsqueeze_dim::<3>(1).repeat_dim(1, 3).reshape([rows * 3, width])
            });
            let expected = read(model.target_log_probs(&state, thought, &titles, &objective).unwrap().sums());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-4, "{kind} {thoughts}: {found} {expected}");
            }
            let terms = vec![SearchTerms::default(); 2];
            let beam = BeamConfig { beams: 3, ..Default::default() };
            let of_both = beam_search_after(&model, &objective, start.clone(), &terms, beam).unwrap();
            let of_second = beam_search_after(&model, &objective, start.select(&[1]), &terms[1..], beam).unwrap();
            assert_eq!(of_both[1].len(), 3);
            for (a, b) in of_both[1].iter().zip(&of_second[0]) {
                assert!(a.tokens == b.tokens && (a.score - b.score).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn what_is_no_configuration_of_items_is_refused() {
    let (items, start) = (items(), small_model(1, 3));
    let objective = objective(&items);
    let refused = |config: GrpoConfig, objective: &Objective, start: &LatentRecommender| {
        RankingGrpo::new(config, 8, 5, start, objective.clone()).err().expect("it makes no sense").to_string()
    };
    let good = || config(AdvantageKind::Group, ItemsConfig::default());
    assert!(RankingGrpo::new(good(), 8, 5, &small_model(0, 1), objective.clone()).is_ok(), "a model need not think");
    assert!(refused(GrpoConfig { items: None, ..good() }, &objective, &start).contains("items"));
    assert!(
        refused(GrpoConfig { advantage: AdvantageKind::Batch, ..good() }, &objective, &start).contains("advantage")
    );
    assert!(refused(good(), &Objective::vocabulary(), &start).contains("vocabulary"));
    let frozen = GrpoConfig { train_backbone: false, ..good() };
    assert!(refused(frozen, &objective, &small_model(0, 1)).contains("thoughts"));
    let with = |of: ItemsConfig| config(AdvantageKind::Group, of);
    for (of, named) in [
        (ItemsConfig { rewards: Vec::new(), ..Default::default() }, "reward"),
        (ItemsConfig { rewards: terms("hit=inf"), ..Default::default() }, "reward"),
        (ItemsConfig { anchor: -1.0, ..Default::default() }, "anchor"),
        (ItemsConfig { thoughts: 0, ..Default::default() }, "thought_samples"),
        (ItemsConfig { rewards: terms("perplexity"), ..Default::default() }, "reward"),
        (ItemsConfig { rewards: terms("guide"), ..Default::default() }, "guide"),
        (ItemsConfig { guide: Some("transition".into()), ..Default::default() }, "guide"),
        (ItemsConfig { rewards: terms("guide"), guide: Some("transition".into()), ..Default::default() }, "guide"),
    ] {
        assert!(refused(with(of), &objective, &start).contains(named));
    }
    assert!("fame".parse::<RewardTerm>().unwrap_err().contains("hit, rank, ndcg"));
    assert!("hit=much".parse::<RewardTerm>().unwrap_err().contains("much"));
}
