//! What a device does, in order: lists of operations on named pieces of its memory.
//!
//! A plan is made from shapes alone, on the processor, and knows of no device. [`crate::mirror`]
//! carries it out on the processor, operation by operation, so that plans are tested without a card;
//! a card makes one graph of it.
//!
//! All matrices lie row by row without gaps.

mod ops;

pub use ops::*;

use heat_ood::ebm::mlp::{Layer, Mlp};
use heat_ood::ebm::sampler::{Langevin, Projection};
use heat_ood::scorers::Form;

/// The shape of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    layers: Vec<Layer>,
    order: Vec<usize>,
}

impl Net {
    /// That of `mlp`.
    pub fn of(mlp: &Mlp) -> Self {
        Net { layers: mlp.layers(), order: mlp.hidden_order().to_vec() }
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.layers[0].input
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.last().offset + self.last().input + 1
    }

    fn last(&self) -> Layer {
        self.layers[self.layers.len() - 1]
    }

    fn top(&self) -> usize {
        self.order.len() - 1
    }

    fn hidden(&self, place: usize) -> Layer {
        self.layers[self.order[place]]
    }

    fn widest(&self) -> usize {
        self.layers.iter().map(|l| l.input.max(l.output)).max().unwrap_or(1)
    }
}

fn weight(layer: Layer) -> At {
    At { slot: Slot::Parameters, offset: layer.offset }
}

fn bias(layer: Layer) -> At {
    At { slot: Slot::Parameters, offset: layer.offset + layer.input * layer.output }
}

fn of_gradient(at: At) -> At {
    At { slot: Slot::ParameterGradient, ..at }
}

/// A list of operations, with the elements that each slot has to have for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// In order.
    pub ops: Vec<Op>,
    /// What they use, and how many elements of it.
    pub slots: Vec<(Slot, usize)>,
}

impl Plan {
    fn need(&mut self, slot: Slot, len: usize) -> At {
        match self.slots.iter_mut().find(|(s, _)| *s == slot) {
            Some((_, most)) => *most = len.max(*most),
            None => self.slots.push((slot, len)),
        }
        slot.into()
    }

    fn product(
        &mut self,
        a: At,
        b: At,
        out: At,
        [m, n, k]: [usize; 3],
        precision: Precision,
    ) -> &mut Product {
        self.ops.push(Op::Product(Product {
            a,
            a_transposed: false,
            b,
            b_transposed: false,
            out,
            m,
            n,
            k,
            alpha: 1.0,
            beta: 0.0,
            precision,
        }));
        match self.ops.last_mut() {
            Some(Op::Product(product)) => product,
            _ => unreachable!("it was pushed above"),
        }
    }

    /// All hidden layers of `rows` rows, from [`Slot::Rows`] to [`Slot::Activation`].
    fn forward(&mut self, net: &Net, rows: usize, precision: Precision, drop: Option<Drop>) {
        self.need(Slot::Parameters, net.parameters());
        let mut input = self.need(Slot::Rows, rows * net.dim());
        for place in 0..net.order.len() {
            let layer = net.hidden(place);
            let out = self.need(Slot::Activation(place), rows * layer.output);
            let shape = [rows, layer.output, layer.input];
            self.product(input, weight(layer), out, shape, precision).b_transposed = true;
            self.ops.push(Op::BiasLeaky { x: out, bias: bias(layer), rows, width: layer.output });
            if let Some(drop) = drop {
                self.need(Slot::Key, 8);
                self.ops.push(Op::Drop { x: out, rows, width: layer.output, layer: place, drop });
            }
            input = out;
        }
    }

    fn seed(&mut self, net: &Net, rows: usize, seed: Seed) -> At {
        let top = Slot::Activation(net.top()).into();
        let out = self.need(Slot::Delta(0), rows * net.widest());
        self.need(Slot::Delta(1), rows * net.widest());
        let last = net.last();
        self.ops.push(Op::Seed { top, weight: weight(last), seed, out, rows, width: last.input });
        out
    }

    /// ∂/∂(pre-activation) of the layer below, from that of layer `place`.
    fn back(
        &mut self,
        net: &Net,
        rows: usize,
        place: usize,
        delta: At,
        precision: Precision,
    ) -> At {
        let layer = net.hidden(place);
        let other = if delta.slot == Slot::Delta(0) { Slot::Delta(1) } else { Slot::Delta(0) };
        let shape = [rows, layer.input, layer.output];
        self.product(delta, weight(layer), other.into(), shape, precision);
        let activations = Slot::Activation(place - 1).into();
        self.ops.push(Op::Mask { x: other.into(), activations, rows, width: layer.input });
        other.into()
    }

