//! A collaborative model as the reward of lists.

use latentr3::train::World;
use latentr3::train::grpo::{
    AdvantageKind, GrpoConfig, ItemGroup, ItemsConfig, RankingGrpo, Reward, Sample, prepare_model,
};

use crate::common::catalog::{examples, items, objective};
use crate::common::small::small_model;

/// The lists of a small model, rewarded by a guide and by their entropy.
fn lists(guide: Box<dyn Reward>) -> Vec<ItemGroup> {
    let (start, items) = (small_model(1, 3), items());
    let rewards = ["guide", "entropy"].map(|name| name.parse().unwrap()).to_vec();
    let of_items = ItemsConfig { rewards, guide: Some("own".into()), ..Default::default() };
    let (advantage, items_config) = (AdvantageKind::Expectation, Some(of_items));
    let config = GrpoConfig { group: 3, advantage, items: items_config, train_backbone: true, ..Default::default() };
    let policy = prepare_model(start, &config);
    let stage = RankingGrpo::guided(config, 8, 5, &policy, objective(&items), Some(guide)).unwrap();
    let (examples, world) = (examples(&items), World::alone());
    let batch = world.local_batch(&examples.iter().collect::<Vec<_>>());
    stage.roll_out_and_update(&policy, &batch, 1).unwrap().0
}

#[test]
fn an_item_earns_what_the_guide_thinks_more_of_it_than_the_model() {
    // Of item i the guide's log-probability is -i.
    let log_prob = |sample: &Sample| -f64::from(sample.list[sample.place].items[0]);
    for group in lists(Box::new(log_prob)) {
        assert_eq!(group.list.len(), 3);
        for (candidate, reward) in group.list.iter().zip(&group.rewards) {
            let expected = -f64::from(candidate.items[0]) - candidate.log_prob();
            assert!((reward - expected).abs() < 1e-6, "{reward} {expected}");
        }
    }
}

#[test]
fn a_guide_that_is_the_model_itself_has_nothing_to_teach() {
    for group in lists(Box::new(|sample: &Sample| sample.list[sample.place].log_prob())) {
        assert!(group.weights.concat().iter().all(|weight| weight.abs() < 1e-9), "{:?}", group.weights);
    }
}
