//! The log of a run: metrics by step.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::samples::Sample;
use crate::input_error::InputError;

/// A step and a metric's value at it.
pub type Point = (f64, f64);

/// The metrics that a run's `metrics.jsonl` has, by their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Log {
    series: BTreeMap<String, Vec<Point>>,
    /// The last step.
    pub steps: usize,
    /// Steps that were skipped because a metric was not finite.
    pub skipped: usize,
    /// What went wrong in the run's own eyes, with the step.
    pub alarms: Vec<(usize, String)>,
    /// What validations showed of recommendations, by the step.
    pub samples: BTreeMap<usize, Vec<Sample>>,
}

impl Log {
    /// Reads a log. A last line without its end is left out: the run was stopped within it, or is writing it.
    ///
    /// # Errors
    ///
    /// The file missing, or a line that is no JSON object with a step, or with a smaller step than the line before it.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let text = std::fs::read(path).map_err(|error| InputError::new(path, error.to_string()))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let mut log = Self::default();
        let lines = text[..whole].split_inclusive(|&byte| byte == b'\n').enumerate();
        for (at, line) in lines.filter(|(_, line)| !line.trim_ascii().is_empty()) {
            let damaged = |problem: String| InputError::new(path, problem).at_line(at + 1);
            let line: Map<String, Value> = serde_json::from_slice(line)
                .map_err(|error| damaged(format!("is not a line of a run log: {error}")))?;
            let Some(step) = line.get("step").and_then(Value::as_u64).map(|step| step as usize) else {
                return Err(damaged("is not a line of a run log: it has no step".into()));
            };
            if step < log.steps {
                return Err(damaged(format!("step {step} comes after step {}", log.steps)));
            }
            log.steps = step;
            log.skipped += usize::from(line.contains_key("skipped"));
            for reason in ["warning", "stop"].into_iter().filter_map(|name| line.get(name)?.as_str()) {
                log.alarms.push((step, reason.to_owned()));
            }
            if let Some(samples) = line.get("valid_samples").and_then(|samples| Vec::deserialize(samples).ok()) {
                log.samples.insert(step, samples);
            }
            for (name, value) in &line {
                log.add(name, step as f64, value);
            }
        }
        Ok(log)
    }

    /// Adds a metric, or the metrics of an object as `name.key`. What is NaN or infinite is left out: a metric that was
    /// not finite is null.
    fn add(&mut self, name: &str, step: f64, value: &Value) {
        match value {
            Value::Number(value) => {
                if let Some(value) = value.as_f64() {
                    self.series.entry(name.to_owned()).or_default().push((step, value));
                }
            }
            Value::Object(values) => {
                for (key, value) in values {
                    self.add(&format!("{name}.{key}"), step, value);
                }
            }
            _ => {}
        }
    }

    /// The names of all metrics.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(String::as_str)
    }

    /// A metric's values in the order of steps; none if the log does not have it.
    pub fn series(&self, name: &str) -> &[Point] {
        self.series.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Log, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        Log::read(&path).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "metrics.jsonl"))
    }

    #[test]
    fn figures_are_found_by_their_names() {
        let log = read(
            "{\"step\":0,\"valid_loss\":2.5,\"best\":true,\"valid_hr\":{\"1\":0.5,\"20\":null}}\n\n\
             {\"step\":1,\"loss\":3.0,\"kl\":null}\n{\"step\":2,\"loss\":2.0,\"skipped\":\"loss\"}\n{\"step\":3,\"lo",
        )
        .unwrap();
        assert_eq!(log.series("loss"), [(1.0, 3.0), (2.0, 2.0)]);
        assert_eq!(log.series("valid_hr.1"), [(0.0, 0.5)]);
        assert!(["kl", "valid_hr.20", "best", "nothing"].iter().all(|name| log.series(name).is_empty()));
        assert_eq!((log.steps, log.skipped), (2, 1));
        assert_eq!(read("").unwrap(), Log::default());
        let log = read("{\"step\":1,\"loss\":3.0}\n{\"step\":2,\"stop\":\"too far\"}\n").unwrap();
        assert_eq!(log.alarms, [(2, "too far".to_owned())]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        for (text, problem) in [
            ("{\"step\":1}\n{\"step\":\n{\"step\":3}\n", "metrics.jsonl:2: is not a line of a run log: EOF"),
            ("{\"step\":1}\n{\"loss\":1}\n", "metrics.jsonl:2: is not a line of a run log: it has no step"),
            ("[1]\n", "metrics.jsonl:1: is not a line"),
            ("\u{1}\u{2}\n", "metrics.jsonl:1: is not a line"),
            ("{\"step\":-1}\n", "metrics.jsonl:1: is not a line"),
            ("{\"step\":2}\n{\"step\":1}\n", "metrics.jsonl:2: step 1 comes after step 2"),
            ("{\"step\":1,\"loss\":1e999}\n", "metrics.jsonl:1: is not a line"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
        assert!(
            Log::read(Path::new("no/such/metrics.jsonl")).unwrap_err().to_string().contains("no/such/metrics.jsonl")
        );
    }
}
