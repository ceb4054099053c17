//! Joint statistical testing across layers (`jtla`): Σ −ln p over the layers whose features a set has, the last
//! one and further ones, and over all pairs of them; p the fraction of the training rows predicted as the row's
//! class y whose test statistic is no smaller, of a pair in both layers, at least 10⁻¹⁶.
//!
//! A layer's statistic is the likelihood ratio of n_1 … n_C, the labels of the k nearest training rows, under
//! the multinomial distribution π_y of the rows predicted as y: t = Σ_c n_c·ln(n_c/(k·π_yc)); with two classes
//! the fraction of neighbours of the other. π_y is the maximum a posteriori of these rows' counts with the
//! authors' Dirichlet prior, one row more, most of it of class y. A training row is no neighbour of its own. A
//! class that is never predicted has no p: rows taken for it score 0, as ordinary.
//!
//! Each layer has an index, whose cost is that of `knn`; the fit searches it once for every training row. Cost
//! per row beside the searches: O(N·L²/C), L layers. Scores have ties, among the largest above all.
//!
//! *Differences from the authors' code*: p is not averaged over bootstrap samples, of which it is the mean; features
//! are not projected before the search; the search is exact. scio takes p of all rows, whatever class they
//! are predicted as, and lets a training row be its own neighbour there.
//!
//! Reference: Raghuram et al., *A General Framework for Detecting Anomalous Inputs to DNN Classifiers*, ICML
//! 2021, and its code.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;

use super::indexed::Indexed;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Part};
use crate::io::Tensor;
use crate::math::parallel::{self, Pieces, SlicesMut};
use crate::math::reduce;
use crate::observe::Event;
use crate::scorers::context::FitContext;
use crate::scorers::fit::TrainingData;
use crate::scorers::input::{FeatureSettings, contradiction, feature_settings};
use crate::scorers::logit_source::check_logit_count;
use crate::scorers::logits::Predictor;
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `jtla`.
    JtlaConfig, normalize = true;
    /// Number of neighbours; 0: N^0.4, rounded up.
    k: usize = 0,
    /// Whether pairs of layers are tested beside the layers.
    pairs: bool = true,
}

offer! { JtlaConfig => Jtla }

/// ε of the authors' prior: what of the further row is not of the class itself.
const PRIOR: f64 = 0.1;

/// The smallest p.
const LEAST: f64 = 1e-16;

/// The most values that π of all layers has.
const MOST: usize = 1 << 27;

/// Rows searched together, by one thread.
const ROWS: usize = 256;

/// One layer's index and what its neighbours' labels are compared with.
struct Layer {
    part: Option<Part>,
    index: Indexed,
    /// π, `[C, C]`: of the rows predicted as each class.
    shares: Vec<f64>,
}

/// How many of a row's neighbours have each label, those of none left out.
type Counts = Vec<(u32, u32)>;

fn counts(labels: impl Iterator<Item = u32>) -> Counts {
    let mut labels: Vec<u32> = labels.collect();
    labels.sort_unstable();
    labels.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32)).collect()
}

