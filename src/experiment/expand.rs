//! Names and values in braces.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::error::PlanError;

/// Most times that a value may have braces of its own.
const DEEPEST: usize = 8;

/// What names in braces stand for.
pub(super) type Bindings = BTreeMap<String, String>;

/// A text with the names in braces replaced, also within what replaces them; those of `later` stay.
pub(super) fn expand(text: &str, bindings: &Bindings, later: &BTreeSet<&str>) -> Result<String, PlanError> {
    let mut text = text.to_owned();
    for _ in 0..DEEPEST {
        let (mut expanded, mut rest, mut is_done) = (String::new(), text.as_str(), true);
        while let Some(open) = rest.find('{') {
            let Some(length) = rest[open..].find('}') else {
                return Err(PlanError(format!("`{text}` has a brace that is never closed")));
            };
            let name = &rest[open + 1..open + length];
            expanded.push_str(&rest[..open]);
            if later.contains(name) {
                expanded.push_str(&rest[open..=open + length]);
            } else if let Some(value) = bindings.get(name) {
                expanded.push_str(value);
                is_done = false;
            } else {
                return Err(PlanError(format!("`{text}`: {{{name}}} is not defined here")));
            }
            rest = &rest[open + length + 1..];
        }
        expanded.push_str(rest);
        if is_done {
            return Ok(expanded);
        }
        text = expanded;
    }
    Err(PlanError(format!("`{text}`: values refer to each other without end")))
}

/// Every combination of the values of those dimensions of the matrix that `text` mentions.
pub(super) fn combinations(text: &str, matrix: &BTreeMap<String, Vec<Value>>) -> Result<Vec<Bindings>, PlanError> {
    let mut all = vec![Bindings::new()];
    for (dimension, values) in matrix.iter().filter(|(dimension, _)| text.contains(&format!("{{{dimension}}}"))) {
        let values = values.iter().map(|value| bindings(dimension, value)).collect::<Result<Vec<_>, _>>()?;
        let with = |one: &Bindings| {
            let one = one.clone();
            let join = move |more: &Bindings| one.iter().chain(more).map(|(k, v)| (k.clone(), v.clone())).collect();
            values.iter().map(join).collect::<Vec<Bindings>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    Ok(all)
}

/// What a value of the matrix binds: its dimension, and its fields where it is a table.
fn bindings(dimension: &str, value: &Value) -> Result<Bindings, PlanError> {
    let Value::Object(fields) = value else {
        return Ok(Bindings::from([(dimension.to_owned(), text(value)?)]));
    };
    let name = fields.get("name").ok_or_else(|| PlanError(format!("a value of {dimension} has no name")))?;
    let mut bindings = Bindings::from([(dimension.to_owned(), text(name)?)]);
    for (field, value) in fields.iter().filter(|(field, _)| *field != "name") {
        bindings.insert(field.clone(), text(value)?);
    }
    Ok(bindings)
}

fn text(value: &Value) -> Result<String, PlanError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(PlanError(format!("{value} is neither text nor a number"))),
    }
}

/// Whether a name may be that of a file among the results.
pub(super) fn is_plain(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.chars().all(is_allowed) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_in_braces_are_replaced_also_within_values() {
        let bindings = [("folder", "{cds}/raw"), ("cds", "music"), ("n", "3")];
        let bindings = bindings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let expand = |text: &str, bindings| expand(text, bindings, &["json"].into());
        assert_eq!(expand("--data {folder} -n {n} {json}", &bindings).unwrap(), "--data music/raw -n 3 {json}");
        for (text, part) in [("{x}", "{x}"), ("{n", "never closed")] {
            assert!(expand(text, &bindings).unwrap_err().to_string().contains(part));
        }
        let circle = [("a", "{b}"), ("b", "{a}")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert!(expand("{a}", &circle).unwrap_err().to_string().contains("without end"));
    }

    #[test]
    fn only_the_dimensions_that_are_mentioned_vary() {
        let data = json!([{ "name": "cds", "epochs": 6 }, { "name": "office", "epochs": 4 }]);
        let matrix = [("data", data), ("seed", json!([0, 1, 2]))];
        let matrix = matrix.map(|(name, values)| (name.to_owned(), values.as_array().unwrap().clone())).into();
        let all = combinations("sft-{data}-{seed}", &matrix).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!((all[5]["data"].as_str(), all[5]["epochs"].as_str(), all[5]["seed"].as_str()), ("office", "4", "2"));
        assert_eq!(combinations("prepared-{data}", &matrix).unwrap().len(), 2);
        assert_eq!(combinations("once", &matrix).unwrap(), [Bindings::new()]);
    }
}
