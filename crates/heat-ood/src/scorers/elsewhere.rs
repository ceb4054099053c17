//! Scorers of another layer of the network, and of several views of an image.
//!
//! Both wrap a scorer: `layer=mid` gives it the features of the part `mid` of a set, in the fit as
//! in scoring; `views=mean` takes the mean of its scores of the image and of its mirror image, and
//! changes nothing of the fit.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::fit::TrainingData;
use super::{Scorer, Section, Stored};
use crate::error::{Error, Result};
use crate::features::{Batch, FeatureSet, Field, FieldSet, Part, View};

/// What stands in a file for each.
pub(crate) const LAYER: &str = "layer";
pub(crate) const VIEWS: &str = "views";

/// Where in the network a scorer reads, and of which views, as settings say it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Place {
    pub layer: Option<Part>,
    pub views: bool,
}

impl Place {
    /// Take the two settings out of a scorer's.
    pub fn take(settings: &mut Table) -> Result<Self> {
        let mut text = |key: &str| match settings.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Error::config(key, other, "a name is expected")),
        };
        let layer = text(LAYER)?.map(|name| Part::named(&name)).transpose()?;
        let views = match text(VIEWS)?.as_deref() {
            None => false,
            Some("mean") => true,
            Some(other) => {
                let problem = "`mean`, of the scores of the image and its mirror image, is known";
                return Err(Error::config(VIEWS, other, problem));
            }
        };
        Ok(Place { layer, views })
    }

    /// What a scorer is fitted on there.
    pub fn data(&self, data: &TrainingData) -> Result<TrainingData> {
        let Some(layer) = self.layer else { return Ok(data.clone()) };
        let features = data.features.part(layer)?;
        // The head is of the last layer; the number of its classes holds for all.
        let classes = data.classes.or(data.head.as_ref().map(|head| head.classes()));
        Ok(TrainingData { features, head: None, classes })
    }

    /// The scorer as it reads a whole set.
    pub fn at_layer(&self, scorer: Arc<dyn Scorer>) -> Arc<dyn Scorer> {
        match self.layer {
            Some(layer) => Arc::new(AtLayer::new(layer, scorer)),
            None => scorer,
        }
    }

    /// The same over the views.
    pub fn over_views(&self, scorer: Arc<dyn Scorer>) -> Result<Arc<dyn Scorer>> {
        if self.views { Ok(Arc::new(OverViews::mirrored(scorer)?)) } else { Ok(scorer) }
    }
}

/// A scorer of the features of another layer.
pub struct AtLayer {
    layer: Part,
    scorer: Arc<dyn Scorer>,
}

impl AtLayer {
    /// Of a scorer that was fitted on [that part](FeatureSet::part) of the training set.
    pub fn new(layer: Part, scorer: Arc<dyn Scorer>) -> Self {
        AtLayer { layer, scorer }
    }

    pub(crate) fn load(stored: &Stored<'_>, load: Load<'_>) -> Result<Self> {
        let Layer { layer } = stored.config()?;
        let layer = Part::named(&layer).map_err(|e| wrong(stored, &e))?;
        Ok(AtLayer { layer, scorer: load(&stored.part("scorer")?)? })
    }
}

/// Reads the scorer within back.
type Load<'a> = &'a dyn Fn(&Stored<'_>) -> Result<Arc<dyn Scorer>>;

#[derive(Serialize, Deserialize)]
struct Layer {
    layer: String,
}

#[derive(Serialize, Deserialize)]
struct Views {
    views: Vec<String>,
}

fn wrong(stored: &Stored<'_>, error: &Error) -> Error {
    Error::format(stored.file.path(), format!("its `{}`: {error}", stored.kind()))
}

impl Scorer for AtLayer {
    fn name(&self) -> &'static str {
        self.scorer.name()
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        Ok(self.scorer.needs(&set.part(self.layer)?)?.within(self.layer))
    }

    fn needs_of_training(&self, set: &FeatureSet) -> Result<FieldSet> {
        Ok(self.scorer.needs_of_training(&set.part(self.layer)?)?.within(self.layer))
    }

    fn parts(&self) -> Vec<Part> {
        vec![self.layer]
    }

    fn of_maps(&self) -> Vec<Field> {
        self.scorer.of_maps()
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.scorer.score_batch(&batch.part(self.layer), out);
    }

    fn section(&self) -> Section {
        let config = Layer { layer: self.layer.name().to_owned() };
        Section::new(LAYER, config).with_part("scorer", self.scorer.section())
    }

    fn components(&self) -> &[Cow<'static, str>] {
        self.scorer.components()
    }

    fn score_with_components(&self, batch: &Batch, scores: &mut [f32], components: &mut [f32]) {
        self.scorer.score_with_components(&batch.part(self.layer), scores, components);
    }
}

