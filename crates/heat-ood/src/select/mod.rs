//! Choosing scorers, and the weights of a composition, without OOD data.
//!
//! The classes of the training set are dealt into groups. In each fold one
//! group is left out of the fit, of the head and of the validation rows, as if
//! it were unknown; its rows are one kind of pseudo-OOD, outliers made of
//! validation rows (`outliers`) are others. Each scorer is fitted anew in
//! each fold and judged by its AUROC against every kind; its value is the mean
//! over the kinds. The composition is found by greedy forward selection on the
//! standardised scores (Caruana et al., *Ensemble Selection*, ICML 2004), with
//! replacement, so that its weights are counts; members must be among the
//! better half and above chance against every kind.
//!
//! How much to trust the ranking: the standard error over folds, and the
//! [`agreement`](Selection::agreement) of the kinds. Where outliers of one
//! kind rank the scorers otherwise than those of another, real OOD data may
//! rank them in a third way.

mod outliers;
mod tune;

use serde::{Deserialize, Serialize};

pub use tune::{Tuned, Tuning, tune};

use crate::compose::{CombinedConfig, Part, mean_std};
use crate::error::{Error, Result};
use crate::math::parallel::{Pieces, Slices};
use crate::math::rng::{Purpose, Stream};
use crate::metrics;
use crate::observe::{Event, Observer};
use crate::scorers::{
    Fit, Fitted, Scorer, ScorerSpec, TrainingData, fit_all, fit_each, score_each,
};

/// Settings of a selection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectConfig {
    /// Groups of classes, each left out once.
    pub folds: usize,
    /// Most training rows used, the same fraction of every class, but at least
    /// ten of each.
    pub rows: usize,
    /// Most members of the composition, counted with repetition.
    pub members: usize,
    /// Seed of groups, rows and outliers.
    pub seed: u64,
    /// End with the error of a scorer that cannot be fitted or scored, instead of leaving it
    /// out.
    pub strict: bool,
}

impl Default for SelectConfig {
    fn default() -> Self {
        SelectConfig { folds: 5, rows: 20_000, members: 6, seed: 0, strict: false }
    }
}

/// Kinds of pseudo-OOD rows.
pub fn kinds() -> Vec<&'static str> {
    std::iter::once("held_out_classes").chain(outliers::KINDS).collect()
}

/// One scorer's standing.
#[derive(Debug, Clone, Serialize)]
pub struct Ranked {
    /// The scorer as written.
    pub name: String,
    /// Mean AUROC over kinds and folds.
    pub auroc: f64,
    /// Standard error of it over folds.
    pub error: f64,
    /// Mean AUROC against each of [`kinds`].
    pub by_kind: Vec<f64>,
}

/// What a selection found.
#[derive(Debug, Clone, Serialize)]
pub struct Selection {
    /// The scorers, best first.
    pub ranking: Vec<Ranked>,
    /// Mean rank correlation (Spearman) between kinds of outliers, within
    /// folds; none where nothing can be ranked.
    pub agreement: Option<f64>,
    /// Members of the best composition with their weights; one if no
    /// composition is better.
    pub composition: Vec<(String, f64)>,
    /// Mean AUROC of that composition, on the rows that chose it.
    pub composed_auroc: f64,
    /// Folds used.
    pub folds: usize,
    /// The [`kinds`], in the order of `by_kind`.
    pub kinds: Vec<&'static str>,
    /// Scorers that could not be fitted or scored in a fold, each with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<(String, String)>,
}

impl Selection {
    /// How much to trust the ranking, in words.
    pub fn trust(&self) -> &'static str {
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
}

/// AUROCs of one fold: `[kind][scorer]`, and the standardised scores.
struct Fold {
    auroc: Vec<Vec<f64>>,
    id: Vec<Vec<f32>>,
    ood: Vec<Vec<Vec<f32>>>,
    /// Scorers whose scores of the rows fitted on are all equal: no unit for a
    /// composition.
    flat: Vec<bool>,
}

/// What comes of a fold.
enum Dealing {
    Done(Fold),
    /// Places of the scorers that could not be fitted or scored, in their order.
    Failed(Vec<(usize, Error)>),
}

/// All, or those that failed, by their places.
fn whole<T>(results: Vec<Result<T>>) -> std::result::Result<Vec<T>, Vec<(usize, Error)>> {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for (i, result) in results.into_iter().enumerate() {
        match result {
            Ok(value) => found.push(value),
            Err(error) => failed.push((i, error)),
        }
    }
    if failed.is_empty() { Ok(found) } else { Err(failed) }
}

