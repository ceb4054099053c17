//! Reconstruction error of principal components in the space of a kernel
//! (`kpca`): ‖x − μ − P Pᵀ(x − μ)‖₂ of x = φ(z), μ and P mean and principal
//! directions of φ on the training set.
//!
//! `kernel=cop` (cosine): φ(z) = z/‖z‖. `kernel=corp` (cosine, then Gaussian):
//! M random Fourier features of that, φ_j = √(2/M)·cos(ω_j·z/‖z‖ + u_j) with
//! ω ~ N(0, 2γ·I), u uniform on [0, 2π), drawn with `seed`. P has the fewest
//! directions whose fraction of the variance reaches `explained`. One pass over
//! the training set, O(N·M²), M = D for `cop`; cost per row O(D·M + M·p).
//!
//! Reference: Fang et al., *Kernel PCA for Out-of-Distribution Detection*, NeurIPS 2024.

use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::Table;

use super::principal::Subspace;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::{Tensor, check_moments};
use crate::math::linalg::eigh;
use crate::math::matmul::{Epilogue, Packed, View, gemm, with_scratch};
use crate::math::moments::Moments;
use crate::math::parallel::{Pieces, Slices};
use crate::math::rng::{Purpose, Stream, sin_pi};
use crate::math::{blocks, reduce};
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{Input, by_classes, contradiction, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

/// A kernel, by the map into its space.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// Cosine.
    Cop,
    /// Cosine, then Gaussian by random Fourier features.
    Corp,
}

feature_settings! {
    /// Settings of `kpca`.
    KpcaConfig, normalize = false;
    /// The kernel.
    kernel: Kernel = Kernel::Cop,
    /// Fraction of the variance to be explained; by default 0.85 (`cop`) or 0.8
    /// (`corp`), for 1000 classes and more 0.99 or 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    explained: Option<f64> = None,
    /// γ of the Gaussian kernel exp(−γ‖x−y‖²); by default 2, for 1000 classes
    /// and more 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    gamma: Option<f64> = None,
    /// Number of Fourier features M; by default 2048, for 1000 classes and
    /// more 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<usize> = None,
    /// Seed of the frequencies.
    seed: u64 = 0,
}

/// Most Fourier features: their covariance takes 2 GiB.
const MOST: usize = 1 << 14;

/// φ.
enum Map {
    Cosine,
    Fourier {
        /// ω/2π, `[D, M]`, as right operand.
        frequencies: Packed,
        /// u/2π.
        phases: Vec<f32>,
    },
}

/// Turns ω·z/2π into φ.
struct Wave<'a> {
    phases: &'a [f32],
    scale: f32,
}

impl Epilogue for Wave<'_> {
    #[inline(always)]
    fn apply(&mut self, _: usize, column: usize, values: &mut [f32]) {
        for (v, phase) in values.iter_mut().zip(&self.phases[column..]) {
            // cos 2πt = sin π(½ − 2|t|) for |t| ≤ ½.
            let t = *v + phase;
            let t = t - t.round();
            *v = self.scale * sin_pi(0.5 - 2.0 * t.abs());
        }
    }
}

impl Map {
    /// That of settings whose defaults were filled in.
    fn new(config: &KpcaConfig, dim: usize) -> Self {
        let (Kernel::Corp, Some(gamma), Some(count)) =
            (config.kernel, config.gamma, config.features)
        else {
            return Map::Cosine;
        };
        let stream = |what| Stream::new(config.seed, Purpose::Projection, what, 0);
        let mut frequencies = vec![0.0; count * dim];
        stream(0).fill_normal(&mut frequencies);
        let scale = ((2.0 * gamma).sqrt() / std::f64::consts::TAU) as f32;
        frequencies.iter_mut().for_each(|v| *v *= scale);
        let mut phases = vec![0.0; count];
        stream(1).fill_uniform(&mut phases, 0.0, 1.0);
        Self::fourier(&frequencies, phases)
    }

