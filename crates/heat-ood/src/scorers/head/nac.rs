//! Coverage of neurons' activations (`nac`): −mean_i min(n_i(s_i)/O, 1), s_i = sigmoid(α·z_i·∂/∂z_i KL(u ‖ p)) how
//! active neuron i is, u uniform, p = softmax(logits); n_i(s) the training rows of which s_i falls into the same of
//! M − 1 intervals as s.
//!
//! Of the last layer ∂/∂z KL = Wᵀ(p − u), from features and head. Of further layers (`layer=`) `heat extract --for nac`
//! takes it back through the network and keeps z_i·∂/∂z_i KL, z_i and its gradient summed over the map. Intervals
//! are the authors': narrow around ½. n counts for 1,000 training rows: O goes with these. Sums over the training
//! set, O(N·C·D); cost per row O(C·D), of further layers O(D).
//!
//! *Differences from the authors*: they count 1,000 rows drawn from all classes alike, here all rows count, each
//! 1000/N. A layer at a time: their mean over several is a composition. Their M, O and α of further layers were chosen
//! with OOD images of each benchmark, layer by layer (α from 0.001 to 1000: products go with the number of cells, squared);
//! here M and O are those of the last and α goes with the products, unless given: one more pass.
//!
//! Reference: Liu et al., *Neuron Activation Coverage: Rethinking Out-of-Distribution Detection and
//! Generalization*, ICLR 2024.

use serde::Deserialize;
use serde_json::json;

use super::with_head::WithHead;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Head, beyond_uniform, signed_square};
use crate::io::Tensor;
use crate::math::linalg::product_nn;
use crate::math::parallel::{Pieces, Slices};
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{by_classes, contradiction, feature_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `nac`.
    NacConfig, normalize = false;
    /// M: ends of intervals, an even number. By default 50.
    m: usize = 50,
    /// O: rows of 1,000 from which on an interval is covered. By default 50/50/10 (CIFAR-10, CIFAR-100,
    /// ImageNet).
    o: Option<f64> = None,
    /// α. By default 100/50/3000; of further layers 2 ÷ the mean of |z·∂KL/∂z| over training rows and neurons.
    sig_alpha: Option<f64> = None,
}

offer! { NacConfig => Nac }

/// O for CIFAR-10, CIFAR-100 and ImageNet.
const O: [f64; 3] = [50.0, 50.0, 10.0];

/// Rows that O is for.
const ROWS: f64 = 1000.0;

/// Where zᵢ·∂KL/∂zᵢ of the neurons of rows comes from.
#[derive(Clone)]
enum Products {
    /// The head, and its weights in double precision.
    Head(Head, Vec<f64>),
    /// [`Field::Nac`], of so many columns.
    Stored(usize),
}

impl Products {
    fn new(head: &Head) -> Self {
        Products::Head(head.clone(), head.weight().iter().map(|w| f64::from(*w)).collect())
    }

    fn dim(&self) -> usize {
        match self {
            Products::Head(head, _) => head.dim(),
            Products::Stored(dim) => *dim,
        }
    }

    /// Of rows: those stored, or features with their logits.
    fn of(&self, rows: &[f32], logits: &[f32]) -> Vec<f64> {
        let Products::Head(head, weight) = self else {
            return rows.iter().map(|kept| signed_square(*kept)).collect();
        };
        let classes = head.classes();
        let mut beyond: Vec<f64> = logits.iter().map(|l| f64::from(*l)).collect();
        beyond.chunks_exact_mut(classes).for_each(beyond_uniform);
        let mut products = vec![0.0; rows.len()];
        product_nn(&beyond, weight, &mut products, classes);
        products.iter_mut().zip(rows).for_each(|(g, z)| *g *= f64::from(*z));
        products
    }
}

/// Activities of the neurons of rows.
#[derive(Clone)]
struct Activity {
    products: Products,
    alpha: f64,
    /// Ends of the intervals, ascending.
    ends: Vec<f64>,
}

impl Activity {
    fn new(config: &NacConfig, products: Products, alpha: f64) -> Result<Self> {
        config.check_ranges()?;
        let dim = products.dim();
        if dim.saturating_mul(config.m) > 1 << 26 {
            let problem = format!("{} intervals of {dim} neurons are too many", config.m);
            return Err(Error::Fit { what: "nac".into(), problem });
        }
        Ok(Activity { products, alpha, ends: ends(config.m) })
    }

    fn dim(&self) -> usize {
        self.products.dim()
    }

    fn intervals(&self) -> usize {
        self.ends.len() - 1
    }

    /// Row, neuron and interval of each neuron's activity, for rows and their logits.
    fn each(&self, rows: &[f32], logits: &[f32], mut found: impl FnMut(usize, usize, usize)) {
        let products = self.products.of(rows, logits);
        for (row, products) in products.chunks_exact(self.dim()).enumerate() {
            for (neuron, product) in products.iter().enumerate() {
                let state = 1.0 / (1.0 + (-self.alpha * product).exp());
                let above = self.ends.partition_point(|end| *end <= state);
                found(row, neuron, above.saturating_sub(1));
            }
        }
    }
}

