//! A chart as a file of its own.

use super::chart::{Across, Chart, HEIGHT, Line, WIDTH};
use super::html::Text;
use super::label::{colour, letter};
use super::page::STYLE;

/// Where the names begin, and the distance from one to the next.
const NAMES: f64 = 36.0;
const NAME_HEIGHT: f64 = 16.0;
const MARGIN: f64 = 12.0;

/// A line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What it is called.
    pub name: String,
    /// Its points, and half the length of the bar through each: a standard deviation of its results.
    pub points: Vec<((f64, f64), f64)>,
}

/// A chart of some lines as an SVG file, with their names; `across` says what lies across. Both axes begin at zero.
pub fn picture(title: &str, across: &str, series: &[Series]) -> String {
    let line = |(subject, series): (usize, &Series)| Line {
        subject: Some(subject),
        name: series.name.clone(),
        points: series.points.iter().map(|(point, _)| *point).collect(),
        band: Vec::new(),
        errors: series.points.iter().map(|(_, error)| *error).collect(),
        is_dashed: false,
        has_marks: true,
        is_joined: true,
    };
    let lines = series.iter().enumerate().map(line).collect();
    let (title, across) = (Text(title).to_string(), Text(across).to_string());
    let across = Across::Numbers(&across);
    let chart = Chart { id: "chart".into(), title: &title, note: "", across, from_zero: true, lines };
    let name = |(subject, series): (usize, &Series)| {
        let (colour, letter, down) = (colour(subject), letter(subject), NAMES + subject as f64 * NAME_HEIGHT);
        let name = Text(&series.name);
        format!(
            "<text class=\"letter {colour}\" y=\"{down}\">{letter}</text><text x=\"18\" y=\"{down}\">{name}</text>\n"
        )
    };
    let names: String = series.iter().enumerate().map(name).collect();
    let head = NAMES + series.len() as f64 * NAME_HEIGHT;
    let (width, height) = (WIDTH + 2.0 * MARGIN, head + HEIGHT + MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"{} 0 {width} {height}\" \
         style=\"width: {width}px; height: {height}px; font-family: system-ui, sans-serif\" {}>\n<style>\n{STYLE}</style>\n\
         <rect x=\"{}\" width=\"{width}\" height=\"{height}\" style=\"fill: var(--page)\"/>\n\
         <text y=\"18\" style=\"fill: var(--text); font-weight: bold\">{title}</text>\n{names}<g transform=\"translate(0 {head})\">\n{}</g>\n</svg>\n",
        -MARGIN,
        chart.label(),
        -MARGIN,
        chart.drawing(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_names_and_all_points_and_no_markup_from_outside() {
        let series = |name: &str| Series { name: name.into(), points: vec![((1.0, 0.5), 0.1), ((2.0, 0.7), 0.0)] };
        let svg = picture("HR@10 & more", "rows", &[series("<small>"), series("large")]);
        assert!(svg.contains("HR@10 &amp; more") && svg.contains("&lt;small&gt;") && !svg.contains("<small>"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.starts_with("<svg xmlns") && svg.contains("class=\"letter c1\""));
    }
}