impl Layer {
    /// What a set has of it.
    fn of<'a>(part: Option<Part>, set: &'a FeatureSet) -> Result<Cow<'a, FeatureSet>> {
        part.map_or(Ok(Cow::Borrowed(set)), |part| Ok(Cow::Owned(set.part(part)?)))
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        let needs = self.index.input.needs(&*Layer::of(self.part, set)?)?;
        Ok(self.part.map_or(needs.clone(), |part| needs.within(part)))
    }

    /// t of some neighbours' labels under a class.
    fn statistic(&self, counts: &Counts, k: usize, class: usize, classes: usize) -> f64 {
        let k = k as f64;
        if classes == 2 {
            let own = counts.iter().find(|(label, _)| *label as usize == class);
            return (k - own.map_or(0.0, |(_, n)| f64::from(*n))) / k;
        }
        let shares = &self.shares[class * classes..];
        let term = |(label, n): &(u32, u32)| {
            let n = f64::from(*n);
            n * (n.ln() - (k * shares[*label as usize]).ln())
        };
        counts.iter().map(term).sum()
    }

    /// The labels of the k nearest rows of each row of a set, itself left out.
    fn of_training(&self, train: &FeatureSet, k: usize, labels: &[u32]) -> Result<Vec<Counts>> {
        let set = Layer::of(self.part, train)?;
        let needs = self.index.input.needs(&set)?;
        let mut all = vec![Counts::new(); train.len()];
        parallel::run_all(all.par_chunks_mut(ROWS).enumerate().map(|(i, out)| {
            let start = i * ROWS;
            let mut batch = Batch::default();
            set.batch(&needs, start..start + out.len(), &mut batch)?;
            self.index.each_nearest(&batch, k + 1, |row, nearest| {
                let others = nearest.iter().map(|(_, i)| *i).filter(|i| *i as usize != start + row);
                out[row] = counts(others.take(k).map(|i| labels[i as usize]));
            });
            Ok(())
        }))?;
        Ok(all)
    }
}

/// π of each class, by the counts of the rows predicted as it.
fn shares(all: &[Counts], predicted: &[u32], k: usize, classes: usize) -> Vec<f64> {
    let (mut shares, mut rows) = (vec![0.0; classes * classes], vec![0u64; classes]);
    for (counts, class) in all.iter().zip(predicted) {
        rows[*class as usize] += 1;
        for (label, n) in counts {
            shares[*class as usize * classes + *label as usize] += f64::from(*n);
        }
    }
    for (class, shares) in shares.chunks_exact_mut(classes).enumerate() {
        let elsewhere = PRIOR / classes as f64;
        let total = 1.0 + rows[class] as f64 * k as f64;
        for (label, share) in shares.iter_mut().enumerate() {
            let prior =
                if label == class { 1.0 - (classes - 1) as f64 * elsewhere } else { elsewhere };
            *share = (*share + prior) / total;
        }
    }
    shares
}

/// A fitted `jtla` scorer.
pub struct Jtla {
    config: JtlaConfig,
    k: usize,
    layers: Vec<Layer>,
    /// Of each row of the indexes.
    labels: Vec<u32>,
    predictor: Predictor,
    /// The statistics of the training rows predicted as each class, `[L, n]`.
    known: Vec<Vec<f64>>,
}

/// Further layers of a set that have features.
fn further(set: &FeatureSet, config: &JtlaConfig) -> Vec<Part> {
    let has = |set: FeatureSet| set.dim(Field::Features(config.pooling())).is_some();
    set.layers().into_iter().filter(|layer| set.part(*layer).is_ok_and(has)).collect()
}

impl Method for JtlaConfig {
    const NAME: &'static str = "jtla";
    type Scorer = Jtla;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Jtla> {
        context.require_rows("jtla")?;
        let (train, n) = (context.train, context.rows());
        let predictor = Predictor::fit(context)?;
        let classes = predictor.classes();
        check_logit_count("jtla", classes)?;
        let labels = train.labels(0..n, classes)?;
        let predicted = predictor.predict(train)?;
        let k = if self.k > 0 { self.k } else { (n as f64).powf(0.4).ceil() as usize };
        if k >= n {
            let problem =
                format!("a row has {} neighbours, so k must lie in 1..={0}", n.saturating_sub(1));
            return Err(Error::config("k", k, problem));
        }
        let parts = further(train, self);
        if classes.saturating_mul(classes).saturating_mul(1 + parts.len()) > MOST {
            let problem = format!("{classes} classes are too many to count the labels of each");
            return Err(Error::Fit { what: "jtla".into(), problem });
        }
        let mut layers =
            vec![Layer { part: None, index: Indexed::fit(self, k, context)?, shares: Vec::new() }];
        for part in parts {
            let set = train.part(part)?;
            for field in set.fields().filter(|f| f.part().is_none()) {
                context.reads(field.within(part));
            }
            let data = TrainingData { features: set, head: None, classes: Some(classes) };
            let index = Indexed::fit(self, k, &mut FitContext::new(&data, context.observer))?;
            layers.push(Layer { part: Some(part), index, shares: Vec::new() });
        }
        let mut known = vec![Vec::new(); classes];
        let total = layers.len() as u64;
        context.observer.on(Event::Begin { task: "jtla", total });
        for (done, layer) in (1..).zip(&mut layers) {
            let all = layer.of_training(train, k, &labels)?;
            layer.shares = shares(&all, &predicted, k, classes);
            for (counts, class) in all.iter().zip(&predicted) {
                let class = *class as usize;
                known[class].push(layer.statistic(counts, k, class, classes));
            }
            context.observer.on(Event::Advance { done, loss: None });
        }
        context.observer.on(Event::End);
        let absent = known.iter().filter(|known| known.is_empty()).count();
        if absent > 0 {
            context.observer.on(Event::Warning(&format!(
                "{absent} of {classes} classes are never predicted on {}: images taken for one of them score 0",
                train.name(),
            )));
        }
        Ok(Jtla { config: self.clone(), k, layers, labels, predictor, known })
    }

