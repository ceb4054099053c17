//! From features to a calibrated detector without a decision of the user's.
//!
//! Scorers are chosen ([`crate::select`]) by sets that play OOD where there are some, else by classes and
//! outliers of the training set. A residual is trained to tell those sets from ID rows and joins the composition,
//! and the mirrored image's score is averaged in, only where each shows its worth on kinds that it
//! was not made with: two residuals, each trained without half of the kinds, are judged by these.
//! Of the ID rows beside the surrogates one half is what the residual learns from; by the other
//! everything is judged and standardised. Calibration takes rows that none of this has seen.

mod residual;
mod story;

use serde::{Deserialize, Serialize};

use crate::calibrate::CalibrationConfig;
use crate::compose::{CombinedConfig, Part};
use crate::detector::Detector;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field, Pooling, View};
use crate::math::rng::{Purpose, Stream};
use crate::metrics;
use crate::observe::{Event, Observer};
use crate::scorers::{
    Fitted, Group, OverViews, Scorer, ScorerSpec, TrainingData, committee, fit_all, score_together,
};
use crate::select::{
    Evidence, SelectConfig, Selection, Standardise, Surrogates, fit_committee, fit_composition,
    rows_of,
};

/// Settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoConfig {
    /// How scorers are compared.
    pub select: SelectConfig,
    /// Whether a residual is tried.
    pub residual: bool,
    /// Whether the mirrored image is tried, where its features are there.
    pub views: bool,
    /// How scores become verdicts.
    pub calibration: CalibrationConfig,
}

impl Default for AutoConfig {
    fn default() -> Self {
        AutoConfig {
            select: SelectConfig::default(),
            residual: true,
            views: true,
            calibration: CalibrationConfig::default(),
        }
    }
}

/// What it is made of.
#[derive(Clone, Copy)]
pub struct AutoData<'a> {
    /// Rows to fit on, with the classifier's head where there is one.
    pub train: &'a TrainingData,
    /// Sets that play OOD, with ID rows outside training beside them.
    pub surrogates: Option<&'a Surrogates>,
    /// ID rows to calibrate on, which are in nothing else.
    pub calibration: Option<&'a FeatureSet>,
}

/// A detector, and how it came about.
pub struct Auto {
    /// The detector, calibrated where there were rows for it.
    pub detector: Detector,
    /// What was done, and on what evidence.
    pub report: AutoReport,
}

/// What was done, and on what evidence; as a text it says so in plain words.
#[derive(Debug, Clone, Serialize)]
pub struct AutoReport {
    /// The comparison of scorers; none where nothing could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Members of the composition with their weights, but for the residual.
    pub composition: Vec<(String, f64)>,
    /// What the residual gained on kinds that it was not trained with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual: Option<Evidence>,
    /// What the mirrored image gained on the kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views: Option<Evidence>,
    /// Mean AUROC over the kinds of what was made; of kinds that the residual has seen, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auroc: Option<f64>,
    /// Rows that it was calibrated on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrated_on: Option<usize>,
    /// What should be known besides.
    pub notes: Vec<String>,
}

/// The fewest ID rows that are dealt into two halves.
const FEWEST_ID: usize = 100;

