//! How far 16 bits in the blocks move losses and gradients, what they do not move, and weights that are kept in them.

use crate::common::examples::examples;
use crate::common::small::{small_model, weights};
use crate::common::training::optimizer;
use burn::module::{Module, Param};
use burn::tensor::{FloatDType, Tensor};
use latentr3::models::decode::{BeamConfig, ItemTrie, beam_search};
use latentr3::models::host::read;
use latentr3::models::{
    LatentRecommender, LoraConfig, NamedMapper, Objective, ObjectiveKind, Precision, hub, map_named,
};
use latentr3::train::grpo::{Grpo, GrpoConfig, freeze_untrained};
use latentr3::train::sft::Sft;
use latentr3::train::{Example, Gradients, Stage, World};

/// The model with some of its weights multiplied: those whose names contain `part`.
fn multiplied(model: LatentRecommender, part: &'static str, factor: f64) -> LatentRecommender {
    struct Multiply(&'static str, f64);
    impl NamedMapper for Multiply {
        fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            parameter.map(|value| if name.contains(self.0) { value.mul_scalar(self.1) } else { value })
        }
    }
    map_named(model, &mut Multiply(part, factor))
}

/// The model in a precision, if the device under test computes in it.
fn in_precision(model: LatentRecommender, precision: Precision) -> Option<LatentRecommender> {
    precision.check(&crate::common::device()).is_ok().then(|| model.with_precision(precision).unwrap())
}

/// Log-probabilities of the targets, loss and gradients of stage 1, and gradients of stage 2.
fn figures(model: &LatentRecommender) -> [Vec<f32>; 4] {
    let examples = examples();
    let rows: Vec<&Example> = examples.iter().collect();
    let world = World::alone();
    let all = |gradients: &Gradients| -> Vec<f32> {
        gradients.names().flat_map(|name| read(gradients.get(name).unwrap())).collect()
    };
    let mut state = model.prefill(&rows.iter().map(|row| row.prompt.as_slice()).collect::<Vec<_>>()).unwrap();
    let thought = model.think(&mut state).unwrap();
    let targets: Vec<&[u32]> = rows.iter().map(|row| row.target.as_slice()).collect();
    let log_probs = model.target_log_probs(&state, thought, &targets, &Objective::vocabulary()).unwrap();
    let sft = Sft::new(5, Objective::vocabulary()).update(&model.clone().train(), &world.local_batch(&rows)).unwrap();
    let config = GrpoConfig { group: 4, sigma: 0.5, ..Default::default() };
    let policy = freeze_untrained(model.clone(), &config);
    let stage = Grpo::new(config, 8, 0, &policy, Objective::vocabulary()).unwrap();
    let noise: Vec<f32> =
        (0..rows.len() * 4 * 16).map(|i| if i / 16 % 4 == 0 { 0.0 } else { 0.5 * (i as f32 * 0.7).sin() }).collect();
    let (_, update) = stage.roll_out_and_update(&policy, &world.local_batch(&rows), &noise).unwrap();
    [read(log_probs.values), vec![sft.metrics.get("loss").unwrap() as f32], all(&sft.gradients), all(&update.gradients)]
}

