//! Tensors that do not depend on the images, computed from what the graph
//! holds: exporters reach the same weights through different operators.
//!
//! Only what is asked for is computed, within a budget: a node of a few bytes
//! may describe any size.

use std::cell::Cell;
use std::collections::HashMap;

use super::proto::{self, Attribute, Graph, Node, Tensor, Values};

/// Values computed, at least; or as many as the file has bytes.
const FLOOR: usize = 1 << 22;

/// Nodes that lead to one constant, and nodes between it and the weights.
const MOST_NODES: usize = 512;
const MOST_DEEP: usize = 48;

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub dims: Vec<usize>,
    /// ONNX's element type.
    pub element: i32,
    pub values: Values,
}

/// The constants of a graph.
pub(super) struct Constants<'a> {
    makers: &'a HashMap<&'a str, &'a Node>,
    weights: HashMap<&'a str, &'a Tensor>,
    budget: Cell<usize>,
    most: usize,
    nodes: Cell<usize>,
}

impl<'a> Constants<'a> {
    pub fn new(graph: &'a Graph, makers: &'a HashMap<&'a str, &'a Node>, bytes: usize) -> Self {
        let weights = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
        let most = FLOOR.max(bytes);
        Constants { makers, weights, budget: Cell::new(0), most, nodes: Cell::new(0) }
    }

    /// Whether a name is that of a stored tensor.
    pub fn stores(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    /// The value of a tensor, if it is the same for all images and its
    /// operators are known.
    pub fn value(&self, name: &str) -> Option<Array> {
        self.budget.set(self.most);
        self.nodes.set(MOST_NODES);
        self.at(name, 0)
    }

    /// The same as integers.
    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        Some(self.value(name)?.into_ints())
    }

    fn at(&self, name: &str, depth: usize) -> Option<Array> {
        if let Some(tensor) = self.weights.get(name) {
            self.spend(tensor.count()?)?;
            return Array::of(tensor);
        }
        let node = *self.makers.get(name)?;
        self.nodes.set(self.nodes.get().checked_sub(1)?);
        if depth == MOST_DEEP || node.output.first().map(String::as_str) != Some(name) {
            return None;
        }
        let array = self.apply(node, depth + 1)?;
        Some(array)
    }

    fn spend(&self, values: usize) -> Option<()> {
        self.budget.set(self.budget.get().checked_sub(values)?);
        Some(())
    }