    /// `scale`·∂E_nn/∂z into [`Slot::Gradient`].
    fn input_gradient(&mut self, net: &Net, rows: usize, scale: f32, precision: Precision) {
        self.forward(net, rows, precision, None);
        let mut delta = self.seed(net, rows, Seed::Same(scale));
        for place in (1..=net.top()).rev() {
            delta = self.back(net, rows, place, delta, precision);
        }
        let first = net.hidden(0);
        let out = self.need(Slot::Gradient, rows * first.input);
        self.product(delta, weight(first), out, [rows, first.input, first.output], precision);
    }

    /// Add `scale`·∇E_prior to [`Slot::Gradient`]. In single precision whatever the network's: whitening
    /// would multiply the rounding of eleven bits by a covariance's condition number.
    fn add_prior(&mut self, prior: &Shape, rows: usize, scale: f32, labelled: bool) {
        let (d, gradient) = (prior.dim, Slot::Gradient.into());
        let z = Slot::Rows.into();
        let exact = Precision::F32;
        match prior.kind {
            Kind::Flat => {}
            Kind::Logits => {
                let k = prior.components;
                let directions = self.need(Slot::Directions, k * d);
                let offset = self.need(Slot::Offset, k);
                let p = self.need(Slot::Responsibilities, rows * k);
                self.product(z, directions, p, [rows, k, d], exact).b_transposed = true;
                self.ops.push(Op::NegatedSoftmax { x: p, offset, rows, width: k });
                let product = self.product(p, directions, gradient, [rows, d, k], exact);
                (product.alpha, product.beta) = (scale, 1.0);
            }
            Kind::Mixture if labelled => {
                let whiten = self.need(Slot::Whiten, d * d);
                let means = self.need(Slot::Means, prior.components * d);
                let labels = self.need(Slot::Labels, rows);
                let centred = self.need(Slot::Centred, rows * d);
                let white = self.need(Slot::White, rows * d);
                self.ops.push(Op::CentreOnMeans {
                    rows_of: z,
                    means,
                    labels,
                    out: centred,
                    rows,
                    width: d,
                    classes: prior.components,
                    scale,
                });
                self.product(centred, whiten, white, [rows, d, d], exact).b_transposed = true;
                self.product(white, whiten, gradient, [rows, d, d], exact).beta = 1.0;
            }
            Kind::Mixture => {
                let k = prior.components;
                let centre = self.need(Slot::Centre, d);
                let whiten = self.need(Slot::Whiten, d * d);
                let directions = self.need(Slot::Directions, k * d);
                let offset = self.need(Slot::Offset, k);
                let centred = self.need(Slot::Centred, rows * d);
                let white = self.need(Slot::White, rows * d);
                let r = self.need(Slot::Responsibilities, rows * k);
                self.ops.push(Op::Centre { rows_of: z, centre, out: centred, rows, width: d });
                self.product(centred, whiten, white, [rows, d, d], exact).b_transposed = true;
                self.product(white, directions, r, [rows, k, d], exact).b_transposed = true;
                self.ops.push(Op::NegatedSoftmax { x: r, offset, rows, width: k });
                // w − Σ r_k w_k, then back through Pᵀ.
                self.product(r, directions, white, [rows, d, k], exact).beta = 1.0;
                let product = self.product(white, whiten, gradient, [rows, d, d], exact);
                (product.alpha, product.beta) = (scale, 1.0);
            }
        }
    }

    /// All steps of the chains of `rows` rows.
    pub fn chain(net: &Net, chain: &Chain<'_>, rows: usize) -> Plan {
        let mut plan = Plan::default();
        let d = net.dim();
        plan.need(Slot::Key, 8);
        for t in 0..chain.langevin.steps {
            plan.input_gradient(net, rows, chain.scale, chain.precision);
            if chain.prior_scale != 0.0 {
                plan.add_prior(chain.prior, rows, chain.prior_scale, chain.labelled);
            }
            let (mut step, mut eps) = chain.langevin.sizes(t);
            let gradient = Slot::Gradient.into();
            let mut noise = None;
            if eps > 0.0 {
                let out = plan.need(Slot::Noise, rows * d);
                plan.ops.push(Op::Noise { out, rows, width: d, t });
                noise = Some(out);
            }
            if chain.langevin.precondition && chain.prior.kind == Kind::Mixture {
                // L(λ Lᵀg + σ ε).
                let colour = plan.need(Slot::Colour, d * d);
                let white = plan.need(Slot::White, rows * d);
                let shape = [rows, d, d];
                plan.product(gradient, colour, white, shape, Precision::F32);
                let op = match noise {
                    Some(noise) => Op::WhiteStep { x: white, noise, rows, width: d, step, eps },
                    None => Op::Scale { x: white, len: rows * d, factor: step },
                };
                plan.ops.push(op);
                plan.product(white, colour, gradient, shape, Precision::F32).b_transposed = true;
                (step, eps, noise) = (1.0, 0.0, None);
            }
            let projection = chain.projection;
            let z = Slot::Rows.into();
            plan.ops.push(Op::Step { z, gradient, noise, rows, width: d, step, eps, projection });
        }
        plan
    }

