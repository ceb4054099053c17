//! What scorers of features and head have in common.

use serde::Serialize;
use serde_json::json;

use super::input::{FeatureSettings, Input, contradiction, load_head, require_head};
use super::training::{Block, Source, Statistic, Training, Want};
use super::{Section, Stored};
use crate::error::Result;
use crate::features::Head;
use crate::math::matmul::with_scratch;
use crate::math::moments::ClassMeans;
use crate::math::parallel;

/// The features a fitted scorer reads, and the head for them.
pub(super) struct WithHead {
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
        training: &mut Training<'_>,
    ) -> Result<Self> {
        let head = require_head(scorer, training.head)?;
        let input = training.source(settings)?.input;
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

/// `fit` for those who fit one scorer by its type.
macro_rules! fit_alone {
    ($config:ty => $scorer:ty) => {
        impl $config {
            /// Fit on the training set and the classifier's head.
            ///
            /// # Errors
            /// If there is no head, a setting is out of range, or the
            /// training set cannot be fitted.
            pub fn fit(
                &self,
                train: &$crate::features::FeatureSet,
                head: Option<&$crate::features::Head>,
                observer: &mut dyn $crate::observe::Observer,
            ) -> $crate::error::Result<$scorer> {
                self.fit_in(&mut $crate::scorers::training::Training::new(train, head, observer))
            }
        }
    };
}
pub(super) use fit_alone;

/// The mean of all rows.
pub(super) struct MeanRow {
    source: Source,
    means: ClassMeans,
}

impl MeanRow {
    pub fn want(source: &Source) -> Want {
        let means = ClassMeans::new(source.dim, 1);
        let key = format!("mean {}", source.key);
        Want { key, statistic: Box::new(MeanRow { source: source.clone(), means }) }
    }

    /// Of the training set, found now unless it is known.
    pub fn find(source: &Source, training: &mut Training<'_>) -> Result<Vec<f64>> {
        Ok(training.find::<MeanRow>(Self::want(source))?.means.clone().finish())
    }
}

impl Statistic for MeanRow {
    fn update(&mut self, block: &Block<'_>) -> Result<()> {
        let rows = block.rows(&self.source)?;
        let (means, rows, labels) = (&mut self.means, &*rows, vec![0; block.range.len()]);
        parallel::run(|| means.update(rows, &labels));
        Ok(())
    }
}
