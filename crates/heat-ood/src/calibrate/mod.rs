//! From scores to decisions with a stated guarantee.
//!
//! [`CalibrationConfig::fit`] keeps the scores of in-distribution rows that
//! took no part in training. A new score is ranked among them
//! ([`CalibrationScores`]): its conformal p-value is small where few ordinary rows
//! look as odd. The verdict compares it with a threshold whose false-alarm
//! rate is bounded ([`Guarantee`]). With `per_class`, rows are ranked among
//! those that the classifier puts into the same class (Mondrian conformal
//! prediction), and the promise holds within each predicted class.
//!
//! What the promises need is that new ordinary rows come from where the
//! calibration rows came from; nothing is assumed of the scorer. They say
//! nothing of how many anomalous rows are found.

pub mod drift;
mod fusion;
mod guarantee;
mod scores;
mod selection;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use fusion::{Fusion, FusionRule};
pub use guarantee::Guarantee;
use guarantee::check_rate;
pub use scores::CalibrationScores;
pub use selection::benjamini_hochberg;

use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head, RowSketch};
use crate::io::Tensor;
use crate::math::rng::{Purpose, Stream};
use crate::observe::Observer;
use crate::scorers::{Predictor, Scorer, Section, Stored};

/// Settings of a calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationConfig {
    /// Bound on the false-alarm rate.
    pub alpha: f64,
    /// What is promised of it.
    pub guarantee: Guarantee,
    /// How often the promise may fail, unless it is marginal.
    pub delta: f64,
    /// Whether rows are ranked within their predicted class.
    pub per_class: bool,
}

impl Default for CalibrationConfig {
    fn default() -> Self {
        CalibrationConfig {
            alpha: 0.05,
            guarantee: Guarantee::Marginal,
            delta: 0.05,
            per_class: false,
        }
    }
}

/// What is thought of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Its score; higher = more out-of-distribution.
    pub score: f32,
    /// Its conformal p-value, within its predicted class where calibrated so.
    pub p_value: f64,
    /// The predicted class, where calibrated by class.
    pub class: Option<u32>,
    /// Whether it is held to be out-of-distribution.
    pub ood: bool,
}

/// How equal scores are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Ties {
    /// Against the new row being odd: the promise holds, perhaps with room.
    #[default]
    Conservative,
    /// At random: p-values are exactly uniform.
    Randomized {
        /// Seed of the draws: another for every batch, since the i-th row of
        /// a batch gets the i-th draw.
        seed: u64,
        /// Number of the first row, where these go on after others of a batch.
        first: u64,
    },
}

/// Calibration scores, and the threshold they set.
#[derive(Clone)]
pub struct Calibration {
    config: CalibrationConfig,
    all: CalibrationScores,
    classes: Option<Classes>,
    thresholds: Vec<f32>,
    /// Name and SHA-256 of each file of the calibration set.
    pub files: Vec<(String, String)>,
    /// A sample of the calibration rows.
    pub rows: RowSketch,
    /// Whether rows that the scorer has seen were calibrated on, against
    /// advice: nothing is promised then.
    pub forced: bool,
}

/// Scores by predicted class.
#[derive(Clone)]
struct Classes {
    predictor: Predictor,
    groups: Vec<CalibrationScores>,
}

impl CalibrationConfig {
    fn check(&self) -> Result<()> {
        check_rate("alpha", self.alpha)?;
        if self.guarantee != Guarantee::Marginal {
            check_rate("delta", self.delta)?;
        }
        Ok(())
    }

    /// The threshold that keeps the promise: of all scores, or of each class.
    fn thresholds(&self, all: &CalibrationScores, classes: Option<&Classes>) -> Vec<f32> {
        let one = |scores: &CalibrationScores| {
            scores.kth_largest(self.guarantee.rank(scores.len(), self.alpha, self.delta))
        };
        match classes {
            None => vec![one(all)],
            Some(classes) => classes.groups.iter().map(one).collect(),
        }
    }

    /// Score in-distribution rows that took no part in training. `head` is
    /// needed by `per_class` where the set has no logits.
    ///
    /// # Errors
    /// If a setting is out of range, the set cannot be scored, or it (or one
    /// class of it) has too few rows for the promise.
    pub fn fit(
        &self,
        scorer: &dyn Scorer,
        id: &FeatureSet,
        head: Option<&Head>,
        observer: &mut dyn Observer,
    ) -> Result<Calibration> {
        self.check()?;
        // Before anything is scored.
        self.enough(id.len(), None, id.name())?;
        let predictor = self.per_class.then(|| Predictor::new(id, head)).transpose()?;
        let (scores, classes) = match predictor {
            None => (scorer.score_observed(id, observer)?, None),
            Some(predictor) => {
                let (found, classes) = predictor.score(id, scorer, false, observer)?;
                (found.scores, Some((predictor, classes)))
            }
        };
        let calibration = Calibration::new(self.clone(), scores, classes, id.name())?;
        let rows = RowSketch::of(id, &scorer.needs(id)?)?;
        Ok(Calibration { files: id.digests()?, rows, ..calibration })
    }

