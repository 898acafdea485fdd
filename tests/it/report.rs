//! The page about runs, as the program writes it.

use std::collections::HashSet;
use std::path::Path;

use crate::common::program::{GRPO, SFT, Workshop, refuse, run, succeed};
use latentr3::data::{Prepared, Split};
use latentr3::experiment::{Kept, Origin};
use latentr3::models::decode::ItemTrie;
use latentr3::models::{Objective, ObjectiveKind, device, hub};
use latentr3::report::views;

/// Runs `report` with the given names of the workshop's folder; returns the page.
fn report(w: &Workshop, runs: &[&str], more: &[&str]) -> String {
    let (paths, out) = (runs.iter().map(|name| w.path(name)).collect::<Vec<_>>(), w.path("report.html"));
    let mut args = vec!["report", "--out", &out, "--quiet"];
    args.extend(paths.iter().map(String::as_str));
    args.extend(more);
    assert_eq!(succeed(&args), "");
    let page = String::from_utf8(w.bytes("report.html")).unwrap();
    check(&page);
    page
}

/// Elements and attributes of which none brings anything from outside or runs anything.
const ELEMENTS: [&str; 48] = [
    "mark",
    "html",
    "head",
    "body",
    "header",
    "h1",
    "h2",
    "h3",
    "h4",
    "nav",
    "ul",
    "ol",
    "li",
    "a",
    "main",
    "section",
    "article",
    "footer",
    "p",
    "div",
    "span",
    "b",
    "small",
    "code",
    "bdi",
    "br",
    "wbr",
    "dl",
    "dt",
    "dd",
    "details",
    "summary",
    "figure",
    "figcaption",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "svg",
    "g",
    "path",
    "text",
    "circle",
    "title",
    "desc",
];
const ATTRIBUTES: [&str; 17] = [
    "id",
    "class",
    "style",
    "href",
    "role",
    "scope",
    "tabindex",
    "aria-label",
    "aria-labelledby",
    "viewBox",
    "d",
    "x",
    "y",
    "cx",
    "cy",
    "r",
    "text-anchor",
];

/// What holds of every page: tags that close, ids that are there once, nothing from outside, and words for every
/// picture.
fn check(page: &str) {
    // Before the style sheet only these are opened and not closed.
    let mut open = vec!["html", "head"];
    let (mut ids, mut named) = (HashSet::new(), Vec::new());
    let body = page.split_once("</style>").unwrap().1;
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("a tag that does not end: {part}"));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap();
        if !tag.ends_with('/') && !["br", "wbr"].contains(&name) {
            open.push(name);
        }
        for attribute in tag.split_inclusive('"').collect::<Vec<_>>().chunks_exact(2) {
            let value = attribute[1].trim_end_matches('"');
            let attribute = attribute[0].trim_end_matches("=\"").rsplit(' ').next().unwrap();
            assert!(ATTRIBUTES.contains(&attribute), "{tag}");
            match attribute {
                "id" => assert!(ids.insert(value), "two elements are called {value}"),
                "aria-labelledby" => named.extend(value.split(' ')),
                "href" => named.push(value.strip_prefix('#').expect("a link within the page")),
                _ => {}
            }
        }
        assert!(ELEMENTS.contains(&name), "{tag}");
        assert!(!tag.contains("//") && !tag.contains("url("), "{tag}");
        assert!(name != "th" || tag.contains("scope="), "{tag}");
        assert!(name != "svg" || (tag.contains("role=\"img\"") && tag.contains("aria-labelledby=")), "{tag}");
    }
    assert!(open.is_empty(), "{open:?} are left open");
    assert!(named.iter().all(|name| ids.contains(name)), "{named:?}");
    assert_eq!(body.matches("<table").count(), body.matches("<caption").count());
    let head = page.split_once("</style>").unwrap().0;
    assert!(["//", "url(", "@import", "<script", "<link", "src="].iter().all(|outside| !head.contains(outside)));
    assert!(!page.contains("NaN"));
}

