//! The Open Inference Protocol, as its clients speak it.

use heat_ood::Detector;
use heat_ood::calibrate::Ties;
use heat_ood::features::FeatureSet;
use serde_json::{Value, json};

use crate::common::{DIM, Running, ask, binary, request, rows};

/// What the library itself says of rows.
fn expected(running: &Running, model: &str, values: &[f32]) -> (Vec<f32>, Vec<f64>, Vec<bool>) {
    let path = running.directory.path().join(format!("{model}.safetensors"));
    let detector = Detector::open(path).unwrap();
    let shape = (values.len() / DIM, DIM);
    let matrix = ndarray::Array2::from_shape_vec(shape, values.to_vec()).unwrap();
    let set = FeatureSet::in_memory("x").avg(matrix).build().unwrap();
    let found = detector.predict(&set, Ties::Conservative, &mut heat_ood::Silent).unwrap();
    let verdicts = found.verdicts.unwrap();
    let p = verdicts.iter().map(|v| v.p_value).collect();
    (found.scores, p, verdicts.iter().map(|v| v.ood).collect())
}

#[test]
fn health_and_metadata() {
    let running = Running::start(|_, _| ());
    let both = json!({"live": true, "ready": true});
    for path in ["/v2/health/live", "/v2/health/ready"] {
        let answer = running.get(path);
        assert_eq!((answer.status, answer.json()), (200, both.clone()));
    }
    for path in ["/v2", "/v2/"] {
        let json = running.get(path).json();
        assert_eq!(json["name"], "heat");
        assert!(json["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    }
    assert_eq!(running.get("/v2/models").json(), json!({"models": ["gmm", "knn"]}));
    let json = running.get("/v2/models/gmm").json();
    let version = json["versions"][0].as_str().unwrap().to_owned();
    assert_eq!(version.len(), 12);
    let want = json!([{"name": "avg", "datatype": "FP32", "shape": [-1, DIM]}]);
    assert_eq!(json["inputs"], want);
    let names: Vec<&str> =
        json["outputs"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["score", "p_value", "is_ood"]);
    assert_eq!(json["parameters"]["score"], "an energy: higher = more out-of-distribution");
    let path = format!("/v2/models/gmm/versions/{version}");
    assert_eq!(running.get(&path).json(), json);
    assert_eq!(running.get(&format!("{path}/ready")).json(), json!({"name": "gmm", "ready": true}));
    let config = running.get("/v2/models/gmm/config").json();
    assert_eq!(config["input"][0], json!({"name": "avg", "data_type": "TYPE_FP32", "dims": [DIM]}));
    for path in ["/v2/models/gmm/stats", "/v2/models/stats"] {
        assert_eq!(running.get(path).json()["model_stats"][0]["name"], "gmm");
    }
    assert_eq!(running.get("/v2/models/none").status, 404);
    assert_eq!(running.get("/v2/models/gmm/versions/1").status, 404);
}

#[test]
fn the_same_bits_in_every_form() {
    let running = Running::start(|_, _| ());
    for (model, n) in [("gmm", 1), ("gmm", 70), ("knn", 300), ("gmm", 3000)] {
        let values = rows(n, 77, 0.5);
        let (scores, p_values, ood) = expected(&running, model, &values);
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
        let flat = running.infer(model, &request(&values));
        assert_eq!(flat.status, 200, "{}", flat.text());
        let got: Vec<f32> = flat.output("score").iter().map(|v| *v as f32).collect();
        assert_eq!(wide(&got), wide(&scores), "{model} {n}");
        assert_eq!(flat.output("p_value"), p_values);
        let flags: Vec<f64> = ood.iter().map(|o| f64::from(u8::from(*o))).collect();
        assert_eq!(flat.output("is_ood"), flags);
        // Nested, and in double precision.
        let nested: Vec<&[f32]> = values.chunks(DIM).collect();
        let nested = json!({"inputs": [{"name": "avg", "shape": [n, DIM], "datatype": "FP64",
                                        "data": nested}]});
        assert_eq!(running.infer(model, &nested).output("score"), flat.output("score"));
        // As bytes, both ways.
        let (body, length) = binary(&values, &json!({"parameters": {"binary_data_output": true}}));
        let length = length.to_string();
        let header = [("Inference-Header-Content-Length", &*length)];
        let answer = running.post(&format!("/v2/models/{model}/infer"), &header, &body);
        let json = answer.header("inference-header-content-length").unwrap();
        let (head, tail) = answer.body.split_at(json.parse().unwrap());
        let head: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 4 * n);
        let bytes: Vec<u8> = scores.iter().flat_map(|s| s.to_le_bytes()).collect();
        assert_eq!(&tail[..4 * n], bytes);
        let bytes: Vec<u8> = p_values.iter().flat_map(|p| p.to_le_bytes()).collect();
        assert_eq!(&tail[4 * n..12 * n], bytes);
        assert_eq!(tail[12 * n..], ood.iter().map(|o| u8::from(*o)).collect::<Vec<_>>());
        // The whole body as the one tensor.
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let header = [("Inference-Header-Content-Length", "0")];
        let answer = running.post(&format!("/v2/models/{model}/infer"), &header, &raw);
        assert!(answer.body.ends_with(tail));
    }
}

/// Requests that are scored beside each other get what they get alone.
#[test]
fn neighbours_change_nothing() {
    let running =
        Running::start(|settings, _| settings.batch_wait = std::time::Duration::from_millis(5));
    let wanted: Vec<_> = (0..24)
        .map(|i| {
            let values = rows(1 + i % 7, 500 + i as u64, 0.1 * i as f32);
            let (scores, ..) = expected(&running, "gmm", &values);
            (values, scores)
        })
        .collect();
    std::thread::scope(|scope| {
        for (i, (values, scores)) in wanted.iter().enumerate() {
            let running = &running;
            scope.spawn(move || {
                for _ in 0..20 {
                    let answer = running.infer("gmm", &request(values));
                    let got: Vec<f32> = answer.output("score").iter().map(|v| *v as f32).collect();
                    assert_eq!(&got, scores);
                    // One that is wrong harms nobody.
                    if i % 5 == 0 {
                        let mut bad = values.clone();
                        bad[0] = f32::MAX;
                        let answer = running.infer("gmm", &request(&bad));
                        assert_eq!(answer.status, 400);
                        assert!(answer.error().contains("row 0 has the score inf"));
                    }
                }
            });
        }
    });
}

#[test]
fn what_is_asked_for_is_given() {
    let running = Running::start(|_, _| ());
    let values = rows(3, 9, 1.0);
    let mut body = request(&values);
    body["id"] = json!("seven");
    body["outputs"] = json!([{"name": "p_value"}, {"name": "score"}]);
    body["parameters"] = json!({"alpha": 0.2});
    let json = running.infer("gmm", &body).json();
    assert_eq!(json["id"], "seven");
    assert_eq!(json["model_name"], "gmm");
    assert_eq!(json["parameters"]["alpha"], 0.2);
    assert_eq!(json["parameters"]["guarantee"], "marginal");
    assert!(json["parameters"]["queue_us"].is_u64() && json["parameters"]["score_us"].is_u64());
    let names: Vec<&Value> =
        json["outputs"].as_array().unwrap().iter().map(|o| &o["name"]).collect();
    assert_eq!(names, ["p_value", "score"]);
    // By the rate asked for: exactly those with p at most that are called anomalous.
    body["outputs"] = json!([{"name": "p_value"}, {"name": "is_ood"}]);
    for alpha in [0.01, 0.2, 0.5, 0.9] {
        body["parameters"] = json!({"alpha": alpha});
        let answer = running.infer("gmm", &body);
        let p = answer.output("p_value");
        let want: Vec<f64> = p.iter().map(|p| f64::from(u8::from(*p <= alpha))).collect();
        assert_eq!(answer.output("is_ood"), want);
    }
    // Finer than 400 calibration rows can tell.
    body["parameters"] = json!({"alpha": 0.001});
    let error = running.infer("gmm", &body).error();
    assert!(error.contains("too few") && error.contains("999"), "{error}");
}

#[test]
fn packed_bodies_and_answers() {
    use std::io::{Read, Write};
    let running = Running::start(|settings, _| settings.compress = true);
    let body = request(&rows(40, 3, 0.0)).to_string();
    let plain = running.post("/v2/models/gmm/infer", &[], body.as_bytes());
    let level = flate2::Compression::fast();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
    gzip.write_all(body.as_bytes()).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
    zlib.write_all(body.as_bytes()).unwrap();
    for (name, packed) in [("gzip", gzip.finish().unwrap()), ("deflate", zlib.finish().unwrap())] {
        let headers = [("Content-Encoding", name), ("Accept-Encoding", name)];
        let answer = running.post("/v2/models/gmm/infer", &headers, &packed);
        assert_eq!(answer.header("content-encoding"), Some(name));
        let mut text = String::new();
        match name {
            "gzip" => flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text),
            _ => flate2::read::ZlibDecoder::new(&answer.body[..]).read_to_string(&mut text),
        }
        .unwrap();
        let got: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(got["outputs"], plain.json()["outputs"]);
    }
    // Only answers with scores: clients do not unpack others.
    let headers = [("Accept-Encoding", "gzip")];
    let answer = ask(running.data, "GET", "/v2", &headers, b"");
    assert_eq!(answer.header("content-encoding"), None);
    for name in ["br", "gzip, gzip"] {
        let answer = running.post("/v2/models/gmm/infer", &[("Content-Encoding", name)], b"x");
        assert_eq!(answer.status, 415);
    }
    let answer = running.post("/v2/models/gmm/infer", &[("Content-Encoding", "gzip")], b"{}");
    assert!(answer.error().contains("not packed as"));
}

/// No label of the body decides anything: clients send many, or none.
#[test]
fn labels_of_bodies_do_not_matter() {
    let running = Running::start(|_, _| ());
    let body = request(&rows(1, 3, 0.0)).to_string();
    for kind in ["application/json", "application/octet-stream", "text/plain", ""] {
        let answer =
            running.post("/v2/models/gmm/infer", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!(answer.status, 200, "{kind}");
    }
}

#[test]
fn bad_requests_are_named() {
    let running = Running::start(|settings, _| settings.max_request_rows = 100);
    let avg = |shape: Value, data: Value| json!({"inputs": [{"name": "avg", "shape": shape, "datatype": "FP32", "data": data}]});
    let row = vec![0.5; DIM];
    for (body, status, part) in [
        (avg(json!([DIM]), json!(row)), 400, "expected [N, 8]"),
        (avg(json!([1, 1, DIM]), json!(row)), 400, "expected [N, 8]"),
        (avg(json!([1, 4]), json!([1, 2, 3, 4])), 400, "expected [N, 8], as in training"),
        (avg(json!([101, DIM]), json!(vec![0.5; 101 * DIM])), 413, "100 are the most"),
        (
            json!({"inputs": [{"name": "std", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}),
            400,
            "reads no `std`, but avg [N, 8]",
        ),
        (
            json!({"inputs": [{"name": "image_bytes", "shape": [1], "datatype": "BYTES",
                            "data": ["YQ=="]}]}),
            400,
            "takes features, not images",
        ),
        (
            json!({"inputs": [{"name": "avg", "shape": [1, DIM], "datatype": "UINT8",
                            "data": [1, 2, 3, 4, 5, 6, 7, 8]}]}),
            400,
            "is of bytes",
        ),
    ] {
        let answer = running.infer("gmm", &body);
        let error = answer.error();
        assert!(answer.status == status && error.contains(part), "{}: {error}", answer.status);
        assert!(!error.contains(['/', '\n']), "{error}");
    }
    let mut body = request(&rows(1, 1, 0.0));
    body["outputs"] = json!([{"name": "nothing"}]);
    assert!(running.infer("gmm", &body).error().contains("no output `nothing`, but score"));
    let answer = running.infer("none", &body);
    assert!(answer.status == 404 && answer.error().contains("no model `none`"));
    for (method, path, status) in [
        ("GET", "/v2/models/gmm/infer", 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/gmm", 405),
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
    ] {
        let answer = ask(running.data, method, path, &[], b"");
        assert_eq!(answer.status, status, "{method} {path}");
        answer.error();
        if status == 405 {
            assert!(answer.header("allow").is_some(), "{path}");
        }
    }
    // The header of the binary extension.
    let (body, length) = binary(&rows(2, 1, 0.0), &json!({}));
    let send = |headers: &[(&str, &str)]| running.post("/v2/models/gmm/infer", headers, &body);
    let name = "Inference-Header-Content-Length";
    let exact = length.to_string();
    assert_eq!(send(&[(name, &exact)]).status, 200);
    for wrong in ["-1", "x", "", "99999999", "1", "18446744073709551616", "+5", "1.0"] {
        assert_eq!(send(&[(name, wrong)]).status, 400, "{wrong}");
    }
    assert_eq!(send(&[(name, &exact), (name, &exact)]).status, 400);
    assert_eq!(send(&[]).status, 400);
    running.works();
}

#[test]
fn the_document_has_every_route() {
    let running = Running::start(|_, _| ());
    let document = running.get("/openapi.json").json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 15);
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            let path = path.replace("{model}", "gmm").replace("{version}", "");
            let path = path.trim_end_matches('/');
            let answer = ask(running.data, &method.to_uppercase(), path, &[], b"");
            let known = [200, 400, 404].contains(&answer.status);
            assert!(known, "{method} {path}: {}", answer.status);
            assert!(answer.status != 404 || path.contains("/versions"), "{path}");
        }
    }
}

/// Addresses that name nothing are refused like all else.
#[test]
fn addresses_that_are_none() {
    let running = Running::start(|_, _| ());
    for path in ["%ff", "%c0%af", "gmm/versions/%ff/ready", "gmm/versions//ready", "%ff/stats"] {
        let answer = running.get(&format!("/v2/models/{path}"));
        assert!(answer.status == 404 && !answer.error().is_empty(), "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let body = request(&rows(1, 1, 0.0)).to_string();
    for path in ["%ff/infer", "gmm/versions//infer", "gmm/versions/%ff/infer"] {
        let answer = running.post(&format!("/v2/models/{path}"), &[], body.as_bytes());
        assert!(answer.status == 404 && !answer.error().is_empty(), "{path}: {}", answer.text());
    }
}

/// What makes an answer larger than the rows is refused.
#[test]
fn outputs_are_asked_for_once() {
    let running = Running::start(|_, _| ());
    let mut body = request(&rows(2, 1, 0.0));
    body["outputs"] = json!([{"name": "score"}, {"name": "p_value"}, {"name": "score"}]);
    let answer = running.infer("gmm", &body);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.error(), "the output `score` is asked for twice");
    body["outputs"] = json!(vec![json!({"name": "score"}); 1025]);
    let answer = running.infer("gmm", &body);
    assert!(answer.status == 400 && answer.error().contains("at most 1024"), "{}", answer.text());
}
