//! Training subsets (METHOD §4, `dataset.subset.*`): a random choice of
//! classes, then a stratified proportion of their rows.
//!
//! The rows of each class are counted as scikit-learn's
//! `train_test_split(train_size=p, stratify=y)` counts them: ⌊p·N⌋ in all,
//! ⌊p·N⌋·n_k/N of class k rounded by largest remainder, ties at random.
//! *Differences from the published code*: a class keeps at least one row
//! (scikit-learn may leave it with none), so the total can be larger by as
//! many; the random numbers are this library's; rows keep their order.

use serde::{Deserialize, Serialize};

use super::{FeatureSet, Head};
use crate::error::{Error, Result};
use crate::math::blocks;
use crate::math::rng::{Purpose, Stream};

/// Which part of a training set to use.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubsetConfig {
    /// Fraction of the rows, above 0 up to 1, the same in every class; of a set
    /// without labels, of all rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proportion: Option<f64>,
    /// How many of the classes; they are relabelled 0, 1, … in ascending order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_labels: Option<usize>,
    /// Seed of both choices.
    pub random_state: u64,
}

/// A chosen part of one feature set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subset {
    /// Chosen rows, ascending; `None`: all.
    pub rows: Option<Vec<u32>>,
    /// Chosen labels, ascending; `None`: all.
    pub classes: Option<Vec<u32>>,
    /// Fraction of the rows of these classes.
    pub proportion: f64,
    /// Of how many classes they were chosen; 0: there was no choice.
    pub among: usize,
}

impl SubsetConfig {
    /// Whether this is the whole set.
    pub fn is_whole(&self) -> bool {
        self.number_labels.is_none() && self.proportion.is_none_or(|p| p == 1.0)
    }

    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == SubsetConfig::default()
    }

    /// Choose rows and classes of `set`.
    ///
    /// # Errors
    /// If the proportion is not in (0, 1], there are not so many classes, or
    /// labels are needed and absent or out of range.
    pub fn fit(&self, set: &FeatureSet) -> Result<Subset> {
        let proportion = self.proportion.unwrap_or(1.0);
        if !(proportion > 0.0 && proportion <= 1.0) {
            let problem = "a fraction of the rows lies above 0 and is at most 1, e.g. 0.1";
            return Err(Error::config("subset.proportion", proportion, problem));
        }
        if self.is_whole() {
            return Ok(Subset { proportion, ..Subset::default() });
        }
        let mut members = members(set, self.number_labels.is_some())?;
        let (mut classes, mut among) = (None, 0);
        if let Some(n) = self.number_labels {
            let chosen = self.choose_classes(n, &members, set)?;
            members.retain(|(label, _)| chosen.binary_search(label).is_ok());
            (classes, among) = (Some(chosen), set.classes()?);
        }
        let sizes: Vec<usize> = members.iter().map(|(_, rows)| rows.len()).collect();
        let mut stream = Stream::new(self.random_state, Purpose::Subset, 1, 0);
        let counts = stratified(&sizes, proportion, &mut stream);
        let mut rows = Vec::with_capacity(counts.iter().sum());
        for ((label, mut all), n) in members.into_iter().zip(counts) {
            let mut stream = Stream::new(self.random_state, Purpose::Subset, 2, u64::from(label));
            draw(&mut all, n, &mut stream);
            rows.extend(&all[..n]);
        }
        rows.sort_unstable();
        Ok(Subset { rows: Some(rows), classes, proportion, among })
    }

    fn choose_classes(
        &self,
        n: usize,
        members: &[(u32, Vec<u32>)],
        set: &FeatureSet,
    ) -> Result<Vec<u32>> {
        if n == 0 || n > members.len() {
            let present = members.len();
            let problem = format!(
                "{} has rows of {present} classes, so 1 to {present} can be chosen",
                set.name()
            );
            return Err(Error::config("subset.number_labels", n, problem));
        }
        let mut labels: Vec<u32> = members.iter().map(|(label, _)| *label).collect();
        draw(&mut labels, n, &mut Stream::new(self.random_state, Purpose::Subset, 0, 0));
        labels.truncate(n);
        labels.sort_unstable();
        Ok(labels)
    }
}

impl Subset {
    /// The chosen part as a view.
    ///
    /// # Errors
    /// If `set` is not the one that this was fitted on.
    pub fn apply(&self, set: &FeatureSet) -> Result<FeatureSet> {
        let Some(rows) = &self.rows else {
            return Ok(set.clone());
        };
        let mut view = set.select(rows.clone(), self.classes.clone())?;
        view.set_proportion(self.proportion);
        Ok(view)
    }

    /// The head of the chosen classes, in the order of their new labels.
    ///
    /// # Errors
    /// If the head has other classes than the set that they were chosen from
    /// (see [`FeatureSet::indexing`]).
    pub fn apply_head(&self, head: &Head) -> Result<Head> {
        let Some(classes) = &self.classes else { return Ok(head.clone()) };
        if head.classes() != self.among {
            let problem = format!(
                "chosen among {} classes, and the head has {}: number the labels by the head first",
                self.among,
                head.classes()
            );
            return Err(Error::config("subset.number_labels", classes.len(), problem));
        }
        head.select(classes)
    }

