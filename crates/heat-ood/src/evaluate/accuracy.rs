//! Accuracy of the classifier itself.

use crate::error::Result;
use crate::features::{Batch, FeatureSet, Field, FieldSet, Head, Pooling};
use crate::math::matmul::Aligned;
use crate::math::{blocks, reduce};

/// Rows read at once.
const ROWS: usize = 1024;

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
        set.batch(needs, range.clone(), &mut batch)?;
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
