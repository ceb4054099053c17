//! Passes through a network with its dropout (view `dropoutK`, for Monte Carlo dropout), where the graph still has it.
//!
//! Each `Dropout` becomes a product with a mask, which is an input of the graph: 0 with the probability that the graph
//! says, else 1/(1 − p). A mask is that of its pass, the same for all images, so that what is made of an image does
//! not hang on those beside it. What comes before the first of them is the same in all passes: where nothing of
//! the images goes past it, that part is run once, and only the rest in each pass.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use prost::Message;

use super::constants::Constants;
use super::graph::{Found, decode};
use super::outputs::{added, with_pooled_outputs};
use super::proto::{
    Attribute, BFLOAT16, DOUBLE, FLOAT, FLOAT16, Graph, INPUT, Model, NODE, Node, OUTPUT, Value,
};
use super::rewrite::{self, Field as Replaced};
use super::runtime::Session;
use super::{Backbone, Pooled};
use heat_ood::features::View;
use heat_ood::math::rng::{Purpose, Stream};
use heat_ood::{Error, Result};

/// Operators whose graphs read what is around them: what they need is not followed.
const NESTED: [&str; 3] = ["If", "Loop", "Scan"];

/// An operator that drops some of what it reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dropout {
    /// How it is called in messages.
    pub name: String,
    pub input: String,
    output: String,
    pub probability: f32,
}

/// What a graph drops on the way to its logits.
pub(super) struct Plan {
    pub dropouts: Vec<Dropout>,
    /// The logits.
    pub logits: String,
    pub cut: Option<Cut>,
    /// Whether some of its numbers are no single-precision ones, so that masks become what they are multiplied with.
    cast: bool,
}

/// Where a graph falls into what is before the first dropouts and what is after them.
pub(super) struct Cut {
    /// Which dropouts read what the first part gives, each tensor once.
    pub starts: Vec<usize>,
    /// The outputs of the nodes of each part.
    before: HashSet<String>,
    after: HashSet<String>,
}

/// A shape for one image, and which of its sides counts images.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dims {
    sides: Vec<usize>,
    images: Option<usize>,
}

impl Dims {
    pub fn of(&self, n: usize) -> Vec<usize> {
        let mut sides = self.sides.clone();
        self.images.into_iter().for_each(|axis| sides[axis] = n);
        sides
    }
}

/// The graph with masks as inputs, loaded for images of one size.
pub(super) struct Passes {
    pub size: [usize; 2],
    pub plan: Plan,
    /// Of what each of the plan's dropouts reads.
    pub shapes: Vec<Dims>,
    pub trunk: Option<Session>,
    pub rest: Session,
}

impl Backbone {
    /// Refuse views that this network cannot have.
    ///
    /// # Errors
    /// If one is of passes with dropout, and the graph has none before its logits, or says of its probability
    /// nothing that is known here.
    pub fn check_views<'a>(&self, views: impl IntoIterator<Item = &'a View>) -> Result<()> {
        let dropped = views.into_iter().find(|view| matches!(view, View::Dropout(_)));
        dropped.map_or(Ok(()), |_| Plan::of(&self.path, &self.bytes, &self.found).map(drop))
    }
}

impl Plan {
    pub fn of(path: &Path, bytes: &[u8], found: &Found) -> Result<Self> {
        let refuse = |problem: String| {
            let place = path.file_name().unwrap_or_default().to_string_lossy();
            Error::config("views", "dropout", format!("{place}: {problem}"))
        };
        let Some(logits) = found.names().logits else {
            let problem =
                "passes with dropout are compared by their logits, and the network has none";
            return Err(refuse(problem.into()));
        };
        let bytes = with_pooled_outputs(bytes, found);
        let graph = decode(path, &bytes)?.graph.unwrap_or_default();
        let makers: HashMap<&str, &Node> =
            graph.node.iter().flat_map(|n| n.output.iter().map(move |o| (o.as_str(), n))).collect();
        let constants = Constants::new(&graph, &makers, bytes.len());
        let nested = graph.node.iter().any(|n| NESTED.contains(&n.op.as_str()));
        let led_to_logits = leading(&makers, [logits.as_str()], &HashSet::new());
        let mut dropouts = Vec::new();
        for node in graph.node.iter().filter(|n| n.op == "Dropout" && n.is_standard()) {
            let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else {
                continue;
            };
            if !nested && !led_to_logits.contains(output) {
                continue;
            }
            let name = if node.name.is_empty() { output.clone() } else { node.name.clone() };
            let probability = probability(node, &constants).ok_or_else(|| {
                refuse(format!(
                    "the probability of its dropout `{name}` is no number from 0 to 1 in the graph"
                ))
            })?;
            if probability > 0.0 {
                let (input, output) = (input.clone(), output.clone());
                dropouts.push(Dropout { name, input, output, probability });
            }
        }
        if dropouts.is_empty() {
            let problem = "no dropout is left in its graph before the logits: exporters leave out what does nothing \
                           when the network is applied. Set its dropout layers, and nothing else, to training before \
                           it is exported (PyTorch: `layer.train()` for each `torch.nn.Dropout`); features are taken \
                           without dropout all the same";
            return Err(refuse(problem.into()));
        }
        let narrow = [FLOAT16, BFLOAT16, DOUBLE];
        let cast = graph.initializer.iter().any(|t| narrow.contains(&t.data_type));
        if cast && found.opset < 15 {
            let problem = "dropout of a network in half precision needs operators of version 15 or later; export it \
                           with `opset_version=17`";
            return Err(refuse(problem.into()));
        }
        let mut plan = Plan { dropouts, logits, cut: None, cast };
        if !cast && !nested {
            plan.cut = plan.cut(&graph, &makers, &found.input);
        }
        Ok(plan)
    }