#[test]
fn one_page_tells_of_runs_and_their_evaluations() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &SFT));
    run(&w.train("grpo", "sft", "grpo", &GRPO));
    let [grpo, data, loose] = ["grpo", "prepared", "loose.json"].map(|name| w.path(name));
    succeed(&["evaluate", "--model", &grpo, "--data", &data, "--split", "test", "--quiet"]);
    let base = w.path("base");
    succeed(&["evaluate", "--model", &base, "--data", &data, "--split", "test", "--json", &loose, "--quiet"]);
    let page = report(&w, &["sft", "grpo", "loose.json"], &[]);
    for part in
        ["Stage 1", "Stage 2", "Training loss", "Validation perplexity", "Reward", "Advantage spread", "Gradient norm"]
    {
        assert!(page.contains(part), "{part}");
    }
    for part in ["HR@k", "NDCG@k", "popularity", "HR@10 against latency", "Recommended against chosen", "test 1 ×"] {
        assert!(page.contains(part), "{part}");
    }
    for (letter, name) in [("A", "sft"), ("B", "grpo"), ("C", "loose")] {
        assert!(page.contains(&format!(">{letter}</span> <bdi>{name}</bdi>")), "{name}");
    }
    // What the thought attends to, for the three prompts that were not asked for otherwise.
    assert_eq!(page.matches("<article").count(), 3);
    assert!(page.matches("--share:1.000").count() >= 3, "each prompt has a most attended title");
    // The figure is the one that the evaluation has.
    let hit_rate = w.json("grpo/evaluations/test.json")["by_item"]["hr"]["10"].as_f64().unwrap();
    let written = format!("{hit_rate:.4}");
    assert!(page.contains(written.trim_start_matches('0')), "{written}");
    // What an experiment has kept of an evaluation is known by its figures, though its lists are gone.
    let kept = Kept {
        latentr3: "0.1.0".into(),
        command: vec!["evaluate".into()],
        origin: Origin { recipe: "any".into(), inputs: Default::default() },
        device: "flex".into(),
        machine: "any".into(),
        seconds: 1.0,
        same_as: None,
        result: w.json("grpo/evaluations/test.json"),
    };
    kept.write(w.folder.path(), "kept", false).unwrap();
    let of_kept = report(&w, &["kept.json"], &[]);
    assert!(of_kept.contains(">A</span> <bdi>kept</bdi>") && of_kept.contains("HR@10 by popularity"));
    assert!(of_kept.contains("What the lists show") && !of_kept.contains("Recommended against chosen"));
    // The same inputs make the same page, and a seed draws other prompts.
    assert_eq!(report(&w, &["sft", "grpo", "loose.json"], &[]), page);
    assert_ne!(report(&w, &["sft", "grpo", "loose.json"], &["--seed", "1"]), page);
}

#[test]
fn a_model_that_cannot_be_read_leaves_the_rest_of_the_page() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "good", &["--epochs", "1"]));
    run(&w.train("sft", "base", "bad", &["--epochs", "1"]));
    std::fs::write(w.path("bad/best/model.safetensors"), "torn").unwrap();
    let page = report(&w, &["good", "bad"], &[]);
    assert!(page.contains("whose model cannot be examined") && page.matches("<article").count() == 3);
}

#[test]
fn a_baseline_stands_beside_the_models() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &["--epochs", "1"]));
    let [sft, data, out, transition] = ["sft", "prepared", "sasrec", "transition.json"].map(|name| w.path(name));
    succeed(&["evaluate", "--model", &sft, "--data", &data, "--split", "test", "--quiet"]);
    let fixed = ["--data", &data, "--split", "test", "--quiet"];
    succeed(&[&["baseline", "sasrec", "--out", &out, "--epochs", "3", "--hidden", "8"], &fixed[..]].concat());
    succeed(&[&["baseline", "transition", "--json", &transition], &fixed[..]].concat());
    let page = report(&w, &["sft", "sasrec", "transition.json"], &[]);
    for part in [
        "Baseline: SASRec",
        "Validation NDCG@10",
        "mean cross-entropy over the catalog",
        "which is not a language model",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // How a list was made is said where others were made otherwise, unless the name says it.
    assert!(page.contains("<bdi>sft</bdi> <small>beam search, lists of 10</small>"));
    assert!(page.contains("<bdi>transition</bdi> <small>lists of 20</small>"));
    assert_eq!(page.matches("<article").count(), 3, "the prompts are looked into with the one model that thinks");
}

