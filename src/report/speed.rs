//! What a better list costs: HR@10 against the seconds that a user takes.

use super::chart::{Across, Chart, Line};
use super::contents::{Contents, Evaluated};
use super::html::Table;
use super::label::evaluation;
use super::quality::group_title;
use crate::eval::Metric;
use crate::eval::compare::mean_and_error;

/// Length of the list.
const LENGTH: usize = 10;

/// The section's content as HTML.
pub(super) fn section(contents: &Contents) -> String {
    let groups = contents.groups();
    if groups.is_empty() {
        return "<p>Without an evaluation there are no times.</p>\n".into();
    }
    let mut html = String::from(
        "<p>Time of the search, or of whatever makes a list, divided by the users. They depend on the machine, on what else it did, and on how many \
         users are searched at once (the batch): compare only what was measured in the same way. Bars reach one standard error up and \
         down.</p>\n",
    );
    for (at, group) in groups.iter().enumerate() {
        html += &format!("<h3>{}</h3>\n<div class=\"beside\">\n", group_title(&group[0].result));
        let (title, note) = ("HR@10 against latency", "share of users; across, milliseconds a user");
        let lines: Vec<Line> = group.iter().filter_map(|one| point(contents, one)).collect();
        if !lines.is_empty() {
            let across = Across::Numbers("ms a user");
            html += &Chart { id: format!("speed-{at}"), title, note, across, from_zero: true, lines }.figure();
        }
        html += &format!("{}</div>\n", table(contents, at, group));
    }
    html
}

/// Milliseconds that a user takes.
fn milliseconds(one: &Evaluated) -> f64 {
    let evaluation = &one.result.evaluation;
    evaluation.seconds * 1e3 / evaluation.users.max(1) as f64
}

/// An evaluation's point, where its lists are long enough.
fn point(contents: &Contents, one: &Evaluated) -> Option<Line> {
    let evaluation = &one.result.evaluation;
    let (mean, error) = mean_and_error(&evaluation.ranks, |user| Metric::Hr(LENGTH).gain(user.rank));
    (evaluation.method.beams >= LENGTH).then(|| Line {
        subject: Some(one.subject),
        name: contents.subjects[one.subject].name.clone(),
        points: vec![(milliseconds(one), mean)],
        band: Vec::new(),
        errors: vec![error.unwrap_or(0.0)],
        is_dashed: false,
        has_marks: true,
        is_joined: false,
    })
}

fn table(contents: &Contents, at: usize, group: &[&Evaluated]) -> Table {
    let row = |one: &&Evaluated| {
        let (result, evaluation_) = (&one.result, &one.result.evaluation);
        let cells = vec![
            format!("{:.1}", milliseconds(one)),
            format!("{:.1}", evaluation_.users as f64 / evaluation_.seconds.max(1e-9)),
            evaluation_.method.beams.to_string(),
            result.batch.to_string(),
        ];
        (evaluation(contents, group, one), cells)
    };
    let head = ["Model", "ms/user", "users/s", "places", "batch"].map(str::to_owned).to_vec();
    let caption = "<b>Time</b>, and places of the lists".to_owned();
    Table { id: format!("speed-table-{at}"), caption, head, rows: group.iter().map(row).collect() }
}
