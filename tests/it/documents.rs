//! What the documents quote is what was kept, and their links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use latentr3::experiment::ExperimentRequest;
use serde_json::Value;

/// Says of a section that its results are not kept, so that nothing can be compared.
const NOT_KEPT: &str = "are not kept";

/// What is read of a kept result beside the tables that its experiment prints.
const FIELDS: [&str; 10] = [
    "comparisons",
    "models",
    "valid_loss",
    "best_validation",
    "cosine",
    "thought_norm",
    "noise_norm",
    "reward_noise_free",
    "reward_noisy",
    "validation",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files with this ending in a folder, by name.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|own| own == extension)).collect();
    files.sort();
    files
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path.as_ref()))
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The numbers of a text that have three decimals or more, without their signs. Ids of papers are none.
fn figures(text: &str) -> Vec<&str> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut figures = Vec::new();
    for word in text.split(|c: char| c.is_whitespace() || "|[](),;*`=/~<>\"".contains(c)) {
        let number = word.trim_start_matches(['+', '-']).trim_end_matches(['.', ':', '%']);
        let is_figure =
            number.chars().all(is_number) && number.split_once('.').is_some_and(|(_, after)| after.len() >= 3);
        // An id is four digits and five.
        if is_figure && number.find('.') != Some(4) && number.matches('.').count() == 1 {
            figures.push(number);
        }
    }
    figures
}

/// The numbers of a JSON value.
fn numbers(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Number(number) => found.extend(number.as_f64()),
        Value::Array(values) => values.iter().for_each(|value| numbers(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| numbers(value, found)),
        _ => {}
    }
}

/// What the kept results of an experiment say, rounded to as many decimals as documents give.
fn kept(experiment: &str) -> BTreeSet<String> {
    let work = tempfile::tempdir().unwrap();
    let request = ExperimentRequest {
        file: root().join(format!("experiments/{experiment}.toml")),
        work: work.path().into(),
        results: None,
        inputs: Vec::new(),
        only: Vec::new(),
    };
    let tables = request.plan(&|_| Ok(())).unwrap().tables().unwrap();
    let mut found: Vec<f64> =
        tables.iter().flat_map(|table| figures(table)).map(|text| text.parse().unwrap()).collect();
    for file in files(&format!("experiments/results/{experiment}"), "json") {
        let result = &serde_json::from_str::<Value>(&read(&file)).unwrap()["result"];
        FIELDS.iter().for_each(|field| numbers(&result[*field], &mut found));
    }
    // Tables have four decimals; three of them may be rounded either way.
    let near = |number: f64| [number - 5e-5, number, number + 5e-5].map(|number| format!("{:.3}", number.abs()));
    let rounded = |number: f64| (4..7).map(move |decimals| format!("{:.decimals$}", number.abs())).chain(near(number));
    found.into_iter().flat_map(rounded).collect()
}

/// Names of the experiments that a page names.
fn experiments_of(page: &str) -> BTreeSet<&str> {
    let names = page.split("experiments/").skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix("results/").unwrap_or(rest);
        Some(&rest[..rest.find(|c: char| !c.is_ascii_alphanumeric())?])
    });
    names.filter(|name| root().join(format!("experiments/{name}.toml")).exists()).collect()
}

#[test]
fn figures_on_the_pages_of_results_are_those_that_are_kept() {
    let mut checked = 0;
    for file in files("docs/results", "md") {
        let page = read(&file);
        let known: BTreeSet<String> = experiments_of(&page).into_iter().flat_map(kept).collect();
        for section in page.split("\n## ").filter(|section| !section.contains(NOT_KEPT)) {
            let unknown: Vec<&str> = figures(section).into_iter().filter(|figure| !known.contains(*figure)).collect();
            let heading = section.lines().next().unwrap_or_default();
            assert!(unknown.is_empty(), "{}, \"{heading}\": not in a kept result: {unknown:?}", file.display());
            checked += figures(section).len();
        }
    }
    assert!(checked > 1000, "only {checked} figures were found");
}

#[test]
fn figures_in_the_readme_and_the_results_are_on_the_pages_behind_them() {
    let pages = files("docs/results", "md").into_iter().chain(files("docs", "md")).map(read);
    let pages: String = pages.chain([read("BENCHMARKS.md")]).collect();
    let known: BTreeSet<&str> = figures(&pages).into_iter().collect();
    for file in ["README.md", "RESULTS.md"] {
        // A block is what the program printed.
        let prose: String = read(file).split("```").step_by(2).collect();
        let unknown: Vec<&str> = figures(&prose).into_iter().filter(|figure| !known.contains(figure)).collect();
        assert!(unknown.is_empty(), "{file}: on no page behind it: {unknown:?}");
    }
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let keep = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(keep).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_within_the_documents_lead_somewhere() {
    let mut checked = 0;
    for folder in [".", "docs", "docs/results", "experiments"] {
        for file in files(folder, "md") {
            let text = read(&file);
            let prose: String = text.split("```").step_by(2).collect();
            for link in prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
                if link.contains("://") {
                    continue;
                }
                let (path, place) = link.split_once('#').map_or((link, None), |(path, place)| (path, Some(place)));
                let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
                assert!(target.exists(), "{}: {link} leads nowhere", file.display());
                if let Some(place) = place {
                    let headings = read(&target);
                    let mut headings = headings.lines().filter_map(|line| line.strip_prefix('#'));
                    let found = headings.any(|heading| anchor(heading.trim_start_matches('#').trim()) == place);
                    assert!(found, "{}: {link} names no heading", file.display());
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "only {checked} links were found");
}
