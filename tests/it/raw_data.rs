//! The rows of collected interactions: which are kept, and which are refused and why.

use std::fmt::Write;
use std::fs;

use crate::common::raw::{options, pack, titles, write};
use latentr3::data::{Interactions, RawConfig, ReadOptions, Repeats, Row, SplitKind};

/// A field that the first record lacks is a field all the same.
#[test]
fn fields_of_json_lines_are_those_of_many_records() {
    let dir = tempfile::tempdir().unwrap();
    let record = |at: usize| match at {
        0 => "{\"user_id\": \"u\", \"item_id\": \"i0\", \"timestamp\": 0}\n".to_owned(),
        _ => format!(
            "{{\"user_id\": \"u\", \"item_id\": \"i{at}\", \"timestamp\": {at}, \"title\": \"T{at}\", \"rating\": 5}}\n"
        ),
    };
    write(dir.path(), "events.jsonl", &(0..6).map(record).collect::<String>());
    let raw = RawConfig { min_rating: Some(4.0), ..unfiltered() };
    let data = Interactions::read(&dir.path().join("events.jsonl"), &options(raw)).unwrap();
    assert_eq!(titles(&data), ["T1", "T2", "T3", "T4", "T5"]);
}

fn unfiltered() -> RawConfig {
    RawConfig { k_core: Some(1), split: Some(SplitKind::LeaveOneOut), ..Default::default() }
}

/// Reads a CSV of purchases with titles.
fn read_csv(content: impl AsRef<[u8]>, raw: RawConfig) -> Result<Interactions, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("purchases.csv");
    fs::write(&path, content).unwrap();
    Interactions::read(&path, &options(raw))
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "purchases.csv"))
}

const HEADER: &str = "user_id,item_id,title,timestamp,rating\n";
/// A user with four choices, so that every split has a row.
const REST: &str = "z,i1,One,1,5\nz,i2,Two,2,5\nz,i3,Three,3,5\nz,i4,Four,4,5\n";

#[test]
fn hostile_titles_survive_or_are_cleaned() {
    let long = format!("{}end", "word ".repeat(1000));
    let rows = [
        ("\"a \"\"quoted\"\", comma\"", "a \"quoted\", comma"),
        ("\"two\nlines\r\nand a\ttab\"", "two lines and a tab"),
        ("👩‍👩‍👧 emoji", "👩‍👩‍👧 emoji"),
        ("שלום \u{202e}مرحبا", "שלום مرحبا"),
        ("e\u{301}\u{feff}", "e\u{301}"),
        ("Hits &amp; <b>more</b>", "Hits & more"),
        ("'single' [list]", "'single' [list]"),
    ];
    let mut text = format!("{HEADER}{REST}");
    for (at, (title, _)) in rows.iter().enumerate() {
        writeln!(text, "z,x{at},{title},{},", 10 + at).unwrap();
    }
    writeln!(text, "z,long,{long},90,\nz,markup,\"<span class=\"\"x\",91,\nz,empty,,92,").unwrap();
    let data = read_csv(text, unfiltered()).unwrap();
    let found = titles(&data);
    let expected: Vec<&str> = rows.iter().map(|(_, cleaned)| *cleaned).collect();
    assert_eq!(found[4..4 + rows.len()], expected);
    assert_eq!(
        found.len(),
        4 + rows.len() + 1,
        "items with nothing but markup, and without a title, are gone: {found:?}"
    );
    assert_eq!(found[found.len() - 1].chars().count(), 199);
    let steps = data.raw.unwrap().steps;
    assert_eq!(steps.iter().find(|step| step.step == "no title").unwrap().removed, 2);
}

#[test]
fn titles_may_be_shared_and_items_may_have_two() {
    let text = format!("{HEADER}{REST}z,a,Same,10,\nz,b,Same,11,\nz,a,Other,12,\n");
    let data = read_csv(text, unfiltered()).unwrap();
    assert_eq!(titles(&data)[4..], ["Same", "Same"]);
    assert_eq!(data.raw.unwrap().items_with_several_titles, 1);
}

#[test]
fn times_may_be_seconds_milliseconds_or_dates() {
    let text =
        format!("{HEADER}u,a,A,2017-07-14,\nu,b,B,1500000000,\nu,c,C,1500000001000,\nu,d,D,2017-07-14T02:40:02Z,\n");
    let data = read_csv(text, unfiltered()).unwrap();
    let rows: Vec<&Row> = [&data.rows.train, &data.rows.valid, &data.rows.test].into_iter().flatten().collect();
    let seen: Vec<_> = rows.iter().map(|row| (row.item, row.timestamp.unwrap(), row.line)).collect();
    assert_eq!(seen, [(1, 1_500_000_000, 3), (2, 1_500_000_001, 4), (3, 1_500_000_002, 5)]);
}

