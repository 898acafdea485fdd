use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::{Value, json};

use super::chart::Chart;
use super::error::PlanError;
use super::expand::{Bindings, combinations, expand, is_plain};
use super::table::{Row, Table};
use crate::models::files::sha256;

/// An experiment as its file says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// What it is about.
    pub title: String,
    /// What it asks, and how.
    #[serde(default)]
    pub about: String,
    /// Minutes that it is planned to take.
    pub minutes: Option<f64>,
    /// What the user must give, by name, and what each is.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The values that steps vary over.
    #[serde(default)]
    matrix: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    step: Vec<StepTemplate>,
    /// Tables of what came out.
    #[serde(default)]
    table: Vec<Table>,
    /// Charts of what came out.
    #[serde(default)]
    chart: Vec<Chart>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepTemplate {
    name: String,
    run: String,
    makes: Option<String>,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    reads: Vec<Row>,
    #[serde(default)]
    keep: bool,
    #[serde(default)]
    lists: bool,
}

/// One call of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name; no two steps have the same.
    pub name: String,
    /// The command's words. `{json}` among them is where its result goes, `{results}` the folder with what was kept,
    /// and a name of the experiment's inputs in braces is what the user gave.
    pub command: Vec<String>,
    /// The folder that it makes, in the working folder.
    pub makes: Option<String>,
    /// Steps of which it needs what they make, by their places among all.
    pub needs: Vec<usize>,
    /// Steps of which it needs the kept results only.
    pub reads: Vec<usize>,
    /// Whether its result is kept for good.
    pub keep: bool,
    /// Whether each user's list is kept with it.
    pub lists: bool,
    /// Names of the inputs that it, or a step before it that it needs or reads, uses.
    pub inputs: BTreeSet<String>,
    /// SHA-256 of its command and of the recipes of the steps that it needs or reads.
    pub recipe: String,
}

impl Step {
    /// Whether what it makes and what another step makes are one folder, or one of them lies within the other.
    fn overwrites(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (&self.makes, &other.makes) else { return false };
        Path::new(a).starts_with(b) || Path::new(b).starts_with(a)
    }
}

impl Experiment {
    /// Reads an experiment's file.
    ///
    /// # Errors
    ///
    /// Text that is no experiment; the message has the line.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text).map_err(|error| PlanError(error.to_string().trim_end().to_owned()))?;
        match plan.minutes {
            Some(minutes) if !(0.0..1e9).contains(&minutes) => {
                Err(PlanError(format!("minutes must be at least 0 and below 1e9, got {minutes:?}")))
            }
            _ => Ok(plan),
        }
    }

    /// All steps, each after those that it needs.
    ///
    /// # Errors
    ///
    /// Names in braces that stand for nothing, two steps of one name, a need that is not an earlier step, or a folder
    /// to make that is not within the working folder.
    pub fn steps(&self) -> Result<Vec<Step>, PlanError> {
        let mut steps: Vec<Step> = Vec::new();
        let mut places = HashMap::new();
        for template in &self.step {
            for bindings in combinations(&template.name, &self.matrix)? {
                let step = template.step(bindings, self, &steps, &places)?;
                if places.insert(step.name.clone(), steps.len()).is_some() {
                    return Err(PlanError(format!("two steps are named `{}`", step.name)));
                }
                if let Some(other) = steps.iter().find(|other| other.overwrites(&step)) {
                    let (name, other) = (&step.name, &other.name);
                    return Err(PlanError(format!(
                        "steps `{other}` and `{name}` make the same folder, or one inside the other's"
                    )));
                }
                steps.push(step);
            }
        }
        Ok(steps)
    }

    /// All tables, with the names of the steps whose results they show.
    ///
    /// # Errors
    ///
    /// Those of [`Self::steps`], and a row that shows what no step makes.
    pub fn tables(&self) -> Result<Vec<Table>, PlanError> {
        let steps = self.steps()?;
        let mut tables = Vec::new();
        for table in &self.table {
            for bindings in combinations(&table.title, &self.matrix)? {
                let table = table.expanded(&bindings, &self.matrix)?;
                for row in &table.rows {
                    check_kept(&steps, &row.steps, &format!("row `{}` of `{}`", row.name, table.title))?;
                }
                tables.push(table);
            }
        }
        Ok(tables)
    }

    /// All charts, with the names of the steps whose results they show.
    ///
    /// # Errors
    ///
    /// Those of [`Self::steps`], a point of what no step makes, and a file whose name is none for a chart.
    pub fn charts(&self) -> Result<Vec<Chart>, PlanError> {
        let steps = self.steps()?;
        let chart = |chart: &Chart| {
            let chart = chart.expanded(&self.matrix)?;
            check_kept(&steps, chart.steps(), &format!("chart `{}`", chart.title))?;
            Ok(chart)
        };
        self.chart.iter().map(chart).collect()
    }
}

