//! Sets whose rows are elsewhere: columns, classes and number of rows are known, and no value.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::super::classes::Classes;
use super::{FeatureSet, View};
use crate::error::{Error, Result};
use crate::features::Field;

/// What is known of such a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub rows: usize,
    /// Fields with their columns.
    dims: Vec<(String, usize)>,
    /// Number of classes, where rows have labels.
    classes: Option<usize>,
    /// Their names, where they have some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

impl Description {
    /// Whether rows of both can be of one set.
    pub fn fits(&self, other: &Self) -> bool {
        (&self.dims, self.classes, &self.names) == (&other.dims, other.classes, &other.names)
    }

    /// Number of classes, where rows have labels.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// Names of the classes.
    pub fn class_names(&self) -> &[String] {
        &self.names
    }
}

impl FeatureSet {
    /// What is known of this set without its rows; `classes` is the number of classes.
    pub(crate) fn description(&self, classes: Option<usize>) -> Description {
        Description {
            rows: self.rows,
            dims: self.dims.iter().map(|(field, dim)| (field.name().to_owned(), *dim)).collect(),
            classes: classes.filter(|_| self.labelled),
            names: self.class_names(),
        }
    }

    /// A set of which this is known.
    ///
    /// # Errors
    /// If it has no rows, or a field of no known name.
    pub(crate) fn described(name: &str, known: &Description) -> Result<Self> {
        let broken = |problem: String| Error::format(name, problem);
        if known.rows == 0 || u32::try_from(known.rows).is_err() {
            let problem =
                format!("statistics of {} rows; between 1 and 2³² are possible", known.rows);
            return Err(broken(problem));
        }
        let dims = known.dims.iter().map(|(field, dim)| match Field::named(field) {
            Some(field) if *dim > 0 => Ok((field, *dim)),
            _ => Err(broken(format!("statistics of a field `{field}` of {dim} columns"))),
        });
        let names = (!known.names.is_empty()).then(|| known.names.clone().into());
        let classes = Classes::counted(known.classes.unwrap_or(0), names);
        Ok(FeatureSet {
            name: Path::new(name).display().to_string(),
            files: Vec::new(),
            mapped: Vec::new(),
            stamps: Arc::new([]),
            digests: Arc::new(OnceLock::from(Vec::new())),
            shards: Vec::new(),
            rows: known.rows,
            dims: dims.collect::<Result<_>>()?,
            labelled: known.classes.is_some(),
            classes,
            notices: Arc::new([]),
            origin: None,
            view: View::default(),
        })
    }

    /// Refuse to read rows that are elsewhere.
    pub(in crate::features) fn check_rows(&self) -> Result<()> {
        if !self.shards.is_empty() {
            return Ok(());
        }
        let problem =
            "its rows are elsewhere, and statistics of them alone are here: this needs the rows";
        Err(Error::Fit { what: self.name.clone(), problem: problem.into() })
    }
}
