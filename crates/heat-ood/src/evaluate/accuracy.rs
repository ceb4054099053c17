//! Accuracy of the classifier itself.

use crate::error::Result;
use crate::features::{Batch, FeatureSet, Field, FieldSet, Head, Pooling};
use crate::math::matmul::{Aligned, with_scratch};
use crate::math::parallel::{Pieces, Slices};
use crate::math::{blocks, reduce};

/// Rows read at once.
const ROWS: usize = 1024;

/// Rows that a thread looks at at a time.
const PIECE: usize = 256;

/// Fraction of a set's rows whose largest logit is that of their label: logits
/// as stored, else of `avg` and the head. `None` where the set has no labels,
/// or neither it nor the head gives logits.
///
/// # Errors
/// If the set cannot be read, does not fit the head, or has labels that are
/// no class of it.
pub fn accuracy(set: &FeatureSet, head: Option<&Head>) -> Result<Option<f64>> {
    let avg = Field::Features(Pooling::Avg);
    let stored = match set.dim(Field::Logits) {
        Some(_) => Field::Logits,
        None => Field::Probabilities,
    };
    let (classes, head) = match (set.dim(Field::Logits), head) {
        (Some(classes), _) => (classes, None),
        (None, Some(head)) if set.dim(avg).is_some() => (head.classes(), Some(head)),
        _ => match set.dim(Field::Probabilities) {
            Some(classes) => (classes, None),
            None => return Ok(None),
        },
    };
    if !set.labelled() || classes == 1 {
        return Ok(None);
    }
    let set = &set.indexing(classes);
    set.check_classes(classes)?;
    let needs = match head {
        Some(head) => FieldSet::checked(set, avg, head.dim())?,
        None => FieldSet::of(stored),
    };
    let (mut batch, mut scratch, mut right) = (Batch::default(), Aligned::default(), 0);
    let mut computed = Vec::new();
    for range in blocks(set.len(), ROWS) {
        set.batch(&needs, range.clone(), &mut batch)?;
        let logits = match head {
            Some(head) => {
                computed.resize(range.len() * classes, 0.0);
                head.logits(batch.get(avg), &mut computed, &mut scratch);
                &computed[..]
            }
            None => batch.get(stored),
        };
        let labels = set.labels(range, classes)?;
        right += logits
            .chunks_exact(classes)
            .zip(labels)
            .filter(|(l, y)| reduce::argmax(l) == *y)
            .count();
    }
    Ok(Some(right as f64 / set.len() as f64))
}

/// How far a classifier and labels agree, and how far they would by chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Rows whose largest logit is that of their label.
    pub right: usize,
    /// Rows looked at.
    pub rows: usize,
    /// Fraction that would be right if predictions and labels, with the frequencies they have,
    /// had nothing to do with each other.
    pub chance: f64,
}

