//! Where chains start (METHOD §4, step 1).

use serde::{Deserialize, Serialize};

use super::negatives::{Negatives, NegativesWorkspace};
use crate::error::{Error, Result};
use crate::math::parallel::{Pieces, SlicesMut};
use crate::math::rng::{Purpose, Stream};
use crate::math::{BLOCK_ROWS, parallel};
use crate::scorers::{Prior, Scratch};

/// A distribution of starting points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proposal {
    /// Samples of the prior.
    #[default]
    BaseDist,
    /// Standard normal.
    RandomNormal,
    /// 2u − 4, u uniform on [0, 1).
    RandomUniform,
    /// The batch itself.
    Data,
    /// Samples of the prior, each row's noise multiplied by one of
    /// {τ/100, τ/10, τ, 10τ, 100τ}, τ = 100·u drawn once per batch.
    BaseDistTemp,
    /// Rows of given feature sets ([`Negatives`]).
    Features,
}

/// Memory of the proposals; grown once, then kept.
#[derive(Default)]
pub(super) struct ProposalWorkspace {
    /// The component of each row, where it is told.
    pub components: Vec<u32>,
    spread: Vec<f32>,
    negatives: NegativesWorkspace,
    scratch: Vec<std::sync::Mutex<Scratch>>,
}

/// What one batch of proposals depends on.
pub(super) struct Request<'a> {
    pub prior: &'a dyn Prior,
    pub seed: u64,
    pub step: u64,
    /// The real rows, `[B, D]`.
    pub real: &'a [f32],
    /// Where each row's component comes from.
    pub components: Components<'a>,
    /// The rows that `features` draws from.
    pub negatives: Option<&'a Negatives>,
}

