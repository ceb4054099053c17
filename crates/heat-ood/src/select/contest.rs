//! Scorers that are tried on the same rows, and what is concluded.

use super::rank::spearman;
use super::trial::Trial;
use super::{Evidence, IdRows, Ranked, SelectConfig, Selection};
use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::math::logistic::{self, Rows};
use crate::math::parallel::{Pieces, Slices};
use crate::math::rng::{Purpose, Stream};
use crate::observe::Observer;
use crate::scorers::{Scorer, ScorerSpec, TrainingData, fit_each, score_each};

/// The scorers that are left, with their trials.
pub(super) struct Contest {
    specs: Vec<ScorerSpec>,
    strict: bool,
    trials: Vec<Trial>,
    skipped: Vec<(String, String)>,
}

/// The kinds of rows that play OOD, and how they are counted.
pub(super) struct Kinds {
    pub names: Vec<String>,
    /// Groups of equal weight: the name of each with the places of its kinds.
    pub groups: Vec<(&'static str, Vec<usize>)>,
}

impl Kinds {
    /// The mean over groups of their means over kinds, without one of the kinds.
    fn value(&self, by_kind: &[f64], without: Option<usize>) -> f64 {
        let means = self.groups.iter().filter_map(|(_, kinds)| mean_of(by_kind, kinds, without));
        let (sum, n) = means.fold((0.0, 0), |(sum, n), mean| (sum + mean, n + 1));
        sum / f64::from(n.max(1))
    }
}

fn mean_of(by_kind: &[f64], kinds: &[usize], without: Option<usize>) -> Option<f64> {
    let kept: Vec<f64> =
        kinds.iter().filter(|k| Some(**k) != without).map(|k| by_kind[*k]).collect();
    (!kept.is_empty()).then(|| kept.iter().sum::<f64>() / kept.len() as f64)
}

/// What each scorer counts in a composition, one in all, and what that is worth.
#[derive(Clone)]
struct Composed {
    weights: Vec<f64>,
    value: f64,
}

impl Contest {
    /// # Errors
    /// If there is no scorer, or one is named twice.
    pub fn new(specs: &[ScorerSpec], strict: bool) -> Result<Self> {
        if specs.is_empty() {
            return Err(Error::config("scorers", "", "name at least one, e.g. `knn,el`"));
        }
        if let Some(twice) = (1..specs.len()).find(|&i| specs[..i].contains(&specs[i])) {
            return Err(Error::config("scorers", &specs[twice], "is named twice"));
        }
        let specs = specs.to_vec();
        Ok(Contest { specs, strict, trials: Vec::new(), skipped: Vec::new() })
    }

    /// Fit all on `data` and score these sets, the first of which is of ID rows; each is read
    /// once. Scorers that fail are left out, of earlier trials too.
    ///
    /// # Errors
    /// If a set cannot be read, none is left, or one fails and that is not allowed.
    pub fn hold(
        &mut self,
        data: &TrainingData,
        sets: &[&FeatureSet],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let fitted = self.sift(fit_each(&self.specs, data, observer))?;
        let scorers: Vec<&dyn Scorer> = fitted.iter().map(|(scorer, _)| &**scorer).collect();
        let mut scores: Vec<Result<Vec<Vec<f32>>>> = vec![];
        scores.resize_with(scorers.len(), || Ok(Vec::new()));
        for set in sets {
            let found = score_each(set, &scorers, false, observer)?;
            for (all, found) in scores.iter_mut().zip(found) {
                match (&mut *all, found) {
                    (Ok(all), Ok(found)) => all.push(found.scores),
                    (Ok(_), Err(error)) => *all = Err(error),
                    // The first set at fault is told.
                    (Err(_), _) => {}
                }
            }
        }
        let scores = self.sift(scores)?;
        self.trials.push(Trial::new(scores)?);
        Ok(())
    }

    /// Keep what was found, and leave out the scorers that failed.
    fn sift<T>(&mut self, results: Vec<Result<T>>) -> Result<Vec<T>> {
        let (mut kept, mut specs) = (Vec::new(), Vec::new());
        let all_failed = results.iter().all(Result::is_err);
        for (result, spec) in results.into_iter().zip(std::mem::take(&mut self.specs)) {
            match result {
                Ok(value) => {
                    kept.push(value);
                    specs.push(spec);
                }
                Err(error) if self.strict || all_failed => return Err(error),
                Err(error) => {
                    self.trials.iter_mut().for_each(|trial| trial.remove(specs.len()));
                    self.skipped.push((spec.to_string(), error.to_string()));
                }
            }
        }
        self.specs = specs;
        Ok(kept)
    }

