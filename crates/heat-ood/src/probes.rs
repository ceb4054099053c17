//! Rows to try a fitted scorer on: a detector holds them with their scores, and can so prove
//! that it still gives what it gave where it was made.
//!
//! A training row in a file that is passed on may be unwelcome, so each is a mixture of four
//! rows from different parts of the training set, and there are at most a quarter as many as
//! these mixtures have rows: what was mixed cannot be computed back from them. Mixtures are
//! as ordinary to a scorer as rows are: probabilities add up to 1, logits are those of the
//! features, what is never negative stays so.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field, FieldSet};
use crate::io::{Tensor, TensorFile};

/// Rows in a detector.
const ROWS: usize = 16;

/// What each of the training rows counts in a mixture.
const WEIGHTS: [f64; 4] = [0.4, 0.3, 0.2, 0.1];

/// What stands before the names of its tensors.
const PREFIX: &str = "probe.";

/// Rows to try a scorer on, of the fields that it reads: mixtures of training rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Probes {
    rows: usize,
    fields: Vec<(Field, Vec<f32>)>,
}

/// What a detector gave on its probes when it was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    pub scores: Vec<f32>,
    /// How far scores may lie from these on another processor.
    pub tolerance: f64,
}

/// What of it stands in the header.
#[derive(Serialize, Deserialize)]
pub(crate) struct Described {
    rows: usize,
    tolerance: f64,
}

