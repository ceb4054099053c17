//! Deep k nearest neighbours (`dknn`): how many of the k nearest training rows have another label
//! than the class that is predicted. A whole number from 0 to k, so that scores have ties.
//!
//! The index and its cost are those of `knn`, and a label a row.
//!
//! *Differences from the paper*: one layer at a time (`layer=`; a composition of several adds them
//! up); the authors turn the count into a p-value by rows of calibration, which `heat calibrate` does
//! for every scorer and which ranks alike.
//!
//! Reference: Papernot & McDaniel, *Deep k-Nearest Neighbors: Towards Confident,
//! Interpretable and Robust Deep Learning*, 2018.

use super::indexed::Indexed;
use crate::error::Result;
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::scorers::context::FitContext;
use crate::scorers::input::{contradiction, feature_settings};
use crate::scorers::logit_source::check_logit_count;
use crate::scorers::logits::Predictor;
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `dknn`.
    DknnConfig, normalize = false;
    /// Number of neighbours.
    k: usize = 75,
}

offer! { DknnConfig => Dknn }

/// A fitted `dknn` scorer.
pub struct Dknn {
    config: DknnConfig,
    index: Indexed,
    /// Of each row of the index.
    labels: Vec<u32>,
    predictor: Predictor,
}

impl Method for DknnConfig {
    const NAME: &'static str = "dknn";
    type Scorer = Dknn;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Dknn> {
        context.require_rows("dknn")?;
        let predictor = Predictor::fit(context)?;
        check_logit_count("dknn", predictor.classes())?;
        let labels = context.train.labels(0..context.train.len(), predictor.classes())?;
        let index = Indexed::fit(self, self.k, context)?;
        Ok(Dknn { config: self.clone(), index, labels, predictor })
    }

    fn load(stored: &Stored<'_>) -> Result<Dknn> {
        let (config, k, index): (DknnConfig, _, _) = Indexed::load(stored)?;
        if config.k != k {
            return Err(contradiction(stored));
        }
        let predictor = Predictor::load(&stored.part("predictor")?)?;
        let labels = stored.file.i64(&stored.name("labels"), &[index.rows.len()])?;
        let class = |label: i64| u32::try_from(label).ok();
        let labels: Option<Vec<u32>> = labels.into_iter().map(class).collect();
        let labels = labels.ok_or_else(|| contradiction(stored))?;
        Ok(Dknn { config, index, labels, predictor })
    }
}

impl Scorer for Dknn {
    fn name(&self) -> &'static str {
        "dknn"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        Ok(self.index.input.needs(set)?.and(self.predictor.needs(set)?))
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let predicted = self.predictor.predict_batch(batch);
        self.index.each_nearest(batch, self.config.k, |row, nearest| {
            let other = |(_, i): &&(f64, u32)| self.labels[*i as usize] != predicted[row];
            out[row] = nearest.iter().filter(other).count() as f32;
        });
    }

    fn section(&self) -> Section {
        let labels = self.labels.iter().map(|label| i64::from(*label)).collect();
        let labels = Tensor::i64([self.labels.len()], labels);
        let config = self.index.config(&self.config, self.config.k);
        Section::new("dknn", config)
            .with("", self.index.tensors())
            .with("", vec![("labels".into(), labels)])
            .with_part("predictor", self.predictor.section())
    }
}