/// The mean of a scorer's scores of an image and of other views of it.
pub struct OverViews {
    views: Vec<Part>,
    scorer: Arc<dyn Scorer>,
}

impl OverViews {
    /// The image and its mirror image.
    ///
    /// # Errors
    /// If more names of layers are known than is allowed.
    pub fn mirrored(scorer: Arc<dyn Scorer>) -> Result<Self> {
        Ok(OverViews { views: vec![View::Mirror.part()?], scorer })
    }

    pub(crate) fn load(stored: &Stored<'_>, load: Load<'_>) -> Result<Self> {
        let Views { views } = stored.config()?;
        let views = views.iter().map(|name| Part::named(name)).collect::<Result<Vec<_>>>();
        let views = views.map_err(|e| wrong(stored, &e))?;
        Ok(OverViews { views, scorer: load(&stored.part("scorer")?)? })
    }

    /// Mean of what `score` writes for the image and for each view.
    fn mean(&self, batch: &Batch, outs: &mut [&mut [f32]], score: &Score<'_>) {
        score(batch, outs);
        let mut others: Vec<Vec<f32>> = outs.iter().map(|out| vec![0.0; out.len()]).collect();
        for view in &self.views {
            let mut borrowed: Vec<&mut [f32]> = others.iter_mut().map(|o| &mut o[..]).collect();
            score(&batch.part(*view), &mut borrowed);
            for (out, other) in outs.iter_mut().zip(&others) {
                out.iter_mut().zip(other).for_each(|(o, v)| *o += v);
            }
        }
        let share = 1.0 / (1 + self.views.len()) as f32;
        outs.iter_mut().for_each(|out| out.iter_mut().for_each(|o| *o *= share));
    }
}

type Score<'a> = dyn Fn(&Batch, &mut [&mut [f32]]) + 'a;

