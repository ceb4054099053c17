//! Load for a server, at a rate of its own: how long answers take from when they should have been
//! asked for.
//!
//!     load ADDRESS PATH --rows 1 --dim 512 --rate 5000 --seconds 10 [--connections 64] [--json]
//!
//! Open loop: arrivals are a Poisson process that waits for no answer, so that a server that falls
//! behind is seen to (with one that waits, slow answers hide themselves). Times are from the intended
//! arrival. One thread a connection; run it on a core of its own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

struct Options {
    address: String,
    path: String,
    rows: usize,
    dim: usize,
    field: String,
    rate: f64,
    seconds: f64,
    warm_up: f64,
    connections: usize,
    json: bool,
    outputs: Option<String>,
}

fn options() -> Options {
    let mut words = std::env::args().skip(1);
    let mut need = |what: &str| words.next().unwrap_or_else(|| panic!("{what} is missing"));
    let mut o = Options {
        address: need("ADDRESS"),
        path: need("PATH"),
        rows: 1,
        dim: 512,
        field: "avg".into(),
        rate: 1000.0,
        seconds: 10.0,
        warm_up: 2.0,
        connections: 64,
        json: false,
        outputs: None,
    };
    while let Some(word) = words.next() {
        if word == "--json" {
            o.json = true;
            continue;
        }
        let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        let number = || value.parse::<f64>().unwrap_or_else(|_| panic!("{word} needs a number"));
        match word.as_str() {
            "--rows" => o.rows = number() as usize,
            "--dim" => o.dim = number() as usize,
            "--field" => o.field = value,
            "--rate" => o.rate = number(),
            "--seconds" => o.seconds = number(),
            "--warm-up" => o.warm_up = number(),
            "--connections" => o.connections = number() as usize,
            "--output" => o.outputs = Some(value),
            _ => panic!("{word} is not known"),
        }
    }
    o
}

/// Numbers from 0 to 1, always the same.
fn random(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The bytes of a request; no two have the same rows.
fn request(o: &Options, seed: u64) -> Vec<u8> {
    let mut next = random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let values: Vec<f32> = (0..o.rows * o.dim).map(|_| (next() * 2.0) as f32).collect();
    let outputs = match &o.outputs {
        Some(name) => format!(",\"outputs\":[{{\"name\":\"{name}\"}}]"),
        None => String::new(),
    };
    let tensor = |more: &str| {
        format!(
            "{{\"inputs\":[{{\"name\":\"{}\",\"shape\":[{},{}],\"datatype\":\"FP32\",{more}}}]{outputs}",
            o.field, o.rows, o.dim
        )
    };
    let mut head = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", o.path, o.address);
    let body = if o.json {
        let data = serde_json::to_string(&values).unwrap();
        (tensor(&format!("\"data\":{data}")) + "}").into_bytes()
    } else {
        let size = format!("\"parameters\":{{\"binary_data_size\":{}}}", values.len() * 4);
        let json = tensor(&size) + ",\"parameters\":{\"binary_data_output\":true}}";
        write!(head, "Inference-Header-Content-Length: {}\r\n", json.len()).unwrap();
        let bytes = values.iter().flat_map(|v| v.to_le_bytes());
        json.into_bytes().into_iter().chain(bytes).collect()
    };
    write!(head, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
    [head.into_bytes(), body].concat()
}

/// One answer's status.
fn answer(reader: &mut BufReader<TcpStream>, line: &mut String) -> std::io::Result<u16> {
    line.clear();
    reader.read_line(line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let trimmed = line.trim();
        if trimmed.is_empty() {
            break;
        }
        if let Some((name, value)) = trimmed.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    Ok(status)
}

struct Found {
    good: Histogram<u64>,
    refused: Histogram<u64>,
    failed: u64,
    last: Instant,
}

fn main() {
    let o = options();
    let total = (o.rate * (o.seconds + o.warm_up)) as usize;
    let mut next = random(42);
    let mut at = 0.0;
    let due: Vec<Duration> = (0..total)
        .map(|_| {
            at -= (1.0 - next()).ln() / o.rate;
            Duration::from_secs_f64(at)
        })
        .collect();
    let turn = AtomicUsize::new(0);
    let began = Instant::now() + Duration::from_millis(100);
    let new = || Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).unwrap();
    let all = Mutex::new(Found { good: new(), refused: new(), failed: 0, last: began });
    std::thread::scope(|scope| {
        for c in 0..o.connections {
            let (o, due, turn, all) = (&o, &due, &turn, &all);
            scope.spawn(move || {
                let requests: Vec<Vec<u8>> =
                    (0..4).map(|i| request(o, (c * 4 + i + 1) as u64)).collect();
                let (mut good, mut refused, mut failed) = (new(), new(), 0);
                let mut line = String::new();
                let connect = || {
                    let stream = TcpStream::connect(&o.address).ok()?;
                    stream.set_nodelay(true).ok()?;
                    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
                    Some(BufReader::with_capacity(64 << 10, stream))
                };
                let mut stream = connect();
                loop {
                    let i = turn.fetch_add(1, Ordering::Relaxed);
                    let Some(due) = due.get(i) else { break };
                    let intended = began + *due;
                    std::thread::sleep(intended.saturating_duration_since(Instant::now()));
                    let status = stream.as_mut().and_then(|stream| {
                        stream.get_mut().write_all(&requests[i % 4]).ok()?;
                        answer(stream, &mut line).ok()
                    });
                    if due.as_secs_f64() >= o.warm_up {
                        let took = intended.elapsed().as_micros() as u64;
                        match status {
                            Some(200) => good.record(took.max(1)).unwrap_or(()),
                            Some(_) => refused.record(took.max(1)).unwrap_or(()),
                            None => failed += 1,
                        }
                    }
                    if status.is_none() || status == Some(413) {
                        stream = connect();
                    }
                }
                let mut all = all.lock().unwrap();
                all.good.add(good).unwrap();
                all.refused.add(refused).unwrap();
                all.failed += failed;
                all.last = Instant::now().max(all.last);
            });
        }
    });
    let all = all.into_inner().unwrap();
    let measured = (all.last - began).as_secs_f64() - o.warm_up;
    let ms = |h: &Histogram<u64>, q: f64| h.value_at_quantile(q) as f64 / 1e3;
    let good = &all.good;
    println!(
        "{}",
        serde_json::json!({
            "offered": o.rate, "achieved": good.len() as f64 / measured,
            "rows_per_second": good.len() as f64 * o.rows as f64 / measured,
            "refused": all.refused.len(), "failed": all.failed,
            "p50": ms(good, 0.5), "p90": ms(good, 0.9), "p99": ms(good, 0.99),
            "p999": ms(good, 0.999), "max": good.max() as f64 / 1e3,
            "refused_p99": ms(&all.refused, 0.99),
        })
    );
}