    fn load(stored: &Stored<'_>) -> Result<Jtla> {
        #[derive(Deserialize)]
        struct Config {
            settings: JtlaConfig,
            k: usize,
            layers: Vec<Option<String>>,
            counts: Vec<usize>,
        }
        let Config { settings: config, k, layers: names, counts } = stored.config()?;
        let predictor = Predictor::load(&stored.part("predictor")?)?;
        let classes = predictor.classes();
        let refused = || contradiction(stored);
        let rows = counts.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        let rows = rows.filter(|_| counts.len() == classes).ok_or_else(refused)?;
        let labels = stored.file.i64(&stored.name("labels"), &[rows])?;
        let class = |label: i64| u32::try_from(label).ok().filter(|l| (*l as usize) < classes);
        let labels =
            labels.into_iter().map(class).collect::<Option<Vec<u32>>>().ok_or_else(refused)?;
        let layer = |(i, name): (usize, Option<String>)| {
            let part = name.map(|name| Part::named(&name)).transpose()?;
            let stored = stored.part(&format!("layer{i}"))?;
            let (_, of, index): (JtlaConfig, usize, _) = Indexed::load(&stored)?;
            if of != k || index.rows.len() != rows {
                return Err(refused());
            }
            let shares = stored.file.f64(&stored.name("shares"), &[classes; 2])?;
            if shares.iter().any(|share| !(*share > 0.0 && *share <= 1.0)) {
                return Err(refused());
            }
            Ok(Layer { part, index, shares })
        };
        let layers = names.into_iter().enumerate().map(layer).collect::<Result<Vec<_>>>()?;
        if layers.is_empty() || k == 0 || k >= rows {
            return Err(refused());
        }
        let all = stored.file.f64(&stored.name("statistics"), &[layers.len() * rows])?;
        let mut rest = &all[..];
        let known = counts.iter().map(|n| {
            let (own, others) = rest.split_at(n * layers.len());
            rest = others;
            own.to_vec()
        });
        let known = known.collect();
        Ok(Jtla { config, k, layers, labels, predictor, known })
    }
}

/// −ln of the fraction.
fn surprise(count: usize, of: usize) -> f64 {
    -(count as f64 / of as f64).max(LEAST).ln()
}

impl Jtla {
    /// The score of a row by its statistics of the layers.
    fn joined(&self, class: usize, row: &[f64]) -> f64 {
        let known = &self.known[class];
        let n = known.len() / row.len();
        if n == 0 {
            return 0.0;
        }
        let columns: Vec<&[f64]> = known.chunks_exact(n).collect();
        let alone = columns.iter().zip(row);
        let alone = alone.map(|(known, t)| known.iter().filter(|known| *known >= t).count());
        let mut score: f64 = alone.map(|count| surprise(count, n)).sum();
        if self.config.pairs {
            for (i, (first, t)) in columns.iter().zip(row).enumerate() {
                for (second, u) in columns[..i].iter().zip(row) {
                    let both = first.iter().zip(*second).filter(|(a, b)| *a >= t && *b >= u);
                    score += surprise(both.count(), n);
                }
            }
        }
        score
    }
}

