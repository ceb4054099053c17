//! Where a fitted scorer comes from, and which rows it has seen.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::features::{FeatureSet, FieldSet, Origin, RowSketch};
use crate::probes::Probes;

/// Where a detector comes from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this library.
    pub library_version: String,
    /// The resolved recipe or the scorer's settings, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Seed of the training run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Which network made the training features, and of images transformed how, where their
    /// files say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Name and SHA-256 of each file of the training set.
    #[serde(default)]
    pub train: Vec<(String, String)>,
    /// Name and SHA-256 of each file of in-distribution rows, held out of training, that the
    /// scores of a composition's members are standardised on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standardised_on: Vec<(String, String)>,
    /// Names of the classes by number, where labels were texts or not 0, 1, ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Name and SHA-256 of each file of OOD sets that settings were
    /// chosen on or that were negatives in training: no set to report results on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tuned_on: Vec<(String, String)>,
    /// Samples by hash of the rows that the scorer has seen, so that they are
    /// noticed in a calibration set whatever file they lie in: of training, of
    /// standardisation, of members' training and calibration, of ID validation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowSketch>,
    /// Likewise of the rows of `tuned_on`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tuned_rows: Vec<RowSketch>,
    /// Rows made of training rows, to try the scorer on.
    #[serde(skip)]
    pub probes: Probes,
}

/// The fraction of seen rows from which a set is called seen.
pub(crate) const SEEN: f64 = 0.01;

impl Provenance {
    /// Of something made by this version of the library that has seen nothing.
    pub fn new() -> Self {
        Provenance { library_version: env!("CARGO_PKG_VERSION").to_owned(), ..Self::default() }
    }

    /// Of something fitted on `train`, of which it reads the fields `needs`.
    ///
    /// # Errors
    /// If the set cannot be read.
    pub fn of_training(train: &FeatureSet, needs: &FieldSet) -> Result<Self> {
        let mut provenance = Self::new();
        provenance.train = train.digests()?;
        provenance.classes = train.class_names();
        provenance.origin = train.origin().cloned();
        provenance.rows.push(RowSketch::of(train, needs)?);
        provenance.probes = Probes::of(train, needs)?;
        Ok(provenance)
    }

    /// Of the statistics of a composition over `held_out`, of which it reads the fields `needs`.
    ///
    /// # Errors
    /// If the set cannot be read.
    pub fn of_standardisation(held_out: &FeatureSet, needs: FieldSet) -> Result<Self> {
        let mut provenance = Self::new();
        provenance.standardised_on = held_out.digests()?;
        provenance.origin = held_out.origin().cloned();
        provenance.rows.push(RowSketch::of(held_out, &needs)?);
        Ok(provenance)
    }

    /// Also what another detector, a part of this one, has seen.
    pub fn include(&mut self, part: &Provenance) {
        match (&mut self.origin, &part.origin) {
            (Some(own), Some(other)) => {
                for (name, at) in &other.layers {
                    own.layers.entry(name.clone()).or_insert_with(|| at.clone());
                }
            }
            (own, _) => *own = own.take().or_else(|| part.origin.clone()),
        }
        for file in &part.train {
            if !self.train.contains(file) {
                self.train.push(file.clone());
            }
        }
        for file in &part.standardised_on {
            if !self.standardised_on.contains(file) {
                self.standardised_on.push(file.clone());
            }
        }
        if self.classes.is_empty() {
            self.classes.clone_from(&part.classes);
        }
        for rows in &part.rows {
            self.include_rows(rows);
        }
        for file in &part.tuned_on {
            if !self.tuned_on.contains(file) {
                self.tuned_on.push(file.clone());
            }
        }
        self.probes.include(&part.probes);
        for rows in &part.tuned_rows {
            if !self.tuned_rows.contains(rows) {
                self.tuned_rows.push(rows.clone());
            }
        }
    }

    /// Also these rows.
    pub fn include_rows(&mut self, rows: &RowSketch) {
        if !self.rows.contains(rows) {
            self.rows.push(rows.clone());
        }
    }

    /// Whether another has seen the same rows and files.
    pub(crate) fn has_seen_as(&self, other: &Provenance) -> bool {
        self.train == other.train
            && self.standardised_on == other.standardised_on
            && self.rows == other.rows
            && self.tuned_on == other.tuned_on
            && self.tuned_rows == other.tuned_rows
    }

    /// Refuse features that are known to come from another network, layer or transform than those
    /// fitted on.
    ///
    /// # Errors
    /// [`crate::Error::Foreign`], which says what differs.
    pub fn check_origin(&self, set: &FeatureSet) -> Result<()> {
        self.origin.as_ref().map_or(Ok(()), |origin| set.check_origin(origin))
    }

