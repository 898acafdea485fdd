//! Python list literals, the form in which table cells carry a user's history.

use std::iter::Peekable;
use std::str::CharIndices;

use thiserror::Error;

use super::visible::visible;

/// Why a cell is not a list that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem} at character {character}")]
pub struct ListError {
    /// 1-based position in the cell, in characters.
    pub character: usize,
    /// What is wrong there.
    pub problem: String,
}

/// Reads a list of strings such as `['a', "it's", 'q\'s']`.
///
/// Both kinds of quotes, white space, a trailing comma and Python's escapes are understood; as in Python, an unknown
/// escape keeps its backslash. A line break inside quotes is taken as it stands.
///
/// # Errors
/// If the cell is anything else, or has an escape that names no Unicode character (`\N{..}`, a lone surrogate).
pub fn parse_strings(cell: &str) -> Result<Vec<String>, ListError> {
    Parser::new(cell).list(Parser::string)
}

/// Reads a list of integers such as `[1, 2]`; a float without a fraction (`[5.0]`) counts as an integer.
///
/// # Errors
/// If the cell is anything else, or a number does not fit 64 bits.
pub fn parse_integers(cell: &str) -> Result<Vec<i64>, ListError> {
    Parser::new(cell).list(Parser::integer)
}

/// Reads a list of ids, which are all strings or all integers; an integer becomes its decimal text.
///
/// # Errors
/// If the cell is neither.
pub fn parse_ids(cell: &str) -> Result<Vec<String>, ListError> {
    let first = cell.trim_start().strip_prefix('[').and_then(|rest| rest.trim_start().chars().next());
    match first {
        Some('-' | '0'..='9') => Ok(parse_integers(cell)?.iter().map(i64::to_string).collect()),
        _ => parse_strings(cell),
    }
}

