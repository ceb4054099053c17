//! One line per scorer and set, values as fractions.

use std::fmt::Write;

use heat_ood::evaluate::Results;

use super::columns;

pub fn render(results: &Results) -> String {
    let mut out = String::from(
        "scorer,ood,auroc,fpr95_id_positive,fpr95_ood_positive,aupr_in,aupr_out,detection_accuracy\n",
    );
    for (i, (name, _)) in results.scorers.iter().enumerate() {
        for (set, m) in columns(results, i) {
            let _ = writeln!(
                out,
                "{},{},{},{},{},{},{},{}",
                quoted(name),
                quoted(set),
                m.auroc,
                m.fpr95_id_positive,
                m.fpr95_ood_positive,
                m.aupr_in,
                m.aupr_out,
                m.detection_accuracy
            );
        }
    }
    out
}

/// RFC 4180: names with settings contain commas.
pub(super) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
