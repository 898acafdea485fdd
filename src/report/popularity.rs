//! Popularity: who is hit by how popular the items are that they chose, and which items the lists show.

use std::collections::BTreeSet;

use super::axis::number;
use super::chart::{Across, Chart, Line};
use super::contents::{Contents, Evaluated};
use super::html::{Table, share_and_error};
use super::label::evaluation;
use super::quality::group_title;
use crate::eval::{CUTOFFS, Evaluation, Exposure, Metric, TargetGroup, TargetGroups, shown};

/// Kinds of items besides those never chosen in training, in the chart of who is shown.
const KINDS: usize = 5;

/// The section's content as HTML.
pub(super) fn section(contents: &Contents) -> String {
    let groups = contents.groups();
    if groups.is_empty() {
        return "<p>Without an evaluation nothing is known of popularity.</p>\n".into();
    }
    let mut html = String::from(
        "<p>Popularity is how often an item was chosen in training. Items never chosen are cold; of the others, the most \
         popular that together have a third of all choices are the head, those with the next third the middle, and the \
         rest the tail. Of what the lists show: how often the shown items were chosen, on average; coverage is the share of the \
         catalog that is in any list, Gini says how unequally the places are shared out (0 where all items have as many, near 1 \
         where few have all), and entropy, in bits, how evenly.</p>\n",
    );
    for (at, group) in groups.iter().enumerate() {
        html += &format!("<h3>{}</h3>\n<div class=\"charts\">\n", group_title(&group[0].result));
        html += &hits(contents, at, group);
        html += &exposure_chart(contents, at, group);
        html += &format!(
            "</div>\n<div class=\"tables\">\n{}{}</div>\n",
            hits_table(contents, at, group),
            exposure_table(contents, at, group)
        );
    }
    html
}