    fn apply(&self, node: &Node, depth: usize) -> Option<Array> {
        if !node.is_standard() {
            return None;
        }
        let input = |i: usize| {
            let name = node.input.get(i).filter(|name| !name.is_empty())?;
            self.at(name, depth)
        };
        match node.op.as_str() {
            "Constant" => self.constant(node),
            "ConstantOfShape" => {
                let dims = sizes(&input(0)?.into_ints())?;
                self.spend(product(&dims)?)?;
                let fill = node.attribute("value").and_then(|a| a.t.as_ref());
                let fill =
                    fill.map_or_else(|| Some(Array::floats(vec![1], vec![0.0])), Array::of)?;
                Some(fill.gather(dims.clone(), vec![0; product(&dims)?]))
            }
            "Identity" | "Dropout" => input(0),
            "Cast" => Some(input(0)?.cast(i32::try_from(node.int("to", 1)).ok()?)),
            "Shape" => {
                let dims: Vec<i64> = input(0)?.dims.iter().map(|&d| d as i64).collect();
                Some(Array::ints(vec![dims.len()], dims))
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let (array, axes) = (input(0)?, input(1).map(Array::into_ints));
                array.reshaped(node, axes)
            }
            "Transpose" => {
                let array = input(0)?;
                self.spend(array.len())?;
                array.transpose(node.attribute("perm").map(|a| &a.ints[..]))
            }
            "Concat" => {
                let parts = (0..node.input.len()).map(input).collect::<Option<Vec<_>>>()?;
                self.spend(parts.iter().map(Array::len).sum())?;
                concat(&parts, node.int("axis", 0))
            }
            "Slice" => {
                let list = |i: usize, name: &str| match node.attribute(name) {
                    Some(a) => Some(a.ints.clone()),
                    None => input(i).map(Array::into_ints),
                };
                let (starts, ends) = (list(1, "starts")?, list(2, "ends")?);
                let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
                let steps = list(4, "steps").unwrap_or_else(|| vec![1; starts.len()]);
                let mut array = input(0)?;
                for (i, axis) in axes.iter().enumerate() {
                    let (start, end, step) = (*starts.get(i)?, *ends.get(i)?, *steps.get(i)?);
                    let axis = place(*axis, array.dims.len())?;
                    let chosen = slice(array.dims[axis], start, end, step)?;
                    array = array.take(axis, &chosen)?;
                }
                Some(array)
            }
            "Gather" => {
                let (array, chosen) = (input(0)?, input(1)?);
                let axis = place(node.int("axis", 0), array.dims.len())?;
                let of_one = chosen.dims.is_empty();
                let size = array.dims[axis];
                let places: Vec<i64> = chosen.into_ints();
                let places = places.iter().map(|&i| place(i, size)).collect::<Option<Vec<_>>>()?;
                self.spend(array.len() / size.max(1) * places.len())?;
                let mut array = array.take(axis, &places)?;
                if of_one {
                    array.dims.remove(axis);
                }
                Some(array)
            }
            "Expand" => {
                let (array, to) = (input(0)?, sizes(&input(1)?.into_ints())?);
                let ones = Array::floats(to.clone(), Vec::new());
                let dims = broadcast(&array.dims, &ones.dims)?;
                self.spend(product(&dims)?)?;
                let from = places(&array.dims, &dims);
                Some(array.gather(dims, from))
            }
            "DequantizeLinear" => self.dequantized(node, input(0)?, input(1)?, input(2)),
            "QuantizeLinear" => {
                let (array, scale, zero) = (input(0)?, input(1)?, input(2));
                let element = zero.as_ref().map_or(proto::UINT8, |z| z.element);
                let (low, high) = match element {
                    proto::UINT8 => (0.0, 255.0),
                    proto::INT8 => (-128.0, 127.0),
                    _ => return None,
                };
                let (scale, zero) = per_axis(node, &array.dims, &scale, zero.as_ref())?;
                let values = array.into_floats().into_iter().enumerate();
                let values = values
                    .map(|(i, v)| ((v / scale[i]).round_ties_even() + zero[i]).clamp(low, high));
                let values = Values::Floats(values.collect());
                Some(Array { dims: input(0)?.dims, element, values })
            }
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" => {
                self.binary(&node.op, input(0)?, input(1)?)
            }
            "MatMul" => self.product(input(0)?, input(1)?),
            "Neg" | "Sqrt" | "Reciprocal" | "Abs" | "Exp" | "Log" => {
                let f: fn(f32) -> f32 = match node.op.as_str() {
                    "Neg" => |v| -v,
                    "Sqrt" => f32::sqrt,
                    "Reciprocal" => |v| 1.0 / v,
                    "Exp" => f32::exp,
                    "Log" => f32::ln,
                    _ => f32::abs,
                };
                let array = input(0)?;
                let (dims, element) = (array.dims.clone(), array.element);
                let values = Values::Floats(array.into_floats().into_iter().map(f).collect());
                Some(Array { dims, element, values })
            }
            "Clip" => {
                let bound = |i: usize, name: &str, open: f32| match node.attribute(name) {
                    Some(a) => a.f,
                    None => input(i).and_then(|a| a.into_floats().first().copied()).unwrap_or(open),
                };
                let low = bound(1, "min", f32::NEG_INFINITY);
                let high = bound(2, "max", f32::INFINITY);
                let array = input(0)?;
                let (dims, element) = (array.dims.clone(), array.element);
                let values = array.into_floats().into_iter().map(|v| v.max(low).min(high));
                Some(Array { dims, element, values: Values::Floats(values.collect()) })
            }
            "ReduceL2" | "ReduceSum" | "ReduceMean" => {
                let axes = match node.attribute("axes") {
                    Some(a) => Some(a.ints.clone()),
                    None => input(1).map(Array::into_ints),
                };
                input(0)?.reduced(&node.op, axes, node.int("keepdims", 1) != 0)
            }
            _ => None,
        }
    }

    fn constant(&self, node: &Node) -> Option<Array> {
        let a = node.attribute.first()?;
        let array = match a.name.as_str() {
            "value" => {
                let tensor = a.t.as_ref()?;
                self.spend(tensor.count()?)?;
                Array::of(tensor)?
            }
            "value_float" => Array::floats(vec![], vec![a.f]),
            "value_floats" => Array::floats(vec![a.floats.len()], a.floats.clone()),
            "value_int" => Array::ints(vec![], vec![a.i]),
            "value_ints" => Array::ints(vec![a.ints.len()], a.ints.clone()),
            _ => return None,
        };
        Some(array)
    }

    fn dequantized(
        &self,
        node: &Node,
        array: Array,
        scale: Array,
        zero: Option<Array>,
    ) -> Option<Array> {
        self.spend(array.len())?;
        let dims = array.dims.clone();
        let (scale, zero) = per_axis(node, &dims, &scale, zero.as_ref())?;
        // Biases are 32 bits wide: the product is rounded, not the factor.
        let wide: Vec<f64> = match array.values {
            Values::Floats(values) => values.into_iter().map(f64::from).collect(),
            Values::Ints(values) => values.into_iter().map(|v| v as f64).collect(),
        };
        let values = wide.into_iter().enumerate();
        let values = values.map(|(i, v)| ((v - f64::from(zero[i])) * f64::from(scale[i])) as f32);
        Some(Array::floats(dims, values.collect()))
    }

    fn binary(&self, op: &str, a: Array, b: Array) -> Option<Array> {
        let dims = broadcast(&a.dims, &b.dims)?;
        self.spend(product(&dims)?)?;
        let (left, right) = (places(&a.dims, &dims), places(&b.dims, &dims));
        if let (Values::Ints(x), Values::Ints(y)) = (&a.values, &b.values) {
            let pairs = left.iter().zip(&right).map(|(&i, &j)| (x[i], y[j]));
            let values = pairs.map(|(x, y)| match op {
                "Add" => x.checked_add(y),
                "Sub" => x.checked_sub(y),
                "Mul" => x.checked_mul(y),
                "Div" => x.checked_div(y),
                "Max" => Some(x.max(y)),
                "Min" => Some(x.min(y)),
                _ => None,
            });
            return Some(Array::ints(dims, values.collect::<Option<_>>()?));
        }
        let element = if a.element == b.element { a.element } else { proto::FLOAT };
        let (x, y) = (a.into_floats(), b.into_floats());
        let f: fn(f32, f32) -> f32 = match op {
            "Add" => |x, y| x + y,
            "Sub" => |x, y| x - y,
            "Mul" => |x, y| x * y,
            "Div" => |x, y| x / y,
            "Max" => f32::max,
            "Min" => f32::min,
            _ => f32::powf,
        };
        let values = left.iter().zip(&right).map(|(&i, &j)| f(x[i], y[j])).collect();
        Some(Array { dims, element, values: Values::Floats(values) })
    }

    fn product(&self, a: Array, b: Array) -> Option<Array> {
        let (&[n, k], &[m, columns]) = (&a.dims[..], &b.dims[..]) else {
            return None;
        };
        // Factors of a layer of low rank: the work is bounded like the values.
        self.spend(n.checked_mul(columns)?)?;
        self.spend(n.checked_mul(k)?.checked_mul(columns)? / 256)?;
        if k != m {
            return None;
        }
        let (x, y) = (a.into_floats(), b.into_floats());
        let mut out = vec![0.0f32; n * columns];
        for (row, x) in out.chunks_exact_mut(columns.max(1)).zip(x.chunks_exact(k.max(1))) {
            let mut sums = vec![0.0f64; columns];
            for (x, y) in x.iter().zip(y.chunks_exact(columns.max(1))) {
                sums.iter_mut().zip(y).for_each(|(s, y)| *s += f64::from(*x) * f64::from(*y));
            }
            row.iter_mut().zip(sums).for_each(|(r, s)| *r = s as f32);
        }
        Some(Array::floats(vec![n, columns], out))
    }
}