impl AutoConfig {
    /// Make a detector.
    ///
    /// # Errors
    /// If not even the committee can be fitted, sets come from different networks, or calibration
    /// rows are among those that anything was fitted on.
    pub fn run(&self, data: AutoData<'_>, observer: &mut dyn Observer) -> Result<Auto> {
        let mut notes = Vec::new();
        let dealt = self.dealt(data)?;
        let data = match &dealt {
            Some((surrogates, calibration)) => {
                AutoData { surrogates: Some(surrogates), calibration: Some(calibration), ..data }
            }
            None => data,
        };
        let train = &self.without_id(data, &mut notes)?;
        if let (Some(origin), Some(surrogates)) = (train.features.origin(), data.surrogates) {
            surrogates.check_origin(origin)?;
        }
        let selection = match self.compare(train, data.surrogates, observer) {
            Ok(selection) => Some(selection),
            Err(error @ (Error::Stopped | Error::Interrupted { .. })) => return Err(error),
            // Sets that were given say something, or are wrong; without, data may be such (of two
            // classes, without labels) that nothing can be left out of it.
            Err(error) if data.surrogates.is_some() => return Err(error),
            Err(error) => {
                notes.push(format!("nothing was compared: {error}"));
                None
            }
        };
        let judges =
            data.surrogates.zip(selection.as_ref()).map(|(s, _)| Judges::new(s, self.select.seed));
        let judges = judges.transpose()?.flatten();
        let mut report = AutoReport {
            composition: selection.as_ref().map_or_else(Vec::new, |s| s.composition.clone()),
            selection,
            residual: None,
            views: None,
            auroc: None,
            calibrated_on: None,
            notes,
        };
        let scorer = match &judges {
            Some(judges) => self.judged(train, judges, &mut report, observer)?,
            None => self.unjudged(train, data.surrogates, &mut report, observer)?,
        };
        let mut detector = Detector::new(scorer);
        if let Some(surrogates) = data.surrogates {
            surrogates.kinds.iter().try_for_each(|(_, set)| detector.record_tuning(set))?;
            surrogates.id.iter().try_for_each(|id| detector.record_seen(id))?;
        }
        detector.record_recipe(report.recipe(), Some(self.select.seed));
        if let Some(rows) = data.calibration {
            let head = train.head.as_ref();
            detector.calibrate(&self.calibration, rows, head, false, observer)?;
            report.calibrated_on = Some(rows.len());
        }
        Ok(Auto { detector, report })
    }

    /// Where no ID rows stand beside the surrogates, half of those to calibrate on take their place.
    fn dealt(&self, data: AutoData<'_>) -> Result<Option<(Surrogates, FeatureSet)>> {
        let (Some(surrogates), Some(rows)) = (data.surrogates, data.calibration) else {
            return Ok(None);
        };
        if surrogates.id.is_some() || rows.len() < 2 {
            return Ok(None);
        }
        let [id, calibration] = halves(rows, self.select.seed)?;
        Ok(Some((Surrogates { id: Some(id), ..surrogates.clone() }, calibration)))
    }

    /// The training rows that are not among the ID rows by which everything is judged.
    fn without_id(&self, data: AutoData<'_>, notes: &mut Vec<String>) -> Result<TrainingData> {
        let train = &data.train.features;
        let Some(id) = data.surrogates.and_then(|s| s.id.as_ref()) else {
            return Ok(data.train.clone());
        };
        let seen = rows_of(train, id)?;
        if seen.is_empty() {
            return Ok(data.train.clone());
        }
        let left: Vec<u32> =
            (0..train.len() as u32).filter(|row| seen.binary_search(row).is_err()).collect();
        if left.is_empty() {
            let problem = format!("every training row is among the ID rows of {}", id.name());
            return Err(Error::Fit { what: format!("a detector of {}", train.name()), problem });
        }
        notes.push(format!(
            "{} training rows are among the ID rows by which scorers are judged, and were left out of \
             the fits",
            seen.len()
        ));
        Ok(TrainingData { features: train.select(left, None)?, ..data.train.clone() })
    }

    /// The scorers that are compared: all, the committee's own, and a Gaussian of each further layer.
    fn candidates(data: &TrainingData) -> Result<Vec<ScorerSpec>> {
        let mut all = Group::All.scorers_for(data);
        for member in committee(data) {
            if !all.contains(&member) {
                all.push(member);
            }
        }
        for layer in data.features.layers() {
            let std = Field::Features(Pooling::Std).within(layer);
            let poolings =
                if data.features.dim(std).is_some() { &["avg", "std"][..] } else { &["avg"] };
            for pooling in poolings {
                let (layer, pooling) =
                    (format!("layer={}", layer.name()), format!("pooling={pooling}"));
                all.push(ScorerSpec::new("gmm", [&*layer, &*pooling, "shrinkage=1"])?);
            }
        }
        Ok(all)
    }