    /// Whether settings were chosen on rows of this set, or on a file of it, or they were negatives.
    ///
    /// # Errors
    /// If the set cannot be read.
    pub fn was_tuned_on(&self, set: &FeatureSet) -> Result<bool> {
        for rows in &self.tuned_rows {
            if rows.overlap(set)?.is_some_and(|o| o.fraction() > SEEN) {
                return Ok(true);
            }
        }
        if self.tuned_on.is_empty() {
            return Ok(false);
        }
        let digests = set.digests()?;
        Ok(self.tuned_on.iter().any(|(_, d)| digests.iter().any(|(_, other)| other == d)))
    }

    /// The rows of a set without those that the scorer has seen, and how many these were. Of more
    /// than some eight thousand training rows a scorer remembers a sample: all are compared where
    /// the training set is among `train`.
    ///
    /// # Errors
    /// If a set cannot be read, the scorer remembers a sample of its rows alone or none, so
    /// that some of them could not be known again, or no row is left.
    pub fn without_seen(
        &self,
        id: &FeatureSet,
        train: &[FeatureSet],
    ) -> Result<(FeatureSet, usize)> {
        let mut seen = vec![false; id.len()];
        for rows in &self.rows {
            let mut shared = if rows.is_whole() { rows.known_rows(id)? } else { None };
            for train in train {
                if shared.is_none() {
                    shared = rows.shared_through(train, id)?;
                }
            }
            let Some(shared) = shared else {
                let given = match train {
                    [] => "".to_owned(),
                    [one] => format!(", and {} is not the set that it was fitted on", one.name()),
                    _ => ", and none of the sets given is the one that it was fitted on".to_owned(),
                };
                let problem = format!(
                    "of its {} training rows the detector remembers a sample alone{given}: rows beyond \
                     the sample could not be left out of {}; give the training set again, as in the \
                     fit, to compare all",
                    rows.rows,
                    id.name()
                );
                return Err(Error::Fit { what: "calibration".into(), problem });
            };
            shared.into_iter().for_each(|row| seen[row as usize] = true);
        }
        let kept: Vec<u32> = (0..id.len() as u32).filter(|row| !seen[*row as usize]).collect();
        if self.rows.is_empty() || kept.is_empty() {
            let problem = match self.rows.is_empty() {
                true => "the detector does not remember its training rows".to_owned(),
                false => format!("every row of {} is a training row", id.name()),
            };
            return Err(Error::Fit { what: "calibration".into(), problem });
        }
        let dropped = id.len() - kept.len();
        let left = if dropped == 0 { id.clone() } else { id.select(kept, None)? };
        Ok((left, dropped))
    }

    /// What is to be said of sets given as those that the scorer was fitted on: a sentence for each
    /// that holds a file whose bytes are none of those recorded. Rows are compared all the same,
    /// but those of a file that was meant and not given may be missed.
    ///
    /// # Errors
    /// If a set cannot be read.
    pub fn unrecorded(&self, train: &[FeatureSet]) -> Result<Vec<String>> {
        let recorded: Vec<_> = self.train.iter().chain(&self.standardised_on).collect();
        let told = |(name, digest): &(String, String)| {
            format!("{name} (SHA-256 {})", &digest[..digest.len().min(12)])
        };
        let mut sentences = Vec::new();
        for set in train {
            let files = set.file_digests()?;
            let unknown = |(_, d): &&(String, String)| recorded.iter().all(|(_, r)| r != d);
            let unknown: Vec<_> = files.iter().filter(unknown).collect();
            let Some(first) = unknown.first() else { continue };
            // Of the same name, if there is one: it was changed since.
            let of_that_name = recorded.iter().find(|(name, _)| *name == first.0);
            let Some(known) = of_that_name.or(recorded.first()) else { continue };
            let more = |n: usize| match n {
                0 | 1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            sentences.push(format!(
                "{}{} is not what the detector was fitted on, which is {}{}: rows that are only \
                 there are not looked for here; give that file",
                told(first),
                more(unknown.len()),
                told(known),
                more(recorded.len()),
            ));
        }
        Ok(sentences)
    }

    /// Which of these rows the scorer has seen, in words: more than one in a
    /// hundred of those that can be compared; or, where a sample allows no
    /// comparison of ten rows, a whole file.
    ///
    /// # Errors
    /// If the set cannot be read.
    pub fn contamination(&self, id: &FeatureSet) -> Result<Option<String>> {
        /// Fewer compared rows say nothing.
        const FEW: usize = 10;
        let mut sampled = !self.rows.is_empty();
        for rows in &self.rows {
            match rows.shared(id)? {
                Some((o, shared)) if o.fraction() > SEEN => {
                    return Ok(Some(format!(
                        "{} of {} rows that were compared are training rows ({})",
                        o.shared,
                        o.compared,
                        id.rows_text(&shared)
                    )));
                }
                Some((o, _)) if o.compared >= FEW.min(id.len()) => {}
                _ => sampled = false,
            }
        }
        if sampled {
            return Ok(None);
        }
        let digests = id.digests()?;
        let known = digests.iter().find_map(|(name, digest)| {
            let mut files = self.train.iter().chain(&self.standardised_on);
            let found = files.find(|(_, d)| d == digest)?;
            Some(format!("{name} is the training file {}", found.0))
        });
        Ok(known)
    }
}
