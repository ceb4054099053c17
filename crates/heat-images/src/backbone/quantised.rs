//! Operators of eight bits taken apart.
//!
//! ONNX Runtime's form `QOperator` has weights, scales and zero points within one operator. Here each becomes
//! the operator in single precision between `DequantizeLinear` and `QuantizeLinear`, the form QDQ, which
//! the rest of this module reads. ONNX Runtime joins them again when it loads the graph.

use std::path::Path;

use super::proto::{Attribute, Model, Node};
use super::rewrite;
use heat_ood::Result;

/// From this version of the standard operators on, scales may be one a channel.
const SCALES_BY_AXIS: i64 = 13;

/// From this version on, the axes of a mean are an input.
const AXES_AS_INPUT: i64 = 18;

/// Whether a model, of that version of the standard operators, has operators that can be taken apart.
pub(super) fn some_are(model: &Model, opset: i64) -> bool {
    let mut nodes = model.graph.iter().flat_map(|g| &g.node);
    nodes.any(|node| node.is_quantised() && parts(node, opset).is_some())
}

/// The model with these operators taken apart.
///
/// # Errors
/// If it is not a whole model.
pub(super) fn taken_apart(path: &Path, bytes: &[u8], opset: i64) -> Result<Vec<u8>> {
    rewrite::nodes(path, bytes, |node| if node.is_quantised() { parts(&node, opset) } else { None })
}

/// The nodes that replace one.
struct Parts<'a> {
    node: &'a Node,
    opset: i64,
    made: Vec<Node>,
}

/// What an operator becomes; none where it is of a form that is not known.
fn parts(node: &Node, opset: i64) -> Option<Vec<Node>> {
    let mut parts = Parts { node, opset, made: Vec::new() };
    let at = |i: usize| node.input.get(i).map_or("", String::as_str);
    let mut attributes = node.attribute.clone();
    match node.op.as_str() {
        "QLinearConv" => {
            let (x, w) = (parts.float([0, 1, 2], None)?, parts.float([3, 4, 5], Some(0))?);
            let mut inputs = vec![x, w];
            if !at(8).is_empty() {
                inputs.push(parts.bias(8, [1, 4], 1.0));
            }
            parts.operator("Conv", &inputs, attributes);
            parts.quantise(6, 7)
        }
        "QGemm" => {
            let columns = if node.int("transB", 0) == 0 { 1 } else { 0 };
            let (a, b) = (parts.float([0, 1, 2], None)?, parts.float([3, 4, 5], Some(columns))?);
            let mut inputs = vec![a, b];
            if !at(6).is_empty() {
                // In units of what it is added to: alpha counts.
                let alpha = node.attribute("alpha").map_or(1.0, |a| a.f);
                inputs.push(parts.bias(6, [1, 4], alpha));
            }
            parts.operator("Gemm", &inputs, attributes);
            parts.quantise(7, 8)
        }
        "QLinearMatMul" => {
            let inputs = [parts.float([0, 1, 2], None)?, parts.float([3, 4, 5], Some(1))?];
            parts.operator("MatMul", &inputs, attributes);
            parts.quantise(6, 7)
        }
        "QLinearAdd" | "QLinearMul" => {
            let inputs = [parts.float([0, 1, 2], None)?, parts.float([3, 4, 5], None)?];
            parts.operator(&node.op["QLinear".len()..], &inputs, attributes);
            parts.quantise(6, 7)
        }
        "QLinearConcat" => {
            let inputs = (2..node.input.len()).step_by(3);
            let inputs = inputs.map(|i| parts.float([i, i + 1, i + 2], None));
            let inputs = inputs.collect::<Option<Vec<_>>>()?;
            parts.operator("Concat", &inputs, attributes);
            parts.quantise(0, 1)
        }
        "QLinearGlobalAveragePool"
        | "QLinearAveragePool"
        | "QLinearLeakyRelu"
        | "QLinearSigmoid"
        | "QLinearSoftmax"
        | "QLinearReduceMean" => {
            if node.int("channels_last", 0) != 0 {
                return None;
            }
            attributes.retain(|a| !["channels_last", "opset"].contains(&a.name.as_str()));
            let mut inputs = vec![parts.float([0, 1, 2], None)?];
            if node.op == "QLinearReduceMean" && opset >= AXES_AS_INPUT {
                let axes = attributes.iter().position(|a| a.name == "axes");
                if let Some(axes) = axes.map(|i| attributes.remove(i)) {
                    let name = parts.name("axes");
                    let value = Attribute { name: "value_ints".into(), ..axes };
                    parts.made.push(Node::new("Constant", &[], &name, vec![value]));
                    inputs.push(name);
                }
            }
            parts.operator(&node.op["QLinear".len()..], &inputs, attributes);
            parts.quantise(3, 4)
        }
        _ => None,
    }
}

