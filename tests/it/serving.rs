//! What the server answers and refuses.

use latentr3::recommend::{Chosen, Query, Recommender, RecommenderConfig};
use serde_json::{Value, json};

use crate::common::program::refuse;
use crate::common::server::{Running, ids};
use crate::fitting::shop;

#[test]
fn answers_are_the_librarys() {
    let server = Running::start(&[]);
    let recommender = Recommender::load(&RecommenderConfig::new(shop().join("shop"))).unwrap();
    let expected = |history: &[&str], top| {
        let history = history.iter().map(|id| Chosen::Id(id.to_string())).collect();
        let query = Query { history, top, exclude_history: true, ..Default::default() };
        let answer = recommender.recommend(&[query]).unwrap().remove(0);
        answer.recommendations.into_iter().map(|one| one.items[0].clone()).collect::<Vec<_>>()
    };
    let (status, one) = server.post(&json!({ "history": ["S-1", "S-7"], "top": 5 }));
    assert_eq!((status, ids(&one)), (200, expected(&["S-1", "S-7"], 5)));
    assert_eq!(one["fingerprint"].as_str().unwrap().len(), 64);
    let (_, many) = server.post(&json!({ "histories": [["S-2"], [], ["S-3", "S-9"]] }));
    let lists: Vec<_> = many["lists"].as_array().unwrap().iter().map(ids).collect();
    assert_eq!(lists, [expected(&["S-2"], 10), expected(&[], 10), expected(&["S-3", "S-9"], 10)]);
    assert_eq!(many["lists"][1]["model"], "popularity");
    let (_, some) = server.post(&json!({ "titles": ["turquoise pen"], "only": ["S-4", "S-5"], "exclude": ["S-4"] }));
    assert_eq!(ids(&some), ["S-5"]);
    let (_, again) = server.post(&json!({ "history": ["S-1"], "top": 37.0, "exclude_history": false }));
    assert!(ids(&again).contains(&"S-1".to_owned()));

    let (_, items) = server.get("/v1/items?q=blue%20notebok&limit=3");
    assert_eq!(items["items"][0]["title"], "blue notebook");
    let (_, info) = server.get("/info");
    assert_eq!(
        (info["items"].as_u64(), info["model"].as_str()),
        (Some(37), Some(recommender.own().to_string().as_str()))
    );
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(server.get(path).0, 200);
    }
    let (status, page) = server.request("GET", "/", &[], "");
    assert!(status == 200 && page.contains("Recommended next") && !page.contains("http://"), "{page}");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_field() {
    let server = Running::start(&[]);
    let shop = shop().join("shop").to_str().unwrap().to_owned();
    // As an empty variable of the environment gives it.
    let error = refuse(&["serve", "--model", &shop, "--api-key", "", "--port", "0"]);
    assert!(error.contains("the API key must not be empty"), "{error}");
    let long: Vec<&str> = vec!["S-1"; 1001];
    for (body, status, field) in [
        (json!({ "history": ["nothing"] }), 404, "history"),
        (json!({ "history": ["S-1"], "exclude": ["nothing"] }), 404, "exclude"),
        (json!({ "history": ["S-1"], "only": ["nothing"] }), 404, "only"),
        (json!({ "history": ["S-1"], "top": 0 }), 422, "top"),
        (json!({ "history": ["S-1"], "top": 101 }), 422, "top"),
        (json!({ "history": ["S-1"], "top": null }), 422, "top"),
        (json!({ "history": ["S-1", 2] }), 422, "history[1]"),
        (json!({ "history": long }), 422, "history"),
        (json!({ "histories": [["S-1"]], "titles": ["a"] }), 409, "histories"),
    ] {
        let (found, answer) = server.post(&body);
        assert_eq!((found, answer["error"]["field"].as_str()), (status, Some(field)), "{answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().starts_with(&format!("{field}: ")), "{answer}");
    }
    for body in
        [json!({ "history": "S-1" }), json!({ "historie": [] }), json!([]), json!({ "top": -1 }), json!({ "top": 1.5 })]
    {
        assert_eq!(server.post(&body).0, 422, "{body}");
    }
    let json = "Content-Type: application/json";
    let large = format!("{{\"titles\": [\"{}\"]}}", "x".repeat(2 << 20));
    for (method, path, headers, body, status) in [
        ("POST", "/v1/recommend", vec![json], "", 400),
        ("POST", "/v1/recommend", vec![json], "{", 400),
        ("POST", "/v1/recommend", vec![], "{}", 415),
        ("POST", "/v1/recommend", vec!["Content-Type: text/plain"], "{}", 415),
        ("POST", "/v1/recommend", vec![json], &large, 413),
        ("PUT", "/v1/recommend", vec![json], "{}", 405),
        ("DELETE", "/v1/items", vec![], "", 405),
        ("GET", "/nothing", vec![], "", 404),
        ("GET", "/v1/items?limit=0", vec![], "", 422),
        ("GET", "/v1/items?limit=many", vec![], "", 400),
        ("GET", "/info", vec!["Host: example.org"], "", 403),
        ("GET", "/info", vec!["Origin: http://example.org"], "", 403),
        ("POST", "/v1/recommend", vec![json, "Origin: null"], "{}", 403),
    ] {
        let (found, answer) = server.request(method, path, &headers, body);
        assert_eq!(found, status, "{method} {path} {headers:?}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    let own = format!("Origin: http://{}", server.address);
    assert_eq!(server.request("GET", "/info", &[&own], "").0, 200);

    let closed = Running::start(&["--api-key", "secret"]);
    assert_eq!(closed.get("/info").0, 401);
    assert_eq!(closed.request("GET", "/info", &["Authorization: Bearer secre7"], "").0, 401);
    assert_eq!(closed.request("GET", "/info", &["Authorization: Bearer secret"], "").0, 200);
    assert_eq!(closed.get("/health/live").0, 200);
}

#[test]
fn some_items_or_texts_are_ranked() {
    let server = Running::start(&[]);
    let rerank = |body: &Value| server.post_to("/v1/rerank", body);
    let indices = |answer: &Value| -> Vec<u64> {
        answer["results"].as_array().unwrap().iter().map(|one| one["index"].as_u64().unwrap()).collect()
    };
    let items = ["S-20", "S-3", "S-12", "S-30"];
    let (status, ranked) = rerank(&json!({ "history": ["S-0", "S-6"], "items": items }));
    let (_, list) = server.post(&json!({ "history": ["S-0", "S-6"], "only": items, "exclude_history": false }));
    let order: Vec<&str> = indices(&ranked).into_iter().map(|index| items[index as usize]).collect();
    assert_eq!((status, order), (200, ids(&list).iter().map(String::as_str).collect()));
    let scores: Vec<f64> =
        ranked["results"].as_array().unwrap().iter().map(|one| one["relevance_score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    // As rerankers of texts are asked.
    let (status, texts) = rerank(&json!({
        "model": "any", "query": "red pen\nred notebook", "documents": ["blue vase", "red lamp", "green hat"], "top_n": 2,
        "return_documents": true
    }));
    assert_eq!((status, indices(&texts).len()), (200, 2), "{texts}");
    assert!(texts["results"][0]["document"].is_string());
    // An empty text has nothing to be ranked by.
    let (_, empty) = rerank(&json!({ "query": "red pen", "documents": ["", "red lamp"] }));
    assert_eq!((indices(&empty), empty["results"][1]["relevance_score"].as_f64()), (vec![1, 0], Some(0.0)));
    for (body, status, field) in [
        (json!({}), 422, None),
        (json!({ "items": [] }), 422, Some("items")),
        (json!({ "history": ["S-0"], "items": ["nothing"] }), 404, Some("items")),
        (json!({ "history": ["S-0"], "documents": ["a"] }), 422, Some("history")),
        (json!({ "query": "red pen", "documents": [] }), 422, Some("documents")),
        (json!({ "query": " ", "documents": ["a"] }), 422, Some("query")),
        (json!({ "query": "red pen", "documents": ["word ".repeat(5000)] }), 422, Some("documents")),
        (json!({ "query": "red pen", "items": ["S-1"], "documents": ["a"] }), 422, Some("items")),
        (json!({ "history": ["S-0"], "items": ["S-1"], "top_n": 0 }), 422, Some("top_n")),
    ] {
        let (found, answer) = rerank(&body);
        assert_eq!((found, answer["error"]["field"].as_str()), (status, field), "{body}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.contains("variant")), "{answer}");
    }
}

#[test]
fn operators_get_metrics_a_log_and_a_description() {
    let server = Running::start(&[]);
    for _ in 0..3 {
        server.post(&json!({ "history": ["S-1"] }));
    }
    let (status, _) = server.request("GET", "/nothing", &["X-Request-Id: mine-1"], "");
    assert_eq!(status, 404);
    let (_, metrics) = server.request("GET", "/metrics", &[], "");
    for line in [
        "latentr3_requests_total{route=\"/v1/recommend\",status=\"200\"} 3",
        "latentr3_requests_total{route=\"other\",status=\"404\"} 1",
        "latentr3_request_seconds_count{route=\"/v1/recommend\"} 3",
        "latentr3_waiting_requests 0",
        "latentr3_items 37",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    let (_, description) = server.get("/openapi.json");
    assert_eq!(description["openapi"].as_str().map(|version| &version[..2]), Some("3."));
    for route in ["/v1/recommend", "/v1/rerank", "/v1/items", "/info", "/metrics", "/admin/reload", "/health/live"] {
        assert!(description["paths"][route].is_object(), "{route}");
    }
    let log = server.log.lock().unwrap().clone();
    let lines: Vec<Value> = log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_id = lines.iter().find(|line| line["fields"]["id"] == "mine-1").unwrap();
    assert_eq!((of_id["fields"]["status"].as_u64(), of_id["level"].as_str()), (Some(404), Some("INFO")));
}
