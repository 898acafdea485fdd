//! From a file of orders to a recommender: what columns are taken for, that the best model is chosen, and that what it
//! recommends is what was asked for.

use std::fmt::Write;
use std::path::Path;
use std::sync::OnceLock;

use crate::common::program::{latentr3, refuse, succeed};
use latentr3::data::{Interactions, PrepareConfig, RawConfig, SplitKind};
use latentr3::fit::{Candidate, Shop};
use latentr3::recommend::{Chosen, Query, Recommender, RecommenderConfig};
use serde_json::Value;

const COLORS: [&str; 6] = ["red", "blue", "green", "black", "white", "grey"];
const THINGS: [&str; 6] = ["pen", "notebook", "lamp", "chair", "desk", "cup"];

/// A shop whose customers buy one thing in one color after the other; every fifth choice is another.
fn write_shop(folder: &Path, customers: usize) {
    let mut items = "sku,product_name,price\n".to_owned();
    let title = |item: usize| format!("{} {}", COLORS[item % 6], THINGS[item / 6]);
    (0..36).for_each(|item| writeln!(items, "S-{item},{},1.5", title(item)).unwrap());
    items += "S-new,purple vase,9\nS-untitled,,2\n";
    std::fs::write(folder.join("items.csv"), items).unwrap();
    let mut orders = "order_no,customer_id,customer_name,product_code,qty,ordered_at\n".to_owned();
    for customer in 0..customers {
        let count = [1, 2, 4, 5, 6, 7][customer % 6];
        let mut item = customer * 7 % 36;
        for at in 0..count {
            let day = (customer * 3 + at) % 280;
            writeln!(
                orders,
                "{customer}{at},C{customer},Name {customer},S-{item},1,2024-{:02}-{:02} 10:{at:02}",
                day / 28 + 1,
                day % 28 + 1
            )
            .unwrap();
            item = if (customer + at) % 5 == 0 { (item * 5 + 3) % 36 } else { (item + 6) % 36 };
        }
    }
    std::fs::write(folder.join("orders.csv"), orders).unwrap();
}

/// A folder with orders, items and the shop that is made of them, once for all tests.
pub fn shop() -> &'static Path {
    static SHOP: OnceLock<tempfile::TempDir> = OnceLock::new();
    SHOP.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        write_shop(folder.path(), 150);
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let [orders, items, out, json] = ["orders.csv", "items.csv", "shop", "shop.json"].map(path);
        let args = ["fit", "--data", &orders, "--items", &items, "--out", &out, "--minutes", "0.3", "--json", &json];
        let said = succeed(&args);
        assert!(said.contains("validation NDCG@10") && said.contains("the recommender is in"), "{said}");
        folder
    })
    .path()
}

#[test]
fn columns_are_found_by_their_names_and_their_content() {
    let folder = tempfile::tempdir().unwrap();
    write_shop(folder.path(), 30);
    let orders = folder.path().join("orders.csv");
    let given = RawConfig { items: Some(folder.path().join("items.csv")), ..Default::default() };
    let guess = |given: &RawConfig| Interactions::guess(&orders, given).unwrap().unwrap();
    let found = guess(&given);
    let names = |raw: &RawConfig| {
        [&raw.user_column, &raw.item_column, &raw.time_column, &raw.title_column, &raw.catalog_column]
            .map(|name| name.clone().unwrap_or_default())
    };
    assert_eq!(names(&found), ["customer_id", "product_code", "ordered_at", "product_name", "sku"]);
    assert_eq!(found.split, Some(SplitKind::Temporal));
    let overruled = RawConfig { user_column: Some("customer_name".into()), ..given.clone() };
    assert_eq!(names(&guess(&overruled))[0], "customer_name");
    let prepare = PrepareConfig { raw: RawConfig { k_core: Some(1), ..given }, ..PrepareConfig::default() };
    let read = Interactions::read(&orders, &prepare.read_options()).unwrap().raw.unwrap().config;
    let items = Some("items.csv".into());
    assert_eq!(read, RawConfig { items, k_core: Some(1), ..found }, "`prepare` finds what `fit` does");

    // Without a file of items, with the names of well-known data sets, with nothing but ids, and with places for times.
    for (header, row, expected, split) in [
        (
            "Client,Article name,Article,Purchase date",
            "a{n},Thing {n},{n},2020-01-02",
            ["Client", "Article", "Purchase date", "Article name"],
            SplitKind::LeaveOneOut,
        ),
        (
            "userId,movieId,rating,timestamp,title",
            "{n},{n},5,88125094{n},Film {n}",
            ["userId", "movieId", "timestamp", "title"],
            SplitKind::LeaveOneOut,
        ),
        ("buyer,sku,at", "b,k{n},2020-0{n}-01T10:00:00Z", ["buyer", "sku", "at", "sku"], SplitKind::Temporal),
        (
            "customer,customer_name,item,at",
            "c{n},Ann,{n},2020-01-02",
            ["customer", "item", "at", "item"],
            SplitKind::LeaveOneOut,
        ),
        ("member,item,title,day", "m,{n},T{n},{n}", ["member", "item", "day", "title"], SplitKind::LeaveOneOut),
    ] {
        let rows: String = (1..9).map(|n| row.replace("{n}", &n.to_string()) + "\n").collect();
        std::fs::write(&orders, format!("{header}\n{rows}")).unwrap();
        let found = guess(&RawConfig::default());
        let names = names(&found);
        assert_eq!(names[..4], expected.map(String::from), "{header}");
        assert_eq!(found.split, Some(split), "{header}");
    }
    std::fs::write(&orders, "a,b,c\n1,2,3\n").unwrap();
    let error = Interactions::guess(&orders, &RawConfig::default()).unwrap_err().to_string();
    assert!(error.contains("no column `user_id`"), "{error}");
}