impl Parts<'_> {
    fn input(&self, i: usize) -> &str {
        self.node.input.get(i).map_or("", String::as_str)
    }

    /// A name that no other tensor has: the graph has one tensor of the operator's output's name.
    fn name(&self, what: &str) -> String {
        let output = self.node.output.first().map_or("", String::as_str);
        format!("{output}_heat_{what}")
    }

    /// Values, scale and zero point by their places, in single precision; where there is a scale a channel,
    /// that is this axis.
    fn float(&mut self, [values, scale, zero]: [usize; 3], axis: Option<i64>) -> Option<String> {
        if self.input(values).is_empty() || self.input(scale).is_empty() {
            return None;
        }
        let name = self.name(&format!("{values}"));
        let mut inputs = vec![self.input(values), self.input(scale)];
        if !self.input(zero).is_empty() {
            inputs.push(self.input(zero));
        }
        let axis = axis.filter(|_| self.opset >= SCALES_BY_AXIS);
        let attributes = axis.map(|axis| Attribute::int("axis", axis)).into_iter().collect();
        let node = Node::new("DequantizeLinear", &inputs, &name, attributes);
        self.made.push(node);
        Some(name)
    }

    /// A bias of 32 bits, whose scale is the product of those of what is multiplied.
    fn bias(&mut self, bias: usize, scales: [usize; 2], factor: f32) -> String {
        let (mut scale, name) = (self.name("scale"), self.name("bias"));
        let [a, b] = scales.map(|i| self.input(i).to_owned());
        self.made.push(Node::new("Mul", &[&a, &b], &scale, vec![]));
        if factor != 1.0 {
            let (by, scaled) = (self.name("alpha"), self.name("scaled"));
            let value = Attribute {
                name: "value_float".into(),
                f: factor,
                kind: 1,
                ..Attribute::default()
            };
            self.made.push(Node::new("Constant", &[], &by, vec![value]));
            self.made.push(Node::new("Mul", &[&scale, &by], &scaled, vec![]));
            scale = scaled;
        }
        let axis = (self.opset >= SCALES_BY_AXIS).then(|| Attribute::int("axis", 0));
        let inputs = [self.input(bias), &scale];
        let node = Node::new("DequantizeLinear", &inputs, &name, axis.into_iter().collect());
        self.made.push(node);
        name
    }

    fn operator(&mut self, op: &str, inputs: &[String], attribute: Vec<Attribute>) {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let mut node = Node::new(op, &inputs, &self.name("result"), attribute);
        node.name.clone_from(&self.node.name);
        self.made.push(node);
    }

    /// The result under the operator's own name: of eight bits, or as it is where no scale is given.
    fn quantise(mut self, scale: usize, zero: usize) -> Option<Vec<Node>> {
        let output = self.node.output.first()?;
        if self.input(scale).is_empty() {
            self.made.last_mut()?.output = vec![output.clone()];
            return Some(self.made);
        }
        let result = self.name("result");
        let mut inputs = vec![result.as_str(), self.input(scale)];
        if !self.input(zero).is_empty() {
            inputs.push(self.input(zero));
        }
        let node = Node::new("QuantizeLinear", &inputs, output, vec![]);
        self.made.push(node);
        Some(self.made)
    }
}
