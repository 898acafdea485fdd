use super::table::table;
use crate::eval::compare::{By, Comparison, Comparisons, Evidence, OtherLists};

/// Each pair of models with the answers to both questions.
pub fn of_comparisons(comparisons: &Comparisons) -> String {
    let mut text = format!(
        "{}, by {}: {} rows of {} users\n",
        comparisons.split,
        if comparisons.by == By::Item { "item" } else { "title" },
        comparisons.rows,
        comparisons.users
    );
    let is_same = |a: &Comparison, b: &Comparison| (&a.baseline, &a.other) == (&b.baseline, &b.other);
    for pair in comparisons.comparisons.chunk_by(is_same) {
        let Some(first) = pair.first() else { continue };
        let runs = [&first.baseline_runs, &first.other_runs].map(|runs| match runs.len() {
            1 => "1 run".to_owned(),
            more => format!("{more} runs"),
        });
        text += &format!("\n{} ({}) against {} ({})\n", first.other, runs[1], first.baseline, runs[0]);
        let of_runs = |comparison: &Comparison| comparison.runs_like_these.map(|of_runs| of_runs.evidence);
        if pair.iter().all(|comparison| of_runs(comparison).is_some()) {
            text += "\nRetrained models (users and seeds vary)\n";
            text += &evidence_table(pair, |comparison| of_runs(comparison).unwrap_or(comparison.these_runs));
        }
        text += "\nFixed models (users vary)\n";
        text += &evidence_table(pair, |comparison| comparison.these_runs);
        if let Some(differences) = run_table(pair) {
            text += "\nDifferences between paired runs, in the given order\n";
            text += &differences;
        }
        text += &comparisons
            .lists
            .iter()
            .filter(|lists| (&lists.baseline, &lists.other) == (&first.baseline, &first.other))
            .map(list_line)
            .collect::<String>();
        if first.runs_like_these.is_none() {
            text += "\nThis says nothing about the training: two runs of one model differ too. \
                     Use several seeds of both.\n";
        }
    }
    text
}

fn evidence_table(pair: &[Comparison], evidence: impl Fn(&Comparison) -> Evidence) -> String {
    let names = pair.first().map_or(["", ""], |first| [&first.baseline, &first.other]);
    let head = ["", names[0], names[1], "difference", "95% CI", "p", "p (Holm)"];
    let row = |comparison: &Comparison| {
        let Evidence { interval, p, p_holm } = evidence(comparison);
        vec![
            comparison.metric.to_string(),
            format!("{:.4}", comparison.baseline_mean),
            format!("{:.4}", comparison.other_mean),
            signed(comparison.difference),
            format!("{} to {}", signed(interval[0]), signed(interval[1])),
            probability(p),
            probability(p_holm),
        ]
    };
    table(&std::iter::once(head.map(str::to_owned).to_vec()).chain(pair.iter().map(row)).collect::<Vec<_>>())
}

/// Each run's own difference, where both models have several runs and equally many.
fn run_table(pair: &[Comparison]) -> Option<String> {
    let row = |comparison: &Comparison| {
        let differences = comparison.differences_of_runs().filter(|differences| differences.len() > 1)?;
        Some([vec![comparison.metric.to_string()], differences.into_iter().map(signed).collect()].concat())
    };
    let rows = pair.iter().map(row).collect::<Option<Vec<_>>>()?;
    let runs = rows.first()?.len();
    let head = std::iter::once(String::new()).chain((1..runs).map(|run| format!("run {run}"))).collect();
    Some(table(&[vec![head], rows].concat()))
}

fn list_line(lists: &OtherLists) -> String {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let paired =
        lists.between_paired_runs.map_or(String::new(), |share| format!(", {} between paired runs", percent(share)));
    let of_runs = [(&lists.baseline, lists.between_baseline_runs), (&lists.other, lists.between_other_runs)];
    let of_runs = of_runs.map(|(name, share)| {
        share.map_or(String::new(), |share| format!(", {} between two runs of {name}", percent(share)))
    });
    lists.between_models.map_or(String::new(), |between| {
        format!("\nLists that differ: {} between the models{paired}{}\n", percent(between), of_runs.concat())
    })
}

fn signed(value: f64) -> String {
    // What rounds to zero has no sign.
    if value.abs() < 0.00005 { "0.0000".to_owned() } else { format!("{value:+.4}") }
}

fn probability(p: f64) -> String {
    if p < 0.0001 { "<0.0001".to_owned() } else { format!("{p:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_their_sign_and_never_as_a_p_of_zero() {
        assert_eq!([0.01234, -0.5, 0.00001, -0.00001].map(signed), ["+0.0123", "-0.5000", "0.0000", "0.0000"]);
        assert_eq!(
            [1.0, 0.0499, 0.0001, 0.00001, 0.0].map(probability),
            ["1.0000", "0.0499", "0.0001", "<0.0001", "<0.0001"]
        );
    }
}