#[test]
fn the_best_model_on_validation_is_chosen_and_test_is_read_once() {
    let record = Shop::read(&shop().join("shop")).unwrap();
    let order =
        [Candidate::Popularity, Candidate::Transition, Candidate::Sasrec, Candidate::LanguageModel, Candidate::Guided];
    assert_eq!(record.models.iter().map(|model| model.model).collect::<Vec<_>>(), order);
    let chosen = record.model(record.chosen).unwrap();
    for model in &record.models {
        // A simpler one is worse; a better one is not better by more than chance.
        assert!(model.model >= record.chosen || model.valid.ndcg_10 < chosen.valid.ndcg_10);
        assert!(model.valid.ndcg_10 < chosen.valid.ndcg_10_interval[1]);
        assert!(model.test.users > 10 && model.test.ndcg_10_interval[0] <= model.test.ndcg_10);
        let file = shop().join(format!("shop/trial/results/{}-test.json", model.model));
        let result: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(result["by_item"]["ndcg"]["10"].as_f64(), Some(model.test.ndcg_10));
        assert_eq!(result["exclude_history"], true);
    }
    // Purchases in one order are there to be found.
    assert!(chosen.test.ndcg_10 > 2.0 * record.model(Candidate::Popularity).unwrap().test.ndcg_10);
    assert!(record.refitted);
    let json: Value = serde_json::from_slice(&std::fs::read(shop().join("shop.json")).unwrap()).unwrap();
    assert_eq!(json["chosen"], record.chosen.to_string());
    // What is served has seen every row.
    let rows = |data: &str, split: &str| {
        std::fs::read_to_string(shop().join(format!("shop/{data}/{split}.jsonl"))).unwrap().lines().count()
    };
    let all = ["train", "valid", "test"].map(|split| rows("trial/data", split)).iter().sum::<usize>();
    assert_eq!((rows("data", "train"), rows("data", "valid"), rows("data", "test")), (all, 0, 0));
}

