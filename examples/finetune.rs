//! Prepares a data set, fine-tunes a small model on it and recommends. The run is one that `latentr3 report` reads and
//! `latentr3 sft --resume` goes on with.
//!
//! cargo run --release --example finetune -- DATA OUT
//!
//! DATA is a folder that `latentr3 prepare` reads, for instance `latentr3-demo/choices` of `latentr3 demo`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use latentr3::models::backbone::{Architecture, BackboneConfig, NewBackbone};
use latentr3::prelude::*;
use latentr3::run::{RunContext, RunDescription, RunEvent, StageConfig, start, tokenizer_asset};
use latentr3::train::{Event, RunPaths};

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
    let base = out.join("base");
    hub::save(&model, &base)?;
    let (name, tokenizer) = tokenizer_asset(&prepared.tokenizer)?;
    std::fs::write(base.join(name), tokenizer)?;

    let stage = StageConfig::Sft {
        thoughts: 1,
        source: ThoughtKind::LatentAttention,
        temperature: Default::default(),
        lora: None,
        regularization: Default::default(),
        augmentation: Default::default(),
        hold_out: None,
    };
    let config = TrainConfig { epochs: 2, batch: 32, learning_rate: 3e-3, ..Default::default() };
    let description = RunDescription::new(stage, &base, &prepared_folder, "flex", config);
    let mut observer = |event: RunEvent| {
        if let RunEvent::Training(Event::Validated { step, validation, .. }) = event {
            println!("step {step}: validation loss {:.3}", -validation.score);
        }
    };
    let run = out.join("run");
    let (world, interrupted) = (World::alone(), AtomicBool::new(false));
    let mut context = RunContext { world: &world, interrupted: &interrupted, observer: &mut observer };
    start(description, &run, &mut context)?;

    let best = hub::load(&RunPaths(&run).best(), &device)?;
    let objective = prepared.objective(best.objective())?;
    let user = &prepared.rows.test[0];
    for hypothesis in beam_search(&best, &objective, &[&user.prompt], BeamConfig::default())?.remove(0) {
        println!("{:.3}  {}", hypothesis.score, prepared.catalog.title(hypothesis.items[0] as usize));
    }
    Ok(())
}
