//! Choosing scorers, and the weights of a composition, without OOD data.
//!
//! Something must play OOD. Best is what comes of the same kind of input, made wrong on purpose and
//! sent through the same network ([`Surrogates`], [`SelectConfig::run_on`]): each scorer is fitted
//! once and judged by its AUROC of held-out ID rows against each kind.
//!
//! Where there are features alone ([`SelectConfig::run`]), the classes of the training set are
//! dealt into groups. In each fold one group is left out of the fit, of the head and of the
//! validation rows, as if it were unknown; its rows are one kind, outliers made of validation rows
//! (`outliers`) are others. Each scorer is fitted anew in each fold.
//!
//! A scorer's value is its mean AUROC over the kinds (over groups of kinds, where they are known:
//! `surrogates`). The fixed [`committee`] needs no choice. What may replace it is half the
//! committee and half weights found by logistic regression of the kinds against ID rows
//! (`math::logistic`): the committee's half guards against kinds unlike what is met later. It does
//! replace it only on [`Evidence`]: each kind is left out in turn, and what is chosen by the others
//! must gain on it.
//!
//! How much to trust the ranking: the [`agreement`](Selection::agreement) of groups or kinds, and
//! its [`stability`](Selection::stability) where kinds are left out.

mod contest;
mod deal;
mod finish;
mod outliers;
mod rank;
mod surrogates;
mod trial;
mod tune;

use serde::{Deserialize, Serialize};

pub use finish::{FittedCommittee, Standardise, fit_committee, fit_composition};
pub use surrogates::Surrogates;
pub use tune::{Tuned, Tuning, tune};

use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field, FieldSet, RowSketch};
use crate::math::rng::{Purpose, Stream};
use crate::observe::{Event, Observer};
use crate::scorers::{ScorerSpec, TrainingData, committee};
use contest::{Contest, Kinds};
use deal::Deal;

/// Most products rows·D·C that scorers are judged by unless more are asked for: half a minute of two cores
/// for a scorer that takes a hundred of them a row (`weiper`).
pub const MOST_PRODUCTS: usize = 1 << 34;

/// Fewest rows of a kind that scorers are judged by for the sake of time.
const FEWEST_JUDGED: usize = 300;

/// Settings of a selection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectConfig {
    /// Groups of classes, each left out once; where there are surrogates nothing is left out.
    pub folds: usize,
    /// Most training rows used, the same fraction of every class, but at least
    /// ten of each.
    pub rows: usize,
    /// Most rows of each kind, and a quarter of the ID rows, that scorers are judged by where there are
    /// surrogates; by default all, or, where features and classes are many, what [`MOST_PRODUCTS`] allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind_rows: Option<usize>,
    /// Most scorers that are given weights beside the committee's own.
    pub members: usize,
    /// Seed of groups, rows and outliers.
    pub seed: u64,
    /// End with the error of a scorer that cannot be fitted or scored, instead of leaving it
    /// out.
    pub strict: bool,
}

impl Default for SelectConfig {
    fn default() -> Self {
        let (folds, rows, members) = (5, 20_000, 8);
        SelectConfig { folds, rows, kind_rows: None, members, seed: 0, strict: false }
    }
}

/// Kinds of pseudo-OOD rows where there are features alone.
pub fn kinds() -> Vec<&'static str> {
    std::iter::once("held_out_classes").chain(outliers::KINDS).collect()
}

/// One scorer's standing.
#[derive(Debug, Clone, Serialize)]
pub struct Ranked {
    /// The scorer as written.
    pub name: String,
    /// Its value: mean AUROC over kinds (over groups of kinds) and folds.
    pub auroc: f64,
    /// Standard error of it over folds, where there are some.
    pub error: Option<f64>,
    /// Mean AUROC over each of [`Selection::groups`], where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_group: Vec<f64>,
    /// Mean AUROC against each of [`Selection::kinds`].
    pub by_kind: Vec<f64>,
}

/// Whether a composition that was found is better than that which it would replace: on kinds
/// that it was not chosen by.
#[derive(Debug, Clone, Serialize)]
pub struct Evidence {
    /// Gain in AUROC on each kind, by what is chosen without it.
    pub gains: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Standard error of it over the kinds.
    pub standard_error: f64,
    /// Whether that is taken to be better.
    pub suffices: bool,
}

impl Evidence {
    /// Gains beyond this many standard errors of their mean are taken for real: one in forty
    /// would be so by chance, were kinds drawn at random.
    const BEYOND: f64 = 2.0;

