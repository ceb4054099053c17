//! Strangers, smuggled requests, names that lead elsewhere.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use heat_serve::{Scope, Server, Settings, make_token};
use serde_json::json;

use crate::common::{Running, ask, connect, parse, request, rows};

/// Each route of the document and the admin plane, with every kind of token.
#[test]
fn every_route_asks_for_its_scope() {
    let (score, score_line) = make_token("app", Scope::Score).unwrap();
    let (admin, admin_line) = make_token("ops", Scope::Admin).unwrap();
    let running = Running::start(|settings, directory| {
        let path = directory.join("tokens");
        std::fs::write(&path, format!("{score_line}\n{admin_line}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        settings.tokens = Some(path);
    });
    let bearer = |token: &str| format!("Bearer {token}");
    let tokens = [None, Some(bearer("wrong")), Some(bearer(&score)), Some(bearer(&admin))];
    let mut routes: Vec<(bool, String, String, bool)> = Vec::new();
    let document =
        ask(running.data, "GET", "/openapi.json", &[("Authorization", &bearer(&score))], b"");
    for (path, operations) in document.json()["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let open = operation.get("security").is_none();
            routes.push((false, method.to_uppercase(), path.clone(), open));
        }
    }
    assert_eq!(routes.iter().filter(|(.., open)| *open).count(), 3);
    for path in ["/", "/page.js", "/page.css"] {
        routes.push((true, "GET".into(), path.into(), true));
    }
    for (method, path) in [
        ("GET", "/metrics"),
        ("GET", "/heat/v1/status"),
        ("GET", "/heat/v1/models/{model}/drift"),
        ("GET", "/heat/v1/models/{model}/recent"),
        ("POST", "/heat/v1/models/{model}/drift/reset"),
        ("POST", "/heat/v1/models/{model}/drift/acknowledge"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/{model}/load"),
    ] {
        routes.push((true, method.into(), path.into(), false));
    }
    for (on_admin, method, path, open) in routes {
        let path = path.replace("{model}", "gmm").replace("/versions/{version}", "");
        for (i, token) in tokens.iter().enumerate() {
            let headers: Vec<(&str, &str)> =
                token.iter().map(|token| ("Authorization", &**token)).collect();
            let address = if on_admin { running.admin } else { running.data };
            let answer = ask(address, &method, &path, &headers, b"");
            let want = match (open, i, on_admin) {
                (true, ..) | (_, 3, _) | (_, 2, false) => None,
                (_, 2, true) => Some(403),
                _ => Some(401),
            };
            let refused = [401, 403].contains(&answer.status);
            assert_eq!(refused.then_some(answer.status), want, "{method} {path} {i}");
            if refused {
                answer.error();
                assert_eq!(answer.header("www-authenticate").is_some(), answer.status == 401);
            }
        }
    }
}

#[test]
fn strangers_are_not_let_in_by_default() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.safetensors");
    crate::common::detector(&path, "norm", 1);
    let mut settings = Settings::default();
    settings.detectors.push(heat_serve::NamedFile { name: "d".into(), path });
    settings.listen = "0.0.0.0:0".parse().unwrap();
    let error = Server::open(settings.clone()).err().unwrap().to_string();
    assert!(error.contains("--tokens") && error.contains("--insecure"), "{error}");
    settings.insecure = true;
    Server::open(settings.clone()).unwrap();
    settings.listen = "127.0.0.1:0".parse().unwrap();
    settings.admin = Some("0.0.0.0:0".parse().unwrap());
    settings.insecure = false;
    assert!(Server::open(settings).is_err());
}

/// One reading of where a request ends: whatever follows is refused, never answered.
#[test]
fn smuggled_requests_are_not_answered() {
    let running = Running::start(|settings, _| {
        settings.header_timeout = Duration::from_millis(500);
        settings.body_timeout = Duration::from_millis(500);
    });
    let body = request(&rows(1, 1, 0.0)).to_string();
    let n = body.len();
    let inner = "GET /v2/models/knn HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = format!("{n:x}\r\n{body}\r\n0\r\n\r\n");
    let start = "POST /v2/models/gmm/infer HTTP/1.1\r\nHost: x\r\n";
    for (headers, payload) in [
        (format!("Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n"), &chunked),
        (format!("Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n"), &chunked),
        (format!("Content-Length: {n}\r\nContent-Length: {}\r\n", n + 1), &body),
        (format!("Content-Length: {n}, {}\r\n", n + 1), &body),
        (format!("Content-Length: +{n}\r\n"), &body),
        ("Transfer-Encoding: xchunked\r\n".into(), &chunked),
        ("Transfer-Encoding : chunked\r\n".into(), &chunked),
        (format!("X: 1\r\n Content-Length: {n}\r\n"), &body),
        ("Transfer-Encoding: chunked, identity\r\n".into(), &chunked),
    ] {
        let mut stream = connect(running.data);
        let sent = format!("{start}{headers}\r\n{payload}{inner}");
        stream.write_all(sent.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        // Never both: the second would be what a proxy took for a body.
        let second = text.contains("\"name\":\"knn\"");
        let first = text.contains("\"model_name\":\"gmm\"");
        assert!(!(first && second), "{headers:?}: {text}");
        assert!(!second, "{headers:?}: {text}");
    }
    running.works();
}

#[test]
fn names_lead_nowhere_else() {
    let running = Running::start(|_, _| ());
    let long = "x".repeat(8192);
    for name in [
        "..",
        "%2e%2e%2f",
        "%2e%2e",
        "gmm%00",
        "gmm%2F..",
        "%2Fetc%2Fpasswd",
        &long,
        "gmm%20",
        "GMM",
    ] {
        for path in [
            format!("/v2/models/{name}"),
            format!("/v2/models/{name}/infer"),
            format!("/v2/models/gmm/versions/{name}"),
            format!("/v2/models/m/../{name}/infer"),
        ] {
            for method in ["GET", "POST"] {
                let answer = ask(running.data, method, &path, &[], b"{}");
                let refused = [400, 404, 405, 414, 431].contains(&answer.status);
                assert!(refused, "{method} {path}: {}", answer.status);
            }
        }
    }
    // Counts have no name that a client made up.
    let metrics = running.admin("GET", "/metrics").text();
    assert!(metrics.contains("model=\"unknown\"") && !metrics.contains("passwd"), "{metrics}");
    running.works();
}

#[test]
fn other_sites_are_not_heard() {
    let running = Running::start(|settings, _| settings.admin_hosts.push("ops.example".into()));
    let host = running.admin.to_string();
    let send = |host: &str, origin: Option<&str>| {
        let mut stream = connect(running.admin);
        let origin = origin.map_or(String::new(), |o| format!("Origin: {o}\r\n"));
        let head = format!(
            "POST /v2/repository/index HTTP/1.1\r\nHost: {host}\r\n{origin}Connection: close\r\n\
             Content-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        crate::common::read(&mut stream).status
    };
    assert_eq!(send(&host, None), 200);
    assert_eq!(send("localhost:1", None), 200);
    assert_eq!(send("ops.example", Some("https://ops.example")), 200);
    assert_eq!(send(&host, Some(&format!("http://{host}"))), 200);
    assert_eq!(send("evil.example", None), 403);
    assert_eq!(send(&host, Some("https://evil.example")), 403);
    assert_eq!(send(&host, Some("null")), 403);
}

/// The page shows nothing of other hosts, and nothing may put it into a frame.
#[test]
fn the_page_is_small_and_closed() {
    let running = Running::start(|_, _| ());
    let mut bytes = 0;
    for path in ["/", "/page.js", "/page.css"] {
        let answer = running.admin("GET", path);
        assert_eq!(answer.status, 200);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"));
        assert!(!answer.text().contains("innerHTML"));
        bytes += answer.body.len();
    }
    assert!(bytes <= 60_000, "{bytes}");
}

#[test]
fn what_clients_send_stays_text() {
    let running = Running::start(|_, _| ());
    let nasty = "\r\n\u{1b}[31m\u{2028}<img onerror=alert(1)>\"'\\";
    let mut body = request(&rows(2, 1, 0.0));
    body["id"] = json!(nasty);
    let answer = running.infer("gmm", &body);
    assert_eq!(answer.json()["id"], nasty);
    assert!(!answer.head.contains('\u{1b}'));
    let mut body = request(&rows(1, 1, 0.0));
    body["inputs"][0]["name"] = json!(nasty);
    let error = running.infer("gmm", &body).error();
    assert!(!error.contains(['\r', '\n', '\u{1b}', '\u{2028}']), "{error:?}");
    // The page gets it printable.
    std::thread::sleep(Duration::from_millis(100));
    let recent = running.admin("GET", "/heat/v1/models/gmm/recent").json();
    let id = recent[0]["id"].as_str().unwrap();
    assert!(!id.contains(['\r', '\n', '\u{1b}']), "{id:?}");
    let metrics = running.admin("GET", "/metrics");
    assert!(metrics.text().lines().all(|line| line.is_empty()
        || line.starts_with('#')
        || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok())));
}

/// Heads that are too long, or have too many lines, end with an answer and the connection.
#[test]
fn heads_are_bounded() {
    let running = Running::start(|_, _| ());
    let many: String = (0..2000).map(|i| format!("X-{i}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(300_000));
    for headers in [many, long] {
        let mut stream = connect(running.data);
        let head = format!("GET /v2/health/live HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(bytes.is_empty() || [400, 431].contains(&parse(&bytes).status));
    }
    running.works();
}