#[test]
fn tables_may_have_semicolons_or_tabs_between_their_fields() {
    let text = format!("{HEADER}{REST}");
    let expected = read_csv(&text, unfiltered()).unwrap();
    for separator in [";", "\t"] {
        let read = read_csv(text.replace(',', separator), unfiltered()).unwrap();
        assert_eq!((&read.rows, read.catalog.items()), (&expected.rows, expected.catalog.items()), "{separator:?}");
    }
}

#[test]
fn filters_do_what_they_say() {
    let text = format!(
        "{HEADER}{REST}u,i1,One,5,1\nu,i2,Two,6,\nu,i3,Three,7,4\nu,i4,Four,8,4.5\nu,i3,Three,9,5\nw,i1,One,1,5\n"
    );
    let count = |raw: RawConfig| {
        let data = read_csv(&text, raw).unwrap();
        data.raw.unwrap().steps.last().unwrap().interactions
    };
    assert_eq!(count(unfiltered()), 10);
    assert_eq!(count(RawConfig { min_rating: Some(4.5), ..unfiltered() }), 7);
    assert_eq!(count(RawConfig { from: Some("2".into()), until: Some("9".into()), ..unfiltered() }), 7);
    assert_eq!(count(RawConfig { repeats: Repeats::First, ..unfiltered() }), 9);
    assert_eq!(count(RawConfig { k_core: Some(2), ..unfiltered() }), 9);
    let error = read_csv(&text, RawConfig { k_core: Some(9), ..unfiltered() }).unwrap_err();
    assert!(error.contains("no interactions are left (read 10") && error.contains("9-core 0"), "{error}");
    for year in [
        RawConfig { from: Some("2015".into()), ..unfiltered() },
        RawConfig { until: Some("20151001".into()), ..unfiltered() },
    ] {
        let error = read_csv(&text, year).unwrap_err();
        assert!(error.contains("must be a date"), "{error}");
    }
}

#[test]
fn cold_rows_go_where_that_is_asked_for() {
    let mut text = HEADER.to_owned();
    for user in 0..20 {
        text += &format!("u{user},i1,One,{},5\nu{user},i2,Two,{},5\n", 100 + user, 200 + user);
    }
    text += "u0,new,New,300,5\n";
    let read = |drop_cold| read_csv(&text, RawConfig { k_core: Some(1), drop_cold, ..Default::default() }).unwrap();
    let [kept, dropped] = [read(false), read(true)];
    let chosen = |data: &Interactions| {
        let new = data.catalog.position("new");
        data.rows.test.iter().filter(|row| Some(row.item) == new).count()
    };
    assert_eq!((kept.raw.as_ref().unwrap().cold_rows_dropped, chosen(&kept)), (0, 1));
    assert_eq!((dropped.raw.as_ref().unwrap().cold_rows_dropped, chosen(&dropped)), (1, 0));
}

#[test]
fn lines_are_counted_with_any_line_breaks_and_blank_lines() {
    for text in [format!("{HEADER}{REST}u,i1,One,soon,5\n"), format!("{HEADER}\n\n{REST}\nu,i1,One,soon,5\n")] {
        let line = text.lines().position(|line| line.contains("soon")).unwrap() + 1;
        for text in [text.clone(), text.replace('\n', "\r\n")] {
            let error = read_csv(&text, unfiltered()).unwrap_err();
            assert!(error.contains(&format!("line {line},")), "{error}");
        }
    }
}

