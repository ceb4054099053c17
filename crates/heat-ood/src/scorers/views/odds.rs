//! Noisy odds (`odds`): max over z ≠ y of (g_z − μ_yz)/σ_yz, y the predicted class and
//! g_z = (ℓ̄_z − ℓ_z) − (ℓ̄_y − ℓ_y), ℓ the logits of the image and ℓ̄ their mean over passes of the image with
//! noise. Noise takes an ordinary image's logits the way it takes those of all images of its class; that it
//! speaks for another class more than it should tells an image that is only just taken for y.
//!
//! μ_y and σ_y are mean and standard deviation of g over the training rows predicted as y. The mean features
//! of the noisy passes are a view, `noiseNxK`: K passes, noise uniform within ±N thousandths of a normalised
//! value. A class of fewer than three rows, and a pair that never differs, has no statistics: a row without
//! any scores 0, as ordinary. One pass, C² sums; cost per row O(D·C), and K passes of the network an image.
//!
//! *Differences*: the authors draw normal noise and signs too, and take the mean of the quotients over several
//! scales; their score is compared with a quantile of the normal distribution, which `heat calibrate`
//! replaces. scio divides by the variance, over noise and images together, groups by labels, and adds up over
//! the classes.
//!
//! Reference: Roth, Kilcher, Hofmann, *The Odds are Odd: A Statistical Test for Detecting Adversarial
//! Examples*, ICML 2019, and its code.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Part, View};
use crate::io::Tensor;
use crate::math::reduce;
use crate::observe::Event;
use crate::scorers::context::{Block, FitContext, Statistic, StatisticRequest};
use crate::scorers::input::contradiction;
use crate::scorers::logit_source::{LogitSource, logits_settings};
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{LogitsConfig, Scorer, Section, Stored};

logits_settings! {
    /// Settings of `odds`.
    OddsConfig;
    /// Bound of the noise, in thousandths of a normalised value: N of the view `noiseNxK`.
    epsilon: f64 = 0.008,
    /// Passes of the network that the view is the mean of: K.
    noise_samples: usize = 256,
}

offer! { OddsConfig => Odds }

/// Rows of a class, at least, that mean and deviation are taken of.
const FEWEST: u64 = 3;

/// The view of noise within ±`epsilon`, of so many passes.
fn view(epsilon: f64, samples: usize) -> Result<View> {
    let thousandths = epsilon * 1000.0;
    let whole = thousandths.round();
    if !((thousandths - whole).abs() < 1e-6 && (1.0..=1000.0).contains(&whole)) {
        return Err(Error::config("epsilon", epsilon, "in thousandths, from 0.001 to 1"));
    }
    let named = View::known(&format!("noise{whole}x{samples}"));
    named.ok_or_else(|| Error::config("noise_samples", samples, "a number from 1 to 1000"))
}

/// What `set` must have of the view beside the logits.
fn needs(source: &LogitSource, view: Part, set: &FeatureSet) -> Result<FieldSet> {
    let own = source.needs(set)?;
    let noisy = set.part(view).map_err(|_| {
        let remedy = format!("`heat extract --views {}` makes it", view.name());
        Error::missing(set.name(), format!("view `{}`", view.name()), remedy)
    })?;
    Ok(own.and(source.needs(&noisy)?.within(view)))
}

/// The predicted class of a row, and g of all classes.
fn odds(logits: &[f32], noisy: &[f32], g: &mut [f64]) -> usize {
    let class = reduce::argmax(logits) as usize;
    let change = |z: usize| f64::from(noisy[z]) - f64::from(logits[z]);
    let own = change(class);
    g.iter_mut().enumerate().for_each(|(z, g)| *g = change(z) - own);
    class
}