/// The kinds of targets by their names, from cold to popular.
fn kinds(targets: &TargetGroups) -> [(&'static str, &TargetGroup); 4] {
    let TargetGroups { cold, warm: _, head, middle, tail } = targets;
    [("cold", cold), ("tail", tail), ("middle", middle), ("head", head)]
}

/// The length of the lists that hits are counted in: 10, or what the shortest lists of a group have.
fn length(group: &[&Evaluated]) -> usize {
    let shortest = group.iter().map(|one| one.result.evaluation.method.beams).min().unwrap_or(0);
    CUTOFFS.into_iter().filter(|&k| k <= shortest.min(10)).max().unwrap_or(1)
}

/// HR@k of a kind of targets and its binomial standard error.
fn hit_rate(kind: &TargetGroup, k: usize) -> Option<(f64, f64)> {
    let rate = kind.by_item.get(Metric::Hr(k)).filter(|_| kind.users > 0)?;
    Some((rate, (rate * (1.0 - rate) / (kind.users as f64 - 1.0).max(1.0)).max(0.0).sqrt()))
}

fn hits(contents: &Contents, at: usize, group: &[&Evaluated]) -> String {
    let k = length(group);
    let names: Vec<String> = kinds(&group[0].result.evaluation.targets).map(|(name, _)| name.to_owned()).to_vec();
    let line = |one: &&Evaluated| {
        let rates = kinds(&one.result.evaluation.targets).map(|(_, kind)| hit_rate(kind, k));
        let known = rates.iter().enumerate().filter_map(|(place, rate)| Some((place as f64, (*rate)?)));
        let (points, errors) = known.map(|(place, (rate, error))| ((place, rate), error)).unzip();
        Line {
            subject: Some(one.subject),
            name: contents.subjects[one.subject].name.clone(),
            points,
            band: Vec::new(),
            errors,
            is_dashed: false,
            has_marks: true,
            is_joined: true,
        }
    };
    Chart {
        id: format!("hits-{at}"),
        title: &format!("HR@{k} by popularity"),
        note: "of the item that the user chose; bars reach one binomial standard error up and down",
        across: Across::Names("the user's item", &names),
        from_zero: true,
        lines: group.iter().map(line).collect(),
    }
    .figure()
}

fn hits_table(contents: &Contents, at: usize, group: &[&Evaluated]) -> Table {
    let k = length(group);
    let size = |(name, kind): (&str, &TargetGroup)| {
        let [users, items] = [kind.users, kind.items].map(|count| number(count as f64, 0));
        format!("{name}<small>{users} users<br>{items} items</small>")
    };
    let head = std::iter::once("Model".to_owned()).chain(kinds(&group[0].result.evaluation.targets).map(size));
    let cell = |(_, kind): (&str, &TargetGroup)| match hit_rate(kind, k) {
        Some((rate, error)) => share_and_error(rate, Some(error)),
        None => "–".into(),
    };
    let row =
        |one: &&Evaluated| (evaluation(contents, group, one), kinds(&one.result.evaluation.targets).map(cell).to_vec());
    let caption = format!("<b>HR@{k} by popularity</b> of the item that the user chose");
    Table { id: format!("hits-table-{at}"), caption, head: head.collect(), rows: group.iter().map(row).collect() }
}

/// Items by how often they were chosen in training, from never to most often.
struct Kinds {
    /// The fewest choices of each kind.
    bounds: Vec<u64>,
    names: Vec<String>,
}

impl Kinds {
    /// Never, and up to [`KINDS`] ranges of which each begins at some power of 2, 3, 4 or 10 or more times the former.
    fn of(counts: &[u64]) -> Self {
        let largest = counts.iter().copied().max().unwrap_or(0);
        let fits = |factor: &u64| factor.checked_pow(KINDS as u32).is_none_or(|end| largest < end);
        let factor = [2, 3, 4].into_iter().chain((1..20).map(|power| 10u64.pow(power))).find(fits).unwrap_or(u64::MAX);
        let begins = std::iter::successors(Some(1), |begin: &u64| begin.checked_mul(factor));
        let bounds: Vec<u64> = std::iter::once(0).chain(begins.take_while(|&begin| begin <= largest)).collect();
        let name = |place: usize| match bounds.get(place + 1) {
            Some(&next) if next == bounds[place] + 1 => bounds[place].to_string(),
            Some(&next) => format!("{}–{}", bounds[place], next - 1),
            None if largest == bounds[place] => largest.to_string(),
            None => format!("{}–{largest}", bounds[place]),
        };
        Self { names: (0..bounds.len()).map(name).collect(), bounds }
    }

    /// Shares of the kinds where each item has a weight.
    fn shares(&self, counts: &[u64], weight: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
        let mut sums = vec![0.0; self.bounds.len()];
        for (item, &count) in counts.iter().enumerate() {
            sums[self.bounds.partition_point(|&bound| bound <= count) - 1] += weight(item);
        }
        let all: f64 = sums.iter().sum();
        sums.into_iter().enumerate().map(|(kind, sum)| (kind as f64, if all > 0.0 { sum / all } else { 0.0 })).collect()
    }
}

/// Whose places the lists are, against the choices of training and the catalog.
fn exposure_chart(contents: &Contents, at: usize, group: &[&Evaluated]) -> String {
    let counts = group.iter().map(|one| &one.result.evaluation.item_counts).find(|counts| !counts.is_empty());
    let Some(counts) = counts else {
        // An experiment keeps the metrics only.
        return String::new();
    };
    let kinds = Kinds::of(counts);
    let line = |subject, name: String, points, is_dashed| Line {
        subject,
        name,
        points,
        band: Vec::new(),
        errors: Vec::new(),
        is_dashed,
        has_marks: subject.is_some(),
        is_joined: true,
    };
    let chosen = kinds.shares(counts, |item| counts[item] as f64);
    let mut lines = vec![line(None, "choices of training".into(), chosen, true)];
    for one in group {
        if let Some(places) = places(&one.result.evaluation).filter(|places| places.len() == counts.len()) {
            let name = contents.subjects[one.subject].name.clone();
            lines.push(line(Some(one.subject), name, kinds.shares(counts, |item| places[item]), false));
        }
    }
    Chart {
        id: format!("exposure-{at}"),
        title: "Recommended against chosen",
        note: "share of the lists' places; dashed, share of the choices of training",
        across: Across::Names("times chosen in training", &kinds.names),
        from_zero: true,
        lines,
    }
    .figure()
}

/// How many of the first places each item has, by place in the catalog.
fn places(evaluation: &Evaluation) -> Option<Vec<f64>> {
    let k = evaluation.exposure.as_ref()?.k;
    shown(evaluation.ranks.iter().map(|user| user.list.as_slice()), evaluation.item_counts.len(), k)
}

fn exposure_table(contents: &Contents, at: usize, group: &[&Evaluated]) -> Table {
    let mut lengths = BTreeSet::new();
    let row = |one: &&Evaluated| {
        let cells = match &one.result.evaluation.exposure {
            Some(Exposure { k, average_popularity, coverage, gini, entropy }) => {
                lengths.insert(*k);
                vec![
                    number(*average_popularity, 1),
                    format!("{:.1}%", 100.0 * coverage),
                    format!("{gini:.3}"),
                    format!("{entropy:.2}"),
                ]
            }
            None => vec!["–".to_owned(); 4],
        };
        (evaluation(contents, group, one), cells)
    };
    let mut rows: Vec<_> = group.iter().map(row).collect();
    let first = &group[0].result.evaluation;
    let targets: f64 = first.ranks.iter().map(|user| user.item_count as f64).sum::<f64>() / first.users.max(1) as f64;
    let own = [number(targets, 1), "–".into(), "–".into(), "–".into()];
    rows.insert(0, ("the users' own choices".to_owned(), own.to_vec()));
    let head = ["Model", "chosen", "coverage", "Gini", "entropy"].map(str::to_owned).to_vec();
    let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
    let caption = format!(
        "<b>What the lists show</b> in their first {} places, of {} items; entropy is at most {:.2} bits",
        lengths.join(" or "),
        number(first.items as f64, 0),
        (first.items.max(1) as f64).log2()
    );
    Table { id: format!("exposure-table-{at}"), caption, head, rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_one_kind_and_few_kinds_are_enough() {
        for counts in
            [vec![0, 1, 2, 3, 31], vec![0, 5, 242], vec![7; 3], vec![0, 0], vec![1, 100_000, u64::MAX], vec![]]
        {
            let kinds = Kinds::of(&counts);
            assert!(kinds.names.len() == kinds.bounds.len() && kinds.bounds.len() <= 1 + KINDS, "{:?}", kinds.names);
            let shares = kinds.shares(&counts, |_| 1.0);
            let all: f64 = shares.iter().map(|(_, share)| share).sum();
            assert!(counts.is_empty() || (all - 1.0).abs() < 1e-12, "{shares:?}");
        }
        assert_eq!(Kinds::of(&[0, 31]).names, ["0", "1", "2–3", "4–7", "8–15", "16–31"]);
        assert_eq!(Kinds::of(&[0, 32]).names, ["0", "1–2", "3–8", "9–26", "27–32"]);
        let shares = Kinds::of(&[0, 1, 2, 3]).shares(&[0, 1, 2, 3], |item| item as f64);
        assert_eq!(shares, [(0.0, 0.0), (1.0, 1.0 / 6.0), (2.0, 5.0 / 6.0)]);
    }
}
