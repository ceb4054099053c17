//! Connections whose clients ask for nothing, take nothing, or are too many. HTTP/2 is written by hand,
//! as RFC 9113 and RFC 7541 (appendix A) have it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Running, binary, connect, parse, request, rows};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that is in no table.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    [&[0][..], &text(name), &text(value)].concat()
}

/// The head of a POST to that path.
fn post(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` of the static table, then `:path` (4) and `:authority` (1).
    let head = [&[0x83, 0x86, 0x04, path.len() as u8], path.as_bytes(), &[0x01, 1, b'x']].concat();
    let more: Vec<u8> = more.iter().flat_map(|(name, value)| literal(name, value)).collect();
    [head, more].concat()
}

/// Whether the other side has ended the connection.
fn has_ended(stream: &mut TcpStream) -> bool {
    let mut piece = [0; 4096];
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                use std::io::ErrorKind::{TimedOut, WouldBlock};
                return ![TimedOut, WouldBlock].contains(&error.kind());
            }
        }
    }
}

fn held(running: &Running) -> i64 {
    let status = running.admin("GET", "/heat/v1/status").json();
    status["memory_bytes"].as_i64().unwrap()
}

/// Frames that ask for nothing keep no connection.
#[test]
fn pings_are_no_requests() {
    let running = Running::start(|settings, _| {
        settings.idle_timeout = Duration::from_millis(600);
        settings.header_timeout = Duration::from_millis(300);
    });
    let began = Instant::now();
    let mut stream = connect(running.data);
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).unwrap();
    stream.write_all(&frame(SETTINGS, ACK, 0, b"")).unwrap();
    while stream.write_all(&frame(PING, 0, 0, b"01234567")).is_ok() && !has_ended(&mut stream) {
        assert!(began.elapsed() < Duration::from_secs(10), "kept for {:?}", began.elapsed());
    }
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    running.works();
}

/// An answer for which the client opens no window counts as memory until its connection is ended,
/// which is soon.
#[test]
fn answers_that_are_not_taken() {
    let running = Running::start(|settings, _| {
        settings.idle_timeout = Duration::from_secs(2);
        settings.header_timeout = Duration::from_millis(300);
    });
    let (body, length) = binary(&rows(1000, 1, 0.0), &json!({}));
    let mut stream = connect(running.data);
    // SETTINGS_INITIAL_WINDOW_SIZE (4) of 0.
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let length = length.to_string();
    let head = post("/v2/models/gmm/infer", &[("inference-header-content-length", &length)]);
    let head = frame(HEADERS, END_HEADERS, 1, &head);
    stream.write_all(&[PREFACE, &settings, &frame(SETTINGS, ACK, 0, b""), &head].concat()).unwrap();
    let pieces: Vec<&[u8]> = body.chunks(16 << 10).collect();
    for (i, piece) in pieces.iter().enumerate() {
        let flags = if i + 1 == pieces.len() { END_STREAM } else { 0 };
        stream.write_all(&frame(DATA, flags, 1, piece)).unwrap();
    }
    let began = Instant::now();
    // Its 1,000 scores as JSON.
    while held(&running) < 10_000 || held(&running) > 100_000 {
        assert!(began.elapsed() < Duration::from_secs(5), "{}", held(&running));
    }
    while !has_ended(&mut stream) {
        let _ = stream.write_all(&frame(PING, 0, 0, b"01234567"));
        assert!(began.elapsed() < Duration::from_secs(20), "kept for {:?}", began.elapsed());
    }
    while held(&running) != 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", held(&running));
    }
    running.works();
}

/// At the limit of connections who asks for health is answered, and all others are told.
#[test]
fn no_connection_is_left() {
    let running = Running::start(|settings, _| settings.max_connections = 2);
    let ask = |stream: &mut TcpStream, path: &str, body: &str| {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut piece = vec![0; 64 << 10];
        let n = stream.read(&mut piece).unwrap();
        parse(&piece[..n])
    };
    let mut kept = [0, 1].map(|_| connect(running.data));
    for stream in &mut kept {
        assert_eq!(ask(stream, "/v2/health/live", "").status, 200);
    }
    let began = Instant::now();
    assert_eq!(running.get("/v2/health/ready").status, 200);
    let refused = running.infer("gmm", &request(&rows(2, 5, 0.0)));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.error().contains("as many connections are open as there may be"));
    assert!(began.elapsed() < Duration::from_secs(5));
    // Those that are there work on.
    let body = request(&rows(2, 5, 0.0)).to_string();
    assert_eq!(ask(&mut kept[0], "/v2/models/gmm/infer", &body).status, 200);
    drop(kept);
    while running.infer("gmm", &request(&rows(2, 5, 0.0))).status == 503 {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    running.works();
}
