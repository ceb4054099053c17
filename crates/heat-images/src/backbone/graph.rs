//! Finding the features in a classifier's graph, and adding their poolings.

use std::collections::HashMap;
use std::path::Path;

use prost::Message;

use super::meter::{self, Flaw};
use super::proto::{FLOAT, Graph, Model, Node, Tensor, Value};
use heat_ood::features::Head;
use heat_ood::{Error, Result};

/// Where features are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tap {
    /// A map `[N, D, h, w]` before its global pooling.
    Map(String),
    /// A vector `[N, D]`: it gives `avg` alone.
    Vector(String),
}

/// What was found in a graph.
#[derive(Clone)]
pub struct Found {
    /// Name of the input, and its shape where fixed.
    pub input: String,
    /// `[N, channels, height, width]`; `None`: any size.
    pub input_shape: Vec<Option<usize>>,
    /// Where features are taken.
    pub tap: Tap,
    /// The pooled features within the graph, where the linear layer reads them.
    pub pooled: Option<String>,
    /// The last linear layer.
    pub head: Option<Head>,
    /// Its node and output.
    pub linear: Option<(String, String)>,
    /// Version of the standard operators.
    pub opset: i64,
    /// Number of nodes.
    pub nodes: usize,
    /// Outputs that the graph already has.
    pub(super) declared: Vec<String>,
}

/// Operations that only change the shape, or nothing when a network is applied.
const PASSING: [&str; 7] =
    ["Flatten", "Reshape", "Squeeze", "Identity", "Dropout", "Cast", "Unsqueeze"];
/// Operations after the last linear layer.
const AFTER: [&str; 4] = ["Softmax", "LogSoftmax", "Sigmoid", "Identity"];

struct Reader<'a> {
    path: &'a Path,
    graph: &'a Graph,
    /// The node that makes each tensor.
    makers: HashMap<&'a str, &'a Node>,
    weights: HashMap<&'a str, &'a Tensor>,
}

/// Read a model.
pub(super) fn read(path: &Path, bytes: &[u8], tap: Option<&str>) -> Result<Found> {
    let broken = |problem: String| Error::format(path, problem);
    meter::check(bytes).map_err(|flaw| match flaw {
        Flaw::Damaged => broken("not a whole ONNX model; export or copy it again".into()),
        Flaw::TooMuch => broken("describes far more than the file's size explains: refused".into()),
    })?;
    let model = Model::decode(bytes).map_err(|e| broken(format!("not a whole ONNX model: {e}")))?;
    let graph = model.graph.as_ref().filter(|g| !g.node.is_empty());
    let graph = graph.ok_or_else(|| broken("not an ONNX model: it has no graph".into()))?;
    if graph.initializer.iter().any(|t| t.data_location != 0) {
        let problem = "its weights are in another file; save it as one file \
                       (`onnx.save(onnx.load(path), path)`)";
        return Err(broken(problem.into()));
    }
    let mut makers = HashMap::new();
    for node in &graph.node {
        for output in &node.output {
            makers.insert(output.as_str(), node);
        }
    }
    let weights: HashMap<_, _> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let reader = Reader { path, graph, makers, weights };
    let (input, input_shape) = reader.input()?;
    let linear = reader.linear();
    let (pooled, found_tap) = match (&linear, tap) {
        (_, Some(name)) => (None, reader.named(name)?),
        (Some(linear), None) => (Some(linear.input.clone()), reader.tap(&linear.input)),
        (None, None) => return Err(reader.no_linear()),
    };
    let opset = model.opset.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx");
    Ok(Found {
        input,
        input_shape,
        tap: found_tap,
        pooled,
        linear: linear.as_ref().map(|l| (l.node.clone(), l.output.clone())),
        head: linear.map(|l| l.head),
        opset: opset.map_or(0, |o| o.version),
        nodes: graph.node.len(),
        declared: graph.output.iter().map(|o| o.name.clone()).collect(),
    })
}

/// The last linear layer.
struct Linear {
    node: String,
    input: String,
    output: String,
    head: Head,
}

impl<'a> Reader<'a> {
    /// The one input that is not a weight.
    fn input(&self) -> Result<(String, Vec<Option<usize>>)> {
        let inputs = self.graph.input.iter();
        let inputs: Vec<&Value> =
            inputs.filter(|v| !self.weights.contains_key(v.name.as_str())).collect();
        let [input] = inputs[..] else {
            let names: Vec<_> = inputs.iter().map(|v| v.name.as_str()).collect();
            let problem = format!("has the inputs [{}]; expected one, an image", names.join(", "));
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
        let image = shape.is_empty() || (shape.len() == 4 && matches!(shape[1], None | Some(3)));
        if !image {
            return Err(Error::Shape {
                place: self.path.display().to_string(),
                tensor: input.name.clone(),
                expected: "[N, 3, height, width]".into(),
                got: text(&shape),
            });
        }
        Ok((input.name.clone(), shape))
    }

    /// Backwards from the outputs, past what follows it.
    fn linear(&self) -> Option<Linear> {
        for output in &self.graph.output {
            let mut name = output.name.as_str();
            // A damaged graph may lead back to where it came from.
            for _ in 0..self.graph.node.len() {
                let Some(node) = self.makers.get(name) else {
                    break;
                };
                if let Some(linear) = self.as_linear(node, name) {
                    return Some(linear);
                }
                if !AFTER.contains(&node.op.as_str()) {
                    break;
                }
                name = node.input.first()?;
            }
        }
        None
    }

    /// Gemm, or MatMul and Add, with constant weights.
    fn as_linear(&self, node: &'a Node, output: &str) -> Option<Linear> {
        match node.op.as_str() {
            "Gemm" => self.gemm(node, output),
            "MatMul" => self.product(node, None, output),
            "Add" => {
                let inputs = [node.input.first()?, node.input.get(1)?];
                let bias = inputs.iter().position(|n| self.weights.contains_key(n.as_str()))?;
                let product = self.makers.get(inputs[1 - bias].as_str())?;
                let bias = self.weights.get(inputs[bias].as_str())?;
                (product.op == "MatMul").then(|| self.product(product, Some(bias), output))?
            }
            _ => None,
        }
    }

    fn gemm(&self, node: &Node, output: &str) -> Option<Linear> {
        let factor = |name: &str| node.attribute(name).map_or(1.0, |a| a.f);
        if node.int("transA", 0) != 0 || factor("alpha") != 1.0 || factor("beta") != 1.0 {
            return None;
        }
        let weight = *self.weights.get(node.input.get(1)?.as_str())?;
        let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
            Some(name) => Some(*self.weights.get(name.as_str())?),
            None => None,
        };
        self.build(node, weight, node.int("transB", 0) != 0, bias, output)
    }

