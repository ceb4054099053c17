//! Rank correlation between scorers over all rows.

use heat_ood::Result;

use super::brief;
use crate::report::data::ResultsTable;
use crate::report::evaluation::Evaluation;
use crate::report::html::figure;
use crate::report::ink::Ink;
use crate::report::plot::{Align, Axis, Mark, Panel};

/// With more scorers the numbers would not fit.
const NUMBERS: usize = 12;

const CAPTION: &str = "\
Spearman's rank correlation of the scores over all rows, in- and out-of-distribution: 1 where two scorers order the rows alike. \
Blue: positive, red: negative, pale: none. Scorers of similar quality that agree little are the ones worth composing. \
Columns are numbered as the rows are.";

pub fn render(e: &Evaluation, table: &ResultsTable) -> Result<String> {
    let order = table.ranking();
    if order.len() < 2 {
        return Ok(String::new());
    }
    let ranks: Vec<Vec<f64>> = order.iter().map(|&i| ranks(&pooled(e, i))).collect();
    let (n, names) = (order.len(), 7.0);
    let height = n as f64 + 1.0;
    let mut panel = Panel::new("", Axis::new("", -names..n as f64), Axis::new("", 0.0..height));
    panel.bare = true;
    let cell = if n <= NUMBERS { 40 } else { 26 };
    panel.size =
        ((names as u32 + n as u32) * cell.min(34) + 20, (n as u32 + 1) * cell.min(28) + 12);
    panel.alt = format!("Rank correlations of {n} scorers");
    for (row, a) in ranks.iter().enumerate() {
        let y = height - 2.0 - row as f64;
        let name = format!("{}  {}", brief(&table.rows[order[row]].name, 25), row + 1);
        panel.marks.push(Mark::Text { at: (-0.2, y + 0.5), text: name, align: Align::Right });
        let at = (row as f64 + 0.5, height - 0.5);
        panel.marks.push(Mark::Text { at, text: (row + 1).to_string(), align: Align::Middle });
        for (column, b) in ranks.iter().enumerate() {
            let rho = pearson(a, b);
            let x = column as f64;
            let corners = [(x + 0.03, y + 0.03), (x + 0.97, y + 0.97)];
            let ink = Ink::Series(usize::from(rho < 0.0));
            let opacity = 0.03 + 0.62 * rho.abs();
            panel.marks.push(Mark::Box { corners, ink, opacity });
            if n <= NUMBERS {
                let at = (x + 0.5, y + 0.5);
                panel.marks.push(Mark::Text {
                    at,
                    text: format!("{rho:.2}"),
                    align: Align::Middle,
                });
            }
        }
    }
    Ok(figure("fig-correlation", &[], &panel.html()?, CAPTION))
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
