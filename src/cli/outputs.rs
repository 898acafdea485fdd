//! Where commands write.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::CliError;
use crate::models::files;
use crate::outputs;

/// Makes sure before any work that a result can be written where `--json` asks for it, and replaces nothing but another
/// result.
pub(super) fn check_json(path: Option<&Path>) -> Result<(), CliError> {
    Ok(path.map_or(Ok(()), outputs::check_result)?)
}

/// Makes sure that a result does not replace one of those that it is made from.
pub(super) fn check_not_read<'a>(
    json: Option<&Path>,
    read: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), CliError> {
    Ok(json.map_or(Ok(()), |json| outputs::check_not_read(json, read))?)
}

/// Writes a command's result where `--json` asks for it.
pub(super) fn write_json(path: Option<&Path>, value: &impl Serialize) -> Result<(), CliError> {
    Ok(path.map_or(Ok(()), |path| files::write_json(path, value))?)
}