impl SelectConfig {
    fn check(&self, classes: usize) -> Result<usize> {
        if self.folds < 2 {
            let problem = "at least two groups of classes are left out in turn";
            return Err(Error::config("folds", self.folds, problem));
        }
        if self.members == 0 {
            return Err(Error::config("members", 0, "a composition has at least one member"));
        }
        if classes < 3 {
            let problem = "classes are left out in turn, so at least three are needed";
            return Err(Error::config("classes", classes, problem));
        }
        Ok(self.folds.min(classes))
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
        if specs.is_empty() {
            return Err(Error::config("scorers", "", "name at least one, e.g. `knn,el`"));
        }
        if let Some(twice) = (1..specs.len()).find(|&i| specs[..i].contains(&specs[i])) {
            return Err(Error::config("scorers", &specs[twice], "is named twice"));
        }
        let labels = train.labels(0..train.len(), data.count_classes()?)?;
        let order = Stream::new(self.seed, Purpose::HoldOut, 1, 0).permutation(classes as u32);
        let mut specs = specs.to_vec();
        let mut skipped = Vec::new();
        let mut found = Vec::new();
        while found.len() < folds {
            let fold = found.len();
            let left_out = order.iter().skip(fold).step_by(folds);
            let left_out: Vec<u32> =
                left_out.map(|number| present.class(*number as usize) as u32).collect();
            match self.fold(&specs, data, &labels, &left_out, fold, observer)? {
                Dealing::Done(fold) => found.push(fold),
                // All folds are of the same scorers: without those that failed, anew.
                Dealing::Failed(failed) => {
                    for (i, error) in failed.into_iter().rev() {
                        let spec = specs.remove(i);
                        if self.strict || specs.is_empty() {
                            return Err(error);
                        }
                        skipped.push((spec.to_string(), error.to_string()));
                    }
                    found.clear();
                }
            }
        }
        Ok(Selection { skipped, ..self.conclude(&specs, &found) })
    }

    fn fold(
        &self,
        specs: &[ScorerSpec],
        data: &TrainingData,
        labels: &[u32],
        left_out: &[u32],
        fold: usize,
        observer: &mut dyn Observer,
    ) -> Result<Dealing> {
        let train = &data.features;
        let rows = self.deal(labels, left_out, fold);
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
        let fitted = match whole(fit_each(specs, &part, observer)) {
            Ok(fitted) => fitted,
            Err(failed) => return Ok(Dealing::Failed(failed)),
        };
        let scorers: Vec<&dyn Scorer> = fitted.iter().map(|(scorer, _)| &**scorer).collect();
        let outliers = outliers::make(&id, self.seed.wrapping_add(fold as u64))?;
        let sets = [&fit, &id, &unknown].into_iter().chain(outliers.iter().map(|(_, set)| set));
        let mut scores = Vec::new();
        for set in sets {
            match whole(score_each(set, &scorers, false, observer)?) {
                Ok(scored) => scores.push(scored.into_iter().map(|s| s.scores).collect()),
                Err(failed) => return Ok(Dealing::Failed(failed)),
            }
        }
        let mut ood: Vec<Vec<Vec<f32>>> = scores.split_off(2);
        let (mut id_scores, known) = (scores.remove(1), scores.remove(0));
        let auroc = ood.iter().map(|kind| {
            id_scores
                .iter()
                .zip(kind)
                .map(|(a, o)| metrics::auroc(a, o))
                .collect::<Result<Vec<_>>>()
        });
        let auroc = auroc.collect::<Result<_>>()?;
        let mut flat = Vec::new();
        for s in 0..specs.len() {
            let theirs = ood.iter_mut().map(|kind| &mut kind[s]);
            flat.push(!standardise(&known[s], std::iter::once(&mut id_scores[s]).chain(theirs)));
        }
        Ok(Dealing::Done(Fold { auroc, id: id_scores, ood, flat }))
    }

