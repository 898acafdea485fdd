//! Guards: a run that goes wrong says so, and stops where that was asked for.

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::check_positive;

/// So many times the perplexity at the start is a collapse, unless another factor is given.
pub const WARNING_FACTOR: f64 = 1.5;

/// Steps whose mean stands for the start: few, for a rate that is too high ruins a model within some more.
const FIRST: usize = 5;
/// Steps whose mean is compared with it.
const LATEST: usize = 10;

/// What a run must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Guards {
    /// Stop when the KL divergence to the reference policy, as estimated in one step, is larger.
    pub max_kl: Option<f64>,
    /// Stop when the perplexity is so many times what it was at the start; absent, warn once, at [`WARNING_FACTOR`].
    pub stop_on_collapse: Option<f64>,
}

/// The metrics of a step that guards look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watched {
    /// Mean over the prompts of the negative log-likelihood per target token, without noise.
    pub loss: f64,
    /// Estimated KL divergence to the reference policy, where there is one.
    pub kl: Option<f64>,
}

/// What guards remember of a run; a part of its checkpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// Losses of the first steps.
    first: Vec<f64>,
    /// Losses of the latest steps.
    latest: Vec<f64>,
    /// Loss of the first validation.
    first_validation: Option<f64>,
    /// Whether a collapse was told of.
    has_warned: bool,
}

/// Something is wrong with a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    /// What.
    pub reason: String,
    /// Whether the run is to stop for it.
    pub stops: bool,
}

impl Watch {
    /// Mean of the latest steps' losses less that of the first ones, as a factor on the perplexity; nothing before
    /// there are so many that a single bad batch is lost among them.
    pub fn growth(&self) -> Option<f64> {
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        (self.latest.len() == LATEST).then(|| (mean(&self.latest) - mean(&self.first)).exp())
    }

    fn add(&mut self, loss: f64) {
        if self.first.len() < FIRST {
            self.first.push(loss);
        }
        if self.latest.len() == LATEST {
            self.latest.remove(0);
        }
        self.latest.push(loss);
    }
}

impl Guards {
    /// Makes sure that every value makes sense.
    ///
    /// # Errors
    ///
    /// One that does not; the message names it.
    pub fn check(&self) -> Result<(), TrainError> {
        if let Some(most) = self.max_kl {
            check_positive("max_kl", most)?;
        }
        match self.stop_on_collapse.filter(|factor| !(factor.is_finite() && *factor > 1.0)) {
            None => Ok(()),
            Some(factor) => {
                Err(TrainError::config("stop_on_collapse", format!("must be a finite number above 1, got {factor}")))
            }
        }
    }

    /// Looks at a step that was done.
    pub(crate) fn after_step(&self, watch: &mut Watch, watched: Watched) -> Option<Alarm> {
        watch.add(watched.loss);
        if let (Some(most), Some(kl)) = (self.max_kl, watched.kl)
            && kl > most
        {
            let reason = format!("the KL divergence from the starting model is {kl:.4}, above the limit of {most}");
            return Some(Alarm { reason, stops: true });
        }
        let growth = watch.growth()?;
        self.collapse(watch, growth, &format!("in the mean of the last {LATEST} steps"))
    }

    /// Looks at a validation. Its rows are the same each time, so that a single one tells.
    pub(crate) fn after_validation(&self, watch: &mut Watch, loss: f64) -> Option<Alarm> {
        let first = *watch.first_validation.get_or_insert(loss);
        self.collapse(watch, (loss - first).exp(), "in validation")
    }

    fn collapse(&self, watch: &mut Watch, growth: f64, place: &str) -> Option<Alarm> {
        let stops = self.stop_on_collapse.is_some();
        if growth <= self.stop_on_collapse.unwrap_or(WARNING_FACTOR) || (watch.has_warned && !stops) {
            return None;
        }
        watch.has_warned = true;
        let reason = format!("the perplexity without noise is {growth:.2} times its starting value, {place}");
        Some(Alarm { reason, stops })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(guards: Guards, watch: &mut Watch, loss: f64) -> Option<Alarm> {
        guards.after_step(watch, Watched { loss, kl: None })
    }

    #[test]
    fn a_collapse_is_told_of_once_and_stops_where_that_was_asked_for() {
        let (mut told, mut stopped) = (Watch::default(), Watch::default());
        let stopping = Guards { stop_on_collapse: Some(3.0), ..Default::default() };
        for _ in 0..LATEST {
            assert_eq!(step(Guards::default(), &mut told, 0.5), None);
            assert_eq!(step(stopping, &mut stopped, 0.5), None);
        }
        // Each step of 2.5 instead of 0.5 adds 0.2 to the mean: e^0.4 is below 1.5, e^0.6 above, and above 3 is e^1.2.
        let loss = 2.5;
        let alarms: Vec<bool> = (0..9).map(|_| step(Guards::default(), &mut told, loss).is_some()).collect();
        assert_eq!(alarms, [false, false, true, false, false, false, false, false, false]);
        let stops: Vec<bool> = (0..6).map(|_| step(stopping, &mut stopped, loss).is_some_and(|a| a.stops)).collect();
        assert_eq!(stops, [false, false, false, false, false, true]);
        assert!((stopped.growth().unwrap() - 1.2f64.exp()).abs() < 1e-12);
    }

    #[test]
    fn one_bad_batch_is_no_collapse() {
        for bad in 0..40 {
            let mut watch = Watch::default();
            for i in 0..40 {
                let loss = if i == bad { 4.0 } else { 0.5 };
                assert_eq!(step(Guards::default(), &mut watch, loss), None, "step {i} after a bad {bad}");
            }
        }
    }

    #[test]
    fn a_validation_is_compared_with_the_first_one() {
        let mut watch = Watch::default();
        let mut validate = |loss| Guards::default().after_validation(&mut watch, loss);
        assert_eq!(validate(1.0), None);
        assert_eq!(validate(1.4), None);
        assert!(validate(1.41).is_some_and(|alarm| !alarm.stops && alarm.reason.contains("validation")));
        assert_eq!(validate(9.0), None);
    }

    #[test]
    fn the_divergence_stops_a_run_in_the_step_in_which_it_is_too_large() {
        let guards = Guards { max_kl: Some(0.1), ..Default::default() };
        let step = |kl| guards.after_step(&mut Watch::default(), Watched { loss: 1.0, kl });
        assert_eq!(step(Some(0.1)), None);
        assert_eq!(step(None), None);
        assert!(step(Some(0.11)).is_some_and(|alarm| alarm.stops && alarm.reason.contains("0.1100")));
    }

    #[test]
    fn bounds_that_stop_every_run_are_errors() {
        for bound in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            assert!(Guards { max_kl: Some(bound), stop_on_collapse: None }.check().is_err(), "{bound}");
            assert!(Guards { max_kl: None, stop_on_collapse: Some(bound) }.check().is_err(), "{bound}");
        }
        assert!(Guards { max_kl: None, stop_on_collapse: Some(1.0) }.check().is_err());
        assert!(Guards { max_kl: Some(1e-3), stop_on_collapse: Some(1.01) }.check().is_ok());
    }
}
