//! κ of a row among reference rows (`cfood`): the smallest fraction f such that
//! a fraction of at least `k` of the reference rows has its ⌊f·n⌋-th neighbour (but
//! the first at least) no nearer than z; 1 where there is none. Features are normalised,
//! distances are between reference rows and exact.
//!
//! The n reference rows are a fraction `alpha` of the training set, drawn with
//! `seed`. f runs over a fixed grid of 230 fractions (0.1 % apart up to 10 %,
//! 0.5 % to 50 %, 1 % to 99 %), so that scores have ties. Radii are kept for
//! each fraction and row, 920·n bytes; a fraction is found by bisection, since
//! radii grow with it. Fit O(n²·D); cost per row O(n·D).
//!
//! Reference: OpenOOD v1.5, postprocessor `cfood`.

use serde::Deserialize;
use serde_json::json;

use super::bank::{Bank, CENTRE_ROWS, Order, QUERIES, centre, gather, subtract};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::math::matmul::Aligned;
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::rng::{Purpose, Stream};
use crate::math::{parallel, reduce};
use crate::observe::{Event, Observer};
use crate::scorers::context::FitContext;
use crate::scorers::input::{Input, contradiction, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `cfood`.
    CfoodConfig, normalize = true;
    /// Fraction of the training rows that are reference rows.
    alpha: f64 = 0.1,
    /// Fraction of the reference rows to which a row must be near.
    k: f64 = 0.01,
    /// Seed of the choice of reference rows.
    seed: u64 = 0,
}

offer! { CfoodConfig => Cfood }

/// A fitted `cfood` scorer.
pub struct Cfood {
    config: CfoodConfig,
    input: Input,
    centre: Vec<f32>,
    /// Reference rows, centred.
    bank: Bank,
    /// Fractions f.
    fractions: Vec<f64>,
    /// Squared radius of each reference row for each fraction, `[fractions, n]`.
    radii: Vec<f32>,
}

/// Fractions that n rows can tell apart, and the neighbour that each stands for.
fn grid(n: usize) -> Vec<(f64, usize)> {
    let spans = [(0.001, 0.1, 100), (0.105, 0.5, 81), (0.51, 0.99, 49)];
    let all = spans.into_iter().flat_map(|(from, to, count)| {
        let step = (to - from) / f64::from(count - 1);
        (0..count).map(move |i| if i == count - 1 { to } else { f64::from(i) * step + from })
    });
    let mut grid: Vec<(f64, usize)> = Vec::new();
    for f in all {
        // The row itself is its nearest neighbour, at position 0.
        let position = (f * n as f64 - 1.0).max(0.0) as usize + 1;
        if grid.last().is_none_or(|(_, last)| *last < position) {
            grid.push((f, position));
        }
    }
    grid
}

/// Squared distances of centred queries to all rows of the bank, `[q, n]`.
fn distances(bank: &Bank, queries: &[f32], dim: usize) -> Vec<f32> {
    /// A cache line of queries at a time.
    const COLUMNS: usize = 16;
    let (n, m) = (bank.len(), queries.len() / dim);
    let mut out = vec![0.0; m * n];
    let norms: Vec<f32> = queries.chunks_exact(dim).map(|q| reduce::norm2(q) as f32).collect();
    let packed = bank.pack(queries);
    let (mut orders, mut scratch) = (Aligned::default(), Aligned::default());
    for piece in bank.pieces() {
        bank.orders(piece.clone(), &packed, &mut orders, &mut scratch);
        let columns = out.chunks_mut(COLUMNS * n).zip(norms.chunks(COLUMNS));
        for (c, (out, norms)) in columns.enumerate() {
            for (i, orders) in piece.clone().zip(orders.chunks_exact(m)) {
                let orders = &orders[c * COLUMNS..][..norms.len()];
                for (j, (v, norm)) in orders.iter().zip(norms).enumerate() {
                    out[j * n + i] = v + norm;
                }
            }
        }
    }
    out
}

/// Queries whose distances are held at a time.
fn together(n: usize) -> usize {
    ((1 << 22) / n).clamp(1, QUERIES)
}

impl Method for CfoodConfig {
    const NAME: &'static str = "cfood";
    type Scorer = Cfood;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Cfood> {
        let train = context.train;
        let share = |v: f64| v > 0.0 && v <= 1.0;
        for (key, value) in [("alpha", self.alpha), ("k", self.k)] {
            if !share(value) {
                return Err(Error::config(key, value, "a fraction is above 0 and at most 1"));
            }
        }
        context.require_rows("cfood")?;
        let n = (self.alpha * train.len() as f64) as usize;
        if n < 2 {
            let problem = format!(
                "of {} training rows {n} would be reference rows, and two are the fewest",
                train.len()
            );
            return Err(Error::config("alpha", self.alpha, problem));
        }
        let input = context.source(self)?.input;
        let mut stream = Stream::new(self.seed, Purpose::Reference, 0, 0);
        let mut chosen = stream.permutation(train.len() as u32);
        chosen.truncate(n);
        chosen.sort_unstable();
        let read = |range: std::ops::Range<usize>| -> Result<Vec<f32>> {
            let mut rows = vec![0.0; range.len() * input.input_dim];
            train.gather(input.field(), &chosen[range], &mut rows)?;
            Ok(input.steps.apply(&rows, input.input_dim))
        };
        let centre = centre(&read(0..n.min(CENTRE_ROWS))?, input.dim);
        let rows = gather(n, input.dim, |range| {
            let mut rows = read(range)?;
            subtract(&mut rows, &centre);
            Ok(rows)
        })?;
        let bank = Bank::new(rows, input.dim, Order::Distance);
        let (fractions, positions): (Vec<f64>, Vec<usize>) = grid(n).into_iter().unzip();
        let radii = radii(&bank, input.dim, &positions, context.observer);
        Ok(Cfood { config: self.clone(), input, centre, bank, fractions, radii })
    }