    /// Network energies of `rows` rows into [`Slot::Energies`].
    pub fn energies(net: &Net, rows: usize, precision: Precision, drop: Option<Drop>) -> Plan {
        let mut plan = Plan::default();
        plan.forward(net, rows, precision, drop);
        let last = net.last();
        let (weight, bias) = (weight(last), bias(last));
        let out = plan.need(Slot::Energies, rows);
        let top = Slot::Activation(net.top()).into();
        plan.ops.push(Op::Energy { top, weight, bias, out, rows, width: last.input });
        plan
    }

    /// The parameters' gradient, after [`Plan::energies`], from the loss's gradient in [`Slot::Energies`].
    pub fn parameter_gradient(
        net: &Net,
        rows: usize,
        precision: Precision,
        drop: Option<Drop>,
    ) -> Plan {
        let mut plan = Plan::default();
        for place in 0..net.order.len() {
            plan.need(Slot::Activation(place), rows * net.hidden(place).output);
        }
        let all = net.parameters();
        plan.need(Slot::Parameters, all);
        let gradient = plan.need(Slot::ParameterGradient, all);
        plan.ops.push(Op::Zero { x: gradient, len: all });
        let sums = plan.need(Slot::PartialSums, rows.div_ceil(ROWS_OF_SUMS) * net.widest());
        let groups = rows.div_ceil(ROWS_OF_SUMS);
        let energies = plan.need(Slot::Energies, rows);
        let add = |plan: &mut Plan, x: At, weights: Option<At>, out: At, width: usize| {
            plan.ops.push(Op::PartialSums { x, weights, out: sums, rows, width });
            plan.ops.push(Op::AddSums { sums, out: of_gradient(out), groups, width });
        };
        let (last, top) = (net.last(), Slot::Activation(net.top()).into());
        add(&mut plan, top, Some(energies), weight(last), last.input);
        add(&mut plan, energies, None, bias(last), 1);
        let mut delta = plan.seed(net, rows, Seed::OfRow(energies));
        let drop_back = |plan: &mut Plan, x: At, place: usize| {
            if let Some(Drop { scale, .. }) = drop {
                let activations = Slot::Activation(place).into();
                let width = net.hidden(place).output;
                plan.ops.push(Op::DropBack { x, activations, rows, width, scale });
            }
        };
        drop_back(&mut plan, delta, net.top());
        for place in (0..=net.top()).rev() {
            let layer = net.hidden(place);
            let input = match place {
                0 => plan.need(Slot::Rows, rows * layer.input),
                _ => Slot::Activation(place - 1).into(),
            };
            let out = of_gradient(weight(layer));
            let product =
                plan.product(delta, input, out, [layer.output, layer.input, rows], precision);
            (product.a_transposed, product.beta) = (true, 1.0);
            add(&mut plan, delta, None, bias(layer), layer.output);
            if place > 0 {
                delta = plan.back(net, rows, place, delta, precision);
                drop_back(&mut plan, delta, place - 1);
            }
        }
        plan
    }
}

/// What a prior's plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// D.
    pub dim: usize,
    /// Components or classes.
    pub components: usize,
    /// Which.
    pub kind: Kind,
}

/// Which prior.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None.
    Flat,
    /// Gaussians.
    Mixture,
    /// The energy of logits.
    Logits,
}

impl Shape {
    /// That of a prior of `dim`.
    pub fn of(form: &Form, dim: usize) -> Self {
        let (kind, components) = match form {
            Form::Flat => (Kind::Flat, 0),
            Form::Mixture(mixture) => (Kind::Mixture, mixture.offset.len()),
            Form::Logits { bias, .. } => (Kind::Logits, bias.len()),
        };
        Shape { dim, components, kind }
    }
}

/// What a chain's plan depends on besides the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chain<'a> {
    /// Length and step sizes.
    pub langevin: &'a Langevin,
    /// The prior.
    pub prior: &'a Shape,
    /// Π.
    pub projection: Projection,
    /// 1/T.
    pub scale: f32,
    /// 1/T_prior.
    pub prior_scale: f32,
    /// Whether the prior's energy is that given each row's class.
    pub labelled: bool,
    /// Of the network's products.
    pub precision: Precision,
}
