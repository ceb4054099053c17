//! Finding features and classifier in a network's graph.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use prost::Message;

use super::constants::Constants;
use super::layer::Layer;
use super::linear::{Finder, Linear, Source};
use super::meter::{self, Flaw};
use super::pooling::{self, Layout, Pooled};
use super::proto::{ADDED, FLOAT, Graph, Model, Node, Value};
use heat_ood::features::{Field, Head};
use heat_ood::io::{ONNX, kind_of};
use heat_ood::{Error, Result};

/// Where features are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tap {
    /// A map `[N, D, h, w]` before its global pooling.
    Map(String),
    /// A vector `[N, D]`: it gives `avg` alone.
    Vector(String),
}

/// Which of several outputs is the classifier's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub output: String,
    /// The other outputs.
    pub others: Vec<String>,
    /// By what it was chosen.
    pub why: String,
}

/// What was found in a graph.
#[derive(Clone)]
pub struct Found {
    /// Name of the input, and its shape where fixed.
    pub input: String,
    /// `[N, channels, height, width]`, or `[N, height, width, channels]`;
    /// `None`: any size.
    pub input_shape: Vec<Option<usize>>,
    /// Whether the graph takes images as `[N, height, width, channels]`; they
    /// are turned before they enter it.
    pub channels_last: bool,
    /// Where features are taken.
    pub tap: Tap,
    /// The pooled features within the graph, where the linear layer reads them.
    pub pooled: Option<String>,
    /// The last linear layer.
    pub head: Option<Head>,
    /// Its node and output.
    pub linear: Option<(String, String)>,
    /// Why there is no head, where there is none.
    pub headless: Option<String>,
    /// The output that was chosen, where there are several.
    pub chosen: Option<Chosen>,
    /// Version of the standard operators.
    pub opset: i64,
    /// Number of nodes.
    pub nodes: usize,
    /// Further layers whose features are taken.
    pub(super) layers: Vec<Layer>,
    /// What is made of maps besides poolings.
    pub(super) of_maps: Vec<Field>,
    /// Whether all shapes are fixed when it is loaded.
    pub(super) fixed: bool,
    /// Outputs that the graph already has.
    pub(super) declared: Vec<String>,
    /// What is read from it, and how.
    pub(super) plan: Plan,
}

/// How outputs are had from the tensors of the graph.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// How the map lies.
    pub layout: Layout,
    /// What the linear layer reads, side by side; empty where the features
    /// are the mean of the map.
    pub sources: Vec<String>,
    /// Whether sources and map are to be cast to single precision.
    pub cast: bool,
    /// Whether there are logits; the tensor that holds them.
    pub logits: Option<String>,
    pub cast_logits: bool,
    /// The graph holds no tensor with the logits: they are computed from the
    /// features.
    pub apply_head: bool,
}

/// What the user says of a graph.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub tap: Option<&'a str>,
    pub output: Option<&'a str>,
    pub classes: Option<usize>,
}

/// Operations that only change the shape or the type, or nothing when a
/// network is applied. A transposition is one after a pooling.
const PASSING: [&str; 10] = [
    "Flatten",
    "Reshape",
    "Squeeze",
    "Identity",
    "Dropout",
    "Cast",
    "Unsqueeze",
    "QuantizeLinear",
    "DequantizeLinear",
    "Transpose",
];

struct Reader<'a> {
    path: &'a Path,
    graph: &'a Graph,
    /// The node that makes each tensor.
    makers: &'a HashMap<&'a str, &'a Node>,
    constants: &'a Constants<'a>,
}

