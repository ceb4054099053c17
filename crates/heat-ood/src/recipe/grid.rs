//! Grids: every combination of lists of values, as recipes.
//!
//! `ebm.model.steps=10,20 seed=0,1,2` is six runs. Values are separated by
//! commas outside brackets and quotes, so that `milestones=[5,10]` is one
//! value. The first key varies slowest.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Recipe;
use crate::error::{Error, Result};

/// More is a mistyped list, not a plan.
const MAX_RUNS: usize = 10_000;

/// Longest name of a run, in characters: it names a directory.
const MAX_NAME: usize = 100;

/// Keys with their values.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    axes: Vec<(String, Vec<String>)>,
}

/// One combination of a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct GridRun {
    /// Unique in its grid and fit for a directory: `steps=10_seed=0`.
    pub name: String,
    /// Its arguments, as [`Recipe::resolve`] takes them.
    pub arguments: Vec<String>,
    /// Keys of which the grid has several values, with this run's.
    pub varied: Vec<(String, String)>,
    /// What they resolve to.
    pub recipe: Recipe,
}

impl Grid {
    /// Read `group=name`, `key=value` and `key=a,b,c` arguments.
    ///
    /// # Errors
    /// If an argument is not `key=value`, a list has an empty or repeated
    /// value or an unclosed bracket, a key is listed twice, or there are more
    /// than 10,000 combinations.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Self> {
        let mut axes: Vec<(String, Vec<String>)> = Vec::new();
        for argument in arguments {
            let argument = argument.as_ref();
            let (key, value) = argument.split_once('=').ok_or_else(|| {
                Error::config("argument", argument, "settings are written `key=value`")
            })?;
            let values = split(key, value)?;
            let before = axes.iter().find(|(k, _)| k == key);
            if before.is_some_and(|(_, v)| v.len() > 1 || values.len() > 1) {
                let problem = "this key is given twice; write all its values in one list";
                return Err(Error::config(key, value, problem));
            }
            axes.push((key.to_owned(), values));
        }
        let runs = axes.iter().try_fold(1usize, |n, (_, v)| n.checked_mul(v.len()));
        if runs.is_none_or(|n| n > MAX_RUNS) {
            let sizes: Vec<String> = axes.iter().map(|(_, v)| v.len().to_string()).collect();
            let problem = format!("more than {MAX_RUNS} runs; sweep fewer values");
            return Err(Error::config("grid", sizes.join(" × "), problem));
        }
        Ok(Grid { axes })
    }

    /// Keys with several values.
    pub fn varied(&self) -> Vec<&str> {
        self.axes.iter().filter(|(_, v)| v.len() > 1).map(|(k, _)| &**k).collect()
    }

    /// Resolve every combination, the first key varying slowest.
    ///
    /// # Errors
    /// As [`Recipe::resolve`] for any of them, or if two of them are the same
    /// run, because a key has no effect.
    pub fn resolve(&self, directory: Option<&Path>) -> Result<Vec<GridRun>> {
        let runs = self.axes.iter().map(|(_, v)| v.len()).product();
        let runs = (0..runs).map(|i| self.run(i, directory)).collect::<Result<Vec<_>>>()?;
        let mut seen = HashMap::new();
        for run in &runs {
            if let Some(other) = seen.insert(run.recipe.to_toml(), &run.name) {
                let problem = format!("the same run as `{other}`: what differs has no effect");
                return Err(Error::config("grid", &run.name, problem));
            }
        }
        Ok(distinct(runs))
    }

    fn run(&self, index: usize, directory: Option<&Path>) -> Result<GridRun> {
        let mut rest = index;
        let mut picked = Vec::new();
        for (key, values) in self.axes.iter().rev() {
            picked.push((key.clone(), values[rest % values.len()].clone(), values.len() > 1));
            rest /= values.len();
        }
        picked.reverse();
        let arguments: Vec<String> = picked.iter().map(|(k, v, _)| format!("{k}={v}")).collect();
        let varied = picked.into_iter().filter(|(.., several)| *several);
        let varied: Vec<_> = varied.map(|(k, v, _)| (k, v)).collect();
        let recipe = Recipe::resolve(&arguments, directory)?;
        Ok(GridRun { name: name(&varied), arguments, varied, recipe })
    }
}

/// Split at commas outside brackets and quotes.
fn split(key: &str, value: &str) -> Result<Vec<String>> {
    let refuse = |problem: &str| Err(Error::config(key, value, problem));
    let mut parts = vec![String::new()];
    let mut depth = 0i32;
    let mut quote = None;
    for c in value.chars() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '(' | '{') => depth += 1,
            (None, ']' | ')' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    if value.contains(',') && (depth != 0 || quote.is_some()) {
        return refuse("a bracket or quote is not closed");
    }
    if parts.len() == 1 {
        return Ok(parts);
    }
    let parts: Vec<String> = parts.iter().map(|p| p.trim().to_owned()).collect();
    if parts.iter().any(String::is_empty) {
        return refuse("a value of the list is empty; write `key=a,b,c`");
    }
    if parts.len() > MAX_RUNS {
        return refuse(&format!("more than {MAX_RUNS} runs; sweep fewer values"));
    }
    if let Some(twice) = parts.iter().enumerate().find(|(i, p)| parts[..*i].contains(p)) {
        return refuse(&format!("the list has `{}` twice", twice.1));
    }
    Ok(parts)
}