#[test]
fn a_run_alone_without_evaluations_or_data_still_has_a_page() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &["--epochs", "1"]));
    let page = report(&w, &["sft"], &["--examples", "0"]);
    assert!(page.contains("No evaluation was given") && page.contains("no examples were requested"));
    // Data that was moved is missed by name, and found by name.
    std::fs::rename(w.path("prepared"), w.path("moved")).unwrap();
    let page = report(&w, &["sft"], &[]);
    assert!(page.contains("Not shown") && page.contains("name it if it was moved") && page.contains("prepared"));
    let page = report(&w, &["sft"], &["--data", &w.path("moved")]);
    assert_eq!(page.matches("<article").count(), 3);
    // Other data than the run's is not mistaken for it.
    std::fs::write(w.path("moved/template.txt"), "Another wording: {history}").unwrap();
    let page = report(&w, &["sft"], &["--data", &w.path("moved")]);
    assert!(page.contains("made with other data") && !page.contains("<article"));
}

#[test]
fn hostile_names_are_text() {
    let w = Workshop::new();
    let hostile = |text: String| {
        text.replace("Title number 3", "<script>alert(3)</script>")
            .replace("Title number 4", "</title></style><img src=x onerror=alert(4)>&lt;")
            .replace("Title number 5", "\u{202e}evil\u{7}")
            .replace("u31", "<i>u31")
    };
    for file in ["info.txt", "train.csv", "valid.csv", "test.csv"] {
        let path = w.path(&format!("data/{file}"));
        std::fs::write(&path, hostile(std::fs::read_to_string(&path).unwrap())).unwrap();
    }
    let [data, out, base] = ["data", "hostile", "hostile-base"].map(|name| w.path(name));
    succeed(&["prepare", "--data", &data, "--out", &out, "--vocab-size", "300", "--quiet"]);
    crate::common::program::init_small(&base, &w.path("hostile/tokenizer.json"));
    let name = "<b onclick=x>&amp;";
    let run = w.path(name);
    succeed(&["sft", "--model", &base, "--data", &out, "--out", &run, "--epochs", "1", "--quiet"]);
    succeed(&["evaluate", "--model", &run, "--data", &out, "--split", "test", "--quiet"]);
    let page = report(&w, &[name], &["--examples", "6"]);
    for safe in [
        "&lt;script&gt;alert(3)&lt;/script&gt;",
        "&lt;/title&gt;&lt;/style&gt;&lt;img src",
        "<bdi>\u{202e}evil\u{fffd}</bdi>",
        "&lt;i&gt;u31",
        "&lt;b onclick=x&gt;&amp;amp;",
    ] {
        assert!(page.contains(safe), "{safe}");
    }
    for markup in ["<i>", "<b onclick", "\u{7}"] {
        assert!(!page.contains(markup), "{markup:?}");
    }
}

