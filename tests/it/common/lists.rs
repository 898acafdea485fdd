//! The stage whose samples are items, and what tests ask of its updates.

use latentr3::models::host::read;
use latentr3::models::{LatentRecommender, Objective};
use latentr3::train::grpo::{AdvantageKind, GrpoConfig, ItemGroup, ItemsConfig, RankingGrpo, RewardTerm};
use latentr3::train::{Example, Gradients, LocalUpdate, World};

pub fn config(advantage: AdvantageKind, items: ItemsConfig) -> GrpoConfig {
    GrpoConfig { group: 3, advantage, items: Some(items), train_backbone: true, ..Default::default() }
}

pub fn terms(text: &str) -> Vec<RewardTerm> {
    text.split(',').map(|term| term.parse().unwrap()).collect()
}

pub fn stage(config: GrpoConfig, start: &LatentRecommender, objective: &Objective, micro_batch: usize) -> RankingGrpo {
    RankingGrpo::new(config, micro_batch, 5, start, objective.clone()).unwrap()
}

pub fn rolled_out(
    stage: &RankingGrpo,
    model: &LatentRecommender,
    examples: &[Example],
) -> (Vec<ItemGroup>, LocalUpdate) {
    let world = World::alone();
    stage.roll_out_and_update(model, &world.local_batch(&examples.iter().collect::<Vec<_>>()), 1).unwrap()
}

pub fn metric(update: &LocalUpdate, name: &str) -> f64 {
    update.metrics.get(name).unwrap()
}

pub fn assert_same_gradients(one: &Gradients, two: &Gradients, factor: f32) {
    let (mut difference, mut norm) = (0.0f32, 0.0f32);
    assert!(one.names().eq(two.names()));
    for name in one.names() {
        let [a, b] = [one, two].map(|gradients| read(gradients.get(name).unwrap()));
        difference += a.iter().zip(&b).map(|(a, b)| (a - factor * b).powi(2)).sum::<f32>();
        norm += a.iter().map(|a| a * a).sum::<f32>();
    }
    assert!(norm > 0.0 && difference.sqrt() < 1e-4 * norm.sqrt(), "{difference} {norm}");
}
