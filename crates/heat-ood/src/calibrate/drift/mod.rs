//! Whether a stream of rows has stopped looking like the calibration set.
//!
//! Each score is ranked among the calibration scores *and the stream so far*.
//! While all are exchangeable these ranks, ties broken at random, are
//! independent uniform numbers p, exactly; ranks among the calibration scores
//! alone are not, and a test fed with them raises false alarms in the end,
//! because it learns how that one sample differs from its distribution.
//!
//! A bet f on p with ∫f = 1 multiplies a gambler's wealth by f(p): here
//! f_ε(p) = ε·p^(ε−1), which wins where p is small, for several ε.
//! - *Martingale*: M = mean over ε of Π f_ε(p). By Ville's inequality
//!   P(M ever reaches 1/α) ≤ α. It holds for ever, and is slow when the
//!   stream was ordinary for long.
//! - *CUSUM*: S_ε ← max(1, S_ε)·f_ε(p), C = mean over ε of S_ε: it forgets
//!   losses. C is at most the mean of Shiryaev–Roberts' statistics, whose
//!   expectation after t rows is t, so P(C reaches H/α within H rows) ≤ α. That
//!   is far from sharp; as the law of p is known, so is that of C, and κ·H/α is
//!   enough, κ = 0.04 (`bets`). It begins anew after every horizon of H rows.
//!
//! Evidence grows with the number of rows however small the change. So an
//! alarm also needs an *effect*: since the change began, the fraction F of rows
//! among the λ = 10 % oddest of calibration must show an admixture
//! (F − λ)/(1 − λ), the fraction of anomalous rows if all of them are as anomalous and less
//! than it if not, of at least `min_admixture`. It is an estimate on rows
//! chosen for their evidence, so rather high just after an alarm.
//!
//! A test that raised an alarm begins anew, so a change that lasts raises one
//! after the other, until the rows after it are so many among those ranked
//! against that they look ordinary.
//!
//! Reference: Vovk, Nouretdinov and Gammerman, *Testing Exchangeability
//! On-line*, ICML 2003; Volkhonskiy et al., *Inductive Conformal Martingales
//! for Change-Point Detection*, COPA 2017; Genovese and Wasserman 2004 for the
//! admixture.

mod bets;
mod pool;
mod state;

use bets::{BETS, cusum_threshold, gains};
use pool::Pool;
use serde::{Deserialize, Serialize};

use super::CalibrationScores;
use super::guarantee::check_rate;
use crate::error::{Error, Result};
use crate::math::reduce;
use crate::math::rng::{Purpose, Stream};

/// Which tests are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tests {
    /// Each with half of α.
    #[default]
    Both,
    /// The martingale alone.
    Martingale,
    /// The CUSUM alone.
    Cusum,
}

/// Settings of a drift test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftConfig {
    /// Bound on the probability of a false alarm within `horizon` rows.
    pub alpha: f64,
    /// Rows for which the bound holds; it begins anew after each.
    pub horizon: u64,
    /// Smallest fraction of anomalous rows worth an alarm.
    pub min_admixture: f64,
    /// Which tests.
    pub tests: Tests,
    /// Whether scores that are too low count as well.
    pub two_sided: bool,
    /// Seed of the broken ties.
    pub seed: u64,
}

impl Default for DriftConfig {
    fn default() -> Self {
        DriftConfig {
            alpha: 0.01,
            horizon: 10_000,
            min_admixture: 0.02,
            tests: Tests::Both,
            two_sided: false,
            seed: 0,
        }
    }
}

/// λ, the fraction of calibration rows that counts as anomalous in the effect.
const ODD: f64 = 0.1;

/// A test of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Wealth since the beginning.
    Martingale,
    /// Wealth since the most telling row.
    Cusum,
}

/// The stream has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Which test says so.
    pub test: Test,
    /// The row after which it says so, from 0.
    pub row: u64,
    /// Where the change seems to begin.
    pub since: u64,
    /// log₁₀ of the evidence.
    pub evidence: f64,
    /// log₁₀ of the evidence needed.
    pub threshold: f64,
    /// Estimate of the fraction of anomalous rows since then.
    pub admixture: f64,
}