    pub(crate) fn of(gains: Vec<f64>) -> Self {
        let n = gains.len() as f64;
        let mean = gains.iter().sum::<f64>() / n;
        let squares: f64 = gains.iter().map(|g| (g - mean).powi(2)).sum();
        let standard_error = (squares / (n - 1.0) / n).sqrt();
        let suffices = mean > 0.0 && mean > Self::BEYOND * standard_error;
        Evidence { gains, mean, standard_error, suffices }
    }
}

/// What a selection found.
#[derive(Debug, Clone, Serialize)]
pub struct Selection {
    /// The scorers, best first.
    pub ranking: Vec<Ranked>,
    /// Rank correlation (Spearman) between the rankings by the two groups of kinds; where there
    /// is one group, the mean between single kinds within folds. None where nothing can be ranked.
    pub agreement: Option<f64>,
    /// Mean rank correlation between the rankings by two halves of the kinds; none where there
    /// are too few.
    pub stability: Option<f64>,
    /// Members of the composition that is chosen with their weights; one if that is one scorer.
    pub composition: Vec<(String, f64)>,
    /// Its mean AUROC, on the rows that chose it.
    pub composed_auroc: f64,
    /// What is taken unless another composition is shown to be better: the fixed committee, as
    /// far as its members can be fitted and are among the scorers, else the best scorer.
    pub fallback: Vec<(String, f64)>,
    /// Its mean AUROC.
    pub fallback_auroc: f64,
    /// The best composition found, whether it is chosen or not.
    pub found: Vec<(String, f64)>,
    /// Its mean AUROC, on the rows that it was found by.
    pub found_auroc: f64,
    /// Whether that is better than the fallback; none where there are fewer than three kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Folds used; one where there are surrogates.
    pub folds: usize,
    /// Groups of kinds, which count alike.
    pub groups: Vec<&'static str>,
    /// The kinds, in the order of `by_kind`.
    pub kinds: Vec<String>,
    /// What the ID rows were.
    pub id: IdRows,
    /// Scorers that could not be fitted or scored in a fold, each with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, String)>,
    /// Mean and deviation of each member over ID rows that were held out of the fit by which it
    /// was chosen; empty where it is standardised on other rows.
    #[serde(skip)]
    pub scale: Vec<(f64, f64)>,
}

/// Which ID rows a selection told pseudo-OOD rows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdRows {
    /// Rows outside the training set.
    HeldOut,
    /// Given ones, of which so many are training rows: these were left out of the fit by which
    /// scorers were judged.
    OfTraining {
        /// So many.
        rows: usize,
    },
    /// Training rows left out of the fit: a fifth of them; in folds, of each.
    Fifth,
}

impl Selection {
    /// How the members of the composition are to be standardised: by the rows that they were
    /// judged by where these were no training rows (`id` then), else by what these gave.
    pub fn standardise<'a>(&'a self, id: Option<&'a FeatureSet>, seed: u64) -> Standardise<'a> {
        match (self.folds, self.id, id) {
            (1, IdRows::HeldOut, Some(id)) => Standardise::HeldOut(id),
            (1, ..) => Standardise::Known(&self.scale),
            _ => Standardise::Fifth(seed),
        }
    }

    /// Whether what was found beside the fallback is taken.
    pub fn replaced(&self) -> bool {
        self.evidence.as_ref().is_some_and(|e| e.suffices)
    }

    /// How much to trust the ranking, in words.
    pub fn trust(&self) -> &'static str {
        if self.folds == 1 {
            return match self.stability {
                None => "too few kinds to say how much the ranking hangs on them",
                Some(s) if s >= 0.7 => "the ranking hardly hangs on which kinds are taken",
                Some(s) if s >= 0.4 => {
                    "the ranking hangs on which kinds are taken: trust the upper half, not the order"
                }
                Some(_) => "the ranking hangs on which kinds are taken: it says little",
            };
        }
        let Some(agreement) = self.agreement else {
            return "one scorer cannot be ranked";
        };
        match agreement {
            a if a >= 0.7 => "the kinds of outliers agree: the ranking deserves trust",
            a if a >= 0.4 => {
                "the kinds of outliers agree in part: trust the upper half, not the order"
            }
            _ => "the kinds of outliers disagree: the ranking says little about unknown data",
        }
    }

    /// The scorers whose places in the rankings by the two groups differ most, with these places
    /// from 1; none where there are no two groups.
    pub fn disputed(&self, most: usize) -> Vec<(&str, [usize; 2])> {
        if self.groups.len() < 2 {
            return Vec::new();
        }
        let place = |r: &Ranked, g: usize| {
            1 + self.ranking.iter().filter(|other| other.by_group[g] > r.by_group[g]).count()
        };
        let mut all: Vec<(&str, [usize; 2])> =
            self.ranking.iter().map(|r| (&*r.name, [place(r, 0), place(r, 1)])).collect();
        all.sort_by_key(|(_, [a, b])| std::cmp::Reverse(a.abs_diff(*b)));
        all.truncate(most);
        all
    }
}

