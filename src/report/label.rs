//! How the page calls its subjects: by a letter and a colour.

use super::contents::{Contents, Evaluated};
use super::html::{Text, isolated};
use crate::eval::Method;

/// Colours in the style sheet.
const COLOURS: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];

/// The class that gives a subject its colour; after the last one they begin again, while letters stay different.
pub(super) fn colour(subject: usize) -> &'static str {
    COLOURS[subject % COLOURS.len()]
}

/// A to Z, then AA, AB, ...
pub(super) fn letter(subject: usize) -> String {
    let last = char::from(b'A' + (subject % 26) as u8);
    match subject / 26 {
        0 => last.to_string(),
        more => letter(more - 1) + &last.to_string(),
    }
}

/// A subject's letter on its colour, as HTML.
pub(super) fn badge(subject: usize) -> String {
    format!("<span class=\"badge {}\">{}</span>", colour(subject), letter(subject))
}

/// Letter and name of a subject, as HTML.
pub(super) fn named(contents: &Contents, subject: usize) -> String {
    format!("{} {}", badge(subject), isolated(&contents.subjects[subject].name))
}

/// The name of an evaluation among those it is compared with, as HTML: its subject's, how its lists were made where
/// others were made otherwise, and whether its model is no longer the run's best.
pub(super) fn evaluation(contents: &Contents, group: &[&Evaluated], one: &Evaluated) -> String {
    let mut name = named(contents, one.subject);
    let method = &one.result.evaluation.method;
    let others: Vec<&Method> = group.iter().map(|other| &other.result.evaluation.method).collect();
    let mut how = Vec::new();
    if others.iter().any(|other| other.method != method.method) && method.method != contents.subjects[one.subject].name
    {
        how.push(Text(&method.method).to_string());
    }
    if others.iter().any(|other| other.beams != method.beams) {
        how.push(format!("lists of {}", method.beams));
    }
    if let Some(objective) = method.objective
        && others.iter().filter_map(|other| other.objective).any(|other| other != objective)
    {
        how.push(format!("objective {objective}"));
    }
    let mut tell = |what: &str, of: fn(&Method) -> Option<f64>| {
        if let Some(value) = of(method)
            && others.iter().filter_map(|other| of(other)).any(|other| other != value)
        {
            how.push(format!("{what} {value}"));
        }
    };
    tell("length penalty", |method| method.length_penalty);
    tell("guidance scale", |method| method.guidance_scale);
    if let Some(thoughts) = one.result.thoughts
        && group.iter().filter_map(|other| other.result.thoughts).any(|other| other != thoughts)
    {
        how.push(format!("{thoughts} thoughts"));
    }
    if group.iter().any(|other| other.result.precision != one.result.precision) {
        how.push(one.result.precision.to_string());
    }
    if !how.is_empty() {
        name += &format!(" <small>{}</small>", how.join(", "));
    }
    if one.is_outdated {
        name += " <small>an earlier best</small>";
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_subjects_have_the_same_letters() {
        assert_eq!([0, 25, 26, 27, 51, 52, 701, 702].map(letter), ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]);
    }
}