    /// Rows to fit on, four fifths of the kept classes; to validate with, the
    /// others; and of the classes left out.
    fn deal(&self, labels: &[u32], left_out: &[u32], fold: usize) -> Dealt {
        let n = labels.len() as u32;
        let order = Stream::new(self.seed, Purpose::HoldOut, 2, fold as u64).permutation(n);
        let share = (self.rows as f64 / labels.len() as f64).min(1.0);
        let classes = labels.iter().max().map_or(0, |l| *l as usize + 1);
        let mut size = vec![0usize; classes];
        labels.iter().for_each(|l| size[*l as usize] += 1);
        let mut taken = vec![0usize; classes];
        let (mut fit, mut validation, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for i in order {
            let k = labels[i as usize] as usize;
            let most = ((share * size[k] as f64).ceil() as usize).max(10);
            if taken[k] == most {
                continue;
            }
            taken[k] += 1;
            if left_out.contains(&(k as u32)) {
                unknown.push(i);
            } else if taken[k].is_multiple_of(5) {
                validation.push(i);
            } else {
                fit.push(i);
            }
        }
        for rows in [&mut fit, &mut validation, &mut unknown] {
            rows.sort_unstable();
        }
        Dealt { fit, validation, unknown }
    }

    fn conclude(&self, specs: &[ScorerSpec], folds: &[Fold]) -> Selection {
        let kinds = folds[0].auroc.len();
        let n = folds.len() as f64;
        let mut ranking: Vec<Ranked> = (0..specs.len())
            .map(|s| {
                let by_kind: Vec<f64> = (0..kinds)
                    .map(|k| folds.iter().map(|f| f.auroc[k][s]).sum::<f64>() / n)
                    .collect();
                let of_fold = |f: &Fold| f.auroc.iter().map(|k| k[s]).sum::<f64>() / kinds as f64;
                let auroc = folds.iter().map(of_fold).sum::<f64>() / n;
                let variance =
                    folds.iter().map(|f| (of_fold(f) - auroc).powi(2)).sum::<f64>() / (n - 1.0);
                Ranked { name: specs[s].to_string(), auroc, error: (variance / n).sqrt(), by_kind }
            })
            .collect();
        let eligible: Vec<usize> = eligible(&ranking);
        let (counts, composed_auroc) = self.compose(folds, specs.len(), &eligible);
        let total: usize = counts.iter().sum();
        let members = counts.iter().enumerate().filter(|(_, n)| **n > 0);
        let composition =
            members.map(|(s, &n)| (specs[s].to_string(), n as f64 / total as f64)).collect();
        ranking.sort_by(|a, b| b.auroc.total_cmp(&a.auroc));
        let agreement = agreement(folds);
        Selection {
            ranking,
            agreement,
            composition,
            composed_auroc,
            folds: folds.len(),
            kinds: self::kinds(),
            skipped: Vec::new(),
        }
    }

    /// How often each scorer is in the best composition found.
    fn compose(&self, folds: &[Fold], scorers: usize, eligible: &[usize]) -> (Vec<usize>, f64) {
        let is_flat = |s: &usize| folds.iter().any(|f| f.flat[*s]);
        let (alone, eligible): (Vec<usize>, Vec<usize>) = eligible.iter().partition(|s| is_flat(s));
        let mut counts = vec![0usize; scorers];
        let mut best = 0.0;
        for _ in 0..if eligible.is_empty() { 0 } else { self.members } {
            let with = |s: usize| {
                let mut counts = counts.clone();
                counts[s] += 1;
                value(folds, &counts)
            };
            let tried: Vec<f64> = eligible.par_iter().map(|&s| with(s)).collect();
            let top = (0..tried.len()).fold(0, |b, i| if tried[i] > tried[b] { i } else { b });
            if tried[top] <= best {
                break;
            }
            best = tried[top];
            counts[eligible[top]] += 1;
        }
        for s in alone {
            let only: Vec<usize> = (0..scorers).map(|i| usize::from(i == s)).collect();
            let found = value(folds, &only);
            if found > best {
                (counts, best) = (only, found);
            }
        }
        (counts, best)
    }
}

/// Scorers that may be members: no kind of outlier looks ordinary to them, and
/// they are among the better half. A scorer that one kind flatters would else
/// be taken in for that kind alone. `ranking` is in the order of the scorers.
fn eligible(ranking: &[Ranked]) -> Vec<usize> {
    let mut values: Vec<f64> = ranking.iter().map(|r| r.auroc).collect();
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    let sound = |r: &Ranked| r.auroc >= median && r.by_kind.iter().all(|a| *a >= 0.5);
    let found: Vec<usize> = (0..ranking.len()).filter(|&s| sound(&ranking[s])).collect();
    if found.is_empty() { (0..ranking.len()).collect() } else { found }
}

struct Dealt {
    fit: Vec<u32>,
    validation: Vec<u32>,
    unknown: Vec<u32>,
}

/// Mean AUROC of a weighted sum of standardised scores.
fn value(folds: &[Fold], counts: &[usize]) -> f64 {
    let sum = |scores: &[Vec<f32>]| {
        let mut out = vec![0.0f32; scores[0].len()];
        for (s, &n) in scores.iter().zip(counts).filter(|(_, n)| **n > 0) {
            out.iter_mut().zip(s).for_each(|(o, v)| *o += n as f32 * v);
        }
        out
    };
    let (mut total, mut cases) = (0.0, 0);
    for fold in folds {
        let id = sum(&fold.id);
        for kind in &fold.ood {
            // Never empty; NaN only where sums overflow, which is no choice.
            total += metrics::auroc(&id, &sum(kind)).unwrap_or(0.0);
            cases += 1;
        }
    }
    total / f64::from(cases)
}

/// By mean and deviation over the rows fitted on, as a composition does; whether
/// there is a deviation. Without one the scores stay as they are.
fn standardise<'a>(fit: &[f32], scores: impl Iterator<Item = &'a mut Vec<f32>>) -> bool {
    let (mean, std) = mean_std(fit);
    if std.is_nan() || std <= 0.0 {
        return false;
    }
    let scale = 1.0 / std;
    let apply = |v: &mut f32| *v = ((f64::from(*v) - mean) * scale) as f32;
    scores.for_each(|scores| scores.iter_mut().for_each(apply));
    true
}

