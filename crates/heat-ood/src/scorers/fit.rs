//! One way to fit: settings, training data, an observer.

use std::ops::Deref;
use std::sync::Arc;

use super::Scorer;
use crate::error::Result;
use crate::features::{FeatureSet, FieldSet, Head};
use crate::observe::Observer;
use crate::provenance::Provenance;

/// What a scorer is fitted on. A clone shares the rows.
#[derive(Clone)]
pub struct TrainingData {
    /// Features of the training set, with labels where a scorer needs classes.
    pub features: FeatureSet,
    /// The classifier's last layer.
    pub head: Option<Head>,
    /// Number of classes; where absent the head tells, else the labels.
    pub classes: Option<usize>,
}

impl TrainingData {
    /// Features alone; the rows are shared, not copied.
    pub fn new(features: &FeatureSet) -> Self {
        TrainingData { features: features.clone(), head: None, classes: None }
    }

    /// With the classifier's head. Labels are the numbers of its classes, where
    /// they can be.
    pub fn with_head<'a>(mut self, head: impl Into<Option<&'a Head>>) -> Self {
        self.head = head.into().cloned();
        if let Some(head) = &self.head {
            self.features = self.features.indexing(head.classes());
        }
        self
    }

    /// With that many classes, whatever head and labels tell.
    pub fn with_classes(mut self, classes: impl Into<Option<usize>>) -> Self {
        self.classes = classes.into();
        if let Some(classes) = self.classes {
            self.features = self.features.indexing(classes);
        }
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

    /// Number of classes: as given, the head's, else that of the labels.
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
        let needs = scorer.needs_of_training(&data.features)?;
        let provenance = Provenance::of_training(&data.features, &needs)?;
        Ok(Fitted { scorer, provenance })
    }
}

/// Records what many scorers have seen of the same data; the rows of a field are
/// hashed once.
pub(super) struct Recorder<'a> {
    data: &'a TrainingData,
    known: Vec<(FieldSet, Provenance)>,
}

impl<'a> Recorder<'a> {
    pub fn new(data: &'a TrainingData) -> Self {
        Recorder { data, known: Vec::new() }
    }

    /// As [`Fitted::record`].
    pub fn record(&mut self, scorer: Arc<dyn Scorer>) -> Result<Fitted<dyn Scorer>> {
        let needs = scorer.needs_of_training(&self.data.features)?;
        let provenance = match self.known.iter().find(|(other, _)| *other == needs) {
            Some((_, provenance)) => provenance.clone(),
            None => {
                let provenance = Provenance::of_training(&self.data.features, &needs)?;
                self.known.push((needs, provenance.clone()));
                provenance
            }
        };
        Ok(Fitted { scorer, provenance })
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