#[test]
fn a_shop_recommends_what_was_not_bought_to_whoever_asks() {
    let recommender = Recommender::load(&RecommenderConfig::new(shop().join("shop"))).unwrap();
    let catalog: Vec<String> = recommender.catalog().catalog.items().iter().map(|item| item.id.clone()).collect();
    // An item that nobody has bought is in the catalog, one without a title is not.
    assert!(catalog.contains(&"S-new".into()) && !catalog.contains(&"S-untitled".into()));
    assert!(recommender.excludes_history());
    let id = |at: usize| catalog[at % catalog.len()].clone();
    let query = |at: usize| Query {
        history: (0..at % 4).map(|more| Chosen::Id(id(at * 5 + more))).collect(),
        top: 1 + at % 12,
        exclude_history: true,
        exclude: vec![id(at * 3)],
        only: (at.is_multiple_of(3)).then(|| (0..20).map(|more| id(at + more)).collect()),
        why: false,
    };
    let queries: Vec<Query> = (0..40).map(query).collect();
    let answers = recommender.recommend(&queries).unwrap();
    for (query, answer) in queries.iter().zip(&answers) {
        let found: Vec<&String> = answer.recommendations.iter().flat_map(|one| &one.items).collect();
        for item in &found {
            assert!(!query.exclude.contains(item) && !query.history.contains(&Chosen::Id(item.to_string())));
            assert!(query.only.as_ref().is_none_or(|only| only.contains(item)));
        }
        let may = query.only.as_ref().map_or(catalog.len(), Vec::len).saturating_sub(1 + query.history.len());
        assert!(found.len() >= query.top.min(may), "{query:?}: {found:?}");
        assert!(answer.recommendations.is_sorted_by(|a, b| a.score >= b.score));
        let expected = if query.history.is_empty() { Candidate::Popularity } else { answer.model };
        assert_eq!(answer.model, expected);
    }
    let alone = recommender.recommend(&queries[7..8]).unwrap().remove(0);
    assert_eq!(alone.recommendations[0].items, answers[7].recommendations[0].items);
    // Of a title that it has never seen only the language model knows anything.
    let unknown = Query { history: vec![Chosen::Title("turquoise pen".into())], ..Default::default() };
    let model = recommender.recommend(&[unknown]).unwrap()[0].model;
    assert!([Candidate::LanguageModel, Candidate::Guided].contains(&model), "{model}");
}

#[test]
fn the_program_recommends_from_a_shop_without_its_data() {
    let out = shop().join("shop").to_str().unwrap().to_owned();
    let json = shop().join("list.json");
    let list = |more: &[&str]| -> Value {
        succeed(&[&["recommend", "--model", &out, "--json", json.to_str().unwrap()], more].concat());
        serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap()
    };
    let of_one = list(&["--history-id", "S-0"]);
    assert_eq!(of_one["recommendations"].as_array().unwrap().len(), 10);
    let has = |list: &Value, id: &str| list["recommendations"].to_string().contains(&format!("\"{id}\""));
    assert!(!has(&of_one, "S-0"));
    assert!(has(&list(&["--history-id", "S-0", "--repeat-history", "--top", "36"]), "S-0"));
    assert_eq!(list(&[])["model"], "popularity");
    assert!(refuse(&["recommend", "--model", &out, "--history-id", "nothing"]).contains("nothing"));
    assert!(refuse(&["recommend", "--model", "nowhere", "--history-id", "S-0"]).contains("nowhere"));
}

#[test]
fn work_that_was_stopped_goes_on_and_what_is_there_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    write_shop(folder.path(), 60);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [orders, items, out] = ["orders.csv", "items.csv", "shop"].map(path);
    let args = ["fit", "--data", &orders, "--items", &items, "--out", &out, "--minutes", "0.2"];
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_latentr3"))
        .args(args)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // As soon as SASRec is done.
    let record = folder.path().join("shop/trial/sasrec.json");
    for _ in 0..1200 {
        if record.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(record.exists() && !Shop::is_one(Path::new(&out)));
    assert!(refuse(&args).contains("exists"));
    let before = std::fs::read(&record).unwrap();
    succeed(&["fit", "--resume", &out, "--minutes", "0.2"]);
    assert_eq!(std::fs::read(&record).unwrap(), before);
    assert!(Shop::read(Path::new(&out)).unwrap().models.len() == 5);
}

#[test]
fn too_little_to_try_anything_still_makes_a_shop_and_bad_input_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (orders, out) = (path("orders.csv"), path("shop"));
    let hostile = "\"a \"\"quoted\"\" <b>\u{202e}title\"";
    std::fs::write(&orders, format!("user,item,title,date\nu,1,{hostile},2020-01-01\nu,2,Two,2020-01-02\n")).unwrap();
    let said = succeed(&["fit", "--data", &orders, "--out", &out, "--minutes", "0.1"]);
    assert!(said.contains("too little data"), "{said}");
    assert!(succeed(&["recommend", "--model", &out, "--history-id", "1"]).contains("Two"));

    let other = path("other");
    let fit = |more: &[&str]| refuse(&[&["fit", "--data", &orders, "--out", &other], more].concat());
    assert!(fit(&["--minutes", "0"]).contains("minutes"));
    assert!(fit(&["--user-column", "nobody"]).contains("`nobody`"));
    assert!(fit(&["--items", &path("nowhere.csv")]).contains("nowhere.csv"));
    assert!(fit(&["--model", &path("nowhere")]).contains("nowhere"));
    assert!(refuse(&["fit", "--data", &orders, "--out", &out]).contains("exists"));
    assert!(refuse(&["fit", "--resume", &path("nothing")]).contains("nothing"));
    assert!(refuse(&["fit", "--resume", &out, "--domain", "other"]).contains("--domain"));
    let data = format!("{out}/data");
    assert!(refuse(&["baseline", "popularity", "--data", &data, "--split", "test"]).contains("no test rows"));
    // A shop that was damaged is said to be, and leads nowhere else.
    for (text, part) in [("{", "shop.json"), ("{}", "shop.json")] {
        std::fs::write(Path::new(&out).join("shop.json"), text).unwrap();
        assert!(refuse(&["recommend", "--model", &out, "--history-id", "1"]).contains(part));
    }
    assert!(!latentr3(&["fit"]).status.success());
}

