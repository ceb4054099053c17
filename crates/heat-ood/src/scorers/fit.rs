//! One way to fit: settings, training data, an observer.

use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use super::context::{FitContext, StatisticRequest};
use super::{Scorer, Stored};
use crate::error::Result;
use crate::features::{FeatureSet, Head, Needs};
use crate::observe::Observer;
use crate::provenance::Provenance;
use crate::settings::typed;

/// What a scorer is fitted on. A clone shares the rows.
#[derive(Clone)]
pub struct TrainingData {
    /// Features of the training set, with labels where a scorer needs classes.
    pub features: FeatureSet,
    /// The classifier's last layer.
    pub head: Option<Head>,
    /// Number of classes, where neither the head nor the largest label tells.
    pub classes: Option<usize>,
}

impl TrainingData {
    /// Features alone; the rows are shared, not copied.
    pub fn new(features: &FeatureSet) -> Self {
        TrainingData { features: features.clone(), head: None, classes: None }
    }

    /// With the classifier's head.
    pub fn with_head<'a>(mut self, head: impl Into<Option<&'a Head>>) -> Self {
        self.head = head.into().cloned();
        self
    }

    /// With that many classes, where they are known.
    pub fn with_classes(mut self, classes: impl Into<Option<usize>>) -> Self {
        self.classes = classes.into();
        self
    }

    /// Number of classes, if it is given or the head or labels tell.
    ///
    /// # Errors
    /// If the labels cannot be read.
    pub fn known_classes(&self) -> Result<Option<usize>> {
        match self.told_classes() {
            None if self.features.labelled() => self.features.classes().map(Some),
            known => Ok(known),
        }
    }

    /// Number of classes, as given or by the head.
    fn told_classes(&self) -> Option<usize> {
        self.classes.or(self.head.as_ref().map(Head::classes))
    }

    /// Number of classes: as given, the head's, else one more than the largest label.
    ///
    /// # Errors
    /// If there is neither head nor label.
    pub fn count_classes(&self) -> Result<usize> {
        self.told_classes().map_or_else(|| self.features.classes(), Ok)
    }
}

/// Settings that can be fitted. All scorers, HEAT and compositions are fitted
/// in this one way; "not fitted" cannot be written, since the result is
/// another type.
pub trait Fit {
    /// What comes of it.
    type Scorer: Scorer;

    /// Fit on the training data, and record which rows were seen.
    ///
    /// # Errors
    /// If a setting cannot work, the data lack what is needed, or cannot be
    /// fitted.
    fn fit(&self, data: &TrainingData, observer: &mut dyn Observer)
    -> Result<Fitted<Self::Scorer>>;
}

/// A fitted scorer with the record of what it has seen.
pub struct Fitted<S: ?Sized> {
    scorer: Arc<S>,
    provenance: Provenance,
}

impl<S: ?Sized> Clone for Fitted<S> {
    fn clone(&self) -> Self {
        Fitted { scorer: Arc::clone(&self.scorer), provenance: self.provenance.clone() }
    }
}

impl<S: ?Sized> Deref for Fitted<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.scorer
    }
}

impl<S: Scorer> Fitted<S> {
    /// A scorer that was fitted on these data, by whatever means.
    ///
    /// # Errors
    /// If the data cannot be read, or lack what the scorer reads.
    pub fn on(data: &TrainingData, scorer: S) -> Result<Self> {
        Self::record(data, Arc::new(scorer))
    }

    /// A scorer made of others: it has seen what they have.
    pub fn of_parts<'a>(scorer: S, parts: impl IntoIterator<Item = &'a Provenance>) -> Self {
        let mut provenance = Provenance::new();
        parts.into_iter().for_each(|part| provenance.include(part));
        Fitted { scorer: Arc::new(scorer), provenance }
    }

    /// A scorer of which nobody knows what it has seen, one from elsewhere:
    /// a calibration on its training rows is then not noticed.
    pub fn unrecorded(scorer: S) -> Self {
        Self::of_parts(scorer, [])
    }
}

impl<S: Scorer + ?Sized> Fitted<S> {
    /// As [`Fitted::on`], of a shared scorer.
    pub(crate) fn record(data: &TrainingData, scorer: Arc<S>) -> Result<Self> {
        let needs = scorer.needs(&data.features)?;
        let provenance = Provenance::of_training(&data.features, needs)?;
        Ok(Fitted { scorer, provenance })
    }
}

