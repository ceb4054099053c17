//! A table for the terminal: one line per scorer, one block per metric.

use comfy_table::{CellAlignment, Table, presets};
use heat_ood::evaluate::Results;
use heat_ood::printable;

use super::columns::{SHOWN, columns, legend, seeds_title, shown, spread, spreads};
use super::comparison;

/// The results, in tables no wider than `width` where that is given.
pub fn render(results: &Results, width: Option<usize>) -> String {
    let mut out = String::new();
    for (title, value) in SHOWN {
        let mut rows = Vec::new();
        let mut titles = vec![title.to_owned()];
        for (i, (name, _)) in results.scorers.iter().enumerate() {
            let sets = columns(results, i);
            if i == 0 {
                titles.extend(sets.iter().map(|c| c.set.to_owned()));
            }
            let cells = sets.iter().map(|c| shown(c, value));
            rows.push(std::iter::once(name.clone()).chain(cells).collect());
        }
        for (name, seeds) in &results.seeds {
            let cells = spreads(seeds).into_iter().map(|(_, s)| spread(&s, value));
            rows.push(std::iter::once(seeds_title(name, seeds)).chain(cells).collect());
        }
        out.push_str(&block(titles, rows, width));
    }
    if let Some(found) = &results.comparison {
        out.push_str(&format!("{}:\n", comparison::heading(found)));
        out.push_str(&block(comparison::titles(), comparison::rows(found), width));
    }
    out + &legend(results)
}

fn block(titles: Vec<String>, rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    format!("{}\n\n", fitting(titles, rows, width))
}

fn fitting(titles: Vec<String>, rows: Vec<Vec<String>>, width: Option<usize>) -> String {
    let whole = aligned(titles.clone(), rows.clone(), 1).to_string();
    let fits = |table: &str| width.is_none_or(|width| widest(table) <= width);
    if fits(&whole) {
        return whole;
    }
    // The scorers beside each other, the sets below each other.
    let turned_titles: Vec<String> =
        std::iter::once(&titles[0]).chain(rows.iter().map(|row| &row[0])).cloned().collect();
    let turned_rows = (1..titles.len()).map(|i| {
        std::iter::once(&titles[i]).chain(rows.iter().map(|row| &row[i])).cloned().collect()
    });
    let turned = aligned(turned_titles, turned_rows.collect(), 1).to_string();
    if fits(&turned) {
        return turned;
    }
    // As many columns as fit, two at least.
    let cut = |kept: usize| {
        let rows = rows.iter().map(|row| row[..kept].to_vec()).collect();
        aligned(titles[..kept].to_vec(), rows, 1).to_string()
    };
    let kept = (3..titles.len()).take_while(|&kept| fits(&cut(kept))).last().unwrap_or(2);
    let hidden: Vec<String> =
        titles[kept.min(titles.len())..].iter().map(|t| printable(t)).collect();
    format!(
        "{}\n(not shown, for want of room: {}; a wider terminal, `-o FILE` or `--format csv` has all)",
        cut(kept.min(titles.len())),
        hidden.join(", ")
    )
}

/// Columns of a terminal that a table takes.
fn widest(table: &str) -> usize {
    table.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// A plain table whose columns are aligned to the right but for the first `left`.
pub(crate) fn aligned(titles: Vec<String>, rows: Vec<Vec<String>>, left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED);
    let clean = |cells: Vec<String>| cells.iter().map(|c| printable(c)).collect::<Vec<_>>();
    table.set_header(clean(titles));
    table.add_rows(rows.into_iter().map(clean));
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(row: &[&str]) -> Vec<String> {
        row.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn tables_fit_where_they_are_shown() {
        let titles = words(&["AUROC", "average", "svhn", "lsun", "textures", "places365"]);
        let rows: Vec<Vec<String>> =
            ["el", "msp"].map(|n| words(&[n, "91.00", "92.00", "93.00", "94.00", "95.00"])).into();
        let whole = fitting(titles.clone(), rows.clone(), None);
        assert_eq!(fitting(titles.clone(), rows.clone(), Some(widest(&whole))), whole);
        let turned = fitting(titles.clone(), rows.clone(), Some(widest(&whole) - 1));
        assert!(widest(&turned) < widest(&whole) && turned.contains("places365"), "{turned}");
        // Under the border.
        assert!(turned.lines().nth(1).unwrap().contains("el"), "{turned}");
        let many: Vec<Vec<String>> = (0..40)
            .map(|i| words(&[&format!("knn(k={i})"), "91.00", "92.00", "93.00", "94.00", "95.00"]))
            .collect();
        let cut = fitting(titles, many, Some(40));
        let (table, note) = cut.split_once("\n(").unwrap();
        assert!(widest(table) <= 40 && table.contains("svhn"), "{cut}");
        assert!(note.contains("places365") && !table.contains("places365"), "{cut}");
    }
}
