//! Shapes of what depends on the images, for images of one size.

use std::collections::HashMap;
use std::path::Path;

use super::proto::{Graph, Node, Tensor};
use heat_ood::{Error, Result};

/// The shape of a tensor, without its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Channels, height, width.
    Map([usize; 3]),
    Vector(usize),
    /// It depends on the images in a way that is not followed.
    Unknown,
}

/// How a kernel moves over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    ceil: bool,
}

impl Window {
    /// From a node's attributes; `None` where they are unusable.
    pub fn of(node: &Node, kernel: [usize; 2]) -> Option<Self> {
        let auto = node.attribute("auto_pad").is_none_or(|a| a.s.is_empty() || a.s == b"NOTSET");
        let two = |name| <[usize; 2]>::try_from(node.sizes(name, 2, 1)?).ok();
        let window = Window {
            kernel,
            strides: two("strides")?,
            dilations: two("dilations")?,
            pads: node.sizes("pads", 4, 0)?.try_into().ok()?,
            ceil: node.int("ceil_mode", 0) != 0,
        };
        let sound = |sizes: [usize; 2]| sizes.iter().all(|s| (1..1 << 16).contains(s));
        let usable = sound(kernel) && sound(window.strides) && sound(window.dilations);
        (auto && usable && window.pads.iter().all(|p| *p < 1 << 16)).then_some(window)
    }

    /// Cells that the kernel spans in direction `i`.
    fn span(&self, i: usize) -> usize {
        self.dilations[i] * (self.kernel[i] - 1) + 1
    }

    /// Height and width of what comes out.
    fn out(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let side = |i: usize| {
            let free = (size[i] + self.pads[i] + self.pads[i + 2]).checked_sub(self.span(i))?;
            let steps =
                if self.ceil { free.div_ceil(self.strides[i]) } else { free / self.strides[i] };
            // A last window must begin within the map or the padding before it.
            let begins = steps * self.strides[i] < size[i] + self.pads[i];
            Some(if self.ceil && !begins { steps } else { steps + 1 })
        };
        Some([side(0)?, side(1)?])
    }

    /// Rows and columns at the end that no window reaches: the output padding
    /// of the transposed convolution.
    pub fn left_over(&self, from: [usize; 2], to: [usize; 2]) -> Option<[usize; 2]> {
        let side = |i: usize| {
            let reached = (to[i].checked_sub(1)?) * self.strides[i] + self.span(i);
            let over = (from[i] + self.pads[i] + self.pads[i + 2]).checked_sub(reached)?;
            (over < self.strides[i].max(self.dilations[i])).then_some(over)
        };
        Some([side(0)?, side(1)?])
    }
}

/// Shapes by name, and the first operator that is not followed.
pub(super) struct Shapes<'a> {
    pub known: HashMap<String, Shape>,
    pub stranger: Option<&'a Node>,
}

/// The shape of every tensor that depends on `input`.
///
/// # Errors
/// If images of that size are too small for a kernel.
pub(super) fn infer<'a>(
    path: &Path,
    graph: &'a Graph,
    weights: &HashMap<&str, &Tensor>,
    input: &str,
    start: Shape,
) -> Result<Shapes<'a>> {
    let mut stranger = None;
    let mut shapes = HashMap::from([(input.to_owned(), start)]);
    for node in &graph.node {
        let Some(x) = node.input.iter().find_map(|name| shapes.get(name)).copied() else {
            continue;
        };
        let shape = match of_node(node, x, &shapes, weights, input) {
            Some(shape) => shape,
            None if matches!(
                (node.op.as_str(), x),
                ("Conv" | "MaxPool" | "AveragePool", Shape::Map(_))
            ) =>
            {
                let problem = format!(
                    "`{}` ({}) with this padding, or on a map of {x:?}, is not understood; \
                     larger images may do",
                    node.name, node.op
                );
                return Err(Error::format(path, problem));
            }
            None => {
                stranger = stranger.or(Some(node));
                Shape::Unknown
            }
        };
        if let Some(output) = node.output.first() {
            shapes.insert(output.clone(), shape);
        }
    }
    Ok(Shapes { known: shapes, stranger })
}

fn of_node(
    node: &Node,
    x: Shape,
    shapes: &HashMap<String, Shape>,
    weights: &HashMap<&str, &Tensor>,
    input: &str,
) -> Option<Shape> {
    let weight = |at: usize| weights.get(node.input.get(at)?.as_str())?.shape();
    match (node.op.as_str(), x) {
        ("Conv", Shape::Map([channels, h, w])) => {
            let [m, c, kh, kw] = weight(1)?[..] else {
                return None;
            };
            let group = usize::try_from(node.int("group", 1)).ok()?;
            let fits = group > 0 && c.checked_mul(group) == Some(channels) && m % group == 0;
            let [h, w] = Window::of(node, [kh, kw])?.out([h, w])?;
            fits.then_some(Shape::Map([m, h, w]))
        }
        ("MaxPool" | "AveragePool", Shape::Map([c, h, w])) => {
            let kernel = node.sizes("kernel_shape", 2, 1)?.try_into().ok()?;
            let [h, w] = Window::of(node, kernel)?.out([h, w])?;
            Some(Shape::Map([c, h, w]))
        }
        // Images with their channels last, which `x` has first.
        ("Transpose", Shape::Map(_)) if node.input.first().map(String::as_str) == Some(input) => {
            node.attribute("perm").is_some_and(|a| a.ints == [0, 3, 1, 2]).then_some(x)
        }
        ("BatchNormalization" | "Relu" | "Identity" | "Dropout", x) => Some(x),
        ("GlobalAveragePool", Shape::Map([c, ..])) => Some(Shape::Map([c, 1, 1])),
        ("ReduceMean", Shape::Map([c, ..])) => {
            let keeps = node.int("keepdims", 1) != 0;
            Some(if keeps { Shape::Map([c, 1, 1]) } else { Shape::Vector(c) })
        }
        ("Flatten", Shape::Map([c, h, w])) => {
            Some(Shape::Vector(c.checked_mul(h)?.checked_mul(w)?))
        }
        ("Reshape" | "Squeeze", Shape::Map([c, 1, 1])) => Some(Shape::Vector(c)),
        ("Flatten", Shape::Vector(_)) => Some(x),
        ("Gemm", Shape::Vector(d)) => {
            let [a, b] = weight(1)?[..] else {
                return None;
            };
            let [rows, columns] = if node.int("transB", 0) != 0 { [b, a] } else { [a, b] };
            (rows == d).then_some(Shape::Vector(columns))
        }
        ("MatMul", Shape::Vector(d)) => match weight(1)?[..] {
            [rows, columns] if rows == d => Some(Shape::Vector(columns)),
            _ => None,
        },
        ("Add", x) => {
            // A constant beside it, or another of the same shape.
            let mut others = node.input.iter().filter_map(|name| shapes.get(name));
            others.all(|other| *other == x).then_some(x)
        }
        ("Concat", Shape::Map([_, h, w])) if node.int("axis", 1) == 1 => {
            let mut channels = 0;
            for name in &node.input {
                match shapes.get(name)? {
                    Shape::Map([c, height, width]) if (*height, *width) == (h, w) => {
                        channels = usize::checked_add(channels, *c)?;
                    }
                    _ => return None,
                }
            }
            Some(Shape::Map([channels, h, w]))
        }
        _ => None,
    }
}