impl Array {
    fn floats(dims: Vec<usize>, values: Vec<f32>) -> Self {
        Array { dims, element: proto::FLOAT, values: Values::Floats(values) }
    }

    /// A matrix of that shape, if it has as many values.
    pub fn matrix(dims: Vec<usize>, values: Vec<f32>) -> Option<Self> {
        (product(&dims) == Some(values.len())).then(|| Array::floats(dims, values))
    }

    fn ints(dims: Vec<usize>, values: Vec<i64>) -> Self {
        Array { dims, element: proto::INT64, values: Values::Ints(values) }
    }

    fn of(tensor: &Tensor) -> Option<Self> {
        let dims = tensor.shape()?;
        let values = tensor.values()?;
        let array = Array { dims, element: tensor.data_type, values };
        (Some(array.len()) == product(&array.dims)).then_some(array)
    }

    pub fn len(&self) -> usize {
        match &self.values {
            Values::Floats(values) => values.len(),
            Values::Ints(values) => values.len(),
        }
    }

    pub fn into_floats(self) -> Vec<f32> {
        match self.values {
            Values::Floats(values) => values,
            Values::Ints(values) => values.into_iter().map(|v| v as f32).collect(),
        }
    }

    fn into_ints(self) -> Vec<i64> {
        match self.values {
            Values::Floats(values) => values.into_iter().map(|v| v as i64).collect(),
            Values::Ints(values) => values,
        }
    }