impl Fitted<dyn Scorer> {
    /// As [`Fitted::record`], of many, with what stands beside each; the rows
    /// of a field are hashed once.
    pub(super) fn record_all<T>(
        data: &TrainingData,
        scorers: Vec<(Arc<dyn Scorer>, T)>,
    ) -> Result<Vec<(Self, T)>> {
        let mut known: Vec<(Needs, Provenance)> = Vec::new();
        let record = |(scorer, beside): (Arc<dyn Scorer>, T)| {
            let needs = scorer.needs(&data.features)?;
            let provenance = match known.iter().find(|(other, _)| *other == needs) {
                Some((_, provenance)) => provenance.clone(),
                None => {
                    let provenance = Provenance::of_training(&data.features, needs)?;
                    known.push((needs, provenance.clone()));
                    provenance
                }
            };
            Ok((Fitted { scorer, provenance }, beside))
        };
        scorers.into_iter().map(record).collect()
    }
}

impl<S: ?Sized> Fitted<S> {
    /// The scorer, shared.
    pub fn scorer(&self) -> &Arc<S> {
        &self.scorer
    }

    /// What it has seen.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Which has also seen what a part of it has.
    #[must_use]
    pub fn including(mut self, part: &Provenance) -> Self {
        self.provenance.include(part);
        self
    }

    /// Both apart.
    pub fn into_parts(self) -> (Arc<S>, Provenance) {
        (self.scorer, self.provenance)
    }

    /// A scorer with a record of what it has seen that was made elsewhere.
    pub fn from_parts(scorer: Arc<S>, provenance: Provenance) -> Self {
        Fitted { scorer, provenance }
    }
}

impl<S: Scorer> From<Fitted<S>> for Fitted<dyn Scorer> {
    fn from(fitted: Fitted<S>) -> Self {
        Fitted { scorer: fitted.scorer, provenance: fitted.provenance }
    }
}

/// The settings of a scorer in the list of [`methods`](super::methods).
///
/// What it writes besides: `impl Scorer` for what is fitted, and the
/// declaration of the settings.
pub(crate) trait Method: Serialize + DeserializeOwned + Default + 'static {
    /// Name of the method.
    const NAME: &'static str;
    /// What comes of fitting.
    type Scorer: Scorer;

    /// What settings must hold beyond their types; `given` are those that
    /// were written.
    fn check(&self, _given: &Table) -> Result<()> {
        Ok(())
    }

    /// Sums over the training set that the fit needs first: they are found in
    /// a pass shared with other scorers.
    fn requests(&self, _context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        Ok(Vec::new())
    }

    /// Fit it.
    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Self::Scorer>;

    /// Read a fitted one back.
    fn load(stored: &Stored<'_>) -> Result<Self::Scorer>;
}

/// Fit one method alone.
pub(super) fn fit_method<M: Method>(
    config: &M,
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Result<Fitted<M::Scorer>> {
    config.check(&Table::new())?;
    let scorer = config.fit_in(&mut FitContext::new(data, observer))?;
    Fitted::on(data, scorer)
}

/// Offer the methods of a file: those that have these settings, with what
/// comes of fitting.
macro_rules! offer {
    ($($config:ident => $scorer:ident),* $(,)?) => {
        pub(in crate::scorers) const METHODS: &[$crate::scorers::fit::Entry] =
            &[$($crate::scorers::fit::Entry::of::<$config>()),*];

        $(
            impl $crate::scorers::Fit for $config {
                type Scorer = $scorer;

                fn fit(
                    &self,
                    data: &$crate::scorers::TrainingData,
                    observer: &mut dyn $crate::observe::Observer,
                ) -> $crate::error::Result<$crate::scorers::Fitted<$scorer>> {
                    $crate::scorers::fit::fit_method(self, data, observer)
                }
            }
        )*
    };
}
pub(super) use offer;

/// A [`Method`] of the list, whatever its settings.
pub(super) struct Entry {
    pub name: &'static str,
    prepare: fn(&Table) -> Result<Box<dyn Prepared>>,
    pub load: fn(&Stored<'_>) -> Result<Arc<dyn Scorer>>,
}

/// A method with its settings.
pub(super) trait Prepared {
    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>>;
    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Arc<dyn Scorer>>;
}

impl<M: Method> Prepared for M {
    fn requests(&self, context: &mut FitContext<'_>) -> Result<Vec<StatisticRequest>> {
        Method::requests(self, context)
    }

    fn fit_in(&self, context: &mut FitContext<'_>) -> Result<Arc<dyn Scorer>> {
        Ok(Arc::new(Method::fit_in(self, context)?))
    }
}

impl Entry {
    pub const fn of<M: Method>() -> Self {
        Entry {
            name: M::NAME,
            prepare: |settings| {
                let config: M = typed(settings, M::NAME)?;
                config.check(settings)?;
                Ok(Box::new(config))
            },
            load: |stored| Ok(Arc::new(M::load(stored)?)),
        }
    }

    /// The settings, read and checked.
    pub fn prepare(&self, settings: &Table) -> Result<Box<dyn Prepared>> {
        (self.prepare)(settings)
    }
}