    /// An ID test set: its rows of the chosen classes, relabelled. Without
    /// labels, all rows, with the logits of the chosen classes.
    ///
    /// # Errors
    /// If none of its rows is of a chosen class, or it has other logits.
    pub fn apply_test(&self, set: &FeatureSet) -> Result<FeatureSet> {
        let Some(classes) = self.classes.as_ref().filter(|_| set.labelled()) else {
            return self.apply_ood(set);
        };
        let (mut rows, all) = (Vec::new(), set.classes()?);
        for range in blocks(set.len(), 1 << 16) {
            let labels = set.labels(range.clone(), all)?;
            let here = range.zip(labels).filter(|(_, l)| classes.binary_search(l).is_ok());
            rows.extend(here.map(|(row, _)| row as u32));
        }
        if rows.is_empty() {
            let remedy = "choose other classes, or take the labels out of the file";
            return Err(Error::missing(set.name(), "row of a chosen class", remedy));
        }
        set.select(rows, Some(classes.clone()))
    }

    /// An OOD set: all its rows, with the logits of the chosen classes.
    ///
    /// # Errors
    /// If it has fewer logits.
    pub fn apply_ood(&self, set: &FeatureSet) -> Result<FeatureSet> {
        self.classes.as_ref().map_or_else(|| Ok(set.clone()), |c| set.with_logits_of(c))
    }
}

/// The rows of each label, labels ascending; one group without labels.
fn members(set: &FeatureSet, needs_labels: bool) -> Result<Vec<(u32, Vec<u32>)>> {
    if !set.labelled() && !needs_labels {
        return Ok(vec![(0, (0..set.len() as u32).collect())]);
    }
    let mut members = std::collections::BTreeMap::<u32, Vec<u32>>::new();
    let classes = set.classes()?;
    for range in blocks(set.len(), 1 << 16) {
        let labels = set.labels(range.clone(), classes)?;
        for (row, label) in range.zip(labels) {
            members.entry(label).or_default().push(row as u32);
        }
    }
    Ok(members.into_iter().collect())
}

/// How many of each class: ⌊p·N⌋ in all by largest remainder, then at least one.
fn stratified(sizes: &[usize], proportion: f64, stream: &mut Stream) -> Vec<usize> {
    let all: usize = sizes.iter().sum();
    let wanted = (proportion * all as f64).floor() as usize;
    // In integers, so that equal shares are equal.
    let product = |n: usize| n as u128 * wanted as u128;
    let mut counts: Vec<usize> =
        sizes.iter().map(|&n| (product(n) / all as u128) as usize).collect();
    let left = wanted - counts.iter().sum::<usize>();
    let mut order = stream.permutation(sizes.len() as u32);
    order.sort_by_key(|&k| std::cmp::Reverse(product(sizes[k as usize]) % all as u128));
    for &k in &order[..left] {
        counts[k as usize] += 1;
    }
    counts.into_iter().map(|n| n.max(1)).collect()
}