    fn cast(self, element: i32) -> Self {
        let dims = self.dims.clone();
        let values = match element {
            proto::INT64 | proto::INT32 => Values::Ints(self.into_ints()),
            proto::FLOAT16 => {
                let halves = self.into_floats().into_iter();
                Values::Floats(halves.map(|v| half::f16::from_f32(v).to_f32()).collect())
            }
            _ => Values::Floats(self.into_floats()),
        };
        Array { dims, element, values }
    }

    /// Values at some places, under another shape.
    fn gather(&self, dims: Vec<usize>, from: Vec<usize>) -> Self {
        let values = match &self.values {
            Values::Floats(v) => Values::Floats(from.iter().map(|&i| v[i]).collect()),
            Values::Ints(v) => Values::Ints(from.iter().map(|&i| v[i]).collect()),
        };
        Array { dims, element: self.element, values }
    }

    fn transpose(&self, perm: Option<&[i64]>) -> Option<Self> {
        let rank = self.dims.len();
        let perm: Vec<usize> = match perm {
            None => (0..rank).rev().collect(),
            Some(p) => p.iter().map(|&a| place(a, rank)).collect::<Option<_>>()?,
        };
        let mut seen = perm.clone();
        seen.sort_unstable();
        if seen != (0..rank).collect::<Vec<_>>() {
            return None;
        }
        let strides = strides(&self.dims);
        let dims: Vec<usize> = perm.iter().map(|&a| self.dims[a]).collect();
        let strides: Vec<usize> = perm.iter().map(|&a| strides[a]).collect();
        let from = walk(&dims, &strides);
        Some(self.gather(dims, from))
    }

    fn take(&self, axis: usize, chosen: &[usize]) -> Option<Self> {
        let inner: usize = self.dims[axis + 1..].iter().product();
        let outer: usize = self.dims[..axis].iter().product();
        let size = self.dims[axis];
        let from = (0..outer).flat_map(|o| {
            chosen.iter().flat_map(move |c| (0..inner).map(move |i| (o * size + c) * inner + i))
        });
        let mut dims = self.dims.clone();
        dims[axis] = chosen.len();
        Some(self.gather(dims, from.collect()))
    }