/// Read a model.
pub(super) fn read(path: &Path, bytes: &[u8], asked: Asked<'_>) -> Result<Found> {
    let model = decode(path, bytes)?;
    let broken = |problem: String| Error::format(path, problem);
    let graph = model.graph.as_ref().filter(|g| !g.node.is_empty());
    let graph = graph.ok_or_else(|| broken("not an ONNX model: it has no graph".into()))?;
    let mut makers = HashMap::new();
    for node in &graph.node {
        for output in &node.output {
            makers.insert(output.as_str(), node);
        }
    }
    let constants = Constants::new(graph, &makers, bytes.len());
    let reader = Reader { path, graph, makers: &makers, constants: &constants };
    let (input, input_shape, channels_last) = reader.input()?;
    let (linear, chosen, output) = reader.classifier(asked)?;
    let found = Found {
        input,
        input_shape,
        channels_last,
        tap: Tap::Vector(output.clone()),
        pooled: None,
        linear: None,
        head: None,
        headless: None,
        chosen,
        opset: opset(&model),
        nodes: graph.node.len(),
        layers: Vec::new(),
        of_maps: Vec::new(),
        fixed: false,
        declared: graph.output.iter().map(|o| o.name.clone()).collect(),
        plan: Plan {
            layout: Layout::Channels,
            sources: Vec::new(),
            cast: false,
            logits: None,
            cast_logits: false,
            apply_head: false,
        },
    };
    let found = match linear {
        Some(linear) => reader.with_head(found, linear),
        None => reader.without_head(found, &output),
    };
    match asked.tap {
        Some(tap) => reader.tapped(found, tap),
        None => Ok(found),
    }
}

/// The messages of a model.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Model> {
    let broken = |problem: String| Error::format(path, problem);
    meter::check(bytes).map_err(|flaw| match flaw {
        Flaw::Damaged => broken(match kind_of(bytes).filter(|kind| *kind != ONNX) {
            Some(kind) => format!("is {kind}, not a network in ONNX"),
            None => "not a whole ONNX model; export or copy it again".into(),
        }),
        Flaw::TooMuch => broken("describes far more than the file's size explains: refused".into()),
    })?;
    Model::decode(bytes).map_err(|e| broken(format!("not a whole ONNX model: {e}")))
}

/// Version of the standard operators.
pub(super) fn opset(model: &Model) -> i64 {
    let standard = model.opset.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx");
    standard.map_or(0, |o| o.version)
}

/// Whether a name is that of something added to a graph.
fn is_added(name: &str) -> bool {
    name.starts_with(ADDED)
}

impl<'a> Reader<'a> {
    /// The one input that is not a weight: name, shape, whether channels are last.
    fn input(&self) -> Result<(String, Vec<Option<usize>>, bool)> {
        let inputs = self.graph.input.iter();
        let inputs: Vec<&Value> = inputs.filter(|v| !self.constants.stores(&v.name)).collect();
        let [input] = inputs[..] else {
            let names: Vec<_> = inputs.iter().map(|v| v.name.as_str()).collect();
            let problem = format!(
                "has the inputs [{}]; expected one, an image. Are the others constants that its \
                 exporter left out? Export it by another way (Keras: `model.export` to a \
                 SavedModel, then `python -m tf2onnx.convert --saved-model`)",
                names.join(", ")
            );
            return Err(Error::format(self.path, problem));
        };
        let kind = input.kind.as_ref().and_then(|k| k.tensor.as_ref());
        let kind = kind.cloned().unwrap_or_default();
        if kind.element != FLOAT {
            let problem = format!(
                "its input `{}` is not in single precision; export the network in float32",
                input.name
            );
            return Err(Error::format(self.path, problem));
        }
        let dims = kind.shape.unwrap_or_default().dim;
        let shape: Vec<Option<usize>> =
            dims.iter().map(|d| d.value.and_then(|v| usize::try_from(v).ok())).collect();
        let last = match shape[..] {
            [_, channels, _, Some(3)] if channels != Some(3) => true,
            [_, None, None, None] | [] => self.is_turned_first(&input.name),
            _ => false,
        };
        let image = match shape[..] {
            [] => true,
            [_, channels, ..] if shape.len() == 4 => last || matches!(channels, None | Some(3)),
            _ => false,
        };
        if !image {
            return Err(Error::Shape {
                place: self.path.display().to_string(),
                tensor: input.name.clone(),
                expected: "[N, 3, height, width] or [N, height, width, 3]".into(),
                got: text(&shape),
            });
        }
        Ok((input.name.clone(), shape, last))
    }

    /// Whether the graph first puts the channels of its input before the rest.
    fn is_turned_first(&self, input: &str) -> bool {
        let mut readers = self.graph.node.iter().filter(|n| n.input.iter().any(|i| i == input));
        readers.any(|n| {
            n.op == "Transpose" && n.attribute("perm").is_some_and(|a| a.ints == [0, 3, 1, 2])
        })
    }

