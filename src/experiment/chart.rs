//! Charts of results.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::error::PlanError;
use super::expand::{Bindings, is_plain};
use super::table::{figure, steps_called};
use crate::eval::mean_and_deviation;
use crate::report::Series;

/// A chart with a line for each kind of model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chart {
    /// The file that it becomes, among the results.
    pub file: String,
    /// Its heading.
    pub title: String,
    /// What lies across, as a table's column says it.
    x: String,
    /// What to call that.
    pub x_label: String,
    /// What goes up, as a table's column says it.
    y: String,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    points: Vec<Point>,
}

/// The means over some steps: those that say where a point lies across, and those that say how high.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    x: String,
    y: String,
    #[serde(skip)]
    steps: [Vec<String>; 2],
}

impl Chart {
    /// The chart with the steps of its points.
    pub(super) fn expanded(&self, matrix: &BTreeMap<String, Vec<Value>>) -> Result<Self, PlanError> {
        let none = Bindings::new();
        let mut chart = self.clone();
        if !is_plain(&chart.file) || !chart.file.ends_with(".svg") {
            return Err(PlanError(format!("`{}` is not a valid chart name; use one such as `hr.svg`", chart.file)));
        }
        for point in chart.lines.iter_mut().flat_map(|line| &mut line.points) {
            point.steps = [steps_called(&point.x, &none, matrix)?, steps_called(&point.y, &none, matrix)?];
        }
        Ok(chart)
    }

    /// All steps whose results it shows.
    pub(super) fn steps(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().flat_map(|line| &line.points).flat_map(|point| point.steps.iter().flatten())
    }

    /// Its lines with the points whose results are done. `result` gives a step's result.
    pub fn series(&self, result: &dyn Fn(&str) -> Option<Value>) -> Vec<Series> {
        let mean = |steps: &[String], column: &str| {
            let results = steps.iter().filter_map(|step| result(step));
            mean_and_deviation(&results.filter_map(|result| figure(&result, column)).collect::<Vec<_>>())
        };
        let point = |point: &Point| {
            let [x, y] = &point.steps;
            let ((x, _), (y, deviation)) = (mean(x, &self.x)?, mean(y, &self.y)?);
            Some(((x, y), deviation.unwrap_or_default()))
        };
        let series =
            |line: &Line| Series { name: line.name.clone(), points: line.points.iter().filter_map(point).collect() };
        self.lines.iter().map(series).collect()
    }
}
