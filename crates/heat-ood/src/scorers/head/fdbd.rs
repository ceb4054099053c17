//! Distance to the decision boundaries (`fdbd`):
//! −mean_{c≠ŷ} (ℓ_ŷ − ℓ_c)/‖w_ŷ − w_c‖ ÷ ‖z − μ‖.
//!
//! ℓ logits, ŷ the predicted class, w_c rows of W, μ the mean of the training
//! rows: the distance of z to the boundary between ŷ and every other class,
//! relative to its distance to μ. `normalizer=norm` divides by ‖z‖ instead, as
//! the authors do where it serves better, `none` by nothing. Classes of equal
//! w have no boundary and are left out. One pass, O(N·D); cost per row
//! O(D·C).
//!
//! Reference: Liu and Qin, *Fast Decision Boundary based Out-of-Distribution Detector*, ICML 2024.

use serde::{Deserialize, Serialize};

use super::with_head::{MeanRow, WithHead};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::io::Tensor;
use crate::math::parallel::{Pieces, SlicesMut};
use crate::math::reduce;
use crate::scorers::context::{FitContext, StatisticRequest};
use crate::scorers::input::{feature_settings, require_head};
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

/// What the distance to the boundaries is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalizer {
    /// ‖z − μ‖.
    #[default]
    Distance,
    /// ‖z‖.
    Norm,
    /// Nothing.
    None,
}

feature_settings! {
    /// Settings of `fdbd`.
    FdbdConfig, normalize = false;
    /// What the distance to the boundaries is relative to.
    normalizer: Normalizer = Normalizer::Distance,
}

offer! { FdbdConfig => Fdbd }

/// A fitted `fdbd` scorer.
pub struct Fdbd {
    config: FdbdConfig,
    input: WithHead,
    /// μ.
    mean: Vec<f64>,
    /// 1/‖w_i − w_j‖, zero where they are equal, `[C, C]`.
    inverse: Vec<f32>,
}

impl Method for FdbdConfig {
    const NAME: &'static str = "fdbd";
    type Scorer = Fdbd;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        require_head("fdbd", context.head)?;
        Ok(vec![MeanRow::request(&context.source(self)?)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Fdbd> {
        let input = WithHead::fit("fdbd", self, context)?;
        let classes = input.head.classes();
        if classes.saturating_mul(classes) > 1 << 28 {
            let problem = format!("{classes} classes are too many for a boundary between each two");
            return Err(Error::Fit { what: "fdbd".into(), problem });
        }
        let source = context.source(self)?;
        let mean = MeanRow::find(&source, context)?;
        let inverse = inverse_distances(&input.head);
        Ok(Fdbd { config: self.clone(), input, mean, inverse })
    }

    fn load(stored: &Stored<'_>) -> Result<Fdbd> {
        let (config, input) = WithHead::load(stored)?;
        let mean = stored.file.f64(&stored.name("mean"), &[input.dim()])?;
        let classes = input.head.classes();
        let inverse = stored.file.f32(&stored.name("inverse"), &[classes, classes])?;
        Ok(Fdbd { config, input, mean, inverse })
    }
}

/// 1/‖w_i − w_j‖.
fn inverse_distances(head: &Head) -> Vec<f32> {
    let (classes, dim) = (head.classes(), head.dim());
    let row = |i: usize| &head.weight()[i * dim..][..dim];
    let mut out = vec![0.0; classes * classes];
    out.par_chunks_mut(classes).enumerate().for_each(|(i, out)| {
        for (j, o) in out.iter_mut().enumerate() {
            let distance = reduce::distance2(row(i), row(j)).sqrt();
            *o = if distance > 0.0 { (1.0 / distance) as f32 } else { 0.0 };
        }
    });
    out
}

impl Fdbd {
    fn length(&self, row: &[f32]) -> f64 {
        let length = match self.config.normalizer {
            Normalizer::Distance => reduce::square_about(row, &self.mean).sqrt(),
            Normalizer::Norm => reduce::norm2(row).sqrt(),
            Normalizer::None => return 1.0,
        };
        length.max(f64::MIN_POSITIVE)
    }
}

impl Scorer for Fdbd {
    fn name(&self) -> &'static str {
        "fdbd"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let classes = self.input.head.classes();
        let others = classes.saturating_sub(1).max(1) as f64;
        let rows = self.input.input.stepped(batch);
        let logits = self.input.logits(&rows);
        let pairs = rows.chunks_exact(self.input.dim()).zip(logits.chunks_exact(classes));
        for (o, (row, logits)) in out.iter_mut().zip(pairs) {
            let top = reduce::argmax(logits) as usize;
            let inverse = &self.inverse[top * classes..][..classes];
            let largest = logits[top];
            let distances = logits.iter().zip(inverse);
            let sum: f64 = distances.map(|(&l, &i)| f64::from(largest - l) * f64::from(i)).sum();
            *o = reduce::finite(-sum / (others * self.length(row)));
        }
    }

    fn section(&self) -> Section {
        let classes = self.input.head.classes();
        let tensors = vec![
            ("mean".into(), Tensor::f64([self.input.dim()], self.mean.clone())),
            ("inverse".into(), Tensor::f32([classes, classes], self.inverse.clone())),
        ];
        self.input.section("fdbd", &self.config).with("", tensors)
    }
}
