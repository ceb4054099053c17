//! Composition of scorers (METHOD §5).
//!
//! Each member's energy is standardised with its mean and (unbiased) standard
//! deviation over the whole training set, u_i = (E_i − mean_i)/std_i; then
//! β = 0: Σ u_i; +∞: max; −∞: min; else (1/β)·logsumexp(β·u_i). A member may
//! have a weight, by which its u_i is multiplied (ours; 1 as published).
//!
//! Rows that a member was fitted on look more ordinary to it than others do,
//! to one more than to another. Where there are in-distribution rows that no
//! member was fitted on, statistics over these ([`CombinedConfig::fit_held_out`])
//! put the members on one scale for what they will meet. Weights can be found against rows that
//! play OOD ([`CombinedConfig::fit_against`]), as Lee et al. (NeurIPS 2018) do for the layers of
//! their Mahalanobis distances.
//!
//! *Difference from the published code*: it takes the statistics from one
//! batch, so that its result depends on the order of the rows.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::features::{self, Batch, FeatureSet, FieldSet, RowSketch};
use crate::math::logistic::{self, Rows};
use crate::math::reduce;
use crate::observe::Observer;
use crate::provenance::Provenance;
use crate::scorers::{
    Fit, Fitted, Scorer, Section, Stored, TrainingData, joint_needs, score_together,
};

/// A fitted composition.
pub struct Combined {
    members: Vec<Member>,
    /// What the members' own scores are called.
    components: Vec<Cow<'static, str>>,
    beta: f64,
}

/// One scorer of a composition.
pub struct Member {
    /// Its name within the composition.
    pub name: String,
    /// The scorer.
    pub scorer: Arc<dyn Scorer>,
    /// Mean over the training set, or over held-out rows.
    pub mean: f64,
    /// Standard deviation over the same rows.
    pub std: f64,
    /// What the standardised score is multiplied by.
    pub weight: f64,
}

/// What to compose, and how.
#[derive(Clone)]
pub struct CombinedConfig {
    /// The fitted scorers.
    pub members: Vec<Part>,
    /// How they are combined.
    pub beta: f64,
}

/// One scorer of a composition to be fitted.
#[derive(Clone)]
pub struct Part {
    /// Its name within the composition.
    pub name: String,
    /// The scorer.
    pub scorer: Fitted<dyn Scorer>,
    /// What its standardised score is multiplied by.
    pub weight: f64,
}

impl Part {
    /// A scorer that counts once.
    pub fn new(name: impl Into<String>, scorer: impl Into<Fitted<dyn Scorer>>) -> Self {
        Part { name: name.into(), scorer: scorer.into(), weight: 1.0 }
    }
}

/// Every member's statistics are taken over the data; the composition has
/// also seen what its members have.
impl Fit for CombinedConfig {
    type Scorer = Combined;

    fn fit(&self, data: &TrainingData, observer: &mut dyn Observer) -> Result<Fitted<Combined>> {
        let combined = Combined::new(self.over(&data.features, observer)?.0, self.beta)?;
        let fitted = Fitted::on(data, combined)?;
        Ok(self.members.iter().fold(fitted, |f, part| f.including(part.scorer.provenance())))
    }
}

impl CombinedConfig {
    /// With every member's statistics over in-distribution rows that none was fitted on. The
    /// composition has seen these rows too.
    ///
    /// # Errors
    /// If a member has seen some of the rows, unless this is forced, or cannot be standardised.
    pub fn fit_held_out(
        &self,
        held_out: &FeatureSet,
        force: bool,
        observer: &mut dyn Observer,
    ) -> Result<Fitted<Combined>> {
        self.check_held_out(held_out, force)?;
        let combined = Combined::new(self.over(held_out, observer)?.0, self.beta)?;
        Ok(Fitted::from_parts(Arc::new(combined), self.seen(held_out)?))
    }