/// Bring a random choice of `n` to the front.
fn draw(items: &mut [u32], n: usize, stream: &mut Stream) {
    for i in 0..n {
        let j = i + stream.below((items.len() - i) as u32) as usize;
        items.swap(i, j);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Field, Pooling};
    use ndarray::Array2;

    const AVG: Field = Field::Features(Pooling::Avg);

    fn counts(sizes: &[usize], p: f64, seed: u64) -> Vec<usize> {
        stratified(sizes, p, &mut Stream::new(seed, Purpose::Subset, 1, 0))
    }

    /// Class counts of scikit-learn 1.9.1:
    /// `y = np.repeat(np.arange(len(sizes)), sizes)`, then `np.bincount` of
    /// `train_test_split(y, train_size=p, stratify=y, random_state=0)[0]`.
    /// No two remainders are equal but where all are.
    #[test]
    fn counts_are_those_of_scikit_learn() {
        assert_eq!(counts(&[50, 30, 20, 7], 0.33, 0), [16, 10, 7, 2]);
        assert_eq!(counts(&[500, 123, 77, 41, 9], 0.1, 0), [50, 12, 8, 4, 1]);
        assert_eq!(counts(&[11, 13, 17, 19, 23], 0.5, 0), [6, 7, 8, 9, 11]);
        assert_eq!(counts(&[5000; 10], 0.1, 0), [500; 10]);
        assert_eq!(counts(&[101, 203, 307], 0.29, 0), [29, 59, 89]);
        assert_eq!(counts(&[1300, 732, 1299, 1150], 0.01, 0), [13, 7, 13, 11]);
        assert_eq!(counts(&[40, 41, 43], 0.77, 0), [31, 31, 33]);
    }

    #[test]
    fn ties_are_broken_at_random_and_every_class_keeps_a_row() {
        // ⌊0.35·12⌋ = 4 of four classes of 3: one each. ⌊0.45·12⌋ = 5: one class has two.
        assert_eq!(counts(&[3; 4], 0.35, 0), [1; 4]);
        let fuller = |seed| counts(&[3; 4], 0.45, seed).iter().position(|&n| n == 2).unwrap();
        let seen: std::collections::BTreeSet<usize> = (0..40).map(fuller).collect();
        assert_eq!(seen.len(), 4);
        assert_eq!(counts(&[1000, 2], 0.01, 0), [10, 1]);
        assert_eq!(counts(&[5, 5], 0.01, 0), [1, 1]);
    }

    fn set(labels: &[u32]) -> FeatureSet {
        let rows = Array2::from_shape_fn((labels.len(), 3), |(i, j)| (i * 3 + j) as f32);
        FeatureSet::from_arrays(rows.view(), Some(labels)).unwrap()
    }

    #[test]
    fn classes_then_proportion_by_hand() {
        // Labels 3, 5, 8, 9 of 10 rows each, of a head with ten classes.
        let labels: Vec<u32> = (0..40).map(|i| [3, 5, 8, 9][i % 4]).collect();
        let set = set(&labels);
        let config =
            SubsetConfig { proportion: Some(0.5), number_labels: Some(2), random_state: 1 };
        let weight = (0..30).map(|i| i as f32).collect();
        let head = Head::new(weight, (0..10).map(|i| i as f32).collect()).unwrap();
        // Alone, they are the classes 0 to 3, which are no rows of the head.
        assert!(config.fit(&set).unwrap().apply_head(&head).is_err());
        let set = set.indexing(10);
        let subset = config.fit(&set).unwrap();
        let classes = subset.classes.clone().unwrap();
        let rows = subset.rows.clone().unwrap();
        assert_eq!((classes.len(), rows.len()), (2, 10));
        let view = subset.apply(&set).unwrap();
        assert_eq!((view.len(), view.proportion(), view.classes().unwrap()), (10, 0.5, 2));
        let got = view.labels(0..10, 2).unwrap();
        assert_eq!(got.iter().filter(|&&l| l == 1).count(), 5);
        for (i, &row) in rows.iter().enumerate() {
            assert_eq!(classes[got[i] as usize], labels[row as usize]);
            let mut out = [0.0; 3];
            view.read(AVG, i..i + 1, &mut out).unwrap();
            assert_eq!(out[0], (row * 3) as f32);
        }
        let head = subset.apply_head(&head).unwrap();
        assert_eq!(head.bias(), [classes[0] as f32, classes[1] as f32]);
        assert_eq!(head.weight()[3..], [0, 1, 2].map(|i| (classes[1] * 3 + i) as f32));
    }

    #[test]
    fn seeds_decide() {
        let set = set(&(0..200).map(|i| i % 10).collect::<Vec<_>>());
        let of = |seed| {
            let config =
                SubsetConfig { proportion: Some(0.3), number_labels: Some(4), random_state: seed };
            config.fit(&set).unwrap()
        };
        assert_eq!(of(3), of(3));
        assert_ne!(of(3).classes, of(4).classes);
        let digest = |seed: u64| of(seed).apply(&set).unwrap().digests().unwrap();
        assert_eq!(digest(3), digest(3));
        assert_ne!(digest(3), digest(4));
        assert!(set.digests().unwrap().is_empty());
    }

    #[test]
    fn refusals() {
        let set = set(&[0, 0, 1, 1]);
        let error = |c: SubsetConfig| c.fit(&set).unwrap_err().to_string();
        for p in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
            let config = SubsetConfig { proportion: Some(p), ..SubsetConfig::default() };
            assert!(error(config).starts_with("`subset.proportion` = "), "{p}");
        }
        for n in [0, 3] {
            let config = SubsetConfig { number_labels: Some(n), ..SubsetConfig::default() };
            assert!(error(config).contains("rows of 2 classes"), "{n}");
        }
        let rows = Array2::from_elem((4, 2), 1.0f32);
        let bare = FeatureSet::from_arrays(rows.view(), None).unwrap();
        let config = SubsetConfig { number_labels: Some(1), ..SubsetConfig::default() };
        assert!(config.fit(&bare).unwrap_err().to_string().contains("`label`"));
        // A proportion needs none.
        let config = SubsetConfig { proportion: Some(0.5), ..SubsetConfig::default() };
        assert_eq!(config.fit(&bare).unwrap().rows.unwrap().len(), 2);
    }

    #[test]
    fn the_whole_set_is_the_set() {
        let set = set(&[0, 1, 2]);
        let config = SubsetConfig { proportion: Some(1.0), ..SubsetConfig::default() };
        let view = config.fit(&set).unwrap().apply(&set).unwrap();
        assert_eq!((view.len(), view.name()), (3, "memory"));
    }
}
