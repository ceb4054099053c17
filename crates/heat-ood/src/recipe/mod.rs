//! Recipes: the paper's settings under the paper's names, with overrides.
//!
//! A recipe is put together from groups (`dataset=cifar10`,
//! `backbone=resnet34_c10`, `ebm=heat_gmm_c10`) and single keys
//! (`ebm.model.steps=40`), in the published command's own words. Groups are
//! TOML files: a user's directory is searched first, then those built in. An
//! `ebm` group may have a `[run]` table with top-level keys (batch size,
//! pooling), which keys on the command line override.

mod grid;
mod groups;
mod images;
mod published;

pub use grid::{Grid, GridRun};
pub use groups::{BackboneRecipe, DatasetRecipe, ImagesRecipe, Part, transform};
pub use images::{Filter, Format, ImageOptions, Resize, TransformConfig};

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::ebm::HeatConfig;
use crate::error::{Error, Result};
use crate::features::SubsetConfig;
use crate::settings::{DEEPEST, keys_of, parse_table, parse_value, typed};

/// Everything that names a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Name of the run.
    pub exp_name: String,
    /// Directory in which runs are made.
    pub log_dir: String,
    /// The ID set, where one was named.
    pub dataset: Option<DatasetRecipe>,
    /// The network behind the features, where one was named.
    pub backbone: Option<BackboneRecipe>,
    /// From images to the network's input, where one was named.
    pub transform: Option<TransformConfig>,
    /// Prior, network, sampler, training.
    pub heat: HeatConfig,
    /// What was accepted but has no meaning here.
    pub notices: Vec<String>,
}

const GROUPS: [&str; 4] = ["dataset", "backbone", "transform", "ebm"];

macro_rules! built_in {
    ($($group:literal / $name:literal),* $(,)?) => {
        &[$(($group, $name, include_str!(concat!(
            "../../recipes/", $group, "/", $name, ".toml"
        )))),*]
    };
}

const BUILT_IN: &[(&str, &str, &str)] = built_in![
    "dataset" / "cifar10",
    "dataset" / "cifar100",
    "dataset" / "imagenet",
    "backbone" / "resnet34_c10",
    "backbone" / "resnet34_c100",
    "backbone" / "resnet50",
    "backbone" / "resnet20_c10",
    "transform" / "cifar10",
    "transform" / "cifar100",
    "transform" / "imagenet",
    "transform" / "cifar10_imagenet",
    "pictures" / "cifar10",
    "pictures" / "cifar100",
    "pictures" / "imagenet",
    "pictures" / "svhn",
    "pictures" / "lsun",
    "pictures" / "places",
    "pictures" / "textures",
    "pictures" / "tinyimagenet",
    "pictures" / "inaturalist",
    "pictures" / "sun",
    "pictures" / "places_imagenet",
    "pictures" / "mnist",
    "ebm" / "heat_gmm_c10",
    "ebm" / "heat_gmm_std_c10",
    "ebm" / "heat_el_c10",
    "ebm" / "heat_gmm_c100",
    "ebm" / "heat_gmm_std_c100",
    "ebm" / "heat_el_c100",
    "ebm" / "heat_gmm_imagenet",
    "ebm" / "heat_gmm_std_imagenet",
    "ebm" / "heat_el_imagenet",
    "ebm" / "heat_gmm_shrunk",
    "ebm" / "heat_gmm_std_shrunk",
    "ebm" / "heat_surrogate",
    "ebm" / "quickstart_gmm",
    "ebm" / "quickstart_gmm_std",
    "ebm" / "quickstart_el",
];

impl Recipe {
    /// Resolve `group=name` and `key=value` arguments; groups first, then keys
    /// in their order.
    ///
    /// # Errors
    /// If an argument is not `key=value`, a group or key is unknown (the
    /// nearest one is suggested), or a value has the wrong type.
    pub fn resolve<S: AsRef<str>>(arguments: &[S], directory: Option<&Path>) -> Result<Self> {
        Self::resolve_table(Table::new(), arguments, directory)
    }