    /// The same with the weights by which the sum tells the rows of `against` best from the held-out
    /// ones: of a logistic regression, none below 0, in which these and those count one half, and the
    /// sets of `against` alike. They add up to 1; members without a weight are left out. The composition
    /// is tuned on `against`, on which no results can be reported any more.
    ///
    /// # Errors
    /// As [`CombinedConfig::fit_held_out`]; if β is not 0, the rows of `against` were in training,
    /// unless this is forced, or no member tells them.
    pub fn fit_against(
        &self,
        held_out: &FeatureSet,
        against: &[FeatureSet],
        force: bool,
        observer: &mut dyn Observer,
    ) -> Result<Fitted<Combined>> {
        if self.beta != 0.0 {
            let problem = "weights are found for the sum of scores, 0";
            return Err(Error::config("beta", self.beta, problem));
        }
        self.check_held_out(held_out, force)?;
        let mut provenance = self.seen(held_out)?;
        for set in against.iter().filter(|_| !force) {
            if let Some(seen) = provenance.contamination(set)? {
                let problem =
                    format!("{} is to play OOD, and {seen}: give others, or insist", set.name());
                return Err(Error::Fit { what: "composition".into(), problem });
            }
        }
        let (mut members, own) = self.over(held_out, observer)?;
        let mut scores = vec![cut_off(&members, own)];
        for set in against {
            scores.push(cut_off(&members, self.scores(set, observer)?));
        }
        let share = |i: usize, rows: usize| {
            let sets = if i == 0 { 1 } else { against.len() };
            0.5 / (sets * rows.max(1)) as f64
        };
        let rows = scores.iter().enumerate().map(|(i, scores)| {
            let n = scores.first().map_or(0, Vec::len);
            Rows { scores, ood: i > 0, share: share(i, n) }
        });
        let among: Vec<usize> = (0..members.len()).collect();
        let weights = logistic::weights(&rows.collect::<Vec<_>>(), members.len(), &among);
        let total: f64 = weights.iter().sum();
        if total <= 0.0 {
            let problem = "no member scores the rows that it is to be weighed against higher than \
                           those of in-distribution";
            return Err(Error::Fit { what: "composition".into(), problem: problem.into() });
        }
        for (member, weight) in members.iter_mut().zip(weights) {
            member.weight = weight / total;
        }
        members.retain(|member| member.weight > 0.0);
        let scorer = Arc::new(Combined::new(members, self.beta)?);
        for set in against {
            provenance.tuned_on.extend(set.digests()?);
            provenance.tuned_rows.push(RowSketch::of(set, &scorer.needs(set)?)?);
        }
        Ok(Fitted::from_parts(scorer, provenance))
    }

    fn check_held_out(&self, held_out: &FeatureSet, force: bool) -> Result<()> {
        for part in self.members.iter().filter(|_| !force) {
            if let Some(seen) = part.scorer.provenance().contamination(held_out)? {
                let problem = format!(
                    "{seen} of `{}`, to which they look more ordinary than others will: standardise \
                     on in-distribution rows that were held out of training, or insist",
                    part.name
                );
                return Err(Error::Fit { what: "composition".into(), problem });
            }
        }
        Ok(())
    }

    /// What a composition has seen that is standardised on these rows: them, and what its members have.
    fn seen(&self, held_out: &FeatureSet) -> Result<Provenance> {
        let needs = joint_needs(self.members.iter().map(|m| &*m.scorer), held_out)?;
        let mut provenance = Provenance::of_standardisation(held_out, needs)?;
        self.members.iter().for_each(|part| provenance.include(part.scorer.provenance()));
        Ok(provenance)
    }

    /// Scores of all members.
    fn scores(&self, set: &FeatureSet, observer: &mut dyn Observer) -> Result<Vec<Vec<f32>>> {
        let scorers: Vec<&dyn Scorer> = self.members.iter().map(|m| &*m.scorer).collect();
        let scored = score_together(set, &scorers, false, observer)?;
        Ok(scored.into_iter().map(|scored| scored.scores).collect())
    }

    /// Every member with its statistics over these rows, and their scores.
    fn over(
        &self,
        set: &FeatureSet,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<Member>, Vec<Vec<f32>>)> {
        let scores = self.scores(set, observer)?;
        let members = self.members.iter().zip(&scores).map(|(part, scores)| {
            let (mean, std) = mean_std(scores);
            part.standardised(mean, std, set.name())
        });
        Ok((members.collect::<Result<_>>()?, scores))
    }
}

/// Standardised scores of the members, cut off.
fn cut_off(members: &[Member], mut scores: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    for (member, scores) in members.iter().zip(&mut scores) {
        scores.iter_mut().for_each(|s| *s = ((f64::from(*s) - member.mean) / member.std) as f32);
    }
    logistic::cut(&scores)
}

