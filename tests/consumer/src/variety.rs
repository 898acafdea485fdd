//! A reward of items: hits, and a little for every item that begins otherwise than the one before it in the list.

use latentr3_models::decode::ItemTrie;
use latentr3_models::{LatentRecommender, Objective, ObjectiveKind};
use latentr3_train::TrainError;
use latentr3_train::grpo::{AdvantageKind, GrpoConfig, ItemsConfig, RankingGrpo, Reward, Sample};

struct Variety(f64);

impl Reward for Variety {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        let item = sample.item()?;
        let is_new = sample.place == 0 || sample.list[sample.place - 1].tokens[0] != item.tokens[0];
        Ok(f64::from(u8::from(item.is_target)) + if is_new { self.0 } else { 0.0 })
    }
}

pub fn stage(model: &LatentRecommender) -> Result<RankingGrpo, Box<dyn std::error::Error>> {
    let catalog = ItemTrie::new(&[vec![4, 0], vec![7, 8, 0], vec![7, 9, 0], vec![5, 6, 0]])?;
    let objective = Objective::new(ObjectiveKind::Catalog, catalog);
    let (advantage, items) = (AdvantageKind::Expectation, Some(ItemsConfig::default()));
    let config = GrpoConfig { group: 3, advantage, items, train_backbone: true, ..GrpoConfig::default() };
    Ok(RankingGrpo::new(config, 2, 0, model, objective)?.with_reward(Variety(0.1)))
}
