//! Charts as SVG whose colours come from the page's style sheet, so that they are right in light, in dark and on paper.
//!
//! A plotting crate would write fixed colours into every element.

use std::fmt::Write;

use super::axis::Axis;
use super::html::Text;
use super::label::{colour, letter};
use crate::run::Point;

pub(super) const WIDTH: f64 = 360.0;
pub(super) const HEIGHT: f64 = 220.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 34.0;
/// Room of a letter at a line's end.
const LETTER_HEIGHT: f64 = 13.0;
const LETTER_WIDTH: f64 = 14.0;

/// What is drawn for one subject.
pub(super) struct Line {
    /// Place of the subject, which gives letter and colour; none for what the subjects are compared with.
    pub subject: Option<usize>,
    /// What it is, for those who hear the chart or point at a mark.
    pub name: String,
    pub points: Vec<Point>,
    /// Lowest and highest value around each point, drawn behind the line.
    pub band: Vec<(f64, f64)>,
    /// Half the length of the bar through each point, or none.
    pub errors: Vec<f64>,
    pub is_dashed: bool,
    pub has_marks: bool,
    /// Whether the points are joined.
    pub is_joined: bool,
}

/// What the x axis counts.
pub(super) enum Across<'a> {
    /// Numbers, from zero.
    Numbers(&'a str),
    /// Names in equal distances, at 0, 1, ...
    Names(&'a str, &'a [String]),
}

/// A chart of some lines.
pub(super) struct Chart<'a> {
    /// A name that no other element of the page has.
    pub id: String,
    pub title: &'a str,
    /// What the y axis shows.
    pub note: &'a str,
    pub across: Across<'a>,
    /// Whether the y axis begins at zero.
    pub from_zero: bool,
    pub lines: Vec<Line>,
}

impl Chart<'_> {
    /// The chart as a figure.
    pub fn figure(&self) -> String {
        let Self { title, note, .. } = self;
        let scale = if self.axes().1.is_logarithmic() { ", log scale" } else { "" };
        format!(
            "<figure class=\"chart\"><figcaption><b>{title}</b> <span>{note}{scale}</span></figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" {}>{}</svg></figure>\n",
            self.label(),
            self.drawing()
        )
    }

    /// The attributes by which an `svg` element says what is drawn in it.
    pub fn label(&self) -> String {
        let id = &self.id;
        format!("role=\"img\" aria-labelledby=\"{id}-title {id}-text\"")
    }

    /// What is in the `svg` element, `WIDTH` by `HEIGHT`.
    pub fn drawing(&self) -> String {
        let Self { id, title, .. } = self;
        let (x, y) = self.axes();
        let mut svg = format!(
            "<title id=\"{id}-title\">{title}</title><desc id=\"{id}-text\">{}</desc>\n",
            Text(&self.description())
        );
        self.draw_axes(&mut svg, &x, &y);
        for line in &self.lines {
            draw_line(&mut svg, line, &x, &y);
        }
        self.draw_letters(&mut svg, &x, &y);
        svg
    }

    fn axes(&self) -> (Axis, Axis) {
        let xs = self.lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
        let x = match self.across {
            Across::Numbers(_) => Axis::up_to_largest(xs),
            Across::Names(_, names) => Axis::named(names),
        };
        let ys = self.lines.iter().flat_map(|line| {
            let bars = line.points.iter().zip(&line.errors).flat_map(|((_, y), error)| [y - error, y + error]);
            let bands = line.band.iter().flat_map(|(low, high)| [*low, *high]);
            line.points.iter().map(|(_, y)| *y).chain(bars).chain(bands)
        });
        (x, if self.from_zero { Axis::from_zero(ys) } else { Axis::fit(ys) })
    }

    /// The chart in words.
    fn description(&self) -> String {
        let line = |line: &Line| {
            let name = match line.subject {
                Some(subject) => format!("{} ({})", line.name, letter(subject)),
                None => line.name.clone(),
            };
            match (line.points.first(), line.points.last()) {
                (Some(first), Some(last)) if line.is_joined => {
                    format!("{name}: from {:.4} to {:.4}.", first.1, last.1)
                }
                (Some(only), _) => format!("{name}: {:.4} at {:.4}.", only.1, only.0),
                _ => format!("{name}: nothing."),
            }
        };
        self.lines.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    fn draw_axes(&self, svg: &mut String, x: &Axis, y: &Axis) {
        svg.push_str("<g class=\"axes\">");
        for (value, label) in &y.ticks {
            let at = down(y, *value);
            let _ = write!(svg, "<path d=\"M{LEFT} {at:.1}H{}\"/>", WIDTH - RIGHT);
            let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, at + 4.0);
        }
        for (value, label) in &x.ticks {
            let at = right(x, *value);
            let _ = write!(
                svg,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM + 16.0,
                Text(label)
            );
        }
        let (Across::Numbers(unit) | Across::Names(unit, _)) = self.across;
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{unit}</text></g>", WIDTH - RIGHT, HEIGHT - 4.0);
    }

    /// The subjects' letters: where their lines end, or above their points; moved apart where they would lie on each
    /// other.
    fn draw_letters(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let mut letters: Vec<(usize, Point)> = Vec::new();
        for line in self.lines.iter().filter(|line| !line.is_dashed) {
            if let (Some(subject), Some((at, value))) = (line.subject, line.points.last()) {
                let error = line.errors.last().unwrap_or(&0.0);
                let place = match line.is_joined {
                    true => (right(x, *at) + 5.0, down(y, *value) + 4.0),
                    // Turned over, since these move up.
                    false => (right(x, *at) - 4.5, 5.0 - down(y, value + error)),
                };
                letters.push((subject, place));
            }
        }
        let are_joined = self.lines.iter().all(|line| line.is_joined);
        letters.sort_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let limit = if are_joined { HEIGHT - BOTTOM + 8.0 } else { f64::INFINITY };
        let heights = apart(&letters.iter().map(|(_, place)| *place).collect::<Vec<_>>(), limit);
        for ((subject, (across, _)), height) in letters.into_iter().zip(heights) {
            let (colour, letter) = (colour(subject), letter(subject));
            let height = if are_joined { height } else { -height };
            let _ = write!(svg, "<text class=\"letter {colour}\" x=\"{across:.1}\" y=\"{height:.1}\">{letter}</text>");
        }
    }
}