    /// That of ω/2π, `[M, D]`, and u/2π.
    fn fourier(frequencies: &[f32], phases: Vec<f32>) -> Self {
        let (dim, count) = (frequencies.len() / phases.len(), phases.len());
        let frequencies = Packed::new(View::rows(frequencies, dim).t(), dim, count);
        Map::Fourier { frequencies, phases }
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let Map::Fourier { frequencies, phases } = self else {
            return Vec::new();
        };
        let shape = [phases.len(), frequencies.k()];
        vec![
            ("frequencies".into(), Tensor::f32(shape, frequencies.columns())),
            ("phases".into(), Tensor::f32([phases.len()], phases.clone())),
        ]
    }

    /// Columns of φ.
    fn dim(&self, dim: usize) -> usize {
        match self {
            Map::Cosine => dim,
            Map::Fourier { phases, .. } => phases.len(),
        }
    }

    /// φ of stepped rows.
    fn apply(&self, mut rows: Vec<f32>, dim: usize) -> Vec<f32> {
        rows.chunks_exact_mut(dim).for_each(reduce::normalize);
        let Map::Fourier { frequencies, phases } = self else {
            return rows;
        };
        let (n, count) = (rows.len() / dim, phases.len());
        let mut out = vec![0.0; n * count];
        let wave = &mut Wave { phases, scale: (2.0 / count as f32).sqrt() };
        let view = View::rows(&rows, dim);
        with_scratch(|scratch| gemm(view, n, frequencies, &mut out, count, scratch, wave));
        out
    }
}

/// Moments of φ.
struct Mapped {
    source: Source,
    map: Map,
    moments: Moments,
}

impl Statistic for Mapped {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let (rows, dim) = (block.rows(&self.source)?, self.source.dim);
        let width = self.map.dim(dim);
        for range in blocks(block.range.len(), Moments::block_rows(width)) {
            let rows = &rows[range.start * dim..range.end * dim];
            let (map, moments) = (&self.map, &mut self.moments);
            let mapped: Vec<Vec<f32>> =
                rows.par_chunks(256 * dim).map(|r| map.apply(r.to_vec(), dim)).collect();
            moments.update(&mapped.concat(), &vec![0; range.len()]);
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Moments(&mut self.moments, None)]
    }
}

offer! { KpcaConfig => Kpca }

/// A fitted `kpca` scorer.
pub struct Kpca {
    config: KpcaConfig,
    input: Input,
    map: Map,
    space: Subspace,
}

impl KpcaConfig {
    /// The settings with their defaults filled in.
    fn resolved(&self, classes: usize) -> Result<Self> {
        let mut config = self.clone();
        let shares = match self.kernel {
            Kernel::Cop => [0.85, 0.85, 0.99],
            Kernel::Corp => [0.8, 0.8, 0.5],
        };
        let explained = *config.explained.get_or_insert(by_classes(classes, shares));
        if !(explained > 0.0 && explained < 1.0) {
            let problem = "a fraction of the variance lies between 0 and 1, without these";
            return Err(Error::config("explained", explained, problem));
        }
        if self.kernel == Kernel::Corp {
            let gamma = *config.gamma.get_or_insert(by_classes(classes, [2.0, 2.0, 3.0]));
            if !(gamma > 0.0 && gamma.is_finite()) {
                return Err(Error::config("gamma", gamma, "must be a positive number"));
            }
            let features = *config.features.get_or_insert(by_classes(classes, [2048, 2048, 4096]));
            if !(2..=MOST).contains(&features) {
                let problem = format!("between 2 and {MOST} Fourier features");
                return Err(Error::config("features", features, problem));
            }
        }
        Ok(config)
    }

    fn request(&self, source: &Source) -> Result<StatisticRequest> {
        // Fourier features are at most as many as their check allows.
        if self.kernel == Kernel::Cop {
            check_moments("kpca", source.dim, 1)?;
        }
        let map = Map::new(self, source.dim);
        let moments = Moments::new(map.dim(source.dim), 1);
        let key = format!(
            "kpca {:?} {:?} {:?} {} {}",
            self.kernel, self.gamma, self.features, self.seed, source.key
        );
        let statistic = Box::new(Mapped { source: source.clone(), map, moments });
        Ok(StatisticRequest { key, statistic })
    }
}

