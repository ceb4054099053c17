//! Which results are of one setting with several seeds.

use super::data::{Row, Run};

/// Settings with two seeds or more, and which rows are theirs: runs whose recipes differ in the seed
/// alone, and scorers named `NAME@SEED`.
pub fn groups(rows: &[Row], runs: &[Run]) -> Vec<(String, Vec<usize>)> {
    let mut groups: Vec<(String, String, Vec<usize>)> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let run = runs.iter().find(|run| run.name == row.name);
        let Some((key, label)) = (match run {
            Some(run) => Some((unseeded(&run.recipe), without_seed(&run.name))),
            None => of_name(&row.name).map(|name| (format!("@{name}"), name.to_owned())),
        }) else {
            continue;
        };
        match groups.iter_mut().find(|(known, ..)| *known == key) {
            Some((_, known, places)) => {
                // Names that have more in them than the seed.
                if *known != label {
                    *known = format!("{known}, {label}");
                }
                places.push(i);
            }
            None => groups.push((key, label, vec![i])),
        }
    }
    let several = groups.into_iter().filter(|(.., places)| places.len() > 1);
    several.map(|(_, label, places)| (label, places)).collect()
}

/// A resolved recipe but for its seed, and for where the run lies.
fn unseeded(recipe: &str) -> String {
    let apart = ["seed = ", "exp_name = ", "log_dir = "];
    // Only the first lines, before the tables, have these keys.
    let (top, tables) = recipe.split_at(recipe.find("\n[").unwrap_or(recipe.len()));
    let kept = top.lines().filter(|line| !apart.iter().any(|key| line.starts_with(key)));
    kept.collect::<Vec<_>>().join("\n") + tables
}

/// `lr=1e-3_seed=0` without its seed, as directories of sweeps are named.
fn without_seed(name: &str) -> String {
    let parts = name.split('_').filter(|part| !part.starts_with("seed="));
    match parts.collect::<Vec<_>>().join("_") {
        empty if empty.is_empty() => "all seeds".into(),
        label => label,
    }
}

fn of_name(name: &str) -> Option<&str> {
    let (name, seed) = name.rsplit_once('@')?;
    seed.parse::<u64>().ok().map(|_| name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::data::ResultsTable;
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_that_differ_in_the_seed_are_one_setting() {
        let metrics = json!({"auroc": 0.9, "fpr95_id_positive": 0.2, "fpr95_ood_positive": 0.3,
            "aupr_in": 0.4, "aupr_out": 0.5, "detection_accuracy": 0.6});
        let one = json!({"ood": {"svhn": metrics}, "average": metrics});
        let run = |name: &str, recipe: &str| Run {
            name: name.into(),
            recipe: recipe.into(),
            epochs: Vec::new(),
            provenance: None,
        };
        let runs = [
            run("lr=1_seed=0", "seed = 0\n[ebm]\nlr = 1"),
            run("lr=2_seed=0", "seed = 0\n[ebm]\nlr = 2"),
            run("lr=1_seed=1", "seed = 1\n[ebm]\nlr = 1"),
            run("other", "seed = 2\n[ebm]\nlr = 2"),
        ];
        let names = ["el", "lr=1_seed=0", "lr=2_seed=0", "knn@0", "lr=1_seed=1", "other", "knn@1"];
        let scorers: serde_json::Map<_, _> =
            names.iter().map(|n| ((*n).to_owned(), one.clone())).collect();
        let table = ResultsTable::read("", "", &json!({"id": "t", "scorers": scorers})).unwrap();
        let places = |wanted: &[&str]| -> Vec<usize> {
            wanted.iter().map(|n| table.rows.iter().position(|r| r.name == *n).unwrap()).collect()
        };
        let mut found = groups(&table.rows, &runs);
        found.sort();
        let knn = ("knn".to_owned(), places(&["knn@0", "knn@1"]));
        let first = ("lr=1".to_owned(), places(&["lr=1_seed=0", "lr=1_seed=1"]));
        let second = ("lr=2, other".to_owned(), places(&["lr=2_seed=0", "other"]));
        assert_eq!(found, [knn, first, second]);
    }

    #[test]
    fn a_setting_is_all_but_the_seed() {
        let recipe =
            |seed, lr| format!("exp_name = \"a{seed}\"\nseed = {seed}\n[ebm]\nlr = {lr}\n");
        assert_eq!(unseeded(&recipe(0, 1)), unseeded(&recipe(1, 1)));
        assert_ne!(unseeded(&recipe(0, 1)), unseeded(&recipe(0, 2)));
        assert_eq!(without_seed("lr=1e-3_seed=12"), "lr=1e-3");
        assert_eq!(without_seed("seed=1_use_pca=true"), "use_pca=true");
        assert_eq!(without_seed("seed=1"), "all seeds");
        assert_eq!(of_name("knn(k=5)@3"), Some("knn(k=5)"));
        assert_eq!([of_name("@3"), of_name("a@b"), of_name("a")], [None; 3]);
    }
}