    fn enough(&self, rows: usize, class: Option<usize>, place: &str) -> Result<()> {
        if self.guarantee.rank(rows, self.alpha, self.delta) > 0 {
            return Ok(());
        }
        let needed = self.guarantee.rows_needed(self.alpha, self.delta);
        let (what, remedy) = match class {
            Some(k) => (
                format!("{rows} calibration rows predicted as class {k}"),
                ", or calibrate over all classes together",
            ),
            None => (format!("{rows} calibration rows"), ""),
        };
        let delta = match self.guarantee {
            Guarantee::Marginal => String::new(),
            _ => format!(" and delta = {}", self.delta),
        };
        let problem = format!(
            "{what} in {place} are too few for alpha = {}{delta}: at least {needed} are needed; \
             add rows or ask for a larger alpha{remedy}",
            self.alpha
        );
        Err(Error::Fit { what: "calibration".into(), problem })
    }
}

/// Refuse classes that are not one below `classes` for each of `rows`.
fn check_classes(given: &[u32], rows: usize, classes: usize) -> Result<()> {
    if given.len() != rows {
        return Err(Error::Shape {
            place: "predicted classes".into(),
            tensor: "class".into(),
            expected: format!("[{rows}], one for each score"),
            got: format!("[{}]", given.len()),
        });
    }
    match given.iter().position(|k| *k as usize >= classes) {
        Some(row) => {
            let problem = format!("row {row} has class {}, and there are {classes}", given[row]);
            Err(Error::config("class", given[row], problem))
        }
        None => Ok(()),
    }
}

impl Calibration {
    /// Of scores at hand: of all rows, with the predicted class of each where
    /// it is by class. `place` names them in errors.
    ///
    /// # Errors
    /// As [`CalibrationConfig::fit`].
    pub fn new(
        config: CalibrationConfig,
        scores: Vec<f32>,
        classes: Option<(Predictor, Vec<u32>)>,
        place: &str,
    ) -> Result<Self> {
        config.check()?;
        config.enough(scores.len(), None, place)?;
        if config.per_class != classes.is_some() {
            let problem = "predicted classes are given with it, and only with it";
            return Err(Error::config("per_class", config.per_class, problem));
        }
        let classes = classes.map(|(predictor, predicted)| {
            check_classes(&predicted, scores.len(), predictor.classes())?;
            let mut groups = vec![Vec::new(); predictor.classes()];
            for (&class, &score) in predicted.iter().zip(&scores) {
                groups[class as usize].push(score);
            }
            let groups = groups.into_iter().enumerate().map(|(k, scores)| {
                config.enough(scores.len(), Some(k), place)?;
                CalibrationScores::new(scores)
            });
            Ok::<_, Error>(Classes { predictor, groups: groups.collect::<Result<_>>()? })
        });
        let classes = classes.transpose()?;
        let all = CalibrationScores::new(scores)?;
        let thresholds = config.thresholds(&all, classes.as_ref());
        let (files, rows) = Default::default();
        Ok(Calibration { config, all, classes, thresholds, files, rows, forced: false })
    }

    /// Its settings.
    pub fn config(&self) -> &CalibrationConfig {
        &self.config
    }

    /// The calibration scores of all rows.
    pub fn scores(&self) -> &CalibrationScores {
        &self.all
    }

    /// The scores of the rows predicted as each class, where it is by class.
    pub fn by_class(&self) -> Option<&[CalibrationScores]> {
        self.classes.as_ref().map(|c| &c.groups[..])
    }

    /// The predictor, where it is by class.
    pub fn predictor(&self) -> Option<&Predictor> {
        self.classes.as_ref().map(|c| &c.predictor)
    }

    /// Rows scoring above are flagged: one threshold, or one per class.
    pub fn thresholds(&self) -> &[f32] {
        &self.thresholds
    }

    /// The same calibration for another α.
    ///
    /// # Errors
    /// If α is not between 0 and 1, or there are too few rows for it.
    pub fn with_alpha(&self, alpha: f64) -> Result<Self> {
        let config = CalibrationConfig { alpha, ..self.config.clone() };
        config.check()?;
        config.enough(self.all.len(), None, "the detector")?;
        for (k, group) in self.by_class().into_iter().flatten().enumerate() {
            config.enough(group.len(), Some(k), "the detector")?;
        }
        let thresholds = config.thresholds(&self.all, self.classes.as_ref());
        Ok(Calibration { config, thresholds, ..self.clone() })
    }