    fn compare(
        &self,
        data: &TrainingData,
        surrogates: Option<&Surrogates>,
        observer: &mut dyn Observer,
    ) -> Result<Selection> {
        let all = Self::candidates(data)?;
        match surrogates {
            Some(surrogates) => self.select.run_on(&all, data, surrogates, observer),
            None => self.select.run(&all, data, observer),
        }
    }

    /// A composition without sets to judge further members by.
    fn unjudged(
        &self,
        data: &TrainingData,
        surrogates: Option<&Surrogates>,
        report: &mut AutoReport,
        observer: &mut dyn Observer,
    ) -> Result<Fitted<dyn Scorer>> {
        let seed = self.select.seed;
        let Some(selection) = &report.selection else {
            let made = fit_committee(Standardise::Fifth(seed), data, observer)?;
            let share = 1.0 / made.members.len().max(1) as f64;
            report.composition = made.members.into_iter().map(|name| (name, share)).collect();
            let reason = |(name, reason): (String, String)| format!("without {name}: {reason}");
            report.notes.extend(made.skipped.into_iter().map(reason));
            return Ok(made.scorer);
        };
        let id = surrogates.and_then(|s| s.id.as_ref());
        fit_composition(&selection.composition, selection.standardise(id, seed), data, observer)
    }

    /// The composition, with a residual and the mirrored image where they show their worth.
    fn judged(
        &self,
        data: &TrainingData,
        judges: &Judges,
        report: &mut AutoReport,
        observer: &mut dyn Observer,
    ) -> Result<Fitted<dyn Scorer>> {
        let specs = report.composition.iter().map(|(name, _)| ScorerSpec::parse(name));
        let fitted = fit_all(&specs.collect::<Result<Vec<_>>>()?, data, observer)?;
        let members = report.composition.iter().zip(fitted);
        let members = members.map(|((name, weight), (scorer, _))| Part {
            weight: *weight,
            ..Part::new(name.clone(), scorer)
        });
        let mut config = CombinedConfig { members: members.collect(), beta: 0.0 };
        let compose = |config: &CombinedConfig, observer: &mut dyn Observer| {
            config.fit_held_out(&judges.held_out, false, observer).map(Fitted::<dyn Scorer>::from)
        };
        let mut scorer = compose(&config, observer)?;
        let mut before = judges.score(&*scorer, observer)?;
        if self.residual {
            let weight = effective_share(&report.composition);
            let found = residual::evidence(judges, &before, weight, self.select.seed, observer);
            match found {
                Ok(evidence) => {
                    if evidence.suffices {
                        let all: Vec<usize> = (0..judges.kinds.len()).collect();
                        let nets = residual::NETS;
                        let residual =
                            residual::train(judges, &all, nets, self.select.seed, observer)?;
                        config.members.push(Part { weight, ..Part::new("residual", residual) });
                        scorer = compose(&config, observer)?;
                        before = judges.score(&*scorer, observer)?;
                    }
                    report.residual = Some(evidence);
                }
                Err(error @ (Error::Stopped | Error::Interrupted { .. })) => return Err(error),
                Err(error) => report.notes.push(format!("no residual was tried: {error}")),
            }
        }
        if self.views && judges.mirrored()? {
            let mirrored = OverViews::mirrored(scorer.scorer().clone())?;
            let after = judges.score(&mirrored, observer)?;
            let evidence = Evidence::of(before.gains(&after)?);
            if evidence.suffices {
                let (_, provenance) = scorer.into_parts();
                scorer = Fitted::from_parts(std::sync::Arc::new(mirrored), provenance);
                before = after;
            }
            report.views = Some(evidence);
        }
        report.auroc = Some(before.auroc()?);
        Ok(scorer)
    }
}