impl SelectConfig {
    fn check(&self, classes: usize) -> Result<usize> {
        if self.folds < 2 {
            let problem = "at least two groups of classes are left out in turn";
            return Err(Error::config("folds", self.folds, problem));
        }
        if classes < 3 {
            let problem = "classes are left out in turn, so at least three are needed";
            return Err(Error::config("classes", classes, problem));
        }
        Ok(self.folds.min(classes))
    }

    fn check_members(&self) -> Result<()> {
        if self.members == 0 {
            return Err(Error::config("members", 0, "a composition has at least one member"));
        }
        Ok(())
    }

    /// Rank scorers on the training set alone.
    ///
    /// # Errors
    /// If the set has no labels or fewer than three classes, no scorer can be fitted, or one
    /// cannot and the settings are strict.
    pub fn run(
        &self,
        specs: &[ScorerSpec],
        data: &TrainingData,
        observer: &mut dyn Observer,
    ) -> Result<Selection> {
        let train = &data.features;
        let present = train.present(data.count_classes()?)?;
        let classes = present.count;
        let folds = self.check(classes)?;
        self.check_members()?;
        let mut contest = Contest::new(specs, self.strict)?;
        let labels = train.labels(0..train.len(), data.count_classes()?)?;
        let order = Stream::new(self.seed, Purpose::HoldOut, 1, 0).permutation(classes as u32);
        for fold in 0..folds {
            let left_out = order.iter().skip(fold).step_by(folds);
            let left_out: Vec<u32> =
                left_out.map(|number| present.class(*number as usize) as u32).collect();
            self.fold(&mut contest, data, &labels, &left_out, fold, observer)?;
        }
        let names: Vec<String> = kinds().into_iter().map(str::to_owned).collect();
        let kinds = Kinds { groups: vec![("all", (0..names.len()).collect())], names };
        contest.conclude(self, kinds, IdRows::Fifth, &committee(data), observer)
    }

    fn fold(
        &self,
        contest: &mut Contest,
        data: &TrainingData,
        labels: &[u32],
        left_out: &[u32],
        fold: usize,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let train = &data.features;
        let rows = Deal { labels, most: self.rows, seed: self.seed }.fold(left_out, fold);
        for (what, rows, classes) in [
            ("to fit on", &rows.fit, "kept"),
            ("to validate with", &rows.validation, "kept"),
            ("to play OOD", &rows.unknown, "left out"),
        ] {
            if rows.is_empty() {
                let problem = format!(
                    "no row is left {what} where classes {left_out:?} are left out: the {classes} \
                     classes have none, or too few; five rows of every class are needed"
                );
                return Err(Error::Fit { what: format!("selection on {}", train.name()), problem });
            }
        }
        let mut kept: Vec<u32> = rows.fit.iter().map(|&i| labels[i as usize]).collect();
        kept.sort_unstable();
        kept.dedup();
        let fit = train.select(rows.fit, Some(kept.clone()))?;
        let id = train.select(rows.validation, Some(kept.clone()))?;
        let unknown = train.select(rows.unknown, None)?;
        let unknown = unknown.with_logits_of(&kept)?;
        let head = data.head.as_ref().map(|h| h.select(&kept)).transpose()?;
        observer.on(Event::Begin { task: "select", total: 0 });
        let part = TrainingData::new(&fit).with_head(head.as_ref());
        let outliers = outliers::make(&id, self.seed.wrapping_add(fold as u64))?;
        let made = outliers.iter().map(|(_, set)| set);
        let sets: Vec<&FeatureSet> = [&id, &unknown].into_iter().chain(made).collect();
        contest.hold(&part, &sets, observer)
    }