impl Scorer for OverViews {
    fn name(&self) -> &'static str {
        self.scorer.name()
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        let own = self.scorer.needs(set)?;
        self.views.iter().try_fold(own, |needs, view| {
            Ok(needs.and(self.scorer.needs(&set.part(*view)?)?.within(*view)))
        })
    }

    fn needs_of_training(&self, set: &FeatureSet) -> Result<FieldSet> {
        self.needs(set).or_else(|_| self.scorer.needs_of_training(set))
    }

    fn parts(&self) -> Vec<Part> {
        [self.scorer.parts(), self.views.clone()].concat()
    }

    fn of_maps(&self) -> Vec<Field> {
        self.scorer.of_maps()
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.mean(batch, &mut [out], &|batch, outs| self.scorer.score_batch(batch, outs[0]));
    }

    fn section(&self) -> Section {
        let views = self.views.iter().map(|view| view.name().to_owned()).collect();
        Section::new(VIEWS, Views { views }).with_part("scorer", self.scorer.section())
    }

    fn components(&self) -> &[Cow<'static, str>] {
        self.scorer.components()
    }

    fn score_with_components(&self, batch: &Batch, scores: &mut [f32], components: &mut [f32]) {
        self.mean(batch, &mut [scores, components], &|batch, outs| {
            let [scores, components] = outs else { return };
            self.scorer.score_with_components(batch, scores, components);
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::detector::Detector;
    use crate::features::Pooling;
    use crate::observe::Silent;
    use crate::scorers::{ScorerSpec, fit_all};

    const AVG: Field = Field::Features(Pooling::Avg);

    fn matrix(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0;
        Array2::from_shape_fn((rows, columns), |(i, j)| value(i * columns + j))
    }

    fn part(name: &str) -> Part {
        Part::named(name).unwrap()
    }

    /// A set with a further layer and the mirror images of both.
    fn set(rows: usize, seed: usize) -> FeatureSet {
        let mid = AVG.within(part("mid"));
        FeatureSet::in_memory("x")
            .avg(matrix(rows, 4, seed))
            .field(mid, matrix(rows, 6, seed + 1))
            .field(AVG.within(part("mirror")), matrix(rows, 4, seed + 2))
            .field(mid.within(part("mirror")), matrix(rows, 6, seed + 3))
            .labels((0..rows).map(|i| (i % 3) as u8))
            .build()
            .unwrap()
    }

    fn fitted(specs: &[&str], train: &FeatureSet) -> Vec<Arc<dyn Scorer>> {
        let specs: Vec<_> = specs.iter().map(|s| ScorerSpec::parse(s).unwrap()).collect();
        let data = TrainingData::new(train);
        let fitted = fit_all(&specs, &data, &mut Silent).unwrap();
        fitted.into_iter().map(|(f, _)| Arc::clone(f.scorer())).collect()
    }

    #[test]
    fn a_layer_is_scored_as_a_set_of_its_features() {
        let (train, test) = (set(60, 0), set(300, 50));
        let specs = ["knn(k=3)", "gmm(layer=mid,shrinkage=1)", "knn(k=3,layer=mid)"];
        let scorers = fitted(&specs, &train);
        let alone = |set: &FeatureSet| set.part(part("mid")).unwrap();
        let want = fitted(&["gmm(shrinkage=1)", "knn(k=3)"], &alone(&train));
        for (got, want) in scorers[1..].iter().zip(&want) {
            assert_eq!(got.score(&test).unwrap(), want.score(&alone(&test)).unwrap());
        }
        assert_ne!(scorers[0].score(&test).unwrap(), scorers[2].score(&test).unwrap());
        let said = scorers[2].score(&alone(&test)).unwrap_err().to_string();
        assert!(said.contains("`mid`"), "{said}");
    }

    #[test]
    fn views_are_averaged() {
        let (train, test) = (set(60, 0), set(20, 50));
        let scorers =
            fitted(&["knn(k=3)", "knn(k=3,views=mean,layer=mid)", "knn(k=3,layer=mid)"], &train);
        let mirrored = scorers[2].score(&test.part(part("mirror")).unwrap()).unwrap();
        let plain = scorers[2].score(&test).unwrap();
        let got = scorers[1].score(&test).unwrap();
        for ((g, p), m) in got.iter().zip(plain).zip(mirrored) {
            assert!((g - (p + m) / 2.0).abs() < 1e-6);
        }
        let without = FeatureSet::in_memory("y").avg(matrix(5, 4, 0)).build().unwrap();
        assert!(scorers[1].score(&without).unwrap_err().to_string().contains("mid"));
    }

    #[test]
    fn a_file_has_layer_and_views() {
        let (train, test) = (set(60, 0), set(20, 50));
        let spec = ScorerSpec::parse("gmm(layer=mid,views=mean,shrinkage=1)").unwrap();
        let fitted = spec.fit(&TrainingData::new(&train), &mut Silent).unwrap();
        let detector = Detector::new(fitted);
        let bytes = detector.to_bytes().unwrap();
        let back = Detector::from_bytes("d", bytes).unwrap();
        assert_eq!(back.score(&test).unwrap(), detector.score(&test).unwrap());
        assert!(back.verify().unwrap().unwrap().difference == 0.0);
        // Training rows are known again by the layer's features.
        assert!(back.provenance().contamination(&train).unwrap().is_some());
        assert!(back.provenance().contamination(&test).unwrap().is_none());
    }

    #[test]
    fn what_is_not_there_is_said() {
        let train = set(60, 0);
        let error = |text: &str| {
            let spec = ScorerSpec::parse(text).unwrap();
            spec.fit(&TrainingData::new(&train), &mut Silent).err().unwrap().to_string()
        };
        assert!(error("knn(layer=early)").contains("layers and views that it has: mid, mirror"));
        assert!(error("knn(layer=avg)").contains("not a field's"));
        assert!(error("knn(views=max)").contains("`mean`"));
        assert!(error("cadref(layer=mid)").contains("head"));
    }
}
