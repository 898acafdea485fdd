//! Records of named fields from any of the files that interactions and items come in.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder};
use flate2::bufread::MultiGzDecoder;

use super::fields::{Each, present};
use super::json_fields::pick;
use super::parquet_rows;
use crate::data::DataError;

/// Bytes that one line of a file may have.
const LONGEST_LINE: usize = 64 << 20;

/// Records of JSON lines whose fields are taken for all that there are.
const NAMING_RECORDS: usize = 1000;

/// What a record is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// A line, or several where a field in quotes has line breaks; the first one names the fields.
    Table { separator: u8, quoted: bool },
    /// A line of fields that `::` separates, with names that the format fixes (MovieLens).
    DoubleColon(&'static [&'static str]),
    /// A line with a JSON object.
    JsonLines,
    /// A row of a Parquet file.
    Parquet,
}

/// Which fields of a file's records are read.
struct Wanted<'a> {
    names: &'a [&'a str],
    /// Their places among the columns.
    places: Vec<usize>,
    /// How many records are read at most.
    records: usize,
    /// Whether a field that is no text counts as missing, instead of being an error.
    is_lenient: bool,
}

/// A file of records.
#[derive(Debug)]
pub(super) struct Records {
    pub path: PathBuf,
    form: Form,
    /// Names of the fields: of the header, or of the first records.
    pub columns: Vec<String>,
}

