//! Similarity to the class means (`mean`): −max_k z·m_k, or −logsumexp_k.
//!
//! z is normalised; m_k is the mean of the training rows of class k, then
//! normalised (METHOD §3). With `normalize_rows` each row is normalised before
//! it is averaged, as the published image path does. One pass, O(N·D); cost
//! per row O(D·C).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, FieldSet, Head, Present};
use crate::io::check_means;
use crate::math::matmul::with_scratch;
use crate::math::moments::ClassMeans;
use crate::math::reduce;
use crate::scorers::context::{Block, By, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{Input, contradiction, feature_settings, load_head};
use crate::scorers::logits::energy_logits::energies;
use crate::scorers::method::{Method, offer};
use crate::scorers::pieces::Slot;
use crate::scorers::{Scorer, Section, Stored};

/// How the similarities to all classes become one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    /// −max.
    #[default]
    Max,
    /// −logsumexp.
    Logsumexp,
}

feature_settings! {
    /// Settings of `mean`.
    MeanConfig, normalize = false;
    /// How the similarities become one score.
    reduce: Reduce = Reduce::Max,
    /// Normalise rows before averaging them.
    normalize_rows: bool = false,
}

offer! { MeanConfig => Mean }

/// A fitted `mean` scorer.
pub struct Mean {
    config: MeanConfig,
    input: Input,
    /// Normalised class means, as a head without bias.
    means: Head,
}

/// The mean row of each class.
struct ClassRows {
    source: Source,
    present: Arc<Present>,
    normalize: bool,
    means: ClassMeans,
}

impl Statistic for ClassRows {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let labels = self.present.labels(block.train, block.range.clone())?;
        let rows = block.rows(&self.source)?;
        if self.normalize {
            self.means.update(&normalize_all(&rows, self.source.dim), &labels);
        } else {
            self.means.update(&rows, &labels);
        }
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        let classes = By::Label(Arc::clone(&self.present)).classes();
        vec![Slot::Means(&mut self.means, classes)]
    }
}

impl MeanConfig {
    fn request(&self, source: &Source, present: &Arc<Present>) -> Result<StatisticRequest> {
        check_means("mean", source.dim, present.count)?;
        let statistic = Box::new(ClassRows {
            source: source.clone(),
            present: Arc::clone(present),
            normalize: self.normalize_rows,
            means: ClassMeans::new(source.dim, present.count),
        });
        let key = format!("means of classes {} {}", self.normalize_rows, source.key);
        Ok(StatisticRequest { key, statistic })
    }
}

impl Method for MeanConfig {
    const NAME: &'static str = "mean";
    type Scorer = Mean;

    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        let present = context.present()?;
        Ok(vec![self.request(&context.source(self)?, &present)?])
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Mean> {
        let present = context.present()?;
        let source = context.source(self)?;
        let found = context.find::<ClassRows>(self.request(&source, &present)?)?;
        let (means, input) = (found.means.clone(), source.input);
        let mut weight: Vec<f32> = means.finish().into_iter().map(|v| v as f32).collect();
        for (k, mean) in weight.chunks_exact_mut(input.dim).enumerate() {
            if mean.iter().all(|v| *v == 0.0) {
                let class = present.class(k);
                let problem =
                    format!("class {class} has a mean of zero in {}", context.train.name());
                return Err(Error::Fit { what: "mean".into(), problem });
            }
            reduce::normalize(mean);
        }
        let means = Head::new(weight, vec![0.0; present.count])?;
        Ok(Mean { config: self.clone(), input, means })
    }

    fn load(stored: &Stored<'_>) -> Result<Mean> {
        let (config, input) = Input::load(stored)?;
        let means = load_head(stored.file, &stored.name("means."))?;
        if means.dim() != input.dim {
            return Err(contradiction(stored));
        }
        Ok(Mean { config, input, means })
    }
}

fn normalize_all(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut out = rows.to_vec();
    out.chunks_exact_mut(dim).for_each(reduce::normalize);
    out
}

impl Scorer for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.input.needs(set)
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        let rows = normalize_all(&self.input.stepped(batch), self.input.dim);
        let classes = self.means.classes();
        let mut products = vec![0.0; out.len() * classes];
        with_scratch(|scratch| self.means.logits(&rows, &mut products, scratch));
        match self.config.reduce {
            Reduce::Max => {
                let rows = products.chunks_exact(classes);
                out.iter_mut().zip(rows).for_each(|(o, row)| *o = -reduce::max(row));
            }
            Reduce::Logsumexp => energies(&products, classes, out),
        }
    }

    fn section(&self) -> Section {
        let config = json!({ "settings": self.config, "input_dim": self.input.input_dim });
        Section::new("mean", config)
            .with("means.", self.means.tensors())
            .with("", self.input.tensors())
    }
}
