//! Prepares a data set, fine-tunes a small model on it and recommends.
//!
//! cargo run --release --example finetune -- DATA OUT
//!
//! DATA is a folder that `latentr3 prepare` reads, for instance the `data` folder that `latentr3 demo` makes.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use latentr3::models::backbone::{Architecture, BackboneConfig, NewBackbone};
use latentr3::prelude::*;
use latentr3::train::Event;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (data, out) = args.next().zip(args.next()).ok_or("usage: finetune DATA OUT")?;
    let prepared_folder = out.join("prepared");
    prepare(&PrepareConfig { data, out: prepared_folder.clone(), ..Default::default() })?;
    let prepared = Prepared::load(&prepared_folder)?;

    let device = device("flex")?;
    let sizes = NewBackbone {
        architecture: Architecture::Qwen2,
        vocab_size: prepared.vocab_size,
        d_model: 64,
        d_ff: 192,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        max_positions: 1024,
        end_token: prepared.end_token,
    };
    let model = LatentRecommender::new(BackboneConfig::new(&sizes)?, ThoughtKind::LatentAttention, 1, 0, &device)?;
    let config = TrainConfig { epochs: 2, batch: 32, learning_rate: 3e-3, ..Default::default() };
    let run = RunFolder::create(&out.join("run"), &serde_json::json!({ "example": "finetune" }), Vec::new())?;
    let training = Training {
        config: &config,
        train: &prepared.examples(Split::Train),
        valid: &prepared.examples(Split::Valid),
        run: Some(&run),
        world: &World::alone(),
        observer: &mut |event| {
            if let Event::Validated { step, validation, .. } = event {
                println!("step {step}: validation loss {:.3}", -validation.score);
            }
        },
        interrupted: &AtomicBool::new(false),
    };
    let objective = prepared.objective(ObjectiveKind::Catalog)?;
    let stage = Sft::new(32, objective.clone());
    training.start(&stage, model.with_objective(objective.kind()))?;

    let best = hub::load(&run.best(), &device)?;
    let user = &prepared.rows.test[0];
    for hypothesis in beam_search(&best, &objective, &[&user.prompt], BeamConfig::default())?.remove(0) {
        println!("{:.3}  {}", hypothesis.score, prepared.catalog.title(hypothesis.items[0] as usize));
    }
    Ok(())
}
