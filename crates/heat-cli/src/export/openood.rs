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

const NAMES: [&str; 4] = ["FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT"];

/// A set, or the mean of some.
struct Line<'a> {
    name: &'a str,
    values: Values,
    is_mean: bool,
}

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

/// All scorers in one CSV, a line each: the values of every group and set, in percent, then the
/// classifier's accuracy. Scorers that were left out have a line with the reason.
///
/// # Errors
/// As [`files`].
pub fn leaderboard(results: &Results, scores: &Scores, accuracy: Option<f64>) -> Result<String> {
    let mut out = String::new();
    let accuracy = accuracy.map_or(String::new(), |a| format!("{:.2}", 100.0 * a));
    let mut columns = 0;
    for (i, (name, _)) in results.scorers.iter().enumerate() {
        let lines = lines(results, &sets(results, scores, i)?);
        // Groups and means first.
        let (sets, means): (Vec<_>, Vec<_>) = lines.iter().partition(|line| !line.is_mean);
        let lines: Vec<&Line> = means.into_iter().chain(sets).collect();
        if i == 0 {
            out.push_str("scorer");
            for (line, metric) in lines.iter().flat_map(|l| NAMES.map(|metric| (l, metric))) {
                let _ = write!(out, ",{}", quoted(&format!("{} {metric}", line.name)));
            }
            out.push_str(",ACC\n");
            columns = lines.len() * NAMES.len() + 2;
        }
        let values = lines.iter().flat_map(|l| l.values.map(|v| format!(",{:.2}", 100.0 * v)));
        let _ = writeln!(out, "{}{},{accuracy}", quoted(name), values.collect::<String>());
    }
    for (name, reason) in &results.skipped {
        let reason = quoted(&format!("left out: {}", heat_ood::printable(reason)));
        let _ = writeln!(out, "{},{reason}{}", quoted(name), ",".repeat(columns - 2));
    }
    Ok(out)
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
    for Line { name, values, .. } in lines(results, sets) {
        let values = values.map(|v| format!("{:.2}", 100.0 * v)).join(",");
        let _ = writeln!(out, "{},{values},{accuracy}", quoted(name));
    }
    out
}

/// The sets of each group with their mean, or all sets with theirs.
fn lines<'a>(results: &'a Results, sets: &[(&'a String, Values)]) -> Vec<Line<'a>> {
    let mut out = Vec::new();
    let mut block = |sets: &[(&'a String, Values)], title: &'a str| {
        let mean = std::array::from_fn(|i| {
            sets.iter().map(|(_, values)| values[i]).sum::<f64>() / sets.len() as f64
        });
        let named = sets.iter().map(|(name, values)| (name.as_str(), *values, false));
        let named = named.chain([(title, mean, true)]);
        out.extend(named.map(|(name, values, is_mean)| Line { name, values, is_mean }));
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