/// log₁₀₀₀ of m/2 numbers evenly from 1 to √1000, up to ½; their complements, down from it; 1.01 for 1, and
/// 1.2.
fn ends(m: usize) -> Vec<f64> {
    let half = m / 2;
    let step = (1000f64.sqrt() - 1.0) / (half - 1) as f64;
    let low: Vec<f64> = (0..half).map(|k| (1.0 + k as f64 * step).ln() / 1000f64.ln()).collect();
    let mut ends = low[..half - 1].to_vec();
    ends.extend(low.iter().rev().map(|v| 1.0 - v));
    if let Some(last) = ends.last_mut() {
        *last += 1e-2;
    }
    ends.push(1.2);
    ends
}

/// How many rows have each neuron's activity in each interval.
struct Covered {
    /// The features, where the products are of these and the head.
    source: Option<Source>,
    activity: Activity,
    /// `[D, intervals]`.
    counts: Vec<u64>,
}

impl Covered {
    fn request(config: &NacConfig, context: &mut FitContext<'_>) -> Result<StatisticRequest> {
        config.check_ranges()?;
        let (source, products, alpha) = match config.stored(context)? {
            Some(dim) => {
                context.reads(Field::Nac);
                let alpha = match config.sig_alpha {
                    Some(alpha) => alpha,
                    None => Scale::find(context)?,
                };
                (None, Products::Stored(dim), alpha)
            }
            None => {
                let head = WithHead::fit("nac", config, context)?.head;
                let alpha = by_classes(head.classes(), [100.0, 50.0, 3000.0]);
                let source = context.source(config)?;
                (Some(source), Products::new(&head), config.sig_alpha.unwrap_or(alpha))
            }
        };
        let activity = Activity::new(config, products, alpha)?;
        let counts = vec![0; activity.dim() * activity.intervals()];
        let rows = source.as_ref().map_or("", |source| &source.key);
        let key = format!("nac {} {} {rows}", config.m, activity.alpha);
        Ok(StatisticRequest { key, statistic: Box::new(Covered { source, activity, counts }) })
    }
}

impl Statistic for Covered {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        const PIECE: usize = 256;
        let activity = &self.activity;
        let one = |(rows, logits): (&[f32], &[f32])| -> Vec<u16> {
            let mut all = Vec::with_capacity(rows.len());
            activity.each(rows, logits, |_, _, interval| all.push(interval as u16));
            all
        };
        let found: Vec<Vec<u16>> = match (&self.source, &activity.products) {
            (Some(source), Products::Head(head, _)) => {
                let rows = block.rows(source)?;
                let logits = block.head_logits(source, head)?;
                let pieces = rows.par_chunks(PIECE * head.dim());
                pieces.zip(logits.par_chunks(PIECE * head.classes())).map(one).collect()
            }
            _ => {
                let rows = block.train.rows(Field::Nac, block.range.clone())?;
                let pieces = rows.par_chunks(PIECE * activity.dim());
                pieces.map(|rows| one((rows, &[]))).collect()
            }
        };
        let (dim, intervals) = (activity.dim(), activity.intervals());
        for piece in found {
            for row in piece.chunks_exact(dim) {
                let counts = self.counts.chunks_exact_mut(intervals).zip(row);
                counts.for_each(|(counts, interval)| counts[usize::from(*interval)] += 1);
            }
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Counts(&mut self.counts)]
    }
}

/// The sum of the magnitudes of [`Field::Nac`].
struct Scale(f64);

impl Scale {
    /// α by the mean magnitude over rows and neurons. (2 is the best of 1, 2, 4, 8 and 16 in the mean of a ResNet-20's
    /// layers, by little: docs/methods.md.)
    fn find(context: &mut FitContext<'_>) -> Result<f64> {
        let statistic = Box::new(Scale(0.0));
        let request = StatisticRequest { key: "nac scale".into(), statistic };
        let sum = context.find::<Scale>(request)?.0;
        let values = context.rows() * context.train.require(Field::Nac)?;
        // Of neurons that never act any α does.
        let alpha = 2.0 * values as f64 / sum;
        Ok(if alpha.is_finite() { alpha } else { 1.0 })
    }
}

impl Statistic for Scale {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let rows = block.train.rows(Field::Nac, block.range.clone())?;
        self.0 += rows.iter().map(|kept| signed_square(*kept).abs()).sum::<f64>();
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Sums(std::slice::from_mut(&mut self.0))]
    }
}

/// A fitted `nac` scorer.
pub struct Nac {
    config: NacConfig,
    /// Features and head, where the products are of these.
    input: Option<WithHead>,
    activity: Activity,
    /// How far each interval is covered, 0 to 1, `[D, intervals]`.
    coverage: Vec<f32>,
}

