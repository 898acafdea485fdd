//! What the thought attends to in some prompts.

use burn::module::Module;

use super::contents::Contents;
use super::html::{Text, isolated};
use super::label::named;
use crate::data::{Prepared, PreparedRow};
use crate::models::decode::{BeamConfig, beam_search};
use crate::models::{LatentRecommender, Objective};
use crate::recommend::{Attended, attended};
use crate::run::RunError;

/// Recommended titles that are shown.
const RECOMMENDED: usize = 5;

/// What a model makes of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// What its last thought attends to.
    pub attended: Attended,
    /// Catalog indices of the best items, best first, one for each title.
    pub recommended: Vec<usize>,
}

/// Some prompts and what models make of them.
pub struct Examples<'a> {
    /// The data.
    pub prepared: &'a Prepared,
    /// Name of the split that the rows are of.
    pub split: &'a str,
    /// The rows.
    pub rows: Vec<&'a PreparedRow>,
    /// For each model its place among the subjects, and a view of each row or why there is none.
    pub models: Vec<(usize, Result<Vec<View>, String>)>,
}

/// How a model sees some rows; `None` if it has no latent attention.
///
/// # Errors
///
/// A prompt that is not made of its row's history, or one that the model refuses.
pub fn views(
    model: &LatentRecommender,
    prepared: &Prepared,
    objective: &Objective,
    rows: &[&PreparedRow],
) -> Result<Option<Vec<View>>, RunError> {
    let model = model.valid();
    let view = |row: &&PreparedRow| {
        let Some(attended) = attended(&model, &row.prompt, &prepared.titles_of_tokens(row)?)? else {
            return Ok(None);
        };
        let found = beam_search(&model, objective, &[&row.prompt], BeamConfig::default())?;
        let best = found.iter().flatten().take(RECOMMENDED);
        Ok(Some(View { attended, recommended: best.map(|hypothesis| hypothesis.items[0] as usize).collect() }))
    };
    rows.iter().map(view).collect()
}

/// The section's content as HTML.
pub(super) fn section(contents: &Contents, examples: &Result<Examples, String>) -> String {
    let examples = match examples {
        Ok(examples) => examples,
        Err(why) => return format!("<p>Not shown: {}.</p>\n", Text(why)),
    };
    let mut html = format!(
        "<p>Each title of a prompt, the oldest first, with its share of the last thought's attention: the weights of all its \
         tokens, quotes and comma included. The deepest shade is the prompt's most attended title. The wording around the \
         titles has the rest. The prompts are of the split <code>{}</code>, drawn at random; beside each are the best \
         {RECOMMENDED} titles of a search with {} beams.</p>\n",
        Text(examples.split),
        BeamConfig::default().beams
    );
    // Models that see everything alike, as a run whose best is its start, are shown once.
    let mut shown: Vec<(Vec<usize>, &Vec<View>)> = Vec::new();
    for (subject, views) in &examples.models {
        match views {
            Err(why) => html += &format!("<p>Left out: {}, {}.</p>\n", named(contents, *subject), Text(why)),
            Ok(views) => match shown.iter_mut().find(|(_, others)| *others == views) {
                Some((subjects, _)) => subjects.push(*subject),
                None => shown.push((vec![*subject], views)),
            },
        }
    }
    if shown.is_empty() {
        return html;
    }
    for (at, row) in examples.rows.iter().enumerate() {
        html += &example(contents, examples.prepared, at, row, &shown);
    }
    html
}

fn example(
    contents: &Contents,
    prepared: &Prepared,
    at: usize,
    row: &PreparedRow,
    shown: &[(Vec<usize>, &Vec<View>)],
) -> String {
    let target = isolated(prepared.catalog.title(row.item));
    let mut html = format!(
        "<article class=\"example\"><h3>Example {}: user {}</h3>\n<p>Chose next: <b>{target}</b></p>\n<div class=\"views\">\n",
        at + 1,
        isolated(&row.user)
    );
    for (subjects, views) in shown {
        let names: Vec<String> = subjects.iter().map(|&subject| named(contents, subject)).collect();
        let alike = if subjects.len() > 1 { " <small>(which see alike)</small>" } else { "" };
        html +=
            &format!("<section><h4>{}{alike}</h4>\n{}</section>\n", names.join(", "), view(prepared, row, &views[at]));
    }
    html + "</div></article>\n"
}

fn view(prepared: &Prepared, row: &PreparedRow, view: &View) -> String {
    let Attended { before, titles, after, thoughts } = &view.attended;
    let largest = titles.iter().map(|(_, share)| *share).fold(1e-12, f64::max);
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let mut html = String::from("<div class=\"view\"><div><ul class=\"prompt\">\n");
    for (place, share) in titles {
        let (shade, title) = (share / largest, isolated(prepared.catalog.title(row.history[*place])));
        html +=
            &format!("<li style=\"--share:{shade:.3}\"><span>{title}</span> <span>{}</span></li>\n", percent(*share));
    }
    let all: f64 = titles.iter().map(|(_, share)| share).sum();
    html +=
        &format!("</ul>\n<p class=\"small\">All titles {}, the wording before {}, ", percent(all), percent(*before));
    html += &format!("the wording after {}", percent(*after));
    if *thoughts > 0.0 {
        html += &format!(", the thoughts before {}", percent(*thoughts));
    }
    html += ".</p></div>\n<div><p>Recommended:</p>\n<ol>\n";
    let wanted = prepared.catalog.title(row.item);
    for &item in &view.recommended {
        let title = prepared.catalog.title(item);
        let hit = if title == wanted { " <b class=\"hit\">✓ the next choice</b>" } else { "" };
        html += &format!("<li>{}{hit}</li>\n", isolated(title));
    }
    html + "</ol></div></div>\n"
}