    /// The classifier's linear layer, if one is found, which output it leads
    /// to where there are several, and that output.
    fn classifier(&self, asked: Asked<'_>) -> Result<(Option<Linear>, Option<Chosen>, String)> {
        let outputs = self.graph.output.iter().map(|o| o.name.as_str());
        let outputs: Vec<&str> = outputs.filter(|name| !is_added(name)).collect();
        let finder = Finder::new(self.makers, self.constants);
        let choose = |name: &str, why: String| {
            let others: Vec<String> =
                outputs.iter().filter(|o| **o != name).map(|o| o.to_string()).collect();
            (!others.is_empty()).then(|| Chosen { output: name.to_owned(), others, why })
        };
        if let Some(name) = asked.output {
            if !self.makers.contains_key(name) {
                return Err(Error::unknown("output", name, outputs.iter().copied()));
            }
            let chosen = choose(name, "as asked".into());
            return Ok((finder.before(name), chosen, name.to_owned()));
        }
        let Some(last) = outputs.last() else {
            return Err(Error::format(self.path, "has no output"));
        };
        let all = outputs.iter().map(|name| (*name, finder.before(name)));
        let mut candidates: Vec<(&str, Linear)> =
            all.filter_map(|(name, linear)| Some((name, linear?))).collect();
        // What another layer reads are features.
        let read: HashSet<String> = candidates
            .iter()
            .flat_map(|(_, l)| &l.sources)
            .flat_map(|source| match source {
                Source::Tensor(name) => self.passed(name),
                Source::Mean(_) => Vec::new(),
            })
            .collect();
        if candidates.iter().any(|(name, _)| !read.contains(*name)) {
            candidates.retain(|(name, _)| !read.contains(*name));
        }
        if candidates.is_empty() {
            let best = outputs.iter().rev().max_by_key(|name| likeness(name)).unwrap_or(last);
            let named = outputs.iter().any(|o| likeness(o) < likeness(best));
            let why = if named { "by its name" } else { "as the last" };
            return Ok((None, choose(best, why.into()), (*best).to_owned()));
        }
        let alone = candidates.len() == 1;
        let fits = |l: &Linear| asked.classes == Some(l.head.classes());
        let mut why =
            if alone { "as the only one with a linear layer" } else { "as the last" }.to_owned();
        if let Some(classes) = asked.classes
            && candidates.iter().any(|(_, l)| fits(l))
            && !candidates.iter().all(|(_, l)| fits(l))
        {
            candidates.retain(|(_, l)| fits(l));
            why = format!("for its {classes} classes, as the labels have");
        }
        let best = candidates.iter().map(|(name, _)| likeness(name)).max();
        if candidates.iter().any(|(name, _)| Some(likeness(name)) != best) {
            candidates.retain(|(name, _)| Some(likeness(name)) == best);
            why = "by its name".into();
        }
        let (name, linear) = candidates.pop().expect("one is left");
        let chosen = choose(name, why);
        Ok((Some(linear), chosen, name.to_owned()))
    }

    /// A tensor and those before it that hold the same values.
    fn passed(&self, name: &str) -> Vec<String> {
        let mut all = vec![name.to_owned()];
        let mut name = name;
        for _ in 0..self.graph.node.len() {
            let Some(node) = self.makers.get(name).filter(|n| PASSING.contains(&n.op.as_str()))
            else {
                break;
            };
            let Some(before) = node.input.first() else { break };
            all.push(before.clone());
            name = before;
        }
        all
    }

    fn with_head(&self, mut found: Found, linear: Linear) -> Found {
        let names = linear.sources.iter().map(|source| match source {
            Source::Tensor(name) => Some(name.clone()),
            Source::Mean(_) => None,
        });
        let names: Option<Vec<String>> = names.collect();
        found.plan.cast = linear.reads != FLOAT;
        match (names, &linear.sources[..]) {
            (Some(names), _) => {
                found.pooled = Some(names.join(" + "));
                found.tap = Tap::Vector(names.join(" + "));
                if let [name] = &names[..]
                    && let Some((pooled, cast)) = self.map_of(name)
                {
                    found.tap = Tap::Map(pooled.map);
                    found.plan.layout = pooled.layout;
                    found.plan.cast |= cast;
                }
                found.plan.sources = names;
            }
            (None, [Source::Mean(pooled)]) => {
                found.tap = Tap::Map(pooled.map.clone());
                found.plan.layout = pooled.layout;
            }
            // Layers before several poolings: none is known.
            (None, _) => {
                let output = linear.output.clone().unwrap_or_default();
                return self.without_head(found, &output);
            }
        }
        found.plan.apply_head = linear.output.is_none();
        found.plan.cast_logits = linear.element != FLOAT;
        found.plan.logits = linear.output.clone();
        found.linear = Some((linear.node, linear.output.unwrap_or_else(|| "logits".into())));
        found.head = Some(linear.head);
        found
    }