impl Scorer for Jtla {
    fn name(&self) -> &'static str {
        "jtla"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.layers
            .iter()
            .try_fold(self.predictor.needs(set)?, |needs, layer| Ok(needs.and(layer.needs(set)?)))
    }

    fn parts(&self) -> Vec<Part> {
        self.layers.iter().filter_map(|layer| layer.part).collect()
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let (classes, layers) = (self.predictor.classes(), self.layers.len());
        let predicted = self.predictor.predict_batch(batch);
        let mut statistics = vec![0.0; out.len() * layers];
        for (i, layer) in self.layers.iter().enumerate() {
            let of_part;
            let batch = match layer.part {
                Some(part) => {
                    of_part = batch.part(part);
                    &of_part
                }
                None => batch,
            };
            layer.index.each_nearest(batch, self.k, |row, nearest| {
                let labels = nearest.iter().map(|(_, i)| self.labels[*i as usize]);
                let class = predicted[row] as usize;
                statistics[row * layers + i] =
                    layer.statistic(&counts(labels), self.k, class, classes);
            });
        }
        let rows = predicted.iter().zip(statistics.chunks_exact(layers));
        for (o, (class, row)) in out.iter_mut().zip(rows) {
            *o = reduce::finite(self.joined(*class as usize, row));
        }
    }

    fn section(&self) -> Section {
        let labels = self.labels.iter().map(|label| i64::from(*label)).collect();
        let statistics: Vec<f64> = self.known.concat();
        let rows: Vec<usize> = self.known.iter().map(|k| k.len() / self.layers.len()).collect();
        let names: Vec<Option<&str>> =
            self.layers.iter().map(|l| l.part.map(|part| part.name())).collect();
        let config =
            json!({ "settings": self.config, "k": self.k, "layers": names, "counts": rows });
        let tensors = vec![
            ("labels".to_owned(), Tensor::i64([self.labels.len()], labels)),
            ("statistics".to_owned(), Tensor::f64([statistics.len()], statistics)),
        ];
        let section = Section::new("jtla", config).with("", tensors);
        let section = section.with_part("predictor", self.predictor.section());
        let classes = self.predictor.classes();
        self.layers.iter().enumerate().fold(section, |section, (i, layer)| {
            let shares = Tensor::f64([classes; 2], layer.shares.clone());
            let own = Section::new("jtla layer", layer.index.config(&self.config, self.k));
            let own = own.with("", layer.index.tensors()).with("", vec![("shares".into(), shares)]);
            section.with_part(format!("layer{i}"), own)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of class 0's rows have neighbours of labels (0, 0, 1) and (0, 0, 0), k = 3: five of class 0, one
    /// of class 1, and of one row of the prior 1 − 2·0.1/3 and 0.1/3.
    #[test]
    fn shares_by_hand() {
        let all = [counts([0, 1, 0].into_iter()), counts([0, 0, 0].into_iter())];
        assert_eq!(all[0], [(0, 2), (1, 1)]);
        let found = shares(&all, &[0, 0], 3, 3);
        let third = 0.1 / 3.0;
        let want = [(5.0 + 1.0 - 2.0 * third) / 7.0, (1.0 + third) / 7.0, third / 7.0];
        for (found, want) in found.iter().zip(want) {
            assert!((found - want).abs() < 1e-15, "{found} {want}");
        }
        // A class without rows has the prior.
        assert!((found[4] - (1.0 - 2.0 * third)).abs() < 1e-15);
    }

    #[test]
    fn no_row_is_no_surprise_beyond_the_least() {
        assert_eq!(surprise(5, 5), 0.0);
        assert_eq!(surprise(0, 5), -(1e-16f64.ln()));
    }
}
