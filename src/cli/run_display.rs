//! What is shown of a run while it trains.

use super::terminal::{Progress, note};
use crate::run::{RunEvent, RunOutcome};
use crate::train::{Event, RunPaths, Validation};

/// Shows a run of a language model.
pub(super) struct RunDisplay {
    progress: Progress,
    /// What the headline of a step is: the loss, or the reward.
    unit: &'static str,
    /// What the loss of a model is that knows nothing, where it is in nats per item.
    uniform: String,
    is_shown: bool,
}

impl RunDisplay {
    /// Of several processes one is shown.
    pub fn new(stage: &str, is_shown: bool) -> Self {
        let unit = if stage == "grpo" { "reward" } else { "loss" };
        Self { progress: Progress::shown(stage, is_shown), unit, uniform: String::new(), is_shown }
    }

    /// Shows what happens.
    pub fn show(&mut self, event: RunEvent) {
        match event {
            RunEvent::Ready { uniform_loss, .. } => {
                self.uniform =
                    uniform_loss.map_or_else(String::new, |nats| format!(" nats per item (all alike: {nats:.2})"));
            }
            RunEvent::Warning(text) if self.is_shown => note(&format!("warning: {text}")),
            RunEvent::Warning(_) => {}
            RunEvent::Training(event) => self.show_training(event),
        }
    }

    fn show_training(&mut self, event: Event) {
        let progress = &mut self.progress;
        match event {
            Event::Step { step, steps, tokens, headline } => {
                progress.advance(step as u64, steps as u64, tokens, &format!("{} {headline:.4}", self.unit))
            }
            Event::Validated { step, validation, is_best } => progress.say(&format!(
                "step {step}: validation loss {:.4}{}, perplexity {:.3}{}{}",
                validation.metric("valid_loss").unwrap_or(f64::NAN),
                self.uniform,
                validation.metric("valid_perplexity").unwrap_or(f64::NAN),
                ranking(validation),
                if is_best { ", best so far" } else { "" }
            )),
            Event::Skipped { step, fault } => {
                progress.say(&format!("step {step}: skipped, the {} is {}", fault.what, fault.value))
            }
            Event::Alarmed { step, alarm } if self.is_shown => {
                let word = if alarm.stops { "stopping" } else { "warning" };
                progress.insist(&format!("step {step}: {word}: {}", alarm.reason))
            }
            Event::Alarmed { .. } => {}
        }
    }

    /// Says how the run ended.
    pub fn end(&self, outcome: &RunOutcome) {
        let RunOutcome { stopped, steps, best_step, skipped, seconds, run, .. } = outcome;
        self.progress.say(&format!(
            "{} after {steps} steps{} in {}; the best model, of step {}, is {}",
            if stopped.is_some() { "stopped" } else { "done" },
            if *skipped > 0 { format!(" ({skipped} skipped)") } else { String::new() },
            super::terminal::duration(*seconds),
            best_step.unwrap_or(*steps),
            RunPaths(run).best().display()
        ));
    }
}

/// HR and NDCG of lists of ten, where a validation ranked the catalog.
fn ranking(validation: &Validation) -> String {
    let at_ten = |name: &str| validation.metrics.get(name)?.get("10")?.as_f64();
    match (at_ten("valid_hr"), at_ten("valid_ndcg")) {
        (Some(hr), Some(ndcg)) => format!(", HR@10 {hr:.4}, NDCG@10 {ndcg:.4}"),
        _ => String::new(),
    }
}