/// What one row added.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Number of the row, from 0.
    pub row: u64,
    /// Its rank among calibration and stream; uniform while nothing changes.
    pub p_value: f64,
    /// log₁₀ of the martingale, where it is run.
    pub martingale: Option<f64>,
    /// log₁₀ of the CUSUM, where it is run.
    pub cusum: Option<f64>,
    /// Alarms raised by this row.
    pub alarms: Vec<Alarm>,
}

/// Rows since a beginning, and how many of them were odd.
#[derive(Debug, Clone, Copy, Default)]
struct Since {
    start: u64,
    rows: u64,
    odd: u64,
}

impl Since {
    fn from(start: u64) -> Self {
        Since { start, ..Since::default() }
    }

    fn take(&mut self, odd: bool) {
        self.rows += 1;
        self.odd += u64::from(odd);
    }

    fn admixture(&self) -> f64 {
        let share = self.odd as f64 / self.rows.max(1) as f64;
        ((share - ODD) / (1.0 - ODD)).max(0.0)
    }
}

/// One running test.
struct Wealth {
    test: Test,
    /// log of the wealth of each bet.
    logs: [f64; BETS.len()],
    /// The same where losses are forgotten, which dates the change.
    dated: [f64; BETS.len()],
    since: [Since; BETS.len()],
    /// log of the evidence needed.
    threshold: f64,
}

impl Wealth {
    fn new(test: Test, threshold: f64, start: u64) -> Self {
        let since = [Since::from(start); BETS.len()];
        let zero = [0.0; BETS.len()];
        Wealth { test, logs: zero, dated: zero, since, threshold }
    }

    /// log of the mean wealth.
    fn evidence(&self) -> f64 {
        reduce::logsumexp(self.logs.iter().copied()) - (BETS.len() as f64).ln()
    }

    fn take(&mut self, row: u64, gains: &[f64; BETS.len()], odd: bool) -> Option<Alarm> {
        for ((dated, since), gain) in self.dated.iter_mut().zip(&mut self.since).zip(gains) {
            if *dated <= 0.0 {
                (*dated, *since) = (0.0, Since::from(row));
            }
            *dated += gain;
            since.take(odd);
        }
        match self.test {
            Test::Martingale => self.logs.iter_mut().zip(gains).for_each(|(l, g)| *l += g),
            Test::Cusum => self.logs = self.dated,
        }
        let evidence = self.evidence();
        let best =
            (0..BETS.len()).fold(0, |b, i| if self.dated[i] > self.dated[b] { i } else { b });
        let since = &self.since[best];
        (evidence >= self.threshold).then(|| Alarm {
            test: self.test,
            row,
            since: since.start,
            evidence: evidence / std::f64::consts::LN_10,
            threshold: self.threshold / std::f64::consts::LN_10,
            admixture: since.admixture(),
        })
    }
}

/// A running drift test.
pub struct Drift {
    config: DriftConfig,
    reference: CalibrationScores,
    pool: Pool,
    row: u64,
    wealth: Vec<Wealth>,
}

impl Drift {
    /// Start on the calibration scores of a detector.
    ///
    /// # Errors
    /// If a setting is out of range or there are too few scores to tell the
    /// oddest ones.
    pub fn new(config: DriftConfig, reference: &CalibrationScores) -> Result<Self> {
        check_rate("alpha", config.alpha)?;
        if config.horizon == 0 {
            return Err(Error::config("horizon", 0, "the promise must hold for at least one row"));
        }
        if !(0.0..1.0).contains(&config.min_admixture) {
            let problem = "a fraction of anomalous rows lies in 0..1, e.g. 0.02";
            return Err(Error::config("min_admixture", config.min_admixture, problem));
        }
        let needed = if config.two_sided { 19 } else { 9 };
        if reference.len() < needed {
            let problem = format!(
                "{} calibration rows are too few to tell the oddest tenth: at least {needed} are \
                 needed; calibrate on more with `heat calibrate`",
                reference.len()
            );
            return Err(Error::Fit { what: "drift test".into(), problem });
        }
        let pool = Pool::new(reference);
        let mut drift =
            Drift { config, reference: reference.clone(), pool, row: 0, wealth: Vec::new() };
        let tests: &[Test] = match drift.config.tests {
            Tests::Both => &[Test::Martingale, Test::Cusum],
            Tests::Martingale => &[Test::Martingale],
            Tests::Cusum => &[Test::Cusum],
        };
        drift.wealth = tests.iter().map(|&test| drift.fresh(test)).collect();
        Ok(drift)
    }

