//! Tables that line up, whatever they hold.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr;

use crate::data::turns_direction;

/// A table as text: the first column left, the others right.
pub fn table(rows: &[Vec<String>]) -> String {
    let cell = |text: &String| printable(text).replace('\n', " ");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cell = |(column, cell): (usize, &String)| {
            let space = " ".repeat(widths[column] - cell.width());
            if column == 0 { format!("{cell}{space}") } else { format!("{space}{cell}") }
        };
        let line = row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A text that moves no cursor, changes no colour and turns no direction, whatever files and arguments it is from:
/// control characters and those that steer bidirectional text are escaped, but for breaks between lines.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| c == '\n' || !(c.is_control() || turns_direction(c));
    if text.chars().all(is_harmless) {
        return text.into();
    }
    let escape = |c: char| if is_harmless(c) { c.to_string() } else { c.escape_default().to_string() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "9".to_owned()]];
        assert_eq!(table(&rows), "a     10\nlong   9\n");
        let rows = [vec!["音楽".to_owned(), "🎵".to_owned()], vec!["abc".to_owned(), "123".to_owned()]];
        assert_eq!(table(&rows), "音楽   🎵\nabc   123\n");
    }

    #[test]
    fn what_files_hold_does_not_steer_the_terminal() {
        assert_eq!(
            printable("a \u{1b}[31mred\u{0}\nü\u{202e}b\u{2066}"),
            "a \\u{1b}[31mred\\u{0}\nü\\u{202e}b\\u{2066}"
        );
        assert_eq!(table(&[vec!["a\n\tb".to_owned()]]), "a \\tb\n");
    }
}
