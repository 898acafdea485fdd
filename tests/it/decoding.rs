//! Searches over the catalog's tree against their definitions; free text; nearness of titles.

use crate::common::small::{PROMPTS, log_probs, small_model};
use latentr3::models::decode::{
    BeamConfig, GuidanceKind, Guide, ItemTrie, SearchTerms, TitleEmbeddings, TitleStart, beam_search,
    beam_search_after, beam_search_on_terms, generate,
};
use latentr3::models::{LatentRecommender, Objective, ObjectiveKind};
use proptest::prelude::*;

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
        items in catalog(), scale in 0.0f64..1.0, logits in prop::collection::vec(-3.0f32..3.0, 25)
    ) {
        let model = small_model(1, 2);
        let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&items).unwrap());
        let all = logits[..items.len()].iter().map(|logit| logit.exp()).sum::<f32>().ln();
        let log_probs: Vec<f32> = logits[..items.len()].iter().map(|logit| logit - all).collect();
        let guide = Guide::new(objective.tree().unwrap(), &log_probs, GuidanceKind::Product, scale).unwrap();
        let terms = vec![SearchTerms::guided(guide); PROMPTS.len()];
        let config = BeamConfig { beams: items.len(), length_penalty: Some(0.0) };
        let found = beam_search_on_terms(&model, &objective, &PROMPTS, &terms, config).unwrap();
        for (prompt, found) in PROMPTS.iter().zip(found) {
            let alone = exhaustive(&model, prompt, &items, 0.0);
            prop_assert_eq!(found.len(), items.len(), "items of one title stand apart");
            prop_assert!(found.is_sorted_by(|a, b| a.score >= b.score));
            for hypothesis in found {
                let of_title = items.iter().filter(|item| **item == hypothesis.tokens).count() as f64;
                let own = alone.iter().find(|(_, tokens)| *tokens == hypothesis.tokens).unwrap().0 - of_title.ln();
                let expected = scale * own + (1.0 - scale) * f64::from(log_probs[hypothesis.items[0] as usize]);
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

#[test]
fn a_search_goes_on_after_text_as_after_a_longer_prompt() {
    let model = small_model(0, 5);
    let objective = Objective::new(
        ObjectiveKind::Vocabulary,
        ItemTrie::new(&[vec![3, 4, 0], vec![3, 5, 0], vec![6, 0], vec![7, 7, 7, 0]]).unwrap(),
    );
    let mut state = model.reason(&PROMPTS).unwrap();
    let texts = generate(&model, &mut state, 3, None).unwrap();
    let terms = vec![SearchTerms::default(); PROMPTS.len()];
    let found = beam_search_after(&model, &objective, TitleStart::at(state), &terms, BeamConfig::default()).unwrap();
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
