//! Overload, slow and rude clients, the end.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heat_serve::Ended;
use serde_json::json;

use crate::common::{Running, ask, binary, connect, parse, read, request, rows};

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let running = Running::start(|settings, _| settings.max_body = 100_000);
    let answer = running.post("/v2/models/gmm/infer", &[("Content-Length", "100001")], b"");
    assert!(answer.status == 413 && answer.error().contains("more than 100000 bytes"));
    // Chunked, without a length.
    let mut stream = connect(running.data);
    let head =
        "POST /v2/models/gmm/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 10_000, "x".repeat(10_000));
    for _ in 0..20 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    assert_eq!(read(&mut stream).status, 413);
    // Small as it comes, and large unpacked.
    for (name, bomb) in [("gzip", bomb(true)), ("deflate", bomb(false))] {
        assert!(bomb.len() < 100_000, "{}", bomb.len());
        let answer = running.post("/v2/models/gmm/infer", &[("Content-Encoding", name)], &bomb);
        assert_eq!(answer.status, 413, "{name}");
    }
    running.works();
}

fn bomb(gzip: bool) -> Vec<u8> {
    let (zeros, level) = (vec![0u8; 1 << 20], flate2::Compression::best());
    let mut plain = Vec::new();
    if gzip {
        let mut to = flate2::write::GzEncoder::new(&mut plain, level);
        (0..64).for_each(|_| to.write_all(&zeros).unwrap());
        to.finish().unwrap();
    } else {
        let mut to = flate2::write::ZlibEncoder::new(&mut plain, level);
        (0..64).for_each(|_| to.write_all(&zeros).unwrap());
        to.finish().unwrap();
    }
    plain
}

#[test]
fn slow_heads_bodies_and_silence_end() {
    let running = Running::start(|settings, _| {
        settings.header_timeout = Duration::from_millis(300);
        settings.body_timeout = Duration::from_millis(300);
    });
    let ends = |sent: &str, within: u64| {
        let began = Instant::now();
        let mut stream = connect(running.data);
        stream.write_all(sent.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(began.elapsed() < Duration::from_millis(within), "{sent:?}");
        bytes
    };
    assert!(ends("", 3000).is_empty());
    ends("POST /v2/models/gmm/infer HTTP/1.1\r\nHos", 3000);
    let head = "POST /v2/models/gmm/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let answer = parse(&ends(head, 3000));
    assert!(answer.status == 408 && answer.error().contains("too long"), "{}", answer.text());
    running.works();
}

/// Connections that were used may be silent for a while: clients keep them.
#[test]
fn a_connection_is_kept_between_requests() {
    let running =
        Running::start(|settings, _| settings.header_timeout = Duration::from_millis(200));
    let mut stream = connect(running.data);
    for wait in [0, 50, 600] {
        std::thread::sleep(Duration::from_millis(wait));
        stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).unwrap();
        assert!(n > 0, "closed after {wait} ms");
        assert_eq!(parse(&bytes[..n]).status, 200);
    }
}

/// But not for ever.
#[test]
fn a_silent_connection_ends() {
    let running = Running::start(|settings, _| settings.idle_timeout = Duration::from_millis(300));
    let mut stream = connect(running.data);
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let began = Instant::now();
    let answer = read(&mut stream);
    assert_eq!(answer.status, 200);
    let took = began.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[test]
fn what_cannot_wait_is_refused_at_once() {
    // One batch at a time, of a slow scorer.
    let running = Running::start(|settings, _| {
        settings.queue_rows = 4000;
        settings.threads = 1;
        settings.max_batch_rows = 100;
    });
    let values = rows(2000, 1, 0.0);
    let (body, length) = binary(&values, &json!({}));
    let header = length.to_string();
    let header = [("Inference-Header-Content-Length", &*header)];
    let (good, busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let answer = running.post("/v2/models/knn/infer", &header, &body);
                    match answer.status {
                        200 => good.fetch_add(1, Ordering::Relaxed),
                        429 => {
                            assert_eq!(answer.header("retry-after"), Some("1"));
                            assert!(answer.error().contains("try again"));
                            busy.fetch_add(1, Ordering::Relaxed)
                        }
                        other => panic!("{other}: {}", answer.text()),
                    };
                    // Health is answered beside it.
                    assert_eq!(running.get("/v2/health/ready").status, 200);
                }
            });
        }
    });
    let (good, busy) = (good.into_inner(), busy.into_inner());
    assert!(good > 0 && busy > 0 && good + busy == 160, "{good} {busy}");
    running.works();
    // Nothing is held or waits any more, once the last answer has left the connection.
    let held = || {
        let status = running.admin("GET", "/heat/v1/status").json();
        (status["queue_rows"].as_i64(), status["memory_bytes"].as_i64())
    };
    let began = Instant::now();
    while held() != (Some(0), Some(0)) {
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", held());
    }
}

