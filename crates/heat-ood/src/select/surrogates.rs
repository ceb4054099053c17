//! Rows that play OOD because something else was made of what the classifier was trained for:
//! images cut up and put together, texts with their words shuffled, sent through the network.

use std::path::Path;

use crate::error::{Error, Result};
use crate::features::{FeatureSet, ID_SET, OpenOptions, Origin};

/// Feature sets that play OOD, one a kind, with in-distribution rows to tell them from.
#[derive(Clone)]
pub struct Surrogates {
    /// The sets by kind.
    pub kinds: Vec<(String, FeatureSet)>,
    /// In-distribution rows; best those that the sets were made of. Where absent, training rows
    /// are held out for it.
    pub id: Option<FeatureSet>,
}

/// Rows of a kind, and of ID, below which an AUROC says nothing.
pub(super) const FEWEST: usize = 10;

/// Groups of kinds, which count alike however many kinds there are of each: what keeps the parts of an image and
/// puts them together wrongly is like other classes (near OOD), what keeps only colours and
/// textures, or nothing, is like no image of a class (far OOD).
const GROUPS: [(&str, &[&str]); 2] = [
    ("parts", &["jigsaw2", "jigsaw4", "mixup", "cutmix", "rotate", "invert", "edges"]),
    ("textures", &["blur", "zoom", "noise", "phase", "pink", "shapes", "jigsaw8"]),
];

impl Surrogates {
    /// The feature sets of a directory; the one named `id`, if there, is of ID rows.
    ///
    /// # Errors
    /// If there is none, or one cannot be opened.
    pub fn open(directory: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let directory = directory.as_ref();
        let mut kinds = FeatureSet::open_each(directory, options)?;
        let at = kinds.iter().position(|(name, _)| name == ID_SET);
        let id = at.map(|at| kinds.remove(at).1);
        if kinds.is_empty() {
            let problem =
                format!("holds `{ID_SET}` alone; expected at least one set that plays OOD");
            return Err(Error::format(directory, problem));
        }
        Ok(Surrogates { kinds, id })
    }

    /// Refuse sets of another network or transform.
    ///
    /// # Errors
    /// [`crate::Error::Foreign`], which says what differs.
    pub fn check_origin(&self, origin: &Origin) -> Result<()> {
        let mut sets = self.kinds.iter().map(|(_, set)| set).chain(&self.id);
        sets.try_for_each(|set| set.check_origin(origin))
    }

    /// Refuse what says nothing.
    pub(super) fn check(&self) -> Result<()> {
        if self.kinds.is_empty() {
            let problem = "name at least one set that plays OOD";
            return Err(Error::config("surrogates", "", problem));
        }
        for set in self.kinds.iter().map(|(_, set)| set).chain(&self.id) {
            if set.len() < FEWEST {
                let (rows, name) = (set.len(), set.name());
                let problem = format!("has {rows} rows; at least {FEWEST} are needed to rank by");
                return Err(Error::format(name, problem));
            }
        }
        Ok(())
    }

    /// The groups with the places of their kinds; one of all where the names are others.
    pub(crate) fn groups(&self) -> Vec<(&'static str, Vec<usize>)> {
        let known = |kinds: &[&str]| -> Vec<usize> {
            let places = self.kinds.iter().enumerate();
            places.filter(|(_, (name, _))| kinds.contains(&&**name)).map(|(i, _)| i).collect()
        };
        let groups: Vec<_> = GROUPS.iter().map(|(name, kinds)| (*name, known(kinds))).collect();
        let placed: usize = groups.iter().map(|(_, kinds)| kinds.len()).sum();
        if placed < self.kinds.len() || groups.iter().any(|(_, kinds)| kinds.is_empty()) {
            return vec![("all", (0..self.kinds.len()).collect())];
        }
        groups
    }
}
