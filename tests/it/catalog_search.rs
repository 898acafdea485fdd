//! Searches by the catalog's objective, against their definitions.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::catalog::{END, PROMPTS, catalog, items, log_probability, objective};
use crate::common::small::small_model;
use burn::module::Param;
use burn::tensor::Tensor;
use latentr3::models::decode::{
    BeamConfig, GuidanceKind, Guide, ItemMask, SearchTerms, beam_search, beam_search_on_terms,
};
use latentr3::models::{LatentRecommender, NamedMapper, map_named};
use proptest::prelude::*;

/// The search as it is defined: one token of the tree a step, the best `2 * beams` continuations, of which one that
/// leaves a single title ends if it is among the first `beams`, until nothing goes on.
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
    fn a_guided_search_ranks_by_the_product_or_the_mixture_of_both_distributions(
        items in catalog(), scale in 0.0f64..1.0, logits in prop::collection::vec(-3.0f32..3.0, 20)
    ) {
        let (model, objective) = (small_model(1, 2), objective(&items));
        let all = logits[..items.len()].iter().map(|logit| logit.exp()).sum::<f32>().ln();
        let log_probs: Vec<f32> = logits[..items.len()].iter().map(|logit| logit - all).collect();
        for kind in [GuidanceKind::Product, GuidanceKind::Mixture] {
            let guide = Guide::new(objective.tree().unwrap(), &log_probs, kind, scale).unwrap();
            let terms = vec![SearchTerms::guided(guide); PROMPTS.len()];
            let config = BeamConfig { beams: items.len(), length_penalty: None };
            let found = beam_search_on_terms(&model, &objective, &PROMPTS, &terms, config).unwrap();
            for (prompt, found) in PROMPTS.iter().zip(found) {
                prop_assert!(found.is_sorted_by(|a, b| a.score >= b.score));
                prop_assert_eq!(found.len(), items.len(), "items of one title stand apart");
                for hypothesis in found {
                    let of_title = items.iter().filter(|item| **item == hypothesis.tokens).count() as f64;
                    let own = log_probability(&model, prompt, &items, &hypothesis.tokens) - of_title.ln();
                    let guided = f64::from(log_probs[hypothesis.items[0] as usize]);
                    let expected = match kind {
                        GuidanceKind::Product => scale * own + (1.0 - scale) * guided,
                        GuidanceKind::Mixture => (scale * own.exp() + (1.0 - scale) * guided.exp()).ln(),
                    };
                    prop_assert!((hypothesis.score - expected).abs() < 1e-4 * expected.abs().max(1.0));
                }
            }
        }
    }

    #[test]
    fn what_is_left_out_never_appears_and_the_others_keep_their_scores_and_order(
        items in catalog(), left_out in prop::collection::vec(any::<bool>(), 20), seed in 0u64..4
    ) {
        let (model, objective) = (small_model(1, seed), objective(&items));
        let allowed: Vec<bool> = left_out[..items.len()].iter().map(|left_out| !left_out).collect();
        let mask = ItemMask::new(objective.tree().unwrap(), allowed.clone()).unwrap();
        let terms = vec![SearchTerms { guide: None, mask: Some(mask) }; PROMPTS.len()];
        let config = BeamConfig { beams: items.len(), length_penalty: None };
        let whole = beam_search(&model, &objective, &PROMPTS, config).unwrap();
        let found = beam_search_on_terms(&model, &objective, &PROMPTS, &terms, config).unwrap();
        for (whole, found) in whole.into_iter().zip(found) {
            let rest = whole.into_iter().filter_map(|mut hypothesis| {
                hypothesis.items.retain(|&item| allowed[item as usize]);
                (!hypothesis.items.is_empty()).then_some(hypothesis)
            });
            let rest: Vec<_> = rest.collect();
            prop_assert_eq!(rest.len(), found.len());
            for (expected, found) in rest.iter().zip(&found) {
                prop_assert!((expected.score - found.score).abs() < 1e-5);
            }
            let mut titles: Vec<_> = rest.iter().map(|hypothesis| (&hypothesis.tokens, &hypothesis.items)).collect();
            let mut others: Vec<_> = found.iter().map(|hypothesis| (&hypothesis.tokens, &hypothesis.items)).collect();
            titles.sort();
            others.sort();
            prop_assert_eq!(titles, others);
        }
    }
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
    impl NamedMapper for Zero {
        fn map<const D: usize>(&mut self, _: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            parameter.map(|value| value.zeros_like())
        }
    }
    let model = map_named(small_model(0, 1), &mut Zero);
    let items: Vec<Vec<u32>> = [9, 4, 7, 2].into_iter().map(|token| vec![token, END]).collect();
    let found = beam_search(&model, &objective(&items), &PROMPTS, BeamConfig::default()).unwrap();
    for found in found {
        let order: Vec<u32> = found.iter().map(|hypothesis| hypothesis.items[0]).collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}
