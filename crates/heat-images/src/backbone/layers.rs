//! Further layers whose features are taken: named ones, and those found in the graph.
//!
//! Found ones are tensors through which all of an image must pass on its way to the features (in a
//! ResNet the ends of blocks, in a DenseNet every concatenation). Of each stage, the maps of one
//! height and width, the end and the middle are taken, from the last stage backwards. Shapes are
//! seen by running the network once.

use std::collections::HashMap;

use prost::Message;

use super::Backbone;
use super::graph::{Found, Tap, decode};
use super::layer::Layer;
use super::outputs::added;
use super::pooling::Layout;
use super::proto::{Attribute, FLOAT, Graph, Model, Node, Value};
use super::runtime::{Session, find_library};
use crate::{ImageDataset, Transform, TransformConfig};
use heat_ood::features::{Part, View};
use heat_ood::{Error, Result};

/// Which further layers are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayersAsked {
    /// Names, each with the tensor in the graph.
    pub named: Vec<(String, String)>,
    /// How many are to be found.
    pub found: Option<usize>,
}

/// Operators that change values one by one: what they are given is the same layer.
const ELEMENTWISE: [&str; 14] = [
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Selu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Clip",
    "BatchNormalization",
    "Identity",
    "Dropout",
    "Cast",
];

impl LayersAsked {
    /// Whether none is wanted.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.found.is_none()
    }
}