    /// The same, starting from a resolved recipe.
    ///
    /// # Errors
    /// As [`Recipe::resolve`].
    pub fn resolve_onto<S: AsRef<str>>(
        base: &str,
        arguments: &[S],
        directory: Option<&Path>,
    ) -> Result<Self> {
        Self::resolve_table(parse_toml(base)?, arguments, directory)
    }

    fn resolve_table<S: AsRef<str>>(
        mut table: Table,
        arguments: &[S],
        directory: Option<&Path>,
    ) -> Result<Self> {
        let mut notices = Vec::new();
        let mut keys = Vec::new();
        for argument in arguments {
            let argument = argument.as_ref();
            let pair = argument.split_once('=').filter(|(key, _)| !key.is_empty());
            let (key, value) = pair.ok_or_else(|| {
                let problem = "settings are written `key=value` without spaces, groups `ebm=NAME`";
                Error::config(argument, "", problem)
            })?;
            if key == "backbone" && value.contains(['.', '/', '\\']) && Path::new(value).is_file() {
                // A network of one's own, without a recipe.
                set(&mut table, "backbone.path", Value::String(value.to_owned()))?;
            } else if GROUPS.contains(&key) {
                let named = group(key, value, directory)?;
                if key == "transform" {
                    table.remove(key);
                }
                merge(&mut table, named);
                if key == "ebm" && !table.contains_key("exp_name") {
                    table.insert("exp_name".into(), Value::String(value.to_owned()));
                }
            } else {
                keys.push((key, parse_value(value)));
            }
        }
        for (key, value) in keys {
            set(&mut table, key, value)?;
        }
        notices.extend(published::translate(&mut table)?);
        Self::from_table(table, notices)
    }

    /// Read a resolved recipe.
    ///
    /// # Errors
    /// As [`Recipe::resolve`].
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_table(parse_toml(text)?, Vec::new())
    }

    fn from_table(mut table: Table, notices: Vec<String>) -> Result<Self> {
        let known = keys();
        let mut text = |key: &str, default: &str| match table.remove(key) {
            None => default.to_owned(),
            Some(Value::String(s)) => s,
            Some(other) => other.to_string(),
        };
        let (exp_name, log_dir) = (text("exp_name", "heat"), text("log_dir", "runs"));
        let dataset = section(&mut table, "dataset", &known)?;
        let backbone = section(&mut table, "backbone", &known)?;
        let transform = section(&mut table, "transform", &known)?;
        let heat: HeatConfig = suggest(typed(&table, ""), &known)?;
        heat.check()?;
        Ok(Recipe { exp_name, log_dir, dataset, backbone, transform, heat, notices })
    }

    /// Which part of the training set it asks for.
    pub fn subset(&self) -> SubsetConfig {
        self.dataset.as_ref().map(|d| d.subset.clone()).unwrap_or_default()
    }

    /// The resolved recipe as TOML: reading it back gives the same recipe.
    pub fn to_toml(&self) -> String {
        let as_table = |v: std::result::Result<Table, toml::ser::Error>| v.unwrap_or_default();
        let mut table = Table::new();
        table.insert("exp_name".into(), self.exp_name.clone().into());
        table.insert("log_dir".into(), self.log_dir.clone().into());
        let mut groups = Table::new();
        for (key, value) in as_table(Table::try_from(&self.heat)) {
            // TOML wants plain keys before groups.
            let place = if value.is_table() { &mut groups } else { &mut table };
            place.insert(key, value);
        }
        if let Some(d) = &self.dataset {
            groups.insert("dataset".into(), as_table(Table::try_from(d)).into());
        }
        if let Some(b) = &self.backbone {
            groups.insert("backbone".into(), as_table(Table::try_from(b)).into());
        }
        if let Some(t) = &self.transform {
            groups.insert("transform".into(), as_table(Table::try_from(t)).into());
        }
        table.extend(groups);
        table.to_string()
    }
}