impl NacConfig {
    fn check_ranges(&self) -> Result<()> {
        if self.m < 6 || !self.m.is_multiple_of(2) || self.m > 1 << 16 {
            return Err(Error::config("m", self.m, "an even number from 6 to 65536"));
        }
        for (key, value) in [("o", self.o), ("sig_alpha", self.sig_alpha)] {
            if let Some(value) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(Error::config(key, value, "must be a positive number"));
            }
        }
        Ok(())
    }

    /// The columns of [`Field::Nac`], where a set has it.
    fn stored(&self, context: &FitContext<'_>) -> Result<Option<usize>> {
        let dim = context.train.dim(Field::Nac);
        if dim.is_none() && context.head.is_none() {
            let remedy = "give that of the last layer; of a further layer `heat extract --for nac` \
                          makes `nac`";
            return Err(Error::needs("the scorer `nac`", "a head, or `nac` of the set", remedy));
        }
        let defaults =
            NacConfig { m: self.m, o: self.o, sig_alpha: self.sig_alpha, ..Self::default() };
        if dim.is_some() && *self != defaults {
            let problem = "leave it out: features are not read where a set has `nac`, which was made of them \
                           and their gradient";
            return Err(Error::config("pooling, react, normalize, pca", "given", problem));
        }
        Ok(dim)
    }
}

impl Method for NacConfig {
    const NAME: &'static str = "nac";
    type Scorer = Nac;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        Ok(vec![Covered::request(self, context)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Nac> {
        let input = match self.stored(context)? {
            Some(_) => None,
            None => Some(WithHead::fit("nac", self, context)?),
        };
        let o = match (self.o, &input) {
            (Some(o), _) => o,
            (None, Some(input)) => by_classes(input.head.classes(), O),
            (None, None) => by_classes(context.classes()?, O),
        };
        let request = Covered::request(self, context)?;
        let found = context.find::<Covered>(request)?;
        let full = o * context.rows() as f64 / ROWS;
        let coverage = found.counts.iter().map(|n| (*n as f64 / full).min(1.0) as f32).collect();
        Ok(Nac { config: self.clone(), activity: found.activity.clone(), input, coverage })
    }

    fn load(stored: &Stored<'_>) -> Result<Nac> {
        #[derive(Deserialize)]
        struct Config {
            settings: NacConfig,
            sig_alpha: f64,
            /// Columns of the field, where products are stored.
            products: Option<usize>,
        }
        let Config { settings: config, sig_alpha, products } = stored.config()?;
        let (input, products) = match products {
            Some(dim) => (None, Products::Stored(dim)),
            None => {
                let (_, input) = WithHead::load::<NacConfig>(stored)?;
                let products = Products::new(&input.head);
                (Some(input), products)
            }
        };
        let settings = NacConfig { sig_alpha: Some(sig_alpha), ..config.clone() };
        let activity = Activity::new(&settings, products, sig_alpha);
        let activity = activity.map_err(|_| contradiction(stored))?;
        let shape = [activity.dim(), activity.intervals()];
        let coverage = stored.file.f32(&stored.name("coverage"), &shape)?;
        if coverage.iter().any(|v| !(0.0..=1.0).contains(v)) {
            return Err(contradiction(stored));
        }
        Ok(Nac { config, input, activity, coverage })
    }
}

impl Scorer for Nac {
    fn name(&self) -> &'static str {
        "nac"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        match &self.input {
            Some(input) => input.input.needs(set),
            None => FieldSet::checked(set, Field::Nac, self.activity.dim()),
        }
    }

    fn of_maps(&self) -> Vec<Field> {
        if self.input.is_none() { vec![Field::Nac] } else { vec![] }
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let intervals = self.activity.intervals();
        let mut sums = vec![0.0; out.len()];
        let add = |row: usize, neuron, interval| {
            sums[row] += f64::from(self.coverage[neuron * intervals + interval]);
        };
        match &self.input {
            Some(input) => {
                let rows = input.input.stepped(batch);
                self.activity.each(&rows, &input.logits(&rows), add);
            }
            None => self.activity.each(batch.get(Field::Nac), &[], add),
        }
        for (o, sum) in out.iter_mut().zip(sums) {
            *o = (-sum / self.activity.dim() as f64) as f32;
        }
    }

    fn section(&self) -> Section {
        let shape = [self.activity.dim(), self.activity.intervals()];
        let coverage = vec![("coverage".to_owned(), Tensor::f32(shape, self.coverage.clone()))];
        let mut section = match &self.input {
            Some(input) => input.section("nac", &self.config).with("", coverage),
            None => {
                let config = json!({ "settings": self.config, "products": self.activity.dim() });
                Section::new("nac", config).with("", coverage)
            }
        };
        section.config["sig_alpha"] = json!(self.activity.alpha);
        section
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// log₁₀₀₀ of 1, (1 + √1000)/2 and √1000, and 1 less these: by hand.
    #[test]
    fn ends_by_hand() {
        let middle = (0.5 * (1.0 + 1000f64.sqrt())).ln() / 1000f64.ln();
        let want = [0.0, middle, 0.5, 1.0 - middle, 1.01, 1.2];
        let got = ends(6);
        assert_eq!(got.len(), 6);
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        assert_eq!(ends(50).len(), 50);
        assert!(ends(50).is_sorted());
    }
}