    /// Rank scorers by sets that play OOD.
    ///
    /// Each scorer is fitted once, on the training set (at most [`SelectConfig::rows`] of it). ID
    /// rows that are training rows are left out of that fit; where no ID rows are given, a fifth of
    /// the training rows is.
    ///
    /// # Errors
    /// If a set has too few rows, no scorer can be fitted, or one cannot and the settings are
    /// strict.
    pub fn run_on(
        &self,
        specs: &[ScorerSpec],
        data: &TrainingData,
        surrogates: &Surrogates,
        observer: &mut dyn Observer,
    ) -> Result<Selection> {
        surrogates.check()?;
        self.check_members()?;
        let mut contest = Contest::new(specs, self.strict)?;
        let train = &data.features;
        let labels = match train.labelled() {
            true => train.labels(0..train.len(), data.count_classes()?)?,
            false => vec![0; train.len()],
        };
        let deal = Deal { labels: &labels, most: self.rows, seed: self.seed };
        let (fit, id, id_rows) = match &surrogates.id {
            None => {
                let dealt = deal.fold(&[], 0);
                let held_out = train.select(dealt.validation, None)?;
                (dealt.fit, held_out, IdRows::Fifth)
            }
            Some(id) => {
                let seen = rows_of(train, id)?;
                let mut fit = deal.some(0);
                fit.retain(|row| seen.binary_search(row).is_err());
                fit.sort_unstable();
                let id_rows = match seen.len() {
                    0 => IdRows::HeldOut,
                    rows => IdRows::OfTraining { rows },
                };
                (fit, id.clone(), id_rows)
            }
        };
        if fit.is_empty() {
            let problem = format!(
                "every training row is among the ID rows of {}: none is left to fit on",
                id.name()
            );
            return Err(Error::Fit { what: format!("selection on {}", train.name()), problem });
        }
        let mut part = data.clone();
        if fit.len() < train.len() {
            part.features = train.select(fit, None)?;
        }
        observer.on(Event::Begin { task: "select", total: 0 });
        let most = self.judged(data, surrogates)?;
        let made = surrogates.kinds.iter().map(|(_, set)| self.part_of(set, most));
        let sets = std::iter::once(self.part_of(&id, most.saturating_mul(4))).chain(made);
        let sets: Vec<FeatureSet> = sets.collect::<Result<_>>()?;
        contest.hold(&part, &sets.iter().collect::<Vec<_>>(), observer)?;
        let names = surrogates.kinds.iter().map(|(name, _)| name.clone()).collect();
        let kinds = Kinds { names, groups: surrogates.groups() };
        contest.conclude(self, kinds, id_rows, &committee(data), observer)
    }
}

impl SelectConfig {
    /// Most rows of a kind by which scorers are judged.
    fn judged(&self, data: &TrainingData, surrogates: &Surrogates) -> Result<usize> {
        if let Some(most) = self.kind_rows {
            if most < surrogates::FEWEST {
                let problem = format!("at least {} are needed to rank by", surrogates::FEWEST);
                return Err(Error::config("kind_rows", most, problem));
            }
            return Ok(most);
        }
        let train = &data.features;
        let wide = train.fields().filter_map(|field| train.dim(field)).max().unwrap_or(1);
        let classes = data.known_classes()?.unwrap_or(1);
        let each = wide.saturating_mul(classes).saturating_mul(surrogates.kinds.len());
        Ok((MOST_PRODUCTS / each.max(1)).max(FEWEST_JUDGED))
    }

    /// At most so many rows of a set, drawn with the seed, in their order.
    fn part_of(&self, set: &FeatureSet, most: usize) -> Result<FeatureSet> {
        if set.len() <= most {
            return Ok(set.clone());
        }
        let mut rows = Stream::new(self.seed, Purpose::HoldOut, 5, 0).permutation(set.len() as u32);
        rows.truncate(most);
        rows.sort_unstable();
        set.select(rows, None)
    }
}

/// The rows of a training set that are among some ID rows, ascending.
pub(crate) fn rows_of(train: &FeatureSet, id: &FeatureSet) -> Result<Vec<u32>> {
    let both = |f: &Field| train.dim(*f).is_some() && train.dim(*f) == id.dim(*f);
    let Some(field) = Field::ALL.into_iter().find(both) else { return Ok(Vec::new()) };
    let sketch = RowSketch::of(id, &FieldSet::of(field))?;
    Ok(match sketch.is_whole() {
        true => sketch.shared(train)?.map(|(_, rows)| rows),
        false => sketch.shared_through(id, train)?,
    }
    .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gains 1, 2, 3: mean 2, deviation 1, standard error 1/√3.
    #[test]
    fn evidence_by_hand() {
        let found = Evidence::of(vec![0.01, 0.02, 0.03]);
        assert!((found.mean - 0.02).abs() < 1e-15);
        assert!((found.standard_error - 0.01 / 3f64.sqrt()).abs() < 1e-15);
        assert!(found.suffices);
        // A mean within two standard errors, one below zero, and none.
        for gains in [vec![0.05, -0.01, 0.0], vec![-0.01; 4], vec![0.0; 4]] {
            assert!(!Evidence::of(gains).suffices);
        }
        assert!(Evidence::of(vec![0.01; 4]).suffices);
    }
}
