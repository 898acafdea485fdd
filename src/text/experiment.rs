use super::duration::duration;
use crate::experiment::{Experiment, ExperimentError, StepEvent};

/// What an experiment is about, what it takes and what it needs.
pub fn of_experiment(experiment: &Experiment) -> String {
    let mut text = format!("{}\n\n{}\n", experiment.title, experiment.about.trim());
    if let Some(minutes) = experiment.minutes {
        text += &format!("\nplanned duration: {minutes} minutes\n");
    }
    for (name, what) in &experiment.inputs {
        text += &format!("--input {name}=PATH: {what}\n");
    }
    text + "\n"
}

/// What happens to a step, in a line.
pub fn of_step_event(event: &StepEvent) -> String {
    match event {
        StepEvent::Begun { step, place, due } => format!("step {place} of {due}: {}", step.name),
        StepEvent::TakenOver { step, twin } => {
            format!("{} has the same model as {twin} and takes its result", step.name)
        }
        StepEvent::Waiting(step) => format!("waiting for another experiment to finish `{}`", step.name),
        StepEvent::Done { step, seconds } => format!("{} took {}", step.name, duration(*seconds)),
    }
}

/// An experiment's error, by the options that give what is missing.
pub fn of_missing_inputs(error: &ExperimentError) -> String {
    match error {
        ExperimentError::Inputs(missing) => {
            let option = |(name, what): &(String, String)| format!("--input {name}=PATH: {what}");
            format!("needs {}", missing.iter().map(option).collect::<Vec<_>>().join("\n      "))
        }
        ExperimentError::InputTwice(name) => format!("--input {name} is given twice"),
        other => other.to_string(),
    }
}
