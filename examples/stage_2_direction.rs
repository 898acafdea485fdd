//! Which way each estimator of stage 2 points: the cosine of its gradient with that of the expected reward itself.
//!
//! ```sh
//! cargo run --release --example stage_2_direction -- RUN PREPARED 48 32
//! ```
//!
//! takes 48 training prompts with 32 noisy samples each. 1 is the way up, -1 the way down; nothing is trained.

use std::error::Error;

use latentr3::data::{Prepared, Split};
use latentr3::models::host::read;
use latentr3::models::{LatentRecommender, device, hub};
use latentr3::train::grpo::{AdvantageKind, Estimator, Grpo, GrpoConfig, group_noise, prepare_model};
use latentr3::train::{Example, Gradients, Workers};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, data, prompts, samples] = &args[..] else {
        return Err("give a run folder, a prepared folder, how many prompts, and how many noisy samples of each".into());
    };
    let (prompts, samples): (usize, usize) = (prompts.parse()?, samples.parse()?);
    let examples = Prepared::load(data.as_ref())?.examples(Split::Train);
    let spread = |i: usize| &examples[i * (examples.len() / prompts.max(1)).max(1) % examples.len()];
    let batch: Vec<&Example> = (0..prompts).map(spread).collect();
    let best = format!("{model}/best");
    let model = prepare_model(hub::load(best.as_ref(), &device("flex")?)?, &GrpoConfig::default());

    println!("{:<24}{:<10}{:>12}{:>12}", "noise", "advantage", "likelihood", "score");
    for (name, sigma_relative) in [("0.1 of the thought", Some(0.1)), ("0.3 of it", Some(0.3)), ("sigma 1.5", None)] {
        let config = GrpoConfig { group: samples + 1, sigma_relative, ..Default::default() };
        let up = gradient(GrpoConfig { estimator: Estimator::Pathwise, ..config.clone() }, &model, &batch)?;
        for advantage in [AdvantageKind::Batch, AdvantageKind::Group, AdvantageKind::Own, AdvantageKind::Pool] {
            let cosine_of = |estimator| -> Result<f64, Box<dyn Error>> {
                Ok(cosine(&gradient(GrpoConfig { estimator, advantage, ..config.clone() }, &model, &batch)?, &up))
            };
            let (likelihood, score) = (cosine_of(Estimator::Likelihood)?, cosine_of(Estimator::Score)?);
            println!("{name:<24}{:<10}{likelihood:>12.3}{score:>12.3}", format!("{advantage:?}").to_lowercase());
        }
    }
    Ok(())
}

/// The gradient of a batch by all parameters of the latent attention.
fn gradient(config: GrpoConfig, model: &LatentRecommender, batch: &[&Example]) -> Result<Vec<f32>, Box<dyn Error>> {
    let (group, width, workers) = (config.group, model.backbone.config().d_model, Workers::alone());
    let noise: Vec<f32> = (0..batch.len() as u64).flat_map(|prompt| group_noise(0, 1, prompt, group, width)).collect();
    let stage = Grpo::new(config, 4, 0, model)?;
    let (_, update) = stage.roll_out_and_update(model, &workers.share(batch), &noise)?;
    let gradients: &Gradients = &update.gradients;
    Ok(gradients.names().filter_map(|name| gradients.get(name)).flat_map(read).collect())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
