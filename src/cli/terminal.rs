//! What a user sees while something long goes on, and what is printed at its end.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::CliError;
use crate::models::ModelError;
pub(super) use crate::text::duration;
use crate::text::printable;

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

/// Writes a line to standard error unless the program is to be quiet.
pub(super) fn tell(line: &str) {
    if !is_quiet() {
        note(line);
    }
}

/// Shows how much of a file is downloaded, if it is not a small one.
pub(super) fn show_download(file: &str, done: u64, total: u64) {
    static SHOWN: Mutex<Option<Progress>> = Mutex::new(None);
    const MEBIBYTE: u64 = 1 << 20;
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if total < MEBIBYTE || done >= total {
        *shown = None;
        return;
    }
    let label = format!("downloading {file}, MiB");
    let progress = match shown.take() {
        Some(progress) if progress.label == label => progress,
        _ => Progress::new(&label),
    };
    shown.insert(progress).advance(done / MEBIBYTE, total.div_ceil(MEBIBYTE), 0, "");
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
            message = message.trim_start_matches(", ").to_owned();
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
