//! Trust score (`trust`): d_ŷ / min_{k≠ŷ} d_k, d_k the distance to the nearest training row of class
//! k, ŷ the predicted class. The authors' score is its inverse, which ranks alike.
//!
//! Of each class a fraction `alpha` of the rows is left out: those with the largest distance to their `k`-th
//! neighbour in the class. 1 where both distances are 0; the largest number of single precision where the
//! predicted class has no row, or a row of another class is the same and none of ŷ is.
//!
//! Every class has an index of its own: cost per row as for `knn` with k = 1, and that of C searches;
//! the fit is O(Σ n_k²·D) with `alpha`, else O(N·D).
//!
//! Reference: Jiang et al., *To Trust Or Not To Trust A Classifier*, NeurIPS 2018.

use serde_json::json;

use super::bank::{CENTRE_ROWS, Order, QUERIES, centre, gather, subtract};
use super::index::Neighbours;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::{Floats, Tensor};
use crate::observe::Event;
use crate::scorers::context::FitContext;
use crate::scorers::input::{Input, contradiction, feature_settings};
use crate::scorers::logits::Predictor;
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `trust`.
    TrustConfig, normalize = false;
    /// Fraction of each class that is left out.
    alpha: f64 = 0.0,
    /// Which neighbour tells how far from the others a row lies.
    k: usize = 10,
}

offer! { TrustConfig => Trust }

/// A fitted `trust` scorer.
pub struct Trust {
    config: TrustConfig,
    input: Input,
    centre: Vec<f32>,
    /// Of each class, if it has rows.
    classes: Vec<Option<Neighbours>>,
    predictor: Predictor,
}

impl Method for TrustConfig {
    const NAME: &'static str = "trust";
    type Scorer = Trust;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Trust> {
        if !(0.0..1.0).contains(&self.alpha) {
            let problem = "a fraction that is left out is at least 0 and below 1";
            return Err(Error::config("alpha", self.alpha, problem));
        }
        context.require_rows("trust")?;
        let train = context.train;
        let predictor = Predictor::fit(context)?;
        let labels = train.labels(0..train.len(), predictor.classes())?;
        let mut members = vec![Vec::new(); predictor.classes()];
        (0..).zip(&labels).for_each(|(row, label)| members[*label as usize].push(row));
        if members.iter().filter(|rows| !rows.is_empty()).count() < 2 {
            let problem = "it compares distances to two classes, and one alone has rows";
            return Err(Error::Fit { what: "trust".into(), problem: problem.into() });
        }
        let input = context.source(self)?.input;
        let read = |rows: &[u32]| -> Result<Vec<f32>> {
            let mut values = vec![0.0; rows.len() * input.input_dim];
            train.gather(input.field(), rows, &mut values)?;
            Ok(input.steps.apply(&values, input.input_dim))
        };
        let first: Vec<u32> = (0..train.len().min(CENTRE_ROWS) as u32).collect();
        let centre = centre(&read(&first)?, input.dim);
        let total = train.len() as u64;
        context.observer.on(Event::Begin { task: "index training rows", total });
        let (mut classes, mut done) = (Vec::with_capacity(members.len()), 0);
        for (class, rows) in members.iter().enumerate() {
            if rows.is_empty() {
                classes.push(None);
                continue;
            }
            let values = gather(rows.len(), input.dim, |range| {
                let mut values = read(&rows[range])?;
                subtract(&mut values, &centre);
                Ok(values)
            })?;
            classes.push(Some(self.class(class, values, input.dim)?));
            done += rows.len() as u64;
            context.observer.on(Event::Advance { done, loss: None });
        }
        context.observer.on(Event::End);
        Ok(Trust { config: self.clone(), input, centre, classes, predictor })
    }

    fn load(stored: &Stored<'_>) -> Result<Trust> {
        let (config, input): (TrustConfig, Input) = Input::load(stored)?;
        let predictor = Predictor::load(&stored.part("predictor")?)?;
        let counts = stored.file.i64(&stored.name("counts"), &[predictor.classes()])?;
        let counts: Option<Vec<usize>> =
            counts.into_iter().map(|n| usize::try_from(n).ok()).collect();
        let name = stored.name("index");
        let shape = stored.file.shape(&name)?.to_vec();
        let sum = |counts: &[usize]| counts.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        let counts = counts.filter(|c| sum(c).is_some_and(|n| shape == [n, input.dim]));
        let counts = counts.ok_or_else(|| contradiction(stored))?;
        let rows = stored.file.floats(&name, &shape)?;
        let mut left = &rows[..];
        let class = |n: usize| {
            let (own, after) = left.split_at(n * input.dim);
            left = after;
            let own = || Neighbours::new(Floats::new(own.to_vec()), input.dim, Order::Distance);
            (n > 0).then(own)
        };
        let classes = counts.into_iter().map(class).collect();
        let centre = stored.file.f32(&stored.name("centre"), &[input.dim])?;
        Ok(Trust { config, centre, classes, predictor, input })
    }
}