/// Mean Spearman correlation between the rankings by two kinds, within folds.
fn agreement(folds: &[Fold]) -> Option<f64> {
    if folds.iter().any(|f| f.auroc[0].len() < 2) {
        return None;
    }
    let (mut total, mut pairs) = (0.0, 0);
    for fold in folds {
        let ranks: Vec<Vec<f64>> = fold.auroc.iter().map(|k| ranks(k)).collect();
        for a in 0..ranks.len() {
            for b in 0..a {
                total += correlation(&ranks[a], &ranks[b]);
                pairs += 1;
            }
        }
    }
    (pairs > 0).then(|| total / f64::from(pairs))
}

/// Ranks from 0, ties sharing their mean.
fn ranks(x: &[f64]) -> Vec<f64> {
    let rank = |v: &f64| {
        let below = x.iter().filter(|w| *w < v).count() as f64;
        let equal = x.iter().filter(|w| *w == v).count() as f64;
        below + (equal - 1.0) / 2.0
    };
    x.iter().map(rank).collect()
}

/// Pearson's correlation; 0 where one side is constant.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - ma, y - mb)).sum::<f64>();
    let scale = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    if scale > 0.0 { sum(&|x, y| x * y) / scale } else { 0.0 }
}

/// Fit the chosen scorers on the whole training set and compose them.
///
/// # Errors
/// If a scorer cannot be fitted, or all its scores are equal.
pub fn fit_composition(
    composition: &[(String, f64)],
    data: &TrainingData,
    observer: &mut dyn Observer,
) -> Result<Fitted<dyn Scorer>> {
    let specs = composition.iter().map(|(name, _)| ScorerSpec::parse(name));
    let mut fitted = fit_all(&specs.collect::<Result<Vec<_>>>()?, data, observer)?;
    if fitted.len() == 1 {
        return Ok(fitted.remove(0).0);
    }
    let mut members = Vec::new();
    for ((name, weight), (scorer, _)) in composition.iter().zip(fitted) {
        members.push(Part { weight: *weight, ..Part::new(name, scorer) });
    }
    Ok(CombinedConfig { members, beta: 0.0 }.fit(data, observer)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: `spearmanr([.9, .8, .7, .7], [.6, .9, .5, .4])` is
    /// 0.7378647873726218.
    #[test]
    fn rank_correlation_equals_scipy() {
        let (a, b) = ([0.9, 0.8, 0.7, 0.7], [0.6, 0.9, 0.5, 0.4]);
        let got = correlation(&ranks(&a), &ranks(&b));
        assert!((got - 0.737_864_787_372_621_8).abs() < 1e-12, "{got}");
        assert_eq!(correlation(&[1.0, 1.0], &[0.0, 1.0]), 0.0);
    }
}