    /// Where the graph is cut: before the first dropouts, unless the logits hang on the images past them.
    fn cut(&self, graph: &Graph, makers: &HashMap<&str, &Node>, image: &str) -> Option<Cut> {
        let mut dropped: HashSet<&str> = self.dropouts.iter().map(|d| d.output.as_str()).collect();
        for node in &graph.node {
            if node.input.iter().any(|i| dropped.contains(i.as_str())) {
                dropped.extend(node.output.iter().map(String::as_str));
            }
        }
        let mut read = HashSet::new();
        // Those that read nothing that has been dropped; of several that read the same, one.
        let mut first = |i: &usize| {
            let input = self.dropouts[*i].input.as_str();
            !dropped.contains(input) && read.insert(input)
        };
        let starts = (0..self.dropouts.len()).filter(|i| first(i)).collect();
        let after = leading(makers, [self.logits.as_str()], &read);
        let past = after.contains(image) || read.contains(image);
        let before = leading(makers, read.iter().copied(), &HashSet::new());
        (!past).then_some(Cut { starts, before, after })
    }

    /// The graph as far as the cut: what is read there is its output.
    pub fn trunk(&self, path: &Path, bytes: &[u8], cut: &Cut) -> Result<Vec<u8>> {
        let model = rewrite::graph(path, bytes, &|number, body| {
            Some(match number {
                OUTPUT => Replaced::Anew(vec![]),
                NODE if !makes(body, &cut.before)? => Replaced::Anew(vec![]),
                _ => Replaced::Same,
            })
        })?;
        Ok(with(model, &[], &self.inputs(cut)))
    }

    /// The graph from there to the logits, or all of it, with masks in place of dropout.
    pub fn rest(&self, path: &Path, bytes: &[u8], found: &Found) -> Result<Vec<u8>> {
        let cut = self.cut.as_ref();
        let bytes = with_pooled_outputs(bytes, found);
        let model = rewrite::graph(path, &bytes, &|number, body| {
            Some(match number {
                OUTPUT => Replaced::Anew(vec![]),
                INPUT if cut.is_some() && Value::decode(body).ok()?.name == found.input => {
                    Replaced::Anew(vec![])
                }
                NODE => {
                    let node = Node::decode(body).ok()?;
                    let dropped = |d: &Dropout| node.output.first() == Some(&d.output);
                    match (cut, self.dropouts.iter().position(dropped)) {
                        (Some(cut), _) if !node.output.iter().any(|o| cut.after.contains(o)) => {
                            Replaced::Anew(vec![])
                        }
                        (_, Some(i)) => Replaced::Anew(self.masked(i)),
                        _ => Replaced::Same,
                    }
                }
                _ => Replaced::Same,
            })
        })?;
        let mut inputs: Vec<String> = (0..self.dropouts.len()).map(mask).collect();
        inputs.extend(cut.into_iter().flat_map(|cut| self.inputs(cut)));
        Ok(with(model, &inputs, std::slice::from_ref(&self.logits)))
    }

    /// The tensors at the cut.
    pub fn inputs(&self, cut: &Cut) -> Vec<String> {
        cut.starts.iter().map(|i| self.dropouts[*i].input.clone()).collect()
    }

