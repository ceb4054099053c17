//! The last linear layer of a classifier, in whatever operators it is
//! spelled: from an output of the graph back to z·Wᵀ + b.
//!
//! What is linear in features and constant otherwise is multiplied out: a
//! scale after the layer, a normalisation, the mean of two layers. Softmax and
//! its like, whole or in parts, are no part of it.

use std::cell::Cell;
use std::collections::HashMap;

use super::constants::{Array, Constants, slice};
use super::pooling::{self, Pooled};
use super::proto::{self, FLOAT, Node};
use heat_ood::features::Head;

/// Nodes between an output and the linear layer.
const MOST_STEPS: usize = 64;

/// Nodes of a sum of layers.
const MOST_PARTS: usize = 256;

/// Where a linear layer reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// A tensor `[N, D]`.
    Tensor(String),
    /// The mean over the positions of a map: the layer stands before the pooling.
    Mean(Pooled),
}

/// A linear layer.
#[derive(Clone)]
pub(super) struct Linear {
    /// The node whose weights these are.
    pub node: String,
    pub sources: Vec<Source>,
    /// The tensor `[N, C]`; none where the graph has it only together with
    /// what follows.
    pub output: Option<String>,
    /// ONNX's type of that tensor and of what the layer reads.
    pub element: i32,
    pub reads: i32,
    pub head: Head,
}

/// A linear layer before it is known to be the last: W is `[C, D]` for each source.
#[derive(Debug, Clone)]
struct Affine {
    node: String,
    terms: Vec<(Source, Vec<f32>)>,
    bias: Vec<f64>,
    element: i32,
    reads: i32,
}

pub(super) struct Finder<'a> {
    pub makers: &'a HashMap<&'a str, &'a Node>,
    pub constants: &'a Constants<'a>,
    parts: Cell<usize>,
}

/// What stands between the logits and an output.
const AFTER: [&str; 20] = [
    "Softmax",
    "LogSoftmax",
    "Sigmoid",
    "HardSigmoid",
    "Hardmax",
    "Log",
    "Clip",
    "ArgMax",
    "TopK",
    "Identity",
    "Dropout",
    "Cast",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "QuantizeLinear",
    "DequantizeLinear",
    "Normalizer",
    "ZipMap",
];

impl<'a> Finder<'a> {
    pub fn new(makers: &'a HashMap<&'a str, &'a Node>, constants: &'a Constants<'a>) -> Self {
        Finder { makers, constants, parts: Cell::new(0) }
    }

    /// The linear layer that leads to an output, and the tensor with its logits.
    pub fn before(&self, output: &str) -> Option<Linear> {
        let mut name = output;
        for _ in 0..MOST_STEPS {
            let node = *self.makers.get(name)?;
            if let Some(linear) = self.layer(name) {
                return Some(linear);
            }
            name = self.stripped(node)?;
        }
        None
    }

    /// The tensor with the logits, as far as can be told, where no linear layer
    /// leads to them: before softmax and its like.
    pub fn logits(&self, output: &str) -> String {
        let mut name = output;
        for _ in 0..MOST_STEPS {
            let Some(node) = self.makers.get(name) else { break };
            let softmax = matches!(node.op.as_str(), "Softmax" | "LogSoftmax" | "Sigmoid");
            let passing = matches!(node.op.as_str(), "Identity" | "Cast");
            let before = match self.in_parts(node) {
                Some(before) => Some(before),
                None if softmax || passing => node.input.first().map(String::as_str),
                None => None,
            };
            let Some(before) = before else { break };
            name = before;
        }
        name.to_owned()
    }

    fn layer(&self, name: &str) -> Option<Linear> {
        self.parts.set(MOST_PARTS);
        let affine = self.affine(name, false, MOST_STEPS)?;
        let classes = affine.bias.len();
        let widths: Vec<usize> = affine.terms.iter().map(|(_, w)| w.len() / classes).collect();
        let rows = (0..classes).flat_map(|c| {
            affine.terms.iter().zip(&widths).flat_map(move |((_, w), d)| &w[c * d..][..*d])
        });
        let weight = rows.copied().collect();
        let bias = affine.bias.iter().map(|b| *b as f32).collect();
        let head = Head::new(weight, bias).ok().filter(|h| h.classes() == classes)?;
        let inside = !self.is_classifier_of_rows(name);
        Some(Linear {
            node: affine.node,
            sources: affine.terms.into_iter().map(|(source, _)| source).collect(),
            output: inside.then(|| name.to_owned()),
            element: affine.element,
            reads: affine.reads,
            head,
        })
    }