    /// The map whose mean a vector is, and whether it is of another type.
    fn map_of(&self, pooled: &str) -> Option<(Pooled, bool)> {
        let (mut name, mut cast) = (pooled, false);
        for _ in 0..self.graph.node.len() {
            let node = *self.makers.get(name)?;
            if let Some(found) = pooling::of(node, self.constants, self.makers) {
                return Some((found, cast));
            }
            if !PASSING.contains(&node.op.as_str()) && !self.gathers_all(node) {
                return None;
            }
            cast |= node.op == "Cast";
            name = node.input.first()?;
        }
        None
    }

    /// Whether a node takes all values in their order, as PyTorch's exporter
    /// writes a view of what lies with its channels last.
    fn gathers_all(&self, node: &Node) -> bool {
        let places = node.input.get(1).filter(|_| node.op == "Gather" && node.int("axis", 0) == 0);
        let places = places.and_then(|name| self.constants.ints(name));
        places.is_some_and(|p| p.len() > 1 && p.iter().zip(0..).all(|(at, i)| *at == i))
    }

    /// Features alone: the last pooling that all goes through, or the output.
    fn without_head(&self, mut found: Found, output: &str) -> Found {
        let finder = Finder::new(self.makers, self.constants);
        let logits = finder.logits(output);
        let probabilities = self.makers.get(output).is_some_and(|n| n.op == "Softmax")
            || finder.logits(output) != output && !self.passed(output).contains(&logits);
        let nodes = self.graph.node.iter().rev();
        let mut pooled = nodes.filter_map(|node| {
            let pooled = pooling::of(node, self.constants, self.makers)?;
            let made = node.output.first()?;
            let sound = pooled.layout != Layout::TokensLast && self.is_on_every_way(made, &logits);
            sound.then_some((made, pooled))
        });
        let ends = self.last_operators(output);
        let mut ends = format!(
            "no linear layer with constant weights at its end (it ends in {ends}, last first)"
        );
        if let Some(node) = self.graph.node.iter().rev().find(|n| n.is_quantised()) {
            ends += &format!(
                "; its weights are within operators of eight bits ({}): quantise it in the form QDQ",
                node.op
            );
        }
        found.headless = Some(ends);
        // The types of intermediate tensors are not known.
        found.plan.cast = true;
        found.plan.cast_logits = true;
        let Some((made, mut pooled)) = pooled.next() else {
            found.plan.sources = vec![logits.clone()];
            found.tap = Tap::Vector(logits.clone());
            if probabilities {
                found.plan.logits = Some(logits);
            }
            return found;
        };
        let direct = self.passed(&logits).iter().any(|name| name == made);
        if !direct || probabilities {
            found.plan.logits = Some(logits);
        }
        if direct && probabilities {
            // Convolution, ReLU, pooling, softmax: the classes are its channels.
            if let Some(before) = self.before_last_convolution(&pooled.map) {
                pooled.map = before;
            }
        }
        found.tap = Tap::Map(pooled.map);
        found.plan.layout = pooled.layout;
        found
    }

    fn before_last_convolution(&self, map: &str) -> Option<String> {
        let mut name = map;
        for _ in 0..4 {
            let node = self.makers.get(name)?;
            match node.op.as_str() {
                "Conv" => return node.input.first().cloned(),
                "Relu" | "Clip" | "BatchNormalization" | "Identity" | "Dropout" => {
                    name = node.input.first()?;
                }
                _ => return None,
            }
        }
        None
    }