/// Heights of letters at the given places, highest first: moved down where they would lie on others, and up again from
/// below `limit`.
fn apart(places: &[Point], limit: f64) -> Vec<f64> {
    let is_near = |a: usize, b: usize| (places[a].0 - places[b].0).abs() < LETTER_WIDTH;
    let mut heights: Vec<f64> = places.iter().map(|place| place.1).collect();
    for at in 0..heights.len() {
        let above = (0..at).filter(|&other| is_near(at, other)).map(|other| heights[other] + LETTER_HEIGHT);
        heights[at] = above.fold(heights[at], f64::max);
    }
    for at in (0..heights.len()).rev() {
        let below = (at + 1..heights.len()).filter(|&other| is_near(at, other));
        heights[at] = below.map(|other| heights[other] - LETTER_HEIGHT).fold(limit, f64::min).min(heights[at]);
    }
    heights
}

fn right(x: &Axis, value: f64) -> f64 {
    LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)
}

fn down(y: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)
}

fn draw_line(svg: &mut String, line: &Line, x: &Axis, y: &Axis) {
    let class = line.subject.map_or("compared", colour);
    let place = |(at, value): (f64, f64)| format!("{:.1} {:.1}", right(x, at), down(y, value));
    let path = |points: Vec<Point>| points.into_iter().map(place).collect::<Vec<_>>().join("L");
    if !line.band.is_empty() {
        let there = line.points.iter().zip(&line.band).map(|(point, band)| (point.0, band.1));
        let back = line.points.iter().zip(&line.band).rev().map(|(point, band)| (point.0, band.0));
        let _ = write!(svg, "<path class=\"band {class}\" d=\"M{}Z\"/>", path(there.chain(back).collect()));
    }
    if line.is_joined && line.points.len() > 1 {
        let dashed = if line.is_dashed { " dashed" } else { "" };
        let _ = write!(svg, "<path class=\"line {class}{dashed}\" d=\"M{}\"/>", path(line.points.clone()));
    }
    for ((at, value), error) in line.points.iter().zip(&line.errors) {
        let (low, high) = (down(y, value - error), down(y, value + error));
        let _ = write!(svg, "<path class=\"line {class}\" d=\"M{:.1} {low:.1}V{high:.1}\"/>", right(x, *at));
    }
    // A single point is no line.
    if line.has_marks || line.points.len() == 1 {
        for (at, value) in &line.points {
            let (across, height) = (right(x, *at), down(y, *value));
            let _ = write!(
                svg,
                "<circle class=\"mark {class}\" cx=\"{across:.1}\" cy=\"{height:.1}\" r=\"3.2\"><title>{}: {value:.4} at {at}</title></circle>",
                Text(&line.name)
            );
        }
    }
    svg.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[Point]) -> Line {
        Line {
            subject: Some(0),
            name: "<run> & \"co\"".into(),
            points: points.to_vec(),
            band: Vec::new(),
            errors: Vec::new(),
            is_dashed: false,
            has_marks: true,
            is_joined: true,
        }
    }

    fn figure(lines: Vec<Line>) -> String {
        let across = Across::Numbers("step");
        Chart { id: "c".into(), title: "Loss", note: "of a token", across, from_zero: false, lines }.figure()
    }

    #[test]
    fn a_line_goes_from_corner_to_corner_and_is_told_in_words() {
        let svg = figure(vec![line(&[(0.0, 1.0), (50.0, 2.0)])]);
        let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
        assert!(svg.contains(&format!("d=\"M{left:.1} {bottom:.1}L{right:.1} {top:.1}\"")), "{svg}");
        assert!(
            svg.contains("<desc id=\"c-text\">&lt;run&gt; &amp; &quot;co&quot; (A): from 1.0000 to 2.0000.</desc>")
        );
        assert!(svg.contains(">A</text>") && svg.contains("aria-labelledby=\"c-title c-text\""));
    }

    #[test]
    fn no_chart_has_a_place_that_is_no_number() {
        for points in [&[][..], &[(0.0, 0.0)], &[(1.0, 5.0), (2.0, 5.0)], &[(0.0, f64::MAX), (1e9, -f64::MAX)]] {
            let svg = figure(vec![line(points)]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?}: {svg}");
        }
    }

    #[test]
    fn letters_are_moved_apart_only_where_they_meet() {
        assert_eq!(apart(&[(0.0, 50.0), (5.0, 52.0), (100.0, 53.0)], 190.0), [50.0, 50.0 + LETTER_HEIGHT, 53.0]);
        assert_eq!(apart(&[(0.0, 190.0), (0.0, 190.0)], 190.0), [190.0 - LETTER_HEIGHT, 190.0]);
    }
}
