//! OpenOOD v1.5's CSV: one line per OOD set and group, values in percent.
//!
//! FPR@95 is the share of ID rows flagged when 95 % of OOD rows are; AUPR_IN
//! and AUPR_OUT are average precisions, where OpenOOD joins the points of the
//! curve by straight lines.

use std::fmt::Write;

use heat_ood::evaluate::{Results, ScorerResults};
use heat_ood::metrics::Metrics;

use super::csv::quoted;

/// The file of each scorer: its name and text.
pub fn files(results: &Results, accuracy: Option<f64>) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for (name, scorer) in &results.scorers {
        let text = render(results, scorer, accuracy);
        let name = safe(name);
        // Some file systems do not tell capitals from small letters.
        let taken = |name: &str| files.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let numbered = (1..).map(|i| match i {
            1 => format!("{name}.csv"),
            i => format!("{name}-{i}.csv"),
        });
        let free = numbered.into_iter().find(|n| !taken(n)).unwrap_or_default();
        files.push((free, text));
    }
    files
}

/// A name without anything that a file system or a shell could mind.
fn safe(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "-.=+".contains(c) { c } else { '_' };
    let name: String = name.chars().map(kept).collect();
    let name = name.trim_matches(['_', '.']);
    if name.is_empty() { "scorer".to_owned() } else { name.chars().take(100).collect() }
}

fn render(results: &Results, scorer: &ScorerResults, accuracy: Option<f64>) -> String {
    let mut out = String::from("dataset,FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC\n");
    let accuracy = accuracy.map_or(String::new(), |a| format!("{:.2}", 100.0 * a));
    let mut line = |name: &str, m: &Metrics| {
        let values = [m.fpr95_ood_positive, m.auroc, m.aupr_in, m.aupr_out];
        let values = values.map(|v| format!("{:.2}", 100.0 * v)).join(",");
        let _ = writeln!(out, "{},{values},{accuracy}", quoted(name));
    };
    let find = |name: &String| scorer.ood.iter().find(|(n, _)| n == name);
    match (&results.groups, &scorer.near, &scorer.far) {
        (Some(groups), Some(near), Some(far)) => {
            for (names, title, average) in
                [(&groups.near, "nearood", near), (&groups.far, "farood", far)]
            {
                for (name, set) in names.iter().filter_map(find) {
                    line(name, &set.metrics);
                }
                line(title, &average.metrics);
            }
        }
        _ => {
            scorer.ood.iter().for_each(|(name, set)| line(name, &set.metrics));
            line("mean", &scorer.average.metrics);
        }
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
    }
}
