//! Characters that text from outside should not bring along.

/// Whether a character is one of Unicode's controls of direction (UAX #9): it makes what stands after it read
/// backwards, on a terminal too.
pub(crate) fn turns_direction(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
