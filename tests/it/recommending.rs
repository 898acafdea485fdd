//! Recommendations as a program asks for them: by id or title, for one user or for all of a file, without what is left
//! out, on any number of threads.

use std::path::Path;

use crate::common::program::{Workshop, refuse, run, succeed};
use latentr3::recommend::{Answer, Chosen, Query, Recommender, RecommenderConfig};
use serde_json::{Value, json};

fn config(w: &Workshop) -> RecommenderConfig {
    RecommenderConfig { data: Some(w.path("prepared").into()), ..RecommenderConfig::new(w.path("base")) }
}

fn ids(ids: &[&str]) -> Vec<Chosen> {
    ids.iter().map(|id| Chosen::Id(id.to_string())).collect()
}

#[test]
fn a_list_does_not_depend_on_who_else_asks_nor_on_the_thread() {
    let w = Workshop::new();
    let recommender = Recommender::load(&config(&w)).unwrap();
    let items: Vec<String> = recommender.catalog().catalog.items().iter().map(|item| item.id.clone()).collect();
    let query = |at: usize| Query {
        history: vec![Chosen::Id(items[at % items.len()].clone()), Chosen::Id(items[(at + 1) % items.len()].clone())],
        top: if at.is_multiple_of(3) { 3 } else { 12 },
        exclude_history: at.is_multiple_of(2),
        ..Default::default()
    };
    let queries: Vec<Query> = (0..40).map(query).collect();
    let together = recommender.recommend(&queries).unwrap();
    std::thread::scope(|scope| {
        for (query, Answer { recommendations: list, .. }) in queries.iter().zip(&together) {
            let recommender = &recommender;
            scope.spawn(move || {
                let alone = recommender.recommend(std::slice::from_ref(query)).unwrap().remove(0).recommendations;
                let named = |list: &[latentr3::recommend::Recommendation]| {
                    list.iter().map(|one| (one.rank, one.items.clone())).collect::<Vec<_>>()
                };
                assert_eq!(named(&alone), named(list));
                for (alone, other) in alone.iter().zip(list) {
                    assert!((alone.score - other.score).abs() < 1e-4);
                }
            });
        }
    });
    for (query, Answer { recommendations: list, .. }) in queries.iter().zip(&together) {
        assert!(list.len() <= query.top);
        for id in list.iter().flat_map(|one| &one.items) {
            assert!(!query.exclude_history || !query.history.contains(&Chosen::Id(id.clone())), "{id}");
        }
    }
}

#[test]
fn what_is_left_out_is_not_recommended_and_what_is_asked_for_is() {
    let w = Workshop::new();
    let recommender = Recommender::load(&config(&w)).unwrap();
    let catalog: Vec<String> = recommender.catalog().catalog.items().iter().map(|item| item.id.clone()).collect();
    let list = |query: &Query| -> Vec<String> {
        let answer = recommender.recommend(std::slice::from_ref(query)).unwrap().remove(0);
        answer.recommendations.into_iter().flat_map(|one| one.items).collect()
    };
    let all = Query { history: ids(&[&catalog[0]]), top: 50, ..Default::default() };
    assert_eq!(list(&all).len(), catalog.len());
    let some = Query { only: Some(catalog[2..5].to_vec()), exclude: vec![catalog[3].clone()], ..all.clone() };
    let mut found = list(&some);
    found.sort();
    let mut expected = [catalog[2].clone(), catalog[4].clone()];
    expected.sort();
    assert_eq!(found, expected);
    assert!(list(&Query { only: Some(Vec::new()), ..all.clone() }).is_empty());
    let rest: Vec<String> = list(&all).into_iter().filter(|id| *id != catalog[0]).collect();
    assert_eq!(list(&Query { exclude_history: true, ..all.clone() }), rest);

    let refused = |query: Query| recommender.recommend(&[query]).unwrap_err().to_string();
    assert!(refused(Query { history: ids(&["nothing"]), ..all.clone() }).starts_with("history: "));
    assert!(refused(Query { exclude: vec!["nothing".into()], ..all.clone() }).starts_with("exclude: "));
    assert!(refused(Query { only: Some(vec!["nothing".into()]), ..all.clone() }).starts_with("only: "));
    assert!(refused(Query { history: Vec::new(), ..all.clone() }).starts_with("history: "));
    for top in [0, 100_000] {
        assert!(refused(Query { top, ..all.clone() }).starts_with("top: "));
    }
}

