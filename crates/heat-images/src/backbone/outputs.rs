//! Adding the poolings of the feature map to a graph.

use prost::Message;

use super::graph::{Found, Tap};
use super::layer::Layer;
use super::pooling::Layout;
use super::proto::{ADDED, Attribute, FLOAT, Graph, Model, Node, Tensor, Value};

/// Names of the outputs that are read.
pub(super) struct Names {
    pub avg: String,
    pub std: Option<String>,
    pub max: Option<String>,
    pub logits: Option<String>,
    /// The mean of the map, and the number of its cells: whether `avg` is what
    /// it is taken for.
    pub mean: Option<String>,
    pub cells: Option<String>,
}

/// The name of something added.
pub(super) fn added(part: &str) -> String {
    format!("{ADDED}{part}")
}

impl Layer {
    /// What stands before the names of its outputs.
    pub(super) fn prefix(&self) -> String {
        format!("layer_{}_", self.part.name())
    }

    /// Names of its outputs: mean and deviation.
    pub(super) fn outputs(&self) -> (String, Option<String>) {
        let name = |what: &str| added(&format!("{}{what}", self.prefix()));
        (name("avg"), self.has_std().then(|| name("std")))
    }
}

impl Found {
    pub(super) fn names(&self) -> Names {
        let map = matches!(self.tap, Tap::Map(_)).then_some(());
        let plan = &self.plan;
        let avg = match &plan.sources[..] {
            [] => added("avg"),
            [name] if !plan.cast => name.clone(),
            _ => added("features"),
        };
        let logits = match &plan.logits {
            Some(name) if !plan.cast_logits => Some(name.clone()),
            Some(_) => Some(added("logits")),
            None => plan.apply_head.then(|| added("logits")),
        };
        Names {
            avg,
            std: map.map(|()| added("std")),
            max: map.map(|()| added("max")),
            logits,
            mean: map.map(|()| added("avg")),
            cells: map.map(|()| added(if self.fixed { "cells_seen" } else { "n" })),
        }
    }

    pub(super) fn outputs(&self) -> Vec<String> {
        let names = self.names();
        let mut all = vec![names.avg];
        for name in [names.std, names.max, names.logits, names.mean, names.cells] {
            all.extend(name.filter(|name| !all.contains(name)));
        }
        for layer in self.layers() {
            let (avg, std) = layer.outputs();
            all.extend([avg].into_iter().chain(std).chain(self.layer_output(layer)));
        }
        all.extend(self.map_output());
        all
    }
}

