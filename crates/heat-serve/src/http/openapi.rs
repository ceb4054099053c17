//! What the data plane's addresses are, for programs: made of the routes themselves.

use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::protocol::{LONGEST_ID, LONGEST_NAME, MOST_INPUTS, MOST_OUTPUTS, MOST_SIDES};

/// A route: its path, what may be done there, who may.
pub struct Route {
    /// As a pattern.
    pub path: &'static str,
    /// GET or POST.
    pub method: Method,
    /// Whether anyone may ask, without a token.
    pub open: bool,
    /// One line for the document.
    pub summary: &'static str,
}

/// The document of these routes.
pub fn describe(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        if route.path == "/v2/" {
            continue;
        }
        let parameters: Vec<Value> = route
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| {
                json!({"name": name, "in": "path", "required": true,
                       "schema": {"type": "string", "minLength": 1}})
            })
            .collect();
        let infers = route.path.ends_with("/infer");
        let schema = match route.path {
            _ if infers => "InferResponse",
            _ => "Object",
        };
        let answer = |text: &str, schema: &str| {
            let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
            json!({"description": text, "content": {"application/json": {"schema": schema}}})
        };
        let mut responses = json!({"200": answer("What was asked for", schema)});
        if infers {
            // JSON, and after it the outputs that were asked for as bytes.
            responses["200"]["content"]["application/octet-stream"] =
                json!({"schema": {"type": "string", "format": "binary"}});
        }
        let mut codes = vec!["400", "404", "405"];
        if !route.open {
            codes.extend(["401", "403", "503"]);
        }
        if infers {
            codes.extend(["408", "413", "415", "429", "500", "504"]);
        }
        if route.path == "/v2/health/ready" {
            responses["503"] = answer("It takes no requests now", "Object");
        }
        for code in codes {
            if responses.get(code).is_none() {
                responses[code] = answer("Why not", "Error");
            }
        }
        let mut operation = json!({
            "summary": route.summary, "parameters": parameters, "responses": responses,
        });
        if infers {
            let schema = json!({"$ref": "#/components/schemas/InferRequest"});
            operation["requestBody"] = json!({
                "required": true,
                "content": {
                    "application/json": {"schema": schema},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            });
        }
        if !route.open {
            operation["security"] = json!([{"bearer": []}, {}]);
        }
        let method = route.method.as_str().to_ascii_lowercase();
        paths.insert(route.path.to_owned(), json!({method: operation}));
    }
    let text = |longest: usize| json!({"type": "string", "maxLength": longest});
    let or_null = |mut schema: Value| {
        schema["type"] = json!([schema["type"], "null"]);
        schema
    };
    let object = json!({"type": "object"});
    let shape = json!({"type": "array", "items": {"type": "integer", "minimum": 1},
                       "minItems": 1, "maxItems": MOST_SIDES});
    let size = json!({"type": "object", "required": ["binary_data_size"],
                      "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}});
    let input = |datatypes: &[&str], values: Value, required: &str| {
        let mut schema = json!({
            "type": "object", "required": ["name", "shape", "datatype", required],
            "properties": {"name": text(LONGEST_NAME / 4), "shape": shape,
                           "datatype": {"type": "string", "enum": datatypes}},
        });
        schema["properties"][required] = values;
        schema
    };
    // Half precision is sent as bytes alone.
    let here = input(&["FP32", "FP64", "UINT8", "BYTES"], json!({"type": "array"}), "data");
    let after = input(&["FP16", "BF16", "FP32", "FP64", "UINT8", "BYTES"], size, "parameters");
    let output = json!({
        "type": "object", "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
            "datatype": {"type": "string", "enum": ["BOOL", "INT64", "FP32", "FP64", "BYTES"]},
            "parameters": object,
            "data": {"type": "array"},
        },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "heat serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The Open Inference Protocol, version 2, with its binary extension. A \
                            score is an energy: higher = more out-of-distribution.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {"type": "object", "required": ["error"],
                    "properties": {"error": {"type": "string"}}},
                "Object": {"type": "object"},
                "InferRequest": {
                    "type": "object", "required": ["inputs"],
                    "properties": {
                        "id": or_null(text(LONGEST_ID)),
                        "parameters": {"type": ["object", "null"], "properties": {
                            "alpha": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                            "timeout": {"type": "integer", "minimum": 1,
                                "description": "microseconds"},
                            "binary_data_output": {"type": "boolean"},
                        }},
                        "inputs": {"type": "array", "minItems": 1, "maxItems": MOST_INPUTS,
                            "items": {"oneOf": [here, after]}},
                        "outputs": {"type": ["array", "null"], "maxItems": MOST_OUTPUTS,
                            "items": {
                                "type": "object", "required": ["name"],
                                "properties": {"name": text(LONGEST_NAME / 4),
                                    "parameters": or_null(object.clone())}}},
                    },
                },
                "InferResponse": {
                    "type": "object", "required": ["model_name", "outputs"],
                    "properties": {
                        "model_name": {"type": "string"},
                        "model_version": {"type": "string"},
                        "id": {"type": "string"},
                        "parameters": object,
                        "outputs": {"type": "array", "items": output},
                    },
                },
            },
        },
    })
}