#[test]
fn bad_records_are_refused_with_their_place_and_a_remedy() {
    for (text, parts) in [
        (format!("{HEADER}u,i1,One,soon,5\n"), ["line 2, column `timestamp`", "2024-03-01"]),
        (format!("{HEADER}u,i1,One,1\n"), ["line 2", "4 fields instead of 5"]),
        (format!("{HEADER}{REST}u,i1,\"One,5,\nv,i1,One,6,\n"), ["line 6", "fields instead of 5"]),
        (format!("{HEADER}{REST}u,i1,One,5,\"\nv,i1,One,6,\n"), ["line 6", "a quote is opened and never closed"]),
        (format!("{HEADER},i1,One,1,5\n"), ["line 2, column `user_id`", "empty"]),
        (format!("{HEADER}u,,One,1,5\n"), ["line 2, column `item_id`", "empty"]),
        (HEADER.to_owned(), ["purchases.csv", "a header but no row"]),
        (String::new(), ["purchases.csv", "empty"]),
        ("who,what,when\nu,i,1\n".to_owned(), ["no column `user_id`", "add it or rename"]),
        ("user_id,item_id,timestamp\nu,i,1\n".to_owned(), ["no column `title`", "add it or rename"]),
        (format!("{HEADER}u,i1,,1,5\n"), ["has a title here", "check that `item_id`"]),
        (format!("title,{HEADER}x,u,i1,One,1,5\n"), ["line 1", "two columns are called `title`"]),
    ] {
        let error = read_csv(&text, unfiltered()).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
    let error = read_csv(b"user_id,item_id,title,timestamp\nu,i,\xe9t\xe9,1\n", unfiltered()).unwrap_err();
    assert!(error.contains("line 2: not UTF-8"), "{error}");
    let error = read_csv(format!("{HEADER}u,i1,One,1,good\n"), RawConfig { min_rating: Some(1.0), ..unfiltered() })
        .unwrap_err();
    assert!(error.contains("line 2, column `rating`") && error.contains("good"), "{error}");
}

#[test]
fn a_record_without_end_is_refused_and_not_held_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let endless = format!("{HEADER}{REST}u,i1,\"{}", "x".repeat(65 << 20));
    write(dir.path(), "purchases.csv.gz", &endless);
    let error =
        Interactions::read(&dir.path().join("purchases.csv.gz"), &options(unfiltered())).unwrap_err().to_string();
    assert!(error.contains("line 6") && error.contains("unclosed quote"), "{error}");
}

#[test]
fn histories_may_be_as_long_as_one_likes_and_have_at_least_one_choice() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "purchases.csv", &format!("{HEADER}{REST}"));
    let path = dir.path().join("purchases.csv");
    let survey = |max_history| Interactions::survey(&path, &ReadOptions { max_history, ..options(unfiltered()) });
    assert!(survey(0).unwrap_err().to_string().contains("max_history"));
    assert_eq!(survey(usize::MAX).unwrap().unwrap().history_lengths, [1, 1, 1]);
}

#[test]
fn a_column_may_be_both_id_and_title() {
    let rows = |columns: [&str; 3]| {
        let item = |at: usize| ["One", "Two", "Three", "Four"][at];
        (0..4)
            .map(|at| {
                format!(
                    "{{\"{}\": \"u\", \"{}\": \"{}\", \"{}\": {at}}}\n",
                    columns[0],
                    columns[1],
                    item(at),
                    columns[2]
                )
            })
            .collect::<String>()
    };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "events.jsonl", &rows(["user_id", "name", "timestamp"]));
    let name = || Some("name".to_owned());
    let raw = RawConfig { item_column: name(), title_column: name(), ..unfiltered() };
    let data = Interactions::read(&dir.path().join("events.jsonl"), &options(raw)).unwrap();
    assert_eq!(titles(&data), ["One", "Two", "Three", "Four"]);
}

#[test]
fn files_that_are_cut_off_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        Interactions::read(&path, &options(unfiltered())).unwrap_err().to_string()
    };
    let record =
        |at| format!("{{\"user_id\": \"u\", \"item_id\": \"i{at}\", \"title\": \"T\", \"timestamp\": 1400000000}}\n");
    let text: String = (0..96).map(record).collect();
    let packed = pack(&text);
    let error = read("a.jsonl.gz", &packed[..packed.len() / 2]);
    assert!(error.contains("a.jsonl.gz, line ") && error.contains("truncated"), "{error}");
    let error = read("b.jsonl.gz", &pack(&text[..text.len() - 30]));
    assert!(error.contains("b.jsonl.gz, line 96") && error.contains("truncated"), "{error}");
    let error = read("c.jsonl", b"{\"user_id\": \"u\"}\n[]\n");
    assert!(error.contains("c.jsonl, line 2"), "{error}");
    let error = read("d.parquet", b"PAR1 and nothing else");
    assert!(error.contains("d.parquet: not a complete Parquet file"), "{error}");
    let error = read("e.csv.gz", b"not packed");
    assert!(error.contains("e.csv.gz, line 1") && error.contains("decompressed"), "{error}");
    let error = read("f.txt", b"x");
    assert!(error.contains("f.txt") && error.contains(".csv"), "{error}");
}
