//! A plan carried out on the processor, one operation after the other, as the kernels do it: the model
//! that a card's results are compared with, and how plans and the engine are tested without a card.
//!
//! Plain loops, for small shapes.

use std::collections::BTreeMap;

use heat_ood::Result;
use heat_ood::ebm::mlp::SLOPE;
use heat_ood::math::BLOCK_ROWS;
use heat_ood::math::rng::{Purpose, Stream};

use crate::device::Device;
use crate::plan::{At, Drop, Elements, Op, Plan, Precision, Product, ROWS_OF_SUMS, Seed, Slot};

/// Responsibilities that vanish beside the rounding of the largest.
const NEGLIGIBLE: f32 = 1e-15;

/// A device that is none.
#[derive(Debug, Default)]
pub struct Mirror {
    numbers: BTreeMap<Slot, Vec<f32>>,
    words: BTreeMap<Slot, Vec<u32>>,
    sums: Vec<f64>,
}

/// Round to the eleven bits that the fast units of a card read; halves away from zero.
pub fn tf32(x: f32) -> f32 {
    if !x.is_finite() {
        return x;
    }
    f32::from_bits((x.to_bits().wrapping_add(0x1000)) & !0x1fff)
}

impl Mirror {
    fn read(&self, at: At, len: usize) -> Vec<f32> {
        self.numbers[&at.slot][at.offset..at.offset + len].to_vec()
    }

    fn edit(&mut self, at: At, len: usize) -> &mut [f32] {
        let all = self.numbers.entry(at.slot).or_default();
        &mut all[at.offset..at.offset + len]
    }

    /// Seed, step and first block of [`Slot::Key`].
    fn key(&self) -> [u64; 3] {
        let words = &self.words[&Slot::Key];
        let whole = |i: usize| u64::from(words[2 * i]) | u64::from(words[2 * i + 1]) << 32;
        [whole(0), whole(2), whole(3)]
    }

    fn product(&mut self, p: &Product) {
        let round = |x: f32| if p.precision == Precision::Tf32 { tf32(x) } else { x };
        let a: Vec<f32> = self.read(p.a, p.m * p.k).into_iter().map(round).collect();
        let b: Vec<f32> = self.read(p.b, p.k * p.n).into_iter().map(round).collect();
        let a_at = |i: usize, l: usize| if p.a_transposed { l * p.m + i } else { i * p.k + l };
        let b_at = |l: usize, j: usize| if p.b_transposed { j * p.k + l } else { l * p.n + j };
        let out = self.edit(p.out, p.m * p.n);
        for i in 0..p.m {
            for j in 0..p.n {
                // Exact, so that it can serve any order of the sum.
                let term = |l: usize| f64::from(a[a_at(i, l)]) * f64::from(b[b_at(l, j)]);
                let sum: f64 = (0..p.k).map(term).sum();
                let o = &mut out[i * p.n + j];
                let before = if p.beta == 0.0 { 0.0 } else { p.beta * *o };
                *o = (f64::from(p.alpha) * sum + f64::from(before)) as f32;
            }
        }
    }

    fn noise(&mut self, out: At, rows: usize, width: usize, t: usize) {
        let [seed, step, block] = self.key();
        let blocks = self.edit(out, rows * width).chunks_mut(BLOCK_ROWS * width);
        for (i, out) in blocks.enumerate() {
            let name = (block + i as u64) << 32 | t as u64;
            Stream::new(seed, Purpose::Langevin, step, name).fill_normal(out);
        }
    }