impl Backbone {
    /// The same network with these layers beside its features, as they are for the first of these
    /// images that can be read.
    ///
    /// # Errors
    /// As [`Backbone::with_layers`], and if none can be read.
    pub fn with_layers_of(
        &self,
        asked: &LayersAsked,
        images: &dyn ImageDataset,
        transform: &TransformConfig,
    ) -> Result<Self> {
        if asked.is_empty() {
            return Ok(self.clone());
        }
        let mut transform = Transform::new(transform)?;
        let mut failed = None;
        for i in 0..images.len() {
            match images.image(i).and_then(|image| transform.pixels(&image)) {
                Ok(seen) => return self.with_layers(asked, [seen.height, seen.width]),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let none = || Error::format(images.name(), "none of its images can be read");
        Err(failed.unwrap_or_else(none))
    }

    /// The same network with these layers beside its features, as they are for images of that
    /// height and width.
    ///
    /// # Errors
    /// If a tensor does not exist or is no map and no vector, two layers have one name, the
    /// graph has no maps on the way to the features, or the network cannot be run.
    pub fn with_layers(&self, asked: &LayersAsked, size: [usize; 2]) -> Result<Self> {
        let mut backbone = self.clone();
        backbone.found.layers.clear();
        if asked.is_empty() {
            return Ok(backbone);
        }
        let model = decode(&self.path, &self.bytes)?;
        let graph = model.graph.unwrap_or_default();
        let end = match &self.found.tap {
            Tap::Map(name) => name,
            Tap::Vector(name) => self.found.plan.sources.first().unwrap_or(name),
        };
        let passed =
            if asked.found.is_some() { passed(&graph, &self.found.input, end) } else { Vec::new() };
        let made = |name: &str| graph.node.iter().any(|n| n.output.iter().any(|o| o == name));
        for (_, tensor) in &asked.named {
            if !made(tensor) {
                let all = graph.node.iter().flat_map(|n| &n.output).map(String::as_str);
                return Err(Error::unknown("tensor", tensor, all));
            }
        }
        let mut wanted: Vec<String> =
            asked.named.iter().map(|(_, tensor)| tensor.clone()).collect();
        wanted.extend(passed.iter().cloned());
        let shapes = self.shapes(&wanted, size)?;
        let shape = |tensor: &str| shapes.get(tensor).cloned().unwrap_or_default();
        let mut layers = Vec::new();
        for (name, tensor) in &asked.named {
            layers.push(self.layer(name, tensor, shape(tensor))?);
        }
        if let Some(count) = asked.found {
            let passed: Vec<_> = passed.into_iter().map(|t| (shape(&t), t)).collect();
            for (name, tensor) in chosen(&passed, end, count) {
                layers.push(self.layer(&name, &tensor, shape(&tensor))?);
            }
            if layers.len() == asked.named.len() {
                let problem = "has no map that all of an image passes before the last one; name a \
                               tensor of the graph as NAME=TENSOR, or do without further layers";
                return Err(Error::format(&self.path, problem));
            }
        }
        for (i, layer) in layers.iter().enumerate() {
            if layers[..i].iter().any(|other| other.part == layer.part) {
                let problem = "two layers have this name";
                return Err(Error::config("layer", layer.part.name(), problem));
            }
        }
        backbone.found.layers = layers;
        Ok(backbone)
    }

    fn layer(&self, name: &str, tensor: &str, shape: Vec<usize>) -> Result<Layer> {
        let last = matches!(self.found.plan.layout, Layout::ChannelsLast);
        let layout = match shape.len() {
            1 => None,
            2 => Some(Layout::Tokens),
            3 if last => Some(Layout::ChannelsLast),
            3 => Some(Layout::Channels),
            _ => {
                return Err(Error::Shape {
                    place: self.path.display().to_string(),
                    tensor: tensor.into(),
                    expected: "[N, D, h, w], [N, tokens, D] or [N, D]".into(),
                    got: format!(
                        "[N, {}]",
                        shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
                    ),
                });
            }
        };
        let part = Part::named(name)?;
        if name.contains('.') || View::known(name).is_some() {
            let problem = "a layer's name has no point, and is not that of a view (mirror, bits5, median2, nudged5)";
            return Err(Error::config("layer", name, problem));
        }
        Ok(Layer { part, tensor: tensor.to_owned(), shape, layout })
    }

    /// The shapes of tensors for one image of that size, without the batch.
    fn shapes(&self, tensors: &[String], size: [usize; 2]) -> Result<HashMap<String, Vec<usize>>> {
        let name = |what: &str, i: usize| added(&format!("{what}{i}"));
        let mut graph = Graph::default();
        for (i, tensor) in tensors.iter().enumerate() {
            graph.node.push(Node::new("Shape", &[tensor], &name("sides", i), vec![]));
            let to = vec![Attribute::int("to", i64::from(FLOAT))];
            graph.node.push(Node::new("Cast", &[&name("sides", i)], &name("shape", i), to));
            graph.output.push(Value::floats(&name("shape", i), None));
        }
        let more = Model { graph: Some(graph), ..Model::default() };
        let model = [&self.bytes[..], &more.encode_to_vec()].concat();
        let library = find_library(self.options.library.as_deref())?;
        let mut session = Session::load(&self.path, &library, &model)?;
        let images = self.found.batch().unwrap_or(1);
        let taken = self.found.as_taken([images, 3, size[0], size[1]]).to_vec();
        let values = vec![0.0; taken.iter().product()];
        let inputs = vec![(self.found.input.clone(), taken, values)];
        let outputs: Vec<String> = (0..tensors.len()).map(|i| name("shape", i)).collect();
        let made = session.run(&self.path, inputs, &outputs)?;
        let of = |(tensor, output): (&String, &String)| {
            let sides = made.get(output).map_or(&[][..], Vec::as_slice);
            (tensor.clone(), sides.iter().skip(1).map(|side| *side as usize).collect())
        };
        Ok(tensors.iter().zip(&outputs).map(of).collect())
    }
}

/// Tensors through which everything passes from `input` to `end`, in order; of several that
/// differ by operators of single values, the last.
fn passed(graph: &Graph, input: &str, end: &str) -> Vec<String> {
    // Nodes lie in the order in which they are computed.
    let mut place: HashMap<&str, usize> = HashMap::from([(input, 0)]);
    let mut nodes: Vec<&Node> = Vec::new();
    for node in &graph.node {
        if node.input.iter().any(|i| place.contains_key(i.as_str())) {
            nodes.push(node);
            for output in node.output.iter().filter(|o| !o.is_empty()) {
                place.insert(output, nodes.len());
            }
        }
    }
    let Some(&last) = place.get(end) else { return Vec::new() };
    let mut leads = vec![false; last + 1];
    leads[last] = true;
    // The last place at which each is read, on the way to the end.
    let mut read = vec![0; last + 1];
    for at in (1..=last).rev().filter(|at| *at <= nodes.len()) {
        if !leads[at] {
            continue;
        }
        for before in nodes[at - 1].input.iter().filter_map(|i| place.get(i.as_str())) {
            leads[*before] = true;
            read[*before] = read[*before].max(at);
        }
    }
    let mut furthest = read[0];
    let mut found: Vec<String> = Vec::new();
    for at in 1..last {
        if !leads[at] {
            continue;
        }
        let node = nodes[at - 1];
        if furthest <= at
            && let Some(output) = node.output.first()
        {
            let same = ELEMENTWISE.contains(&node.op.as_str());
            if same && found.last().is_some_and(|f| node.input.first() == Some(f)) {
                found.pop();
            }
            found.push(output.clone());
        }
        furthest = furthest.max(read[at]);
    }
    // What only single values separate from the end is the end's own layer.
    let mut name = end;
    while let Some(node) = graph.node.iter().find(|n| n.output.iter().any(|o| o == name)) {
        if !ELEMENTWISE.contains(&node.op.as_str()) {
            break;
        }
        let Some(before) = node.input.first() else { break };
        found.retain(|f| f != before);
        name = before;
    }
    found
}

/// Middles and ends of the last stages, with their names, in the order of the graph.
fn chosen(passed: &[(Vec<usize>, String)], end: &str, count: usize) -> Vec<(String, String)> {
    // Maps of one height and width that follow each other.
    let mut stages: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    for (i, (shape, _)) in passed.iter().enumerate() {
        let sides = match shape.len() {
            3 => shape[1..].to_vec(),
            2 => shape[..1].to_vec(),
            _ => continue,
        };
        if sides.iter().product::<usize>() < 2 {
            continue;
        }
        match stages.last_mut().filter(|(of, _)| *of == sides) {
            Some((_, members)) => members.push(i),
            None => stages.push((sides, vec![i])),
        }
    }
    let mut found: Vec<(usize, String)> = Vec::new();
    for (number, (_, members)) in stages.iter().enumerate().rev() {
        let last = number + 1 == stages.len();
        let n = members.len();
        // The last stage ends with the features themselves.
        let places: &[(&str, usize)] =
            if last { &[("mid", n / 2)] } else { &[("end", n - 1), ("mid", (n - 1) / 2)] };
        for (what, place) in places {
            let member = members[(*place).min(n - 1)];
            let known = found.iter().any(|(i, _)| *i == member) || passed[member].1 == end;
            if !known && found.len() < count {
                found.push((member, format!("stage{}_{what}", number + 1)));
            }
        }
    }
    found.sort_by_key(|(i, _)| *i);
    found.into_iter().map(|(i, name)| (name, passed[i].1.clone())).collect()
}

impl Found {
    /// Further layers whose features are taken.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: &[(&str, &[&str], &str)]) -> Graph {
        let node =
            |(op, inputs, output): &(&str, &[&str], &str)| Node::new(op, inputs, output, vec![]);
        Graph { node: nodes.iter().map(node).collect(), ..Graph::default() }
    }

    #[test]
    fn what_everything_passes_of_a_residual_network() {
        let graph = graph(&[
            ("Conv", &["x", "w1"], "c1"),
            ("Relu", &["c1"], "r1"),
            ("Conv", &["r1", "w2"], "c2"),
            ("Relu", &["c2"], "r2"),
            ("Conv", &["r2", "w3"], "c3"),
            ("Add", &["c3", "r1"], "a"),
            ("Relu", &["a"], "r3"),
            ("Shape", &["r3"], "unused"),
            ("Conv", &["r3", "w4"], "c4"),
            ("Relu", &["c4"], "r4"),
        ]);
        // Within the block r1 goes past c2, r2 and c3; c4 is the end's own layer.
        assert_eq!(passed(&graph, "x", "r4"), ["r1", "r3"]);
        assert_eq!(passed(&graph, "x", "nothing"), [""; 0]);
        assert_eq!(passed(&graph, "y", "r4"), [""; 0]);
    }

    #[test]
    fn what_everything_passes_of_a_dense_network() {
        let graph = graph(&[
            ("Conv", &["x", "w"], "c0"),
            ("Relu", &["c0"], "r1"),
            ("Conv", &["r1", "w"], "n1"),
            ("Concat", &["c0", "n1"], "d1"),
            ("Relu", &["d1"], "r2"),
            ("Conv", &["r2", "w"], "n2"),
            ("Concat", &["d1", "n2"], "d2"),
            ("Relu", &["d2"], "r3"),
        ]);
        assert_eq!(passed(&graph, "x", "r3"), ["c0", "d1"]);
    }

    #[test]
    fn ends_and_middles_from_the_last_stage_backwards() {
        let maps: Vec<(Vec<usize>, String)> = [8, 8, 8, 4, 4, 4, 4, 2, 2]
            .iter()
            .enumerate()
            .map(|(i, side)| (vec![3, *side, *side], format!("t{i}")))
            .collect();
        let names = |count| chosen(&maps, "end", count);
        let of = |name: &str, tensor: &str| (name.to_owned(), tensor.to_owned());
        assert_eq!(names(1), [of("stage3_mid", "t8")]);
        let three = [of("stage2_mid", "t4"), of("stage2_end", "t6"), of("stage3_mid", "t8")];
        assert_eq!(names(3), three);
        assert_eq!(names(9).len(), 5);
        assert!(chosen(&[(vec![5], "v".into())], "end", 3).is_empty());
    }
}