impl Records {
    /// Opens a file in the form that its name says.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let bare = name.strip_suffix(".gz").unwrap_or(&name);
        let form = match bare.rsplit_once('.').map_or("", |(_, extension)| extension) {
            "csv" => Form::Table { separator: b',', quoted: true },
            "tsv" => Form::Table { separator: b'\t', quoted: true },
            "inter" | "item" => Form::Table { separator: b'\t', quoted: false },
            "json" | "jsonl" | "ndjson" => Form::JsonLines,
            "parquet" => Form::Parquet,
            "dat" if bare.starts_with("ratings") => Form::DoubleColon(&["user_id", "item_id", "rating", "timestamp"]),
            "dat" if bare.starts_with("movies") => Form::DoubleColon(&["item_id", "title", "genres"]),
            _ => return Err(DataError::UnknownForm { path: path.into() }),
        };
        let mut records = Self { path: path.into(), form, columns: Vec::new() };
        records.columns = records.read_columns()?;
        // Where the comma is that of numbers, tables are written with another separator.
        for other in [b';', b'\t'] {
            let is_other = |columns: &[String]| columns.len() == 1 && columns[0].contains(char::from(other));
            if let Form::Table { separator, quoted: true } = &mut records.form
                && is_other(&records.columns)
            {
                *separator = other;
                records.columns = records.read_columns()?;
            }
        }
        Ok(records)
    }

    fn read_columns(&self) -> Result<Vec<String>, DataError> {
        match &self.form {
            Form::Table { separator, quoted } => {
                let mut reader = self.table(*separator, *quoted)?;
                let header = reader.byte_headers().map_err(|error| self.csv_error(error, 1))?;
                let name = |field: &[u8]| match std::str::from_utf8(field) {
                    // RecBole's headers say `name:type`.
                    Ok(name) => {
                        Ok(if *quoted { name } else { name.split(':').next().unwrap_or_default() }.trim().to_owned())
                    }
                    Err(_) => Err(DataError::NotUtf8 { path: self.path.clone(), line: 1 }),
                };
                let names: Vec<String> = header.iter().map(name).collect::<Result<_, _>>()?;
                if names.iter().all(String::is_empty) {
                    return Err(DataError::EmptyFile { path: self.path.clone() });
                }
                Ok(names)
            }
            Form::DoubleColon(names) => Ok(names.iter().map(|name| name.to_string()).collect()),
            Form::JsonLines => {
                let (mut lines, mut content, mut line, mut records) = (self.bytes()?, Vec::new(), 0, 0);
                let mut names: Vec<String> = Vec::new();
                while records < NAMING_RECORDS && self.read_line(&mut lines, &mut content, line + 1)? {
                    line += 1;
                    if content.trim_ascii().is_empty() {
                        continue;
                    }
                    records += 1;
                    for name in
                        super::json_fields::names(&content).map_err(|problem| self.bad_json(line, &content, problem))?
                    {
                        if !names.contains(&name) {
                            names.push(name);
                        }
                    }
                }
                match records {
                    0 => Err(DataError::EmptyFile { path: self.path.clone() }),
                    _ => Ok(names),
                }
            }
            Form::Parquet => parquet_rows::columns(&self.path),
        }
    }

    /// Goes through all records with the wanted fields, in their order; a field that is missing, null or blank is
    /// `None`.
    pub fn for_each(&self, wanted: &[&str], each: &mut Each) -> Result<(), DataError> {
        let places = self.places(wanted)?;
        self.read(&Wanted { names: wanted, places, records: usize::MAX, is_lenient: false }, each)
    }

    /// The first records, of each the fields of all columns.
    pub fn head(&self, records: usize) -> Result<Vec<Vec<Option<String>>>, DataError> {
        let names: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let mut rows = Vec::new();
        let wanted = Wanted { names: &names, places: (0..names.len()).collect(), records, is_lenient: true };
        self.read(&wanted, &mut |_, fields| {
            rows.push(fields.iter().map(|field| field.map(str::to_owned)).collect());
            Ok(())
        })?;
        Ok(rows)
    }

    fn read(&self, wanted: &Wanted, each: &mut Each) -> Result<(), DataError> {
        match &self.form {
            Form::Table { separator, quoted } => self.each_of_table(*separator, *quoted, wanted, each),
            Form::DoubleColon(_) => self.each_of_lines(wanted, each),
            Form::JsonLines => self.each_of_json(wanted, each),
            Form::Parquet => parquet_rows::for_each(&self.path, wanted.names, wanted.records, each),
        }
    }

    fn each_of_table(&self, separator: u8, quoted: bool, wanted: &Wanted, each: &mut Each) -> Result<(), DataError> {
        let mut reader = self.table(separator, quoted)?;
        reader.byte_headers().map_err(|error| self.csv_error(error, 1))?;
        let mut record = ByteRecord::new();
        let (mut line, mut ends_in_lines) = (1, false);
        for number in 0.. {
            if number == wanted.records {
                return Ok(());
            }
            reader.get_mut().since_record = 0;
            let more = reader.read_byte_record(&mut record).map_err(|error| self.csv_error(error, line + 1))?;
            if !more {
                break;
            }
            let start = record.position().map_or(0, |position| position.byte());
            line = reader.get_mut().line_of(start).unwrap_or(line + 1);
            let (expected, found) = (self.columns.len(), record.len());
            if found != expected {
                return Err(DataError::FieldCount { path: self.path.clone(), line, expected, found });
            }
            ends_in_lines = record.iter().next_back().is_some_and(|last| last.contains(&b'\n'));
            let mut fields = Vec::with_capacity(wanted.places.len());
            for &place in &wanted.places {
                fields.push(match self.text(&record[place], line) {
                    Err(_) if wanted.is_lenient => None,
                    text => text?,
                });
            }
            each(line, &fields)?;
        }
        // The csv crate takes a quote that is never closed for a field that goes on to the end of the file.
        if quoted && ends_in_lines && !reader.get_ref().ends_with_quote() {
            return Err(DataError::UnclosedQuote { path: self.path.clone(), line });
        }
        Ok(())
    }

    fn each_of_lines(&self, wanted: &Wanted, each: &mut Each) -> Result<(), DataError> {
        let (mut bytes, mut content, mut line) = (self.bytes()?, Vec::new(), 0);
        while line < wanted.records && self.read_line(&mut bytes, &mut content, line + 1)? {
            line += 1;
            // These files are older than UTF-8: what is not UTF-8 is Latin-1.
            let text = String::from_utf8(std::mem::take(&mut content))
                .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect());
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() {
                continue;
            }
            let fields: Vec<&str> = text.split("::").collect();
            let (expected, found) = (self.columns.len(), fields.len());
            if found != expected {
                return Err(DataError::FieldCount { path: self.path.clone(), line, expected, found });
            }
            let fields: Vec<Option<&str>> = wanted.places.iter().map(|&place| present(fields[place])).collect();
            each(line, &fields)?;
        }
        Ok(())
    }

    fn each_of_json(&self, wanted: &Wanted, each: &mut Each) -> Result<(), DataError> {
        let (mut bytes, mut content, mut line) = (self.bytes()?, Vec::new(), 0);
        while line < wanted.records && self.read_line(&mut bytes, &mut content, line + 1)? {
            line += 1;
            if content.trim_ascii().is_empty() {
                continue;
            }
            let fields = pick(&content, wanted.names, wanted.is_lenient)
                .map_err(|problem| self.bad_json(line, &content, problem))?;
            let fields: Vec<Option<&str>> = fields.iter().map(|field| field.as_deref().and_then(present)).collect();
            each(line, &fields)?;
        }
        Ok(())
    }

    fn places(&self, wanted: &[&str]) -> Result<Vec<usize>, DataError> {
        let place = |name: &&str| {
            let mut places = (0..self.columns.len()).filter(|&at| self.columns[at] == *name);
            let place = places.next().expect("the columns were found among these");
            match places.next() {
                None => Ok(place),
                Some(_) => Err(DataError::TwoColumns { path: self.path.clone(), column: name.to_string() }),
            }
        };
        wanted.iter().map(place).collect()
    }

    fn text<'a>(&self, field: &'a [u8], line: usize) -> Result<Option<&'a str>, DataError> {
        let text = std::str::from_utf8(field).map_err(|_| DataError::NotUtf8 { path: self.path.clone(), line })?;
        Ok(present(text))
    }

    fn table(&self, separator: u8, quoted: bool) -> Result<csv::Reader<Watched<Box<dyn BufRead>>>, DataError> {
        // Rows of a wrong length are reported here, by line.
        let mut builder = ReaderBuilder::new();
        builder.flexible(true).delimiter(separator).quoting(quoted);
        Ok(builder.from_reader(Watched::new(self.bytes()?)))
    }

    /// The content, unpacked if the name ends with `.gz`.
    fn bytes(&self) -> Result<Box<dyn BufRead>, DataError> {
        let file = File::open(&self.path).map_err(|error| DataError::io(&self.path, "read", error))?;
        let file = BufReader::with_capacity(1 << 18, file);
        let is_packed = self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
        Ok(if is_packed {
            Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        })
    }

    /// Reads a line into `line`; whether there was one.
    fn read_line(&self, bytes: &mut dyn BufRead, line: &mut Vec<u8>, number: usize) -> Result<bool, DataError> {
        line.clear();
        let read = bytes.take(LONGEST_LINE as u64).read_until(b'\n', line);
        let count = read.map_err(|error| self.unreadable(error, number))?;
        if count == LONGEST_LINE && line.last() != Some(&b'\n') {
            let problem = format!("has more than {LONGEST_LINE} bytes");
            return Err(DataError::Record { path: self.path.clone(), line: number, problem });
        }
        if number == 1 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        Ok(count > 0)
    }

    fn bad_json(&self, line: usize, content: &[u8], problem: String) -> DataError {
        let cut = if content.ends_with(b"\n") { "" } else { "; the file may be truncated, so copy it again" };
        let problem = format!("is not a JSON object with plain fields: {problem}{cut}");
        DataError::Record { path: self.path.clone(), line, problem }
    }

    fn csv_error(&self, error: csv::Error, line: usize) -> DataError {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => self.unreadable(error, line),
            other => DataError::Record { path: self.path.clone(), line, problem: format!("cannot be read: {other:?}") },
        }
    }

    fn unreadable(&self, error: std::io::Error, line: usize) -> DataError {
        use std::io::ErrorKind::{FileTooLarge, InvalidData, InvalidInput, UnexpectedEof};
        match error.kind() {
            FileTooLarge => DataError::Record { path: self.path.clone(), line, problem: error.to_string() },
            UnexpectedEof | InvalidData | InvalidInput => {
                let problem =
                    format!("cannot be decompressed ({error}); the file is truncated or damaged, so copy it again");
                DataError::Record { path: self.path.clone(), line, problem }
            }
            _ => DataError::io(&self.path, "read", error),
        }
    }
}