/// The model with the poolings of its feature map as further outputs.
///
/// Concatenated protobuf messages merge: their lists are joined. So the nodes
/// are appended to the file's bytes, which are copied as they are.
pub(super) fn with_pooled_outputs(bytes: &[u8], found: &Found) -> Vec<u8> {
    let mut graph = Graph::default();
    let names = found.names();
    match &found.tap {
        // Written by `heat backbone export`: they are there.
        Tap::Map(_) if found.declared.contains(&added("std")) => {}
        Tap::Map(map) => graph.node = poolings(map, found.plan.layout, found.plan.cast, ""),
        Tap::Vector(_) => {}
    }
    if let Some(cells) = names.cells.as_ref().filter(|_| found.fixed) {
        // The number of cells is a constant, which not all providers have as an output: nothing of
        // the images is added to it.
        let [zero, avg, none, n] = ["zero", "avg", "nothing", "n"].map(added);
        let nil = Tensor { data_type: FLOAT, float_data: vec![0.0], ..Tensor::default() };
        graph.node.extend([
            Node::constant(nil, &zero),
            Node::new("Mul", &[&avg, &zero], &none, vec![]),
            Node::new("Add", &[&n, &none], cells, vec![]),
        ]);
    }
    if let (Tap::Map(map), Some(output)) = (&found.tap, found.map_output()) {
        let (_, map) = turned(map, found.plan.layout, found.plan.cast, "");
        graph.node.push(Node::new("Identity", &[&map], &output, vec![]));
    }
    for layer in found.layers() {
        match layer.layout {
            Some(layout) => {
                let prefix = layer.prefix();
                graph.node.extend(poolings(&layer.tensor, layout, true, &prefix));
                if let Some(output) = found.layer_output(layer) {
                    let (_, map) = turned(&layer.tensor, layout, true, &prefix);
                    graph.node.push(Node::new("Identity", &[&map], &output, vec![]));
                }
            }
            None => {
                let to = vec![Attribute::int("to", i64::from(FLOAT))];
                graph.node.push(Node::new("Cast", &[&layer.tensor], &layer.outputs().0, to));
            }
        }
    }
    let missing = |name: &str| !found.declared.iter().any(|d| d == name);
    let cast = |from: &str, to: &str| {
        Node::new("Cast", &[from], to, vec![Attribute::int("to", i64::from(FLOAT))])
    };
    if names.avg == added("features") && missing(&names.avg) {
        let parts: Vec<String> = match &found.plan.sources[..] {
            [_] => vec![names.avg.clone()],
            all => (0..all.len()).map(|i| added(&format!("part{i}"))).collect(),
        };
        let casts = found.plan.sources.iter().zip(&parts).map(|(from, to)| cast(from, to));
        graph.node.extend(casts);
        if parts.len() > 1 {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let axis = vec![Attribute::int("axis", 1)];
            graph.node.push(Node::new("Concat", &parts, &names.avg, axis));
        }
    }
    match (&found.plan.logits, &names.logits, &found.head) {
        (Some(from), Some(to), _) if found.plan.cast_logits && missing(to) => {
            graph.node.push(cast(from, to));
        }
        (None, Some(to), Some(head)) if missing(to) => {
            let (w, b) = (added("weight"), added("bias"));
            graph.initializer.push(Tensor::of_floats(
                &w,
                &[head.classes(), head.dim()],
                head.weight(),
            ));
            graph.initializer.push(Tensor::of_floats(&b, &[head.classes()], head.bias()));
            let turned = vec![Attribute::int("transB", 1)];
            graph.node.push(Node::new("Gemm", &[&names.avg, &w, &b], to, turned));
        }
        _ => {}
    }
    let outputs = found.outputs().into_iter().filter(|o| missing(o));
    graph.output = outputs.map(|name| Value::floats(&name, None)).collect();
    let more = Model { graph: Some(graph), ..Model::default() };
    [bytes, &more.encode_to_vec()].concat()
}

/// Nodes that pool a map to `avg`, `max` and `std`, `[N, D]`, their names after `prefix`.
fn poolings(map: &str, layout: Layout, cast: bool, prefix: &str) -> Vec<Node> {
    let added = |name: &str| added(&format!("{prefix}{name}"));
    let one = Tensor { data_type: FLOAT, float_data: vec![1.0], ..Tensor::default() };
    let positions: Vec<i64> = (2..layout.rank() as i64).collect();
    let mut nodes = vec![
        Node::constant(Tensor::of_ints("", &positions), &added("axes")),
        Node::constant(one, &added("one")),
    ];
    let (turning, map) = turned(map, layout, cast, prefix);
    nodes.extend(turning);
    let mut add = |op: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>| {
        let name = |i: &&str| if i.is_empty() { map.clone() } else { added(i) };
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

/// Nodes that cast a map to single precision and put its channels before its positions, and the name of
/// what they make.
fn turned(map: &str, layout: Layout, cast: bool, prefix: &str) -> (Vec<Node>, String) {
    let mut nodes = Vec::new();
    let mut map = map.to_owned();
    let mut add = |op: &str, to: &str, attribute: Attribute| {
        let to = added(&format!("{prefix}{to}"));
        nodes.push(Node::new(op, &[&map], &to, vec![attribute]));
        map = to;
    };
    if cast {
        add("Cast", "wide", Attribute::int("to", i64::from(FLOAT)));
    }
    if let Some(turn) = layout.turn() {
        add("Transpose", "map", Attribute::ints("perm", turn));
    }
    (nodes, map)
}