#[test]
fn what_is_damaged_is_named_with_its_line_and_no_page_is_written() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "sft", &["--epochs", "1"]));
    let [sft, data, out, part] = ["sft", "prepared", "report.html", "part.json"].map(|name| w.path(name));
    let expect = |args: &[&str], parts: &[&str]| {
        let message = refuse(&[&["report", "--out", &out, "--quiet"], args].concat());
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
        assert!(!Path::new(&out).exists());
    };
    expect(&[&w.path("nowhere")], &["nowhere", "no such run folder"]);
    expect(&[&w.path("base")], &["base", "run.json"]);
    expect(&[&w.path("data/info.txt")], &["info.txt:1", "not an evaluation result"]);
    expect(&[&sft, "--data", &w.path("nowhere")], &["nowhere"]);
    let evaluate = ["evaluate", "--model", &sft, "--data", &data, "--split", "test", "--quiet", "--json", &part];
    succeed(&[&evaluate[..], &["--shard", "1/2"]].concat());
    expect(&[&part], &["part.json", "1/2", "latentr3 merge"]);
    succeed(&evaluate);
    let text = String::from_utf8(w.bytes("part.json")).unwrap();
    let lines = text.lines().count();
    std::fs::write(&part, text.replace("\"users\": 6", "\"users\": six")).unwrap();
    let line = text.lines().position(|line| line.contains("\"users\": 6")).unwrap() + 1;
    expect(&[&part], &[&format!("part.json:{line}")]);
    std::fs::write(&part, text.lines().take(lines / 2).collect::<Vec<_>>().join("\n")).unwrap();
    expect(&[&part], &[&format!("part.json:{}", lines / 2)]);

    let damage = |name: &str, content: &[u8], parts: &[&str]| {
        let (path, before) = (w.path(name), w.bytes(name));
        std::fs::write(&path, content).unwrap();
        expect(&[&sft], parts);
        std::fs::write(&path, before).unwrap();
    };
    let log = w.bytes("sft/metrics.jsonl");
    let second = log.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    damage("sft/metrics.jsonl", &[&log[..second], b"{\"step\": \n", &log[second..]].concat(), &["metrics.jsonl:2"]);
    damage("sft/metrics.jsonl", &[&log[..], b"{\"step\": 0}\n"].concat(), &["metrics.jsonl:", "comes after"]);
    damage("sft/run.json", b"{", &["run.json"]);
    damage("sft/last/progress.json", b"{}", &["progress.json"]);
    damage("sft/evaluations/test.json", b"{\n}", &["test.json:2"]);
    std::fs::rename(w.path("sft/metrics.jsonl"), w.path("sft/elsewhere")).unwrap();
    expect(&[&sft], &["metrics.jsonl"]);
    std::fs::rename(w.path("sft/elsewhere"), w.path("sft/metrics.jsonl")).unwrap();
    let message = refuse(&["report", &sft, "--out", &w.path("nowhere/report.html")]);
    assert!(message.contains("nowhere/report.html") && message.contains("no such folder"), "{message}");
    // A record that was damaged or cut off counts for nothing and spoils no other.
    let log = w.bytes("sft/evaluations/log.jsonl");
    std::fs::write(w.path("sft/evaluations/log.jsonl"), [&log[..], b"\xff{]\n{\"split\": \"te"].concat()).unwrap();
    let prepared = w.path("prepared");
    let part = ["--data", &prepared, "--split", "test", "--shard", "1/2", "--quiet"];
    succeed(&[&["evaluate", "--model", &sft], &part[..]].concat());
    let log = String::from_utf8_lossy(&w.bytes("sft/evaluations/log.jsonl")).into_owned();
    assert!(log.ends_with("}\n") && log.lines().last().unwrap().contains("\"shard\":\"1/2\""), "{log}");
    assert!(report(&w, &["sft"], &[]).contains("sft"));
}

#[test]
fn the_parts_of_a_prompt_share_the_thoughts_attention_out_among_them() {
    let w = Workshop::new();
    let prepared = Prepared::load(Path::new(&w.path("prepared"))).unwrap();
    let objective = Objective::new(ObjectiveKind::Vocabulary, ItemTrie::new(&prepared.item_tokens).unwrap());
    let rows: Vec<_> = prepared.rows.get(Split::Test).iter().collect();
    let base = hub::load(Path::new(&w.path("base")), &device("flex").unwrap()).unwrap();
    for thoughts in [1, 3] {
        let kind = base.source.kind();
        let model = base.clone().with_thoughts(kind, thoughts, 0).unwrap();
        let seen = views(&model, &prepared, &objective, &rows).unwrap().unwrap();
        assert_eq!(seen.len(), rows.len());
        for (row, view) in rows.iter().zip(seen) {
            let attended = view.attended;
            let places: Vec<usize> = attended.titles.iter().map(|(place, _)| *place).collect();
            assert_eq!(places, (0..row.history.len()).collect::<Vec<_>>());
            let titles: f64 = attended.titles.iter().map(|(_, share)| share).sum();
            let all = attended.before + titles + attended.after + attended.thoughts;
            assert!((all - 1.0).abs() < 1e-5, "{all}");
            assert!(attended.before > 0.0 && titles > 0.0 && attended.after > 0.0);
            assert_eq!(attended.thoughts > 0.0, thoughts > 1);
        }
    }
    let plain = base.with_thoughts(latentr3::models::ThoughtKind::LastHidden, 1, 0).unwrap();
    assert_eq!(views(&plain, &prepared, &objective, &rows).unwrap(), None);
}
