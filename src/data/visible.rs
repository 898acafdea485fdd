//! Characters of a user's files in messages.

/// A character as it is where it can be printed, else its escape.
pub(super) fn visible(character: char) -> String {
    match character {
        '\'' | '"' | '\\' => character.into(),
        _ => character.escape_debug().collect(),
    }
}
