//! Rows that two sets have in common, though they were computed by different programs.

use super::bank::{Order, QUERIES, gather};
use super::index::Neighbours;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Field};
use crate::math::parallel::{Indices, Pieces};
use crate::math::{blocks, reduce};

/// Bytes of the rows that are compared with at a time.
const TOGETHER: usize = 256 << 20;

/// The rows of `set`, ascending, whose `field` lies within `fraction` of its own norm of a row of
/// `among`. The same image through the same network differs from program to program in the last
/// bits, by which rows are known by no hash.
///
/// # Errors
/// If a set lacks the field, they have other dimensions, or a value is not finite.
pub fn rows_near(
    set: &FeatureSet,
    among: &FeatureSet,
    field: Field,
    fraction: f64,
) -> Result<Vec<u32>> {
    let (dim, theirs) = (set.require(field)?, among.require(field)?);
    if dim != theirs {
        return Err(Error::Shape {
            place: among.name().into(),
            tensor: field.name().into(),
            expected: format!("[?, {dim}] as in {}", set.name()),
            got: format!("[{}, {theirs}]", among.len()),
        });
    }
    let queries: Vec<_> = blocks(set.len(), QUERIES).collect();
    let mut found = vec![false; set.len()];
    for block in blocks(among.len(), (TOGETHER / 4 / dim.max(1)).max(1)) {
        let rows = gather(block.len(), dim, |range| {
            let mut rows = vec![0.0; range.len() * dim];
            among.read(field, block.start + range.start..block.start + range.end, &mut rows)?;
            Ok(rows)
        })?;
        let index = Neighbours::new(rows, dim, Order::Distance);
        let near = |i: usize| -> Result<Vec<bool>> {
            let range = queries[i].clone();
            if found[range.clone()].iter().all(|found| *found) {
                return Ok(vec![true; range.len()]);
            }
            let mut rows = vec![0.0; range.len() * dim];
            set.read(field, range, &mut rows)?;
            let nearest = index.nearest(&rows, 1);
            let within = |(row, nearest): (&[f32], Vec<(f64, u32)>)| {
                let most = fraction * fraction * reduce::norm2(row);
                nearest.first().is_some_and(|(distance2, _)| *distance2 <= most)
            };
            Ok(rows.chunks_exact(dim).zip(nearest).map(within).collect())
        };
        let blocks = (0..queries.len()).into_par_iter().map(near).collect();
        for (range, near) in queries.iter().zip(blocks) {
            found[range.clone()].iter_mut().zip(near?).for_each(|(found, near)| *found |= near);
        }
    }
    Ok((0..).zip(found).filter(|(_, found)| *found).map(|(row, _)| row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Pooling;
    use crate::math::rng::{Purpose, Stream};
    use ndarray::Array2;

    fn set(values: &[f32]) -> FeatureSet {
        let rows = Array2::from_shape_vec((values.len() / 16, 16), values.to_vec()).unwrap();
        FeatureSet::from_arrays(rows.view(), None).unwrap()
    }

    /// Of 700 rows 200 are in the other set, as they are, in half precision, and a little more or
    /// less than one percent off.
    #[test]
    fn rows_are_known_again_within_a_fraction_of_their_norm() {
        let avg = Field::Features(Pooling::Avg);
        let mut values = vec![0.0; 900 * 16];
        Stream::new(8, Purpose::User, 0, 0).fill_normal(&mut values);
        let ours = set(&values[..700 * 16]);
        let mut theirs = values[500 * 16..].to_vec();
        for (i, row) in theirs.chunks_exact_mut(16).take(200).enumerate() {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            match i % 4 {
                0 => {}
                1 => row.iter_mut().for_each(|v| *v = half::f16::from_f32(*v).to_f32()),
                2 => row[i % 16] += 0.0099 * norm,
                _ => row[i % 16] += 0.0101 * norm,
            }
        }
        let found = rows_near(&ours, &set(&theirs), avg, 0.01).unwrap();
        let want: Vec<u32> = (500..700).filter(|i| i % 4 != 3).collect();
        assert_eq!(found, want);
        let narrow = Array2::zeros((3, 5));
        let narrow = FeatureSet::from_arrays(narrow.view(), None).unwrap();
        let error = rows_near(&ours, &narrow, avg, 0.01).unwrap_err().to_string();
        assert!(error.contains("[3, 5], expected [?, 16]"), "{error}");
    }
}
