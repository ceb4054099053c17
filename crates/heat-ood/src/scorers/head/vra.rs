//! Variational rectified activations (`vra`): −logsumexp(W f(z) + b), where f
//! takes a coordinate below its column's `low` quantile on the training set to
//! zero, and one above its `high` quantile to that quantile.
//!
//! With `clip=true` low coordinates are raised to the `low` quantile instead,
//! as pytorch-ood does (and OpenOOD, with quantiles of all
//! coordinates together). Quantiles are exact: two passes over f16 and
//! bf16 features, else three, O(N·D) each, in O(D) memory; cost per row
//! O(D·C).
//!
//! Reference: Xu et al., *VRA: Variational Rectified Activation for Out-of-distribution Detection*, NeurIPS 2023.

use super::with_head::WithHead;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::math::columns::{ColumnCounts, Within};
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::energy_logits::energies;
use crate::scorers::input::{by_classes, feature_settings, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `vra`.
    VraConfig, normalize = false;
    /// Quantile of a column below which a coordinate counts as too low.
    low: f64 = 0.6,
    /// Quantile of a column at which a coordinate is clipped; by default 0.9
    /// for fewer than 100 classes, else 0.95.
    #[serde(skip_serializing_if = "Option::is_none")]
    high: Option<f64> = None,
    /// Raise low coordinates to their quantile in place of zero.
    clip: bool = false,
}

offer! { VraConfig => Vra }

/// A fitted `vra` scorer.
pub struct Vra {
    config: VraConfig,
    input: WithHead,
    /// Low and high quantile of each column, `[2, D]`.
    bounds: Vec<f32>,
}

/// The first pass of the quantiles.
struct Counts {
    source: Source,
    counts: ColumnCounts,
}

impl Statistic for Counts {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        self.counts.update(&block.rows(&self.source)?);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Columns(&mut self.counts)]
    }
}

/// Counts of the values that share their topmost bits with a quantile.
struct Deeper {
    source: Source,
    within: Within,
}

impl Statistic for Deeper {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        self.within.update(&block.rows(&self.source)?);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Counts32(&mut self.within.counts)]
    }
}

impl VraConfig {
    fn request(source: &Source) -> Result<StatisticRequest> {
        let statistic = Counts { source: source.clone(), counts: ColumnCounts::new(source.dim)? };
        let key = format!("column counts {}", source.key);
        Ok(StatisticRequest { key, statistic: Box::new(statistic) })
    }

    /// The two quantiles, checked.
    fn quantiles(&self, classes: usize) -> Result<[f64; 2]> {
        let high = self.high.unwrap_or(by_classes(classes, [0.9, 0.95, 0.95]));
        let [within, ordered] =
            [(0.0..=1.0).contains(&self.low) && (0.0..=1.0).contains(&high), self.low <= high];
        if !within {
            let (name, value) =
                if (0.0..=1.0).contains(&high) { ("low", self.low) } else { ("high", high) };
            return Err(Error::config(name, value, "a quantile lies between 0 and 1, e.g. 0.6"));
        }
        if !ordered {
            let problem = format!("must not exceed `high`, which is {high}");
            return Err(Error::config("low", self.low, problem));
        }
        Ok([self.low, high])
    }
}

impl Method for VraConfig {
    const NAME: &'static str = "vra";
    type Scorer = Vra;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        self.quantiles(require_head("vra", context.head)?.classes())?;
        let source = context.source(self)?;
        Ok(vec![Self::request(&source)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Vra> {
        let input = WithHead::fit("vra", self, context)?;
        let quantiles = self.quantiles(input.head.classes())?;
        let source = context.source(self)?;
        let first = context.find::<Counts>(Self::request(&source)?)?;
        let bounds = first.counts.quantiles(&quantiles, |within| {
            let key =
                format!("column counts within {} {quantiles:?} {}", within.open(), source.key);
            let statistic = Box::new(Deeper { source: source.clone(), within });
            let found = context.find::<Deeper>(StatisticRequest { key, statistic })?;
            Ok(found.within.clone())
        })?;
        let bounds = bounds.into_iter().map(|v| v as f32).collect();
        Ok(Vra { config: self.clone(), input, bounds })
    }

    fn load(stored: &Stored<'_>) -> Result<Vra> {
        let (config, input) = WithHead::load(stored)?;
        let bounds = stored.file.f32(&stored.name("bounds"), &[2, input.dim()])?;
        Ok(Vra { config, input, bounds })
    }
}

impl Vra {
    /// Low and high quantile of each column, `[2, D]`.
    pub fn bounds(&self) -> &[f32] {
        &self.bounds
    }

    fn rectify(&self, row: &mut [f32]) {
        let (low, high) = self.bounds.split_at(row.len());
        let clip = self.config.clip;
        for ((v, &low), &high) in row.iter_mut().zip(low).zip(high) {
            let floor = if clip { low } else { 0.0 };
            *v = if *v < low { floor } else { *v }.min(high);
        }
    }
}

impl Scorer for Vra {
    fn name(&self) -> &'static str {
        "vra"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let mut rows = self.input.input.stepped(batch).into_owned();
        rows.chunks_exact_mut(self.input.dim()).for_each(|row| self.rectify(row));
        let logits = self.input.logits(&rows);
        energies(&logits, self.input.head.classes(), out);
    }

    fn section(&self) -> Section {
        let bounds = Tensor::f32([2, self.input.dim()], self.bounds.clone());
        self.input.section("vra", &self.config).with("", vec![("bounds".into(), bounds)])
    }
}
