//! Which classes the labels of a set name, and how they are numbered.
//!
//! Labels 0, 1, …, K−1 are classes as they stand. Others (from 1, with gaps, or
//! texts) are numbered in ascending order, unless they are rows of the
//! classifier's head, whose number of classes is then known. A label of −1 says
//! that a row has none.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::shard::Shard;
use crate::io::Names;

/// The label of rows without one.
pub(super) const NONE: i64 = -1;

/// Labels up to here are noted in a list of flags.
const SMALL: usize = 1 << 20;

/// Most classes that a notice names.
pub(super) const SHOWN: usize = 6;

/// The labels that occur, and the class of each.
#[derive(Clone, Default)]
pub(super) struct Classes {
    /// Distinct labels as they are stored, ascending, from 0.
    pub(super) values: Arc<Vec<i64>>,
    /// What they stand for.
    pub(super) names: Option<Names>,
    /// Whether labels are numbers of texts, which nobody has chosen.
    pub(super) texts: bool,
    /// The class of each of `values`, where it is not the value itself;
    /// `u32::MAX`: none.
    pub(super) numbers: Option<Arc<Vec<u32>>>,
    /// Number of classes.
    pub(super) count: usize,
    /// Rows whose label is [`NONE`].
    pub(super) without: usize,
    /// Whether there are labels that are neither class nor [`NONE`].
    strange: bool,
}

impl Classes {
    /// Those of these shards, whose logits have so many columns.
    pub(super) fn of(shards: &[Shard], logits: Option<usize>) -> Self {
        let mut classes = Classes::default();
        let (mut small, mut others) = (Vec::new(), BTreeSet::new());
        for label in shards.iter().filter_map(|s| s.label.as_ref()) {
            for i in 0..label.rows() {
                let value = label.integer(i);
                match usize::try_from(value) {
                    Ok(at) if at < SMALL => {
                        if at >= small.len() {
                            small.resize((at + 1).next_power_of_two(), false);
                        }
                        small[at] = true;
                    }
                    Ok(_) if value < i64::MAX => drop(others.insert(value)),
                    _ if value == NONE => classes.without += 1,
                    _ => classes.strange = true,
                }
            }
        }
        let flagged = small.iter().enumerate().filter(|(_, there)| **there).map(|(i, _)| i as i64);
        classes.values = Arc::new(flagged.chain(others).collect());
        let label = shards.first().and_then(|s| s.label.as_ref());
        classes.names = label.and_then(|l| l.names.clone());
        classes.texts = shards.first().is_some_and(|s| s.texts);
        classes.count = classes.above();
        let listed = classes.names.as_ref().map_or(0, |n| n.len());
        if classes.above() <= listed {
            classes.count = listed;
        } else if classes.above() > logits.unwrap_or(classes.values.len()) {
            classes.number((0..classes.values.len() as u32).collect());
        }
        classes
    }

    /// So many, all of which occur, of these names if there are some.
    pub(super) fn counted(count: usize, names: Option<Names>) -> Self {
        Classes { values: Arc::new((0..count as i64).collect()), names, count, ..Self::default() }
    }

    /// One more than the largest label.
    pub(super) fn above(&self) -> usize {
        self.values.last().map_or(0, |v| usize::try_from(*v).unwrap_or(usize::MAX - 1) + 1)
    }

    pub(super) fn number(&mut self, numbers: Vec<u32>) {
        self.count =
            numbers.iter().filter(|n| **n != u32::MAX).max().map_or(0, |n| *n as usize + 1);
        self.numbers = Some(Arc::new(numbers));
    }

    /// Whether the labels of two sets are numbers of the same classes, whatever these are called:
    /// one of them says no names, or other names throughout.
    pub(super) fn index_alike(&self, other: &Self) -> bool {
        let plain = |c: &Self| c.numbers.is_none() && !c.texts;
        plain(self)
            && plain(other)
            && match (&self.names, &other.names) {
                (Some(ours), Some(theirs)) => {
                    let theirs: HashSet<&String> = theirs.iter().collect();
                    ours.len() == theirs.len() && !ours.iter().any(|name| theirs.contains(name))
                }
                _ => true,
            }
    }

    /// Whether no row has a label.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty() && !self.strange
    }

    /// The class of a label, or −1.
    pub(super) fn class(&self, label: i64) -> i64 {
        let Some(numbers) = &self.numbers else {
            return if label == i64::MAX { NONE } else { label };
        };
        let place = self.values.binary_search(&label).ok();
        place.map(|i| numbers[i]).filter(|n| *n != u32::MAX).map_or(NONE, i64::from)
    }

    /// Number of classes.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Taken as rows of a head of so many classes, where they can be.
    pub(super) fn indexing(mut self, classes: usize) -> Self {
        if !self.texts && self.above() <= classes {
            (self.numbers, self.count) = (None, classes);
        }
        self
    }

    /// What a label stands for.
    pub(super) fn name(&self, value: i64) -> String {
        let named = usize::try_from(value).ok().and_then(|i| self.names.as_ref()?.get(i).cloned());
        named.unwrap_or_else(|| value.to_string())
    }

    /// Names by class; empty where classes are their labels and nothing more.
    pub(super) fn class_names(&self) -> Vec<String> {
        match &self.numbers {
            Some(numbers) => {
                let mut names = vec![String::new(); self.count];
                for (value, number) in self.values.iter().zip(&**numbers) {
                    if let Some(name) = names.get_mut(*number as usize) {
                        *name = self.name(*value);
                    }
                }
                names
            }
            None => match &self.names {
                Some(names) => names
                    .iter()
                    .cloned()
                    .chain((names.len()..self.count).map(|i| i.to_string()))
                    .collect(),
                None => Vec::new(),
            },
        }
    }

    /// How labels were numbered, where they were.
    pub(super) fn notice(&self, place: &str) -> Option<String> {
        self.numbers.as_ref()?;
        let named = self.class_names();
        let pairs = named.iter().enumerate().map(|(i, name)| format!("{name} → {i}"));
        let mut shown: Vec<String> = pairs.take(SHOWN).collect();
        if named.len() > SHOWN {
            shown.push(format!("… {} → {}", named[named.len() - 1], named.len() - 1));
        }
        let shown = shown.join(", ");
        Some(format!("{place}: its labels were numbered as {} classes: {shown}", named.len()))
    }
}
