//! KL matching (`klm`): min_k KL(softmax(logits) ‖ t_k), t_k the mean softmax
//! of the training rows *predicted* as k. A class never predicted is left out.
//!
//! One pass over the training set, O(N·C) beside the logits; cost per row
//! O(C²). Everything in f64.
//!
//! Reference: Hendrycks et al., *Scaling Out-of-Distribution Detection for Real-World Settings*, ICML 2022.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet};
use crate::io::Tensor;
use crate::math::linalg::product_nt;
use crate::math::moments::ClassMeans;
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::reduce;
use crate::observe::Event;
use crate::scorers::context::{Block, FitContext, Statistic, StatisticRequest};
use crate::scorers::input::contradiction;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{LogitsConfig, Scorer, Section, Stored};

logits_settings! {
    /// Settings of `klm`.
    KlmConfig;
}

/// Rows whose softmax is averaged at a time.
const ROWS: usize = 4096;

offer! { KlmConfig => Klm }

/// A fitted `klm` scorer.
pub struct Klm {
    source: Arc<LogitSource>,
    /// log t_k of the classes that were predicted, `[K, C]`.
    templates: Vec<f64>,
}

/// Turn logits into probabilities p; returns Σ p log p.
fn probabilities(logits: &mut [f64]) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    let mut weighted = 0.0;
    for v in logits.iter_mut() {
        let off = *v - largest;
        *v = off.exp();
        sum += *v;
        // A logit of −∞ contributes nothing.
        weighted += if *v > 0.0 { *v * off } else { 0.0 };
    }
    logits.iter_mut().for_each(|v| *v /= sum);
    weighted / sum - sum.ln()
}

/// The mean softmax of the rows predicted as each class.
struct Templates {
    source: Arc<LogitSource>,
    means: ClassMeans,
}

impl Templates {
    fn request(source: &Arc<LogitSource>) -> StatisticRequest {
        let means = ClassMeans::new(source.classes(), source.classes());
        let key = format!("templates {}", source.key());
        let statistic = Box::new(Templates { source: Arc::clone(source), means });
        StatisticRequest { key, statistic }
    }
}

impl Statistic for Templates {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let logits = block.logits(&self.source)?;
        let classes = self.source.classes();
        for logits in logits.chunks(ROWS * classes) {
            let mut rows = vec![0.0f32; logits.len()];
            let pieces = rows.par_chunks_mut(64 * classes).zip(logits.par_chunks(64 * classes));
            pieces.for_each(|(rows, logits)| {
                let mut p: Vec<f64> = logits.iter().map(|&v| f64::from(v)).collect();
                for p in p.chunks_exact_mut(classes) {
                    probabilities(p);
                }
                rows.iter_mut().zip(p).for_each(|(r, p)| *r = p as f32);
            });
            let predicted: Vec<u32> = logits.par_chunks(classes).map(reduce::argmax).collect();
            self.means.update(&rows, &predicted);
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Means(&mut self.means, None)]
    }
}

impl KlmConfig {
    fn source(&self, context: &mut FitContext<'_>) -> Result<Arc<LogitSource>> {
        let source = context.logits("klm", &LogitsConfig::from(self))?;
        let classes = source.classes();
        if classes.saturating_mul(classes) > 1 << 28 {
            let problem = format!("{classes} classes are too many for a template each");
            return Err(Error::Fit { what: "klm".into(), problem });
        }
        Ok(source)
    }
}

impl Method for KlmConfig {
    const NAME: &'static str = "klm";
    type Scorer = Klm;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        Ok(vec![Templates::request(&self.source(context)?)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Klm> {
        let source = self.source(context)?;
        let classes = source.classes();
        let found = context.find::<Templates>(Templates::request(&source))?;
        let means = found.means.clone();
        let counts = means.counts().to_vec();
        let absent = counts.iter().filter(|n| **n == 0).count();
        if absent > 0 {
            let which: Vec<String> =
                (0..classes).filter(|k| counts[*k] == 0).take(5).map(|k| k.to_string()).collect();
            context.observer.on(Event::Warning(&format!(
                "{absent} of {classes} classes are never predicted on {} and have no template ({}{})",
                context.train.name(),
                which.join(", "),
                if absent > which.len() { ", …" } else { "" }
            )));
        }
        let means = means.finish();
        let present = means.chunks_exact(classes).zip(&counts).filter(|(_, n)| **n > 0);
        // A probability that vanished in every row must not become log 0.
        let log = |v: &f64| v.max(f64::MIN_POSITIVE).ln();
        let templates = present.flat_map(|(t, _)| t.iter().map(log)).collect();
        Ok(Klm { source, templates })
    }

    fn load(stored: &Stored<'_>) -> Result<Klm> {
        let source = Arc::new(LogitSource::load(stored)?);
        let name = stored.name("log_templates");
        let shape = stored.file.shape(&name)?.to_vec();
        let templates = stored.file.f64(&name, &shape)?;
        if shape.len() != 2 || shape[0] == 0 || shape[1] != source.classes() {
            return Err(contradiction(stored));
        }
        Ok(Klm { source, templates })
    }
}

impl Scorer for Klm {
    fn name(&self) -> &'static str {
        "klm"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.source.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let classes = self.source.classes();
        let k = self.templates.len() / classes;
        let logits = self.source.logits(batch);
        let mut p: Vec<f64> = logits.into_iter().map(f64::from).collect();
        // KL = Σ p log p − Σ p log t.
        let own: Vec<f64> = p.chunks_exact_mut(classes).map(probabilities).collect();
        let mut cross = vec![0.0; out.len() * k];
        product_nt(&p, &self.templates, &mut cross, classes);
        for ((o, own), cross) in out.iter_mut().zip(own).zip(cross.chunks_exact(k)) {
            *o = (own - cross.iter().copied().fold(f64::NEG_INFINITY, f64::max)) as f32;
        }
    }

    fn section(&self) -> Section {
        let classes = self.source.classes();
        let k = self.templates.len() / classes;
        let tensor = Tensor::f64([k, classes], self.templates.clone());
        self.source.section("klm").with("", vec![("log_templates".into(), tensor)])
    }
}
