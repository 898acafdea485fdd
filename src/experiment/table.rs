//! Tables of results.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::error::PlanError;
use super::expand::{Bindings, combinations, expand};
use crate::eval::mean_and_deviation;

/// A table with a row for each kind of model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// What it shows of each result: `hr@10`, `ndcg@5`, with `title ` before it by title; else a path of fields, as
    /// `targets.cold.by_item.hr.10` or `seconds`.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// One or several results, as of several seeds: a row of a table, or what a step reads.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// The steps' name, in braces what varies.
    results: String,
    /// Where in a result a table's columns begin: a path of fields, as `latency.0`; the result itself if not given.
    pub(super) within: Option<String>,
    /// The steps.
    #[serde(skip)]
    pub steps: Vec<String>,
}

impl Table {
    pub(super) fn expanded(
        &self,
        bindings: &Bindings,
        matrix: &BTreeMap<String, Vec<Value>>,
    ) -> Result<Self, PlanError> {
        let rows = self.rows.iter().map(|row| row.expanded(bindings, matrix)).collect::<Result<_, _>>()?;
        let title = expand(&self.title, bindings, &BTreeSet::new())?;
        Ok(Self { title, columns: self.columns.clone(), rows })
    }
}

impl Row {
    /// The row with its steps; see [`steps_called`].
    pub(super) fn expanded(
        &self,
        bindings: &Bindings,
        matrix: &BTreeMap<String, Vec<Value>>,
    ) -> Result<Self, PlanError> {
        Ok(Self { steps: steps_called(&self.results, bindings, matrix)?, ..self.clone() })
    }
}

/// The steps that a name with braces stands for: those of all values of the matrix but for what `bindings` have chosen.
pub(super) fn steps_called(
    name: &str,
    bindings: &Bindings,
    matrix: &BTreeMap<String, Vec<Value>>,
) -> Result<Vec<String>, PlanError> {
    let all = combinations(name, matrix)?.into_iter();
    let chosen = all.filter(|one| bindings.iter().all(|(name, value)| one.get(name).is_none_or(|own| own == value)));
    chosen.map(|one| expand(name, &one, &BTreeSet::new())).collect()
}

/// The table in Markdown: the mean over a row's results and, where there are several, their standard deviation; of how
/// many, where some lack the metric. `result` gives a step's result, if it is done.
pub fn markdown(table: &Table, result: &dyn Fn(&str) -> Option<Value>) -> String {
    let mut text = format!(
        "### {}\n\n| | n | {} |\n|---|---|{}\n",
        table.title,
        table.columns.join(" | "),
        "---|".repeat(table.columns.len())
    );
    for row in &table.rows {
        let results: Vec<Value> = row.steps.iter().filter_map(|step| result(step)).collect();
        let cell = |column: &String| {
            let value = |result: &Value| match &row.within {
                Some(path) => figure(field(result, path)?, column),
                None => figure(result, column),
            };
            let values: Vec<f64> = results.iter().filter_map(value).collect();
            let of = if values.len() < results.len() { format!(" (of {})", values.len()) } else { String::new() };
            match mean_and_deviation(&values) {
                None => String::new(),
                Some((mean, None)) => format!("{mean:.4}{of}"),
                Some((mean, Some(deviation))) => format!("{mean:.4} ± {deviation:.4}{of}"),
            }
        };
        let cells: Vec<String> = table.columns.iter().map(cell).collect();
        text += &format!("| {} | {} | {} |\n", row.name, results.len(), cells.join(" | "));
    }
    text
}

/// What a column shows of a result.
pub(super) fn figure(result: &Value, column: &str) -> Option<f64> {
    let (by, metric) = match column.strip_prefix("title ") {
        Some(metric) => ("by_title", metric),
        None => ("by_item", column),
    };
    match metric.split_once('@') {
        Some((metric, k)) => result[by][metric][k].as_f64(),
        None => field(result, column)?.as_f64(),
    }
}

/// What a path of fields and places, with points between them, leads to.
fn field<'a>(result: &'a Value, path: &str) -> Option<&'a Value> {
    result.pointer(&format!("/{}", path.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_the_mean_of_its_results_with_their_spread() {
        let row = |name: &str, steps: &[&str]| Row {
            name: name.into(),
            results: String::new(),
            within: None,
            steps: steps.iter().map(|step| step.to_string()).collect(),
        };
        let table = Table {
            title: "CDs".into(),
            columns: vec!["hr@10".into(), "title ndcg@5".into(), "targets.cold.users".into()],
            rows: vec![
                row("SFT", &["a", "b"]),
                row("popularity", &["c"]),
                row("later", &["d"]),
                row("partly", &["a", "e"]),
                Row { within: Some("parts.1".into()), ..row("a part", &["f"]) },
            ],
        };
        let of = |hr: f64| json!({"by_item": {"hr": {"10": hr}}, "by_title": {"ndcg": {"5": 0.5}}, "targets": {"cold": {"users": 7}}});
        let result = |step: &str| match step {
            "a" => Some(of(0.1)),
            "b" => Some(of(0.2)),
            "e" => Some(json!({"targets": {"cold": {"users": 7}}})),
            "c" => Some(of(0.05)),
            "f" => Some(json!({"parts": [of(0.3), of(0.4)]})),
            _ => None,
        };
        let text = markdown(&table, &result);
        assert!(text.contains("| SFT | 2 | 0.1500 ± 0.0707 | 0.5000 ± 0.0000 | 7.0000 ± 0.0000 |"), "{text}");
        assert!(text.contains("| popularity | 1 | 0.0500 | 0.5000 | 7.0000 |"), "{text}");
        assert!(text.contains("| later | 0 |  |  |  |"), "{text}");
        assert!(text.contains("| partly | 2 | 0.1000 (of 1) | 0.5000 (of 1) | 7.0000 ± 0.0000 |"), "{text}");
        assert!(text.contains("| a part | 1 | 0.4000 | 0.5000 | 7.0000 |"), "{text}");
    }
}
