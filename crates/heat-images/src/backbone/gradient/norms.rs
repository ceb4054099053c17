//! Norms of the gradients of weights, taken while the gradient goes back.

use super::super::proto::{Attribute, Node, Tensor};
use super::super::shapes::{Shape, Window};
use super::Tape;
use heat_ood::Result;

impl Tape<'_> {
    /// Squared norms of the gradients of a node's weights, where it has some.
    pub(super) fn weights_of(&mut self, node: &Node, output: &str, g: &str) -> Result<()> {
        let input = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
        let Some(x) = input(0) else { return Ok(()) };
        let of_map = match self.shape(output) {
            Some(Shape::Map([c, h, w])) => Some((c, h * w)),
            _ => None,
        };
        match (node.op.as_str(), of_map) {
            ("Conv", Some((c, cells))) => {
                let kernel = self.weight(node, 1)?.floats();
                // Zeros and ones choose cells and channels: a shortcut, nothing that was trained.
                if !kernel.is_some_and(|k| k.iter().all(|v| *v == 0.0 || *v == 1.0)) {
                    self.meet(node, 1)?;
                    self.norms_of_kernel(node, x, output, g)?;
                }
                if input(2).is_some() {
                    self.meet(node, 2)?;
                    let sums = self.sums(g, cells);
                    self.norm(&sums, c);
                }
            }
            ("BatchNormalization", Some((c, cells))) => {
                let [mean, variance] = [3, 4].map(|at| self.weight(node, at).map(Tensor::floats));
                let (Some(mean), Some(variance)) = (mean?, variance?) else {
                    return Err(self.refuse(node, "its weights' type"));
                };
                let epsilon = f64::from(node.attribute("epsilon").map_or(1e-5, |a| a.f));
                let deviation = |v: &f32| (1.0 / (f64::from(*v) + epsilon).sqrt()) as f32;
                let factors: Vec<f32> = variance.iter().map(deviation).collect();
                let shape = [1, mean.len(), 1, 1];
                let (mean, factors) = (self.floats(&shape, &mean), self.floats(&shape, &factors));
                let centred = self.add("Sub", &[x, &mean], vec![]);
                let scaled = self.add("Mul", &[&centred, &factors], vec![]);
                let product = self.add("Mul", &[&scaled, g], vec![]);
                for (at, map) in [(1, product.as_str()), (2, g)] {
                    self.meet(node, at)?;
                    let sums = self.sums(map, cells);
                    self.norm(&sums, c);
                }
            }
            ("Gemm" | "MatMul", None) => {
                let (Some(Shape::Vector(from)), Some(Shape::Vector(to))) =
                    (self.shape(x), self.shape(output))
                else {
                    return Err(self.no_way(output));
                };
                self.meet(node, 1)?;
                let norms = [self.squared(x, from), self.squared(g, to)];
                let norm = self.add("Mul", &[&norms[0], &norms[1]], vec![]);
                self.norms.get_or_insert_default().push(norm);
                if input(2).is_some() {
                    self.meet(node, 2)?;
                    self.norm(g, to);
                }
            }
            ("Add", _) => {
                let weights: Vec<usize> = (0..2)
                    .filter(|at| input(*at).is_some_and(|n| !self.shapes.contains_key(n)))
                    .collect();
                for at in weights {
                    self.meet(node, at)?;
                    match (self.shape(output), self.weight(node, at)?.shape()) {
                        (Some(Shape::Vector(c)), Some(shape))
                            if shape.iter().product::<usize>() == c =>
                        {
                            self.norm(g, c);
                        }
                        _ => return Err(self.refuse(node, "what it adds is no bias of a vector")),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Note that a weight is met, which must be the first time: else gradients would have to be added up first.
    fn meet(&mut self, node: &Node, at: usize) -> Result<()> {
        self.weight(node, at)?;
        if self.met.insert(node.input[at].clone()) {
            return Ok(());
        }
        Err(self.refuse(node, &format!("its weights `{}` are another's too", node.input[at])))
    }

    /// Sums over the cells of a map, `[N, channels, 1, 1]`.
    fn sums(&mut self, map: &str, cells: usize) -> String {
        let means = self.add("GlobalAveragePool", &[map], vec![]);
        let factor = self.floats(&[], &[cells as f32]);
        self.add("Mul", &[&means, &factor], vec![])
    }

    /// The sum of the squares of `n` values of each image, `[N, 1, 1]`.
    fn squared(&mut self, values: &str, n: usize) -> String {
        let flat = self.reshape(values, &[-1, 1, n as i64]);
        let squares = self.add("Mul", &[&flat, &flat], vec![]);
        self.sums(&squares, n)
    }

    fn norm(&mut self, values: &str, n: usize) {
        let norm = self.squared(values, n);
        self.norms.get_or_insert_default().push(norm);
    }

    /// Of a kernel `[M, C/groups, kh, kw]`: for each of its cells the product of the gradient `[M, cells]` with
    /// what that cell reads, `[C, cells]`.
    fn norms_of_kernel(&mut self, node: &Node, x: &str, y: &str, g: &str) -> Result<()> {
        let (Some(Shape::Map(from)), Some(Shape::Map(to))) = (self.shape(x), self.shape(y)) else {
            return Err(self.refuse(node, "it does not read and make maps"));
        };
        if self.opset < 11 {
            return Err(self.refuse(node, "it needs opset 11 or newer: export the model anew"));
        }
        let dims: Option<[usize; 4]> =
            self.weight(node, 1)?.shape().and_then(|d| d.try_into().ok());
        let dims = dims.ok_or_else(|| self.refuse(node, "its kernel is not of two dimensions"))?;
        let window = Window::of(node, [dims[2], dims[3]]);
        let window = window.ok_or_else(|| self.refuse(node, "its attributes"))?;
        let group = usize::try_from(node.int("group", 1)).unwrap_or(1).max(1);
        let [groups, m, c] = [group, dims[0] / group, from[0] / group].map(|n| n as i64);
        let cells = (to[1] * to[2]) as i64;
        let mut padded = x.to_owned();
        if window.pads != [0; 4] {
            let [top, left, bottom, right] = window.pads.map(|p| p as i64);
            let pads = self.ints(&[0, 0, top, left, 0, 0, bottom, right]);
            padded = self.add("Pad", &[x, &pads], vec![]);
        }
        let g = self.reshape(g, &[-1, groups, m, cells]);
        let axes = self.ints(&[2, 3]);
        let steps = self.ints(&window.strides.map(|s| s as i64));
        let mut total: Option<String> = None;
        for row in 0..window.kernel[0] {
            for column in 0..window.kernel[1] {
                let start = [row * window.dilations[0], column * window.dilations[1]];
                let end = [0, 1].map(|i| start[i] + (to[i + 1] - 1) * window.strides[i] + 1);
                let [start, end] = [start, end].map(|at| self.ints(&at.map(|v| v as i64)));
                let read = self.add("Slice", &[&padded, &start, &end, &axes, &steps], vec![]);
                let read = self.reshape(&read, &[-1, groups, c, cells]);
                let perm = vec![Attribute::ints("perm", &[0, 1, 3, 2])];
                let read = self.add("Transpose", &[&read], perm);
                let of_cell = self.add("MatMul", &[&g, &read], vec![]);
                let norm = self.squared(&of_cell, dims[0] * dims[1]);
                total = Some(match total {
                    None => norm,
                    Some(sum) => self.add("Add", &[&sum, &norm], vec![]),
                });
            }
        }
        self.norms.get_or_insert_default().extend(total);
        Ok(())
    }
}
