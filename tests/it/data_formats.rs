//! Readers of every layout, on good rows and on hostile ones.

use std::fs;
use std::path::Path;

use latentr3::data::{DataError, Interactions, Layout, RawConfig, ReadOptions, Row};
use tempfile::TempDir;

fn options() -> ReadOptions {
    ReadOptions { max_history: 3, allow_empty_titles: false, all_train: false, raw: RawConfig::default() }
}

/// Titles that break careless readers.
fn hostile_titles() -> Vec<String> {
    let mut titles: Vec<String> = [
        "Plain",
        "It's \"quoted\", twice: 9-1/2\"",
        "comma, [bracket], 'a', \\ backslash\\",
        "emoji 👩‍👩‍👧 and \u{202e}right-to-left שלום مرحبا",
        "e\u{301} combining, nul-free \u{feff} mark",
        "{history} {domain} %s $1",
    ]
    .map(str::to_owned)
    .into();
    titles.push("long ".repeat(1000).trim().to_owned());
    titles
}

fn python_list(strings: &[&str]) -> String {
    let escape = |text: &&str| text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
    format!("['{}']", strings.iter().map(escape).collect::<Vec<_>>().join("', '"))
}

/// Writes `info.txt` and the same rows as each split; a row is a user, a history and an item, by index of title.
fn write_tables(dir: &Path, header: &str, titles: &[String], rows: &[(&str, &[usize], usize)]) {
    let has_sid = header.contains("item_sid");
    let info: String = titles
        .iter()
        .enumerate()
        .map(|(at, title)| format!("{}{title}\t{at}\n", if has_sid { "<a_1>\t" } else { "" }))
        .collect();
    fs::write(dir.join("info.txt"), info).unwrap();
    for split in ["train", "valid", "test"] {
        let mut table = csv::Writer::from_path(dir.join(split).with_extension("csv")).unwrap();
        table.write_record(header.split(',')).unwrap();
        for (user, history, item) in rows {
            let history_titles: Vec<_> = history.iter().map(|&at| titles[at].as_str()).collect();
            let field = |column: &str| match column {
                "user_id" => (*user).to_owned(),
                "history_item_title" => python_list(&history_titles),
                "item_title" => titles[*item].clone(),
                "history_item_id" => format!("{history:?}"),
                "item_id" => item.to_string(),
                "timestamp" => "1443744000".into(),
                _ => "anything, \"at\" all\n".into(),
            };
            table.write_record(header.split(',').map(field)).unwrap();
        }
        table.flush().unwrap();
    }
}

const AMAZON: &str = "user_id,item_asins,item_asin,history_item_id,item_id,history_item_title,item_title,\
                      history_rating,rating,history_timestamp,timestamp";
const SEMANTIC: &str = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid";
const SHUFFLED: &str = "item_id,extra,item_title,user_id,history_item_id,history_item_title";

fn row(user: &str, history: &[usize], item: usize, timestamp: Option<i64>, line: usize) -> Row {
    Row { user: user.into(), history: history.into(), item, timestamp, line }
}