    /// Rank the scorers, and choose a composition.
    pub fn conclude(
        self,
        config: &SelectConfig,
        kinds: Kinds,
        id: IdRows,
        committee: &[ScorerSpec],
        observer: &mut dyn Observer,
    ) -> Result<Selection> {
        let mut ranking: Vec<Ranked> =
            (0..self.specs.len()).map(|s| self.ranked(s, &kinds)).collect();
        let agreement = self.agreement(&kinds, &ranking);
        let stability = self.stability(&kinds, &ranking, config.seed);
        let fallback = self.fallback(committee, &ranking, &kinds);
        let search = Search::new(&self, &kinds, &fallback.weights, config.members);
        let found = search.compose(None);
        if observer.should_stop() {
            return Err(Error::Stopped);
        }
        let evidence = search.evidence();
        let found = Composed { value: kinds.value(&self.composed(&found), None), weights: found };
        let shown = evidence.as_ref().is_some_and(|e| e.suffices);
        let chosen = if shown { &found } else { &fallback };
        ranking.sort_by(|a, b| b.auroc.total_cmp(&a.auroc));
        Ok(Selection {
            ranking,
            agreement,
            stability,
            composition: self.members(chosen),
            scale: self.scale(chosen),
            composed_auroc: chosen.value,
            fallback: self.members(&fallback),
            fallback_auroc: fallback.value,
            found: self.members(&found),
            found_auroc: found.value,
            evidence,
            folds: self.trials.len(),
            groups: kinds.groups.iter().map(|(name, _)| *name).collect(),
            kinds: kinds.names,
            id,
            skipped: self.skipped,
        })
    }

    fn ranked(&self, s: usize, kinds: &Kinds) -> Ranked {
        let n = self.trials.len() as f64;
        let of = |t: &Trial| t.auroc.iter().map(|kind| kind[s]).collect::<Vec<f64>>();
        let by_trial: Vec<Vec<f64>> = self.trials.iter().map(of).collect();
        let by_kind: Vec<f64> = (0..kinds.names.len())
            .map(|k| by_trial.iter().map(|t| t[k]).sum::<f64>() / n)
            .collect();
        let auroc = kinds.value(&by_kind, None);
        let squares: f64 = by_trial.iter().map(|t| (kinds.value(t, None) - auroc).powi(2)).sum();
        let error = (n > 1.0).then(|| (squares / (n - 1.0) / n).sqrt());
        let by_group = kinds.groups.iter().filter_map(|(_, g)| mean_of(&by_kind, g, None));
        let by_group = if kinds.groups.len() > 1 { by_group.collect() } else { Vec::new() };
        Ranked { name: self.specs[s].to_string(), auroc, error, by_group, by_kind }
    }

    /// Between the rankings by the two groups of kinds; where there is one, the mean between single
    /// kinds, within trials.
    fn agreement(&self, kinds: &Kinds, ranking: &[Ranked]) -> Option<f64> {
        if ranking.len() < 2 {
            return None;
        }
        if kinds.groups.len() > 1 {
            let of = |g: usize| ranking.iter().map(|r| r.by_group[g]).collect::<Vec<f64>>();
            return Some(spearman(&of(0), &of(1)));
        }
        let (mut total, mut pairs) = (0.0, 0);
        for trial in &self.trials {
            for a in 0..trial.auroc.len() {
                for b in 0..a {
                    total += spearman(&trial.auroc[a], &trial.auroc[b]);
                    pairs += 1;
                }
            }
        }
        (pairs > 0).then(|| total / f64::from(pairs))
    }

    /// Mean rank correlation between the rankings by two halves of the kinds, each with half of every group.
    fn stability(&self, kinds: &Kinds, ranking: &[Ranked], seed: u64) -> Option<f64> {
        const SPLITS: u64 = 100;
        if ranking.len() < 2 || kinds.groups.iter().any(|(_, kinds)| kinds.len() < 2) {
            return None;
        }
        let one = |split| {
            let mut stream = Stream::new(seed, Purpose::HoldOut, 4, split);
            let mut halves: [Vec<usize>; 2] = Default::default();
            for (_, group) in &kinds.groups {
                let order = stream.permutation(group.len() as u32);
                for (i, place) in order.into_iter().enumerate() {
                    halves[(i + split as usize) % 2].push(group[place as usize]);
                }
            }
            let value = |half: &[usize]| -> Vec<f64> {
                ranking.iter().map(|r| mean_of(&r.by_kind, half, None).unwrap_or(0.0)).collect()
            };
            spearman(&value(&halves[0]), &value(&halves[1]))
        };
        Some((0..SPLITS).map(one).sum::<f64>() / SPLITS as f64)
    }

    /// Whether a scorer's scores of the ID rows differ in every trial, so that they have a unit.
    fn varies(&self, s: usize) -> bool {
        self.trials.iter().all(|t| t.varies(s))
    }