impl TrustConfig {
    /// Index the rows of a class, those that lie apart left out.
    fn class(&self, class: usize, rows: Floats, dim: usize) -> Result<Neighbours> {
        let n = rows.len() / dim;
        let all = Neighbours::new(rows, dim, Order::Distance);
        let left_out = (self.alpha * n as f64) as usize;
        if left_out == 0 {
            return Ok(all);
        }
        if self.k == 0 || self.k >= n {
            let problem = format!(
                "class {class} has {n} rows, so k must lie in 1..{n} where `alpha` is not 0"
            );
            return Err(Error::config("k", self.k, problem));
        }
        let mut radii: Vec<(f64, usize)> = Vec::with_capacity(n);
        for queries in all.rows().chunks(QUERIES * dim) {
            // The row itself is the nearest.
            let nearest = all.nearest(queries, self.k + 1);
            radii.extend((radii.len()..).zip(nearest).map(|(row, found)| (found[self.k].0, row)));
        }
        radii.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut kept: Vec<usize> = radii[left_out..].iter().map(|(_, row)| *row).collect();
        kept.sort_unstable();
        let rows: Vec<f32> = kept.iter().flat_map(|row| all.row(*row as u32)).copied().collect();
        Ok(Neighbours::new(Floats::new(rows), dim, Order::Distance))
    }
}

/// Of the squared distances to the classes.
fn ratio(distances: impl Iterator<Item = f64>, predicted: u32) -> f64 {
    let (mut own, mut other) = (f64::INFINITY, f64::INFINITY);
    for (class, distance) in (0..).zip(distances) {
        if class == predicted {
            own = distance;
        } else {
            other = other.min(distance);
        }
    }
    if own == 0.0 && other == 0.0 {
        return 1.0;
    }
    (own / other).sqrt().min(f64::from(f32::MAX))
}

impl Scorer for Trust {
    fn name(&self) -> &'static str {
        "trust"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        Ok(self.input.needs(set)?.and(self.predictor.needs(set)?))
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let dim = self.input.dim;
        let predicted = self.predictor.predict_batch(batch);
        let mut rows = self.input.stepped(batch).into_owned();
        subtract(&mut rows, &self.centre);
        let blocks = rows.chunks(QUERIES * dim).zip(out.chunks_mut(QUERIES));
        for ((rows, out), predicted) in blocks.zip(predicted.chunks(QUERIES)) {
            let n = out.len();
            let of_class = |class: &Option<Neighbours>| match class {
                Some(class) => class.nearest(rows, 1).iter().map(|found| found[0].0).collect(),
                None => vec![f64::INFINITY; n],
            };
            let distances: Vec<Vec<f64>> = self.classes.iter().map(of_class).collect();
            for (i, (o, predicted)) in out.iter_mut().zip(predicted).enumerate() {
                *o = ratio(distances.iter().map(|class| class[i]), *predicted) as f32;
            }
        }
    }

    fn section(&self) -> Section {
        let dim = self.input.dim;
        let count = |class: &Option<Neighbours>| class.as_ref().map_or(0, Neighbours::len) as i64;
        let counts: Vec<i64> = self.classes.iter().map(count).collect();
        let rows: Vec<f32> =
            self.classes.iter().flatten().flat_map(|class| class.rows()[..].to_vec()).collect();
        let tensors = vec![
            ("index".into(), Tensor::f32([rows.len() / dim, dim], rows)),
            ("counts".into(), Tensor::i64([counts.len()], counts)),
            ("centre".into(), Tensor::f32([dim], self.centre.clone())),
        ];
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        Section::new("trust", config)
            .with("", tensors)
            .with("", self.input.tensors())
            .with_part("predictor", self.predictor.section())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let of = |squares: [f64; 3], predicted| ratio(squares.into_iter(), predicted);
        assert_eq!(of([1.0, 4.0, 9.0], 0), 0.5);
        assert_eq!(of([1.0, 4.0, 9.0], 2), 3.0);
        assert_eq!(of([0.0, 0.0, 9.0], 1), 1.0);
        assert_eq!(of([0.0, 4.0, f64::INFINITY], 0), 0.0);
        let largest = f64::from(f32::MAX);
        assert_eq!(of([0.0, 4.0, 9.0], 1), largest);
        assert_eq!(of([1.0, 4.0, f64::INFINITY], 2), largest);
    }
}
