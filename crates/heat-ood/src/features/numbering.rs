//! The classes of a set: their numbers, their names, and which of them have rows.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::FeatureSet;
use super::classes::SHOWN;
use crate::error::{Error, Result};
use crate::math::blocks;

/// The classes that have rows, numbered in ascending order.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    /// Of so many.
    classes: usize,
    /// Those that have rows, ascending.
    there: Vec<u32>,
    /// How many there are.
    pub count: usize,
}

impl Present {
    /// All of so many.
    pub fn all(classes: usize) -> Self {
        Present { classes, count: classes, there: (0..classes as u32).collect() }
    }

    /// Those of which there are rows.
    pub fn of_counts(counts: &[u64]) -> Self {
        let there = (0..).zip(counts).filter(|(_, n)| **n > 0).map(|(k, _)| k);
        let there: Vec<u32> = there.collect();
        Present { classes: counts.len(), count: there.len(), there }
    }

    /// Number of classes without rows, and the first of them.
    pub fn absent(&self, most: usize) -> (usize, Vec<usize>) {
        let absent = |c: &usize| self.there.binary_search(&(*c as u32)).is_err();
        (self.classes - self.count, (0..self.classes).filter(absent).take(most).collect())
    }

    /// The class that has this number.
    pub fn class(&self, number: usize) -> usize {
        self.there[number] as usize
    }

    /// The labels of some rows in this numbering.
    pub fn labels(&self, set: &FeatureSet, range: Range<usize>) -> Result<Vec<u32>> {
        let mut labels = set.labels(range, self.classes)?;
        // All below their number: they are the numbers.
        if self.there.last().is_some_and(|last| *last as usize >= self.count) {
            let number = |l: &u32| self.there.binary_search(l).unwrap_or(0) as u32;
            labels.iter_mut().for_each(|l| *l = number(l));
        }
        Ok(labels)
    }
}

impl FeatureSet {
    /// Names of the classes by their number: what the labels were, if they were
    /// texts or not 0, 1, …; empty if classes are numbers and no more.
    pub fn class_names(&self) -> Vec<String> {
        let names = self.classes.class_names();
        match self.view.chosen() {
            Some(chosen) if !names.is_empty() => {
                let name = |c: &u32| names.get(*c as usize).cloned().unwrap_or_default();
                chosen.iter().map(name).collect()
            }
            Some(chosen) => chosen.iter().map(u32::to_string).collect(),
            None => names,
        }
    }

    /// Names by label as it is written: of the labels that are stored, or of the
    /// classes that were chosen.
    pub(in crate::features) fn stored_names(&self) -> Vec<String> {
        match (self.view.chosen(), &self.classes.names) {
            (Some(_), _) => self.class_names(),
            (None, Some(names)) => names.to_vec(),
            (None, None) => Vec::new(),
        }
    }

    /// What is worth telling about how the set was read.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// What is worth telling about its labels: how they were numbered, and how
    /// many are absent.
    pub fn label_notices(&self) -> Vec<String> {
        let without = self.classes.without;
        let absent = (without > 0)
            .then(|| format!("{}: {without} of {} rows have no label (-1)", self.name, self.rows));
        let numbered = self.classes.notice(&self.name).filter(|_| self.labelled);
        numbered.into_iter().chain(absent).collect()
    }

    /// The same set, its labels taken as rows of a head of so many classes,
    /// where they can be.
    #[must_use]
    pub fn indexing(&self, classes: usize) -> Self {
        let mut out = self.clone();
        if self.view.chosen().is_none() {
            out.classes = self.classes.clone().indexing(classes);
        }
        out
    }

    /// The same set, its classes numbered as those of a training set: by name.
    ///
    /// Labels of this set that are none there stay without a class.
    #[must_use]
    pub fn numbered_as(&self, train: &FeatureSet) -> Self {
        let mut out = self.clone();
        if !self.labelled || !train.labelled {
            return out;
        }
        let (ours, theirs) = (&self.classes, &train.classes);
        if ours.index_alike(theirs) {
            (out.classes.numbers, out.classes.count) = (None, ours.above().max(theirs.count));
            return out;
        }
        let mut names = theirs.class_names();
        if names.is_empty() {
            names = (0..theirs.count).map(|i| i.to_string()).collect();
        }
        let known: HashMap<&str, u32> =
            names.iter().enumerate().map(|(i, name)| (name.as_str(), i as u32)).collect();
        let number = |value: &i64| known.get(&*ours.name(*value)).copied().unwrap_or(u32::MAX);
        let numbers = ours.values.iter().map(number).collect();
        out.classes.number(numbers);
        out.classes.count = theirs.count;
        out
    }

    /// Whether labels can be those of a head of so many classes.
    ///
    /// # Errors
    /// If they cannot.
    pub fn check_classes(&self, classes: usize) -> Result<()> {
        let whole = self.view.chosen().is_none() && self.labelled;
        let indexed = self.indexing(classes).classes;
        let (found, texts) = (indexed.count, indexed.texts);
        let numbered = texts || indexed.numbers.is_some();
        if !whole || found == classes || (!numbered && found < classes) {
            return Ok(());
        }
        let why = if texts { " (texts do not say which row of the head is theirs)" } else { "" };
        Err(Error::Shape {
            place: self.name.clone(),
            tensor: "label".into(),
            expected: format!("labels in 0..{classes}, the classes of the head"),
            got: format!("{found} classes{why}: {}", self.listed()),
        })
    }

    /// The first labels, for a message.
    fn listed(&self) -> String {
        let values = &self.classes.values;
        let mut shown: Vec<_> = values.iter().take(SHOWN).map(|v| self.classes.name(*v)).collect();
        if values.len() > SHOWN {
            shown.push(format!("… {}", self.classes.name(values[values.len() - 1])));
        }
        shown.join(", ")
    }

    /// Which of so many classes have rows.
    ///
    /// # Errors
    /// As [`FeatureSet::labels`].
    pub(crate) fn present(&self, classes: usize) -> Result<Present> {
        self.check_classes(classes)?;
        let mut there = BTreeSet::new();
        for range in blocks(self.rows, 1 << 16) {
            let mut labels = self.labels(range, classes)?;
            labels.sort_unstable();
            labels.dedup();
            there.extend(labels);
        }
        let there: Vec<u32> = there.into_iter().collect();
        Ok(Present { classes, count: there.len(), there })
    }
}