/// Makes sure that the results that `what` shows are kept.
fn check_kept<'a>(steps: &[Step], shown: impl IntoIterator<Item = &'a String>, what: &str) -> Result<(), PlanError> {
    let is_kept = |name: &String| steps.iter().any(|step| step.keep && step.name == *name);
    match shown.into_iter().find(|name| !is_kept(name)) {
        Some(name) => Err(PlanError(format!("{what} shows `{name}`, which no step keeps"))),
        None => Ok(()),
    }
}

impl StepTemplate {
    fn step(
        &self,
        mut bindings: Bindings,
        Experiment { inputs, matrix, .. }: &Experiment,
        before: &[Step],
        places: &HashMap<String, usize>,
    ) -> Result<Step, PlanError> {
        let none = BTreeSet::new();
        let name = expand(&self.name, &bindings, &none)?;
        if !is_plain(&name) {
            return Err(PlanError(format!(
                "`{name}` is not a valid step name; use only letters, digits, `-`, `_` and `.`"
            )));
        }
        let makes = self.makes.as_ref().map(|makes| expand(makes, &bindings, &none)).transpose()?;
        if let Some(makes) = &makes {
            let is_within = Path::new(makes).components().all(|part| matches!(part, Component::Normal(_)));
            if !is_within || makes.is_empty() {
                return Err(PlanError(format!("step `{name}` makes `{makes}`, which is outside the work folder")));
            }
            bindings.insert("makes".into(), makes.clone());
        }
        // What is known only when the step runs.
        let later: BTreeSet<&str> = inputs.keys().map(String::as_str).chain(["json", "results"]).collect();
        let rows: Vec<Row> = self.reads.iter().map(|row| row.expanded(&bindings, matrix)).collect::<Result<_, _>>()?;
        if let Some(row) = rows.iter().find(|row| row.within.is_some()) {
            return Err(PlanError(format!(
                "step `{name}` must read all of `{}`; `within` is only for tables",
                row.name
            )));
        }
        let mut command: Vec<String> = Vec::new();
        for word in self.run.split_whitespace() {
            match word {
                "{reads}" => command.extend(rows.iter().map(named_results)),
                _ => command.push(expand(word, &bindings, &later)?),
            }
        }
        let place = |need: &String| {
            let place = places.get(need).copied();
            place.ok_or_else(|| PlanError(format!("step `{name}` needs `{need}`, which is not an earlier step")))
        };
        let need = |need: &String| place(&expand(need, &bindings, &none)?);
        let needs: Vec<usize> = self.needs.iter().map(need).collect::<Result<_, _>>()?;
        let reads: Vec<usize> = rows.iter().flat_map(|row| &row.steps).map(place).collect::<Result<_, _>>()?;
        if let Some(&read) = reads.iter().find(|&&read| !before[read].keep) {
            let read = &before[read].name;
            return Err(PlanError(format!("step `{name}` reads `{read}`, whose result is not kept")));
        }
        if self.keep && !command.iter().any(|word| word.contains("{json}")) {
            return Err(PlanError(format!(
                "step `{name}` keeps a result that its command does not write; add `--json {{json}}`"
            )));
        }
        if self.lists && !self.keep {
            return Err(PlanError(format!(
                "step `{name}` keeps lists of a result that is not kept; add `keep = true`"
            )));
        }
        let sources = || needs.iter().chain(&reads).map(|&at| &before[at]);
        let is_used = |input: &&String| command.iter().any(|word| word.contains(&format!("{{{input}}}")));
        let own = inputs.keys().filter(is_used);
        let inputs = own.chain(sources().flat_map(|source| &source.inputs)).cloned().collect();
        let recipes: Vec<&String> = command.iter().chain(sources().map(|source| &source.recipe)).collect();
        let recipe = sha256(json!(recipes).to_string().as_bytes());
        Ok(Step { command, makes, needs, reads, keep: self.keep, lists: self.lists, inputs, recipe, name })
    }
}