    fn drop(&mut self, x: At, rows: usize, width: usize, layer: usize, drop: Drop) {
        let [seed, step, block] = self.key();
        let blocks = self.edit(x, rows * width).chunks_mut(BLOCK_ROWS * width);
        for (i, rows) in blocks.enumerate() {
            let name = (layer as u64) << 32 | (block + i as u64);
            let mut stream = Stream::new(seed, Purpose::Dropout, step, name);
            let mut uniform = [0.0; 256];
            for values in rows.chunks_mut(width).flat_map(|row| row.chunks_mut(256)) {
                stream.fill_uniform(&mut uniform[..values.len()], 0.0, 1.0);
                for (v, u) in values.iter_mut().zip(uniform) {
                    *v = if u < drop.probability { 0.0 } else { drop.scale * *v };
                }
            }
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Product(ref product) => self.product(product),
            Op::BiasLeaky { x, bias, rows, width } => {
                let bias = self.read(bias, width);
                for row in self.edit(x, rows * width).chunks_mut(width) {
                    for (v, b) in row.iter_mut().zip(&bias) {
                        let sum = *v + b;
                        *v = if sum > 0.0 { sum } else { SLOPE * sum };
                    }
                }
            }
            Op::Drop { x, rows, width, layer, drop } => self.drop(x, rows, width, layer, drop),
            Op::Seed { top, weight, seed, out, rows, width } => {
                let (top, weight) = (self.read(top, rows * width), self.read(weight, width));
                let seeds = match seed {
                    Seed::Same(seed) => vec![seed; rows],
                    Seed::OfRow(at) => self.read(at, rows),
                };
                for (i, o) in self.edit(out, rows * width).iter_mut().enumerate() {
                    *o = seeds[i / width] * weight[i % width] * slope(top[i]);
                }
            }
            Op::Mask { x, activations, rows, width } => {
                let a = self.read(activations, rows * width);
                let x = self.edit(x, rows * width);
                x.iter_mut().zip(a).for_each(|(x, a)| *x *= slope(a));
            }
            Op::DropBack { x, activations, rows, width, scale } => {
                let a = self.read(activations, rows * width);
                let x = self.edit(x, rows * width).iter_mut().zip(a);
                x.for_each(|(x, a)| *x = if a == 0.0 { 0.0 } else { scale * *x });
            }
            Op::Energy { top, weight, bias, out, rows, width } => {
                let (top, weight) = (self.read(top, rows * width), self.read(weight, width));
                let bias = f64::from(self.read(bias, 1)[0]);
                let energies = top.chunks(width).map(|row| {
                    let terms = row.iter().zip(&weight).map(|(a, w)| f64::from(*a) * f64::from(*w));
                    (terms.sum::<f64>() + bias) as f32
                });
                let energies: Vec<f32> = energies.collect();
                self.edit(out, rows).copy_from_slice(&energies);
            }
            Op::Centre { rows_of, centre, out, rows, width } => {
                let (z, m) = (self.read(rows_of, rows * width), self.read(centre, width));
                for (i, o) in self.edit(out, rows * width).iter_mut().enumerate() {
                    *o = z[i] - m[i % width];
                }
            }
            Op::CentreOnMeans { rows_of, means, labels, out, rows, width, classes, scale } => {
                let z = self.read(rows_of, rows * width);
                let labels = self.words[&labels.slot][..rows].to_vec();
                let means = self.read(means, classes * width);
                for (i, o) in self.edit(out, rows * width).iter_mut().enumerate() {
                    *o = scale * (z[i] - means[labels[i / width] as usize * width + i % width]);
                }
            }
            Op::NegatedSoftmax { x, offset, rows, width } => {
                let offset = self.read(offset, width);
                for row in self.edit(x, rows * width).chunks_mut(width) {
                    row.iter_mut().zip(&offset).for_each(|(v, o)| *v += o);
                    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    row.iter_mut().for_each(|v| *v = (*v - most).exp());
                    let sum: f32 = row.iter().sum();
                    let negated = |v: f32| if v / sum < NEGLIGIBLE { 0.0 } else { -(v / sum) };
                    row.iter_mut().for_each(|v| *v = negated(*v));
                }
            }
            Op::Scale { x, len, factor } => self.edit(x, len).iter_mut().for_each(|v| *v *= factor),
            Op::Zero { x, len } => self.edit(x, len).fill(0.0),
            Op::Noise { out, rows, width, t } => self.noise(out, rows, width, t),
            Op::WhiteStep { x, noise, rows, width, step, eps } => {
                let noise = self.read(noise, rows * width);
                let x = self.edit(x, rows * width).iter_mut().zip(noise);
                x.for_each(|(x, e)| *x = step * *x + eps * e);
            }
            Op::Step { z, gradient, noise, rows, width, step, eps, projection } => {
                let gradient = self.read(gradient, rows * width);
                let noise = noise.map_or(vec![0.0; rows * width], |at| self.read(at, rows * width));
                let z = self.edit(z, rows * width);
                for ((z, g), e) in z.iter_mut().zip(gradient).zip(noise) {
                    *z -= step * g + eps * e;
                }
                projection.apply(z, width);
            }
            Op::PartialSums { x, weights, out: _, rows, width } => {
                let x = self.read(x, rows * width);
                let weights = weights.map_or(vec![1.0; rows], |at| self.read(at, rows));
                let groups = x.chunks(ROWS_OF_SUMS * width).zip(weights.chunks(ROWS_OF_SUMS));
                for ((x, weights), out) in groups.zip(self.sums.chunks_mut(width)) {
                    out.fill(0.0);
                    for (row, weight) in x.chunks(width).zip(weights) {
                        let terms = out.iter_mut().zip(row);
                        terms.for_each(|(o, v)| *o += f64::from(*weight) * f64::from(*v));
                    }
                }
            }
            Op::AddSums { sums: _, out, groups, width } => {
                let mut totals = vec![0.0; width];
                for group in self.sums.chunks(width).take(groups) {
                    totals.iter_mut().zip(group).for_each(|(t, s)| *t += s);
                }
                let out = self.edit(out, width).iter_mut().zip(totals);
                out.for_each(|(o, t)| *o += t as f32);
            }
        }
    }
}

/// Have so many elements; whether what was there is lost.
fn grown<T: Clone>(memory: &mut Vec<T>, len: usize, fill: T) -> bool {
    let (small, used) = (memory.len() < len, !memory.is_empty());
    if small {
        *memory = vec![fill; len];
    }
    small && used
}

fn slope(activation: f32) -> f32 {
    if activation > 0.0 { 1.0 } else { SLOPE }
}

impl Device for Mirror {
    type Program = Plan;

    fn name(&self) -> String {
        "mirror".into()
    }

    /// What is new or moved holds what nobody wrote: not a number.
    fn reserve(&mut self, slots: &[(Slot, usize)]) -> Result<bool> {
        let mut moved = false;
        for &(slot, len) in slots {
            moved |= match slot.elements() {
                Elements::Doubles => grown(&mut self.sums, len, f64::NAN),
                Elements::Words => grown(self.words.entry(slot).or_default(), len, u32::MAX),
                Elements::Numbers => grown(self.numbers.entry(slot).or_default(), len, f32::NAN),
            };
        }
        Ok(moved)
    }

    fn put(&mut self, slot: Slot, values: &[f32]) -> Result<()> {
        self.edit(slot.into(), values.len()).copy_from_slice(values);
        Ok(())
    }

    fn put_words(&mut self, slot: Slot, values: &[u32]) -> Result<()> {
        self.words.entry(slot).or_default()[..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn take(&mut self, slot: Slot, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.read(slot.into(), out.len()));
        Ok(())
    }

    fn prepare(&mut self, plan: &Plan) -> Result<Plan> {
        Ok(plan.clone())
    }

    fn run(&mut self, program: &Plan) -> Result<()> {
        program.ops.iter().for_each(|op| self.apply(op));
        Ok(())
    }
}