    /// What Reshape, Flatten, Squeeze and Unsqueeze make of it.
    fn reshaped(mut self, node: &Node, given: Option<Vec<i64>>) -> Option<Self> {
        let axes = node.attribute("axes").map(|a| a.ints.clone()).or(given.clone());
        let rank = self.dims.len();
        self.dims = match node.op.as_str() {
            "Reshape" => {
                let wanted = node.attribute("shape").map(|a| a.ints.clone()).or(given)?;
                let mut dims = Vec::with_capacity(wanted.len());
                for (i, &d) in wanted.iter().enumerate() {
                    dims.push(match d {
                        0 if node.int("allowzero", 0) == 0 => *self.dims.get(i)?,
                        -1 => 1,
                        d => usize::try_from(d).ok()?,
                    });
                }
                if let Some(free) = wanted.iter().position(|d| *d == -1) {
                    dims[free] = self.len().checked_div(product(&dims)?)?;
                }
                dims
            }
            "Flatten" => {
                let axis = place(node.int("axis", 1), rank + 1)?;
                vec![self.dims[..axis].iter().product(), self.dims[axis..].iter().product()]
            }
            "Squeeze" => {
                let axes = axes.map(|a| a.iter().map(|&a| place(a, rank)).collect::<Option<_>>());
                let axes: Vec<usize> = match axes {
                    Some(axes) => axes?,
                    None => (0..rank).filter(|&a| self.dims[a] == 1).collect(),
                };
                let kept = (0..rank).filter(|a| !axes.contains(a));
                kept.map(|a| self.dims[a]).collect()
            }
            _ => {
                let axes = axes?;
                let rank = rank + axes.len();
                let axes = axes.iter().map(|&a| place(a, rank)).collect::<Option<Vec<_>>>()?;
                let mut rest = self.dims.iter();
                let dim = |a| if axes.contains(&a) { Some(1) } else { rest.next().copied() };
                (0..rank).map(dim).collect::<Option<_>>()?
            }
        };
        (product(&self.dims) == Some(self.len())).then_some(self)
    }

    fn reduced(self, op: &str, axes: Option<Vec<i64>>, keep: bool) -> Option<Self> {
        let rank = self.dims.len();
        let axes: Vec<usize> = match axes.filter(|a| !a.is_empty()) {
            Some(axes) => axes.iter().map(|&a| place(a, rank)).collect::<Option<_>>()?,
            None => (0..rank).collect(),
        };
        let kept: Vec<usize> =
            (0..rank).map(|a| if axes.contains(&a) { 1 } else { self.dims[a] }).collect();
        let to = places(&kept, &self.dims);
        let mut sums = vec![0.0f64; product(&kept)?];
        let squared = op == "ReduceL2";
        let values = self.into_floats();
        for (v, to) in values.iter().zip(to) {
            let v = f64::from(*v);
            sums[to] += if squared { v * v } else { v };
        }
        let n = values.len() / sums.len().max(1);
        let end = |s: f64| match op {
            "ReduceL2" => s.sqrt() as f32,
            "ReduceMean" => (s / n.max(1) as f64) as f32,
            _ => s as f32,
        };
        let dims = kept.iter().enumerate().filter(|(a, _)| keep || !axes.contains(a));
        let dims = dims.map(|(_, d)| *d).collect();
        Some(Array::floats(dims, sums.into_iter().map(end).collect()))
    }
}

/// A position, counted from the end where it is negative.
pub(super) fn place(axis: i64, rank: usize) -> Option<usize> {
    let rank_signed = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank_signed)? } else { axis };
    usize::try_from(axis).ok().filter(|a| *a < rank)
}

