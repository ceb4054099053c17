//! The gradient with respect to the images, or to layers on the way, as a
//! second graph beside the forward one.
//!
//! [`with_gradient`] appends to a classifier's graph the nodes that carry
//! *seeds*, the gradient of some energy with respect to the pooled features
//! and the logits, back to the images or as far as the first of some layers,
//! for images of one size; or takes on the way the norms of the gradients of
//! the weights. A
//! convolution goes back as a convolution with the kernel turned round, or as
//! a transposed one where it has a stride; ReLU by the sign of its output; a
//! max-pooling by the places of its maxima; a batch normalisation as a factor
//! for each channel.

mod norms;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use prost::Message;

use super::graph::{Found, Tap};
use super::outputs::added;
use super::proto::{Attribute, FLOAT, Graph, Model, Node, Tensor, Value};
use super::shapes::{self, Shape, Window};
use heat_ood::features::{Field, Pooling};
use heat_ood::{Error, Result};

/// The output that holds the gradient, `[N, 3, height, width]`.
pub(super) const GRADIENT: &str = "heat_gradient";

/// The output that holds the squared norm of the gradient of each weight tensor, `[N, tensors]`, the
/// last of the network first.
pub(super) const NORMS: &str = "heat_norms";

/// What a gradient is wanted of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The images: [`GRADIENT`].
    Images,
    /// These tensors, each times the tensor, both summed over the map: [`product`] of its place.
    Products(Vec<String>),
    /// All weights, by their norms for each image: [`NORMS`].
    Weights,
}

impl Wanted {
    /// Names of the outputs.
    pub fn outputs(&self) -> Vec<String> {
        match self {
            Wanted::Images => vec![GRADIENT.to_owned()],
            Wanted::Products(tensors) => (0..tensors.len()).map(product).collect(),
            Wanted::Weights => vec![NORMS.to_owned()],
        }
    }
}

/// The output of the tensor at that place, `[N, channels]`.
fn product(at: usize) -> String {
    format!("heat_product_{at}")
}

/// The input that holds the seeds of a field, `[N, D]` or `[N, C]`.
pub(super) fn seed(field: Field) -> String {
    format!("heat_seed_{}", field.name())
}

/// Operators that a gradient goes back through.
const KNOWN: &str = "Conv, BatchNormalization, Relu, Add, Concat, MaxPool, AveragePool, \
                     GlobalAveragePool, ReduceMean, Flatten, Reshape, Squeeze, Identity, Dropout, \
                     Gemm, MatMul";

struct Tape<'a> {
    path: &'a Path,
    weights: HashMap<&'a str, &'a Tensor>,
    shapes: HashMap<String, Shape>,
    /// The first operator that is not known.
    stranger: Option<&'a Node>,
    /// What sums to the gradient of each tensor.
    parts: HashMap<String, Vec<String>>,
    /// Whole gradients that are wanted.
    whole: HashMap<String, Option<String>>,
    /// Squared norms of the gradients of weights, `[N, 1, 1]`, where these are wanted.
    norms: Option<Vec<String>>,
    /// Weights that were met.
    met: HashSet<String>,
    nodes: Vec<Node>,
    tensors: Vec<Tensor>,
    opset: i64,
}

