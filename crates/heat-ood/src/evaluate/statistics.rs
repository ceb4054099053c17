//! Near and far averages, confidence intervals and paired tests of [`Results`].

use super::columns::{Columns, columns, places};
use super::comparison::{Baseline, Material};
use super::intervals::IntervalsOf;
use super::{Average, Groups, Results, ScorerResults, Scores, seeds};
use crate::error::{Error, Result};
use crate::metrics::{Bootstrap, BootstrapConfig, Intervals, OodScores, check_level};
use crate::observe::Observer;

/// What to find out beyond the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Averages over near and far sets.
    pub groups: Option<Groups>,
    /// Confidence intervals of every metric.
    pub intervals: bool,
    /// Paired tests of every scorer against one.
    pub compare: Option<Baseline>,
    /// Level of confidence of all intervals.
    pub level: f64,
    /// How rows are resampled.
    pub bootstrap: BootstrapConfig,
}

impl Default for Statistics {
    /// Nothing, at a level of 0.95.
    fn default() -> Self {
        Statistics {
            groups: None,
            intervals: false,
            compare: None,
            level: 0.95,
            bootstrap: BootstrapConfig::default(),
        }
    }
}

impl Statistics {
    /// Whether this can be found out of such sets.
    ///
    /// # Errors
    /// If the level is none, there are no resamples, or a group names a set
    /// that is not there.
    pub fn check_sets(&self, sets: &[&str]) -> Result<()> {
        check_level(self.level)?;
        self.bootstrap.check()?;
        self.groups.as_ref().map_or(Ok(()), |groups| groups.check(sets))
    }

    /// Whether this can be found out of such scorers.
    ///
    /// # Errors
    /// If the baseline is none of them, or alone, or a scorer has the name of
    /// a summary over seeds.
    pub fn check_scorers(&self, scorers: &[&str]) -> Result<()> {
        seeds::groups(scorers)?;
        let Some(baseline) = &self.compare else {
            return Ok(());
        };
        match baseline {
            Baseline::Named(name) if !scorers.contains(&&**name) => {
                Err(Error::unknown("scorer", name, scorers.iter().copied()))
            }
            _ if scorers.len() < 2 => {
                let problem = "there is one scorer only, and comparing takes two";
                Err(Error::config("compare", "", problem))
            }
            _ => Ok(()),
        }
    }

    /// Add it to the results of [`measure`](super::measure) on these scores.
    ///
    /// # Errors
    /// As [`Statistics::check_sets`] and [`Statistics::check_scorers`]; if a
    /// set is empty.
    pub fn add_to(
        &self,
        results: &mut Results,
        scores: &Scores,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let sets: Vec<&str> = scores.ood.iter().map(|(name, _)| &**name).collect();
        let scorers: Vec<&str> = results.scorers.iter().map(|(name, _)| &**name).collect();
        self.check_sets(&sets)?;
        self.check_scorers(&scorers)?;
        let columns = columns(self.groups.as_ref(), &sets);
        if let Some(groups) = &self.groups {
            results.groups = Some(groups.clone());
            for (_, scorer) in &mut results.scorers {
                scorer.near = Some(average(scorer, &columns[1]));
                scorer.far = Some(average(scorer, &columns[2]));
            }
            results.seeds = seeds::summaries(&results.scorers)?;
        }
        if !self.intervals && self.compare.is_none() {
            return Ok(());
        }
        let id: Vec<&[f32]> = scores.id.iter().map(|t| &t.scores[..]).collect();
        let ood: Vec<OodScores<'_>> = scores
            .ood
            .iter()
            .map(|(name, all)| OodScores {
                name,
                scores: all.iter().map(|t| &t.scores[..]).collect(),
            })
            .collect();
        let bootstrap = self.bootstrap.run(&id, &ood, observer)?;
        if self.intervals {
            results.ci = Some(self.of());
            self.intervals(results, &columns, &bootstrap)?;
        }
        if let Some(baseline) = &self.compare {
            let material =
                Material { results, id: &id, ood: &ood, columns: &columns, bootstrap: &bootstrap };
            results.comparison = Some(material.compare(baseline, self.of())?);
        }
        Ok(())
    }

    fn intervals(
        &self,
        results: &mut Results,
        columns: &Columns,
        bootstrap: &Bootstrap,
    ) -> Result<()> {
        for (i, (_, scorer)) in results.scorers.iter_mut().enumerate() {
            for (sets, ci) in columns.iter().zip(places(scorer)) {
                *ci = Some(Intervals::percentile(&bootstrap.averages(i, sets), self.level)?);
            }
        }
        Ok(())
    }

    fn of(&self) -> IntervalsOf {
        let BootstrapConfig { resamples, seed } = self.bootstrap;
        IntervalsOf { level: self.level, resamples, seed }
    }
}

fn average(scorer: &ScorerResults, sets: &[usize]) -> Average {
    Average::of(&sets.iter().map(|&s| scorer.ood[s].1.metrics).collect::<Vec<_>>())
}