    /// What is taken unless something is shown to be better: the committee as far as its members
    /// are here, else the best scorer.
    fn fallback(&self, committee: &[ScorerSpec], ranking: &[Ranked], kinds: &Kinds) -> Composed {
        let n = self.specs.len();
        let mut members: Vec<usize> =
            (0..n).filter(|s| committee.contains(&self.specs[*s]) && self.varies(*s)).collect();
        if members.len() < 2 {
            let better = |a: usize, b: usize| ranking[b].auroc > ranking[a].auroc;
            members = vec![(0..n).fold(0, |a, b| if better(a, b) { b } else { a })];
        }
        let share = 1.0 / members.len() as f64;
        let weights: Vec<f64> =
            (0..n).map(|s| if members.contains(&s) { share } else { 0.0 }).collect();
        let value = kinds.value(&self.composed(&weights), None);
        Composed { weights, value }
    }

    /// AUROC of a composition against each kind, mean over trials.
    fn composed(&self, weights: &[f64]) -> Vec<f64> {
        let mut mean = vec![0.0; self.trials[0].auroc.len()];
        for trial in &self.trials {
            let found = trial.composed(weights);
            mean.iter_mut().zip(found).for_each(|(m, a)| *m += a / self.trials.len() as f64);
        }
        mean
    }

    /// The members of a composition with their weights.
    fn members(&self, composed: &Composed) -> Vec<(String, f64)> {
        let weights = self.specs.iter().zip(&composed.weights).filter(|(_, w)| **w > 0.0);
        weights.map(|(spec, w)| (spec.to_string(), *w)).collect()
    }

    /// Mean and deviation of each of its members over the ID rows of the first trial.
    fn scale(&self, composed: &Composed) -> Vec<(f64, f64)> {
        let scale = self.trials[0].scale.iter().zip(&composed.weights);
        scale.filter(|(_, w)| **w > 0.0).map(|(scale, _)| *scale).collect()
    }
}

/// A search for a composition that is better than what would be taken without it.
struct Search<'a> {
    contest: &'a Contest,
    kinds: &'a Kinds,
    /// Weights of the fallback.
    start: &'a [f64],
    /// Most scorers that get a weight beside those of the fallback.
    members: usize,
    /// Scores of each trial, cut off: `[trial][set][scorer][row]`, the first set that of ID.
    cut: Vec<Vec<Vec<Vec<f32>>>>,
}

impl<'a> Search<'a> {
    fn new(contest: &'a Contest, kinds: &'a Kinds, start: &'a [f64], members: usize) -> Self {
        let cut = contest.trials.iter().map(|t| t.sets().map(logistic::cut).collect()).collect();
        Search { contest, kinds, start, members, cut }
    }

    /// Half the fallback, half the weights that tell the kinds from ID rows best, without a look
    /// at one of the kinds. The fallback's half keeps what the kinds do not show: it held on data
    /// where the weights alone, chosen by poor surrogates, were worse than it.
    fn compose(&self, without: Option<usize>) -> Vec<f64> {
        let scorers = self.start.len();
        let able: Vec<usize> = (0..scorers).filter(|s| self.contest.varies(*s)).collect();
        let mut found = self.weights(&able, without);
        let mut best: Vec<usize> = able.into_iter().filter(|s| found[*s] > 0.0).collect();
        if best.len() > self.members {
            best.sort_by(|a, b| found[*b].total_cmp(&found[*a]));
            best.truncate(self.members);
            best.sort_unstable();
            found = self.weights(&best, without);
        }
        let total: f64 = found.iter().sum();
        if total <= 0.0 {
            return self.start.to_vec();
        }
        self.start.iter().zip(found).map(|(a, b)| (a + b / total) / 2.0).collect()
    }

    fn weights(&self, among: &[usize], without: Option<usize>) -> Vec<f64> {
        let trials = self.cut.len() as f64;
        let groups = self.kinds.groups.iter().map(|(_, kinds)| {
            kinds.iter().copied().filter(|k| Some(*k) != without).collect::<Vec<_>>()
        });
        let groups: Vec<Vec<usize>> = groups.filter(|kinds| !kinds.is_empty()).collect();
        let mut sets = Vec::new();
        let rows = |scores: &'_ [Vec<f32>]| scores.first().map_or(1, Vec::len) as f64;
        for trial in &self.cut {
            let id = &trial[0];
            sets.push(Rows { scores: id, ood: false, share: 0.5 / trials / rows(id) });
            for group in &groups {
                let share = 0.5 / trials / groups.len() as f64 / group.len() as f64;
                for kind in group {
                    let scores = &trial[1 + kind];
                    sets.push(Rows { scores, ood: true, share: share / rows(scores) });
                }
            }
        }
        logistic::weights(&sets, self.start.len(), among)
    }

    /// Leave out each kind in turn, choose by the others, and see what the choice gains on it.
    fn evidence(&self) -> Option<Evidence> {
        let n = self.kinds.names.len();
        if n < 3 {
            return None;
        }
        let before = self.contest.composed(self.start);
        let left_out: Vec<usize> = (0..n).collect();
        let gain = |k: &usize| {
            let weights = self.compose(Some(*k));
            self.contest.composed(&weights)[*k] - before[*k]
        };
        Some(Evidence::of(left_out.par_iter().map(gain).collect()))
    }
}