impl Agreement {
    /// Of the labels of at most 10,000 rows, evenly spread over the set, with their logits, or
    /// those of `avg` and the head. `None` where there are no labels of two classes, or no
    /// logits.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn of(set: &FeatureSet, head: Option<&Head>) -> Result<Option<Self>> {
        Self::of_rows(set, head, 10_000)
    }

    /// The same of all rows.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub fn of_all(set: &FeatureSet, head: Option<&Head>) -> Result<Option<Self>> {
        Self::of_rows(set, head, usize::MAX)
    }

    fn of_rows(set: &FeatureSet, head: Option<&Head>, most: usize) -> Result<Option<Self>> {
        let avg = Field::Features(Pooling::Avg);
        let (field, classes, head) = match (head, set.dim(Field::Logits)) {
            (Some(head), _) if set.dim(avg) == Some(head.dim()) => {
                (avg, head.classes(), Some(head))
            }
            (_, Some(classes)) => (Field::Logits, classes, None),
            _ => return Ok(None),
        };
        // Labels that are no classes of the head are another message's matter.
        let Ok(labels) = set.labels(0..if set.labelled() { set.len() } else { 0 }, classes) else {
            return Ok(None);
        };
        let step = labels.len().div_ceil(most).max(1);
        let rows: Vec<u32> = (0..labels.len() as u32).step_by(step).collect();
        let dim = set.require(field)?;
        let of_piece = |rows: &[u32]| -> Result<Vec<(u32, u32)>> {
            let mut features = vec![0.0; rows.len() * dim];
            set.gather(field, rows, &mut features)?;
            let logits = match head {
                Some(head) => {
                    let mut logits = vec![0.0; rows.len() * classes];
                    with_scratch(|scratch| head.logits(&features, &mut logits, scratch));
                    logits
                }
                None => features,
            };
            let predicted = logits.chunks_exact(classes).map(reduce::argmax);
            Ok(rows.iter().map(|row| labels[*row as usize]).zip(predicted).collect())
        };
        let mut counts = vec![[0u64; 2]; classes];
        let mut right = 0;
        for piece in rows.par_chunks(PIECE).map(of_piece).collect() {
            for (label, predicted) in piece? {
                counts[label as usize][0] += 1;
                counts[predicted as usize][1] += 1;
                right += usize::from(label == predicted);
            }
        }
        if counts.iter().filter(|c| c[0] > 0).count() < 2 {
            return Ok(None);
        }
        let both = |c: &[u64; 2]| c[0] as f64 * c[1] as f64;
        let chance = counts.iter().map(both).sum::<f64>() / (rows.len() as f64).powi(2);
        Ok(Some(Agreement { right, rows: rows.len(), chance }))
    }

    /// Whether that is hardly more than chance: a tenth of the way to all, or three standard
    /// deviations. Of too few rows for these nothing is said.
    pub fn near_chance(&self) -> bool {
        let (n, chance) = (self.rows as f64, self.chance);
        let deviation = (chance * (1.0 - chance) / n).sqrt();
        let more = chance + (3.0 * deviation).max(0.1 * (1.0 - chance));
        more < 1.0 && (self.right as f64 / n) < more
    }
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = 100.0 * self.right as f64 / self.rows as f64;
        let Agreement { right, rows, chance } = self;
        write!(
            f,
            "the classifier gets {right} of {rows} labelled rows right ({percent:.1} %; chance: {:.1} %)",
            100.0 * chance
        )
    }
}

/// What is worth knowing of a classifier and its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// How far they agree.
    pub notes: Vec<String>,
    /// What must be wrong.
    pub warnings: Vec<String>,
}

/// Whether the head is that of the network that made a set's features, and how far labels
/// and classifier agree, of at most 10,000 rows.
///
/// # Errors
/// If rows cannot be read.
pub fn remarks(set: &FeatureSet, head: Option<&Head>) -> Result<Remarks> {
    let (mut remarks, name) = (Remarks::default(), set.name());
    let made_by = set.origin().and_then(|origin| origin.head_sha256.clone());
    if let (Some(theirs), Some(head)) = (made_by, head)
        && theirs != head.digest()
    {
        let problem = "the head given is not that of the network that made the features";
        remarks.warnings.push(format!("{name}: {problem}"));
    }
    match Agreement::of(set, head)? {
        Some(agreement) if agreement.near_chance() => remarks.warnings.push(format!(
            "{name}: {agreement}. Do head, logits and labels belong together? They may be \
             another network's or another list of classes; a matrix in column order (numpy's \
             `order='F'`, scikit-learn's `coef_`) is scrambled by `safetensors.numpy`: save \
             `np.ascontiguousarray(W)`"
        )),
        Some(agreement) => remarks.notes.push(format!("{name}: {agreement}")),
        None => {}
    }
    Ok(remarks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: of 100 rows at chance 0.1 three standard deviations are 0.09, of 6 at 0.5 they are
    /// 0.61, more than there is room for.
    #[test]
    fn what_is_near_chance() {
        for (right, rows, chance, near) in [
            (18, 100, 0.1, true),
            (20, 100, 0.1, false),
            (3, 180, 0.17, true),
            (0, 6, 0.5, false),
            (6, 6, 0.5, false),
            // A tenth of the way to all, where rows are many.
            (1050, 10_000, 0.01, true),
            (1200, 10_000, 0.01, false),
        ] {
            let agreement = Agreement { right, rows, chance };
            assert_eq!(agreement.near_chance(), near, "{agreement}");
        }
    }
}