/// `steps=10_seed=0`: keys by as many of their last words as tell them apart.
fn name(varied: &[(String, String)]) -> String {
    let words = |key: &str, n: usize| {
        let words: Vec<&str> = key.split('.').collect();
        words[words.len().saturating_sub(n)..].join(".")
    };
    let short = |key: &str| {
        let alone =
            |n: &usize| varied.iter().filter(|(k, _)| words(k, *n) == words(key, *n)).count() == 1;
        (1..8).find(alone).map_or(key.to_owned(), |n| words(key, n))
    };
    if varied.is_empty() {
        return "run".to_owned();
    }
    let text: Vec<String> = varied.iter().map(|(k, v)| format!("{}={v}", short(k))).collect();
    let plain = |c: char| match c {
        '[' | ']' | '(' | ')' | '{' | '}' | '"' | '\'' | ' ' => None,
        c if c.is_ascii_alphanumeric() || "=.,+-_".contains(c) => Some(c),
        _ => Some('-'),
    };
    text.join("_").chars().filter_map(plain).collect()
}

/// Names that are too long, or equal in a file system that ignores case, end
/// in a hash of the arguments.
fn distinct(mut runs: Vec<GridRun>) -> Vec<GridRun> {
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for run in &runs {
        let name = run.name.to_lowercase();
        if !seen.insert(name.clone()) {
            twice.insert(name);
        }
    }
    for run in &mut runs {
        if run.name.len() > MAX_NAME || twice.contains(&run.name.to_lowercase()) {
            let hash = Sha256::digest(run.arguments.join("\n"));
            let hash: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
            run.name.truncate(MAX_NAME - 1 - hash.len());
            run.name = format!("{}-{hash}", run.name);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: &[&str]) -> Vec<String> {
        let runs = Grid::parse(arguments).unwrap().resolve(None).unwrap();
        runs.into_iter().map(|r| r.name).collect()
    }

    fn error(arguments: &[&str]) -> String {
        Grid::parse(arguments).and_then(|g| g.resolve(None)).unwrap_err().to_string()
    }

    #[test]
    fn the_first_key_varies_slowest() {
        let grid = Grid::parse(&["ebm.model.steps=10,20", "n_epochs=3", "seed=0,1"]).unwrap();
        assert_eq!(grid.varied(), ["ebm.model.steps", "seed"]);
        let runs = grid.resolve(None).unwrap();
        let names: Vec<&str> = runs.iter().map(|r| &*r.name).collect();
        assert_eq!(
            names,
            ["steps=10_seed=0", "steps=10_seed=1", "steps=20_seed=0", "steps=20_seed=1"]
        );
        assert_eq!(runs[2].arguments, ["ebm.model.steps=20", "n_epochs=3", "seed=0"]);
        assert_eq!(
            runs[2].varied,
            [("ebm.model.steps".into(), "20".into()), ("seed".into(), "0".into())]
        );
        assert_eq!((runs[2].recipe.heat.ebm.model.steps, runs[2].recipe.heat.seed), (20, 0));
    }

    #[test]
    fn groups_and_lists_are_values() {
        assert_eq!(
            names(&["ebm=heat_gmm_c10,heat_gmm_std_c10"]),
            ["ebm=heat_gmm_c10", "ebm=heat_gmm_std_c10"]
        );
        let key = "ebm.optimizer.sch.milestones";
        assert_eq!(names(&[&format!("{key}=[5,10]")]), ["run"]);
        assert_eq!(names(&[&format!("{key}=[5,10],[10]")]), ["milestones=5,10", "milestones=10"]);
        assert_eq!(names(&["exp_name=\"a,b\",'c, d'"]), ["exp_name=a,b", "exp_name=c,d"]);
    }

    #[test]
    fn names_are_distinct_plain_and_short() {
        assert_eq!(
            names(&["ebm.model.temperature=1,2", "ebm.model.steps=1,2"])[3],
            "temperature=2_steps=2"
        );
        // Ends of keys that are equal are told apart by the word before.
        let (a, b) = ("x.a.lr".to_owned(), "x.b.lr".to_owned());
        assert_eq!(name(&[(a, "1".into()), (b, "2".into())]), "a.lr=1_b.lr=2");
        let same = names(&["exp_name=A,a,a/b,a:b"]);
        assert_eq!(same.iter().collect::<HashSet<_>>().len(), 4);
        let plain = |c: char| c.is_ascii_alphanumeric() || "=-_".contains(c);
        assert!(same.iter().all(|n| n.chars().all(plain)), "{same:?}");
        let long = names(&[&format!("exp_name={0}x,{0}y", "long".repeat(100))]);
        assert!(long[0] != long[1] && long.iter().all(|n| n.len() == MAX_NAME), "{long:?}");
        assert_eq!(names(&[]), ["run"]);
    }

    #[test]
    fn refusals() {
        let contains = |text: String, part: &str| assert!(text.contains(part), "{text}");
        contains(error(&["seed=0,1", "ebm.model.stpes=3,4"]), "did you mean `ebm.model.steps`?");
        contains(error(&["seed=0,1", "ebm=heat_gmm_c10,heat_gmm_c11"]), "`ebm=heat_gmm_c11`");
        contains(error(&["n_epochs=1,0"]), "`n_epochs` = 0");
        contains(error(&["seed=0,x"]), "`seed` = \"x\"");
        contains(error(&["seed"]), "key=value");
        contains(error(&["seed=0,,1"]), "is empty");
        contains(error(&["seed=0,1,"]), "is empty");
        contains(error(&["seed=0,1,0"]), "has `0` twice");
        contains(error(&["seed=0,1", "seed=2"]), "given twice");
        contains(error(&["ebm.optimizer.sch.milestones=[1,2"]), "not closed");
        contains(error(&["exp_name='a,b"]), "not closed");
        contains(error(&["print_freq=1,2"]), "has no effect");
        contains(error(&["seed=1,0x1"]), "the same run as");
        let many: Vec<String> = (0..10_001).map(|i| i.to_string()).collect();
        contains(error(&[&format!("seed={}", many.join(","))]), "more than 10000 runs");
    }
}