#[test]
fn the_program_recommends_by_id_by_title_and_to_all_users_of_a_file() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "tuned", &["--max-steps", "2"]));
    let [model, data, json, users] = ["tuned", "prepared", "list.json", "users.jsonl"].map(|name| w.path(name));
    let catalog: Vec<Value> = String::from_utf8(w.bytes("prepared/catalog.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [id, title] = ["id", "title"].map(|field| catalog[3][field].as_str().unwrap());
    let fixed = ["recommend", "--model", &model, "--data", &data];
    let one = |more: &[&str]| {
        succeed(&[&fixed[..], &["--json", &json], more].concat());
        w.json("list.json")["recommendations"].clone()
    };
    assert_eq!(one(&["--history-id", id]), one(&["--history", title]));
    let rest = one(&["--history-id", id, "--exclude-history", "--top", "20"]);
    assert_eq!(rest.as_array().unwrap().len(), catalog.len() - 1);

    let lines: Vec<String> =
        catalog.iter().map(|item| json!({ "user": item["title"], "history": [item["id"]] }).to_string()).collect();
    std::fs::write(&users, lines.join("\n")).unwrap();
    let said = succeed(&[&fixed[..], &["--users", &users, "--top", "2"]].concat());
    let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), catalog.len());
    assert_eq!(answers[3]["user"], catalog[3]["title"]);
    let of_three = one(&["--history-id", id, "--top", "2"]);
    let names = |list: &Value| list.as_array().unwrap().iter().map(|one| one["items"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&answers[3]["recommendations"]), names(&of_three));
    let lists = w.path("lists.jsonl");
    for _ in 0..2 {
        succeed(&[&fixed[..], &["--users", &users, "--json", &lists]].concat());
    }
    assert_eq!(String::from_utf8(w.bytes("lists.jsonl")).unwrap().lines().count(), catalog.len());
    for file in ["prepared/catalog.jsonl", "list.json"] {
        let message = refuse(&[&fixed[..], &["--users", &users, "--json", &w.path(file)]].concat());
        assert!(message.contains("refusing to overwrite"), "{message}");
    }

    let strangers = w.path("strangers.jsonl");
    let with_stranger = format!("{}\n{}", lines[0], json!({ "user": "u", "history": [id, "nothing"] }));
    std::fs::write(&strangers, with_stranger).unwrap();

    // The training rows are not read, and not needed.
    std::fs::remove_file(Path::new(&data).join("train.jsonl")).unwrap();
    one(&["--history-id", id]);
    for (more, part) in [
        (vec!["--history-id", "nothing"], "history: the catalog has no item `nothing`"),
        (vec!["--users", &lists], "is not a history"),
        (vec!["--users", &strangers], "user `u`: the catalog has no item `nothing`"),
        (vec!["--history", title, "--history-id", id], "cannot be used with"),
        (vec![], "--history"),
    ] {
        let message = refuse(&[&fixed[..], &more].concat());
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_run_recommends_with_the_guide_that_its_evaluation_chose() {
    let w = Workshop::new();
    run(&w.train("sft", "base", "tuned", &["--max-steps", "2"]));
    let [model, data, json] = ["tuned", "prepared", "list.json"].map(|name| w.path(name));
    let catalog = String::from_utf8(w.bytes("prepared/catalog.jsonl")).unwrap();
    let id = serde_json::from_str::<Value>(catalog.lines().nth(3).unwrap()).unwrap()["id"].clone();
    let evaluate = ["evaluate", "--model", &model, "--data", &data, "--split", "valid", "--guidance", "transition"];
    succeed(&[&evaluate[..], &["--guidance-scale", "0,1", "--quiet"]].concat());
    let list = |more: &[&str]| {
        let fixed = ["recommend", "--model", &model, "--data", &data, "--history-id", id.as_str().unwrap()];
        succeed(&[&fixed[..], &["--json", &json, "--quiet"], more].concat());
        w.json("list.json")["recommendations"][0]["items"][0].clone()
    };
    // Everybody goes through the items in order, which counts know and this model does not.
    let next = serde_json::from_str::<Value>(catalog.lines().nth(4).unwrap()).unwrap()["id"].clone();
    assert_eq!(w.json("tuned/guidance.json")["scale"], 0.0);
    assert_eq!(list(&[]), next);
    assert_ne!(list(&["--no-guidance"]), Value::Null);
    // What was chosen on other data may not be the best on this.
    std::fs::write(w.path("prepared/template.txt"), "Another wording: {history}").unwrap();
    let fixed = ["recommend", "--model", &model, "--data", &data, "--history-id", id.as_str().unwrap()];
    assert!(
        refuse(&fixed).contains("prepared: is not the data on which the model's guidance was chosen; choose it again")
    );
    succeed(&[&fixed[..], &["--no-guidance"]].concat());
}
