//! A run as it is carried out: its progress, what is measured meanwhile, and its result.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::CliError;
use super::description::{RunData, RunDescription, RunPlace, StageConfig};
use super::interrupt::interrupted;
use super::memory::peak_mib;
use super::terminal::{Progress, duration};
use crate::data::Split;
use crate::eval::{EvalConfig, Shard, evaluate, sample};
use crate::models::LatentRecommender;
use crate::report::{Log, Point};
use crate::train::{self, Event, RunPaths, TrainError, Training, Validation, World};

/// Trains, and tells of it; returns the result.
pub(super) fn carry_out(
    description: &RunDescription,
    data: &RunData,
    place: RunPlace,
    world: &World,
    go: impl FnOnce(Training<LatentRecommender>) -> Result<train::Progress, TrainError>,
) -> Result<Value, CliError> {
    let name = description.stage.name();
    let unit = match description.stage {
        StageConfig::Pretrain {} | StageConfig::Sft { .. } => "loss",
        StageConfig::Grpo { .. } => "reward",
    };
    let run = place.run.as_ref();
    let is_first = run.is_some();
    let mut progress = Progress::shown(name, is_first);
    // What the loss of a model is that knows nothing, where it is in nats per item.
    let uniform =
        data.objective.log_titles().map_or_else(String::new, |nats| format!(" nats per item (all alike: {nats:.2})"));
    let mut observer = |event: Event| match event {
        Event::Step { step, steps, tokens, headline } => {
            progress.advance(step as u64, steps as u64, tokens, &format!("{unit} {headline:.4}"))
        }
        Event::Validated { step, validation, is_best } => progress.say(&format!(
            "step {step}: validation loss {:.4}{}, perplexity {:.3}{}",
            validation.metric("valid_loss").unwrap_or(f64::NAN),
            uniform,
            validation.metric("valid_perplexity").unwrap_or(f64::NAN),
            if is_best { ", best so far" } else { "" }
        )),
        Event::Skipped { step, fault } => {
            progress.say(&format!("step {step}: skipped, the {} is {}", fault.what, fault.value))
        }
        Event::Alarmed { step, alarm } if is_first => {
            let word = if alarm.stops { "stopping" } else { "warning" };
            progress.insist(&format!("step {step}: {word}: {}", alarm.reason))
        }
        Event::Alarmed { .. } => {}
    };
    let mut rank = |model: &LatentRecommender| rank_sample(model, description, data);
    let training = Training {
        config: &description.train,
        train: &data.train,
        valid: &data.valid,
        run,
        world,
        observer: &mut observer,
        extra_validation: (run.is_some() && description.rank_sample > 0).then_some(&mut rank),
        interrupted: interrupted(),
    };
    let end = go(training)?;
    if !end.finished {
        return Err(CliError::Interrupted { stage: name, run: place.folder.into(), also: "", step: end.step });
    }
    progress.say(&format!(
        "{} after {} steps{} in {}; the best model, of step {}, is {}",
        if end.stopped.is_some() { "stopped" } else { "done" },
        end.step,
        if end.skipped > 0 { format!(" ({} skipped)", end.skipped) } else { String::new() },
        duration(end.seconds),
        end.best_step.unwrap_or(end.step),
        RunPaths(place.folder).best().display()
    ));
    let log = run.map(|run| Log::read(&RunPaths(run.path()).metrics())).transpose()?;
    let valid_loss: BTreeMap<_, _> =
        log.iter().flat_map(|log| log.series("valid_loss")).copied().map(by_step).collect();
    Ok(json!({
        "stage": name,
        "objective": data.objective.kind(),
        "run": place.folder.to_string_lossy(),
        "workers": world.size(),
        "steps": end.step,
        "best_step": end.best_step,
        "best_validation": end.best.as_ref().map(best_validation),
        "valid_loss": valid_loss,
        "skipped": end.skipped,
        "stopped": end.stopped,
        "seconds": end.seconds,
        "peak_mib": peak_mib(),
        "train_examples": data.train.len(),
        "valid_examples": data.valid.len(),
    }))
}

/// The metrics of the best validation, by the names without the prefix that they have in the log.
fn best_validation(best: &Validation) -> Map<String, Value> {
    let metrics = best.metrics.iter().filter_map(|(name, value)| Some((name.strip_prefix("valid_")?, value)));
    metrics.map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

fn by_step((step, value): Point) -> (String, f64) {
    (step.to_string(), value)
}

/// HR and NDCG on a sample of validation users, for the log.
fn rank_sample(
    model: &LatentRecommender,
    description: &RunDescription,
    data: &RunData,
) -> Result<Map<String, Value>, TrainError> {
    let rows = sample(data.prepared.rows.get(Split::Valid), Some(description.rank_sample), description.train.seed);
    let batch = description.train.micro_batch;
    let config = EvalConfig { beam: Default::default(), batch, shard: Shard::WHOLE };
    let evaluation = evaluate(model, &data.prepared, &data.objective, &rows, config, &mut |_, _| {})?;
    Ok(Map::from_iter([
        ("valid_hr".into(), json!(evaluation.by_item.hr)),
        ("valid_ndcg".into(), json!(evaluation.by_item.ndcg)),
    ]))
}
