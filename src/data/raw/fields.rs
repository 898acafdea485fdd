//! Fields of a record, as all forms of files give them.

use crate::data::DataError;

/// What is done with the fields of a record, and with the number of its line (in Parquet, of its row).
pub(super) type Each<'a> = dyn FnMut(usize, &[Option<&str>]) -> Result<(), DataError> + 'a;

/// A field without the white space around it; `None` if nothing is left.
pub(super) fn present(field: &str) -> Option<&str> {
    Some(field.trim()).filter(|field| !field.is_empty())
}
