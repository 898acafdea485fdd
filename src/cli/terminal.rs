//! What a user sees while something long goes on, and tables at its end.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use unicode_width::UnicodeWidthStr;

use super::CliError;
use crate::data::turns_direction;
use crate::models::ModelError;
pub(super) use crate::report::duration;

/// Seconds between two plain lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Whether the user wants neither progress nor tables.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Says for the whole program whether the user wants neither progress nor tables.
pub(super) fn be_quiet(is_quiet: bool) {
    IS_QUIET.store(is_quiet, Ordering::Relaxed);
}

/// Whether the user wants neither progress nor tables.
pub(super) fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// Prints text on standard output. A reader that has gone away has read enough.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    print_to_reader(text).map(drop)
}

/// Prints text on standard output; whether its reader is still there.
pub(super) fn print_to_reader(text: &str) -> Result<bool, CliError> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(ModelError::Io { path: "standard output".into(), source }.into()),
    }
}

/// A line on standard error, lost where nobody reads it.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable(line));
}

/// A text that moves no cursor, changes no colour and turns no direction, whatever files and arguments it is from: control characters and
/// those that steer bidirectional text are escaped, but for breaks between lines.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| c == '\n' || !(c.is_control() || turns_direction(c));
    if text.chars().all(is_harmless) {
        return text.into();
    }
    let escape = |c: char| if is_harmless(c) { c.to_string() } else { c.escape_default().to_string() };
    text.chars().map(escape).collect()
}

/// Progress on standard error: a bar on a terminal, plain lines otherwise, nothing if quiet.
pub(super) struct Progress {
    label: String,
    bar: Option<ProgressBar>,
    quiet: bool,
    /// The first unit that this program did, and when it was done: speed and time left count from there.
    first: Option<(u64, Instant)>,
    last_line: Option<Instant>,
    tokens: usize,
}

impl Progress {
    pub fn new(label: &str) -> Self {
        Self::shown(label, true)
    }

    /// The same, shown only if `is_shown`: of several processes one speaks.
    pub fn shown(label: &str, is_shown: bool) -> Self {
        let quiet = is_quiet() || !is_shown;
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}")
                .expect("the template is well formed");
            ProgressBar::no_length().with_style(style).with_prefix(label.to_owned())
        });
        Self { label: label.to_owned(), bar, quiet, first: None, last_line: None, tokens: 0 }
    }

    /// `done` of `total` units are done, the last one of `tokens` tokens.
    pub fn advance(&mut self, done: u64, total: u64, tokens: usize, figure: &str) {
        if self.quiet {
            return;
        }
        let (first, since) = *self.first.get_or_insert_with(|| (done, Instant::now()));
        let mut message = figure.to_owned();
        if done > first {
            self.tokens += tokens;
            let seconds = since.elapsed().as_secs_f64().max(1e-9);
            if tokens > 0 {
                message += &format!(", {:.0} tokens/s", self.tokens as f64 / seconds);
            }
            let left = seconds / (done - first) as f64 * total.saturating_sub(done) as f64;
            message += &format!(", {} left", duration(left));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(message);
            return;
        }
        if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) || done == total {
            self.last_line = Some(Instant::now());
            note(&format!("{}: {done}/{total} {message}", self.label));
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.insist(text);
        }
    }

    /// A line that stays, and that even a quiet command says.
    pub fn insist(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("{}: {text}", self.label)),
            None => note(&format!("{}: {text}", self.label)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A table as text: the first column left, the others right.
pub(super) fn table(rows: &[Vec<String>]) -> String {
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