#[test]
fn every_kind_of_split_table_gives_the_same_rows() {
    let titles = hostile_titles();
    for (header, layout, time) in [
        (AMAZON, Layout::AmazonAsin, Some(1443744000)),
        (SEMANTIC, Layout::SemanticIds, None),
        (SHUFFLED, Layout::SplitTables, None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write_tables(dir.path(), header, &titles, &[("ü", &[0, 1, 2, 3], 4), ("v", &[6], 5)]);
        let data = Interactions::read(dir.path(), &options()).unwrap();
        assert_eq!(data.layout, layout);
        let read: Vec<_> = data.catalog.items().iter().map(|item| item.title.clone()).collect();
        assert_eq!(read, titles);
        assert_eq!(data.notes.titles_unlike_catalog, 0);
        for rows in [&data.rows.train, &data.rows.valid, &data.rows.test] {
            let second = rows[1].line;
            assert_eq!(*rows, [row("ü", &[0, 1, 2, 3], 4, time, 2), row("v", &[6], 5, time, second)]);
        }
    }
}

/// A folder of good split tables in which one file is then replaced.
fn tables_with(file: &str, content: impl AsRef<[u8]>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_tables(dir.path(), SHUFFLED, &["A".into(), "B".into()], &[("u", &[0], 1)]);
    fs::write(dir.path().join(file), content).unwrap();
    dir
}

fn error_in(file: &str, content: impl AsRef<[u8]>) -> DataError {
    Interactions::read(tables_with(file, content).path(), &options()).unwrap_err()
}

const HEADER: &str = "user_id,history_item_title,item_title,history_item_id,item_id\n";

#[test]
fn tables_may_have_a_byte_order_mark_other_line_ends_and_blank_lines() {
    let rows = "u,['A'],B,[0],1\n\nu,\"['A', 'B']\",A,\"[0, 1]\",0\n";
    for table in
        [format!("{HEADER}{rows}"), format!("\u{feff}{HEADER}{rows}"), format!("{HEADER}{rows}").replace('\n', "\r\n")]
    {
        let dir = tables_with("train.csv", &table);
        fs::write(dir.path().join("info.txt"), "\u{feff}A\t0\r\n B \t1\r\n\r\n").unwrap();
        let data = Interactions::read(dir.path(), &options()).unwrap();
        assert_eq!(data.rows.train, [row("u", &[0], 1, None, 2), row("u", &[0, 1], 0, None, 4)], "{table:?}");
        assert_eq!(data.catalog.title(1), "B");
    }
}

#[test]
fn ids_may_be_strings() {
    let dir = tables_with("info.txt", "A\tB01\nB\t7\n");
    for split in ["train", "valid", "test"] {
        let table = format!("{HEADER}u,\"['A', 'B']\",B,\"['B01', '7']\",7\n");
        fs::write(dir.path().join(split).with_extension("csv"), table).unwrap();
    }
    assert_eq!(Interactions::read(dir.path(), &options()).unwrap().rows.test[0].history, [0, 1]);
}

#[test]
fn the_catalog_decides_titles_and_differences_are_counted() {
    let dir = tables_with("train.csv", format!("{HEADER}u,['old A'],old B,[0],1\n"));
    let data = Interactions::read(dir.path(), &options()).unwrap();
    assert_eq!(data.notes.titles_unlike_catalog, 2);
    assert_eq!(data.catalog.title(0), "A");
}

#[test]
fn errors_name_file_line_column_value_and_remedy() {
    for (row, wanted) in [
        (
            "u,['A'],B,[0],9",
            "valid.csv, line 3, column `item_id`: no such item in info.txt; add it there or remove the row; the value is `9`",
        ),
        ("u,\"['A', 'B']\",B,\"[0, 5]\",1", "valid.csv, line 3, column `history_item_id`: no such item in info.txt"),
        ("u,['A'],B,\"[0, 1]\",1", "line 3, column `history_item_id`: 2 ids but 1 titles"),
        ("u,[],B,[],1", "line 3, column `history_item_id`: the history is empty; remove the row"),
        ("  ,['A'],B,[0],1", "line 3, column `user_id`: the user is empty"),
        (
            "u,['A,B,[0],1",
            "line 3, column `history_item_title`: not a Python list: expected the quote that ends the string, found the end at character 4; the value is `['A`",
        ),
        ("u,nan,B,[0],1", "line 3, column `history_item_title`: not a Python list"),
        ("u,['A'],B,array([0]),1", "line 3, column `history_item_id`: not a Python list"),
        ("u,['A'],B,[0],1,2", "line 3: 6 fields instead of 5"),
        ("u,['A'],B", "line 3: 3 fields instead of 5"),
        ("u,\"['A'],B,[0],1\nu,['A'],B,[0],1", "line 3: 2 fields instead of 5"),
        ("u,['A'],B,[0],\"1\nu,['A'],B,[0],1", "line 3, column `item_id`: no such item"),
    ] {
        let error = error_in("valid.csv", format!("{HEADER}u,['A'],B,[0],1\n{row}\n")).to_string();
        assert!(error.contains(wanted), "{row}\n{error}");
    }
}

#[test]
fn a_quote_that_swallows_the_file_is_noticed_in_a_column_that_is_not_read() {
    let header = HEADER.trim_end();
    let error =
        error_in("test.csv", format!("{header},extra\nu,['A'],B,[0],1,x\nu,['A'],B,[0],1,\"x\nu,['A'],B,[0],1,x\n"));
    assert!(matches!(error, DataError::UnclosedQuote { line: 3, .. }), "{error}");
}

#[test]
fn times_are_read_where_they_are_times() {
    let header = HEADER.trim_end();
    for (time, expected) in [
        ("", None),
        ("soon", None),
        ("inf", None),
        ("NaN", None),
        ("86400", Some(86_400)),
        ("1970-01-02", Some(86_400)),
    ] {
        let dir = tables_with("train.csv", format!("{header},timestamp\nu,['A'],B,[0],1,{time}\n"));
        let data = Interactions::read(dir.path(), &options()).unwrap();
        assert_eq!(data.rows.train[0].timestamp, expected, "{time}");
    }
}

#[test]
fn files_that_are_missing_empty_or_only_a_header_are_named() {
    for file in ["info.txt", "train.csv", "valid.csv", "test.csv"] {
        for blank in ["", "\n\n", "\u{feff}\u{feff}"] {
            let error = error_in(file, blank);
            assert!(matches!(&error, DataError::EmptyFile { path } if path.ends_with(file)), "{error}");
        }
        let error = error_in(file, b"fine\n\xff\xfe\n");
        assert!(matches!(&error, DataError::NotUtf8 { path, line: 2 } if path.ends_with(file)), "{error}");
        if file != "info.txt" {
            let error = error_in(file, HEADER);
            assert!(matches!(&error, DataError::NoRows { path } if path.ends_with(file)), "{error}");
            let error = error_in(file, HEADER.replace("item_title", "name")).to_string();
            assert!(
                error.contains("line 1: no column `history_item_title` among `user_id`, `history_name`"),
                "{error}"
            );
        }
        let dir = tables_with("extra", "");
        fs::remove_file(dir.path().join(file)).unwrap();
        let error = Interactions::read(dir.path(), &options()).unwrap_err();
        let is_named = match &error {
            DataError::MissingFile { path, .. } => path.ends_with(file),
            DataError::UnknownLayout { .. } => file == "train.csv",
            _ => false,
        };
        assert!(is_named, "{error}");
    }
}

#[test]
fn bad_item_lists_are_refused() {
    for (info, wanted) in [
        ("A\t0\nB\t1\nC\t0\n", "info.txt, line 3, column `id`: this id already appears in line 1"),
        ("A\t0\n \t1\n", "info.txt, line 2, column `title`: the item's title is empty"),
        ("A\t0\nx\tB\t1\n", "info.txt, line 2: 3 fields instead of 2"),
        ("x\tA\t0\nB\t1\n", "info.txt, line 2: 2 fields instead of 3"),
        ("A 0\nB 1\n", "info.txt, line 1: 1 fields instead of 2"),
        ("a\tb\tc\td\n", "info.txt, line 1: 4 fields"),
    ] {
        let error = error_in("info.txt", info).to_string();
        assert!(error.contains(wanted), "{info:?}\n{error}");
    }
    let dir = tables_with("info.txt", "A\t0\n\t1\n");
    assert!(Interactions::read(dir.path(), &ReadOptions { allow_empty_titles: true, ..options() }).is_ok());
}

const INTER: &str = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n";

fn atomic(item: impl AsRef<[u8]>, inter: impl AsRef<[u8]>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("toy.item"), item).unwrap();
    fs::write(dir.path().join("toy.inter"), inter).unwrap();
    dir
}