impl Probes {
    /// Mixtures of the rows of a training set, always the same.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub(crate) fn of(train: &FeatureSet, needs: &FieldSet) -> Result<Self> {
        let n = train.len();
        let rows = (n / WEIGHTS.len()).clamp(1, ROWS);
        let parts = rows * WEIGHTS.len();
        // From all parts of the set, which may be sorted by class.
        let sources: Vec<u32> = (0..parts).map(|i| (i * n / parts) as u32).collect();
        let needs = needs.stored();
        let fields = needs.fields().map(|field| {
            let dim = train.require(field)?;
            let mut values = vec![0.0; parts * dim];
            train.gather(field, &sources, &mut values)?;
            let mixed = (0..rows * dim).map(|i| {
                let parts = WEIGHTS.iter().enumerate();
                let sum: f64 = parts.map(|(p, w)| w * f64::from(values[p * rows * dim + i])).sum();
                sum as f32
            });
            Ok((field, mixed.collect()))
        });
        Ok(Probes { rows, fields: fields.collect::<Result<_>>()? })
    }

    /// Those of the fields that are needed.
    pub(crate) fn only(&self, needs: &FieldSet) -> Self {
        let needed = needs.stored();
        let fields = self.fields.iter().filter(|(field, _)| needed.fields().any(|f| f == *field));
        Probes { rows: self.rows, fields: fields.cloned().collect() }
    }

    /// The fields that they have, each with its D.
    pub fn dims(&self) -> impl Iterator<Item = (Field, usize)> {
        self.fields.iter().map(|(field, values)| (*field, values.len() / self.rows.max(1)))
    }

    /// Their values by field.
    pub(crate) fn values(&self) -> Vec<(String, Tensor)> {
        let tensor = |values: &Vec<f32>| {
            Tensor::f32([self.rows, values.len() / self.rows.max(1)], values.clone())
        };
        self.fields.iter().map(|(f, v)| (format!("{PREFIX}{}", f.name()), tensor(v))).collect()
    }

    /// Read these back.
    ///
    /// # Errors
    /// If they contradict each other.
    pub(crate) fn of_values(file: &TensorFile) -> Result<Self> {
        let mut probes = Probes::default();
        for (name, ..) in file.list() {
            let Some(field) = name.strip_prefix(PREFIX).and_then(Field::named) else { continue };
            let shape = file.shape(&name)?;
            let sound = shape.len() == 2 && shape[1] > 0 && (1..=ROWS).contains(&shape[0]);
            if !sound || (probes.rows > 0 && probes.rows != shape[0]) {
                return Err(Error::format(file.path(), "its probe rows are damaged"));
            }
            probes.rows = shape[0];
            probes.fields.push((field, file.f32(&name, shape)?));
        }
        probes.fields.sort_by_key(|(field, _)| field.order());
        Ok(probes)
    }

    /// Also the fields that another has.
    pub(crate) fn include(&mut self, other: &Probes) {
        if self.fields.is_empty() {
            self.clone_from(other);
        }
        let rows = self.rows.min(other.rows);
        let missing = other.fields.iter().filter(|(field, _)| !self.has(*field));
        let missing: Vec<_> = missing.cloned().collect();
        if missing.is_empty() {
            return;
        }
        let before = [self.rows, other.rows];
        let own = std::mem::take(&mut self.fields).into_iter().map(|f| (before[0], f));
        let all = own.chain(missing.into_iter().map(|f| (before[1], f)));
        self.rows = rows;
        self.fields = all
            .map(|(before, (field, mut values))| {
                values.truncate(values.len() / before.max(1) * rows);
                (field, values)
            })
            .collect();
    }

    fn has(&self, field: Field) -> bool {
        self.fields.iter().any(|(f, _)| *f == field)
    }

    /// As a set, every value moved by `step` of itself up or down; nothing where there are none.
    fn set(&self, step: f32) -> Result<Option<FeatureSet>> {
        if self.fields.is_empty() {
            return Ok(None);
        }
        let moved = |(i, v): (usize, &f32)| {
            // Up or down without a pattern, so that norms and means move less than values.
            let up = (i as u32).wrapping_mul(0x9e37_79b9) >> 31 == 0;
            v * if up { 1.0 + step } else { 1.0 - step }
        };
        let set = self.fields.iter().try_fold(
            FeatureSet::in_memory("the detector's probe rows"),
            |set, (field, values)| {
                let values: Vec<f32> = values.iter().enumerate().map(moved).collect();
                let shape = (self.rows, values.len() / self.rows);
                let matrix = ndarray::Array2::from_shape_vec(shape, values).map_err(|_| {
                    Error::format("memory", "probe rows of unequal lengths".to_owned())
                })?;
                Ok(set.field(*field, matrix))
            },
        );
        set?.build().map(Some)
    }

    /// The scores of `score`, and how far they may move by rounding: eight times as far as they
    /// do where every value is moved by its last two bits, and 1e-5 of the largest. `None` where
    /// there are no probes, or they cannot be scored.
    pub(crate) fn record(
        &self,
        score: impl Fn(&FeatureSet) -> Result<Vec<f32>>,
    ) -> Option<Recorded> {
        let scores = score(&self.set(0.0).ok()??).ok()?;
        let moved = score(&self.set(f32::EPSILON * 2.0).ok()??).ok()?;
        let pairs = scores.iter().zip(&moved).map(|(s, m)| f64::from((s - m).abs()));
        let largest = scores.iter().fold(0.0, |m: f64, s| m.max(f64::from(s.abs())));
        let tolerance = 8.0 * pairs.fold(0.0, f64::max) + 1e-5 * largest;
        tolerance.is_finite().then_some(Recorded { scores, tolerance })
    }

    /// The largest difference of `score`'s scores from what was recorded.
    ///
    /// # Errors
    /// If the probes cannot be scored.
    pub(crate) fn compare(
        &self,
        recorded: &Recorded,
        score: impl Fn(&FeatureSet) -> Result<Vec<f32>>,
    ) -> Result<f64> {
        let scores = self.set(0.0)?.map_or(Ok(Vec::new()), |set| score(&set))?;
        let pairs = scores.iter().zip(&recorded.scores);
        Ok(pairs.map(|(s, r)| (f64::from(*s) - f64::from(*r)).abs()).fold(0.0, f64::max))
    }

    /// What a file holds of them and their scores.
    pub(crate) fn tensors(&self, recorded: &Recorded) -> (Described, Vec<(String, Tensor)>) {
        let described = Described { rows: self.rows, tolerance: recorded.tolerance };
        let scores = Tensor::f32([self.rows], recorded.scores.clone());
        let fields = self.fields.iter().map(|(field, values)| {
            let shape = [self.rows, values.len() / self.rows];
            (format!("{PREFIX}{}", field.name()), Tensor::f32(shape, values.clone()))
        });
        let named = fields.chain([(format!("{PREFIX}score"), scores)]);
        (described, named.collect())
    }

    /// Read them back.
    ///
    /// # Errors
    /// If they contradict each other.
    pub(crate) fn read(file: &TensorFile, described: &Described) -> Result<(Self, Recorded)> {
        let rows = described.rows;
        let bad = |problem: &str| {
            Error::format(file.path(), format!("its probe rows: {problem}; the file is damaged"))
        };
        if !(1..=ROWS).contains(&rows)
            || !described.tolerance.is_finite()
            || described.tolerance < 0.0
        {
            return Err(bad("there are 1 to 16, with a tolerance"));
        }
        let mut fields = Vec::new();
        let named = file.list().into_iter().filter_map(|(name, ..)| {
            let field = Field::named(name.strip_prefix(PREFIX)?)?;
            Some((field, name))
        });
        let mut named: Vec<(Field, String)> = named.collect();
        named.sort_by_key(|(field, _)| field.order());
        for (field, name) in named {
            let &[_, dim] = file.shape(&name)? else {
                return Err(bad("a field is no matrix"));
            };
            if dim == 0 {
                return Err(bad("a field is empty"));
            }
            fields.push((field, file.f32(&name, &[rows, dim])?));
        }
        if fields.is_empty() {
            return Err(bad("there is no field"));
        }
        let scores = file.f32(&format!("{PREFIX}score"), &[rows])?;
        let recorded = Recorded { scores, tolerance: described.tolerance };
        Ok((Probes { rows, fields }, recorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Pooling;

    const AVG: Field = Field::Features(Pooling::Avg);

    fn set(rows: usize, field: Field) -> FeatureSet {
        let values = ndarray::Array2::from_shape_fn((rows, 2), |(i, j)| (i * 10 + j) as f32);
        FeatureSet::in_memory("train").field(field, values).build().unwrap()
    }

    /// By hand: of 8 rows two mixtures, of rows 0, 2, 4, 6 and 1, 3, 5, 7.
    #[test]
    fn mixtures_by_hand() {
        let probes = Probes::of(&set(8, AVG), &FieldSet::of(AVG)).unwrap();
        assert_eq!(probes.rows, 2);
        let [(AVG, values)] = &probes.fields[..] else { panic!() };
        // 0.3·20 + 0.2·40 + 0.1·60 = 20, and 10 more.
        assert_eq!(values, &[20.0, 21.0, 30.0, 31.0]);
        assert_eq!(Probes::of(&set(1000, AVG), &FieldSet::of(AVG)).unwrap().rows, ROWS);
        assert_eq!(Probes::of(&set(1, AVG), &FieldSet::of(AVG)).unwrap().fields[0].1, [0.0, 1.0]);
    }

    /// Fields of both, in the rows that both have.
    #[test]
    fn parts_bring_their_fields() {
        let of = |rows, field| Probes::of(&set(rows, field), &FieldSet::of(field)).unwrap();
        let mut all = Probes::default();
        all.include(&of(100, AVG));
        all.include(&of(8, Field::Logits));
        all.include(&of(100, AVG));
        assert_eq!((all.rows, all.fields.len()), (2, 2));
        assert!(all.fields.iter().all(|(_, values)| values.len() == 4));
        let set = all.set(0.0).unwrap().unwrap();
        assert_eq!((set.len(), set.dim(AVG), set.dim(Field::Logits)), (2, Some(2), Some(2)));
    }

    #[test]
    fn tolerance_is_what_rounding_moves() {
        let probes = Probes::of(&set(8, AVG), &FieldSet::of(AVG)).unwrap();
        let first = |set: &FeatureSet| -> Result<Vec<f32>> {
            Ok(set.rows(AVG, 0..set.len())?.chunks(2).map(|row| row[0]).collect())
        };
        let recorded = probes.record(first).unwrap();
        assert_eq!(recorded.scores, [20.0, 30.0]);
        // 1e-5·30 and about 8·2·ε·30.
        assert!((3e-4..4e-4).contains(&recorded.tolerance), "{}", recorded.tolerance);
        assert_eq!(probes.compare(&recorded, first).unwrap(), 0.0);
        let off = |set: &FeatureSet| Ok(first(set)?.iter().map(|s| s + 0.5).collect());
        assert_eq!(probes.compare(&recorded, off).unwrap(), 0.5);
        let fails = |_: &FeatureSet| Err(Error::format("x", "y"));
        assert!(probes.record(fails).is_none() && Probes::default().record(first).is_none());
    }
}