fn parse_toml(text: &str) -> Result<Table> {
    parse_table(text).map_err(|e| Error::config("recipe", "", e))
}

/// Names of the recipes of a group: the user's directory, then the built-in ones.
pub fn names(group: &str, directory: Option<&Path>) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(entries) = directory.and_then(|f| std::fs::read_dir(f.join(group)).ok()) {
        let files = entries.flatten().map(|e| e.path());
        let stems = files.filter(|p| p.extension().is_some_and(|e| e == "toml"));
        names.extend(stems.filter_map(|p| Some(p.file_stem()?.to_string_lossy().into_owned())));
        names.sort();
    }
    names.extend(BUILT_IN.iter().filter(|(g, ..)| *g == group).map(|(_, n, _)| (*n).to_owned()));
    names
}

/// A group's file as a table of top-level keys.
fn group(kind: &str, name: &str, directory: Option<&Path>) -> Result<Table> {
    let unknown = || {
        let names: Vec<String> =
            names(kind, directory).into_iter().map(|n| format!("{kind}={n}")).collect();
        Error::unknown("recipe", &format!("{kind}={name}"), names.iter().map(String::as_str))
    };
    let simple = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    let file = directory.map(|f| f.join(kind).join(format!("{name}.toml"))).filter(|_| simple);
    let text = match file.filter(|f| f.is_file()) {
        Some(file) => {
            let text = crate::io::read_text(&file)?;
            parse_table(&text).map_err(|e| Error::format(&file, e))?
        }
        None => {
            let found = BUILT_IN.iter().find(|(g, n, _)| *g == kind && *n == name);
            let (.., text) = found.ok_or_else(unknown)?;
            parse_table(text).map_err(|e| Error::format(name, e))?
        }
    };
    let mut group = text;
    let run = match group.remove("run") {
        Some(Value::Table(run)) => run,
        _ => Table::new(),
    };
    let mut table = run;
    table.insert(kind.to_owned(), Value::Table(group));
    Ok(table)
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<()> {
    if key.matches('.').count() > DEEPEST {
        let problem = "no key has so many dots: see the recipe's groups";
        return Err(Error::config("key", "…", problem));
    }
    let mut place = table;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            place.insert(part.to_owned(), value);
            return Ok(());
        }
        let next = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
        place = match next {
            Value::Table(t) => t,
            _ => return Err(Error::config(key, value, format!("`{part}` is not a group of keys"))),
        };
    }
    Ok(())
}

/// A group taken out of the recipe, if it is there.
fn section<T: DeserializeOwned>(
    table: &mut Table,
    key: &str,
    known: &[String],
) -> Result<Option<T>> {
    match table.remove(key) {
        None => Ok(None),
        Some(Value::Table(group)) => suggest(typed(&group, key), known).map(Some),
        Some(other) => Err(Error::config(key, other, "expected a group of keys")),
    }
}

/// Every key of a recipe, with its full name.
pub fn keys() -> Vec<String> {
    let with = |prefix: &str, keys: Vec<String>| -> Vec<String> {
        keys.into_iter().map(|k| format!("{prefix}{k}")).collect()
    };
    [
        vec!["exp_name".into(), "log_dir".into()],
        GROUPS.map(str::to_owned).to_vec(),
        keys_of::<HeatConfig>(),
        with("dataset.", keys_of::<DatasetRecipe>()),
        with("backbone.", keys_of::<BackboneRecipe>()),
        with("transform.", keys_of::<TransformConfig>()),
        published::names().map(str::to_owned).collect(),
    ]
    .concat()
}

/// Look for the nearest key among those of all groups.
fn suggest<T>(result: Result<T>, known: &[String]) -> Result<T> {
    match result {
        Err(Error::Unknown { kind: "key", name, .. }) => {
            Err(Error::unknown("key", &name, known.iter().map(String::as_str)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
