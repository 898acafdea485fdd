//! What a run recommended to a few users, validation after validation.

use super::contents::Contents;
use super::html::{Table, isolated};
use super::label::badge;
use super::run::Run;
use crate::run::Sample;

/// Validations that are shown, beside the first and the last.
const BETWEEN: usize = 2;

/// The section's content as HTML.
pub(super) fn section(contents: &Contents) -> String {
    let with_samples: Vec<_> = contents.runs().filter(|(_, run)| !run.log.samples.is_empty()).collect();
    if with_samples.is_empty() {
        return "<p>No run has shown recommendations in its validations.</p>\n".into();
    }
    let mut html = String::from(
        "<p>First titles of the lists for some validation users, after some steps of training. A title that the user chose next is marked.</p>\n",
    );
    for (subject, run) in with_samples {
        html += &table(subject, run).to_string();
    }
    html
}

fn table(subject: usize, run: &Run) -> Table {
    let all: Vec<_> = run.log.samples.iter().collect();
    // The first, the last, and some equally far apart between.
    let shown: Vec<_> = (0..BETWEEN + 2).map(|at| at * (all.len() - 1) / (BETWEEN + 1)).collect();
    let mut shown: Vec<_> = shown.into_iter().map(|at| all[at]).collect();
    shown.dedup_by_key(|(step, _)| **step);
    let mut head = vec!["user".to_owned(), "after".into(), "chose".into()];
    head.extend(shown.iter().map(|(step, _)| format!("step {step}")));
    let users = all[all.len() - 1].1;
    let row = |(at, user): (usize, &Sample)| {
        let mut cells = vec![user.after.iter().map(|title| isolated(title)).collect::<Vec<_>>().join("<br>")];
        cells.push(isolated(&user.chose));
        for (_, samples) in &shown {
            let list = samples.get(at).map(|sample| sample.top.as_slice()).unwrap_or_default();
            let title = |title: &String| match *title == user.chose {
                true => format!("<mark>{}</mark>", isolated(title)),
                false => isolated(title),
            };
            cells.push(list.iter().map(title).collect::<Vec<_>>().join("<br>"));
        }
        (isolated(&user.user), cells)
    };
    Table {
        id: format!("samples-{subject}"),
        caption: format!("{} Recommendations while it trained", badge(subject)),
        head,
        rows: users.iter().enumerate().map(row).collect(),
    }
}
