//! Stored patterns (`she`): −z·S_ŷ, S_k the mean of the training rows of
//! class k that are predicted correctly, ŷ the predicted class.
//!
//! One pass over the training set, O(N·D·C); cost per row O(D·C). A class
//! without a correctly predicted row has no pattern, which is said; rows that
//! would need it are compared with the likeliest class that has one.
//!
//! Reference: Zhang et al., *Out-of-Distribution Detection based on In-Distribution Data Patterns Memorization with Modern Hopfield Energy*, ICLR 2023.

use super::with_head::WithHead;
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::io::Tensor;
use crate::math::matmul::with_scratch;
use crate::math::moments::ClassMeans;
use crate::math::parallel::{Pieces, Slices, SlicesMut};
use crate::math::reduce;
use crate::observe::Event;
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{feature_settings, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `she`.
    SheConfig, normalize = false;
}

offer! { SheConfig => She }

/// A fitted `she` scorer.
pub struct She {
    config: SheConfig,
    input: WithHead,
    /// S, `[C, D]`.
    patterns: Vec<f32>,
}

/// Means of the correctly predicted rows by class, and of all others.
struct Patterns {
    source: Source,
    head: Head,
    means: ClassMeans,
}

impl Statistic for Patterns {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        const ROWS: usize = 256;
        let (dim, classes) = (self.source.dim, self.head.classes());
        let mut labels = block.train.labels(block.range.clone(), classes)?;
        let rows = block.rows(&self.source)?;
        let (head, means, rows) = (&self.head, &mut self.means, &*rows);
        let pieces = labels.par_chunks_mut(ROWS).zip(rows.par_chunks(ROWS * dim));
        pieces.for_each(|(labels, rows)| {
            let mut logits = vec![0.0; labels.len() * classes];
            with_scratch(|scratch| head.logits(rows, &mut logits, scratch));
            for (label, row) in labels.iter_mut().zip(logits.chunks_exact(classes)) {
                if reduce::argmax(row) != *label {
                    *label = classes as u32;
                }
            }
        });
        means.update(rows, &labels);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Means(&mut self.means, None)]
    }
}

impl SheConfig {
    fn request(source: &Source, head: Head) -> StatisticRequest {
        let means = ClassMeans::new(source.dim, head.classes() + 1);
        let key = format!("patterns {}", source.key);
        StatisticRequest {
            key,
            statistic: Box::new(Patterns { source: source.clone(), head, means }),
        }
    }
}

impl Method for SheConfig {
    const NAME: &'static str = "she";
    type Scorer = She;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        let head = require_head("she", context.head)?;
        let source = context.source(self)?;
        Ok(vec![Self::request(&source, source.head(head)?)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<She> {
        let input = WithHead::fit("she", self, context)?;
        let source = context.source(self)?;
        let found = context.find::<Patterns>(Self::request(&source, input.head.clone()))?;
        let classes = input.head.classes();
        let counts = &found.means.counts()[..classes];
        let without: Vec<usize> = (0..classes).filter(|k| counts[*k] == 0).collect();
        if without.len() == classes {
            let problem = format!("no row of {} is predicted correctly", context.train.name());
            return Err(Error::Fit { what: "she".into(), problem });
        }
        if !without.is_empty() {
            let first: Vec<String> = without.iter().take(5).map(usize::to_string).collect();
            context.observer.on(Event::Warning(&format!(
                "{} of {classes} classes have no correctly predicted row in {}, and so no pattern: \
                 rows are compared with the likeliest of the others ({}{})",
                without.len(),
                context.train.name(),
                first.join(", "),
                if without.len() > first.len() { ", …" } else { "" }
            )));
        }
        let means = found.means.clone().finish();
        let patterns = means[..classes * input.dim()].iter().map(|&v| v as f32).collect();
        Ok(She { config: self.clone(), input, patterns })
    }

    fn load(stored: &Stored<'_>) -> Result<She> {
        let (config, input) = WithHead::load(stored)?;
        let shape = [input.head.classes(), input.dim()];
        let patterns = stored.file.f32(&stored.name("patterns"), &shape)?;
        Ok(She { config, input, patterns })
    }
}

impl Scorer for She {
    fn name(&self) -> &'static str {
        "she"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let (dim, classes) = (self.input.dim(), self.input.head.classes());
        let rows = self.input.input.stepped(batch);
        let logits = self.input.logits(&rows);
        let pairs = rows.chunks_exact(dim).zip(logits.chunks_exact(classes));
        let pattern = |class: u32| &self.patterns[class as usize * dim..][..dim];
        for (o, (row, logits)) in out.iter_mut().zip(pairs) {
            let mut best = pattern(reduce::argmax(logits));
            if best.iter().all(|v| *v == 0.0) {
                // A class without a pattern: the likeliest that has one.
                let there = (0..classes as u32).filter(|c| pattern(*c).iter().any(|v| *v != 0.0));
                let likeliest = there.max_by(|a, b| {
                    logits[*a as usize].total_cmp(&logits[*b as usize]).then(b.cmp(a))
                });
                best = likeliest.map_or(best, pattern);
            }
            *o = -reduce::dot(row, best) as f32;
        }
    }

    fn section(&self) -> Section {
        let shape = [self.input.head.classes(), self.input.dim()];
        let patterns = Tensor::f32(shape, self.patterns.clone());
        self.input.section("she", &self.config).with("", vec![("patterns".into(), patterns)])
    }
}