#[test]
fn a_shop_goes_on_from_another_with_newer_orders_and_items() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (first, newer, items, out) = (shop().join("shop"), path("newer.csv"), path("items.csv"), path("next"));
    // Old customers buy what is new, and a new one what is old.
    let mut orders = "customer_id,product_code,ordered_at\n".to_owned();
    (0..20).for_each(|at| writeln!(orders, "C{at},S-next,2024-12-{:02} 10:00", at + 1).unwrap());
    (0..5).for_each(|at| writeln!(orders, "C-late,S-{at},2024-12-{:02} 10:00", at + 20).unwrap());
    std::fs::write(&newer, orders).unwrap();
    std::fs::write(&items, "sku,product_name\nS-next,golden pen\nS-0,red pen of old\n").unwrap();
    let from = first.to_str().unwrap();
    succeed(&["fit", "--from", from, "--data", &newer, "--items", &items, "--out", &out, "--minutes", "0.2"]);

    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    let lines = |folder: &Path, name: &str| text(&folder.join(name)).lines().count();
    let next = Path::new(&out);
    assert_eq!(lines(next, "events.csv"), lines(&first, "events.csv") + 25);
    let recommender = Recommender::load(&RecommenderConfig::new(next)).unwrap();
    let catalog = &recommender.catalog().catalog;
    assert_eq!(catalog.len(), 38);
    assert_eq!(catalog.title(catalog.position("S-next").unwrap()), "golden pen");
    // The newer title counts.
    assert_eq!(catalog.title(catalog.position("S-0").unwrap()), "red pen of old");
    // The model goes on from the one that had not seen the rows by which the first shop was tested.
    let asked: Value = serde_json::from_str(&text(&next.join("fit.json"))).unwrap();
    assert!(asked["model"].as_str().unwrap().starts_with(first.join("trial/sft").to_str().unwrap()), "{asked}");
    assert!(!next.join("trial/pretrain").exists());

    let refuses = |more: &[&str]| refuse(&[&["fit", "--data", &newer, "--out", &path("other")], more].concat());
    assert!(refuses(&["--from", from, "--model", &path("model")]).contains("model: cannot be given together"));
    assert!(refuses(&["--from", &path("nowhere")]).contains("from"));
    std::fs::remove_dir_all(path("other")).ok();
    let bare = path("bare");
    std::fs::create_dir(&bare).unwrap();
    std::fs::copy(first.join("shop.json"), Path::new(&bare).join("shop.json")).unwrap();
    assert!(refuses(&["--from", &bare]).contains("has no interactions"));
    assert!(!Path::new(&path("other")).exists());
}

#[test]
fn a_shop_is_evaluated_and_reported_as_it_was_tried() {
    let shop_folder = shop().join("shop");
    let record = Shop::read(&shop_folder).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (out, json, page) = (shop_folder.to_str().unwrap(), path("result.json"), path("report.html"));
    succeed(&["evaluate", "--model", out, "--split", "test", "--json", &json]);
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let tried = if record.chosen == Candidate::Guided { Candidate::Guided } else { Candidate::LanguageModel };
    assert_eq!(result["by_item"]["ndcg"]["10"].as_f64(), Some(record.model(tried).unwrap().test.ndcg_10));
    assert!(succeed(&["report", out, "--out", &page]).contains("evaluations: 5"));
    assert!(refuse(&["evaluate", "--model", "tests/data", "--split", "test"]).contains("--data"));
}
