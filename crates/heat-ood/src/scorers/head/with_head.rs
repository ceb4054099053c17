//! What scorers of features and head have in common.

use serde::Serialize;
use serde_json::json;

use crate::error::Result;
use crate::features::Head;
use crate::math::matmul::with_scratch;
use crate::math::moments::ClassMeans;
use crate::scorers::context::{Block, FitContext, Source, Statistic, StatisticRequest};
use crate::scorers::input::{FeatureSettings, Input, contradiction, load_head, require_head};
use crate::scorers::logit_source::check_logit_count;
use crate::scorers::pieces::Slot;
use crate::scorers::{Section, Stored};

/// The features a fitted scorer reads, and the head for them.
pub(in crate::scorers) struct WithHead {
    pub input: Input,
    pub head: Head,
}

impl WithHead {
    /// Of a training set whose steps are fitted.
    ///
    /// # Errors
    /// If there is no head, or it does not fit the features.
    pub fn fit(
        scorer: &str,
        settings: &impl FeatureSettings,
        context: &mut FitContext<'_>,
    ) -> Result<Self> {
        let head = require_head(scorer, context.head)?;
        check_logit_count(scorer, head.classes())?;
        let input = context.source(settings)?.input;
        Ok(WithHead { head: input.head(head)?, input })
    }

    /// Columns of the stepped features.
    pub fn dim(&self) -> usize {
        self.input.dim
    }

    /// Logits of stepped rows, `[n, C]`.
    pub fn logits(&self, rows: &[f32]) -> Vec<f32> {
        let mut logits = vec![0.0; rows.len() / self.input.dim * self.head.classes()];
        with_scratch(|scratch| self.head.logits(rows, &mut logits, scratch));
        logits
    }

    pub fn section(&self, kind: &str, settings: &impl Serialize) -> Section {
        let config = json!({ "settings": settings, "input_dim": self.input.input_dim });
        Section::new(kind, config).with("head.", self.head.tensors()).with("", self.input.tensors())
    }

    /// With the settings of a stored scorer.
    pub fn load<S: FeatureSettings>(stored: &Stored<'_>) -> Result<(S, Self)> {
        let (settings, input) = Input::load(stored)?;
        let head = load_head(stored.file, &stored.name("head."))?;
        if head.dim() != input.dim {
            return Err(contradiction(stored));
        }
        Ok((settings, WithHead { input, head }))
    }
}

/// The mean of all rows.
pub(in crate::scorers) struct MeanRow {
    source: Source,
    means: ClassMeans,
}

impl MeanRow {
    pub fn request(source: &Source) -> StatisticRequest {
        let means = ClassMeans::new(source.dim, 1);
        let key = format!("mean {}", source.key);
        StatisticRequest { key, statistic: Box::new(MeanRow { source: source.clone(), means }) }
    }

    /// Of the training set, found now unless it is known.
    pub fn find(source: &Source, context: &mut FitContext<'_>) -> Result<Vec<f64>> {
        Ok(context.find::<MeanRow>(Self::request(source))?.means.clone().finish())
    }
}

impl Statistic for MeanRow {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        self.means.update(&block.rows(&self.source)?, &vec![0; block.range.len()]);
        Ok(())
    }

    fn slots(&mut self) -> Vec<Slot<'_>> {
        vec![Slot::Means(&mut self.means, None)]
    }
}
