//! OpenOOD v1.5's CSV: one line per OOD set and group, values in percent.
//!
//! FPR@95 is the fraction of ID rows flagged when 95 % of OOD rows are. AUPR_IN
//! and AUPR_OUT are OpenOOD's own, not the average precisions of other forms.

use std::fmt::Write;

use heat_ood::Result;
use heat_ood::evaluate::{Results, Scores};
use heat_ood::metrics::openood_aupr;

use super::csv::quoted;

/// The values of a line: those of [`HEADER`], as fractions.
type Values = [f64; 4];

const HEADER: &str = "dataset,FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC\n";

/// OpenOOD v1.5's CSV of each scorer: the name of a file, and its text. `scores` are those behind
/// `results`, `accuracy` is the classifier's on the ID set, where known.
///
/// # Errors
/// If there are no scores of a set, or NaN among them.
pub fn files(
    results: &Results,
    scores: &Scores,
    accuracy: Option<f64>,
) -> Result<Vec<(String, String)>> {
    let mut files: Vec<(String, String)> = Vec::new();
    for (i, (name, _)) in results.scorers.iter().enumerate() {
        let text = render(results, &sets(results, scores, i)?, accuracy);
        let name = safe(name);
        // Some file systems do not tell capitals from small letters.
        let taken = |name: &str| files.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut numbered = (1..).map(|i| match i {
            1 => format!("{name}.csv"),
            i => format!("{name}-{i}.csv"),
        });
        let free = numbered.find(|n| !taken(n)).unwrap_or_default();
        files.push((free, text));
    }
    Ok(files)
}

/// One scorer on each set.
fn sets<'a>(
    results: &'a Results,
    scores: &Scores,
    scorer: usize,
) -> Result<Vec<(&'a String, Values)>> {
    let sets = results.scorers[scorer].1.ood.iter().zip(&scores.ood);
    let one = |((name, set), (_, theirs)): (&'a (String, _), &(String, Vec<_>))| {
        let set: &heat_ood::evaluate::SetResults = set;
        let theirs: &heat_ood::scorers::ScoredSet = &theirs[scorer];
        let [aupr_in, aupr_out] = openood_aupr(&scores.id[scorer].scores, &theirs.scores)?;
        Ok((name, [set.metrics.fpr95_ood_positive, set.metrics.auroc, aupr_in, aupr_out]))
    };
    sets.map(one).collect()
}

/// A name without anything that a file system or a shell could mind.
fn safe(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "-.=+".contains(c) { c } else { '_' };
    let name: String = name.chars().map(kept).collect();
    let name = name.trim_matches(['_', '.']);
    if name.is_empty() {
        return "scorer".to_owned();
    }
    // File systems count bytes.
    name[..name.floor_char_boundary(100)].to_owned()
}

fn render(results: &Results, sets: &[(&String, Values)], accuracy: Option<f64>) -> String {
    let mut out = HEADER.to_owned();
    let accuracy = accuracy.map_or(String::new(), |a| format!("{:.2}", 100.0 * a));
    let mut block = |sets: &[(&String, Values)], title: &str| {
        let mean = std::array::from_fn(|i| {
            sets.iter().map(|(_, values)| values[i]).sum::<f64>() / sets.len() as f64
        });
        let named = sets.iter().map(|(name, values)| (name.as_str(), *values));
        for (name, values) in named.chain([(title, mean)]) {
            let values = values.map(|v| format!("{:.2}", 100.0 * v)).join(",");
            let _ = writeln!(out, "{},{values},{accuracy}", quoted(name));
        }
    };
    match &results.groups {
        Some(groups) => {
            for (names, title) in [(&groups.near, "nearood"), (&groups.far, "farood")] {
                let find = |name: &String| sets.iter().find(|(n, _)| *n == name).copied();
                block(&names.iter().filter_map(find).collect::<Vec<_>>(), title);
            }
        }
        None => block(sets, "mean"),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn names_of_files() {
        assert_eq!(safe("knn(k=50,normalize=true)"), "knn_k=50_normalize=true");
        assert_eq!(safe("../../etc/passwd"), "etc_passwd");
        assert_eq!(safe("heat@0"), "heat_0");
        assert_eq!(safe("./"), "scorer");
        assert_eq!(safe(&"検".repeat(200)).len(), 99);
    }
}
