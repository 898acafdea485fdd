//! The server, asked by plain sockets: answers, refusals, many clients at once, and broken ones beside good ones.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use latentr3::recommend::{Chosen, Query, Recommender, RecommenderConfig};
use serde_json::{Value, json};

use crate::adding::copy_of_shop;
use crate::fitting::shop;

/// A server of its own, ended with the test.
struct Running {
    child: Child,
    address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(more: &[&str]) -> Self {
        Self::of(&shop().join("shop"), more)
    }

    fn of(model: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_latentr3"))
            .args(["serve", "--port", "0", "--model", model.to_str().unwrap()])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        lines.read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        assert!(line.contains("listening"), "{line}");
        let log = Arc::new(Mutex::new(Vec::new()));
        let to = log.clone();
        std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(|line| to.lock().unwrap().push(line)));
        Self { child, address, log }
    }

    /// Sends bytes and reads the status and the body of the answer.
    fn send(&self, request: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A server that refuses early may close before it has read all.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    fn request(&self, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            text += &format!("Host: {}\r\n", self.address);
        }
        headers.iter().for_each(|header| text += &format!("{header}\r\n"));
        self.send(format!("{text}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    }

    fn post(&self, body: &Value) -> (u16, Value) {
        self.post_to("/v1/recommend", body)
    }

    fn post_to(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.request("POST", path, &["Content-Type: application/json"], &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.request("GET", path, &[], "");
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }
}

fn ids(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

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
    let long: Vec<&str> = vec!["S-1"; 1001];
    for (body, status, field) in [
        (json!({ "history": ["nothing"] }), 404, "history"),
        (json!({ "history": ["S-1"], "exclude": ["nothing"] }), 404, "exclude"),
        (json!({ "history": ["S-1"], "only": ["nothing"] }), 404, "only"),
        (json!({ "history": ["S-1"], "top": 0 }), 422, "top"),
        (json!({ "history": ["S-1"], "top": 101 }), 422, "top"),
        (json!({ "history": long }), 422, "history"),
        (json!({ "histories": [["S-1"]], "titles": ["a"] }), 409, "histories"),
    ] {
        let (found, answer) = server.post(&body);
        assert_eq!((found, answer["error"]["field"].as_str()), (status, Some(field)), "{answer}");
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
fn many_clients_get_what_each_gets_alone_and_broken_ones_harm_nobody() {
    let server = Running::start(&[]);
    let body = |at: usize| json!({ "history": [format!("S-{}", at % 36), format!("S-{}", at * 7 % 36)], "top": 5 });
    let alone: Vec<Vec<String>> = (0..36).map(|at| ids(&server.post(&body(at)).1)).collect();
    std::thread::scope(|scope| {
        for client in 0..32 {
            let (server, alone) = (&server, &alone);
            scope.spawn(move || {
                for at in 0..10 {
                    let at = (client * 5 + at) % 36;
                    let (status, answer) = server.post(&body(at));
                    assert_eq!((status, ids(&answer)), (200, alone[at].clone()));
                }
            });
        }
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for at in 0..125 {
                    let broken: &[u8] = match (client + at) % 5 {
                        0 => b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{",
                        1 => b"\x00\xff\xfe garbage\r\n\r\n",
                        2 => b"POST /v1/recommend HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                        3 => b"GET / HTTP/9.9\r\n\r\n",
                        _ => b"GET",
                    };
                    let mut stream = TcpStream::connect(&server.address).unwrap();
                    let _ = stream.write_all(broken);
                    // Breaks off.
                }
            });
        }
    });
    // Nor does a body of ten megabytes.
    let (status, _) =
        server.request("POST", "/v1/recommend", &["Content-Type: application/json"], &" ".repeat(10 << 20));
    assert!([0, 413].contains(&status), "{status}");
    // A head that never ends holds up nobody.
    let _slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    assert_eq!(ids(&server.post(&body(3)).1), alone[3]);
}

#[cfg(unix)]
#[test]
fn a_server_that_is_asked_to_end_answers_first() {
    let mut server = Running::start(&[]);
    let body = json!({ "histories": vec![["S-1", "S-2"]; 200] }).to_string();
    let address = server.address.clone();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = format!("POST /v1/recommend HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n");
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        String::from_utf8_lossy(&start).into_owned()
    });
    std::thread::sleep(Duration::from_millis(300));
    Command::new("kill").args(["-INT", &server.child.id().to_string()]).status().unwrap();
    assert_eq!(client.join().unwrap(), "HTTP/1.1 200");
    assert!(server.child.wait().unwrap().success());
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
        (json!({ "history": ["S-0"], "documents": ["a"] }), 422, None),
        (json!({ "query": "red pen", "documents": [] }), 422, Some("documents")),
        (json!({ "query": " ", "documents": ["a"] }), 422, Some("query")),
        (json!({ "query": "red pen", "documents": ["word ".repeat(5000)] }), 422, Some("documents")),
        (json!({ "query": "red pen", "items": ["S-1"], "documents": ["a"] }), 422, None),
        (json!({ "history": ["S-0"], "items": ["S-1"], "top_n": 0 }), 422, Some("top_n")),
    ] {
        let (found, answer) = rerank(&body);
        assert_eq!((found, answer["error"]["field"].as_str()), (status, field), "{body}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.contains("variant")), "{answer}");
    }
}

#[test]
fn an_item_that_was_added_is_there_at_once_and_after_a_kill() {
    let folder = copy_of_shop();
    let shop = folder.path().join("shop");
    let mut server = Running::of(&shop, &[]);
    let (status, answer) =
        server.post_to("/v1/items", &json!({ "items": [{ "id": "N-1", "title": "turquoise vase" }] }));
    assert_eq!((status, answer["added"].as_u64(), answer["items"].as_u64()), (200, Some(1), Some(38)), "{answer}");
    let is_there = |server: &Running| {
        let (_, found) = server.get("/v1/items?q=turquoise");
        assert_eq!(found["items"][0]["id"], "N-1");
        let (_, list) = server.post(&json!({ "history": ["S-1"], "only": ["N-1"] }));
        assert_eq!((ids(&list), &list["fingerprint"]), (vec!["N-1".to_owned()], &answer["fingerprint"]));
    };
    is_there(&server);
    for (body, status) in [
        (json!({ "items": [{ "id": "N-1", "title": "turquoise vase" }] }), 200),
        (json!({ "items": [{ "id": "N-1", "title": "another" }] }), 409),
        (json!({ "items": [{ "id": "N-2", "title": " " }] }), 422),
        (json!({ "items": [{ "id": "", "title": "a" }] }), 422),
        (json!({ "items": [{ "id": "N-2" }] }), 422),
        (json!({}), 422),
    ] {
        assert_eq!(server.post_to("/v1/items", &body).0, status, "{body}");
    }
    // Under load.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let address = server.address.clone();
            scope.spawn(move || {
                for _ in 0..50 {
                    if let Ok(mut stream) = TcpStream::connect(&address) {
                        let body = "{\"history\": [\"S-1\"]}";
                        let head =
                            "POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
                        let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
                        let _ = stream.read(&mut [0; 64]);
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        server.child.kill().unwrap();
    });
    is_there(&Running::of(&shop, &[]));
}

#[cfg(unix)]
#[test]
fn what_is_served_is_replaced_without_a_lost_or_a_mixed_answer() {
    let folder = copy_of_shop();
    let shop = folder.path().join("shop");
    let server = Running::of(&shop, &[]);
    let body = json!({ "history": ["S-1", "S-7"], "top": 50 });
    let done = AtomicBool::new(false);
    // The list of each fingerprint: an answer is of one of them, and never of two.
    let seen: Mutex<BTreeMap<String, Vec<String>>> = Mutex::default();
    let ask = || {
        let (status, answer) = server.post(&body);
        assert_eq!(status, 200, "{answer}");
        let fingerprint = answer["fingerprint"].as_str().unwrap().to_owned();
        let mut seen = seen.lock().unwrap();
        assert_eq!(seen.entry(fingerprint).or_insert_with(|| ids(&answer)), &ids(&answer));
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    ask();
                }
            });
        }
        for at in 0..4 {
            let items = json!({ "items": [{ "id": format!("N-{at}"), "title": format!("vase number {at}") }] });
            assert_eq!(server.post_to("/v1/items", &items).0, 200);
            ask();
        }
        // From without: the folder has changed, and the server is told.
        std::fs::remove_file(shop.join("added.jsonl")).unwrap();
        let (status, answer) = server.post_to("/admin/reload", &json!({}));
        assert_eq!(status, 200, "{answer}");
        ask();
        let shop = shop.to_str().unwrap();
        crate::common::program::succeed(&["add-items", "--model", shop, "--id", "N-0", "--title", "vase number 0"]);
        Command::new("kill").args(["-HUP", &server.child.id().to_string()]).status().unwrap();
        let has_it = || server.get("/v1/items?q=vase%20number").1["items"].to_string().contains("N-0");
        (0..200).find(|_| {
            std::thread::sleep(Duration::from_millis(50));
            has_it()
        });
        assert!(has_it());
        done.store(true, Ordering::Relaxed);
    });
    let lists = seen.into_inner().unwrap();
    assert_eq!(lists.values().map(Vec::len).collect::<std::collections::BTreeSet<_>>(), [35, 36, 37, 38, 39].into());
    // A folder that cannot be read leaves what was there.
    std::fs::write(shop.join("shop.json"), "{").unwrap();
    assert_eq!(server.post_to("/admin/reload", &json!({})).0, 500);
    assert_eq!(server.post(&body).0, 200);
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
