//! Rank correlation between scorers over all rows.

use std::fmt::Write;

use crate::report::data::ResultsTable;
use crate::report::evaluation::Evaluation;
use crate::report::html::{escape, scroller};
use crate::report::ink::Ink;

const CAPTION: &str = "\
Spearman's rank correlation of the scores over all rows, in- and out-of-distribution: 1 where two scorers order the rows alike. \
Blue: positive, red: negative, pale: none. Scorers of similar quality that agree little are the ones worth composing. \
Columns are numbered as the rows are.";

pub fn render(e: &Evaluation, table: &ResultsTable) -> String {
    let order = table.ranking();
    if order.len() < 2 {
        return String::new();
    }
    let ranks: Vec<Vec<f64>> = order.iter().map(|&i| ranks(&pooled(e, i))).collect();
    let mut body = String::from(
        "<table class=\"matrix\" aria-describedby=\"correlation-caption\">\n<thead><tr><td></td>",
    );
    for column in 1..=order.len() {
        let _ = write!(body, "<th scope=\"col\">{column}</th>");
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for (row, a) in ranks.iter().enumerate() {
        let name = escape(&table.rows[order[row]].name);
        let _ = write!(body, "<tr><th scope=\"row\">{name} <b>{}</b></th>", row + 1);
        for b in &ranks {
            let rho = pearson(a, b);
            let ink = Ink::Series(usize::from(rho < 0.0)).css();
            let share = (3.0 + 57.0 * rho.abs()).round();
            let _ = write!(
                body,
                "<td style=\"background:color-mix(in srgb,{ink} {share}%,transparent)\">{rho:.2}</td>"
            );
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody></table>\n");
    let table = scroller("Rank correlations of scorers", &body);
    format!(
        "<figure id=\"fig-correlation\">\n{table}<figcaption id=\"correlation-caption\">{}</figcaption>\n</figure>\n",
        escape(CAPTION)
    )
}

fn pooled(e: &Evaluation, entry: usize) -> Vec<f32> {
    let ood = (0..e.ood.len()).flat_map(|set| e.ood_scores(set, entry));
    e.id_scores(entry).iter().chain(ood).copied().collect()
}

/// From 1; equal values share their mean rank.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut out = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let equal = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]);
        let end = start + equal.count().max(1);
        for &i in &order[start..end] {
            out[i] = (start + end + 1) as f64 / 2.0;
        }
        start = end;
    }
    out
}

/// 0 where one of them does not vary.
fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - ma) * (y - mb);
        aa += (x - ma).powi(2);
        bb += (y - mb).powi(2);
    }
    if aa * bb > 0.0 { ab / (aa.sqrt() * bb.sqrt()) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.spearmanr` of scipy 1.17.1.
    #[test]
    fn spearman_of_scipy() {
        let (a, b) = ([1.0, 2.0, 2.0, 5.0, -3.0, 0.5], [2.0, 1.0, 4.0, 4.0, 0.0, -7.0]);
        assert_eq!(ranks(&a), [3.0, 4.5, 4.5, 6.0, 1.0, 2.0]);
        assert!((pearson(&ranks(&a), &ranks(&b)) - 0.8088235294117647).abs() < 1e-15);
        assert_eq!(pearson(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }
}