struct Parser<'a> {
    cell: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl<'a> Parser<'a> {
    fn new(cell: &'a str) -> Self {
        Self { cell, rest: cell.char_indices().peekable() }
    }

    fn list<T>(mut self, element: fn(&mut Self) -> Result<T, ListError>) -> Result<Vec<T>, ListError> {
        self.skip_space();
        self.expect('[', "a list, which starts with `[`")?;
        let mut elements = Vec::new();
        loop {
            self.skip_space();
            if self.accept(']') {
                break;
            }
            elements.push(element(&mut self)?);
            self.skip_space();
            if self.accept(']') {
                break;
            }
            self.expect(',', "`,` or `]`")?;
        }
        self.skip_space();
        match self.peek() {
            None => Ok(elements),
            Some(_) => Err(self.unexpected("nothing after the list")),
        }
    }

    fn string(&mut self) -> Result<String, ListError> {
        let Some(quote @ ('\'' | '"')) = self.peek() else {
            return Err(self.unexpected("a quoted string"));
        };
        self.rest.next();
        let mut text = String::new();
        loop {
            let start = self.offset();
            match self.rest.next() {
                None => return Err(self.unexpected("the quote that ends the string")),
                Some((_, c)) if c == quote => return Ok(text),
                Some((_, '\\')) => self.escape(start, &mut text)?,
                Some((_, c)) => text.push(c),
            }
        }
    }

    /// Reads what follows a backslash that stands at byte `start`.
    fn escape(&mut self, start: usize, text: &mut String) -> Result<(), ListError> {
        let Some((_, kind)) = self.rest.next() else {
            return Err(self.unexpected("the rest of an escape"));
        };
        let code = match kind {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => kind as u32,
            'a' => 0x07,
            'b' => 0x08,
            't' => 0x09,
            'n' => 0x0a,
            'v' => 0x0b,
            'f' => 0x0c,
            'r' => 0x0d,
            'x' => self.hex(2)?,
            'u' => self.hex(4)?,
            'U' => self.hex(8)?,
            '0'..='7' => self.octal(kind as u32 - '0' as u32),
            'N' => return Err(self.error_at(start, r"the escape \N{..} is not supported".into())),
            _ => {
                text.push('\\');
                kind as u32
            }
        };
        let Some(character) = char::from_u32(code) else {
            return Err(self.error_at(start, format!("the escape code {code:#x} is not a Unicode character")));
        };
        text.push(character);
        Ok(())
    }

    fn hex(&mut self, digits: usize) -> Result<u32, ListError> {
        let mut code = 0;
        for _ in 0..digits {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                return Err(self.unexpected("a hexadecimal digit"));
            };
            self.rest.next();
            code = code << 4 | digit;
        }
        Ok(code)
    }

    /// Up to three octal digits, the first of which has been read.
    fn octal(&mut self, first: u32) -> u32 {
        let mut code = first;
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else {
                break;
            };
            self.rest.next();
            code = code << 3 | digit;
        }
        code
    }

    fn integer(&mut self) -> Result<i64, ListError> {
        let start = self.offset();
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')) {
            self.rest.next();
        }
        let word = &self.cell[start..self.offset()];
        if word.is_empty() {
            return Err(self.unexpected("an integer"));
        }
        let whole = match word.split_once('.') {
            Some((whole, fraction)) if fraction.chars().all(|c| c == '0') => whole,
            _ => word,
        };
        let digits = whole.strip_prefix('-').unwrap_or(whole);
        let is_number = digits == "0"
            || (digits.starts_with(|c| matches!(c, '1'..='9')) && digits.chars().all(|c| c.is_ascii_digit()));
        match whole.parse() {
            Ok(number) if is_number => Ok(number),
            _ => Err(self.error_at(start, format!("`{word}` is not a 64-bit integer"))),
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|&(_, c)| c)
    }

    fn offset(&mut self) -> usize {
        self.rest.peek().map_or(self.cell.len(), |&(offset, _)| offset)
    }

    fn accept(&mut self, wanted: char) -> bool {
        self.rest.next_if(|&(_, c)| c == wanted).is_some()
    }

    fn expect(&mut self, wanted: char, name: &str) -> Result<(), ListError> {
        if self.accept(wanted) { Ok(()) } else { Err(self.unexpected(name)) }
    }

    fn skip_space(&mut self) {
        while self.rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
    }

    fn unexpected(&mut self, wanted: &str) -> ListError {
        let found = self.peek().map_or("the end".to_owned(), |c| format!("`{}`", visible(c)));
        let offset = self.offset();
        self.error_at(offset, format!("expected {wanted}, found {found}"))
    }

    fn error_at(&self, offset: usize, problem: String) -> ListError {
        ListError { character: self.cell[..offset].chars().count() + 1, problem }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes a string as Python's `repr` does: single quotes unless only they occur, escapes for what cannot be
    /// printed.
    fn repr(text: &str) -> String {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        let mut out = String::from(quote);
        for c in text.chars() {
            match c {
                '\\' => out.push_str(r"\\"),
                '\n' => out.push_str(r"\n"),
                '\r' => out.push_str(r"\r"),
                '\t' => out.push_str(r"\t"),
                c if c == quote => {
                    out.push('\\');
                    out.push(c);
                }
                c if c.is_control() && (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if c.is_whitespace() && c != ' ' && (c as u32) < 0x10000 => {
                    out.push_str(&format!("\\u{:04x}", c as u32))
                }
                c if (c as u32) >= 0xe0000 => out.push_str(&format!("\\U{:08x}", c as u32)),
                c => out.push(c),
            }
        }
        out.push(quote);
        out
    }

    fn list_of(elements: &[String]) -> String {
        format!("[{}]", elements.join(", "))
    }

    proptest! {
        #[test]
        fn strings_survive_python_repr(titles in prop::collection::vec(any::<String>(), 0..8)) {
            let cell = list_of(&titles.iter().map(|title| repr(title)).collect::<Vec<_>>());
            prop_assert_eq!(parse_strings(&cell), Ok(titles));
        }

        #[test]
        fn integers_survive_python_repr(numbers in prop::collection::vec(any::<i64>(), 0..8)) {
            let words: Vec<_> = numbers.iter().map(i64::to_string).collect();
            prop_assert_eq!(parse_integers(&list_of(&words)), Ok(numbers));
            prop_assert_eq!(parse_ids(&list_of(&words)), Ok(words));
        }

        #[test]
        fn no_cell_panics(cell in r#"[\[\]'", \\xuUN0-9a-f.\-{}\n]{0,40}|\PC*"#) {
            for error in [parse_strings(&cell).err(), parse_integers(&cell).err(), parse_ids(&cell).err()].into_iter().flatten() {
                prop_assert!(error.character <= cell.chars().count() + 1);
            }
        }
    }

    #[test]
    fn both_quotes_and_every_escape() {
        let cell = r#" [ 'a' , "it's",'q\'s', "\"\\\n\t\r\x41\u00e9\U0001F600\101\0", 'tab	raw', '\d', '', ] "#;
        let wanted = ["a", "it's", "q's", "\"\\\n\t\r\u{41}é😀A\0", "tab\traw", "\\d", ""];
        assert_eq!(parse_strings(cell).unwrap(), wanted);
    }

    #[test]
    fn line_breaks_inside_quotes_are_kept_and_continued_lines_joined() {
        assert_eq!(parse_strings("['a\nb', 'c\\\nd']").unwrap(), ["a\nb", "cd"]);
    }

    #[test]
    fn integers_take_floats_without_fraction() {
        assert_eq!(parse_integers("[1, -2, 5.0, 0,]").unwrap(), [1, -2, 5, 0]);
        assert_eq!(parse_integers("[ ]").unwrap(), Vec::<i64>::new());
    }

    #[test]
    fn ids_are_integers_or_strings() {
        assert_eq!(parse_ids("[12, 7]").unwrap(), ["12", "7"]);
        assert_eq!(parse_ids("['B01', '7']").unwrap(), ["B01", "7"]);
        assert!(parse_ids("[]").unwrap().is_empty());
        assert!(parse_ids("[1, 'B01']").is_err());
    }

    #[test]
    fn errors_say_where_and_what() {
        for (cell, character, problem) in [
            ("", 1, "expected a list"),
            ("'a'", 1, "expected a list"),
            ("nan", 1, "expected a list"),
            ("['a'", 5, "expected `,` or `]`, found the end"),
            ("['a' 'b']", 6, "expected `,` or `]`, found `'`"),
            ("['a']x", 6, "nothing after the list"),
            ("['é', 'b", 9, "the quote that ends the string"),
            ("['a\\", 5, "the rest of an escape"),
            (r"['\N{DASH}']", 3, "not supported"),
            (r"['a\ud83d']", 4, "0xd83d"),
            (r"['\U99999999']", 3, "0x99999999"),
            (r"['\x4']", 6, "hexadecimal digit"),
            ("[,]", 2, "quoted string"),
            ("[['a']]", 2, "quoted string"),
            ("[b'a']", 2, "quoted string"),
        ] {
            let error = parse_strings(cell).unwrap_err();
            assert_eq!(error.character, character, "{cell}: {error}");
            assert!(error.problem.contains(problem), "{cell}: {error}");
        }
        for cell in [
            "[1.5]",
            "[1e3]",
            "[007]",
            "[0x10]",
            "[+1]",
            "[--1]",
            "[.0]",
            "[99999999999999999999]",
            "['1']",
            "[1 2]",
            "[nan]",
        ] {
            assert!(parse_integers(cell).is_err(), "{cell}");
        }
    }

    #[test]
    fn hostile_lengths_are_no_trouble() {
        let title = "x'\"\\".repeat(100_000);
        assert_eq!(parse_strings(&list_of(&[repr(&title)])).unwrap(), [title]);
        assert!(parse_strings(&"[".repeat(1_000_000)).is_err());
    }
}