impl Part {
    /// As a member with these statistics, found on `set`.
    pub(crate) fn standardised(&self, mean: f64, std: f64, set: &str) -> Result<Member> {
        if !(std.is_finite() && std > 0.0) {
            let problem = format!(
                "`{}` has mean {mean} and standard deviation {std} over {set}; \
                 it cannot be standardised: leave it out",
                self.name
            );
            return Err(Error::Fit { what: "composition".into(), problem });
        }
        let (name, scorer) = (self.name.clone(), Arc::clone(self.scorer.scorer()));
        Ok(Member { name, scorer, mean, std, weight: self.weight })
    }
}

/// Mean and unbiased standard deviation, in f64, in two passes.
pub(crate) fn mean_std(x: &[f32]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let squares: f64 = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

impl Combined {
    /// Compose members that have their statistics.
    ///
    /// # Errors
    /// If there are none, or β is NaN.
    pub fn new(members: Vec<Member>, beta: f64) -> Result<Self> {
        if members.is_empty() {
            return Err(Error::config("combine", "", "name at least one scorer"));
        }
        // Beyond, the exponentials of standardised scores are those of the limits.
        let usable = beta == 0.0 || beta.is_infinite() || (1e-6..=1e6).contains(&beta.abs());
        if !usable {
            let problem = "give 0 (sum), inf (max), -inf (min), or a number of size 1e-6 to 1e6";
            return Err(Error::config("beta", beta, problem));
        }
        if let Some(m) = members.iter().find(|m| !(m.weight.is_finite() && m.weight > 0.0)) {
            let problem = format!("the weight of `{}` must be a positive number", m.name);
            return Err(Error::config("weights", m.weight, problem));
        }
        let components = members.iter().map(|m| format!("score.{}", m.name).into()).collect();
        Ok(Combined { members, components, beta })
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// β.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    pub(crate) fn load(
        stored: &Stored<'_>,
        load: impl Fn(&Stored<'_>) -> Result<Arc<dyn Scorer>>,
    ) -> Result<Self> {
        #[derive(Deserialize)]
        struct Config {
            beta: String,
            names: Vec<String>,
            mean: Vec<f64>,
            std: Vec<f64>,
            #[serde(default)]
            weight: Vec<f64>,
        }
        let c: Config = stored.config()?;
        let bad =
            |what: &str| Error::format(stored.file.path(), format!("its composition: {what}"));
        let beta = c.beta.parse().map_err(|_| bad("beta is not a number"))?;
        let n = stored.parts().count();
        if [c.mean.len(), c.std.len(), c.names.len()] != [n; 3] {
            return Err(bad("as many names, means and deviations as scorers are needed"));
        }
        if c.std.iter().any(|s| *s <= 0.0) {
            return Err(bad("a standard deviation is not positive"));
        }
        if ![0, n].contains(&c.weight.len()) {
            return Err(bad("as many weights as scorers are needed"));
        }
        let numbers = c.names.into_iter().zip(c.mean).zip(c.std).enumerate();
        let members = stored.parts().zip(numbers).map(|((_, part), (i, ((name, mean), std)))| {
            let weight = c.weight.get(i).copied().unwrap_or(1.0);
            Ok(Member { name, scorer: load(&part)?, mean, std, weight })
        });
        Combined::new(members.collect::<Result<_>>()?, beta)
    }
}

/// (1/β)·logsumexp(β·u) of standardised scores, with its limits; β = 0 gives
/// the sum.
pub fn combine(u: &[f64], beta: f64) -> f64 {
    if beta == 0.0 {
        u.iter().sum()
    } else if beta == f64::INFINITY {
        u.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    } else if beta == f64::NEG_INFINITY {
        u.iter().copied().fold(f64::INFINITY, f64::min)
    } else {
        reduce::logsumexp(u.iter().map(|u| beta * u)) / beta
    }
}

/// ∂combine/∂u_m.
fn share(u: &[f64], m: usize, beta: f64) -> f64 {
    if beta == 0.0 {
        return 1.0;
    }
    if beta.is_infinite() {
        return if u.iter().position(|v| *v == combine(u, beta)) == Some(m) { 1.0 } else { 0.0 };
    }
    (beta * u[m] - reduce::logsumexp(u.iter().map(|u| beta * u))).exp()
}

impl Combined {
    /// The members' standardised scores, `[n, members]`; `each` is given every member's own.
    fn standardised(&self, batch: &Batch, mut each: impl FnMut(usize, &[f32])) -> Vec<f64> {
        let n = self.members.len();
        let mut out = vec![0.0; batch.rows() * n];
        let mut scores = vec![0.0; batch.rows()];
        for (m, member) in self.members.iter().enumerate() {
            member.scorer.score_batch(batch, &mut scores);
            each(m, &scores);
            for (row, score) in out.chunks_exact_mut(n).zip(&scores) {
                row[m] = member.weight * (f64::from(*score) - member.mean) / member.std;
            }
        }
        out
    }

    fn combine(&self, columns: &[f64], out: &mut [f32]) {
        for (o, u) in out.iter_mut().zip(columns.chunks_exact(self.members.len())) {
            *o = combine(u, self.beta) as f32;
        }
    }
}

impl Scorer for Combined {
    fn name(&self) -> &'static str {
        "combined"
    }

    fn needs(&self, set: &FeatureSet) -> Result<FieldSet> {
        joint_needs(self.members.iter().map(|m| &*m.scorer), set)
    }

    fn parts(&self) -> Vec<features::Part> {
        self.members.iter().flat_map(|m| m.scorer.parts()).collect()
    }

    fn of_maps(&self) -> Vec<features::Field> {
        self.members.iter().flat_map(|m| m.scorer.of_maps()).collect()
    }

    fn score_batch(&self, batch: &Batch, out: &mut [f32]) {
        self.combine(&self.standardised(batch, |_, _| ()), out);
    }

    fn components(&self) -> &[Cow<'static, str>] {
        &self.components
    }

    fn score_with_components(&self, batch: &Batch, scores: &mut [f32], components: &mut [f32]) {
        let n = self.members.len();
        let columns = self.standardised(batch, |m, own| {
            components.iter_mut().skip(m).step_by(n).zip(own).for_each(|(c, s)| *c = *s);
        });
        self.combine(&columns, scores);
    }

    fn gradient_batch(&self, batch: &Batch, scale: f64, out: &mut Batch) -> Result<()> {
        let n = self.members.len();
        let columns = self.standardised(batch, |_, _| ());
        for (m, member) in self.members.iter().enumerate() {
            let mut own = batch.empty_like();
            member.scorer.gradient_batch(batch, scale * member.weight / member.std, &mut own)?;
            let share = |i: usize| share(&columns[i * n..][..n], m, self.beta);
            out.add_rows(&own, share);
        }
        Ok(())
    }

    fn section(&self) -> Section {
        // As text, because JSON has no infinity.
        let beta = self.beta.to_string();
        let of = |f: fn(&Member) -> f64| self.members.iter().map(f).collect::<Vec<_>>();
        let names: Vec<&str> = self.members.iter().map(|m| m.name.as_str()).collect();
        let (mean, std) = (of(|m| m.mean), of(|m| m.std));
        let mut config = json!({ "beta": beta, "names": names, "mean": mean, "std": std });
        // Left out where there is nothing to say, as in files of earlier versions.
        let weights = of(|m| m.weight);
        if weights.iter().any(|w| *w != 1.0) {
            config["weight"] = json!(weights);
        }
        // Numbered, because a name may be anything and tensors are named by part.
        let parts = self.members.iter().enumerate();
        parts.fold(Section::new("combined", config), |s, (i, m)| {
            s.with_part(i.to_string(), m.scorer.section())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_means_by_hand() {
        let u = [1.0, 3.0];
        assert_eq!(combine(&u, 0.0), 4.0);
        assert_eq!(combine(&u, f64::INFINITY), 3.0);
        assert_eq!(combine(&u, f64::NEG_INFINITY), 1.0);
        let want = ((2f64).exp() + (6f64).exp()).ln() / 2.0;
        assert!((combine(&u, 2.0) - want).abs() < 1e-12);
        assert!((combine(&u, 500.0) - 3.0).abs() < 1e-2);
        assert_eq!(mean_std(&[1.0, 3.0]), (2.0, 2f64.sqrt()));
    }
}