/// One member's share, had all as much as these have by their number and spread: 1/(Σw)²·Σw².
fn effective_share(composition: &[(String, f64)]) -> f64 {
    let sum: f64 = composition.iter().map(|(_, w)| w).sum();
    let squares: f64 = composition.iter().map(|(_, w)| w * w).sum();
    if sum > 0.0 { squares / sum } else { 1.0 }
}

/// Two halves of a set, dealt at random.
fn halves(set: &FeatureSet, seed: u64) -> Result<[FeatureSet; 2]> {
    let mut first = Stream::new(seed, Purpose::HoldOut, 6, 0).permutation(set.len() as u32);
    let mut second = first.split_off(first.len() / 2);
    first.sort_unstable();
    second.sort_unstable();
    Ok([set.select(first, None)?, set.select(second, None)?])
}

/// What further members are judged by.
pub(super) struct Judges {
    /// ID rows that a residual may learn from.
    pub learnt: FeatureSet,
    /// ID rows by which everything is judged and standardised.
    pub held_out: FeatureSet,
    pub kinds: Vec<(String, FeatureSet)>,
    /// Places of the kinds of each group.
    pub groups: Vec<Vec<usize>>,
}

/// Scores of the held-out ID rows and of each kind.
pub(super) struct Scores {
    pub id: Vec<f32>,
    pub kinds: Vec<Vec<f32>>,
}

impl Judges {
    /// None where there are too few ID rows or kinds.
    fn new(surrogates: &Surrogates, seed: u64) -> Result<Option<Self>> {
        let Some(id) = surrogates.id.as_ref().filter(|id| id.len() >= FEWEST_ID) else {
            return Ok(None);
        };
        if surrogates.kinds.len() < 4 {
            return Ok(None);
        }
        let groups = surrogates.groups().into_iter().map(|(_, kinds)| kinds).collect();
        let [learnt, held_out] = halves(id, seed)?;
        Ok(Some(Judges { learnt, held_out, kinds: surrogates.kinds.clone(), groups }))
    }

    /// Whether all have the mirrored images' features.
    fn mirrored(&self) -> Result<bool> {
        let mirror = View::Mirror.part()?;
        let has = |set: &FeatureSet| set.parts().contains(&mirror);
        Ok(has(&self.held_out) && self.kinds.iter().all(|(_, set)| has(set)))
    }

    pub fn score(&self, scorer: &dyn Scorer, observer: &mut dyn Observer) -> Result<Scores> {
        observer.on(Event::Begin { task: "judge", total: 0 });
        let mut of = |set: &FeatureSet| -> Result<Vec<f32>> {
            let found = score_together(set, &[scorer], false, observer)?;
            Ok(found.into_iter().next().unwrap_or_default().scores)
        };
        let id = of(&self.held_out)?;
        Ok(Scores { id, kinds: self.kinds.iter().map(|(_, set)| of(set)).collect::<Result<_>>()? })
    }
}

impl Scores {
    fn each(&self) -> Result<Vec<f64>> {
        metrics::aurocs(&self.id, self.kinds.iter().map(|kind| &**kind))
    }

    fn auroc(&self) -> Result<f64> {
        let each = self.each()?;
        Ok(each.iter().sum::<f64>() / each.len().max(1) as f64)
    }

    /// What others gain in AUROC on each kind.
    fn gains(&self, others: &Scores) -> Result<Vec<f64>> {
        Ok(others.each()?.iter().zip(self.each()?).map(|(after, before)| after - before).collect())
    }
}

/// Sums of two lists of scores, the second times a factor.
pub(super) fn add(scores: &[f32], others: &[f32], factor: f64) -> Vec<f32> {
    let sum = |(s, o): (&f32, &f32)| (f64::from(*s) + factor * f64::from(*o)) as f32;
    scores.iter().zip(others).map(sum).collect()
}
