//! What was done, in plain words.

use std::fmt::{Display, Formatter, Result};

use super::AutoReport;
use crate::select::Evidence;

fn percent(value: f64) -> String {
    format!("{:.2}", 100.0 * value)
}

/// What something gained, with the error of that.
fn gained(evidence: &Evidence) -> String {
    let Evidence { mean, standard_error, gains, .. } = evidence;
    let better = gains.iter().filter(|gain| **gain > 0.0).count();
    format!(
        "{:+.2} ± {:.2} points of AUROC, better on {better} of {} kinds",
        100.0 * mean,
        100.0 * standard_error,
        gains.len()
    )
}

impl AutoReport {
    /// The members, each with its weight.
    pub fn recipe(&self) -> String {
        let members = self.composition.iter().map(|(name, weight)| format!("{weight:.4} {name}"));
        let mut words: Vec<String> = members.collect();
        if self.residual.as_ref().is_some_and(|e| e.suffices) {
            words.push("residual".into());
        }
        let views = self.views.as_ref().is_some_and(|e| e.suffices);
        format!(
            "auto: {}{}",
            words.join(" + "),
            if views { ", mean with the mirror image" } else { "" }
        )
    }
}

impl Display for AutoReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if let Some(selection) = &self.selection {
            let (n, kinds) = (selection.ranking.len(), selection.kinds.len());
            writeln!(
                f,
                "compared   {n} scorers on {kinds} kinds of rows that play OOD: {}",
                selection.trust()
            )?;
            if let Some(best) = selection.ranking.first() {
                writeln!(f, "best one   {} ({})", best.name, percent(best.auroc))?;
            }
            for (name, reason) in &selection.skipped {
                writeln!(f, "left out   {name}: {reason}")?;
            }
            let what = if selection.replaced() { "replaced" } else { "kept" };
            match &selection.evidence {
                Some(evidence) => writeln!(
                    f,
                    "committee  {what}: another composition gains {} when chosen without the kind",
                    gained(evidence)
                )?,
                None => writeln!(f, "committee  {what}: too few kinds to choose another by")?,
            }
        }
        let members = self.composition.iter().map(|(name, weight)| format!("{weight:.2} {name}"));
        writeln!(f, "members    {}", members.collect::<Vec<_>>().join(" + "))?;
        for (name, evidence) in [("residual", &self.residual), ("mirror", &self.views)] {
            let Some(evidence) = evidence else { continue };
            let what = if evidence.suffices { "taken" } else { "left out" };
            let on = if name == "residual" { " that it was not trained with" } else { "" };
            writeln!(f, "{name:<10} {what}: it gains {}{on}", gained(evidence))?;
        }
        if let Some(auroc) = self.auroc {
            writeln!(f, "in all     {} mean AUROC on those kinds", percent(auroc))?;
        }
        match self.calibrated_on {
            Some(rows) => writeln!(f, "calibrated on {rows} ID rows that nothing else has seen")?,
            None => writeln!(
                f,
                "not calibrated: scores alone, no verdicts; give ID rows outside training"
            )?,
        }
        for note in &self.notes {
            writeln!(f, "note       {note}")?;
        }
        writeln!(
            f,
            "Rows that play OOD are not those that will be met: the numbers above choose, they promise \
             nothing. A validation set of real OOD data, if there is one, says more."
        )
    }
}
