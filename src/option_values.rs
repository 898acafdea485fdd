//! What values of command-line options look like.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{OsStringValueParser, PossibleValuesParser, Resettable, TypedValueParser};

/// A path of the command line, or none where it is empty.
pub(crate) fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The values of an enumeration whose names say what they are, so that help lists no more than the names.
pub(crate) fn names_of<E: ValueEnum + Clone + Send + Sync + 'static>() -> impl TypedValueParser<Value = E> {
    let values = E::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let names = PossibleValuesParser::new(values.map(|value| value.help(Resettable::Reset)));
    names.try_map(|name| E::from_str(&name, false))
}
