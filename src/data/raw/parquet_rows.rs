//! Rows of a Parquet file.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use super::fields::{Each, present};
use crate::data::DataError;
use crate::data::panics::without_panic;

/// Names of the columns.
pub(super) fn columns(path: &Path) -> Result<Vec<String>, DataError> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema();
    Ok(schema.get_fields().iter().map(|field| field.name().to_owned()).collect())
}

/// Goes through at most so many rows with the wanted columns, in their order.
pub(super) fn for_each(path: &Path, wanted: &[&str], most: usize, each: &mut Each) -> Result<(), DataError> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema();
    let kept = schema.get_fields().iter().filter(|field| wanted.contains(&field.name())).cloned().collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(kept).build();
    let projection = projection.map_err(|error| damaged(path, error))?;
    let mut rows = guarded(path, || reader.get_row_iter(Some(projection)))?;
    for number in 1..=most {
        let next = guarded(path, || rows.next().map(|row| row.map(|row| values(&row, wanted))).transpose())?;
        let Some(values) = next else {
            break;
        };
        let fields: Vec<Option<&str>> = values.iter().map(|value| value.as_deref().and_then(present)).collect();
        each(number, &fields)?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let file = File::open(path).map_err(|error| DataError::io(path, "read", error))?;
    guarded(path, || SerializedFileReader::new(file))
}

fn values(row: &Row, wanted: &[&str]) -> Vec<Option<String>> {
    let mut values = vec![None; wanted.len()];
    for (name, field) in row.get_column_iter() {
        // A column may serve twice, as an item's id and title.
        for (place, _) in wanted.iter().enumerate().filter(|(_, wanted)| *wanted == name) {
            values[place] = plain(field);
        }
    }
    values
}

/// A plain value as text.
fn plain(field: &Field) -> Option<String> {
    match field {
        Field::Null => None,
        Field::Str(text) => Some(text.clone()),
        Field::Bytes(bytes) => Some(String::from_utf8_lossy(bytes.data()).into_owned()),
        // In seconds, as whose unit a number's size is least in doubt.
        Field::TimestampMillis(time) => Some((*time as f64 / 1e3).to_string()),
        Field::TimestampMicros(time) => Some((*time as f64 / 1e6).to_string()),
        Field::Date(days) => Some((i64::from(*days) * 86_400).to_string()),
        // Whole numbers with room for missing ones, as pandas keeps ids.
        Field::Float(number) if number.fract() == 0.0 => Some(format!("{number:.0}")),
        Field::Double(number) if number.fract() == 0.0 => Some(format!("{number:.0}")),
        other => Some(other.to_string()),
    }
}

fn damaged(path: &Path, error: ParquetError) -> DataError {
    DataError::Damaged { path: path.to_owned(), problem: format!("not a complete Parquet file: {error}") }
}

/// Calls the library that reads Parquet, which panics on some damaged files: that is an error here, like any other
/// damage.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let problem = || ParquetError::General("its pages are inconsistent".into());
    without_panic(read).unwrap_or_else(|| Err(problem())).map_err(|error| damaged(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::raw::time::parse_time;

    #[test]
    fn whole_numbers_are_ids_whatever_their_type() {
        for field in [Field::Int(7), Field::Long(7), Field::Float(7.0), Field::Double(7.0), Field::Str("7".into())] {
            assert_eq!(plain(&field).unwrap(), "7", "{field:?}");
        }
        assert_eq!(plain(&Field::Double(0.5)).unwrap(), "0.5");
        assert_eq!(plain(&Field::Double(1e15)).unwrap(), "1000000000000000");
    }

    #[test]
    fn moments_keep_the_unit_that_the_file_says() {
        let seconds = |field: Field| parse_time(&plain(&field).unwrap());
        assert_eq!(seconds(Field::TimestampMillis(99_999_000)), Some(99_999.0));
        assert_eq!(seconds(Field::TimestampMicros(99_999_000_000)), Some(99_999.0));
        assert_eq!(seconds(Field::TimestampMicros(99_999_000_000_000)), Some(99_999_000.0));
        assert_eq!(seconds(Field::TimestampMillis(1_500_000_000_250)), Some(1_500_000_000.25));
        assert_eq!(seconds(Field::Date(2)), Some(172_800.0));
    }
}