/// Sums of g and of its squares over the rows predicted as each class.
struct Changes {
    source: Arc<LogitSource>,
    view: Part,
    counts: Vec<u64>,
    /// `[C, C]`.
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Changes {
    fn request(source: &Arc<LogitSource>, view: Part) -> StatisticRequest {
        let key = format!("odds {} {}", view.name(), source.key());
        let classes = source.classes();
        let zeros = || vec![0.0; classes * classes];
        let (sums, squares) = (zeros(), zeros());
        let (source, counts) = (Arc::clone(source), vec![0; classes]);
        let statistic = Box::new(Changes { source, view, counts, sums, squares });
        StatisticRequest { key, statistic }
    }

    /// μ and σ, `[C, C]`; σ is 0 where there are none.
    fn finish(&self) -> [Vec<f64>; 2] {
        let classes = self.counts.len();
        let mut means = vec![0.0; self.sums.len()];
        let mut deviations = means.clone();
        for (i, (sum, square)) in self.sums.iter().zip(&self.squares).enumerate() {
            let count = self.counts[i / classes];
            if count >= FEWEST {
                means[i] = sum / count as f64;
                deviations[i] = (square / count as f64 - means[i] * means[i]).max(0.0).sqrt();
            }
        }
        [means, deviations]
    }
}

impl Statistic for Changes {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let classes = self.source.classes();
        let logits = block.logits(&self.source)?;
        let noisy = block.train.part(self.view)?;
        let needs = self.source.needs(&noisy)?;
        let noisy = self.source.logits_of(&noisy, &needs, block.range.clone())?;
        let mut g = vec![0.0; classes];
        for (logits, noisy) in logits.chunks_exact(classes).zip(noisy.chunks_exact(classes)) {
            let class = odds(logits, noisy, &mut g);
            self.counts[class] += 1;
            let row = class * classes..(class + 1) * classes;
            let sums = self.sums[row.clone()].iter_mut().zip(&mut self.squares[row]);
            for ((sum, square), g) in sums.zip(&g) {
                *sum += g;
                *square += g * g;
            }
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![
            Slot::Counts(&mut self.counts),
            Slot::Sums(&mut self.sums),
            Slot::Sums(&mut self.squares),
        ]
    }
}

/// A fitted `odds` scorer.
pub struct Odds {
    source: Arc<LogitSource>,
    epsilon: f64,
    noise_samples: usize,
    view: Part,
    /// μ, `[C, C]`.
    means: Vec<f64>,
    /// σ, `[C, C]`; 0 where there is none.
    deviations: Vec<f64>,
}

impl OddsConfig {
    fn source(&self, context: &mut FitContext<'_>) -> Result<(Arc<LogitSource>, Part)> {
        let view = view(self.epsilon, self.noise_samples)?.part()?;
        let source = context.logits("odds", &LogitsConfig::from(self))?;
        let classes = source.classes();
        if classes.saturating_mul(classes) > 1 << 27 {
            let problem = format!("{classes} classes are too many for statistics of each pair");
            return Err(Error::Fit { what: "odds".into(), problem });
        }
        for field in needs(&source, view, context.train)?.fields() {
            context.reads(field);
        }
        Ok((source, view))
    }
}

impl Method for OddsConfig {
    const NAME: &'static str = "odds";
    type Scorer = Odds;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        let (source, view) = self.source(context)?;
        Ok(vec![Changes::request(&source, view)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Odds> {
        let (source, view) = self.source(context)?;
        let found = context.find::<Changes>(Changes::request(&source, view))?;
        let few = found.counts.iter().filter(|n| **n < FEWEST).count();
        if few > 0 {
            context.observer.on(Event::Warning(&format!(
                "{few} of {} classes are predicted for fewer than {FEWEST} rows of {}: images taken for one of \
                 them score 0",
                source.classes(),
                context.train.name(),
            )));
        }
        let [means, deviations] = found.finish();
        let (epsilon, noise_samples) = (self.epsilon, self.noise_samples);
        Ok(Odds { source, epsilon, noise_samples, view, means, deviations })
    }

    fn load(stored: &Stored<'_>) -> Result<Odds> {
        #[derive(Deserialize)]
        struct Config {
            epsilon: f64,
            noise_samples: usize,
        }
        let Config { epsilon, noise_samples } = stored.config()?;
        let view = view(epsilon, noise_samples).map_err(|_| contradiction(stored))?.part()?;
        let source = Arc::new(LogitSource::load(stored)?);
        let shape = [source.classes(); 2];
        let read = |name| stored.file.f64(&stored.name(name), &shape);
        let (means, deviations) = (read("means")?, read("deviations")?);
        if deviations.iter().any(|d| *d < 0.0) {
            return Err(contradiction(stored));
        }
        Ok(Odds { source, epsilon, noise_samples, view, means, deviations })
    }
}

impl Scorer for Odds {
    fn name(&self) -> &'static str {
        "odds"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        needs(&self.source, self.view, set)
    }

    fn parts(&self) -> Vec<Part> {
        vec![self.view]
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let classes = self.source.classes();
        let logits = self.source.logits(batch);
        let noisy = self.source.logits(&batch.part(self.view));
        let mut g = vec![0.0; classes];
        let rows = logits.chunks_exact(classes).zip(noisy.chunks_exact(classes));
        for (o, (logits, noisy)) in out.iter_mut().zip(rows) {
            let class = odds(logits, noisy, &mut g);
            let known = class * classes..(class + 1) * classes;
            let known = self.means[known.clone()].iter().zip(&self.deviations[known]);
            // Of the predicted class g is 0, and so is its deviation.
            let odds = g.iter().zip(known).filter(|(_, (_, deviation))| **deviation > 0.0);
            let odds = odds.map(|(g, (mean, deviation))| (g - mean) / deviation);
            *o = odds.reduce(f64::max).map_or(0.0, reduce::finite);
        }
    }

    fn section(&self) -> Section {
        let mut section = self.source.section("odds");
        section.config["epsilon"] = json!(self.epsilon);
        section.config["noise_samples"] = json!(self.noise_samples);
        let tensor = |values: &[f64]| Tensor::f64([self.source.classes(); 2], values.to_vec());
        let tensors = [("means", &self.means), ("deviations", &self.deviations)];
        section.with("", tensors.map(|(name, values)| (name.to_owned(), tensor(values))).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise takes the second of three classes up by 0.5 and the first, which is predicted, down by 1.
    #[test]
    fn by_hand() {
        let mut g = [0.0; 3];
        assert_eq!(odds(&[3.0, 1.0, 2.0], &[2.0, 1.5, 2.0], &mut g), 0);
        assert_eq!(g, [0.0, 1.5, 1.0]);
    }

    #[test]
    fn views_are_thousandths() {
        assert_eq!(view(0.008, 256).unwrap().to_string(), "noise8x256");
        assert_eq!(view(1.0, 1).unwrap().to_string(), "noise1000x1");
        for (epsilon, samples) in [(0.0, 4), (0.0085, 4), (1.001, 4), (-0.1, 4), (f64::NAN, 4)] {
            let said = view(epsilon, samples).unwrap_err().to_string();
            assert!(said.contains("in thousandths"), "{said}");
        }
        for samples in [0, 1001] {
            assert!(view(0.1, samples).unwrap_err().to_string().contains("noise_samples"));
        }
    }
}
