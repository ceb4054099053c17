//! Directed sparsification (`dice`): −logsumexp of the head with most of its
//! weights set to zero.
//!
//! Kept are the entries of the contribution matrix `W ⊙ mean(z)` (`[C, D]`)
//! that are strictly above its p-th percentile (linear interpolation over all
//! C·D entries). Features are clipped at 1e5. One pass over the training set,
//! O(N·D); cost per row O(D·C).
//!
//! Reference: Sun and Li, *DICE: Leveraging Sparsification for Out-of-Distribution Detection*, ECCV 2022.

use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head};
use crate::math::matmul::with_scratch;
use crate::math::moments::ClassMeans;
use crate::math::parallel::{Pieces, Slices};
use crate::math::{quantile, reduce};
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{
    Input, by_classes, contradiction, feature_settings, load_head, require_head,
};
use crate::scorers::logits::energy_logits::energies;
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

/// Largest value a feature may keep.
const CLIP: f32 = 1e5;

feature_settings! {
    /// Settings of `dice`.
    DiceConfig, normalize = false;
    /// Which percentile of the contributions, in [0, 100), a weight must
    /// exceed; by default 90, 5 or 70 as there are fewer than 100, fewer than
    /// 1000 or more classes (METHOD §3).
    #[serde(skip_serializing_if = "Option::is_none")]
    percentile: Option<f64> = None,
}

offer! { DiceConfig => Dice }

/// A fitted `dice` scorer.
pub struct Dice {
    config: DiceConfig,
    input: Input,
    /// The head with its masked weights.
    head: Head,
}

/// The mean of the clipped training rows.
struct ClippedMean {
    source: Source,
    means: ClassMeans,
}

impl ClippedMean {
    fn request(source: &Source) -> StatisticRequest {
        let means = ClassMeans::new(source.dim, 1);
        let key = format!("clipped mean {}", source.key);
        StatisticRequest { key, statistic: Box::new(ClippedMean { source: source.clone(), means }) }
    }
}

impl Statistic for ClippedMean {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let (rows, labels) = (block.rows(&self.source)?, vec![0; block.range.len()]);
        // Nearly never is there anything to clip.
        if rows.par_chunks(1 << 16).all(|values| reduce::max(values) <= CLIP) {
            self.means.update(&rows, &labels);
        } else {
            let clipped: Vec<f32> = rows.par_iter().map(|v| v.min(CLIP)).collect();
            self.means.update(&clipped, &labels);
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Means(&mut self.means, None)]
    }
}

impl Method for DiceConfig {
    const NAME: &'static str = "dice";
    type Scorer = Dice;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        require_head("dice", context.head)?;
        Ok(vec![ClippedMean::request(&context.source(self)?)])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Dice> {
        let head = require_head("dice", context.head)?;
        let p = self.percentile.unwrap_or(by_classes(head.classes(), [90.0, 5.0, 70.0]));
        if !(0.0..100.0).contains(&p) {
            let problem = "a percentile lies between 0 and 100 (100 would keep no weight)";
            return Err(Error::config("percentile", p, problem));
        }
        let source = context.source(self)?;
        let head = source.head(head)?;
        let mean = context.find::<ClippedMean>(ClippedMean::request(&source))?;
        let (mean, input) = (mean.means.clone().finish(), source.input);
        let contribution: Vec<f64> = head
            .weight()
            .chunks_exact(input.dim)
            .flat_map(|row| row.iter().zip(&mean).map(|(&w, m)| f64::from(w) * m))
            .collect();
        let mut sorted = contribution.clone();
        sorted.sort_by(f64::total_cmp);
        let threshold = quantile::sorted(&sorted, p / 100.0);
        let weights = head.weight().iter().zip(&contribution);
        let masked = weights.map(|(&w, c)| if *c > threshold { w } else { 0.0 }).collect();
        let head = Head::new(masked, head.bias().to_vec())?;
        Ok(Dice { config: self.clone(), input, head })
    }

    fn load(stored: &Stored<'_>) -> Result<Dice> {
        let (config, input) = Input::load(stored)?;
        let head = load_head(stored.file, &stored.name("head."))?;
        if head.dim() != input.dim {
            return Err(contradiction(stored));
        }
        Ok(Dice { config, input, head })
    }
}

impl Dice {
    /// The head with its masked weights.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

impl Scorer for Dice {
    fn name(&self) -> &'static str {
        "dice"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let mut rows = self.input.stepped(batch).into_owned();
        rows.iter_mut().for_each(|v| *v = v.min(CLIP));
        let classes = self.head.classes();
        let mut logits = vec![0.0; out.len() * classes];
        with_scratch(|scratch| self.head.logits(&rows, &mut logits, scratch));
        energies(&logits, classes, out);
    }

    fn section(&self) -> Section {
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        Section::new("dice", config)
            .with("head.", self.head.tensors())
            .with("", self.input.tensors())
    }
}
