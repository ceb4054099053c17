//! The replay buffer of persistent contrastive divergence (METHOD §4).
//!
//! Final samples of earlier steps, the oldest overwritten first. Once it is
//! half full, a fraction 1 − `restart_prob` of each batch starts from rows drawn
//! from it.
//!
//! Reference: Tieleman, *Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient*, ICML 2008; Du and Mordatch, NeurIPS 2019.

use crate::error::{Error, Result};
use crate::io::{Tensor, TensorFile, check_memory};
use crate::math::rng::{Purpose, Stream};

/// Most numbers in the buffer: 16 GiB.
const MAX_SIZE: usize = 1 << 32;

/// Samples of earlier steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Replay {
    dim: usize,
    capacity: usize,
    restart_prob: f64,
    rows: Vec<f32>,
    /// The class of each row, where chains have one.
    labels: Vec<u32>,
    /// Where the next row goes once the buffer is full.
    next: usize,
}

impl Replay {
    pub fn new(dim: usize, capacity: usize, restart_prob: f64) -> Result<Self> {
        let size = capacity.checked_mul(dim).filter(|n| *n <= MAX_SIZE);
        let Some(size) = size.filter(|_| capacity > 0) else {
            let problem = format!("between 1 and {} rows of {dim} are possible", MAX_SIZE / dim);
            return Err(Error::config("ebm.model.buffer_size", capacity, problem));
        };
        check_memory("the buffer of chains (`ebm.model.buffer_size`)", Some(4 * size))?;
        let (rows, labels) = (Vec::with_capacity(size), Vec::with_capacity(capacity));
        Ok(Replay { dim, capacity, restart_prob, rows, labels, next: 0 })
    }

    fn len(&self) -> usize {
        self.rows.len() / self.dim
    }

    /// Replace the first (1 − restart_prob)·B starting points, and their
    /// labels, by rows of the buffer.
    pub fn draw(&self, seed: u64, step: u64, out: &mut [f32], labels: &mut [u32]) {
        if 2 * self.len() < self.capacity {
            return;
        }
        let batch = out.len() / self.dim;
        let from_buffer = ((1.0 - self.restart_prob) * batch as f64).round() as usize;
        let mut stream = Stream::new(seed, Purpose::Replay, step, 0);
        for (i, row) in out.chunks_exact_mut(self.dim).take(from_buffer).enumerate() {
            let j = stream.below(self.len() as u32) as usize;
            row.copy_from_slice(&self.rows[j * self.dim..][..self.dim]);
            if let (Some(to), Some(&from)) = (labels.get_mut(i), self.labels.get(j)) {
                *to = from;
            }
        }
    }

    /// Take in final samples.
    pub fn push(&mut self, rows: &[f32], labels: &[u32]) {
        for (i, row) in rows.chunks_exact(self.dim).enumerate() {
            let label = labels.get(i).copied();
            if self.len() < self.capacity {
                self.rows.extend_from_slice(row);
                self.labels.extend(label);
                continue;
            }
            self.rows[self.next * self.dim..][..self.dim].copy_from_slice(row);
            if let Some(label) = label {
                self.labels[self.next] = label;
            }
            self.next = (self.next + 1) % self.capacity;
        }
    }

    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let labels = self.labels.iter().map(|&l| i64::from(l)).collect();
        vec![
            ("replay.rows".into(), Tensor::f32([self.len(), self.dim], self.rows.clone())),
            ("replay.labels".into(), Tensor::i64([self.labels.len()], labels)),
            ("replay.next".into(), Tensor::i64([1], vec![self.next as i64])),
        ]
    }

    /// Read back what [`Replay::tensors`] gave; every row has a
    /// label below `classes`, or none has one where chains have no class.
    pub fn load(&mut self, file: &TensorFile, classes: Option<usize>) -> Result<()> {
        let len = file.shape("replay.rows")?.first().copied().unwrap_or(0);
        let rows = file.f32("replay.rows", &[len, self.dim])?;
        let count = file.shape("replay.labels")?.iter().product();
        let labels = file.i64("replay.labels", &[count])?;
        let next = file.i64("replay.next", &[1])?[0];
        let label = |l: i64| u32::try_from(l).ok().filter(|l| Some(*l as usize) < classes);
        let labels: Option<Vec<u32>> = labels.into_iter().map(label).collect();
        let sound = len <= self.capacity
            && count == classes.map_or(0, |_| len)
            && usize::try_from(next).is_ok_and(|n| n < self.capacity);
        match labels {
            Some(labels) if sound => {
                self.rows.extend(rows);
                self.labels.extend(labels);
                self.next = next as usize;
                Ok(())
            }
            _ => Err(Error::format(file.path(), "its replay buffer contradicts itself")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Capacity 4: fills, then overwrites the oldest.
    #[test]
    fn overwrites_the_oldest() {
        let mut replay = Replay::new(1, 4, 0.5).unwrap();
        let mut out = [-1.0, -1.0];
        replay.push(&[1.0], &[]);
        replay.draw(0, 0, &mut out, &mut []);
        assert_eq!(out, [-1.0, -1.0], "less than half full");
        replay.push(&[2.0, 3.0, 4.0, 5.0], &[]);
        assert_eq!(replay.rows, [5.0, 2.0, 3.0, 4.0]);
        replay.draw(0, 0, &mut out, &mut []);
        assert!(out[0] >= 2.0 && out[1] == -1.0, "{out:?}");
    }
}
