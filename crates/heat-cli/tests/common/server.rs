//! A web server on the loopback interface that misbehaves as it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub path: String,
    /// First byte of its `Range`.
    pub from: Option<usize>,
    pub if_range: Option<String>,
}

/// What is answered.
#[derive(Clone)]
pub struct Answer {
    pub status: &'static str,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    /// What `Content-Length` says; none is sent for None.
    pub length: Option<usize>,
    /// The connection is cut after so many bytes of the body.
    pub cut: usize,
    /// Sent in pieces of so many bytes, with pauses.
    pub piece: usize,
    pub pause: Duration,
}

impl Answer {
    pub fn new(status: &'static str, body: &[u8]) -> Self {
        Answer {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
            length: Some(body.len()),
            cut: usize::MAX,
            piece: 1 << 16,
            pause: Duration::ZERO,
        }
    }

    /// `bytes`, with ranges and If-Range honoured.
    pub fn file(bytes: &[u8], etag: &str, request: &Request) -> Self {
        let same = request.if_range.as_deref().is_none_or(|tag| tag == etag);
        let mut answer = match request.from.filter(|_| same) {
            None => Answer::new("200 OK", bytes),
            Some(from) if from >= bytes.len() => Answer::new("416 Range Not Satisfiable", b""),
            Some(from) => {
                let mut answer = Answer::new("206 Partial Content", &bytes[from..]);
                let (last, total) = (bytes.len() - 1, bytes.len());
                answer.headers.push(format!("Content-Range: bytes {from}-{last}/{total}"));
                answer
            }
        };
        answer.headers.push(format!("ETag: {etag}"));
        answer
    }

    pub fn cut(mut self, after: usize) -> Self {
        self.cut = after;
        self
    }

    pub fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }
}

/// It runs until the test process ends.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `script` is given the number of the request, from 0, and the request.
    pub fn start(script: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, script) = (requests.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (seen.clone(), script.clone());
                thread::spawn(move || serve(stream, &seen, &*script));
            }
        });
        Server { url, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// An address where nobody listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    script: &(dyn Fn(usize, &Request) -> Answer + Send + Sync),
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut request =
        Request { path: first.split(' ').nth(1).unwrap().to_owned(), ..Request::default() };
    for line in lines.take_while(|l| !l.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_lowercase().as_str() {
            "range" => {
                let from = value.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
                request.from = Some(from.parse().unwrap());
            }
            "if-range" => request.if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let answer = script(number, &request);
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    for line in &answer.headers {
        head += &format!("{line}\r\n");
    }
    if let Some(length) = answer.length {
        head += &format!("Content-Length: {length}\r\n");
    }
    let body = &answer.body[..answer.cut.min(answer.body.len())];
    // The other side may have gone; that is its affair.
    let mut send = |bytes: &[u8]| stream.write_all(bytes).and_then(|()| stream.flush());
    let mut going = send(format!("{head}\r\n").as_bytes()).is_ok();
    for piece in body.chunks(answer.piece) {
        going = going && send(piece).is_ok();
        if going && !answer.pause.is_zero() {
            thread::sleep(answer.pause);
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}
