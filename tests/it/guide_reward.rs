//! A collaborative model that lists learn from.

use latentr3::models::LatentRecommender;
use latentr3::train::grpo::{
    AdvantageKind, Candidate, GrpoConfig, ItemGroup, ItemGuide, ItemsConfig, RankingGrpo, freeze_untrained,
};
use latentr3::train::{Example, TrainError, World};

use crate::common::catalog::{examples, items, log_probability, objective};
use crate::common::small::small_model;

/// The logarithm of an item's weight, which falls with its place in the catalog or rises; the weights do not add up to 1.
#[derive(Clone, Copy)]
enum Slope {
    Falling,
    Rising,
}

impl Slope {
    fn of(self, item: u32) -> f32 {
        match self {
            Self::Falling => -(item as f32),
            Self::Rising => item as f32,
        }
    }

    /// The weight of a candidate's title: of all items that have it.
    fn weight(self, candidate: &Candidate) -> f64 {
        candidate.items.iter().map(|&item| f64::from(self.of(item)).exp()).sum()
    }
}

impl ItemGuide for Slope {
    fn log_probs(&self, _: &Example) -> Result<Vec<f32>, TrainError> {
        Ok((0..items().len() as u32).map(|item| self.of(item)).collect())
    }
}

/// The policy's own view.
struct Itself(LatentRecommender);

impl ItemGuide for Itself {
    fn log_probs(&self, example: &Example) -> Result<Vec<f32>, TrainError> {
        let items = items();
        let log_prob = |title: &Vec<u32>| {
            let sharing = items.iter().filter(|other| *other == title).count() as f64;
            (log_probability(&self.0, &example.prompt, &items, title) - sharing.ln()) as f32
        };
        Ok(items.iter().map(log_prob).collect())
    }
}

/// The lists of a small model that learns from a guide.
fn lists(
    guide: impl ItemGuide + 'static,
    rewards: &[&str],
    advantage: AdvantageKind,
    proposals: usize,
) -> Vec<ItemGroup> {
    let (start, items) = (small_model(1, 3), items());
    let rewards = rewards.iter().map(|name| name.parse().unwrap()).collect();
    let of_items = ItemsConfig { rewards, guide: Some("own".into()), proposals, ..Default::default() };
    let config = GrpoConfig { group: 3, advantage, items: Some(of_items), train_backbone: true, ..Default::default() };
    let policy = freeze_untrained(start, &config);
    let stage = RankingGrpo::guided(config, 8, 5, &policy, objective(&items), Some(Box::new(guide))).unwrap();
    let (examples, world) = (examples(&items), World::alone());
    let batch = world.local_batch(&examples.iter().collect::<Vec<_>>());
    stage.roll_out_and_update(&policy, &batch, 1).unwrap().0
}

fn first_items(group: &ItemGroup) -> Vec<u32> {
    group.list.iter().map(|candidate| candidate.items[0]).collect()
}

#[test]
fn an_item_earns_what_the_guide_thinks_more_of_it_than_the_model() {
    for group in lists(Slope::Falling, &["guide", "entropy"], AdvantageKind::Expectation, 0) {
        assert_eq!(group.list.len(), 3);
        for (candidate, reward) in group.list.iter().zip(&group.rewards) {
            let expected = Slope::Falling.weight(candidate).ln() - candidate.log_prob();
            assert!((reward - expected).abs() < 1e-6, "{reward} {expected}");
        }
    }
}

#[test]
fn a_guide_that_is_the_model_itself_has_nothing_to_teach() {
    for group in lists(Itself(small_model(1, 3)), &["guide", "entropy"], AdvantageKind::Expectation, 0) {
        assert!(group.weights.concat().iter().all(|weight| weight.abs() < 1e-5), "{:?}", group.weights);
    }
}

#[test]
fn proposals_take_the_last_places_and_are_titles_that_the_list_has_not() {
    let of = |slope, proposals| lists(slope, &["guide"], AdvantageKind::Expectation, proposals);
    let (found, all, one) = (of(Slope::Falling, 0), of(Slope::Falling, 3), of(Slope::Rising, 1));
    // Items 1 and 4 have one title.
    let rising = [1, 3, 2, 0];
    for ((found, all), one) in found.iter().zip(&all).zip(&one) {
        assert_eq!(first_items(all), [0, 1, 2], "the guide's best, without a search");
        assert!(all.list.iter().all(|candidate| candidate.is_added));
        let mut expected = first_items(found)[..2].to_vec();
        expected.extend(rising.iter().find(|item| !expected.contains(item)));
        assert_eq!(first_items(one), expected);
        assert_eq!(one.list.iter().map(|candidate| candidate.is_added).collect::<Vec<_>>(), [false, false, true]);
    }
}

#[test]
fn reward_augmented_likelihood_weighs_items_by_the_exponential_of_their_reward() {
    for group in lists(Slope::Falling, &["guide"], AdvantageKind::Raml, 3) {
        let all: f64 = group.list.iter().map(|candidate| Slope::Falling.weight(candidate)).sum();
        for (candidate, weights) in group.list.iter().zip(&group.weights) {
            let expected = Slope::Falling.weight(candidate) / all;
            assert!(!weights.is_empty() && weights.iter().all(|weight| (weight - expected).abs() < 1e-6));
        }
    }
}
