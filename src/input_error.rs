use std::path::PathBuf;

/// A file or folder that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {problem}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct InputError {
    /// The file or folder.
    pub path: PathBuf,
    /// Its line, from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub problem: String,
}

impl InputError {
    /// A problem with a whole file or folder.
    pub fn new(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, problem: problem.into() }
    }

    /// The same problem, at a line counted from 1.
    #[must_use]
    pub fn at_line(self, line: usize) -> Self {
        Self { line: Some(line), ..self }
    }
}