/// `NAME=FILE,FILE...` of the results of a row's steps, as `compare` takes them.
fn named_results(row: &Row) -> String {
    let files: Vec<String> = row.steps.iter().map(|step| format!("{{results}}/{step}.json")).collect();
    format!("{}={}", row.name, files.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_SEEDS: &str = r#"
        title = "t"
        inputs = { cds = "a folder" }
        [matrix]
        seed = [0, 1]
        data = [{ name = "albums", folder = "{cds}/x", domain = "music albums" }]
        [[step]]
        name = "prepared-{data}"
        run = "prepare --data {folder} --domain {domain} --out {makes}"
        makes = "prepared/{data}"
        [[step]]
        name = "sft-{data}-{seed}"
        run = "sft --data prepared/{data} --seed {seed} --out {makes} --json {json}"
        makes = "runs/sft-{data}-{seed}"
        needs = ["prepared-{data}"]
        keep = true
        [[table]]
        title = "{data}"
        columns = ["hr@10"]
        rows = [{ name = "SFT", results = "sft-{data}-{seed}" }]
        [[chart]]
        file = "hr.svg"
        title = "HR@10"
        x = "train_examples"
        x_label = "rows"
        y = "hr@10"
        lines = [{ name = "SFT", points = [{ x = "sft-albums-0", y = "sft-albums-{seed}" }] }]
    "#;

    #[test]
    fn steps_come_after_what_they_need_and_inputs_stay_names() {
        let experiment = Experiment::parse(TWO_SEEDS).unwrap();
        let steps = experiment.steps().unwrap();
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["prepared-albums", "sft-albums-0", "sft-albums-1"]);
        let words = ["prepare", "--data", "{cds}/x", "--domain", "music albums", "--out", "prepared/albums"];
        assert_eq!(steps[0].command, words);
        assert_eq!(steps[2].command.last().unwrap(), "{json}");
        assert_eq!((steps[2].needs.as_slice(), steps[2].keep), (&[0][..], true));
        let tables = experiment.tables().unwrap();
        assert_eq!(tables[0].rows[0].steps, ["sft-albums-0", "sft-albums-1"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |from: &str, to: &str, part: &str| {
            let experiment = Experiment::parse(&TWO_SEEDS.replace(from, to));
            let error = experiment.and_then(|experiment| experiment.tables().and(experiment.charts()));
            let message = error.unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        refused("needs = [\"prepared-{data}\"]", "needs = [\"later\"]", "needs `later`");
        refused("prepared/{data}\"\n        [[", "../{data}\"\n        [[", "outside the work folder");
        refused("sft-{data}-{seed}\"\n        run", "sft-{data}\"\n        run", "{seed}");
        refused("name = \"sft-{data}-{seed}\"", "name = \"a/b-{seed}-{data}\"", "not a valid step name");
        refused("[[step]]", "[[stop]]", "stop");
        refused("seed = [0, 1]", "seed = [0, 0]", "two steps");
        refused("makes = \"runs/sft-{data}-{seed}\"", "makes = \"runs/sft-{data}\"", "make the same folder");
        refused("makes = \"runs/sft-{data}-{seed}\"", "makes = \"prepared/albums/{seed}\"", "inside the other's");
        refused(
            "needs = [\"prepared-{data}\"]",
            "reads = [{ name = \"x\", results = \"prepared-{data}\" }]",
            "is not kept",
        );
        refused(
            "needs = [\"prepared-{data}\"]",
            "reads = [{ name = \"x\", results = \"prepared-{data}\", within = \"hr\" }]",
            "`within` is only for tables",
        );
        refused("y = \"sft-albums-{seed}\"", "y = \"prepared-albums\"", "chart `HR@10` shows `prepared-albums`");
        refused("hr.svg", "../hr.svg", "not a valid chart name");
        refused("keep = true", "lists = true", "of a result that is not kept");
        refused("--json {json}", "{reads", "never closed");
        refused("--json {json}", "", "does not write; add `--json {json}`");
        refused("results = \"sft-{data}-{seed}\"", "results = \"sfd-{data}-{seed}\"", "shows `sfd-albums-0`");
    }

    #[test]
    fn what_a_step_reads_is_among_its_words() {
        let more = r#"
            [[step]]
            name = "compared-{data}"
            run = "compare {reads} --json {json}"
            reads = [{ name = "both seeds", results = "sft-{data}-{seed}" }, { name = "first", results = "sft-{data}-0" }]
        "#;
        let steps = Experiment::parse(&format!("{TWO_SEEDS}{more}")).unwrap().steps().unwrap();
        let both = "both seeds={results}/sft-albums-0.json,{results}/sft-albums-1.json";
        assert_eq!(steps[3].command, ["compare", both, "first={results}/sft-albums-0.json", "--json", "{json}"]);
        assert_eq!(steps[3].reads, [1, 2, 1]);
    }

    #[test]
    fn a_recipe_is_that_of_the_step_and_of_all_before_it() {
        let steps = |text: &str| Experiment::parse(text).unwrap().steps().unwrap();
        let (one, other) = (steps(TWO_SEEDS), steps(&TWO_SEEDS.replace("{domain}", "films")));
        assert!((0..3).all(|at| one[at].recipe != other[at].recipe), "all are made from the prepared data");
        let other = steps(&TWO_SEEDS.replace("sft --data", "sft --lr 1 --data"));
        assert_eq!(one[0].recipe, other[0].recipe);
        assert_ne!(one[1].recipe, other[1].recipe);
        assert_ne!(one[1].recipe, one[2].recipe);
        assert!(one.iter().all(|step| step.inputs.iter().eq(["cds"])));
    }
}
