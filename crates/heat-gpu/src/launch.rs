//! Which kernel carries out an operation: its grid and its arguments, the same for a card and for the
//! build of the kernels that the tests run on the processor.

use heat_ood::math::BLOCK_ROWS;

use crate::plan::{At, Op, ROWS_OF_SUMS, Seed, Slot};

/// Threads of a block, for all kernels.
pub const THREADS: usize = 256;

/// Threads that work on a row together.
const WARP: usize = 32;

/// Blocks in y that a card takes.
const MOST_IN_Y: usize = 65_535;

/// An argument of a kernel, of the type that the kernel declares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// A pointer to so many elements of a slot.
    At(At, usize),
    /// No pointer.
    Null,
    /// `u32`.
    U32(u32),
    /// `u64`.
    U64(u64),
    /// `float`.
    F32(f32),
}

/// A call of a kernel with blocks of [`THREADS`].
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Its name in the source.
    pub kernel: &'static str,
    /// Blocks in x and y.
    pub grid: (u32, u32),
    /// In the order of the source.
    pub args: Vec<Arg>,
}

impl Launch {
    /// That of an operation; `None` for a product, and where there is nothing to do.
    ///
    /// # Errors
    /// If there are more rows than a card takes at once.
    pub fn of(op: &Op) -> std::result::Result<Option<Launch>, String> {
        let at = Arg::At;
        let key = Slot::Key.into();
        let size = |rows: usize, width: usize| rows.saturating_mul(width);
        let (name, x, y, args) = match *op {
            Op::Product(_) => return Ok(None),
            Op::BiasLeaky { x, bias, rows, width } => {
                let n = size(rows, width);
                ("bias_leaky", n, 1, vec![at(x, n), at(bias, width), word(rows)?, word(width)?])
            }
            Op::Drop { x, rows, width, layer, drop } => {
                let threads = size(BLOCK_ROWS, width.div_ceil(16));
                let mut args = vec![
                    at(x, size(rows, width)),
                    at(key, 8),
                    word(rows)?,
                    word(width)?,
                    word(layer)?,
                ];
                args.extend([Arg::F32(drop.probability), Arg::F32(drop.scale)]);
                ("drop", threads, rows.div_ceil(BLOCK_ROWS), args)
            }
            Op::Seed { top, weight, seed, out, rows, width } => {
                let n = size(rows, width);
                let (seeds, seed) = match seed {
                    Seed::Same(seed) => (Arg::Null, seed),
                    Seed::OfRow(seeds) => (at(seeds, rows), 0.0),
                };
                let mut args = vec![at(top, n), at(weight, width), seeds, Arg::F32(seed)];
                args.extend([at(out, n), word(rows)?, word(width)?]);
                ("seed_delta", n, 1, args)
            }
            Op::Mask { x, activations, rows, width } => {
                let n = size(rows, width);
                ("mask", n, 1, vec![at(x, n), at(activations, n), word(rows)?, word(width)?])
            }
            Op::DropBack { x, activations, rows, width, scale } => {
                let n = size(rows, width);
                let args =
                    vec![at(x, n), at(activations, n), word(rows)?, word(width)?, Arg::F32(scale)];
                ("drop_back", n, 1, args)
            }
            Op::Energy { top, weight, bias, out, rows, width } => {
                let mut args = vec![at(top, size(rows, width)), at(weight, width), at(bias, 1)];
                args.extend([at(out, rows), word(rows)?, word(width)?]);
                ("energy", size(rows, WARP), 1, args)
            }
            Op::Centre { rows_of, centre, out, rows, width } => {
                let n = size(rows, width);
                let args =
                    vec![at(rows_of, n), at(centre, width), at(out, n), word(rows)?, word(width)?];
                ("centre", n, 1, args)
            }
            Op::CentreOnMeans { rows_of, means, labels, out, rows, width, classes, scale } => {
                let n = size(rows, width);
                let mut args = vec![
                    at(rows_of, n),
                    at(means, size(classes, width)),
                    at(labels, rows),
                    at(out, n),
                ];
                args.extend([word(rows)?, word(width)?, Arg::F32(scale)]);
                ("centre_on_means", n, 1, args)
            }
            Op::NegatedSoftmax { x, offset, rows, width } => {
                let args =
                    vec![at(x, size(rows, width)), at(offset, width), word(rows)?, word(width)?];
                ("negated_softmax", size(rows, WARP), 1, args)
            }
            Op::Scale { x, len, factor } => {
                ("scale", len, 1, vec![at(x, len), Arg::U64(len as u64), Arg::F32(factor)])
            }
            Op::Zero { x, len } => ("zero", len, 1, vec![at(x, len), Arg::U64(len as u64)]),
            Op::Noise { out, rows, width, t } => {
                let threads = size(BLOCK_ROWS, width).div_ceil(512).saturating_mul(16);
                let args = vec![
                    at(out, size(rows, width)),
                    at(key, 8),
                    word(rows)?,
                    word(width)?,
                    word(t)?,
                ];
                ("noise", threads, rows.div_ceil(BLOCK_ROWS), args)
            }
            Op::WhiteStep { x, noise, rows, width, step, eps } => {
                let n = size(rows, width);
                let mut args = vec![at(x, n), at(noise, n), word(rows)?, word(width)?];
                args.extend([Arg::F32(step), Arg::F32(eps)]);
                ("white_step", n, 1, args)
            }
            Op::Step { z, gradient, noise, rows, width, step, eps, projection } => {
                let n = size(rows, width);
                let noise = noise.map_or(Arg::Null, |noise| at(noise, n));
                let mut args = vec![at(z, n), at(gradient, n), noise, word(rows)?, word(width)?];
                let parts = u32::from(projection.normalize) * (1 + u32::from(projection.halves));
                args.extend([Arg::F32(step), Arg::F32(eps)]);
                args.extend([Arg::U32(projection.relu.into()), Arg::U32(parts)]);
                ("step_and_project", size(rows, WARP), 1, args)
            }
            Op::PartialSums { x, weights, out, rows, width } => {
                let groups = rows.div_ceil(ROWS_OF_SUMS);
                let weights = weights.map_or(Arg::Null, |weights| at(weights, rows));
                let mut args =
                    vec![at(x, size(rows, width)), weights, at(out, size(groups, width))];
                args.extend([word(rows)?, word(width)?, word(ROWS_OF_SUMS)?]);
                ("partial_sums", width, groups, args)
            }
            Op::AddSums { sums, out, groups, width } => {
                let args = vec![
                    at(sums, size(groups, width)),
                    at(out, width),
                    word(groups)?,
                    word(width)?,
                ];
                ("add_sums", width, 1, args)
            }
        };
        if x == 0 || y == 0 {
            return Ok(None);
        }
        let blocks = i32::try_from(x.div_ceil(THREADS)).ok().and_then(|x| u32::try_from(x).ok());
        let grid = match (blocks, u32::try_from(y)) {
            (Some(x), Ok(y_blocks)) if y <= MOST_IN_Y => (x, y_blocks),
            _ => {
                let blocks =
                    format!("`{name}` takes {} × {y} blocks of threads", x.div_ceil(THREADS));
                return Err(format!(
                    "too many rows at once: {blocks}, and a card at most {} × {MOST_IN_Y}; make `batch_size` smaller",
                    i32::MAX
                ));
            }
        };
        Ok(Some(Launch { kernel: name, grid, args }))
    }
}

fn word(n: usize) -> std::result::Result<Arg, String> {
    let word = u32::try_from(n)
        .map_err(|_| format!("{n} rows or columns are too many; make `batch_size` smaller"));
    word.map(Arg::U32)
}
