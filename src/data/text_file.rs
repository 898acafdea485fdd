//! A text file of the user's, checked for what can be wrong with any.

use std::path::{Path, PathBuf};

use super::error::DataError;

/// The text of a whole file.
pub(super) struct TextFile {
    pub(super) path: PathBuf,
    /// The content without byte order marks; not blank.
    pub(super) text: String,
}

impl TextFile {
    /// Reads a file that must exist, be UTF-8 and hold more than white space.
    pub(super) fn read(path: &Path, needed_for: &'static str) -> Result<Self, DataError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(DataError::MissingFile { path: path.into(), needed_for });
            }
            Err(error) => return Err(DataError::io(path, "read", error)),
        };
        let mut text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            DataError::NotUtf8 { path: path.into(), line: count_lines(good) + 1 }
        })?;
        let marks = text.len() - text.trim_start_matches('\u{feff}').len();
        text.drain(..marks);
        if text.trim().is_empty() {
            return Err(DataError::EmptyFile { path: path.into() });
        }
        Ok(Self { path: path.into(), text })
    }

    /// The file's name without its folder.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Lines that are not empty, split at tabs, with their numbers.
    pub(super) fn tab_separated(&self) -> impl Iterator<Item = (usize, Vec<&str>)> {
        let numbered = self.text.lines().enumerate();
        numbered.filter(|(_, line)| !line.is_empty()).map(|(at, line)| (at + 1, line.split('\t').collect()))
    }
}

/// Counts lines along a text.
pub(super) struct LineCounter<'a> {
    bytes: &'a [u8],
    offset: usize,
    line: usize,
}

impl<'a> LineCounter<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), offset: 0, line: 1 }
    }

    /// Number of the line with byte `offset`, or of the next line that is not empty; offsets must not fall.
    pub(super) fn line_at(&mut self, offset: usize) -> usize {
        let line_breaks = self.bytes[offset..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let end = offset + line_breaks;
        self.line += count_lines(&self.bytes[self.offset..end]);
        self.offset = end;
        self.line
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}
