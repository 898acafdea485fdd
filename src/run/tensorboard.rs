//! A run's log as an event file, which TensorBoard and the tools that read its files show.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::error::RunError;
use super::log::Log;
use crate::models::ModelError;
use crate::models::files::write_atomically;
use crate::train::{RunFolder, RunPaths};

/// The file's name: TensorBoard knows its files by `tfevents`.
const FILE: &str = "events.out.tfevents.0.latentr3";

/// Writes all metrics of a run's log into an event file in `folder`, in place of an older one; returns the file and the
/// number of values. Times are that of the log's last line, for it records none.
///
/// # Errors
///
/// No run, a damaged log, or a folder that cannot be written to.
pub fn export_tensorboard(run: &Path, folder: &Path) -> Result<(PathBuf, usize), RunError> {
    RunFolder::description(run)?;
    let path = RunPaths(run).metrics();
    let log = Log::read(&path)?;
    let changed = std::fs::metadata(&path).and_then(|file| file.modified()).map_err(ModelError::io(&path))?;
    let time = changed.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut values: Vec<(u64, &str, f32)> = Vec::new();
    for name in log.names() {
        values.extend(log.series(name).iter().map(|&(step, value)| (step as u64, name, value as f32)));
    }
    values.sort_by_key(|(step, ..)| *step);
    let mut file = record(&Message::default().double(1, time).text(3, "brain.Event:2").0);
    for &(step, name, value) in &values {
        file.extend(record(&event(time, step, name, value)));
    }
    std::fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
    let out = folder.join(FILE);
    write_atomically(&out, &file)?;
    Ok((out, values.len()))
}

/// The message `Event` of TensorFlow's `event.proto` with one scalar.
fn event(time: f64, step: u64, name: &str, value: f32) -> Vec<u8> {
    // `valid_hr.10` becomes `valid_hr/10`, which is shown with its like.
    let value = Message::default().text(1, &name.replace('.', "/")).float(2, value);
    let summary = Message::default().bytes(1, &value.0);
    Message::default().double(1, time).varint(2, step).bytes(5, &summary.0).0
}

/// A protocol buffer's message, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(mut self, field: u8, kind: u8) -> Self {
        self.0.push(field << 3 | kind);
        self
    }

    fn number(mut self, mut number: u64) -> Self {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        self
    }

    fn varint(self, field: u8, number: u64) -> Self {
        self.key(field, 0).number(number)
    }

    fn double(self, field: u8, value: f64) -> Self {
        let mut message = self.key(field, 1);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn float(self, field: u8, value: f32) -> Self {
        let mut message = self.key(field, 5);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn bytes(self, field: u8, bytes: &[u8]) -> Self {
        let mut message = self.key(field, 2).number(bytes.len() as u64);
        message.0.extend(bytes);
        message
    }

    fn text(self, field: u8, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }
}

/// A record of TensorFlow's files: length, its checksum, content, its checksum.
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), content, &checksum(content)].concat()
}

/// The CRC-32C, masked as TensorFlow does it.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_records_are_as_their_formats_have_them() {
        let event = event(1.5, 300, "valid_hr.10", 0.25);
        let mut wanted = vec![0x09];
        wanted.extend(1.5f64.to_le_bytes());
        // The step, 300, in two bytes; then the summary, its value, and the value's name and number.
        wanted.extend([0x10, 0xac, 0x02, 0x2a, 20, 0x0a, 18, 0x0a, 11]);
        wanted.extend(b"valid_hr/10");
        wanted.push(0x15);
        wanted.extend(0.25f32.to_le_bytes());
        assert_eq!(event, wanted);
        // The check value of CRC-32C is e3069283 for the digits from 1 to 9.
        let masked = 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(checksum(b"123456789"), masked.to_le_bytes());
        let record = record(b"abc");
        assert_eq!(
            (record.len(), &record[..8], &record[12..15]),
            (8 + 4 + 3 + 4, &3u64.to_le_bytes()[..], &b"abc"[..])
        );
    }
}
