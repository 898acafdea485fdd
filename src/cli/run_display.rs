//! What is shown of a run while it trains.

use super::terminal::{Progress, note};
use crate::run::{RunEvent, RunOutcome};
use crate::text;
use crate::train::Event;

/// Shows a run of a language model.
pub(super) struct RunDisplay {
    progress: Progress,
    /// Name of a step's headline metric: loss or reward.
    unit: &'static str,
    /// Loss of a uniform model, if the loss is in nats per item.
    uniform: Option<f64>,
    is_shown: bool,
}

impl RunDisplay {
    /// Of several processes one is shown.
    pub fn new(stage: &str, is_shown: bool) -> Self {
        let unit = if stage == "grpo" { "reward" } else { "loss" };
        Self { progress: Progress::shown(stage, is_shown), unit, uniform: None, is_shown }
    }

    /// Shows what happens.
    pub fn show(&mut self, event: RunEvent) {
        match event {
            RunEvent::Ready { uniform_loss, .. } => self.uniform = uniform_loss,
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
            Event::Validated { step, validation, is_best } => {
                let (line, best) = (text::of_validation(validation, self.uniform), best(is_best));
                progress.say(&format!("step {step}: {line}{best}"));
                text::of_samples(validation).iter().for_each(|line| progress.say(line));
            }
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
        self.progress.say(&text::of_outcome(outcome));
    }
}

/// What is said of the best model so far.
pub(super) fn best(is_best: bool) -> &'static str {
    if is_best { ", best so far" } else { "" }
}