/// Where the components of proposals come from.
#[derive(Clone, Copy)]
pub(super) enum Components<'a> {
    /// The prior draws them and keeps them to itself.
    Untold,
    /// Drawn with the frequencies of the real rows' labels.
    Statistics(&'a [u32]),
    /// Drawn with the prior's mixture weights.
    Mixture(&'a [f64]),
    /// The real rows' labels themselves.
    Labels(&'a [u32]),
}

impl Proposal {
    /// Fill `out` (`[B, D]`) with starting points, not yet projected.
    pub(super) fn draw(
        self,
        request: &Request<'_>,
        ws: &mut ProposalWorkspace,
        out: &mut [f32],
    ) -> Result<()> {
        let Request { prior, seed, step, .. } = *request;
        let dim = prior.dim();
        let rows = out.len() / dim;
        // Choices made once per batch come from their own stream.
        let mut once = Stream::new(seed, Purpose::Batch, step, 0);
        ws.components.clear();
        match request.components {
            Components::Untold => {}
            Components::Statistics(labels) => {
                let pick = |_| labels[once.below(labels.len() as u32) as usize];
                ws.components.extend((0..rows).map(pick));
            }
            Components::Mixture(weights) => {
                ws.components.extend((0..rows).map(|_| weighted(weights, once.uniform())));
            }
            Components::Labels(labels) => ws.components.extend_from_slice(labels),
        }
        if self == Proposal::Data {
            out.copy_from_slice(request.real);
            return Ok(());
        }
        if let (Proposal::Features, Some(negatives)) = (self, request.negatives) {
            return negatives.draw(prior, seed, step, &mut ws.negatives, out);
        }
        let components = (!ws.components.is_empty()).then_some(&ws.components[..]);
        let spread = (self == Proposal::BaseDistTemp).then(|| {
            let tau = 100.0 * once.uniform() as f32;
            ws.spread.clear();
            let pick = |_| tau * [0.01, 0.1, 1.0, 10.0, 100.0][once.below(5) as usize];
            ws.spread.extend((0..rows).map(pick));
            &ws.spread[..]
        });
        if ws.scratch.len() != parallel::threads() {
            ws.scratch.resize_with(parallel::threads(), Default::default);
            grow(&ws.scratch, prior, rows.min(BLOCK_ROWS));
        }
        let scratch = &ws.scratch;
        let block = |(i, out): (usize, &mut [f32])| {
            let mut stream = Stream::new(seed, Purpose::Proposal, step, i as u64);
            let first = i * BLOCK_ROWS;
            let range = first..first + out.len() / dim;
            match self {
                Proposal::RandomNormal => stream.fill_normal(out),
                Proposal::RandomUniform => stream.fill_uniform(out, -4.0, -2.0),
                _ => {
                    let mine = &scratch[parallel::worker() % scratch.len()];
                    let scratch = &mut mine.lock().unwrap_or_else(|e| e.into_inner());
                    let components = components.map(|c| &c[range.clone()]);
                    let spread = spread.map(|s| &s[range.clone()]);
                    prior.sample(&mut stream, components, spread, out, scratch)?;
                }
            }
            Ok(())
        };
        parallel::run_all(out.par_chunks_mut(BLOCK_ROWS * dim).enumerate().map(block))
    }

    /// Whether the prior is sampled.
    pub(super) fn is_of_prior(self) -> bool {
        matches!(self, Proposal::BaseDist | Proposal::BaseDistTemp)
    }

    /// Check that the prior can do it.
    pub(super) fn check(self, prior: &dyn Prior, batch_statistics: bool) -> Result<()> {
        if self.is_of_prior() {
            let mut stream = Stream::new(0, Purpose::Proposal, 0, 0);
            let mut row = vec![0.0; prior.dim()];
            prior.sample(&mut stream, None, None, &mut row, &mut Scratch::default())?;
        } else if batch_statistics {
            let problem = "only `base_dist` and `base_dist_temp` draw components";
            return Err(Error::config("ebm.model.sample_from_batch_statistics", true, problem));
        }
        Ok(())
    }
}

/// The index at which the running sum of the weights passes `u`.
fn weighted(weights: &[f64], u: f64) -> u32 {
    let mut total = 0.0;
    let passed = weights.iter().position(|w| {
        total += w;
        u < total
    });
    passed.unwrap_or(weights.len() - 1) as u32
}

/// Give every worker its memory by a draw nobody sees.
fn grow(scratch: &[std::sync::Mutex<Scratch>], prior: &dyn Prior, rows: usize) {
    parallel::each_worker(|i| {
        let scratch = &mut scratch[i].lock().unwrap_or_else(|e| e.into_inner());
        let mut out = vec![0.0; rows * prior.dim()];
        let mut stream = Stream::new(0, Purpose::Proposal, 0, 0);
        // A prior without a sampler has been refused before.
        let _ = prior.sample(&mut stream, None, None, &mut out, scratch);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::FeatureSet;
    use crate::observe::Silent;
    use crate::scorers::{Fit, GmmConfig, TrainingData};

    const ROWS: usize = 640;

    /// Rows with mean 0 and Σ = [[2, 1], [1, 1]], so L = [[√2, 0], [1/√2, 1/√2]].
    fn draw(step: u64) -> Vec<f32> {
        let rows = [[2.0f32, 1.0], [-2.0, -1.0], [0.0, 1.0], [0.0, -1.0]];
        let set = FeatureSet::from_arrays(ndarray::aview2(&rows), Some(&[0; 4])).unwrap();
        let config = GmmConfig { normalize: false, ..GmmConfig::default() };
        let prior = config.fit(&TrainingData::new(&set).with_classes(1), &mut Silent).unwrap();
        let request = Request {
            prior: &*prior,
            seed: 3,
            step,
            real: &[],
            components: Components::Untold,
            negatives: None,
        };
        let mut out = vec![0.0; 2 * ROWS];
        let mut ws = ProposalWorkspace::default();
        Proposal::BaseDistTemp.draw(&request, &mut ws, &mut out).unwrap();
        out
    }

    /// Each row's multiple of Lε, from the normals of its block's stream,
    /// which follow one uniform a row for its component.
    fn spreads(step: u64) -> Vec<f64> {
        let mut spreads = Vec::new();
        for (block, rows) in draw(step).chunks(2 * BLOCK_ROWS).enumerate() {
            let mut stream = Stream::new(3, Purpose::Proposal, step, block as u64);
            for _ in 0..rows.len() / 2 {
                stream.uniform();
            }
            let mut noise = vec![0.0; rows.len()];
            stream.fill_normal(&mut noise);
            for (z, e) in rows.chunks(2).zip(noise.chunks(2)) {
                let [e0, e1] = [e[0], e[1]].map(f64::from);
                let plain = [2f64.sqrt() * e0, (e0 + e1) / 2f64.sqrt()];
                let [a, b] = [0, 1].map(|j| f64::from(z[j]) / plain[j]);
                let far = 1e-5 * (e0.abs() + e1.abs()) / plain[0].abs().min(plain[1].abs());
                assert!((a / b - 1.0).abs() < far, "{z:?} {plain:?}");
                spreads.push(if plain[0].abs() > plain[1].abs() { a } else { b });
            }
        }
        spreads
    }

    /// The noise of a row is multiplied by one of {τ/100, τ/10, τ, 10τ, 100τ},
    /// τ = 100·u with the first uniform of the batch's own stream; each of the
    /// five is drawn a fifth of the time, within five standard errors.
    #[test]
    fn five_spreads_about_one_tau_a_batch() {
        let mut counts = [0; 5];
        const STEPS: u64 = 20;
        for step in 0..STEPS {
            let tau = 100.0 * Stream::new(3, Purpose::Batch, step, 0).uniform();
            for spread in spreads(step) {
                let power = (spread / tau).log10();
                let which = power.round();
                assert!((power - which).abs() < 1e-5 && which.abs() <= 2.0, "{spread} {tau}");
                counts[(which + 2.0) as usize] += 1;
            }
        }
        let n = (STEPS * ROWS as u64) as f64;
        let error = (0.2 * 0.8 / n).sqrt();
        for count in counts {
            assert!((f64::from(count) / n - 0.2).abs() < 5.0 * error, "{counts:?}");
        }
    }
}