/// Positions that a slice takes.
pub(super) fn slice(size: usize, start: i64, end: i64, step: i64) -> Option<Vec<usize>> {
    let n = i64::try_from(size).ok()?;
    let from = |at: i64| if at < 0 { at.saturating_add(n) } else { at };
    (step > 0).then(|| {
        let (start, end) = (from(start).clamp(0, n), from(end).clamp(0, n));
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        (start as usize..(end.max(start)) as usize).step_by(step).collect()
    })
}

fn sizes(values: &[i64]) -> Option<Vec<usize>> {
    values.iter().map(|&d| usize::try_from(d).ok()).collect()
}

fn product(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}

fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for a in (1..dims.len()).rev() {
        strides[a - 1] = strides[a] * dims[a];
    }
    strides
}

/// Places in row-major order of `dims`, a step along each axis being `strides`.
fn walk(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut all = vec![0];
    for (&d, &s) in dims.iter().zip(strides) {
        all = all.iter().flat_map(|&at| (0..d).map(move |i| at + i * s)).collect();
    }
    all
}

/// The shape of two that are combined by numpy's rules.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// For each value of `dims`, the place in an array that is broadcast to it.
fn places(from: &[usize], dims: &[usize]) -> Vec<usize> {
    let own = strides(from);
    let skipped = dims.len() - from.len();
    let strides: Vec<usize> = (0..dims.len())
        .map(|i| match i.checked_sub(skipped) {
            Some(i) if from[i] != 1 => own[i],
            _ => 0,
        })
        .collect();
    walk(dims, &strides)
}

fn concat(parts: &[Array], axis: i64) -> Option<Array> {
    let first = parts.first()?;
    let axis = place(axis, first.dims.len())?;
    let outer: usize = first.dims[..axis].iter().product();
    let mut dims = first.dims.clone();
    let alike = |a: &Array| {
        let (mut x, mut y) = (a.dims.clone(), dims.clone());
        x.len() == y.len() && {
            (x[axis], y[axis]) = (0, 0);
            x == y
        }
    };
    if !parts.iter().all(alike) {
        return None;
    }
    dims[axis] = parts.iter().map(|a| a.dims[axis]).sum();
    let width = |a: &Array| a.dims[axis..].iter().product::<usize>();
    if parts.iter().all(|a| matches!(a.values, Values::Ints(_))) {
        let all: Vec<Vec<i64>> = parts.iter().map(|a| a.clone().into_ints()).collect();
        let rows = (0..outer).flat_map(|o| {
            all.iter().zip(parts).flat_map(move |(v, a)| v[o * width(a)..][..width(a)].to_vec())
        });
        return Some(Array { dims, element: first.element, values: Values::Ints(rows.collect()) });
    }
    let all: Vec<Vec<f32>> = parts.iter().map(|a| a.clone().into_floats()).collect();
    let rows = (0..outer).flat_map(|o| {
        all.iter().zip(parts).flat_map(move |(v, a)| v[o * width(a)..][..width(a)].to_vec())
    });
    Some(Array { dims, element: first.element, values: Values::Floats(rows.collect()) })
}

/// Scale and zero point of each value.
fn per_axis(
    node: &Node,
    dims: &[usize],
    scale: &Array,
    zero: Option<&Array>,
) -> Option<(Vec<f32>, Vec<f32>)> {
    let spread = |array: &Array| {
        let values = array.clone().into_floats();
        if let [one] = values[..] {
            return Some(vec![one; product(dims)?]);
        }
        let axis = place(node.attribute("axis").map_or(1, |a: &Attribute| a.i), dims.len())?;
        if values.len() != dims[axis] {
            return None;
        }
        let mut shape = vec![1; dims.len()];
        shape[axis] = values.len();
        Some(places(&shape, dims).into_iter().map(|i| values[i]).collect())
    };
    let zero = match zero {
        Some(zero) => spread(zero)?,
        None => vec![0.0; product(dims)?],
    };
    Some((spread(scale)?, zero))
}
