//! A server in this process, and a client that writes what it is told to, byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use heat_ood::calibrate::CalibrationConfig;
use heat_ood::features::FeatureSet;
use heat_ood::scorers::ScorerSpec;
use heat_ood::{Detector, Silent, TrainingData};
use heat_serve::{Addresses, Ended, NamedFile, Server, Settings, Stop};
use serde_json::{Value, json};

/// D of the features.
pub const DIM: usize = 8;

/// Rows that look alike, from a generator of their own.
pub fn rows(n: usize, seed: u64, shift: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    // Sums of uniform numbers are nearly normal.
    (0..n * DIM).map(|_| (0..6).map(|_| next()).sum::<f32>() - 3.0 + shift).collect()
}

fn set(n: usize, seed: u64) -> FeatureSet {
    let matrix = ndarray::Array2::from_shape_vec((n, DIM), rows(n, seed, 0.0)).unwrap();
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
    FeatureSet::in_memory("made").avg(matrix).labels(labels).build().unwrap()
}

/// Write a calibrated detector of such rows.
pub fn detector(path: &Path, spec: &str, seed: u64) -> Detector {
    let train = set(600, seed);
    let fitted = ScorerSpec::parse(spec).unwrap();
    let fitted = fitted.fit(&TrainingData::new(&train), &mut Silent).unwrap();
    let mut detector = Detector::new(fitted);
    let held_out = set(400, seed + 1000);
    let config = CalibrationConfig::default();
    detector.calibrate(&config, &held_out, None, false, &mut Silent).unwrap();
    detector.save(path).unwrap();
    detector
}

/// A running server.
pub struct Running {
    pub data: SocketAddr,
    pub admin: SocketAddr,
    pub directory: tempfile::TempDir,
    stop: Stop,
    thread: Option<JoinHandle<Ended>>,
}

impl Running {
    /// With a detector `gmm`, and another `knn`.
    pub fn start(change: impl FnOnce(&mut Settings, &Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        for (name, spec, seed) in [("gmm", "gmm(normalize=false)", 1), ("knn", "knn", 2)] {
            let path = directory.path().join(format!("{name}.safetensors"));
            detector(&path, spec, seed);
            settings.detectors.push(NamedFile { name: name.into(), path });
        }
        settings.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.admin = Some(settings.listen);
        settings.log_requests = false;
        settings.drain = Duration::from_secs(5);
        change(&mut settings, directory.path());
        let server = Server::open(settings).unwrap();
        let stop = server.stop();
        let (told, address) = channel();
        let run = move || server.run(|addresses| told.send(*addresses).unwrap());
        let thread = std::thread::spawn(move || run().unwrap());
        let Addresses { data, admin, .. } = address.recv().unwrap();
        let admin = admin.unwrap();
        Running { data, admin, directory, stop, thread: Some(thread) }
    }

    /// Ask for an end and wait for it.
    pub fn end(&mut self) -> Ended {
        self.stop.ask();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Ask for an end.
    pub fn ask_for_end(&self) {
        self.stop.ask();
    }

    pub fn wait(&mut self) -> Ended {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Send a JSON request to a model.
    pub fn infer(&self, model: &str, body: &Value) -> Answer {
        self.post(&format!("/v2/models/{model}/infer"), &[], body.to_string().as_bytes())
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        ask(self.data, "POST", path, headers, body)
    }

    pub fn get(&self, path: &str) -> Answer {
        ask(self.data, "GET", path, &[], b"")
    }

    pub fn admin(&self, method: &str, path: &str) -> Answer {
        ask(self.admin, method, path, &[], b"")
    }

    /// That it still does its work.
    pub fn works(&self) {
        let answer = self.infer("gmm", &request(&rows(2, 5, 0.0)));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The sentence of a refusal, which is all that its body has.
    pub fn error(&self) -> String {
        let json = self.json();
        let object = json.as_object().unwrap();
        assert!(object.len() == 1 && self.status >= 400, "{}", self.text());
        object["error"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The data of an output.
    pub fn output(&self, name: &str) -> Vec<f64> {
        let json = self.json();
        let outputs = json["outputs"].as_array().unwrap();
        let found = outputs.iter().find(|o| o["name"] == name).unwrap();
        let number =
            |v: &Value| v.as_f64().unwrap_or_else(|| f64::from(u8::from(v == &json!(true))));
        found["data"].as_array().unwrap().iter().map(number).collect()
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// One request on a connection of its own.
pub fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = connect(address);
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    // Refused before the body is read, the connection may close while it is written.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    read(&mut stream)
}

/// Read an answer until the connection ends.
pub fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

pub fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// A request of rows, in JSON.
pub fn request(values: &[f32]) -> Value {
    json!({"inputs": [{
        "name": "avg", "shape": [values.len() / DIM, DIM], "datatype": "FP32", "data": values,
    }]})
}

/// The same with the rows as bytes, and how long its JSON is.
pub fn binary(values: &[f32], more: &Value) -> (Vec<u8>, usize) {
    let mut json = json!({"inputs": [{
        "name": "avg", "shape": [values.len() / DIM, DIM], "datatype": "FP32",
        "parameters": {"binary_data_size": values.len() * 4},
    }]});
    for (key, value) in more.as_object().unwrap() {
        json[key] = value.clone();
    }
    let head = json.to_string().into_bytes();
    let length = head.len();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    ([head, bytes].concat(), length)
}