/// A reader that knows where lines begin and which byte that is no line break was the last, and reads no endless
/// record.
struct Watched<R> {
    inner: R,
    last: u8,
    /// Bytes read since a record began, but for what was read ahead.
    since_record: usize,
    /// Bytes read.
    bytes: u64,
    /// Line of the next byte.
    line: usize,
    is_line_empty: bool,
    /// First byte and number of the lines that are not empty, from the one of the present record on. The csv crate
    /// counts line breaks only as it comes by them, which for a record is after it began.
    starts: VecDeque<(u64, usize)>,
}

impl<R> Watched<R> {
    fn new(inner: R) -> Self {
        Self { inner, last: 0, since_record: 0, bytes: 0, line: 1, is_line_empty: true, starts: VecDeque::new() }
    }

    /// The line in which a record begins whose first byte, line breaks before it included, is this.
    fn line_of(&mut self, byte: u64) -> Option<usize> {
        while self.starts.front().is_some_and(|(start, _)| *start < byte) {
            self.starts.pop_front();
        }
        self.starts.front().map(|(_, line)| *line)
    }

    fn look_at(&mut self, read: &[u8]) {
        for &byte in read {
            if byte == b'\n' {
                (self.line, self.is_line_empty) = (self.line + 1, true);
            } else if self.is_line_empty && byte != b'\r' {
                self.starts.push_back((self.bytes, self.line));
                self.is_line_empty = false;
            }
            self.bytes += 1;
        }
    }

    fn ends_with_quote(&self) -> bool {
        self.last == b'"'
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.look_at(&buffer[..count]);
        self.since_record += count;
        if self.since_record > LONGEST_LINE {
            let problem = format!("has more than {LONGEST_LINE} bytes; look for an unclosed quote");
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, problem));
        }
        if let Some(&last) = buffer[..count].iter().rev().find(|byte| !matches!(byte, b'\n' | b'\r')) {
            self.last = last;
        }
        Ok(count)
    }
}