    /// The same in memory that hardly grows with the stream, for one that never ends (70 KiB after
    /// a million rows instead of 4 MB). Ranks are then off by at most 1/128 of themselves, as often up as
    /// down; a calibration of 1000 rows is itself off by 1/30.
    #[must_use]
    pub fn in_bounded_memory(mut self) -> Self {
        self.pool = self.pool.bounded();
        self
    }

    /// log₁₀ of the evidence of each test that is run, and of that which is an alarm.
    pub fn evidence(&self) -> impl Iterator<Item = (Test, f64, f64)> {
        let ten = std::f64::consts::LN_10;
        self.wealth.iter().map(move |w| (w.test, w.evidence() / ten, w.threshold / ten))
    }

    fn fresh(&self, test: Test) -> Wealth {
        let share = if self.config.tests == Tests::Both { 0.5 } else { 1.0 };
        let alpha = self.config.alpha * share;
        let threshold = match test {
            Test::Martingale => 1.0 / alpha,
            Test::Cusum => cusum_threshold(self.config.horizon, alpha, self.config.two_sided),
        };
        Wealth::new(test, threshold.ln(), self.row)
    }

    /// Rows seen.
    pub fn rows(&self) -> u64 {
        self.row
    }

    /// Take in the score of the next row. A test that raised an alarm begins anew.
    ///
    /// # Errors
    /// If the score is NaN; the row is then left out, and the next may follow.
    pub fn push(&mut self, score: f32) -> Result<Observation> {
        if score.is_nan() {
            let place = "the stream".to_owned();
            let row = usize::try_from(self.row).unwrap_or(usize::MAX);
            let tensor = "score";
            return Err(Error::NotFinite { place, tensor, row, column: 0, value: score });
        }
        if self.row > 0 && self.row.is_multiple_of(self.config.horizon) {
            let at = self.wealth.iter().position(|w| w.test == Test::Cusum);
            if let Some(at) = at {
                self.wealth[at] = self.fresh(Test::Cusum);
            }
        }
        let u = Stream::new(self.config.seed, Purpose::Ties, self.row, 1).uniform();
        let p = self.pool.rank_and_insert(score, u);
        let gains = gains(p, self.config.two_sided);
        let odd =
            self.is_odd(score, Stream::new(self.config.seed, Purpose::Ties, self.row, 2).uniform());
        let (row, mut alarms) = (self.row, Vec::new());
        self.row += 1;
        let observation = |test: Test, wealth: &[Wealth]| {
            let found = wealth.iter().find(|w| w.test == test);
            found.map(|w| w.evidence() / std::f64::consts::LN_10)
        };
        for wealth in &mut self.wealth {
            let alarm = wealth.take(row, &gains, odd);
            alarms.extend(alarm.filter(|a| a.admixture >= self.config.min_admixture));
        }
        let martingale = observation(Test::Martingale, &self.wealth);
        let cusum = observation(Test::Cusum, &self.wealth);
        for alarm in &alarms {
            let fresh = self.fresh(alarm.test);
            self.wealth
                .iter_mut()
                .filter(|w| w.test == alarm.test)
                .for_each(|w| *w = Wealth::new(w.test, fresh.threshold, self.row));
        }
        Ok(Observation { row, p_value: p, martingale, cusum, alarms })
    }