    fn load(stored: &Stored<'_>) -> Result<Cfood> {
        #[derive(Deserialize)]
        struct Config {
            rows: usize,
        }
        let (config, input): (CfoodConfig, _) = Input::load(stored)?;
        let Config { rows } = stored.config()?;
        let fractions: Vec<f64> = grid(rows).into_iter().map(|(f, _)| f).collect();
        if rows < 2 || !(config.k > 0.0 && config.k <= 1.0) {
            return Err(contradiction(stored));
        }
        let get = |name: &str, shape: &[usize]| stored.file.f32(&stored.name(name), shape);
        let reference = stored.file.floats(&stored.name("reference"), &[rows, input.dim])?;
        Ok(Cfood {
            centre: get("centre", &[input.dim])?,
            bank: Bank::new(reference, input.dim, Order::Distance),
            radii: get("radii", &[fractions.len(), rows])?,
            fractions,
            config,
            input,
        })
    }
}

/// Squared distance of each row of the bank to its neighbours at these
/// positions, `[positions, n]`.
fn radii(bank: &Bank, dim: usize, positions: &[usize], observer: &mut dyn Observer) -> Vec<f32> {
    let n = bank.len();
    let rows = &bank.rows()[..];
    let mut by_row = vec![0.0; n * positions.len()];
    observer.on(Event::Begin { task: "radii of reference rows", total: n as u64 });
    let block = together(n);
    // Some blocks for every thread, then progress.
    let step = block * 4 * parallel::threads().max(4);
    let pieces = rows.chunks(step * dim).zip(by_row.chunks_mut(step * positions.len()));
    for (i, (rows, out)) in pieces.enumerate() {
        let blocks = rows.par_chunks(block * dim).zip(out.par_chunks_mut(block * positions.len()));
        blocks.for_each(|(rows, out)| {
            let mut distances = distances(bank, rows, dim);
            let each = distances.chunks_exact_mut(n).zip(out.chunks_exact_mut(positions.len()));
            for (distances, out) in each {
                distances.sort_unstable_by(f32::total_cmp);
                out.iter_mut().zip(positions).for_each(|(o, &at)| *o = distances[at]);
            }
        });
        let done = ((i + 1) * step).min(n) as u64;
        observer.on(Event::Advance { done, loss: None });
    }
    observer.on(Event::End);
    let mut radii = vec![0.0; by_row.len()];
    for (i, row) in by_row.chunks_exact(positions.len()).enumerate() {
        row.iter().enumerate().for_each(|(j, r)| radii[j * n + i] = *r);
    }
    radii
}

impl Cfood {
    /// How many reference rows must hold a row: the smallest count that is a
    /// fraction of `k`.
    fn enough(&self) -> usize {
        // 0.07 · 100 is 7.000000000000001 in f64, and 7 is meant.
        ((self.config.k * self.bank.len() as f64 - 1e-9).ceil() as usize).max(1)
    }

    /// κ of a row from its squared distances.
    fn kappa(&self, distances: &[f32], enough: usize, arch: pulp::Arch) -> f64 {
        let n = distances.len();
        let (mut low, mut high) = (0, self.fractions.len());
        while low < high {
            let at = (low + high) / 2;
            let radii = &self.radii[at * n..][..n];
            let near = arch.dispatch(
                #[inline(always)]
                || radii.iter().zip(distances).map(|(r, d)| u32::from(r >= d)).sum::<u32>(),
            );
            if near as usize >= enough {
                high = at;
            } else {
                low = at + 1;
            }
        }
        self.fractions.get(low).copied().unwrap_or(1.0)
    }
}

impl Scorer for Cfood {
    fn name(&self) -> &'static str {
        "cfood"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let (dim, n) = (self.input.dim, self.bank.len());
        let (enough, arch) = (self.enough(), crate::math::arch());
        let mut rows = self.input.stepped(batch).into_owned();
        subtract(&mut rows, &self.centre);
        let blocks = rows.chunks(together(n) * dim).zip(out.chunks_mut(together(n)));
        for (rows, out) in blocks {
            let distances = distances(&self.bank, rows, dim);
            for (o, distances) in out.iter_mut().zip(distances.chunks_exact(n)) {
                *o = self.kappa(distances, enough, arch) as f32;
            }
        }
    }

    fn section(&self) -> Section {
        let n = self.bank.len();
        let config = json!({
            "settings": self.config,
            "input_dim": self.input.input_dim,
            "rows": n,
        });
        let tensors = vec![
            ("reference".into(), Tensor::f32([n, self.input.dim], self.bank.rows().clone())),
            ("centre".into(), Tensor::f32([self.input.dim], self.centre.clone())),
            ("radii".into(), Tensor::f32([self.fractions.len(), n], self.radii.clone())),
        ];
        Section::new("cfood", config).with("", tensors).with("", self.input.tensors())
    }
}

#[cfg(test)]
mod tests {
    use super::grid;

    /// numpy 2.4: `kpos = np.array(kval * n - 1, dtype=int)` of the published
    /// grid, kept where it grows, plus one.
    #[test]
    fn grid_equals_numpy() {
        let (fractions, positions): (Vec<f64>, Vec<usize>) = grid(40).into_iter().unzip();
        assert_eq!(positions[..6], [1, 2, 3, 4, 5, 6]);
        assert_eq!(fractions[..3], [0.001, 0.05, 0.075]);
        assert_eq!((positions.len(), *positions.last().unwrap()), (39, 39));
        assert_eq!(grid(100_000).len(), 230);
    }
}
