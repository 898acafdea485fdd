//! The server among many clients, broken ones beside good ones, and when it is ended, killed or given another model.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::adding::copy_of_shop;
use crate::common::server::{Running, ids};

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
    let clock = Instant::now();
    assert!(server.child.wait().unwrap().success());
    assert!(clock.elapsed() < Duration::from_secs(10), "nothing is left to wait for: {:?}", clock.elapsed());
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