    /// Nodes for a dropout.
    fn masked(&self, i: usize) -> Vec<Vec<u8>> {
        let Dropout { input, output, .. } = &self.dropouts[i];
        let (own, like) = (mask(i), added(&format!("mask{i}_like")));
        let mut nodes = Vec::new();
        if self.cast {
            nodes.push(Node::new("CastLike", &[&own, input], &like, vec![]));
        }
        let factor = if self.cast { &like } else { &own };
        nodes.push(Node::new("Mul", &[input, factor], output, vec![]));
        nodes.iter().map(Node::encode_to_vec).collect()
    }

    /// The graph as it is, with the shapes of what is dropped as its outputs.
    pub fn probe(&self, bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
        let mut graph = Graph::default();
        let to = || vec![Attribute::int("to", i64::from(FLOAT))];
        let mut outputs = Vec::new();
        for (i, dropout) in self.dropouts.iter().enumerate() {
            let [shape, output] =
                ["shape", "sides"].map(|what| added(&format!("dropped{i}_{what}")));
            graph.node.push(Node::new("Shape", &[&dropout.input], &shape, vec![]));
            graph.node.push(Node::new("Cast", &[&shape], &output, to()));
            outputs.push(output);
        }
        graph.output = outputs.iter().map(|name| Value::floats(name, None)).collect();
        let more = Model { graph: Some(graph), ..Model::default() };
        ([bytes, &more.encode_to_vec()].concat(), outputs)
    }
}

/// The input that holds the mask of a dropout.
pub(super) fn mask(i: usize) -> String {
    added(&format!("mask{i}"))
}

/// Whether a node makes one of these; `None`: it is damaged.
fn makes(body: &[u8], outputs: &HashSet<String>) -> Option<bool> {
    Some(Node::decode(body).ok()?.output.iter().any(|o| outputs.contains(o)))
}

/// A model with further inputs and outputs of single precision.
fn with(mut model: Vec<u8>, inputs: &[String], outputs: &[String]) -> Vec<u8> {
    let floats = |names: &[String]| names.iter().map(|name| Value::floats(name, None)).collect();
    let graph = Graph { input: floats(inputs), output: floats(outputs), ..Graph::default() };
    model.extend(Model { graph: Some(graph), ..Model::default() }.encode_to_vec());
    model
}

/// Tensors that lead to some of them, these among them, but for what lies beyond those to stop at.
fn leading<'a>(
    makers: &HashMap<&'a str, &'a Node>,
    wanted: impl IntoIterator<Item = &'a str>,
    stop: &HashSet<&str>,
) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut open: Vec<&str> = wanted.into_iter().collect();
    while let Some(name) = open.pop() {
        if !stop.contains(name) && found.insert(name.to_owned()) {
            let inputs = makers.get(name).into_iter().flat_map(|n| &n.input);
            open.extend(inputs.map(String::as_str));
        }
    }
    found
}

/// The probability of a dropout: its second input, before version 12 an attribute; 1/2 where it is not said.
fn probability(node: &Node, constants: &Constants<'_>) -> Option<f32> {
    const UNSAID: f32 = 0.5;
    let said = match node.input.get(1).filter(|name| !name.is_empty()) {
        Some(name) => match constants.value(name)?.into_floats()[..] {
            [value] => value,
            _ => return None,
        },
        None => node.attribute("ratio").map_or(UNSAID, |a| a.f),
    };
    (0.0..=1.0).contains(&said).then_some(said)
}

/// Means, and sums of squares about them, of what passes make of the same images.
#[derive(Default)]
pub(super) struct Moments {
    passes: u32,
    logits: Vec<f64>,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Take the logits `[n, classes]` of one more pass (Welford, 1962).
    pub fn add(&mut self, logits: &[f32], classes: usize) {
        if self.passes == 0 {
            let all = [&mut self.logits, &mut self.mean, &mut self.squares];
            all.into_iter().for_each(|sums| *sums = vec![0.0; logits.len()]);
        }
        self.passes += 1;
        let passes = f64::from(self.passes);
        let means = self.mean.chunks_exact_mut(classes).zip(self.squares.chunks_exact_mut(classes));
        for (row, (means, squares)) in logits.chunks_exact(classes).zip(means) {
            let top = row.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
            let power = |l: &f32| f64::from(l - top).exp();
            let total: f64 = row.iter().map(power).sum();
            for ((l, mean), square) in row.iter().zip(means).zip(squares) {
                let p = power(l) / total;
                let away = p - *mean;
                *mean += away / passes;
                *square += away * (p - *mean);
            }
        }
        self.logits.iter_mut().zip(logits).for_each(|(sum, l)| *sum += f64::from(*l));
    }

