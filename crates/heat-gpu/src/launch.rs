//! Which kernel carries out an operation: its grid and its arguments, the same for a card and for the
//! build of the kernels that the tests run on the processor.

use crate::plan::{At, Op, ROWS_OF_SUMS, Seed};

/// Rows that share a stream of random numbers.
const BLOCK_ROWS: usize = heat_ood::math::BLOCK_ROWS;

/// Threads of a block.
const THREADS: usize = 256;

/// Threads that work on one row.
const WARP: usize = 32;

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A pointer into a slot.
    At(At),
    /// No pointer.
    Null,
    /// A 32-bit whole number.
    U32(u32),
    /// A 64-bit whole number.
    U64(u64),
    /// A single-precision number.
    F32(f32),
}

/// A call of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Its name in the source.
    pub kernel: &'static str,
    /// Blocks in x and y.
    pub grid: [usize; 2],
    /// Threads of a block, in x.
    pub threads: usize,
    /// In the order of the source.
    pub args: Vec<Arg>,
}

impl From<At> for Arg {
    fn from(at: At) -> Self {
        Arg::At(at)
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Arg::F32(value)
    }
}

impl From<usize> for Arg {
    fn from(value: usize) -> Self {
        // Widths and rows: what does not fit has no memory for it either.
        Arg::U32(u32::try_from(value).unwrap_or(u32::MAX))
    }
}

impl From<Option<At>> for Arg {
    fn from(at: Option<At>) -> Self {
        at.map_or(Arg::Null, Arg::At)
    }
}

/// One thread for each of `n`, and so many blocks in y.
fn threads(kernel: &'static str, n: usize, y: usize, args: Vec<Arg>) -> Launch {
    Launch { kernel, grid: [n.div_ceil(THREADS).max(1), y], threads: THREADS, args }
}

/// One thread an element.
fn elements(kernel: &'static str, n: usize, args: Vec<Arg>) -> Launch {
    threads(kernel, n, 1, args)
}

/// One warp a row.
fn warps(kernel: &'static str, rows: usize, args: Vec<Arg>) -> Launch {
    threads(kernel, rows * WARP, 1, args)
}

impl Launch {
    /// That of an operation; `None` for a product.
    pub fn of(op: &Op) -> Option<Launch> {
        let key = Arg::At(crate::plan::Slot::Key.into());
        Some(match *op {
            Op::Product(_) => return None,
            Op::BiasLeaky { x, bias, rows, width } => elements(
                "bias_leaky",
                rows * width,
                vec![x.into(), bias.into(), rows.into(), width.into()],
            ),
            Op::Drop { x, rows, width, layer, drop } => {
                let (probability, scale) = (drop.probability.into(), drop.scale.into());
                let args = vec![
                    x.into(),
                    key,
                    rows.into(),
                    width.into(),
                    layer.into(),
                    probability,
                    scale,
                ];
                threads("drop", BLOCK_ROWS * width.div_ceil(16), rows.div_ceil(BLOCK_ROWS), args)
            }
            Op::Seed { top, weight, seed, out, rows, width } => {
                let (seeds, seed) = match seed {
                    Seed::Same(seed) => (Arg::Null, seed),
                    Seed::OfRow(at) => (at.into(), 0.0),
                };
                let args = vec![
                    top.into(),
                    weight.into(),
                    seeds,
                    seed.into(),
                    out.into(),
                    rows.into(),
                    width.into(),
                ];
                elements("seed_delta", rows * width, args)
            }
            Op::Mask { x, activations, rows, width } => {
                let args = vec![x.into(), activations.into(), rows.into(), width.into()];
                elements("mask", rows * width, args)
            }
            Op::DropBack { x, activations, rows, width, scale } => {
                let args =
                    vec![x.into(), activations.into(), rows.into(), width.into(), scale.into()];
                elements("drop_back", rows * width, args)
            }
            Op::Energy { top, weight, bias, out, rows, width } => {
                let args = vec![
                    top.into(),
                    weight.into(),
                    bias.into(),
                    out.into(),
                    rows.into(),
                    width.into(),
                ];
                warps("energy", rows, args)
            }
            Op::Centre { rows_of, centre, out, rows, width } => {
                let args =
                    vec![rows_of.into(), centre.into(), out.into(), rows.into(), width.into()];
                elements("centre", rows * width, args)
            }
            Op::CentreOnMeans { rows_of, means, labels, out, rows, width, scale } => {
                let args = vec![
                    rows_of.into(),
                    means.into(),
                    labels.into(),
                    out.into(),
                    rows.into(),
                    width.into(),
                    scale.into(),
                ];
                elements("centre_on_means", rows * width, args)
            }
            Op::NegatedSoftmax { x, offset, rows, width } => warps(
                "negated_softmax",
                rows,
                vec![x.into(), offset.into(), rows.into(), width.into()],
            ),
            Op::Scale { x, len, factor } => {
                elements("scale", len, vec![x.into(), Arg::U64(len as u64), factor.into()])
            }
            Op::Zero { x, len } => elements("zero", len, vec![x.into(), Arg::U64(len as u64)]),
            Op::Noise { out, rows, width, t } => {
                let args = vec![out.into(), key, rows.into(), width.into(), t.into()];
                let chunks = (BLOCK_ROWS * width).div_ceil(512);
                threads("noise", 16 * chunks, rows.div_ceil(BLOCK_ROWS), args)
            }
            Op::WhiteStep { x, noise, rows, width, step, eps } => {
                let args = vec![
                    x.into(),
                    noise.into(),
                    rows.into(),
                    width.into(),
                    step.into(),
                    eps.into(),
                ];
                elements("white_step", rows * width, args)
            }
            Op::Step { z, gradient, noise, rows, width, step, eps, projection } => {
                let normalize = match (projection.normalize, projection.halves) {
                    (false, _) => 0,
                    (true, false) => 1,
                    (true, true) => 2,
                };
                let args = vec![
                    z.into(),
                    gradient.into(),
                    noise.into(),
                    rows.into(),
                    width.into(),
                    step.into(),
                    eps.into(),
                    Arg::U32(projection.relu.into()),
                    Arg::U32(normalize),
                ];
                warps("step_and_project", rows, args)
            }
            Op::PartialSums { x, weights, out, rows, width } => {
                let args = vec![
                    x.into(),
                    weights.into(),
                    out.into(),
                    rows.into(),
                    width.into(),
                    ROWS_OF_SUMS.into(),
                ];
                threads("partial_sums", width, rows.div_ceil(ROWS_OF_SUMS), args)
            }
            Op::AddSums { sums, out, groups, width } => elements(
                "add_sums",
                width,
                vec![sums.into(), out.into(), groups.into(), width.into()],
            ),
        })
    }
}