/// The model with the gradients as further outputs, for seeds of `fields`.
///
/// # Errors
/// If an operator between what is wanted and the features has no gradient here.
pub(super) fn with_gradient(
    path: &Path,
    bytes: &[u8],
    found: &Found,
    image: [usize; 2],
    fields: &[Field],
    wanted: &Wanted,
) -> Result<Vec<u8>> {
    let model = Model::decode(bytes).map_err(|e| Error::format(path, e.to_string()))?;
    let graph = model.graph.unwrap_or_default();
    let weights: HashMap<_, _> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let start = Shape::Map([3, image[0], image[1]]);
    let shapes = shapes::infer(path, &graph, &weights, &found.input, start)?;
    let mut tape = Tape {
        path,
        weights,
        shapes: shapes.known,
        stranger: shapes.stranger,
        parts: HashMap::new(),
        whole: HashMap::new(),
        norms: (*wanted == Wanted::Weights).then(Vec::new),
        met: HashSet::new(),
        nodes: Vec::new(),
        tensors: Vec::new(),
        opset: found.opset,
    };
    let mut inputs = Vec::new();
    for &field in fields {
        let width = tape.seed(found, field)?;
        inputs.push(Value::floats(&seed(field), Some(&[Err("batch"), Ok(width)])));
    }
    if let Wanted::Products(tensors) = wanted {
        tape.whole = tensors.iter().map(|name| (name.clone(), None)).collect();
    }
    for node in graph.node.iter().rev() {
        tape.back(node)?;
        // No further than the first of the layers.
        if !tape.whole.is_empty() && tape.whole.values().all(Option::is_some) {
            break;
        }
    }
    match wanted {
        Wanted::Images => {
            let Some(total) = tape.sum(&found.input) else {
                let problem = "no gradient reaches the images: its features do not depend on them";
                return Err(Error::format(path, problem));
            };
            tape.nodes.push(Node::new("Identity", &[&total], GRADIENT, vec![]));
        }
        Wanted::Products(tensors) => {
            for (at, tensor) in tensors.iter().enumerate() {
                tape.product(tensor, &product(at))?;
            }
        }
        Wanted::Weights => {
            let norms = tape.norms.take().unwrap_or_default();
            if norms.is_empty() {
                let problem = "no weights between its images and its logits";
                return Err(Error::format(path, problem));
            }
            let norms: Vec<&str> = norms.iter().map(String::as_str).collect();
            let all = tape.add("Concat", &norms, vec![Attribute::int("axis", 1)]);
            let axis = vec![Attribute::int("axis", 1)];
            tape.nodes.push(Node::new("Flatten", &[&all], NORMS, axis));
        }
    }
    let more = Graph {
        name: String::new(),
        node: tape.nodes,
        initializer: tape.tensors,
        input: inputs,
        output: wanted.outputs().iter().map(|name| Value::floats(name, None)).collect(),
    };
    let more = Model { graph: Some(more), ..Model::default() };
    Ok([bytes, &more.encode_to_vec()].concat())
}

impl<'a> Tape<'a> {
    fn refuse(&self, node: &Node, problem: &str) -> Error {
        let problem = format!("no gradient through `{}` ({}): {problem}", node.name, node.op);
        Error::format(self.path, problem)
    }

    /// The error for a tensor from which no gradient leads back.
    fn no_way(&self, tensor: &str) -> Error {
        if let Some(node) = self.stranger {
            return self.refuse(node, &format!("only through {KNOWN}"));
        }
        let problem = format!("no gradient of `{tensor}`: it is neither a vector nor a map");
        Error::format(self.path, problem)
    }

    fn shape(&self, name: &str) -> Option<Shape> {
        self.shapes.get(name).copied()
    }

    /// A name for something added.
    fn fresh(&self, what: &str) -> String {
        format!("heat_back_{}_{what}", self.nodes.len() + self.tensors.len())
    }

    fn add(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let name = self.fresh(&op.to_lowercase());
        self.nodes.push(Node::new(op, inputs, &name, attributes));
        name
    }

    fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let name = self.fresh("values");
        self.tensors.push(Tensor::of_floats(&name, dims, values));
        name
    }

    fn ints(&mut self, values: &[i64]) -> String {
        let name = self.fresh("sizes");
        self.tensors.push(Tensor::of_ints(&name, values));
        name
    }

    fn reshape(&mut self, input: &str, sizes: &[i64]) -> String {
        let sizes = self.ints(sizes);
        self.add("Reshape", &[input, &sizes], vec![])
    }

    /// One more part of the gradient of a tensor.
    fn give(&mut self, tensor: &str, part: String) {
        self.parts.entry(tensor.to_owned()).or_default().push(part);
    }

    /// The whole gradient of a tensor.
    fn sum(&mut self, tensor: &str) -> Option<String> {
        let mut parts = self.parts.remove(tensor)?.into_iter();
        let first = parts.next()?;
        Some(parts.fold(first, |sum, part| self.add("Add", &[&sum, &part], vec![])))
    }

    /// The seeds of a field where they enter; their number of columns.
    fn seed(&mut self, found: &Found, field: Field) -> Result<usize> {
        let names = found.names();
        let input = seed(field);
        let at = match field {
            Field::Logits => found.plan.logits.clone(),
            Field::Features(Pooling::Avg) => match &found.plan.sources[..] {
                [name] => Some(name.clone()),
                _ => Some(names.avg.clone()),
            },
            Field::Features(Pooling::Std) => names.std,
            Field::Features(Pooling::Max) => names.max,
            Field::Features(Pooling::AvgStd) | Field::Probabilities => None,
            Field::Gram | Field::Rankfeat | Field::Nac | Field::Graduncertainty => None,
            Field::Spread | Field::Of(_) => None,
        };
        let place = || self.path.display().to_string();
        let at = at.ok_or_else(|| {
            Error::missing(place(), format!("`{}`", field.name()), "perturb by another scorer")
        })?;
        if let Some(Shape::Vector(width)) = self.shape(&at) {
            self.give(&at, input);
            return Ok(width);
        }
        let map = match &found.tap {
            Tap::Map(map) if field != Field::Logits => map,
            _ => return Err(self.no_way(&at)),
        };
        let Some(Shape::Map([channels, h, w])) = self.shape(map) else {
            return Err(self.no_way(map));
        };
        let part = match field {
            Field::Features(Pooling::Std) => self.of_std(map, &input, channels, h * w),
            Field::Features(Pooling::Max) => self.of_max(map, &input, channels, h * w),
            _ => {
                debug_assert_eq!(at, added("avg"));
                let g = self.reshape(&input, &[-1, channels as i64, 1, 1]);
                self.spread(&g, map, h * w)
            }
        };
        self.give(map, part);
        Ok(channels)
    }

    /// Seeds of the standard deviation: g·(x − mean)/((n − 1)·std); 0 where
    /// the map is constant.
    fn of_std(&mut self, map: &str, seeds: &str, channels: usize, n: usize) -> String {
        let g = self.reshape(seeds, &[-1, channels as i64, 1, 1]);
        let mean = self.add("GlobalAveragePool", &[map], vec![]);
        let centred = self.add("Sub", &[map, &mean], vec![]);
        let squares = self.add("Mul", &[&centred, &centred], vec![]);
        let variance = self.add("GlobalAveragePool", &[&squares], vec![]);
        let less = n.saturating_sub(1) as f32;
        // (n − 1)·std = √(n·(n − 1)·mean of squares).
        let factor = self.floats(&[], &[n as f32 * less]);
        let scaled = self.add("Mul", &[&variance, &factor], vec![]);
        let root = self.add("Sqrt", &[&scaled], vec![]);
        let least = self.floats(&[], &[1e-20]);
        let safe = self.add("Max", &[&root, &least], vec![]);
        let ratio = self.add("Div", &[&g, &safe], vec![]);
        self.add("Mul", &[&centred, &ratio], vec![])
    }

    /// Seeds of the maximum, shared by all cells that hold it.
    fn of_max(&mut self, map: &str, seeds: &str, channels: usize, n: usize) -> String {
        let g = self.reshape(seeds, &[-1, channels as i64, 1, 1]);
        let top = self.add("GlobalMaxPool", &[map], vec![]);
        let equal = self.add("Equal", &[map, &top], vec![]);
        let equal = self.add("Cast", &[&equal], vec![Attribute::int("to", i64::from(FLOAT))]);
        let fraction = self.add("GlobalAveragePool", &[&equal], vec![]);
        let cells = self.floats(&[], &[n as f32]);
        let count = self.add("Mul", &[&fraction, &cells], vec![]);
        let ratio = self.add("Div", &[&g, &count], vec![]);
        self.add("Mul", &[&equal, &ratio], vec![])
    }

    /// g/n in every cell of a map.
    fn spread(&mut self, g: &str, map: &str, n: usize) -> String {
        let factor = self.floats(&[], &[1.0 / n as f32]);
        let scaled = self.add("Mul", &[g, &factor], vec![]);
        let shape = self.add("Shape", &[map], vec![]);
        self.add("Expand", &[&scaled, &shape], vec![])
    }

    /// A tensor times its gradient, both summed over the map.
    fn product(&mut self, tensor: &str, output: &str) -> Result<()> {
        let Some(g) = self.whole.get(tensor).cloned().flatten() else {
            let problem =
                format!("no gradient of the logits reaches `{tensor}`: they do not depend on it");
            return Err(Error::format(self.path, problem));
        };
        match self.shape(tensor) {
            Some(Shape::Vector(_)) => {
                self.nodes.push(Node::new("Mul", &[tensor, &g], output, vec![]));
            }
            Some(Shape::Map([_, h, w])) => {
                let means = [tensor, &g].map(|map| self.add("GlobalAveragePool", &[map], vec![]));
                let product = self.add("Mul", &[&means[0], &means[1]], vec![]);
                let cells = (h * w) as f32;
                let factor = self.floats(&[], &[cells * cells]);
                let sums = self.add("Mul", &[&product, &factor], vec![]);
                let axis = vec![Attribute::int("axis", 1)];
                self.nodes.push(Node::new("Flatten", &[&sums], output, axis));
            }
            _ => return Err(self.no_way(tensor)),
        }
        Ok(())
    }

    /// Carry the gradient of a node's output to its inputs.
    fn back(&mut self, node: &'a Node) -> Result<()> {
        let Some(output) = node.output.first() else {
            return Ok(());
        };
        let Some(g) = self.sum(output) else {
            return Ok(());
        };
        if let Some(whole) = self.whole.get_mut(output) {
            *whole = Some(g.clone());
        }
        if self.norms.is_some() {
            self.weights_of(node, output, &g)?;
        }
        let depends = |name: &&String| self.shapes.contains_key(name.as_str());
        let inputs: Vec<String> = node.input.iter().filter(depends).cloned().collect();
        let Some(x) = inputs.first().map(String::as_str) else {
            // A constant: nothing to carry on.
            return Ok(());
        };
        let part = match node.op.as_str() {
            "Conv" => self.conv(node, x, output, &g)?,
            "BatchNormalization" => self.normalisation(node, &g)?,
            "Relu" => {
                let zero = self.floats(&[], &[0.0]);
                let mask = self.add("Greater", &[output, &zero], vec![]);
                self.add("Where", &[&mask, &g, &zero], vec![])
            }
            "Add" => {
                inputs[1..].iter().for_each(|other| self.give(other, g.clone()));
                g
            }
            "Concat" => return self.concat(node, &inputs, &g),
            "MaxPool" => self.max_pool(node, x, &g)?,
            "AveragePool" => self.average_pool(node, x, output, &g)?,
            "GlobalAveragePool" | "ReduceMean" => match self.shape(x) {
                Some(Shape::Map([c, h, w])) => {
                    let g = self.reshape(&g, &[-1, c as i64, 1, 1]);
                    self.spread(&g, x, h * w)
                }
                _ => return Err(self.refuse(node, "it does not average a map")),
            },
            "Flatten" | "Reshape" | "Squeeze" => match self.shape(x) {
                Some(Shape::Map([c, h, w])) => {
                    self.reshape(&g, &[-1, c as i64, h as i64, w as i64])
                }
                _ => g,
            },
            "Identity" | "Dropout" => g,
            // The images' channels, put first; the gradient is turned as they were.
            "Transpose" => {
                self.add("Transpose", &[&g], vec![Attribute::ints("perm", &[0, 2, 3, 1])])
            }
            "Gemm" if node.int("transB", 0) != 0 => {
                let w = node.input.get(1).cloned().unwrap_or_default();
                self.add("MatMul", &[&g, &w], vec![])
            }
            "Gemm" | "MatMul" => {
                let w = node.input.get(1).cloned().unwrap_or_default();
                self.add("Gemm", &[&g, &w], vec![Attribute::int("transB", 1)])
            }
            _ => return Err(self.refuse(node, &format!("only through {KNOWN}"))),
        };
        self.give(x, part);
        Ok(())
    }

    fn weight(&self, node: &Node, at: usize) -> Result<&'a Tensor> {
        let weight = node.input.get(at).and_then(|name| self.weights.get(name.as_str()));
        weight.copied().ok_or_else(|| self.refuse(node, "its weights are not constants"))
    }

    fn conv(&mut self, node: &Node, x: &str, y: &str, g: &str) -> Result<String> {
        let (Some(Shape::Map(from)), Some(Shape::Map(to))) = (self.shape(x), self.shape(y)) else {
            return Err(self.refuse(node, "it does not read and make maps"));
        };
        let weight = self.weight(node, 1)?;
        let dims: Option<[usize; 4]> = weight.shape().and_then(|d| d.try_into().ok());
        let dims = dims.ok_or_else(|| self.refuse(node, "its kernel is not of two dimensions"))?;
        let window = Window::of(node, [dims[2], dims[3]]);
        let window = window.ok_or_else(|| self.refuse(node, "its attributes"))?;
        let group = usize::try_from(node.int("group", 1)).unwrap_or(1).max(1);
        let kernel = |i: usize| window.dilations[i] * (window.kernel[i] - 1);
        let turned = (0..2).all(|i| {
            window.strides[i] == 1 && kernel(i) >= window.pads[i] && kernel(i) >= window.pads[i + 2]
        });
        let mut attributes = vec![
            Attribute::ints("kernel_shape", &window.kernel),
            Attribute::ints("strides", &window.strides),
            Attribute::ints("dilations", &window.dilations),
            Attribute::int("group", group as i64),
        ];
        if turned {
            let whole = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let values = weight.floats().filter(|v| Some(v.len()) == whole);
            let values = values.ok_or_else(|| self.refuse(node, "its weights' type"))?;
            let (shape, values) = turn(&values, &dims, group);
            let w = self.floats(&shape, &values);
            let pads: Vec<usize> = (0..4).map(|i| kernel(i % 2) - window.pads[i]).collect();
            attributes.push(Attribute::ints("pads", &pads));
            return Ok(self.add("Conv", &[g, &w], attributes));
        }
        let beyond = window.left_over([from[1], from[2]], [to[1], to[2]]);
        let beyond = beyond.ok_or_else(|| self.refuse(node, "its sizes contradict each other"))?;
        attributes.push(Attribute::ints("pads", &window.pads));
        attributes.push(Attribute::ints("output_padding", &beyond));
        let w = node.input[1].clone();
        Ok(self.add("ConvTranspose", &[g, &w], attributes))
    }

    /// g·scale/√(variance + ε), channel by channel.
    fn normalisation(&mut self, node: &Node, g: &str) -> Result<String> {
        let read = |at| {
            let values = self.weight(node, at)?.floats();
            values.ok_or_else(|| self.refuse(node, "its weights' type"))
        };
        let (gain, variance) = (read(1)?, read(4)?);
        let epsilon = f64::from(node.attribute("epsilon").map_or(1e-5, |a| a.f));
        let factors = gain.iter().zip(&variance);
        let factors: Vec<f32> = factors
            .map(|(g, v)| (f64::from(*g) / (f64::from(*v) + epsilon).sqrt()) as f32)
            .collect();
        let factors = self.floats(&[1, factors.len(), 1, 1], &factors);
        Ok(self.add("Mul", &[g, &factors], vec![]))
    }

    fn concat(&mut self, node: &Node, inputs: &[String], g: &str) -> Result<()> {
        let mut start = 0;
        for x in inputs {
            let channels = match self.shape(x) {
                Some(Shape::Map([c, ..]) | Shape::Vector(c))
                    if inputs.len() == node.input.len() =>
                {
                    c as i64
                }
                _ => return Err(self.refuse(node, "its parts are not all maps or vectors")),
            };
            let bounds = [start, start + channels].map(|at| self.ints(&[at]));
            let axis = self.ints(&[1]);
            let part = self.add("Slice", &[g, &bounds[0], &bounds[1], &axis], vec![]);
            self.give(x, part);
            start += channels;
        }
        Ok(())
    }

    /// Each value of the gradient goes to the place of its maximum.
    fn max_pool(&mut self, node: &'a Node, x: &str, g: &str) -> Result<String> {
        // Adding where windows overlap is an option of ScatterElements since 16.
        if self.opset < 16 {
            return Err(self.refuse(node, "it needs opset 16 or newer: export the model anew"));
        }
        let mut again = node.clone();
        again.name = self.fresh("maxima");
        again.output = vec![format!("{}_values", again.name), format!("{}_places", again.name)];
        let places = again.output[1].clone();
        self.nodes.push(again);
        let shape = self.add("Shape", &[x], vec![]);
        let cells = self.add("Size", &[x], vec![]);
        let cells = self.reshape(&cells, &[1]);
        let zeros = self.add("ConstantOfShape", &[&cells], vec![]);
        let places = self.reshape(&places, &[-1]);
        let values = self.reshape(g, &[-1]);
        let reduction = vec![Attribute::int("axis", 0), Attribute::text("reduction", "add")];
        let flat = self.add("ScatterElements", &[&zeros, &places, &values], reduction);
        Ok(self.add("Reshape", &[&flat, &shape], vec![]))
    }

    /// A transposed convolution of each channel with equal weights.
    fn average_pool(&mut self, node: &Node, x: &str, y: &str, g: &str) -> Result<String> {
        let (Some(Shape::Map(from)), Some(Shape::Map(to))) = (self.shape(x), self.shape(y)) else {
            return Err(self.refuse(node, "it does not read and make maps"));
        };
        let kernel = node.sizes("kernel_shape", 2, 1).unwrap_or_default();
        let window = kernel.try_into().ok().and_then(|k| Window::of(node, k));
        let window = window.ok_or_else(|| self.refuse(node, "its attributes"))?;
        let cells = window.kernel[0] * window.kernel[1];
        if window.pads == [0; 4] && window.kernel == [from[1], from[2]] {
            return Ok(self.spread(g, x, cells));
        }
        if window.pads != [0; 4] && node.int("count_include_pad", 0) == 0 {
            return Err(self.refuse(node, "padding that is not counted"));
        }
        let beyond = window.left_over([from[1], from[2]], [to[1], to[2]]);
        let beyond = beyond.ok_or_else(|| self.refuse(node, "it leaves out pixels"))?;
        let dims = [from[0], 1, window.kernel[0], window.kernel[1]];
        let w = self.floats(&dims, &vec![1.0 / cells as f32; from[0] * cells]);
        let attributes = vec![
            Attribute::ints("kernel_shape", &window.kernel),
            Attribute::ints("strides", &window.strides),
            Attribute::ints("pads", &window.pads),
            Attribute::ints("output_padding", &beyond),
            Attribute::int("group", from[0] as i64),
        ];
        Ok(self.add("ConvTranspose", &[g, &w], attributes))
    }
}

/// Kernels `[M, C/g, kh, kw]` turned round, with inputs and outputs exchanged:
/// `[C, M/g, kh, kw]`.
fn turn(values: &[f32], dims: &[usize], group: usize) -> ([usize; 4], Vec<f32>) {
    let (m, c, cells) = (dims[0] / group, dims[1], dims[2] * dims[3]);
    let mut out = Vec::with_capacity(values.len());
    for g in 0..group {
        for to in 0..c {
            for from in 0..m {
                let at = ((g * m + from) * c + to) * cells;
                out.extend(values[at..at + cells].iter().rev());
            }
        }
    }
    ([c * group, m, dims[2], dims[3]], out)
}