    /// Whether a score is among the oddest of calibration, ties broken by `u`.
    fn is_odd(&self, score: f32, u: f64) -> bool {
        let p = self.reference.p_value_randomized(score, u);
        if self.config.two_sided { p.min(1.0 - p) <= ODD / 2.0 } else { p <= ODD }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normals(n: usize, seed: u64, shift: f32) -> Vec<f32> {
        let mut x = vec![0.0; n];
        Stream::new(seed, Purpose::User, 7, 0).fill_normal(&mut x);
        x.iter_mut().for_each(|v| *v += shift);
        x
    }

    fn run(config: &DriftConfig, calibration: &[f32], stream: &[f32]) -> Vec<Alarm> {
        let reference = CalibrationScores::new(calibration.to_vec()).unwrap();
        let mut drift = Drift::new(config.clone(), &reference).unwrap();
        stream.iter().flat_map(|&s| drift.push(s).unwrap().alarms).collect()
    }

    /// 300 streams that do not change: at most α of them may raise an alarm,
    /// 15 + 3·√(300·0.05·0.95) = 26 for α = 0.05.
    #[test]
    fn unchanged_streams_are_left_alone() {
        let config = DriftConfig {
            alpha: 0.05,
            horizon: 2000,
            min_admixture: 0.0,
            ..DriftConfig::default()
        };
        let false_alarms = (0..300).filter(|&seed| {
            let x = normals(2300, seed, 0.0);
            let config = DriftConfig { seed, ..config.clone() };
            !run(&config, &x[..300], &x[300..]).is_empty()
        });
        let n = false_alarms.count();
        assert!(n <= 26, "{n} of 300");
    }

    #[test]
    fn changes_are_found_and_dated() {
        let calibration = normals(2000, 1, 0.0);
        let mut stream = normals(1000, 2, 0.0);
        stream.extend(normals(1000, 3, 1.0));
        let alarms = run(&DriftConfig::default(), &calibration, &stream);
        let first = alarms.iter().find(|a| a.test == Test::Cusum).unwrap();
        assert!((1000..1100).contains(&first.row), "{first:?}");
        assert!((950..1050).contains(&first.since), "{first:?}");
        assert!(first.admixture > 0.1 && first.evidence >= first.threshold);
    }

    /// A change that is certain but too small to matter is not told: a shift of
    /// 0.06 puts 11.1 % of the rows among the oddest 10 %, an admixture of 1.2 %.
    #[test]
    fn a_small_effect_is_no_alarm() {
        let calibration = normals(50_000, 1, 0.0);
        let stream = normals(60_000, 2, 0.06);
        let tests = Tests::Martingale;
        let config = DriftConfig { tests, min_admixture: 0.04, ..DriftConfig::default() };
        assert!(run(&config, &calibration, &stream).is_empty());
        let config = DriftConfig { min_admixture: 0.0, ..config };
        assert!(!run(&config, &calibration, &stream).is_empty());
    }

    #[test]
    fn low_scores_count_when_asked_for() {
        let (calibration, stream) = (normals(2000, 1, 0.0), normals(500, 2, -1.5));
        assert!(run(&DriftConfig::default(), &calibration, &stream).is_empty());
        let config = DriftConfig { two_sided: true, ..DriftConfig::default() };
        assert!(!run(&config, &calibration, &stream).is_empty());
    }

    #[test]
    fn refusals() {
        let reference = CalibrationScores::new(vec![0.0; 10]).unwrap();
        let error = |c: DriftConfig| Drift::new(c, &reference).err().unwrap().to_string();
        assert!(error(DriftConfig { alpha: 1.0, ..DriftConfig::default() }).contains("`alpha`"));
        assert!(error(DriftConfig { horizon: 0, ..DriftConfig::default() }).contains("`horizon`"));
        let odd = DriftConfig { min_admixture: f64::NAN, ..DriftConfig::default() };
        assert!(error(odd).contains("`min_admixture`"));
        let empty = CalibrationScores::new(Vec::new()).unwrap();
        assert!(Drift::new(DriftConfig::default(), &empty).is_err());
        let mut drift = Drift::new(DriftConfig::default(), &reference).unwrap();
        let error = drift.push(f32::NAN).unwrap_err().to_string();
        assert!(error.contains("row 0") && error.contains("NaN"), "{error}");
        assert_eq!(drift.push(f32::INFINITY).unwrap().row, 0);
    }
}