    pub fn finish(self) -> Pooled {
        let passes = f64::from(self.passes);
        let narrow = |values: Vec<f64>, f: &dyn Fn(f64) -> f64| {
            values.into_iter().map(|v| f(v) as f32).collect()
        };
        Pooled {
            logits: narrow(self.logits, &|sum| sum / passes),
            probabilities: narrow(self.mean, &|mean| mean),
            spread: narrow(self.squares, &|square| (square / (passes - 1.0)).sqrt()),
            ..Pooled::default()
        }
    }
}

/// A shape for one image from those for one and two, or for a fixed number.
pub(super) fn dims(few: &[usize], more: &[usize], fixed: Option<usize>) -> Option<Dims> {
    let images = match fixed {
        Some(n) => few.iter().position(|side| *side == n),
        None => few.iter().zip(more).position(|(a, b)| a != b),
    };
    let mut sides = few.to_vec();
    if let Some(axis) = images {
        sides[axis] = 1;
    }
    let as_seen = |n: usize, seen: &[usize]| Dims { sides: sides.clone(), images }.of(n) == seen;
    let holds = match fixed {
        Some(n) => images.is_some() && as_seen(n, few),
        None => as_seen(1, few) && as_seen(2, more),
    };
    holds.then_some(Dims { sides, images })
}

/// The factors of a pass and a dropout.
pub(super) fn kept(pass: u32, dropout: usize, probability: f32, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Stream::new(0, Purpose::Dropout, pass.into(), dropout as u64).fill_uniform(
        &mut values,
        0.0,
        1.0,
    );
    let factor = if probability < 1.0 { 1.0 / (1.0 - probability) } else { 0.0 };
    values.iter_mut().for_each(|v| *v = if *v < probability { 0.0 } else { factor });
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_tell_which_side_counts_images() {
        let of = |few: &[usize], more: &[usize], fixed| {
            dims(few, more, fixed).map(|d| (d.sides, d.images))
        };
        assert_eq!(of(&[1, 8], &[2, 8], None), Some((vec![1, 8], Some(0))));
        assert_eq!(of(&[7, 1, 8], &[7, 2, 8], None), Some((vec![7, 1, 8], Some(1))));
        // What hangs on no image.
        assert_eq!(of(&[7, 8], &[7, 8], None), Some((vec![7, 8], None)));
        // Heads of several images in one side.
        assert_eq!(of(&[12, 8], &[24, 8], None), None);
        assert_eq!(of(&[1, 8], &[2, 9], None), None);
        assert_eq!(of(&[1, 8], &[2], None), None);
        assert_eq!(of(&[4, 8], &[4, 8], Some(4)), Some((vec![1, 8], Some(0))));
        assert_eq!(of(&[12, 8], &[12, 8], Some(4)), None);
    }

    /// Two passes of two images and two classes, by hand: probabilities (3/4, 1/4) and (1/4, 3/4), and twice (1/2, 1/2).
    #[test]
    fn moments_by_hand() {
        let l = 3f32.ln();
        let mut moments = Moments::default();
        moments.add(&[l, 0.0, 1.0, 1.0], 2);
        moments.add(&[0.0, l, 3.0, 3.0], 2);
        let made = moments.finish();
        let close = |got: &[f32], want: &[f32]| {
            assert_eq!(got.len(), want.len());
            got.iter().zip(want).for_each(|(g, w)| assert!((g - w).abs() < 1e-6, "{got:?}"));
        };
        close(&made.logits, &[l / 2.0, l / 2.0, 2.0, 2.0]);
        close(&made.probabilities, &[0.5; 4]);
        close(&made.spread, &[0.125f32.sqrt(), 0.125f32.sqrt(), 0.0, 0.0]);
    }

    #[test]
    fn as_many_are_dropped_as_the_probability_says() {
        let all = kept(3, 1, 0.25, 100_000);
        let dropped = all.iter().filter(|v| **v == 0.0).count() as f64 / 1e5;
        assert!((dropped - 0.25).abs() < 0.005, "{dropped}");
        assert!(all.iter().all(|v| *v == 0.0 || *v == 1.0 / 0.75));
        assert_ne!(all[..64], kept(4, 1, 0.25, 64));
        assert_ne!(all[..64], kept(3, 0, 0.25, 64));
        assert_eq!(all[..64], kept(3, 1, 0.25, 64));
        assert_eq!(kept(0, 0, 1.0, 4), [0.0; 4]);
    }
}
