use crate::experiment::{Experiment, StepEvent};
use crate::report::duration;

/// What an experiment is about, what it takes and what it needs.
pub fn of_experiment(experiment: &Experiment) -> String {
    let mut text = format!("{}\n\n{}\n", experiment.title, experiment.about.trim());
    if let Some(minutes) = experiment.minutes {
        text += &format!("\nplanned to take {minutes} minutes\n");
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
            format!("{} is of the same model as {twin}, and has its result", step.name)
        }
        StepEvent::Waiting(step) => format!("waiting for another experiment to carry out `{}`", step.name),
        StepEvent::Done { step, seconds } => format!("{} took {}", step.name, duration(*seconds)),
    }
}