    /// Whether nothing comes from the images to `end` but through `tensor`.
    fn is_on_every_way(&self, tensor: &str, end: &str) -> bool {
        if tensor == end {
            return true;
        }
        let mut met = HashSet::from([end]);
        let mut open = vec![end];
        let mut passes = false;
        while let Some(name) = open.pop() {
            if name == tensor {
                passes = true;
                continue;
            }
            let Some(node) = self.makers.get(name) else {
                if name.is_empty() || self.constants.stores(name) {
                    continue;
                }
                return false;
            };
            for input in &node.input {
                if met.insert(input.as_str()) {
                    open.push(input);
                }
            }
        }
        passes
    }

    /// A tensor that the user names: a map when a pooling or a convolution
    /// reads or makes it, else what follows it decides.
    fn tapped(&self, mut found: Found, name: &str) -> Result<Found> {
        if !self.makers.contains_key(name) {
            let names = self.makers.keys().copied();
            return Err(Error::unknown("tap", name, names));
        }
        let maps = ["Conv", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool"];
        let makes = self.makers.get(name).is_some_and(|n| maps[..4].contains(&n.op.as_str()));
        let readers = self.graph.node.iter().filter(|n| n.input.iter().any(|i| i == name));
        let mut read = false;
        found.plan.layout = Layout::Channels;
        for node in readers {
            read |= maps.contains(&node.op.as_str());
            if let Some(pooled) = pooling::of(node, self.constants, self.makers) {
                read = true;
                found.plan.layout = pooled.layout;
            }
        }
        found.pooled = None;
        found.plan.cast = true;
        found.plan.apply_head = false;
        if makes || read {
            found.tap = Tap::Map(name.to_owned());
            found.plan.sources = Vec::new();
        } else {
            found.tap = Tap::Vector(name.to_owned());
            found.plan.sources = vec![name.to_owned()];
        }
        Ok(found)
    }

    fn last_operators(&self, output: &str) -> String {
        let (mut ops, mut name) = (Vec::new(), output);
        while ops.len() < 4 {
            let Some(node) = self.makers.get(name) else { break };
            ops.push(node.op.clone());
            let Some(before) = node.input.iter().find(|i| self.makers.contains_key(i.as_str()))
            else {
                break;
            };
            name = before;
        }
        ops.join(", ")
    }
}

/// How much a name sounds like that of a classifier's output.
fn likeness(name: &str) -> u8 {
    let name = name.to_lowercase();
    let others =
        ["aux", "emb", "feat", "hidden", "box", "mask", "proj", "pool", "token", "recon", "attn"];
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    match () {
        () if has(&others) => 0,
        () if has(&["logit"]) => 3,
        () if has(&["out", "pred", "class", "cls", "prob", "score", "softmax", "fc"]) => 2,
        () => 1,
    }
}

/// A shape as text.
fn text(shape: &[Option<usize>]) -> String {
    let dims = shape.iter().map(|d| d.map_or("?".into(), |d| d.to_string()));
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}

impl Found {
    /// Expected and found shape, if images `[N, channels, height, width]` do
    /// not fit.
    pub(super) fn mismatch(&self, shape: [usize; 4]) -> Option<(String, String)> {
        let shape = self.as_taken(shape);
        let fits =
            self.input_shape.iter().zip(shape).skip(1).all(|(w, g)| w.is_none_or(|w| w == g));
        (!fits).then(|| (text(&self.input_shape), format!("{shape:?}")))
    }

    /// A shape `[N, channels, height, width]` as the graph takes images.
    pub(super) fn as_taken(&self, [n, channels, height, width]: [usize; 4]) -> [usize; 4] {
        match self.channels_last {
            true => [n, height, width, channels],
            false => [n, channels, height, width],
        }
    }

    /// The fixed size of a batch, if the graph has one.
    pub fn batch(&self) -> Option<usize> {
        self.input_shape.first().copied().flatten()
    }

    /// Height and width of the images, where the graph fixes them.
    pub fn image_size(&self) -> Option<[usize; 2]> {
        let at = |i: usize| self.input_shape.get(if self.channels_last { i - 1 } else { i });
        Some([*at(2)?.as_ref()?, *at(3)?.as_ref()?])
    }

    /// Shape of the input as text.
    pub fn input_text(&self) -> String {
        text(&self.input_shape)
    }
}