    /// Whether a tensor is that of scikit-learn's linear classifiers, which
    /// have softmax within.
    fn is_classifier_of_rows(&self, name: &str) -> bool {
        self.makers.get(name).is_some_and(|n| n.op == "LinearClassifier")
    }

    /// The tensor before an operator that is no part of the layer.
    fn stripped(&self, node: &'a Node) -> Option<&'a str> {
        if let Some(before) = self.in_parts(node) {
            return Some(before);
        }
        let name = node.input.first()?.as_str();
        AFTER.contains(&node.op.as_str()).then_some(name)
    }

    /// Softmax, log-softmax and the logistic function from elementary operators.
    fn in_parts(&self, node: &'a Node) -> Option<&'a str> {
        let maker = |i: usize| self.makers.get(node.input.get(i)?.as_str()).copied();
        let input = |i: usize| node.input.get(i).map(String::as_str);
        let within = |node: &'a Node, op: &str| {
            let inner = *self.makers.get(node.input.first()?.as_str())?;
            (inner.op == op).then_some(inner)
        };
        match node.op.as_str() {
            "Div" | "Mul" => {
                let (above, below) = (maker(0), maker(1));
                // e / Σe, also as a product with the reciprocal.
                let sum = match below {
                    Some(n) if n.op == "Reciprocal" => within(n, "ReduceSum"),
                    other => other.filter(|n| n.op == "ReduceSum"),
                };
                if let Some((e, sum)) = above.zip(sum).filter(|(e, _)| e.op == "Exp") {
                    let of_it = sum.input.first() == e.output.first();
                    return of_it.then(|| self.shifted(e)).flatten();
                }
                if let Some(each) = self.one_against_rest(above, below) {
                    return Some(each);
                }
                // 1 / (1 + e⁻ˡ).
                let below = below.filter(|n| n.op == "Add" && node.op == "Div")?;
                self.logistic(below)
            }
            "Reciprocal" => self.logistic(maker(0).filter(|n| n.op == "Add")?),
            "Sub" => {
                // l − log Σ eˡ, l perhaps less its maximum.
                let log = maker(1)?;
                let of = match log.op.as_str() {
                    "ReduceLogSumExp" => log.input.first()?.as_str(),
                    "Log" => within(within(log, "ReduceSum")?, "Exp")?.input.first()?.as_str(),
                    "ReduceMax" => log.input.first()?.as_str(),
                    _ => return None,
                };
                let l = input(0)?;
                (of == l).then(|| self.less_maximum(l))
            }
            _ => None,
        }
    }

    /// l of e^(l − max l).
    fn shifted(&self, exp: &'a Node) -> Option<&'a str> {
        Some(self.less_maximum(exp.input.first()?.as_str()))
    }

    fn less_maximum(&self, name: &'a str) -> &'a str {
        let node = self.makers.get(name).filter(|n| n.op == "Sub");
        let of =
            node.and_then(|n| Some((n.input.first()?, self.makers.get(n.input.get(1)?.as_str())?)));
        match of {
            Some((l, max)) if max.op == "ReduceMax" && max.input.first() == Some(l) => l.as_str(),
            _ => name,
        }
    }

    /// l of 1 + e⁻ˡ.
    fn logistic(&self, sum: &'a Node) -> Option<&'a str> {
        let made = sum.input.iter().filter_map(|i| self.makers.get(i.as_str()));
        let exp = { made }.find(|n| n.op == "Exp")?;
        let minus = self.makers.get(exp.input.first()?.as_str())?;
        let negated = match minus.op.as_str() {
            "Neg" => true,
            "Mul" => {
                let factor = self.constants.value(minus.input.get(1)?)?.into_floats();
                factor.iter().all(|v| *v == -1.0)
            }
            _ => false,
        };
        negated.then(|| minus.input.first().map(String::as_str)).flatten()
    }

    /// p of p / Σp, where each of p is a logistic function of its own logit: classes one against
    /// the rest. So that nothing is divided by 0, scikit-learn's graphs add to both.
    fn one_against_rest(
        &self,
        above: Option<&'a Node>,
        below: Option<&'a Node>,
    ) -> Option<&'a str> {
        let maker = |name: &String| self.makers.get(name.as_str()).copied();
        let guarded = |node: &'a Node| node.input.iter().filter(move |_| node.op == "Add");
        let (above, below) = (above?, below?);
        let sum = std::iter::once(below).chain(guarded(below).filter_map(maker));
        let each = { sum }.find(|n| n.op == "ReduceSum")?.input.first()?;
        let is_numerator = above.output.first() == Some(each) || guarded(above).any(|i| i == each);
        let made = maker(each)?;
        let sum = |i: usize| made.input.get(i).and_then(maker).filter(|n| n.op == "Add");
        let is_logistic = match made.op.as_str() {
            "Sigmoid" => true,
            "Reciprocal" => sum(0).and_then(|n| self.logistic(n)).is_some(),
            "Div" => sum(1).and_then(|n| self.logistic(n)).is_some(),
            _ => false,
        };
        (is_numerator && is_logistic).then_some(each.as_str())
    }

    /// What a reduction over a first axis goes over, where that was made of as many tensors: the
    /// logits of several heads.
    fn stacked(&self, node: &'a Node) -> Option<Vec<&'a str>> {
        let axes = |node: &Node| match node.attribute("axes") {
            Some(a) => Some(a.ints.clone()),
            None => self.constants.ints(node.input.get(1)?),
        };
        let is_first = |node: &Node| axes(node).is_some_and(|a| a == [0]);
        let stack = *self.makers.get(node.input.first()?.as_str())?;
        if !is_first(node)
            || node.int("keepdims", 1) != 0
            || (stack.op.as_str(), stack.int("axis", 1)) != ("Concat", 0)
        {
            return None;
        }
        let part = |name: &String| {
            let made = *self.makers.get(name.as_str())?;
            let whole = made.op == "Unsqueeze" && is_first(made);
            whole.then(|| made.input.first().map(String::as_str)).flatten()
        };
        stack.input.iter().map(part).collect::<Option<Vec<_>>>().filter(|parts| !parts.is_empty())
    }

    /// A tensor as W·source + b; within a map, where `map`.
    fn affine(&self, name: &str, map: bool, steps: usize) -> Option<Affine> {
        self.parts.set(self.parts.get().checked_sub(1)?);
        let steps = steps.checked_sub(1)?;
        let node = *self.makers.get(name)?;
        if let Some(base) = self.base(node, name, map) {
            return Some(base);
        }
        let of = |i: usize| self.affine(node.input.get(i)?, map, steps);
        let constant = |i: usize| self.constants.value(node.input.get(i)?);
        match node.op.as_str() {
            "Identity" | "Dropout" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                of(0).filter(|_| !map || matches!(node.op.as_str(), "Identity" | "Dropout"))
            }
            "Transpose" if !map => of(0),
            "Cast" => {
                let element = i32::try_from(node.int("to", 1)).ok()?;
                let mut inner = of(0)?;
                inner.element = element;
                [FLOAT, proto::FLOAT16, proto::DOUBLE, proto::BFLOAT16]
                    .contains(&element)
                    .then_some(inner)
            }
            "Mul" | "Div" | "Add" | "Sub" => {
                if let Some(value) = constant(1) {
                    return of(0)?.with(&node.op, value, false);
                }
                if let Some(value) = constant(0) {
                    return of(1)?.with(&node.op, value, true);
                }
                let sign = match node.op.as_str() {
                    "Add" => 1.0,
                    "Sub" => -1.0,
                    _ => return self.dynamic(node),
                };
                of(0)?.plus(of(1)?.scaled(sign))
            }
            "Neg" => Some(of(0)?.scaled(-1.0)),
            "Sum" | "Mean" => {
                let mut sum = of(0)?;
                for i in 1..node.input.len() {
                    sum = sum.plus(of(i)?)?;
                }
                let n = if node.op == "Mean" { node.input.len() as f64 } else { 1.0 };
                Some(sum.scaled(1.0 / n))
            }
            "ReduceMean" | "ReduceSum" if !map => {
                let parts = self.stacked(node)?;
                let mut sum = self.affine(parts[0], map, steps)?;
                for part in &parts[1..] {
                    sum = sum.plus(self.affine(part, map, steps)?)?;
                }
                let n = if node.op == "ReduceMean" { parts.len() as f64 } else { 1.0 };
                Some(sum.scaled(1.0 / n))
            }
            "BatchNormalization" => {
                let [gain, shift, mean, variance] =
                    [1, 2, 3, 4].map(|i| constant(i).map(Array::into_floats));
                let epsilon = f64::from(node.attribute("epsilon").map_or(1e-5, |a| a.f));
                let (gain, variance) = (gain?, variance?);
                let scales = gain.iter().zip(&variance);
                let scales: Vec<f64> =
                    scales.map(|(g, v)| f64::from(*g) / (f64::from(*v) + epsilon).sqrt()).collect();
                let inner = of(0)?;
                let (shift, mean) = (shift?, mean?);
                let n = inner.bias.len();
                if [scales.len(), shift.len(), mean.len()] != [n; 3] {
                    return None;
                }
                let mut out = inner.scaled_by(&scales);
                for (c, b) in out.bias.iter_mut().enumerate() {
                    *b += f64::from(shift[c]) - f64::from(mean[c]) * scales[c];
                }
                Some(out)
            }
            "Concat" if [1, -1].contains(&node.int("axis", 1)) && !map => {
                let mut all = of(0)?;
                for i in 1..node.input.len() {
                    all = all.beside(of(i)?)?;
                }
                Some(all)
            }
            "Slice" if !map => {
                let list = |i: usize, name: &str| match node.attribute(name) {
                    Some(a) => Some(a.ints.clone()),
                    None => self.constants.ints(node.input.get(i)?),
                };
                let (start, end) = (list(1, "starts")?, list(2, "ends")?);
                let axes = list(3, "axes").unwrap_or_default();
                let step = list(4, "steps").unwrap_or_else(|| vec![1]);
                let ([start], [end], [1 | -1], [step]) =
                    (&start[..], &end[..], &axes[..], &step[..])
                else {
                    return None;
                };
                let inner = of(0)?;
                let chosen = slice(inner.bias.len(), *start, *end, *step)?;
                inner.chosen(&chosen)
            }
            _ if map => None,
            _ => {
                let pooled = pooling::of(node, self.constants, self.makers)?;
                let mut inner = self.affine(&pooled.map, true, steps)?;
                for (source, _) in &mut inner.terms {
                    let Source::Tensor(name) = source else {
                        return None;
                    };
                    *source = Source::Mean(Pooled { map: std::mem::take(name), ..pooled.clone() });
                }
                Some(inner)
            }
        }
    }

    /// A node with weights.
    fn base(&self, node: &Node, name: &str, map: bool) -> Option<Affine> {
        let constant = |i: usize| {
            let name = node.input.get(i).filter(|name| !name.is_empty())?;
            self.constants.value(name)
        };
        let source = || node.input.first().cloned();
        let factor = |name: &str| node.attribute(name).map_or(1.0, |a| a.f);
        match node.op.as_str() {
            "Gemm" if !map && node.int("transA", 0) == 0 => {
                let turned = node.int("transB", 0) != 0;
                let mut layer = Affine::of(node, source()?, constant(1)?, turned)?;
                layer = layer.scaled(f64::from(factor("alpha")));
                if node.input.get(2).is_some_and(|n| !n.is_empty()) {
                    let bias = constant(2)?.into_floats();
                    let beta = f64::from(factor("beta"));
                    let bias = bias.iter().map(|b| beta * f64::from(*b)).collect::<Vec<_>>();
                    layer.shift(&bias)?;
                }
                Some(layer)
            }
            "MatMul" => Affine::of(node, source()?, constant(1)?, false),
            "Einsum" => {
                let equation = node.attribute("equation")?;
                let equation: String =
                    String::from_utf8_lossy(&equation.s).chars().filter(|c| *c != ' ').collect();
                let (inputs, out) = equation.split_once("->")?;
                let (x, w) = inputs.split_once(',')?;
                let (d, c) = (x.chars().last()?, out.chars().last()?);
                let before = x.strip_suffix(d)? == out.strip_suffix(c)?;
                let turned = w.chars().eq([c, d]);
                let sound = before && (turned || w.chars().eq([d, c]));
                Affine::of(node, source()?, constant(1).filter(|_| sound)?, turned)
            }
            "Conv" => {
                let weight = constant(1)?;
                let [classes, _, kernel @ ..] = &weight.dims[..] else {
                    return None;
                };
                let one = kernel.iter().all(|k| *k == 1);
                let plain = ["strides", "dilations"].iter().all(|name| {
                    node.attribute(name).is_none_or(|a| a.ints.iter().all(|s| *s == 1))
                });
                let plain = plain && node.int("group", 1) == 1;
                let unpadded =
                    node.attribute("pads").is_none_or(|a| a.ints.iter().all(|p| *p == 0));
                // A kernel as large as the map is a layer that reads all of it.
                if !plain || !unpadded || (map && !one) || kernel.is_empty() {
                    return None;
                }
                let width = weight.len().checked_div(*classes)?;
                let flat = Array { dims: vec![*classes, width], ..weight };
                let mut layer = Affine::of(node, source()?, flat, true)?;
                if node.input.get(2).is_some_and(|n| !n.is_empty()) {
                    let bias: Vec<f64> =
                        constant(2)?.into_floats().into_iter().map(f64::from).collect();
                    layer.shift(&bias)?;
                }
                Some(layer)
            }
            // Scores of scikit-learn's linear models.
            "LinearClassifier" if !map && node.output.get(1).map(String::as_str) == Some(name) => {
                let weight = node.attribute("coefficients")?.floats.clone();
                let bias = node.attribute("intercepts")?.floats.clone();
                let dims = vec![bias.len(), weight.len().checked_div(bias.len())?];
                let mut layer = Affine::of(node, source()?, Array::matrix(dims, weight)?, true)?;
                layer.shift(&bias.into_iter().map(f64::from).collect::<Vec<_>>())?;
                Some(layer)
            }
            _ => None,
        }
    }

    /// Weights of eight bits, features rounded to eight bits as they come:
    /// (x_q·W_q)·(s_x·s_w), what the dynamic quantisation of ONNX Runtime writes.
    fn dynamic(&self, node: &'a Node) -> Option<Affine> {
        let maker = |name: &String| self.makers.get(name.as_str()).copied();
        let sides = [node.input.first()?, node.input.get(1)?];
        let at = sides.iter().position(|s| maker(s).is_some_and(|n| n.op == "Cast"))?;
        let product = maker(maker(sides[at])?.input.first()?)?;
        let scales = maker(sides[1 - at])?;
        if (product.op.as_str(), scales.op.as_str(), node.op.as_str())
            != ("MatMulInteger", "Mul", "Mul")
        {
            return None;
        }
        let rounding = maker(product.input.first()?)?;
        let own = rounding.output.get(1)?;
        let other = scales.input.iter().find(|i| *i != own)?;
        if rounding.op != "DynamicQuantizeLinear" || !scales.input.contains(own) {
            return None;
        }
        let weight = self.constants.value(product.input.get(1)?)?;
        let [dim, classes] = weight.dims[..] else { return None };
        let scale = self.constants.value(other)?.into_floats();
        let zero = match product.input.get(3).filter(|n| !n.is_empty()) {
            Some(name) => self.constants.value(name)?.into_floats(),
            None => vec![0.0],
        };
        let per_class =
            |v: &[f32], c: usize| if v.len() == 1 { Some(v[0]) } else { v.get(c).copied() };
        let values = weight.into_floats().into_iter().enumerate();
        let values = values.map(|(i, v)| {
            let c = i % classes;
            Some((v - per_class(&zero, c)?) * per_class(&scale, c)?)
        });
        let values = values.collect::<Option<Vec<_>>>()?;
        let weight = Array::matrix(vec![dim, classes], values)?;
        Affine::of(product, rounding.input.first()?.clone(), weight, false)
    }
}

impl Affine {
    /// From a matrix `[D, C]`, or `[C, D]` where it is turned.
    fn of(node: &Node, source: String, weight: Array, turned: bool) -> Option<Self> {
        let &[a, b] = &weight.dims[..] else {
            return None;
        };
        if weight.len() == 0 {
            return None;
        }
        let element = if weight.element == proto::INT64 { FLOAT } else { weight.element };
        let values = weight.into_floats();
        let (classes, values) = if turned {
            (a, values)
        } else {
            let column = |c: usize| values.iter().skip(c).step_by(b).copied();
            (b, (0..b).flat_map(column).collect())
        };
        let terms = vec![(Source::Tensor(source), values)];
        let node = node.name.clone();
        Some(Affine { node, terms, bias: vec![0.0; classes], element, reads: element })
    }

    fn scaled(self, by: f64) -> Self {
        if by == 1.0 {
            return self;
        }
        let all = vec![by; self.bias.len()];
        self.scaled_by(&all)
    }

    fn scaled_by(mut self, by: &[f64]) -> Self {
        for (_, weight) in &mut self.terms {
            let width = weight.len() / by.len();
            for (row, by) in weight.chunks_exact_mut(width).zip(by) {
                row.iter_mut().for_each(|w| *w = (f64::from(*w) * by) as f32);
            }
        }
        self.bias.iter_mut().zip(by).for_each(|(b, by)| *b *= by);
        self
    }

    /// Add one value to all classes, or one to each.
    fn shift(&mut self, by: &[f64]) -> Option<()> {
        if by.len() != 1 && by.len() != self.bias.len() {
            return None;
        }
        for (c, b) in self.bias.iter_mut().enumerate() {
            *b += by[if by.len() == 1 { 0 } else { c }];
        }
        Some(())
    }

    /// Combined with a constant; `first`: that stands before it.
    fn with(mut self, op: &str, value: Array, first: bool) -> Option<Self> {
        let values: Vec<f64> = value.into_floats().into_iter().map(f64::from).collect();
        let classes = self.bias.len();
        if values.len() != 1 && values.len() != classes {
            return None;
        }
        let each = |f: fn(f64) -> f64| -> Vec<f64> {
            (0..classes).map(|c| f(values[if values.len() == 1 { 0 } else { c }])).collect()
        };
        match (op, first) {
            ("Mul", _) => Some(self.scaled_by(&each(|v| v))),
            ("Div", false) => Some(self.scaled_by(&each(|v| 1.0 / v))),
            ("Add", _) => self.shift(&values).map(|()| self),
            ("Sub", false) => self.shift(&each(|v| -v)).map(|()| self),
            ("Sub", true) => {
                let mut out = self.scaled(-1.0);
                out.shift(&values).map(|()| out)
            }
            _ => None,
        }
    }

    fn plus(mut self, other: Affine) -> Option<Self> {
        if self.bias.len() != other.bias.len() {
            return None;
        }
        self.shift(&other.bias)?;
        for (source, weight) in other.terms {
            match self.terms.iter_mut().find(|(s, _)| *s == source) {
                Some((_, mine)) if mine.len() == weight.len() => {
                    mine.iter_mut().zip(weight).for_each(|(m, w)| *m += w);
                }
                Some(_) => return None,
                None => self.terms.push((source, weight)),
            }
        }
        Some(self)
    }

    /// The classes of another after its own.
    fn beside(mut self, other: Affine) -> Option<Self> {
        let same = self.terms.len() == other.terms.len()
            && self.terms.iter().zip(&other.terms).all(|(a, b)| a.0 == b.0);
        if !same {
            return None;
        }
        for (mine, (_, weight)) in self.terms.iter_mut().zip(other.terms) {
            mine.1.extend(weight);
        }
        self.bias.extend(other.bias);
        Some(self)
    }

    fn chosen(mut self, classes: &[usize]) -> Option<Self> {
        let all = self.bias.len();
        if classes.is_empty() {
            return None;
        }
        for (_, weight) in &mut self.terms {
            let width = weight.len() / all;
            *weight = classes.iter().flat_map(|c| &weight[c * width..][..width]).copied().collect();
        }
        self.bias = classes.iter().map(|c| self.bias[*c]).collect();
        Some(self)
    }
}
