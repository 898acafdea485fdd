//! Data as users have it, and what is prepared from it.

use std::fs;

use super::{copy_of, fuzz, fuzz_file};
use crate::common::raw::{write, write_parquet};
use latentr3::data::list_cell::{parse_ids, parse_integers, parse_strings};
use latentr3::data::{Interactions, Prepared, PromptTemplate, RawConfig, ReadOptions, TokenFile};

fn options() -> ReadOptions {
    ReadOptions {
        max_history: 10,
        allow_empty_titles: false,
        all_train: false,
        raw: RawConfig { k_core: Some(1), ..Default::default() },
    }
}

#[test]
fn list_cells() {
    for cell in [r#"['a', "it's", 'q\'s \x41 \u00e9 \n', 'last',]"#, "[1, 2.0, -3, 40]"] {
        fuzz("list cells", cell.as_bytes(), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = (parse_strings(&text), parse_integers(&text), parse_ids(&text));
        });
    }
}

#[test]
fn split_tables() {
    for file in ["train.csv", "test.csv", "info.txt"] {
        let (_copy, folder) = copy_of("data");
        fuzz_file("split tables", &folder.join(file), || drop(Interactions::read(&folder, &options())));
    }
    let semantic = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n\
                    u,\"['A', \"\"B's\"\"]\",C,\"[0, 1]\",2,\"['<a_1>', '<a_2>']\",<a_3>\n";
    let folder = tempfile::tempdir().unwrap();
    for split in ["train.csv", "valid.csv", "test.csv"] {
        fs::write(folder.path().join(split), semantic).unwrap();
    }
    fs::write(folder.path().join("info.txt"), "<a_1>\tA\t0\n<a_2>\tB's\t1\n<a_3>\tC\t2\n").unwrap();
    for file in ["train.csv", "info.txt"] {
        let path = folder.path().join(file);
        fuzz_file("semantic tables", &path, || drop(Interactions::read(folder.path(), &options())));
    }
}

#[test]
fn raw_interactions() {
    let rows = |line: &dyn Fn(usize) -> String| (0..12).map(|at| line(at) + "\n").collect::<String>();
    let csv = "user_id,item_id,title,timestamp,rating\n".to_owned()
        + &rows(&|at| format!("u{},i{},\"Title, {at}\",2024-03-{:02},4.5", at % 3, at % 5, at + 1));
    let json = rows(&|at| {
        format!(
            r#"{{"user_id": "u{}", "parent_asin": "i{}", "title": "T\u00e9 {at}", "timestamp": {}, "x": [1, {{}}]}}"#,
            at % 3,
            at % 5,
            1_500_000_000_000u64 + at as u64
        )
    });
    let tsv = csv.replace(',', "\t");
    let folder = tempfile::tempdir().unwrap();
    let fuzz_raw = |name: &str| {
        let path = folder.path().join(name);
        fuzz_file("raw files", &path, || drop(Interactions::read(&path, &options())));
        fs::remove_file(path).unwrap();
    };
    for (name, content) in
        [("a.csv", &csv), ("a.tsv", &tsv), ("a.jsonl", &json), ("a.csv.gz", &csv), ("a.jsonl.gz", &json)]
    {
        write(folder.path(), name, content);
        fuzz_raw(name);
    }
    let texts = [("user_id", "u"), ("item_id", "i"), ("title", "Title ")];
    let texts = texts.map(|(column, prefix)| (column, (0..12).map(|at| format!("{prefix}{}", at % 5)).collect()));
    write_parquet(&folder.path().join("a.parquet"), &texts, &[("timestamp", (0..12).collect())]);
    fuzz_raw("a.parquet");
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (
            "toy.inter",
            "user_id:token\titem_id:token\ttimestamp:float\n".to_owned()
                + &rows(&|at| format!("u{}\ti{}\t{at}", at % 3, at % 5)),
        ),
        ("toy.item", "item_id:token\ttitle:token_seq\n".to_owned() + &rows(&|at| format!("i{at}\tTitle {at}"))),
    ];
    for (name, content) in &files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    for (name, _) in &files {
        fuzz_file("atomic files", &folder.path().join(name), || drop(Interactions::read(folder.path(), &options())));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ratings.dat"), rows(&|at| format!("u{}::i{}::5::{at}", at % 3, at % 5))).unwrap();
    fs::write(folder.path().join("movies.dat"), rows(&|at| format!("i{at}::Film {at} (1995)::Drama"))).unwrap();
    for name in ["ratings.dat", "movies.dat"] {
        fuzz_file("MovieLens", &folder.path().join(name), || drop(Interactions::read(folder.path(), &options())));
    }
}

#[test]
fn prepared_folders() {
    let (_copy, folder) = copy_of("prepared");
    for file in ["dataset.json", "catalog.jsonl", "train.jsonl", "windows.jsonl", "template.txt", "tokenizer.json"] {
        fuzz_file("prepared folders", &folder.join(file), || drop(Prepared::load(&folder)));
    }
    fuzz("templates", b"People chose {history} of {domain}. Next:", |bytes| {
        let _ = PromptTemplate::parse(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn token_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.jsonl");
    let rows = "{\"catalog\": [[5, 6, 0], [8, 0]], \"eos\": 0}\n{\"prompt\": [1, 2], \"target\": [8, 0]}\n";
    fs::write(&path, rows).unwrap();
    fuzz_file("token files", &path, || drop(TokenFile::read(&path)));
}