impl Method for KpcaConfig {
    const NAME: &'static str = "kpca";
    type Scorer = Kpca;

    fn check(&self, given: &Table) -> Result<()> {
        let of_corp = ["gamma", "features", "seed"].into_iter().find(|k| given.contains_key(*k));
        match of_corp {
            Some(key) if self.kernel == Kernel::Cop => {
                Err(Error::config(key, &given[key], "goes with `kernel=corp`; leave it out"))
            }
            _ => Ok(()),
        }
    }

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        let config = self.resolved(context.known_classes()?.unwrap_or(0))?;
        Ok(vec![config.request(&context.source(self)?)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Kpca> {
        let config = self.resolved(context.known_classes()?.unwrap_or(0))?;
        let source = context.source(self)?;
        let found = context.find::<Mapped>(config.request(&source)?)?;
        let (origin, covariance) = found.moments.clone().finish();
        let dim = origin.len();
        let unfit = |problem: &str| Error::Fit { what: "kpca".into(), problem: problem.into() };
        let (values, directions) = eigh(&covariance, dim)
            .ok_or_else(|| unfit("the decomposition of the covariance did not converge"))?;
        let total: f64 = values.iter().map(|v| v.max(0.0)).sum();
        if total <= 0.0 {
            return Err(unfit("the directions of the training rows are all the same"));
        }
        let mut sum = 0.0;
        let reached = values.iter().position(|v| {
            sum += v.max(0.0) / total;
            sum >= config.explained.unwrap_or(1.0)
        });
        let count = reached.map_or(dim, |i| i + 1);
        if count >= dim {
            return Err(unfit("no direction is left for the error: choose a smaller `explained`"));
        }
        let map = Map::new(&config, source.dim);
        let space = Subspace::new(origin, directions, count);
        Ok(Kpca { config, input: source.input, map, space })
    }

    fn load(stored: &Stored<'_>) -> Result<Kpca> {
        #[derive(Deserialize)]
        struct Config {
            directions: usize,
        }
        let (config, input): (KpcaConfig, Input) = Input::load(stored)?;
        let Config { directions } = stored.config()?;
        // What a fit would refuse, or leave to a default, was not stored by one.
        if config.resolved(0).ok().as_ref() != Some(&config) {
            return Err(contradiction(stored));
        }
        let map = match (config.kernel, config.features) {
            (Kernel::Corp, Some(m)) => {
                let get = |name: &str, shape: &[usize]| stored.file.f32(&stored.name(name), shape);
                Map::fourier(&get("frequencies", &[m, input.dim])?, get("phases", &[m])?)
            }
            _ => Map::Cosine,
        };
        let dim = map.dim(input.dim);
        if !(1..dim).contains(&directions) {
            return Err(contradiction(stored));
        }
        let space = Subspace::load(stored, dim, directions)?;
        Ok(Kpca { config, input, map, space })
    }
}

impl Kpca {
    /// Number of principal directions.
    pub fn directions(&self) -> usize {
        self.space.count()
    }
}

impl Scorer for Kpca {
    fn name(&self) -> &'static str {
        "kpca"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let mapped = self.map.apply(self.input.stepped(batch).into_owned(), self.input.dim);
        let norms = self.space.outside(&self.space.centred(&mapped));
        out.iter_mut().zip(norms).for_each(|(o, norm)| *o = norm as f32);
    }

    fn section(&self) -> Section {
        let config = json!({
            "settings": self.config,
            "input_dim": self.input.input_dim,
            "directions": self.space.count(),
        });
        Section::new("kpca", config)
            .with("", self.space.tensors())
            .with("", self.map.tensors())
            .with("", self.input.tensors())
    }
}