    fn product(&self, node: &Node, bias: Option<&Tensor>, output: &str) -> Option<Linear> {
        let weight = self.weights.get(node.input.get(1)?.as_str())?;
        self.build(node, weight, false, bias, output)
    }

    fn build(
        &self,
        node: &Node,
        weight: &Tensor,
        rows_are_classes: bool,
        bias: Option<&Tensor>,
        output: &str,
    ) -> Option<Linear> {
        let &[a, b] = &weight.dims[..] else {
            return None;
        };
        let (a, b) = (usize::try_from(a).ok()?, usize::try_from(b).ok()?);
        let values = weight.floats();
        let values = values.filter(|v| !v.is_empty() && Some(v.len()) == a.checked_mul(b))?;
        let (classes, weight) = if rows_are_classes {
            (a, values)
        } else {
            let column = |c: usize| values.iter().skip(c).step_by(b).copied();
            (b, (0..b).flat_map(column).collect())
        };
        let bias = match bias {
            Some(bias) => bias.floats()?,
            None => vec![0.0; classes],
        };
        let head = Head::new(weight, bias).ok().filter(|h| h.classes() == classes)?;
        let input = node.input.first()?.clone();
        Some(Linear { node: node.name.clone(), input, output: output.to_owned(), head })
    }

    /// The map before the global pooling that makes `pooled`.
    fn tap(&self, pooled: &str) -> Tap {
        let mut name = pooled;
        for _ in 0..self.graph.node.len() {
            let node = self.makers.get(name);
            let Some((node, before)) = node.and_then(|n| Some((n, n.input.first()?))) else {
                break;
            };
            if is_global_average(node) {
                return Tap::Map(before.clone());
            }
            if !PASSING.contains(&node.op.as_str()) {
                break;
            }
            name = before;
        }
        Tap::Vector(pooled.to_owned())
    }

    /// A tensor that the user names: a map when a pooling or a convolution
    /// reads or makes it, else what follows it decides.
    fn named(&self, name: &str) -> Result<Tap> {
        if !self.makers.contains_key(name) {
            let names = self.makers.keys().copied();
            return Err(Error::unknown("tap", name, names));
        }
        let maps = ["Conv", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool"];
        let makes = self.makers.get(name).is_some_and(|n| maps[..4].contains(&n.op.as_str()));
        let mut readers = self.graph.node.iter().filter(|n| n.input.iter().any(|i| i == name));
        let read = readers.any(|n| maps.contains(&n.op.as_str()) || is_global_average(n));
        Ok(if makes || read { Tap::Map(name.to_owned()) } else { Tap::Vector(name.to_owned()) })
    }

    fn no_linear(&self) -> Error {
        let last: Vec<String> =
            self.graph.node.iter().rev().take(4).map(|n| n.op.clone()).collect();
        let problem = format!(
            "no linear layer with constant weights at its end (it ends in {}, last first); \
             name the tensor that holds the features as the tap",
            last.join(", ")
        );
        Error::format(self.path, problem)
    }
}

/// Whether a node averages over the whole map.
fn is_global_average(node: &Node) -> bool {
    match node.op.as_str() {
        "GlobalAveragePool" => true,
        // Before a linear layer of as many columns as the map has channels,
        // an average can only be over all of it.
        "AveragePool" => true,
        "ReduceMean" => node
            .attribute("axes")
            .is_none_or(|a| matches!(a.ints[..], [2, 3] | [-2, -1] | [-1, -2] | [3, 2])),
        _ => false,
    }
}

/// A shape as text.
fn text(shape: &[Option<usize>]) -> String {
    let dims = shape.iter().map(|d| d.map_or("?".into(), |d| d.to_string()));
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}

impl Found {
    /// Expected and found shape, if images of that shape do not fit.
    pub(super) fn mismatch(&self, shape: [usize; 4]) -> Option<(String, String)> {
        let fits =
            self.input_shape.iter().zip(shape).skip(1).all(|(w, g)| w.is_none_or(|w| w == g));
        (!fits).then(|| (text(&self.input_shape), format!("{shape:?}")))
    }

    /// The fixed size of a batch, if the graph has one.
    pub fn batch(&self) -> Option<usize> {
        self.input_shape.first().copied().flatten()
    }

    /// Height and width of the images, where the graph fixes them.
    pub fn image_size(&self) -> Option<[usize; 2]> {
        Some([*self.input_shape.get(2)?.as_ref()?, *self.input_shape.get(3)?.as_ref()?])
    }

    /// Shape of the input as text.
    pub fn input_text(&self) -> String {
        text(&self.input_shape)
    }
}