#[test]
fn recbole_files_are_split_by_time_with_ties_in_file_order() {
    let titles = hostile_titles();
    let item: String = titles.iter().enumerate().map(|(at, title)| format!("Drama\ti{at}\t{title}\n")).collect();
    let inter = "u\ti3\t5\t40\nv\ti0\t1\t7\nu\ti0\t5\t10.5\nu\ti1\t5\t10.5\nw\ti5\t1\t1\nu\ti2\t5\t3e1\nw\ti6\t1\t2\nu\ti4\t5\t50\n";
    for column in ["title", "movie_title", "name"] {
        let header = format!("class:token_seq\titem_id:token\t{column}:token_seq\n");
        let dir = atomic(format!("{header}{item}"), format!("{INTER}{inter}"));
        let data = Interactions::read(dir.path(), &options()).unwrap();
        assert_eq!(data.layout, Layout::Recbole);
        // Items are numbered as the choices first name them: 3, 0, 1, 5, 2, 6, 4.
        assert_eq!(data.catalog.title(2), titles[1]);
        let train = [row("u", &[1], 2, Some(10), 5), row("u", &[1, 2], 4, Some(30), 7), row("w", &[3], 5, Some(2), 8)];
        assert_eq!(data.rows.train, train);
        assert_eq!(data.rows.valid, [row("u", &[1, 2, 4], 0, Some(40), 2)]);
        assert_eq!(data.rows.test, [row("u", &[2, 4, 0], 6, Some(50), 9)]);
        assert_eq!((data.notes.users_without_test, data.notes.users_without_rows), (1, 1));
    }
}

