//! Files of interactions for tests, and how they are read.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use latentr3::data::{Interactions, RawConfig, ReadOptions};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// `text` as gzip packs it.
pub fn pack(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Writes a file, packed where its name ends in `.gz`.
pub fn write(dir: &Path, name: &str, text: &str) {
    let content = if name.ends_with(".gz") { pack(text) } else { text.as_bytes().to_vec() };
    fs::write(dir.join(name), content).unwrap();
}

/// Columns of text and of whole numbers as a Parquet file.
pub fn write_parquet(path: &Path, texts: &[(&str, Vec<String>)], numbers: &[(&str, Vec<i64>)]) {
    let text_columns = texts.iter().map(|(name, _)| format!("required binary {name} (UTF8);"));
    let number_columns = numbers.iter().map(|(name, _)| format!("required int64 {name};"));
    let schema = format!("message rows {{ {} }}", text_columns.chain(number_columns).collect::<String>());
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (_, values) in texts {
        let values: Vec<ByteArray> = values.iter().map(|value| value.as_str().into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    for (_, values) in numbers {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

pub fn options(raw: RawConfig) -> ReadOptions {
    ReadOptions { max_history: 3, allow_empty_titles: false, all_train: false, raw }
}

pub fn titles(data: &Interactions) -> Vec<&str> {
    data.catalog.items().iter().map(|item| item.title.as_str()).collect()
}
