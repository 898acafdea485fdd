//! How often values are read back from the device.

use crate::common::examples::examples;
use crate::common::small::small_model;
use crate::common::training::optimizer;
use burn::module::Module;
use latentr3::models::decode::{BeamConfig, ItemTrie, beam_search};
use latentr3::models::host::Transfers;
use latentr3::models::{LatentRecommender, Objective, ObjectiveKind};
use latentr3::train::grpo::{EstimatorKind, Grpo, GrpoConfig, freeze_untrained};
use latentr3::train::sft::Sft;
use latentr3::train::{Example, Stage, World};

/// A read makes the host wait for the device, so that steps read what they decide by, and nothing else.
#[test]
fn a_step_reads_once_from_the_device_for_each_decision() {
    let examples = examples();
    let batch: Vec<&Example> = examples.iter().collect();
    let world = World::alone();
    let local = world.local_batch(&batch);
    let reads_of = |stage: &dyn Stage<LatentRecommender>, model: LatentRecommender| {
        let before = Transfers::so_far();
        stage.step(model, &mut optimizer(), &local).unwrap();
        Transfers::since(before).downloads
    };
    // Whether the loss and the gradients' norm are numbers, and what to clip by.
    assert_eq!(reads_of(&Sft::new(3, Objective::vocabulary()), small_model(1, 2).train()), 1);
    // The rewards besides, by which the advantages are made; then one for each update.
    for estimator in [EstimatorKind::Likelihood, EstimatorKind::Score] {
        for (updates, kl, sigma_relative) in [(1, 0.0, None), (1, 0.0, Some(0.3)), (3, 0.1, None)] {
            let config = GrpoConfig { group: 4, estimator, updates, kl, sigma_relative, ..Default::default() };
            let model = freeze_untrained(small_model(1, 2), &config);
            let stage = Grpo::new(config, 3, 3, &model, Objective::vocabulary()).unwrap();
            assert_eq!(reads_of(&stage, model), 1 + updates as u64);
        }
    }
}

#[test]
fn a_search_reads_once_for_each_pass_of_the_model() {
    // Titles of one length whose tokens are all free, so that every token needs a pass.
    let titles: Vec<Vec<u32>> = (0..64).map(|i| vec![1 + i / 16, 5 + i / 4 % 4, 9 + i % 4, 0]).collect();
    let prompts: [&[u32]; 3] = [&[1, 2, 3], &[4, 5], &[6, 7, 8, 9]];
    let model = small_model(1, 2);
    let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&titles).unwrap());
    let before = Transfers::so_far();
    beam_search(&model, &objective, &prompts, BeamConfig::default()).unwrap();
    assert_eq!(Transfers::since(before).downloads, 4);
}