#[test]
fn memory_of_all_requests_is_bounded() {
    let running = Running::start(|settings, _| {
        settings.memory = 1 << 20;
        settings.body_timeout = Duration::from_secs(2);
    });
    // Uploads that are told to be large and do not come hold nothing.
    let head = |n: usize| {
        format!("POST /v2/models/gmm/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n")
    };
    let mut claims: Vec<_> = (0..20).map(|_| connect(running.data)).collect();
    claims.iter_mut().for_each(|c| c.write_all((head(900_000) + "{").as_bytes()).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    running.works();
    drop(claims);
    // One that has come but for its end does.
    let mut first = connect(running.data);
    first.write_all(&[head(700_000).as_bytes(), &[b' '; 699_999]].concat()).unwrap();
    let held = || {
        let metrics = running.admin("GET", "/metrics").text();
        let line = metrics.lines().find(|line| line.starts_with("heat_memory_bytes ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let began = Instant::now();
    while held() < 699_999.0 {
        assert!(began.elapsed() < Duration::from_millis(1500), "{}", held());
    }
    let answer = running.post("/v2/models/gmm/infer", &[("Content-Length", "900000")], b"");
    assert_eq!(answer.status, 429);
    running.works();
    assert_eq!(read(&mut first).status, 408);
    // What it held is free again.
    let body = request(&rows(5000, 1, 0.0)).to_string();
    assert!(body.len() > 400_000);
    assert_eq!(running.post("/v2/models/gmm/infer", &[], body.as_bytes()).status, 200);
}

#[test]
fn late_answers_are_none() {
    let running = Running::start(|settings, _| {
        settings.threads = 1;
        settings.batch_wait = Duration::from_millis(400);
    });
    let mut body = request(&rows(1, 1, 0.0));
    body["parameters"] = json!({"timeout": 50_000});
    let began = Instant::now();
    let answer = running.infer("gmm", &body);
    assert!(answer.status == 504 && answer.error().contains("not scored in the time"));
    assert!(began.elapsed() < Duration::from_millis(350));
    body["parameters"] = json!({"timeout": 5_000_000});
    assert_eq!(running.infer("gmm", &body).status, 200);
}

#[test]
fn a_client_that_goes_is_dropped_and_counted() {
    let running = Running::start(|settings, _| {
        settings.threads = 1;
        settings.batch_wait = Duration::from_millis(300);
    });
    let body = request(&rows(1, 1, 0.0)).to_string();
    for _ in 0..5 {
        let mut stream = connect(running.data);
        let head = format!(
            "POST /v2/models/gmm/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    running.works();
    let metrics = running.admin("GET", "/metrics").text();
    assert!(metrics.contains("heat_dropped_total{sink=\"client\"} 5"), "{metrics}");
}

/// Every request that was taken is answered, whatever comes after.
#[test]
fn the_end_answers_what_was_taken() {
    let mut running = Running::start(|settings, _| {
        settings.threads = 1;
        settings.batch_wait = Duration::from_millis(300);
        settings.drain_delay = Duration::from_millis(400);
    });
    let body = request(&rows(3, 1, 0.0)).to_string();
    let head = format!(
        "POST /v2/models/gmm/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = connect(running.data);
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    running.ask_for_end();
    std::thread::sleep(Duration::from_millis(50));
    // It says that it is not ready, and takes what comes all the same.
    assert_eq!(running.get("/v2/health/ready").status, 503);
    assert_eq!(running.get("/v2/health/live").status, 200);
    running.works();
    for stream in &mut waiting {
        assert_eq!(read(stream).status, 200);
    }
    assert_eq!(running.wait(), Ended::Clean);
    assert!(std::net::TcpStream::connect(running.data).is_err());
}

/// A client that never ends keeps no server alive.
#[test]
fn the_end_comes_in_time() {
    let mut running = Running::start(|settings, _| settings.drain = Duration::from_millis(500));
    let mut stuck = connect(running.data);
    let head = "POST /v2/models/gmm/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    stuck.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    assert_eq!(running.end(), Ended::Cut);
    assert!(began.elapsed() < Duration::from_millis(1500));
}

/// Small requests pass between the pieces of a large one.
#[test]
fn large_requests_let_small_ones_pass() {
    let running = Running::start(|settings, _| settings.threads = 1);
    running.works();
    let (body, length) = binary(&rows(16_384, 1, 0.0), &json!({}));
    let header = length.to_string();
    let large = || {
        let began = Instant::now();
        let headers = [("Inference-Header-Content-Length", &*header)];
        let answer = ask(running.data, "POST", "/v2/models/knn/infer", &headers, &body);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.output("score").len(), 16_384);
        began.elapsed()
    };
    let mut small = Vec::new();
    let took = std::thread::scope(|scope| {
        let sending = scope.spawn(large);
        while !sending.is_finished() {
            let began = Instant::now();
            running.works();
            small.push(began.elapsed());
        }
        sending.join().unwrap()
    });
    small.sort();
    assert!(small.len() > 4 && small[small.len() / 2] < took / 4, "{small:?} {took:?}");
}