/// The norm of the difference, as a share of the norm.
fn deviation(ours: &[f32], exact: &[f32]) -> f32 {
    assert_eq!(ours.len(), exact.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
    norm(&mut ours.iter().zip(exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied())
}

/// The bounds are twice what was measured on `flex`; far below them nothing would have been rounded.
#[test]
fn sixteen_bits_move_losses_and_gradients_by_little() {
    // A latent attention that does not look at a single place, which the least change would move to another.
    let plain = multiplied(small_model(1, 2), "attention.", 0.125);
    let adapted = plain.clone().with_lora(&LoraConfig::of_rank(2), 1).unwrap();
    let exact = [&plain, &adapted].map(figures);
    for (precision, most) in
        [(Precision::Bf16, [1.8e-3, 9e-5, 2.4e-2, 2.5e-2]), (Precision::F16, [3.1e-4, 2e-5, 3.3e-3, 3e-3])]
    {
        for (model, exact) in [&plain, &adapted].into_iter().zip(&exact) {
            let Some(model) = in_precision(model.clone(), precision) else { continue };
            let ours = figures(&model);
            let errors: Vec<f32> = ours.iter().zip(exact).map(|(ours, exact)| deviation(ours, exact)).collect();
            println!("{precision}: {errors:?}");
            for (error, most) in errors.into_iter().zip(most) {
                assert!((0.05 * most..most).contains(&error), "{precision}: {error:e} instead of at most {most:e}");
            }
        }
    }
}

/// The model with the backbone's matrices rounded, but kept in float32.
fn rounded(model: LatentRecommender, dtype: FloatDType) -> LatentRecommender {
    struct Round(FloatDType);
    impl NamedMapper for Round {
        fn map<const D: usize>(&mut self, name: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let is_rounded = D == 2 && name.starts_with("model.") && !name.contains(".lora_");
            parameter.map(|value| if is_rounded { value.cast(self.0).cast(FloatDType::F32) } else { value })
        }
    }
    map_named(model, &mut Round(dtype))
}

#[test]
fn frozen_weights_in_16_bits_compute_as_if_rounded() {
    let plain = small_model(1, 2);
    let adapted = plain.clone().with_lora(&LoraConfig::of_rank(2), 1).unwrap();
    let reinforced = freeze_untrained(plain.clone(), &GrpoConfig::default());
    for (precision, dtype) in [(Precision::Bf16, FloatDType::BF16), (Precision::F16, FloatDType::F16)] {
        if precision.check(&crate::common::device()).is_err() {
            continue;
        }
        for model in [&adapted, &reinforced] {
            let kept = model.clone().with_frozen_weights(precision).unwrap();
            let rounded = rounded(model.clone(), dtype);
            assert_eq!(weights(&kept), weights(&rounded), "{precision}");
            assert_ne!(weights(&kept), weights(model), "{precision}");
            for (kept, rounded) in figures(&kept).iter().zip(figures(&rounded)) {
                assert!(deviation(kept, &rounded) < 1e-6, "{precision}");
            }
            let dtype_of =
                |model: &LatentRecommender| FloatDType::from(model.backbone.model.embed_tokens.weight.val().dtype());
            assert_eq!(dtype_of(&kept), dtype);
            assert!(kept.lora().is_none() || dtype_of(&kept.clone().merged()) == FloatDType::F32);
        }
        let error = plain.clone().with_frozen_weights(precision).unwrap_err();
        assert!(error.to_string().contains("all weights are trained"), "{error}");
    }
}

#[test]
fn weights_that_are_rounded_as_they_are_read_are_those_that_are_rounded_later() {
    let folder = tempfile::tempdir().unwrap();
    let device = crate::common::device();
    let plain = small_model(1, 2);
    let adapted = plain.clone().with_lora(&LoraConfig::of_rank(2), 1).unwrap();
    for (name, model) in [("plain", plain), ("adapted", adapted)] {
        let folder = folder.path().join(name);
        hub::save(&model, &folder).unwrap();
        let read = hub::load_with_adapter(&folder, &device, Precision::Bf16).unwrap();
        let dtype = read.backbone.model.embed_tokens.weight.val().dtype();
        assert_eq!(FloatDType::from(dtype), FloatDType::BF16, "{name}");
        assert_eq!(weights(&read), weights(&rounded(model.clone(), FloatDType::BF16)), "{name}");
        // What an adapter becomes part of is not rounded before.
        let merged = hub::load_rounded(&folder, &device, Precision::Bf16).unwrap();
        let expected = if name == "adapted" { model.merged() } else { read };
        assert_eq!(weights(&merged), weights(&expected), "{name}");
    }
}

#[test]
fn gradient_checkpointing_changes_nothing_in_16_bits() {
    let examples = examples();
    let rows: Vec<&Example> = examples.iter().collect();
    let Some(model) = in_precision(small_model(1, 2), Precision::Bf16) else { return };
    let gradients = |model: LatentRecommender| {
        let found = Sft::new(5, Objective::vocabulary()).update(&model, &World::alone().local_batch(&rows)).unwrap();
        let values: Vec<_> = found.gradients.names().map(|name| read(found.gradients.get(name).unwrap())).collect();
        (found.metrics.get("loss").unwrap(), values)
    };
    assert_eq!(gradients(model.clone().train()), gradients(model.train().with_gradient_checkpointing()));
}

#[test]
fn a_product_too_large_for_f16_is_a_fault_and_moves_nothing() {
    let examples = examples();
    let rows: Vec<&Example> = examples.iter().collect();
    let world = World::alone();
    let step = |model: LatentRecommender| {
        Sft::new(5, Objective::vocabulary()).step(model.train(), &mut optimizer(), &world.local_batch(&rows)).unwrap()
    };
    let too_large = multiplied(small_model(1, 2), "gate_proj.weight", 1e6);
    let Some(model) = in_precision(too_large.clone(), Precision::F16) else { return };
    assert_eq!(step(too_large).1.fault, None, "float32 holds it");
    let (after, report) = step(model.clone());
    assert_eq!(report.fault.map(|fault| fault.what), Some("loss"));
    assert_eq!(weights(&after), weights(&model));
    let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&[vec![1, 0], vec![2, 0]]).unwrap());
    let error = beam_search(&model, &objective, &[&[1, 2, 3]], BeamConfig::default()).unwrap_err();
    assert!(error.to_string().contains("too large for 16 bits"), "{error}");
}