    /// The promise in words.
    pub fn words(&self) -> String {
        if self.forced {
            let rows = self.all.len();
            return format!(
                "nothing is promised: calibrated on {rows} rows that the scorer has seen"
            );
        }
        let words = self.config.guarantee.words(self.config.alpha, self.config.delta);
        let within =
            if self.config.per_class { " within each predicted class, taken singly" } else { "" };
        format!("{words}{within}; {} calibration rows", self.all.len())
    }

    /// What is thought of scored rows; `classes` are their predicted classes,
    /// needed where it is by class.
    ///
    /// # Errors
    /// If it is by class and there is not a class below C for each score.
    pub fn verdicts(
        &self,
        scores: &[f32],
        classes: Option<&[u32]>,
        ties: Ties,
    ) -> Result<Vec<Verdict>> {
        if let Some(own) = &self.classes {
            check_classes(classes.unwrap_or_default(), scores.len(), own.groups.len())?;
        }
        let thresholds = &self.thresholds;
        let row = |(i, &score): (usize, &f32)| {
            let class = self.classes.as_ref().and(classes).map(|c| c[i]);
            let (reference, at) = match (&self.classes, class) {
                (Some(classes), Some(k)) => (&classes.groups[k as usize], k as usize),
                _ => (&self.all, 0),
            };
            let (p_value, ood) = match ties {
                Ties::Conservative => (reference.p_value(score), score > thresholds[at]),
                Ties::Randomized { seed, first } => {
                    let u = Stream::new(seed, Purpose::Ties, first + i as u64, 0).uniform();
                    let p = reference.p_value_randomized(score, u);
                    let marginal = self.config.guarantee == Guarantee::Marginal;
                    (p, if marginal { p <= self.config.alpha } else { score > thresholds[at] })
                }
            };
            Verdict { score, p_value, class, ood }
        };
        Ok(scores.iter().enumerate().map(row).collect())
    }

    /// Everything for the detector file.
    pub(crate) fn section(&self) -> Section {
        let config = json!({
            "settings": self.config,
            "rows": self.all.len(),
            "class_rows": self.by_class().map(|g| g.iter().map(CalibrationScores::len).collect::<Vec<_>>()),
            "files": self.files,
            "sampled": self.rows,
            "forced": self.forced,
            "promise": self.words(),
        });
        let mut tensors = self.rows.tensors("rows");
        let column = |scores: Vec<f32>| Tensor::f32([scores.len()], scores);
        match &self.classes {
            None => {
                let scores = column(self.all.scores().to_vec());
                tensors.push(("scores".into(), scores));
                Section::new("calibration", config).with("", tensors)
            }
            // Class after class; all together are these, sorted.
            Some(c) => {
                let scores = c.groups.iter().flat_map(|g| g.scores()).copied().collect();
                tensors.push(("scores".into(), column(scores)));
                Section::new("calibration", config)
                    .with("", tensors)
                    .with_part("predictor", c.predictor.section())
            }
        }
    }

    pub(crate) fn load(stored: &Stored<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            settings: CalibrationConfig,
            rows: usize,
            class_rows: Option<Vec<usize>>,
            files: Vec<(String, String)>,
            #[serde(default)]
            sampled: RowSketch,
            #[serde(default)]
            forced: bool,
        }
        let mut c: Config = stored.config()?;
        c.sampled.read(stored.file, &stored.name("rows"))?;
        let place = stored.file.path().display().to_string();
        let bad =
            |what: &str| Error::format(stored.file.path(), format!("its calibration: {what}"));
        let scores = stored.file.f32(&stored.name("scores"), &[c.rows])?;
        let classes = match (c.settings.per_class, c.class_rows) {
            (false, None) => None,
            (true, Some(counts)) => {
                let predictor = Predictor::load(&stored.part("predictor")?)?;
                let total = counts.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
                if total != Some(c.rows) || counts.len() != predictor.classes() {
                    return Err(bad("its rows by class do not add up"));
                }
                let labels = counts.iter().enumerate();
                let labels = labels.flat_map(|(k, &n)| std::iter::repeat_n(k as u32, n));
                Some((predictor, labels.collect()))
            }
            _ => return Err(bad("rows by class go with `per_class`")),
        };
        let calibration = Calibration::new(c.settings, scores, classes, &place)?;
        Ok(Calibration { files: c.files, rows: c.sampled, forced: c.forced, ..calibration })
    }
}