#[test]
fn bad_recbole_files_are_refused() {
    let item = "item_id:token\ttitle:token_seq\n1\tA\n2\tB\n";
    let untitled = "item_id:token\tyear:float\n1\t2\n";
    let good = format!("{INTER}u\t1\t5\t1\n");
    for (item, inter, wanted) in [
        (item, format!("{good}\t1\t5\t1\n"), "toy.inter, line 3, column `user_id`: the user is empty"),
        (
            item,
            format!("{good}u\t1\t5\tlate\n"),
            "toy.inter, line 3, column `timestamp`: not a time; write seconds or milliseconds since 1970, or a date such as 2024-03-01 or 2024-03-01 17:30; the value is `late`",
        ),
        (item, format!("{good}u\t1\t5\n"), "toy.inter, line 3: 3 fields instead of 4"),
        (item, INTER.into(), "toy.inter: the file has a header but no rows"),
        (item, INTER.replace("timestamp", "when"), "`time` or `date` among `user_id`, `item_id`, `rating`, `when`"),
        (item, good.clone(), "toy.inter: no rows for the train split: a row needs an interaction and"),
        (
            item,
            format!("{good}u\t2\t5\t2\n"),
            "toy.inter: no rows for the valid split: the filters and the split leave too few rows",
        ),
        (item, String::new(), "toy.inter: the file is empty"),
        (untitled, good.clone(), "`product_title` among `item_id`, `year`"),
        ("item_id:token\ttitle:token_seq\n", good.clone(), "toy.item: the file has a header but no rows"),
        ("item_id:token\ttitle:token_seq\n1\t\n", good.clone(), "toy.item: no item of"),
    ] {
        let error = Interactions::read(atomic(item, inter).path(), &options()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let error = Interactions::read(atomic(b"item_id:token\ttitle:token\n1\t\xe9t\xe9\n", &good).path(), &options());
    assert!(matches!(error, Err(DataError::NotUtf8 { line: 2, .. })));
}

#[test]
fn folders_without_or_with_two_data_sets_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let read = || Interactions::read(dir.path(), &options()).unwrap_err();
    assert!(matches!(read(), DataError::UnknownLayout { .. }));
    fs::write(dir.path().join("b.inter"), INTER).unwrap();
    assert!(matches!(read(), DataError::MissingFile { path, .. } if path.ends_with("b.item")));
    fs::write(dir.path().join("train.csv"), HEADER).unwrap();
    assert!(read().to_string().contains("more than one data set (b.inter, train.csv)"));
    assert!(matches!(Interactions::read(&dir.path().join("no"), &options()), Err(DataError::Io { .. })));
}
