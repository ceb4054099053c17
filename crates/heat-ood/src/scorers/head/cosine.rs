//! Cosine to the head's rows (`cosine`): −logsumexp_c cos(z, W_c).
//!
//! Nothing is fitted but the feature steps; cost per row O(D·C).
//!
//! Reference: Techapanurak et al., *Hyperparameter-Free Out-of-Distribution Detection Using Cosine Similarity*, ACCV 2020.

use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::math::matmul::with_scratch;
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::{Input, contradiction, feature_settings, load_head, require_head};
use crate::scorers::logits::energy_logits::energies;
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

feature_settings! {
    /// Settings of `cosine`.
    CosineConfig, normalize = false;
}

offer! { CosineConfig => Cosine }

/// A fitted `cosine` scorer.
pub struct Cosine {
    config: CosineConfig,
    input: Input,
    /// Rows of W divided by their norms; no bias.
    head: Head,
}

impl Method for CosineConfig {
    const NAME: &'static str = "cosine";
    type Scorer = Cosine;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Cosine> {
        let head = require_head("cosine", context.head)?;
        let input = context.source(self)?.input;
        let stepped = input.head(head)?;
        let mut weight = stepped.weight().to_vec();
        for (class, row) in weight.chunks_exact_mut(input.dim).enumerate() {
            if row.iter().all(|v| *v == 0.0) {
                let problem = format!("row {class} of the head's weight is zero: it has no cosine");
                return Err(Error::Fit { what: "cosine".into(), problem });
            }
            reduce::normalize(row);
        }
        let head = Head::new(weight, vec![0.0; head.classes()])?;
        Ok(Cosine { config: self.clone(), input, head })
    }

    fn load(stored: &Stored<'_>) -> Result<Cosine> {
        let (config, input) = Input::load(stored)?;
        let head = load_head(stored.file, &stored.name("head."))?;
        if head.dim() != input.dim {
            return Err(contradiction(stored));
        }
        Ok(Cosine { config, input, head })
    }
}

impl Scorer for Cosine {
    fn name(&self) -> &'static str {
        "cosine"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let mut rows = self.input.stepped(batch).into_owned();
        rows.chunks_exact_mut(self.input.dim).for_each(reduce::normalize);
        let classes = self.head.classes();
        let mut cosines = vec![0.0; out.len() * classes];
        with_scratch(|scratch| self.head.logits(&rows, &mut cosines, scratch));
        energies(&cosines, classes, out);
    }

    fn section(&self) -> Section {
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        Section::new("cosine", config)
            .with("head.", self.head.tensors())
            .with("", self.input.tensors())
    }
}
