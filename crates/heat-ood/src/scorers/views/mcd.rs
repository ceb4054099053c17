//! Monte Carlo dropout (`mcd`): what the network makes of an image in several passes that each leave out other
//! activations. p_k are the probabilities of pass k.
//!
//! - `mode=var` (the default): the mean over the classes of the variance of p_k, with Bessel's correction.
//! - `mode=mean`: 1 − max of the mean of p_k, as the sum of the others.
//! - `mode=logits`: 1 − max softmax of the mean logits.
//!
//! Mean and deviation over the passes are a view, `dropoutK` of K passes, which extraction makes where the graph
//! still has its dropout: batch normalisation stays as in evaluation, and a pass drops the same activations of every
//! image, so that what an image scores does not hang on those beside it. Nothing is fitted, so the training set needs no view;
//! cost per row O(C), and K passes of what comes after the first dropout.
//!
//! `var` and `mean` are pytorch-ood's modes (its `mean` is one less), `logits` is OpenOOD's, which drops features
//! before the head alone, whatever the network was trained with.
//!
//! References: Gal & Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016; Kendall et al., *Bayesian SegNet*,
//! BMVC 2017 (`var`).

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Part, View};
use crate::math::reduce;
use crate::scorers::context::FitContext;
use crate::scorers::input::contradiction;
use crate::scorers::method::{Method, offer};
use crate::scorers::{Scorer, Section, Stored};

/// Settings of `mcd`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct McdConfig {
    /// What of the passes is the score: `var`, `mean` or `logits`.
    pub mode: PassesMode,
    /// Passes: K of the view `dropoutK`.
    pub samples: u32,
}

impl Default for McdConfig {
    fn default() -> Self {
        McdConfig { mode: PassesMode::Var, samples: 30 }
    }
}

/// What of several passes is the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassesMode {
    /// Variance of the probabilities.
    Var,
    /// The largest mean probability.
    Mean,
    /// The largest probability of the mean logits.
    Logits,
}

offer! { McdConfig => Mcd }

/// A fitted `mcd` scorer.
pub struct Mcd {
    config: McdConfig,
    view: Part,
    field: Field,
    /// C, where the training set tells it.
    classes: Option<usize>,
}

impl Mcd {
    fn new(config: McdConfig, classes: Option<usize>) -> Result<Self> {
        let view = View::known(&format!("dropout{}", config.samples));
        let problem = || Error::config("samples", config.samples, "a number from 2 to 1000");
        let view = view.ok_or_else(problem)?.part()?;
        let field = match config.mode {
            PassesMode::Var => Field::Spread,
            PassesMode::Mean => Field::Probabilities,
            PassesMode::Logits => Field::Logits,
        };
        Ok(Mcd { config, view, field: field.within(view), classes })
    }
}

impl Method for McdConfig {
    const NAME: &'static str = "mcd";
    type Scorer = Mcd;

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Mcd> {
        let mut scorer = Mcd::new(self.clone(), None)?;
        let told = [scorer.field, Field::Logits, Field::Probabilities];
        scorer.classes = told.into_iter().find_map(|field| context.train.dim(field));
        for field in scorer.needs_of_training(context.train)?.fields() {
            context.reads(field);
        }
        Ok(scorer)
    }

    fn load(stored: &Stored<'_>) -> Result<Mcd> {
        #[derive(Deserialize)]
        struct Config {
            settings: McdConfig,
            classes: Option<usize>,
        }
        let Config { settings, classes } = stored.config()?;
        Mcd::new(settings, classes).map_err(|_| contradiction(stored))
    }
}

impl Scorer for Mcd {
    fn name(&self) -> &'static str {
        "mcd"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        set.part(self.view).map_err(|_| {
            let name = self.view.name();
            let remedy =
                format!("`heat extract --views {name}` makes it, of a network that has dropout");
            Error::missing(set.name(), format!("view `{name}`"), remedy)
        })?;
        let columns = set.require(self.field)?;
        if columns == 1 {
            let problem = "of one class all passes say the same";
            return Err(Error::Fit { what: "mcd".into(), problem: problem.into() });
        }
        FieldSet::checked(set, self.field, self.classes.unwrap_or(columns))
    }

    fn needs_of_training(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.needs(set).or_else(|_| Ok(FieldSet::default()))
    }

    fn parts(&self) -> Vec<Part> {
        vec![self.view]
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let classes = batch.dim(self.field);
        let rows = batch.get(self.field);
        if self.config.mode == PassesMode::Logits {
            let scores = reduce::softmax_complement_rows(rows, classes);
            out.iter_mut().zip(scores).for_each(|(o, s)| *o = s as f32);
            return;
        }
        for (o, row) in out.iter_mut().zip(rows.chunks_exact(classes)) {
            let score = match self.config.mode {
                PassesMode::Var => reduce::norm2(row) / classes as f64,
                _ => {
                    let top = reduce::argmax(row) as usize;
                    let others = row.iter().enumerate().filter(|(c, _)| *c != top);
                    others.map(|(_, p)| f64::from(*p)).sum()
                }
            };
            *o = reduce::finite(score);
        }
    }

    fn section(&self) -> Section {
        Section::new("mcd", json!({ "settings": self.config, "classes": self.classes }))
    }
}
