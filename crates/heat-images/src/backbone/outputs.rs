//! Adding the poolings of the feature map to a graph.

use prost::Message;

use super::graph::{Found, Tap};
use super::proto::{Attribute, FLOAT, Graph, Model, Node, Tensor, Value};

/// Names of the outputs that are read.
pub(super) struct Names {
    pub avg: String,
    pub std: Option<String>,
    pub max: Option<String>,
    pub logits: Option<String>,
}

/// The name of something added.
pub(super) fn added(part: &str) -> String {
    format!("heat_pooled_{part}")
}

impl Found {
    pub(super) fn names(&self) -> Names {
        let map = matches!(self.tap, Tap::Map(_));
        let avg = match (&self.pooled, &self.tap) {
            (Some(pooled), _) => pooled.clone(),
            (None, Tap::Vector(name)) => name.clone(),
            (None, Tap::Map(_)) => added("avg"),
        };
        Names {
            avg,
            std: map.then(|| added("std")),
            max: map.then(|| added("max")),
            logits: self.linear.as_ref().map(|(_, output)| output.clone()),
        }
    }

    pub(super) fn outputs(&self) -> Vec<String> {
        let names = self.names();
        [Some(names.avg), names.std, names.max, names.logits].into_iter().flatten().collect()
    }
}

/// The model with the poolings of its feature map as further outputs.
///
/// Concatenated protobuf messages merge: their lists are joined. So the nodes
/// are appended to the file's bytes, which are copied as they are.
pub(super) fn with_pooled_outputs(bytes: &[u8], found: &Found) -> Vec<u8> {
    let mut graph = Graph::default();
    match &found.tap {
        // Written by `heat backbone export`: they are there.
        Tap::Map(_) if found.declared.contains(&added("std")) => {}
        Tap::Map(map) => graph.node = poolings(map),
        Tap::Vector(_) => {}
    }
    let outputs = found.outputs().into_iter().filter(|o| !found.declared.contains(o));
    graph.output = outputs.map(|name| Value::floats(&name, None)).collect();
    let more = Model { graph: Some(graph), ..Model::default() };
    [bytes, &more.encode_to_vec()].concat()
}

/// Nodes that pool a map `[N, D, h, w]` to `avg`, `max` and `std`, `[N, D]`.
fn poolings(map: &str) -> Vec<Node> {
    let one = Tensor { data_type: FLOAT, float_data: vec![1.0], ..Tensor::default() };
    let mut nodes = vec![
        Node::constant(Tensor::of_ints("", &[2, 3]), &added("axes")),
        Node::constant(one, &added("one")),
    ];
    let mut add = |op: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>| {
        let name = |i: &&str| if i.is_empty() { map.to_owned() } else { added(i) };
        let inputs: Vec<String> = inputs.iter().map(name).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        nodes.push(Node::new(op, &inputs, &added(output), attributes));
    };
    let flat = || vec![Attribute::int("axis", 1)];
    add("GlobalAveragePool", &[""], "mean", vec![]);
    add("Flatten", &["mean"], "avg", flat());
    add("GlobalMaxPool", &[""], "top", vec![]);
    add("Flatten", &["top"], "max", flat());
    add("Sub", &["", "mean"], "centred", vec![]);
    add("Mul", &["centred", "centred"], "squares", vec![]);
    add("GlobalAveragePool", &["squares"], "variance", vec![]);
    // n / (n − 1), n = h·w of this map.
    add("Shape", &[""], "shape", vec![]);
    add("Gather", &["shape", "axes"], "sides", vec![Attribute::int("axis", 0)]);
    add("ReduceProd", &["sides"], "cells", vec![Attribute::int("keepdims", 0)]);
    add("Cast", &["cells"], "n", vec![Attribute::int("to", i64::from(FLOAT))]);
    add("Sub", &["n", "one"], "less", vec![]);
    add("Div", &["n", "less"], "bessel", vec![]);
    add("Mul", &["variance", "bessel"], "unbiased", vec![]);
    add("Sqrt", &["unbiased"], "root", vec![]);
    add("Flatten", &["root"], "std", flat());
    nodes
}
